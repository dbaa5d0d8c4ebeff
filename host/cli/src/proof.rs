//! `shiftwise verify`: the same bits in quantizer, simulator and firmware.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use shiftwise::device::Device;
use shiftwise::part::Whole;
use shiftwise::run::Tensors;
use shiftwise::verify;
use shiftwise::verify::{Check, Proof, Shown, Took, Verification};
use shiftwise_board::BoardSpec;
use shiftwise_formats::files;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples as _;

use crate::data::{ModelArgs, Preprocess};
use crate::outcome::{Outcome, pretty};
use crate::recipe::Recipe;
use crate::screen::{Screen, count};
use crate::shards::ShardArgs;
use crate::{averages, boards, data};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    recipe: Recipe,
    /// Data to run: .npy, .npz[:key], a folder of .npy or of images; [NAME=]DATA, once per input
    #[arg(long, required = true, value_name = "DATA")]
    data: Vec<String>,
    /// DPU to compile for and simulate: a name, a fingerprint, an arch.json, a board that has one; or `cpu`
    #[arg(long, value_name = "TARGET", required_unless_present = "board")]
    target: Option<String>,
    /// Board to compile for; with qemu:NAME or serial:PATH the firmware runs there too
    #[arg(long, value_name = "BOARD")]
    board: Option<String>,
    /// Samples to run, from the first
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = crate::outcome::positive())]
    samples: usize,
    /// Proof to write
    #[arg(short, long, default_value = "proof.json", value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    pub(crate) preprocess: Preprocess,
    #[command(flatten)]
    shards: ShardArgs,
}

fn say(check: &Check, screen: &Screen) {
    let what = format!("{} ({}):", check.backend, check.target);
    let (tensors, values) = (check.tensors, count(check.values));
    screen.say(format!("{what:<52} {tensors} tensors, {values} values, {} mismatches", check.mismatches));
    if let Some(first) = &check.first_mismatch {
        screen.say(format!("  first: {first}"));
    }
    for name in &check.unknown_tensors {
        screen.say(format!("  tensor {name} is not in the golden dump"));
    }
}

/// How a board is reached, and its name.
type Link<'a> = (BoardSpec, &'a str);

/// Where it is to run: on a DPU, or on the CPU where there is none; and the link to a board, with its name.
///
/// `qemu:NAME` and `serial:PATH` are links; any other name is one of the boards that `targets` lists, as in all commands.
fn places(args: &Args) -> Result<(Option<Device>, Option<Link<'_>>), Error> {
    let link = args.board.as_deref().filter(|board| board.contains(':') || args.target.is_some());
    let link = link.map(|b| Ok::<_, Error>((boards::spec(b)?, b))).transpose()?;
    let dpu = match (args.target.as_deref(), args.board.as_deref()) {
        (Some("cpu"), _) => None,
        (Some(name), _) => Some(Device::named(name)?),
        (None, Some(board)) if link.is_none() => Device::of_board(board)?,
        (None, _) => None,
    };
    Ok((dpu, link))
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let (calib, run) = (args.recipe.calib_files(), data::files(&args.data));
    let inputs = args.model.files().chain(&calib).chain(&run).map(PathBuf::as_path);
    data::keep(inputs, &[&args.output])?;
    // Bad names fail before the work, not after it.
    let (dpu, board) = places(args)?;
    let model = args.recipe.open(&args.model, &args.preprocess, screen)?;
    let quantized = args.recipe.quantize(model, &args.preprocess, screen)?.quantized;
    let samples = args.preprocess.for_quantized(&args.data, &quantized, screen)?;
    let total = samples.len();
    let shard = args.shards.shard();
    let all = args.samples.min(total);
    let own = shard.map_or(Ok(0..all), |shard| shard.range(all, "samples"))?;
    let inputs = samples.batch(own.start, own.len())?;
    let mut verification = Verification::new(&quantized, inputs)?;
    verification.first = own.start;
    averages::tell(&verification.differences, screen);
    let n = verification.golden.len();
    let file = file_name(args, &verification.graph.name);
    screen.say(format!("{file}: {n} of {total} samples (--samples for more)"));

    let compiled = verification.compile(dpu.as_ref())?;
    for layer in compiled.layers.iter().filter_map(|l| Some(format!("{}: {}", l.layer, l.reason.as_ref()?))) {
        screen.detail(format!("on the CPU: {layer}"));
    }
    match &dpu {
        Some(dpu) => verification.simulate(&compiled, dpu)?,
        None => verification.run_on_cpu(&compiled)?,
    }
    if let Some((spec, name)) = &board {
        on_board(&mut verification, spec, name, screen)?;
    }
    if let Some(shard) = shard {
        let models: Vec<&Path> = args.model.files().map(PathBuf::as_path).collect();
        let shown = verification.shown()?;
        return args.shards.write(("verify", shard), &models, (all, own.len()), json!(shown), screen);
    }
    written(args, &verification.proof(provenance(args)?)?, screen)
}

/// What all shards of a run have shown.
pub(crate) fn merge(args: &Args, whole: &Whole, screen: &Screen) -> Result<Outcome, Error> {
    let model = args.recipe.open(&args.model, &args.preprocess, screen)?;
    let quantized = args.recipe.quantize(model, &args.preprocess, screen)?.quantized;
    let samples = args.preprocess.for_quantized(&args.data, &quantized, screen)?;
    let models: Vec<&Path> = args.model.files().map(PathBuf::as_path).collect();
    let total = samples.len();
    whole.check(&models, args.samples.min(total))?;
    let mut shards = whole.answers::<Shown>()?.into_iter();
    let mut shown = shards.next().ok_or_else(|| Error::Options("there is no part to merge".into()))?;
    shards.try_for_each(|more| shown.append(more))?;
    let name = shiftwise_integer::lower::lower(&quantized)?.name;
    let proof = shown.proof(&quantized, name, provenance(args)?);
    screen.say(format!("{}: {} of {total} samples (--samples for more)", file_name(args, &proof.model), proof.samples));
    written(args, &proof, screen)
}

/// How the model is called.
fn file_name(args: &Args, network: &str) -> String {
    args.model.path.file_name().map_or_else(|| network.to_owned(), |n| n.to_string_lossy().into_owned())
}

/// Says what a proof shows, and writes it.
fn written(args: &Args, proof: &Proof, screen: &Screen) -> Result<Outcome, Error> {
    proof.checks.iter().for_each(|c| say(c, screen));
    let vendor = &proof.vendor_numerics;
    screen.say(format!(
        "{:<52} {} tensors, {} values, {} differ{}",
        "for comparison, the vendor's float arithmetic:",
        vendor.tensors,
        count(vendor.values),
        vendor.differing_values,
        if vendor.differing_values == 0 {
            ""
        } else {
            " (not a mismatch: another operation at padded averages, or sums beyond 2^24)"
        },
    ));
    let outcome = Outcome::of(proof, proof.holds)?;
    files::write_file(&args.output, pretty(&outcome.json).as_bytes())?;
    screen.say(&proof.verdict);
    screen.note(format!("proof in {}", args.output.display()));
    Ok(outcome)
}

/// Runs the firmware on a board, and compares.
fn on_board(verification: &mut Verification<'_>, spec: &BoardSpec, name: &str, screen: &Screen) -> Result<(), Error> {
    // A board without a DPU runs the same network on its CPU; `serial:` boards are such until they say otherwise.
    let own = match spec {
        BoardSpec::Qemu(_) => Device::of_board(name)?,
        BoardSpec::Serial(_) => None,
    };
    let file = verification.compile(own.as_ref())?.to_bytes(&[])?;
    let model = verify::parse(&file)?;
    let session = boards::session(spec, &file, verification.input_bytes(&model)?, screen)?;
    let tensors: Vec<Tensors> = session.samples.iter().map(shiftwise::board_run::tensors).collect();
    let instructions: u64 = session.samples.first().map_or(0, |s| s.steps.iter().sum());
    let target = format!("{} on {name}", model.facts().target);
    verification.add("firmware", target, (&model, &file), &tensors, Took::Instructions(instructions));
    Ok(())
}

fn provenance(args: &Args) -> Result<Value, Error> {
    let mut provenance = args.recipe.provenance(&args.model, &args.preprocess)?;
    let data = data::files(&args.data);
    let inputs: Vec<(&str, &Path)> = data.iter().map(|p| ("data", p.as_path())).collect();
    let of_data = shiftwise::provenance::provenance(&serde_json::Map::new(), &inputs)?;
    if let (Some(all), Some(more)) = (provenance["inputs"].as_array_mut(), of_data["inputs"].as_array()) {
        all.extend(more.iter().cloned());
    }
    Ok(provenance)
}
