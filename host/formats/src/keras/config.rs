//! A layer's config as Keras 2 writes it: which keys, in which order, with which defaults.

use serde_json::{Map, Value, json};

use crate::keras::float_graph::{BATCH_SIZE, own_settings};
use shiftwise_graph::graph::Node;
use shiftwise_graph::ops::Op;
use shiftwise_graph::ops::tfop::CALL;

/// Keras' config of a node: what the op says, then what its file said, then Keras' defaults.
pub(crate) fn keras(node: &Node) -> Map<String, Value> {
    let own = own_settings(&node.op);
    let mut config = Map::new();
    let input = node.op.class() == "InputLayer";
    if !input {
        config.insert("name".into(), json!(node.name));
        config.insert("trainable".into(), extra(node, "trainable").unwrap_or(json!(true)));
        config.insert("dtype".into(), extra(node, "dtype").unwrap_or(json!("float32")));
    }
    let Value::Object(template) = template(node) else { return config };
    for (key, default) in template {
        let value = match (own.get(&key), extra(node, &key)) {
            // Modelled as f32; the file may have more digits, or none behind the point.
            (Some(own), Some(file)) if same(own, &file) => file,
            (Some(own), _) => own.clone(),
            (None, file) => file.unwrap_or(default),
        };
        config.insert(key, value);
    }
    if input {
        let batch = config.get_mut("batch_input_shape").and_then(|shape| shape.get_mut(0));
        if let (Some(batch), Some(size)) = (batch, node.extras.get(BATCH_SIZE)) {
            *batch = size.clone();
        }
        config.insert("name".into(), json!(node.name));
    }
    config
}

/// Whether two values are the same up to the precision of f32.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().map(|v| v as f32) == b.as_f64().map(|v| v as f32),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (a, b) => a == b,
    }
}

/// A setting from the file, in Keras 2's form: Keras 3 says more about objects.
fn extra(node: &Node, key: &str) -> Option<Value> {
    let value = node.extras.get(key)?;
    match value.as_object() {
        Some(o) if o.contains_key("registered_name") && key == "dtype" => value.get("config")?.get("name").cloned(),
        Some(o) if o.contains_key("registered_name") => {
            Some(json!({ "class_name": value.get("class_name"), "config": value.get("config") }))
        }
        _ => Some(value.clone()),
    }
}

/// Keys behind `dtype` in Keras' order, with the defaults of what the op doesn't model.
fn template(node: &Node) -> Value {
    if matches!(&node.op, Op::LayerNormalization(n) if n.rms_scaling) {
        return Value::Object(node.op.layer().to_keras());
    }
    let class = |name: &str| json!({ "class_name": name, "config": {} });
    let glorot = json!({ "class_name": "GlorotUniform", "config": { "seed": null } });
    match node.op.class() {
        "InputLayer" => json!({ "batch_input_shape": null, "dtype": "float32", "sparse": false, "ragged": false }),
        "Conv2D" => json!({
            "filters": null, "kernel_size": null, "strides": null, "padding": null, "data_format": null,
            "dilation_rate": null, "groups": 1, "activation": null, "use_bias": null, "kernel_initializer": glorot,
            "bias_initializer": class("Zeros"), "kernel_regularizer": null, "bias_regularizer": null,
            "activity_regularizer": null, "kernel_constraint": null, "bias_constraint": null,
        }),
        "DepthwiseConv2D" => json!({
            "kernel_size": null, "strides": null, "padding": null, "data_format": null, "dilation_rate": null,
            "groups": 1, "activation": null, "use_bias": null, "bias_initializer": class("Zeros"),
            "bias_regularizer": null, "activity_regularizer": null, "bias_constraint": null, "depth_multiplier": null,
            "depthwise_initializer": glorot, "depthwise_regularizer": null, "depthwise_constraint": null,
        }),
        "Dense" => json!({
            "units": null, "activation": null, "use_bias": null, "kernel_initializer": glorot,
            "bias_initializer": class("Zeros"), "kernel_regularizer": null, "bias_regularizer": null,
            "activity_regularizer": null, "kernel_constraint": null, "bias_constraint": null,
        }),
        "BatchNormalization" => json!({
            "axis": [node.shape.len()], "momentum": 0.99, "epsilon": null, "center": null, "scale": null,
            "beta_initializer": class("Zeros"), "gamma_initializer": class("Ones"),
            "moving_mean_initializer": class("Zeros"), "moving_variance_initializer": class("Ones"),
            "beta_regularizer": null, "gamma_regularizer": null, "beta_constraint": null, "gamma_constraint": null,
        }),
        "LayerNormalization" | "VitisLayernorm" => json!({
            "axis": [node.shape.len()], "epsilon": null, "center": null, "scale": null,
            "beta_initializer": class("Zeros"), "gamma_initializer": class("Ones"),
            "beta_regularizer": null, "gamma_regularizer": null, "beta_constraint": null, "gamma_constraint": null,
        }),
        "Conv2DTranspose" => json!({
            "filters": null, "kernel_size": null, "strides": null, "padding": null, "data_format": null,
            "dilation_rate": null, "groups": 1, "activation": null, "use_bias": null, "kernel_initializer": glorot,
            "bias_initializer": class("Zeros"), "kernel_regularizer": null, "bias_regularizer": null,
            "activity_regularizer": null, "kernel_constraint": null, "bias_constraint": null, "output_padding": null,
        }),
        "SeparableConv2D" => json!({
            "filters": null, "kernel_size": null, "strides": null, "padding": null, "data_format": null,
            "dilation_rate": null, "groups": 1, "activation": null, "use_bias": null, "kernel_initializer": glorot,
            "bias_initializer": class("Zeros"), "kernel_regularizer": null, "bias_regularizer": null,
            "activity_regularizer": null, "kernel_constraint": null, "bias_constraint": null, "depth_multiplier": null,
            "depthwise_initializer": glorot, "pointwise_initializer": glorot, "depthwise_regularizer": null,
            "pointwise_regularizer": null, "depthwise_constraint": null, "pointwise_constraint": null,
        }),
        "PReLU" => json!({
            "alpha_initializer": class("Zeros"), "alpha_regularizer": null, "alpha_constraint": null, "shared_axes": null,
        }),
        "Dropout" | "SpatialDropout2D" => json!({ "rate": null, "noise_shape": null, "seed": null }),
        // Of these little or nothing is modelled: what else the file says.
        _ if matches!(node.op, Op::Dropout(_) | Op::Normalization(_)) => {
            let mut all = node.op.layer().to_keras();
            let others =
                node.extras.iter().filter(|(k, _)| !matches!(k.as_str(), "trainable" | "dtype" | BATCH_SIZE | CALL));
            all.extend(others.map(|(k, _)| (k.clone(), Value::Null)));
            Value::Object(all)
        }
        // The rest consists of modelled settings in Keras' order; Keras 3 has other names for some.
        _ => Value::Object(node.op.layer().to_keras()),
    }
}
