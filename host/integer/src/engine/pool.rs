//! Pooling, row by row of the window and all channels at once.

use std::ops::Range;

use crate::engine::finish::Finish;
use shiftwise_core::shape::Window;
use shiftwise_tensor::kernel::{Lanes, on_lanes};

/// The largest of the pixels under each window; padding is left out. `accs` is memory for a row of channels.
pub(super) fn max(x: &[i8], size: [usize; 3], window: &Window, finish: Finish, y: &mut [i8], accs: &mut Vec<i32>) {
    let end = |accs: &[i32], y: &mut [i8]| finish.each(1 << 8, accs.iter().copied(), y);
    on_lanes(Pool { x, size, window, start: i32::MIN, step: i32::max, end, y, accs });
}

/// The sum of the pixels under each window times a factor; padding is zero.
pub(super) fn average(
    x: &[i8],
    size: [usize; 3],
    window: &Window,
    (m, finish): (u16, Finish),
    y: &mut [i8],
    accs: &mut Vec<i32>,
) {
    let taps = |axis: usize| usize::from(window.kernel[axis]).min(size[axis]) as i64;
    let bound = 128 * taps(0) * taps(1) * i64::from(m);
    let end = |accs: &[i32], y: &mut [i8]| {
        if bound <= i32::MAX.into() {
            finish.each(bound, accs.iter().map(|acc| acc.wrapping_mul(m.into())), y);
        } else {
            y.iter_mut().zip(accs).for_each(|(y, acc)| *y = finish.wide(i64::from(*acc) * i64::from(m)));
        }
    };
    on_lanes(Pool { x, size, window, start: 0, step: i32::wrapping_add, end, y, accs });
}

/// Reduces the pixels under each window with `step`, from `start`, and ends each row of channels; no pixel makes zero.
struct Pool<'a, S, E> {
    x: &'a [i8],
    size: [usize; 3],
    window: &'a Window,
    start: i32,
    step: S,
    end: E,
    y: &'a mut [i8],
    accs: &'a mut Vec<i32>,
}

impl<S: Fn(i32, i32) -> i32, E: Fn(&[i32], &mut [i8])> Lanes for Pool<'_, S, E> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { x, size: [h, w, c], window, start, step, end, y, accs } = self;
        let outputs = [window.outputs(0, h as u32) as usize, window.outputs(1, w as u32) as usize];
        accs.resize(accs.len().max(c), 0);
        let accs = &mut accs[..c];
        let places = (0..outputs[0]).flat_map(|oy| (0..outputs[1]).map(move |ox| (oy, ox)));
        for ((oy, ox), y) in places.zip(y.chunks_exact_mut(c.max(1))) {
            let (rows, columns) = (pixels(window, 0, oy, h), pixels(window, 1, ox, w));
            if rows.is_empty() || columns.is_empty() {
                accs.fill(0);
            } else {
                accs.fill(start);
            }
            for row in rows.filter(|_| !columns.is_empty()) {
                let pixels = &x[(row * w + columns.start) * c..(row * w + columns.end) * c];
                for pixel in pixels.chunks_exact(c.max(1)) {
                    accs.iter_mut().zip(pixel).for_each(|(acc, x)| *acc = step(*acc, i32::from(*x)));
                }
            }
            end(accs, y);
        }
    }
}

/// The input's pixels along an axis that output `o` sees.
fn pixels(window: &Window, axis: usize, o: usize, size: usize) -> Range<usize> {
    let first = o * usize::from(window.stride[axis]);
    let pad = usize::from(window.pad_before[axis]);
    first.saturating_sub(pad)..(first + usize::from(window.kernel[axis])).saturating_sub(pad).min(size)
}
