//! Quantizers as TensorFlow's operations.

use shiftwise_core::arith::Round;
use shiftwise_core::fix::round_f32;
use shiftwise_graph::eval::Point;
use shiftwise_quant::scheme::Quantizer;
use shiftwise_quant::scheme::affine::Affine;
use shiftwise_quant::scheme::pof2::{Pof2, Rounding};

use crate::proto::Attribute;
use crate::writer::Writer;

impl Writer<'_> {
    /// A value behind the quantizer at a point, if there is one.
    pub(super) fn quantized_at(&mut self, point: Point, name: &str, value: String) -> Result<String, String> {
        let Some(quantizer) = self.quantized.and_then(|q| q.quantizer(point)) else { return Ok(value) };
        let scope = |class: &str, number: usize| match number {
            0 => format!("{name}/{class}"),
            n => format!("{name}/{class}_{n}"),
        };
        let number = self.counted;
        self.counted += 1;
        match quantizer {
            Quantizer::Pof2(own) => self.pof2(own, &scope("Pof2SQuantize", number), value),
            Quantizer::Tqt(own) => self.pof2(&own.to_pof2(), &scope("TQTQuantize", number), value),
            Quantizer::Affine(own) => self.affine(own, &scope("FSQuantize", number), value),
            Quantizer::Block(_) => Err("blocks of values with one exponent are not written for TensorFlow".into()),
        }
    }

    /// An operation with a constant as its second operand.
    pub(super) fn with(&mut self, op: &str, name: &str, x: &str, constant: f32) -> String {
        let constant = self.float(&format!("{name}/y"), constant);
        self.float_node(op, name, &[x, &constant], Vec::new())
    }

    /// Steps that are powers of two: scaled, rounded, clamped, scaled back.
    fn pof2(&mut self, own: &Pof2, scope: &str, value: String) -> Result<String, String> {
        let [state] = own.states[..] else {
            return Err("a position for each channel of a result is not written for TensorFlow".into());
        };
        let (low, high) = own.params.bounds();
        let (scale, step) = (state.pos.scale(), state.pos.step());
        if !own.params.symmetry {
            let zero = round_f32(low - state.min * scale, Round::HalfAwayFromZero).max(low).min(high);
            let (Rounding::Plain(round) | Rounding::FixNeuron(round)) = own.params.rounding();
            let grid = Moved { offset: (low - zero) * step, scale, step, low, high, round };
            return Ok(self.moved(&grid, &format!("{scope}/Pof2SFakeQuantize"), value));
        }
        let (round, (low, high)) = match own.params.rounding() {
            Rounding::Plain(round) => (round, (low, high)),
            Rounding::FixNeuron(round) => (round, (-128.0, 127.0)),
        };
        let scope = format!("{scope}/Pof2SFakeQuantize");
        let mut x = self.with("Mul", &format!("{scope}/SymQuantize/mul"), &value, scale);
        x = self.rounded(&format!("{scope}/SymQuantize"), x, round);
        x = self.with("Minimum", &format!("{scope}/SymQuantize/clip_by_value/Minimum"), &x, high);
        x = self.with("Maximum", &format!("{scope}/SymQuantize/clip_by_value"), &x, low);
        Ok(self.with("Mul", &format!("{scope}/SymDequantize/truediv"), &x, step))
    }

    /// Steps from an offset that is one of them: the vendor's asymmetric grid.
    fn moved(&mut self, grid: &Moved, scope: &str, value: String) -> String {
        let Moved { offset, scale, step, low, high, round } = *grid;
        let scope = format!("{scope}/AsymQuantize");
        let mut x = self.with("Sub", &format!("{scope}/sub"), &value, offset);
        x = self.with("Mul", &format!("{scope}/mul"), &x, scale);
        x = self.rounded(&scope, x, round);
        x = self.with("AddV2", &format!("{scope}/add_1"), &x, low);
        x = self.with("Minimum", &format!("{scope}/clip_by_value/Minimum"), &x, high);
        x = self.with("Maximum", &format!("{scope}/clip_by_value"), &x, low);
        x = self.with("Sub", &format!("{scope}/sub_1"), &x, low);
        x = self.with("Mul", &format!("{scope}/mul_1"), &x, step);
        self.with("AddV2", &format!("{scope}/add_2"), &x, offset)
    }

    /// Whole numbers near a value.
    fn rounded(&mut self, scope: &str, x: String, round: Round) -> String {
        match round {
            Round::HalfToEven => self.float_node("Round", &format!("{scope}/Round"), &[&x], Vec::new()),
            Round::Floor => self.float_node("Floor", &format!("{scope}/Floor"), &[&x], Vec::new()),
            Round::HalfUp => {
                let sum = self.with("AddV2", &format!("{scope}/add"), &x, 0.5);
                self.float_node("Floor", &format!("{scope}/Floor"), &[&sum], Vec::new())
            }
            Round::HalfAwayFromZero => {
                let sign = self.float_node("Sign", &format!("{scope}/Sign"), &[&x], Vec::new());
                let size = self.float_node("Abs", &format!("{scope}/Abs"), &[&x], Vec::new());
                let sum = self.with("AddV2", &format!("{scope}/add"), &size, 0.5);
                let floor = self.float_node("Floor", &format!("{scope}/Floor"), &[&sum], Vec::new());
                self.float_node("Mul", &format!("{scope}/signed"), &[&sign, &floor], Vec::new())
            }
        }
    }

    /// Steps of any size: TensorFlow's own operations where they are what the quantizer does.
    fn affine(&mut self, own: &Affine, scope: &str, value: String) -> Result<String, String> {
        let [range] = own.ranges[..] else {
            return Err("a step for each channel of a result is not written for TensorFlow".into());
        };
        let p = &own.params;
        let scope = format!("{scope}/FSFakeQuantize");
        let (low, high) = p.bounds();
        if range.min == 0.0 && range.max == 0.0 {
            return Ok(self.with("Mul", &format!("{scope}/mul"), &value, 0.0));
        }
        if p.use_framework_quant {
            let min = self.float(&format!("{scope}/min"), if p.unsigned { 0.0 } else { range.min });
            let max = self.float(&format!("{scope}/max"), range.max);
            if p.unsigned {
                let more = vec![
                    ("signed_input", Attribute::Flag(false)),
                    ("num_bits", Attribute::Integer(p.bit_width.into())),
                    ("range_given", Attribute::Flag(true)),
                    ("round_mode", crate::writer::text("HALF_UP")),
                    ("narrow_range", Attribute::Flag(p.narrow_range)),
                    ("axis", Attribute::Integer(-1)),
                ];
                let name = format!("{scope}/QuantizeAndDequantizeV2");
                return Ok(self.float_node("QuantizeAndDequantizeV2", &name, &[&value, &min, &max], more));
            }
            let more = vec![
                ("num_bits", Attribute::Integer(p.bit_width.into())),
                ("narrow_range", Attribute::Flag(p.narrow_range)),
            ];
            let name = format!("{scope}/FakeQuantWithMinMaxVars");
            return Ok(self.node("FakeQuantWithMinMaxVars", &name, &[&value, &min, &max], more));
        }
        let scale = (high - low) / (range.max - range.min);
        if !p.symmetry {
            let zero = round_f32(low - range.min * scale, Round::HalfAwayFromZero).max(low).min(high);
            let grid = Moved { offset: (low - zero) / scale, scale, step: 1.0 / scale, low, high, round: p.round() };
            return Ok(self.moved(&grid, &scope, value));
        }
        let mut x = self.with("Mul", &format!("{scope}/mul"), &value, scale);
        x = self.rounded(&scope, x, p.round());
        x = self.with("Minimum", &format!("{scope}/clip_by_value/Minimum"), &x, high);
        x = self.with("Maximum", &format!("{scope}/clip_by_value"), &x, low);
        Ok(self.with("RealDiv", &format!("{scope}/truediv"), &x, scale))
    }
}

/// A grid whose lowest integer stands for an offset.
struct Moved {
    offset: f32,
    scale: f32,
    step: f32,
    low: f32,
    high: f32,
    round: Round,
}
