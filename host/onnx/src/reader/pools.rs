//! Pools and folds.

use serde_json::json;

use shiftwise_graph::graph::NodeId;
use shiftwise_graph::ops::pool::PoolWindow;
use shiftwise_graph::ops::{
    AveragePooling2D, GlobalAveragePooling2D, GlobalMaxPooling2D, MaxPooling2D, Op, Padding, ZeroPadding2D,
};
use shiftwise_tensor::tensor::Tensor;

use crate::ops::sums::fold_axes;
use crate::reader::layers::channels_last;
use crate::reader::linear::{Frame, over, padded};
use crate::reader::merges::nested;
use crate::reader::{Known, Step, Traced, one};

/// A pool's window and its operand, channels last: frame, node, order, spatial axes.
fn window(step: &mut Step<'_, '_>) -> Result<(Frame, NodeId, Vec<usize>, usize), String> {
    let x = step.layer(0)?;
    let sample = step.sample(&x);
    let spatial = sample.len().saturating_sub(1);
    let kernel = step.call.sizes("kernel_shape", spatial, 0)?;
    let frame = Frame::of(step, &sample, kernel)?;
    if frame.dilation != [1, 1] {
        return Err("has a window with dilations, which no pooling layer has".into());
    }
    if frame.kernel.iter().zip(frame.reached()).any(|(k, (before, after))| before >= *k || after >= *k) {
        return Err("has windows that lie in the padding".into());
    }
    let order = channels_last(sample.len());
    let id = step.reader.arranged(&x, &order)?;
    Ok((frame, id, order, spatial))
}

/// Whether a node's values are never negative, so that zeros beside them change no maximum.
fn never_negative(step: &Step<'_, '_>, id: NodeId, depth: usize) -> bool {
    let (op, inputs) = step.made(id);
    let inner = |id: &NodeId| depth > 0 && never_negative(step, *id, depth - 1);
    match op {
        Op::Relu(relu) => relu.negative_slope == 0.0 && relu.threshold >= 0.0,
        Op::MaxPooling2D(_) | Op::AveragePooling2D(_) | Op::ZeroPadding2D(_) | Op::Concatenate(_) | Op::Add(_) => {
            inputs.iter().all(inner)
        }
        _ => false,
    }
}

pub(crate) fn max_pool(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let read =
        |name: &String| step.reader.readers.contains_key(name.as_str()) || step.reader.outputs.contains(name.as_str());
    if step.node.output.get(1).is_some_and(read) {
        return Err("has its indices read, which are no tensor of floats".into());
    }
    let (frame, mut id, order, spatial) = window(step)?;
    let mut padding = frame.padding();
    if padding.is_none() {
        padding = Some(Padding::Valid);
        if never_negative(step, id, 8) {
            let [rows, columns] = frame.reached().map(|(before, after)| [before, after]);
            id = step.add("_pad", over(Op::ZeroPadding2D(ZeroPadding2D { rows, columns }), spatial)?, &[id])?;
        } else {
            id = edges(step, id, &frame, spatial)?;
        }
    }
    let pool = PoolWindow { size: frame.kernel, strides: frame.strides, padding: padding.unwrap_or(Padding::Valid) };
    let id = step.add("", over(Op::MaxPooling2D(MaxPooling2D { pool }), spatial)?, &[id])?;
    one(Traced::ordered(id, &order))
}

/// The image with its edge around it: a window that reaches beyond the edge contains the edge too, so its maximum stays.
fn edges(step: &mut Step<'_, '_>, mut id: NodeId, frame: &Frame, spatial: usize) -> Result<NodeId, String> {
    for (axis, (before, after)) in frame.reached().into_iter().enumerate() {
        if (before, after) == (0, 0) {
            continue;
        }
        let last = frame.size[axis] - 1;
        let indices: Vec<usize> =
            (0..before + frame.size[axis] + after).map(|i| i.saturating_sub(before).min(last)).collect();
        let axis = if spatial == 1 { 1 } else { axis + 1 };
        let call = (json!({ "tensor": 0 }), json!({ "indices": indices, "axis": axis }));
        id = step.function("_pad", "gather", &[id], call)?;
    }
    Ok(id)
}

/// For each place of an axis how many cells of its window count.
fn counts(frame: &Frame, axis: usize, include: bool) -> Vec<usize> {
    let (before, after) = frame.pads[axis];
    let size = frame.size[axis] as i64;
    let (low, high) = if include { (-before, size + after) } else { (0, size) };
    let cells = |o: usize| {
        let start = (o * frame.strides[axis]) as i64 - before;
        (start..start + frame.kernel[axis] as i64).filter(|p| (low..high).contains(p)).count()
    };
    (0..frame.out[axis]).map(cells).collect()
}

pub(crate) fn average_pool(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let (frame, id, order, spatial) = window(step)?;
    let include = step.call.int("count_include_pad", 0) == 1;
    let keras = frame.padding().filter(|padding| !include || *padding == Padding::Valid);
    let (id, padding) = match keras {
        Some(padding) => (id, padding),
        None if include || frame.padding().is_none() => {
            let [rows, columns] = frame.reached().map(|(before, after)| [before, after]);
            let op = over(Op::ZeroPadding2D(ZeroPadding2D { rows, columns }), spatial)?;
            (step.add("_pad", op, &[id])?, Padding::Valid)
        }
        None => padded(step, id, &frame, spatial)?,
    };
    let pool = PoolWindow { size: frame.kernel, strides: frame.strides, padding };
    let mut id = step.add("", over(Op::AveragePooling2D(AveragePooling2D { pool, dpu: false }), spatial)?, &[id])?;
    let own = |axis: usize| counts(&frame, axis, include);
    let whole = (0..2).all(|axis| own(axis).iter().all(|n| *n == frame.kernel[axis]));
    if keras.is_none() && !whole {
        // The zeros were counted too: what is left of each window says by how much the mean is too small.
        let area = (frame.kernel[0] * frame.kernel[1]) as f32;
        let (rows, columns) = (own(0), own(1));
        let factors: Vec<f32> = rows.iter().flat_map(|r| columns.iter().map(move |c| area / (r * c) as f32)).collect();
        let shape = if spatial == 1 { vec![columns.len(), 1] } else { vec![rows.len(), columns.len(), 1] };
        let factors = Tensor::new(shape, factors).ok_or("has a damaged window")?;
        let call = (json!({ "tensor": 0 }), json!({ "y": nested(&factors)? }));
        id = step.function("_cells", "math.multiply", &[id], call)?;
    }
    one(Traced::ordered(id, &order))
}

/// The layer that folds all pixels.
fn global(max: bool, keepdims: bool) -> Op {
    if max {
        Op::GlobalMaxPooling2D(GlobalMaxPooling2D { keepdims })
    } else {
        Op::GlobalAveragePooling2D(GlobalAveragePooling2D { keepdims, dpu: false })
    }
}

/// The only reader of the node's result, if that makes a vector of `[channels, 1, …]`.
fn flattens<'a>(step: &mut Step<'_, 'a>, channels: usize, spatial: usize) -> Option<&'a crate::proto::NodeProto> {
    let output = step.node.output.first()?;
    let next = step.only_reader(output)?;
    let vector = match next.op_type.as_str() {
        "Flatten" => next.attribute.iter().all(|a| a.name != "axis" || a.i == Some(1)),
        "Squeeze" => {
            let attribute = next.attribute.iter().find(|a| a.name == "axes").map(|a| a.ints.clone());
            let axes = match next.input.get(1) {
                Some(name) => step.constant(name).ok().flatten().map(|v| v.integers()),
                None => attribute,
            };
            let rank = spatial as i64 + 2;
            axes.is_some_and(|axes| {
                let own: std::collections::BTreeSet<i64> =
                    axes.iter().map(|a| if *a < 0 { a + rank } else { *a }).collect();
                own.into_iter().eq(2..rank)
            })
        }
        "Reshape" => {
            let shape = next.input.get(1).and_then(|name| step.constant(name).ok().flatten())?;
            matches!(shape.integers()[..], [b, c] if [-1, 0, 1].contains(&b) && (c == channels as i64 || c == -1 && b != -1))
        }
        _ => false,
    };
    vector.then_some(next)
}

pub(crate) fn global_pool(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    let sample = step.sample(&x);
    let spatial = sample.len().saturating_sub(1);
    let max = step.node.op_type == "GlobalMaxPool";
    if !(1..=2).contains(&spatial) {
        return Err(format!("works on samples of shape {sample:?}; sequences and images are supported"));
    }
    let order = channels_last(sample.len());
    let id = step.reader.arranged(&x, &order)?;
    let next = flattens(step, sample[0], spatial);
    let id = step.add("", over(global(max, next.is_none()), spatial)?, &[id])?;
    match next {
        Some(next) => {
            let vector = Traced::plain(id, 1);
            step.take(next, vector.clone());
            one(vector)
        }
        None => one(Traced::ordered(id, &order)),
    }
}

pub(crate) fn reduce(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    let x = if x.flat.is_some() { Traced::plain(step.reader.plain(&x)?, 1) } else { x };
    let rank = x.order.len();
    let axes = fold_axes(&step.call, rank + 1)?;
    if axes.is_empty() {
        return one(x);
    }
    if axes.contains(&0) {
        return Err("folds the batch, which mixes samples".into());
    }
    let keep = step.call.int("keepdims", 1) == 1;
    let mut own: Vec<usize> = axes.iter().map(|a| x.order[a - 1]).collect();
    own.sort_unstable();
    own.dedup();
    let kept: Vec<usize> = (0..rank).filter(|i| keep || !axes.contains(&(i + 1))).map(|i| x.order[i]).collect();
    let order: Vec<usize> = kept.iter().map(|a| kept.iter().filter(|b| *b < a).count()).collect();
    let pixels = rank == 3 && own == [0, 1];
    let id = match step.node.op_type.as_str() {
        "ReduceMean" | "ReduceMax" if pixels => {
            let max = step.node.op_type == "ReduceMax";
            let next = if keep && x.order == [2, 0, 1] { flattens(step, step.sample(&x)[0], 2) } else { None };
            let id = step.add("", global(max, keep && next.is_none()), &[x.id])?;
            if let Some(next) = next {
                let vector = Traced::plain(id, 1);
                step.take(next, vector.clone());
                return one(vector);
            }
            id
        }
        operator => {
            let names = [("ReduceMean", "mean"), ("ReduceMax", "max"), ("ReduceMin", "min"), ("ReduceSum", "sum")];
            let name = names.iter().find(|(own, _)| *own == operator).map_or("mean", |(_, name)| name);
            let axis: Vec<usize> = own.iter().map(|a| a + 1).collect();
            let call = (json!({ "tensor": 0 }), json!({ "axis": axis, "keepdims": keep }));
            step.function("", &format!("math.reduce_{name}"), &[x.id], call)?
        }
    };
    one(Traced::ordered(id, &order))
}
