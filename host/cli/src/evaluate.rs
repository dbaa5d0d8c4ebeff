//! `shiftwise evaluate`.

use std::path::PathBuf;

use serde_json::{Value, json};
use shiftwise::dataset;
use shiftwise_formats::Model;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval;
use shiftwise_graph::eval::Samples;
use shiftwise_integer::averages::{Averages, Difference};
use shiftwise_integer::engine::Engine;
use shiftwise_integer::lower;
use shiftwise_tensor::tensor::Tensor;

use crate::averages;
use crate::command::Outcome;
use crate::data::{ModelArgs, Preprocess};
use crate::screen::Screen;

/// Samples that are computed at once: bounds memory.
const BATCH: usize = 64;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Data: .npy, .npz[:key], a folder of .npy or of images; [NAME=]DATA, once per input
    #[arg(long, required = true, value_name = "DATA")]
    data: Vec<String>,
    /// Class numbers, one per sample
    #[arg(long, value_name = "DATA")]
    labels: Option<String>,
    /// Also count a label among the k largest outputs
    #[arg(long, value_name = "K", value_parser = crate::command::positive())]
    top: Option<usize>,
    /// What is measured: top (right answers), or mae or mse against --labels of the output's shape
    #[arg(long, default_value = "top", value_name = "top|mae|mse", value_parser = metric)]
    metric: Metric,
    /// A model to compare with: prints both and the drop
    #[arg(long, value_name = "MODEL")]
    baseline: Option<PathBuf>,
    /// Exit with 1 if top-1 drops by more, such as 0.5%
    #[arg(long, value_name = "PERCENT", value_parser = percent, requires = "baseline")]
    max_drop: Option<f64>,
    /// Arithmetic of a quantized model: dpu (exact integers) or vendor (TensorFlow's f32)
    #[arg(long, default_value = "dpu", value_parser = crate::dump::numerics)]
    numerics: shiftwise::golden::Numerics,
    #[command(flatten)]
    pub(crate) preprocess: Preprocess,
}

/// How outputs are compared with labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Metric {
    /// Class numbers.
    Top,
    /// Mean absolute error.
    Mae,
    /// Mean squared error.
    Mse,
}

fn metric(text: &str) -> Result<Metric, String> {
    match text {
        "top" => Ok(Metric::Top),
        "mae" => Ok(Metric::Mae),
        "mse" => Ok(Metric::Mse),
        _ => Err("top, mae or mse is expected".into()),
    }
}

/// The error of each model's first output against targets of its shape.
fn errors(args: &Args, models: &[(PathBuf, Model)], labels: &str, screen: &Screen) -> Result<Outcome, Error> {
    if args.max_drop.is_some() || args.top.is_some() {
        return Err(Error::Options("--max-drop and --top count right answers; they need --metric top".into()));
    }
    let (name, term): (&str, fn(f64) -> f64) =
        if args.metric == Metric::Mae { ("mae", f64::abs) } else { ("mse", |d| d * d) };
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for (path, model) in models {
        let graph = match model {
            Model::Float(g) => g,
            Model::Quantized(q) => &q.graph,
        };
        let samples = args.preprocess.for_graph(&args.data, graph)?;
        let shape = graph.outputs.first().map_or(&[][..], |id| graph.node(*id).shape.as_slice());
        let targets = dataset::Dataset::open(&dataset::DataSpec::parse(labels), shape)?;
        if targets.len() != samples.len() {
            let text = format!("{} samples and {} labels; one per sample is expected", samples.len(), targets.len());
            return Err(Error::Dataset(text));
        }
        let (mut sum, mut count) = (0.0f64, 0usize);
        let differences = outputs(model, args.numerics, &samples, screen, |start, out| {
            let Some(out) = out.first() else { return Ok(()) };
            let target = targets.batch(start, out.shape()[0])?;
            let pairs = out.data().iter().zip(target.data());
            sum += pairs.map(|(a, b)| term(f64::from(*a) - f64::from(*b))).sum::<f64>();
            count += out.data().len();
            Ok(())
        })?;
        let value = sum / count.max(1) as f64;
        let file = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        rows.push(vec![file, samples.len().to_string(), format!("{value:.6}")]);
        let mut value = json!({ "model": path, "samples": samples.len(), name: value });
        averages::add(&differences, &mut value);
        values.push(value);
    }
    screen.table(&["model", "samples", name], 1, &rows);
    let mut json = json!({ "metric": name, "model": values[0] });
    if let Some(base) = values.get(1) {
        json["baseline"] = base.clone();
    }
    Outcome::done(json)
}

/// `0.5%` as 0.005.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    number.parse::<f64>().map(|p| p / 100.0).map_err(|_| "a percentage is expected, such as 0.5%".into())
}

/// Correct answers of one model.
#[derive(Default)]
struct Score {
    samples: usize,
    top1: usize,
    topk: usize,
    averages: Vec<Difference>,
}

impl Score {
    fn add(&mut self, output: &Tensor, labels: &[i64], k: usize) {
        let classes = output.data().len() / labels.len().max(1);
        for (scores, label) in output.data().chunks_exact(classes.max(1)).zip(labels) {
            let own = usize::try_from(*label).ok().and_then(|l| scores.get(l).map(|s| (l, *s)));
            // Rank of the label's score; of equal scores the first class counts as larger, as argmax takes it.
            let rank = own.map_or(usize::MAX, |(l, s)| {
                scores.iter().enumerate().filter(|(i, x)| **x > s || (**x == s && *i < l)).count()
            });
            self.samples += 1;
            self.top1 += usize::from(rank == 0);
            self.topk += usize::from(rank < k);
        }
    }

    fn share(&self, correct: usize) -> f64 {
        correct as f64 / self.samples.max(1) as f64
    }
}

/// Calls `each(first sample, outputs)` with the model's outputs, batch by batch. Returns the averages that the DPU
/// computes otherwise than the vendor's simulation, whichever of the two was asked for.
fn outputs(
    model: &Model,
    numerics: shiftwise::golden::Numerics,
    samples: &dyn Samples,
    screen: &Screen,
    mut each: impl FnMut(usize, Vec<Tensor>) -> Result<(), Error>,
) -> Result<Vec<Difference>, Error> {
    let dpu = numerics == shiftwise::golden::Numerics::Dpu;
    let graph = match model {
        Model::Quantized(q) if dpu => {
            eval::needs(&q.graph).check(1)?;
            Some((q, lower::lower(q)?))
        }
        Model::Quantized(q) => lower::lower(q).ok().map(|graph| (q, graph)),
        Model::Float(_) => None,
    };
    let averages = graph.as_ref().map(|(q, graph)| Averages::new(q, graph)).filter(|a| !a.is_empty());
    let engine = graph.as_ref().filter(|_| dpu || averages.is_some()).map(|(_, graph)| Engine::new(graph));
    let needs = |ix| averages.as_ref().is_some_and(|a| a.needs(ix));
    let see = |values: &[_]| averages.iter().for_each(|a| a.see(values));
    let mut progress = screen.progress("evaluating", "samples", samples.len());
    for start in (0..samples.len()).step_by(BATCH) {
        let batch = samples.batch(start, BATCH.min(samples.len() - start))?;
        let integers = engine.as_ref().map(|e| e.run_batch_seeing(&batch, needs, see)).transpose()?;
        let out = match (model, integers.filter(|_| dpu)) {
            (_, Some(out)) => out,
            (Model::Float(g), None) => eval::run_float(g, batch)?,
            (Model::Quantized(q), None) => shiftwise_quant::eval::run_vendor(q, batch)?,
        };
        each(start, out)?;
        progress.set((start + BATCH).min(samples.len()));
    }
    let differences = averages.map_or_else(Vec::new, |a| a.differences());
    averages::tell(&differences, screen);
    Ok(differences)
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let Some(labels) = &args.labels else {
        return Err(Error::Options("evaluate needs --labels DATA".into()));
    };
    let open = |model: &ModelArgs| Ok((model.path.clone(), model.open_for(&args.data, &args.preprocess, screen)?));
    let mut models: Vec<(PathBuf, Model)> = vec![open(&args.model)?];
    if let Some(path) = &args.baseline {
        models.push(open(&ModelArgs { path: path.clone(), weights: None, ..args.model.clone() })?);
    }
    if args.metric != Metric::Top {
        return errors(args, &models, labels, screen);
    }
    let labels = dataset::labels(&args.preprocess.spec(labels))?;
    let k = args.top.unwrap_or(1);
    let mut scores = Vec::new();
    for (path, model) in &models {
        let graph = match model {
            Model::Float(g) => g,
            Model::Quantized(q) => &q.graph,
        };
        let samples = args.preprocess.for_graph(&args.data, graph)?;
        if samples.len() != labels.len() {
            let text =
                format!("{} samples and {} labels; one label per sample is expected", samples.len(), labels.len());
            return Err(Error::Dataset(text));
        }
        let classes = graph.outputs.first().map_or(0, |id| graph.node(*id).shape.iter().product());
        let outside = |l: &&i64| usize::try_from(**l).map_or(true, |l| l >= classes);
        if let Some(label) = labels.iter().find(outside) {
            let text = format!("a label is {label}, and {} has {classes} classes from 0 on", path.display());
            return Err(Error::Dataset(text));
        }
        let mut score = Score::default();
        score.averages = outputs(model, args.numerics, &samples, screen, |start, out| {
            let Some(out) = out.first() else { return Ok(()) };
            score.add(out, &labels[start..start + out.shape()[0]], k);
            Ok(())
        })?;
        scores.push((path, score));
    }
    let name = |p: &PathBuf| p.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let mut header = vec!["model", "samples", "top-1"];
    let topk = format!("top-{k}");
    if args.top.is_some() {
        header.push(&topk);
    }
    let rows: Vec<Vec<String>> = scores
        .iter()
        .map(|(path, s)| {
            let mut row = vec![name(path), s.samples.to_string(), format!("{:.2} %", 100.0 * s.share(s.top1))];
            row.extend(args.top.map(|_| format!("{:.2} %", 100.0 * s.share(s.topk))));
            row
        })
        .collect();
    screen.table(&header, 1, &rows);
    let to_json = |(path, s): &(&PathBuf, Score)| {
        let mut json = json!({
            "model": path, "samples": s.samples, "top1": s.share(s.top1), "top_k": k, "topk": s.share(s.topk),
        });
        averages::add(&s.averages, &mut json);
        json
    };
    let mut json = json!({ "model": to_json(&scores[0]) });
    let mut yes = true;
    if let [(_, own), (_, base)] = &scores[..] {
        let drop = base.share(base.top1) - own.share(own.top1);
        screen.say(format!("drop {:.2} points", 100.0 * drop));
        json["baseline"] = to_json(&scores[1]);
        json["drop"] = Value::from(drop);
        if let Some(limit) = args.max_drop {
            // Counts decide, so that a drop of exactly the limit passes whatever the floats say.
            let lost = base.top1 as f64 - own.top1 as f64;
            yes = lost <= limit * base.samples as f64 + 1e-9;
            screen.say(format!("limit {:.2} points: {}", 100.0 * limit, if yes { "kept" } else { "exceeded" }));
        }
    }
    Ok(Outcome { json, yes })
}
