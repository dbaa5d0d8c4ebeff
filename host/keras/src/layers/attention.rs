//! Attention of several heads: settings, and calls, whose tensors have names.

use serde_json::{Value, json};

use crate::call::{Call, tensor_argument, tensor_of};
use crate::layers::functions::CALL;
use crate::layers::settings::initializer;
use crate::layers::{Described, KerasForm, Settings};
use shiftwise_graph::ops::MultiHeadAttention;
use shiftwise_graph::ops::attention::Projection;

/// The only argument of a call that is a setting.
const CAUSAL: &str = "use_causal_mask";

/// Keras' class.
pub(crate) const CLASS: &str = "MultiHeadAttention";

/// Brings a call into one form: the query by position, value and key by name, and a causal mask if there is one. Tensors
/// are in that order.
///
/// Errors: an argument that is none of these, such as a mask that is a tensor.
pub(crate) fn settle(call: &mut Call) -> Result<(), String> {
    let mut args = std::mem::take(&mut call.args).into_iter();
    let mut tensors = Vec::new();
    for name in ["query", "value", "key"] {
        let given = args.next().filter(|v| !v.is_null()).or_else(|| call.kwargs.shift_remove(name));
        let Some(given) = given.filter(|v| !v.is_null()) else {
            if name == "key" {
                continue;
            }
            return Err(format!("it is called without a {name}"));
        };
        let tensor = tensor_of(&given).and_then(|k| call.tensors.get(k).cloned());
        tensors.push(tensor.ok_or_else(|| format!("its {name} is not the result of a layer"))?);
    }
    let causal = call.kwargs.shift_remove(CAUSAL).unwrap_or(Value::Null);
    let causal = match &causal {
        Value::Null => false,
        Value::Bool(on) => *on,
        other => return Err(format!("its {CAUSAL} is {other}, true or false is expected")),
    };
    let on = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
    if let Some(value) = args.find(on) {
        return Err(format!("it is called with the mask or setting {value:.60}, which is not computed here"));
    }
    if let Some((key, _)) = call.kwargs.iter().find(|(_, value)| on(value)) {
        return Err(format!("it is called with the argument `{key:.60}`, which is not computed here"));
    }
    call.kwargs.clear();
    call.args = vec![tensor_argument(0)];
    for (k, name) in ["value", "key"].into_iter().enumerate().take(tensors.len().saturating_sub(1)) {
        call.kwargs.insert(name.into(), tensor_argument(k + 1));
    }
    if causal {
        call.kwargs.insert(CAUSAL.into(), json!(true));
    }
    call.tensors = tensors;
    Ok(())
}

impl KerasForm for MultiHeadAttention {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        let channels = |k: usize| from.inputs.get(k).and_then(|s| s.last()).copied();
        let (query, value) = channels(0).zip(channels(1)).ok_or("query and value are expected, with channels")?;
        let key = channels(2).unwrap_or(value);
        let config = &from.config;
        let (heads, key_dim) = (config.usize("num_heads")?, config.usize("key_dim")?);
        let value_dim = if config.get("value_dim").is_some() { config.usize("value_dim")? } else { key_dim };
        let bias = config.bool_or("use_bias", true)?;
        for gate in ["use_gate", "sliding_window"] {
            if config.get(gate).is_some_and(|v| *v != json!(false)) {
                return Err(format!("its `{gate}` is not computed here"));
            }
        }
        // Of samples [steps, channels] there is one axis to attend along; Keras counts the batch.
        let axes = config.get("attention_axes").cloned().unwrap_or(json!([1]));
        if ![json!([1]), json!(1), json!([-2]), json!(-2)].contains(&axes) {
            return Err(format!("it attends along the axes {axes}, [1] is expected"));
        }
        let given = config.get("output_shape");
        let outputs = match given {
            None => Some(query),
            Some(Value::Array(list)) => one_size(list),
            Some(size) => size.as_u64().and_then(|n| usize::try_from(n).ok()),
        };
        let outputs = outputs.ok_or_else(|| "its output_shape has not one dimension".to_owned())?;
        let causal = config.get(CALL).and_then(|call| call.get("kwargs")?.get(CAUSAL)?.as_bool()).unwrap_or(false);
        let (dropout, own_output) = (config.f32_or("dropout", 0.0)?, given.is_some());
        let mut projection = |name: &str, kernel: &[usize], size: &[usize]| {
            let kernel = from.weights.take(&format!("{name}/kernel"), kernel)?;
            let bias = bias.then(|| from.weights.take(&format!("{name}/bias"), size)).transpose()?;
            Ok::<_, String>(Projection { kernel, bias })
        };
        let [names @ .., last] = Self::PROJECTIONS;
        let sizes = [(query, key_dim), (key, key_dim), (value, value_dim)];
        let mut inputs = Vec::new();
        for (name, (channels, size)) in names.into_iter().zip(sizes) {
            inputs.push(projection(name, &[channels, heads, size], &[heads, size])?);
        }
        let output = projection(last, &[heads, value_dim, outputs], &[outputs])?;
        let inputs = inputs.try_into().map_err(|_| "it has three projections".to_owned())?;
        Ok(Self { heads, key_dim, value_dim, inputs, output, causal, dropout, own_output })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        to.own("num_heads", json!(self.heads));
        to.own("key_dim", json!(self.key_dim));
        to.own("value_dim", json!(self.value_dim));
        to.single("dropout", self.dropout);
        to.own("use_bias", json!(self.output.bias.is_some()));
        let outputs = self.output.kernel.shape().last().copied();
        to.own("output_shape", if self.own_output { json!(outputs) } else { Value::Null });
        let (kernel, bias) = (initializer("GlorotUniform"), initializer("Zeros"));
        to.kept(json!({
            "attention_axes": [1], "kernel_initializer": kernel, "bias_initializer": bias, "kernel_regularizer": null,
            "bias_regularizer": null, "activity_regularizer": null, "kernel_constraint": null, "bias_constraint": null,
        }));
    }
}

fn one_size(list: &[Value]) -> Option<usize> {
    let [size] = list else { return None };
    usize::try_from(size.as_u64()?).ok()
}
