//! Post-training quantization from a float graph to a quantized one.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::calibrate::{Batches, calibrate_graph};
use crate::finetune::{Finetune, Finetuned, Job, NoFinetuning};
use crate::metadata::Metadata;
use crate::passes;
use crate::passes::dead::{DeadChannels, fold_dead_channels};
use crate::passes::{adjust_pos, convert, layer_config};
use crate::quant_graph::QuantGraph;
use crate::staged::{Learn, Staged, Watch, fold_norm, staged, with_norms};
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
    /// Channels that were folded, if that was asked for.
    pub dead_channels: Vec<DeadChannels>,
    /// What finetuning did, layer by layer, if it was asked for.
    pub finetuned: Vec<Finetuned>,
}

/// Everything before calibration; also returns warnings.
fn annotated(
    graph: Graph,
    strategy: &Strategy,
    watch: Watch<'_>,
    learn: &mut Learn<'_>,
) -> Result<(QuantGraph, Vec<String>), Error> {
    if !strategy.enabled("train_with_bn") {
        return staged(graph, strategy, false, watch, learn).map(|made| (made.quantized, made.warnings));
    }
    // Nothing is trained here: they are as they will be at inference.
    let Staged { mut quantized, norms, warnings } = with_norms(graph, strategy, watch, learn)?;
    for (name, own) in &norms {
        if let Some(id) = quantized.graph.find(name) {
            fold_norm(&mut quantized, id, own);
        }
    }
    Ok((quantized, warnings))
}

/// [`ptq_with`] for strategies that ask for no finetuning.
pub fn ptq(
    graph: Graph,
    samples: &dyn Samples,
    options: &PtqOptions,
    progress: impl FnMut(usize, usize),
) -> Result<Ptq, Error> {
    ptq_with(graph, samples, options, &mut NoFinetuning, progress)
}

/// Partition, optimize, annotate, calibrate, refine: the vendor's `quantize_model`.
///
/// Samples are looked at only by what learns from them: there may be none for block floating point, or with
/// `convert_datatype`. `finetune` is asked where the strategy has `include_fast_ft`. `progress(done, total)` is called after
/// every calibration batch.
pub fn ptq_with(
    graph: Graph,
    samples: &dyn Samples,
    options: &PtqOptions,
    finetune: &mut dyn Finetune,
    mut progress: impl FnMut(usize, usize),
) -> Result<Ptq, Error> {
    let mut whole = |q: &mut QuantGraph, batches: &Batches| calibrate_graph(q, samples, batches, &mut progress);
    ptq_by(graph, samples, options, finetune, &mut whole)
}

/// What teaches the quantizers of a network: by default all batches, one after the other.
pub type Calibrate<'c> = dyn FnMut(&mut QuantGraph, &Batches) -> Result<(), Error> + 'c;

/// [`ptq_with`], calibrated otherwise: by a part of the batches, or from what parts of them have taught.
///
/// Errors: also those of `calibrate`.
pub fn ptq_by(
    graph: Graph,
    samples: &dyn Samples,
    options: &PtqOptions,
    finetune: &mut dyn Finetune,
    calibrate: &mut Calibrate<'_>,
) -> Result<Ptq, Error> {
    let strategy = &options.strategy;
    if let Some(dtype) = strategy.conversion()? {
        return converted(graph, strategy, dtype);
    }
    let batches = Batches { size: options.batch_size, most: options.steps, vote: strategy.base().vote };
    let job = Job { strategy, samples, batches: &batches };
    let finetunes = strategy.enabled("include_fast_ft");
    let (mut dead_channels, mut optimized) = (Vec::new(), None);
    let (mut quantized, mut warnings) = annotated(graph, strategy, &mut |_, _| (), &mut |graph| {
        if strategy.enabled("fold_dead_channels") || (finetunes && finetune.folds_dead_channels(strategy)) {
            dead_channels = fold_dead_channels(graph, samples, &batches)?;
        }
        if finetunes {
            finetune.prepare(graph, &job)?;
            optimized = Some(graph.clone());
        }
        Ok(())
    })?;
    let algorithm = strategy.own_word("fast_ft_algorithm");
    if !finetunes && algorithm != "adaquant" {
        warnings
            .push(format!("`fast_ft_algorithm` is {algorithm}, and without `include_fast_ft` nothing is finetuned"));
    }
    // Before the work, so that a wrong name doesn't cost it.
    quantized.check_names()?;
    // The vendor's tool widens what was calibrated for 8 bits.
    if strategy.enabled("layer_config_recalibrate") {
        layer_config::set_widths(&mut quantized, strategy)?;
    }
    calibrate(&mut quantized, &batches)?;
    layer_config::set_widths(&mut quantized, strategy)?;
    let changes = refine(&mut quantized, strategy);
    let finetuned = match &optimized {
        Some(optimized) => finetune.finetune(&mut quantized, optimized, &job)?,
        None => Vec::new(),
    };
    if strategy.enabled("convert_to_fs_quantize_strategy") {
        convert::positions_to_float_scales(&mut quantized);
    }
    Ok(Ptq { quantized, changes, warnings, dead_channels, finetuned })
}

/// The graph in another type of floats, optimized and without quantizers: the vendor's `convert_datatype`, which takes no
/// data.
pub fn converted(mut graph: Graph, strategy: &Strategy, dtype: Dtype) -> Result<Ptq, Error> {
    let warnings = passes::dtype::convert(&mut graph, strategy, dtype)?;
    let quantized = QuantGraph { graph, layers: BTreeMap::new(), metadata: Metadata::default(), trained: false };
    Ok(Ptq { quantized, changes: Vec::new(), warnings, dead_channels: Vec::new(), finetuned: Vec::new() })
}

/// What happens after calibration, before finetuning: quantizers of thresholds become such of positions, and positions are
/// adjusted, each where the strategy says so. Positions that are thresholds still are not adjusted.
fn refine(q: &mut QuantGraph, strategy: &Strategy) -> Vec<adjust_pos::Change> {
    let thresholds = strategy.value("convert_to_pof2s_quantize_strategy").and_then(Value::as_bool);
    if thresholds == Some(true) {
        convert::thresholds_to_positions(q);
    }
    if thresholds == Some(false) { Vec::new() } else { adjust_pos::refine(q, strategy) }
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
    let (mut quantized, _) = annotated(graph, &strategy, watch, &mut |_| Ok(()))?;
    refine(&mut quantized, &strategy);
    if strategy.enabled("convert_to_fs_quantize_strategy") {
        convert::positions_to_float_scales(&mut quantized);
    }
    Ok(quantized)
}
