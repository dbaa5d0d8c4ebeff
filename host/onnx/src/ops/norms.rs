//! Normalizations that ONNX has beside those of `sums`, and pools of norms.

use shiftwise_tensor::broadcast::{broadcast, offsets};

use crate::ops::call::{Call, Results};
use crate::ops::elements::blocks;
use crate::ops::sums;
use crate::value::{Element, Value};

/// ln Σ exp(x), with the largest taken out.
pub(crate) fn log_sum_exp(values: &[f64]) -> f64 {
    let most = sums::largest(values);
    if !most.is_finite() {
        return most;
    }
    most + libm::log(values.iter().map(|x| libm::exp(x - most)).sum())
}

/// Elements over the square root of their squares' mean, along all axes from one on, times a scale.
pub(crate) fn root_mean_square(call: &Call<'_>) -> Results {
    let (x, scale) = (call.input(0)?, call.input(1)?);
    let axis = call.axis("axis", -1, x.shape.len())?;
    let inner = &x.shape[axis..];
    if broadcast(&[&scale.shape, inner])? != inner {
        return Err(format!("has a scale of shape {:?} for {inner:?}", scale.shape));
    }
    let (factors, from) = (scale.numbers(), offsets(&scale.shape, inner));
    let epsilon = f64::from(call.float("epsilon", 1e-5));
    let mut data = x.numbers();
    for row in data.chunks_exact_mut(from.len().max(1)) {
        let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
        let inverse = 1.0 / libm::sqrt(mean + epsilon);
        row.iter_mut().zip(&from).for_each(|(x, k)| *x *= inverse * factors[*k]);
    }
    Ok(vec![Value::real(x.element, x.shape.clone(), data)])
}

/// Elements less their mean over axes, over their deviation.
pub(crate) fn mean_variance(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let rank = x.shape.len();
    let axes = call.ints("axes").unwrap_or(&[0, 2, 3]);
    let axes = axes.iter().map(|a| shiftwise_tensor::array::axis(*a, rank)).collect::<Result<Vec<_>, _>>()?;
    let folded: Vec<usize> = (0..rank).map(|i| if axes.contains(&i) { 1 } else { x.shape[i] }).collect();
    let (data, group) = (x.numbers(), offsets(&folded, &x.shape));
    let groups: usize = folded.iter().product();
    let count = (data.len() / groups.max(1)) as f64;
    let (mut first, mut second) = (vec![0.0; groups], vec![0.0; groups]);
    data.iter().zip(&group).for_each(|(x, g)| first[*g] += x / count);
    data.iter().zip(&group).for_each(|(x, g)| second[*g] += x * x / count);
    let of = |(x, g): (&f64, &usize)| (x - first[*g]) / (libm::sqrt(second[*g] - first[*g] * first[*g]) + 1e-9);
    let all = data.iter().zip(&group).map(of).collect();
    Ok(vec![Value::real(x.element, x.shape.clone(), all)])
}

/// The norm of values: the sum of their magnitudes, or the root of their powers' sum.
fn norm(p: i64, values: impl Iterator<Item = f64>) -> f64 {
    match p {
        1 => values.map(f64::abs).sum(),
        2 => libm::sqrt(values.map(|x| x * x).sum()),
        p => libm::pow(values.map(|x| libm::pow(x.abs(), p as f64)).sum(), 1.0 / p as f64),
    }
}

/// Elements over their norm along an axis; what has none stays 0.
pub(crate) fn lp(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let axis = call.axis("axis", -1, x.shape.len())?;
    let (outer, count, inner) = blocks(&x.shape, axis, axis + 1);
    let (mut data, p) = (x.numbers(), call.int("p", 2));
    for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
        let at = |k: usize| (o * count + k) * inner + i;
        let own = norm(p, (0..count).map(|k| data[at(k)]));
        (0..count).for_each(|k| data[at(k)] = if own == 0.0 { 0.0 } else { data[at(k)] / own });
    }
    Ok(vec![Value::real(x.element, x.shape.clone(), data)])
}

/// The norm of each window.
pub(crate) fn lp_pool(call: &Call<'_>) -> Results {
    let p = call.int("p", 2);
    sums::pool(call, |_, _, _, x, window| norm(p, window.iter().map(|(_, at)| x[*at])))
}

/// The norm of each channel.
pub(crate) fn global_lp_pool(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let (n, c, size) = sums::spatial(x)?;
    let (pixels, p): (usize, i64) = (size.iter().product(), call.int("p", 2));
    let out = x.numbers().chunks_exact(pixels.max(1)).map(|own| norm(p, own.iter().copied())).collect();
    let shape = [vec![n, c], vec![1; size.len()]].concat();
    Ok(vec![Value::real(Element::Double, shape, out).cast(x.element)])
}
