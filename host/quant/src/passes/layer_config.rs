//! Types of single layers: the vendor's `layer_config`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::passes::dtype;
use crate::passes::dtype::set_dtype;
use crate::quant_graph::QuantGraph;
use crate::strategy::Strategy;
use shiftwise_graph::dtype::Dtype;
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::Graph;
use shiftwise_graph::ops::Op;

/// What `layer_config` may say of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    /// Quantized to this many bits.
    Bits(u8),
    /// Left float, in this type.
    Float(Dtype),
}

/// Widths of integers by the vendor's names.
const INTEGERS: [(&str, u8); 3] = [("int8", 8), ("int16", 16), ("int32", 32)];

impl Type {
    fn from_name(name: &str) -> Option<Self> {
        let bits = INTEGERS.iter().find(|(integer, _)| *integer == name).map(|(_, bits)| Self::Bits(*bits));
        bits.or_else(|| Dtype::from_name(name).map(Self::Float))
    }
}

fn entries(strategy: &Strategy) -> Result<Vec<(String, Type)>, Error> {
    let config = strategy.user_value("layer_config").and_then(Value::as_object);
    let entry = |(layer, value): (&String, &Value)| match value.as_str().and_then(Type::from_name) {
        Some(own) => Ok((layer.clone(), own)),
        None => {
            let integers = INTEGERS.map(|(name, _)| name);
            let known = integers.into_iter().chain(Dtype::ALL.into_iter().map(Dtype::name)).collect::<Vec<_>>();
            let known = known.join(", ");
            Err(Error::Options(format!("`layer_config` gives layer `{layer}` the type {value}; known are {known}")))
        }
    };
    config.into_iter().flatten().map(entry).collect()
}

/// Before optimization: checks the types, and remembers the layers' names if some are to stay float.
pub fn original_layers(graph: &Graph, strategy: &Strategy) -> Result<Option<BTreeSet<String>>, Error> {
    let float = entries(strategy)?.iter().any(|(_, own)| matches!(own, Type::Float(_)));
    Ok(float.then(|| graph.nodes.iter().map(|n| n.name.clone()).collect()))
}

/// After optimization: float layers get their types and are left alone; and so are, as in the vendor's tool, all layers that the optimization
/// has made. Returns warnings about names that don't exist.
pub fn keep_float(
    graph: &mut Graph,
    strategy: &Strategy,
    original: Option<&BTreeSet<String>>,
) -> Result<Vec<String>, Error> {
    let entries = entries(strategy)?;
    let unknown = entries.iter().filter(|(name, _)| graph.find(name).is_none());
    let warnings =
        unknown.map(|(n, _)| format!("layer_config names `{n}`, which is not a layer of the optimized model"));
    let mut warnings: Vec<String> = warnings.collect();
    for node in &mut graph.nodes {
        let made = original.is_some_and(|names| !names.contains(&node.name));
        let own = entries.iter().find(|(name, _)| *name == node.name).map(|(_, own)| *own);
        if let Some(Type::Float(dtype)) = own {
            set_dtype(node, dtype);
        }
        node.excluded |= made || matches!(own, Some(Type::Float(_)));
    }
    warnings.extend(dtype::warning(graph));
    Ok(warnings)
}

/// Layers get their widths. After calibration positions stay those of 8 bits, as in the vendor's tool: values reach further
/// and are no finer. Before it, positions follow the widths.
pub fn set_widths(q: &mut QuantGraph, strategy: &Strategy) -> Result<(), Error> {
    for (name, own) in entries(strategy)? {
        let Type::Bits(bits) = own else { continue };
        for (id, layer) in &mut q.layers {
            let node = q.graph.node(*id);
            let addressed = match node.op {
                Op::Quantize(_) => node.name.strip_prefix("quant_") == Some(name.as_str()),
                _ => node.name == name,
            };
            if addressed {
                layer.set_width(bits);
            }
        }
    }
    Ok(())
}
