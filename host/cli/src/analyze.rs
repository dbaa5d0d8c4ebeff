//! `shiftwise analyze`: where quantization hurts, why, and what helps.

use std::path::PathBuf;

use shiftwise::analyze::answers::Answers;
use shiftwise::analyze::{Analysis, LayerAnalysis, Request, analyze};
use shiftwise::dataset;
use shiftwise::device::Device;
use shiftwise::report::Report;
use shiftwise_formats::{self as format, Model};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;

use crate::data::{ModelArgs, Preprocess};
use crate::noise::{db, summary};
use crate::outcome::Outcome;
use crate::recipe::Recipe;
use crate::screen::Screen;
use crate::{data, report};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    recipe: Recipe,
    #[command(flatten)]
    pub(crate) preprocess: Preprocess,
    /// Data to measure on [default: the calibration data]; [NAME=]DATA, once per input
    #[arg(long, value_name = "DATA")]
    data: Vec<String>,
    /// Class of each sample, which counts right answers and confusions on all samples: .npy, or .npz[:key]
    #[arg(long, value_name = "DATA")]
    labels: Option<String>,
    /// Samples at most to measure noise on
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = crate::outcome::positive())]
    samples: usize,
    /// DPU that the network is for: what it can't do is not proposed
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Write the strategy with the remedies that are worth it, for `quantize --strategy-file`
    #[arg(long, value_name = "FILE.json")]
    emit: Option<PathBuf>,
    /// Write a page about it
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
    /// Don't try remedies, each of which takes a calibration
    #[arg(long, conflicts_with = "emit")]
    quick: bool,
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let device = args.target.as_deref().map(Device::named).transpose()?;
    let read = [args.recipe.calib_files(), data::files(&args.data)].concat();
    let labels = args.labels.as_ref().map(|labels| args.preprocess.spec(labels));
    let inputs = args.model.files().chain(&read).chain(labels.as_ref().map(|spec| &spec.path));
    let outputs: Vec<_> = args.emit.iter().chain(&args.html).map(PathBuf::as_path).collect();
    data::keep(inputs.map(PathBuf::as_path), &outputs)?;
    let Model::Float(graph) = args.recipe.open(&args.model, &args.preprocess, screen)? else {
        let what = "is a quantized model; the float one is analyzed, with the data that calibrates it";
        return Err(Error::wrong_kind(&args.model.path, what));
    };
    let options = args.recipe.options_of_ptq(screen)?;
    if args.recipe.calib.is_empty() {
        return Err(Error::Dataset("an analysis needs data: pass --calib DATA".into()));
    }
    let quantized = args.recipe.quantize(Model::Float(graph.clone()), &args.preprocess, screen)?.quantized;
    let calibration = args.preprocess.for_graph(&args.recipe.calib, &graph)?;
    let own = if args.data.is_empty() { None } else { Some(args.preprocess.for_graph(&args.data, &graph)?) };
    let samples: &dyn Samples = match &own {
        Some(own) => own,
        None => &calibration,
    };
    let labels = labels.map(|spec| dataset::labels(&spec)).transpose()?;
    let request = Request {
        graph: &graph,
        options: &options,
        quantized: &quantized,
        calibration: &calibration,
        samples,
        most: args.samples,
        remedies: !args.quick,
        for_dpu: device.is_some(),
        effects: true,
        labels: labels.as_deref(),
    };
    let (analysis, strategy) = analyze(&request)?;
    show(&analysis, screen);
    if let Some(path) = &args.emit {
        let proposed = strategy.as_ref().unwrap_or(&options.strategy);
        format::write_file(path, format!("{}\n", proposed.dump(2)).as_bytes())?;
        match analysis.proposed_gain_db {
            Some(gain) => screen.say(format!("{}: {}, {gain:+.1} dB", path.display(), analysis.proposed.join(", "))),
            None => screen.say(format!("{}: the strategy as it is, no remedy is worth it", path.display())),
        }
    }
    if let Some(path) = &args.html {
        let inspection = report::inspection(&args.model, &Model::Float(graph.clone()), &options, device.as_ref())?;
        let provenance = args.recipe.provenance(&args.model, &args.preprocess)?;
        let page =
            Report { output: path.clone(), inspection, timing: None, analysis: Some(analysis.clone()), provenance };
        format::write_file(path, page.html().as_bytes())?;
        screen.say(format!("page in {}", path.display()));
    }
    Outcome::done(analysis)
}

fn show(analysis: &Analysis, screen: &Screen) {
    let row = |l: &LayerAnalysis| {
        let spare = l.spare_accumulator_bits.map_or_else(String::new, |bits| bits.to_string());
        let clipped = if l.range.is_some() { format!("{:.2} %", 100.0 * l.saturated) } else { String::new() };
        vec![l.layer.clone(), db(l.alone_sqnr_db), db(l.sqnr_db), clipped, spare]
    };
    let rows: Vec<Vec<String>> = analysis.layers.iter().map(row).collect();
    screen.table(&["layer", "alone dB", "up to here dB", "clipped", "spare bits"], 1, &rows);
    screen.say("");
    for layer in analysis.worst(5) {
        for cause in layer.causes.iter().take(2) {
            let remedy = match (&cause.remedy, cause.gain_db) {
                (Some(remedy), Some(gain)) => format!("; {remedy}: {gain:+.1} dB at the outputs"),
                (Some(remedy), None) => format!("; {remedy}"),
                (None, _) => String::new(),
            };
            screen.say(format!("{} ({} dB alone): {}{remedy}", layer.layer, db(layer.alone_sqnr_db), cause.cause));
        }
    }
    effects(analysis, screen);
    for gain in &analysis.remedies {
        let layer = gain.layer.as_ref().map_or_else(String::new, |l| format!(" at {l}"));
        let cpu = if gain.on_dpu { "" } else { ", which the CPU then does" };
        screen.say(format!("{:+.1} dB: {}{layer}{cpu}", gain.gain_db, gain.what));
    }
    screen.say(summary(analysis));
}

/// What the worst layers do to the outputs, and what becomes of the answers.
fn effects(analysis: &Analysis, screen: &Screen) {
    let worst = analysis.worst(5).into_iter();
    let rows: Vec<String> =
        worst.filter_map(|l| Some(format!("{} {} dB", l.layer, db(Some(l.at_outputs_db?))))).collect();
    if !rows.is_empty() {
        screen.say(format!("at the outputs, if one layer alone is quantized: {}", rows.join(", ")));
    }
    if let Some(own) = &analysis.answers {
        answers(own, screen);
    }
}

fn answers(own: &Answers, screen: &Screen) {
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    screen.say(format!(
        "answers on {} samples: {} agree, divergence (KL) {:.4} nats",
        own.samples,
        percent(own.agreement),
        own.kl
    ));
    if let Some(labelled) = &own.labelled {
        let (float, quantized) = (percent(labelled.float_top1), percent(labelled.quantized_top1));
        screen.say(format!("right answers: {float} in floats, {quantized} quantized"));
    }
    for change in own.changes.iter().take(5) {
        let label = change.label.map_or_else(String::new, |label| format!("label {label}: "));
        let (float, quantized) = (change.float, change.quantized);
        screen.say(format!("  {label}{float} in floats, {quantized} quantized: {} samples", change.samples));
    }
}
