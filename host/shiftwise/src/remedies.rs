//! What can be done about lost accuracy: THE table of remedies, which an analysis proposes and a search tries.
//!
//! A remedy is a change of a strategy. Which layers it helps by how much is measured, never known beforehand.

use serde_json::{Value, json};
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::Graph;
use shiftwise_graph::ops::{ActivationFn, Op};
use shiftwise_quant::strategy::{Placement, Strategy};

/// What decides whether a remedy can help a network at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    /// Where the strategy's quantizers sit.
    placement: Placement,
    /// Whether an activation is clipped at 6.
    relu6: bool,
}

impl Case {
    /// Of a float network and the strategy that it is quantized with.
    pub(crate) fn of(graph: &Graph, strategy: &Strategy) -> Self {
        let is_relu6 = |op: &Op| match op {
            Op::Relu(relu) => relu.max_value == Some(6.0),
            Op::Activation(own) => own.function == ActivationFn::Relu6,
            other => other.weighted().is_some_and(|w| w.activation == ActivationFn::Relu6),
        };
        Self { placement: strategy.base().placement, relu6: graph.nodes.iter().any(|n| is_relu6(&n.op)) }
    }
}

/// Calibrations' worth of time that reconstruction takes, about.
const RECONSTRUCTION: u32 = 6;
/// The same of the vendor's finetuning.
const ADAQUANT: u32 = 60;

/// What can be done, as settings of a strategy.
#[derive(Debug)]
pub(crate) struct Remedy {
    /// A stable name.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) what: &'static str,
    /// The settings that it moves: where somebody has decided one of them, it is not open.
    pub(crate) keys: &'static [&'static str],
    /// Whether it is about one layer.
    pub(crate) of_layer: bool,
    /// Whether a DPU can still do the layer.
    pub(crate) on_dpu: bool,
    /// When it can help at all.
    pub(crate) applies: fn(&Case) -> bool,
    /// How long quantizing takes with it, in calibrations.
    pub(crate) cost: u32,
    /// Does it to a strategy; `layer` is the user's.
    apply: fn(&mut Strategy, &str) -> Result<(), Error>,
}

const ALWAYS: fn(&Case) -> bool = |_| true;
/// Of quantizers with positions, whose methods are 0 and 1.
const POSITIONS: fn(&Case) -> bool = |case| case.placement == Placement::Dpu;
/// Of quantizers with float scales, whose methods are 0, 2 and 3.
const SCALES: fn(&Case) -> bool = |case| case.placement == Placement::Inputs;
const RANGES: fn(&Case) -> bool = |case| case.placement != Placement::Readers;
const RELU6: fn(&Case) -> bool = |case| case.relu6;

/// Declares the table: a row is a name, what it does, its keys, when it applies, its cost, what it sets.
macro_rules! remedies {
    ($($name:ident: $what:literal, [$($key:literal),+], $applies:expr, $cost:expr, $set:expr;)*) => {
        &[$(Remedy {
            name: stringify!($name),
            what: $what,
            keys: &[$($key),+],
            of_layer: false,
            on_dpu: true,
            applies: $applies,
            cost: $cost,
            apply: |s, _| $set(s),
        }),*]
    };
}

/// Remedies about the whole network, in the order in which a search tries them where no cause says otherwise.
const OF_NETWORK: &[Remedy] = remedies! {
    reconstruct: "solve for the weights of each layer on its quantized inputs (include_fast_ft, fast_ft_algorithm=reconstruct)",
        ["include_fast_ft", "fast_ft_algorithm"], POSITIONS, RECONSTRUCTION,
        |s: &mut Strategy| set(s, "include_fast_ft", json!(true)).and_then(|()| set(s, "fast_ft_algorithm", json!("reconstruct")));
    fold_dead: "zero the kernels of channels that no data gets through (fold_dead_channels=true)",
        ["fold_dead_channels"], ALWAYS, 2, |s: &mut Strategy| set(s, "fold_dead_channels", json!(true));
    relu: "replace ReLU6 by ReLU (convert_relu6_to_relu=true)",
        ["convert_relu6_to_relu"], RELU6, 1, |s: &mut Strategy| set(s, "convert_relu6_to_relu", json!(true));
    equalize: "equalize channels across layers (include_cle=true)",
        ["include_cle"], ALWAYS, 1, |s: &mut Strategy| set(s, "include_cle", json!(true));
    equalize_relu6: "equalize channels across ReLU6 too (cle_to_relu6=true)",
        ["cle_to_relu6"], RELU6, 1, |s: &mut Strategy| set(s, "cle_to_relu6", json!(true));
    raw_channels: "leave the ranges of channels as they are (include_cle=false)",
        ["include_cle"], ALWAYS, 1, |s: &mut Strategy| set(s, "include_cle", json!(false));
    whole_range: "let the range hold every value (activation_method=0)",
        ["activation_method"], RANGES, 1, |s: &mut Strategy| set(s, "activation_method", json!(0));
    least_error: "choose the range of least error (activation_method=1)",
        ["activation_method"], POSITIONS, 1, |s: &mut Strategy| set(s, "activation_method", json!(1));
    least_divergence: "choose the range of least divergence (activation_method=2)",
        ["activation_method"], SCALES, 2, |s: &mut Strategy| set(s, "activation_method", json!(2));
    most_values: "let the range hold all but one in 10 000 values (activation_method=3)",
        ["activation_method"], SCALES, 2, |s: &mut Strategy| set(s, "activation_method", json!(3));
    whole_weights: "let the range hold every weight (weight_method=0)",
        ["weight_method"], RANGES, 1, |s: &mut Strategy| set(s, "weight_method", json!(0));
    least_error_weights: "choose the range of weights of least error (weight_method=1)",
        ["weight_method"], POSITIONS, 1, |s: &mut Strategy| set(s, "weight_method", json!(1));
    channel_weights: "give each channel's weights a step of their own (weight_per_channel=true)",
        ["weight_per_channel"], SCALES, 1, |s: &mut Strategy| set(s, "weight_per_channel", json!(true));
    whole_inputs: "let the range hold every value of the inputs (input_method=0)",
        ["input_method"], RANGES, 1, |s: &mut Strategy| set(s, "input_method", json!(0));
    least_error_inputs: "choose the range of inputs of least error (input_method=1)",
        ["input_method"], POSITIONS, 1, |s: &mut Strategy| set(s, "input_method", json!(1));
    whole_biases: "let the range hold every bias (bias_method=0)",
        ["bias_method"], RANGES, 1, |s: &mut Strategy| set(s, "bias_method", json!(0));
    least_error_biases: "choose the range of biases of least error (bias_method=1)",
        ["bias_method"], POSITIONS, 1, |s: &mut Strategy| set(s, "bias_method", json!(1));
    adaquant: "finetune the weights of each layer as the vendor's tool does (include_fast_ft, fast_ft_algorithm=adaquant)",
        ["include_fast_ft", "fast_ft_algorithm"], POSITIONS, ADAQUANT,
        |s: &mut Strategy| set(s, "include_fast_ft", json!(true)).and_then(|()| set(s, "fast_ft_algorithm", json!("adaquant")));
};

/// Remedies about one layer.
const OF_LAYER: &[Remedy] = &[
    Remedy {
        name: "finer_layer",
        what: "give the layer 16 bits (layer_config)",
        // Whoever has decided a width does not want another one.
        keys: &["layer_config", "weight_bit", "activation_bit"],
        of_layer: true,
        on_dpu: false,
        applies: RANGES,
        cost: 1,
        apply: |s, layer| {
            let mut widths = s.user_value("layer_config").and_then(Value::as_object).cloned().unwrap_or_default();
            widths.insert(layer.to_owned(), json!("int16"));
            set(s, "layer_config", Value::Object(widths))?;
            set(s, "layer_config_recalibrate", json!(true))
        },
    },
    Remedy {
        name: "float_layer",
        what: "leave the layer in floats (ignore_layers)",
        keys: &["ignore_layers"],
        of_layer: true,
        on_dpu: false,
        applies: ALWAYS,
        cost: 1,
        apply: |s, layer| {
            let mut all = s.layer_list("ignore_layers");
            if !all.iter().any(|own| own == layer) {
                all.push(layer.to_owned());
            }
            set(s, "ignore_layers", json!(all))
        },
    },
];

fn set(strategy: &mut Strategy, key: &str, value: Value) -> Result<(), Error> {
    strategy.set(key, value).map(drop)
}

impl Remedy {
    /// The strategy with it; `None` if it is in it already, or is nothing that this strategy knows.
    pub(crate) fn applied(&self, strategy: &Strategy, layer: &str) -> Option<Strategy> {
        let mut own = strategy.clone();
        (self.apply)(&mut own, layer).ok()?;
        (own.dump(2) != strategy.dump(2)).then_some(own)
    }
}

/// Every row.
pub(crate) fn all() -> impl Iterator<Item = &'static Remedy> {
    OF_NETWORK.iter().chain(OF_LAYER)
}

/// The remedy of a name.
pub(crate) fn remedy(name: &str) -> Option<&'static Remedy> {
    all().find(|r| r.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_remedy_changes_a_strategy_once_by_the_settings_that_it_names() {
        let plain = || Strategy::built_in("pof2s").unwrap();
        let mut other = plain();
        for (key, value) in
            [("include_cle", json!(false)), ("activation_method", json!(2)), ("weight_method", json!(2))]
        {
            other.set(key, value).unwrap();
        }
        for remedy in all() {
            let from = if remedy.name == "equalize" { &other } else { &plain() };
            let with = remedy.applied(from, "conv").unwrap_or_else(|| panic!("{}", remedy.name));
            assert!(remedy.applied(&with, "conv").is_none(), "{} twice", remedy.name);
            assert!(remedy.cost > 0 && !remedy.keys.is_empty());
            let base: Vec<String> = from.decided();
            for key in with.decided().iter().filter(|key| !base.contains(key) && !key.starts_with("layer_config_")) {
                assert!(remedy.keys.contains(&key.as_str()), "{}: {key}", remedy.name);
            }
        }
    }

    #[test]
    fn names_are_unique() {
        let names: Vec<_> = all().map(|r| r.name).collect();
        assert!(names.iter().all(|name| names.iter().filter(|other| *other == name).count() == 1), "{names:?}");
    }
}
