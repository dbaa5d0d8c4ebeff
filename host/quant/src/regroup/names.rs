//! The names of Keras' layers, which exporters write as scopes: `model/quant_conv/BiasAdd` is a part of the layer `conv`.

use std::collections::HashSet;

use shiftwise_graph::graph::Graph;
use shiftwise_graph::ops::Op;

/// Scopes of the vendor's quantizers in the scopes of their layers.
const QUANTIZERS: [&str; 4] = ["/Pof2SQuantize", "/FSQuantize", "/TQTQuantize", "/BFPQuantize"];

/// Model and layer of a quantizer's name: `model/quant_input/Pof2SQuantize/…`.
pub(super) fn quantizer(name: &str) -> Option<(&str, &str)> {
    let scope = QUANTIZERS.iter().find_map(|scope| Some(name.split_once(scope)?.0))?;
    scope.split_once('/')
}

/// The model in whose scopes layers stand, in a file that has the vendor's.
pub(super) fn scope(graph: &Graph) -> Option<String> {
    let quantizers = graph.nodes.iter().filter(|node| matches!(node.op, Op::Quantize(_)));
    quantizers.filter_map(|node| quantizer(&node.name)).next().map(|(model, _)| format!("{model}/"))
}

/// Scopes that TensorFlow's functions open within that of the layer which calls them.
const INNER: [&str; 3] = ["/batchnorm", "/moments", "/resize"];

/// The layer that an operation in a model's scope is a part of, as the quantized model calls it.
pub(super) fn layer<'a>(name: &'a str, model: &str) -> Option<&'a str> {
    let scope = name.strip_prefix(model)?.rsplit_once('/')?.0;
    Some(INNER.iter().find_map(|inner| scope.strip_suffix(inner)).unwrap_or(scope))
}

/// Gives layers back their names, in a file that has the vendor's scopes.
pub(super) fn restore(graph: &mut Graph, model: &str) {
    let mut taken: HashSet<String> = graph.nodes.iter().map(|node| node.name.clone()).collect();
    for node in &mut graph.nodes {
        let name = match &node.op {
            Op::Quantize(_) => quantizer(&node.name).map(|(_, layer)| layer.to_owned()),
            Op::Input(_) => None,
            _ => layer(&node.name, model).map(|own| own.strip_prefix("quant_").unwrap_or(own).to_owned()),
        };
        // A Quantize node behind a layer has the name that the quantized layer has; it goes into the layer.
        if let Some(name) = name.filter(|name| !name.is_empty() && taken.insert(name.clone())) {
            node.origin = vec![name.clone()];
            node.name = name;
        }
    }
    if graph.name.is_empty() || graph.name == "tf2onnx" {
        graph.name = model.trim_end_matches('/').to_owned();
    }
}
