//! `shiftwise evaluate`.

use std::path::{Path, PathBuf};

use serde_json::json;
use shiftwise::evaluate::{Counts, Errors, Evaluation, Metric, ModelError, Score};
use shiftwise::part::{Whole, Window};
use shiftwise::{dataset, evaluate};
use shiftwise_formats::Model;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;

use crate::averages;
use crate::data;
use crate::data::{ModelArgs, Preprocess};
use crate::outcome::Outcome;
use crate::screen::Screen;
use crate::shards::ShardArgs;

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
    #[arg(long, value_name = "K", value_parser = crate::outcome::positive())]
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
    #[command(flatten)]
    shards: ShardArgs,
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
fn errors(
    (args, preprocess): (&Args, &Preprocess),
    models: &[(PathBuf, Model)],
    labels: &str,
    screen: &Screen,
) -> Result<Outcome, Error> {
    if args.max_drop.is_some() || args.top.is_some() {
        return Err(Error::Options("--max-drop and --top count right answers; they need --metric top".into()));
    }
    let metric = args.metric;
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for (path, model) in models {
        let graph = evaluate::graph(model);
        let samples = preprocess.for_graph(&args.data, graph)?;
        let shape = graph.outputs.first().map_or(&[][..], |id| graph.node(*id).shape.as_slice());
        let targets = dataset::Dataset::open(&dataset::DataSpec::parse(labels), shape)?;
        let mut progress = screen.progress("evaluating", "samples", samples.len());
        let mut set = |done| progress.set(done);
        let (value, differences) = evaluate::error(model, metric, args.numerics, &samples, &targets, &mut set)?;
        averages::tell(&differences, screen);
        rows.push(vec![name(path), samples.len().to_string(), format!("{value:.6}")]);
        values.push(ModelError {
            model: path.clone(),
            samples: samples.len(),
            mae: (metric == Metric::Mae).then_some(value),
            mse: (metric == Metric::Mse).then_some(value),
            averages: shiftwise::averages::rows(&differences),
        });
    }
    screen.answer(&["model", "samples", metric.name()], 1, &rows);
    let mut values = values.into_iter();
    let none = || Error::Options("evaluate needs a model".into());
    Outcome::done(Errors { metric, model: values.next().ok_or_else(none)?, baseline: values.next() })
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}

/// A share in points, as it was given: a small one would be rounded to another one.
pub(crate) fn points(share: f64) -> String {
    let points = (share * 1e8).round() / 1e6;
    let short = format!("{points:.2}");
    if short.parse() == Ok(points) { short } else { points.to_string() }
}

/// `0.5%` as 0.005.
pub(crate) fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    number.parse::<f64>().map(|p| p / 100.0).map_err(|_| "a percentage is expected, such as 0.5%".into())
}

/// The models that are compared, and how their data is prepared.
fn opened(args: &Args, screen: &Screen) -> Result<(Vec<(PathBuf, Model)>, Preprocess), Error> {
    let open = |model: &ModelArgs| Ok((model.path.clone(), model.open_for(&args.data, &args.preprocess, screen)?));
    let mut models: Vec<(PathBuf, Model)> = vec![open(&args.model)?];
    if let Some(path) = &args.baseline {
        models.push(open(&ModelArgs { path: path.clone(), weights: None, ..args.model.clone() })?);
    }
    // A float baseline takes the same data as the model that was made of it.
    let mut preprocess = args.preprocess.clone();
    if let Some(quantized) = models.iter().find_map(|(_, model)| evaluate::quantized(model)) {
        preprocess = args.preprocess.for_model(&quantized.metadata, screen)?;
        data::doubts(&quantized.metadata, &preprocess.for_graph(&args.data, &quantized.graph)?, screen)?;
    }
    Ok((models, preprocess))
}

fn files(models: &[(PathBuf, Model)]) -> Vec<&Path> {
    models.iter().map(|(path, _)| path.as_path()).collect()
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let Some(labels) = &args.labels else {
        return Err(Error::Options("evaluate needs --labels DATA".into()));
    };
    let (models, preprocess) = opened(args, screen)?;
    let shard = args.shards.shard();
    if args.metric != Metric::Top {
        if shard.is_some() {
            let why =
                "--metric mae and mse add floats in the order of the samples: only right answers can be counted apart";
            return Err(Error::Options(why.into()));
        }
        return errors((args, &preprocess), &models, labels, screen);
    }
    let labels = dataset::labels(&args.preprocess.spec(labels))?;
    let k = args.top.unwrap_or(1);
    let mut scores = Vec::new();
    let (mut total, mut own) = (0, 0);
    for (path, model) in &models {
        let samples = preprocess.for_graph(&args.data, evaluate::graph(model))?;
        let name = path.display().to_string();
        evaluate::check_labels((evaluate::graph(model), &name), samples.len(), &labels)?;
        total = samples.len();
        let range = shard.map_or(Ok(0..total), |shard| shard.samples(total, evaluate::BATCH))?;
        own = range.len();
        let labels = labels.get(range.clone()).unwrap_or_default();
        let samples = Window::new(&samples, range);
        let mut progress = screen.progress("evaluating", "samples", samples.len());
        let mut set = |done| progress.set(done);
        let score = evaluate::score((model, &name), args.numerics, &samples, (labels, k), &mut set)?;
        scores.push(score);
    }
    match shard {
        Some(shard) => {
            let counts: Vec<Counts> = scores.iter().map(Counts::from).collect();
            args.shards.write(("evaluate", shard), &files(&models), (total, own), json!(counts), screen)
        }
        None => answer(args, &models, scores, screen),
    }
}

/// What all shards of a run have counted.
pub(crate) fn merge(args: &Args, whole: &Whole, screen: &Screen) -> Result<Outcome, Error> {
    let (models, preprocess) = opened(args, screen)?;
    let (_, first) = models.first().ok_or_else(|| Error::Options("evaluate needs a model".into()))?;
    whole.check(&files(&models), preprocess.for_graph(&args.data, evaluate::graph(first))?.len())?;
    let counts = whole.answers::<Vec<Counts>>()?;
    let of = |(k, (_, model)): (usize, &(PathBuf, Model))| {
        Score::joined(model, counts.iter().filter_map(|shard| shard.get(k)))
    };
    answer(args, &models, models.iter().enumerate().map(of).collect(), screen)
}

/// The models' scores, the drop between them, and whether it is kept.
fn answer(args: &Args, models: &[(PathBuf, Model)], scores: Vec<Score>, screen: &Screen) -> Result<Outcome, Error> {
    let k = args.top.unwrap_or(1);
    scores.iter().for_each(|score| averages::tell(&score.averages, screen));
    let scores: Vec<(&PathBuf, Score)> = models.iter().map(|(path, _)| path).zip(scores).collect();
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
    screen.answer(&header, 1, &rows);
    let report = |(path, s): &(&PathBuf, Score)| s.report((*path).clone(), k);
    let mut evaluation = Evaluation { model: report(&scores[0]), baseline: None, drop: None };
    let mut yes = true;
    if let [(_, own), (_, base)] = &scores[..] {
        let drop = base.share(base.top1) - own.share(own.top1);
        screen.say(format!("drop {:.2} points", 100.0 * drop));
        evaluation.baseline = Some(report(&scores[1]));
        evaluation.drop = Some(drop);
        if let Some(limit) = args.max_drop {
            yes = own.keeps(base, limit);
            screen.say(format!("limit {} points: {}", points(limit), if yes { "kept" } else { "exceeded" }));
        }
    }
    Outcome::of(evaluation, yes)
}
