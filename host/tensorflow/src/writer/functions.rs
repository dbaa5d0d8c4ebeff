//! Functions of elements and of TensorFlow as its operations.

use shiftwise_core::model::{Combine, Function, RowFunction};
use shiftwise_graph::ops::tfop::{Kind, Part, Reduction, subscript};
use shiftwise_graph::ops::{Operand, TfOp};

use crate::proto::Attribute;
use crate::writer::layers::Written;
use crate::writer::{INT32, Writer, text};

impl Writer<'_> {
    /// A function of each element.
    pub(super) fn function(&mut self, function: Function, name: &str, x: String) -> Result<String, String> {
        let plain = |op: &'static str| Some((op, Vec::new()));
        let single = match function {
            Function::Identity => return Ok(x),
            Function::Relu { max, slope: 0.0, threshold: 0.0 } if max == f32::INFINITY => plain("Relu"),
            Function::Relu { max: 6.0, slope: 0.0, threshold: 0.0 } => plain("Relu6"),
            Function::LeakyRelu(alpha) => Some(("LeakyRelu", vec![("alpha", Attribute::Float(alpha))])),
            Function::Sigmoid => plain("Sigmoid"),
            Function::Tanh => plain("Tanh"),
            Function::Elu(1.0) => plain("Elu"),
            Function::Selu => plain("Selu"),
            Function::Softplus => plain("Softplus"),
            Function::Softsign => plain("Softsign"),
            Function::Exponential => plain("Exp"),
            Function::Negative => plain("Neg"),
            Function::Absolute => plain("Abs"),
            Function::Square => plain("Square"),
            Function::SquareRoot => plain("Sqrt"),
            Function::InverseRoot => plain("Rsqrt"),
            Function::Reciprocal => plain("Reciprocal"),
            Function::Logarithm => plain("Log"),
            Function::Sign => plain("Sign"),
            Function::Floor => plain("Floor"),
            Function::Ceiling => plain("Ceil"),
            Function::Round => plain("Round"),
            _ => None,
        };
        match single {
            Some((op, more)) => Ok(self.float_node(op, &format!("{name}/{op}"), &[&x], more)),
            None => self.by_parts(function, name, x),
        }
    }

    /// Functions that are several of TensorFlow's operations.
    fn by_parts(&mut self, function: Function, name: &str, x: String) -> Result<String, String> {
        let part = |p: &str| format!("{name}/{p}");
        Ok(match function {
            Function::Relu { max, slope: 0.0, threshold: 0.0 } => {
                let y = self.float_node("Relu", &part("Relu"), &[&x], Vec::new());
                self.with("Minimum", &part("Minimum"), &y, max)
            }
            Function::Relu { max, slope, threshold } => {
                let bound = self.float(&part("threshold"), threshold);
                let below = self.float_node("Less", &part("Less"), &[&x, &bound], Vec::new());
                let moved = self.with("Sub", &part("sub"), &x, threshold);
                let small = self.with("Mul", &part("mul"), &moved, slope);
                let y = self.float_node("SelectV2", &part("SelectV2"), &[&below, &small, &x], Vec::new());
                if max == f32::INFINITY { y } else { self.with("Minimum", &part("Minimum"), &y, max) }
            }
            Function::Elu(alpha) => {
                let above = self.float_node("Relu", &part("Relu"), &[&x], Vec::new());
                let below = self.with("Minimum", &part("Minimum"), &x, 0.0);
                let below = self.float_node("Expm1", &part("Expm1"), &[&below], Vec::new());
                let below = self.with("Mul", &part("mul"), &below, alpha);
                self.float_node("AddV2", &part("add"), &[&above, &below], Vec::new())
            }
            Function::Swish => {
                let gate = self.float_node("Sigmoid", &part("Sigmoid"), &[&x], Vec::new());
                self.float_node("Mul", &part("mul"), &[&x, &gate], Vec::new())
            }
            Function::Gelu => {
                let inner = self.with("Mul", &part("inner"), &x, std::f32::consts::FRAC_1_SQRT_2);
                let erf = self.float_node("Erf", &part("Erf"), &[&inner], Vec::new());
                let sum = self.with("AddV2", &part("add"), &erf, 1.0);
                let half = self.with("Mul", &part("half"), &x, 0.5);
                self.float_node("Mul", &part("mul"), &[&half, &sum], Vec::new())
            }
            Function::GeluTanh => {
                let square = self.float_node("Square", &part("Square"), &[&x], Vec::new());
                let cube = self.float_node("Mul", &part("cube"), &[&square, &x], Vec::new());
                let small = self.with("Mul", &part("part"), &cube, 0.044_715);
                let sum = self.float_node("AddV2", &part("sum"), &[&x, &small], Vec::new());
                let inner = self.with("Mul", &part("inner"), &sum, 0.797_884_6);
                let tanh = self.float_node("Tanh", &part("Tanh"), &[&inner], Vec::new());
                let one = self.with("AddV2", &part("add"), &tanh, 1.0);
                let half = self.with("Mul", &part("half"), &x, 0.5);
                self.float_node("Mul", &part("mul"), &[&half, &one], Vec::new())
            }
            Function::HardSigmoid => {
                let scaled = self.with("Mul", &part("mul"), &x, 0.2);
                let moved = self.with("AddV2", &part("add"), &scaled, 0.5);
                let y = self.float_node("Relu", &part("Relu"), &[&moved], Vec::new());
                self.with("Minimum", &part("Minimum"), &y, 1.0)
            }
            Function::HardSigmoid6 | Function::DpuHardSigmoid | Function::HardSwish => {
                let sum = self.with("AddV2", &part("add"), &x, 3.0);
                let six = self.float_node("Relu6", &part("Relu6"), &[&sum], Vec::new());
                match function {
                    Function::DpuHardSigmoid => self.with("Mul", &part("mul"), &six, 2731.0 / 16384.0),
                    Function::HardSigmoid6 => self.with("RealDiv", &part("truediv"), &six, 6.0),
                    _ => {
                        let gate = self.with("RealDiv", &part("truediv"), &six, 6.0);
                        self.float_node("Mul", &part("mul"), &[&x, &gate], Vec::new())
                    }
                }
            }
            Function::Mish => {
                let soft = self.float_node("Softplus", &part("Softplus"), &[&x], Vec::new());
                let tanh = self.float_node("Tanh", &part("Tanh"), &[&soft], Vec::new());
                self.float_node("Mul", &part("mul"), &[&x, &tanh], Vec::new())
            }
            Function::Scale(factor) => self.with("Mul", &part("mul"), &x, factor),
            other => return Err(format!("the function {other:?} is not written for TensorFlow")),
        })
    }

    /// A function of TensorFlow's.
    pub(super) fn tf_op(&mut self, op: &TfOp, w: &Written<'_>) -> Result<String, String> {
        let part = |p: &str| format!("{}/{p}", w.name);
        let mut operands = Vec::new();
        for (k, operand) in op.operands.iter().enumerate() {
            operands.push(match operand {
                Operand::Tensor(i) => w.inputs.get(*i).cloned().ok_or("has an operand that is no input")?,
                Operand::Constant(tensor) => match op.kind {
                    Kind::MatMul { transpose } if transpose.get(k) == Some(&true) => {
                        self.floats(&part(&format!("constant_{k}")), &Self::swapped(tensor))
                    }
                    _ => self.floats(&part(&format!("constant_{k}")), tensor),
                },
            });
        }
        let all: Vec<&str> = operands.iter().map(String::as_str).collect();
        let x = *all.first().ok_or("has no operands")?;
        let rank = w.shapes.first().map_or(0, |s| s.len() + 1) as i64;
        let axis = |a: i64| if a < 0 { a + rank } else { a };
        Ok(match &op.kind {
            Kind::Unary(function) => self.function(*function, w.name, x.to_owned())?,
            Kind::Chain(functions) => {
                functions.iter().try_fold(x.to_owned(), |value, function| self.function(*function, w.name, value))?
            }
            Kind::Binary(combine) => self.combined(*combine, w.name, &all)?,
            Kind::Clip => {
                let below = self.float_node("Minimum", &part("clip_by_value/Minimum"), &[x, all[2]], Vec::new());
                self.float_node("Maximum", &part("clip_by_value"), &[&below, all[1]], Vec::new())
            }
            Kind::MatMul { transpose } => {
                let turned = |k: usize| transpose[k] && matches!(op.operands.get(k), Some(Operand::Tensor(_)));
                let more = vec![("adj_x", Attribute::Flag(turned(0))), ("adj_y", Attribute::Flag(turned(1)))];
                self.float_node("BatchMatMulV2", &part("MatMul"), &all[..2], more)
            }
            Kind::Rows(RowFunction::Softmax, a) => self.rows("Softmax", w, *a)?,
            Kind::Rows(RowFunction::LogSoftmax, a) => self.rows("LogSoftmax", w, *a)?,
            Kind::Rows(other, _) => {
                return Err(format!("the function {other:?} of rows is not written for TensorFlow"));
            }
            Kind::Reduce { by, axes, keep } => {
                let operation = match by {
                    Reduction::Mean => "Mean",
                    Reduction::Sum => "Sum",
                    Reduction::Max => "Max",
                    Reduction::Min => "Min",
                };
                let axes = axes.as_ref().ok_or("a fold of everything mixes samples")?;
                let axes: Vec<i64> = axes.iter().map(|a| axis(*a)).collect();
                self.reduce(operation, &part(operation), x, &axes, *keep)
            }
            Kind::Concat(a) => self.joined(&part("concat"), &all, axis(*a)),
            Kind::Reshape(_) | Kind::ExpandDims(_) | Kind::Squeeze(_) => self.reshaped(&part("Reshape"), x, w.shape),
            Kind::Transpose(Some(order)) => {
                let order: Vec<i64> = order.iter().map(|a| axis(*a)).collect();
                self.turned(&part("transpose"), x, &order)
            }
            Kind::Pad { widths, value } => {
                let pads: Vec<i64> = widths.iter().flat_map(|(a, b)| [*a as i64, *b as i64]).collect();
                let pads = self.integers(&part("PadV2/paddings"), &[widths.len(), 2], &pads);
                let value = self.float(&part("PadV2/value"), *value);
                let more = vec![("Tpaddings", Attribute::Type(INT32))];
                self.float_node("PadV2", &part("PadV2"), &[x, &pads, &value], more)
            }
            Kind::Slice(parts) => self.subscripted(parts, w, x)?,
            Kind::Resize { method, .. } => self.resized(w, *method)?,
            Kind::Gather { axis, indices, .. } => {
                let y = self.gathered(&part("GatherV2"), x, indices, *axis);
                self.reshaped(&part("Reshape"), &y, w.shape)
            }
            Kind::Reverse(axes) => {
                let axes: Vec<i64> = axes.iter().map(|a| *a as i64).collect();
                let axes = self.integers(&part("ReverseV2/axis"), &[axes.len()], &axes);
                self.float_node("ReverseV2", &part("ReverseV2"), &[x, &axes], vec![("Tidx", Attribute::Type(INT32))])
            }
            Kind::DepthToSpace(block) => self.blocks("DepthToSpace", w.name, x, *block),
            Kind::SpaceToDepth(block) => self.blocks("SpaceToDepth", w.name, x, *block),
            Kind::Transpose(None) | Kind::Stack(_) => {
                return Err(format!("the function `{}` is not written for TensorFlow", op.function));
            }
        })
    }

    fn blocks(&mut self, op: &str, name: &str, x: &str, block: usize) -> String {
        let more = vec![("block_size", Attribute::Integer(block as i64)), ("data_format", text("NHWC"))];
        self.float_node(op, &format!("{name}/{op}"), &[x], more)
    }

    fn combined(&mut self, combine: Combine, name: &str, all: &[&str]) -> Result<String, String> {
        let op = match combine {
            Combine::Add => "AddV2",
            Combine::Subtract => "Sub",
            Combine::Multiply => "Mul",
            Combine::Divide => "RealDiv",
            Combine::DivideNoNan => "DivNoNan",
            Combine::Maximum => "Maximum",
            Combine::Minimum => "Minimum",
            Combine::Power => "Pow",
            Combine::SquaredDifference => "SquaredDifference",
            other => return Err(format!("the function {other:?} of two is not written for TensorFlow")),
        };
        let operands = all.get(..2).ok_or("has not two operands")?;
        Ok(self.float_node(op, &format!("{name}/{op}"), operands, Vec::new()))
    }

    /// A subscript: of each axis its elements, where they are not all.
    fn subscripted(&mut self, parts: &[Part], w: &Written<'_>, x: &str) -> Result<String, String> {
        let whole = [&[1], w.shapes[0]].concat();
        let (along, _) = subscript(parts, &whole)?;
        let mut y = x.to_owned();
        for (axis, (start, count, step)) in along.iter().enumerate().skip(1) {
            if (*start, *count, *step) != (0, whole[axis], 1) {
                let places: Vec<usize> = (0..*count).map(|i| (*start as isize + i as isize * step) as usize).collect();
                y = self.gathered(&format!("{}/strided_slice/{axis}", w.name), &y, &places, axis);
            }
        }
        Ok(self.reshaped(&format!("{}/Reshape", w.name), &y, w.shape))
    }
}
