//! Post-training quantization from a float graph to a quantized one.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::calibrate::{Batches, calibrate_graph};
use crate::metadata::Metadata;
use crate::passes;
use crate::passes::dtype::set_dtype;
use crate::passes::{adjust_pos, annotate, convert, layer_config};
use crate::quant_graph::QuantGraph;
use crate::strategy::Strategy;
use shiftwise_graph::dtype::Dtype;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;
use shiftwise_graph::graph::Graph;

/// How to quantize.
#[derive(Clone, Debug)]
pub struct PtqOptions {
    /// Passes and quantizers.
    pub strategy: Strategy,
    /// Samples in a calibration batch; each batch has one vote.
    pub batch_size: usize,
    /// Batches at most.
    pub steps: Option<usize>,
}

impl PtqOptions {
    /// A strategy with the vendor's default batch of 32.
    pub fn new(strategy: Strategy) -> Self {
        Self { strategy, batch_size: 32, steps: None }
    }
}

/// A quantized graph and what happened on the way.
#[derive(Clone, Debug)]
pub struct Ptq {
    /// The result.
    pub quantized: QuantGraph,
    /// Positions that refinement changed.
    pub changes: Vec<adjust_pos::Change>,
    /// What the user should know about the settings.
    pub warnings: Vec<String>,
}

/// What looks at the graph after each pass, which is named by its key in the strategy.
type Watch<'w> = &'w mut dyn FnMut(&'static str, &Graph);

/// Everything before calibration; also returns warnings.
fn annotated(mut graph: Graph, strategy: &Strategy, watch: Watch<'_>) -> Result<(QuantGraph, Vec<String>), Error> {
    // What is quantized is so from f32, whatever its file says.
    let other = graph.nodes.iter_mut().filter(|node| node.dtype != Dtype::default());
    other.for_each(|node| set_dtype(node, Dtype::default()));
    let mut warnings = passes::partition(&mut graph, strategy);
    let original = layer_config::original_layers(&graph, strategy)?;
    passes::run_watched(passes::OPTIMIZE, &mut graph, strategy, watch)?;
    warnings.extend(layer_config::keep_float(&mut graph, strategy, original.as_ref())?);
    passes::run_watched(passes::DPU_VERSION, &mut graph, strategy, watch)?;
    Ok((annotate::annotate(graph, strategy)?, warnings))
}

/// Partition, optimize, annotate, calibrate, refine: the vendor's `quantize_model`.
///
/// Samples are looked at only by what learns from them: there may be none for block floating point, or with
/// `convert_datatype`. `progress(done, total)` is called after every calibration batch.
pub fn ptq(
    graph: Graph,
    samples: &dyn Samples,
    options: &PtqOptions,
    progress: impl FnMut(usize, usize),
) -> Result<Ptq, Error> {
    if let Some(dtype) = options.strategy.conversion()? {
        return converted(graph, &options.strategy, dtype);
    }
    let (mut quantized, warnings) = annotated(graph, &options.strategy, &mut |_, _| ())?;
    // Before the work, so that a wrong name doesn't cost it.
    quantized.check_names()?;
    // The vendor's tool widens what was calibrated for 8 bits.
    if options.strategy.enabled("layer_config_recalibrate") {
        layer_config::set_widths(&mut quantized, &options.strategy)?;
    }
    let batches = Batches { size: options.batch_size, most: options.steps, vote: options.strategy.base().vote };
    calibrate_graph(&mut quantized, samples, &batches, progress)?;
    layer_config::set_widths(&mut quantized, &options.strategy)?;
    let changes = refine(&mut quantized, &options.strategy);
    Ok(Ptq { quantized, changes, warnings })
}

/// The graph in another type of floats, optimized and without quantizers: the vendor's `convert_datatype`, which takes no
/// data.
pub fn converted(mut graph: Graph, strategy: &Strategy, dtype: Dtype) -> Result<Ptq, Error> {
    let warnings = passes::dtype::convert(&mut graph, strategy, dtype)?;
    let quantized = QuantGraph { graph, layers: BTreeMap::new(), metadata: Metadata::default() };
    Ok(Ptq { quantized, changes: Vec::new(), warnings })
}

/// What happens after calibration: quantizers of thresholds become such of positions, positions are adjusted, and become
/// float scales at last, each where the strategy says so. Positions that are thresholds still are not adjusted.
fn refine(q: &mut QuantGraph, strategy: &Strategy) -> Vec<adjust_pos::Change> {
    let thresholds = strategy.value("convert_to_pof2s_quantize_strategy").and_then(Value::as_bool);
    if thresholds == Some(true) {
        convert::thresholds_to_positions(q);
    }
    let changes = if thresholds == Some(false) { Vec::new() } else { adjust_pos::refine(q, strategy) };
    if strategy.enabled("convert_to_fs_quantize_strategy") {
        convert::positions_to_float_scales(q);
    }
    changes
}

/// Optimize, annotate, refine: a network with the geometry of its quantized form, before there is any data.
///
/// Every tensor has a legal position, and none of them means anything: for inspecting, compiling and timing only.
pub fn without_data(graph: Graph, strategy: &Strategy) -> Result<QuantGraph, Error> {
    without_data_watched(graph, strategy, &mut |_, _| ())
}

/// [`without_data`]; `watch` sees the graph after each pass, which is named by its key in the strategy.
///
/// Errors: those of the passes.
pub fn without_data_watched(graph: Graph, strategy: &Strategy, watch: Watch<'_>) -> Result<QuantGraph, Error> {
    if let Some(dtype) = strategy.conversion()? {
        return Ok(converted(graph, strategy, dtype)?.quantized);
    }
    let mut strategy = strategy.clone();
    // Takes long and changes values only.
    strategy.set("include_cle", false.into())?;
    let (mut quantized, _) = annotated(graph, &strategy, watch)?;
    refine(&mut quantized, &strategy);
    Ok(quantized)
}
