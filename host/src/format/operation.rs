//! Keras 3's operations (`keras.ops`, and what operators on its tensors make) as the TensorFlow functions that Keras 2
//! would have recorded.

use serde_json::{Map, Value, json};

use super::call::Call;
use super::model::LayerConfig;
use super::parts::SPLIT_AT;
use crate::error::Error;

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
];

/// Whether there is an operation of this class.
pub(super) fn is_known(class: &str) -> bool {
    OPERATIONS.iter().any(|(known, ..)| *known == class)
}

/// Rewrites an operation as a `TFOpLambda` layer.
///
/// Errors: an operation that has no counterpart, named as an unsupported layer.
pub(super) fn to_function(layer: &mut LayerConfig) -> Result<(), Error> {
    let Some((_, function, names, renamed)) = OPERATIONS.iter().find(|(class, ..)| *class == layer.class) else {
        let (layer, class) = (layer.name.clone(), layer.class.clone());
        return Err(Error::UnsupportedLayer { layer, class });
    };
    let settings = std::mem::take(&mut layer.config);
    let settings = settings.into_iter().filter(|(key, value)| key != "name" && !value.is_null()).map(|(key, value)| {
        let other = renamed.iter().find(|(keras, _)| *keras == key).map(|(_, tensorflow)| (*tensorflow).to_owned());
        (other.unwrap_or(key), value)
    });
    let settings: Map<String, Value> = settings.collect();
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
