//! Functions of elements and of TensorFlow as ONNX' operators.

use shiftwise_core::model::{Combine, Function, RowFunction};
use shiftwise_graph::ops::tfop::{Kind, Part, Reduction, subscript};
use shiftwise_graph::ops::{Operand, TfOp};

use crate::writer::layers::Written;
use crate::writer::{FIRST, LAST, Writer, float, int, ints, text};

impl Writer<'_> {
    /// A function of each element.
    pub(super) fn function(&mut self, function: Function, name: &str, x: String) -> Result<String, String> {
        let plain = |operator: &'static str| Some((operator, Vec::new()));
        let single = match function {
            Function::Identity => return Ok(x),
            Function::Relu { max, slope: 0.0, threshold: 0.0 } if max == f32::INFINITY => plain("Relu"),
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
        };
        match single {
            Some((operator, attributes)) => Ok(self.node(operator, &format!("{name}/{operator}"), &[&x], attributes)),
            None => self.by_parts(function, name, x),
        }
    }

    /// An operator with a constant as its second operand.
    fn with(&mut self, operator: &str, name: &str, x: &str, constant: f32) -> String {
        let constant = self.float(&format!("{name}/{operator}/y"), constant);
        self.node(operator, &format!("{name}/{operator}"), &[x, &constant], Vec::new())
    }

    /// A value brought between two bounds.
    fn clipped(&mut self, name: &str, x: &str, low: f32, high: f32) -> String {
        let (low, high) = (self.float(&format!("{name}/low"), low), self.float(&format!("{name}/high"), high));
        self.node("Clip", &format!("{name}/Clip"), &[x, &low, &high], Vec::new())
    }

    /// Functions that are several of ONNX' operators.
    fn by_parts(&mut self, function: Function, name: &str, x: String) -> Result<String, String> {
        Ok(match function {
            Function::Relu { max, slope: 0.0, threshold: 0.0 } => self.clipped(name, &x, 0.0, max),
            Function::Relu { max, slope, threshold } => {
                let bound = self.float(&format!("{name}/threshold"), threshold);
                let below = self.node("Less", &format!("{name}/Less"), &[&x, &bound], Vec::new());
                let moved = self.node("Sub", &format!("{name}/sub"), &[&x, &bound], Vec::new());
                let small = self.with("Mul", name, &moved, slope);
                let y = self.node("Where", &format!("{name}/Where"), &[&below, &small, &x], Vec::new());
                if max == f32::INFINITY { y } else { self.with("Min", name, &y, max) }
            }
            Function::Swish => {
                let gate = self.node("Sigmoid", &format!("{name}/Sigmoid"), &[&x], Vec::new());
                self.node("Mul", &format!("{name}/mul"), &[&x, &gate], Vec::new())
            }
            Function::Gelu => {
                let inner = self.with("Mul", &format!("{name}/inner"), &x, std::f32::consts::FRAC_1_SQRT_2);
                let erf = self.node("Erf", &format!("{name}/Erf"), &[&inner], Vec::new());
                let sum = self.with("Add", name, &erf, 1.0);
                let half = self.with("Mul", &format!("{name}/half"), &x, 0.5);
                self.node("Mul", &format!("{name}/mul"), &[&half, &sum], Vec::new())
            }
            Function::GeluTanh => {
                let square = self.node("Mul", &format!("{name}/square"), &[&x, &x], Vec::new());
                let cube = self.node("Mul", &format!("{name}/cube"), &[&square, &x], Vec::new());
                let part = self.with("Mul", &format!("{name}/part"), &cube, 0.044_715);
                let sum = self.node("Add", &format!("{name}/sum"), &[&x, &part], Vec::new());
                let inner = self.with("Mul", &format!("{name}/inner"), &sum, 0.797_884_6);
                let tanh = self.node("Tanh", &format!("{name}/Tanh"), &[&inner], Vec::new());
                let one = self.with("Add", name, &tanh, 1.0);
                let half = self.with("Mul", &format!("{name}/half"), &x, 0.5);
                self.node("Mul", &format!("{name}/mul"), &[&half, &one], Vec::new())
            }
            Function::HardSigmoid6 | Function::DpuHardSigmoid | Function::HardSwish => {
                let sum = self.with("Add", name, &x, 3.0);
                let six = self.clipped(name, &sum, 0.0, 6.0);
                match function {
                    Function::DpuHardSigmoid => self.with("Mul", name, &six, 2731.0 / 16384.0),
                    Function::HardSigmoid6 => self.with("Div", name, &six, 6.0),
                    _ => {
                        let gate = self.with("Div", name, &six, 6.0);
                        self.node("Mul", &format!("{name}/mul"), &[&x, &gate], Vec::new())
                    }
                }
            }
            Function::Mish => {
                let soft = self.node("Softplus", &format!("{name}/Softplus"), &[&x], Vec::new());
                let tanh = self.node("Tanh", &format!("{name}/Tanh"), &[&soft], Vec::new());
                self.node("Mul", &format!("{name}/mul"), &[&x, &tanh], Vec::new())
            }
            Function::Scale(factor) => self.with("Mul", name, &x, factor),
            Function::Square => self.node("Mul", &format!("{name}/Square"), &[&x, &x], Vec::new()),
            Function::InverseRoot => {
                let root = self.node("Sqrt", &format!("{name}/Sqrt"), &[&x], Vec::new());
                self.node("Reciprocal", &format!("{name}/Reciprocal"), &[&root], Vec::new())
            }
            other => return Err(format!("the function {other:?} is not written as ONNX")),
        })
    }

    /// A function of TensorFlow's.
    pub(super) fn tf_op(&mut self, op: &TfOp, w: &Written<'_>) -> Result<String, String> {
        let name = w.name;
        let mut operands = Vec::new();
        for (k, operand) in op.operands.iter().enumerate() {
            operands.push(match operand {
                Operand::Tensor(i) => w.inputs.get(*i).cloned().ok_or("has an operand that is no input")?,
                Operand::Constant(tensor) => self.floats(&format!("{name}/constant_{k}"), tensor),
            });
        }
        let all: Vec<&str> = operands.iter().map(String::as_str).collect();
        let x = *all.first().ok_or("has no operands")?;
        let rank = w.shapes.first().map_or(0, |s| s.len() + 1) as i64;
        let axis = |a: i64| if a < 0 { a + rank } else { a };
        Ok(match &op.kind {
            Kind::Unary(function) => self.function(*function, name, x.to_owned())?,
            Kind::Chain(functions) => {
                functions.iter().try_fold(x.to_owned(), |value, function| self.function(*function, name, value))?
            }
            Kind::Binary(combine) => self.combined(*combine, name, &all)?,
            Kind::Clip => {
                let above = self.node("Max", &format!("{name}/Maximum"), &[x, all[1]], Vec::new());
                self.node("Min", &format!("{name}/Minimum"), &[&above, all[2]], Vec::new())
            }
            Kind::MatMul { transpose } => {
                let mut sides = [all[0].to_owned(), all[1].to_owned()];
                for (k, side) in sides.iter_mut().enumerate().filter(|(k, _)| transpose[*k]) {
                    let own = w.shapes.get(k).map_or(2, |s| s.len() + 1);
                    let mut perm: Vec<i64> = (0..own as i64).collect();
                    perm.swap(own - 2, own - 1);
                    *side = self.node("Transpose", &format!("{name}/transpose"), &[&*side], vec![ints("perm", &perm)]);
                }
                self.node("MatMul", &format!("{name}/MatMul"), &[&sides[0], &sides[1]], Vec::new())
            }
            Kind::Rows(function, a) => {
                let operator = match function {
                    RowFunction::Softmax => "Softmax",
                    RowFunction::LogSoftmax => "LogSoftmax",
                    other => return Err(format!("the function {other:?} of rows is not written as ONNX")),
                };
                self.node(operator, &format!("{name}/{operator}"), &[x], vec![int("axis", *a)])
            }
            Kind::Reduce { by, axes, keep } => {
                let operator = match by {
                    Reduction::Mean => "ReduceMean",
                    Reduction::Sum => "ReduceSum",
                    Reduction::Max => "ReduceMax",
                    Reduction::Min => "ReduceMin",
                };
                let axes = axes.as_ref().ok_or("a fold of everything mixes samples")?;
                let axes: Vec<i64> = axes.iter().map(|a| axis(*a)).collect();
                self.reduce(operator, &format!("{name}/{operator}"), x, &axes, *keep)
            }
            Kind::Concat(a) => self.node("Concat", &format!("{name}/concat"), &all, vec![int("axis", axis(*a))]),
            Kind::Reshape(_) | Kind::ExpandDims(_) | Kind::Squeeze(_) => {
                self.reshaped(&format!("{name}/Reshape"), x, w.shape)
            }
            Kind::Transpose(Some(order)) => {
                let perm: Vec<i64> = order.iter().map(|a| axis(*a)).collect();
                self.node("Transpose", &format!("{name}/transpose"), &[x], vec![ints("perm", &perm)])
            }
            Kind::Pad { widths, value } => {
                let pads: Vec<i64> =
                    widths.iter().map(|p| p.0 as i64).chain(widths.iter().map(|p| p.1 as i64)).collect();
                let pads = self.integers(&format!("{name}/paddings"), &pads);
                let value = self.float(&format!("{name}/value"), *value);
                self.node("Pad", &format!("{name}/Pad"), &[x, &pads, &value], Vec::new())
            }
            Kind::Slice(parts) => self.subscripted(parts, w, x)?,
            Kind::Resize { method, .. } => self.resized(w, *method)?,
            Kind::Gather { axis, indices, .. } => {
                let list: Vec<i64> = indices.iter().map(|i| *i as i64).collect();
                let list = self.integers(&format!("{name}/indices"), &list);
                let y = self.node("Gather", &format!("{name}/GatherV2"), &[x, &list], vec![int("axis", *axis as i64)]);
                self.reshaped(&format!("{name}/Reshape"), &y, w.shape)
            }
            Kind::Reverse(axes) => {
                let axes: Vec<i64> = axes.iter().map(|a| *a as i64).collect();
                let (from, to, by) = (vec![-1; axes.len()], vec![i64::MIN; axes.len()], vec![-1; axes.len()]);
                self.sliced(&format!("{name}/Reverse"), x, (&from, &to), &axes, &by)
            }
            Kind::DepthToSpace(block) => self.blocks("DepthToSpace", name, x, *block),
            Kind::SpaceToDepth(block) => self.blocks("SpaceToDepth", name, x, *block),
            Kind::Transpose(None) | Kind::Stack(_) => {
                return Err(format!("the function `{}` is not written as ONNX", op.function));
            }
        })
    }

    fn blocks(&mut self, operator: &str, name: &str, x: &str, block: usize) -> String {
        let first = self.node("Transpose", &format!("{name}/first"), &[x], vec![ints("perm", &FIRST)]);
        let mut attributes = vec![int("blocksize", block as i64)];
        if operator == "DepthToSpace" {
            attributes.push(text("mode", "DCR"));
        }
        let y = self.node(operator, &format!("{name}/{operator}"), &[&first], attributes);
        self.node("Transpose", &format!("{name}/last"), &[&y], vec![ints("perm", &LAST)])
    }

    fn combined(&mut self, combine: Combine, name: &str, all: &[&str]) -> Result<String, String> {
        let operator = match combine {
            Combine::Add => "Add",
            Combine::Subtract => "Sub",
            Combine::Multiply => "Mul",
            Combine::Divide => "Div",
            Combine::Maximum => "Max",
            Combine::Minimum => "Min",
            Combine::Power => "Pow",
            Combine::SquaredDifference => {
                let difference = self.node("Sub", &format!("{name}/sub"), &all[..2], Vec::new());
                return Ok(self.node("Mul", &format!("{name}/mul"), &[&difference, &difference], Vec::new()));
            }
            other => return Err(format!("the function {other:?} of two is not written as ONNX")),
        };
        Ok(self.node(operator, &format!("{name}/{operator}"), &all[..2], Vec::new()))
    }

    fn subscripted(&mut self, parts: &[Part], w: &Written<'_>, x: &str) -> Result<String, String> {
        let whole = [&[1], w.shapes[0]].concat();
        let (along, _) = subscript(parts, &whole)?;
        let (mut from, mut to, mut axes, mut steps) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (axis, (start, count, step)) in along.iter().enumerate().skip(1) {
            if (*start, *count, *step) == (0, whole[axis], 1) {
                continue;
            }
            let end = *start as i64 + *count as i64 * *step as i64;
            from.push(*start as i64);
            to.push(if end < 0 { i64::MIN } else { end });
            axes.push(axis as i64);
            steps.push(*step as i64);
        }
        let y = self.sliced(&format!("{}/strided_slice", w.name), x, (&from, &to), &axes, &steps);
        Ok(self.reshaped(&format!("{}/Reshape", w.name), &y, w.shape))
    }
}
