//! Convolution kernels: f32 for calibration, int8 for bit-exact evaluation.
//!
//! One image at a time in NHWC, weights in HWIO (as Keras stores them), plain slices in and out. A caller spreads
//! images over threads; a large image can also be cut into ranges of output pixels.
//!
//! **Definition.** An f32 output is one chain of fused multiply-adds that starts at `+0.0` and runs over
//! `(ky, kx, cin)` in that order; taps that fall in the padding are *skipped*, they do not enter the chain as zeros.
//! The bias, if any, is added last and rounded by itself. An int8 output is the exact sum in i32 (wrapping beyond 31
//! bits, which takes more than 2^16 products). Every code path and every way of cutting the work keeps the chain
//! whole, so the bytes depend neither on the machine nor on the number of threads.
//!
//! **Method.** Implicit GEMM: weights are packed once into panels of 16 output channels; a tile of 6 output pixels
//! reads its activations straight from the image, tap by tap. No im2col copy is made. A finished tile goes to the
//! caller's *epilogue* while it is still in the first-level cache, so that bias, ReLU, requantization or statistics
//! cost no second pass over memory.
//!
//! **Paths.** Plain Rust, AVX2 and AVX-512 ([`Path`]); the fastest that the processor has runs, unless the environment's
//! `SHIFTWISE_SIMD` names one: `scalar`, `avx2` or `avx512`. Where the processor lacks the one that is named, the fastest below
//! it runs and the command says so; a name that no path has is an error of the command's.
//!
//! A dense layer is the 1×1 convolution of a 1×1 image; a batch of them is a 1×N image.

/// Expands to the call of `$module::$tile::<M, ...>` for the run-time count `$count` of pixels, at most six.
macro_rules! by_count {
    ($count:expr, $module:ident :: $tile:ident, [$($more:literal)?], $arguments:tt) => {
        match $count {
            1 => $module::$tile::<1 $(, $more)?> $arguments,
            2 => $module::$tile::<2 $(, $more)?> $arguments,
            3 => $module::$tile::<3 $(, $more)?> $arguments,
            4 => $module::$tile::<4 $(, $more)?> $arguments,
            5 => $module::$tile::<5 $(, $more)?> $arguments,
            _ => $module::$tile::<6 $(, $more)?> $arguments,
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod backward;
#[cfg(target_arch = "x86_64")]
mod columns;
mod conv;
mod depthwise;
mod finish;
mod lanes;
mod pack;
mod path;
mod plan;
mod scalar;
mod taps;
#[cfg(test)]
mod tests;

pub use conv::{
    Scratch, conv_f32, conv_f32_finish, conv_f32_to, conv_f32_with, conv_i8, conv_i8_finish, conv_i8_in, conv_i8_to,
    conv_i8_with,
};
pub use depthwise::{
    PackedDepthwiseI8, depthwise_f32, depthwise_f32_finish, depthwise_f32_to, depthwise_f32_with, depthwise_i8,
    depthwise_i8_finish, depthwise_i8_packed, depthwise_i8_to, depthwise_i8_with,
};
pub use finish::{FinishF32, FinishI8};
pub use lanes::{Lanes, on_lanes};
pub use pack::{PackedF32, PackedI8};
pub use path::{Choice, Path, SIMD, choice};

/// What becomes of finished sums while they are still in the first-level cache.
///
/// A closure is one. A type of its own whose [`store`](Self::store) is `#[inline(always)]` is sure to be compiled into
/// the kernel, for the vectors that the kernel has; a compiler may call a closure instead.
pub trait Epilogue<A> {
    /// Takes the sums of `sums.len()` channels of an output pixel, from `channel` on.
    fn store(&mut self, pixel: usize, channel: usize, sums: &[A]);
}

impl<A, F: FnMut(usize, usize, &[A])> Epilogue<A> for F {
    #[inline(always)]
    fn store(&mut self, pixel: usize, channel: usize, sums: &[A]) {
        self(pixel, channel, sums);
    }
}

/// Sizes of a convolution over one NHWC image. Pairs are `[vertical, horizontal]`.
///
/// The padding after the image is implied by the output size. For a depthwise convolution `groups` is `in_c` and
/// `out_c` is `in_c` times the channel multiplier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvGeometry {
    /// Rows of the input.
    pub in_h: usize,
    /// Columns of the input.
    pub in_w: usize,
    /// Channels of the input.
    pub in_c: usize,
    /// Rows of the output.
    pub out_h: usize,
    /// Columns of the output.
    pub out_w: usize,
    /// Channels of the output.
    pub out_c: usize,
    /// Taps of the kernel.
    pub kernel: [usize; 2],
    /// Input pixels from one output to the next.
    pub stride: [usize; 2],
    /// Input pixels from one tap to the next; 1 is dense.
    pub dilation: [usize; 2],
    /// Virtual rows and columns before the first of the input.
    pub pad_before: [usize; 2],
    /// Equal parts into which input and output channels are cut; part `g` of the output sees only part `g` of the
    /// input.
    pub groups: usize,
}

impl ConvGeometry {
    /// A dense layer applied to `rows` vectors: `[rows, inputs]` to `[rows, outputs]`.
    #[must_use]
    pub fn dense(rows: usize, inputs: usize, outputs: usize) -> Self {
        Self {
            in_h: 1,
            in_w: rows,
            in_c: inputs,
            out_h: 1,
            out_w: rows,
            out_c: outputs,
            kernel: [1, 1],
            stride: [1, 1],
            dilation: [1, 1],
            pad_before: [0, 0],
            groups: 1,
        }
    }

    /// Elements of the input image.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.in_h * self.in_w * self.in_c
    }

    /// Elements of the output image.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.pixels() * self.out_c
    }

    /// Output pixels.
    #[must_use]
    pub fn pixels(&self) -> usize {
        self.out_h * self.out_w
    }

    /// Elements of the kernel `[kh, kw, in_c / groups, out_c]`.
    #[must_use]
    pub fn kernel_len(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.group_in() * self.out_c
    }

    /// Multiply-adds of the layer, taps in the padding included.
    #[must_use]
    pub fn macs(&self) -> usize {
        self.pixels() * self.kernel_len()
    }

    /// Whether each output pixel sees the input pixel at its place and no other.
    pub(crate) fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1]
            && self.stride == [1, 1]
            && self.pad_before == [0, 0]
            && (self.in_h, self.in_w) == (self.out_h, self.out_w)
    }

    pub(crate) fn group_in(&self) -> usize {
        self.in_c / self.groups
    }

    pub(crate) fn group_out(&self) -> usize {
        self.out_c / self.groups
    }

    /// The contract of every kernel; a broken one is a bug of the caller, who has checked the model before.
    fn assert_valid(&self) {
        let positive = |pair: [usize; 2]| pair[0] > 0 && pair[1] > 0;
        assert!(positive(self.kernel) && positive(self.stride) && positive(self.dilation), "empty window: {self:?}");
        assert!(
            self.groups > 0 && self.in_c.is_multiple_of(self.groups) && self.out_c.is_multiple_of(self.groups),
            "channels are not a multiple of the groups: {self:?}"
        );
    }
}
