//! `shiftwise quantize`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use shiftwise::export;
use shiftwise::part::{Shard, Whole};
use shiftwise::reports::{Fallback, LeftFloat, Quantization};
use shiftwise_compile::DpuOptions;
use shiftwise_formats::files::Set;
use shiftwise_formats::{self as format, LoadOptions, Model};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;
use shiftwise_integer::unquantized;
use shiftwise_quant::calibrate::{Batches, Taught};
use shiftwise_quant::finetune::Finetuned;
use shiftwise_quant::passes::dead::DeadChannels;
use shiftwise_quant::quant_graph::QuantGraph;

use crate::averages;
use crate::data;
use crate::data::{ModelArgs, Preprocess};
use crate::outcome::{Outcome, pretty};
use crate::recipe::{How, Made, Recipe};
use crate::screen::Screen;
use crate::shards::ShardArgs;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    recipe: Recipe,
    #[command(flatten)]
    pub(crate) preprocess: Preprocess,
    /// Folder for quantized.h5, quantize_info.json and provenance.json [default: quantize_results]
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Formats to write
    #[arg(long, default_value = "h5", value_delimiter = ',', value_name = "LIST", value_parser = ["h5", "onnx", "tf", "pb", "xmodel", "c"])]
    output_format: Vec<String>,
    #[command(flatten)]
    onnx: crate::export::Onnx,
    /// DPU or board whose limits decide what will run there; says what will not
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    #[command(flatten)]
    shards: ShardArgs,
}

/// The results; where they came from is their manifest.
const QUANTIZED: &str = "quantized.h5";
const INFO: &str = "quantize_info.json";
const PROVENANCE: &str = "provenance.json";

/// Adds a model in those of the formats that are not our own file's.
pub(crate) fn add_exports(
    set: &mut Set<'_>,
    model: &Model,
    formats: &[String],
    onnx: crate::export::Onnx,
) -> Result<(), Error> {
    let own = export::Format::H5;
    for format in export::Format::ALL.into_iter().filter(|f| *f != own && formats.iter().any(|name| name == f.name())) {
        for (path, bytes) in export::files(model, format, &onnx.options(), Path::new(format.file()))? {
            set.add(&path.to_string_lossy(), &bytes)?;
        }
    }
    Ok(())
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    match args.shards.shard() {
        Some(shard) => run_shard(args, shard, screen),
        None => written(args, &mut How::Whole, None, screen),
    }
}

/// Calibrates by the batches of a shard, and writes what they taught.
fn run_shard(args: &Args, shard: Shard, screen: &Screen) -> Result<Outcome, Error> {
    let Model::Float(graph) = args.recipe.open(&args.model, &args.preprocess, screen)? else {
        return Err(Error::wrong_kind(&args.model.path, "is a quantized model already, a float one is expected"));
    };
    let options = args.recipe.options_of_ptq(screen)?;
    if !options.strategy.needs_data()? {
        return Err(Error::Options("the strategy calibrates nothing: there is nothing to share".into()));
    }
    let samples = args.preprocess.for_graph(&args.recipe.calib, &graph)?.len();
    let mut how = How::Shard(shard, Taught::new());
    args.recipe.quantize_how(options.strategy, graph, &args.preprocess, &mut how, &screen.silent())?;
    let How::Shard(_, taught) = how else { return Err(Error::Run("a shard taught nothing".into())) };
    let models: Vec<&Path> = args.model.files().map(PathBuf::as_path).collect();
    let batches = Batches { size: options.batch_size, most: options.steps, vote: true }.parts(samples)?;
    let own = shard.range(batches.len(), "calibration batches")?;
    let own = batches.get(own).unwrap_or_default().iter().map(|(_, count)| count).sum();
    args.shards.write(("quantize", shard), &models, (samples, own), json!(taught), screen)
}

/// What all shards of a calibration have taught.
pub(crate) fn merge(args: &Args, whole: &Whole, screen: &Screen) -> Result<Outcome, Error> {
    let taught = whole.answers::<Taught>()?;
    written(args, &mut How::Parts(&taught), Some(whole), screen)
}

/// Quantizes and writes the results.
fn written(args: &Args, how: &mut How<'_>, whole: Option<&Whole>, screen: &Screen) -> Result<Outcome, Error> {
    let model = args.recipe.open(&args.model, &args.preprocess, screen)?;
    let Model::Float(float) = model else {
        return Err(Error::wrong_kind(&args.model.path, "is a quantized model already, a float one is expected"));
    };
    let dir = match &args.output_dir {
        Some(dir) => dir.clone(),
        None => args.recipe.output_dir(&screen.silent())?,
    };
    let file = dir.join(QUANTIZED);
    let (info_file, provenance_file) = (dir.join(INFO), dir.join(PROVENANCE));
    let calib = args.recipe.calib_files();
    let inputs = args.model.files().chain(&calib).map(PathBuf::as_path);
    data::keep(inputs, &[&file, &info_file, &provenance_file])?;
    if let Some(target) = &args.target {
        // Told before the work, not after.
        shiftwise::device::Device::named(target)?;
    }
    if let Some(whole) = whole {
        let models: Vec<&Path> = args.model.files().map(PathBuf::as_path).collect();
        whole.check(&models, args.preprocess.for_graph(&args.recipe.calib, &float)?.len())?;
    }
    let made = args.recipe.quantize_how_of(float.clone(), &args.preprocess, how, screen)?;
    let Made { quantized, mut warnings, dead_channels, finetuned } = made;
    let differences = args.recipe.averages(&quantized, &args.preprocess)?;
    averages::tell(&differences, screen);
    warnings.extend(differences.iter().map(ToString::to_string));
    let info = format::quantize_info(&quantized);
    let mut provenance = args.recipe.provenance(&args.model, &args.preprocess)?;
    let bytes = format::quantized_bytes(&quantized, &file)?;
    let options = LoadOptions { custom: args.model.custom.layers()?, ..LoadOptions::default() };
    format::read_back(&quantized, &bytes, &file, &options)?;
    shiftwise::averages::record(&differences, &bytes, &mut provenance);
    let mut set = Set::new(&dir, PROVENANCE)?;
    if args.output_format.iter().any(|name| name == export::Format::H5.name()) {
        set.add(QUANTIZED, &bytes)?;
    }
    let model = Model::Quantized(quantized);
    add_exports(&mut set, &model, &args.output_format, args.onnx)?;
    let Model::Quantized(quantized) = model else { return Err(Error::model("a quantized model is expected")) };
    set.add(INFO, pretty(&info).as_bytes())?;
    set.commit(provenance.as_object().cloned().unwrap_or_default())?;

    let text = |row: &Value, key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let entries = info.as_array().map_or(&[][..], Vec::as_slice);
    let rows: Vec<Vec<String>> = entries
        .iter()
        .map(|row| {
            let number = |key: &str| row.get(key).map(Value::to_string).unwrap_or_default();
            vec![text(row, "layer"), text(row, "role"), number("bit_width"), grid(row)]
        })
        .collect();
    let positions = entries.iter().all(|row| row.get("position").is_some());
    screen.table(&["layer", "tensor", "bits", if positions { "position" } else { "grid" }], 2, &rows);
    screen.tell("");
    let fallbacks = match &args.target {
        Some(name) => placement(&quantized, name, screen)?,
        None => Vec::new(),
    };
    let left_float = unquantized::layers(&quantized);
    for left in &left_float {
        let line = format!("{}: {}", left.layers.join(", "), left.reason);
        match left.remedy {
            Some(remedy) => screen.say(format!("{line}; {remedy}")),
            None => screen.detail(format!("left float: {line}")),
        }
    }
    tell_changes(&dead_channels, &finetuned, screen);
    let accuracy = args.recipe.accuracy(&float, &quantized, &args.preprocess, screen)?;
    let what = if quantized.layers.is_empty() { "weights converted" } else { "tensors quantized" };
    screen.say(format!("{} {what}; {}", rows.len(), file.display()));
    Outcome::done(Quantization {
        quantized: file,
        quantize_info: info,
        warnings,
        left_float: left_float.iter().map(LeftFloat::of).collect(),
        accuracy,
        averages: shiftwise::averages::rows(&differences),
        dead_channels,
        finetuned,
        target: args.target.clone(),
        on_cpu: args.target.as_ref().map(|_| fallbacks),
    })
}

/// What was learned of the float network and done to it.
fn tell_changes(dead: &[DeadChannels], finetuned: &[Finetuned], screen: &Screen) {
    let number = |v: f64| format!("{v:.3e}");
    if !dead.is_empty() {
        let row = |own: &DeadChannels| {
            let margin = own.margin.map_or_else(|| "-".to_owned(), |m| format!("{m:.3}"));
            let [before, after] = own.largest.map(|w| format!("{w:.3}"));
            vec![own.layer.clone(), own.dead.to_string(), own.constant.to_string(), margin, before, after]
        };
        let header = ["channels folded in", "dead", "constant", "margin", "largest weight", "now"];
        screen.table(&header, 1, &dead.iter().map(row).collect::<Vec<_>>());
        screen.tell("");
    }
    if !finetuned.is_empty() {
        let row =
            |own: &Finetuned| vec![own.layers.join(", "), own.done.clone(), number(own.before), number(own.after)];
        let header = ["finetuned", "what", "error before", "after"];
        screen.table(&header, 2, &finetuned.iter().map(row).collect::<Vec<_>>());
        screen.tell("");
    }
}

/// A quantizer's grid in few words: its position, or its step and zero point.
fn grid(row: &Value) -> String {
    let value = |key: &str| row.get(key).filter(|v| !v.is_null());
    // Block formats and types of layers have a name instead.
    if let Some(name) = ["data_format", "dtype"].iter().find_map(|key| value(key)?.as_str()) {
        return name.to_owned();
    }
    match (value("position"), value("scale"), value("zero_point")) {
        (Some(position), _, _) => position.to_string(),
        (None, Some(Value::Array(steps)), _) => format!("a step for each of {} channels", steps.len()),
        (None, Some(step), Some(zero)) => format!("step {step}, zero {zero}"),
        (None, _, _) => String::new(),
    }
}

/// Layers that a DPU leaves to the CPU, with the reasons.
fn placement(quantized: &QuantGraph, target: &str, screen: &Screen) -> Result<Vec<Fallback>, Error> {
    let device = shiftwise::device::Device::named(target)?;
    // Where no processor has the numbers, nothing more is asked of single layers.
    let grids = unquantized::grids(quantized);
    if !grids.is_empty() {
        let all = grids.iter().flat_map(|left| left.layers.iter().map(|layer| (layer, left.reason.to_string())));
        let all: Vec<Fallback> = all.map(|(layer, reason)| Fallback { layer: layer.clone(), reason }).collect();
        all.iter().for_each(|Fallback { layer, reason }| screen.say(format!("not on the DPU: {layer}: {reason}")));
        return Ok(all);
    }
    let integers = shiftwise_integer::lower::lower(quantized)?;
    let placement = shiftwise_compile::place(&integers, &device.target, &DpuOptions::default())?;
    let left = Fallback::all(&placement);
    for Fallback { layer, reason } in &left {
        screen.say(format!("not on the DPU: {layer}: {reason}"));
    }
    if left.is_empty() {
        screen.say(format!("every layer runs on {}", device.target.name));
    }
    Ok(left)
}
