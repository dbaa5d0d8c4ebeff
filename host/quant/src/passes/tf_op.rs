//! TensorFlow functions as layers, turned into the layers that they are.

use crate::strategy::Strategy;
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::tfop::Operand;
use shiftwise_graph::ops::{HardSigmoid, Op, Relu};

/// The only input of a function of one tensor and one constant, if it is this function with this constant.
fn with_constant(graph: &Graph, id: NodeId, functions: &[&str], constant: f32) -> Option<NodeId> {
    let Op::TfOp(op) = &graph.node(id).op else { return None };
    let matches = |o: &Operand| match o {
        Operand::Constant(t) => matches!(t.data(), [c] if (c - constant).abs() < 1e-6),
        Operand::Tensor(_) => false,
    };
    let known = functions.contains(&op.function.as_str()) && op.operands.len() == 2;
    match graph.node(id).inputs[..] {
        [input] if known && op.operands.iter().any(matches) => Some(input),
        _ => None,
    }
}

/// relu6(x + 3) · (1/6), as MobileNetV3 writes it in functions around a ReLU layer, becomes the DPU's hard sigmoid
/// `vitis_sigmoid`, `vitis_sigmoid_1`, ….
///
/// (The vendor's tool takes any constants for these two.)
pub(super) fn convert_hard_sigmoid_to_dpu_version(graph: &mut Graph, _: &Strategy) -> Result<(), Error> {
    let uses = graph.uses();
    let inner = |id: NodeId| (uses[id.0] == 1 && graph.is_candidate(id)).then_some(id);
    let found: Vec<(NodeId, NodeId)> = graph
        .ids()
        .filter(|id| graph.is_candidate(*id))
        .filter_map(|id| {
            let relu =
                inner(with_constant(graph, id, &["math.multiply", "multiply", "__operators__.mul"], 1.0 / 6.0)?)?;
            let Op::Relu(Relu { max_value: Some(6.0), negative_slope: 0.0, threshold: 0.0 }) = graph.node(relu).op
            else {
                return None;
            };
            let sum = inner(*graph.node(relu).inputs.first()?)?;
            Some((id, with_constant(graph, sum, &["__operators__.add", "math.add", "add"], 3.0)?))
        })
        .collect();
    let mut number = 0;
    for (id, input) in found {
        let name = loop {
            let name = if number == 0 { "vitis_sigmoid".to_owned() } else { format!("vitis_sigmoid_{number}") };
            number += 1;
            if graph.find(&name).is_none() {
                break name;
            }
        };
        let origin = graph.node(id).origin.clone();
        let sigmoid = graph.add(name, Op::HardSigmoid(HardSigmoid), vec![input], origin)?;
        graph.redirect(id, sigmoid);
    }
    Ok(())
}
