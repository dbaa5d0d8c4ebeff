//! How TensorFlow spells operations.

use shiftwise_core::model::{Combine, Function};
use shiftwise_graph::dtype::Dtype;
use shiftwise_graph::graph::Node;
use shiftwise_graph::ops::pool::PoolWindow;
use shiftwise_graph::ops::tfop::Reduction;
use shiftwise_graph::ops::{Conv2D, Conv2DTranspose, Cropping2D, DepthwiseConv2D, Interpolation, TfOp};
use shiftwise_operators::{Along, Moved, Operators, Pool, Written};
use shiftwise_quant::scheme::affine::Affine;
use shiftwise_quant::scheme::block::Block;
use shiftwise_tensor::tensor::Tensor;

use crate::proto::Attribute;
use crate::writer::{FLOAT, INT32, Writer, text};

/// Parts of scopes that have other names than in the vendor's graphs.
const PARTS: &[(&str, &str)] = &[("mul/scale", "mul/y"), ("square", "Square"), ("truediv/count", "truediv/y")];

/// Operations on two values, and what Keras calls each of them in a scope.
const BINARY: &[(Combine, &str, &str)] = &[
    (Combine::Add, "AddV2", "add"),
    (Combine::Subtract, "Sub", "sub"),
    (Combine::Multiply, "Mul", "mul"),
    (Combine::Divide, "RealDiv", "truediv"),
    (Combine::DivideNoNan, "DivNoNan", "DivNoNan"),
    (Combine::Maximum, "Maximum", "Maximum"),
    (Combine::Minimum, "Minimum", "Minimum"),
    (Combine::Power, "Pow", "Pow"),
    (Combine::SquaredDifference, "SquaredDifference", "SquaredDifference"),
];

/// The operation that a function is; `None` where it is several, or one with attributes.
fn single(function: Function) -> Option<&'static str> {
    match function {
        Function::Relu { max: f32::INFINITY, slope: 0.0, threshold: 0.0 } => Some("Relu"),
        Function::Sigmoid => Some("Sigmoid"),
        Function::Tanh => Some("Tanh"),
        Function::Elu(1.0) => Some("Elu"),
        Function::Selu => Some("Selu"),
        Function::Softplus => Some("Softplus"),
        Function::Softsign => Some("Softsign"),
        Function::Exponential => Some("Exp"),
        Function::Negative => Some("Neg"),
        Function::Absolute => Some("Abs"),
        Function::Square => Some("Square"),
        Function::SquareRoot => Some("Sqrt"),
        Function::InverseRoot => Some("Rsqrt"),
        Function::Reciprocal => Some("Reciprocal"),
        Function::Logarithm => Some("Log"),
        Function::Sign => Some("Sign"),
        Function::Floor => Some("Floor"),
        Function::Ceiling => Some("Ceil"),
        Function::Round => Some("Round"),
        _ => None,
    }
}

impl Writer {
    /// x above 0, alpha · (exp(x) − 1) below.
    fn elu(&mut self, alpha: f32, scope: &str, x: &str) -> String {
        let above = self.float_node("Relu", &format!("{scope}/Relu"), &[x], Vec::new());
        let below = self.with("Minimum", &format!("{scope}/Minimum"), x, 0.0);
        let below = self.float_node("Expm1", &format!("{scope}/Expm1"), &[&below], Vec::new());
        let below = self.with("Mul", &format!("{scope}/mul"), &below, alpha);
        self.float_node("AddV2", &format!("{scope}/add"), &[&above, &below], Vec::new())
    }

    /// Elements of an axis of the batch.
    fn taken(&mut self, name: &str, x: &str, indices: &[i64], axis: usize) -> String {
        let list = self.integers(&format!("{name}/indices"), &[indices.len()], indices);
        let axis = self.integers(&format!("{name}/axis"), &[], &[axis as i64]);
        let types = [("Tparams", FLOAT), ("Tindices", INT32), ("Taxis", INT32)].map(|(k, t)| (k, Attribute::Type(t)));
        let more = types.into_iter().chain([("batch_dims", Attribute::Integer(0))]).collect();
        self.node("GatherV2", name, &[x, &list, &axis], more)
    }
}

impl Operators for Writer {
    const FORMAT: &'static str = "for TensorFlow";
    const SHARES_CONSTANTS: bool = false;
    const SELECT: &'static str = "SelectV2";

    fn named(&self, scope: &str, part: &str) -> String {
        let own = PARTS.iter().find(|(of, _)| *of == part).map_or(part, |(_, own)| own);
        format!("{scope}/{own}")
    }

    fn named_with(&self, operator: &str, scope: &str, label: Option<&str>) -> String {
        let own = BINARY.iter().find(|(_, op, _)| *op == operator).map_or(operator, |(_, _, own)| own);
        format!("{scope}/{}", label.unwrap_or(own))
    }

    fn operator(&mut self, operator: &str, name: &str, inputs: &[&str]) -> String {
        self.float_node(operator, name, inputs, Vec::new())
    }

    fn tensor(&mut self, name: &str, tensor: &Tensor) -> String {
        self.floats(name, tensor)
    }

    fn number(&mut self, name: &str, value: f32) -> String {
        self.float(name, value)
    }

    fn unary(&mut self, function: Function, scope: &str, x: &str) -> Option<String> {
        match (single(function), function) {
            (Some(op), _) => Some(self.float_node(op, &format!("{scope}/{op}"), &[x], Vec::new())),
            (None, Function::LeakyRelu(alpha)) => {
                let more = vec![("alpha", Attribute::Float(alpha))];
                Some(self.float_node("LeakyRelu", &format!("{scope}/LeakyRelu"), &[x], more))
            }
            (None, Function::Elu(alpha)) => Some(self.elu(alpha, scope, x)),
            (None, _) => None,
        }
    }

    fn binary(&self, combine: Combine) -> Option<&'static str> {
        BINARY.iter().find(|(own, ..)| *own == combine).map(|(_, op, _)| *op)
    }

    fn bounded(&mut self, scope: &str, x: &str, max: f32) -> String {
        if max == 6.0 {
            return self.float_node("Relu6", &format!("{scope}/Relu6"), &[x], Vec::new());
        }
        let y = self.float_node("Relu", &format!("{scope}/Relu"), &[x], Vec::new());
        self.with("Minimum", &format!("{scope}/Minimum"), &y, max)
    }

    fn clipped(&mut self, scope: &str, x: &str, low: &str, high: &str) -> String {
        let name = format!("{scope}/clip_by_value");
        let below = self.float_node("Minimum", &format!("{name}/Minimum"), &[x, high], Vec::new());
        self.float_node("Maximum", &name, &[&below, low], Vec::new())
    }

    fn squared(&mut self, scope: &str, part: &str, x: &str) -> String {
        let name = self.named(scope, part);
        self.float_node("Square", &name, &[x], Vec::new())
    }

    /// TensorFlow's work along the last axis.
    fn rows(&mut self, logarithm: bool, scope: &str, x: &str, axis: i64, rank: usize) -> String {
        let op = if logarithm { "LogSoftmax" } else { "Softmax" };
        let last = rank as i64 - 1;
        let (axis, name) = (if axis < 0 { axis + rank as i64 } else { axis }, format!("{scope}/{op}"));
        if axis == last {
            return self.float_node(op, &name, &[x], Vec::new());
        }
        let mut order: Vec<i64> = (0..=last).collect();
        order.swap(axis as usize, last as usize);
        let turned = self.turned(&format!("{name}/before"), x, &order);
        let y = self.float_node(op, &name, &[&turned], Vec::new());
        self.turned(&format!("{name}/behind"), &y, &order)
    }

    fn reduced(&mut self, by: Reduction, scope: &str, part: Option<&str>, x: &str, axes: &[i64], keep: bool) -> String {
        let op = match by {
            Reduction::Mean => "Mean",
            Reduction::Sum => "Sum",
            Reduction::Max => "Max",
            Reduction::Min => "Min",
        };
        let name = format!("{scope}/{}", part.unwrap_or(op));
        let axes = self.integers(&format!("{name}/reduction_indices"), &[axes.len()], axes);
        let more = vec![("Tidx", Attribute::Type(INT32)), ("keep_dims", Attribute::Flag(keep))];
        self.float_node(op, &name, &[x, &axes], more)
    }

    fn dense(&mut self, w: &Written<'_>) -> Result<String, String> {
        self.matmul(w)
    }

    fn conv(&mut self, w: &Written<'_>, layer: &Conv2D) -> Result<String, String> {
        if layer.groups > 1 { self.grouped(w, layer) } else { self.conv_2d(w, layer) }
    }

    fn depthwise(&mut self, w: &Written<'_>, layer: &DepthwiseConv2D) -> Result<String, String> {
        self.depthwise_2d(w, layer)
    }

    fn transposed(&mut self, w: &Written<'_>, layer: &Conv2DTranspose) -> Result<String, String> {
        self.conv_transpose(w, layer)
    }

    fn prelu(&mut self, w: &Written<'_>) -> Result<String, String> {
        let named = |part: &str| format!("{}/{part}", w.name);
        let slope = self.floats(&named("alpha"), &w.weights[0]);
        let above = self.float_node("Relu", &named("Relu"), &[w.x()?], Vec::new());
        let below = self.with("Minimum", &named("Minimum"), w.x()?, 0.0);
        let below = self.float_node("Mul", &named("mul"), &[&slope, &below], Vec::new());
        Ok(self.float_node("AddV2", &named("add"), &[&above, &below], Vec::new()))
    }

    fn pool(&mut self, kind: Pool, w: &Written<'_>, pool: &PoolWindow) -> Result<String, String> {
        let op = match kind {
            Pool::Max => "MaxPool",
            Pool::Average => "AvgPool",
        };
        self.pooled(op, w, pool)
    }

    fn product(&mut self, w: &Written<'_>, op: &TfOp, transpose: [bool; 2]) -> Result<String, String> {
        self.matmul_of(w, op, transpose)
    }

    fn resized(&mut self, w: &Written<'_>, method: Interpolation) -> Result<String, String> {
        let op = match method {
            Interpolation::Nearest => "ResizeNearestNeighbor",
            Interpolation::Bilinear => "ResizeBilinear",
            Interpolation::Bicubic => "ResizeBicubic",
        };
        let name = format!("{}/resize/{op}", w.name);
        let size = self.integers(&format!("{name}/size"), &[2], &[w.shape[0] as i64, w.shape[1] as i64]);
        let more = vec![("align_corners", Attribute::Flag(false)), ("half_pixel_centers", Attribute::Flag(true))];
        Ok(self.float_node(op, &name, &[w.x()?, &size], more))
    }

    fn joined(&mut self, name: &str, all: &[&str], axis: i64) -> String {
        let axis = self.integers(&format!("{name}/axis"), &[], &[axis]);
        let more = vec![("N", Attribute::Integer(all.len() as i64)), ("Tidx", Attribute::Type(INT32))];
        self.float_node("ConcatV2", name, &[all, &[axis.as_str()]].concat(), more)
    }

    fn turned(&mut self, name: &str, x: &str, order: &[i64]) -> String {
        let order = self.integers(&format!("{name}/perm"), &[order.len()], order);
        self.float_node("Transpose", name, &[x, &order], vec![("Tperm", Attribute::Type(INT32))])
    }

    fn reshaped(&mut self, name: &str, x: &str, shape: &[usize]) -> String {
        let target: Vec<i64> = std::iter::once(-1).chain(shape.iter().map(|d| *d as i64)).collect();
        let target = self.integers(&format!("{name}/shape"), &[target.len()], &target);
        self.float_node("Reshape", name, &[x, &target], vec![("Tshape", Attribute::Type(INT32))])
    }

    fn padded(&mut self, scope: &str, x: &str, widths: &[(usize, usize)], value: Option<f32>) -> String {
        let pads: Vec<i64> = widths.iter().flat_map(|(a, b)| [*a as i64, *b as i64]).collect();
        let op = if value.is_some() { "PadV2" } else { "Pad" };
        let name = format!("{scope}/{op}");
        let pads = self.integers(&format!("{name}/paddings"), &[widths.len(), 2], &pads);
        let value = value.map(|value| self.float(&format!("{name}/value"), value));
        let inputs: Vec<&str> = [x, &pads].into_iter().chain(value.as_deref()).collect();
        self.float_node(op, &name, &inputs, vec![("Tpaddings", Attribute::Type(INT32))])
    }

    fn cropped(&mut self, w: &Written<'_>, layer: &Cropping2D) -> Result<String, String> {
        let name = format!("{}/Slice", w.name);
        let from = [0, layer.rows[0], layer.columns[0], 0].map(|n| n as i64);
        let size = [-1, w.shape[0] as i64, w.shape[1] as i64, -1];
        let from = self.integers(&format!("{name}/begin"), &[4], &from);
        let size = self.integers(&format!("{name}/size"), &[4], &size);
        Ok(self.float_node("Slice", &name, &[w.x()?, &from, &size], vec![("Index", Attribute::Type(INT32))]))
    }

    fn strided(&mut self, scope: &str, x: &str, along: &[Along]) -> String {
        along.iter().fold(x.to_owned(), |y, own| {
            let place = |i: usize| own.start as i64 + i as i64 * own.step as i64;
            let places: Vec<i64> = (0..own.count).map(place).collect();
            self.taken(&format!("{scope}/strided_slice/{}", own.axis), &y, &places, own.axis)
        })
    }

    fn gathered(&mut self, scope: &str, x: &str, indices: &[usize], axis: usize) -> String {
        let indices: Vec<i64> = indices.iter().map(|i| *i as i64).collect();
        self.taken(&format!("{scope}/GatherV2"), x, &indices, axis)
    }

    fn reversed(&mut self, scope: &str, x: &str, axes: &[usize]) -> String {
        let axes: Vec<i64> = axes.iter().map(|a| *a as i64).collect();
        let name = format!("{scope}/ReverseV2");
        let axes = self.integers(&format!("{name}/axis"), &[axes.len()], &axes);
        self.float_node("ReverseV2", &name, &[x, &axes], vec![("Tidx", Attribute::Type(INT32))])
    }

    fn blocks(&mut self, wide: bool, scope: &str, x: &str, block: usize) -> String {
        let op = if wide { "DepthToSpace" } else { "SpaceToDepth" };
        let more = vec![("block_size", Attribute::Integer(block as i64)), ("data_format", text("NHWC"))];
        self.float_node(op, &format!("{scope}/{op}"), &[x], more)
    }

    fn moved(&mut self, grid: &Moved, scope: &str, value: String) -> String {
        self.moved_grid(grid, scope, &value)
    }

    fn affine(&mut self, own: &Affine, scope: &str, value: String) -> Result<String, String> {
        self.any_step(own, scope, &value)
    }

    fn block(&mut self, _own: &Block, _scope: &str, _shape: &[usize], _value: String) -> Result<String, String> {
        Err("blocks of values with one exponent are not written for TensorFlow".into())
    }

    fn takes(&self, node: &Node) -> Result<(), String> {
        match node.dtype.is_half() {
            true => Err(format!("layers in {} are not written for TensorFlow", node.dtype.name())),
            false => Ok(()),
        }
    }

    fn halved(&mut self, _dtype: Dtype, _scope: &str, value: String) -> String {
        value
    }
}
