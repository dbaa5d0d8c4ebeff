//! The page of all settings, made from their table and the built-in strategies.

use serde_json::Value;

use crate::settings::{Effect, SETTINGS, Section, Setting};
use crate::strategy::{BUILT_IN, BuiltIn, Strategy};

/// The page of all settings, in Markdown.
pub(crate) fn page() -> String {
    let mut page = String::from(
        "# Settings\n\nEvery keyword argument of `quantize_model`, with the defaults of the strategy `pof2s`: `--set \
         NAME=VALUE`, or a key of a strategy file. Made from the table in `src/settings.rs`.\n",
    );
    let strategies = strategies();
    let mut section = None;
    for s in SETTINGS {
        if section != Some(s.section) {
            section = Some(s.section);
            let title = match s.section {
                Section::Call => "Arguments of the call".to_owned(),
                Section::Ours => "Beyond the vendor's".to_owned(),
                section => format!("`{}`", section.key().unwrap_or_default()),
            };
            page += &format!("\n## {title}\n\n| name | takes | default | meaning |\n|---|---|---|---|\n");
        }
        let effect = match s.effect {
            Effect::Full => String::new(),
            Effect::Only(values, why) => format!(" Only {} yet: {why}.", values.join(" or ")),
            Effect::Later(values, why) => {
                format!(" Other values than {} change nothing yet: {why}.", values.join(" and "))
            }
            Effect::Idle(why) => format!(" Changes nothing: {why}."),
        };
        let old = s.old.map_or(String::new(), |old| format!(" Was `{old}`."));
        let (name, takes, default, doc) = (s.name, s.takes.phrase(), s.default, s.doc.trim());
        let others = others(s, &strategies);
        page += &format!("| `{name}` | {takes} | `{default}` | {doc}{effect}{others}{old} |\n");
    }
    page
}

/// The built-in strategies with their names.
fn strategies() -> Vec<(&'static str, Strategy)> {
    let name = |base: &BuiltIn| base.names.first().copied();
    BUILT_IN.iter().filter_map(|base| Some((name(base)?, Strategy::built_in(name(base)?).ok()?))).collect()
}

/// Which strategies have another default, or not this setting.
fn others(setting: &Setting, strategies: &[(&str, Strategy)]) -> String {
    if setting.section == Section::Call {
        return String::new();
    }
    let value = |s: &Strategy| s.value(setting.name).or_else(|| s.user_value(setting.name)).map(Value::to_string);
    let (mut missing, mut text) = (Vec::new(), String::new());
    for (name, strategy) in strategies {
        match value(strategy) {
            None => missing.push(format!("`{name}`")),
            Some(own) if own != setting.default => text += &format!(" In `{name}` it is `{own}`."),
            Some(_) => {}
        }
    }
    match missing.is_empty() {
        true => text,
        false => format!("{text} Not in {}.", missing.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::find;

    /// Every strategy has some of the settings; `pof2s` with the table's defaults.
    #[test]
    fn every_key_of_a_built_in_strategy_is_a_setting_in_its_section_and_of_its_type() {
        for (strategy_name, strategy) in strategies() {
            let json: Value = serde_json::from_str(&strategy.dump(2)).unwrap();
            let registry = &json["quantize_registry_config"];
            for section in [Section::Optimize, Section::Quantize, Section::Refine, Section::Finalize, Section::User] {
                let key = section.key().unwrap();
                let own = json.get(key).or_else(|| registry.get(key)).unwrap();
                for (name, value) in own.as_object().unwrap() {
                    let s = find(name).unwrap_or_else(|| panic!("{strategy_name}: {name}"));
                    assert!(s.section == section && s.takes(value) && s.has(value), "{strategy_name}: {name}");
                    // The defaults of the table are those of the default strategy.
                    let own = value.to_string();
                    assert!(strategy_name != "pof2s" || s.default == own, "{name}");
                }
            }
        }
    }

    /// `UPDATE_EXPECT=1 cargo test -p shiftwise-quant` rewrites the page.
    #[test]
    fn the_page_of_settings_is_current() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("SETTINGS.md");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, page()).unwrap();
        }
        assert!(
            std::fs::read_to_string(&path).unwrap_or_default() == page(),
            "SETTINGS.md is out of date; UPDATE_EXPECT=1"
        );
    }
}
