//! The operations of TensorFlow's graphs that are read.

use std::sync::Arc;

use serde_json::json;

use crate::constants::{BATCH, Constant};
use crate::network::{Network, Slot};
use crate::proto::NodeDef;
use crate::shapes::{Pixels, Strided};
use crate::simple::{Simple, constant, operand};
use shiftwise_graph::ops::Interpolation;
use shiftwise_quant::regroup::grids;
use shiftwise_tensor::array;
use shiftwise_tensor::tensor::Tensor;

/// An operation of a graph.
pub(super) struct Operation<'a> {
    pub(super) node: &'a NodeDef,
    pub(super) inputs: Vec<Slot>,
}

/// How an operation is read.
#[derive(Clone, Copy)]
pub(super) enum How {
    /// By its name alone.
    Plain(Simple),
    /// In its own way, one result.
    One(fn(&mut Network<'_>, &Operation<'_>) -> Result<Slot, String>),
    /// In its own way, several results.
    Many(fn(&mut Network<'_>, &Operation<'_>) -> Result<Vec<Slot>, String>),
}

/// An operation's name, and how it is read.
pub(super) struct Row(pub(super) &'static str, pub(super) How);

const fn same(name: &'static str) -> Row {
    Row(name, How::Plain(Simple::Same))
}

/// A quantizer, which a float network is without.
const fn quantizer(name: &'static str) -> Row {
    Row(name, How::One(left_out))
}

fn left_out(network: &mut Network<'_>, o: &Operation<'_>) -> Result<Slot, String> {
    network.leave_quantizer_out();
    Ok(o.input(0)?.clone())
}

/// A quantizer of a range: in the scopes of the vendor's quantized networks one of theirs, elsewhere what a float network is
/// trained with.
fn ranged(network: &mut Network<'_>, o: &Operation<'_>) -> Result<Slot, String> {
    let x = o.input(0)?;
    if !(o.name().contains("/quant_") && o.name().contains("/FSQuantize")) || x.constant().is_some() {
        return left_out(network, o);
    }
    let end = |k: usize| o.constant(k)?.tensor().map(|t| t.data().first().copied().unwrap_or(0.0));
    let bits = u8::try_from(o.node.integer("num_bits", 8)).unwrap_or(0);
    let own = grids::of_range(bits, o.node.flag("narrow_range", false), end(1)?, end(2)?);
    network.quantize(o.name(), x, own.ok_or("its range is none")?)
}

const fn activation(name: &'static str, keras: &'static str) -> Row {
    Row(name, How::Plain(Simple::Activation(keras)))
}

const fn unary(name: &'static str, function: &'static str) -> Row {
    Row(name, How::Plain(Simple::One(function)))
}

const fn binary(name: &'static str, function: &'static str) -> Row {
    Row(name, How::Plain(Simple::Two(function)))
}

const fn fold(name: &'static str, function: &'static str) -> Row {
    Row(name, How::Plain(Simple::Fold(function)))
}

/// All of them.
pub(super) const OPS: &[Row] = &[
    Row("Conv2D", How::One(conv)),
    Row("DepthwiseConv2dNative", How::One(depthwise)),
    Row("Conv2DBackpropInput", How::One(transposed)),
    Row("MatMul", How::One(matmul)),
    Row("BatchMatMul", How::One(batch_matmul)),
    Row("BatchMatMulV2", How::One(batch_matmul)),
    Row("BatchMatMulV3", How::One(batch_matmul)),
    Row("BiasAdd", How::One(bias_add)),
    Row("FusedBatchNorm", How::One(fused_batch_norm)),
    Row("FusedBatchNormV2", How::One(fused_batch_norm)),
    Row("FusedBatchNormV3", How::One(fused_batch_norm)),
    Row("MaxPool", How::One(|n, o| pool(n, o, true))),
    Row("AvgPool", How::One(|n, o| pool(n, o, false))),
    activation("Relu", "relu"),
    activation("Relu6", "relu6"),
    activation("Elu", "elu"),
    activation("Selu", "selu"),
    activation("Sigmoid", "sigmoid"),
    activation("Tanh", "tanh"),
    activation("Softplus", "softplus"),
    activation("Softsign", "softsign"),
    activation("Softmax", "softmax"),
    activation("LogSoftmax", "log_softmax"),
    Row("LeakyRelu", How::One(|n, o| n.leaky(o.name(), o.input(0)?, o.node.float("alpha", 0.2)))),
    binary("Add", "math.add"),
    binary("AddV2", "math.add"),
    binary("Sub", "math.subtract"),
    binary("Mul", "math.multiply"),
    binary("RealDiv", "math.truediv"),
    binary("Div", "math.truediv"),
    binary("DivNoNan", "math.divide_no_nan"),
    binary("FloorDiv", "math.floordiv"),
    binary("FloorMod", "math.floormod"),
    binary("Maximum", "math.maximum"),
    binary("Minimum", "math.minimum"),
    binary("Pow", "math.pow"),
    binary("SquaredDifference", "math.squared_difference"),
    binary("Equal", "math.equal"),
    binary("NotEqual", "math.not_equal"),
    binary("Less", "math.less"),
    binary("LessEqual", "math.less_equal"),
    binary("Greater", "math.greater"),
    binary("GreaterEqual", "math.greater_equal"),
    binary("LogicalAnd", "math.logical_and"),
    binary("LogicalOr", "math.logical_or"),
    Row("AddN", How::One(add_n)),
    unary("Neg", "math.negative"),
    unary("Abs", "math.abs"),
    unary("Square", "math.square"),
    unary("Sqrt", "math.sqrt"),
    unary("Rsqrt", "math.rsqrt"),
    unary("Reciprocal", "math.reciprocal"),
    unary("Inv", "math.reciprocal"),
    unary("Exp", "math.exp"),
    unary("Log", "math.log"),
    unary("Sign", "math.sign"),
    unary("Floor", "math.floor"),
    unary("Ceil", "math.ceil"),
    unary("Round", "math.round"),
    Row("ClipByValue", How::One(clip)),
    fold("Mean", "math.reduce_mean"),
    fold("Sum", "math.reduce_sum"),
    fold("Max", "math.reduce_max"),
    fold("Min", "math.reduce_min"),
    fold("Prod", "math.reduce_prod"),
    fold("All", "math.reduce_all"),
    fold("Any", "math.reduce_any"),
    Row("Shape", How::One(|n, o| n.shape_of(o.input(0)?))),
    Row("Rank", How::One(|n, o| Ok(Slot::Constant(Constant::integer(n.rank(o.input(0)?)? as i64))))),
    Row("Fill", How::One(fill)),
    Row("Range", How::One(range)),
    Row("Select", How::One(select)),
    Row("SelectV2", How::One(select)),
    Row("Reshape", How::One(|n, o| n.reshape(o.name(), o.input(0)?, &o.whole(1)?))),
    Row("ExpandDims", How::One(|n, o| n.expand(o.name(), o.input(0)?, o.single(1)?))),
    Row("Squeeze", How::One(|n, o| n.squeeze(o.name(), o.input(0)?, o.node.integers("squeeze_dims")))),
    Row("Transpose", How::One(|n, o| n.transpose(o.name(), o.input(0)?, &o.whole(1)?))),
    Row("StridedSlice", How::One(strided_slice)),
    Row("Slice", How::One(|n, o| n.stretch(o.name(), o.input(0)?, &o.whole(1)?, &o.whole(2)?))),
    Row("Gather", How::One(gather)),
    Row("GatherV2", How::One(gather)),
    Row("ConcatV2", How::One(concat)),
    Row("Pack", How::One(|n, o| n.stack(o.name(), &o.inputs, o.node.integer("axis", 0)))),
    Row("Unpack", How::Many(unpack)),
    Row("Split", How::Many(split)),
    Row("SplitV", How::Many(|n, o| n.split(o.name(), o.input(0)?, o.single(2)?, &o.whole(1)?))),
    Row("Pad", How::One(pad)),
    Row("PadV2", How::One(pad)),
    Row("MirrorPad", How::One(mirror_pad)),
    Row("Tile", How::One(tile)),
    Row("DepthToSpace", How::One(|n, o| blocks(n, o, "nn.depth_to_space"))),
    Row("SpaceToDepth", How::One(|n, o| blocks(n, o, "nn.space_to_depth"))),
    Row("ResizeBilinear", How::One(|n, o| resize(n, o, Interpolation::Bilinear))),
    Row("ResizeNearestNeighbor", How::One(|n, o| resize(n, o, Interpolation::Nearest))),
    Row("ResizeBicubic", How::One(|n, o| resize(n, o, Interpolation::Bicubic))),
    Row("Cast", How::One(cast)),
    same("StopGradient"),
    same("PreventGradient"),
    same("PlaceholderWithDefault"),
    same("CheckNumerics"),
    same("EnsureShape"),
    same("Snapshot"),
    quantizer("FixNeuron"),
    quantizer("FakeQuantWithMinMaxArgs"),
    Row("FakeQuantWithMinMaxVars", How::One(ranged)),
    quantizer("FakeQuantWithMinMaxVarsPerChannel"),
    quantizer("QuantizeAndDequantizeV2"),
    quantizer("QuantizeAndDequantizeV3"),
    quantizer("QuantizeAndDequantizeV4"),
];

/// Reads an operation.
pub(super) fn read(how: How, network: &mut Network<'_>, o: &Operation<'_>) -> Result<Vec<Slot>, String> {
    match how {
        How::Plain(simple) => {
            let keep = o.node.flag("keep_dims", false);
            network.simple(o.name(), simple, &o.inputs, keep).map(|slot| vec![slot])
        }
        How::One(read) => read(network, o).map(|slot| vec![slot]),
        How::Many(read) => read(network, o),
    }
}

impl Operation<'_> {
    fn name(&self) -> &str {
        &self.node.name
    }

    fn input(&self, k: usize) -> Result<&Slot, String> {
        operand(&self.inputs, k)
    }

    fn constant(&self, k: usize) -> Result<&Constant, String> {
        constant(&self.inputs, k)
    }

    /// Whole numbers of a constant operand.
    fn whole(&self, k: usize) -> Result<Vec<i64>, String> {
        self.constant(k)?.whole()
    }

    /// The only number of a constant operand.
    fn single(&self, k: usize) -> Result<i64, String> {
        match self.whole(k)?[..] {
            [one] => Ok(one),
            _ => Err(format!("its operand {k} is not one number")),
        }
    }
}

/// What an operation makes of an image with channels last. Where its own come first, permutations stand around it.
fn image(
    n: &mut Network<'_>,
    o: &Operation<'_>,
    x: &Slot,
    read: impl FnOnce(&mut Network<'_>, &Slot) -> Result<Slot, String>,
) -> Result<Slot, String> {
    if !o.node.channels_first() {
        o.node.channels_last()?;
        return read(n, x);
    }
    let x = n.permuted(o.name(), x, [1, 2, 0])?;
    let y = read(n, &x)?;
    n.permuted(o.name(), &y, [2, 0, 1])
}

fn conv(n: &mut Network<'_>, o: &Operation<'_>) -> Result<Slot, String> {
    let (kernel, sliding) = (o.constant(1)?.tensor()?, o.node.sliding()?);
    image(n, o, o.input(0)?, |n, x| n.convolution(o.name(), x, kernel, None, sliding))
}

fn depthwise(n: &mut Network<'_>, o: &Operation<'_>) -> Result<Slot, String> {
    let (kernel, sliding) = (o.constant(1)?.tensor()?, o.node.sliding()?);
    image(n, o, o.input(0)?, |n, x| n.depthwise(o.name(), x, kernel, None, sliding))
}

fn transposed(n: &mut Network<'_>, o: &Operation<'_>) -> Result<Slot, String> {
    let [_, a, b, c] = o.whole(0)?[..] else { return Err("its result is no image".into()) };
    let how = (o.node.sliding()?, if o.node.channels_first() { [b, c] } else { [a, b] });
    let kernel = o.constant(1)?.tensor()?;
    image(n, o, o.input(2)?, |n, x| n.transposed(o.name(), x, kernel, None, how))
}

/// A matrix turned.
fn turned(matrix: Tensor, turn: bool) -> Result<Tensor, String> {
    match (matrix.shape().len(), turn) {
        (2, true) => Ok(array::transpose(&matrix, &[1, 0])),
        (2, false) => Ok(matrix),
        _ => Err(format!("its matrix has shape {:?}", matrix.shape())),
    }
}

fn matmul(n: &mut Network<'_>, o: &Operation<'_>) -> Result<Slot, String> {
    let (a, b) = (o.input(0)?, o.input(1)?);
    let turns = [o.node.flag("transpose_a", false), o.node.flag("transpose_b", false)];
    match (a, b.constant()) {
        (Slot::Layer { .. }, Some(matrix)) if !turns[0] => {
            n.dense(o.name(), a, turned(matrix.tensor()?, turns[1])?, None)
        }
        _ => {
            let settings = json!({ "transpose_a": turns[0], "transpose_b": turns[1] });
            n.function(o.name(), "linalg.matmul", &[a.clone(), b.clone()], &["b"], settings)
        }
    }
}

fn batch_matmul(n: &mut Network<'_>, o: &Operation<'_>) -> Result<Slot, String> {
    let (a, b) = (o.input(0)?, o.input(1)?);
    let turns = [o.node.flag("adj_x", false), o.node.flag("adj_y", false)];
    let settings = json!({ "transpose_a": turns[0], "transpose_b": turns[1] });
    match (a, b.constant()) {
        (Slot::Layer { merged: false, .. }, Some(matrix)) if !turns[0] && matrix.shape().len() == 2 => {
            n.dense(o.name(), a, turned(matrix.tensor()?, turns[1])?, None)
        }
        _ => n.function(o.name(), "linalg.matmul", &[a.clone(), b.clone()], &["b"], settings),
    }
}

fn bias_add(n: &mut Network<'_>, o: &Operation<'_>) -> Result<Slot, String> {
    let bias = o.input(1)?;
    image(n, o, o.input(0)?, |n, x| n.binary(o.name(), "math.add", [x, bias]))
}

fn fused_batch_norm(n: &mut Network<'_>, o: &Operation<'_>) -> Result<Slot, String> {
    if o.node.flag("is_training", true) {
        return Err("it normalizes by the statistics of the batch: the graph is one for training".into());
    }
    let weight = |k: usize| o.constant(k).and_then(Constant::tensor);
    let weights = [weight(1)?, weight(2)?, weight(3)?, weight(4)?];
    let epsilon = o.node.float("epsilon", 0.0001);
    image(n, o, o.input(0)?, |n, x| n.normalization(o.name(), x, weights, epsilon))
}

fn pool(n: &mut Network<'_>, o: &Operation<'_>, largest: bool) -> Result<Slot, String> {
    let window = (o.node.window("ksize")?, o.node.window("strides")?, o.node.edges()?);
    image(n, o, o.input(0)?, |n, x| n.pool(o.name(), x, largest, window))
}

fn add_n(n: &mut Network<'_>, o: &Operation<'_>) -> Result<Slot, String> {
    let mut sum = o.input(0)?.clone();
    for other in o.inputs.iter().skip(1) {
        sum = n.binary(o.name(), "math.add", [&sum, other])?;
    }
    Ok(sum)
}

fn clip(n: &mut Network<'_>, o: &Operation<'_>) -> Result<Slot, String> {
    n.function(o.name(), "clip_by_value", &o.inputs, &["clip_value_min", "clip_value_max"], json!({}))
}

fn fill(n: &mut Network<'_>, o: &Operation<'_>) -> Result<Slot, String> {
    let size = |d: i64| usize::try_from(d).map_err(|_| format!("a size of it is {d}, or that of the batch"));
    let shape = o.whole(0)?.into_iter().map(size).collect::<Result<Vec<_>, _>>()?;
    let count = n.budget.elements(&shape, 8).map_err(|e| e.to_string())?;
    let constant = match o.constant(1)? {
        Constant::Integers(_, values) => {
            let value = values.first().copied().unwrap_or_default();
            Constant::Integers(shape, Arc::new(vec![value; count]))
        }
        Constant::Floats(value) => {
            let value = value.data().first().copied().unwrap_or_default();
            Constant::Floats(Tensor::new(shape, vec![value; count]).ok_or("it has no shape")?)
        }
    };
    Ok(Slot::Constant(constant))
}

fn range(n: &mut Network<'_>, o: &Operation<'_>) -> Result<Slot, String> {
    let (from, to, step) = (o.single(0)?, o.single(1)?, o.single(2)?);
    let distance = if step > 0 { to.checked_sub(from) } else { from.checked_sub(to) };
    let known = distance.filter(|_| step != 0 && from != BATCH && to != BATCH);
    let count = known.ok_or("its ends are not known")?.max(0).unsigned_abs().div_ceil(step.unsigned_abs());
    let mut values = n.budget.vec(usize::try_from(count).map_err(|_| "it is too long")?).map_err(|e| e.to_string())?;
    values.extend((0..count).map(|k| from.wrapping_add(step.wrapping_mul(k.cast_signed()))));
    Ok(Slot::Constant(Constant::integers(values)))
}

fn select(n: &mut Network<'_>, o: &Operation<'_>) -> Result<Slot, String> {
    n.select(o.name(), [o.input(0)?, o.input(1)?, o.input(2)?])
}

fn strided_slice(n: &mut Network<'_>, o: &Operation<'_>) -> Result<Slot, String> {
    let names = ["begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask"];
    let masks = names.map(|name| o.node.integer(name, 0).cast_unsigned());
    let by = Strided { begin: o.whole(1)?, end: o.whole(2)?, step: o.whole(3)?, masks };
    n.slice(o.name(), o.input(0)?, &by)
}

fn gather(n: &mut Network<'_>, o: &Operation<'_>) -> Result<Slot, String> {
    if o.node.integer("batch_dims", 0) != 0 {
        return Err("indices for each sample are not supported".into());
    }
    let indices = o.constant(1)?;
    let axis = if o.inputs.len() > 2 { o.single(2)? } else { 0 };
    n.take(o.name(), o.input(0)?, axis, &indices.whole()?, indices.shape().is_empty())
}

fn concat(n: &mut Network<'_>, o: &Operation<'_>) -> Result<Slot, String> {
    let last = o.inputs.len().checked_sub(1).ok_or("it has no operands")?;
    n.concat(o.name(), &o.inputs[..last], o.single(last)?)
}

/// How many results an operation claims to have, within reason.
fn results(o: &Operation<'_>, name: &str) -> Result<usize, String> {
    let count = o.node.integer(name, 0);
    usize::try_from(count).ok().filter(|n| (1..=4096).contains(n)).ok_or_else(|| format!("it has {count} results"))
}

fn unpack(n: &mut Network<'_>, o: &Operation<'_>) -> Result<Vec<Slot>, String> {
    let (x, axis) = (o.input(0)?, o.node.integer("axis", 0));
    let one = |k: usize| n.take(&format!("{}/{k}", o.name()), x, axis, &[k as i64], true);
    (0..results(o, "num")?).map(one).collect()
}

fn split(n: &mut Network<'_>, o: &Operation<'_>) -> Result<Vec<Slot>, String> {
    let x = o.input(1)?;
    let at = array::axis(o.single(0)?, n.rank(x)?)?;
    let count = results(o, "num_split")?;
    let size = n.shape(x)?[at] / count as i64;
    n.split(o.name(), x, at as i64, &vec![size; count])
}

fn pad(n: &mut Network<'_>, o: &Operation<'_>) -> Result<Slot, String> {
    let value = match o.inputs.len() {
        0..=2 => 0.0,
        _ => o.constant(2)?.tensor()?.data().first().copied().unwrap_or(0.0),
    };
    n.pad(o.name(), o.input(0)?, &o.whole(1)?, value)
}

fn mirror_pad(n: &mut Network<'_>, o: &Operation<'_>) -> Result<Slot, String> {
    n.mirror(o.name(), o.input(0)?, &o.whole(1)?, o.node.text("mode") == "SYMMETRIC")
}

fn tile(n: &mut Network<'_>, o: &Operation<'_>) -> Result<Slot, String> {
    let settings = json!({ "multiples": o.whole(1)? });
    n.function(o.name(), "tile", std::slice::from_ref(o.input(0)?), &[], settings)
}

fn blocks(n: &mut Network<'_>, o: &Operation<'_>, function: &str) -> Result<Slot, String> {
    o.node.channels_last()?;
    let settings = json!({ "block_size": o.node.integer("block_size", 1) });
    n.function(o.name(), function, std::slice::from_ref(o.input(0)?), &[], settings)
}

fn resize(n: &mut Network<'_>, o: &Operation<'_>, method: Interpolation) -> Result<Slot, String> {
    let [height, width] = o.whole(1)?[..] else { return Err("its size is no height and width".into()) };
    let flag = |name: &str| o.node.flag(name, false);
    let pixels = Pixels { align_corners: flag("align_corners"), half_pixel_centers: flag("half_pixel_centers") };
    n.resize(o.name(), o.input(0)?, [height, width], (method, pixels))
}

/// TensorFlow's numbers of float types.
const FLOATS: [i32; 4] = [1, 2, 14, 19];

fn cast(_: &mut Network<'_>, o: &Operation<'_>) -> Result<Slot, String> {
    let to_float = o.node.element("DstT").is_none_or(|t| FLOATS.contains(&t));
    match (o.input(0)?, to_float) {
        (Slot::Constant(c @ Constant::Integers(..)), true) => c.tensor().map(|t| Slot::Constant(Constant::Floats(t))),
        (Slot::Constant(Constant::Floats(t)), false) => {
            let whole = t.data().iter().map(|v| *v as i64).collect();
            Ok(Slot::Constant(Constant::Integers(t.shape().to_vec(), Arc::new(whole))))
        }
        (Slot::Layer { .. }, false) => Err("it makes whole numbers of floats, which no layer does".into()),
        (same, _) => Ok(same.clone()),
    }
}
