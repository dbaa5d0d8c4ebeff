//! A float model in another type: the vendor's `convert_datatype`.

use std::path::{Path, PathBuf};

use serde::Serialize;
use shiftwise_formats::{self as format, LoadOptions};
use shiftwise_graph::dtype::Dtype;
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::Graph;
use shiftwise_quant::pipeline::converted;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::strategy::Strategy;

/// What a conversion reports.
#[derive(Clone, Debug, Serialize)]
pub struct Converted {
    /// The written file.
    pub output: PathBuf,
    /// The type.
    pub dtype: &'static str,
    /// Layers of that type, as the optimized model has them.
    pub layers: Vec<String>,
    /// Layers that keep their own.
    pub kept: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// The layers of a graph that are of a type, and the others.
pub fn layers(graph: &Graph, dtype: Dtype) -> (Vec<String>, Vec<String>) {
    let (own, others): (Vec<_>, Vec<_>) = graph.nodes.iter().partition(|node| node.dtype == dtype);
    let names = |nodes: Vec<&shiftwise_graph::graph::Node>| nodes.into_iter().map(|node| node.name.clone()).collect();
    (names(own), names(others))
}

/// Converts a graph, whole or the part that the strategy's `input_layers`, `output_layers` and `ignore_layers` name, and
/// writes it as `.h5`.
///
/// Errors: those of the passes and of the file; the file is read again before it is written.
pub fn convert(
    graph: Graph,
    strategy: &Strategy,
    dtype: Dtype,
    (output, options): (&Path, &LoadOptions),
) -> Result<Converted, Error> {
    let result = converted(graph, strategy, dtype)?;
    let QuantGraph { graph, .. } = &result.quantized;
    let bytes = format::quantized_bytes(&result.quantized, output)?;
    format::read_back(&result.quantized, &bytes, output, options)?;
    format::write_file(output, &bytes)?;
    let (layers, kept) = layers(graph, dtype);
    Ok(Converted { output: output.to_owned(), dtype: dtype.name(), layers, kept, warnings: result.warnings })
}
