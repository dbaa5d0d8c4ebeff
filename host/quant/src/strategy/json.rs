//! Strategies as files: printing them, overriding parts of them, checking them.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::role;
use crate::scheme::Quantizer;
use crate::settings;
use crate::settings::Section;
use crate::strategy::{PIPELINES, REGISTRY, Strategy};
use shiftwise_graph::error::Error;

/// Sections of the registry that an override replaces as a whole; `layer_quantize_config` is merged by layer type.
const WHOLE: [&str; 3] = ["user_quantize_config", "custom_layer_type", "input_quantize_config"];

/// A setting that is not the built-in strategy's.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Change {
    /// Where it is: a section of the strategy, or `layer_quantize_config`.
    pub section: String,
    /// Its key, or the layer type of an entry; `null` for an entry that names none.
    pub key: Option<String>,
    /// Its value, or the whole entry.
    pub value: Value,
    /// The built-in strategy's value, `null` where it has none; absent for an entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
}

fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>, Error> {
    value.as_object().ok_or_else(|| Error::Options(format!("{what} is {value:.60}, an object is expected")))
}

impl Strategy {
    /// The strategy as JSON, with two blanks of indentation, as the vendor's `dump_quantize_strategy` prints it.
    ///
    /// `verbose` 0: the user's settings; 1: the pipelines too; 2 and more: everything, with settings of ours that aren't at
    /// their defaults beside the vendor's sections.
    pub fn dump(&self, verbose: u32) -> String {
        let mut all = self.json.clone();
        if verbose >= 2 {
            all.extend(
                self.ours.iter().filter(|(key, value)| !is_default(key, value)).map(|(k, v)| (k.clone(), v.clone())),
            );
        }
        if verbose < 2
            && let Some(registry) = all.get_mut(REGISTRY).and_then(Value::as_object_mut)
        {
            registry.retain(|key, _| key == "user_quantize_config" || key == "custom_layer_type");
        }
        if verbose < 1 {
            all.retain(|key, _| key == REGISTRY);
        }
        format!("{:#}", Value::Object(all))
    }

    /// Replaces whole sections by those of `file`; what it doesn't mention stays. Beside sections there may be settings of
    /// ours, which the vendor's sections have no place for.
    pub fn replace(&mut self, file: &Value) -> Result<(), Error> {
        let (ours, theirs) = object(file, "a strategy")?
            .iter()
            .partition::<Vec<_>, _>(|(key, _)| settings::find(key).is_some_and(|s| s.section == Section::Ours));
        for (key, value) in ours {
            self.set(key, value.clone())?;
        }
        for (section, value) in theirs {
            let own = self.json.get_mut(section).and_then(Value::as_object_mut);
            let own = own.ok_or_else(|| unknown("section", section, &sections()))?;
            for (key, value) in object(value, section)? {
                let slot = own.get_mut(key);
                *slot.ok_or_else(|| Error::Options(format!("invalid config for {section}: `{key}`")))? = value.clone();
            }
        }
        self.settle()
    }

    /// Overrides parts and adds entries, by the vendor's rules: pipeline keys one by one; `user_quantize_config`,
    /// `custom_layer_type` and `input_quantize_config` as a whole; an entry of `layer_quantize_config` in place of the one
    /// with the same `layer_type`, else behind all others; any other key as [`Strategy::set`] takes it.
    pub fn update(&mut self, changes: &Value) -> Result<(), Error> {
        let changes = object(changes, "a custom strategy")?;
        for section in PIPELINES {
            let Some(value) = changes.get(section) else { continue };
            for (key, value) in object(value, section)? {
                let slot = self.json.get_mut(section).and_then(|s| s.get_mut(key));
                *slot.ok_or_else(|| Error::Options(format!("invalid config for {section}: `{key}`")))? = value.clone();
            }
        }
        if let Some(registry) = changes.get(REGISTRY) {
            self.update_registry(object(registry, REGISTRY)?)?;
        }
        let flat = changes.iter().filter(|(key, _)| *key != REGISTRY && !PIPELINES.contains(&key.as_str()));
        for (key, value) in flat {
            self.set(key, value.clone())?;
        }
        self.settle()
    }

    /// Keys of the settings that are not the built-in strategy's: those that somebody has decided.
    pub fn decided(&self) -> Vec<String> {
        let Ok(base) = Self::of(self.base) else { return Vec::new() };
        let ours = self.ours.iter().filter(|(key, value)| !is_default(key, value)).map(|(key, _)| key.clone());
        // An object, such as `layer_config`, is no row of the changes.
        let objects = self
            .user()
            .into_iter()
            .flatten()
            .filter(|(key, value)| value.is_object() && base.user_value(key) != Some(value));
        let changed = self.changes(&base).into_iter().filter_map(|change| change.key);
        changed.chain(objects.map(|(key, _)| key.clone())).chain(ours).collect()
    }

    fn update_registry(&mut self, changes: &Map<String, Value>) -> Result<(), Error> {
        let own = self.json.get_mut(REGISTRY).and_then(Value::as_object_mut);
        let own = own.ok_or_else(|| Error::Options(format!("the strategy has no {REGISTRY}")))?;
        for (key, value) in changes {
            match key.as_str() {
                "layer_quantize_config" => {
                    let list = own.get_mut(key).and_then(Value::as_array_mut);
                    let (Some(list), Some(new)) = (list, value.as_array()) else {
                        return Err(Error::Options(format!("{key} is {value:.60}, a list is expected")));
                    };
                    for entry in new {
                        match list.iter_mut().find(|e| e.get("layer_type") == entry.get("layer_type")) {
                            Some(old) => *old = entry.clone(),
                            None => list.push(entry.clone()),
                        }
                    }
                }
                // A part of the user's settings would drop the others; they are kept.
                "user_quantize_config" => {
                    if let Some(user) = own.get_mut(key).and_then(Value::as_object_mut) {
                        for (setting, value) in object(value, key)? {
                            let slot = user.get_mut(setting);
                            *slot.ok_or_else(|| Error::Options(format!("invalid config for {key}: `{setting}`")))? =
                                value.clone();
                        }
                    }
                }
                key if WHOLE.contains(&key) => drop(own.insert(key.to_owned(), value.clone())),
                // The user's settings may also stand directly in the registry's section.
                _ => {
                    let user = own.get_mut("user_quantize_config").and_then(|u| u.get_mut(key));
                    *user.ok_or_else(|| Error::Options(format!("invalid config for {REGISTRY}: `{key}`")))? =
                        value.clone();
                }
            }
        }
        Ok(())
    }

    /// Every setting goes once more through [`Strategy::set`], which knows types and what this version lacks; then all
    /// entries are checked.
    fn settle(&mut self) -> Result<(), Error> {
        let mut settings: Vec<(String, Value)> = Vec::new();
        let registry = self.json.get(REGISTRY).and_then(|r| r.get("user_quantize_config"));
        for section in PIPELINES.iter().filter_map(|s| self.json.get(*s)).chain(registry) {
            settings.extend(section.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
        }
        let defaults = Self::of(self.base)?;
        for (key, value) in settings {
            // Against the default, whose type tells what is expected.
            let mut probe = defaults.clone();
            if defaults.value(&key).is_some() || defaults.user_value(&key).is_some() {
                probe.set(&key, value)?;
            }
        }
        self.check()
    }

    /// Checks every entry: known keys, as many quantizers as things to quantize, parameters that exist and make sense.
    pub fn check(&self) -> Result<(), Error> {
        self.input_quantizer()?;
        let layers = self.section(REGISTRY).and_then(|r| r.get("layer_quantize_config")).and_then(Value::as_array);
        for entry in layers.into_iter().flatten() {
            let entry = object(entry, "an entry of layer_quantize_config")?;
            let layer = entry.get("layer_type").and_then(Value::as_str);
            let layer =
                layer.ok_or_else(|| Error::Options("an entry of layer_quantize_config has no layer_type".into()))?;
            let fail = |message: String| Err(Error::Options(format!("layer_type {layer}: {message}")));
            let known =
                |key: &String| key == "layer_type" || role::lists().any(|l| key == l.names || key == l.quantizers);
            if let Some(key) = entry.keys().find(|k| !known(k)) {
                return fail(format!("`{key}` is unknown"));
            }
            for list in role::lists() {
                let (names, quantizers) = (list.names, list.quantizers);
                let count = |key: &str| entry.get(key).and_then(Value::as_array).map_or(0, Vec::len);
                let (a, b) = (count(names), count(quantizers));
                if a != b {
                    return fail(list.lengths_differ((a, b)));
                }
                for quantizer in entry.get(quantizers).and_then(Value::as_array).into_iter().flatten() {
                    if let Err(e) = Quantizer::from_entry(quantizer) {
                        return Err(Error::LayerConfig { layer: layer.to_owned(), message: e.to_string() });
                    }
                }
            }
        }
        Ok(())
    }

    /// Settings that are not the built-in strategy's: section or `layer_type`, key, value.
    pub fn changes(&self, from: &Self) -> Vec<Change> {
        let mut all = Vec::new();
        let mut compare = |place: &str, own: Option<&Value>, other: Option<&Value>| {
            for (key, value) in own.and_then(Value::as_object).into_iter().flatten() {
                let default = other.and_then(|o| o.get(key));
                if key != "layer_quantize_config" && default != Some(value) && !value.is_object() {
                    all.push(Change {
                        section: place.to_owned(),
                        key: Some(key.clone()),
                        value: value.clone(),
                        default: Some(default.cloned().unwrap_or_default()),
                    });
                }
            }
        };
        for section in PIPELINES {
            compare(section, self.json.get(section), from.json.get(section));
        }
        let user = |s: &Self| s.json.get(REGISTRY).and_then(|r| r.get("user_quantize_config")).cloned();
        compare("user_quantize_config", user(self).as_ref(), user(from).as_ref());
        let layers = |s: &Self| {
            s.json.get(REGISTRY).and_then(|r| r.get("layer_quantize_config")).and_then(Value::as_array).cloned()
        };
        let others = layers(from).unwrap_or_default();
        for entry in layers(self).unwrap_or_default() {
            if !others.contains(&entry) {
                all.push(Change {
                    section: "layer_quantize_config".to_owned(),
                    key: entry.get("layer_type").and_then(Value::as_str).map(str::to_owned),
                    value: entry,
                    default: None,
                });
            }
        }
        all
    }
}

/// Whether a setting is at its default.
pub(super) fn is_default(key: &str, value: &Value) -> bool {
    settings::find(key).and_then(|s| serde_json::from_str::<Value>(s.default).ok()).as_ref() == Some(value)
}

fn sections() -> Vec<&'static str> {
    PIPELINES.into_iter().chain([REGISTRY]).collect()
}

fn unknown(what: &str, name: &str, known: &[&str]) -> Error {
    Error::Options(format!("{what} `{name}` is unknown; known are {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pof2s() -> Strategy {
        Strategy::built_in("pof2s").unwrap()
    }

    #[test]
    fn dumps_grow_with_verbosity_and_read_back() {
        let keys = |verbose| {
            let value: Value = serde_json::from_str(&pof2s().dump(verbose)).unwrap();
            value.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(keys(0), [REGISTRY]);
        assert_eq!(keys(1), [&PIPELINES[..], &[REGISTRY]].concat());
        let whole: Value = serde_json::from_str(&pof2s().dump(2)).unwrap();
        let mut back = pof2s();
        back.replace(&whole).unwrap();
        assert_eq!(back.dump(2), pof2s().dump(2));
        assert!(back.changes(&pof2s()).is_empty());
    }

    #[test]
    fn settings_of_ours_are_read_back_from_a_whole_dump_and_count_as_decided() {
        let mut own = pof2s();
        own.set("fold_dead_channels", json!(true)).unwrap();
        own.set("fast_ft_algorithm", json!("adaquant")).unwrap();
        own.set("layer_config", json!({ "conv": "int16" })).unwrap();
        own.set("cle_steps", json!(3)).unwrap();
        let whole: Value = serde_json::from_str(&own.dump(2)).unwrap();
        assert_eq!((&whole["fold_dead_channels"], whole.get("fast_ft_algorithm")), (&json!(true), None));
        let (mut replaced, mut updated) = (pof2s(), pof2s());
        replaced.replace(&whole).unwrap();
        updated.update(&whole).unwrap();
        assert_eq!((replaced.dump(2), updated.dump(2)), (own.dump(2), own.dump(2)));
        assert_eq!(own.decided(), ["cle_steps", "layer_config", "fold_dead_channels"]);
        assert!(pof2s().decided().is_empty());
    }

    #[test]
    fn overrides_replace_entries_of_the_same_type_and_add_others() {
        let entry = |class: &str| {
            json!({
                "layer_type": class, "quantizable_outputs": ["0"],
                "output_quantizers": [{
                    "quantizer_type": "LastValueQuantPosQuantizer",
                    "quantizer_params": { "bit_width": 4, "method": 1, "round_mode": 1 },
                }],
            })
        };
        let mut s = pof2s();
        s.update(&json!({
            "optimize_pipeline_config": { "include_cle": false },
            "quantize_registry_config": {
                "user_quantize_config": { "bias_bit": 16 },
                "layer_quantize_config": [entry("tensorflow.keras.layers.Add"), entry("__main__.Mine")],
            },
            "cle_steps": 3,
        }))
        .unwrap();
        assert!(!s.enabled("include_cle") && s.number("cle_steps") == Some(3.0));
        let bits = |class: &str| {
            let entry = s.layer_entry(class, false).unwrap();
            let own = Quantizer::from_entry(&entry["output_quantizers"][0]).unwrap();
            own.scheme().parameters()["bit_width"].as_u64().unwrap()
        };
        assert_eq!((bits("Add"), bits("Mine"), bits("Multiply")), (4, 4, 8));
        assert_eq!(s.user_value("bias_bit"), Some(&json!(16)));
        assert_eq!(s.changes(&pof2s()).len(), 5);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let refused = |changes: Value| pof2s().update(&changes).unwrap_err();
        for changes in [
            json!([]),
            json!({ "optimize_pipeline_config": { "nonsense": 1 } }),
            json!({ "nonsense": 1 }),
            json!({ "quantize_registry_config": { "layer_quantize_config": [{}] } }),
            json!({ "quantize_registry_config": { "layer_quantize_config": [{ "layer_type": "A", "more": 1 }] } }),
            json!({ "quantize_registry_config": { "layer_quantize_config": [{
                "layer_type": "A", "quantizable_weights": ["w"], "weight_quantizers": [],
            }] } }),
        ] {
            assert!(matches!(refused(changes.clone()), Error::Options(_)), "{changes}");
        }
        let error = refused(json!({ "quantize_registry_config": { "layer_quantize_config": [{
            "layer_type": "A", "quantizable_weights": ["w"], "weight_quantizers": [{ "quantizer_type": "Mine" }],
        }] } }));
        assert_eq!(error.code(), "Quantizer_TF2_Unsupported_Layer");
    }
}
