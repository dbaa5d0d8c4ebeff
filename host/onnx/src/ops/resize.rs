//! `Resize` and `Upsample`: each axis on its own, as weights of the elements that a result is made of.

use crate::ops::call::Call;
use crate::ops::call::Results;
use crate::value::{Element, Value};

/// What an axis becomes.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    /// Elements of the result.
    pub(crate) size: usize,
    /// For each of them the places of elements with their weights; an empty list is the value of what lies outside.
    pub(crate) taps: Vec<Vec<(usize, f64)>>,
}

/// How a resizing works, along all axes.
struct Method<'a> {
    mode: &'a str,
    transform: &'a str,
    nearest: &'a str,
    cubic: f64,
    exclude: bool,
    antialias: bool,
    extrapolates: bool,
}

impl Method<'_> {
    /// Where the centre of an output lies in the input. `scale` is result by input, `whole` the result's size without rounding.
    fn place(&self, o: usize, (input, output): (usize, usize), scale: f64, region: (f64, f64)) -> f64 {
        let (x, n, m) = (o as f64, input as f64, output as f64);
        match self.transform {
            // By the size that the scale asks for, which may be no whole one.
            "align_corners" if scale * n == 1.0 => 0.0,
            "align_corners" => x * (n - 1.0) / (scale * n - 1.0),
            "asymmetric" => x / scale,
            "pytorch_half_pixel" if output <= 1 => 0.0,
            "tf_half_pixel_for_nn" => (x + 0.5) / scale,
            "tf_crop_and_resize" => {
                let (start, end) = region;
                if output > 1 {
                    start * (n - 1.0) + x * (end - start) * (n - 1.0) / (m - 1.0)
                } else {
                    0.5 * (start + end) * (n - 1.0)
                }
            }
            "half_pixel_symmetric" => {
                // The size that the scale asks for may be no whole one; what is cut off is spread over both ends.
                let adjustment = m / (scale * n);
                let centre = n / 2.0;
                centre * (1.0 - adjustment) + (x + 0.5) / scale - 0.5
            }
            _ => (x + 0.5) / scale - 0.5,
        }
    }

    /// Distance from which on an element has no weight.
    fn reach(&self) -> f64 {
        if self.mode == "cubic" { 2.0 } else { 1.0 }
    }

    /// The weight of an element at a distance.
    fn weight(&self, distance: f64) -> f64 {
        let (x, a) = (distance.abs(), self.cubic);
        match self.mode {
            "cubic" if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
            "cubic" if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
            "linear" => (1.0 - x).max(0.0),
            _ => 0.0,
        }
    }

    fn near(&self, at: f64) -> f64 {
        match self.nearest {
            "floor" => at.floor(),
            "ceil" => at.ceil(),
            "round_prefer_ceil" => (at + 0.5).floor(),
            _ => (at - 0.5).ceil(),
        }
    }

    fn taps(&self, o: usize, sizes: (usize, usize), scale: f64, region: (f64, f64)) -> Vec<(usize, f64)> {
        let last = sizes.0.saturating_sub(1);
        let at = self.place(o, sizes, scale, region);
        if self.extrapolates && !(0.0..=last as f64).contains(&at) {
            return Vec::new();
        }
        let inside = |i: i64| i.clamp(0, last as i64) as usize;
        if self.mode == "nearest" {
            return vec![(inside(self.near(at) as i64), 1.0)];
        }
        // Enlarged windows take in all elements that a result stands for.
        let stretch = if self.antialias { scale.min(1.0) } else { 1.0 };
        let reach = self.reach() / stretch;
        let (first, end) = ((at - reach).floor() as i64, (at + reach).ceil() as i64);
        let own = (first..=end).map(|i| (i, self.weight((i as f64 - at) * stretch))).filter(|(_, w)| *w != 0.0);
        let whole = |i: &i64| (0..=last as i64).contains(i);
        let own: Vec<(i64, f64)> = own.filter(|(i, _)| !self.exclude || whole(i)).collect();
        let sum: f64 = own.iter().map(|(_, w)| w).sum();
        let factor = if (self.exclude || self.antialias) && sum != 0.0 { 1.0 / sum } else { 1.0 };
        own.into_iter().map(|(i, w)| (inside(i), w * factor)).collect()
    }
}

/// What each axis of a shape becomes; `None` for those that stay as they are.
///
/// Errors: the rest of a sentence about the node.
pub(crate) fn axes(call: &Call<'_>, shape: &[usize]) -> Result<Vec<Option<Axis>>, String> {
    let old = call.version < 11;
    let default = if old { "asymmetric" } else { "half_pixel" };
    let texts = [
        ("mode", "nearest"),
        ("coordinate_transformation_mode", default),
        ("nearest_mode", if old { "floor" } else { "round_prefer_floor" }),
    ];
    let [mode, transform, nearest] = texts.map(|(name, default)| call.text(name, default));
    let method = Method {
        mode: if mode == "bilinear" { "linear" } else { &mode },
        extrapolates: transform == "tf_crop_and_resize",
        transform: &transform,
        nearest: &nearest,
        cubic: f64::from(call.float("cubic_coeff_a", -0.75)),
        exclude: call.int("exclude_outside", 0) == 1,
        antialias: call.int("antialias", 0) == 1,
    };
    if !["nearest", "linear", "cubic"].contains(&method.mode) {
        return Err(format!("has mode `{mode}`, which is unknown"));
    }
    let rank = shape.len();
    let chosen = match call.ints("axes") {
        Some(list) => list.iter().map(|a| shiftwise_tensor::array::axis(*a, rank)).collect::<Result<Vec<_>, _>>()?,
        None => (0..rank).collect(),
    };
    let reals = |k: usize| call.optional(k).filter(|v| !v.is_empty()).map(Value::numbers);
    let (region, scales, sizes) = match call.version {
        ..=9 => {
            (None, reals(1).or_else(|| call.floats("scales").map(|s| s.iter().map(|x| f64::from(*x)).collect())), None)
        }
        10 => (None, reals(1), None),
        _ => (reals(1), reals(2), reals(3)),
    };
    let fits = |list: &Option<Vec<f64>>, n: usize| list.as_ref().is_none_or(|l| l.len() == n);
    if !fits(&scales, chosen.len())
        || !fits(&sizes, chosen.len())
        || !fits(&region.clone().filter(|_| method.extrapolates), 2 * chosen.len())
    {
        return Err(format!("has other scales or sizes than {} axes", chosen.len()));
    }
    let mut pairs: Vec<(f64, usize)> = match (&scales, &sizes) {
        (None, Some(sizes)) => chosen.iter().zip(sizes).map(|(a, s)| (s / shape[*a] as f64, *s as usize)).collect(),
        (Some(scales), _) => {
            chosen.iter().zip(scales).map(|(a, s)| (*s, (shape[*a] as f64 * s).floor() as usize)).collect()
        }
        (None, None) => return Err("has neither scales nor sizes".into()),
    };
    let policy = call.text("keep_aspect_ratio_policy", "stretch");
    if policy != "stretch" && sizes.is_some() {
        let scales = pairs.iter().map(|(s, _)| *s);
        let one =
            if policy == "not_larger" { scales.fold(f64::INFINITY, f64::min) } else { scales.fold(0.0, f64::max) };
        pairs = chosen.iter().map(|a| (one, (shape[*a] as f64 * one + 0.5).floor() as usize)).collect();
    }
    let mut all = vec![None; rank];
    for (i, axis) in chosen.iter().enumerate() {
        let (scale, size) = pairs[i];
        let input = shape[*axis];
        if !(scale > 0.0 && scale.is_finite()) || input == 0 {
            return Err(format!("scales {input} elements by {scale}"));
        }
        let region =
            region.as_ref().filter(|_| method.extrapolates).map_or((0.0, 1.0), |r| (r[i], r[i + chosen.len()]));
        if size == input && scale == 1.0 && region == (0.0, 1.0) {
            continue;
        }
        call.budget.elements(&[size, 4 + input / size.max(1)], 64)?;
        let taps = (0..size).map(|o| method.taps(o, (input, size), scale, region)).collect();
        all[*axis] = Some(Axis { size, taps });
    }
    Ok(all)
}

pub(crate) fn resize(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let along = axes(call, &x.shape)?;
    let outside = f64::from(call.float("extrapolation_value", 0.0));
    let mut shape = x.shape.clone();
    let mut data = x.numbers();
    // What lies outside along one axis is outside.
    let mut out_of = vec![false; data.len()];
    for (axis, own) in along.iter().enumerate() {
        let Some(own) = own else { continue };
        let (outer, inner) = (shape[..axis].iter().product::<usize>(), shape[axis + 1..].iter().product::<usize>());
        let n = shape[axis];
        shape[axis] = own.size;
        let count = call.budget.elements(&shape, 16)?;
        let (mut next, mut missing) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for (o, taps) in (0..outer).flat_map(|o| own.taps.iter().map(move |t| (o, t))) {
            for i in 0..inner {
                let at = |k: usize| (o * n + k) * inner + i;
                next.push(taps.iter().map(|(k, w)| data[at(*k)] * w).sum());
                missing.push(taps.is_empty() || taps.iter().any(|(k, _)| out_of[at(*k)]));
            }
        }
        (data, out_of) = (next, missing);
    }
    data.iter_mut().zip(&out_of).filter(|(_, out)| **out).for_each(|(x, _)| *x = outside);
    Ok(vec![Value::real(Element::Double, shape, data).cast(x.element)])
}
