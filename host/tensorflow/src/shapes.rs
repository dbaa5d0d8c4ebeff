//! Operations that move values: shapes, axes, slices, joins, paddings, sizes of images.

use serde_json::{Value as Json, json};

use crate::constants::{BATCH, Constant};
use crate::network::{Network, Slot};
use shiftwise_graph::ops::tfop::Kind;
use shiftwise_graph::ops::{
    Concatenate, Flatten, Interpolation, Op, Permute, Reshape, Resizing, TfOp, UpSampling2D, ZeroPadding2D,
};
use shiftwise_tensor::array;

/// Begins, ends and steps of slices along the first axes, with TensorFlow's bits for what they don't say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Strided {
    pub(crate) begin: Vec<i64>,
    pub(crate) end: Vec<i64>,
    pub(crate) step: Vec<i64>,
    /// Begins and ends that don't count, the ellipsis, new axes, axes that are dropped.
    pub(crate) masks: [u64; 5],
}

/// A convention for where the pixels of images lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pixels {
    pub(crate) half_pixel_centers: bool,
    pub(crate) align_corners: bool,
}

impl Network<'_> {
    /// The shape as a constant, with the batch as what it is.
    pub(crate) fn shape_of(&self, x: &Slot) -> Result<Slot, String> {
        self.shape(x).map(|shape| Slot::Constant(Constant::integers(shape)))
    }

    /// The same elements under another shape; one size may be −1.
    pub(crate) fn reshape(&mut self, operation: &str, x: &Slot, target: &[i64]) -> Result<Slot, String> {
        let (id, merged) = match x {
            Slot::Layer { id, merged } => (*id, *merged),
            Slot::Constant(_) => {
                let target: Vec<i64> = target.iter().map(|d| if *d == BATCH { -1 } else { *d }).collect();
                let settings = json!({ "shape": target });
                return self.function(operation, "reshape", std::slice::from_ref(x), &[], settings);
            }
            Slot::IsZero(_) | Slot::Nothing => (self.layer_of(x)?, false),
        };
        let sample = self.sample(id).to_vec();
        let fail = || format!("a batch of {sample:?} can't be reshaped to {:?}", shown(target));
        let (first, rest) = target.split_first().ok_or_else(fail)?;
        let total = array::count(&sample)?;
        let known = rest.iter().filter(|d| **d >= 0).try_fold(1usize, |n, d| n.checked_mul(*d as usize));
        let open = rest.iter().filter(|d| **d < 0).count();
        let known = known.ok_or_else(fail)?;
        let apart = match open {
            0 => known == total,
            1 => known > 0 && total.is_multiple_of(known) && (*first == BATCH || *first == 1),
            _ => false,
        };
        if apart {
            let rest: Vec<usize> =
                rest.iter().map(|d| if *d < 0 { total / known.max(1) } else { *d as usize }).collect();
            return self.sample_as(operation, id, &rest);
        }
        // Rows of a matrix: all but the last axis, with the batch.
        let rows = open == 0 && rest.len() == 1 && sample.last() == Some(&known);
        match (rows, merged || sample.len() > 1) {
            (true, true) => Ok(Slot::Layer { id, merged: true }),
            _ => Err(fail()),
        }
    }

    /// The samples of a layer under another shape.
    fn sample_as(
        &mut self,
        operation: &str,
        id: shiftwise_graph::graph::NodeId,
        rest: &[usize],
    ) -> Result<Slot, String> {
        if self.sample(id) == rest {
            return Ok(Slot::Layer { id, merged: false });
        }
        let op = match rest {
            [_] => Op::Flatten(Flatten),
            _ => Op::Reshape(Reshape { target: rest.iter().map(|d| *d as i64).collect() }),
        };
        self.add(operation, op, &[id])
    }

    /// New axes of one element.
    pub(crate) fn expand(&mut self, operation: &str, x: &Slot, axis: i64) -> Result<Slot, String> {
        let mut shape = self.shape(x)?;
        let at = array::axis(axis, shape.len() + 1)?;
        if at == 0 && x.constant().is_none() {
            return Err("a new axis in front of the batch is not supported".into());
        }
        shape.insert(at, 1);
        self.reshape(operation, x, &shape)
    }

    /// Axes of one element dropped; all such, but the batch, if none are given.
    pub(crate) fn squeeze(&mut self, operation: &str, x: &Slot, axes: &[i64]) -> Result<Slot, String> {
        let shape = self.shape(x)?;
        let axes = axes.iter().map(|a| array::axis(*a, shape.len())).collect::<Result<Vec<_>, _>>()?;
        let goes = |(i, d): (usize, &i64)| if axes.is_empty() { *d == 1 } else { axes.contains(&i) };
        if let Some((i, d)) = shape.iter().enumerate().find(|(i, d)| axes.contains(i) && **d != 1) {
            let size = if *d == BATCH { "the batch".to_owned() } else { format!("of {d} elements") };
            return Err(format!("axis {i} is {size} and can't be squeezed"));
        }
        let kept: Vec<i64> = shape.iter().enumerate().filter(|at| !goes((at.0, at.1))).map(|(_, d)| *d).collect();
        self.reshape(operation, x, &kept)
    }

    /// Axes in another order.
    pub(crate) fn transpose(&mut self, operation: &str, x: &Slot, order: &[i64]) -> Result<Slot, String> {
        if x.constant().is_some() {
            return self.function(operation, "transpose", std::slice::from_ref(x), &[], json!({ "perm": order }));
        }
        let id = self.layer_of(x);
        let rank = self.rank(x)?;
        let order = order.iter().map(|a| array::axis(*a, rank)).collect::<Result<Vec<_>, _>>()?;
        if order.iter().copied().eq(0..rank) {
            return Ok(x.clone());
        }
        let id = id?;
        let Some((0, rest)) = order.split_first().map(|(first, rest)| (*first, rest)) else {
            return Err(format!("the order {order:?} of its axes does not keep samples apart"));
        };
        let dims: Vec<usize> = rest.iter().map(|d| d.saturating_sub(1)).collect();
        self.add(operation, Op::Permute(Permute { dims }), &[id])
    }

    /// Tensors behind each other along an axis.
    pub(crate) fn concat(&mut self, operation: &str, parts: &[Slot], axis: i64) -> Result<Slot, String> {
        if let [only] = parts {
            return Ok(only.clone());
        }
        let layers: Result<Vec<_>, _> = parts.iter().map(|part| self.layer_of(part)).collect();
        if let (Ok(layers), Some(first)) = (&layers, parts.first()) {
            let at = array::axis(axis, self.rank(first)?)?;
            let axis = at.checked_sub(1).ok_or("samples are joined along the batch")?;
            return self.add(operation, Op::Concatenate(Concatenate { axis }), layers);
        }
        self.function(operation, "concat", parts, &[], json!({ "axis": axis }))
    }

    /// Values around a tensor: (before, after) for each axis.
    pub(crate) fn pad(&mut self, operation: &str, x: &Slot, widths: &[i64], value: f32) -> Result<Slot, String> {
        let pairs: Vec<[i64; 2]> = widths.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect();
        let whole = |pair: &[i64; 2]| pair.map(|d| usize::try_from(d).ok());
        if let ([[0, 0], rows, columns, [0, 0]], Slot::Layer { merged: false, .. }) = (&pairs[..], x)
            && let ([Some(top), Some(bottom)], [Some(left), Some(right)]) = (whole(rows), whole(columns))
            && value == 0.0
        {
            let op = Op::ZeroPadding2D(ZeroPadding2D { rows: [top, bottom], columns: [left, right] });
            return self.add(operation, op, &[self.layer_of(x)?]);
        }
        let settings = json!({ "paddings": pairs, "constant_values": value });
        self.function(operation, "pad", std::slice::from_ref(x), &[], settings)
    }

    /// A tensor mirrored around its edges, which are (`symmetric`) or are not repeated.
    pub(crate) fn mirror(
        &mut self,
        operation: &str,
        x: &Slot,
        widths: &[i64],
        symmetric: bool,
    ) -> Result<Slot, String> {
        let shape = self.shape(x)?;
        let mut out = x.clone();
        for (axis, pair) in widths.chunks_exact(2).enumerate() {
            let size = shape.get(axis).copied().ok_or("it has more paddings than axes")?;
            let most = if symmetric { size } else { size - 1 };
            match pair {
                [0, 0] => continue,
                [a, b] if size > 0 && (0..=most).contains(a) && (0..=most).contains(b) => {}
                _ => return Err(format!("paddings {pair:?} of an axis that has {} elements to mirror", most.max(0))),
            }
            self.budget.elements(&[size.saturating_mul(3)], 16).map_err(|e| e.to_string())?;
            let edge = i64::from(!symmetric);
            let before = (0..pair[0]).rev().map(|i| i + edge);
            let after = (0..pair[1]).map(|i| size - 1 - edge - i);
            let indices: Vec<i64> = before.chain(0..size).chain(after).collect();
            out = self.take(operation, &out, axis as i64, &indices, false)?;
        }
        Ok(out)
    }

    /// These elements along an axis; the axis goes if `drop`, for one of them.
    pub(crate) fn take(
        &mut self,
        operation: &str,
        x: &Slot,
        axis: i64,
        indices: &[i64],
        drop: bool,
    ) -> Result<Slot, String> {
        let shape = self.shape(x)?;
        let at = array::axis(axis, shape.len())?;
        match x {
            Slot::Constant(constant) => {
                let size = shape[at];
                let index =
                    |i: &i64| usize::try_from(if *i < 0 { i + size } else { *i }).map_err(|_| "an index is wrong");
                let indices = indices.iter().map(index).collect::<Result<Vec<_>, _>>()?;
                let kind = Kind::Gather { axis: at, indices, drop };
                let op = TfOp { function: "gather".into(), operands: Vec::new(), kind };
                constant.moved(|t| op.fold(&[t], self.budget)).map(Slot::Constant)
            }
            Slot::Layer { .. } | Slot::IsZero(_) | Slot::Nothing => {
                self.layer_of(x)?;
                self.budget.elements(&[indices.len()], 64).map_err(|e| e.to_string())?;
                let indices = if drop { json!(indices.first()) } else { json!(indices) };
                let settings = json!({ "indices": indices, "axis": at });
                self.function(operation, "gather", std::slice::from_ref(x), &[], settings)
            }
        }
    }

    /// Slices along the first axes.
    pub(crate) fn slice(&mut self, operation: &str, x: &Slot, by: &Strided) -> Result<Slot, String> {
        let n = by.begin.len();
        if by.end.len() != n || by.step.len() != n || n > 32 || by.step.contains(&0) {
            return Err("its begins, ends and steps are no lists of the same length".into());
        }
        let one = |i: usize| {
            let bit = |mask: usize| by.masks[mask] >> i & 1 == 1;
            let end = |v: i64| if v == BATCH { None } else { Some(v) };
            match () {
                () if bit(2) => json!("..."),
                () if bit(3) => Json::Null,
                () if bit(4) => json!(by.begin[i]),
                () => {
                    let (from, to) = (end(by.begin[i]).filter(|_| !bit(0)), end(by.end[i]).filter(|_| !bit(1)));
                    json!({ "start": from, "stop": to, "step": by.step[i] })
                }
            }
        };
        let spec: Vec<Json> = (0..n).map(one).collect();
        // A slice that starts with the first sample and has no end takes all samples.
        let settings = json!({ "slice_spec": self.whole_batch(x, spec) });
        self.function(operation, "__operators__.getitem", std::slice::from_ref(x), &[], settings)
    }

    /// A subscript of which the first element takes the whole batch where it takes it from the first sample on to the end,
    /// in files in which the batch has one sample.
    fn whole_batch(&self, x: &Slot, mut spec: Vec<Json>) -> Vec<Json> {
        if let (Slot::Layer { .. }, Some(Json::Object(first))) = (x, spec.first_mut()) {
            let starts = first.get("start").is_some_and(|v| v.is_null() || v.as_i64() == Some(0));
            let ends = first.get("stop").is_some_and(|v| v.as_i64() == Some(1));
            if starts && ends && first.get("step").and_then(Json::as_i64) == Some(1) {
                first.insert("stop".into(), Json::Null);
            }
        }
        spec
    }

    /// From where, and how many elements along each axis, −1 for all that follow.
    pub(crate) fn stretch(&mut self, operation: &str, x: &Slot, begin: &[i64], size: &[i64]) -> Result<Slot, String> {
        let end = |(b, s): (&i64, &i64)| if *s == -1 || *s == BATCH { BATCH } else { b.saturating_add(*s) };
        let end = begin.iter().zip(size).map(end).collect();
        let by = Strided { begin: begin.to_vec(), end, step: vec![1; begin.len()], masks: [0; 5] };
        self.slice(operation, x, &by)
    }

    /// A tensor in parts of these sizes along an axis; one size may be −1.
    pub(crate) fn split(&mut self, operation: &str, x: &Slot, axis: i64, sizes: &[i64]) -> Result<Vec<Slot>, String> {
        let shape = self.shape(x)?;
        let at = array::axis(axis, shape.len())?;
        let known: i64 = sizes.iter().filter(|s| **s > 0).fold(0i64, |n, s| n.saturating_add(*s));
        let sizes: Vec<i64> =
            sizes.iter().map(|s| if *s == -1 { shape[at].saturating_sub(known) } else { *s }).collect();
        let total = sizes.iter().try_fold(0i64, |n, s| n.checked_add(*s).filter(|_| *s > 0));
        if sizes.len() > 4096 || total != Some(shape[at]) {
            return Err(format!("{} parts don't make up its axis {at}", sizes.len()));
        }
        let mut from = 0;
        let mut parts = Vec::new();
        for (k, size) in sizes.iter().enumerate() {
            let by = Strided {
                begin: [vec![0; at], vec![from]].concat(),
                end: [vec![BATCH; at], vec![from + size]].concat(),
                step: vec![1; at + 1],
                masks: [0; 5],
            };
            parts.push(self.slice(&format!("{operation}/{k}"), x, &by)?);
            from += size;
        }
        Ok(parts)
    }

    /// Tensors behind each other along a new axis.
    pub(crate) fn stack(&mut self, operation: &str, parts: &[Slot], axis: i64) -> Result<Slot, String> {
        self.function(operation, "stack", parts, &[], json!({ "axis": axis }))
    }

    /// An image brought to a size.
    pub(crate) fn resize(
        &mut self,
        operation: &str,
        x: &Slot,
        [height, width]: [i64; 2],
        (interpolation, pixels): (Interpolation, Pixels),
    ) -> Result<Slot, String> {
        let id = self.layer_of(x)?;
        let side = |d: i64| usize::try_from(d).map_err(|_| format!("its size is {height}x{width}"));
        let size = [side(height)?, side(width)?];
        let &[h, w, _] = self.sample(id) else { return Err("images are expected".into()) };
        let factors = [size[0].checked_div(h), size[1].checked_div(w)].map(Option::unwrap_or_default);
        let whole = factors[0] > 0 && factors[1] > 0 && [h * factors[0], w * factors[1]] == size;
        // Pixels repeated are the same in both conventions.
        let nearest = interpolation == Interpolation::Nearest && whole && !pixels.align_corners;
        if !nearest && (pixels.align_corners || !pixels.half_pixel_centers) {
            return Err("only images whose pixels' centers are half a pixel from the edge can be resized \
                        (half_pixel_centers, no align_corners, as tf.image.resize does it)"
                .into());
        }
        let op = match whole {
            true => Op::UpSampling2D(UpSampling2D { size: factors, interpolation }),
            false => Op::Resizing(Resizing { size, interpolation }),
        };
        self.add(operation, op, &[id])
    }
}

/// A shape for a message.
fn shown(shape: &[i64]) -> Vec<String> {
    shape.iter().map(|d| if *d == BATCH { "batch".to_owned() } else { d.to_string() }).collect()
}
