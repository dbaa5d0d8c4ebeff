//! Operations that have an integer form: how their attributes and constants become one.

use std::sync::Arc;

use shiftwise_core::shape::Window;
use shiftwise_core::shift::SIGMOID_POSITIONS;

use crate::graph::{Form, Plan};
use crate::window::window;
use crate::{MOST_ELEMENTS, XOp, host};
use shiftwise_graph::ops::pool::average_factor;
use shiftwise_integer::graph::{IntAct, IntConv, IntOpKind};

/// A computation whose output position isn't known yet.
#[derive(Clone, Debug)]
pub(super) struct Open {
    base: Base,
    act: IntAct,
    /// Operands: operations with integer results.
    pub(super) inputs: Vec<usize>,
    /// The output position at which the result is exact, if nothing says another.
    pub(super) natural: Option<i8>,
    /// Quantizing the operands is the same as quantizing the result.
    pub(super) transparent: bool,
}

impl Open {
    /// Weights that its integer form has.
    pub(super) fn weights(&self) -> usize {
        if let Base::Conv { conv, .. } = &self.base { conv.kernel.len() } else { 0 }
    }
}

#[derive(Clone, Debug)]
enum Base {
    /// A convolution without its shifts, with the positions of weights and bias.
    Conv {
        flavour: Flavour,
        conv: Arc<IntConv>,
        weights: i8,
        bias: i8,
    },
    MaxPool(Window),
    AveragePool(Window, u16, u8),
    Add,
    Multiply,
    Concat(usize),
    UpSample([usize; 2]),
    Pad {
        before: [usize; 2],
        after: [usize; 2],
    },
    HardSigmoid,
    Permute(Vec<usize>),
    View,
    /// An activation alone.
    Act,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flavour {
    Dense,
    Depthwise,
    Transposed,
}

/// The integer form of an operation up to its output position; `None` if it has none, or reads floats.
pub(super) fn open(plan: &Plan<'_>, op: usize) -> Result<Option<Open>, String> {
    let xop = &plan.model.ops[op];
    let data: Vec<usize> = match xop.arg("input") {
        Some(_) => xop.args.iter().filter(|(n, _)| n == "input").flat_map(|(_, ops)| ops.clone()).collect(),
        None => xop.inputs().collect(),
    };
    let data = match xop.kind.as_str() {
        // Its second operand is the weights.
        "matmul" | "inner-product" => data.into_iter().take(1).collect(),
        _ => data,
    };
    let integers = |i: &usize| matches!(plan.forms[*i], Form::Fixed(_) | Form::Open(_));
    if data.is_empty() || !data.iter().all(integers) {
        return Ok(None);
    }
    let first = data[0];
    let act = activation(xop)?;
    let shape = |op: usize| plan.model.ops[op].tensor.shape.as_slice();
    // First, so that no product of dimensions below can overflow.
    for s in data.iter().map(|i| shape(*i)).chain([xop.tensor.shape.as_slice()]) {
        if s.first() != Some(&1) {
            return Err(format!("shape {s:?}; a batch of 1 is expected"));
        }
        let elements = s.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        if elements.is_none_or(|n| n > MOST_ELEMENTS || n == 0) {
            return Err(format!("shape {s:?} is empty or too large"));
        }
    }
    let kind = xop.kind.strip_suffix("-fix").unwrap_or(&xop.kind);
    let mut fused = None;
    let base = match kind {
        "conv2d" | "depthwise-conv2d" | "transposed-conv2d" => conv(plan, xop, kind, first)?,
        "matmul" | "inner-product" => dense(plan, xop, first)?,
        "relu" | "relu6" | "leaky-relu" => {
            let act = match kind {
                "relu" => IntAct::Relu,
                "relu6" => IntAct::Relu6,
                _ => leaky(xop)?,
            };
            fused = Some(act);
            Base::Act
        }
        "maxpool2d" | "avgpool2d" | "pool" => pool(xop, kind, shape(first))?,
        "reduction_max" | "reduction-max" => {
            let axis = host::one_axis(xop, shape(first).len())?;
            match (axis, shape(first)) {
                (1, &[_, h, ..]) => Base::MaxPool(point([h, 1])?),
                (2, &[_, _, w, _]) => Base::MaxPool(point([1, w])?),
                _ => return Ok(None),
            }
        }
        "add" => Base::Add,
        "mul" if data.len() == 2 => Base::Multiply,
        "eltwise" => match xop.attrs.text("type") {
            Some("ADD") => Base::Add,
            Some("MUL" | "MULT") if data.len() == 2 => Base::Multiply,
            other => return Err(format!("element-wise {other:?} of {} operands has no integer form", data.len())),
        },
        "concat" => {
            let axis = host::one_axis(xop, shape(first).len())?;
            Base::Concat(axis.checked_sub(1).ok_or("it joins samples of a batch")?)
        }
        "hard-sigmoid" => Base::HardSigmoid,
        "resize" | "upsample" => upsample(xop, shape(first))?,
        "pad" => pad(xop, shape(first))?,
        "transpose" => {
            let order = host::order(xop, shape(first).len())?;
            if order.first() != Some(&0) {
                return Err("it moves the batch".into());
            }
            Base::Permute(order.iter().skip(1).map(|a| a - 1).collect())
        }
        "reshape" | "flatten" | "squeeze" | "upload" | "download" | "identity" => {
            if xop.tensor.elements() != plan.model.ops[first].tensor.elements() {
                return Err(format!("{:?} is not {:?} in another shape", xop.tensor.shape, shape(first)));
            }
            Base::View
        }
        _ => return Ok(None),
    };
    check(&base, xop, &data, plan)?;
    if let Some(act) = fused {
        return after(plan, first, act).map(Some);
    }
    let transparent = matches!(base, Base::Concat(_) | Base::View | Base::Permute(_) | Base::Pad { .. });
    let exact = transparent || matches!(base, Base::MaxPool(_) | Base::UpSample(_));
    let natural = if exact { common_position(plan, &data) } else { None };
    let base = Open { base, act, inputs: data, natural, transparent };
    Ok(Some(base))
}

/// The operands' position, if it is one.
fn common_position(plan: &Plan<'_>, data: &[usize]) -> Option<i8> {
    let position = |i: &usize| match &plan.forms[*i] {
        Form::Fixed(pos) => Some(*pos),
        Form::Open(open) => open.natural,
        _ => None,
    };
    let first = position(data.first()?)?;
    data.iter().all(|i| position(i) == Some(first)).then_some(first)
}

/// An activation on its own, or behind a computation that has none yet.
fn after(plan: &Plan<'_>, input: usize, act: IntAct) -> Result<Open, String> {
    match &plan.forms[input] {
        Form::Open(open) if open.act == IntAct::None && !matches!(open.base, Base::Concat(_) | Base::View) => {
            // The result is no longer on the operands' grid for a LeakyReLU.
            let natural = open.natural.filter(|_| act == IntAct::Relu);
            Ok(Open { act, natural, transparent: false, ..open.clone() })
        }
        _ => Ok(Open {
            base: Base::Act,
            act,
            inputs: vec![input],
            natural: common_position(plan, &[input]).filter(|_| act == IntAct::Relu),
            transparent: false,
        }),
    }
}

/// Shapes that the integer engine relies on.
fn check(base: &Base, xop: &XOp, data: &[usize], plan: &Plan<'_>) -> Result<(), String> {
    let shape = |op: usize| plan.model.ops[op].tensor.shape.as_slice();
    let out = xop.tensor.shape.as_slice();
    let all = || data.iter().map(|i| shape(*i));
    let first = shape(data[0]);
    let ok = match base {
        Base::Add => all().all(|s| s == out),
        Base::Multiply => {
            let fits = |s: &[usize]| {
                s.len() <= out.len() && s.iter().rev().zip(out.iter().rev()).all(|(a, b)| a == b || *a == 1)
            };
            all().all(fits)
        }
        Base::Concat(axis) => {
            let axis = axis + 1;
            let like = |s: &[usize]| {
                s.len() == out.len() && s.iter().zip(out).enumerate().all(|(k, (a, b))| a == b || k == axis)
            };
            all().all(like) && all().map(|s| s[axis]).sum::<usize>() == out[axis]
        }
        Base::UpSample([fy, fx]) => match (first, out) {
            (&[_, h, w, c], &[_, oh, ow, oc]) => {
                (Some(oh), Some(ow), oc) == (h.checked_mul(*fy), w.checked_mul(*fx), c)
            }
            _ => false,
        },
        Base::Pad { before, after } => match (first, out) {
            (&[_, h, w, c], &[_, oh, ow, oc]) => {
                (oh, ow, oc) == (h + before[0] + after[0], w + before[1] + after[1], c)
            }
            _ => false,
        },
        Base::MaxPool(window) | Base::AveragePool(window, ..) => match (first, out) {
            (&[_, h, w, c], &[_, oh, ow, oc]) => {
                let outputs = [window.outputs(0, h as u32) as usize, window.outputs(1, w as u32) as usize];
                (outputs, c) == ([oh, ow], oc)
            }
            // A reduction that drops its axis.
            (&[_, h, w, c], _) => {
                let outputs = [window.outputs(0, h as u32) as usize, window.outputs(1, w as u32) as usize];
                Some(outputs[0] * outputs[1] * c) == xop.tensor.elements()
            }
            _ => false,
        },
        Base::Permute(dims) => out.iter().skip(1).eq(dims.iter().map(|d| &first[d + 1])),
        // What is fused into its producer has the producer's shape.
        Base::Act => out == first,
        Base::HardSigmoid | Base::View => xop.tensor.elements() == plan.model.ops[data[0]].tensor.elements(),
        Base::Conv { .. } => true,
    };
    if ok { Ok(()) } else { Err(format!("operands of shapes {:?} don't give {out:?}", all().collect::<Vec<_>>())) }
}

/// The fused activation of a fixed-point operation.
fn activation(xop: &XOp) -> Result<IntAct, String> {
    match xop.attrs.text("nonlinear") {
        None | Some("" | "NONE") => Ok(IntAct::None),
        Some("RELU") => Ok(IntAct::Relu),
        Some("RELU6") => Ok(IntAct::Relu6),
        Some("LEAKYRELU") => Ok(IntAct::LeakyRelu),
        Some(other) => Err(format!("the fused activation {other} has no integer form")),
    }
}

/// The slope of a LeakyReLU: the DPU has one, 26/256, and the vendor rewrites 0.1 to it.
fn leaky(xop: &XOp) -> Result<IntAct, String> {
    let alpha = xop.attrs.float("alpha").unwrap_or(0.1);
    if alpha == 26.0 / 256.0 || (alpha - 0.1).abs() < 1e-6 {
        Ok(IntAct::LeakyRelu)
    } else {
        Err(format!("alpha {alpha}; a DPU has 26/256"))
    }
}

/// A window that covers everything once.
fn point(kernel: [usize; 2]) -> Result<Window, String> {
    let kernel = kernel.map(|k| u16::try_from(k).map_err(|_| format!("a window of {k} is too large")));
    let [h, w] = kernel;
    let kernel = [h?, w?];
    Ok(Window { kernel, stride: kernel, ..Window::POINT })
}

fn conv(plan: &Plan<'_>, xop: &XOp, kind: &str, input: usize) -> Result<Base, String> {
    let flavour = match kind {
        "conv2d" => Flavour::Dense,
        "depthwise-conv2d" => Flavour::Depthwise,
        _ => Flavour::Transposed,
    };
    let (&[1, ih, iw, ic], &[1, oh, ow, oc]) = (&plan.model.ops[input].tensor.shape[..], &xop.tensor.shape[..]) else {
        return Err("maps [1, h, w, c] are expected".into());
    };
    let weights = xop.arg("weights").ok_or("it has no weights")?;
    let wshape = plan.model.ops[weights].tensor.shape.as_slice();
    let window = window(xop, [ih, iw], [oh, ow], flavour == Flavour::Transposed)?;
    let [kh, kw] = window.kernel.map(usize::from);
    let groups =
        usize::try_from(xop.attrs.int("group").unwrap_or(1)).ok().filter(|g| *g > 0 && ic % g == 0 && oc % g == 0);
    let groups = groups.ok_or("its groups don't divide its channels")?;
    let want = match flavour {
        Flavour::Depthwise if ic == oc => [1, kh, kw, ic],
        Flavour::Depthwise => return Err("a depthwise convolution with several outputs per channel".into()),
        Flavour::Dense => [oc, kh, kw, ic / groups],
        Flavour::Transposed if groups == 1 => [oc, kh, kw, ic],
        Flavour::Transposed => return Err("a transposed convolution in groups".into()),
    };
    if wshape != want {
        return Err(format!("weights of shape {wshape:?}, {want:?} is expected"));
    }
    if [[ih, iw, ic], [oh, ow, oc]].iter().any(|s| s.iter().product::<usize>() == 0) {
        return Err("it has no values".into());
    }
    let (q, wpos) = plan.constant(weights)?.ok_or("its weights are no constant")?;
    let transposed = flavour == Flavour::Transposed;
    let kernel = if flavour == Flavour::Depthwise {
        q
    } else {
        // [oc, kh, kw, ic] to [kh, kw, ic, oc]; a transposed convolution of the file counts taps from the far end.
        let ic = want[3];
        let mut kernel = vec![0; q.len()];
        for (at, v) in q.into_iter().enumerate() {
            let (i, tap, o) = (at % ic, at / ic % (kh * kw), at / (ic * kh * kw));
            let tap = if transposed { kh * kw - 1 - tap } else { tap };
            kernel[(tap * ic + i) * oc + o] = v;
        }
        kernel
    };
    let (bias, bpos) = bias(plan, xop, oc)?.map_or((None, wpos), |(b, pos)| (Some(b), pos));
    let conv = IntConv {
        window,
        input: [ih, iw, ic],
        output: [oh, ow, oc],
        kernel,
        bias,
        groups: if flavour == Flavour::Dense { groups } else { 1 },
        shift_cut: 0,
        shift_bias: 0,
        act: IntAct::None,
    };
    Ok(Base::Conv { flavour, conv: Arc::new(conv), weights: wpos, bias: bpos })
}

/// A product with a matrix of constants as a convolution of one pixel.
fn dense(plan: &Plan<'_>, xop: &XOp, input: usize) -> Result<Base, String> {
    let (&[1, n], &[1, oc]) = (&plan.model.ops[input].tensor.shape[..], &xop.tensor.shape[..]) else {
        return Err("a product [1, n] × [n, m] is expected".into());
    };
    let transposed = |name: &str| xop.attrs.int(name).unwrap_or(0) != 0;
    if transposed("transpose_a") || n == 0 || oc == 0 {
        return Err("its first operand is transposed or empty".into());
    }
    let weights = xop.arg("weights").or_else(|| xop.inputs().nth(1)).ok_or("it has no weights")?;
    let (q, wpos) = plan.constant(weights)?.ok_or("its weights are no constant")?;
    // By rows of outputs, or by rows of inputs.
    let by_outputs = xop.kind == "inner-product" || transposed("transpose_b");
    let shape = plan.model.ops[weights].tensor.shape.as_slice();
    let rows = shape.first().copied();
    if Some(q.len()) != n.checked_mul(oc) || rows != Some(if by_outputs { oc } else { n }) {
        return Err(format!("weights of shape {shape:?} for {n} inputs and {oc} outputs"));
    }
    let at = |i: usize, o: usize| if by_outputs { o * n + i } else { i * oc + o };
    let kernel = (0..n).flat_map(|i| (0..oc).map(move |o| (i, o))).map(|(i, o)| q[at(i, o)]).collect();
    let (bias, bpos) = bias(plan, xop, oc)?.map_or((None, wpos), |(b, pos)| (Some(b), pos));
    let conv = IntConv {
        window: Window::POINT,
        input: [1, 1, n],
        output: [1, 1, oc],
        kernel,
        bias,
        groups: 1,
        shift_cut: 0,
        shift_bias: 0,
        act: IntAct::None,
    };
    Ok(Base::Conv { flavour: Flavour::Dense, conv: Arc::new(conv), weights: wpos, bias: bpos })
}

/// The biases of an operation with `oc` channels, and their position.
fn bias(plan: &Plan<'_>, xop: &XOp, oc: usize) -> Result<Option<(Vec<i8>, i8)>, String> {
    let Some(op) = xop.arg("bias") else { return Ok(None) };
    let (b, pos) = plan.constant(op)?.ok_or("its bias is no constant")?;
    if b.len() != oc {
        return Err(format!("{} biases for {oc} channels", b.len()));
    }
    Ok(Some((b, pos)))
}

fn pool(xop: &XOp, kind: &str, input: &[usize]) -> Result<Base, String> {
    let (&[1, h, w, _], &[1, oh, ow, _]) = (input, &xop.tensor.shape[..]) else {
        return Err("maps [1, h, w, c] are expected".into());
    };
    let window =
        if xop.attrs.int("global") == Some(1) { point([h, w])? } else { window(xop, [h, w], [oh, ow], false)? };
    let average = match xop.attrs.text("type") {
        Some("MAX") => false,
        Some("AVG") => true,
        _ => kind == "avgpool2d",
    };
    if !average {
        return Ok(Base::MaxPool(window));
    }
    let [kh, kw] = window.kernel.map(usize::from);
    let (m, n) = average_factor(kh, kw).ok_or_else(|| format!("an average over {kh} × {kw} has no integer form"))?;
    Ok(Base::AveragePool(window, m, n))
}

fn upsample(xop: &XOp, input: &[usize]) -> Result<Base, String> {
    match xop.attrs.text("mode") {
        Some("NEAREST") => {}
        other => return Err(format!("resizing by {other:?} has no integer form")),
    }
    match (input, &xop.tensor.shape[..]) {
        (&[_, h, w, _], &[_, oh, ow, _]) if h > 0 && w > 0 && oh % h == 0 && ow % w == 0 => {
            Ok(Base::UpSample([oh / h, ow / w]))
        }
        (i, o) => Err(format!("resizing {i:?} to {o:?} has no integer form")),
    }
}

fn pad(xop: &XOp, input: &[usize]) -> Result<Base, String> {
    let (mode, values) = (xop.attrs.text("mode"), xop.attrs.ints("constant_values").unwrap_or(&[]));
    if !matches!(mode, None | Some("CONSTANT")) || values.iter().any(|v| *v != 0) {
        return Err(format!("padding {mode:?} with {values:?} has no integer form"));
    }
    let paddings = xop.attrs.ints("paddings").unwrap_or(&[]);
    let small = |v: i64| u16::try_from(v).map(usize::from).map_err(|_| format!("a padding of {v} is out of range"));
    match (input.len(), paddings) {
        (4, &[0, 0, top, bottom, left, right, 0, 0]) => {
            Ok(Base::Pad { before: [small(top)?, small(left)?], after: [small(bottom)?, small(right)?] })
        }
        _ => Err(format!("paddings {paddings:?} of {input:?} have no integer form")),
    }
}

/// The integer form with its shifts: operands of positions `from`, a result of position `to`.
pub(super) fn close(open: &Open, from: &[i8], to: i8) -> Result<IntOpKind, String> {
    let act = open.act;
    let wide: Vec<i32> = from.iter().map(|p| i32::from(*p)).collect();
    let (ipos, opos) = (*wide.first().ok_or("it has no operand")?, i32::from(to));
    let finest = wide.iter().copied().max().unwrap_or(ipos);
    let shift = ipos - opos;
    let plain = |kind: IntOpKind| {
        // Moves keep their integers; another position is another operation behind them.
        if shift == 0 && act == IntAct::None {
            Ok(kind)
        } else {
            Err(format!("it changes the position from {ipos} to {opos}"))
        }
    };
    match &open.base {
        Base::Conv { flavour, conv, weights, bias } => {
            let product = ipos + i32::from(*weights);
            let conv =
                IntConv { shift_cut: product - opos, shift_bias: product - i32::from(*bias), act, ..(**conv).clone() };
            Ok(match flavour {
                Flavour::Dense => IntOpKind::Conv(conv),
                Flavour::Depthwise => IntOpKind::Depthwise(conv),
                Flavour::Transposed => IntOpKind::ConvTranspose(conv),
            })
        }
        Base::MaxPool(window) => Ok(IntOpKind::MaxPool { window: *window, shift, act }),
        Base::AveragePool(window, m, n) => {
            Ok(IntOpKind::AveragePool { window: *window, m: *m, shift: i32::from(*n) + shift, act })
        }
        Base::Add => Ok(IntOpKind::Add {
            shift_read: wide.iter().map(|p| (finest - p).unsigned_abs()).collect(),
            shift_write: finest - opos,
            act,
        }),
        Base::Multiply => Ok(IntOpKind::Multiply { shift: wide.iter().sum::<i32>() - opos, act }),
        Base::Concat(axis) if act == IntAct::None => {
            Ok(IntOpKind::Concat { axis: *axis, shifts: wide.iter().map(|p| p - opos).collect() })
        }
        Base::Concat(_) => Err("an activation behind a concatenation has no integer form".into()),
        Base::UpSample(factor) if act == IntAct::None => Ok(IntOpKind::UpSample { factor: *factor, shift }),
        Base::UpSample(_) => Err("an activation behind a resize has no integer form".into()),
        Base::HardSigmoid if SIGMOID_POSITIONS.contains(&ipos) => {
            Ok(IntOpKind::HardSigmoid { shift: 14 + ipos - opos })
        }
        Base::HardSigmoid => Err(format!("its operand has position {ipos}; {SIGMOID_POSITIONS:?} is expected")),
        Base::Act => Ok(IntOpKind::Requantize { shift, act }),
        Base::Pad { before, after } => plain(IntOpKind::Pad { before: *before, after: *after }),
        Base::Permute(dims) => plain(IntOpKind::Permute { dims: dims.clone() }),
        Base::View if shift == 0 && act == IntAct::None => Ok(IntOpKind::View),
        Base::View => Ok(IntOpKind::Requantize { shift, act }),
    }
}
