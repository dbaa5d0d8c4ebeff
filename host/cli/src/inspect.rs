//! `shiftwise inspect`: where each layer of a network would run, and why.

use std::path::{Path, PathBuf};

use shiftwise::device::Device;
use shiftwise::inspect::{CPU, Cost, Done, Inspection, LayerVerdict, REWRITES, Report, fix, inspect};
use shiftwise_formats::{self as format, Files, LoadOptions, Model};
use shiftwise_graph::error::Error;
use shiftwise_quant::metadata::Metadata;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::strategy::Strategy;

use crate::data;
use crate::data::ModelArgs;
use crate::outcome::Outcome;
use crate::recipe::setting;
use crate::screen::Screen;

/// Commands to begin with; behind the options.
const EXAMPLES: &str = "\
Examples:
  shiftwise inspect model.h5                               what is quantized, for any DPU
  shiftwise inspect model.h5 --target B4096 --plot m.svg   where each layer runs, and why
  shiftwise inspect model.json --board kv260 --strict      exit 1 unless the DPU does all
  shiftwise inspect model.h5 --target B4096 --fix new.h5   do the rewrites that it proposes";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// DPU that decides: a name, a fingerprint, an arch.json [default: none, a layer that is quantized counts as the DPU's]
    #[arg(long, value_name = "TARGET", conflicts_with = "board")]
    target: Option<String>,
    /// Board whose DPU decides
    #[arg(long, value_name = "BOARD")]
    board: Option<String>,
    /// Quantize strategy; the vendor's inspector has pof2s alone
    #[arg(long, default_value = "pof2s", value_name = "NAME", value_parser = ["pof2s", "8bit"])]
    strategy: String,
    /// Overrides and additions to the strategy, by the vendor's rules
    #[arg(long, value_name = "FILE")]
    custom_strategy: Option<PathBuf>,
    /// Set one of the vendor's keyword arguments, as `quantize --set`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Write the results as the vendor's inspector does, layer by layer; -v adds notes of layers on the DPU
    #[arg(long, value_name = "FILE.txt")]
    dump_results: Option<PathBuf>,
    /// Draw the network, with hints as text and tooltips
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Write the model as it would be quantized, without positions that mean anything
    #[arg(long, value_name = "FILE.h5")]
    dump_model: Option<PathBuf>,
    /// Do the rewrites that let the DPU do more, and write the model
    #[arg(long, value_name = "FILE.h5")]
    fix: Option<PathBuf>,
    /// Exit with 1 unless the DPU does every layer
    #[arg(long)]
    strict: bool,
}

impl Args {
    fn device(&self) -> Result<Option<Device>, Error> {
        match (&self.target, &self.board) {
            (Some(name), _) => Device::named(name).map(Some),
            (None, Some(board)) => Device::of_board(board)?
                .map(Some)
                .ok_or_else(|| Error::Target(format!("{board} has no DPU; its CPU does every layer"))),
            (None, None) => Ok(None),
        }
    }

    fn strategy(&self, screen: &Screen) -> Result<Strategy, Error> {
        let mut strategy = Strategy::built_in(&self.strategy)?;
        if let Some(path) = &self.custom_strategy {
            strategy.update(&crate::strategy::read(path)?)?;
        }
        for text in &self.set {
            let (key, value) = setting(text)?;
            if let Some(warning) = strategy.set(key, value)? {
                screen.note(format!("warning: {warning}"));
            }
        }
        Ok(strategy)
    }

    fn outputs(&self) -> Vec<&Path> {
        let files = [&self.dump_results, &self.plot, &self.dump_model, &self.fix];
        files.into_iter().flatten().map(PathBuf::as_path).collect()
    }

    /// Told before the work, not after.
    fn check(&self) -> Result<(), Error> {
        if let Some(plot) = &self.plot
            && plot.extension().is_none_or(|end| !end.eq_ignore_ascii_case("svg"))
        {
            return Err(Error::Options(format!(
                "--plot {}: .svg is drawn; a browser or rsvg-convert makes other pictures of it",
                plot.display()
            )));
        }
        if self.fix.is_some() && self.target.is_none() && self.board.is_none() {
            return Err(Error::Options(
                "--fix needs --target or --board: its limits say what is to be rewritten".into(),
            ));
        }
        data::keep(self.model.files().map(PathBuf::as_path), &self.outputs())
    }
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    args.check()?;
    let device = args.device()?;
    let strategy = args.strategy(screen)?;
    let model = args.model.open_for_timing(screen)?;
    let layers = format::user_layers(shiftwise::evaluate::graph(&model), Some(&Files::open(&args.model.path)?));
    let inspection = inspect(&model, &layers, &strategy, device.as_ref())?;
    show(&inspection, screen);
    if let Some(path) = &args.dump_results {
        format::write_file(path, inspection.text(screen.verbose()).as_bytes())?;
        screen.say(format!("results in {}", path.display()));
    }
    if let Some(path) = &args.plot {
        format::write_file(path, inspection.svg().as_bytes())?;
        screen.say(format!("picture in {}", path.display()));
    }
    if let Some(path) = &args.dump_model {
        format::save_quantized(&inspection.quantized, path)?;
        screen.say(format!("model in {}", path.display()));
    }
    let fixed = match (&args.fix, &device) {
        (Some(path), Some(device)) => Some(rewrite(args, &model, device, path, screen)?),
        _ => None,
    };
    let yes = !args.strict || inspection.all_on_dpu();
    Outcome::of(Report { inspection, fixed }, yes)
}

/// Layers, reasons, sums, and what could be done.
fn show(inspection: &Inspection, screen: &Screen) {
    let price = |l: &LayerVerdict| l.fallbacks.iter().map(|f| f.cpu_us).sum::<f64>();
    let rows: Vec<Vec<String>> = inspection
        .layers
        .iter()
        .map(|l| {
            let us = if l.fallbacks.is_empty() { String::new() } else { format!("~{:.0}", price(l)) };
            vec![l.layer.clone(), l.class.clone(), l.device.clone(), us]
        })
        .collect();
    screen.table(&["layer", "type", "on", "µs on the CPU"], 3, &rows);
    screen.say("");
    for layer in inspection.layers.iter().filter(|l| l.device.contains(CPU) || screen.verbose()) {
        for note in &layer.notes {
            screen.say(format!("{}: {note}", layer.layer));
        }
    }
    for cut in inspection.cuts.iter().filter(|cut| cut.between) {
        screen.say(format!("removing the cut at {} saves up to {:.0} µs", cut.layers.join(", "), cut.saves_us));
    }
    for p in &inspection.rewrites {
        let exact = if p.exact { "" } else { "; it changes results" };
        let (before, after) = (p.before, p.after);
        screen.say(format!(
            "--fix can do {} ({}) at {}: {:.0} µs become {:.0} µs, {} pieces on the DPU become {}{exact}",
            p.rewrite,
            p.what,
            p.layers.join(", "),
            before.total_us,
            after.total_us,
            before.subgraphs,
            after.subgraphs
        ));
    }
    screen.say(sum(inspection));
    if inspection.target.is_none() {
        screen.note("without --target only what holds of every DPU is told");
    }
}

/// How many layers run where, and the time.
fn sum(inspection: &Inspection) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for layer in &inspection.layers {
        match counts.iter_mut().find(|(device, _)| *device == layer.device) {
            Some((_, count)) => *count += 1,
            None => counts.push((&layer.device, 1)),
        }
    }
    let counts: Vec<String> = counts.iter().map(|(device, count)| format!("{count} {device}")).collect();
    let target = inspection.target.as_deref().map_or_else(String::new, |t| format!(" on {t}"));
    let cost = inspection.cost.map_or_else(String::new, |Cost { subgraphs, dpu_us, cpu_us, total_us }| {
        let pieces = if subgraphs == 1 { "piece" } else { "pieces" };
        format!("; {subgraphs} {pieces} on the DPU, {dpu_us:.0} µs there and about {cpu_us:.0} µs on the CPU, {total_us:.0} µs a frame")
    });
    format!("{} layers{target}: {}{cost}", inspection.layers.len(), counts.join(", "))
}

/// Does the rewrites and writes the model.
fn rewrite(args: &Args, model: &Model, device: &Device, path: &Path, screen: &Screen) -> Result<Vec<Done>, Error> {
    let Model::Float(graph) = model else {
        return Err(Error::wrong_kind(&args.model.path, "is a quantized model, a float one is expected"));
    };
    let fixed = fix(graph, &device.target)?;
    if fixed.done.is_empty() {
        let names: Vec<&str> = REWRITES.iter().map(|r| r.name).collect();
        screen.say(format!("nothing to rewrite ({}); {} is not written", names.join(", "), path.display()));
        return Ok(fixed.done);
    }
    let whole =
        QuantGraph { graph: fixed.graph, layers: Default::default(), metadata: Metadata::default(), trained: false };
    let bytes = format::quantized_bytes(&whole, path)?;
    let options = LoadOptions { custom: args.model.custom.layers()?, ..LoadOptions::default() };
    format::read_back(&whole, &bytes, path, &options)?;
    format::write_file(path, &bytes)?;
    for done in &fixed.done {
        screen.say(format!(
            "{} at {}: outputs differ by {:.2e} of their largest value",
            done.rewrite,
            done.layers.join(", "),
            done.error
        ));
    }
    screen.say(format!("model in {}", path.display()));
    Ok(fixed.done)
}
