//! What the layers of a graph are called, and which operations are a part of others.

use std::collections::{BTreeMap, HashSet};

use shiftwise_graph::ops::ActivationFn;

use crate::graph::is_input;
use crate::{XOp, Xmodel};

/// What the layers are called: graphs that were Keras models call the quantized layer `quant_NAME`, and so does a quantized
/// model here, whose layers have the user's names.
pub(super) fn of(model: &Xmodel) -> Vec<String> {
    let keras = model.attrs.text("origin").is_some_and(|origin| origin.starts_with("tensorflow"));
    let mut taken: HashSet<&str> = model.ops.iter().map(|op| op.name.as_str()).collect();
    let name = |op: &XOp| {
        let plain = keras && !is_input(op) && !op.is_const() && op.kind != "fix";
        op.name.strip_prefix("quant_").filter(|_| plain).map(str::to_owned)
    };
    let mut all = Vec::with_capacity(model.ops.len());
    for op in &model.ops {
        let own = name(op).filter(|own| !own.is_empty() && !taken.contains(own.as_str()));
        if own.is_some() {
            taken.extend(op.name.strip_prefix("quant_"));
        }
        all.push(own.unwrap_or_else(|| op.name.clone()));
    }
    all
}

/// Activations that are attributes of the layers before them: `NAME_relu` behind the weighted layer NAME, which nothing else
/// reads.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes {
    /// By the activation: the layer.
    pub(super) layers: BTreeMap<usize, usize>,
    /// By the layer: the function.
    pub(super) functions: BTreeMap<usize, ActivationFn>,
}

/// Finds them.
pub(super) fn attributes(model: &Xmodel) -> Attributes {
    let mut uses = vec![0usize; model.ops.len()];
    model.ops.iter().flat_map(XOp::inputs).for_each(|i| uses[i] += 1);
    model.results().into_iter().for_each(|i| uses[i] += 1);
    let mut all = Attributes::default();
    for (i, op) in model.ops.iter().enumerate() {
        let function = match op.kind.as_str() {
            "relu" => ActivationFn::Relu,
            "relu6" => ActivationFn::Relu6,
            _ => continue,
        };
        let Some(source) = op.inputs().next() else { continue };
        let before = &model.ops[source];
        let weighted = WEIGHTED.contains(&before.kind.as_str());
        if weighted && uses[source] == 1 && op.name == format!("{}_{}", before.name, op.kind) {
            all.layers.insert(i, source);
            all.functions.insert(source, function);
        }
    }
    all
}

/// Operations with weights.
const WEIGHTED: [&str; 5] = ["conv2d", "depthwise-conv2d", "transposed-conv2d", "matmul", "inner-product"];
