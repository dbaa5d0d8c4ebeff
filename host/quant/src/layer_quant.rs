//! The quantizers of one layer, from its entry in a strategy.

use serde_json::{Map, Value};

use crate::quant_graph::{ActivationQuant, LayerQuant, Quantizer};
use crate::strategy;
use shiftwise_graph::error::Error;
use shiftwise_graph::ops::Op;

/// Quantizers by the names in a strategy entry's list.
fn quantizers(entry: &Map<String, Value>, names: &str, list: &str) -> Result<Vec<(Value, Quantizer)>, Error> {
    let array = |key: &str| entry.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let (names, list) = (array(names), array(list));
    names.into_iter().zip(&list).map(|(n, q)| Ok((n, Quantizer::new(strategy::params(q)?)))).collect()
}

/// The quantizers of a layer from its strategy entry.
pub fn layer_quant(op: &Op, entry: Map<String, Value>, deferred: bool) -> Result<LayerQuant, Error> {
    let named = [
        quantizers(&entry, "quantizable_weights", "weight_quantizers")?,
        quantizers(&entry, "quantizable_biases", "bias_quantizers")?,
    ]
    .concat();
    let weights = op.layer().weights();
    let weights =
        weights.iter().map(|(name, _)| named.iter().find(|(n, _)| n == name).map(|(_, q)| q.clone())).collect();
    let activation = quantizers(&entry, "quantizable_activations", "activation_quantizers")?.into_iter().next();
    let activation = match activation {
        None => ActivationQuant::Absent,
        Some(_) if deferred => ActivationQuant::Deferred,
        Some((_, q)) if op.layer().activation().quantized_before() => ActivationQuant::Before(q),
        Some((_, q)) => ActivationQuant::After(q),
    };
    let output = quantizers(&entry, "quantizable_outputs", "output_quantizers")?.into_iter().next().map(|(_, q)| q);
    Ok(LayerQuant { config: Some(entry), weights, activation, output })
}
