//! What a model makes of data: outputs of every sample, as arrays and as the classes with the largest scores.
//!
//! Samples are computed batch by batch and their outputs written as they come, so memory doesn't grow with the number of
//! samples. Outputs are written as f32, whatever a layer computes in.

use std::io::Write;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;
use shiftwise_core::model::Deployable;
use shiftwise_formats::Model;
use shiftwise_formats::files::{Spool, write_streamed};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;
use shiftwise_integer::averages::Difference;
use shiftwise_tensor::tensor::Tensor;

use crate::evaluate;
use crate::golden::Numerics;
use crate::run;

mod whole;

pub use whole::predict_whole;

/// In which numbers a model is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Arithmetic {
    /// A model's floats, without quantizers.
    Float,
    /// Exact integers.
    Dpu,
    /// TensorFlow's f32 operations.
    Vendor,
}

/// Whose outputs are asked for.
#[derive(Debug)]
pub enum Subject<'a> {
    /// A float or quantized model.
    Model(&'a Model),
    /// A compiled one, computed by the kernels that define it.
    Deployable(&'a Deployable<'a>),
}

/// Name and shape of an output, without the batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Output {
    /// The user's layer.
    pub name: String,
    /// Shape of one sample's.
    pub shape: Vec<usize>,
}

impl Subject<'_> {
    /// The outputs in the model's order.
    pub fn outputs(&self) -> Vec<Output> {
        match self {
            Self::Model(model) => {
                let graph = evaluate::graph(model);
                let of = |id: &shiftwise_graph::graph::NodeId| {
                    let node = graph.node(*id);
                    // The user's name, whatever a quantized or converted model calls the layer.
                    let name = node.origin.last().unwrap_or(&node.name).clone();
                    Output { name, shape: node.shape.clone() }
                };
                graph.outputs.iter().map(of).collect()
            }
            Self::Deployable(model) => {
                let shape =
                    |t: &shiftwise_core::model::TensorDesc<'_>| t.shape.dims().iter().map(|d| *d as usize).collect();
                let name = |t: &shiftwise_core::model::TensorDesc<'_>| {
                    let user = t.origin.rsplit('+').next().filter(|name| !name.is_empty());
                    user.unwrap_or(t.name).to_owned()
                };
                model.outputs().map(|(_, t)| Output { name: name(&t), shape: shape(&t) }).collect()
            }
        }
    }

    /// Calls `each` with the outputs of every batch of up to `batch` samples, in order, and `progress` with the number of
    /// samples that are done. Returns the averages that the DPU computes otherwise.
    ///
    /// Errors: those of the data and of the evaluation.
    pub fn run(
        &self,
        arithmetic: Arithmetic,
        samples: &dyn Samples,
        batch: usize,
        mut each: impl FnMut(Vec<Tensor>) -> Result<(), Error>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Difference>, Error> {
        match self {
            Self::Model(model) => {
                let numerics = match arithmetic {
                    Arithmetic::Dpu => Numerics::Dpu,
                    Arithmetic::Float | Arithmetic::Vendor => Numerics::Vendor,
                };
                let float = match (arithmetic, model) {
                    (Arithmetic::Float, Model::Quantized(q)) => Some(Model::Float(q.graph.clone())),
                    _ => None,
                };
                let model = float.as_ref().unwrap_or(model);
                evaluate::outputs(model, numerics, samples, batch, |_, out| each(out), progress)
            }
            Self::Deployable(model) => {
                let target = run::target_of(model)?;
                let one = |index| {
                    let inputs = run::input_bytes(model, samples, index)?;
                    let tensors = match &target {
                        Some(target) => run::functional(model, target, &inputs)?,
                        None => run::frame(model, None, &inputs)?,
                    };
                    Ok(crate::outputs::floats(model, &tensors))
                };
                for start in (0..samples.len()).step_by(batch) {
                    let end = (start + batch).min(samples.len());
                    let least = (end - start).div_ceil(run::together(model));
                    let all = (start..end).into_par_iter().with_min_len(least).map(one);
                    let all: Vec<Vec<Vec<f32>>> = all.collect::<Result<_, Error>>()?;
                    let of = |(k, output): (usize, Output)| {
                        let data = all.iter().filter_map(|sample| sample.get(k)).flatten().copied().collect();
                        let shape = [&[end - start], output.shape.as_slice()].concat();
                        Tensor::new(shape, data)
                            .ok_or_else(|| Error::Run(format!("output `{}` is incomplete", output.name)))
                    };
                    each(self.outputs().into_iter().enumerate().map(of).collect::<Result<_, _>>()?)?;
                    progress(end);
                }
                Ok(Vec::new())
            }
        }
    }
}

/// A class and its score.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ranked {
    /// Index in the first output.
    pub class: usize,
    /// Its value.
    pub score: f32,
}

/// The `k` largest values of every sample of a batch, the first of equals first. What is not a number comes last.
pub fn ranked(output: &Tensor, k: usize) -> Vec<Vec<Ranked>> {
    let samples = output.shape().first().copied().unwrap_or(1).max(1);
    let per = (output.data().len() / samples).max(1);
    let one = |scores: &[f32]| {
        let mut all: Vec<Ranked> =
            scores.iter().enumerate().map(|(class, score)| Ranked { class, score: *score }).collect();
        let key = |r: &Ranked| if r.score.is_nan() { f32::NEG_INFINITY } else { r.score };
        all.sort_by(|a, b| key(b).total_cmp(&key(a)).then(a.class.cmp(&b.class)));
        all.truncate(k);
        all
    };
    output.data().chunks(per).map(one).collect()
}

/// What `predict` reports.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Predictions {
    /// The model's file.
    pub model: PathBuf,
    /// In which numbers; `None` for a compiled model, which has but one.
    pub numerics: Option<Arithmetic>,
    /// Samples computed.
    pub samples: usize,
    /// The model's outputs.
    pub outputs: Vec<Output>,
    /// The file that has them, if one was asked for.
    pub output: Option<PathBuf>,
    /// The classes with the largest scores, sample by sample, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top: Option<Vec<Vec<Ranked>>>,
    /// Averages that the DPU computes otherwise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub averages: Vec<crate::averages::Row>,
}

/// How to predict.
#[derive(Clone, Debug)]
pub struct Options {
    /// In which numbers.
    pub arithmetic: Arithmetic,
    /// Samples that are computed at once.
    pub batch: usize,
    /// The file for all outputs: an array, or an archive by name if it is called `.npz`, which several have to be.
    pub output: Option<PathBuf>,
    /// How many of the largest scores to report of every sample.
    pub top: Option<usize>,
}

/// Computes all samples and writes their outputs. Also returns the averages that the DPU computes otherwise.
///
/// `name` is the model's file. Errors: those of [`Subject::run`] and of the file.
pub fn predict(
    (subject, name): (&Subject<'_>, &Path),
    samples: &dyn Samples,
    options: &Options,
    progress: &mut dyn FnMut(usize),
) -> Result<(Predictions, Vec<Difference>), Error> {
    let outputs = subject.outputs();
    let archived = options.output.as_ref().and_then(|path| path.extension()).is_some_and(|end| end == "npz");
    if let Some(path) = options.output.as_ref().filter(|_| outputs.len() > 1 && !archived) {
        let (path, n) = (path.display(), outputs.len());
        return Err(Error::Options(format!("{path}: the {n} outputs go into an archive, whose name ends in .npz")));
    }
    let mut top = options.top.map(|_| Vec::new());
    let rank = |batch: &[Tensor], top: &mut Option<Vec<Vec<Ranked>>>| {
        if let (Some(all), Some(first), Some(k)) = (top, batch.first(), options.top) {
            all.extend(ranked(first, k));
        }
    };
    let mut run = |each: &mut dyn FnMut(Vec<Tensor>) -> Result<(), Error>| {
        subject.run(options.arithmetic, samples, options.batch.max(1), each, progress)
    };
    let mut differences = Vec::new();
    match (&options.output, &outputs[..]) {
        (None, _) => {
            differences = run(&mut |batch| {
                rank(&batch, &mut top);
                Ok(())
            })?;
        }
        (Some(path), [only]) if !archived => write_streamed(path, |file| {
            file.write_all(&header(samples.len(), &only.shape)).map_err(Error::io(path))?;
            differences = run(&mut |batch| {
                rank(&batch, &mut top);
                batch.iter().try_for_each(|t| file.write_all(&bytes(t))).map_err(Error::io(path))
            })?;
            Ok(())
        })?,
        (Some(path), several) => {
            // An archive holds one array behind the other, and the network makes a piece of each at a time.
            let mut spools = several.iter().map(|_| Spool::beside(path)).collect::<Result<Vec<_>, _>>()?;
            differences = run(&mut |batch| {
                rank(&batch, &mut top);
                batch.iter().zip(&mut spools).try_for_each(|(t, spool)| spool.add(&bytes(t)))
            })?;
            write_streamed(path, |file| archive(file, path, samples.len(), several, spools))?;
        }
    }
    let (numerics, averages) = (Some(options.arithmetic), crate::averages::rows(&differences));
    let numerics = numerics.filter(|_| matches!(subject, Subject::Model(_)));
    let (model, output) = (name.to_owned(), options.output.clone());
    let report = Predictions { model, numerics, samples: samples.len(), outputs, output, top, averages };
    Ok((report, differences))
}

/// An `.npz` of arrays under the outputs' names; of equal names the later ones are numbered.
fn archive(
    file: &mut dyn Write,
    path: &Path,
    samples: usize,
    outputs: &[Output],
    spools: Vec<Spool>,
) -> Result<(), Error> {
    let fail = |e: zip::result::ZipError| Error::io(path)(e.into());
    let mut zip = zip::ZipWriter::new_stream(file);
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored).large_file(true);
    let mut names: Vec<String> = Vec::new();
    for (output, spool) in outputs.iter().zip(spools) {
        let candidates = std::iter::once(output.name.clone()).chain((1..).map(|n| format!("{}_{n}", output.name)));
        let name = candidates.into_iter().find(|name| !names.contains(name)).unwrap_or_default();
        zip.start_file(format!("{name}.npy"), options).map_err(fail)?;
        names.push(name);
        zip.write_all(&header(samples, &output.shape)).map_err(Error::io(path))?;
        spool.copy(&mut zip)?;
    }
    zip.finish().map_err(fail)?;
    Ok(())
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    tensor.data().iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The head of an `.npy` file of f32 in C order.
fn header(samples: usize, shape: &[usize]) -> Vec<u8> {
    head("<f4", &[&[samples], shape].concat())
}

/// The head of an `.npy` file in C order (format 1.0), of elements of NumPy's code.
pub(crate) fn head(code: &str, shape: &[usize]) -> Vec<u8> {
    let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
    let comma = if dims.len() == 1 { "," } else { "" };
    let mut text = format!("{{'descr': '{code}', 'fortran_order': False, 'shape': ({}{comma}), }}", dims.join(", "));
    // Magic, version and length are ten bytes; the data begins at a multiple of 64.
    let padding = 63 - (10 + text.len()) % 64;
    text.push_str(&" ".repeat(padding));
    text.push('\n');
    let mut head = b"\x93NUMPY\x01\x00".to_vec();
    head.extend((text.len() as u16).to_le_bytes());
    head.extend(text.as_bytes());
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_scores_come_first_and_of_equals_the_first() {
        let scores = Tensor::new(vec![2, 4], vec![0.5, 2.0, 2.0, f32::NAN, 1.0, -1.0, 0.0, 3.0]).unwrap();
        let classes =
            |k| ranked(&scores, k).iter().map(|s| s.iter().map(|r| r.class).collect()).collect::<Vec<Vec<_>>>();
        assert_eq!(classes(2), [[1, 2], [3, 0]]);
        assert_eq!(classes(9), [[1, 2, 0, 3], [3, 0, 2, 1]]);
    }

    #[test]
    fn an_arrays_head_is_numpys() {
        for shape in [&[][..], &[10], &[3, 4, 5]] {
            let head = header(7, shape);
            assert_eq!(head.len() % 64, 0);
            let count = 7 * shape.iter().product::<usize>();
            let file = [head, vec![0; 4 * count]].concat();
            let array = <ndarray::ArrayD<f32> as ndarray_npy::ReadNpyExt>::read_npy(file.as_slice()).unwrap();
            assert_eq!(array.shape(), [&[7], shape].concat());
        }
    }
}
