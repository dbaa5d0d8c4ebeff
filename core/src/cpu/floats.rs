//! Steps of layers in floats.

use core::cell::Cell;

use super::float::{get_f32, put_f32};
use super::function::larger;
use super::operand::walk;
use crate::memory::Memory;
use crate::model::{
    Combine, CopyOp, Deployable, FloatConvOp, FloatOp, FloatPoolKind, FloatPoolOp, ProductOp, ResizeOp, RowsOp,
    TensorDesc, TensorId,
};
use crate::shape::{Shape, Window, positive};

/// Runs one step; `None` if its tensors overlap where they must not, which a checked step's do not.
pub(super) fn execute(model: &Deployable<'_>, op: &FloatOp, memory: &mut Memory<'_>) -> Option<()> {
    let (output, constants) = (model.tensor(op.output())?, memory.constants);
    let mut pair = |input: TensorId, kernel: &mut dyn FnMut(&[u8], &mut [u8])| {
        let (input, output) = memory.pair(&model.tensor(input)?, &output)?;
        kernel(input, output);
        Some(())
    };
    match op {
        FloatOp::Map { input, function, .. } => {
            let from = model.tensor(*input)?;
            if from.place == output.place {
                let y = memory.tensor_mut(&output)?;
                y.as_chunks_mut().0.iter_mut().for_each(|y| *y = function.apply(f32::from_le_bytes(*y)).to_le_bytes());
                return Some(());
            }
            pair(*input, &mut |x, y| {
                let (x, y) = (x.as_chunks().0, y.as_chunks_mut().0);
                x.iter().zip(y).for_each(|(x, y)| *y = function.apply(f32::from_le_bytes(*x)).to_le_bytes());
            })
        }
        FloatOp::Zip { a, b, combine, .. } => zip(&model.tensor(*a)?, &model.tensor(*b)?, &output, *combine, memory),
        FloatOp::Conv(c) => pair(c.input, &mut |x, y| conv(c, constants, x, y)),
        FloatOp::Pool(p) => pair(p.input, &mut |x, y| pool(p, x, y)),
        FloatOp::Copy(c) => pair(c.input, &mut |x, y| copy(c, x, y)),
        FloatOp::Resize(r) => pair(r.input, &mut |x, y| resize(r, x, y)),
        FloatOp::Rows(r) => {
            if model.tensor(r.input)?.place != output.place {
                pair(r.input, &mut |x, y| y.iter_mut().zip(x).for_each(|(y, x)| *y = *x))?;
            }
            rows(r, memory.tensor_mut(&output)?);
            Some(())
        }
        FloatOp::Reduce { input, axes, kind, .. } => {
            let shape = model.tensor(*input)?.shape;
            pair(*input, &mut |x, y| reduce(&shape, *axes, *kind, x, y))
        }
        FloatOp::Product(p) => {
            let (a, b) = (model.tensor(p.a)?, model.tensor(p.b)?);
            let (y, rest) = memory.split(&output)?;
            product(p, rest.tensor(&a)?, rest.tensor(&b)?, y);
            Some(())
        }
    }
}

/// `combine` of two tensors that broadcast to `out`. The first may be overwritten.
fn zip(
    a: &TensorDesc<'_>,
    b: &TensorDesc<'_>,
    out: &TensorDesc<'_>,
    f: Combine,
    memory: &mut Memory<'_>,
) -> Option<()> {
    let mut complete = Some(());
    let value = |memory: &Memory<'_>, t: &TensorDesc<'_>, i: usize| {
        let bytes = memory.read(t.place.region, t.place.offset as usize + 4 * i, 4)?;
        Some(f32::from_le_bytes(*bytes.first_chunk()?))
    };
    walk(out.shape.aligned(), [a.shape.strides(), b.shape.strides(), out.shape.strides()], |[i, j, o]| {
        let y = value(memory, a, i).zip(value(memory, b, j)).map(|(a, b)| f.apply(a, b));
        let to = memory.write(out.place.region, out.place.offset as usize + 4 * o, 4);
        match (y, to.and_then(|to| to.first_chunk_mut())) {
            (Some(y), Some(to)) => *to = y.to_le_bytes(),
            _ => complete = None,
        }
    });
    complete
}

/// See [`FloatConvOp`]: the output's own memory holds the chains while they grow.
fn conv(op: &FloatConvOp, constants: &[u8], input: &[u8], output: &mut [u8]) {
    let [h, w, ic] = op.in_dims.map(usize::from);
    let [_, ow, oc] = op.out_dims.map(|d| usize::from(d).max(1));
    let [kh, kw] = op.window.kernel.map(usize::from);
    let kernel = constants.get(op.kernel as usize..).unwrap_or(&[]);
    let bias = op.bias.map(|at| constants.get(at as usize..).unwrap_or(&[]));
    let groups = positive(op.groups.into());
    let (share, group) = (ic / groups, positive(oc / groups));
    for (pixel, out) in output.chunks_exact_mut(positive(4 * oc).get()).enumerate() {
        out.fill(0);
        let (oy, ox) = (pixel / positive(ow), pixel % positive(ow));
        for y in 0..kh {
            let ky = if op.transposed { kh - 1 - y } else { y };
            let Some(iy) = meets(op, 0, oy, ky, h) else { continue };
            for x in 0..kw {
                let kx = if op.transposed { kw - 1 - x } else { x };
                let Some(ix) = meets(op, 1, ox, kx, w) else { continue };
                for c in 0..share {
                    let row = ((ky * kw + kx) * share + c) * oc;
                    for o in 0..oc {
                        let x = get_f32(input, (iy * w + ix) * ic + o / group * share + c);
                        put_f32(out, o, libm::fmaf(x, get_f32(kernel, row + o), get_f32(out, o)));
                    }
                }
            }
        }
        if let Some(bias) = bias {
            (0..oc).for_each(|o| put_f32(out, o, get_f32(out, o) + get_f32(bias, o)));
        }
    }
}

/// The input row or column that output `out` meets at tap `tap`.
fn meets(op: &FloatConvOp, axis: usize, out: usize, tap: usize, size: usize) -> Option<usize> {
    let window: &Window = &op.window;
    let (stride, dilation) = (positive(window.stride[axis].into()), usize::from(window.dilation[axis]));
    let pad = usize::from(window.pad_before[axis]);
    let at = if op.transposed {
        let full = (out + pad).checked_sub(tap * dilation)?;
        (full % stride == 0).then_some(full / stride)?
    } else {
        (out * stride.get() + tap * dilation).checked_sub(pad)?
    };
    (at < size).then_some(at)
}

/// See [`FloatPoolOp`].
fn pool(op: &FloatPoolOp, input: &[u8], output: &mut [u8]) {
    let [h, w, c] = op.in_dims.map(|d| usize::from(d).max(1));
    let ow = usize::from(op.out_dims[1]).max(1);
    for (pixel, out) in output.chunks_exact_mut(positive(4 * c).get()).enumerate() {
        let (ky0, ky1, iy0) = op.window.taps(0, pixel / positive(ow), h);
        let (kx0, kx1, ix0) = op.window.taps(1, pixel % positive(ow), w);
        let count = (ky1 - ky0) * (kx1 - kx0);
        for channel in 0..c {
            let rows = (iy0..iy0 + (ky1 - ky0)).flat_map(|y| (ix0..ix0 + (kx1 - kx0)).map(move |x| y * w + x));
            let values = rows.map(|p| get_f32(input, p * c + channel));
            let result = match op.kind {
                FloatPoolKind::Max => values.fold(f32::NEG_INFINITY, |m, x| larger(x, m)),
                FloatPoolKind::Min => values.fold(f32::INFINITY, |m, x| if x < m { x } else { m }),
                FloatPoolKind::Sum => values.fold(0.0, |sum, x| sum + x),
                FloatPoolKind::Average => values.fold(0.0, |sum, x| sum + x) / count.max(1) as f32,
            };
            put_f32(out, channel, result);
        }
    }
}

/// See [`CopyOp`]. Elements outside of the tensors, which a checked copy has none of, are left out.
fn copy(op: &CopyOp, input: &[u8], output: &mut [u8]) {
    if let Some(bits) = op.fill {
        output.as_chunks_mut().0.iter_mut().for_each(|y: &mut [u8; 4]| *y = bits.to_le_bytes());
    }
    let [a, b, c, d, e] = op.sizes;
    let at = |steps: [i64; 5], start: u32, [i, j, k, l, m]: [u32; 5]| {
        let indices = [i, j, k, l, m].into_iter().zip(steps).map(|(i, s)| i64::from(i) * s);
        usize::try_from(indices.sum::<i64>() + i64::from(start)).unwrap_or(usize::MAX / 8)
    };
    let (steps_in, steps_out) = (op.steps_in.map(i64::from), op.steps_out.map(i64::from));
    for i in 0..a {
        for j in 0..b {
            for k in 0..c {
                for l in 0..d {
                    for m in 0..e {
                        let index = [i, j, k, l, m];
                        put_f32(output, at(steps_out, op.to, index), get_f32(input, at(steps_in, op.from, index)));
                    }
                }
            }
        }
    }
}

/// The two neighbours of output `o` along an axis, and the weight of the second.
fn neighbours(o: usize, input: usize, output: usize) -> (usize, usize, f32) {
    let scale = input as f32 / output.max(1) as f32;
    let at = (o as f32 + 0.5) * scale - 0.5;
    let floor = libm::floorf(at);
    let last = input.saturating_sub(1);
    ((larger(floor, 0.0) as usize).min(last), (larger(libm::ceilf(at), 0.0) as usize).min(last), at - floor)
}

/// See [`ResizeOp`].
fn resize(op: &ResizeOp, input: &[u8], output: &mut [u8]) {
    let [h, w, c] = op.in_dims.map(|d| usize::from(d).max(1));
    let [oh, ow] = op.out_dims.map(|d| usize::from(d).max(1));
    let nearest = |o: usize, input: usize, output: usize| {
        let at = libm::floorf((o as f32 + 0.5) * (input as f32 / output as f32));
        (larger(at, 0.0) as usize).min(input - 1)
    };
    for (pixel, out) in output.chunks_exact_mut(positive(4 * c).get()).enumerate() {
        let (y, x) = (pixel / positive(ow), pixel % positive(ow));
        let value = |y: usize, x: usize, channel: usize| get_f32(input, (y * w + x) * c + channel);
        if op.nearest {
            let (y, x) = (nearest(y, h, oh), nearest(x, w, ow));
            (0..c).for_each(|channel| put_f32(out, channel, value(y, x, channel)));
            continue;
        }
        let (y0, y1, fy) = neighbours(y, h, oh);
        let (x0, x1, fx) = neighbours(x, w, ow);
        for channel in 0..c {
            let value = |y: usize, x: usize| value(y, x, channel);
            let (a, b, d, e) = (value(y0, x0), value(y0, x1), value(y1, x0), value(y1, x1));
            let (top, bottom) = (a + (b - a) * fx, d + (e - d) * fx);
            put_f32(out, channel, top + (bottom - top) * fy);
        }
    }
}

/// See [`RowsOp`].
fn rows(op: &RowsOp, output: &mut [u8]) {
    let cells = Cell::from_mut(output.as_chunks_mut::<4>().0).as_slice_of_cells();
    let [rows, columns, outer, inner] = op.sizes.map(|n| n as usize);
    let [step_i, step_j, step_k, step_l] = op.steps.map(|n| n as usize);
    for (i, j) in (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))) {
        let wide = positive(inner);
        let at = |e: usize| cells.get(i * step_i + j * step_j + e / wide * step_k + e % wide * step_l);
        let get = |e: usize| at(e).map_or(0.0, |cell| f32::from_le_bytes(cell.get()));
        let put = |e: usize, value: f32| at(e).map_or((), |cell| cell.set(value.to_le_bytes()));
        op.function.apply(outer * inner, get, put);
    }
}

/// Folds the axes of the mask; the others keep their order.
fn reduce(shape: &Shape, axes: u8, kind: FloatPoolKind, input: &[u8], output: &mut [u8]) {
    let first = match kind {
        FloatPoolKind::Max => f32::NEG_INFINITY,
        FloatPoolKind::Min => f32::INFINITY,
        FloatPoolKind::Sum | FloatPoolKind::Average => 0.0,
    };
    let size = output.len() / 4;
    (0..size).for_each(|i| put_f32(output, i, first));
    let (sizes, mut steps, mut step, mut count) = (shape.aligned(), [0; 4], 1, 1u32);
    for (axis, (n, to)) in sizes.iter().zip(&mut steps).enumerate().rev() {
        if axes >> axis & 1 == 1 {
            count *= n;
        } else {
            *to = step;
            step *= n;
        }
    }
    walk(sizes, [shape.strides(), steps], |[from, to]| {
        let (value, so_far) = (get_f32(input, from), get_f32(output, to));
        let folded = match kind {
            FloatPoolKind::Max => larger(value, so_far),
            FloatPoolKind::Min if value < so_far => value,
            FloatPoolKind::Min => so_far,
            FloatPoolKind::Sum | FloatPoolKind::Average => so_far + value,
        };
        put_f32(output, to, folded);
    });
    if kind == FloatPoolKind::Average {
        (0..size).for_each(|i| put_f32(output, i, get_f32(output, i) / count as f32));
    }
}

/// See [`ProductOp`].
fn product(op: &ProductOp, a: &[u8], b: &[u8], output: &mut [u8]) {
    let [_, n1, n2, n3, depth] = op.sizes.map(|n| n as usize);
    let start = |steps: &[u32; 5], [i, j, k, l]: [usize; 4]| {
        let [si, sj, sk, sl, _] = steps.map(|s| s as usize);
        i * si + j * sj + k * sk + l * sl
    };
    let ([.., step_a], [.., step_b]) = (op.steps_a.map(|s| s as usize), op.steps_b.map(|s| s as usize));
    for (at, y) in output.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let [n1, n2, n3] = [positive(n1), positive(n2), positive(n3)];
        let index = [at / n3 / n2 / n1, at / n3 / n2 % n1, at / n3 % n2, at % n3];
        let (from_a, from_b) = (start(&op.steps_a, index), start(&op.steps_b, index));
        let term = |m: usize| get_f32(a, from_a + m * step_a) * get_f32(b, from_b + m * step_b);
        *y = (0..depth).fold(0.0f32, |sum, m| sum + term(m)).to_le_bytes();
    }
}
