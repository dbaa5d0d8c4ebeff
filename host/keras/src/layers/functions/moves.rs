//! Functions that choose elements: takes, repetitions, reversals, blocks of channels as blocks of pixels.

use serde_json::Value;

use crate::layers::functions::arguments::{Arguments, wrong};
use shiftwise_graph::ops::tfop::{Kind, MAX_BLOCK, Operand};
use shiftwise_tensor::array;

/// More elements than this along an axis are refused.
const MAX_INDICES: usize = 1 << 24;

/// The shape of the first operand, with a batch of one.
fn first_shape(operands: &[Operand], inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
    match operands.first() {
        Some(Operand::Tensor(k)) => Ok([&[1], *inputs.get(*k).ok_or("one of its arguments is no input")?].concat()),
        Some(Operand::Constant(t)) => Ok(t.shape().to_vec()),
        None => Err("it has no operands".into()),
    }
}

/// The kind of a function that chooses elements; `None` for others.
pub(super) fn parse(
    name: &str,
    args: &mut Arguments,
    operands: &[Operand],
    inputs: &[&[usize]],
) -> Result<Option<Kind>, String> {
    let known = ["gather", "repeat", "tile", "roll", "reverse", "nn.depth_to_space", "nn.space_to_depth"];
    let orders = ["experimental.numpy.swapaxes", "experimental.numpy.moveaxis"];
    if !known.contains(&name) && !orders.contains(&name) {
        return Ok(None);
    }
    let shape = first_shape(operands, inputs)?;
    let one_axis = |args: &mut Arguments| match args.integers("axis")? {
        Some(list) if list.len() == 1 => array::axis(list[0], shape.len()).map(Some),
        None => Ok(None),
        Some(list) => Err(format!("its argument `axis` is {list:?}, one axis is expected")),
    };
    let kind = match name {
        "gather" => {
            let value = args.take("indices").ok_or("its argument `indices` is missing")?;
            let axis = one_axis(args)?.unwrap_or(0);
            if args.integer("batch_dims", 0)? != 0 {
                return Err("indices for each sample are not supported".into());
            }
            take(axis, &shape, &value)?
        }
        "repeat" => {
            let times = args.integer("repeats", 1)?;
            repeat(times, one_axis(args)?.ok_or("without `axis` it would mix samples")?, &shape)?
        }
        "tile" => tile(args, &shape)?,
        "roll" => {
            let shift = args.integers("shift")?.unwrap_or_default();
            let axis = one_axis(args)?.ok_or("without `axis` it would mix samples")?;
            let ([shift], size @ 1..) = (&shift[..], shape[axis] as i64) else {
                return Err("one shift along one axis is expected".into());
            };
            let from = |i: i64| (i - shift.rem_euclid(size)).rem_euclid(size) as usize;
            Kind::Gather { axis, indices: (0..size).map(from).collect(), drop: false }
        }
        "reverse" => {
            let axes = args.integers("axis")?.ok_or("without `axis` it would reverse the batch")?;
            let axes = axes.iter().map(|a| array::axis(*a, shape.len())).collect::<Result<Vec<_>, _>>()?;
            Kind::Reverse(axes)
        }
        "nn.depth_to_space" => Kind::DepthToSpace(block(args)?),
        "nn.space_to_depth" => Kind::SpaceToDepth(block(args)?),
        _ => Kind::Transpose(Some(order(name, args, shape.len())?)),
    };
    Ok(Some(kind))
}

/// Every element several times.
fn repeat(times: i64, axis: usize, shape: &[usize]) -> Result<Kind, String> {
    let total = usize::try_from(times).ok().and_then(|n| Some((n, n.checked_mul(shape[axis])?)));
    let (times, total) = total
        .filter(|(n, total)| *n > 0 && *total <= MAX_INDICES)
        .ok_or_else(|| format!("its argument `repeats` is {times}, a whole number from 1 is expected"))?;
    Ok(Kind::Gather { axis, indices: (0..total).map(|i| i / times).collect(), drop: false })
}

/// The side of the squares that channels become, or come from.
fn block(args: &mut Arguments) -> Result<usize, String> {
    let block = args.integer("block_size", 0)?;
    let last = |format: &Value| ["NHWC", "channels_last"].iter().any(|known| format.as_str() == Some(known));
    if let Some(format) = args.take("data_format").filter(|format| !last(format)) {
        return Err(wrong("data_format", &format, "NHWC is"));
    }
    let side = usize::try_from(block).ok().filter(|b| (1..=MAX_BLOCK).contains(b));
    side.ok_or_else(|| format!("its argument `block_size` is {block}, 1 to {MAX_BLOCK} is expected"))
}

/// Copies of a tensor behind each other along one axis.
fn tile(args: &mut Arguments, shape: &[usize]) -> Result<Kind, String> {
    let times = args.integers("multiples")?.ok_or("its argument `multiples` is missing")?;
    if times.len() != shape.len() {
        return Err(format!("{} multiples for a tensor of {} dimensions", times.len(), shape.len()));
    }
    let mut along = times.iter().enumerate().filter(|(_, n)| **n != 1);
    let (axis, count) = along.next().map_or((0, 1), |(axis, n)| (axis, *n));
    if along.next().is_some() {
        return Err(format!("multiples of {times:?} along several axes are not supported"));
    }
    let size = shape[axis];
    let total = usize::try_from(count).ok().filter(|n| *n > 0).and_then(|n| n.checked_mul(size));
    let total = total.filter(|n| *n <= MAX_INDICES && size > 0);
    let total = total.ok_or_else(|| format!("its multiple {count} is no whole number from 1"))?;
    Ok(Kind::Gather { axis, indices: (0..total).map(|i| i % size).collect(), drop: false })
}

/// Elements of an axis by constant indices; a single index drops the axis.
fn take(axis: usize, shape: &[usize], value: &Value) -> Result<Kind, String> {
    let size = shape[axis] as i64;
    let list = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    let index = |v: &Value| {
        let index = v.as_i64().or_else(|| v.as_f64().filter(|f| f.fract() == 0.0).map(|f| f as i64))?;
        let index = if index < 0 { index.checked_add(size)? } else { index };
        (0..size).contains(&index).then_some(index as usize)
    };
    let indices: Option<Vec<usize>> = list.iter().map(index).collect();
    let indices = indices.filter(|all| !all.is_empty()).ok_or_else(|| {
        format!("its indices are {}, whole numbers below the {size} elements of axis {axis} are expected", cut(value))
    })?;
    Ok(Kind::Gather { axis, indices, drop: !value.is_array() })
}

/// The beginning of a value's text.
fn cut(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}

/// The order of axes that two are swapped in, or some moved.
fn order(name: &str, args: &mut Arguments, rank: usize) -> Result<Vec<i64>, String> {
    let mut list = |key: &str| -> Result<Vec<usize>, String> {
        let axes = args.integers(key)?.ok_or_else(|| format!("its argument `{key}` is missing"))?;
        axes.iter().map(|a| array::axis(*a, rank)).collect()
    };
    let (from, to) = match name {
        "experimental.numpy.swapaxes" => {
            let (a, b) = (list("axis1")?, list("axis2")?);
            ([a.as_slice(), &b].concat(), [b.as_slice(), &a].concat())
        }
        _ => (list("source")?, list("destination")?),
    };
    let distinct = |list: &[usize]| (1..list.len()).all(|i| !list[..i].contains(&list[i]));
    let same = name.ends_with("swapaxes") && from.len() == 2 && from[0] == from[1];
    if same {
        return Ok((0..rank as i64).collect());
    }
    if from.len() != to.len() || !distinct(&from) || !distinct(&to) {
        return Err(format!("axes {from:?} can't be moved to {to:?}"));
    }
    let mut order = vec![None; rank];
    from.iter().zip(&to).for_each(|(from, to)| order[*to] = Some(*from));
    let mut rest = (0..rank).filter(|axis| !from.contains(axis));
    Ok(order.into_iter().map(|axis| axis.or_else(|| rest.next()).unwrap_or(0) as i64).collect())
}
