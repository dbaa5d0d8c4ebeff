//! Activations: layers, and the attribute that other layers have.

use serde_json::{Value, json};

use crate::custom_use::LAMBDA;
use crate::layers::settings::initializer;
use crate::layers::{Config, Described, KerasForm, Settings};
use shiftwise_graph::ops::{Activate, ActivationFn, DpuSoftmax, Elu, HardSigmoid, LeakyRelu, PRelu, Relu, Softmax};

/// The activation that the setting `key` names: a word, or an object that wraps one; none is the identity.
pub(super) fn activation(config: Config<'_>, key: &str) -> Result<ActivationFn, String> {
    let Some(mut value) = config.get(key) else { return Ok(ActivationFn::Linear) };
    let unnamed = |value: &Value| Err(format!("`{key}` is {value}, the name of an activation is expected"));
    // Quantized models wrap the function: {"class_name": …, "config": {"activation": "relu"}}; the innermost
    // class NoQuantizeActivation is the identity.
    loop {
        match value {
            Value::String(name) => {
                return ActivationFn::from_name(name).ok_or_else(|| {
                    let known: Vec<&str> = ActivationFn::names().collect();
                    format!("activation `{name}` is unknown; known are {}", known.join(", "))
                });
            }
            Value::Object(o) if o.get("class_name").is_some_and(|class| class == "Vitis>NoQuantizeActivation") => {
                return Ok(ActivationFn::Linear);
            }
            Value::Object(o) => match o.get("config").or_else(|| o.get("activation")) {
                Some(inner) => value = inner,
                None => return unnamed(value),
            },
            other => return unnamed(other),
        }
    }
}

/// The name in a setting that stands for no known function; `None` if it is known, or no name at all.
pub(crate) fn unknown_name(mut value: &Value) -> Option<&str> {
    loop {
        value = match value {
            Value::String(name) => return Some(name.as_str()).filter(|name| ActivationFn::from_name(name).is_none()),
            // A function without a name, as its code.
            Value::Object(o)
                if o.get("class_name").is_some_and(|class| class == "__lambda__")
                    || o.get("value").is_some_and(Value::is_array) =>
            {
                return Some(LAMBDA);
            }
            Value::Object(o) => o.get("config").or_else(|| o.get("activation"))?,
            _ => return None,
        }
    }
}

impl KerasForm for Activate {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        Ok(Self { function: activation(from.config, "activation")? })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        to.own("activation", json!(self.function.name()));
    }
}

/// A number that Keras itself has turned into f32 before it wrote it.
fn single(value: f32) -> Value {
    json!(f64::from(value))
}

impl KerasForm for Relu {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        let config = from.config;
        Ok(Self {
            max_value: config.get("max_value").map(|_| config.f32_or("max_value", 0.0)).transpose()?,
            negative_slope: config.f32_or("negative_slope", 0.0)?,
            threshold: config.f32_or("threshold", 0.0)?,
        })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        to.own("max_value", self.max_value.map_or(Value::Null, single));
        to.own("negative_slope", single(self.negative_slope));
        to.own("threshold", single(self.threshold));
    }
}

impl KerasForm for LeakyRelu {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        // Keras 3 calls the slope as it is called in ReLU.
        let key = if from.config.get("negative_slope").is_some() { "negative_slope" } else { "alpha" };
        Ok(Self { alpha: from.config.f32_or(key, 0.3)? })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        to.own("alpha", single(self.alpha));
    }
}

impl KerasForm for Elu {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        Ok(Self { alpha: from.config.f32_or("alpha", 1.0)? })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        to.single("alpha", self.alpha);
    }
}

impl KerasForm for PRelu {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        let mut shape = from.input()?.to_vec();
        let shared_axes: Vec<usize> = match from.config.get("shared_axes") {
            None => Vec::new(),
            Some(value) => {
                let axis = |v: &Value| v.as_u64().map(|v| v as usize).filter(|v| (1..=shape.len()).contains(v));
                let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
                list.iter().map(axis).collect::<Option<_>>().ok_or_else(|| format!("its shared_axes are {value}"))?
            }
        };
        shared_axes.iter().for_each(|axis| shape[axis - 1] = 1);
        Ok(Self { alpha: from.weights.take("alpha", &shape)?, shared_axes })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        let zeros = initializer("Zeros");
        to.kept(json!({ "alpha_initializer": zeros, "alpha_regularizer": null, "alpha_constraint": null }));
        to.own("shared_axes", if self.shared_axes.is_empty() { Value::Null } else { json!(self.shared_axes) });
    }
}

impl KerasForm for Softmax {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        let rank = from.input()?.len() as i64;
        match from.config.axis() {
            Some(axis) if !axis.as_i64().is_some_and(|a| a == -1 || a == rank) => {
                Err(format!("softmax over axis {axis}, only the last axis (-1 or {rank}) is supported"))
            }
            Some(_) | None => Ok(Self { axis: -1 }),
        }
    }
    fn write(&self, to: &mut Settings, _: usize) {
        to.own("axis", json!(self.axis));
    }
}

impl KerasForm for DpuSoftmax {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        Ok(Self { axis: from.config.get("axis").and_then(Value::as_i64).unwrap_or(-1) })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        to.own("axis", json!(self.axis));
    }
}

impl KerasForm for HardSigmoid {
    fn read(_: &mut Described<'_>) -> Result<Self, String> {
        Ok(Self)
    }
    fn write(&self, _: &mut Settings, _: usize) {}
}
