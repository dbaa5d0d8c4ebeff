//! The list of quantized tensors.

use serde_json::{Value, json};

use shiftwise_core::arith::Round;
use shiftwise_graph::dtype::Dtype;
use shiftwise_graph::graph::Node;
use shiftwise_quant::quant_graph::QuantGraph;

/// `quantize_info.json`: an entry for each quantized tensor, and for each weight of a layer in another type of floats, in
/// the order of the quantized model.
pub fn quantize_info(quantized: &QuantGraph) -> Value {
    let mut entries = Vec::new();
    for id in quantized.graph.ids() {
        let node = quantized.graph.node(id);
        let Some(quant) = quantized.layers.get(&id) else {
            let names = node.op.layer().weights().into_iter().map(|(role, _)| role);
            entries.extend(names.filter(|_| node.dtype != Dtype::Float32).map(|role| converted(node, role)));
            continue;
        };
        for (role, variable, q) in quant.quantizers(node) {
            let role = role.row().info.unwrap_or(variable);
            let mut entry = json!({ "layer": quantized.quant_name(id), "wrapped": node.name, "role": role });
            if let Some(entry) = entry.as_object_mut() {
                entry.extend(q.scheme().info());
            }
            entries.push(entry);
        }
    }
    Value::Array(entries)
}

/// The entry of a weight of another type.
fn converted(node: &Node, role: &str) -> Value {
    json!({
        "layer": node.name, "wrapped": node.name, "role": role, "bit_width": node.dtype.bits(), "signed": true,
        "round_mode": Round::HalfToEven.id(), "dtype": node.dtype.name(),
    })
}
