//! The gradient of a convolution's input.

use crate::kernel::{ConvGeometry, PackedF32, Path, conv_f32_with, depthwise_f32_with};

/// Taps of one axis that meet the inputs `start, start + stride, …`.
struct Phase {
    /// First input.
    start: usize,
    /// Taps, the last one first: their outputs ascend.
    taps: Vec<usize>,
    /// Output that meets the first tap at the first input; before the first output if negative.
    first: i64,
    /// Outputs from one tap to the next.
    step: usize,
}

/// The phase of the input `start`. Input i meets tap k at output (i + pad − k·dilation) / stride where that is whole: the
/// taps that fit form a progression.
fn phase(g: &ConvGeometry, axis: usize, start: usize) -> Phase {
    let (stride, dilation, pad) = (g.stride[axis] as i64, g.dilation[axis] as i64, g.pad_before[axis] as i64);
    let shifted = |k: usize| start as i64 + pad - k as i64 * dilation;
    let taps: Vec<usize> = (0..g.kernel[axis]).rev().filter(|k| shifted(*k).rem_euclid(stride) == 0).collect();
    let output = |k: usize| shifted(k).div_euclid(stride);
    let first = taps.first().map_or(0, |k| output(*k));
    let step = taps.get(1).map_or(1, |k| (output(*k) - first) as usize);
    Phase { start, taps, first, step }
}

/// A forward convolution that gives the inputs of one phase.
#[derive(Clone, Debug)]
struct Pass {
    /// First input of the phase, by rows and columns.
    start: [usize; 2],
    /// Results that lie before it: the window begins inside of the image, and not in its padding.
    skipped: [usize; 2],
    geometry: ConvGeometry,
    kernel: Kernel,
}

#[derive(Clone, Debug)]
enum Kernel {
    Dense(PackedF32),
    /// One output channel for each input channel.
    Depthwise(Vec<f32>),
}

/// The gradient of a convolution with respect to its input, prepared for one kernel.
#[derive(Clone, Debug)]
pub struct InputGradient {
    geometry: ConvGeometry,
    passes: Vec<Pass>,
}

impl InputGradient {
    /// Prepares a kernel `[kh, kw, in_c / groups, out_c]` of the convolution `geometry` for the fastest path of this
    /// machine.
    ///
    /// # Panics
    /// If the kernel's length or the geometry is inconsistent.
    #[must_use]
    pub fn new(kernel_hwio: &[f32], geometry: &ConvGeometry) -> Self {
        Self::with_path(kernel_hwio, geometry, Path::detect())
    }

    /// As [`new`](Self::new), for a given path. Depthwise kernels always take the fastest.
    ///
    /// # Panics
    /// As `new`, and if this machine can't run the path.
    #[must_use]
    pub fn with_path(kernel_hwio: &[f32], geometry: &ConvGeometry, path: Path) -> Self {
        geometry.assert_valid();
        assert_eq!(kernel_hwio.len(), geometry.kernel_len(), "kernel length");
        let along = |axis: usize, size: usize| -> Vec<Phase> {
            let phases = (0..geometry.stride[axis].min(size)).map(|start| phase(geometry, axis, start));
            phases.filter(|phase| !phase.taps.is_empty()).collect()
        };
        let (rows, columns) = (along(0, geometry.in_h), along(1, geometry.in_w));
        let both = rows.iter().flat_map(|row| columns.iter().map(move |column| (row, column)));
        let passes = both.map(|(row, column)| pass(kernel_hwio, geometry, row, column, path)).collect();
        Self { geometry: geometry.clone(), passes }
    }

    /// Writes the gradient of one image's input, `[in_h, in_w, in_c]`, from that of its output, `[out_h, out_w, out_c]`.
    ///
    /// # Panics
    /// If a slice's length does not fit the geometry.
    pub fn run(&self, dy: &[f32], dx: &mut [f32]) {
        let g = &self.geometry;
        assert_eq!(dy.len(), g.output_len(), "gradient length");
        assert_eq!(dx.len(), g.input_len(), "result length");
        // What no output has seen.
        dx.fill(0.0);
        for pass in &self.passes {
            let (size, skipped, start) = (&pass.geometry, pass.skipped, pass.start);
            // A phase that is the whole image has its pixels where they belong.
            let whole = g.stride == [1, 1] && skipped == [0, 0];
            if whole {
                pass.sums(dy, |pixel, channel, sums| {
                    dx[pixel * g.in_c + channel..][..sums.len()].copy_from_slice(sums);
                });
            } else {
                pass.sums(dy, |pixel, channel, sums| {
                    let at = [pixel / size.out_w, pixel % size.out_w];
                    if at[0] >= skipped[0] && at[1] >= skipped[1] {
                        let y = start[0] + (at[0] - skipped[0]) * g.stride[0];
                        let x = start[1] + (at[1] - skipped[1]) * g.stride[1];
                        dx[(y * g.in_w + x) * g.in_c + channel..][..sums.len()].copy_from_slice(sums);
                    }
                });
            }
        }
    }
}

impl Pass {
    /// Hands every sum of the phase to `store(pixel, channel, sums)`.
    fn sums(&self, dy: &[f32], store: impl FnMut(usize, usize, &[f32])) {
        let pixels = 0..self.geometry.pixels();
        match &self.kernel {
            Kernel::Dense(packed) => conv_f32_with(packed, &self.geometry, dy, pixels, store),
            Kernel::Depthwise(kernel) => depthwise_f32_with(&self.geometry, kernel, dy, pixels, store),
        }
    }
}

fn pass(kernel: &[f32], g: &ConvGeometry, row: &Phase, column: &Phase, path: Path) -> Pass {
    let skipped = [row.first.max(0) as usize, column.first.max(0) as usize];
    let inputs = |axis: usize, size: usize, start: usize| (size - start).div_ceil(g.stride[axis]);
    let geometry = ConvGeometry {
        in_h: g.out_h,
        in_w: g.out_w,
        in_c: g.out_c,
        out_h: inputs(0, g.in_h, row.start) + skipped[0],
        out_w: inputs(1, g.in_w, column.start) + skipped[1],
        out_c: g.in_c,
        kernel: [row.taps.len(), column.taps.len()],
        stride: [1, 1],
        dilation: [row.step, column.step],
        pad_before: [(-row.first).max(0) as usize, (-column.first).max(0) as usize],
        groups: g.groups,
    };
    let (cin, cout) = (g.group_in(), g.group_out());
    let mut turned = vec![0.0; geometry.kernel_len()];
    let both = row.taps.iter().flat_map(|ky| column.taps.iter().map(move |kx| ky * g.kernel[1] + kx));
    for (tap, to) in both.zip(turned.chunks_exact_mut((cout * g.in_c).max(1))) {
        let from = &kernel[tap * cin * g.out_c..][..cin * g.out_c];
        for (o, to) in to.chunks_exact_mut(g.in_c).enumerate() {
            for (c, to) in to.iter_mut().enumerate() {
                *to = from[c % cin * g.out_c + c / cin * cout + o];
            }
        }
    }
    let depthwise = cin == 1 && cout == 1;
    let kernel = if depthwise {
        Kernel::Depthwise(turned)
    } else {
        Kernel::Dense(PackedF32::with_path(&turned, &geometry, path))
    };
    Pass { start: [row.start, column.start], skipped, geometry, kernel }
}
