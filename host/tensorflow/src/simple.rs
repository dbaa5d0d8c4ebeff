//! Operations that the tables of operators have by name alone.

use serde_json::json;

use crate::network::{Network, Slot};

/// How an operation of one result is read whose operands are tensors.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Simple {
    /// The layer of a Keras activation.
    Activation(&'static str),
    /// A function of TensorFlow of one operand.
    One(&'static str),
    /// A function of TensorFlow of two operands.
    Two(&'static str),
    /// A fold by a function of TensorFlow along the axes that the second operand has.
    Fold(&'static str),
    /// The first operand itself: what only concerns types of elements, or training.
    Same,
}

/// An operand of an operation.
pub(crate) fn operand(inputs: &[Slot], k: usize) -> Result<&Slot, String> {
    inputs.get(k).ok_or_else(|| format!("it has {} operands", inputs.len()))
}

/// An operand that must be a constant.
pub(crate) fn constant(inputs: &[Slot], k: usize) -> Result<&crate::constants::Constant, String> {
    let none = || format!("its operand {k} is no constant, which it must be to be read");
    operand(inputs, k)?.constant().ok_or_else(none)
}

impl Network<'_> {
    /// Reads an operation. `keep`: axes that are folded stay, with one element each.
    pub(crate) fn simple(&mut self, operation: &str, how: Simple, inputs: &[Slot], keep: bool) -> Result<Slot, String> {
        let x = operand(inputs, 0)?;
        match how {
            Simple::Activation(name) => self.activation(operation, x, name),
            Simple::One(function) => self.function(operation, function, std::slice::from_ref(x), &[], json!({})),
            Simple::Two(function) => self.binary(operation, function, [x, operand(inputs, 1)?]),
            Simple::Fold(function) => {
                let axes = constant(inputs, 1)?.whole()?;
                self.reduce(operation, function, x, &axes, keep)
            }
            Simple::Same => Ok(x.clone()),
        }
    }
}
