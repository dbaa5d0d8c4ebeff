//! The operators of TensorFlow Lite that are read.

use serde_json::json;

use crate::constants::{BATCH, Constant};
use crate::layers::{Edges, Sliding};
use crate::network::{Network, Slot};
use crate::shapes::{Pixels, Strided};
use crate::simple::{self, Simple, operand};
use crate::tflite::schema::Table;
use shiftwise_graph::ops::Interpolation;
use shiftwise_tensor::array;
use shiftwise_tensor::tensor::Tensor;

/// An operator as a file has it.
pub(super) struct Operator<'a> {
    /// What its result is called.
    pub(super) name: String,
    pub(super) inputs: Vec<Slot>,
    /// How many results it has.
    pub(super) outputs: usize,
    /// Shape of its first result, batch first.
    pub(super) shape: Vec<i64>,
    pub(super) options: Option<Table<'a>>,
    /// Whether its first operand and its first result are whole numbers that stand for themselves.
    pub(super) whole: [bool; 2],
}

/// How an operator is read.
#[derive(Clone, Copy)]
pub(super) enum How {
    /// By its name alone.
    Plain(Simple),
    /// A function of TensorFlow of two operands, behind which stands the activation that its options name first.
    Fused(&'static str),
    /// In its own way.
    Own(fn(&mut Network<'_>, &Operator<'_>) -> Result<Vec<Slot>, String>),
}

/// An operator: its name in the schema, its number, how it is read.
pub(super) struct Row(pub(super) &'static str, pub(super) i32, pub(super) How);

/// All of them.
pub(super) const OPS: &[Row] = &[
    Row("ADD", 0, How::Fused("math.add")),
    Row("AVERAGE_POOL_2D", 1, How::Own(|n, o| pool(n, o, false))),
    Row("CONCATENATION", 2, How::Own(concatenation)),
    Row("CONV_2D", 3, How::Own(conv)),
    Row("DEPTHWISE_CONV_2D", 4, How::Own(depthwise)),
    Row("DEPTH_TO_SPACE", 5, How::Own(|n, o| blocks(n, o, "nn.depth_to_space"))),
    Row("DEQUANTIZE", 6, How::Plain(Simple::Same)),
    Row("FLOOR", 8, How::Plain(Simple::One("math.floor"))),
    Row("FULLY_CONNECTED", 9, How::Own(fully_connected)),
    Row("L2_NORMALIZATION", 11, How::Own(l2_normalization)),
    Row("LOGISTIC", 14, How::Plain(Simple::Activation("sigmoid"))),
    Row("MAX_POOL_2D", 17, How::Own(|n, o| pool(n, o, true))),
    Row("MUL", 18, How::Fused("math.multiply")),
    Row("RELU", 19, How::Plain(Simple::Activation("relu"))),
    Row("RELU_N1_TO_1", 20, How::Own(|n, o| clipped(n, o).map(|slot| vec![slot]))),
    Row("RELU6", 21, How::Plain(Simple::Activation("relu6"))),
    Row("RESHAPE", 22, How::Own(reshape)),
    Row("RESIZE_BILINEAR", 23, How::Own(|n, o| resize(n, o, Interpolation::Bilinear, 2))),
    Row("SOFTMAX", 25, How::Own(softmax)),
    Row("SPACE_TO_DEPTH", 26, How::Own(|n, o| blocks(n, o, "nn.space_to_depth"))),
    Row("TANH", 28, How::Plain(Simple::Activation("tanh"))),
    Row("PAD", 34, How::Own(pad)),
    Row("GATHER", 36, How::Own(gather)),
    Row("TRANSPOSE", 39, How::Own(transpose)),
    Row("MEAN", 40, How::Plain(Simple::Fold("math.reduce_mean"))),
    Row("SUB", 41, How::Fused("math.subtract")),
    Row("DIV", 42, How::Fused("math.truediv")),
    Row("SQUEEZE", 43, How::Own(squeeze)),
    Row("STRIDED_SLICE", 45, How::Own(strided_slice)),
    Row("EXP", 47, How::Plain(Simple::One("math.exp"))),
    Row("SPLIT", 49, How::Own(split)),
    Row("LOG_SOFTMAX", 50, How::Plain(Simple::Activation("log_softmax"))),
    Row("CAST", 53, How::Own(cast)),
    Row("PRELU", 54, How::Own(prelu)),
    Row("MAXIMUM", 55, How::Plain(Simple::Two("math.maximum"))),
    Row("MINIMUM", 57, How::Plain(Simple::Two("math.minimum"))),
    Row("NEG", 59, How::Plain(Simple::One("math.negative"))),
    Row("PADV2", 60, How::Own(pad)),
    Row("SELECT", 64, How::Own(select)),
    Row("SLICE", 65, How::Own(slice)),
    Row("TRANSPOSE_CONV", 67, How::Own(transpose_conv)),
    Row("TILE", 69, How::Own(tile)),
    Row("EXPAND_DIMS", 70, How::Own(expand_dims)),
    Row("EQUAL", 71, How::Plain(Simple::Two("math.equal"))),
    Row("NOT_EQUAL", 72, How::Plain(Simple::Two("math.not_equal"))),
    Row("LOG", 73, How::Plain(Simple::One("math.log"))),
    Row("SUM", 74, How::Plain(Simple::Fold("math.reduce_sum"))),
    Row("SQRT", 75, How::Plain(Simple::One("math.sqrt"))),
    Row("RSQRT", 76, How::Plain(Simple::One("math.rsqrt"))),
    Row("SHAPE", 77, How::Own(|n, o| n.shape_of(input(o, 0)?).map(|slot| vec![slot]))),
    Row("POW", 78, How::Plain(Simple::Two("math.pow"))),
    Row("FAKE_QUANT", 80, How::Plain(Simple::Same)),
    Row("REDUCE_PROD", 81, How::Plain(Simple::Fold("math.reduce_prod"))),
    Row("REDUCE_MAX", 82, How::Plain(Simple::Fold("math.reduce_max"))),
    Row("PACK", 83, How::Own(pack)),
    Row("UNPACK", 88, How::Own(unpack)),
    Row("REDUCE_MIN", 89, How::Plain(Simple::Fold("math.reduce_min"))),
    Row("FLOOR_DIV", 90, How::Plain(Simple::Two("math.floordiv"))),
    Row("SQUARE", 92, How::Plain(Simple::One("math.square"))),
    Row("RESIZE_NEAREST_NEIGHBOR", 97, How::Own(|n, o| resize(n, o, Interpolation::Nearest, 0))),
    Row("LEAKY_RELU", 98, How::Own(leaky_relu)),
    Row("SQUARED_DIFFERENCE", 99, How::Plain(Simple::Two("math.squared_difference"))),
    Row("MIRROR_PAD", 100, How::Own(mirror_pad)),
    Row("ABS", 101, How::Plain(Simple::One("math.abs"))),
    Row("SPLIT_V", 102, How::Own(split_v)),
    Row("CEIL", 104, How::Plain(Simple::One("math.ceil"))),
    Row("ADD_N", 106, How::Own(add_n)),
    Row("ELU", 111, How::Plain(Simple::Activation("elu"))),
    Row("QUANTIZE", 114, How::Plain(Simple::Same)),
    Row("ROUND", 116, How::Plain(Simple::One("math.round"))),
    Row("HARD_SWISH", 117, How::Plain(Simple::Activation("hard_swish"))),
    Row("SELECT_V2", 123, How::Own(select)),
    Row("BATCH_MATMUL", 126, How::Own(batch_matmul)),
    Row("GELU", 150, How::Own(gelu)),
    Row("SIGN", 158, How::Plain(Simple::One("math.sign"))),
];

/// Reads an operator.
pub(super) fn read(how: How, network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    let slot = match how {
        How::Plain(simple) => network.simple(&o.name, simple, &o.inputs, flag(o, 0)?)?,
        How::Fused(function) => {
            let y = network.binary(&o.name, function, [input(o, 0)?, input(o, 1)?])?;
            fused(network, o, y, Some(0))?
        }
        How::Own(read) => return read(network, o),
    };
    Ok(vec![slot])
}

/// Another type of elements. Layers compute with floats: whole numbers stay what they are among these.
fn cast(_: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    let slot = match (input(o, 0)?, o.whole) {
        (Slot::Layer { .. }, [false, true]) => {
            return Err("it makes whole numbers of floats, which no layer does".into());
        }
        (Slot::Constant(Constant::Floats(t)), [_, true]) => {
            let whole = t.data().iter().map(|v| *v as i64).collect();
            Slot::Constant(Constant::Integers(t.shape().to_vec(), std::sync::Arc::new(whole)))
        }
        (Slot::Constant(c @ Constant::Integers(..)), [_, false]) => Slot::Constant(Constant::Floats(c.tensor()?)),
        (same, _) => same.clone(),
    };
    Ok(vec![slot])
}

fn input<'a>(o: &'a Operator<'_>, k: usize) -> Result<&'a Slot, String> {
    operand(&o.inputs, k)
}

fn constant<'a>(o: &'a Operator<'_>, k: usize) -> Result<&'a Constant, String> {
    simple::constant(&o.inputs, k)
}

/// A constant that may be left out.
fn optional<'a>(o: &'a Operator<'_>, k: usize) -> Result<Option<&'a Constant>, String> {
    match o.inputs.get(k) {
        None | Some(Slot::Nothing) => Ok(None),
        Some(_) => constant(o, k).map(Some),
    }
}

fn int(o: &Operator<'_>, field: usize, default: i32) -> Result<i32, String> {
    o.options.map_or(Ok(default), |options| options.int(field, default))
}

fn flag(o: &Operator<'_>, field: usize) -> Result<bool, String> {
    o.options.map_or(Ok(false), |options| options.flag(field))
}

/// A number of pixels.
fn pixels(o: &Operator<'_>, field: usize, default: i32) -> Result<usize, String> {
    let value = int(o, field, default)?;
    usize::try_from(value).map_err(|_| format!("a stride, a size or a dilation of it is {value}"))
}

/// Padding, strides and dilation: the fields of the strides' width and of the dilation's, if there is one.
fn sliding(o: &Operator<'_>, stride: usize, dilation: Option<usize>) -> Result<Sliding, String> {
    let edges = match o.options.map_or(Ok(0), |options| options.byte(0))? {
        0 => Edges::Same,
        1 => Edges::Valid,
        other => return Err(format!("its padding has number {other}, which is not known")),
    };
    let strides = [pixels(o, stride + 1, 1)?, pixels(o, stride, 1)?];
    let dilation = match dilation {
        Some(field) => [pixels(o, field + 1, 1)?, pixels(o, field, 1)?],
        None => [1, 1],
    };
    Ok(Sliding { strides, dilation, edges })
}

/// The activation of an operator's options behind its result.
fn fused(network: &mut Network<'_>, o: &Operator<'_>, x: Slot, field: Option<usize>) -> Result<Slot, String> {
    let number = match (field, o.options) {
        (Some(field), Some(options)) => options.byte(field)?,
        _ => 0,
    };
    match number {
        0 => Ok(x),
        1 => network.activation(&o.name, &x, "relu"),
        2 => clip(network, o, &x),
        3 => network.activation(&o.name, &x, "relu6"),
        4 => network.activation(&o.name, &x, "tanh"),
        other => Err(format!("its activation has number {other}, which is not supported")),
    }
}

fn clip(network: &mut Network<'_>, o: &Operator<'_>, x: &Slot) -> Result<Slot, String> {
    let bound = |v: f32| Slot::Constant(Constant::Floats(Tensor::vector(vec![v])));
    let operands = [x.clone(), bound(-1.0), bound(1.0)];
    network.function(&o.name, "clip_by_value", &operands, &["clip_value_min", "clip_value_max"], json!({}))
}

fn clipped(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Slot, String> {
    clip(network, o, input(o, 0)?)
}

/// A kernel with its axes in another order.
fn kernel(constant: &Constant, order: &[usize]) -> Result<Tensor, String> {
    let tensor = constant.tensor()?;
    if tensor.shape().len() != order.len() {
        return Err(format!("its kernel has shape {:?}, {} dimensions are expected", tensor.shape(), order.len()));
    }
    Ok(array::transpose(&tensor, order))
}

fn conv(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    let kernel = kernel(constant(o, 1)?, &[1, 2, 3, 0])?;
    let y = network.convolution(&o.name, input(o, 0)?, kernel, optional(o, 2)?, sliding(o, 1, Some(4))?)?;
    fused(network, o, y, Some(3)).map(|y| vec![y])
}

fn depthwise(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    let kernel = constant(o, 1)?.tensor()?;
    let channels = network.shape(input(o, 0)?)?.last().copied().unwrap_or(0);
    let channels = usize::try_from(channels).unwrap_or(0);
    let shape = match kernel.shape() {
        [1, h, w, all] if channels > 0 && all.is_multiple_of(channels) => vec![*h, *w, channels, all / channels],
        other => return Err(format!("its kernel has shape {other:?} and its input {channels} channels")),
    };
    let kernel = kernel.reshaped(shape).ok_or("its kernel has another size than its shape")?;
    let y = network.depthwise(&o.name, input(o, 0)?, kernel, optional(o, 2)?, sliding(o, 1, Some(5))?)?;
    fused(network, o, y, Some(4)).map(|y| vec![y])
}

fn transpose_conv(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    let kernel = kernel(constant(o, 1)?, &[1, 2, 0, 3])?;
    let size = match o.shape[..] {
        [_, h, w, _] => [h, w],
        _ => return Err("its result is no image".into()),
    };
    let y = network.transposed(&o.name, input(o, 2)?, kernel, optional(o, 3)?, (sliding(o, 1, None)?, size))?;
    fused(network, o, y, Some(3)).map(|y| vec![y])
}

fn fully_connected(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    let kernel = kernel(constant(o, 1)?, &[1, 0])?;
    let inputs = kernel.shape()[0] as i64;
    let keep = flag(o, 2)?;
    let mut x = input(o, 0)?.clone();
    if !keep {
        x = network.reshape(&format!("{}_flat", o.name), &x, &[BATCH, inputs])?;
    }
    let y = network.dense(&o.name, &x, kernel, optional(o, 2)?)?;
    fused(network, o, y, Some(0)).map(|y| vec![y])
}

fn pool(network: &mut Network<'_>, o: &Operator<'_>, largest: bool) -> Result<Vec<Slot>, String> {
    let Sliding { strides, edges, .. } = sliding(o, 1, None)?;
    let size = [pixels(o, 4, 1)?, pixels(o, 3, 1)?];
    let y = network.pool(&o.name, input(o, 0)?, largest, (size, strides, edges))?;
    fused(network, o, y, Some(5)).map(|y| vec![y])
}

fn concatenation(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    let y = network.concat(&o.name, &o.inputs, int(o, 0, 0)?.into())?;
    fused(network, o, y, Some(1)).map(|y| vec![y])
}

fn blocks(network: &mut Network<'_>, o: &Operator<'_>, function: &str) -> Result<Vec<Slot>, String> {
    let settings = json!({ "block_size": int(o, 0, 1)? });
    network.function(&o.name, function, std::slice::from_ref(input(o, 0)?), &[], settings).map(|y| vec![y])
}

fn l2_normalization(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    let settings = json!({ "axis": [-1] });
    let y = network.function(&o.name, "math.l2_normalize", std::slice::from_ref(input(o, 0)?), &[], settings)?;
    fused(network, o, y, Some(0)).map(|y| vec![y])
}

fn reshape(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    let target = match (optional(o, 1)?, o.options) {
        (Some(shape), _) => shape.whole()?,
        (None, Some(options)) => options.ints(0)?.into_iter().map(i64::from).collect(),
        (None, None) => o.shape.clone(),
    };
    network.reshape(&o.name, input(o, 0)?, &target).map(|y| vec![y])
}

fn resize(
    network: &mut Network<'_>,
    o: &Operator<'_>,
    method: Interpolation,
    field: usize,
) -> Result<Vec<Slot>, String> {
    let [height, width] = constant(o, 1)?.whole()?[..] else { return Err("its size is no height and width".into()) };
    let pixels = Pixels { align_corners: flag(o, field)?, half_pixel_centers: flag(o, field + 1)? };
    network.resize(&o.name, input(o, 0)?, [height, width], (method, pixels)).map(|y| vec![y])
}

fn softmax(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    let beta = o.options.map_or(Ok(1.0), |options| options.float(0, 0.0))?;
    if beta != 1.0 {
        return Err(format!("its beta is {beta}, 1 is expected"));
    }
    network.activation(&o.name, input(o, 0)?, "softmax").map(|y| vec![y])
}

fn pad(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    let value = optional(o, 2)?.map(Constant::tensor).transpose()?;
    let value = value.and_then(|v| v.data().first().copied()).unwrap_or(0.0);
    network.pad(&o.name, input(o, 0)?, &constant(o, 1)?.whole()?, value).map(|y| vec![y])
}

fn mirror_pad(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    let symmetric = flag(o, 0)?;
    network.mirror(&o.name, input(o, 0)?, &constant(o, 1)?.whole()?, symmetric).map(|y| vec![y])
}

fn gather(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    if int(o, 1, 0)? != 0 {
        return Err("indices for each sample are not supported".into());
    }
    let indices = constant(o, 1)?;
    let one = indices.shape().is_empty();
    network.take(&o.name, input(o, 0)?, int(o, 0, 0)?.into(), &indices.whole()?, one).map(|y| vec![y])
}

fn transpose(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    network.transpose(&o.name, input(o, 0)?, &constant(o, 1)?.whole()?).map(|y| vec![y])
}

fn squeeze(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    let axes = o.options.map_or(Ok(Vec::new()), |options| options.ints(0))?;
    let axes: Vec<i64> = axes.into_iter().map(i64::from).collect();
    network.squeeze(&o.name, input(o, 0)?, &axes).map(|y| vec![y])
}

fn expand_dims(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    let axis = constant(o, 1)?.whole()?.first().copied().ok_or("its axis is missing")?;
    network.expand(&o.name, input(o, 0)?, axis).map(|y| vec![y])
}

fn strided_slice(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    let [begin, end, step] = [1, 2, 3].map(|k| constant(o, k).and_then(Constant::whole));
    let mask = |field: usize| int(o, field, 0).map(|bits| u64::from(bits.cast_unsigned()));
    let masks = [mask(0)?, mask(1)?, mask(2)?, mask(3)?, mask(4)?];
    let by = Strided { begin: begin?, end: end?, step: step?, masks };
    network.slice(&o.name, input(o, 0)?, &by).map(|y| vec![y])
}

fn slice(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    let (begin, size) = (constant(o, 1)?.whole()?, constant(o, 2)?.whole()?);
    network.stretch(&o.name, input(o, 0)?, &begin, &size).map(|y| vec![y])
}

fn select(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    network.select(&o.name, [input(o, 0)?, input(o, 1)?, input(o, 2)?]).map(|y| vec![y])
}

/// The axis in an operand of one number.
fn axis(o: &Operator<'_>, k: usize) -> Result<i64, String> {
    constant(o, k)?.whole()?.first().copied().ok_or_else(|| "its axis is missing".into())
}

fn split(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    let x = input(o, 1)?;
    let at = array::axis(axis(o, 0)?, network.rank(x)?)?;
    let size = network.shape(x)?[at];
    let count = o.outputs.max(1) as i64;
    network.split(&o.name, x, at as i64, &vec![size / count; o.outputs])
}

fn split_v(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    network.split(&o.name, input(o, 0)?, axis(o, 2)?, &constant(o, 1)?.whole()?)
}

fn pack(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    network.stack(&o.name, &o.inputs, int(o, 1, 0)?.into()).map(|y| vec![y])
}

fn unpack(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    let at = i64::from(int(o, 1, 0)?);
    let one = |k: usize, network: &mut Network<'_>| {
        network.take(&format!("{}/{k}", o.name), input(o, 0)?, at, &[k as i64], true)
    };
    (0..o.outputs).map(|k| one(k, network)).collect()
}

fn tile(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    let settings = json!({ "multiples": constant(o, 1)?.whole()? });
    network.function(&o.name, "tile", std::slice::from_ref(input(o, 0)?), &[], settings).map(|y| vec![y])
}

fn prelu(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    network.prelu(&o.name, input(o, 0)?, constant(o, 1)?).map(|y| vec![y])
}

fn leaky_relu(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    let alpha = o.options.map_or(Ok(0.0), |options| options.float(0, 0.0))?;
    network.leaky(&o.name, input(o, 0)?, alpha).map(|y| vec![y])
}

fn add_n(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    let mut sum = input(o, 0)?.clone();
    for (k, other) in o.inputs.iter().enumerate().skip(1) {
        sum = network.binary(&format!("{}/{k}", o.name), "math.add", [&sum, other])?;
    }
    Ok(vec![sum])
}

fn batch_matmul(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    let operands = [input(o, 0)?.clone(), input(o, 1)?.clone()];
    let settings = json!({ "transpose_a": flag(o, 0)?, "transpose_b": flag(o, 1)? });
    network.function(&o.name, "linalg.matmul", &operands, &["b"], settings).map(|y| vec![y])
}

fn gelu(network: &mut Network<'_>, o: &Operator<'_>) -> Result<Vec<Slot>, String> {
    let settings = json!({ "approximate": flag(o, 0)? });
    network.function(&o.name, "nn.gelu", std::slice::from_ref(input(o, 0)?), &[], settings).map(|y| vec![y])
}
