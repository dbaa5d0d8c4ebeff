//! Convolutions and products with weights.

use shiftwise_core::shape::Window;
use shiftwise_graph::graph::NodeId;
use shiftwise_graph::ops::{
    ActivationFn, Conv2D, Conv2DTranspose, Cropping2D, Dense, DepthwiseConv2D, OneD, Op, Padding, Weighted,
    ZeroPadding2D,
};
use shiftwise_tensor::tensor::Tensor;

use crate::ops::sums::{Sliding, transposed_size};
use crate::reader::layers::channels_last;
use crate::reader::{Known, Step, Traced, cell, one};
use shiftwise_keras::layout::rows_in_order;

/// A window over images, or over sequences as images of one row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// Height and width of the window.
    pub(super) kernel: [usize; 2],
    /// Strides.
    pub(super) strides: [usize; 2],
    /// Dilation rates.
    pub(super) dilation: [usize; 2],
    /// Pixels around the image, before and after.
    pub(super) pads: [(i64, i64); 2],
    /// Pixels of the image.
    pub(super) size: [usize; 2],
    /// Pixels of the result.
    pub(super) out: [usize; 2],
}

impl Frame {
    /// The window of a node over a value `[channels, …]` of one or two spatial axes.
    pub(super) fn of(step: &Step<'_, '_>, sample: &[usize], kernel: Vec<usize>) -> Result<Self, String> {
        let size = sample.get(1..).unwrap_or_default();
        if !(1..=2).contains(&size.len()) {
            return Err(format!("works on samples of shape {sample:?}; sequences and images are supported"));
        }
        let own = Sliding::of(&step.call, size, kernel)?;
        let two = |v: &[usize]| if let [one] = v { [1, *one] } else { [v[0], v[1]] };
        let pads = if let [one] = own.pads[..] { [(0, 0), one] } else { [own.pads[0], own.pads[1]] };
        if pads.iter().any(|(a, b)| *a < 0 || *b < 0) {
            return Err("has negative pads, which no layer has".into());
        }
        let frame = Self {
            kernel: two(&own.kernel),
            strides: two(&own.strides),
            dilation: two(&own.dilations),
            pads,
            size: two(size),
            out: two(&own.out),
        };
        Ok(frame)
    }

    /// Pixels from the first of the window to the last.
    pub(super) fn extent(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilation[axis] + 1
    }

    /// The pads with those behind the image that the last window needs, where its size was rounded up.
    pub(super) fn reached(&self) -> [(usize, usize); 2] {
        [0, 1].map(|axis| {
            let (before, after) = self.pads[axis];
            let end = ((self.out[axis] - 1) * self.strides[axis] + self.extent(axis)) as i64;
            (before as usize, after.max(end - self.size[axis] as i64 - before) as usize)
        })
    }

    /// Keras' padding, if the pads are one of its two.
    pub(super) fn padding(&self) -> Option<Padding> {
        let pads = self.reached();
        if pads == [(0, 0); 2] {
            return Some(Padding::Valid);
        }
        let same = [0, 1].map(|axis| {
            let short = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
            let (stride, dilation) = (short(self.strides[axis]), short(self.dilation[axis]));
            let (before, after) =
                Window::same_padding(self.size[axis] as u32, short(self.kernel[axis]), stride, dilation);
            let fits = self.out[axis] == self.size[axis].div_ceil(self.strides[axis]);
            fits && pads[axis] == (usize::from(before), usize::from(after))
        });
        (same == [true; 2]).then_some(Padding::Same)
    }
}

/// A layer over images, as one over sequences where the value has one spatial axis.
pub(super) fn over(op: Op, spatial: usize) -> Result<Op, String> {
    if spatial == 1 { OneD::new(op).map(Op::OneD) } else { Ok(op) }
}

/// The node of zeros around another, and the padding that is left for the layer behind it.
pub(super) fn padded(
    step: &mut Step<'_, '_>,
    id: NodeId,
    frame: &Frame,
    spatial: usize,
) -> Result<(NodeId, Padding), String> {
    if let Some(padding) = frame.padding() {
        return Ok((id, padding));
    }
    let [rows, columns] = frame.reached().map(|(before, after)| [before, after]);
    let op = over(Op::ZeroPadding2D(ZeroPadding2D { rows, columns }), spatial)?;
    Ok((step.add("_pad", op, &[id])?, Padding::Valid))
}

/// A kernel of shape `[outer, inner, taps…]`, whose values are read off one by one, as `[taps…, inner, outer]`, with two axes
/// of taps; the innermost axes swapped if asked.
fn kernel(shape: &[usize], value: impl Fn(usize) -> f32, outer_last: bool) -> Result<Tensor, String> {
    let (&[a, b], taps) = (&[shape[0], shape[1]], &shape[2..]);
    let size: usize = taps.iter().product();
    let mut data = Vec::with_capacity(a * b * size);
    for tap in 0..size {
        let at = |o: usize, i: usize| value((o * b + i) * size + tap);
        if outer_last {
            (0..b).for_each(|i| data.extend((0..a).map(|o| at(o, i))));
        } else {
            (0..a).for_each(|o| data.extend((0..b).map(|i| at(o, i))));
        }
    }
    let window = if let [one] = taps { [1, *one] } else { [taps[0], taps[1]] };
    let inner = if outer_last { [b, a] } else { [a, b] };
    Tensor::new([window, inner].concat(), data).ok_or_else(|| "has a damaged kernel".into())
}

fn bias(step: &Step<'_, '_>, k: usize, filters: usize) -> Result<Option<Tensor>, String> {
    if step.operand(k).is_none() {
        return Ok(None);
    }
    let own = step.weights(k)?;
    let shape = own.shape().to_vec();
    let vector = own.reshaped(vec![filters]).filter(|_| shape.iter().filter(|d| **d != 1).count() <= 1);
    vector.map(Some).ok_or_else(|| format!("has a bias of shape {shape:?} for {filters} filters"))
}

pub(crate) fn conv(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    let sample = step.sample(&x);
    let shape = step.weights_shape(1)?;
    let spatial = sample.len().saturating_sub(1);
    if shape.len() != spatial + 2 || !(1..=2).contains(&spatial) || shape.contains(&0) {
        return Err(format!("has a kernel of shape {shape:?} over samples of shape {sample:?}"));
    }
    let frame = Frame::of(step, &sample, shape[2..].to_vec())?;
    let groups = step.call.size("group", 1)?;
    let (filters, per_group) = (shape[0], shape[1]);
    let bias = bias(step, 2, filters)?;
    let order = channels_last(sample.len());
    let id = step.reader.arranged(&x, &order)?;
    let (id, padding) = padded(step, id, &frame, spatial)?;
    let (strides, dilation) = (frame.strides, frame.dilation);
    let own = match step.plain_weights(1)? {
        Some((shape, raw)) => {
            step.call.budget.elements(&shape, 4)?;
            kernel(&shape, |i| cell(&raw[4 * i..]), true)?
        }
        None => {
            let weights = step.weights(1)?;
            kernel(weights.shape(), |i| weights.data()[i], true)?
        }
    };
    let channels = sample[0];
    let op = if groups == channels && channels > 1 && per_group == 1 && filters % channels == 0 {
        // A filter of channel c stands at c · multiplier + m, in both.
        let kernel = own.clone().reshaped([&own.shape()[..2], &[channels, filters / channels]].concat());
        let kernel = kernel.ok_or("has a damaged kernel")?;
        let w = Weighted { kernel, bias, activation: ActivationFn::Linear };
        Op::DepthwiseConv2D(DepthwiseConv2D { w, strides, dilation, padding })
    } else {
        let w = Weighted { kernel: own, bias, activation: ActivationFn::Linear };
        Op::Conv2D(Conv2D { w, strides, dilation, padding, groups })
    };
    let op = over(op, spatial)?;
    let id = step.add("", op, &[id])?;
    one(Traced::ordered(id, &order))
}

/// A kernel of groups `[inputs, filters / groups, taps…]` as one over all channels, with zeros where groups don't meet.
fn ungrouped(weights: Tensor, groups: usize) -> Result<Tensor, String> {
    if groups == 1 {
        return Ok(weights);
    }
    let shape = weights.shape();
    let (inputs, per, size) = (shape[0], shape[1], shape[2..].iter().product::<usize>());
    if groups == 0 || inputs % groups != 0 {
        return Err(format!("has {groups} groups of {inputs} channels"));
    }
    let full = [&[inputs, per * groups], &shape[2..]].concat();
    shiftwise_graph::budget::layer_elements(&full)?;
    let mut out = Tensor::zeros(&full);
    for (i, row) in weights.data().chunks_exact((per * size).max(1)).enumerate() {
        let group = i / (inputs / groups);
        out.data_mut()[(i * per * groups + group * per) * size..][..per * size].copy_from_slice(row);
    }
    Ok(out)
}

pub(crate) fn conv_transpose(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    let sample = step.sample(&x);
    let weights = step.weights(1)?;
    let spatial = sample.len().saturating_sub(1);
    if weights.shape().len() != spatial + 2 || !(1..=2).contains(&spatial) || weights.shape().contains(&0) {
        return Err(format!("has a kernel of shape {:?} over samples of shape {sample:?}", weights.shape()));
    }
    let weights = ungrouped(weights, step.call.size("group", 1)?)?;
    let (size, taps) = (&sample[1..], &weights.shape()[2..]);
    let sizes = transposed_size(&step.call, size, taps)?;
    let axes = |name: &str, default: usize| step.call.sizes(name, spatial, default);
    let (strides, dilations, more) = (axes("strides", 1)?, axes("dilations", 1)?, axes("output_padding", 0)?);
    let filters = weights.shape()[1];
    let bias = bias(step, 2, filters)?;
    let two = |v: &[usize], row: usize| if let [one] = v { [row, *one] } else { [v[0], v[1]] };
    let (strides, dilation, more, pixels) = (two(&strides, 1), two(&dilations, 1), two(&more, 0), two(size, 1));
    let out: Vec<usize> = sizes.iter().map(|s| s.0).collect();
    let cut: Vec<i64> = sizes.iter().map(|s| s.1).collect();
    let (out, cut) = (two(&out, 1), if let [one] = cut[..] { [0, one] } else { [cut[0], cut[1]] });
    let w = Weighted {
        kernel: kernel(weights.shape(), |i| weights.data()[i], false)?,
        bias,
        activation: ActivationFn::Linear,
    };
    // Keras' kernel is [taps, filters, inputs].
    let w = Weighted { kernel: swapped(&w.kernel)?, ..w };
    let window = two(taps, 1);
    let extent = [0, 1].map(|axis| (window[axis] - 1) * dilation[axis] + 1);
    let short = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    let same = (0..2).all(|axis| {
        let (before, _) =
            Window::same_padding(out[axis] as u32, short(window[axis]), short(strides[axis]), short(dilation[axis]));
        out[axis] == pixels[axis] * strides[axis] && cut[axis] == i64::from(before)
    });
    let full = [0, 1].map(|axis| (pixels[axis] - 1) * strides[axis] + extent[axis] + more[axis]);
    let own = more == [0, 0] && (0..2).all(|axis| extent[axis] >= strides[axis]);
    let (padding, output_padding) =
        if same { (Padding::Same, None) } else { (Padding::Valid, Some(more).filter(|_| !own)) };
    let order = channels_last(sample.len());
    let id = step.reader.arranged(&x, &order)?;
    let op = over(Op::Conv2DTranspose(Conv2DTranspose { w, strides, dilation, padding, output_padding }), spatial)?;
    let mut id = step.add("", op, &[id])?;
    if !same && (cut != [0, 0] || out != full) {
        let crop = [0, 1].map(|axis| {
            let before = usize::try_from(cut[axis]).ok()?;
            Some([before, full[axis].checked_sub(before + out[axis])?])
        });
        let [Some(rows), Some(columns)] = crop else {
            return Err("has an output shape beyond what its window reaches, which no layer has".into());
        };
        id = step.add("_crop", over(Op::Cropping2D(Cropping2D { rows, columns }), spatial)?, &[id])?;
    }
    one(Traced::ordered(id, &order))
}

/// A kernel with its two last axes swapped.
fn swapped(kernel: &Tensor) -> Result<Tensor, String> {
    let shape = kernel.shape();
    let (a, b) = (shape[2], shape[3]);
    let turn = |block: &[f32]| {
        (0..b).flat_map(|j| (0..a).map(move |i| (i, j))).map(|(i, j)| block[i * b + j]).collect::<Vec<_>>()
    };
    let data = kernel.data().chunks_exact((a * b).max(1)).flat_map(turn).collect();
    Tensor::new(vec![shape[0], shape[1], b, a], data).ok_or_else(|| "has a damaged kernel".into())
}

/// A dense layer over the last axis of a value.
pub(crate) fn dense(
    step: &mut Step<'_, '_>,
    x: &Traced,
    kernel: Tensor,
    bias: Option<Tensor>,
) -> Result<Traced, String> {
    let rank = x.order.len();
    let (id, kernel) = match &x.flat {
        Some(source) => {
            let sizes = step.reader.shape(source.id);
            let fits = sizes.iter().product::<usize>() == kernel.shape()[0];
            let kernel = if fits { rows_in_order(&kernel, &sizes, &source.order) } else { kernel };
            (x.id, kernel)
        }
        None => (step.reader.plain(x)?, kernel),
    };
    let w = Weighted { kernel, bias, activation: ActivationFn::Linear };
    let id = step.add("", Op::Dense(Dense { w }), &[id])?;
    Ok(Traced::plain(id, rank))
}

/// A matrix, each element times a factor.
fn matrix(mut weights: Tensor, factor: f32) -> Result<Tensor, String> {
    if weights.shape().len() != 2 {
        return Err(format!("has weights of shape {:?}, a matrix is expected", weights.shape()));
    }
    if factor != 1.0 {
        weights.data_mut().iter_mut().for_each(|x| *x *= factor);
    }
    Ok(weights)
}

pub(crate) fn gemm(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    if step.call.int("transA", 0) == 1 {
        return Err("multiplies samples turned, which mixes them".into());
    }
    if x.order.len() != 1 {
        return Err("multiplies samples that are no vectors".into());
    }
    let (alpha, beta) = (step.call.float("alpha", 1.0), step.call.float("beta", 1.0));
    let turned = step.call.int("transB", 0) == 1;
    let weights = if turned { step.turned_weights(1)? } else { step.weights(1)? };
    let kernel = matrix(weights, alpha)?;
    let units = kernel.shape()[1];
    let bias = match step.operand(2) {
        None => None,
        Some(_) => {
            let own = step.weights(2)?;
            // One number for all filters is as good as a vector; several rows would be one for each sample.
            let all = if own.data().len() == 1 { vec![own.data()[0]; units] } else { own.data().to_vec() };
            if all.len() != units {
                return Err(format!("has a bias of shape {:?} for {units} units", own.shape()));
            }
            Some(Tensor::vector(all.into_iter().map(|x| x * beta).collect()))
        }
    };
    let made = dense(step, &x, kernel, bias)?;
    one(made)
}

pub(crate) fn matmul(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let constant = |known: Option<&Known>| !matches!(known, Some(Known::Layer(_)));
    if constant(step.operand(0)) || !constant(step.operand(1)) {
        return products(step);
    }
    let x = step.layer(0)?;
    let kernel = matrix(step.weights(1)?, 1.0)?;
    let units = kernel.shape()[1];
    if x.order.is_empty() {
        return Err("multiplies single numbers as matrices".into());
    }
    // A bias is a vector that is added right behind.
    let output = step.node.output.first().map_or("", String::as_str);
    let adds = step.only_reader(output).filter(|next| next.op_type == "Add" && next.input.len() == 2);
    let other = adds.and_then(|next| next.input.iter().find(|name| *name != output));
    let bias = match other {
        Some(name) => step.constant(name)?.filter(|v| v.shape.last() == Some(&units) && v.len() == units),
        None => None,
    };
    let vector = bias.and_then(|v| v.tensor()).and_then(|t| t.reshaped(vec![units]));
    let made = dense(step, &x, kernel, vector.clone())?;
    if let (Some(next), Some(_)) = (adds, vector) {
        step.take(next, made.clone());
        let names = [step.node.input.get(1), other].map(|name| name.map_or("", String::as_str));
        step.reader.weigh(made.id, &names);
    }
    one(made)
}

/// Products of what is made of samples.
fn products(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    use serde_json::json;
    let sides = [0, 1].map(|k| step.layer(k));
    match sides {
        [Ok(a), Ok(b)] => {
            if a.order.len() != b.order.len() || a.order.len() < 2 {
                return Err("multiplies samples that are no matrices of as many axes".into());
            }
            let ids = [step.reader.plain(&a)?, step.reader.plain(&b)?];
            let call = (json!({ "tensor": 0 }), json!({ "b": { "tensor": 1 } }));
            let id = step.function("", "linalg.matmul", &ids, call)?;
            one(Traced::plain(id, a.order.len()))
        }
        [Err(_), Ok(b)] => {
            let a = step.weights(0)?;
            if b.order.len() < 2 || a.shape().len() < 2 || a.shape().len() > b.order.len() + 1 {
                return Err("multiplies a constant and samples that are no matrices".into());
            }
            let id = step.reader.plain(&b)?;
            let call = (super::merges::nested(&a)?, json!({ "b": { "tensor": 0 } }));
            let id = step.function("", "linalg.matmul", &[id], call)?;
            one(Traced::plain(id, b.order.len()))
        }
        _ => Err("multiplies samples in a way that no layer does".into()),
    }
}
