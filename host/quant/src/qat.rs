//! Networks in quantization-aware training: before the first step, and what becomes of them afterwards.
//!
//! A [`Qat`] is a quantized graph whose weights are still trained. With `train_with_bn`, a convolution and the
//! normalization behind it are one layer, whose kernel and bias follow from both: the graph then has the convolution with
//! its own weights, and a [`ConvNorm`] beside it. [`Qat::folded`] is the network at inference.

use std::collections::BTreeMap;

pub use crate::conv_norm::ConvNorm;

use crate::calibrate::{Batches, calibrate_graph};
use crate::passes::{adjust_pos, convert, layer_config};
use crate::pipeline::PtqOptions;
use crate::quant_graph::QuantGraph;
use crate::scheme::channels::Channels;
use crate::scheme::{Numbers, Quantizer};
use crate::staged::{Staged, fold_norm, staged, with_norms};
use crate::strategy::Strategy;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::Op;

/// A network that is trained quantized.
#[derive(Clone, Debug)]
pub struct Qat {
    /// The network with its quantizers.
    pub quantized: QuantGraph,
    /// Normalizations that are trained with the convolution of this node, which has a bias always.
    pub norms: BTreeMap<NodeId, ConvNorm>,
}

impl Qat {
    /// The network as it computes outside training: normalizations with their moving statistics in kernels and biases.
    pub fn folded(&self) -> QuantGraph {
        let mut folded = self.quantized.clone();
        for (id, own) in &self.norms {
            fold_norm(&mut folded, *id, own);
            if let Some(layer) = folded.layers.get_mut(id) {
                layer.steps = own.step;
            }
        }
        folded
    }
}

/// The network to train: partitioned, optimized, with quantizers that have learned nothing. The vendor's `get_qat_model`
/// without `init_quant`. Also returns warnings.
///
/// Errors: those of the passes.
pub fn prepare(graph: Graph, strategy: &Strategy) -> Result<(Qat, Vec<String>), Error> {
    let (quantize, train) = (&mut |_: &'static str, _: &Graph| {}, &mut |_: &mut Graph| Ok(()));
    let made = match strategy.enabled("train_with_bn") {
        true => with_norms(graph, strategy, quantize, train)?,
        false => staged(graph, strategy, false, quantize, train)?,
    };
    let Staged { mut quantized, norms, mut warnings } = made;
    quantized.check_names()?;
    layer_config::set_widths(&mut quantized, strategy)?;
    let by_id = norms.into_iter().filter_map(|(name, own)| Some((quantized.graph.find(&name)?, own))).collect();
    fresh(&mut quantized)?;
    let asleep = quantized.layers.values().flat_map(|layer| layer.all()).any(|own| match own {
        Quantizer::Affine(own) => !own.quantizes_in_training(),
        Quantizer::Pof2(_) | Quantizer::Tqt(_) | Quantizer::Block(_) => false,
    });
    if asleep {
        warnings.push(
            "a quantizer whose range is clipped from a histogram (method 2 or 3) quantizes nothing in training, as in the \
             vendor's tool: the network learns nothing of it; set activation_method=0 and input_method=0"
                .into(),
        );
    }
    Ok((Qat { quantized, norms: by_id }, warnings))
}

/// Gives quantizers of channels a state for each, as the vendor's variables are made.
fn fresh(q: &mut QuantGraph) -> Result<(), Error> {
    for (id, layer) in &mut q.layers {
        let node = q.graph.node(*id);
        let fail = |why| Error::layer(&node.name, node.op.class(), why);
        for ((name, weight), own) in node.op.layer().weights().into_iter().zip(&mut layer.weights) {
            let Some(own) = own else { continue };
            let Some(axis) = own.scheme().channel_axis() else { continue };
            let count = Channels::of(weight.shape(), axis).count;
            let parts = own.scheme().parts().into_iter().map(|part| match part.values {
                Numbers::State(_) => Numbers::State(vec![0.0; count]),
                other => other,
            });
            let parts = parts.collect();
            own.scheme_mut().restore(name, parts).map_err(fail)?;
        }
    }
    Ok(())
}

/// Lets every quantizer begin where calibration leaves it: the vendor's `init_quant`. Thresholds stay thresholds.
///
/// `progress(done, total)` is called after every batch. Errors: those of calibration.
pub fn initialize(
    qat: &mut Qat,
    samples: &dyn Samples,
    options: &PtqOptions,
    progress: impl FnMut(usize, usize),
) -> Result<(), Error> {
    let mut folded = qat.folded();
    let strategy = &options.strategy;
    let batches = Batches { size: options.batch_size, most: options.steps, vote: strategy.base().vote };
    calibrate_graph(&mut folded, samples, &batches, progress)?;
    if strategy.value("convert_to_pof2s_quantize_strategy").is_none() {
        adjust_pos::refine(&mut folded, strategy);
    }
    qat.quantized.layers = folded.layers;
    qat.quantized.metadata = folded.metadata;
    Ok(())
}

/// The arguments of the vendor's `get_deploy_model` that change numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeployOptions {
    /// Thresholds become positions, and positions are adjusted.
    pub to_pof2s: bool,
    /// Positions become float scales.
    pub to_fs: bool,
    /// Whether the FixNeuron arithmetic is set, unless float scales are asked for.
    pub fix_neuron: bool,
}

impl Default for DeployOptions {
    fn default() -> Self {
        Self { to_pof2s: true, to_fs: false, fix_neuron: false }
    }
}

/// A trained network and what became of it.
#[derive(Clone, Debug)]
pub struct Deployed {
    /// The network for inference.
    pub quantized: QuantGraph,
    /// Positions that were changed.
    pub changes: Vec<adjust_pos::Change>,
}

/// Rules that the vendor applies to a trained network: those of alignment and of LeakyReLU's biases are left out.
const DEPLOY_RULES: [&str; 6] = [
    "adjust_dpu_sigmoid",
    "adjust_dpu_shift_read",
    "adjust_dpu_shift_write",
    "adjust_dpu_shift_swish",
    "adjust_dpu_shift_cut",
    "adjust_dpu_shift_bias",
];

/// What a trained network is at inference: the vendor's `get_deploy_model`. Normalizations are folded, thresholds become
/// positions, Dropout is removed, positions are adjusted.
///
/// Errors: those of the graph.
pub fn deploy(qat: &Qat, options: &DeployOptions) -> Result<Deployed, Error> {
    let mut quantized = qat.folded();
    quantized.trained = true;
    for own in quantized.layers.values_mut() {
        own.settle();
    }
    if options.to_pof2s {
        convert::thresholds_to_positions(&mut quantized);
    }
    remove_dropout(&mut quantized)?;
    let changes = match options.to_pof2s {
        true => adjust_pos::apply(&mut quantized, |rule| DEPLOY_RULES.contains(&rule)),
        false => Vec::new(),
    };
    if options.to_fs {
        convert::positions_to_float_scales(&mut quantized);
    } else if options.fix_neuron {
        quantized.layers.values_mut().for_each(|layer| layer.set_fix_neuron());
    }
    Ok(Deployed { quantized, changes })
}

/// Bypasses every Dropout whose input nothing else reads, as the vendor does.
fn remove_dropout(q: &mut QuantGraph) -> Result<(), Error> {
    for id in q.graph.ids() {
        let node = q.graph.node(id);
        if let (Op::Dropout(_), [input]) = (&node.op, &node.inputs[..])
            && q.graph.uses()[input.0] == 1
        {
            q.graph.remove(id);
        }
    }
    let renumbered = q.graph.normalize();
    q.graph.verify()?;
    let layers = std::mem::take(&mut q.layers);
    q.layers = layers.into_iter().filter_map(|(id, own)| Some((*renumbered.get(&id)?, own))).collect();
    Ok(())
}
