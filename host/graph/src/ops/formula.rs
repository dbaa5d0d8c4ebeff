//! Custom layers as formulas: `Mylayer=maximum(x, 0) + alpha * minimum(x, 0)`.

use crate::attributes::Attribute;
use crate::ops::custom::Part;
use crate::ops::tfop::{self, Kind};
use crate::ops::{Activate, ActivationFn, Custom, CustomLayer, Layer, Op, TfOp};
use shiftwise_core::model::{Combine, Function};
use shiftwise_tensor::array;
use shiftwise_tensor::broadcast::broadcast;
use shiftwise_tensor::tensor::Tensor;

/// Parentheses and signs within one another; deeper formulas are refused.
const MAX_DEPTH: usize = 64;

/// What the layers of a class compute.
///
/// `x` is the input, `x0`, `x1`, … are the inputs of a layer with several; a name is a weight (`w0`, `w1`, … by
/// position, or its name) or a number in the layer's config. `+ - * /` and the functions of one and of two arguments
/// work element by element with NumPy's broadcasting; `matmul(a, b)` works on the last two axes. All is f32.
#[derive(Clone, Debug)]
pub struct Formula {
    class: String,
    expression: Expression,
}

#[derive(Clone, Debug)]
enum Expression {
    Number(f32),
    /// A name and where it stands, counted in characters from 1.
    Name(String, usize),
    Unary(Function, Box<Expression>),
    Activation(ActivationFn, Box<Expression>),
    Binary(&'static str, Combine, Box<[Expression; 2]>),
    MatMul(Box<[Expression; 2]>),
}

/// Functions of one argument.
const UNARY: &[(&str, Function)] = &[
    ("abs", Function::Absolute),
    ("exp", Function::Exponential),
    ("log", Function::Logarithm),
    ("sqrt", Function::SquareRoot),
    ("square", Function::Square),
    ("floor", Function::Floor),
    ("ceil", Function::Ceiling),
    ("round", Function::Round),
];

/// Functions of two arguments.
const BINARY: &[(&str, Combine)] =
    &[("maximum", Combine::Maximum), ("minimum", Combine::Minimum), ("pow", Combine::Power)];

impl Formula {
    /// From `CLASS=EXPRESSION`; errors say at which character of it something else is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((class, expression)) = text.split_once('=').filter(|(class, _)| !class.trim().is_empty()) else {
            return Err(format!("`{text}`: CLASS=FORMULA is expected, such as `Mylayer=alpha * x`"));
        };
        let start = class.chars().count() + 1;
        let mut parser = Parser { chars: expression.chars().collect(), at: 0, start, depth: 0 };
        let expression = parser.sum().and_then(|e| match parser.peek() {
            None => Ok(e),
            Some(c) => Err(parser.error(&format!("`{c}` is not expected here"))),
        });
        let expression = expression.map_err(|e| format!("`{text}`: {e}"))?;
        Ok(Self { class: class.trim().to_owned(), expression })
    }
}

struct Parser {
    chars: Vec<char>,
    at: usize,
    /// Characters before the expression, for messages.
    start: usize,
    depth: usize,
}

impl Parser {
    fn error(&self, message: &str) -> String {
        format!("at character {}: {message}", self.start + self.at + 1)
    }

    /// The next character that is no blank.
    fn peek(&mut self) -> Option<char> {
        while self.chars.get(self.at).is_some_and(|c| c.is_whitespace()) {
            self.at += 1;
        }
        self.chars.get(self.at).copied()
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        if self.eat(wanted) { Ok(()) } else { Err(self.error(&format!("`{wanted}` is expected"))) }
    }

    fn sum(&mut self) -> Result<Expression, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("the formula is nested too deeply"));
        }
        let mut left = self.product()?;
        loop {
            left = if self.eat('+') {
                Expression::Binary("+", Combine::Add, Box::new([left, self.product()?]))
            } else if self.eat('-') {
                Expression::Binary("-", Combine::Subtract, Box::new([left, self.product()?]))
            } else {
                self.depth -= 1;
                return Ok(left);
            };
        }
    }

    fn product(&mut self) -> Result<Expression, String> {
        let mut left = self.factor()?;
        loop {
            left = if self.eat('*') {
                Expression::Binary("*", Combine::Multiply, Box::new([left, self.factor()?]))
            } else if self.eat('/') {
                Expression::Binary("/", Combine::Divide, Box::new([left, self.factor()?]))
            } else {
                return Ok(left);
            };
        }
    }

    fn factor(&mut self) -> Result<Expression, String> {
        let mut negative = false;
        while let Some(sign) = self.peek().filter(|c| "+-".contains(*c)) {
            negative ^= sign == '-';
            self.at += 1;
        }
        let inner = self.atom()?;
        Ok(if negative { Expression::Unary(Function::Negative, Box::new(inner)) } else { inner })
    }

    fn atom(&mut self) -> Result<Expression, String> {
        match self.peek() {
            Some('(') => {
                self.at += 1;
                let inner = self.sum()?;
                self.expect(')')?;
                Ok(inner)
            }
            Some(c) if c.is_ascii_digit() || c == '.' => self.number(),
            Some(c) if c.is_alphabetic() || c == '_' => self.name(),
            Some(c) => Err(self.error(&format!("`{c}` begins neither a number nor a name"))),
            None => Err(self.error("the formula ends too early")),
        }
    }

    fn number(&mut self) -> Result<Expression, String> {
        let from = self.at;
        while let Some(c) = self.chars.get(self.at) {
            let sign = "+-".contains(*c) && self.at > from && "eE".contains(self.chars[self.at - 1]);
            if !(c.is_ascii_digit() || ".eE".contains(*c) || sign) {
                break;
            }
            self.at += 1;
        }
        let text: String = self.chars[from..self.at].iter().collect();
        let value = text.parse::<f32>().ok().filter(|v| v.is_finite());
        let end = std::mem::replace(&mut self.at, from);
        let value = value.ok_or_else(|| self.error(&format!("`{text}` is not a number")))?;
        self.at = end;
        Ok(Expression::Number(value))
    }

    fn name(&mut self) -> Result<Expression, String> {
        let from = self.at;
        while self.chars.get(self.at).is_some_and(|c| c.is_alphanumeric() || *c == '_') {
            self.at += 1;
        }
        let name: String = self.chars[from..self.at].iter().collect();
        if !self.eat('(') {
            return Ok(Expression::Name(name, self.start + from + 1));
        }
        let mut arguments = vec![self.sum()?];
        while self.eat(',') {
            arguments.push(self.sum()?);
        }
        self.expect(')')?;
        let end = std::mem::replace(&mut self.at, from);
        let built = self.function(&name, arguments)?;
        self.at = end;
        Ok(built)
    }

    fn function(&self, name: &str, arguments: Vec<Expression>) -> Result<Expression, String> {
        let given = arguments.len();
        let wrong = |expected: usize| self.error(&format!("{name} takes {expected} arguments, and {given} are given"));
        let one =
            |arguments: Vec<Expression>| <[_; 1]>::try_from(arguments).map(|[x]| Box::new(x)).map_err(|_| wrong(1));
        let two = |arguments: Vec<Expression>| <[_; 2]>::try_from(arguments).map(Box::new).map_err(|_| wrong(2));
        if let Some((_, f)) = UNARY.iter().find(|(n, _)| *n == name) {
            return Ok(Expression::Unary(*f, one(arguments)?));
        }
        if let Some((name, f)) = BINARY.iter().find(|(n, _)| *n == name) {
            return Ok(Expression::Binary(name, *f, two(arguments)?));
        }
        if name == "matmul" {
            return Ok(Expression::MatMul(two(arguments)?));
        }
        match ActivationFn::from_name(name) {
            Some(function) => Ok(Expression::Activation(function, one(arguments)?)),
            None => {
                let known = UNARY.iter().map(|(n, _)| *n).chain(BINARY.iter().map(|(n, _)| *n)).chain(["matmul"]);
                let known = known.collect::<Vec<_>>().join(", ");
                Err(self.error(&format!("the function `{name}` is unknown; known are {known} and Keras' activations")))
            }
        }
    }
}

/// What a name stands for.
enum Meaning<'a> {
    Input(usize),
    Weight(usize),
    Constant(f32),
    Array(&'a Attribute),
}

fn meaning<'a>(name: &str, layer: &'a Custom, inputs: usize) -> Option<Meaning<'a>> {
    let number = |prefix: &str, count: usize| {
        let rest = name.strip_prefix(prefix)?;
        if rest.is_empty() { Some(0) } else { rest.parse().ok() }.filter(|i: &usize| *i < count)
    };
    // A weight may be called anything, and then that is what its name means.
    if let Some(i) = layer.weight(name) {
        return Some(Meaning::Weight(i));
    }
    match layer.config.get(name) {
        Some(number @ (Attribute::Integer(_) | Attribute::Number(_))) => return number.single().map(Meaning::Constant),
        Some(Attribute::Flag(b)) => return Some(Meaning::Constant(f32::from(u8::from(*b)))),
        Some(value @ Attribute::List(_)) => return Some(Meaning::Array(value)),
        Some(Attribute::Null | Attribute::Text(_) | Attribute::Map(_)) | None => {}
    }
    let weight = || number("w", layer.weights.len()).filter(|_| name != "w").map(Meaning::Weight);
    number("x", inputs).map(Meaning::Input).or_else(weight)
}

impl Expression {
    /// The result's shape; shapes include the batch.
    fn shape(&self, layer: &Custom, inputs: &[Vec<usize>]) -> Result<Vec<usize>, String> {
        match self {
            Self::Number(_) => Ok(Vec::new()),
            Self::Name(name, at) => match meaning(name, layer, inputs.len()) {
                Some(Meaning::Input(i)) => Ok(inputs[i].clone()),
                Some(Meaning::Weight(i)) => Ok(layer.weights[i].1.shape().to_vec()),
                Some(Meaning::Constant(_)) => Ok(Vec::new()),
                Some(Meaning::Array(value)) => match value.tensor() {
                    Some(tensor) => Ok(tensor.shape().to_vec()),
                    None => Err(format!("at character {at}: the setting `{name}` is {value}, numbers are expected")),
                },
                None => {
                    let weights: Vec<&str> = layer.weights.iter().map(|(n, _)| n.as_str()).collect();
                    let keys: Vec<&str> = layer.config.iter().filter(|(_, v)| v.is_number()).map(|(k, _)| k).collect();
                    Err(format!(
                        "at character {at}: `{name}` is none of its {} inputs, its weights [{}] or its numbers [{}]",
                        inputs.len(),
                        weights.join(", "),
                        keys.join(", ")
                    ))
                }
            },
            Self::Unary(_, x) | Self::Activation(_, x) => x.shape(layer, inputs),
            Self::Binary(name, _, operands) => {
                let [a, b] = [operands[0].shape(layer, inputs)?, operands[1].shape(layer, inputs)?];
                broadcast(&[&a, &b]).map_err(|_| format!("`{name}` of shapes {a:?} and {b:?}, which don't broadcast"))
            }
            Self::MatMul(operands) => {
                array::matmul_shape(&operands[0].shape(layer, inputs)?, &operands[1].shape(layer, inputs)?)
            }
        }
    }

    fn eval(&self, layer: &Custom, inputs: &[&Tensor], weights: &[&Tensor]) -> Tensor {
        let scalar = |v: f32| Tensor::new(Vec::new(), vec![v]).unwrap_or_else(|| Tensor::zeros(&[]));
        match self {
            Self::Number(v) => scalar(*v),
            Self::Name(name, _) => match meaning(name, layer, inputs.len()) {
                Some(Meaning::Input(i)) => inputs[i].clone(),
                Some(Meaning::Weight(i)) => weights[i].clone(),
                Some(Meaning::Constant(v)) => scalar(v),
                Some(Meaning::Array(value)) => value.tensor().unwrap_or_else(|| scalar(0.0)),
                None => scalar(0.0),
            },
            Self::Unary(f, x) => array::map(&x.eval(layer, inputs, weights), |x| f.apply(x)),
            Self::Activation(function, x) => {
                let mut y = x.eval(layer, inputs, weights);
                function.apply(&mut y);
                y
            }
            Self::Binary(_, f, operands) => {
                let [a, b] = [0, 1].map(|i: usize| operands[i].eval(layer, inputs, weights));
                array::zip(&a, &b, |a, b| f.apply(a, b))
            }
            Self::MatMul(operands) => {
                let [a, b] = [0, 1].map(|i: usize| operands[i].eval(layer, inputs, weights));
                array::matmul(&a, &b)
            }
        }
    }
}

/// Whether an operand is known before any input is.
enum Operand {
    Constant(Tensor),
    /// An input, or behind the inputs a part.
    Tensor(usize),
}

/// The parts of a formula while they are found.
struct Parts<'a> {
    layer: &'a Custom,
    /// Of one sample, with a batch of 1.
    inputs: Vec<Vec<usize>>,
    weights: &'a [&'a Tensor],
    parts: Vec<Part>,
}

impl Parts<'_> {
    /// The operand that an expression is, its parts appended.
    fn operand(&mut self, expression: &Expression) -> Option<Operand> {
        let (name, kind, operands) = match expression {
            Expression::Number(_) => return Some(Operand::Constant(expression.eval(self.layer, &[], &[]))),
            Expression::Name(name, _) => {
                return Some(match meaning(name, self.layer, self.inputs.len())? {
                    Meaning::Input(i) => Operand::Tensor(i),
                    Meaning::Weight(_) | Meaning::Constant(_) | Meaning::Array(_) => {
                        // Of which no input is read.
                        let none = Tensor::zeros(&[0]);
                        Operand::Constant(expression.eval(self.layer, &vec![&none; self.inputs.len()], self.weights))
                    }
                });
            }
            Expression::Unary(function, x) => ("map", Kind::Unary(*function), vec![self.operand(x)?]),
            Expression::Activation(function, x) => match self.operand(x)? {
                Operand::Constant(mut value) => {
                    function.apply(&mut value);
                    return Some(Operand::Constant(value));
                }
                Operand::Tensor(x) => {
                    let op = Op::Activation(Activate { function: *function });
                    return self.part(op, vec![x], expression);
                }
            },
            Expression::Binary(name, combine, operands) => {
                (*name, Kind::Binary(*combine), operands.iter().map(|x| self.operand(x)).collect::<Option<_>>()?)
            }
            Expression::MatMul(operands) => {
                let kind = Kind::MatMul { transpose: [false; 2] };
                ("matmul", kind, operands.iter().map(|x| self.operand(x)).collect::<Option<_>>()?)
            }
        };
        let (mut inputs, mut own) = (Vec::new(), Vec::new());
        for operand in operands {
            own.push(match operand {
                Operand::Constant(value) => tfop::Operand::Constant(value),
                Operand::Tensor(i) => {
                    inputs.push(i);
                    tfop::Operand::Tensor(inputs.len() - 1)
                }
            });
        }
        let op = TfOp { function: name.to_owned(), operands: own, kind };
        if inputs.is_empty() {
            return Some(Operand::Constant(op.eval(&[], &[])));
        }
        self.part(Op::TfOp(op), inputs, expression)
    }

    fn part(&mut self, op: Op, inputs: Vec<usize>, expression: &Expression) -> Option<Operand> {
        let shape = expression.shape(self.layer, &self.inputs).ok()?;
        let shape = shape.split_first().filter(|(batch, _)| **batch == 1)?.1.to_vec();
        self.parts.push(Part { op, inputs, shape });
        Some(Operand::Tensor(self.inputs.len() + self.parts.len() - 1))
    }
}

impl CustomLayer for Formula {
    fn class(&self) -> &str {
        &self.class
    }
    fn output_shape(&self, layer: &Custom, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        array::per_sample(&format!("the formula of {}", self.class), |n| {
            let batched: Vec<Vec<usize>> = inputs.iter().map(|s| [&[n], *s].concat()).collect();
            self.expression.shape(layer, &batched)
        })
    }
    fn eval(&self, layer: &Custom, inputs: &[&Tensor], weights: &[&Tensor]) -> Tensor {
        self.expression.eval(layer, inputs, weights)
    }
    fn parts(&self, layer: &Custom, inputs: &[&[usize]], weights: &[&Tensor]) -> Option<Vec<Part>> {
        let inputs = inputs.iter().map(|s| [&[1], *s].concat()).collect();
        let mut parts = Parts { layer, inputs, weights, parts: Vec::new() };
        match parts.operand(&self.expression)? {
            // What is an input, or a part that isn't the last, is passed on.
            Operand::Tensor(i) if i + 1 != parts.inputs.len() + parts.parts.len() || parts.parts.is_empty() => {
                let op = Op::Activation(Activate { function: ActivationFn::Linear });
                parts.part(op, vec![i], &self.expression)?;
            }
            Operand::Tensor(_) => {}
            Operand::Constant(_) => return None,
        }
        Some(parts.parts)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn layer(formula: &str) -> Result<Custom, String> {
        let mut layer = Custom::new("C", Arc::new(Formula::parse(formula)?));
        layer.config.insert("ratio", Attribute::Number(0.25));
        layer.config.insert("steps", Attribute::List([1, 2].map(Attribute::Integer).into()));
        layer.config.insert("mode", Attribute::Text("a".into()));
        let weights = [("p/alpha", [0.5, 0.25]), ("b", [1.0, -1.0])];
        layer.weights = weights.map(|(name, values)| (name.into(), Tensor::vector(values.into()))).into();
        layer.output_shape(&[&[2, 2], &[2, 2]]).map(|_| layer)
    }

    fn value(formula: &str) -> Vec<f32> {
        let x = Tensor::new(vec![1, 2, 2], vec![-2.0, -1.0, 1.0, 4.0]).unwrap();
        let y = Tensor::new(vec![1, 2, 2], vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        let layer = layer(&format!("C={formula}")).unwrap();
        let weights: Vec<Tensor> = layer.weights().into_iter().map(|(_, t)| t.clone()).collect();
        layer.eval(&[&x, &y], &weights.iter().collect::<Vec<_>>()).into_data()
    }

    /// The parts of a formula, one after the other.
    fn by_parts(formula: &str) -> Vec<f32> {
        let x = Tensor::new(vec![1, 2, 2], vec![-2.0, -1.0, 1.0, 4.0]).unwrap();
        let y = Tensor::new(vec![1, 2, 2], vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        let layer = layer(&format!("C={formula}")).unwrap();
        let weights: Vec<Tensor> = layer.weights().into_iter().map(|(_, t)| t.clone()).collect();
        let parts = layer.parts(&[&[2, 2], &[2, 2]], &weights.iter().collect::<Vec<_>>()).unwrap();
        let mut all = vec![x, y];
        for part in parts {
            let inputs: Vec<&Tensor> = part.inputs.iter().map(|i| &all[*i]).collect();
            let mut result = part.op.layer().eval(&inputs, &[]);
            part.op.layer().activation().apply(&mut result);
            assert_eq!(result.shape()[1..], part.shape);
            all.push(result);
        }
        all.pop().unwrap().into_data()
    }

    #[test]
    fn formulas_compute() {
        let table: &[(&str, [f32; 4])] = &[
            ("x", [-2.0, -1.0, 1.0, 4.0]),
            ("maximum(x, 0) + alpha * minimum(x, 0)", [-1.0, -0.25, 1.0, 4.0]),
            ("x0 + x1 * 2 - 1", [-1.0, 2.0, 6.0, 11.0]),
            ("2 - 1 - x", [3.0, 2.0, 0.0, -3.0]),
            ("8 / 2 / x1", [4.0, 2.0, 4.0 / 3.0, 1.0]),
            ("-(x + b) * ratio", [0.25, 0.5, -0.5, -0.75]),
            ("x * w0 + w1", [0.0, -1.25, 1.5, 0.0]),
            ("relu(x) + 1e1", [10.0, 10.0, 11.0, 14.0]),
            ("sqrt(square(x)) - abs(x) + steps", [1.0, 2.0, 1.0, 2.0]),
            ("matmul(x, x1)", [-5.0, -8.0, 13.0, 18.0]),
        ];
        for (formula, want) in table {
            assert_eq!(value(formula), want, "{formula}");
            assert_eq!(by_parts(formula), want, "{formula} in parts");
        }
    }

    #[test]
    fn mistakes_are_located() {
        let table = [
            ("C=x +", "at character 6: the formula ends too early"),
            ("C=x $ 1", "at character 5: `$` is not expected here"),
            ("C=foo(x)", "at character 3: the function `foo` is unknown"),
            ("C=maximum(x)", "at character 3: maximum takes 2 arguments, and 1 are given"),
            ("C=1.2.3 * x", "at character 3: `1.2.3` is not a number"),
            (
                "C=x * beta",
                "at character 7: `beta` is none of its 2 inputs, its weights [p/alpha, b] or its numbers [ratio]",
            ),
            ("C=(x", "at character 5: `)` is expected"),
            ("C=alpha", "does not keep samples apart"),
            ("x + 1", "CLASS=FORMULA is expected"),
        ];
        for (formula, says) in table {
            let error = layer(formula).unwrap_err();
            assert!(error.contains(says), "{formula}: {error}");
        }
        assert!(layer(&format!("C={}x{}", "(".repeat(500), ")".repeat(500))).unwrap_err().contains("too deeply"));
    }
}
