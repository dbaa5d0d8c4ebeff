//! Pooling, row by row of the window and all channels at once.

use shiftwise_core::shape::Window;

/// Reduces the pixels under each window with `step`, from `start`, and finishes each channel; padding is left out.
pub(super) fn pool(
    x: &[i8],
    [h, w, c]: [usize; 3],
    window: &Window,
    start: i32,
    step: impl Fn(i32, i32) -> i32,
    finish: impl Fn(i32) -> i8,
) -> Vec<i8> {
    let (oh, ow) = (window.outputs(0, h as u32) as usize, window.outputs(1, w as u32) as usize);
    let range = |axis: usize, o: usize, size: usize| {
        let first = o * usize::from(window.stride[axis]);
        let pad = usize::from(window.pad_before[axis]);
        first.saturating_sub(pad)..(first + usize::from(window.kernel[axis])).saturating_sub(pad).min(size)
    };
    let mut y = Vec::with_capacity(oh * ow * c);
    let mut acc = vec![start; c];
    for oy in 0..oh {
        for ox in 0..ow {
            let (rows, columns) = (range(0, oy, h), range(1, ox, w));
            acc.fill(start);
            for row in rows.clone().filter(|_| !columns.is_empty()) {
                let pixels = &x[(row * w + columns.start) * c..(row * w + columns.end) * c];
                for pixel in pixels.chunks_exact(c.max(1)) {
                    acc.iter_mut().zip(pixel).for_each(|(acc, x)| *acc = step(*acc, i32::from(*x)));
                }
            }
            let empty = rows.is_empty() || columns.is_empty();
            y.extend(acc.iter().map(|acc| finish(if empty { 0 } else { *acc })));
        }
    }
    y
}
