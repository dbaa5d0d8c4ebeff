//! Widths of single layers: the vendor's `layer_config`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::quant_graph::QuantGraph;
use crate::strategy::Strategy;
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::Graph;
use shiftwise_graph::ops::Op;

/// What `layer_config` may say of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Bits(u8),
    Float32,
}

fn entries(strategy: &Strategy) -> Result<Vec<(String, Width)>, Error> {
    let config = strategy.user_value("layer_config").and_then(Value::as_object);
    let entry = |(layer, value): (&String, &Value)| {
        let width = match value.as_str() {
            Some("int8") => Width::Bits(8),
            Some("int16") => Width::Bits(16),
            Some("int32") => Width::Bits(32),
            Some("float32") => Width::Float32,
            _ => {
                return Err(Error::Options(format!(
                    "`layer_config` gives layer `{layer}` the type {value}; this version has int8, int16, int32 and float32"
                )));
            }
        };
        Ok((layer.clone(), width))
    };
    config.into_iter().flatten().map(entry).collect()
}

/// Before optimization: checks the types, and remembers the layers' names if some are to stay float.
pub fn original_layers(graph: &Graph, strategy: &Strategy) -> Result<Option<BTreeSet<String>>, Error> {
    let float = entries(strategy)?.iter().any(|(_, width)| *width == Width::Float32);
    Ok(float.then(|| graph.nodes.iter().map(|n| n.name.clone()).collect()))
}

/// After optimization: float layers are left alone; and so are, as in the vendor's tool, all layers that the optimization
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
    let warnings = warnings.collect();
    for node in &mut graph.nodes {
        let made = original.is_some_and(|names| !names.contains(&node.name));
        let float = entries.iter().any(|(name, width)| *name == node.name && *width == Width::Float32);
        node.excluded |= made || float;
    }
    Ok(warnings)
}

/// After calibration: layers get their widths. Positions stay those of 8 bits, as in the vendor's tool: values reach further
/// and are no finer.
pub fn set_widths(q: &mut QuantGraph, strategy: &Strategy) -> Result<(), Error> {
    for (name, width) in entries(strategy)? {
        let Width::Bits(bits) = width else { continue };
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
