//! Operators that sum: products of matrices, convolutions, pools, normalizations and folds of values.

use shiftwise_tensor::array;
use shiftwise_tensor::broadcast::{broadcast, offsets};

use crate::ops::call::Call;
use crate::ops::call::Results;
use crate::ops::elements::blocks;
use crate::ops::moves::{strides, transposed};
use crate::value::{Element, Value};

/// Product of matrices in the last two axes, as `numpy.matmul`; every sum in f64.
pub(crate) fn product(call: &Call<'_>, a: &Value, b: &Value) -> Result<Value, String> {
    let (mut left, mut right) = (a.shape.clone(), b.shape.clone());
    if left.is_empty() || right.is_empty() {
        return Err("multiplies single values as matrices".into());
    }
    let (row, column) = (left.len() == 1, right.len() == 1);
    if row {
        left.insert(0, 1);
    }
    if column {
        right.push(1);
    }
    let shape = array::matmul_shape(&left, &right)?;
    let rank = shape.len();
    let (m, n, k) = (shape[rank - 2], shape[rank - 1], left[left.len() - 1]);
    call.budget.elements(&shape, 32)?;
    call.budget.work(shape.iter().chain([&k]).fold(1u64, |p, d| p.saturating_mul(*d as u64)) / 8)?;
    let lead = &shape[..rank - 2];
    let (x, y) = (a.numbers(), b.numbers());
    let from = |s: &[usize]| offsets(&s[..s.len() - 2], lead);
    let mut out = Vec::with_capacity(shape.iter().product());
    for (p, q) in from(&left).into_iter().zip(from(&right)) {
        let (x, y) = (&x[p * m * k..], &y[q * k * n..]);
        for r in 0..m {
            let mut sums = vec![0.0; n];
            for i in 0..k {
                let factor = x[r * k + i];
                sums.iter_mut().zip(&y[i * n..]).for_each(|(s, v)| *s += factor * v);
            }
            out.extend(sums);
        }
    }
    let mut shape = shape;
    if row {
        shape.remove(rank - 2);
    }
    if column {
        shape.pop();
    }
    Ok(Value { element: Element::Double, shape, data: crate::value::Data::Real(out) })
}

pub(crate) fn matmul(call: &Call<'_>) -> Results {
    let (a, b) = (call.input(0)?, call.input(1)?);
    Ok(vec![product(call, a, b)?.cast(a.element)])
}

pub(crate) fn gemm(call: &Call<'_>) -> Results {
    let turned = |v: &Value, name: &str| match v.shape.len() {
        2 if call.int(name, 0) == 1 => Ok(transposed(v, &[1, 0])),
        2 => Ok(v.clone()),
        _ => Err("multiplies what is no matrix".to_owned()),
    };
    let a = call.input(0)?;
    let product = product(call, &turned(a, "transA")?, &turned(call.input(1)?, "transB")?)?;
    let (alpha, beta) = (f64::from(call.float("alpha", 1.0)), f64::from(call.float("beta", 1.0)));
    let mut out: Vec<f64> = product.numbers().iter().map(|x| alpha * x).collect();
    if let Some(c) = call.optional(2) {
        if broadcast(&[&c.shape, &product.shape])? != product.shape {
            return Err(format!("adds {:?} to a product of {:?}", c.shape, product.shape));
        }
        let (more, from) = (c.numbers(), offsets(&c.shape, &product.shape));
        out.iter_mut().zip(from).for_each(|(x, i)| *x += beta * more[i]);
    }
    Ok(vec![Value::real(Element::Double, product.shape, out).cast(a.element)])
}

/// A window that slides over the spatial axes of an array `[n, channels, …]`.
#[derive(Clone, Debug)]
pub(crate) struct Sliding {
    /// Sizes of the window.
    pub(crate) kernel: Vec<usize>,
    /// Steps.
    pub(crate) strides: Vec<usize>,
    /// Distances of the window's elements.
    pub(crate) dilations: Vec<usize>,
    /// Elements around each axis, before and after, that are no elements of the array.
    pub(crate) pads: Vec<(i64, i64)>,
    /// Sizes of the result.
    pub(crate) out: Vec<usize>,
}

impl Sliding {
    /// The window that a node's attributes describe over axes of these sizes.
    pub(crate) fn of(call: &Call<'_>, size: &[usize], kernel: Vec<usize>) -> Result<Self, String> {
        let axes = size.len();
        let strides = call.sizes("strides", axes, 1)?;
        let dilations = call.sizes("dilations", axes, 1)?;
        if kernel.len() != axes || kernel.contains(&0) {
            return Err(format!("has a window of {kernel:?} over {axes} axes"));
        }
        let auto = call.text("auto_pad", "NOTSET");
        let given = call.pads(axes)?;
        let ceil = call.int("ceil_mode", 0) == 1;
        let mut own = Self { kernel, strides, dilations, pads: given, out: Vec::new() };
        for (axis, n) in size.iter().take(axes).enumerate() {
            let (n, stride, extent) = (*n as i64, own.strides[axis] as i64, own.extent(axis) as i64);
            let out = match auto.as_str() {
                "SAME_UPPER" | "SAME_LOWER" => {
                    let out = (n + stride - 1) / stride;
                    let more = ((out - 1) * stride + extent - n).max(0);
                    let less = more / 2;
                    own.pads[axis] = if auto == "SAME_UPPER" { (less, more - less) } else { (more - less, less) };
                    out
                }
                "NOTSET" | "VALID" => {
                    if auto == "VALID" {
                        own.pads[axis] = (0, 0);
                    }
                    let (before, after) = own.pads[axis];
                    let room = n + before + after - extent;
                    if room < 0 {
                        return Err(format!("has a window of {extent} elements that doesn't fit into {n}"));
                    }
                    let down = room / stride + 1;
                    // A last window that is cut off begins within the array or in front of it.
                    let more = ceil && room % stride != 0 && down * stride < n + before;
                    if more { down + 1 } else { down }
                }
                other => return Err(format!("has auto_pad `{other}`, which is unknown")),
            };
            own.out.push(usize::try_from(out).map_err(|_| "has no results")?);
        }
        Ok(own)
    }

    /// Elements from the first of a window to the last.
    pub(crate) fn extent(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilations[axis] + 1
    }

    /// The elements of a window of an array of these sizes, as (place in the window, place in the array); those outside
    /// are left out.
    fn elements(&self, size: &[usize], at: &[usize]) -> Vec<(usize, usize)> {
        let mut all = vec![(0usize, 0usize)];
        for axis in 0..size.len() {
            let start = (at[axis] * self.strides[axis]) as i64 - self.pads[axis].0;
            let own: Vec<(usize, usize)> = (0..self.kernel[axis])
                .filter_map(|k| {
                    let place = start + (k * self.dilations[axis]) as i64;
                    (0..size[axis] as i64).contains(&place).then_some((k, place as usize))
                })
                .collect();
            let (kernel, length) = (self.kernel[axis], size[axis]);
            all =
                all.iter().flat_map(|(w, p)| own.iter().map(move |(k, q)| (w * kernel + k, p * length + q))).collect();
        }
        all
    }

    /// Cells of a window that count as elements where padding is included: what is cut off behind it is not.
    fn cells(&self, size: &[usize], at: &[usize]) -> usize {
        let along = |axis: usize| {
            let start = (at[axis] * self.strides[axis]) as i64 - self.pads[axis].0;
            let end = size[axis] as i64 + self.pads[axis].1;
            (0..self.kernel[axis]).filter(|k| start + ((k * self.dilations[axis]) as i64) < end).count()
        };
        (0..size.len()).map(along).product()
    }

    /// All places of the result, in order.
    fn places(&self) -> Vec<Vec<usize>> {
        self.out.iter().fold(vec![vec![]], |all, n| {
            all.iter().flat_map(|at: &Vec<usize>| (0..*n).map(move |i| [at.as_slice(), &[i]].concat())).collect()
        })
    }

    /// Charges the work of a result with `channels`, each of `depth` windows.
    fn charge(&self, call: &Call<'_>, channels: usize, depth: usize) -> Result<(), String> {
        call.budget.elements(&[&[channels], self.out.as_slice()].concat(), 160)?;
        let all = self.out.iter().chain(&self.kernel).chain([&channels, &depth]);
        Ok(call.budget.work(all.fold(1u64, |p, d| p.saturating_mul(*d as u64)) / 8)?)
    }
}

/// Samples, channels and sizes of the spatial axes of an array.
pub(crate) fn spatial(x: &Value) -> Result<(usize, usize, &[usize]), String> {
    match x.shape.as_slice() {
        [n, c, size @ ..] if !size.is_empty() => Ok((*n, *c, size)),
        other => Err(format!("has an operand of shape {other:?}, [samples, channels, …] is expected")),
    }
}

/// A convolution of arrays without the zero points of quantized ones.
pub(crate) fn convolve(call: &Call<'_>, x: &Value, w: &Value, bias: Option<&Value>) -> Result<Value, String> {
    let (n, c, size) = spatial(x)?;
    let groups = call.size("group", 1)?;
    let [filters, depth, kernel @ ..] = w.shape.as_slice() else { return Err("has a kernel of too few axes".into()) };
    let (filters, depth) = (*filters, *depth);
    if groups == 0 || filters % groups != 0 || depth * groups != c {
        return Err(format!("has a kernel of shape {:?} in {groups} groups over {c} channels", w.shape));
    }
    let sliding = Sliding::of(call, size, kernel.to_vec())?;
    sliding.charge(call, n * filters, depth)?;
    let (pixels, taps): (usize, usize) = (size.iter().product(), kernel.iter().product());
    let (data, weights) = (x.numbers(), w.numbers());
    let bias = bias.map(Value::numbers);
    if bias.as_ref().is_some_and(|b| b.len() != filters) {
        return Err("has another bias than filters".into());
    }
    let windows: Vec<Vec<(usize, usize)>> = sliding.places().iter().map(|at| sliding.elements(size, at)).collect();
    let mut out = Vec::with_capacity(n * filters * windows.len());
    for (sample, filter) in (0..n).flat_map(|s| (0..filters).map(move |f| (s, f))) {
        let first = filter / (filters / groups) * depth;
        for window in &windows {
            let mut sum = bias.as_ref().map_or(0.0, |b| b[filter]);
            for d in 0..depth {
                let (x, w) = (&data[(sample * c + first + d) * pixels..], &weights[(filter * depth + d) * taps..]);
                sum += window.iter().map(|(k, p)| w[*k] * x[*p]).sum::<f64>();
            }
            out.push(sum);
        }
    }
    let shape = [&[n, filters], sliding.out.as_slice()].concat();
    Ok(Value { element: Element::Double, shape, data: crate::value::Data::Real(out) })
}

pub(crate) fn conv(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    Ok(vec![convolve(call, x, call.input(1)?, call.optional(2))?.cast(x.element)])
}

/// Size of the result and elements cut off before it, for each axis of a transposed convolution.
pub(crate) fn transposed_size(call: &Call<'_>, size: &[usize], kernel: &[usize]) -> Result<Vec<(usize, i64)>, String> {
    let axes = size.len();
    let (strides, dilations) = (call.sizes("strides", axes, 1)?, call.sizes("dilations", axes, 1)?);
    let more = call.sizes("output_padding", axes, 0)?;
    let wanted = call.ints("output_shape").map(|all| all[all.len().saturating_sub(axes)..].to_vec());
    let auto = call.text("auto_pad", "NOTSET");
    let pads = call.pads(axes)?;
    let one = |axis: usize| {
        let extent = ((kernel[axis] - 1) * dilations[axis] + 1) as i64;
        let full = (size[axis] as i64 - 1) * strides[axis] as i64 + more[axis] as i64 + extent;
        let (before, out) = match (wanted.as_ref().and_then(|w| w.get(axis)), auto.as_str()) {
            (Some(wanted), auto) => {
                let cut = (full - wanted).max(0);
                (if auto == "SAME_UPPER" { cut / 2 } else { cut - cut / 2 }, *wanted)
            }
            (None, "SAME_UPPER" | "SAME_LOWER") => {
                let wanted = (size[axis] * strides[axis]) as i64;
                let cut = (full - wanted).max(0);
                (if auto == "SAME_UPPER" { cut / 2 } else { cut - cut / 2 }, wanted)
            }
            (None, "VALID") => (0, full),
            (None, _) => (pads[axis].0, full - pads[axis].0 - pads[axis].1),
        };
        let out = usize::try_from(out).ok().filter(|n| *n > 0);
        Ok((out.ok_or("has no results")?, before))
    };
    (0..axes).map(one).collect()
}

pub(crate) fn conv_transpose(call: &Call<'_>) -> Results {
    let (x, w) = (call.input(0)?, call.input(1)?);
    let (n, c, size) = spatial(x)?;
    let groups = call.size("group", 1)?;
    let [channels, per_group, kernel @ ..] = w.shape.as_slice() else {
        return Err("has a kernel of too few axes".into());
    };
    if groups == 0 || *channels != c || c % groups != 0 || kernel.len() != size.len() || kernel.contains(&0) {
        return Err(format!("has a kernel of shape {:?} in {groups} groups over {c} channels", w.shape));
    }
    let sizes = transposed_size(call, size, kernel)?;
    let (strides, dilations) = (call.sizes("strides", size.len(), 1)?, call.sizes("dilations", size.len(), 1)?);
    let (filters, out): (usize, Vec<usize>) = (per_group * groups, sizes.iter().map(|s| s.0).collect());
    let shape = [&[n, filters], out.as_slice()].concat();
    call.budget.elements(&shape, 32)?;
    let (pixels, taps, results): (usize, usize, usize) =
        (size.iter().product(), kernel.iter().product(), out.iter().product());
    call.budget.work([n, c, *per_group, pixels, taps].iter().fold(1u64, |p, d| p.saturating_mul(*d as u64)) / 8)?;
    // Where each element meets each tap, if that is within the result.
    let mut meets: Vec<(usize, usize, usize)> = vec![(0, 0, 0)];
    for axis in 0..size.len() {
        let (k, i, length) = (kernel[axis], size[axis], out[axis]);
        call.budget.elements(&[meets.len(), k, i], 24)?;
        let own = (0..i).flat_map(|p| (0..k).map(move |t| (p, t))).filter_map(|(p, t)| {
            let at = (p * strides[axis] + t * dilations[axis]) as i64 - sizes[axis].1;
            (0..out[axis] as i64).contains(&at).then_some((p, t, at as usize))
        });
        let own: Vec<_> = own.collect();
        meets = meets
            .iter()
            .flat_map(|(p, t, at)| own.iter().map(move |(q, u, b)| (p * i + q, t * k + u, at * length + b)))
            .collect();
    }
    let (data, weights) = (x.numbers(), w.numbers());
    let bias = call.optional(2).map(Value::numbers);
    let mut all = Vec::with_capacity(shape.iter().product());
    for (sample, filter) in (0..n).flat_map(|s| (0..filters).map(move |f| (s, f))) {
        let group = filter / per_group;
        let start = bias.as_ref().and_then(|b| b.get(filter)).copied().unwrap_or(0.0);
        let mut sums = vec![start; results];
        for channel in group * (c / groups)..(group + 1) * (c / groups) {
            let (x, w) = (
                &data[(sample * c + channel) * pixels..],
                &weights[(channel * per_group + filter % per_group) * taps..],
            );
            meets.iter().for_each(|(p, t, at)| sums[*at] += x[*p] * w[*t]);
        }
        all.extend(sums);
    }
    Ok(vec![Value::real(Element::Double, shape, all).cast(x.element)])
}

/// What is made of each window of every channel.
pub(crate) fn pool(
    call: &Call<'_>,
    reduce: impl Fn(&Sliding, &[usize], &[usize], &[f64], &[(usize, usize)]) -> f64,
) -> Results {
    let x = call.input(0)?;
    let (n, c, size) = spatial(x)?;
    let sliding = Sliding::of(call, size, call.sizes("kernel_shape", size.len(), 0)?)?;
    sliding.charge(call, n * c, 1)?;
    let pixels: usize = size.iter().product();
    let places = sliding.places();
    let windows: Vec<Vec<(usize, usize)>> = places.iter().map(|at| sliding.elements(size, at)).collect();
    let data = x.numbers();
    let mut out = Vec::with_capacity(n * c * places.len());
    for channel in 0..n * c {
        let x = &data[channel * pixels..(channel + 1) * pixels];
        out.extend(places.iter().zip(&windows).map(|(at, window)| reduce(&sliding, size, at, x, window)));
    }
    let shape = [&[n, c], sliding.out.as_slice()].concat();
    Ok(vec![Value::real(Element::Double, shape, out).cast(x.element)])
}

pub(crate) fn average_pool(call: &Call<'_>) -> Results {
    let include = call.int("count_include_pad", 0) == 1;
    pool(call, |sliding, size, at, x, window| {
        let count = if include { sliding.cells(size, at) } else { window.len() };
        window.iter().map(|(_, p)| x[*p]).sum::<f64>() / count as f64
    })
}

pub(crate) fn max_pool(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let best = |x: &[f64], window: &[(usize, usize)]| {
        window.iter().fold(None, |best: Option<usize>, (_, p)| match best {
            Some(b) if x[*p].partial_cmp(&x[b]) != Some(std::cmp::Ordering::Greater) => Some(b),
            _ => Some(*p),
        })
    };
    let lowest = if x.element.is_float() { f64::NEG_INFINITY } else { x.element.range().0 as f64 };
    let mut results = pool(call, |_, _, _, x, window| best(x, window).map_or(lowest, |p| x[p]))?;
    if call.node.output.get(1).is_some_and(|name| !name.is_empty()) {
        let (_, _, size) = spatial(x)?;
        let pixels: usize = size.iter().product();
        let rank = size.len();
        // Places are counted through the whole array; in the other storage order columns come before rows.
        let turned = |p: usize| {
            let (mut rest, mut place, mut step) = (p, vec![0; rank], 1);
            for axis in (0..rank).rev() {
                place[axis] = rest % size[axis];
                rest /= size[axis];
            }
            (0..rank).fold(0, |sum, axis| {
                let own = sum + place[axis] * step;
                step *= size[axis];
                own
            })
        };
        let column = call.int("storage_order", 0) == 1;
        let order = pool(call, |_, _, _, x, window| {
            best(x, window).map_or(0.0, |p| (if column { turned(p) } else { p }) as f64)
        })?;
        let per = order[0].len() / (x.shape[0] * x.shape[1]).max(1);
        let all =
            order[0].numbers().iter().enumerate().map(|(i, p)| (i / per.max(1) * pixels) as i64 + *p as i64).collect();
        results.push(Value::int64(order[0].shape.clone(), all));
    }
    Ok(results)
}

/// Folds all spatial axes.
pub(crate) fn global_pool(call: &Call<'_>, fold: fn(&[f64]) -> f64) -> Results {
    let x = call.input(0)?;
    let (n, c, size) = spatial(x)?;
    let pixels: usize = size.iter().product();
    let data = x.numbers();
    let out = data.chunks_exact(pixels.max(1)).map(fold).collect();
    let shape = [vec![n, c], vec![1; size.len()]].concat();
    Ok(vec![Value::real(x.element, shape, out)])
}

/// The mean of values.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The largest of values.
pub(crate) fn largest(values: &[f64]) -> f64 {
    values.iter().fold(f64::NEG_INFINITY, |m, x| m.max(*x))
}

/// The axes of a fold; all of them, or none, where none are given.
pub(crate) fn fold_axes(call: &Call<'_>, rank: usize) -> Result<Vec<usize>, String> {
    let given = call.list(1, "axes")?.filter(|all| !all.is_empty());
    match given {
        Some(axes) => axes.iter().map(|a| array::axis(*a, rank)).collect(),
        None if call.int("noop_with_empty_axes", 0) == 1 => Ok(Vec::new()),
        None => Ok((0..rank).collect()),
    }
}

/// Folds axes; `of` makes one number of the values.
pub(crate) fn reduce(call: &Call<'_>, of: fn(&[f64]) -> f64) -> Results {
    let x = call.input(0)?;
    let rank = x.shape.len();
    let axes = fold_axes(call, rank)?;
    let rest: Vec<usize> = (0..rank).filter(|i| !axes.contains(i)).collect();
    let turned = transposed(x, &[rest.clone(), axes.clone()].concat());
    let each: usize = axes.iter().map(|i| x.shape[*i]).product();
    let count: usize = rest.iter().map(|i| x.shape[*i]).product();
    let data = turned.numbers();
    let out: Vec<f64> = (0..count).map(|i| of(&data[i * each..(i + 1) * each])).collect();
    let keep = call.int("keepdims", 1) == 1;
    let shape = (0..rank).filter(|i| keep || !axes.contains(i)).map(|i| if axes.contains(&i) { 1 } else { x.shape[i] });
    Ok(vec![Value::real(Element::Double, shape.collect(), out).cast(x.element)])
}

pub(crate) fn batch_norm(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let training = call.int("training_mode", 0) == 1
        || call.version < 7 && call.int("is_test", 0) == 0 && call.node.output.len() > 1;
    if training && call.node.output.len() > 1 && call.version >= 14 {
        return trained_norm(call, x);
    }
    let (_, c, _) = blocks(&x.shape, 1.min(x.shape.len()), 2.min(x.shape.len()));
    let [scale, offset, mean, variance] = [1, 2, 3, 4].map(|k| call.input(k).map(Value::numbers));
    let (scale, offset, mean, variance) = (scale?, offset?, mean?, variance?);
    if [&scale, &offset, &mean, &variance].iter().any(|v| v.len() != c) {
        return Err(format!("has other parameters than {c} channels"));
    }
    let epsilon = f64::from(call.float("epsilon", 1e-5));
    let inner: usize = x.shape.get(2..).unwrap_or_default().iter().product();
    let of = |(i, x): (usize, f64)| {
        let k = i / inner.max(1) % c.max(1);
        (x - mean[k]) / libm::sqrt(variance[k] + epsilon) * scale[k] + offset[k]
    };
    Ok(vec![Value::real(x.element, x.shape.clone(), x.numbers().into_iter().enumerate().map(of).collect())])
}

/// Normalization by the batch's own statistics, with the moving ones that follow.
fn trained_norm(call: &Call<'_>, x: &Value) -> Results {
    let (n, c, _) = spatial(x)?;
    let inner: usize = x.shape[2..].iter().product();
    let data = x.numbers();
    let (momentum, epsilon) = (f64::from(call.float("momentum", 0.9)), f64::from(call.float("epsilon", 1e-5)));
    let of_channel = |k: usize| (0..n).flat_map(move |s| (0..inner).map(move |i| (s * c + k) * inner + i));
    let count = (n * inner) as f64;
    let means: Vec<f64> = (0..c).map(|k| of_channel(k).map(|i| data[i]).sum::<f64>() / count).collect();
    let variances: Vec<f64> =
        (0..c).map(|k| of_channel(k).map(|i| (data[i] - means[k]).powi(2)).sum::<f64>() / count).collect();
    let (scale, offset) = (call.input(1)?.numbers(), call.input(2)?.numbers());
    if scale.len() != c || offset.len() != c {
        return Err(format!("has other parameters than {c} channels"));
    }
    let of = |(i, x): (usize, &f64)| {
        let k = i / inner.max(1) % c.max(1);
        (x - means[k]) / libm::sqrt(variances[k] + epsilon) * scale[k] + offset[k]
    };
    let y = data.iter().enumerate().map(of).collect();
    let moved = |old: &Value, new: &[f64]| {
        let all = old.numbers().iter().zip(new).map(|(o, n)| o * momentum + n * (1.0 - momentum)).collect();
        Value::real(old.element, old.shape.clone(), all)
    };
    Ok(vec![
        Value::real(x.element, x.shape.clone(), y),
        moved(call.input(3)?, &means),
        moved(call.input(4)?, &variances),
    ])
}

/// Stretches of values standardized: (x − mean) / √(variance + epsilon).
fn standardized(data: &mut [f64], stretch: usize, epsilon: f64) -> (Vec<f64>, Vec<f64>) {
    let (mut means, mut deviations) = (Vec::new(), Vec::new());
    for row in data.chunks_exact_mut(stretch.max(1)) {
        let m = mean(row);
        let variance = row.iter().map(|x| (x - m) * (x - m)).sum::<f64>() / row.len() as f64;
        let inverse = 1.0 / libm::sqrt(variance + epsilon);
        row.iter_mut().for_each(|x| *x = (*x - m) * inverse);
        means.push(m);
        deviations.push(inverse);
    }
    (means, deviations)
}

pub(crate) fn layer_norm(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let axis = call.axis("axis", -1, x.shape.len())?;
    let epsilon = f64::from(call.float("epsilon", 1e-5));
    let mut data = x.numbers();
    let (means, deviations) = standardized(&mut data, x.shape[axis..].iter().product(), epsilon);
    let inner = &x.shape[axis..];
    let per: usize = inner.iter().product();
    for (k, own) in [(1, call.input(1).ok()), (2, call.optional(2))] {
        let Some(own) = own else { continue };
        if broadcast(&[&own.shape, inner])? != inner {
            return Err(format!("has parameters of shape {:?} for {inner:?}", own.shape));
        }
        let (values, from) = (own.numbers(), offsets(&own.shape, inner));
        data.iter_mut().enumerate().for_each(|(i, x)| {
            let v = values[from[i % per.max(1)]];
            if k == 1 { *x *= v } else { *x += v }
        });
    }
    let folded = [&x.shape[..axis], &vec![1; inner.len()]].concat();
    let float = |v| Value::real(Element::Float, folded.clone(), v);
    Ok(vec![Value::real(x.element, x.shape.clone(), data), float(means), float(deviations)])
}

/// Standardizes groups of channels of each sample; `groups` of `None` are single channels.
pub(crate) fn group_norm(call: &Call<'_>, groups: Option<usize>) -> Results {
    let x = call.input(0)?;
    let (_, c, size) = spatial(x)?;
    let groups = groups.unwrap_or(c);
    if groups == 0 || c % groups != 0 {
        return Err(format!("has {groups} groups of {c} channels"));
    }
    let pixels: usize = size.iter().product();
    let mut data = x.numbers();
    standardized(&mut data, c / groups * pixels, f64::from(call.float("epsilon", 1e-5)));
    let (scale, offset) = (call.input(1)?.numbers(), call.input(2)?.numbers());
    // Before opset 21 a group of GroupNormalization has one scale.
    let of = |values: &[f64], channel: usize| match values.len() {
        n if n == c => Some(values[channel]),
        n if n == groups => Some(values[channel / (c / groups)]),
        _ => None,
    };
    for (i, x) in data.iter_mut().enumerate() {
        let channel = i / pixels.max(1) % c;
        let both = of(&scale, channel).zip(of(&offset, channel)).ok_or("has other parameters than channels")?;
        *x = *x * both.0 + both.1;
    }
    Ok(vec![Value::real(x.element, x.shape.clone(), data)])
}

/// Each element over a power of the sum of its neighbours' squares, along channels.
pub(crate) fn lrn(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let (_, c, _) = spatial(x)?;
    let size = call.size("size", 1)? as i64;
    let [alpha, beta, bias] =
        [("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)].map(|(n, d)| f64::from(call.float(n, d)));
    let step = strides(&x.shape)[1];
    let data = x.numbers();
    let of = |i: usize| {
        let channel = (i / step.max(1) % c) as i64;
        let near = (channel - (size - 1) / 2).max(0)..=(channel + size / 2).min(c as i64 - 1);
        let sum: f64 = near.map(|k| data[(i as i64 + (k - channel) * step as i64) as usize].powi(2)).sum();
        data[i] / libm::pow(bias + alpha / size as f64 * sum, beta)
    };
    Ok(vec![Value::real(x.element, x.shape.clone(), (0..data.len()).map(of).collect())])
}
