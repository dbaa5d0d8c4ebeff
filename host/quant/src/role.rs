//! What a quantizer is for: its role in a layer, and what every file and setting calls that role.

/// The role of a quantizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A model input, or a float tensor that enters a quantized layer: the quantizer of a Quantize node.
    Input,
    /// A kernel, or gamma, beta, alpha.
    Weight,
    /// A bias.
    Bias,
    /// A layer's value before its activation function, whose result stays float.
    PreActivation,
    /// The result of a layer's activation function.
    PostActivation,
    /// A layer's result.
    Output,
}

/// What the state of a quantizer is stored under: the first part of its variables' names in `quantized.h5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    /// The layer's own name.
    Layer,
    /// The name of the weight.
    Weight,
    /// Always the same.
    Named(&'static str),
}

/// One role's names.
#[derive(Debug)]
pub struct Row {
    /// The role.
    pub role: Role,
    /// First part of the user's settings: `weight` of `weight_bit`.
    pub setting: &'static str,
    /// Key of a layer's entry with the names of what is quantized.
    pub names: &'static str,
    /// Key of a layer's entry with the quantizers, one for each name.
    pub quantizers: &'static str,
    /// Variables in `quantized.h5`.
    pub variable: Variable,
    /// Name in `quantize_info.json`; `None` for the name of the weight.
    pub info: Option<&'static str>,
}

/// Every role, in the vendor's order.
#[rustfmt::skip]
pub const ROLES: [Row; 6] = [
    Row { role: Role::Input, setting: "input", names: "quantizable_inputs", quantizers: "input_quantizers",
          variable: Variable::Layer, info: Some("input") },
    Row { role: Role::Weight, setting: "weight", names: "quantizable_weights", quantizers: "weight_quantizers",
          variable: Variable::Weight, info: None },
    Row { role: Role::Bias, setting: "bias", names: "quantizable_biases", quantizers: "bias_quantizers",
          variable: Variable::Weight, info: None },
    Row { role: Role::PreActivation, setting: "activation", names: "quantizable_activations", quantizers: "activation_quantizers",
          variable: Variable::Named("pre_activation"), info: Some("pre_activation") },
    Row { role: Role::PostActivation, setting: "activation", names: "quantizable_activations", quantizers: "activation_quantizers",
          variable: Variable::Named("post_activation"), info: Some("activation") },
    Row { role: Role::Output, setting: "activation", names: "quantizable_outputs", quantizers: "output_quantizers",
          variable: Variable::Named("output_0"), info: Some("output") },
];

impl Row {
    /// The sentence for an entry whose lists of names and of quantizers have these different lengths.
    pub(crate) fn lengths_differ(&self, (names, quantizers): (usize, usize)) -> String {
        let lists = format!("{} and {}", self.names, self.quantizers);
        format!("length of {lists} should be the same, but {names} and {quantizers} are given")
    }
}

impl Role {
    /// The role's names.
    pub const fn row(self) -> &'static Row {
        &ROLES[self as usize]
    }

    /// Whether the quantized tensor is one of the layer's own: its values don't depend on data.
    pub const fn is_weight(self) -> bool {
        matches!(self, Self::Weight | Self::Bias)
    }
}

/// The lists of a layer's entry, in the vendor's order. An activation has one, wherever its quantizer comes to sit.
pub fn lists() -> impl Iterator<Item = &'static Row> {
    ROLES.iter().filter(|row| row.role != Role::PreActivation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_has_its_row_and_the_lists_have_different_keys() {
        for (i, row) in ROLES.iter().enumerate() {
            assert!(row.role as usize == i && row.role.row().role == row.role, "{row:?}");
            assert_eq!(row.role.is_weight(), row.variable == Variable::Weight, "{row:?}");
        }
        let mut keys: Vec<&str> = lists().flat_map(|row| [row.names, row.quantizers]).collect();
        assert!(ROLES.iter().all(|row| keys.contains(&row.names) && keys.contains(&row.quantizers)));
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!((keys.len(), count), (10, 10));
    }
}
