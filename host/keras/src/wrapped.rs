//! The layer inside of the vendor's wrapper, as its config has it.

use serde_json::{Map, Value};

/// The layer inside a wrapper.
pub(crate) struct Wrapped<'a> {
    pub(crate) name: &'a str,
    pub(crate) class: &'a str,
    pub(crate) config: &'a Map<String, Value>,
}

impl<'a> Wrapped<'a> {
    /// The layer inside the wrapper of this name and config.
    pub(crate) fn of(wrapper: &str, config: &'a Map<String, Value>) -> Result<Self, String> {
        let inner = Self::any(config)?;
        if format!("quant_{}", inner.name) != wrapper {
            return Err(format!("it wraps `{0}`, and its name is not quant_{0}", inner.name));
        }
        Ok(inner)
    }

    /// The layer inside a wrapper of any name.
    pub(crate) fn any(config: &'a Map<String, Value>) -> Result<Self, String> {
        Self::under("layer", config)
    }

    /// The layer that a wrapper's config has under a key.
    pub(crate) fn under(key: &str, config: &'a Map<String, Value>) -> Result<Self, String> {
        let inner = config.get(key).ok_or("its wrapper has no layer")?;
        let class = inner.get("class_name").and_then(Value::as_str).ok_or("its wrapped layer has no class")?;
        let config = inner.get("config").and_then(Value::as_object).ok_or("its wrapped layer has no config")?;
        let name = config.get("name").and_then(Value::as_str).ok_or("its wrapped layer has no name")?;
        Ok(Self { name, class, config })
    }
}
