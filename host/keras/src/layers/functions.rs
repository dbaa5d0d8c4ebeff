//! TensorFlow functions: how operators and `tf.…` calls on Keras tensors are recorded.

use serde_json::{Value, json};

use crate::layers::{Described, KerasForm, Settings};
use arguments::{Arguments, operand, parts, wrong};
use shiftwise_core::model::{Combine, Function, RowFunction};
use shiftwise_graph::ops::tfop::{Kind, Operand, Reduction};
use shiftwise_graph::ops::{Interpolation, TfOp};

mod arguments;
mod moves;
pub(crate) mod shapes;

/// Key of the arguments in the config that a reader hands over: `{"args": […], "kwargs": {…}}`, in which
/// `{"tensor": k}` is the k-th input.
pub const CALL: &str = "call";

/// Key of a tensor among the arguments.
pub const TENSOR: &str = "tensor";

/// Functions of one tensor without settings.
const UNARY: &[(&str, Function)] = &[
    ("math.negative", Function::Negative),
    ("math.abs", Function::Absolute),
    ("math.square", Function::Square),
    ("math.sqrt", Function::SquareRoot),
    ("math.rsqrt", Function::InverseRoot),
    ("math.reciprocal", Function::Reciprocal),
    ("math.exp", Function::Exponential),
    ("math.log", Function::Logarithm),
    ("math.sign", Function::Sign),
    ("math.floor", Function::Floor),
    ("math.ceil", Function::Ceiling),
    ("math.round", Function::Round),
    ("identity", Function::Identity),
    ("stop_gradient", Function::Identity),
    ("nn.relu", Function::RELU),
    ("nn.relu6", Function::RELU6),
    ("nn.elu", Function::Elu(1.0)),
    ("nn.selu", Function::Selu),
    ("nn.silu", Function::Swish),
    ("nn.swish", Function::Swish),
    ("nn.gelu", Function::Gelu),
    ("nn.softsign", Function::Softsign),
    ("math.softplus", Function::Softplus),
    ("math.sigmoid", Function::Sigmoid),
    ("math.tanh", Function::Tanh),
    // Keras 3's own, and those of tf.keras.activations.
    ("keras.activations.hard_silu", Function::HardSwish),
    ("keras.activations.hard_sigmoid", Function::HardSigmoid6),
    ("keras.activations.mish", Function::Mish),
];

/// Functions of one tensor that are several of the others.
const CHAINS: &[(&str, &[Function])] =
    &[("math.log_sigmoid", &[Function::Negative, Function::Softplus, Function::Negative])];

/// Functions of `x` and `y` with broadcasting.
const BINARY: &[(&str, Combine)] = &[
    ("__operators__.add", Combine::Add),
    ("math.add", Combine::Add),
    ("math.subtract", Combine::Subtract),
    ("math.multiply", Combine::Multiply),
    ("math.truediv", Combine::Divide),
    ("math.divide", Combine::Divide),
    ("math.maximum", Combine::Maximum),
    ("math.minimum", Combine::Minimum),
    ("math.pow", Combine::Power),
    ("math.squared_difference", Combine::SquaredDifference),
    ("math.divide_no_nan", Combine::DivideNoNan),
];

const REDUCTIONS: &[(&str, Reduction)] = &[
    ("math.reduce_mean", Reduction::Mean),
    ("math.reduce_sum", Reduction::Sum),
    ("math.reduce_max", Reduction::Max),
    ("math.reduce_min", Reduction::Min),
];

/// Functions with settings.
const OTHER: &[&str] = &[
    "nn.leaky_relu",
    "nn.bias_add",
    "clip_by_value",
    "linalg.matmul",
    "nn.softmax",
    "concat",
    "stack",
    "reshape",
    "transpose",
    "expand_dims",
    "squeeze",
    "pad",
    "cast",
    "image.resize",
    "__operators__.getitem",
    "nn.log_softmax",
    "math.l2_normalize",
    "gather",
    "repeat",
    "tile",
    "roll",
    "reverse",
    "experimental.numpy.swapaxes",
    "experimental.numpy.moveaxis",
    "nn.depth_to_space",
    "nn.space_to_depth",
];

fn tables() -> impl Iterator<Item = &'static str> {
    let (unary, binary) = (UNARY.iter().map(|(n, _)| *n), BINARY.iter().map(|(n, _)| *n));
    unary.chain(CHAINS.iter().map(|(n, _)| *n)).chain(binary).chain(REDUCTIONS.iter().map(|(n, _)| *n))
}

/// Functions of one name more.
const ALIASES: &[(&str, &str)] = &[
    ("linalg.l2_normalize", "math.l2_normalize"),
    ("nn.l2_normalize", "math.l2_normalize"),
    ("math.log_softmax", "nn.log_softmax"),
    ("depth_to_space", "nn.depth_to_space"),
    ("space_to_depth", "nn.space_to_depth"),
    ("manip.reverse", "reverse"),
    ("manip.roll", "roll"),
];

/// The name under which a function stands in the tables: TensorFlow has several for some.
fn canonical(function: &str) -> String {
    if function == "matmul" {
        return "linalg.matmul".into();
    }
    let short = function.strip_prefix("compat.v1.").or_else(|| function.strip_prefix("compat.v2.")).unwrap_or(function);
    // Functions of tf.math that are also found directly below tf or below tf.nn.
    let last = short.rsplit('.').next().unwrap_or(short);
    let math = format!("math.{last}");
    if let Some((_, own)) = ALIASES.iter().find(|(name, _)| *name == short) {
        return (*own).to_owned();
    }
    let below = short == last || short == format!("nn.{last}") || short == format!("keras.backend.{last}");
    if below && tables().any(|name| name == math) { math } else { short.to_owned() }
}

/// Whether a function is known.
pub(crate) fn supports(function: &str) -> bool {
    let name = canonical(function);
    names().any(|known| known == name)
}

/// Every function in the tables.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    tables().chain(OTHER.iter().copied())
}

impl KerasForm for TfOp {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        let function = from.config.str_or("function", "")?.to_owned();
        let mut args = Arguments::of(from.config)?;
        let first = args.first()?;
        let mut operands = match &first {
            // A list of tensors, unless it is an array.
            Value::Array(list) if list.iter().any(|v| v.get(TENSOR).is_some()) => {
                list.iter().map(operand).collect::<Result<_, _>>()?
            }
            one => vec![operand(one)?],
        };
        let name = canonical(&function);
        let kind = if let Some((_, function)) = UNARY.iter().find(|(n, _)| *n == name) {
            let approximate = name == "nn.gelu" && args.flag(&["approximate"])?;
            let function = if approximate { &Function::GeluTanh } else { function };
            let beta = args.number("beta", 1.0)?;
            if beta != 1.0 {
                return Err(format!("its argument `beta` is {beta}, 1 is expected"));
            }
            Kind::Unary(*function)
        } else if let Some((_, functions)) = CHAINS.iter().find(|(n, _)| *n == name) {
            Kind::Chain(functions)
        } else if let Some((_, f)) = BINARY.iter().find(|(n, _)| *n == name) {
            operands.push(args.operand("y")?);
            Kind::Binary(*f)
        } else if let Some((_, by)) = REDUCTIONS.iter().find(|(n, _)| *n == name) {
            Kind::Reduce { by: *by, axes: args.integers("axis")?, keep: args.flag(&["keepdims", "keep_dims"])? }
        } else if let Some(kind) = moves::parse(&name, &mut args, &operands, from.inputs)? {
            kind
        } else {
            other(&name, &mut args, &mut operands)?
        };
        args.finish()?;
        let op = Self { function, operands, kind };
        if op.operands.iter().any(|o| matches!(o, Operand::Tensor(k) if *k >= from.inputs.len())) {
            return Err("one of its arguments is no input".into());
        }
        Ok(op)
    }
    fn write(&self, to: &mut Settings, _: usize) {
        to.own("function", json!(self.function));
    }
}

/// An image brought to a size.
fn resize(args: &mut Arguments) -> Result<Kind, String> {
    let size = args.integers("size")?.ok_or("its argument `size` is missing")?;
    let side = |n: &i64| usize::try_from(*n).ok().filter(|n| (1..=65535).contains(n));
    let size = match &size[..] {
        [height, width] => side(height).zip(side(width)).map(|(h, w)| [h, w]),
        _ => None,
    };
    let method = match args.take("method") {
        None => Interpolation::Bilinear,
        Some(method) => method
            .as_str()
            .and_then(Interpolation::from_name)
            .ok_or_else(|| wrong("method", &method, "nearest, bilinear or bicubic is"))?,
    };
    if args.flag(&["preserve_aspect_ratio"])? || args.flag(&["antialias"])? {
        return Err("keeping the aspect ratio and anti-aliasing are not supported".into());
    }
    Ok(Kind::Resize { size: size.ok_or("its argument `size` is no height and width")?, method })
}

/// A constant around a tensor.
fn pad(args: &mut Arguments) -> Result<Kind, String> {
    let value = args.take("paddings").unwrap_or_default();
    let width = |v: &Value| v.as_u64().filter(|v| *v <= 65535).map(|v| v as usize);
    let pair = |v: &Value| Some((width(v.get(0)?)?, width(v.get(1)?)?));
    let widths = value.as_array().and_then(|all| all.iter().map(pair).collect());
    let mode = args.take("mode").unwrap_or(json!("CONSTANT"));
    if !mode.as_str().is_some_and(|m| m.eq_ignore_ascii_case("constant")) {
        return Err(wrong("mode", &mode, "CONSTANT is"));
    }
    Ok(Kind::Pad {
        widths: widths.ok_or_else(|| wrong("paddings", &value, "two whole numbers for each axis are"))?,
        value: args.number("constant_values", 0.0)?,
    })
}

/// What a function with settings of its own computes.
fn other(name: &str, args: &mut Arguments, operands: &mut Vec<Operand>) -> Result<Kind, String> {
    Ok(match name {
        "nn.leaky_relu" => Kind::Unary(Function::LeakyRelu(args.number("alpha", 0.2)?)),
        "nn.bias_add" => {
            operands.push(args.operand("bias")?);
            if let Some(format) = args.take("data_format").filter(|v| v.as_str() == Some("NCHW")) {
                return Err(wrong("data_format", &format, "NHWC is"));
            }
            Kind::Binary(Combine::Add)
        }
        "clip_by_value" => {
            operands.push(args.operand("clip_value_min")?);
            operands.push(args.operand("clip_value_max")?);
            Kind::Clip
        }
        "cast" => match args.take("dtype") {
            Some(dtype) if dtype.as_str() != Some("float32") => return Err(wrong("dtype", &dtype, "float32 is")),
            _ => Kind::Unary(Function::Identity),
        },
        "image.resize" => resize(args)?,
        "linalg.matmul" => {
            operands.push(args.operand("b")?);
            Kind::MatMul { transpose: [args.flag(&["transpose_a"])?, args.flag(&["transpose_b"])?] }
        }
        "nn.softmax" => Kind::Rows(RowFunction::Softmax, args.integer("axis", -1)?),
        "nn.log_softmax" => Kind::Rows(RowFunction::LogSoftmax, args.integer("axis", -1)?),
        "math.l2_normalize" => {
            let axis = args.integers("axis")?.unwrap_or_default();
            let [axis] = axis[..] else { return Err("one axis of its rows is expected".into()) };
            Kind::Rows(RowFunction::Unit(args.number("epsilon", 1e-12)?), axis)
        }
        "concat" => Kind::Concat(args.integer("axis", -1)?),
        "stack" => Kind::Stack(args.integer("axis", 0)?),
        "reshape" => Kind::Reshape(args.integers("shape")?.ok_or("its argument `shape` is missing")?),
        "transpose" => Kind::Transpose(args.integers("perm")?),
        "expand_dims" => Kind::ExpandDims(args.integer("axis", -1)?),
        "squeeze" => Kind::Squeeze(args.integers("axis")?.ok_or("without `axis` it would drop a batch of one sample")?),
        "pad" => pad(args)?,
        "__operators__.getitem" => {
            let value = args.take("slice_spec").ok_or("its argument `slice_spec` is missing")?;
            Kind::Slice(parts(&value).ok_or_else(|| wrong("slice_spec", &value, "numbers and ranges are"))?)
        }
        other => return Err(format!("the function `{other}` is not supported")),
    })
}
