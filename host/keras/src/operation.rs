//! Keras 3's operations (`keras.ops`, and what operators on its tensors make) as the TensorFlow functions that Keras 2
//! would have recorded.

use serde_json::{Map, Value, json};

use crate::call::Call;
use crate::parts::SPLIT_AT;
use crate::record::LayerConfig;
use shiftwise_graph::error::Error;
use shiftwise_graph::ops::act::HARD_SIGMOID_6;

/// Class, TensorFlow's function, the function's names of the positional arguments behind the first, and renamed
/// settings as (Keras 3, TensorFlow).
type Row = (&'static str, &'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

const OPERATIONS: &[Row] = &[
    ("Add", "__operators__.add", &["y"], &[]),
    ("Subtract", "math.subtract", &["y"], &[]),
    ("Multiply", "math.multiply", &["y"], &[]),
    ("Divide", "math.truediv", &["y"], &[]),
    ("TrueDivide", "math.truediv", &["y"], &[]),
    ("Maximum", "math.maximum", &["y"], &[]),
    ("Minimum", "math.minimum", &["y"], &[]),
    ("Power", "math.pow", &["y"], &[]),
    ("Matmul", "linalg.matmul", &["b"], &[]),
    ("Dot", "linalg.matmul", &["b"], &[]),
    ("Negative", "math.negative", &[], &[]),
    ("Absolute", "math.abs", &[], &[]),
    ("Abs", "math.abs", &[], &[]),
    ("Square", "math.square", &[], &[]),
    ("Sqrt", "math.sqrt", &[], &[]),
    ("Rsqrt", "math.rsqrt", &[], &[]),
    ("Reciprocal", "math.reciprocal", &[], &[]),
    ("Exp", "math.exp", &[], &[]),
    ("Log", "math.log", &[], &[]),
    ("Sign", "math.sign", &[], &[]),
    ("Floor", "math.floor", &[], &[]),
    ("Ceil", "math.ceil", &[], &[]),
    ("Round", "math.round", &[], &[]),
    ("Relu", "nn.relu", &[], &[]),
    ("Relu6", "nn.relu6", &[], &[]),
    ("LeakyRelu", "nn.leaky_relu", &[], &[("negative_slope", "alpha")]),
    ("Elu", "nn.elu", &[], &[]),
    ("Selu", "nn.selu", &[], &[]),
    ("Gelu", "nn.gelu", &[], &[]),
    ("Silu", "nn.silu", &[], &[]),
    ("Sigmoid", "math.sigmoid", &[], &[]),
    ("Tanh", "math.tanh", &[], &[]),
    ("Softplus", "math.softplus", &[], &[]),
    ("Softsign", "nn.softsign", &[], &[]),
    ("Softmax", "nn.softmax", &[], &[]),
    ("Clip", "clip_by_value", &[], &[("x_min", "clip_value_min"), ("x_max", "clip_value_max")]),
    ("Concatenate", "concat", &[], &[]),
    ("Stack", "stack", &[], &[]),
    ("Reshape", "reshape", &[], &[("newshape", "shape")]),
    ("Transpose", "transpose", &[], &[("axes", "perm")]),
    ("ExpandDims", "expand_dims", &[], &[]),
    ("Squeeze", "squeeze", &[], &[]),
    ("Mean", "math.reduce_mean", &[], &[]),
    ("Sum", "math.reduce_sum", &[], &[]),
    ("Max", "math.reduce_max", &[], &[]),
    ("Min", "math.reduce_min", &[], &[]),
    ("Pad", "pad", &[], &[("pad_width", "paddings")]),
    ("Split", SPLIT_AT, &["indices_or_sections", "axis"], &[]),
    ("Unstack", "unstack", &["num", "axis"], &[]),
    ("GetItem", "__operators__.getitem", &["slice_spec"], &[]),
    ("Take", "gather", &["indices"], &[]),
    ("Repeat", "repeat", &[], &[]),
    ("Tile", "tile", &[], &[("repeats", "multiples")]),
    ("Roll", "roll", &[], &[]),
    ("Flip", "reverse", &[], &[]),
    ("Swapaxes", "experimental.numpy.swapaxes", &[], &[]),
    ("Moveaxis", "experimental.numpy.moveaxis", &[], &[]),
    ("DepthToSpace", "nn.depth_to_space", &[], &[]),
    ("SpaceToDepth", "nn.space_to_depth", &[], &[]),
    ("Cast", "cast", &[], &[]),
    ("StopGradient", "stop_gradient", &[], &[]),
    ("ConvertToTensor", "identity", &[], &[]),
    ("Copy", "identity", &[], &[]),
    ("Amax", "math.reduce_max", &[], &[]),
    ("Amin", "math.reduce_min", &[], &[]),
    ("Fmax", "math.maximum", &["y"], &[]),
    ("Fmin", "math.minimum", &["y"], &[]),
    ("DivideNoNan", "math.divide_no_nan", &["y"], &[]),
    ("LogSigmoid", "math.log_sigmoid", &[], &[]),
    ("LogSoftmax", "nn.log_softmax", &[], &[]),
    ("HardTanh", "clip_by_value", &[], &[]),
    ("RGBToGrayscale", "linalg.matmul", &[], &[]),
    ("Normalize", "math.l2_normalize", &[], &[]),
];

/// Class, the layer's class, and settings that the operation doesn't have.
type LayerRow = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// Operations that are layers.
const LAYERS: &[LayerRow] = &[
    ("Resize", "Resizing", &[]),
    // The layer depends on the input's dimensions.
    ("MaxPool", "MaxPool", &[]),
    ("AveragePool", "AveragePool", &[]),
    ("HardSilu", "Activation", &[("activation", "hard_silu")]),
    ("HardSigmoid", "Activation", &[("activation", HARD_SIGMOID_6)]),
];

/// Whether there is an operation of this class.
pub(crate) fn is_known(class: &str) -> bool {
    OPERATIONS.iter().any(|(known, ..)| *known == class) || LAYERS.iter().any(|(known, ..)| *known == class)
}

/// Rewrites an operation that is a layer as that; false for others.
fn to_layer(layer: &mut LayerConfig) -> bool {
    let Some((_, class, own)) = LAYERS.iter().find(|(class, ..)| *class == layer.class) else { return false };
    layer.class = (*class).to_owned();
    layer.config.retain(|_, value| !value.is_null());
    let size = layer.config.shift_remove("size").filter(|_| *class == "Resizing");
    let sides = size.iter().flat_map(|size| ["height", "width"].into_iter().zip(size.as_array().into_iter().flatten()));
    let sides: Vec<(String, Value)> = sides.map(|(key, side)| (key.to_owned(), side.clone())).collect();
    layer.config.extend(sides);
    layer.config.extend(own.iter().map(|(key, value)| ((*key).to_owned(), json!(value))));
    for (key, value) in [("name", json!(layer.name)), ("trainable", json!(true)), ("dtype", json!("float32"))] {
        layer.config.insert(key.to_owned(), value);
    }
    true
}

/// Settings that Keras 3 and TensorFlow mean differently, in TensorFlow's sense.
fn adapt(class: &str, settings: &mut Map<String, Value>) {
    match class {
        "HardTanh" => {
            settings.insert("clip_value_min".into(), json!(-1));
            settings.insert("clip_value_max".into(), json!(1));
        }
        // A bound of the length, and not of its square.
        "Normalize" => {
            if settings.get("order").and_then(Value::as_f64) == Some(2.0) {
                settings.shift_remove("order");
            }
            let least = settings.get("epsilon").and_then(Value::as_f64).unwrap_or(1e-7);
            settings.insert("epsilon".into(), json!(least * least));
        }
        // The batch's and the pixels' axes are those of the matrices in front.
        "RGBToGrayscale" => {
            if settings.get("data_format").is_some_and(|f| f == "channels_last") {
                settings.shift_remove("data_format");
            }
            settings.insert("b".into(), json!([[0.2989], [0.5870], [0.1140]]));
        }
        "ConvertToTensor" => settings.clear(),
        _ => {}
    }
}

/// Rewrites an operation as a `TFOpLambda` layer.
///
/// Errors: an operation that has no counterpart, named as an unsupported layer.
pub(crate) fn to_function(layer: &mut LayerConfig) -> Result<(), Error> {
    if to_layer(layer) {
        return Ok(());
    }
    let Some((_, function, names, renamed)) = OPERATIONS.iter().find(|(class, ..)| *class == layer.class) else {
        let (layer, class) = (layer.name.clone(), layer.class.clone());
        return Err(Error::UnsupportedLayer { layer, class });
    };
    let settings = std::mem::take(&mut layer.config);
    let settings = settings.into_iter().filter(|(key, value)| key != "name" && !value.is_null()).map(|(key, value)| {
        let other = renamed.iter().find(|(keras, _)| *keras == key).map(|(_, tensorflow)| (*tensorflow).to_owned());
        (other.unwrap_or(key), value)
    });
    let mut settings: Map<String, Value> = settings.collect();
    adapt(&layer.class, &mut settings);
    for call in &mut layer.calls {
        let Call { args, kwargs, .. } = call;
        if args.len() > names.len() + 1 {
            let message = format!("it is called with {} arguments, at most {} are known", args.len(), names.len() + 1);
            return Err(Error::layer(&layer.name, &layer.class, message));
        }
        let rest = args.split_off(args.len().min(1));
        let named = names.iter().map(|n| (*n).to_owned()).zip(rest);
        let given = std::mem::take(kwargs).into_iter().filter(|(_, value)| !value.is_null());
        *kwargs = named.chain(settings.clone()).chain(given).collect();
    }
    let function =
        if *function == "__operators__.getitem" { ("SlicingOpLambda", *function) } else { ("TFOpLambda", *function) };
    layer.class = function.0.into();
    let config = json!({ "name": layer.name, "trainable": true, "dtype": "float32", "function": function.1 });
    layer.config = config.as_object().cloned().unwrap_or_default();
    Ok(())
}
