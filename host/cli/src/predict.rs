//! `shiftwise predict`.

use std::path::PathBuf;

use shiftwise::predict::{Arithmetic, Options, Ranked, Subject, predict, predict_whole};
use shiftwise::{cost, run};
use shiftwise_core::model::MAGIC;
use shiftwise_formats::Model;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;

use crate::averages;
use crate::data::{self, ModelArgs, Preprocess};
use crate::outcome::Outcome;
use crate::screen::Screen;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A float or quantized model, or a compiled one (.swm)
    #[command(flatten)]
    model: ModelArgs,
    /// Data: .npy, .npz[:key], a folder of .npy or of images; [NAME=]DATA, once per input
    #[arg(long, value_name = "DATA")]
    data: Vec<String>,
    /// Outputs of all samples: one as .npy, several as .npz by name [default: predictions.npy or .npz, none with --top]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the K largest values of each sample's first output
    #[arg(long, value_name = "K", value_parser = crate::outcome::positive())]
    top: Option<usize>,
    /// Arithmetic of a quantized model: dpu (exact integers), vendor (TensorFlow's f32), or float (without its quantizers)
    /// [default: dpu; float models are computed in their own numbers]
    #[arg(long, value_name = "float|dpu|vendor", value_parser = arithmetic)]
    numerics: Option<Arithmetic>,
    /// Samples that are computed at once; changes no value
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = crate::outcome::positive())]
    batch_size: usize,
    #[command(flatten)]
    pub(crate) preprocess: Preprocess,
}

fn arithmetic(text: &str) -> Result<Arithmetic, String> {
    match text {
        "float" => Ok(Arithmetic::Float),
        "dpu" => Ok(Arithmetic::Dpu),
        "vendor" => Ok(Arithmetic::Vendor),
        _ => Err("float, dpu or vendor is expected".into()),
    }
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let path = &args.model.path;
    if starts_with_magic(path)? {
        if args.numerics.is_some() {
            return Err(Error::Options("--numerics is for quantized models; a compiled one has integers only".into()));
        }
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let model = run::parse(path, &bytes)?;
        let target = run::target_of(&model)?;
        cost::deployable(&model, target.as_ref())?;
        let samples = args.preprocess.for_deployable(&args.data, &model, screen)?;
        return report(args, (&Subject::Deployable(&model), Arithmetic::Dpu), &samples, screen);
    }
    let model = match args.model.open_for(&args.data, &args.preprocess, screen) {
        // What is no network of layers is computed as its file states it, if the file is of a format that states it.
        Err(why) => return whole(args, why, screen),
        Ok(model) => model,
    };
    let arithmetic = match (&model, args.numerics) {
        (Model::Float(_), Some(Arithmetic::Dpu)) => {
            return Err(Error::Options(format!("{} is a float model, which has no integers", path.display())));
        }
        // TensorFlow's own operations are what a float model is computed with.
        (Model::Float(_), _) => Arithmetic::Float,
        (Model::Quantized(_), own) => own.unwrap_or(Arithmetic::Dpu),
    };
    let samples = match &model {
        Model::Float(graph) => args.preprocess.for_graph(&args.data, graph)?,
        Model::Quantized(q) => args.preprocess.for_quantized(&args.data, q, screen)?,
    };
    report(args, (&Subject::Model(&model), arithmetic), &samples, screen)
}

/// Predicts with a model that can't be read as layers for the reason `why`.
fn whole(args: &Args, why: Error, screen: &Screen) -> Result<Outcome, Error> {
    let path = &args.model.path;
    let Some(network) = shiftwise_formats::onnx::open(path)? else { return Err(why) };
    if args.numerics.is_some_and(|own| own != Arithmetic::Float) {
        return Err(why);
    }
    screen.note(format!("computed as its file states it: {why}"));
    let several = network.outputs.len() > 1;
    let output = output(args, several);
    let read = data::files(&args.data);
    data::keep(
        args.model.files().chain(&read).map(PathBuf::as_path),
        &output.iter().map(PathBuf::as_path).collect::<Vec<_>>(),
    )?;
    let options = Options { arithmetic: Arithmetic::Float, batch: args.batch_size, output, top: args.top };
    let report = predict_whole((&network, path), &args.preprocess.specs(&args.data), &options)?;
    let place = report.output.as_ref().map_or(String::new(), |path| format!("; {}", path.display()));
    screen.say(format!("{} samples, {} outputs{place}", report.samples, report.outputs.len()));
    Outcome::done(report)
}

/// The file for the outputs: the one that was asked for, or the usual one, unless classes are asked for.
fn output(args: &Args, several: bool) -> Option<PathBuf> {
    let default = || PathBuf::from(if several { "predictions.npz" } else { "predictions.npy" });
    args.output.clone().or_else(|| args.top.is_none().then(default))
}

/// Whether a file is a compiled model, told without reading all of it.
fn starts_with_magic(path: &std::path::Path) -> Result<bool, Error> {
    use std::io::Read;
    let mut head = Vec::new();
    // Whoever reads a folder says better what is wrong with it.
    let Ok(file) = std::fs::File::open(path) else { return Ok(false) };
    let read = file.take(MAGIC.len() as u64).read_to_end(&mut head);
    Ok(read.is_ok() && head == MAGIC)
}

fn report(
    args: &Args,
    (subject, arithmetic): (&Subject<'_>, Arithmetic),
    samples: &dyn Samples,
    screen: &Screen,
) -> Result<Outcome, Error> {
    let several = subject.outputs().len() > 1;
    let output = output(args, several);
    let read = data::files(&args.data);
    let inputs = args.model.files().chain(&read).map(PathBuf::as_path);
    data::keep(inputs, &output.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
    let options = Options { arithmetic, batch: args.batch_size, output, top: args.top };
    let mut progress = screen.progress("predicting", "samples", samples.len());
    let (report, differences) =
        predict((subject, &args.model.path), samples, &options, &mut |done| progress.set(done))?;
    drop(progress);
    averages::tell(&differences, screen);
    let row = |(i, all): (usize, &Vec<Ranked>)| {
        let classes: Vec<String> = all.iter().map(|r| format!("{} ({})", r.class, r.score)).collect();
        vec![i.to_string(), classes.join("  ")]
    };
    if let Some(top) = &report.top {
        screen.answer(&["sample", "classes (values)"], 2, &top.iter().enumerate().map(row).collect::<Vec<_>>());
    }
    let place = report.output.as_ref().map_or(String::new(), |path| format!("; {}", path.display()));
    screen.say(format!("{} samples, {} outputs{place}", report.samples, report.outputs.len()));
    Outcome::done(report)
}
