//! `shiftwise dump` and `shiftwise compare`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use shiftwise::dump;
use shiftwise::dump::Dumped;
use shiftwise::golden::{DumpOptions, Numerics, golden};
use shiftwise_formats::Model;
use shiftwise_graph::dtype::Dtype;
use shiftwise_graph::error::Error;
use shiftwise_quant::metadata::Metadata;
use shiftwise_quant::quant_graph::QuantGraph;

use crate::data::{ModelArgs, Preprocess, take};
use crate::outcome::Outcome;
use crate::screen::{Screen, count};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Data: .npy, .npz[:key], a folder of .npy or of images; [NAME=]DATA, once per input
    #[arg(long, value_name = "DATA", required_unless_present = "weights_only")]
    data: Vec<String>,
    /// Folder to write
    #[arg(long, default_value = "dump_results", value_name = "DIR")]
    output_dir: PathBuf,
    /// Also write every layer's floats
    #[arg(long)]
    dump_float: bool,
    /// Only weights and biases
    #[arg(long)]
    weights_only: bool,
    /// Samples to dump, as one batch [default: the first]
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = crate::outcome::positive())]
    samples: usize,
    /// Arithmetic: dpu (exact integers) or vendor (TensorFlow's f32, the vendor's own bytes)
    #[arg(long, default_value = "dpu", value_parser = numerics)]
    numerics: Numerics,
    #[command(flatten)]
    pub(crate) preprocess: Preprocess,
}

pub(crate) fn numerics(text: &str) -> Result<Numerics, String> {
    match text {
        "dpu" => Ok(Numerics::Dpu),
        "vendor" => Ok(Numerics::Vendor),
        _ => Err("dpu or vendor is expected".into()),
    }
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let quantized = match args.model.open_for(&args.data, &args.preprocess, screen)? {
        Model::Quantized(quantized) => quantized,
        // Converted instead of quantized: the vendor's dump of such a model has floats or nothing.
        Model::Float(graph) if graph.nodes.iter().any(|node| node.dtype != Dtype::Float32) => {
            QuantGraph { graph, layers: BTreeMap::new(), metadata: Metadata::default(), trained: false }
        }
        Model::Float(_) => {
            return Err(Error::wrong_kind(&args.model.path, "is a float model, a quantized one is expected"));
        }
    };
    let inputs = match args.weights_only {
        true => None,
        false => Some(take(&args.preprocess.for_quantized(&args.data, &quantized, screen)?, Some(args.samples))?),
    };
    let options = DumpOptions { float: args.dump_float, weights_only: args.weights_only, vendor_gaps: false };
    let all = golden(&quantized, inputs, args.numerics, &options)?;
    dump::write(&args.output_dir, &all, true)?;
    let values: usize = all.weights.iter().chain(&all.activations).map(|t| t.values.len()).sum();
    let (weights, activations) = (all.weights.len(), all.activations.len());
    if values == 0 && !args.dump_float {
        screen.note("no tensor of this model has integers of one scale; --dump-float writes every layer's floats");
    }
    let place = args.output_dir.display();
    screen.say(format!("{weights} weights, {activations} activations, {} values in {place}", count(values as u64)));
    Outcome::done(Dumped { output_dir: args.output_dir.clone(), weights, activations, values })
}

#[derive(Debug, clap::Args)]
pub(crate) struct CompareArgs {
    /// A dump folder, ours or the vendor's
    first: PathBuf,
    /// Another
    second: PathBuf,
    /// Only what both have counts; otherwise a tensor that one lacks is a difference
    #[arg(long)]
    common: bool,
}

pub(crate) fn compare(args: &CompareArgs, screen: &Screen) -> Result<Outcome, Error> {
    let (first, second) = dump::read_both(&args.first, &args.second)?;
    let result = dump::compare(&first, &second);
    screen.lines(result.to_string());
    let yes = result.is_equal() && (args.common || result.is_whole());
    Outcome::of(result, yes)
}
