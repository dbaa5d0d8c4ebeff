//! The quantizer of trained thresholds: a power-of-two step from the logarithm of a threshold, which training moves.
//!
//! Without training, the threshold is the largest magnitude of the last batch.

use serde_json::{Map, Value, json};

use crate::observer::extrema::{extrema, range};
use crate::observer::range_error::RangeError;
use crate::scheme::interface::{Calibrator, Gradients, Numbers, Part, Scheme, Sheet, Subject};
use crate::scheme::pof2::{self, Pof2};
use shiftwise_core::fix::{FixPos, round_f32};
use shiftwise_tensor::tensor::Tensor;

/// The scheme's sheet.
pub(super) const SHEET: Sheet = Sheet {
    title: "Trained thresholds",
    formula: "that of power-of-two steps with p = b − 1 − ceil(t), t the logarithm to base 2 of the threshold",
    rounding: "`round`",
    saturation: "the integer is clamped, behind rounding",
    calibration: "method 0: the threshold is max(|min|, max · (−qmin / qmax), 10^−9) of the last batch",
    gradient: "passed where the rounded value is within the bounds; t gets ln 2 times the rounding error there, and ln 2 times \
               the bound elsewhere",
    source: "the vendor's tool; tests `scheme::affine`, `schemes` (element by element) and `golden`",
};

/// A quantizer of trained thresholds.
#[derive(Clone, Debug, PartialEq)]
pub struct Tqt {
    /// Settings: those of the power-of-two quantizer.
    pub params: pof2::Params,
    /// Logarithm to base 2 of the threshold.
    pub log_threshold: f32,
    /// Lower end of the range of the last calibration batch.
    pub min: f32,
    /// Upper end of that range.
    pub max: f32,
}

impl Tqt {
    /// The power-of-two quantizer that does the same. The vendor takes 7 for bits − 1 whatever the width, which leaves
    /// other widths without values or without range.
    pub fn to_pof2(&self) -> Pof2 {
        let pos = position(f32::from(self.params.bit_width) - 1.0 - self.log_threshold.ceil());
        let state = pof2::State { pos, calibrated: pos, min: self.min, max: self.max };
        Pof2 { states: vec![state], ..Pof2::new(self.params.clone()) }
    }

    /// The power-of-two quantizer of the position that the threshold means.
    fn grid(&self) -> Pof2 {
        let pos = position(f32::from(self.params.bit_width) - 1.0 - self.log_threshold.ceil());
        let state = pof2::State { pos, calibrated: pos, min: self.min, max: self.max };
        // FixNeuron arithmetic is not for thresholds.
        let params = pof2::Params { use_fixneuron_quant: 0, ..self.params.clone() };
        Pof2 { states: vec![state], ..Pof2::new(params) }
    }
}

/// A whole number as a position.
fn position(pos: f32) -> FixPos {
    FixPos(pos.clamp(-128.0, 127.0) as i8)
}

impl Scheme for Tqt {
    fn from_parameters(class: &str, parameters: Value) -> Result<Self, String> {
        let params = Pof2::from_parameters(class, parameters)?.params;
        match &params {
            p if p.per_channel => Err(format!("a threshold per channel of a {class}; it has one for the tensor")),
            p if p.method != 0 => Err(format!("method other than 0: {} of a {class}", p.method)),
            _ => Ok(Self { params, log_threshold: 0.0, min: 0.0, max: 0.0 }),
        }
    }

    fn parameters(&self) -> Map<String, Value> {
        Pof2::new(self.params.clone()).parameters()
    }

    fn set_width(&mut self, bits: u8) {
        self.params.bit_width = bits;
    }

    fn channel_axis(&self) -> Option<i64> {
        None
    }

    fn calibrator(&self) -> Box<dyn Calibrator<Self>> {
        Box::new(Last(self.clone()))
    }

    fn fake_quantize(&self, tensor: &mut Tensor) {
        self.grid().fake_quantize(tensor);
    }

    fn pos(&self) -> Option<FixPos> {
        self.grid().pos()
    }

    /// Nothing moves a threshold but training.
    fn set_pos(&mut self, _: FixPos) {}

    fn parts(&self) -> Vec<Part> {
        let threshold = Part { trained: true, ..Part::state("log_th", vec![self.log_threshold]) };
        vec![threshold, Part::state("min", vec![self.min]), Part::state("max", vec![self.max])]
    }

    fn restore(&mut self, prefix: &str, values: Vec<Numbers>) -> Result<(), String> {
        let [Numbers::State(threshold), Numbers::State(min), Numbers::State(max)] = &values[..] else {
            return Err(format!("its `{prefix}` has no state"));
        };
        let ([threshold], [min], [max]) = (&threshold[..], &min[..], &max[..]) else {
            return Err(format!("its `{prefix}` has no state"));
        };
        if !threshold.is_finite() {
            return Err(format!("its `{prefix}_log_th` is {threshold}"));
        }
        (self.log_threshold, self.min, self.max) = (*threshold, *min, *max);
        Ok(())
    }

    fn info(&self) -> Map<String, Value> {
        let mut info = self.grid().info();
        info.insert("log_threshold".into(), json!(self.log_threshold));
        info
    }

    fn integers(&self, tensor: &Tensor) -> Option<Vec<i32>> {
        let own = self.grid();
        let scale = own.pos()?.scale();
        let mut values = tensor.clone();
        own.fake_quantize(&mut values);
        Some(values.data().iter().map(|v| (v * scale) as i32).collect())
    }

    /// The threshold is training's; the range is noted only.
    fn train(&mut self, tensor: &mut Tensor) -> Result<bool, RangeError> {
        (self.min, self.max) = range(extrema(tensor.data())?, self.params.integers())?;
        self.fake_quantize(tensor);
        Ok(true)
    }

    /// Passed inside the range; the threshold gets, scaled by ln 2, the rounding error inside and the bound outside.
    fn backward(&self, tensor: &Tensor, of_result: &Tensor) -> Gradients {
        let own = self.grid();
        let mut result = tensor.clone();
        own.fake_quantize(&mut result);
        let scale = own.states.first().map_or(1.0, |state| state.pos.scale());
        let ((low, high), round) = (self.params.bounds(), self.params.round());
        let mut by_tensor = of_result.clone();
        let mut threshold = 0.0f64;
        for ((dy, x), y) in by_tensor.data_mut().iter_mut().zip(tensor.data()).zip(result.data()) {
            let inside = (low..=high).contains(&round_f32(x * scale, round));
            threshold += f64::from(*dy * std::f32::consts::LN_2 * if inside { y - x } else { *y });
            *dy = if inside { *dy } else { 0.0 };
        }
        Gradients { tensor: by_tensor, parts: vec![("log_th", vec![threshold as f32])] }
    }
}

/// The threshold of the last batch.
#[derive(Debug)]
struct Last(Tqt);

impl Calibrator<Tqt> for Last {
    fn see(&mut self, tensor: &Tensor) -> Result<(), RangeError> {
        let own = &mut self.0;
        let (min, max) = range(extrema(tensor.data())?, own.params.integers())?;
        (own.min, own.max) = (min, max);
        let (low, high) = own.params.bounds();
        let threshold = min.abs().max(max * (-low / high)).max(1e-9);
        // Correctly rounded, then over ln 2 as TensorFlow's graphs do it.
        let ln = libm::log(f64::from(threshold)) as f32;
        own.log_threshold = ln * pof2::PER_LN_2;
        Ok(())
    }

    fn fake_quantize(&self, tensor: &mut Tensor) {
        self.0.fake_quantize(tensor);
    }

    fn seen(&self) -> Option<Value> {
        Some(json!([self.0.log_threshold, self.0.min, self.0.max].map(f32::to_bits)))
    }

    fn join(&mut self, later: &Value) -> Option<()> {
        let bits: [u32; 3] = serde_json::from_value(later.clone()).ok()?;
        let values = bits.map(f32::from_bits);
        (self.0.log_threshold, self.0.min, self.0.max) = values.into();
        values.iter().all(|v| v.is_finite()).then_some(())
    }

    fn finish(self: Box<Self>, _: Subject<'_, Tqt>) -> Result<Tqt, RangeError> {
        Ok(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Ours: the vendor's constant fits 8 bits only.
    #[test]
    fn a_threshold_becomes_the_position_of_the_grid_that_it_was_calibrated_with() {
        for bits in [4, 8, 16] {
            let parameters = json!({ "bit_width": bits, "method": 0, "round_mode": 1 });
            let mut own = Tqt::from_parameters("TQTQuantizer", parameters).unwrap();
            own.log_threshold = 0.3;
            let mut tensor = Tensor::vector(vec![0.0, 0.37, -1.2, 0.001, 1.1]);
            let mut converted = tensor.clone();
            own.fake_quantize(&mut tensor);
            own.to_pof2().fake_quantize(&mut converted);
            assert_eq!(tensor, converted, "{bits}");
            // The threshold 2^0.3 is below 2: one bit before the point, and the sign.
            assert_eq!(own.to_pof2().pos(), Some(FixPos(bits - 2)));
        }
    }
}
