//! Block floating point: a few neighbours along an axis share one exponent, and each keeps a few bits of its own.
//!
//! A quantizer of this scheme learns nothing from data: the exponents are those of the values that it is given. The
//! arithmetic is f32 as TensorFlow executes it inside a graph; the gradient is passed straight through.
//!
//! | format | a block | its values |
//! |---|---|---|
//! | `fp32` | | unchanged |
//! | `bf16` | | the nearest bfloat16, ties to even |
//! | `bfp` | `tile_size` values with the exponent e of the largest magnitude | multiples of 2^(e − bit_width + 10) |
//! | `msfp` | 12 values with an exponent, in pairs that may be finer by one bit | multiples of 2^(e − bit_width + 10) |
//!
//! Values are rounded (`round_mode`; `msfp` always half away from zero), then saturate one step below the block's next
//! power of two. What is not finite stays as it is and has no part in the exponent.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::observer::range_error::RangeError;
use crate::scheme::interface::{Calibrator, Numbers, Part, Scheme, Sheet, Subject};
use shiftwise_core::arith::Round;
use shiftwise_core::fix::{FixPos, exp2, round_f32};
use shiftwise_tensor::half;
use shiftwise_tensor::tensor::Tensor;

/// Values along an axis of which a `msfp` block is made: six pairs, where the vendor's text says sixteen values.
const BOX: usize = 12;

/// Values of a `msfp` block that have one more bit of exponent for themselves.
const PAIR: usize = 2;

/// Exponents are those of the magnitude and this, 2^−23: none is smaller than −23.
const EPSILON: f32 = f32::EPSILON;

pub(super) const SHEET: Sheet = Sheet {
    title: "Block floating point",
    formula: "`bfp`: m · s with s = 2^(e − bit_width + 10), e = floor(ln(a + 2^−23) / ln 2) in f32, a the largest magnitude \
              of `tile_size` neighbours along `channel_axis`; `msfp`: the same over 12 neighbours, of which each pair may \
              have an exponent smaller by one; `bf16`: the nearest bfloat16; `fp32`: x",
    rounding: "`round_mode`; half away from zero in `msfp`, half to even in `bf16`",
    saturation: "one step below 2^(e + 1), behind rounding; what is not finite stays and has no part in e",
    calibration: "nothing is learned",
    gradient: "passed straight through",
    source: "the vendor's tool; tests `number_formats` (element by element) and `golden`",
};

/// How values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Not quantized.
    Fp32,
    /// The upper half of an f32.
    Bf16,
    /// One exponent for each block.
    Bfp,
    /// One exponent for each block, and a bit of it for each pair.
    Msfp,
}

/// Settings, with the vendor's key names and order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// See [`Format`].
    #[serde(default = "fp32")]
    pub data_format: Format,
    /// Values of a `bfp` block.
    #[serde(default = "eight")]
    pub tile_size: u32,
    /// Width: a sign, eight bits of exponent, and the rest for the magnitude.
    #[serde(default = "sixteen")]
    pub bit_width: u8,
    /// Not used.
    #[serde(default)]
    pub method: u8,
    /// See [`Round`].
    #[serde(default = "half_up")]
    pub round_mode: u8,
    /// Not used.
    #[serde(default = "yes")]
    pub symmetry: bool,
    /// Not used.
    #[serde(default)]
    pub per_channel: bool,
    /// The axis along which values are neighbours; negative ones are counted from the end.
    #[serde(default = "last_axis")]
    pub channel_axis: i64,
    /// Not used.
    #[serde(default = "yes")]
    pub use_framework_quant: bool,
    /// Not used.
    #[serde(default)]
    pub narrow_range: bool,
    /// Not used.
    #[serde(default = "most")]
    pub method_percentile: f64,
}

fn fp32() -> Format {
    Format::Fp32
}

fn eight() -> u32 {
    8
}

fn sixteen() -> u8 {
    16
}

fn half_up() -> u8 {
    Round::HalfUp.id()
}

fn yes() -> bool {
    true
}

fn last_axis() -> i64 {
    -1
}

fn most() -> f64 {
    99.99
}

impl Params {
    /// Refuses what makes no sense, as the first part of a sentence.
    fn check(&self) -> Result<(), String> {
        let bits = self.bit_width;
        match self.data_format {
            _ if self.round_mode > 3 => Err(format!("round mode outside 0..3: {}", self.round_mode)),
            Format::Bfp if !(10..=32).contains(&bits) => {
                Err(format!("bit width outside 10..32: {bits}, data_format bfp,"))
            }
            Format::Bfp if self.tile_size == 0 => Err("tile size of 0".into()),
            Format::Msfp if ![11, 13, 16].contains(&bits) => {
                Err(format!("bit width other than 11, 13 or 16: {bits}, data_format msfp,"))
            }
            Format::Fp32 | Format::Bf16 | Format::Bfp | Format::Msfp => Ok(()),
        }
    }

    /// Bits of a magnitude.
    fn mantissa(&self) -> i32 {
        i32::from(self.bit_width) - 9
    }

    /// Values along the axis that a block is made of.
    fn block(&self) -> usize {
        match self.data_format {
            Format::Bfp => self.tile_size as usize,
            Format::Msfp => BOX,
            Format::Fp32 | Format::Bf16 => 1,
        }
    }
}

/// A block floating point quantizer.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Settings.
    pub params: Params,
}

impl Scheme for Block {
    fn from_parameters(class: &str, parameters: Value) -> Result<Self, String> {
        let params: Params = crate::scheme::interface::settings(class, parameters)?;
        match params.check() {
            Ok(()) => Ok(Self { params }),
            Err(bad) => Err(format!("{bad} of a {class}")),
        }
    }

    fn parameters(&self) -> Map<String, Value> {
        match json!(self.params) {
            Value::Object(all) => all,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
        }
    }

    /// The vendor's class leaves out what it has no use for.
    fn config(&self) -> Map<String, Value> {
        let all = self.parameters();
        let keys = [
            "bit_width",
            "method",
            "round_mode",
            "symmetry",
            "per_channel",
            "channel_axis",
            "data_format",
            "tile_size",
        ];
        keys.into_iter().filter_map(|key| Some((key.to_owned(), all.get(key)?.clone()))).collect()
    }

    fn set_width(&mut self, bits: u8) {
        self.params.bit_width = bits;
    }

    fn channel_axis(&self) -> Option<i64> {
        None
    }

    fn learns(&self) -> bool {
        false
    }

    fn calibrator(&self) -> Box<dyn Calibrator<Self>> {
        Box::new(self.clone())
    }

    fn fake_quantize(&self, tensor: &mut Tensor) {
        fake_quantize(tensor, &self.params);
    }

    fn pos(&self) -> Option<FixPos> {
        None
    }

    fn set_pos(&mut self, _: FixPos) {}

    fn parts(&self) -> Vec<Part> {
        Vec::new()
    }

    fn restore(&mut self, _: &str, _: Vec<Numbers>) -> Result<(), String> {
        Ok(())
    }

    fn info(&self) -> Map<String, Value> {
        let p = &self.params;
        let all = [
            ("bit_width", json!(p.bit_width)),
            ("signed", json!(true)),
            ("round_mode", json!(p.round_mode)),
            ("data_format", json!(p.data_format)),
            ("tile_size", json!(p.tile_size)),
        ];
        all.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

/// There is nothing to learn.
impl Calibrator<Block> for Block {
    fn see(&mut self, _: &Tensor) -> Result<(), RangeError> {
        Ok(())
    }

    fn fake_quantize(&self, tensor: &mut Tensor) {
        Scheme::fake_quantize(self, tensor);
    }

    fn finish(self: Box<Self>, _: Subject<'_, Block>) -> Result<Block, RangeError> {
        Ok(*self)
    }
}

/// Replaces every value by its fake-quantized one.
fn fake_quantize(tensor: &mut Tensor, p: &Params) {
    let grid: fn(&mut [f32], &Params) = match p.data_format {
        Format::Fp32 => return,
        Format::Bf16 => |values, _| values.iter_mut().for_each(|x| *x = half::bf16(*x)),
        Format::Bfp => |block, p| bfp(block, p),
        Format::Msfp => |block, p| msfp(block, p),
    };
    let shape = tensor.shape();
    let axis = if p.channel_axis < 0 { p.channel_axis + shape.len() as i64 } else { p.channel_axis };
    let axis = usize::try_from(axis).ok().filter(|axis| *axis < shape.len());
    // A tensor that lacks the axis is one row.
    let row = axis.map_or(tensor.data().len(), |axis| shape[axis]).max(1);
    let inner: usize = axis.map_or(1, |axis| shape[axis + 1..].iter().product());
    let block = p.block();
    if inner == 1 {
        tensor.data_mut().par_chunks_mut(row).for_each(|row| {
            row.chunks_mut(block).for_each(|block| grid(block, p));
        });
        return;
    }
    tensor.data_mut().par_chunks_mut(row * inner).for_each(|rows| {
        let mut own = vec![0.0; row];
        for k in 0..inner {
            own.iter_mut().zip(rows[k..].iter().step_by(inner)).for_each(|(own, x)| *own = *x);
            own.chunks_mut(block).for_each(|block| grid(block, p));
            rows[k..].iter_mut().step_by(inner).zip(&own).for_each(|(x, own)| *x = *own);
        }
    });
}

/// The largest magnitude among the finite values; 0 if there is none.
fn largest(values: &[f32]) -> f32 {
    values.iter().filter(|x| x.is_finite()).fold(0.0, |most, x| most.max(x.abs()))
}

/// The exponent of a magnitude: `floor(ln(v + 2^−23) / ln 2)` in f32, including what its roundings make of values next to
/// powers of two.
fn exponent(magnitude: f32) -> i32 {
    // Reciprocal of ln 2 as f32(1 / f32(ln 2)); the f64 logarithm rounded to f32 is the correctly rounded f32 one.
    let per_ln2 = f32::from_bits(0x3FB8_AA3B);
    let ln = libm::log(f64::from(magnitude + EPSILON)) as f32;
    (ln * per_ln2).floor() as i32
}

/// Rounds to multiples of `step`, at most `limit` away from zero.
fn on_grid(values: &mut [f32], step: f32, limit: f32, round: Round) {
    for x in values.iter_mut().filter(|x| x.is_finite()) {
        *x = (round_f32(*x / step, round) * step).min(limit).max(-limit);
    }
}

fn bfp(block: &mut [f32], p: &Params) {
    let e = exponent(largest(block));
    let step = exp2(e + 1 - p.mantissa());
    let round = Round::from_id(p.round_mode).unwrap_or(Round::HalfUp);
    on_grid(block, step, exp2(e + 1) - step, round);
}

/// A pair's step follows its own exponent, but no more than one below the block's, and its limit the block's.
fn msfp(block: &mut [f32], p: &Params) {
    let shared = exponent(largest(block));
    for pair in block.chunks_mut(PAIR) {
        let own = exponent(largest(pair)).max(shared - 1);
        let step = exp2(own + 1 - p.mantissa());
        on_grid(pair, step, exp2(shared + 1) - step, Round::HalfAwayFromZero);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn params(data_format: &str, bit_width: u8, round_mode: u8) -> Params {
        let all = json!({ "data_format": data_format, "bit_width": bit_width, "round_mode": round_mode });
        serde_json::from_value(all).unwrap()
    }

    fn quantized(values: &[f32], p: &Params) -> Vec<f32> {
        let mut tensor = Tensor::vector(values.to_vec());
        fake_quantize(&mut tensor, p);
        tensor.into_data()
    }

    /// Values observed from the vendor's tool.
    #[test]
    fn a_block_has_the_exponent_of_its_largest_value() {
        let x = [1.0, 0.7, -0.33, 0.01, 2.9, -3.1, 0.5, 0.125];
        let table = [
            (13, [1.0, 0.75, -0.25, 0.0, 3.0, -3.0, 0.5, 0.0]),
            (15, [1.0, 0.6875, -0.3125, 0.0, 2.875, -3.125, 0.5, 0.125]),
            (16, [1.0, 0.6875, -0.34375, 0.0, 2.90625, -3.09375, 0.5, 0.125]),
        ];
        for (bits, want) in table {
            assert_eq!(quantized(&x, &params("bfp", bits, 0)), want, "{bits}");
        }
    }

    /// Values observed from the vendor's tool.
    #[test]
    fn pairs_may_be_finer_than_their_block_by_one_bit() {
        let x = [4.0, 3.0, 0.9, 0.8, 0.1, 0.2, 1.5, 1.9, 0.01, 0.03, 2.0, 2.1];
        let table = [
            (16, [4.0, 3.0, 0.90625, 0.8125, 0.09375, 0.1875, 1.5, 1.90625, 0.0, 0.03125, 2.0, 2.09375]),
            (13, [4.0, 3.0, 1.0, 0.75, 0.0, 0.25, 1.5, 2.0, 0.0, 0.0, 2.0, 2.0]),
            (11, [4.0, 4.0, 1.0, 1.0, 0.0, 0.0, 2.0, 2.0, 0.0, 0.0, 2.0, 2.0]),
        ];
        for (bits, want) in table {
            assert_eq!(quantized(&x, &params("msfp", bits, 0)), want, "{bits}");
        }
    }

    /// Values observed from the vendor's tool.
    #[test]
    fn exponents_have_the_logarithms_artefacts() {
        let table = [
            (0.0, -23),
            (exp2(-24), -23),
            (exp2(-23), -22),
            (1.0 - exp2(-24), 0),
            (1.0 - exp2(-23), 0),
            (1.0 - exp2(-22), -1),
            (exp2(13), 12),
            (exp2(14), 14),
            (exp2(15), 14),
            (exp2(31), 30),
        ];
        for (value, want) in table.into_iter().chain((-3..7).map(|e| (exp2(e), e))) {
            assert_eq!(exponent(value), want, "{value}");
        }
    }

    #[test]
    fn what_is_not_finite_stays_and_disturbs_nobody() {
        let x = [f32::INFINITY, 1.0, f32::NEG_INFINITY, f32::NAN, 0.3, 0.0, 0.0, 0.0];
        let y = quantized(&x, &params("bfp", 15, 0));
        assert_eq!(y[..3], [f32::INFINITY, 1.0, f32::NEG_INFINITY]);
        assert!(y[3].is_nan() && y[4..] == [0.3125, 0.0, 0.0, 0.0], "{y:?}");
    }

    #[test]
    fn widths_without_a_magnitude_are_refused() {
        let refused = |format: &str, bits: u8| params(format, bits, 0).check().is_err();
        assert!(refused("bfp", 9) && !refused("bfp", 10) && !refused("bf16", 9));
        assert!(refused("msfp", 15) && !refused("msfp", 13));
        assert!(Block::from_parameters("BFPQuantizer", json!({ "data_format": "fp8" })).is_err());
    }

    fn blocks() -> impl Strategy<Value = (Vec<f32>, u8)> {
        let value = prop_oneof![-4.0f32..4.0, -1e-6f32..1e-6, -1e6f32..1e6, Just(0.0)];
        (proptest::collection::vec(value, 1..40), 10u8..=20)
    }

    proptest! {
        /// Rounding up the largest value never leaves its power of two, so the second time finds the same steps or finer
        /// ones. Except where steps are below the 2^−23 that is added before the logarithm, in blocks that small; and at
        /// 2^13 and other powers of two whose logarithm is too small: they saturate one step below.
        #[test]
        fn what_is_on_the_grid_stays_there((x, bits) in blocks(), round in 0u8..4) {
            let x: Vec<f32> = x.into_iter().map(|x| if x.abs() < 0.01 { 0.0 } else { x.clamp(-4000.0, 4000.0) }).collect();
            for p in [params("bf16", bits, round), params("bfp", bits, round)] {
                let once = quantized(&x, &p);
                prop_assert_eq!(&quantized(&once, &p), &once);
            }
        }

        /// Values of one block keep their order. So they do in a pair of `msfp`, but not from pair to pair: a coarse one may
        /// round beyond what is next in a fine one; and as a coarse pair may be rounded up to a higher exponent, its other
        /// value may move again the second time.
        #[test]
        fn neighbours_keep_their_order((x, bits) in blocks(), round in 0u8..4) {
            let formats = [(params("bf16", bits, round), 1), (params("bfp", bits, round), 8), (params("msfp", 13, round), PAIR)];
            for (p, size) in formats {
                let y = quantized(&x, &p);
                for (x, y) in x.chunks(size).zip(y.chunks(size)) {
                    let mut order: Vec<usize> = (0..x.len()).collect();
                    order.sort_by(|a, b| x[*a].total_cmp(&x[*b]));
                    prop_assert!(order.is_sorted_by(|a, b| y[*a] <= y[*b]), "{:?} {:?}", x, y);
                }
            }
        }
    }
}
