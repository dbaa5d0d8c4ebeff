//! Outputs of an ONNX model that is no network of layers over samples: its inputs are taken as they are, with their own
//! types and all their dimensions, and every operator computes what its definition says.

use std::io::Write;
use std::path::Path;

use shiftwise_formats::files::write_streamed;
use shiftwise_formats::onnx::{Dim, Element, Network, Port, Value};
use shiftwise_graph::error::Error;
use shiftwise_tensor::tensor::Tensor;

use crate::dataset::{self, DataSpec};
use crate::predict::{Arithmetic, Options, Output, Predictions, head, ranked};

/// The data of an input: that of its name, else the only one without a name.
fn data<'a>(port: &Port, data: &'a [(Option<String>, DataSpec)]) -> Result<&'a DataSpec, Error> {
    let named = data.iter().find(|(name, _)| name.as_ref() == Some(&port.name));
    let mut unnamed = data.iter().filter(|(name, _)| name.is_none());
    let only = unnamed.next().filter(|_| unnamed.next().is_none());
    let own = named.or(only).map(|(_, spec)| spec);
    own.ok_or_else(|| Error::Dataset(format!("input `{}` has no data", port.name)))
}

/// An input's array.
fn value(port: &Port, all: &[(Option<String>, DataSpec)]) -> Result<Value, Error> {
    let fail = |why: String| Error::Dataset(format!("input `{}` {why}", port.name));
    let (code, shape, bytes) = dataset::whole(data(port, all)?, &port.name)?;
    let element = Element::of_numpy(&code).ok_or_else(|| fail(format!("has elements of type {code}")))?;
    let own = Value::of_bytes(element, shape, &bytes).ok_or_else(|| fail("is cut short".into()))?;
    Ok(match port.element {
        Some(element) if element != own.element => own.cast(element),
        Some(_) | None => own,
    })
}

/// Samples that a model takes at once, and how often, where its data has several times as many as it states.
fn rounds(network: &Network, values: &[Value]) -> Result<Option<(usize, usize)>, Error> {
    let mut all = None;
    for (port, value) in network.inputs.iter().zip(values) {
        let Some(dims) = &port.dims else { continue };
        let fits = |dim: &Dim, size: &usize| matches!(dim, Dim::Open(_)) || *dim == Dim::Size(*size);
        let alike = dims.len() == value.shape.len();
        if alike && dims.iter().zip(&value.shape).all(|(dim, size)| fits(dim, size)) {
            continue;
        }
        let rest = alike && dims.iter().zip(&value.shape).skip(1).all(|(dim, size)| fits(dim, size));
        let times = match (dims.first(), value.shape.first()) {
            (Some(Dim::Size(own)), Some(given)) if rest && *own > 0 && given % own == 0 && *given > 0 => {
                Some((*own, given / own))
            }
            _ => None,
        };
        if times.is_none() || all.is_some_and(|other| Some(other) != times) {
            let (name, seen) = (&port.name, &value.shape);
            let text = |dim: &Dim| match dim {
                Dim::Size(n) => n.to_string(),
                Dim::Open(name) if name.is_empty() => "?".into(),
                Dim::Open(name) => name.clone(),
            };
            let stated: Vec<String> = dims.iter().map(text).collect();
            return Err(Error::InputShape(format!(
                "input `{name}` has shape [{}] and the data {seen:?}",
                stated.join(", ")
            )));
        }
        all = times;
    }
    Ok(all)
}

/// Rows `first .. first + count` of an array.
fn rows(value: &Value, first: usize, count: usize) -> Value {
    let per = value.len() / value.shape.first().copied().unwrap_or(1).max(1);
    let shape = [&[count], value.shape.get(1..).unwrap_or_default()].concat();
    value.picked(shape, first * per..(first + count) * per)
}

/// The outputs of all data.
fn outputs(network: &Network, path: &Path, values: Vec<Value>) -> Result<Vec<Value>, Error> {
    let Some((own, times)) = rounds(network, &values)? else { return network.run(values, path) };
    let mut all: Vec<Value> = Vec::new();
    for round in 0..times {
        let part = values.iter().map(|value| rows(value, round * own, own)).collect();
        let made = network.run(part, path)?;
        if made.iter().any(|value| value.shape.first() != Some(&own)) {
            return Err(Error::InputShape("an output has no row for each sample, so one batch is taken".into()));
        }
        all = match all.is_empty() {
            true => made,
            false => all
                .into_iter()
                .zip(&made)
                .map(|(sum, more)| {
                    let shape = [&[sum.shape[0] + own], &more.shape[1..]].concat();
                    sum.behind(more).shaped(shape)
                })
                .collect(),
        };
    }
    Ok(all)
}

fn bytes(value: &Value) -> Vec<u8> {
    [head(value.element.numpy(), &value.shape), value.bytes()].concat()
}

/// Computes a model as its file states it, and writes the outputs with their own types: one as `.npy`, several as `.npz`
/// by name.
///
/// `path` is the model's file, `data` what is given for its inputs. Errors: data of other shapes; operators that are not
/// supported.
pub fn predict_whole(
    (network, path): (&Network, &Path),
    data: &[(Option<String>, DataSpec)],
    options: &Options,
) -> Result<Predictions, Error> {
    let values = network.inputs.iter().map(|port| value(port, data)).collect::<Result<Vec<_>, _>>()?;
    let samples = values.first().and_then(|v| v.shape.first().copied()).unwrap_or(1);
    let made = outputs(network, path, values)?;
    let output = |(port, value): (&Port, &Value)| Output {
        name: port.name.clone(),
        shape: value.shape.get(1..).unwrap_or_default().to_vec(),
    };
    let described: Vec<Output> = network.outputs.iter().zip(&made).map(output).collect();
    if let Some(to) = &options.output {
        let archived = to.extension().is_some_and(|end| end == "npz");
        match &made[..] {
            [only] if !archived => write_streamed(to, |file| file.write_all(&bytes(only)).map_err(Error::io(to)))?,
            several if archived => write_streamed(to, |file| archive(file, to, &described, several))?,
            several => {
                let (to, n) = (to.display(), several.len());
                return Err(Error::Options(format!(
                    "{to}: the {n} outputs go into an archive, whose name ends in .npz"
                )));
            }
        }
    }
    let first = made.first().and_then(Value::tensor).unwrap_or_else(|| Tensor::zeros(&[0]));
    Ok(Predictions {
        model: path.to_owned(),
        numerics: Some(Arithmetic::Float),
        samples,
        outputs: described,
        output: options.output.clone(),
        top: options.top.map(|k| ranked(&first, k)),
        averages: Vec::new(),
    })
}

/// An `.npz` of arrays under the outputs' names.
fn archive(file: &mut dyn Write, path: &Path, outputs: &[Output], values: &[Value]) -> Result<(), Error> {
    let fail = |e: zip::result::ZipError| Error::io(path)(e.into());
    let mut zip = zip::ZipWriter::new_stream(file);
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (output, value) in outputs.iter().zip(values) {
        zip.start_file(format!("{}.npy", output.name), stored.large_file(true)).map_err(fail)?;
        zip.write_all(&bytes(value)).map_err(Error::io(path))?;
    }
    zip.finish().map_err(fail)?;
    Ok(())
}
