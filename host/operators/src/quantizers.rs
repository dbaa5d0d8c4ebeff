//! Quantizers as operators: which stands where, and those whose steps are powers of two as arithmetic.

use shiftwise_core::arith::Round;
use shiftwise_core::fix::round_f32;
use shiftwise_core::model::Combine;
use shiftwise_graph::eval::Point;
use shiftwise_graph::graph::NodeId;
use shiftwise_graph::ops::Op;
use shiftwise_quant::scheme::Quantizer;
use shiftwise_quant::scheme::pof2::{Pof2, Rounding};

use crate::functions::combined;
use crate::{Moved, Operators, Walk};

impl<F: Operators> Walk<'_, F> {
    /// A value behind the quantizer at a point, if there is one.
    pub(crate) fn quantized_at(&mut self, point: Point, name: &str, value: String) -> Result<String, String> {
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
            Quantizer::Affine(own) => {
                if own.steps().len() != 1 {
                    return Err(format!("a step for each channel of a result is not written {}", F::FORMAT));
                }
                self.format.affine(own, &format!("{}/FSFakeQuantize", scope("FSQuantize", number)), value)
            }
            Quantizer::Block(own) => {
                let shape = self.shape_at(point);
                self.format.block(own, &scope("BFPQuantize", number), &shape, value)
            }
        }
    }

    /// The shape of a sample at a point.
    fn shape_at(&self, point: Point) -> Vec<usize> {
        let (Point::Input(id, _) | Point::PreActivation(id) | Point::PostActivation(id) | Point::Output(id)) = point;
        let node = self.graph.node(id);
        match (point, &node.op) {
            (_, Op::Input(_)) => node.shape.clone(),
            (Point::Input(_, k), _) => node.inputs.get(k).map_or_else(Vec::new, |i| self.graph.node(*i).shape.clone()),
            _ => node.shape.clone(),
        }
    }

    /// What quantizes each of a layer's `count` weights in the graph.
    pub(crate) fn stored(&mut self, id: NodeId, count: usize) -> Result<Vec<Option<Pof2>>, String> {
        let quantizers = self.quantized.and_then(|q| q.layers.get(&id)).map_or(&[][..], |l| &l.weights);
        self.counted += quantizers.iter().flatten().count();
        if !self.format.keeps_quantizers() {
            return Ok(vec![None; count]);
        }
        let of = |k: usize| match quantizers.get(k).and_then(Option::as_ref) {
            None => Ok(None),
            Some(Quantizer::Pof2(own)) => Ok(Some(own.clone())),
            Some(Quantizer::Tqt(own)) => Ok(Some(own.to_pof2())),
            Some(other) => Err(format!("weights of a {} are not written in the form qdq", other.class())),
        };
        (0..count).map(of).collect()
    }

    /// Steps that are powers of two: scaled, rounded, clamped, scaled back; or an operator of the format's.
    fn pof2(&mut self, own: &Pof2, scope: &str, value: String) -> Result<String, String> {
        let [state] = own.states[..] else {
            return Err(format!("a position for each channel of a result is not written {}", F::FORMAT));
        };
        let (low, high) = own.params.bounds();
        let (scale, step) = (state.pos.scale(), state.pos.step());
        let scope = format!("{scope}/Pof2SFakeQuantize");
        if !own.params.symmetry {
            let zero = round_f32(low - state.min * scale, Round::HalfAwayFromZero).max(low).min(high);
            let (Rounding::Plain(round) | Rounding::FixNeuron(round)) = own.params.rounding();
            let grid = Moved { offset: (low - zero) * step, scale, step, low, high, round };
            return Ok(self.format.moved(&grid, &format!("{scope}/AsymQuantize"), value));
        }
        if let Some(stepped) = self.format.stepped(own, &scope, &value) {
            return Ok(stepped);
        }
        let (round, (low, high)) = match own.params.rounding() {
            Rounding::Plain(round) => (round, (low, high)),
            Rounding::FixNeuron(round) => (round, (-128.0, 127.0)),
        };
        let format = &mut self.format;
        let mut x = by(format, Combine::Multiply, &scope, "SymQuantize/mul", &value, scale);
        x = rounded(format, &format!("{scope}/SymQuantize"), x, round);
        x = by(format, Combine::Minimum, &scope, "SymQuantize/clip_by_value/Minimum", &x, high);
        x = by(format, Combine::Maximum, &scope, "SymQuantize/clip_by_value", &x, low);
        Ok(by(format, Combine::Multiply, &scope, "SymDequantize/truediv", &x, step))
    }
}

/// A value combined with a constant, which is a part of the operator's scope.
pub fn by<F: Operators>(f: &mut F, combine: Combine, scope: &str, part: &str, x: &str, constant: f32) -> String {
    let constant = f.number(&f.named(scope, &format!("{part}/y")), constant);
    combined(f, combine, &f.named(scope, part), [x, &constant])
}

/// Whole numbers near a value.
pub fn rounded<F: Operators>(f: &mut F, scope: &str, x: String, round: Round) -> String {
    match round {
        Round::HalfToEven => f.operator("Round", &format!("{scope}/Round"), &[&x]),
        Round::Floor => f.operator("Floor", &format!("{scope}/Floor"), &[&x]),
        Round::HalfUp => {
            let sum = by(f, Combine::Add, scope, "add", &x, 0.5);
            f.operator("Floor", &format!("{scope}/Floor"), &[&sum])
        }
        Round::HalfAwayFromZero => {
            let sign = f.operator("Sign", &format!("{scope}/Sign"), &[&x]);
            let size = f.operator("Abs", &format!("{scope}/Abs"), &[&x]);
            let sum = by(f, Combine::Add, scope, "add", &size, 0.5);
            let floor = f.operator("Floor", &format!("{scope}/Floor"), &[&sum]);
            combined(f, Combine::Multiply, &format!("{scope}/signed"), [&sign, &floor])
        }
    }
}
