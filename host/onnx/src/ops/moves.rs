//! Operators that move elements or speak of shapes: what they make of values.

use shiftwise_tensor::broadcast::{broadcast, offsets};

use crate::ops::call::Call;
use crate::ops::call::Results;
use crate::ops::elements::blocks;
use crate::value::{Element, Value};

/// Row-major distances between neighbours along each axis.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    strides
}

/// For each element of a result the place of its element in an array of shape `from`, where axis i of the result takes the
/// elements `along[i]` of axis i.
pub(crate) fn places(from: &[usize], along: &[Vec<usize>]) -> Vec<usize> {
    let steps = strides(from);
    along.iter().zip(steps).fold(vec![0], |all, (indices, step)| {
        all.iter().flat_map(|base| indices.iter().map(move |k| base + k * step)).collect()
    })
}

/// The elements of an array at these indices of each axis.
pub(crate) fn take(call: &Call<'_>, x: &Value, along: &[Vec<usize>]) -> Result<Value, String> {
    let shape: Vec<usize> = along.iter().map(Vec::len).collect();
    call.budget.elements(&shape, 16)?;
    Ok(x.picked(shape, places(&x.shape, along)))
}

/// An array with its axes in another order.
pub(crate) fn transposed(x: &Value, order: &[usize]) -> Value {
    let steps = strides(&x.shape);
    let shape: Vec<usize> = order.iter().map(|i| x.shape[*i]).collect();
    let places = order.iter().fold(vec![0usize], |all, axis| {
        let step = steps[*axis];
        all.iter().flat_map(|base| (0..x.shape[*axis]).map(move |k| base + k * step)).collect()
    });
    x.picked(shape, places)
}

pub(crate) fn transpose(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    Ok(vec![transposed(x, &call.order(x.shape.len())?)])
}

pub(crate) fn shape(call: &Call<'_>) -> Results {
    let dims: Vec<i64> = call.input(0)?.shape.iter().map(|d| *d as i64).collect();
    let rank = dims.len() as i64;
    let end = |name: &str, default: i64| {
        let at = call.int(name, default);
        (if at < 0 { at + rank } else { at }).clamp(0, rank) as usize
    };
    let (start, stop) = (end("start", 0), end("end", rank));
    let part = dims.get(start..stop).unwrap_or_default().to_vec();
    Ok(vec![Value::int64(vec![part.len()], part)])
}

/// The shape that a target stands for: 0 keeps a size unless `allowzero`, −1 is what remains.
pub(crate) fn target(target: &[i64], from: &[usize], allow_zero: bool) -> Result<Vec<usize>, String> {
    let bad = || format!("reshapes {from:?} to {target:?}");
    let total = from.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).ok_or_else(bad)?;
    let mut open = None;
    let mut shape = Vec::new();
    for (i, d) in target.iter().enumerate() {
        shape.push(match d {
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            0 if !allow_zero => *from.get(i).ok_or_else(bad)?,
            d => usize::try_from(*d).map_err(|_| bad())?,
        });
    }
    let known = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).ok_or_else(bad)?;
    if let Some(i) = open {
        shape[i] = total.checked_div(known).ok_or_else(bad)?;
    }
    (shape.iter().product::<usize>() == total).then_some(shape).ok_or_else(bad)
}

pub(crate) fn reshape(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let wanted = call.list(1, "shape")?.ok_or("has no shape")?;
    let shape = target(&wanted, &x.shape, call.int("allowzero", 0) == 1)?;
    Ok(vec![x.clone().shaped(shape)])
}

pub(crate) fn flatten(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let axis = call.int("axis", 1);
    let rank = x.shape.len() as i64;
    let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok().filter(|a| *a <= x.shape.len());
    let axis = axis.ok_or("has an axis that its operand doesn't")?;
    let (rows, columns) = (x.shape[..axis].iter().product(), x.shape[axis..].iter().product());
    Ok(vec![x.clone().shaped(vec![rows, columns])])
}

/// The axes that `Squeeze` drops of a shape.
pub(crate) fn squeezed(axes: Option<Vec<i64>>, shape: &[usize]) -> Result<Vec<usize>, String> {
    let Some(axes) = axes else { return Ok((0..shape.len()).filter(|i| shape[*i] == 1).collect()) };
    let axes = axes.iter().map(|a| shiftwise_tensor::array::axis(*a, shape.len())).collect::<Result<Vec<_>, _>>()?;
    let single = axes.iter().all(|a| shape[*a] == 1);
    single.then_some(axes).ok_or_else(|| format!("squeezes axes of {shape:?} that have several elements"))
}

pub(crate) fn squeeze(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let axes = squeezed(call.list(1, "axes")?, &x.shape)?;
    let shape = x.shape.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, d)| *d).collect();
    Ok(vec![x.clone().shaped(shape)])
}

/// A shape with new axes of one element.
pub(crate) fn unsqueezed(axes: &[i64], shape: &[usize]) -> Result<Vec<usize>, String> {
    let rank = shape.len() + axes.len();
    let axes = axes.iter().map(|a| shiftwise_tensor::array::axis(*a, rank)).collect::<Result<Vec<_>, _>>()?;
    let mut rest = shape.iter();
    let sizes = (0..rank).map(|i| if axes.contains(&i) { Some(1) } else { rest.next().copied() });
    sizes.collect::<Option<Vec<usize>>>().ok_or_else(|| "has an axis twice".into())
}

pub(crate) fn unsqueeze(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let axes = call.list(1, "axes")?.ok_or("has no axes")?;
    Ok(vec![x.clone().shaped(unsqueezed(&axes, &x.shape)?)])
}

pub(crate) fn concat(call: &Call<'_>) -> Results {
    let first = call.input(0)?;
    let axis = call.axis("axis", 1, first.shape.len())?;
    let all = (0..call.inputs.len()).map(|k| call.input(k)).collect::<Result<Vec<_>, _>>()?;
    let rest = |v: &Value| {
        (
            v.element,
            v.shape.iter().enumerate().filter(|(i, _)| *i != axis).map(|(_, d)| *d).collect::<Vec<_>>(),
            v.shape.len(),
        )
    };
    if all.iter().any(|v| rest(v) != rest(first)) {
        return Err("joins arrays of shapes that don't fit".into());
    }
    let mut shape = first.shape.clone();
    shape[axis] = all.iter().map(|v| v.shape[axis]).sum();
    call.budget.elements(&shape, 32)?;
    let outer: usize = shape[..axis].iter().product();
    let joined = all.iter().fold(first.picked(vec![0], []), |joined, v| joined.behind(v));
    let mut places = Vec::with_capacity(shape.iter().product());
    for o in 0..outer {
        let mut start = 0;
        for v in &all {
            let size = v.len() / outer.max(1);
            places.extend(start + o * size..start + (o + 1) * size);
            start += v.len();
        }
    }
    Ok(vec![joined.picked(shape, places)])
}

/// The sizes of parts of an axis.
pub(crate) fn parts(call: &Call<'_>, size: usize, outputs: usize) -> Result<Vec<usize>, String> {
    let given = call.list(1, "split")?;
    let sizes = match given {
        Some(list) => list.iter().map(|n| usize::try_from(*n).ok()).collect::<Option<Vec<_>>>(),
        None => {
            let count =
                usize::try_from(call.int("num_outputs", outputs as i64)).ok().filter(|n| (1..=4096).contains(n));
            // All parts are as large, but for a last one that is smaller.
            count.map(|n| {
                let each = size.div_ceil(n);
                (0..n).map(|i| each.min(size.saturating_sub(i * each))).collect()
            })
        }
    };
    let fits = sizes.filter(|s| s.iter().try_fold(0usize, |n, d| n.checked_add(*d)) == Some(size));
    fits.ok_or_else(|| format!("splits {size} elements into parts that are not as many"))
}

pub(crate) fn split(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let axis = call.axis("axis", 0, x.shape.len())?;
    let mut start = 0;
    let parts = parts(call, x.shape[axis], call.node.output.len())?;
    let part = |size: usize| {
        let along: Vec<Vec<usize>> = x
            .shape
            .iter()
            .enumerate()
            .map(|(i, d)| if i == axis { (start..start + size).collect() } else { (0..*d).collect() })
            .collect();
        start += size;
        take(call, x, &along)
    };
    parts.into_iter().map(part).collect()
}

/// Start, end and step of `Slice` for each axis of a shape: the indices that it takes.
pub(crate) fn ranges(call: &Call<'_>, shape: &[usize]) -> Result<Vec<Vec<usize>>, String> {
    let starts = call.list(1, "starts")?.ok_or("has no starts")?;
    let ends = call.list(2, "ends")?.ok_or("has no ends")?;
    let axes = call.list(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = call.list(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err("has starts, ends, axes and steps of different lengths".into());
    }
    let mut along: Vec<Vec<usize>> = shape.iter().map(|d| (0..*d).collect()).collect();
    for (i, axis) in axes.iter().enumerate() {
        let axis = shiftwise_tensor::array::axis(*axis, shape.len())?;
        let size = shape[axis] as i64;
        let at = |v: i64, low: i64, high: i64| (if v < 0 { v.saturating_add(size) } else { v }).clamp(low, high);
        let step = steps[i];
        let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
        let (from, to) = (at(starts[i], low, high), at(ends[i], low, high));
        let count = if step > 0 { to - from } else { from - to };
        if step == 0 {
            return Err("has a step of 0".into());
        }
        let count = (count.max(0) as u64).div_ceil(step.unsigned_abs());
        along[axis] = (0..count).map(|k| (from + k as i64 * step) as usize).collect();
    }
    Ok(along)
}

pub(crate) fn slice(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let along = ranges(call, &x.shape)?;
    Ok(vec![take(call, x, &along)?])
}

/// Whole numbers as places on an axis of `size` elements; negative ones count from the end.
pub(crate) fn indices(list: &[i64], size: usize) -> Result<Vec<usize>, String> {
    let at = |i: &i64| {
        let place = if *i < 0 { i.checked_add(size as i64) } else { Some(*i) };
        place.and_then(|i| usize::try_from(i).ok()).filter(|i| *i < size)
    };
    let all: Option<Vec<usize>> = list.iter().map(at).collect();
    all.ok_or_else(|| format!("has an index beyond the {size} elements of its axis"))
}

pub(crate) fn gather(call: &Call<'_>) -> Results {
    let (x, which) = (call.input(0)?, call.input(1)?);
    let axis = call.axis("axis", 0, x.shape.len())?;
    let list = indices(&which.integers(), x.shape[axis])?;
    let along: Vec<Vec<usize>> =
        x.shape.iter().enumerate().map(|(i, d)| if i == axis { list.clone() } else { (0..*d).collect() }).collect();
    let shape = [&x.shape[..axis], &which.shape, &x.shape[axis + 1..]].concat();
    Ok(vec![take(call, x, &along)?.shaped(shape)])
}

pub(crate) fn expand(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let wanted = call.list(1, "shape")?.ok_or("has no shape")?;
    let wanted = wanted.iter().map(|d| usize::try_from(*d).map_err(|_| "expands to a negative size".to_owned()));
    let shape = broadcast(&[&x.shape, &wanted.collect::<Result<Vec<_>, _>>()?])?;
    call.budget.elements(&shape, 16)?;
    Ok(vec![x.picked(shape.clone(), offsets(&x.shape, &shape))])
}

pub(crate) fn tile(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let times = call.list(1, "repeats")?.ok_or("has no repeats")?;
    if times.len() != x.shape.len() {
        return Err("has other repeats than axes".into());
    }
    let mut along = Vec::new();
    for (size, n) in x.shape.iter().zip(&times) {
        let n = usize::try_from(*n).map_err(|_| "repeats a negative number of times")?;
        call.budget.elements(&[*size, n], 8)?;
        along.push((0..size * n).map(|i| i % size).collect());
    }
    Ok(vec![take(call, x, &along)?])
}

pub(crate) fn range(call: &Call<'_>) -> Results {
    let (start, limit, step) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let one = |v: &Value| v.numbers().first().copied().ok_or("has no limits");
    let (a, b, d) = (one(start)?, one(limit)?, one(step)?);
    let count = ((b - a) / d).ceil().max(0.0);
    if !count.is_finite() {
        return Err("has no end".into());
    }
    let count = call.budget.elements(&[count as u64], 16)?;
    let all = Value::real(Element::Double, vec![count], (0..count).map(|i| a + i as f64 * d).collect());
    Ok(vec![all.cast(start.element)])
}

pub(crate) fn constant_of_shape(call: &Call<'_>) -> Results {
    let dims = call.list(0, "shape")?.ok_or("has no shape")?;
    let shape = dims.iter().map(|d| usize::try_from(*d).map_err(|_| "has a negative size".to_owned()));
    let shape = shape.collect::<Result<Vec<_>, _>>()?;
    let count = call.budget.elements(&shape, 8)?;
    let one = match call.tensor("value")? {
        Some(value) if value.len() == 1 => value,
        Some(_) => return Err("has several values".into()),
        None => Value::real(Element::Float, vec![1], vec![0.0]),
    };
    Ok(vec![one.picked(shape, std::iter::repeat_n(0, count))])
}

/// The value of a `Constant` node.
pub(crate) fn constant(call: &Call<'_>) -> Results {
    if let Some(value) = call.tensor("value")? {
        return Ok(vec![value]);
    }
    let reals = |v: Vec<f32>, shape| Value::real(Element::Float, shape, v.into_iter().map(f64::from).collect());
    Ok(vec![if call.has("value_float") {
        reals(vec![call.float("value_float", 0.0)], vec![])
    } else if call.has("value_int") {
        Value::int64(vec![], vec![call.int("value_int", 0)])
    } else if let Some(all) = call.ints("value_ints") {
        Value::int64(vec![all.len()], all.to_vec())
    } else if let Some(all) = call.floats("value_floats") {
        reals(all.to_vec(), vec![all.len()])
    } else {
        return Err("holds neither an array nor a number".into());
    }])
}

/// Where the elements around an axis of `size` come from, `before` and `after` it; `None` is the constant.
pub(crate) fn around(mode: &str, size: usize, before: i64, after: i64) -> Result<Vec<Option<usize>>, String> {
    let n = size as i64;
    let end = n.checked_add(after).ok_or("pads without end")?;
    let of = |i: i64| -> Result<Option<usize>, String> {
        if (0..n).contains(&i) {
            return Ok(Some(i as usize));
        }
        match mode {
            "constant" => Ok(None),
            _ if n == 0 => Err("pads nothing with itself".into()),
            "edge" => Ok(Some(i.clamp(0, n - 1) as usize)),
            "wrap" => Ok(Some(i.rem_euclid(n) as usize)),
            "reflect" if n == 1 => Ok(Some(0)),
            "reflect" => {
                let k = i.rem_euclid(2 * (n - 1));
                Ok(Some(k.min(2 * (n - 1) - k) as usize))
            }
            other => Err(format!("pads in mode `{other}`, which is unknown")),
        }
    };
    (-before..end).map(of).collect()
}

/// Elements before and after each axis of a shape.
pub(crate) fn paddings(call: &Call<'_>, shape: &[usize]) -> Result<Vec<(i64, i64)>, String> {
    let name = if call.version < 2 { "paddings" } else { "pads" };
    let pads = call.list(1, name)?.ok_or("has no pads")?;
    let axes = match call.list(3, "axes")? {
        Some(axes) => {
            axes.iter().map(|a| shiftwise_tensor::array::axis(*a, shape.len())).collect::<Result<Vec<_>, _>>()?
        }
        None => (0..shape.len()).collect(),
    };
    if pads.len() != 2 * axes.len() || pads.iter().any(|p| p.unsigned_abs() > 1 << 32) {
        return Err(format!("has pads {pads:?} for {} axes", axes.len()));
    }
    let mut all = vec![(0, 0); shape.len()];
    for (i, axis) in axes.iter().enumerate() {
        all[*axis] = (pads[i], pads[axes.len() + i]);
    }
    Ok(all)
}

pub(crate) fn pad(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let mode = call.text("mode", "constant");
    let widths = paddings(call, &x.shape)?;
    let value = match call.optional(2) {
        Some(value) if value.len() == 1 => value.cast(x.element),
        Some(_) => return Err("pads with several values".into()),
        None => Value::real(Element::Double, vec![1], vec![f64::from(call.float("value", 0.0))]).cast(x.element),
    };
    for (size, (before, after)) in x.shape.iter().zip(&widths) {
        call.budget.elements(&[before.unsigned_abs() + after.unsigned_abs() + *size as u64], 32)?;
    }
    let along = x.shape.iter().zip(&widths).map(|(d, (a, b))| around(&mode, *d, *a, *b));
    let along = along.collect::<Result<Vec<_>, _>>()?;
    let shape: Vec<usize> = along.iter().map(Vec::len).collect();
    call.budget.elements(&shape, 40)?;
    // The constant stands behind the elements.
    let steps = strides(&x.shape);
    let places = along.iter().zip(steps).fold(vec![Some(0)], |all, (list, step)| {
        all.iter().flat_map(|base: &Option<usize>| list.iter().map(move |k| Some((*base)? + (*k)? * step))).collect()
    });
    let last = x.len();
    let joined = x.clone().behind(&value);
    Ok(vec![joined.picked(shape, places.into_iter().map(|p| p.unwrap_or(last)))])
}

/// Channels as blocks of pixels, of arrays `[n, channels, height, width]`.
pub(crate) fn depth_to_space(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let ([n, c, h, w], b) = (image(x)?, call.block()?);
    if c % (b * b) != 0 {
        return Err(format!("makes blocks of {b} × {b} pixels of {c} channels"));
    }
    let depth = c / (b * b);
    let crd = call.text("mode", "DCR") == "CRD";
    let (split, order) =
        if crd { ([n, depth, b, b, h, w], [0, 1, 4, 2, 5, 3]) } else { ([n, b, b, depth, h, w], [0, 3, 4, 1, 5, 2]) };
    let moved = transposed(&x.clone().shaped(split.to_vec()), &order);
    Ok(vec![moved.shaped(vec![n, depth, h * b, w * b])])
}

/// Blocks of pixels as channels.
pub(crate) fn space_to_depth(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let ([n, c, h, w], b) = (image(x)?, call.block()?);
    if h % b != 0 || w % b != 0 {
        return Err(format!("has blocks of {b} × {b} pixels, which don't divide {h} × {w}"));
    }
    let moved = transposed(&x.clone().shaped(vec![n, c, h / b, b, w / b, b]), &[0, 3, 5, 1, 2, 4]);
    Ok(vec![moved.shaped(vec![n, c * b * b, h / b, w / b])])
}

/// The shape of images.
pub(crate) fn image(x: &Value) -> Result<[usize; 4], String> {
    x.shape.as_slice().try_into().map_err(|_| format!("has an operand of shape {:?}, images are expected", x.shape))
}

/// The largest or the smallest elements' indices along an axis.
pub(crate) fn arg(call: &Call<'_>, sign: f64) -> Results {
    let x = call.input(0)?;
    let axis = call.axis("axis", 0, x.shape.len())?;
    let (outer, count, inner) = blocks(&x.shape, axis, axis + 1);
    let (data, last) = (x.numbers(), call.int("select_last_index", 0) == 1);
    let mut out = Vec::with_capacity(outer * inner);
    for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
        let at = |k: usize| sign * data[(o * count + k) * inner + i];
        let best = (1..count).fold(0, |best, k| if at(k) > at(best) || last && at(k) == at(best) { k } else { best });
        out.push(best as i64);
    }
    let mut shape = x.shape.clone();
    if call.int("keepdims", 1) == 1 {
        shape[axis] = 1;
    } else {
        shape.remove(axis);
    }
    Ok(vec![Value::int64(shape, out)])
}
