//! TensorFlow functions as layers: what operators and `tf.…` calls on Keras tensors record.

use serde_json::{Map, Value, json};

use crate::ops::{Config, Interpolation, Layer, WeightSource, settings};
use arguments::{Arguments, Part, operand, subscript, wrong};
use shiftwise_core::model::{Combine, FloatPoolKind, Function, RowFunction};
use shiftwise_tensor::array;
use shiftwise_tensor::broadcast::broadcast;
use shiftwise_tensor::tensor::Tensor;

pub(super) mod arguments;
pub(crate) mod gradient;
mod moves;
pub mod shapes;

/// Key of the arguments in the config that a reader hands over: `{"args": […], "kwargs": {…}}`, in which
/// `{"tensor": k}` is the k-th input.
pub const CALL: &str = "call";

/// Key of a tensor among the arguments.
pub const TENSOR: &str = "tensor";

/// An operand of a function.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// The node's input of this index.
    Tensor(usize),
    /// A constant, a scalar or an array.
    Constant(Tensor),
}

/// A TensorFlow function of tensors and constants.
#[derive(Clone, Debug)]
pub struct TfOp {
    /// The function's name below `tf.`, such as `math.multiply`.
    pub function: String,
    /// Its operands in argument order; axes, shapes and other settings are no operands.
    pub operands: Vec<Operand>,
    kind: Kind,
}

/// What a function computes. Axes are TensorFlow's: 0 is the batch, negative ones count from the end.
#[derive(Clone, Debug)]
enum Kind {
    Unary(Function),
    /// Functions of each element, one after the other.
    Chain(&'static [Function]),
    Binary(Combine),
    /// min(max(x, low), high) of three operands.
    Clip,
    MatMul {
        transpose: [bool; 2],
    },
    /// A function of rows along an axis.
    Rows(RowFunction, i64),
    Reduce {
        by: Reduction,
        axes: Option<Vec<i64>>,
        keep: bool,
    },
    Concat(i64),
    Stack(i64),
    Reshape(Vec<i64>),
    Transpose(Option<Vec<i64>>),
    ExpandDims(i64),
    Squeeze(Vec<i64>),
    Pad {
        widths: Vec<(usize, usize)>,
        value: f32,
    },
    Slice(Vec<Part>),
    Resize {
        size: [usize; 2],
        method: Interpolation,
    },
    /// These elements along an axis; one that is dropped if `drop`.
    Gather {
        axis: usize,
        indices: Vec<usize>,
        drop: bool,
    },
    /// Backwards along axes.
    Reverse(Vec<usize>),
    /// Squares of channels as squares of pixels, channels first in rows.
    DepthToSpace(usize),
    /// The reverse of it.
    SpaceToDepth(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reduction {
    Mean,
    Sum,
    Max,
    Min,
}

impl Reduction {
    /// What it takes of the values.
    fn fold(self) -> FloatPoolKind {
        match self {
            Self::Mean => FloatPoolKind::Average,
            Self::Sum => FloatPoolKind::Sum,
            Self::Max => FloatPoolKind::Max,
            Self::Min => FloatPoolKind::Min,
        }
    }
}

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

/// A function of elements, or a move of them, for those who compute it elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    /// Functions of each element, one after the other.
    Unary(Vec<Function>),
    /// Functions of the first operand so far and the next one, with broadcasting.
    Binary(Vec<Combine>),
    /// The same elements under another shape.
    Reshaped,
    /// Axis i of the sample is axis `order[i]` of the operand's.
    Permuted(Vec<usize>),
    /// Operands behind each other along an axis of the sample.
    Joined(usize),
    /// Operands behind each other along a new axis of the sample.
    Stacked(usize),
    /// Along each axis of the sample `count` elements from `start`, `step` apart: (start, count, step).
    Sliced(Vec<(usize, usize, isize)>),
    /// A value around the sample, (before, after) each axis.
    Padded(Vec<(usize, usize)>, f32),
    /// Axes of the sample folded.
    Reduced(FloatPoolKind, Vec<usize>),
    /// A function of rows along an axis of the sample.
    Rows(RowFunction, usize),
    /// Product of matrices, each transposed or not.
    Product([bool; 2]),
    /// An image of another size.
    Resized([usize; 2], Interpolation),
    /// These elements along an axis of the sample.
    Gathered(usize, Vec<usize>),
    /// Squares of channels as squares of pixels of this side, or the reverse.
    Blocks(usize, bool),
}

impl TfOp {
    /// What it does to the elements of samples. `sample` is the first operand's shape. `None` where it also touches the
    /// batch, which a layer that was read does not.
    pub fn elements(&self, sample: &[usize]) -> Option<Elements> {
        let rank = sample.len();
        let own = |axis: i64, rank: usize| array::axis(axis, rank + 1).ok()?.checked_sub(1);
        Some(match &self.kind {
            Kind::Unary(function) => Elements::Unary(vec![*function]),
            Kind::Chain(functions) => Elements::Unary(functions.to_vec()),
            Kind::Binary(combine) => Elements::Binary(vec![*combine]),
            Kind::Clip => Elements::Binary(vec![Combine::Maximum, Combine::Minimum]),
            Kind::Reshape(_) | Kind::ExpandDims(_) | Kind::Squeeze(_) => Elements::Reshaped,
            Kind::Transpose(Some(order)) => {
                let order = order.iter().map(|i| array::axis(*i, rank + 1)).collect::<Result<Vec<_>, _>>().ok()?;
                Elements::Permuted(
                    order.split_first().filter(|(batch, _)| **batch == 0)?.1.iter().map(|i| i - 1).collect(),
                )
            }
            Kind::Concat(axis) => Elements::Joined(own(*axis, rank)?),
            Kind::Stack(axis) => Elements::Stacked(own(*axis, rank + 1)?),
            Kind::Transpose(None) => return None,
            Kind::Slice(parts) => {
                let (at, _) = subscript(parts, &[&[1], sample].concat()).ok()?;
                Elements::Sliced(at.split_first()?.1.to_vec())
            }
            Kind::Pad { widths, value } => {
                let (batch, widths) = widths.split_first()?;
                (*batch == (0, 0)).then_some(())?;
                Elements::Padded(widths.to_vec(), *value)
            }
            Kind::Reduce { by, axes, .. } => {
                let axes = axes.as_ref()?.iter().map(|axis| own(*axis, rank)).collect::<Option<_>>()?;
                Elements::Reduced(by.fold(), axes)
            }
            Kind::Rows(function, axis) => Elements::Rows(*function, own(*axis, rank)?),
            Kind::Gather { axis, indices, .. } => Elements::Gathered(axis.checked_sub(1)?, indices.clone()),
            Kind::Reverse(axes) => {
                let along = |(axis, size): (usize, &usize)| match axes.contains(&(axis + 1)) {
                    true => (size.saturating_sub(1), *size, -1),
                    false => (0, *size, 1),
                };
                (!axes.contains(&0)).then_some(())?;
                Elements::Sliced(sample.iter().enumerate().map(along).collect())
            }
            Kind::DepthToSpace(block) => Elements::Blocks(*block, true),
            Kind::SpaceToDepth(block) => Elements::Blocks(*block, false),
            Kind::MatMul { transpose } => Elements::Product(*transpose),
            Kind::Resize { size, method } => Elements::Resized(*size, *method),
        })
    }

    /// Whether it works on elements of equal places only.
    pub fn is_elementwise(&self) -> bool {
        matches!(self.kind, Kind::Unary(_) | Kind::Chain(_) | Kind::Binary(_) | Kind::Clip)
    }

    /// The product of a constant and the only input, as matrices.
    pub fn product_with(constant: Tensor) -> Self {
        let operands = vec![Operand::Constant(constant), Operand::Tensor(0)];
        Self { function: "linalg.matmul".into(), operands, kind: Kind::MatMul { transpose: [false; 2] } }
    }

    /// Size and method of a resizing.
    pub fn resizing(&self) -> Option<([usize; 2], Interpolation)> {
        match self.kind {
            Kind::Resize { size, method } => Some((size, method)),
            _ => None,
        }
    }

    pub(crate) fn class(&self) -> &'static str {
        if matches!(self.kind, Kind::Slice(_)) { "SlicingOpLambda" } else { "TFOpLambda" }
    }

    /// Whether a function is known.
    pub fn supports(function: &str) -> bool {
        let name = canonical(function);
        tables().chain(OTHER.iter().copied()).any(|known| known == name)
    }

    pub(crate) fn from_keras(
        _: &str,
        config: Config<'_>,
        inputs: &[&[usize]],
        _: &mut dyn WeightSource,
    ) -> Result<Self, String> {
        let function = config.str_or("function", "")?.to_owned();
        let mut args = Arguments::of(config)?;
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
        } else if let Some(kind) = moves::parse(&name, &mut args, &operands, inputs)? {
            kind
        } else {
            Self::other(&name, &mut args, &mut operands)?
        };
        args.finish()?;
        let op = Self { function, operands, kind };
        if op.operands.iter().any(|o| matches!(o, Operand::Tensor(k) if *k >= inputs.len())) {
            return Err("one of its arguments is no input".into());
        }
        op.output_shape(inputs)?;
        Ok(op)
    }

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
            "image.resize" => {
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
                Kind::Resize { size: size.ok_or("its argument `size` is no height and width")?, method }
            }
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
            "squeeze" => {
                Kind::Squeeze(args.integers("axis")?.ok_or("without `axis` it would drop a batch of one sample")?)
            }
            "pad" => {
                let value = args.take("paddings").unwrap_or_default();
                let width = |v: &Value| v.as_u64().filter(|v| *v <= 65535).map(|v| v as usize);
                let pair = |v: &Value| Some((width(v.get(0)?)?, width(v.get(1)?)?));
                let widths = value.as_array().and_then(|all| all.iter().map(pair).collect());
                let mode = args.take("mode").unwrap_or(json!("CONSTANT"));
                if !mode.as_str().is_some_and(|m| m.eq_ignore_ascii_case("constant")) {
                    return Err(wrong("mode", &mode, "CONSTANT is"));
                }
                Kind::Pad {
                    widths: widths.ok_or_else(|| wrong("paddings", &value, "two whole numbers for each axis are"))?,
                    value: args.number("constant_values", 0.0)?,
                }
            }
            "__operators__.getitem" => {
                let value = args.take("slice_spec").ok_or("its argument `slice_spec` is missing")?;
                let parts = match &value {
                    Value::Array(parts) => parts.iter().map(Part::parse).collect(),
                    one => Part::parse(one).map(|part| vec![part]),
                };
                Kind::Slice(parts.ok_or_else(|| wrong("slice_spec", &value, "numbers and ranges are"))?)
            }
            other => return Err(format!("the function `{other}` is not supported")),
        })
    }
}

impl Kind {
    /// The result's shape. All shapes include the batch.
    fn shape(&self, shapes: &[&[usize]]) -> Result<Vec<usize>, String> {
        let x = shapes.first().ok_or("it has no operands")?;
        let rank = x.len();
        let axes = |list: &[i64]| list.iter().map(|i| array::axis(*i, rank)).collect::<Result<Vec<usize>, String>>();
        Ok(match self {
            Self::Unary(_) | Self::Chain(_) => x.to_vec(),
            Self::Gather { .. } | Self::Reverse(_) | Self::DepthToSpace(_) | Self::SpaceToDepth(_) => self.moved(x)?,
            Self::Rows(_, axis) => {
                array::axis(*axis, rank)?;
                x.to_vec()
            }
            Self::Binary(_) | Self::Clip => broadcast(shapes)?,
            Self::MatMul { transpose } => {
                let turned = |shape: &[usize], turn: bool| match shape {
                    [lead @ .., m, n] if turn => [lead, &[*n, *m]].concat(),
                    shape => shape.to_vec(),
                };
                array::matmul_shape(&turned(x, transpose[0]), &turned(shapes[1], transpose[1]))?
            }
            Self::Reduce { axes: list, keep, .. } => {
                let list = list.as_ref().map_or(Ok((0..rank).collect()), |list| axes(list))?;
                let kept = x.iter().enumerate().filter_map(|(i, d)| match (list.contains(&i), keep) {
                    (false, _) => Some(*d),
                    (true, true) => Some(1),
                    (true, false) => None,
                });
                kept.collect()
            }
            Self::Concat(axis) => {
                let axis = array::axis(*axis, rank)?;
                let rest = |s: &[usize]| {
                    (s.len(), s.iter().enumerate().filter(|(i, _)| *i != axis).map(|(_, d)| *d).collect::<Vec<_>>())
                };
                if shapes.iter().any(|s| rest(s) != rest(x)) {
                    return Err(format!("tensors of shapes {shapes:?} can't be joined along axis {axis}"));
                }
                let mut shape = x.to_vec();
                shape[axis] = shapes.iter().map(|s| s[axis]).sum();
                shape
            }
            Self::Stack(axis) => {
                let axis = array::axis(*axis, rank + 1)?;
                if shapes.iter().any(|s| s != x) {
                    return Err(format!("tensors of shapes {shapes:?} can't be stacked"));
                }
                [&x[..axis], &[shapes.len()], &x[axis..]].concat()
            }
            Self::Reshape(target) => {
                let total = array::count(x)?;
                let known = target.iter().filter(|d| **d >= 0).try_fold(1usize, |n, d| n.checked_mul(*d as usize));
                let open = target.iter().filter(|d| **d < 0).count();
                let fits = known.filter(|known| match open {
                    0 => *known == total,
                    1 => *known > 0 && total.is_multiple_of(*known),
                    _ => false,
                });
                let known = fits.ok_or_else(|| format!("{x:?} can't be reshaped to {target:?}"))?;
                target.iter().map(|d| if *d < 0 { total / known } else { *d as usize }).collect()
            }
            Self::Transpose(order) => self.order(order.as_deref(), rank)?.into_iter().map(|i| x[i]).collect(),
            Self::ExpandDims(axis) => {
                let axis = array::axis(*axis, rank + 1)?;
                [&x[..axis], &[1], &x[axis..]].concat()
            }
            Self::Squeeze(list) => {
                let list = axes(list)?;
                if let Some(i) = list.iter().find(|i| x[**i] != 1) {
                    return Err(format!("axis {i} of {x:?} can't be squeezed"));
                }
                x.iter().enumerate().filter(|(i, _)| !list.contains(i)).map(|(_, d)| *d).collect()
            }
            Self::Pad { widths, .. } => {
                if widths.len() != rank {
                    return Err(format!("{} paddings for a tensor of shape {x:?}", widths.len()));
                }
                x.iter().zip(widths).map(|(d, (before, after))| before + d + after).collect()
            }
            Self::Slice(parts) => subscript(parts, x)?.1,
            Self::Resize { size, .. } => match x[..] {
                [n, h, w, c] if h * w > 0 => vec![n, size[0], size[1], c],
                _ => return Err(format!("its operand has shape {x:?}, images are expected")),
            },
        })
    }

    fn order(&self, order: Option<&[i64]>, rank: usize) -> Result<Vec<usize>, String> {
        let Some(order) = order else { return Ok((0..rank).rev().collect()) };
        let list = order.iter().map(|i| array::axis(*i, rank)).collect::<Result<Vec<usize>, String>>()?;
        let each_once = list.len() == rank && (0..rank).all(|i| list.contains(&i));
        each_once.then_some(list).ok_or_else(|| format!("{order:?} is no order of {rank} axes"))
    }

    fn eval(&self, x: &[&Tensor]) -> Result<Tensor, String> {
        let shapes: Vec<&[usize]> = x.iter().map(|t| t.shape()).collect();
        let shape = self.shape(&shapes)?;
        let reshaped = |t: &Tensor| t.clone().reshaped(shape.clone()).ok_or_else(|| "its shape is wrong".to_owned());
        let first = x[0];
        let rank = first.shape().len();
        Ok(match self {
            Self::Unary(function) => array::map(first, |x| function.apply(x)),
            Self::Chain(functions) => array::map(first, |x| functions.iter().fold(x, |x, f| f.apply(x))),
            Self::Gather { .. } | Self::Reverse(_) | Self::DepthToSpace(_) | Self::SpaceToDepth(_) => {
                reshaped(&self.move_elements(first))?
            }
            Self::Binary(combine) => array::zip(first, x[1], |a, b| combine.apply(a, b)),
            Self::Clip => {
                let above = array::zip(first, x[1], |a, b| Combine::Maximum.apply(a, b));
                array::zip(&above, x[2], |a, b| Combine::Minimum.apply(a, b))
            }
            Self::MatMul { transpose } => {
                let turned = |t: &Tensor, turn: bool| {
                    let n = t.shape().len();
                    let mut order: Vec<usize> = (0..n).collect();
                    order.swap(n - 2, n - 1);
                    if turn { array::transpose(t, &order) } else { t.clone() }
                };
                array::matmul(&turned(first, transpose[0]), &turned(x[1], transpose[1]))
            }
            Self::Rows(function, axis) => {
                // To the last axis and back.
                let mut order: Vec<usize> = (0..rank).collect();
                order.swap(array::axis(*axis, rank)?, rank - 1);
                let mut out = array::transpose(first, &order);
                crate::ops::act::rows(&mut out, *function);
                array::transpose(&out, &order)
            }
            Self::Reduce { by, axes, .. } => {
                let all = || (0..rank as i64).collect();
                let axes = axes.clone().unwrap_or_else(all);
                let axes = axes.iter().map(|i| array::axis(*i, rank)).collect::<Result<Vec<usize>, String>>()?;
                let out = match by {
                    Reduction::Mean | Reduction::Sum => array::reduce(first, &axes, 0.0, |a, b| a + b),
                    Reduction::Max => {
                        array::reduce(first, &axes, f32::NEG_INFINITY, |a, b| Combine::Maximum.apply(b, a))
                    }
                    Reduction::Min => array::reduce(first, &axes, f32::INFINITY, |a, b| Combine::Minimum.apply(b, a)),
                };
                let count: usize = axes.iter().map(|i| first.shape()[*i]).product();
                let out = if *by == Reduction::Mean { array::map(&out, |sum| sum / count as f32) } else { out };
                reshaped(&out)?
            }
            Self::Concat(axis) => array::concat(x, array::axis(*axis, rank)?),
            Self::Stack(axis) => {
                let axis = array::axis(*axis, rank + 1)?;
                let one = [&first.shape()[..axis], &[1], &first.shape()[axis..]].concat();
                let parts: Option<Vec<Tensor>> = x.iter().map(|t| (*t).clone().reshaped(one.clone())).collect();
                array::concat(&parts.unwrap_or_default().iter().collect::<Vec<_>>(), axis)
            }
            Self::Transpose(order) => array::transpose(first, &self.order(order.as_deref(), rank)?),
            Self::Reshape(_) | Self::ExpandDims(_) | Self::Squeeze(_) => reshaped(first)?,
            Self::Pad { widths, value } => array::pad(first, widths, *value),
            Self::Resize { size, method } => method.resize(first, *size),
            Self::Slice(parts) => reshaped(&array::slice(first, &subscript(parts, first.shape())?.0))?,
        })
    }
}

impl Layer for TfOp {
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        array::per_sample(&format!("`{}`", self.function), |n| {
            let shape = |operand: &Operand| match operand {
                Operand::Tensor(k) => Ok([&[n], *inputs.get(*k).ok_or("an input is missing")?].concat()),
                Operand::Constant(t) => Ok(t.shape().to_vec()),
            };
            let shapes = self.operands.iter().map(shape).collect::<Result<Vec<_>, String>>()?;
            self.kind.shape(&shapes.iter().map(Vec::as_slice).collect::<Vec<_>>())
        })
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let operands = self.operands.iter().map(|operand| match operand {
            Operand::Tensor(k) => inputs[*k],
            Operand::Constant(t) => t,
        });
        self.kind.eval(&operands.collect::<Vec<_>>()).unwrap_or_else(|_| Tensor::zeros(&[0]))
    }
    fn to_keras(&self) -> Map<String, Value> {
        settings(json!({ "function": self.function }))
    }
}
