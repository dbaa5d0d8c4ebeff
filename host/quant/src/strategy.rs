//! Quantize strategies: the vendor's JSON, typed where it is read.
//!
//! A strategy says which passes run and which quantizer each layer type gets. Its sections and keys are the vendor's;
//! the built-in ones are the files in `strategies/`.

use serde_json::{Map, Value};

use crate::role;
use crate::role::Role;
use crate::scheme::Quantizer;
use crate::settings;
use crate::settings::{Effect, SETTINGS, Section, Setting};
use shiftwise_graph::dtype::Dtype;
use shiftwise_graph::error::Error;

mod json;

pub use json::Change;

/// How a strategy's quantizers are placed and calibrated, beyond what its JSON says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// As a DPU needs it: an activation carries the quantizer of the layer before it.
    Dpu,
    /// Before every layer that reads one tensor which is not quantized yet.
    Inputs,
    /// In every layer, for what that layer reads.
    Readers,
}

/// A built-in strategy.
#[derive(Debug)]
pub struct BuiltIn {
    /// Its name, then the vendor's aliases.
    pub names: &'static [&'static str],
    /// The file that it is.
    json: &'static str,
    /// Where its quantizers sit.
    pub placement: Placement,
    /// Whether the batches vote for positions; otherwise the last one decides.
    pub vote: bool,
}

/// Every built-in strategy.
#[rustfmt::skip]
pub const BUILT_IN: &[BuiltIn] = &[
    BuiltIn { names: &["pof2s", "8bit"], json: include_str!("../strategies/pof2s.json"), placement: Placement::Dpu, vote: true },
    BuiltIn { names: &["pof2s_tqt", "8bit_tqt"], json: include_str!("../strategies/pof2s_tqt.json"), placement: Placement::Dpu, vote: false },
    BuiltIn { names: &["fs"], json: include_str!("../strategies/fs.json"), placement: Placement::Inputs, vote: false },
    BuiltIn { names: &["fsx"], json: include_str!("../strategies/fsx.json"), placement: Placement::Inputs, vote: false },
    BuiltIn { names: &["gpu"], json: include_str!("../strategies/gpu.json"), placement: Placement::Inputs, vote: false },
    BuiltIn { names: &["bfp"], json: include_str!("../strategies/bfp.json"), placement: Placement::Readers, vote: false },
];

/// The section with the entries of layers and the user's settings.
const REGISTRY: &str = "quantize_registry_config";

/// Sections with flat pipeline keys, in the order in which the vendor looks for a key.
const PIPELINES: [&str; 4] =
    ["optimize_pipeline_config", "quantize_pipeline_config", "refine_pipeline_config", "finalize_pipeline_config"];

/// A whole strategy.
#[derive(Clone, Debug)]
pub struct Strategy {
    /// The built-in one that it was made from.
    base: &'static BuiltIn,
    json: Map<String, Value>,
    /// Settings that the vendor's JSON has no place for, where they aren't at their defaults.
    ours: Map<String, Value>,
}

impl Strategy {
    /// A built-in strategy by name.
    pub fn built_in(name: &str) -> Result<Self, Error> {
        let Some(base) = BUILT_IN.iter().find(|base| base.names.contains(&name)) else {
            let known: Vec<&str> = BUILT_IN.iter().flat_map(|base| base.names).copied().collect();
            return Err(Error::Options(format!(
                "unidentified quantize strategy `{name}`; known are {}",
                known.join(", ")
            )));
        };
        Self::of(base)
    }

    /// The type that all layers are converted to instead of being quantized, if any.
    ///
    /// Errors: a type that there isn't.
    pub fn conversion(&self) -> Result<Option<Dtype>, Error> {
        let name = self.value("convert_datatype").and_then(Value::as_str).filter(|name| !name.is_empty());
        let dtype = |name| {
            let known: Vec<&str> = Dtype::ALL.iter().map(|dtype| dtype.name()).collect();
            let unknown =
                || Error::Options(format!("unknown target data type `{name}`; known are {}", known.join(", ")));
            Dtype::from_name(name).ok_or_else(unknown)
        };
        name.map(dtype).transpose()
    }

    /// Whether quantizing takes calibration data.
    pub fn needs_data(&self) -> Result<bool, Error> {
        let learns = self.base.placement != Placement::Readers;
        let asked = ["include_fast_ft", "fold_dead_channels"].into_iter().any(|key| self.enabled(key));
        Ok((learns || asked) && self.conversion()?.is_none())
    }

    /// A built-in strategy as it is.
    fn of(base: &'static BuiltIn) -> Result<Self, Error> {
        match serde_json::from_str(base.json) {
            Ok(Value::Object(json)) => Ok(Self { base, json, ours: Map::new() }),
            _ => Err(Error::Options(format!("the built-in strategy `{}` does not parse", base.names[0]))),
        }
    }

    /// The built-in strategy that it was made from.
    pub fn base(&self) -> &'static BuiltIn {
        self.base
    }

    fn section(&self, name: &str) -> Option<&Map<String, Value>> {
        self.json.get(name)?.as_object()
    }

    fn user(&self) -> Option<&Map<String, Value>> {
        self.section(REGISTRY)?.get("user_quantize_config")?.as_object()
    }

    /// Where a setting's value stands, if the strategy has it.
    fn slot(&mut self, setting: &Setting) -> Option<&mut Value> {
        let section = match setting.section {
            Section::User => self.json.get_mut(REGISTRY)?,
            Section::Ours => {
                // About a setting that not every strategy has.
                let beside = setting.beside?;
                self.value(beside).or_else(|| self.user_value(beside))?;
                let default = serde_json::from_str(setting.default).unwrap_or_default();
                return Some(self.ours.entry(setting.name).or_insert(default));
            }
            Section::Call | Section::Optimize | Section::Quantize | Section::Refine | Section::Finalize => {
                return self.json.get_mut(setting.section.key()?)?.get_mut(setting.name);
            }
        };
        section.get_mut(setting.section.key()?)?.get_mut(setting.name)
    }

    /// Whether a pipeline key is true; false if the strategy doesn't have it.
    pub fn enabled(&self, key: &str) -> bool {
        self.value(key).or(self.ours.get(key)).and_then(Value::as_bool).unwrap_or(false)
    }

    /// A pipeline key's number.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.value(key)?.as_f64()
    }

    /// The word of a setting of ours; its default where it isn't set.
    pub fn own_word(&self, key: &str) -> String {
        let default = || serde_json::from_str(settings::find(key)?.default).ok();
        let word = self.ours.get(key).cloned().or_else(default);
        word.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// A pipeline key's value.
    pub fn value(&self, key: &str) -> Option<&Value> {
        PIPELINES.iter().find_map(|s| self.section(s)?.get(key))
    }

    /// A user setting's value.
    pub fn user_value(&self, key: &str) -> Option<&Value> {
        self.user()?.get(key)
    }

    /// The value of a setting, wherever it stands; `None` where the strategy doesn't have it, or it is one of ours that was
    /// never set.
    pub fn setting(&self, key: &str) -> Option<&Value> {
        self.value(key).or_else(|| self.user_value(key)).or_else(|| self.ours.get(key))
    }

    /// Everything that decides what becomes of a network, with the user's settings in the entries that they replace:
    /// strategies with equal ones quantize alike.
    pub fn effective(&self) -> Value {
        let mut all = self.json.clone();
        let registry = self.section(REGISTRY);
        let entries = registry.and_then(|r| r.get("layer_quantize_config")).and_then(Value::as_array);
        let mut own = Vec::new();
        for entry in entries.into_iter().flatten() {
            for relu_like in [true, false] {
                let mut entry = entry.clone();
                for list in role::lists() {
                    for q in entry.get_mut(list.quantizers).and_then(Value::as_array_mut).into_iter().flatten() {
                        self.override_params((q, list.role), relu_like, None);
                    }
                }
                own.push(entry);
            }
        }
        let mut input = registry.and_then(|r| r.get("input_quantize_config")).cloned().unwrap_or_default();
        if let Some(own) = input.get_mut("input_quantizer") {
            self.override_params((own, Role::Input), true, None);
        }
        let replaced = |key: &String| SETTINGS.iter().any(|s| s.name == key && s.parameter().is_some());
        let user: Map<String, Value> = self
            .user()
            .into_iter()
            .flatten()
            .filter(|(key, _)| !replaced(key))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        all.insert(REGISTRY.into(), serde_json::json!([own, input, user]));
        let ours = self.ours.iter().filter(|(key, value)| !json::is_default(key, value));
        all.insert("ours".into(), Value::Object(ours.map(|(k, v)| (k.clone(), v.clone())).collect()));
        Value::Object(all)
    }

    /// Every key that [`Strategy::set`] accepts.
    pub fn keys(&self) -> Vec<&str> {
        let pipelines = PIPELINES.iter().filter_map(|s| self.section(s));
        let ours = SETTINGS.iter().filter(|s| s.section == Section::Ours).map(|s| s.name);
        self.user().into_iter().chain(pipelines).flat_map(|m| m.keys().map(String::as_str)).chain(ours).collect()
    }

    /// Sets one of the vendor's keyword arguments. Returns a warning when an old name was used, or a key that does nothing.
    ///
    /// Errors: an unknown key, listing near misses; a value of another JSON type than the default's; a key whose effect
    /// this version doesn't have.
    pub fn set(&mut self, key: &str, value: Value) -> Result<Option<String>, Error> {
        let new = settings::renamed(key);
        let mut warning = new.map(|new| format!("`{key}` is called `{}` now", new.name));
        let setting = new.or_else(|| settings::find(key)).filter(|s| s.section != Section::Call);
        let key = new.map_or(key, |new| new.name);
        if let Some(setting) = setting {
            if let (Effect::Only(values, _), false) = (setting.effect, setting.has(&value)) {
                let values = values.join(" or ");
                return Err(Error::Options(format!("`{key}` is set to {value}; this version only has {values}")));
            }
            if let Some(slot) = self.slot(setting) {
                if !setting.takes(&value) {
                    return Err(Error::Options(setting.refusal(&value, slot)));
                }
                let changed = *slot != value;
                match setting.effect {
                    Effect::Idle(_) if changed => {
                        warning = Some(format!("`{key}` changes nothing, in the vendor's tool as here"));
                    }
                    Effect::Later(values, why) if !values.contains(&value.to_string().as_str()) => {
                        warning = Some(format!("`{key}` changes nothing yet: {why}"));
                    }
                    Effect::Full | Effect::Only(..) | Effect::Later(..) | Effect::Idle(_) => {}
                }
                *slot = value;
                if let Some(parameter) = setting.parameter().filter(|own| changed && !self.has_parameter(own)) {
                    warning = Some(format!("`{key}` changes nothing: no quantizer of this strategy has `{parameter}`"));
                }
                return Ok(warning);
            }
        }
        let near: Vec<&str> = self.keys().into_iter().filter(|k| near(k, key)).collect();
        let near = if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) };
        Err(Error::Options(format!("invalid configs: `{key}` is not a key of this strategy{near}")))
    }

    /// Whether a quantizer of the strategy has a parameter.
    fn has_parameter(&self, parameter: &str) -> bool {
        fn anywhere(value: &Value, parameter: &str) -> bool {
            match value {
                Value::Object(all) => all.iter().any(|(key, v)| {
                    (key == "quantizer_params" && v.get(parameter).is_some()) || anywhere(v, parameter)
                }),
                Value::Array(all) => all.iter().any(|v| anywhere(v, parameter)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
            }
        }
        self.section(REGISTRY).is_some_and(|registry| registry.values().any(|v| anywhere(v, parameter)))
    }

    /// A list of layer names: `input_layers`, `output_layers` or `ignore_layers`.
    pub fn layer_list(&self, key: &str) -> Vec<String> {
        let list = self.user().and_then(|u| u.get(key)).and_then(Value::as_array);
        list.map(|l| l.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()).unwrap_or_default()
    }

    /// The quantizer of inputs, with user settings applied.
    pub fn input_quantizer(&self) -> Result<Quantizer, Error> {
        let entry = self
            .section("quantize_registry_config")
            .and_then(|r| r.get("input_quantize_config"))
            .and_then(|i| i.get("input_quantizer"))
            .ok_or_else(|| Error::Options("the strategy has no input_quantizer".into()))?;
        let mut own = entry.clone();
        self.override_params((&mut own, Role::Input), true, None);
        Quantizer::from_entry(&own).map_err(|e| match self.culprit((entry, Role::Input), true) {
            Some(named) => Error::Options(named),
            None => Error::Options(format!("input_quantizer: {e}")),
        })
    }

    /// The entry of a layer class with user settings applied, as it goes into the quantized model; `None` if the class
    /// is not registered.
    ///
    /// `relu_like`: the layer clips negatives, so `activation_unsigned` may apply to it.
    pub fn layer_entry(&self, class: &str, relu_like: bool) -> Option<Map<String, Value>> {
        let mut entry = self.raw_entry(class)?.clone();
        for list in role::lists() {
            for q in entry.get_mut(list.quantizers).and_then(Value::as_array_mut).into_iter().flatten() {
                self.override_params((q, list.role), relu_like, None);
            }
        }
        Some(entry)
    }

    /// The entry of a layer class without the user's settings.
    fn raw_entry(&self, class: &str) -> Option<&Map<String, Value>> {
        let layers = self.section("quantize_registry_config")?.get("layer_quantize_config")?.as_array()?;
        let named = |l: &&Value| {
            let path = l.get("layer_type").and_then(Value::as_str).unwrap_or_default();
            path.rsplit('.').next() == Some(class)
        };
        layers.iter().rev().find(named)?.as_object()
    }

    /// What is wrong with the quantizers of a layer class, in the words of the user: which settings, and why. `None` if they
    /// are not to blame.
    pub(crate) fn blamed(&self, class: &str, relu_like: bool) -> Option<String> {
        let entry = self.raw_entry(class)?;
        role::lists().find_map(|list| {
            let quantizers = entry.get(list.quantizers).and_then(Value::as_array)?;
            quantizers.iter().find_map(|raw| self.culprit((raw, list.role), relu_like))
        })
    }

    /// The settings with which a quantizer can't be made, although it can without them, and why.
    fn culprit(&self, (raw, role): (&Value, Role), relu_like: bool) -> Option<String> {
        let made = |only: Option<&str>| {
            let mut own = raw.clone();
            self.override_params((&mut own, role), relu_like, only);
            Quantizer::from_entry(&own)
        };
        Quantizer::from_entry(raw).ok()?;
        let whole = made(None).err()?;
        let own = SETTINGS.iter().filter(|s| s.of.is_some_and(|(of, _)| of.row().setting == role.row().setting));
        let given = |name: &str| self.user().and_then(|u| u.get(name)).filter(|v| !v.is_null());
        let set: Vec<&str> =
            own.map(|s| s.name).chain(["use_framework_quant"]).filter(|name| given(name).is_some()).collect();
        let alone = set.iter().find_map(|name| Some((vec![*name], made(Some(name)).err()?)));
        let (names, error) = alone.unwrap_or((set, whole));
        let class = raw.get("quantizer_type").and_then(Value::as_str).unwrap_or_default();
        let why = error.to_string().replace(&format!(" of a {class}"), "");
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        (!names.is_empty()).then(|| format!("{}: {why}", names.join(" with ")))
    }

    /// Replaces a quantizer's parameters by the user's, where the user set one and the quantizer has the parameter; `only`
    /// those of one setting, if it is given.
    fn override_params(&self, (quantizer, role): (&mut Value, Role), relu_like: bool, only: Option<&str>) {
        let (Some(user), Some(own)) =
            (self.user(), quantizer.get_mut("quantizer_params").and_then(Value::as_object_mut))
        else {
            return;
        };
        // An activation and an output have the same settings.
        let wanted = |name: &str| only.is_none_or(|only| only == name);
        let own_settings = SETTINGS.iter().filter(|s| wanted(s.name)).filter_map(|s| Some((s, s.of?)));
        for (setting, (of, parameter)) in own_settings.filter(|(_, (of, _))| of.row().setting == role.row().setting) {
            let Some(value) = user.get(setting.name).filter(|v| !v.is_null()) else { continue };
            let symmetric = own.get("symmetry").and_then(Value::as_bool).unwrap_or(true);
            if parameter == "unsigned" && of == Role::Output && symmetric && !relu_like {
                continue;
            }
            if let Some(slot) = own.get_mut(parameter) {
                *slot = value.clone();
            }
        }
        // What is stored as it is or as bfloat16 is so on purpose.
        if let Some(slot) = own.get_mut("data_format").filter(|own| **own != "fp32" && **own != "bf16")
            && let Some(value) = user.get("data_format").filter(|v| !v.is_null())
        {
            *slot = value.clone();
        }
        if let (Some(slot), Some(value)) = (
            own.get_mut("use_framework_quant"),
            user.get("use_framework_quant").filter(|v| !v.is_null() && wanted("use_framework_quant")),
        ) {
            *slot = value.clone();
        }
        if let Some(slot) = own.get_mut("use_fixneuron_quant") {
            if let Some(value) = user.get("use_fixneuron_quant").filter(|v| !v.is_null()) {
                *slot = value.clone();
            }
            if slot.as_u64().is_some_and(|v| v > 0) {
                *slot = if role.is_weight() { 2.into() } else { 1.into() };
            }
        }
    }
}

/// Whether a key may be a slip of another: one contains the other, or they share most of their words.
fn near(known: &str, typed: &str) -> bool {
    let words = |s: &str| s.split('_').map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    let (a, b) = (words(known), words(typed));
    known.contains(typed)
        || typed.contains(known)
        || 2 * a.intersection(&b).count() > a.len().max(b.len())
        || edits(known, typed) <= 2
}

/// Characters to insert, delete or replace to make one word of the other.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        row[0] = left;
        for (y, cell) in b.bytes().zip(&mut row[1..]) {
            let above = *cell;
            left = (diagonal + usize::from(x != y)).min(above + 1).min(left + 1);
            diagonal = above;
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn user_settings_reach_the_quantizers_they_name() {
        let mut s = Strategy::built_in("pof2s").unwrap();
        s.set("bias_bit", json!(16)).unwrap();
        let conv = s.layer_entry("Conv2D", false).unwrap();
        let bits =
            |list: &str| Quantizer::from_entry(&conv[list][0]).unwrap().scheme().parameters()["bit_width"].clone();
        assert_eq!((bits("bias_quantizers"), bits("weight_quantizers")), (json!(16), json!(8)));
        assert!(s.layer_entry("Softmax", false).is_none());
    }

    #[test]
    fn a_setting_that_says_what_holds_anyway_makes_no_other_strategy() {
        let of = |settings: &[(&str, Value)]| {
            let mut s = Strategy::built_in("pof2s").unwrap();
            settings.iter().for_each(|(key, value)| drop(s.set(key, value.clone()).unwrap()));
            s.effective()
        };
        // The methods that the built-in entries have.
        assert_eq!(of(&[("input_method", json!(0)), ("weight_bit", json!(8)), ("bias_method", json!(1))]), of(&[]));
        for (key, value) in [("input_method", json!(1)), ("weight_bit", json!(4)), ("ignore_layers", json!(["a"]))] {
            assert_ne!(of(&[(key, value)]), of(&[]), "{key}");
        }
        assert_ne!(of(&[("fold_dead_channels", json!(true))]), of(&[]));
    }

    #[test]
    fn unknown_keys_list_near_misses_and_old_names_warn() {
        let mut s = Strategy::built_in("pof2s").unwrap();
        let error = s.set("fold_bn_conv", json!(true)).unwrap_err().to_string();
        assert!(error.contains("fold_conv_bn"), "{error}");
        let error = s.set("incude_cle", json!(true)).unwrap_err().to_string();
        assert!(error.contains("include_cle"), "{error}");
        assert!(s.set("weight_bit", json!("zebra")).is_err() && s.set("weight_bit", Value::Null).is_ok());
        assert!(s.set("weight_symmetry", json!(1)).is_err());
        assert!(s.set("forced_cle", json!(true)).unwrap().unwrap().contains("cle_to_relu6"));
        assert!(s.enabled("cle_to_relu6"));
        assert!(s.set("include_cle", json!("no")).is_err());
    }

    #[test]
    fn a_setting_that_no_quantizer_has_is_taken_with_a_warning() {
        let warning = |name: &str, key: &str, value: Value| {
            Strategy::built_in(name).unwrap().set(key, value).map(Option::unwrap_or_default)
        };
        assert!(warning("fs", "use_framework_quant", json!(false)).unwrap().is_empty());
        assert!(warning("pof2s", "use_framework_quant", json!(false)).unwrap().contains("changes nothing"));
        assert!(warning("fsx", "use_fixneuron_quant", json!(1)).unwrap().contains("changes nothing"));
        assert!(warning("gpu", "output_format", json!("onnx")).unwrap().contains("yet"));
        assert!(warning("gpu", "output_format", json!("tflite")).is_err());
        assert!(warning("fs", "separable_conv", json!(true)).is_err());
        assert!(warning("pof2s", "input_method_percentile", json!(99.0)).is_err());
        assert!(Strategy::built_in("tqt").is_err() && Strategy::built_in("8bit_tqt").is_ok());
    }
}
