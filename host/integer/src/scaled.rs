//! Ops on integers with steps of any size: what a float scale quantizes to, and integers of 16 bits.
//!
//! Every result is an accumulator, requantized by a [`Multiplier`], moved to the result's zero point, and kept within
//! bounds that a ReLU has narrowed. An operand with 8-bit integers of a position is one whose zero point is 0.

use shiftwise_core::model::MAX_OPERANDS;
use shiftwise_core::scale::{Multiplier, Scale, fits};
use shiftwise_core::shape::Window;

/// What one output channel of a convolution adds, and how it is requantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Bias in steps of the sum.
    pub bias: i64,
    /// From the steps of the sum to those of the result.
    pub multiplier: Multiplier,
}

/// Convolution, dense layer, depthwise (as many groups as input channels) or transposed convolution.
#[derive(Clone, Debug)]
pub struct ScaledConv {
    /// Taps, strides, padding, dilation.
    pub window: Window,
    /// Input read as `[h, w, c]`.
    pub input: [usize; 3],
    /// Output as `[h, w, c]`.
    pub output: [usize; 3],
    /// Weights `[kh, kw, ic / groups, oc]`, their zero points taken off.
    pub kernel: Vec<i16>,
    /// Equal parts of channels that see only each other; 1 for transposed.
    pub groups: usize,
    /// Whether outputs are spread over the window.
    pub transposed: bool,
    /// One for each output channel.
    pub channels: Vec<Channel>,
    /// Smallest and largest result.
    pub bounds: [i16; 2],
}

/// What pooling takes of its window; padding is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaledPooling {
    /// The largest value.
    Max,
    /// The sum of as many values as the window has taps.
    Sum,
    /// The sum of the values that the window meets, with a multiplier for each count.
    Counted,
}

/// An op on integers with steps of any size.
#[derive(Clone, Debug)]
pub enum ScaledOp {
    /// Convolution or dense layer.
    Conv(ScaledConv),
    /// Pooling.
    Pool {
        /// Geometry.
        window: Window,
        /// What is taken of it.
        pooling: ScaledPooling,
        /// One; of a counted average one for each number of values from 1.
        multipliers: Vec<Multiplier>,
        /// Smallest and largest result.
        bounds: [i16; 2],
    },
    /// `(Σ (x_i − zero_i) · factors[i] + 2^(n−1)) >> n`. Of one operand it is a requantization, maybe with an activation.
    Sum {
        /// One for each operand.
        factors: Vec<u32>,
        /// Right shift, 1..=62.
        n: u8,
        /// Smallest and largest result.
        bounds: [i16; 2],
    },
    /// Product of two operands, which broadcast as in numpy.
    Product {
        /// From the product's steps to the result's.
        multiplier: Multiplier,
        /// Smallest and largest result.
        bounds: [i16; 2],
    },
    /// Operands behind each other along one axis of the sample's shape.
    Concat {
        /// Axis, counted from 0 without the batch.
        axis: usize,
        /// One for each operand.
        multipliers: Vec<Multiplier>,
        /// Smallest and largest result.
        bounds: [i16; 2],
    },
}

impl ScaledOp {
    /// A short name, for tables and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Conv(c) if c.transposed => "scaled conv_transpose",
            Self::Conv(c) if c.groups > 1 && c.groups == c.input[2] => "scaled depthwise",
            Self::Conv(_) => "scaled conv",
            Self::Pool { pooling: ScaledPooling::Max, .. } => "scaled max_pool",
            Self::Pool { pooling: ScaledPooling::Sum | ScaledPooling::Counted, .. } => "scaled average_pool",
            Self::Sum { factors, .. } if factors.len() == 1 => "scaled requantize",
            Self::Sum { .. } => "scaled add",
            Self::Product { .. } => "scaled multiply",
            Self::Concat { .. } => "scaled concat",
        }
    }

    /// Multiply-accumulates as the user counts them.
    pub fn macs(&self) -> u64 {
        match self {
            Self::Conv(c) if c.transposed => (c.input[0] * c.input[1] * c.kernel.len()) as u64,
            Self::Conv(c) => (c.output[0] * c.output[1] * c.kernel.len()) as u64,
            Self::Pool { .. } | Self::Sum { .. } | Self::Product { .. } | Self::Concat { .. } => 0,
        }
    }

    /// Number of operands.
    pub fn operands(&self) -> usize {
        match self {
            Self::Conv(_) | Self::Pool { .. } => 1,
            Self::Sum { factors, .. } => factors.len(),
            Self::Product { .. } => 2,
            Self::Concat { multipliers, .. } => multipliers.len(),
        }
    }

    /// Smallest and largest result.
    pub fn bounds(&self) -> [i16; 2] {
        match self {
            Self::Conv(c) => c.bounds,
            Self::Pool { bounds, .. }
            | Self::Sum { bounds, .. }
            | Self::Product { bounds, .. }
            | Self::Concat { bounds, .. } => *bounds,
        }
    }

    /// Whether no accumulator of operands on these grids, times its multiplier, leaves 62 bits.
    pub fn is_exact(&self, operands: &[Scale]) -> bool {
        let reach = |k: usize| operands.get(k).map_or(0, |s| u64::from(s.reach()));
        let exact = |bound: Option<u64>, m: &Multiplier| bound.is_some_and(|bound| fits(bound, m.m, m.n));
        match self {
            Self::Conv(c) => {
                let sums = c.sums_of_weights();
                sums.iter().zip(&c.channels).all(|(sum, channel)| {
                    let products = sum.checked_mul(reach(0));
                    exact(products.and_then(|p| p.checked_add(channel.bias.unsigned_abs())), &channel.multiplier)
                })
            }
            Self::Pool { window, pooling, multipliers, .. } => {
                let taps = window.kernel.map(u64::from).iter().product();
                let values = if *pooling == ScaledPooling::Max { 1 } else { taps };
                multipliers.iter().all(|m| exact(reach(0).checked_mul(values), m))
            }
            Self::Sum { factors, n, .. } => {
                let products = factors.iter().enumerate().map(|(k, m)| reach(k) * u64::from(*m)).sum::<u64>();
                (1..=62).contains(n) && factors.len() <= MAX_OPERANDS && products + (1 << 61) <= 1 << 62
            }
            Self::Product { multiplier, .. } => exact(Some(reach(0) * reach(1)), multiplier),
            Self::Concat { multipliers, .. } => multipliers.iter().enumerate().all(|(k, m)| exact(Some(reach(k)), m)),
        }
    }
}

impl ScaledConv {
    /// Whether a weight takes two bytes.
    pub fn is_wide(&self) -> bool {
        self.kernel.iter().any(|w| i8::try_from(*w).is_err())
    }

    /// Σ |w| of each output channel.
    pub fn sums_of_weights(&self) -> Vec<u64> {
        let mut sums = vec![0u64; self.output[2]];
        for row in self.kernel.chunks_exact(self.output[2].max(1)) {
            sums.iter_mut().zip(row).for_each(|(sum, w)| *sum += u64::from(w.unsigned_abs()));
        }
        sums
    }

    /// Weights `[oc][kh][kw][ic / groups]`: those of one output behind each other.
    pub fn by_output(&self) -> Vec<i16> {
        let oc = self.output[2].max(1);
        (0..oc).flat_map(|o| self.kernel.iter().skip(o).step_by(oc).copied()).collect()
    }
}
