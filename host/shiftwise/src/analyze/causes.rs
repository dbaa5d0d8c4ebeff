//! Why a layer loses accuracy, and what helps: THE tables of causes and of remedies.

use serde_json::{Value, json};
use shiftwise_graph::error::Error;
use shiftwise_quant::strategy::Strategy;

/// What is known of a layer.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Share of its values that the grid does not reach.
    pub(super) saturated: f64,
    /// Bits of the grid above the largest magnitude that was seen.
    pub(super) unused_bits: f64,
    /// Largest magnitude of a channel of its result over the median of all.
    pub(super) channel_ratio: f64,
    /// The same of its kernel's output channels.
    pub(super) weight_ratio: f64,
    /// Largest magnitude over the root of the mean square.
    pub(super) peak: f64,
    /// Channels that are zero for every sample, and all.
    pub(super) dead: (usize, usize),
    /// Signal to noise of the layer alone.
    pub(super) alone_db: f64,
    /// Samples that were calibrated with.
    pub(super) samples: usize,
}

/// Why a layer loses accuracy.
pub(super) struct Cause {
    /// A stable name.
    pub(super) name: &'static str,
    /// What is seen of it, as a sentence; `None` where it isn't.
    pub(super) find: fn(&Facts) -> Option<String>,
    /// Names of [`REMEDIES`], the most likely first.
    pub(super) remedies: &'static [&'static str],
}

/// A row per cause, the most telling first.
pub(super) const CAUSES: &[Cause] = &[
    Cause {
        name: "clipped",
        find: |f| {
            (f.saturated > 1e-3).then(|| format!("{:.2} % of its values are beyond the range", 100.0 * f.saturated))
        },
        remedies: &["whole_range", "finer_layer"],
    },
    Cause {
        name: "unequal_weights",
        find: |f| {
            (f.weight_ratio > 8.0)
                .then(|| format!("one channel's weights are {:.0} times as large as the median's", f.weight_ratio))
        },
        remedies: &["equalize", "finer_layer"],
    },
    Cause {
        name: "outlier_channels",
        find: |f| {
            (f.channel_ratio > 8.0)
                .then(|| format!("one channel is {:.0} times as large as the median channel", f.channel_ratio))
        },
        remedies: &["equalize", "finer_layer"],
    },
    Cause {
        name: "long_tail",
        find: |f| {
            (f.peak > 20.0).then(|| format!("its largest value is {:.0} times the root of the mean square", f.peak))
        },
        remedies: &["least_error", "finer_layer"],
    },
    Cause {
        name: "unused_range",
        find: |f| {
            (f.unused_bits >= 1.0).then(|| format!("the upper {:.0} bits of its range are never used", f.unused_bits))
        },
        remedies: &["least_error"],
    },
    Cause {
        name: "few_samples",
        find: |f| (f.samples < 16).then(|| format!("it was calibrated on {} samples", f.samples)),
        remedies: &[],
    },
    Cause {
        name: "dead_channels",
        find: |f| {
            let (dead, all) = f.dead;
            (dead > 0 && dead * 4 >= all).then(|| format!("{dead} of {all} channels are zero for every sample"))
        },
        remedies: &[],
    },
    Cause {
        name: "coarse",
        find: |f| (f.alone_db < 25.0).then(|| format!("8 bits give it {:.1} dB on its own", f.alone_db)),
        remedies: &["whole_weights", "finer_layer", "float_layer"],
    },
];

/// What can be done about a cause, as settings of a strategy.
pub(super) struct Remedy {
    /// A stable name.
    pub(super) name: &'static str,
    /// What it does.
    pub(super) what: &'static str,
    /// Whether it is about one layer.
    pub(super) of_layer: bool,
    /// Whether a DPU can still do the layer.
    pub(super) on_dpu: bool,
    /// Does it to a strategy; `layer` is the user's.
    apply: fn(&mut Strategy, &str) -> Result<(), Error>,
}

/// A row per remedy.
pub(super) const REMEDIES: &[Remedy] = &[
    Remedy {
        name: "whole_range",
        what: "let the range hold every value (activation_method=0)",
        of_layer: false,
        on_dpu: true,
        apply: |s, _| set(s, "activation_method", json!(0)),
    },
    Remedy {
        name: "least_error",
        what: "choose the range of least error (activation_method=1)",
        of_layer: false,
        on_dpu: true,
        apply: |s, _| set(s, "activation_method", json!(1)),
    },
    Remedy {
        name: "equalize",
        what: "equalize channels across layers (include_cle=true)",
        of_layer: false,
        on_dpu: true,
        apply: |s, _| set(s, "include_cle", json!(true)),
    },
    Remedy {
        name: "whole_weights",
        what: "let the range hold every weight (weight_method=0)",
        of_layer: false,
        on_dpu: true,
        apply: |s, _| set(s, "weight_method", json!(0)),
    },
    Remedy {
        name: "finer_layer",
        what: "give the layer 16 bits (layer_config)",
        of_layer: true,
        on_dpu: false,
        apply: |s, layer| {
            let mut widths = s.value("layer_config").and_then(Value::as_object).cloned().unwrap_or_default();
            widths.insert(layer.to_owned(), json!("int16"));
            set(s, "layer_config", Value::Object(widths))?;
            set(s, "layer_config_recalibrate", json!(true))
        },
    },
    Remedy {
        name: "float_layer",
        what: "leave the layer in floats (ignore_layers)",
        of_layer: true,
        on_dpu: false,
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
    pub(super) fn applied(&self, strategy: &Strategy, layer: &str) -> Option<Strategy> {
        let mut own = strategy.clone();
        (self.apply)(&mut own, layer).ok()?;
        (own.dump(2) != strategy.dump(2)).then_some(own)
    }
}

/// The remedy of a name.
pub(super) fn remedy(name: &str) -> Option<&'static Remedy> {
    REMEDIES.iter().find(|r| r.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_remedy_of_a_cause_is_one_of_the_table_and_changes_a_strategy() {
        for name in CAUSES.iter().flat_map(|cause| cause.remedies) {
            assert!(remedy(name).is_some(), "{name}");
        }
        let mut other = Strategy::built_in("pof2s").unwrap();
        other.set("include_cle", json!(false)).unwrap();
        other.set("activation_method", json!(1)).unwrap();
        for remedy in REMEDIES {
            let plain = Strategy::built_in("pof2s").unwrap();
            let from = if remedy.name == "equalize" { &other } else { &plain };
            let with = remedy.applied(from, "conv").unwrap_or_else(|| panic!("{}", remedy.name));
            assert!(remedy.applied(&with, "conv").is_none(), "{} twice", remedy.name);
        }
    }
}
