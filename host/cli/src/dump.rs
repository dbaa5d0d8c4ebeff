//! `shiftwise dump` and `shiftwise compare`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;
use shiftwise::dump;
use shiftwise::dump::{Dump, Dumped};
use shiftwise::golden::{DumpOptions, Numerics, golden};
use shiftwise::part::Whole;
use shiftwise_formats::Model;
use shiftwise_graph::dtype::Dtype;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples as _;
use shiftwise_quant::metadata::Metadata;
use shiftwise_quant::quant_graph::QuantGraph;

use crate::data::{ModelArgs, Preprocess, take};
use crate::outcome::Outcome;
use crate::screen::{Screen, count};
use crate::shards::ShardArgs;

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
    #[command(flatten)]
    shards: ShardArgs,
}

pub(crate) fn numerics(text: &str) -> Result<Numerics, String> {
    match text {
        "dpu" => Ok(Numerics::Dpu),
        "vendor" => Ok(Numerics::Vendor),
        _ => Err("dpu or vendor is expected".into()),
    }
}

/// The model in its quantized form.
fn opened(args: &Args, screen: &Screen) -> Result<QuantGraph, Error> {
    match args.model.open_for(&args.data, &args.preprocess, screen)? {
        Model::Quantized(quantized) => Ok(quantized),
        // Converted instead of quantized: the vendor's dump of such a model has floats or nothing.
        Model::Float(graph) if graph.nodes.iter().any(|node| node.dtype != Dtype::Float32) => {
            Ok(QuantGraph { graph, layers: BTreeMap::new(), metadata: Metadata::default(), trained: false })
        }
        Model::Float(_) => Err(Error::wrong_kind(&args.model.path, "is a float model, a quantized one is expected")),
    }
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let quantized = opened(args, screen)?;
    let samples = match args.weights_only {
        true => None,
        false => Some(args.preprocess.for_quantized(&args.data, &quantized, screen)?),
    };
    let options = DumpOptions { float: args.dump_float, weights_only: args.weights_only, vendor_gaps: false };
    if let Some(shard) = args.shards.shard() {
        let samples = samples
            .ok_or_else(|| Error::Options("weights are the same in every shard: dump them in one run".into()))?;
        let total = args.samples.min(samples.len());
        let own = shard.range(total, "samples")?;
        let inputs = samples.batch(own.start, own.len())?;
        let all = golden(&quantized, Some(inputs), args.numerics, &options)?;
        let dir = shard_dir(args, shard.number, shard.of);
        dump::write(&dir, &all, false)?;
        let models: Vec<&Path> = args.model.files().map(PathBuf::as_path).collect();
        return args.shards.write(("dump", shard), &models, (total, own.len()), json!(dir), screen);
    }
    let inputs = samples.map(|samples| take(&samples, Some(args.samples))).transpose()?;
    written(args, &golden(&quantized, inputs, args.numerics, &options)?, screen)
}

/// Where a shard's dump lies until it is merged.
fn shard_dir(args: &Args, number: usize, of: usize) -> PathBuf {
    let mut name = args.output_dir.clone().into_os_string();
    name.push(format!(".{number}-of-{of}"));
    name.into()
}

/// What all shards of a run have dumped.
pub(crate) fn merge(args: &Args, whole: &Whole, screen: &Screen) -> Result<Outcome, Error> {
    let quantized = opened(args, screen)?;
    let samples = args.preprocess.for_quantized(&args.data, &quantized, screen)?;
    let models: Vec<&Path> = args.model.files().map(PathBuf::as_path).collect();
    whole.check(&models, args.samples.min(samples.len()))?;
    let mut all = Dump::default();
    for (k, dir) in whole.answers::<PathBuf>()?.into_iter().enumerate() {
        let own = dump::read(&dir)?;
        if k == 0 { all = own } else { all.append(own)? }
    }
    written(args, &all, screen)
}

/// Writes a dump and says what is in it.
fn written(args: &Args, all: &Dump, screen: &Screen) -> Result<Outcome, Error> {
    dump::write(&args.output_dir, all, true)?;
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
