//! `shiftwise quantize`.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use shiftwise::Error;
use shiftwise::format::{self, Model};
use shiftwise::quant::QuantGraph;
use shiftwise::quantize::{PtqOptions, ptq};
use shiftwise::strategy::Strategy;

use super::Outcome;
use super::data::{self, ModelArgs, Preprocess};
use super::screen::Screen;

/// What decides the numbers of a quantized model; shared with `verify`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Recipe {
    /// Calibration data: .npy, .npz[:key], a folder of .npy or of images; [NAME=]DATA, once per input
    #[arg(long, value_name = "DATA")]
    pub(super) calib: Vec<String>,
    /// Quantize strategy
    #[arg(long, default_value = "pof2s", value_name = "NAME")]
    strategy: String,
    /// Set one of the vendor's keyword arguments, such as weight_bit=8 or include_cle=false
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Samples in a calibration batch; every batch votes for positions
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = super::positive())]
    calib_batch_size: usize,
    /// Calibrate with at most this many batches
    #[arg(long, value_name = "N", value_parser = super::positive())]
    calib_steps: Option<usize>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    recipe: Recipe,
    #[command(flatten)]
    preprocess: Preprocess,
    /// Folder for quantized.h5, quantize_info.json and provenance.json
    #[arg(long, default_value = "quantize_results", value_name = "DIR")]
    output_dir: PathBuf,
}

impl Recipe {
    fn strategy(&self, screen: &Screen) -> Result<Strategy, Error> {
        let mut strategy = Strategy::built_in(&self.strategy)?;
        for setting in &self.set {
            let (key, value) = setting
                .split_once('=')
                .ok_or_else(|| Error::Options(format!("--set {setting}: KEY=VALUE is expected")))?;
            // A value that isn't JSON is a bare word.
            let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
            if let Some(warning) = strategy.set(key, value)? {
                screen.note(format!("warning: {warning}"));
            }
        }
        Ok(strategy)
    }

    /// The quantized form of a model; a model that is quantized already stays as it is.
    pub(super) fn quantize(&self, model: Model, preprocess: &Preprocess, screen: &Screen) -> Result<QuantGraph, Error> {
        let graph = match model {
            Model::Float(graph) => graph,
            Model::Quantized(quantized) => {
                screen.note("the model is quantized already; calibration data and strategy are not used");
                return Ok(quantized);
            }
        };
        let strategy = self.strategy(screen)?;
        if self.calib.is_empty() {
            return Err(Error::Dataset("calibration needs data: pass --calib DATA".into()));
        }
        let samples = preprocess.for_graph(&self.calib, &graph)?;
        let options = PtqOptions { strategy, batch_size: self.calib_batch_size, steps: self.calib_steps };
        let total = shiftwise::eval::Samples::len(&samples).div_ceil(options.batch_size);
        let mut progress = screen.progress("calibrating", "batches", total);
        let result = ptq(graph, &samples, &options, |done, _| progress.set(done))?;
        for change in &result.changes {
            screen.detail(format!("{} moved a position at {}", change.rule, change.layer));
        }
        Ok(result.quantized)
    }

    fn options(&self) -> Map<String, Value> {
        let pairs = [
            ("strategy", json!(self.strategy)),
            ("set", json!(self.set)),
            ("calib", json!(self.calib)),
            ("calib_batch_size", json!(self.calib_batch_size)),
            ("calib_steps", json!(self.calib_steps)),
        ];
        pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
    }

    /// Files of calibration data.
    pub(super) fn calib_files(&self) -> Vec<PathBuf> {
        data::files(&self.calib)
    }

    /// Options and input files' digests.
    pub(super) fn provenance(&self, model: &Path) -> Result<Value, Error> {
        let calib = self.calib_files();
        let inputs: Vec<(&str, &Path)> =
            std::iter::once(("model", model)).chain(calib.iter().map(|p| ("calib", p.as_path()))).collect();
        format::provenance(&self.options(), &inputs)
    }
}

pub(super) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let dir = &args.output_dir;
    let file = dir.join("quantized.h5");
    let (info_file, provenance_file) = (dir.join("quantize_info.json"), dir.join("provenance.json"));
    let calib = args.recipe.calib_files();
    let inputs = std::iter::once(&args.model.path).chain(&calib).map(PathBuf::as_path);
    data::keep(inputs, &[&file, &info_file, &provenance_file])?;
    let model = args.model.open()?;
    if let Model::Quantized(_) = model {
        return Err(Error::wrong_kind(&args.model.path, "is a quantized model already, a float one is expected"));
    }
    let quantized = args.recipe.quantize(model, &args.preprocess, screen)?;
    let info = format::quantize_info(&quantized);
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    format::save_quantized(&quantized, &file)?;
    format::write_file(&info_file, pretty(&info).as_bytes())?;
    let provenance = args.recipe.provenance(&args.model.path)?;
    format::write_file(&provenance_file, pretty(&provenance).as_bytes())?;

    let text = |row: &Value, key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let entries = info.as_array().map_or(&[][..], Vec::as_slice);
    let rows: Vec<Vec<String>> = entries
        .iter()
        .map(|row| {
            let number = |key: &str| row.get(key).map(Value::to_string).unwrap_or_default();
            vec![text(row, "layer"), text(row, "role"), number("bit_width"), number("position")]
        })
        .collect();
    screen.table(&["layer", "tensor", "bits", "position"], 2, &rows);
    screen.say("");
    screen.say(format!("{} tensors quantized; {}", rows.len(), file.display()));
    Outcome::done(json!({ "quantized": file, "quantize_info": info }))
}

/// JSON for people.
pub(super) fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
