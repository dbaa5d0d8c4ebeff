//! The power-of-two quantizer on whole tensors: range, position, fake quantization.
//!
//! The arithmetic is f32 in the order of the vendor's tool as TensorFlow executes it inside a graph, where division by
//! a constant has become multiplication by its f32 reciprocal. Sums over a tensor are f64 in fixed blocks, so the
//! result doesn't depend on the number of threads.

use rayon::prelude::*;

use crate::quant_graph::{Fit, Method, Pof2Params};
use grid::Grid;
use shiftwise_core::fix::FixPos;
use shiftwise_tensor::tensor::Tensor;

mod fix_neuron;
mod grid;

/// Elements that one task works on; also the block of a deterministic sum.
const BLOCK: usize = 1 << 14;

/// Why a tensor has no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// A value is NaN or infinite.
    #[error("a value is not finite")]
    NotFinite,
    /// Unsigned symmetric quantization of a negative value.
    #[error("input tensor values should be non-negative in symmetric unsigned quantization")]
    Negative,
}

/// Smallest and largest value; (+∞, −∞) for an empty tensor.
///
/// Errors: a value that is not finite.
pub fn extrema(data: &[f32]) -> Result<(f32, f32), RangeError> {
    let join = |a: (f32, f32, f32), b: (f32, f32, f32)| (a.0.min(b.0), a.1.max(b.1), a.2 + b.2);
    let (low, high, bad) =
        data.par_chunks(BLOCK).map(grid::extrema).reduce(|| (f32::INFINITY, f32::NEG_INFINITY, 0.0), join);
    if bad.is_nan() { Err(RangeError::NotFinite) } else { Ok((low, high)) }
}

/// The range that the vendor's tool stores, from the raw extrema.
pub fn range((low, high): (f32, f32), p: &Pof2Params) -> Result<(f32, f32), RangeError> {
    if p.symmetry && p.unsigned && low < 0.0 {
        return Err(RangeError::Negative);
    }
    Ok(if !p.symmetry || p.unsigned {
        (low.min(0.0), high.max(0.0))
    } else if p.narrow_range {
        (low.min(-high), high.max(-low))
    } else {
        let steps = f64::from(p.bit_width).exp2();
        let ratio = (-(steps - 2.0) / steps) as f32;
        (low.min(high * (1.0 / ratio)), high.max(low * ratio))
    })
}

/// The finest position at which nothing of the range overflows.
///
/// `floor(−ln(step) / ln 2)` in f32, including its artefacts: an exact power of two may give one less, an all-zero
/// tensor gives 51.
pub fn non_overflow((low, high): (f32, f32), p: &Pof2Params) -> i32 {
    let (qmin, qmax) = p.bounds();
    let step = if !p.symmetry {
        (high - low) * (1.0 / (qmax - qmin))
    } else if p.unsigned {
        high * (1.0 / qmax)
    } else {
        (low * (1.0 / qmin)).max(high * (1.0 / qmax))
    };
    let step = step.max(f32::EPSILON * f32::EPSILON * 0.015_625);
    // Reciprocal of ln 2 as f32(1 / f32(ln 2)).
    let per_ln2 = f32::from_bits(0x3FB8_AA3B);
    // The f64 logarithm rounded to f32 is the correctly rounded f32 logarithm, on every platform alike.
    let ln = libm::log(f64::from(step)) as f32;
    (-ln * per_ln2).floor() as i32
}

/// How the elements of a tensor fall into channels: element `i` belongs to channel `i / inner % count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// Number of channels.
    pub count: usize,
    inner: usize,
}

impl Channels {
    /// The channels of a tensor of this shape along `axis`, negative ones counted from the end. In a vector every element
    /// is a channel of its own, as in the vendor's tool; and so are all of a tensor that lacks the axis.
    pub fn of(shape: &[usize], axis: i64) -> Self {
        let rank = shape.len() as i64;
        let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok().filter(|a| *a < shape.len());
        match axis {
            Some(axis) if rank > 1 => Self { count: shape[axis], inner: shape[axis + 1..].iter().product() },
            _ => Self { count: shape.iter().product(), inner: 1 },
        }
    }

    /// The channel of an element.
    pub fn of_element(self, i: usize) -> usize {
        i / self.inner.max(1) % self.count.max(1)
    }

    /// The shape of a variable with one value for each channel: the tensor's, with 1 at every other axis.
    pub fn variable_shape(shape: &[usize], axis: i64) -> Vec<usize> {
        let rank = shape.len() as i64;
        let axis = if axis < 0 { axis + rank } else { axis };
        match rank {
            0 | 1 => shape.to_vec(),
            _ => shape.iter().enumerate().map(|(i, d)| if i as i64 == axis { *d } else { 1 }).collect(),
        }
    }

    fn split(self, data: &[f32]) -> Vec<Vec<f32>> {
        let mut all = vec![Vec::with_capacity(data.len() / self.count.max(1)); self.count];
        data.iter().enumerate().for_each(|(i, x)| all[self.of_element(i)].push(*x));
        all
    }
}

/// Position and range of one tensor by the quantizer's method: one fit, or one for each channel.
pub fn calibrate(tensor: &Tensor, p: &Pof2Params) -> Result<Vec<Fit>, RangeError> {
    let data = tensor.data();
    if p.fix_neuron() {
        return fix_neuron::calibrate(data, p).map(|fit| vec![fit]);
    }
    let first = |data: &[f32]| {
        let (min, max) = range(extrema(data)?, p)?;
        let pos = non_overflow((min, max), p).clamp(-128, 127);
        Ok(Fit { pos: FixPos(pos as i8), min, max })
    };
    let parts = match p.per_channel {
        true => Channels::of(tensor.shape(), p.channel_axis).split(data),
        false => Vec::new(),
    };
    let parts: Vec<&[f32]> = if p.per_channel { parts.iter().map(Vec::as_slice).collect() } else { vec![data] };
    let mut fits = parts.iter().map(|part| first(part)).collect::<Result<Vec<Fit>, _>>()?;
    if p.method() == Method::MinMse {
        // One offset for all channels, chosen by the error of the whole tensor.
        let mut errors = [0.0f64; 5];
        for (part, fit) in parts.iter().zip(&fits) {
            errors.iter_mut().zip(squared_errors(part, fit, p)).for_each(|(sum, e)| *sum += e);
        }
        // The first of equal minima wins.
        let best = (1..5).fold(0, |best, i| if errors[i] < errors[best] { i } else { best });
        fits.iter_mut().for_each(|fit| fit.pos.0 = fit.pos.0.saturating_add(best as i8));
    }
    Ok(fits)
}

/// Σ (x − fake-quantized x)² at the fit's position and the four finer ones, in one pass over the data.
fn squared_errors(data: &[f32], fit: &Fit, p: &Pof2Params) -> [f64; 5] {
    let grids: [Grid; 5] =
        std::array::from_fn(|i| Grid::new(&Fit { pos: FixPos(fit.pos.0.saturating_add(i as i8)), ..*fit }, p));
    let blocks: Vec<[f64; 5]> = data.par_chunks(BLOCK).map(|block| grid::squared_errors(block, &grids)).collect();
    blocks.iter().fold([0.0; 5], |sum, b| std::array::from_fn(|i| sum[i] + b[i]))
}

/// Replaces every value by its fake-quantized one: scaled, rounded, clamped to the integer range, scaled back.
///
/// `fits` has one entry, or one for each channel of the tensor.
pub fn fake_quantize(tensor: &mut Tensor, fits: &[Fit], p: &Pof2Params) {
    if p.per_channel {
        let channels = Channels::of(tensor.shape(), p.channel_axis);
        let grids: Vec<Grid> = fits.iter().map(|fit| Grid::new(fit, p)).collect();
        for (i, x) in tensor.data_mut().iter_mut().enumerate() {
            if let Some(grid) = grids.get(channels.of_element(i)) {
                grid.each(&[*x], |_, _, y| *x = y);
            }
        }
        return;
    }
    let Some(fit) = fits.first() else { return };
    if p.fix_neuron() {
        return fix_neuron::fake_quantize(tensor.data_mut(), fit.pos, p);
    }
    let grid = Grid::new(fit, p);
    tensor.data_mut().par_chunks_mut(BLOCK).for_each(|block| grid::fake_quantize(block, &grid));
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiftwise_core::fix;

    fn pof2(bit_width: u8, method: u8, round_mode: u8) -> Pof2Params {
        serde_json::from_value(
            serde_json::json!({ "bit_width": bit_width, "method": method, "round_mode": round_mode }),
        )
        .unwrap()
    }

    fn fit(data: &[f32], p: &Pof2Params) -> Result<Fit, RangeError> {
        calibrate(&Tensor::vector(data.to_vec()), p).map(|fits| fits[0])
    }

    fn pos(data: &[f32], p: &Pof2Params) -> i8 {
        fit(data, p).unwrap().pos.0
    }

    fn quantized(data: &[f32], fits: &[Fit], p: &Pof2Params) -> Vec<f32> {
        let mut tensor = Tensor::vector(data.to_vec());
        fake_quantize(&mut tensor, fits, p);
        tensor.into_data()
    }

    /// Values observed from the vendor's tool.
    #[test]
    fn non_overflow_positions() {
        let p = pof2(8, 0, 1);
        assert_eq!(pos(&[1.0], &p), 6);
        assert_eq!(pos(&[-1.0], &p), 7);
        assert_eq!(pos(&[0.5, -0.3, 0.9, -1.1], &p), 6);
        assert_eq!(pos(&[0.0; 4], &p), 51);
        assert_eq!(pos(&[], &p), 51);
        assert_eq!(pos(&[-0.015_625], &p), 12, "an exact power of two that the logarithm misses");
        assert_eq!(pos(&[0.1, -0.7], &pof2(16, 0, 1)), 15);
        assert_eq!(pos(&[1.0, -1.0], &pof2(4, 0, 1)), 2);
        let c = fit(&[0.5, -0.3, 0.9, -1.1], &p).unwrap();
        assert_eq!((c.min, c.max), (-1.1, 1.091_406_2));
    }

    #[test]
    fn min_mse_clips_one_outlier_for_a_finer_step() {
        let mut data: Vec<f32> = (0..99).map(|i| -0.49 + 0.01 * i as f32).collect();
        data.push(0.51);
        assert_eq!(pos(&data, &pof2(8, 0, 1)), 7);
        assert_eq!(pos(&data, &pof2(8, 1, 1)), 8);
    }

    #[test]
    fn vector_rounding_equals_the_specified_one() {
        for mode in 0..4 {
            let p = pof2(16, 0, mode);
            let data: Vec<f32> = (-70_000..70_000).map(|i| i as f32 * 0.3 + 0.499_999_97).collect();
            let fast = quantized(&data, &[Fit { pos: FixPos(1), ..Fit::default() }], &p);
            for (x, y) in data.iter().zip(&fast) {
                let want = fix::round_f32(x * 2.0, p.round()).clamp(-32768.0, 32767.0) / 2.0;
                assert_eq!(*y, want, "{x} mode {mode}");
            }
        }
    }

    #[test]
    fn bad_values_are_refused() {
        assert_eq!(fit(&[1.0, f32::NAN], &pof2(8, 0, 1)), Err(RangeError::NotFinite));
        assert_eq!(fit(&[f32::INFINITY], &pof2(8, 0, 1)), Err(RangeError::NotFinite));
        let unsigned = Pof2Params { unsigned: true, ..pof2(8, 0, 1) };
        assert_eq!(fit(&[-1.0], &unsigned), Err(RangeError::Negative));
        assert_eq!(pos(&[0.0, 0.5, 1.0], &unsigned), 7);
    }

    /// Values observed from the vendor's tool.
    #[test]
    fn an_asymmetric_range_is_moved_so_that_zero_is_on_the_grid() {
        let p = Pof2Params { symmetry: false, ..pof2(8, 0, 1) };
        let data = [-0.2, 0.5, 1.0];
        let fit = fit(&data, &p).unwrap();
        assert_eq!(fit.pos.0, 7);
        assert_eq!(quantized(&data, &[fit], &p), [-0.203_125, 0.5, 1.0]);
    }

    #[test]
    fn channels_have_positions_of_their_own_and_one_offset() {
        let p = Pof2Params { per_channel: true, ..pof2(8, 1, 0) };
        let tensor = Tensor::new(vec![2, 3], vec![1.0, 0.01, 0.0, -0.5, 0.02, 0.0]).unwrap();
        let fits = calibrate(&tensor, &p).unwrap();
        let plain = calibrate(&tensor, &Pof2Params { method: 0, ..p.clone() }).unwrap();
        let offsets: Vec<i8> = fits.iter().zip(&plain).map(|(a, b)| a.pos.0 - b.pos.0).collect();
        assert!(offsets.iter().all(|o| *o == offsets[0]), "{offsets:?}");
        assert_eq!(plain.iter().map(|f| f.pos.0).collect::<Vec<_>>(), [6, 12, 51]);
        assert_eq!(Channels::of(&[3, 3, 8, 1], 2), Channels { count: 8, inner: 1 });
        assert_eq!(Channels::of(&[5], -1), Channels { count: 5, inner: 1 });
        assert_eq!(Channels::variable_shape(&[3, 3, 8, 4], -1), [1, 1, 1, 4]);
    }
}
