//! Operators that pick, place and count elements by index.

use crate::ops::call::{Call, Results};
use crate::ops::elements::blocks;
use crate::ops::moves::strides;
use crate::value::{Data, Element, Value};

/// An index, which may count from the end.
fn place(index: i64, size: usize) -> Result<usize, String> {
    let own = if index < 0 { index.saturating_add(size as i64) } else { index };
    let place = usize::try_from(own).ok().filter(|i| *i < size);
    place.ok_or_else(|| format!("has an index {index} of {size} elements"))
}

/// For each element of an array of `shape`, where an array of shape `of` has the element whose index along `axis` is another.
fn along(shape: &[usize], of: &[usize], axis: usize, indices: &[i64]) -> Result<Vec<usize>, String> {
    let fits = |(i, d): (usize, &usize)| i == axis || of.get(i).is_some_and(|own| d <= own);
    if shape.len() != of.len() || !shape.iter().enumerate().all(fits) {
        return Err(format!("has indices of shape {shape:?} for {of:?}"));
    }
    let (own, theirs) = (strides(shape), strides(of));
    let place_of = |(n, index): (usize, &i64)| {
        let at = |i: usize| if i == axis { place(*index, of[i]) } else { Ok(n / own[i] % shape[i]) };
        (0..shape.len()).try_fold(0, |sum, i| Ok(sum + at(i)? * theirs[i]))
    };
    indices.iter().enumerate().map(place_of).collect()
}

/// Elements by their index along an axis.
pub(crate) fn gather_elements(call: &Call<'_>) -> Results {
    let (x, which) = (call.input(0)?, call.input(1)?);
    let axis = call.axis("axis", 0, x.shape.len())?;
    call.budget.elements(&which.shape, 32)?;
    let places = along(&which.shape, &x.shape, axis, &which.integers())?;
    Ok(vec![x.picked(which.shape.clone(), places)])
}

/// How elements that are placed on others are combined with them.
type Fold = (fn(f64, f64) -> f64, fn(i64, i64) -> i64);

fn fold(call: &Call<'_>) -> Result<Option<Fold>, String> {
    Ok(match call.text("reduction", "none").as_str() {
        "none" => None,
        "add" => Some((|a, b| a + b, i64::wrapping_add)),
        "mul" => Some((|a, b| a * b, i64::wrapping_mul)),
        "max" => Some((f64::max, i64::max)),
        "min" => Some((f64::min, i64::min)),
        other => return Err(format!("has the reduction `{other}`, which is unknown")),
    })
}

/// An array with other elements at these places.
fn placed(call: &Call<'_>, x: &Value, places: &[usize], updates: &Value) -> Results {
    let fold = fold(call)?;
    if places.len() != updates.len() || x.element != updates.element {
        return Err("has other updates than indices".into());
    }
    let data = match (x.data.clone(), &updates.data) {
        (Data::Real(mut all), Data::Real(new)) => {
            places.iter().zip(new).for_each(|(p, v)| all[*p] = fold.map_or(*v, |(real, _)| real(all[*p], *v)));
            return Ok(vec![Value::real(x.element, x.shape.clone(), all)]);
        }
        (Data::Whole(mut all), Data::Whole(new)) => {
            let wrap = |v: i64| x.element.wrap(x.element.widen(v));
            places.iter().zip(new).for_each(|(p, v)| all[*p] = fold.map_or(*v, |(_, whole)| wrap(whole(all[*p], *v))));
            Data::Whole(all)
        }
        _ => return Err("has updates of another type".into()),
    };
    Ok(vec![Value { element: x.element, shape: x.shape.clone(), data }])
}

/// Elements placed by their index along an axis.
pub(crate) fn scatter_elements(call: &Call<'_>) -> Results {
    let (x, which, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let axis = call.axis("axis", 0, x.shape.len())?;
    let places = along(&which.shape, &x.shape, axis, &which.integers())?;
    placed(call, x, &places, updates)
}

/// Where blocks of an array begin whose leading indices the last axis of `which` holds, behind `batch` common axes; and the
/// shape of a block.
fn begins(x: &Value, which: &Value, batch: usize) -> Result<(Vec<usize>, Vec<usize>), String> {
    let wrong = || format!("has indices of shape {:?} for {:?}", which.shape, x.shape);
    let (depth, lead) = which.shape.split_last().ok_or_else(wrong)?;
    if batch > lead.len() || batch + depth > x.shape.len() || lead[..batch] != x.shape[..batch] {
        return Err(wrong());
    }
    let steps = strides(&x.shape);
    let rows: usize = lead[batch..].iter().product();
    let count: usize = lead.iter().product();
    let list = which.integers();
    let begin = |row: usize| {
        let base = row / rows.max(1) * batch.checked_sub(1).map_or(0, |last| steps[last]);
        let own = &list[row * depth..(row + 1) * depth];
        own.iter().enumerate().try_fold(base, |sum, (i, index)| {
            Ok::<_, String>(sum + place(*index, x.shape[batch + i])? * steps[batch + i])
        })
    };
    Ok(((0..count).map(begin).collect::<Result<_, _>>()?, x.shape[batch + depth..].to_vec()))
}

/// Blocks by their leading indices.
pub(crate) fn gather_nd(call: &Call<'_>) -> Results {
    let (x, which) = (call.input(0)?, call.input(1)?);
    let (starts, block) = begins(x, which, call.size("batch_dims", 0)?)?;
    let size: usize = block.iter().product();
    call.budget.elements(&[starts.len(), size], 32)?;
    let shape = [&which.shape[..which.shape.len() - 1], block.as_slice()].concat();
    Ok(vec![x.picked(shape, starts.into_iter().flat_map(|start| start..start + size))])
}

/// Blocks placed by their leading indices.
pub(crate) fn scatter_nd(call: &Call<'_>) -> Results {
    let (x, which, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let (starts, block) = begins(x, which, 0)?;
    let size: usize = block.iter().product();
    call.budget.elements(&[starts.len(), size], 32)?;
    let places: Vec<usize> = starts.into_iter().flat_map(|start| start..start + size).collect();
    placed(call, x, &places, updates)
}

/// The largest or smallest elements along an axis, and where they were; of equal ones the first.
pub(crate) fn top_k(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let axis = call.axis("axis", -1, x.shape.len())?;
    let (outer, count, inner) = blocks(&x.shape, axis, axis + 1);
    let wanted = match call.optional(1) {
        Some(k) => k.integers().first().copied().ok_or("has no number of elements")?,
        None => call.int("k", 0),
    };
    let k = usize::try_from(wanted).ok().filter(|k| *k <= count);
    let k = k.ok_or_else(|| format!("takes {wanted} of {count} elements"))?;
    call.budget.work((outer * inner * count) as u64)?;
    let (data, largest) = (x.numbers(), call.int("largest", 1) == 1);
    let mut places = vec![0; outer * k * inner];
    for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
        let at = |n: usize| (o * count + n) * inner + i;
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|a, b| {
            let own = data[at(*a)].total_cmp(&data[at(*b)]);
            if largest { own.reverse() } else { own }
        });
        order[..k].iter().enumerate().for_each(|(n, best)| places[(o * k + n) * inner + i] = at(*best));
    }
    let mut shape = x.shape.clone();
    shape[axis] = k;
    let indices = places.iter().map(|p| (p / inner.max(1) % count.max(1)) as i64).collect();
    Ok(vec![x.picked(shape.clone(), places), Value::int64(shape, indices)])
}

/// Each index as a vector that has one value at its place, and another elsewhere.
pub(crate) fn one_hot(call: &Call<'_>) -> Results {
    let (which, depth, values) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let depth = depth.integers().first().and_then(|d| usize::try_from(*d).ok()).ok_or("has no depth")?;
    if values.len() != 2 {
        return Err("has not two values".into());
    }
    let rank = which.shape.len();
    let axis = call.axis("axis", -1, rank + 1)?;
    let (outer, _, inner) = blocks(&which.shape, axis, axis);
    let shape = [&which.shape[..axis], &[depth], &which.shape[axis..]].concat();
    call.budget.elements(&shape, 32)?;
    let list = which.integers();
    let hot = |n: usize| {
        let (o, d, i) = (n / inner.max(1) / depth.max(1), n / inner.max(1) % depth.max(1), n % inner.max(1));
        let own = list[o * inner + i];
        usize::from((if own < 0 { own.saturating_add(depth as i64) } else { own }) == d as i64)
    };
    let count = outer * depth * inner;
    Ok(vec![values.picked(shape, (0..count).map(hot))])
}

/// Indices of all elements that are not 0, an axis after the other.
pub(crate) fn non_zero(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let places: Vec<usize> = x.numbers().iter().enumerate().filter(|(_, v)| **v != 0.0).map(|(i, _)| i).collect();
    let steps = strides(&x.shape);
    let rank = x.shape.len();
    let all = (0..rank).flat_map(|i| places.iter().map(|p| (p / steps[i] % x.shape[i]) as i64).collect::<Vec<_>>());
    let all: Vec<i64> = all.collect();
    Ok(vec![Value::int64(vec![rank, places.len()], all)])
}

/// The elements of an axis that a list of truth values names; of all elements without an axis.
pub(crate) fn compress(call: &Call<'_>) -> Results {
    let (x, kept) = (call.input(0)?, call.input(1)?);
    let flat = x.clone().shaped(vec![x.len()]);
    let (x, axis) = if call.has("axis") { (x.clone(), call.axis("axis", 0, x.shape.len())?) } else { (flat, 0) };
    let (outer, count, inner) = blocks(&x.shape, axis, axis + 1);
    let list: Vec<usize> = kept.integers().iter().enumerate().filter(|(_, k)| **k != 0).map(|(i, _)| i).collect();
    if list.last().is_some_and(|last| *last >= count) {
        return Err(format!("keeps an element beyond {count}"));
    }
    let places: Vec<usize> = (0..outer)
        .flat_map(|o| list.iter().flat_map(move |n| (o * count + n) * inner..(o * count + n + 1) * inner))
        .collect();
    let mut shape = x.shape.clone();
    shape[axis] = list.len();
    Ok(vec![x.picked(shape, places)])
}

/// Sums or products of all elements up to each one along an axis.
pub(crate) fn cumulative(call: &Call<'_>, start: f64, fold: fn(f64, f64) -> f64) -> Results {
    let x = call.input(0)?;
    let wanted = call.optional(1).and_then(|axis| axis.integers().first().copied());
    let axis = shiftwise_tensor::array::axis(wanted.unwrap_or_else(|| call.int("axis", 0)), x.shape.len())?;
    let (outer, count, inner) = blocks(&x.shape, axis, axis + 1);
    let (exclusive, reverse) = (call.int("exclusive", 0) == 1, call.int("reverse", 0) == 1);
    let data = x.numbers();
    let mut out = vec![0.0; data.len()];
    for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
        let mut all = start;
        for n in 0..count {
            let at = (o * count + if reverse { count - 1 - n } else { n }) * inner + i;
            let before = all;
            all = fold(all, data[at]);
            out[at] = if exclusive { before } else { all };
        }
    }
    Ok(vec![Value::real(Element::Double, x.shape.clone(), out).cast(x.element)])
}

/// The elements of matrices above or below a diagonal; the others are 0.
pub(crate) fn trilu(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let [.., rows, columns] = x.shape[..] else { return Err("has an operand that is no matrix".into()) };
    let k = call.optional(1).and_then(|k| k.integers().first().copied()).unwrap_or(0);
    let upper = call.int("upper", 1) == 1;
    let kept = |n: usize| {
        let (row, column) = ((n / columns.max(1) % rows.max(1)) as i64, (n % columns.max(1)) as i64);
        let beyond = column.saturating_sub(row);
        if upper { beyond >= k } else { beyond <= k }
    };
    let data = match &x.data {
        Data::Real(all) => Data::Real(all.iter().enumerate().map(|(n, v)| if kept(n) { *v } else { 0.0 }).collect()),
        Data::Whole(all) => Data::Whole(all.iter().enumerate().map(|(n, v)| if kept(n) { *v } else { 0 }).collect()),
    };
    Ok(vec![Value { data, ..x.clone() }])
}

/// Ones on a diagonal.
pub(crate) fn eye_like(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let [rows, columns] = x.shape[..] else { return Err("has an operand that is no matrix".into()) };
    let element =
        if call.has("dtype") { Element::of(i32::try_from(call.int("dtype", 1)).unwrap_or(0))? } else { x.element };
    let k = call.int("k", 0);
    let ones = (0..rows * columns).map(|n| ((n % columns.max(1)) as i64 - (n / columns.max(1)) as i64) == k);
    Ok(vec![Value::bools(x.shape.clone(), ones).cast(element)])
}

/// 1 where the first of the largest elements along an axis is, 0 elsewhere.
pub(crate) fn hardmax(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let rank = x.shape.len();
    let axis = call.axis("axis", if call.version < 13 { 1 } else { -1 }, rank.max(1))?.min(rank);
    let last = if call.version < 13 { rank } else { (axis + 1).min(rank) };
    let (outer, count, inner) = blocks(&x.shape, axis, last);
    let data = x.numbers();
    let mut out = vec![0.0; data.len()];
    for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
        let at = |n: usize| (o * count + n) * inner + i;
        if let Some(best) = (0..count).reduce(|best, n| if data[at(n)] > data[at(best)] { n } else { best }) {
            out[at(best)] = 1.0;
        }
    }
    Ok(vec![Value::real(x.element, x.shape.clone(), out)])
}
