//! Convolutions: kernels packed once, biases in accumulator steps, one rounding at the end.

use shiftwise_core::arith::{Round, align_bias, requantize, shift_right};
use shiftwise_core::shape::Window;

use crate::engine::finish::{Finish, LEAKY, relu6_limit};
use crate::graph::{ConvKind, IntAct, IntConv, Kind};
use shiftwise_tensor::kernel;
use shiftwise_tensor::kernel::{ConvGeometry, Epilogue, FinishI8, PackedDepthwiseI8, PackedI8};

/// A convolution made ready.
#[derive(Debug)]
pub(super) struct Prepared {
    geometry: ConvGeometry,
    kernel: Packed,
    act: IntAct,
    out: Kind,
    finish: Finish,
    bias: Bias,
}

#[derive(Debug)]
enum Packed {
    Dense(PackedI8),
    /// Every input channel has a group of its own.
    Depthwise(PackedDepthwiseI8),
    /// As a product of matrices, whose sums are then spread over the window.
    Transposed(PackedI8, Spread),
}

/// Where the sums of a transposed convolution's taps go.
#[derive(Debug)]
struct Spread {
    window: Window,
    output: [usize; 3],
    width: usize,
}

/// Memory of steps' own.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    conv: kernel::Scratch,
    /// Accumulators.
    pub(super) sums: Vec<i32>,
    /// Operands in floats.
    pub(super) floats: Vec<f32>,
}

/// What is added to the sums.
#[derive(Debug)]
enum Bias {
    /// In accumulator steps with half an output step on top, so that a right shift alone rounds half up. No sum leaves 32
    /// bits with it, and the output is what is shifted, between two bounds.
    Shifted { bias: Vec<i32>, shift: u32 },
    /// In accumulator steps; no sum with its bias exceeds `bound`, which is within 32 bits.
    Narrow { bias: Vec<i32>, bound: i64 },
    /// Sums and biases in units of 2^(coarse − fine) accumulator steps.
    Wide {
        /// Bias times 1, and times the slope of a LeakyReLU.
        bias: Vec<[i64; 2]>,
        fine: u32,
        coarse: u32,
        /// Right shift that remains.
        cut: i32,
    },
}

impl Prepared {
    pub(super) fn new(c: &IntConv, kind: ConvKind, out: Kind) -> Self {
        let long = |p: [u16; 2]| p.map(usize::from);
        let [h, w, ic] = c.input;
        let taps = usize::from(c.window.kernel[0]) * usize::from(c.window.kernel[1]);
        let whole = ConvGeometry {
            in_h: h,
            in_w: w,
            in_c: ic,
            out_h: c.output[0],
            out_w: c.output[1],
            out_c: c.output[2],
            kernel: long(c.window.kernel),
            stride: long(c.window.stride),
            dilation: long(c.window.dilation),
            pad_before: long(c.window.pad_before),
            groups: if kind == ConvKind::Depthwise { ic } else { c.groups },
        };
        let (geometry, kernel) = match kind {
            ConvKind::Transposed => {
                // Each pixel times all taps first: one product of matrices, [pixels, ic] · [ic, taps · oc].
                let geometry = ConvGeometry::dense(h * w, ic, taps * c.output[2]);
                let mut kernel = vec![0; c.kernel.len()];
                for (at, row) in c.kernel.chunks_exact(c.output[2].max(1)).enumerate() {
                    let (tap, i) = (at / ic.max(1), at % ic.max(1));
                    kernel[(i * taps + tap) * row.len()..][..row.len()].copy_from_slice(row);
                }
                let packed = PackedI8::new(&kernel, &geometry);
                (geometry, Packed::Transposed(packed, Spread { window: c.window, output: c.output, width: w }))
            }
            ConvKind::Dense | ConvKind::Depthwise if whole.groups < ic || ic == 1 => {
                let packed = PackedI8::new(&c.kernel, &whole);
                (whole, Packed::Dense(packed))
            }
            ConvKind::Dense | ConvKind::Depthwise => {
                let packed = PackedDepthwiseI8::new(&c.kernel, &whole);
                (whole, Packed::Depthwise(packed))
            }
        };
        let finish = Finish::new(c.shift_cut, c.act, out);
        Self { geometry, kernel, act: c.act, out, finish, bias: Bias::new(c) }
    }

    /// One sample's result.
    pub(super) fn run(&self, input: &[i8], y: &mut [i8], scratch: &mut Scratch) {
        let Self { act, out, finish, .. } = *self;
        match &self.bias {
            Bias::Shifted { bias, shift } => {
                let (low, high) = finish.bounds();
                self.run_shifted(input, scratch, FinishI8 { bias, shift: *shift, low, high }, y);
            }
            bias @ (Bias::Narrow { .. } | Bias::Wide { .. }) => {
                let channels = bias.channels();
                self.run_to(input, scratch, Store { bias, finish, act, out, channels, y });
            }
        }
    }

    /// [`Self::run_to`] for what kernels do themselves.
    fn run_shifted(&self, input: &[i8], scratch: &mut Scratch, finish: FinishI8<'_>, y: &mut [i8]) {
        match &self.kernel {
            Packed::Dense(packed) => {
                kernel::conv_i8_finish(&mut scratch.conv, packed, &self.geometry, input, finish, y);
            }
            Packed::Depthwise(packed) => kernel::depthwise_i8_finish(packed, input, finish, y),
            Packed::Transposed(..) => {
                let channels = finish.bias.len();
                let store = |pixel: usize, channel: usize, sums: &[i32]| {
                    let y = &mut y[pixel * channels + channel..][..sums.len()];
                    y.iter_mut().zip(sums).enumerate().for_each(|(i, (y, sum))| *y = finish.one(channel + i, *sum));
                };
                self.run_to(input, scratch, store);
            }
        }
    }

    fn run_to(&self, input: &[i8], scratch: &mut Scratch, mut store: impl Epilogue<i32>) {
        let all = 0..self.geometry.pixels();
        match &self.kernel {
            Packed::Dense(packed) => {
                kernel::conv_i8_in(&mut scratch.conv, packed, &self.geometry, input, all, store);
            }
            Packed::Depthwise(packed) => kernel::depthwise_i8_packed(packed, input, store),
            Packed::Transposed(packed, spread) => {
                self.scatter(packed, spread, input, scratch);
                let [h, w, channels] = spread.output;
                let sums = &scratch.sums[..h * w * channels];
                for (pixel, sums) in sums.chunks_exact(channels.max(1)).enumerate() {
                    store.store(pixel, 0, sums);
                }
            }
        }
    }

    /// The sums of a transposed convolution: what each pixel gives to each tap, added where the tap falls.
    fn scatter(&self, packed: &PackedI8, spread: &Spread, input: &[i8], scratch: &mut Scratch) {
        let Spread { window, output: [oh, ow, oc], width } = spread;
        let (oh, ow, oc, kw) = (*oh, *ow, *oc, usize::from(window.kernel[1]));
        let len = oh * ow * oc;
        scratch.sums.resize(scratch.sums.len().max(len), 0);
        let sums = &mut scratch.sums[..len];
        sums.fill(0);
        let at = |axis: usize, pixel: usize, tap: usize, size: usize| {
            let full = pixel * usize::from(window.stride[axis]) + tap * usize::from(window.dilation[axis]);
            full.checked_sub(window.pad_before[axis].into()).filter(|o| *o < size)
        };
        let pixels = 0..self.geometry.pixels();
        let spread = |pixel: usize, first: usize, part: &[i32]| {
            // A piece may begin in the middle of one tap and reach into the next ones.
            let (mut tap, mut channel, mut rest) = (first / oc, first % oc, part);
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(oc - channel));
                if let Some(y) = at(0, pixel / width, tap / kw, oh)
                    && let Some(x) = at(1, pixel % width, tap % kw, ow)
                {
                    let to = &mut sums[(y * ow + x) * oc + channel..][..now.len()];
                    to.iter_mut().zip(now).for_each(|(to, sum)| *to = to.wrapping_add(*sum));
                }
                (tap, channel, rest) = (tap + 1, 0, later);
            }
        };
        kernel::conv_i8_in(&mut scratch.conv, packed, &self.geometry, input, pixels, spread);
    }
}

impl Bias {
    fn channels(&self) -> usize {
        match self {
            Self::Shifted { bias, .. } | Self::Narrow { bias, .. } => bias.len(),
            Self::Wide { bias, .. } => bias.len(),
        }
    }

    fn new(c: &IntConv) -> Self {
        let channels = c.output[2];
        let bias = |o: usize| c.bias.as_ref().map_or(0, |b| i64::from(b[o]));
        let leaky = c.act == IntAct::LeakyRelu;
        // Products are below 2^14 + 1 and no layer that runs in 32 bits has more than 2^16 of them.
        let products = 128 * 128 * (c.kernel.len() / channels.max(1)) as i64;
        // What is finer than the accumulator folds into it where nothing but a right shift follows.
        let folds = c.shift_bias >= 0 || c.shift_cut >= 0 && !leaky;
        if folds && c.shift_bias <= 23 {
            let aligned: Vec<i64> = (0..channels).map(|o| align_bias(bias(o), c.shift_bias, c.shift_cut)).collect();
            let bound = aligned.iter().map(|b| b.abs()).max().unwrap_or(0) + products;
            if let Ok(shift @ 0..31) = u32::try_from(c.shift_cut)
                && !leaky
                && bound + (1 << shift) / 2 <= i32::MAX.into()
            {
                let half = (1 << shift) / 2;
                return Self::Shifted { bias: aligned.into_iter().map(|b| (b + half) as i32).collect(), shift };
            }
            if bound <= i32::MAX.into() {
                return Self::Narrow { bias: aligned.into_iter().map(|b| b as i32).collect(), bound };
            }
        }
        // Two shifts that are both large leave of the sum its highest bits only, rounded down, which decides the same.
        let coarse = (c.shift_bias.min(c.shift_cut) - 30).max(0);
        let cut = c.shift_cut - coarse;
        // A bias of 44 bits or more decides alone which end of the output's range it is.
        let left = (c.shift_bias - coarse).min(44);
        // What is below the bit that is rounded decides nothing; without a rounding every bit counts.
        let fine = (-left).clamp(0, (1 - cut).max(20));
        let grow = left + fine;
        let align = |b: i64| if grow >= 0 { b << grow } else { shift_right(b, grow.unsigned_abs(), Round::Floor) };
        let bias = (0..channels).map(|o| [align(bias(o)), align(bias(o) * i64::from(LEAKY))]).collect();
        Self::Wide { bias, fine: fine as u32, coarse: coarse as u32, cut: cut + fine }
    }
}

/// Sums to outputs.
struct Store<'a> {
    bias: &'a Bias,
    finish: Finish,
    act: IntAct,
    out: Kind,
    channels: usize,
    y: &'a mut [i8],
}

impl Epilogue<i32> for Store<'_> {
    #[inline(always)]
    fn store(&mut self, pixel: usize, channel: usize, sums: &[i32]) {
        let y = &mut self.y[pixel * self.channels + channel..][..sums.len()];
        match self.bias {
            // Stored by `run_shifted`.
            Bias::Shifted { .. } => {}
            Bias::Narrow { bias, bound } => {
                let bias = &bias[channel..][..sums.len()];
                // Exact: see `bound`.
                self.finish.each(*bound, sums.iter().zip(bias).map(|(sum, bias)| sum.wrapping_add(*bias)), y);
            }
            Bias::Wide { bias, fine, coarse, cut } => {
                for ((y, sum), bias) in y.iter_mut().zip(sums).zip(&bias[channel..]) {
                    *y = wide(*sum, *bias, (*fine, *coarse, *cut), self.act, self.out);
                }
            }
        }
    }
}

/// A sum and what [`Bias::Wide`] has for its channel to an output.
#[inline(never)]
fn wide(sum: i32, [bias, sloped]: [i64; 2], (fine, coarse, cut): (u32, u32, i32), act: IntAct, out: Kind) -> i8 {
    let scaled = |factor: i64| {
        let sum = factor * i64::from(sum);
        // A sum that saturates here is beyond the output's range as well.
        let fine = 1i64.checked_shl(fine).filter(|f| *f > 0);
        let sum = fine.map_or(sum.signum() * i64::MAX, |f| sum.saturating_mul(f));
        shift_right(sum, coarse, Round::Floor)
    };
    let acc = scaled(1).saturating_add(bias);
    let i8 = |acc: i64, shift: i32| requantize(acc, shift, Round::HalfUp, 8, true) as i8;
    match act {
        IntAct::None => i8(acc, cut),
        IntAct::LeakyRelu if acc < 0 => i8(scaled(LEAKY.into()).saturating_add(sloped), cut + 8),
        IntAct::LeakyRelu => i8(acc, cut),
        IntAct::Relu => i8(acc.max(0), cut),
        IntAct::Relu6 => i8(acc.max(0), cut).min(relu6_limit(out)),
    }
}
