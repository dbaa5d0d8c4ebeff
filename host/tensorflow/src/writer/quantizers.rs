//! Quantizers as TensorFlow's operations.

use shiftwise_core::arith::Round;
use shiftwise_core::fix::round_f32;
use shiftwise_operators::{Moved, rounded};
use shiftwise_quant::scheme::affine::Affine;

use crate::proto::Attribute;
use crate::writer::{Writer, text};

impl Writer {
    /// An operation with a constant as its second operand.
    pub(super) fn with(&mut self, op: &str, name: &str, x: &str, constant: f32) -> String {
        let constant = self.float(&format!("{name}/y"), constant);
        self.float_node(op, name, &[x, &constant], Vec::new())
    }

    /// Steps from an offset.
    pub(super) fn moved_grid(&mut self, grid: &Moved, scope: &str, value: &str) -> String {
        let Moved { offset, scale, step, low, high, round } = *grid;
        let mut x = self.with("Sub", &format!("{scope}/sub"), value, offset);
        x = self.with("Mul", &format!("{scope}/mul"), &x, scale);
        x = rounded(self, scope, x, round);
        x = self.with("AddV2", &format!("{scope}/add_1"), &x, low);
        x = self.with("Minimum", &format!("{scope}/clip_by_value/Minimum"), &x, high);
        x = self.with("Maximum", &format!("{scope}/clip_by_value"), &x, low);
        x = self.with("Sub", &format!("{scope}/sub_1"), &x, low);
        x = self.with("Mul", &format!("{scope}/mul_1"), &x, step);
        self.with("AddV2", &format!("{scope}/add_2"), &x, offset)
    }

    /// Steps of any size: TensorFlow's own operations where they are what the quantizer does.
    pub(super) fn any_step(&mut self, own: &Affine, scope: &str, value: &str) -> Result<String, String> {
        let [range] = own.ranges[..] else {
            return Err("a step for each channel of a result is not written for TensorFlow".into());
        };
        let p = &own.params;
        let (low, high) = p.bounds();
        if range.min == 0.0 && range.max == 0.0 {
            return Ok(self.with("Mul", &format!("{scope}/mul"), value, 0.0));
        }
        if p.use_framework_quant {
            let min = self.float(&format!("{scope}/min"), if p.unsigned { 0.0 } else { range.min });
            let max = self.float(&format!("{scope}/max"), range.max);
            if p.unsigned {
                let more = vec![
                    ("signed_input", Attribute::Flag(false)),
                    ("num_bits", Attribute::Integer(p.bit_width.into())),
                    ("range_given", Attribute::Flag(true)),
                    ("round_mode", text("HALF_UP")),
                    ("narrow_range", Attribute::Flag(p.narrow_range)),
                    ("axis", Attribute::Integer(-1)),
                ];
                let name = format!("{scope}/QuantizeAndDequantizeV2");
                return Ok(self.float_node("QuantizeAndDequantizeV2", &name, &[value, &min, &max], more));
            }
            let more = vec![
                ("num_bits", Attribute::Integer(p.bit_width.into())),
                ("narrow_range", Attribute::Flag(p.narrow_range)),
            ];
            let name = format!("{scope}/FakeQuantWithMinMaxVars");
            return Ok(self.node("FakeQuantWithMinMaxVars", &name, &[value, &min, &max], more));
        }
        let scale = (high - low) / (range.max - range.min);
        if !p.symmetry {
            let zero = round_f32(low - range.min * scale, Round::HalfAwayFromZero).max(low).min(high);
            let grid = Moved { offset: (low - zero) / scale, scale, step: 1.0 / scale, low, high, round: p.round() };
            return Ok(self.moved_grid(&grid, &format!("{scope}/AsymQuantize"), value));
        }
        let mut x = self.with("Mul", &format!("{scope}/mul"), value, scale);
        x = rounded(self, scope, x, p.round());
        x = self.with("Minimum", &format!("{scope}/clip_by_value/Minimum"), &x, high);
        x = self.with("Maximum", &format!("{scope}/clip_by_value"), &x, low);
        Ok(self.with("RealDiv", &format!("{scope}/truediv"), &x, scale))
    }
}
