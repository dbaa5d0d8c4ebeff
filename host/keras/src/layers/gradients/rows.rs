//! A small instance, or several, of every layer and function.

use serde_json::{Value, json};

use shiftwise_graph::ops::reshape::IDENTITIES;

pub(in crate::layers) struct Row {
    pub(in crate::layers) class: &'static str,
    pub(in crate::layers) config: Value,
    /// Shapes of one sample of each input.
    pub(in crate::layers) shapes: Vec<Vec<usize>>,
    /// Inputs are above 0.
    pub(in crate::layers) positive: bool,
}

pub(super) const ACTIVATIONS: &[&str] = &[
    "linear",
    "relu",
    "relu6",
    "softmax",
    "sigmoid",
    "tanh",
    "elu",
    "selu",
    "softplus",
    "softsign",
    "swish",
    "silu",
    "gelu",
    "exponential",
    "hard_sigmoid",
    "hard_sigmoid_6",
    "hard_silu",
    "hard_swish",
    "leaky_relu",
    "mish",
    "log_softmax",
];

/// Rows of layers with weights.
fn weighted() -> Vec<(&'static str, Value, Vec<Vec<usize>>)> {
    let one = |shape: &[usize]| vec![shape.to_vec()];
    let image = || one(&[5, 4, 4]);
    vec![
        ("Conv2D", json!({ "filters": 3, "kernel_size": 3, "padding": "same", "activation": "tanh" }), image()),
        (
            "Conv2D",
            json!({ "filters": 4, "kernel_size": [3, 2], "strides": 2, "padding": "same", "groups": 2 }),
            image(),
        ),
        ("Conv2D", json!({ "filters": 2, "kernel_size": 2, "dilation_rate": 2, "use_bias": false }), image()),
        ("Conv2D", json!({ "filters": 3, "kernel_size": 1, "strides": 3 }), image()),
        ("DepthwiseConv2D", json!({ "kernel_size": 3, "padding": "same", "activation": "sigmoid" }), image()),
        (
            "DepthwiseConv2D",
            json!({ "kernel_size": [2, 3], "strides": 2, "padding": "same", "depth_multiplier": 2 }),
            image(),
        ),
        ("DepthwiseConv2D", json!({ "kernel_size": 2, "dilation_rate": 2 }), image()),
        (
            "Conv2DTranspose",
            json!({ "filters": 2, "kernel_size": 3, "strides": 2, "padding": "same" }),
            one(&[3, 4, 2]),
        ),
        (
            "Conv2DTranspose",
            json!({ "filters": 3, "kernel_size": [2, 3], "strides": [3, 2], "padding": "valid" }),
            one(&[3, 2, 2]),
        ),
        (
            "Conv2DTranspose",
            json!({ "filters": 2, "kernel_size": 3, "dilation_rate": 2, "padding": "same" }),
            one(&[3, 4, 2]),
        ),
        (
            "SeparableConv2D",
            json!({ "filters": 3, "kernel_size": 3, "depth_multiplier": 2, "padding": "same", "strides": 2 }),
            image(),
        ),
        ("Dense", json!({ "units": 3, "activation": "softmax" }), one(&[4])),
        ("Dense", json!({ "units": 18, "use_bias": false }), one(&[2, 3])),
        ("BatchNormalization", json!({}), image()),
        ("BatchNormalization", json!({ "center": false, "scale": false }), one(&[6])),
        ("LayerNormalization", json!({}), image()),
        ("LayerNormalization", json!({ "rms_scaling": true }), one(&[6])),
        ("LayerNormalization", json!({ "scale": false }), one(&[6])),
        ("GroupNormalization", json!({ "groups": 2 }), image()),
        ("UnitNormalization", json!({}), one(&[2, 5])),
        ("RMSNormalization", json!({}), one(&[2, 5])),
        ("LayerScale", json!({ "projection_dim": 5 }), one(&[2, 5])),
        ("VitisLayernorm", json!({}), one(&[8])),
        ("Normalization", json!({}), one(&[3])),
        ("Normalization", json!({ "mean": 0.5, "variance": 0.25 }), one(&[3])),
        ("PReLU", json!({}), one(&[2, 3])),
        ("PReLU", json!({ "shared_axes": [1, 2] }), image()),
        ("Conv1D", json!({ "filters": 3, "kernel_size": 3, "strides": 2, "padding": "same" }), one(&[7, 4])),
        ("DepthwiseConv1D", json!({ "kernel_size": 3 }), one(&[7, 4])),
        ("SeparableConv1D", json!({ "filters": 3, "kernel_size": 3 }), one(&[7, 4])),
        ("Conv1DTranspose", json!({ "filters": 3, "kernel_size": 3, "strides": 2 }), one(&[4, 2])),
        (
            "TimeDistributed",
            json!({ "layer": { "class_name": "Dense", "config": { "units": 2, "activation": "elu" } } }),
            one(&[3, 4]),
        ),
        (
            "TimeDistributed",
            json!({ "layer": { "class_name": "Conv2D", "config": { "filters": 2, "kernel_size": 2 } } }),
            one(&[2, 3, 3, 2]),
        ),
        ("MultiHeadAttention", json!({ "num_heads": 2, "key_dim": 3 }), vec![vec![3, 4], vec![2, 5]]),
        (
            "MultiHeadAttention",
            json!({ "num_heads": 1, "key_dim": 2, "value_dim": 3, "use_bias": false, "output_shape": 5, "dropout": 0.25 }),
            vec![vec![3, 4], vec![2, 5], vec![2, 3]],
        ),
        ("TimeDistributed", json!({ "layer": { "class_name": "Flatten", "config": {} } }), one(&[2, 3, 2])),
    ]
}

/// Rows of layers without weights.
fn plain() -> Vec<(&'static str, Value, Vec<Vec<usize>>)> {
    let one = |shape: &[usize]| vec![shape.to_vec()];
    let image = || one(&[5, 4, 3]);
    let two = || vec![vec![2, 3], vec![2, 3]];
    let broadcast = || vec![vec![2, 1, 3], vec![4, 1]];
    vec![
        ("VitisQuantize", json!({}), one(&[3])),
        ("Rescaling", json!({ "scale": 0.5, "offset": -1 }), one(&[2, 3])),
        ("Rescaling", json!({ "scale": [0.5, 2, 3] }), one(&[2, 3])),
        ("ReLU", json!({}), one(&[9])),
        ("ReLU", json!({ "max_value": 1, "negative_slope": 0.25, "threshold": -0.5 }), one(&[9])),
        ("ELU", json!({ "alpha": 0.5 }), one(&[9])),
        ("LeakyReLU", json!({ "alpha": 0.2 }), one(&[9])),
        ("VitisSigmoid", json!({}), one(&[30])),
        ("Activation", json!({ "activation": "gelu" }), one(&[9])),
        ("Softmax", json!({}), one(&[2, 5])),
        ("VitisSoftmax", json!({}), one(&[16])),
        ("Add", json!({}), broadcast()),
        ("Add", json!({}), vec![vec![3]; 3]),
        ("Multiply", json!({}), broadcast()),
        ("Multiply", json!({}), vec![vec![3]; 3]),
        ("Subtract", json!({}), two()),
        ("Maximum", json!({}), vec![vec![2, 3]; 3]),
        ("Minimum", json!({}), broadcast()),
        ("Average", json!({}), vec![vec![2, 3]; 3]),
        ("CustomScaleLayer", json!({ "scale": 0.3 }), two()),
        ("Dot", json!({ "axes": [2, 1] }), vec![vec![2, 3], vec![3, 2]]),
        ("Dot", json!({ "axes": 1 }), vec![vec![3], vec![3]]),
        ("Concatenate", json!({}), vec![vec![2, 3], vec![2, 1]]),
        ("Concatenate", json!({ "axis": 1 }), vec![vec![2, 3], vec![1, 3]]),
        ("MaxPooling2D", json!({}), image()),
        ("MaxPooling2D", json!({ "pool_size": 3, "strides": 2, "padding": "same" }), image()),
        ("AveragePooling2D", json!({ "pool_size": 3, "strides": 2, "padding": "same" }), image()),
        ("VitisAveragePooling2D", json!({ "pool_size": 3 }), image()),
        ("GlobalAveragePooling2D", json!({}), image()),
        ("VitisGlobalAveragePooling2D", json!({ "keepdims": true }), one(&[3, 3, 2])),
        ("GlobalMaxPooling2D", json!({}), image()),
        ("Flatten", json!({}), image()),
        ("Reshape", json!({ "target_shape": [2, -1] }), image()),
        ("ZeroPadding2D", json!({ "padding": [[1, 0], [2, 1]] }), image()),
        ("Cropping2D", json!({ "cropping": [[1, 0], [0, 2]] }), image()),
        ("UpSampling2D", json!({ "size": [2, 3] }), image()),
        ("UpSampling2D", json!({ "interpolation": "bilinear" }), image()),
        ("UpSampling2D", json!({ "interpolation": "bicubic" }), image()),
        ("Resizing", json!({ "height": 3, "width": 7 }), image()),
        ("Resizing", json!({ "height": 7, "width": 3, "interpolation": "nearest" }), image()),
        ("Resizing", json!({ "height": 2, "width": 9, "interpolation": "bicubic" }), image()),
        ("RepeatVector", json!({ "n": 3 }), one(&[4])),
        ("Permute", json!({ "dims": [3, 1, 2] }), image()),
        ("MaxPooling1D", json!({}), one(&[6, 3])),
        ("AveragePooling1D", json!({ "pool_size": 3, "strides": 1, "padding": "same" }), one(&[6, 3])),
        ("GlobalAveragePooling1D", json!({}), one(&[6, 3])),
        ("GlobalMaxPooling1D", json!({}), one(&[6, 3])),
        ("UpSampling1D", json!({}), one(&[3, 2])),
        ("ZeroPadding1D", json!({}), one(&[3, 2])),
        ("Cropping1D", json!({}), one(&[5, 2])),
        ("TFOpLambda", json!({ "function": "math.tanh", "call": { "args": [{ "tensor": 0 }] } }), one(&[3])),
        (
            "SlicingOpLambda",
            json!({ "function": "__operators__.getitem", "call": { "args": [{ "tensor": 0 }], "kwargs": {
                "slice_spec": [{ "start": null, "stop": null, "step": null }, { "start": 1, "stop": null, "step": 2 }],
            } } }),
            one(&[6]),
        ),
    ]
}

/// Every class at least once.
pub(in crate::layers) fn layers() -> Vec<Row> {
    let identities = IDENTITIES.iter().map(|class| (*class, json!({}), vec![vec![3]]));
    let all = weighted().into_iter().chain(plain()).chain(identities);
    all.map(|(class, config, shapes)| Row { class, config, shapes, positive: false }).collect()
}

type Function = (&'static str, Value, Vec<Vec<usize>>, bool);

/// Functions of one tensor without settings; those behind it take numbers above 0 only.
const UNARY: &[&str] = &[
    "math.negative",
    "math.abs",
    "math.square",
    "math.exp",
    "math.sign",
    "math.floor",
    "math.ceil",
    "math.round",
    "identity",
    "stop_gradient",
    "nn.relu",
    "nn.relu6",
    "nn.elu",
    "nn.selu",
    "nn.silu",
    "nn.swish",
    "nn.gelu",
    "nn.softsign",
    "math.softplus",
    "math.sigmoid",
    "math.tanh",
    "keras.activations.hard_silu",
    "keras.activations.hard_sigmoid",
    "keras.activations.mish",
    "math.log_sigmoid",
    "cast",
    "nn.leaky_relu",
    "nn.softmax",
    "nn.log_softmax",
];
const UNARY_POSITIVE: &[&str] = &["math.sqrt", "math.rsqrt", "math.reciprocal", "math.log"];
const BINARY: &[&str] = &[
    "__operators__.add",
    "math.add",
    "math.subtract",
    "math.multiply",
    "math.truediv",
    "math.divide",
    "math.maximum",
    "math.minimum",
    "math.pow",
    "math.squared_difference",
    "math.divide_no_nan",
];

/// Every function at least once: its arguments but the first, shapes of samples, whether inputs are above 0.
pub(super) fn tensorflow_functions() -> Vec<Function> {
    let x = || json!({ "tensor": 0 });
    let y = || json!({ "tensor": 1 });
    let one = |shape: &[usize]| vec![shape.to_vec()];
    let image = || one(&[4, 3, 4]);
    let mut all: Vec<Function> = Vec::new();
    all.extend(UNARY.iter().map(|name| (*name, json!({}), one(&[2, 3]), false)));
    all.extend(UNARY_POSITIVE.iter().map(|name| (*name, json!({}), one(&[2, 4]), true)));
    for name in BINARY {
        all.push((name, json!({ "y": y() }), vec![vec![2, 3], vec![1, 3]], true));
        all.push((name, json!({ "y": 1.71 }), one(&[3]), true));
        all.push((name, json!({ "first": [1.71, 2.5, 0.77], "y": x() }), one(&[2, 3]), true));
    }
    // One tensor twice.
    all.push(("math.multiply", json!({ "y": x() }), one(&[3]), false));
    for name in ["math.reduce_mean", "math.reduce_sum", "math.reduce_max", "math.reduce_min"] {
        all.push((name, json!({ "axis": [1, 2] }), image(), false));
        all.push((name, json!({ "axis": -1, "keepdims": true }), image(), false));
    }
    all.extend([
        ("nn.gelu", json!({ "approximate": true }), one(&[9]), false),
        ("nn.bias_add", json!({ "bias": [0.1, 0.2, 0.3] }), one(&[2, 3]), false),
        ("clip_by_value", json!({ "clip_value_min": -0.3, "clip_value_max": 0.4 }), one(&[7]), false),
        ("linalg.matmul", json!({ "b": y() }), vec![vec![2, 3], vec![3, 4]], false),
        ("linalg.matmul", json!({ "b": y(), "transpose_b": true }), vec![vec![2, 2, 3], vec![1, 4, 3]], false),
        ("linalg.matmul", json!({ "b": y(), "transpose_a": true }), vec![vec![3, 2], vec![3, 4]], false),
        ("linalg.matmul", json!({ "b": [[1, 2], [3, 4], [5, 6]] }), one(&[2, 3]), false),
        ("nn.softmax", json!({ "axis": 1 }), one(&[3, 2]), false),
        ("concat", json!({ "first": [x(), y()], "axis": 1 }), vec![vec![2, 3], vec![1, 3]], false),
        ("stack", json!({ "first": [x(), y()], "axis": 1 }), vec![vec![2, 3], vec![2, 3]], false),
        ("reshape", json!({ "shape": [-1, 6] }), one(&[2, 3]), false),
        ("transpose", json!({ "perm": [0, 3, 1, 2] }), image(), false),
        ("expand_dims", json!({ "axis": 1 }), one(&[3]), false),
        ("squeeze", json!({ "axis": [1] }), one(&[1, 3]), false),
        ("pad", json!({ "paddings": [[0, 0], [1, 2]], "constant_values": 7 }), one(&[3]), false),
        ("image.resize", json!({ "size": [3, 5] }), image(), false),
        ("image.resize", json!({ "size": [7, 2], "method": "bicubic" }), image(), false),
        (
            "__operators__.getitem",
            json!({ "slice_spec": [{ "start": null }, 1, { "start": null, "stop": null, "step": -1 }] }),
            one(&[3, 4]),
            false,
        ),
        ("math.l2_normalize", json!({ "axis": [1] }), one(&[4, 2]), false),
        ("gather", json!({ "indices": [2, 0, 2], "axis": 1 }), one(&[3, 2]), false),
        ("repeat", json!({ "repeats": 2, "axis": 1 }), one(&[3, 2]), false),
        ("tile", json!({ "multiples": [1, 2, 1] }), one(&[3, 2]), false),
        ("roll", json!({ "shift": 1, "axis": 1 }), one(&[3, 2]), false),
        ("reverse", json!({ "axis": [2] }), one(&[3, 2]), false),
        ("experimental.numpy.swapaxes", json!({ "axis1": 1, "axis2": 2 }), one(&[3, 2]), false),
        ("experimental.numpy.moveaxis", json!({ "source": 1, "destination": 2 }), one(&[3, 2]), false),
        ("nn.depth_to_space", json!({ "block_size": 2 }), one(&[2, 3, 8]), false),
        ("nn.space_to_depth", json!({ "block_size": 2 }), one(&[4, 2, 3]), false),
    ]);
    all
}
