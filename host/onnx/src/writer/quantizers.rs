//! Quantizers as ONNX' operators.

use shiftwise_operators::{Moved, Walk, rounded};
use shiftwise_quant::regroup::grids;
use shiftwise_quant::scheme::Quantizer;
use shiftwise_quant::scheme::Scheme;
use shiftwise_quant::scheme::affine::Affine;
use shiftwise_quant::scheme::pof2::Pof2;
use shiftwise_tensor::tensor::Tensor;

use crate::POSITIONS;
use crate::proto::Entry;
use crate::writer::{Form, Writer, int};

/// Positions of weights that their values don't tell, as the model's metadata; nothing if there are none.
pub(super) fn said(walk: &Walk<'_, Writer>) -> Vec<Entry> {
    let Some(quantized) = walk.quantized.filter(|_| walk.format.options.form == Form::Vendor) else {
        return Vec::new();
    };
    let mut layers = serde_json::Map::new();
    for (id, layer) in &quantized.layers {
        let node = walk.graph.node(*id);
        let mut own = serde_json::Map::new();
        let names = node.op.layer().weights().into_iter().map(|(name, _)| name);
        for ((name, values), quantizer) in names.zip(walk.weights(*id)).zip(&layer.weights) {
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

impl Writer {
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
        let scale = state.pos.scale();
        let integers = values.data().iter().map(|x| (x * scale) as i8 as u8).collect();
        let stored = self.store(&format!("{name}/integers"), 3, turned.shape(), integers);
        let step = self.float(&format!("{name}/step"), state.pos.step());
        let zero = self.store(&format!("{name}/zero"), 3, &[], vec![0]);
        Ok(self.node("DequantizeLinear", &format!("{name}/DequantizeLinear"), &[&stored, &step, &zero], Vec::new()))
    }

    /// A pair of operators, where the form has those and they have the integers of these steps.
    pub(super) fn paired(&mut self, own: &Pof2, scope: &str, value: &str) -> Option<String> {
        let [state] = own.states[..] else { return None };
        let fits = self.options.form == Form::Qdq && own.params.bounds() == (-128.0, 127.0);
        fits.then(|| self.pair(scope, value, state.pos.step(), (3, 0)))
    }

    /// Steps from an offset.
    pub(super) fn moved_grid(&mut self, grid: &Moved, scope: &str, value: &str) -> String {
        let Moved { offset, scale, step, low, high, round } = *grid;
        let constants = [("offset", offset), ("scale", scale), ("low", low), ("high", high), ("step", step)];
        let [offset, scale, low, high, step] = constants.map(|(part, x)| self.float(&format!("{scope}/{part}"), x));
        let mut x = self.node("Sub", &format!("{scope}/sub"), &[value, &offset], Vec::new());
        x = self.node("Mul", &format!("{scope}/mul"), &[&x, &scale], Vec::new());
        x = rounded(self, scope, x, round);
        x = self.node("Add", &format!("{scope}/add_1"), &[&low, &x], Vec::new());
        x = self.node("Min", &format!("{scope}/clip_by_value/Minimum"), &[&x, &high], Vec::new());
        x = self.node("Max", &format!("{scope}/clip_by_value"), &[&x, &low], Vec::new());
        x = self.node("Sub", &format!("{scope}/sub_1"), &[&x, &low], Vec::new());
        x = self.node("Mul", &format!("{scope}/mul_1"), &[&x, &step], Vec::new());
        self.node("Add", &format!("{scope}/add_2"), &[&x, &offset], Vec::new())
    }

    /// QuantizeLinear and DequantizeLinear with one step. `zero`: ONNX' number of the integers' type, and the zero point's
    /// byte.
    fn pair(&mut self, scope: &str, value: &str, step: f32, (kind, zero): (i32, u8)) -> String {
        let scope = format!("{scope}/FakeQuantWithMinMaxVars");
        let step = self.float(&format!("{scope}_scaley"), step);
        let zero = self.store(&format!("{scope}_zpy"), kind, &[], vec![zero]);
        let axis = || vec![int("axis", 1)];
        let q = self.node("QuantizeLinear", &format!("{scope}_QuantizeLinear"), &[value, &step, &zero], axis());
        self.node("DequantizeLinear", &format!("{scope}_DequantizeLinear"), &[&q, &step, &zero], axis())
    }

    /// Steps of any size.
    pub(super) fn any_step(&mut self, own: &Affine, scope: &str, value: &str) -> Result<String, String> {
        let [(step, zero)] = own.steps()[..] else {
            return Err("a step for each channel of a result is not written as ONNX".into());
        };
        let (low, high) = own.params.bounds();
        if high - low == 255.0 && (low == -128.0 || low == 0.0) {
            return Ok(self.pair(scope, value, step, (2, (zero - low) as u8)));
        }
        // The integers of a grid without an ONNX type: scaled, rounded, moved, clamped, and back.
        let (inverse, offset) =
            (self.float(&format!("{scope}/inverse"), 1.0 / step), self.float(&format!("{scope}/zero"), zero));
        let mut x = self.node("Mul", &format!("{scope}/mul"), &[value, &inverse], Vec::new());
        x = self.node("Add", &format!("{scope}/move"), &[&x, &offset], Vec::new());
        x = rounded(self, scope, x, own.params.round());
        let (top, bottom) = (self.float(&format!("{scope}/high"), high), self.float(&format!("{scope}/low"), low));
        x = self.node("Min", &format!("{scope}/Minimum"), &[&x, &top], Vec::new());
        x = self.node("Max", &format!("{scope}/Maximum"), &[&x, &bottom], Vec::new());
        x = self.node("Sub", &format!("{scope}/sub"), &[&x, &offset], Vec::new());
        let step = self.float(&format!("{scope}/step"), step);
        Ok(self.node("Mul", &format!("{scope}/truediv"), &[&x, &step], Vec::new()))
    }
}
