//! Convolutions with the normalization that they are trained with, in the vendor's form: one layer with both inside.

use serde_json::{Map, Value, json};

use crate::h5::Data;
use crate::layers::node::{config as node_config, extras};
use crate::layers::{self, Config};
use crate::stored::LayerWeights;
use crate::wrapped::Wrapped;
use shiftwise_graph::graph::Node;
use shiftwise_graph::ops::Op;
use shiftwise_quant::qat::ConvNorm;
use shiftwise_tensor::tensor::Tensor;

/// The vendor's layer of each class of convolution.
const CLASSES: [(&str, &str); 2] =
    [("Vitis>VitisConvBNQuantize", "Conv2D"), ("Vitis>VitisDepthwiseConvBNQuantize", "DepthwiseConv2D")];

/// Whether a class is one of these layers.
pub(crate) fn is_class(class: &str) -> bool {
    CLASSES.iter().any(|(own, _)| *own == class)
}

/// The layer's name.
pub(crate) fn name(conv: &Node, own: &ConvNorm) -> String {
    format!("quant_{}_{}", conv.name, own.name)
}

/// What a layer's settings are made of besides its two layers.
pub(crate) struct Rest {
    pub(crate) activation: Value,
    pub(crate) quantize_config: Value,
    pub(crate) mode: &'static str,
}

/// Class and settings of the layer.
pub(crate) fn config(conv: &Node, own: &ConvNorm, name: &str, rest: Rest) -> (&'static str, Value) {
    let mut inner = conv.clone();
    if let (Some(w), false) = (inner.op.weighted_mut(), own.biased) {
        w.bias = None;
    }
    let norm = Node {
        name: own.name.clone(),
        op: Op::BatchNormalization(own.norm.clone()),
        extras: own.extras.clone(),
        ..conv.clone()
    };
    let layer = |node: &Node| json!({ "class_name": node.op.class(), "config": node_config(node) });
    let config = json!({
        "name": name, "trainable": true, "dtype": "float32", "conv_layer": layer(&inner), "bn_layer": layer(&norm),
        "activation": rest.activation, "freeze_bn_delay": own.freeze_delay, "quantize_config": rest.quantize_config,
        "mode": rest.mode,
    });
    let class = CLASSES.iter().find(|(_, of)| *of == conv.op.class()).map_or(CLASSES[0].0, |(class, _)| class);
    (class, config)
}

/// The layer's variables in the vendor's order: what training changes of the quantizers, weights, the number of steps, the
/// rest of the quantizers, moving statistics. `states`: whether training changes it, name and value.
pub(crate) fn data(
    conv: &Node,
    own: &ConvNorm,
    states: impl Iterator<Item = (bool, String, Data)>,
) -> Vec<(String, Data)> {
    let (trained, rest): (Vec<_>, Vec<_>) = states.partition(|(trained, ..)| *trained);
    let unnamed = |(_, name, data): (bool, String, Data)| (name, data);
    let float = |(name, tensor): (&str, &Tensor)| (name.to_owned(), Data::Floats(tensor.clone(), conv.dtype));
    let weights = conv.op.layer().weights().into_iter().filter(|(name, _)| own.biased || *name != "bias");
    let norm = Op::BatchNormalization(own.norm.clone());
    let (moving, scales): (Vec<_>, Vec<_>) =
        norm.layer().weights().into_iter().partition(|(name, _)| name.starts_with("moving_"));
    let mut all: Vec<(String, Data)> = trained.into_iter().map(unnamed).collect();
    all.extend(weights.chain(scales).map(float));
    all.push(("optimizer_step".to_owned(), Data::Int(own.step)));
    all.extend(rest.into_iter().map(unnamed));
    all.extend(moving.into_iter().map(float));
    all
}

/// The two layers of a layer's settings.
pub(crate) struct Parts<'a> {
    pub(crate) conv: Wrapped<'a>,
    norm: Wrapped<'a>,
    config: &'a Map<String, Value>,
}

impl<'a> Parts<'a> {
    /// The layers inside a layer of this name. Errors: what the vendor doesn't write, as a clause.
    pub(crate) fn of(name: &str, config: &'a Map<String, Value>) -> Result<Self, String> {
        let own =
            Self { conv: Wrapped::under("conv_layer", config)?, norm: Wrapped::under("bn_layer", config)?, config };
        if !CLASSES.iter().any(|(_, of)| *of == own.conv.class) || own.norm.class != "BatchNormalization" {
            return Err(format!("it holds a {} and a {}", own.conv.class, own.norm.class));
        }
        let expected = format!("quant_{}_{}", own.conv.name, own.norm.name);
        if expected != name {
            return Err(format!("its name is not {expected}, of the layers in it"));
        }
        Ok(own)
    }

    /// The normalization, behind a result of this shape.
    pub(crate) fn norm(&self, shape: &[usize], weights: &mut LayerWeights<'_>) -> Result<ConvNorm, String> {
        let op = layers::read("BatchNormalization", Config(self.norm.config), &[shape], weights);
        let Some(Op::BatchNormalization(norm)) = op.transpose()? else {
            return Err("its normalization is none".into());
        };
        let delay = self.config.get("freeze_bn_delay").and_then(Value::as_i64).filter(|delay| *delay >= 0);
        let extras = extras(&Op::BatchNormalization(norm.clone()), self.norm.config, shape.len());
        Ok(ConvNorm {
            name: self.norm.name.to_owned(),
            norm,
            extras,
            biased: self.conv.config.get("use_bias").and_then(Value::as_bool).unwrap_or(true),
            freeze_delay: delay.map(|delay| i32::try_from(delay).unwrap_or(i32::MAX)),
            step: weights.integer("optimizer_step")?,
        })
    }
}
