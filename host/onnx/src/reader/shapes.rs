//! Operators that move elements, and those that speak of shapes.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use shiftwise_graph::graph::NodeId;
use shiftwise_graph::ops::{Cropping2D, Flatten, Op, Reshape, ZeroPadding2D};

use crate::ops::moves;
use crate::reader::layers::channels_last;
use crate::reader::{Known, Step, Traced, one};
use crate::value::Value;

pub(crate) fn shape(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let whole: Vec<i64> = step.whole(&step.layer(0)?).iter().map(|d| *d as i64).collect();
    let rank = whole.len() as i64;
    let end = |name: &str, default: i64| {
        let at = step.call.int(name, default);
        (if at < 0 { at + rank } else { at }).clamp(0, rank) as usize
    };
    let part = whole.get(end("start", 0)..end("end", rank)).unwrap_or_default().to_vec();
    Ok(vec![Known::Constant(Arc::new(Value::int64(vec![part.len()], part)))])
}

pub(crate) fn transpose(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    let perm = step.call.order(x.order.len() + 1)?;
    if perm[0] != 0 {
        return Err("moves the batch, which keeps samples apart".into());
    }
    let x = if x.flat.is_some() { Traced::plain(step.reader.plain(&x)?, 1) } else { x };
    let order: Vec<usize> = perm[1..].iter().map(|i| x.order[i - 1]).collect();
    one(Traced { order, ..x })
}

/// All elements of a sample in one axis.
fn vector(step: &mut Step<'_, '_>, x: Traced) -> Result<Traced, String> {
    if x.order.len() == 1 {
        return Ok(x);
    }
    let plain = x.order.iter().copied().eq(0..x.order.len());
    let id = step.add("", Op::Flatten(Flatten), &[x.id])?;
    // The order of elements matters to who reads them; for dense layers it is one of their weights.
    let sizes = step.sample(&x);
    let single = sizes.iter().filter(|d| **d != 1).count() <= 1;
    let flat = (!plain && !single).then(|| Box::new(x));
    Ok(Traced { id, order: vec![0], flat })
}

/// The same elements under another shape of the sample.
fn shaped(step: &mut Step<'_, '_>, x: Traced, whole: &[usize]) -> Result<Vec<Known>, String> {
    let from = step.whole(&x);
    if whole.first() != from.first() {
        return Err(format!("reshapes {from:?} to {whole:?}, which mixes samples"));
    }
    let sample = &whole[1..];
    if sample == &from[1..] {
        return one(x);
    }
    if sample.len() == 1 {
        let made = vector(step, x)?;
        return one(made);
    }
    let target = |sizes: &[usize]| Op::Reshape(Reshape { target: sizes.iter().map(|d| *d as i64).collect() });
    // A vector as an image of one pixel, as networks with squeeze and excitation have it.
    if let ([channels, 1, 1], 1, None) = (sample, x.order.len(), &x.flat) {
        let id = step.add("", target(&[1, 1, *channels]), &[x.id])?;
        return one(Traced::ordered(id, &[2, 0, 1]));
    }
    let id = step.reader.plain(&x)?;
    let id = step.add("", target(sample), &[id])?;
    one(Traced::plain(id, sample.len()))
}

/// `Reshape`, `Squeeze` and `Unsqueeze`.
pub(crate) fn reshape(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    let from = step.whole(&x);
    let whole = match step.node.op_type.as_str() {
        "Squeeze" => {
            let axes = moves::squeezed(step.call.list(1, "axes")?, &from)?;
            if axes.contains(&0) {
                return Err("drops the batch".into());
            }
            return squeeze(step, x, &axes);
        }
        "Unsqueeze" => {
            let axes = step.call.list(1, "axes")?.ok_or("has no axes")?;
            moves::unsqueezed(&axes, &from)?
        }
        _ => {
            let wanted = step.call.list(1, "shape")?.ok_or("has a shape that is made of samples")?;
            moves::target(&wanted, &from, step.call.int("allowzero", 0) == 1)?
        }
    };
    shaped(step, x, &whole)
}

/// Drops axes of one element, wherever the node has them.
fn squeeze(step: &mut Step<'_, '_>, x: Traced, axes: &[usize]) -> Result<Vec<Known>, String> {
    let x = if x.flat.is_some() { Traced::plain(step.reader.plain(&x)?, 1) } else { x };
    let gone: Vec<usize> = axes.iter().map(|a| x.order[a - 1]).collect();
    if gone.is_empty() {
        return one(x);
    }
    let sizes = step.reader.shape(x.id);
    let target = (0..sizes.len()).filter(|i| !gone.contains(i)).map(|i| sizes[i] as i64).collect();
    let kept: Vec<usize> = x.order.iter().copied().filter(|i| !gone.contains(i)).collect();
    let order: Vec<usize> = kept.iter().map(|a| kept.iter().filter(|b| *b < a).count()).collect();
    let id = step.add("", Op::Reshape(Reshape { target }), &[x.id])?;
    one(Traced::ordered(id, &order))
}

pub(crate) fn flatten(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    let axis = step.call.int("axis", 1);
    let rank = x.order.len() as i64 + 1;
    if (if axis < 0 { axis + rank } else { axis }) != 1 {
        return Err("flattens axes with the batch, which mixes samples".into());
    }
    if x.order.is_empty() {
        return Err("flattens single numbers".into());
    }
    let made = vector(step, x)?;
    one(made)
}

/// The elements of a value at these indices along each axis of its sample, which are ranges.
fn sliced(step: &mut Step<'_, '_>, suffix: &str, x: &Traced, along: &[Vec<usize>]) -> Result<Traced, String> {
    let sample = step.sample(x);
    let whole = |i: usize| along[i].iter().copied().eq(0..sample[i]);
    if (0..sample.len()).all(whole) {
        return Ok(x.clone());
    }
    if let Some(i) = along.iter().position(Vec::is_empty) {
        return Err(format!("leaves nothing of axis {}", i + 1));
    }
    let image = x.order.len() == 3 && x.order == [2, 0, 1];
    let ahead = |list: &[usize]| list.windows(2).all(|w| w[1] == w[0] + 1);
    if image && whole(0) && ahead(&along[1]) && ahead(&along[2]) {
        let cut = |i: usize| [along[i][0], sample[i] - 1 - along[i][along[i].len() - 1]];
        let id = step.add(suffix, Op::Cropping2D(Cropping2D { rows: cut(1), columns: cut(2) }), &[x.id])?;
        return Ok(x.at(id));
    }
    let part = |list: &[usize]| -> Json {
        let first = list[0] as i64;
        let by = list.get(1).map_or(1, |second| *second as i64 - first);
        let stop = list[list.len() - 1] as i64 + by;
        json!({ "start": first, "stop": if stop < 0 { Json::Null } else { json!(stop) }, "step": by })
    };
    let mut spec = vec![json!({ "start": null, "stop": null, "step": null }); sample.len() + 1];
    for (i, axis) in x.order.iter().enumerate().filter(|(i, _)| !whole(*i)) {
        spec[axis + 1] = part(&along[i]);
    }
    let call = (json!({ "tensor": 0 }), json!({ "slice_spec": spec }));
    let id = step.function(suffix, "__operators__.getitem", &[x.id], call)?;
    Ok(x.at(id))
}

/// A value whose node has its elements in the value's order.
fn unflattened(step: &mut Step<'_, '_>, k: usize) -> Result<Traced, String> {
    let x = step.layer(k)?;
    if x.flat.is_none() {
        return Ok(x);
    }
    Ok(Traced::plain(step.reader.plain(&x)?, 1))
}

pub(crate) fn slice(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = unflattened(step, 0)?;
    let whole = step.whole(&x);
    let along = moves::ranges(&step.call, &whole)?;
    if !along[0].iter().copied().eq(0..whole[0]) {
        return Err("takes some samples of a batch".into());
    }
    let made = sliced(step, "", &x, &along[1..])?;
    one(made)
}

pub(crate) fn split(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = unflattened(step, 0)?;
    let axis = step.axis(step.call.int("axis", 0), &x)?;
    let sample = step.sample(&x);
    let parts = moves::parts(&step.call, sample[axis], step.node.output.len())?;
    let mut start = 0;
    let mut results = Vec::new();
    for (k, size) in parts.into_iter().enumerate() {
        let along: Vec<Vec<usize>> = (0..sample.len())
            .map(|i| if i == axis { (start..start + size).collect() } else { (0..sample[i]).collect() })
            .collect();
        start += size;
        let suffix = if k == 0 { String::new() } else { format!("_{k}") };
        results.push(Known::Layer(sliced(step, &suffix, &x, &along)?));
    }
    Ok(results)
}

/// The elements at these indices along an axis of a node.
fn taken(step: &mut Step<'_, '_>, suffix: &str, id: NodeId, axis: usize, indices: Json) -> Result<NodeId, String> {
    let call = (json!({ "tensor": 0 }), json!({ "indices": indices, "axis": axis + 1 }));
    step.function(suffix, "gather", &[id], call)
}

pub(crate) fn gather(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = unflattened(step, 0)?;
    let which = step.call.optional(1).cloned().ok_or("takes elements that samples choose, which no layer does")?;
    let axis = step.axis(step.call.int("axis", 0), &x)?;
    let size = step.sample(&x)[axis];
    let indices = moves::indices(&which.integers(), size)?;
    let own = x.order[axis];
    match which.shape[..] {
        [] => {
            let id = taken(step, "", x.id, own, json!(indices[0]))?;
            let rest = x.order.iter().filter(|a| **a != own).map(|a| a - usize::from(*a > own));
            one(Traced { id, order: rest.collect(), flat: None })
        }
        [_] if !indices.is_empty() => {
            let id = taken(step, "", x.id, own, json!(indices))?;
            one(x.at(id))
        }
        _ => Err("takes elements by indices of several axes, which no layer does".into()),
    }
}

pub(crate) fn pad(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = unflattened(step, 0)?;
    let whole = step.whole(&x);
    let widths = moves::paddings(&step.call, &whole)?;
    if widths[0] != (0, 0) {
        return Err("pads the batch".into());
    }
    let mode = step.call.text("mode", "constant");
    let value = match (step.operand(2), step.call.optional(2)) {
        (Some(_), Some(value)) if value.len() == 1 => value.numbers()[0] as f32,
        (Some(_), _) => return Err("pads with a value that samples choose".into()),
        (None, _) => step.call.float("value", 0.0),
    };
    let sample = whole[1..].to_vec();
    let negative = widths.iter().any(|(a, b)| *a < 0 || *b < 0);
    if mode != "constant" || negative {
        return moved_edges(step, x, &mode, &widths[1..], &sample);
    }
    let mut own = vec![[0usize; 2]; sample.len()];
    x.order.iter().zip(&widths[1..]).for_each(|(axis, (a, b))| own[*axis] = [*a as usize, *b as usize]);
    if let (&[rows, columns, [0, 0]], true) = (&own[..], value == 0.0) {
        let id = step.add("", Op::ZeroPadding2D(ZeroPadding2D { rows, columns }), &[x.id])?;
        return one(x.at(id));
    }
    if !value.is_finite() {
        return Err("pads with a value that is no finite number".into());
    }
    let paddings: Vec<[usize; 2]> = std::iter::once([0, 0]).chain(own).collect();
    let call = (json!({ "tensor": 0 }), json!({ "paddings": paddings, "constant_values": value }));
    let id = step.function("", "pad", &[x.id], call)?;
    one(x.at(id))
}

/// Padding with elements of the value itself: they are taken from where they stand.
fn moved_edges(
    step: &mut Step<'_, '_>,
    mut x: Traced,
    mode: &str,
    widths: &[(i64, i64)],
    sample: &[usize],
) -> Result<Vec<Known>, String> {
    for (i, (before, after)) in widths.iter().enumerate().filter(|(_, w)| **w != (0, 0)) {
        step.call.budget.elements(&[before.unsigned_abs() + after.unsigned_abs() + sample[i] as u64], 64)?;
        let places = moves::around(mode, sample[i], *before, *after)?;
        let indices = places.into_iter().collect::<Option<Vec<usize>>>().filter(|all| !all.is_empty());
        let indices = indices.ok_or("pads with a constant and cuts at once, which no layer does")?;
        let id = taken(step, "", x.id, x.order[i], json!(indices))?;
        x = x.at(id);
    }
    one(x)
}

pub(crate) fn depth_to_space(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    let block = step.call.block()?;
    let sample = step.sample(&x);
    let order = channels_last(sample.len());
    if sample.len() != 3 || !sample[0].is_multiple_of(block * block) {
        return Err(format!("makes blocks of {block} × {block} pixels of samples of shape {sample:?}"));
    }
    let mut id = step.reader.arranged(&x, &order)?;
    let (area, depth) = (block * block, sample[0] / (block * block));
    // Of a pixel's channels the place in the block comes first; in the other mode it comes last.
    if step.call.text("mode", "DCR") == "CRD" && depth > 1 {
        let indices: Vec<usize> = (0..sample[0]).map(|k| k % depth * area + k / depth).collect();
        id = taken(step, "_channels", id, 2, json!(indices))?;
    }
    let call = (json!({ "tensor": 0 }), json!({ "block_size": block }));
    let id = step.function("", "nn.depth_to_space", &[id], call)?;
    one(Traced::ordered(id, &order))
}

pub(crate) fn space_to_depth(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    let block = step.call.block()?;
    let order = channels_last(x.order.len());
    let id = step.reader.arranged(&x, &order)?;
    let call = (json!({ "tensor": 0 }), json!({ "block_size": block }));
    let id = step.function("", "nn.space_to_depth", &[id], call)?;
    one(Traced::ordered(id, &order))
}
