//! `shiftwise deploy`.

use std::path::PathBuf;

use serde_json::{Map, Value, json};
use shiftwise::deployment::{Deployment, adjusted, gaps};
use shiftwise_formats::files::Set;
use shiftwise_formats::{self as format, LoadOptions};
use shiftwise_graph::error::Error;
use shiftwise_quant::qat::{DeployOptions, deploy};

use crate::data;
use crate::data::{Custom, Preprocess};
use crate::outcome::{Outcome, pretty};
use crate::quantize::add_exports;
use crate::recipe::setting;
use crate::screen::Screen;
use shiftwise::export::Format;
use shiftwise_formats::Model;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Trained network: qat.h5, ours or the vendor's
    #[arg(value_name = "QAT")]
    model: PathBuf,
    /// Folder for quantized.h5, quantize_info.json and provenance.json
    #[arg(long, default_value = "quantize_results", value_name = "DIR")]
    output_dir: PathBuf,
    /// Formats to write
    #[arg(long, default_value = "h5", value_delimiter = ',', value_name = "LIST", value_parser = ["h5", "onnx", "tf", "pb", "xmodel", "c"])]
    output_format: Vec<String>,
    #[command(flatten)]
    onnx: crate::export::Onnx,
    /// An argument of the vendor's get_deploy_model: convert_to_pof2s_quantize_strategy (true),
    /// convert_to_fs_quantize_strategy (false), use_fixneuron_quant (0)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Data to compare the trained network with what it becomes
    #[arg(long, value_name = "DATA")]
    data: Vec<String>,
    #[command(flatten)]
    custom: Custom,
    #[command(flatten)]
    pub(crate) preprocess: Preprocess,
}

/// Samples that networks are compared on.
const COMPARED: usize = 64;

/// The results; where they came from is their manifest.
const QUANTIZED: &str = "quantized.h5";
const INFO: &str = "quantize_info.json";
const PROVENANCE: &str = "provenance.json";

/// Arguments of the vendor's that change nothing here, or are options of the command.
const PASSED_OVER: [&str; 6] =
    ["use_framework_quant", "output_format", "onnx_opset_version", "output_dir", "add_shape_info", "input_shape"];

fn options(set: &[String], screen: &Screen) -> Result<DeployOptions, Error> {
    let mut options = DeployOptions::default();
    for text in set {
        let (key, value) = setting(text)?;
        let flag = || {
            value
                .as_bool()
                .ok_or_else(|| Error::Options(format!("`{key}` is set to {value}; true or false is expected")))
        };
        match key {
            "convert_to_pof2s_quantize_strategy" => options.to_pof2s = flag()?,
            "convert_to_fs_quantize_strategy" => options.to_fs = flag()?,
            "use_fixneuron_quant" => match value.as_u64() {
                Some(n) if n <= 1 => options.fix_neuron = n == 1,
                _ => return Err(Error::Options(format!("`{key}` is set to {value}; 0 or 1 is expected"))),
            },
            key if PASSED_OVER.contains(&key) => screen.note(format!("warning: `{key}` changes nothing here")),
            key => {
                return Err(Error::Options(format!(
                    "`{key}` is no argument of deploy; convert_to_pof2s_quantize_strategy, convert_to_fs_quantize_strategy and \
                     use_fixneuron_quant are"
                )));
            }
        }
    }
    Ok(options)
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let deploying = options(&args.set, screen)?;
    let load = LoadOptions { custom: args.custom.layers()?, ..LoadOptions::default() };
    let qat = format::load_training(&args.model, &load)?;
    let deployed = deploy(&qat, &deploying)?;
    for change in &deployed.changes {
        screen.detail(format!("{} moved a position at {}", change.rule, change.layer));
    }
    let quantized = &deployed.quantized;
    let outputs = match args.data.is_empty() {
        true => Vec::new(),
        false => gaps(&qat, &deployed, &args.preprocess.for_quantized(&args.data, quantized, screen)?, COMPARED)?,
    };
    let file = args.output_dir.join(QUANTIZED);
    data::keep([args.model.as_path()], &[&file, &args.output_dir.join(INFO), &args.output_dir.join(PROVENANCE)])?;
    let info = format::quantize_info(quantized);
    let bytes = format::quantized_bytes(quantized, &file)?;
    format::read_back(quantized, &bytes, &file, &load)?;
    let said: Map<String, Value> = [("set".to_owned(), json!(args.set))].into_iter().collect();
    let provenance = shiftwise::provenance::provenance(&said, &[("model", args.model.as_path())])?;
    let mut set = Set::new(&args.output_dir, PROVENANCE)?;
    if args.output_format.iter().any(|name| name == Format::H5.name()) {
        set.add(QUANTIZED, &bytes)?;
    }
    add_exports(&mut set, &Model::Quantized(quantized.clone()), &args.output_format, args.onnx)?;
    set.add(INFO, pretty(&info).as_bytes())?;
    set.commit(provenance.as_object().cloned().unwrap_or_default())?;
    let db = |value: Option<f64>| value.map_or_else(|| "equal".to_owned(), |db| format!("{db:.1} dB"));
    if !outputs.is_empty() {
        let row = |gap: &shiftwise::deployment::Gap| vec![gap.output.clone(), db(gap.deployed_db), db(gap.integers_db)];
        screen.table(&["output", "deployed", "exact integers"], 1, &outputs.iter().map(row).collect::<Vec<_>>());
    }
    let count = info.as_array().map_or(0, Vec::len);
    screen.say(format!("{count} tensors quantized, {} positions adjusted; {}", deployed.changes.len(), file.display()));
    Outcome::done(Deployment { quantized: file, quantize_info: info, adjusted: adjusted(&deployed), outputs })
}
