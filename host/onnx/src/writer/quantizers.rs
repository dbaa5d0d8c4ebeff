//! Quantizers as ONNX' operators.

use shiftwise_core::arith::Round;
use shiftwise_core::fix::round_f32;
use shiftwise_graph::eval::Point;
use shiftwise_graph::graph::NodeId;
use shiftwise_quant::regroup::grids;
use shiftwise_quant::scheme::affine::Affine;
use shiftwise_quant::scheme::pof2::{Pof2, Rounding};
use shiftwise_quant::scheme::{Quantizer, Scheme};
use shiftwise_tensor::tensor::Tensor;

use crate::POSITIONS;
use crate::proto::Entry;
use crate::writer::{Form, Writer, int};

/// 2 to a whole power, exact.
fn power(exponent: i32) -> f32 {
    2f32.powi(exponent)
}

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
            Quantizer::Block(own) => self.block(own, &scope("BFPQuantize", number), point, value),
        }
    }

    /// Positions of weights that their values don't tell, as the model's metadata; nothing if there are none.
    pub(super) fn said(&self, weights: &dyn Fn(NodeId) -> Vec<Tensor>) -> Vec<Entry> {
        let Some(quantized) = self.quantized.filter(|_| self.options.form == Form::Vendor) else { return Vec::new() };
        let mut layers = serde_json::Map::new();
        for (id, layer) in &quantized.layers {
            let node = self.graph.node(*id);
            let mut own = serde_json::Map::new();
            let names = node.op.layer().weights().into_iter().map(|(name, _)| name);
            for ((name, values), quantizer) in names.zip(weights(*id)).zip(&layer.weights) {
                let Some(Quantizer::Pof2(p)) = quantizer else { continue };
                let Some(pos) = p.pos().filter(|_| p.params.is_plain() && !p.params.unsigned) else { continue };
                if p.params.bit_width != 8 || grids::of_values(values.data()) != Some(pos) {
                    own.insert(name.to_owned(), serde_json::json!([pos.0, p.params.bit_width]));
                }
            }
            if !own.is_empty() {
                layers.insert(node.name.clone(), own.into());
            }
        }
        if layers.is_empty() {
            return Vec::new();
        }
        vec![Entry { key: POSITIONS.into(), value: serde_json::Value::Object(layers).to_string() }]
    }

    /// What quantizes each of a layer's weights in the graph.
    pub(super) fn weights(&mut self, id: NodeId, weights: &[Tensor]) -> Result<Vec<Option<Pof2>>, String> {
        let quantizers = self.quantized.and_then(|q| q.layers.get(&id)).map_or(&[][..], |l| &l.weights);
        self.counted += quantizers.iter().flatten().count();
        if self.options.form == Form::Vendor {
            return Ok(vec![None; weights.len()]);
        }
        let of = |k: usize| match quantizers.get(k).and_then(Option::as_ref) {
            None => Ok(None),
            Some(Quantizer::Pof2(own)) => Ok(Some(own.clone())),
            Some(Quantizer::Tqt(own)) => Ok(Some(own.to_pof2())),
            Some(other) => Err(format!("weights of a {} are not written in the form qdq", other.class())),
        };
        (0..weights.len()).map(of).collect()
    }

    /// A constant behind its quantizer: integers and the operator that gives them their value. `turned` is the weight as ONNX
    /// wants it.
    pub(super) fn weight(&mut self, name: &str, turned: &Tensor, quantizer: Option<&Pof2>) -> Result<String, String> {
        let Some(own) = quantizer else { return Ok(self.floats(name, turned)) };
        let [state] = own.states[..] else {
            return Err("weights with a position for each channel are not written in the form qdq".into());
        };
        if own.params.bit_width > 8 || own.params.unsigned || !own.params.symmetry {
            return Err("weights that are no integers of 8 bits with a sign are not written in the form qdq".into());
        }
        let mut values = turned.clone();
        own.fake_quantize(&mut values);
        let scale = power(state.pos.0.into());
        let integers = values.data().iter().map(|x| (x * scale) as i8 as u8).collect();
        let stored = self.store(&format!("{name}/integers"), 3, turned.shape(), integers);
        let step = self.float(&format!("{name}/step"), power(-i32::from(state.pos.0)));
        let zero = self.store(&format!("{name}/zero"), 3, &[], vec![0]);
        Ok(self.node("DequantizeLinear", &format!("{name}/DequantizeLinear"), &[&stored, &step, &zero], Vec::new()))
    }

    /// Steps that are powers of two: scaled, rounded, clamped, scaled back; or a pair of operators.
    fn pof2(&mut self, own: &Pof2, scope: &str, value: String) -> Result<String, String> {
        let [state] = own.states[..] else {
            return Err("a position for each channel of a result is not written as ONNX".into());
        };
        let (low, high) = own.params.bounds();
        if !own.params.symmetry {
            return Ok(self.moved(own, &format!("{scope}/Pof2SFakeQuantize/AsymQuantize"), value));
        }
        let pos = i32::from(state.pos.0);
        if self.options.form == Form::Qdq && (low, high) == (-128.0, 127.0) {
            return Ok(self.pair(&format!("{scope}/Pof2SFakeQuantize"), value, power(-pos), (3, 0)));
        }
        let (round, (low, high)) = match own.params.rounding() {
            Rounding::Plain(round) => (round, (low, high)),
            Rounding::FixNeuron(round) => (round, (-128.0, 127.0)),
        };
        let scope = format!("{scope}/Pof2SFakeQuantize");
        let (scale, step) = (power(pos), power(-pos));
        let scale = self.float(&format!("{scope}/scale"), scale);
        let mut x = self.node("Mul", &format!("{scope}/SymQuantize/mul"), &[&value, &scale], Vec::new());
        x = self.rounded(&format!("{scope}/SymQuantize"), x, round);
        let clip = format!("{scope}/SymQuantize/clip_by_value");
        let (top, bottom) = (self.float(&format!("{clip}/Minimum/y"), high), self.float(&format!("{clip}/y"), low));
        x = self.node("Min", &format!("{clip}/Minimum"), &[&x, &top], Vec::new());
        x = self.node("Max", &clip, &[&x, &bottom], Vec::new());
        let step = self.float(&format!("ConstantFolding/{scope}/SymDequantize/truediv_recip"), step);
        Ok(self.node("Mul", &format!("{scope}/SymDequantize/truediv"), &[&x, &step], Vec::new()))
    }

    /// Steps that are powers of two, from an offset that is one of them: the vendor's asymmetric grid.
    fn moved(&mut self, own: &Pof2, scope: &str, value: String) -> String {
        let state = own.states.first().copied().unwrap_or_default();
        let (low, high) = own.params.bounds();
        let (scale, step) = (power(state.pos.0.into()), power(-i32::from(state.pos.0)));
        let zero = round_f32(low - state.min * scale, Round::HalfAwayFromZero).max(low).min(high);
        let (Rounding::Plain(round) | Rounding::FixNeuron(round)) = own.params.rounding();
        let constants =
            [("offset", (low - zero) * step), ("scale", scale), ("low", low), ("high", high), ("step", step)];
        let [offset, scale, low, high, step] = constants.map(|(part, x)| self.float(&format!("{scope}/{part}"), x));
        let mut x = self.node("Sub", &format!("{scope}/sub"), &[&value, &offset], Vec::new());
        x = self.node("Mul", &format!("{scope}/mul"), &[&x, &scale], Vec::new());
        x = self.rounded(scope, x, round);
        x = self.node("Add", &format!("{scope}/add_1"), &[&low, &x], Vec::new());
        x = self.node("Min", &format!("{scope}/clip_by_value/Minimum"), &[&x, &high], Vec::new());
        x = self.node("Max", &format!("{scope}/clip_by_value"), &[&x, &low], Vec::new());
        x = self.node("Sub", &format!("{scope}/sub_1"), &[&x, &low], Vec::new());
        x = self.node("Mul", &format!("{scope}/mul_1"), &[&x, &step], Vec::new());
        self.node("Add", &format!("{scope}/add_2"), &[&x, &offset], Vec::new())
    }

    /// Whole numbers near a value.
    pub(super) fn rounded(&mut self, scope: &str, x: String, round: Round) -> String {
        match round {
            Round::HalfToEven => self.node("Round", &format!("{scope}/Round"), &[&x], Vec::new()),
            Round::Floor => self.node("Floor", &format!("{scope}/Floor"), &[&x], Vec::new()),
            Round::HalfUp => {
                let half = self.float(&format!("{scope}/add/y"), 0.5);
                let sum = self.node("Add", &format!("{scope}/add"), &[&x, &half], Vec::new());
                self.node("Floor", &format!("{scope}/Floor"), &[&sum], Vec::new())
            }
            Round::HalfAwayFromZero => {
                let (sign, size) = (
                    self.node("Sign", &format!("{scope}/Sign"), &[&x], Vec::new()),
                    self.node("Abs", &format!("{scope}/Abs"), &[&x], Vec::new()),
                );
                let half = self.float(&format!("{scope}/add/y"), 0.5);
                let sum = self.node("Add", &format!("{scope}/add"), &[&size, &half], Vec::new());
                let floor = self.node("Floor", &format!("{scope}/Floor"), &[&sum], Vec::new());
                self.node("Mul", &format!("{scope}/signed"), &[&sign, &floor], Vec::new())
            }
        }
    }

    /// QuantizeLinear and DequantizeLinear with one step. `zero`: ONNX' number of the integers' type, and the zero point's
    /// byte.
    fn pair(&mut self, scope: &str, value: String, step: f32, (kind, zero): (i32, u8)) -> String {
        let scope = format!("{scope}/FakeQuantWithMinMaxVars");
        let step = self.float(&format!("{scope}_scaley"), step);
        let zero = self.store(&format!("{scope}_zpy"), kind, &[], vec![zero]);
        let axis = || vec![int("axis", 1)];
        let q = self.node("QuantizeLinear", &format!("{scope}_QuantizeLinear"), &[&value, &step, &zero], axis());
        self.node("DequantizeLinear", &format!("{scope}_DequantizeLinear"), &[&q, &step, &zero], axis())
    }

    /// Steps of any size.
    fn affine(&mut self, own: &Affine, scope: &str, value: String) -> Result<String, String> {
        let [(step, zero)] = own.steps()[..] else {
            return Err("a step for each channel of a result is not written as ONNX".into());
        };
        let scope = format!("{scope}/FSFakeQuantize");
        let (low, high) = own.params.bounds();
        if high - low == 255.0 && (low == -128.0 || low == 0.0) {
            return Ok(self.pair(&scope, value, step, (2, (zero - low) as u8)));
        }
        // The integers of a grid without an ONNX type: scaled, rounded, moved, clamped, and back.
        let (inverse, offset) =
            (self.float(&format!("{scope}/inverse"), 1.0 / step), self.float(&format!("{scope}/zero"), zero));
        let mut x = self.node("Mul", &format!("{scope}/mul"), &[&value, &inverse], Vec::new());
        x = self.node("Add", &format!("{scope}/move"), &[&x, &offset], Vec::new());
        x = self.rounded(&scope, x, own.params.round());
        let (top, bottom) = (self.float(&format!("{scope}/high"), high), self.float(&format!("{scope}/low"), low));
        x = self.node("Min", &format!("{scope}/Minimum"), &[&x, &top], Vec::new());
        x = self.node("Max", &format!("{scope}/Maximum"), &[&x, &bottom], Vec::new());
        x = self.node("Sub", &format!("{scope}/sub"), &[&x, &offset], Vec::new());
        let step = self.float(&format!("{scope}/step"), step);
        Ok(self.node("Mul", &format!("{scope}/truediv"), &[&x, &step], Vec::new()))
    }
}
