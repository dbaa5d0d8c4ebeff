//! How ONNX spells operators.

use shiftwise_core::model::{Combine, Function};
use shiftwise_graph::dtype::Dtype;
use shiftwise_graph::graph::Node;
use shiftwise_graph::ops::pool::PoolWindow;
use shiftwise_graph::ops::tfop::Reduction;
use shiftwise_graph::ops::{Conv2D, Conv2DTranspose, Cropping2D, DepthwiseConv2D, Interpolation, TfOp};
use shiftwise_operators::{Along, Moved, Operators, Pool, Written};
use shiftwise_quant::scheme::affine::Affine;
use shiftwise_quant::scheme::block::Block;
use shiftwise_quant::scheme::pof2::Pof2;
use shiftwise_tensor::tensor::Tensor;

use crate::proto::AttributeProto;
use crate::writer::{FIRST, Form, LAST, Writer, float, int, ints, text};

/// Parts of scopes that have other names than in the vendor's graphs.
const PARTS: &[(&str, &str)] = &[
    ("SymQuantize/mul/y", "scale"),
    ("batchnorm/add", "add"),
    ("batchnorm/add/y", "epsilon"),
    ("gamma/mul", "mul_1"),
    ("gamma/scale", "gamma"),
    ("moments/Square", "square"),
    ("mul/scale", "scale"),
    ("separable_conv2d", "depthwise"),
    ("truediv/count", "count"),
];

/// The operator that a function is, with its attributes; `None` where it is several.
fn single(function: Function) -> Option<(&'static str, Vec<AttributeProto>)> {
    let plain = |operator: &'static str| Some((operator, Vec::new()));
    match function {
        Function::Relu { max: f32::INFINITY, slope: 0.0, threshold: 0.0 } => plain("Relu"),
        Function::LeakyRelu(alpha) => Some(("LeakyRelu", vec![float("alpha", alpha)])),
        Function::Sigmoid => plain("Sigmoid"),
        Function::Tanh => plain("Tanh"),
        Function::Elu(alpha) => Some(("Elu", vec![float("alpha", alpha)])),
        Function::Selu => plain("Selu"),
        Function::Softplus => plain("Softplus"),
        Function::Softsign => plain("Softsign"),
        Function::Exponential => plain("Exp"),
        Function::HardSigmoid => Some(("HardSigmoid", vec![float("alpha", 0.2), float("beta", 0.5)])),
        Function::Negative => plain("Neg"),
        Function::Absolute => plain("Abs"),
        Function::SquareRoot => plain("Sqrt"),
        Function::Reciprocal => plain("Reciprocal"),
        Function::Logarithm => plain("Log"),
        Function::Sign => plain("Sign"),
        Function::Floor => plain("Floor"),
        Function::Ceiling => plain("Ceil"),
        Function::Round => plain("Round"),
        _ => None,
    }
}

impl Operators for Writer {
    const FORMAT: &'static str = "as ONNX";
    const SHARES_CONSTANTS: bool = true;
    const SELECT: &'static str = "Where";

    fn named(&self, scope: &str, part: &str) -> String {
        if part == "SymDequantize/truediv/y" {
            return format!("ConstantFolding/{scope}/SymDequantize/truediv_recip");
        }
        let own = PARTS.iter().find(|(of, _)| *of == part).map_or(part, |(_, own)| own);
        format!("{scope}/{own}")
    }

    fn named_with(&self, operator: &str, scope: &str, label: Option<&str>) -> String {
        match label {
            Some(label) => format!("{scope}/{label}/{operator}"),
            None => format!("{scope}/{operator}"),
        }
    }

    fn operator(&mut self, operator: &str, name: &str, inputs: &[&str]) -> String {
        self.node(operator, name, inputs, Vec::new())
    }

    fn tensor(&mut self, name: &str, tensor: &Tensor) -> String {
        self.floats(name, tensor)
    }

    fn number(&mut self, name: &str, value: f32) -> String {
        self.float(name, value)
    }

    fn unary(&mut self, function: Function, scope: &str, x: &str) -> Option<String> {
        let (operator, attributes) = single(function)?;
        Some(self.node(operator, &format!("{scope}/{operator}"), &[x], attributes))
    }

    fn binary(&self, combine: Combine) -> Option<&'static str> {
        Some(match combine {
            Combine::Add => "Add",
            Combine::Subtract => "Sub",
            Combine::Multiply => "Mul",
            Combine::Divide => "Div",
            Combine::Maximum => "Max",
            Combine::Minimum => "Min",
            Combine::Power => "Pow",
            Combine::SquaredDifference | Combine::DivideNoNan | Combine::Slope => return None,
        })
    }

    fn bounded(&mut self, scope: &str, x: &str, max: f32) -> String {
        let (low, high) = (self.float(&format!("{scope}/low"), 0.0), self.float(&format!("{scope}/high"), max));
        self.node("Clip", &format!("{scope}/Clip"), &[x, &low, &high], Vec::new())
    }

    fn clipped(&mut self, scope: &str, x: &str, low: &str, high: &str) -> String {
        let above = self.node("Max", &format!("{scope}/Maximum"), &[x, low], Vec::new());
        self.node("Min", &format!("{scope}/Minimum"), &[&above, high], Vec::new())
    }

    fn squared(&mut self, scope: &str, part: &str, x: &str) -> String {
        let name = self.named(scope, part);
        self.node("Mul", &name, &[x, x], Vec::new())
    }

    fn rows(&mut self, logarithm: bool, scope: &str, x: &str, axis: i64, _rank: usize) -> String {
        let operator = if logarithm { "LogSoftmax" } else { "Softmax" };
        self.node(operator, &format!("{scope}/{operator}"), &[x], vec![int("axis", axis)])
    }

    /// Axes are an operand from opset 18 on, of sums from 13 on.
    fn reduced(&mut self, by: Reduction, scope: &str, part: Option<&str>, x: &str, axes: &[i64], keep: bool) -> String {
        let operator = match by {
            Reduction::Mean => "ReduceMean",
            Reduction::Sum => "ReduceSum",
            Reduction::Max => "ReduceMax",
            Reduction::Min => "ReduceMin",
        };
        let name = format!("{scope}/{}", part.unwrap_or(operator));
        let keep = int("keepdims", i64::from(keep));
        if self.options.opset >= 18 || by == Reduction::Sum {
            let axes = self.integers(&format!("{name}/axes"), axes);
            self.node(operator, &name, &[x, &axes], vec![keep])
        } else {
            self.node(operator, &name, &[x], vec![ints("axes", axes), keep])
        }
    }

    fn dense(&mut self, w: &Written<'_>) -> Result<String, String> {
        self.matmul(w)
    }

    fn conv(&mut self, w: &Written<'_>, layer: &Conv2D) -> Result<String, String> {
        self.conv_2d(w, layer)
    }

    fn depthwise(&mut self, w: &Written<'_>, layer: &DepthwiseConv2D) -> Result<String, String> {
        self.depthwise_2d(w, layer)
    }

    fn transposed(&mut self, w: &Written<'_>, layer: &Conv2DTranspose) -> Result<String, String> {
        self.conv_transpose(w, layer)
    }

    fn prelu(&mut self, w: &Written<'_>) -> Result<String, String> {
        let slope = self.weight(&format!("{}/alpha", w.name), &w.weights[0], w.stored[0].as_ref())?;
        Ok(self.node("PRelu", &format!("{}/PRelu", w.name), &[w.x()?, &slope], Vec::new()))
    }

    fn pool(&mut self, kind: Pool, w: &Written<'_>, pool: &PoolWindow) -> Result<String, String> {
        let operator = match kind {
            Pool::Max => "MaxPool",
            Pool::Average => "AveragePool",
        };
        self.pooled(operator, w, pool)
    }

    fn product(&mut self, w: &Written<'_>, op: &TfOp, transpose: [bool; 2]) -> Result<String, String> {
        self.matmul_of(w, op, transpose)
    }

    fn resized(&mut self, w: &Written<'_>, method: Interpolation) -> Result<String, String> {
        self.resize(w, method)
    }

    fn joined(&mut self, name: &str, all: &[&str], axis: i64) -> String {
        self.node("Concat", name, all, vec![int("axis", axis)])
    }

    fn turned(&mut self, name: &str, x: &str, order: &[i64]) -> String {
        self.node("Transpose", name, &[x], vec![ints("perm", order)])
    }

    fn reshaped(&mut self, name: &str, x: &str, shape: &[usize]) -> String {
        let target: Vec<i64> = std::iter::once(-1).chain(shape.iter().map(|d| *d as i64)).collect();
        let target = self.integers(&format!("{name}/shape"), &target);
        self.node("Reshape", name, &[x, &target], Vec::new())
    }

    fn padded(&mut self, scope: &str, x: &str, widths: &[(usize, usize)], value: Option<f32>) -> String {
        let pads: Vec<i64> = widths.iter().map(|p| p.0 as i64).chain(widths.iter().map(|p| p.1 as i64)).collect();
        let name = format!("{scope}/Pad");
        match value {
            None => {
                let pads = self.integers(&format!("{name}/paddings"), &pads);
                self.node("Pad", &name, &[x, &pads], Vec::new())
            }
            Some(value) => {
                let pads = self.integers(&format!("{scope}/paddings"), &pads);
                let value = self.float(&format!("{scope}/value"), value);
                self.node("Pad", &name, &[x, &pads, &value], Vec::new())
            }
        }
    }

    fn cropped(&mut self, w: &Written<'_>, layer: &Cropping2D) -> Result<String, String> {
        let at = [layer.rows[0], layer.columns[0]].map(|n| n as i64);
        let end = [at[0] + w.shape[0] as i64, at[1] + w.shape[1] as i64];
        Ok(self.sliced(&format!("{}/strided_slice", w.name), w.x()?, (&at, &end), &[1, 2], &[1, 1]))
    }

    fn strided(&mut self, scope: &str, x: &str, along: &[Along]) -> String {
        let end = |own: &Along| own.start as i64 + own.count as i64 * own.step as i64;
        let from: Vec<i64> = along.iter().map(|own| own.start as i64).collect();
        let to: Vec<i64> = along.iter().map(|own| if end(own) < 0 { i64::MIN } else { end(own) }).collect();
        let axes: Vec<i64> = along.iter().map(|own| own.axis as i64).collect();
        let steps: Vec<i64> = along.iter().map(|own| own.step as i64).collect();
        self.sliced(&format!("{scope}/strided_slice"), x, (&from, &to), &axes, &steps)
    }

    fn gathered(&mut self, scope: &str, x: &str, indices: &[usize], axis: usize) -> String {
        let list: Vec<i64> = indices.iter().map(|i| *i as i64).collect();
        let list = self.integers(&format!("{scope}/indices"), &list);
        self.node("Gather", &format!("{scope}/GatherV2"), &[x, &list], vec![int("axis", axis as i64)])
    }

    fn reversed(&mut self, scope: &str, x: &str, axes: &[usize]) -> String {
        let axes: Vec<i64> = axes.iter().map(|a| *a as i64).collect();
        let (from, to, by) = (vec![-1; axes.len()], vec![i64::MIN; axes.len()], vec![-1; axes.len()]);
        self.sliced(&format!("{scope}/Reverse"), x, (&from, &to), &axes, &by)
    }

    fn blocks(&mut self, wide: bool, scope: &str, x: &str, block: usize) -> String {
        let operator = if wide { "DepthToSpace" } else { "SpaceToDepth" };
        let first = self.node("Transpose", &format!("{scope}/first"), &[x], vec![ints("perm", &FIRST)]);
        let mut attributes = vec![int("blocksize", block as i64)];
        attributes.extend(wide.then(|| text("mode", "DCR")));
        let y = self.node(operator, &format!("{scope}/{operator}"), &[&first], attributes);
        self.node("Transpose", &format!("{scope}/last"), &[&y], vec![ints("perm", &LAST)])
    }

    fn keeps_quantizers(&self) -> bool {
        self.options.form == Form::Qdq
    }

    fn stepped(&mut self, own: &Pof2, scope: &str, value: &str) -> Option<String> {
        self.paired(own, scope, value)
    }

    fn moved(&mut self, grid: &Moved, scope: &str, value: String) -> String {
        self.moved_grid(grid, scope, &value)
    }

    fn affine(&mut self, own: &Affine, scope: &str, value: String) -> Result<String, String> {
        self.any_step(own, scope, &value)
    }

    fn block(&mut self, own: &Block, scope: &str, shape: &[usize], value: String) -> Result<String, String> {
        self.in_blocks(own, scope, shape, value)
    }

    fn takes(&self, _node: &Node) -> Result<(), String> {
        Ok(())
    }

    fn halved(&mut self, dtype: Dtype, scope: &str, value: String) -> String {
        self.cast(dtype, value, [&format!("{scope}/Cast"), &format!("{scope}/Cast_1")])
    }

    fn finished(&mut self, node: &Node, value: String) -> String {
        self.cast(node.dtype, value, [&format!("{}__half", node.name), &format!("{}__whole", node.name)])
    }
}
