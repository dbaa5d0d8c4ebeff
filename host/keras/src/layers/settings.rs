//! A layer's settings as they are written.

use serde_json::{Value, json};

/// An initializer without settings.
pub(crate) fn initializer(class: &str) -> Value {
    json!({ "class_name": class, "config": {} })
}

/// One setting.
#[derive(Clone, Debug)]
pub(crate) enum Setting {
    /// What the layer is computed with. A file's value that [means the same](Setting::same) is written instead: it has
    /// more digits, or another form.
    Own(Value),
    /// Numbers of which only the order counts, not how lists of them are nested.
    Flat(Value),
    /// An axis of a batched tensor with this many dimensions.
    Axis(i64, usize),
    /// What no computation here needs: the file's value, or this one.
    Kept(Value),
}

impl Setting {
    /// Whether a file's value says the same, up to the precision of f32.
    pub(crate) fn same(&self, file: &Value) -> bool {
        match self {
            Self::Own(own) => same(own, file),
            Self::Flat(own) => {
                let (mut left, mut right) = (Vec::new(), Vec::new());
                leaves(own, &mut left);
                leaves(file, &mut right);
                left.len() == right.len() && left.iter().zip(right).all(|(a, b)| same(a, b))
            }
            Self::Axis(own, rank) => {
                let place = |axis: i64| if axis < 0 { axis.saturating_add(*rank as i64) } else { axis };
                file.as_i64().is_some_and(|file| place(file) == place(*own))
            }
            Self::Kept(_) => false,
        }
    }

    /// The value for a file, if nothing else is known.
    pub(crate) fn value(&self) -> Value {
        match self {
            Self::Own(value) | Self::Flat(value) | Self::Kept(value) => value.clone(),
            Self::Axis(axis, _) => json!(axis),
        }
    }
}

/// Numbers of nested lists in order.
fn leaves<'a>(value: &'a Value, into: &mut Vec<&'a Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| leaves(item, into)),
        one => into.push(one),
    }
}

/// Whether two values are the same up to the precision of f32.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().map(|v| v as f32) == b.as_f64().map(|v| v as f32),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (a, b) => a == b,
    }
}

/// A layer's settings in Keras' order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    all: Vec<(String, Setting)>,
    rest: bool,
}

impl Settings {
    /// Adds a setting.
    pub(super) fn add(&mut self, key: &str, setting: Setting) {
        self.all.push((key.to_owned(), setting));
    }

    /// Adds a setting that the layer is computed with.
    pub(super) fn own(&mut self, key: &str, value: Value) {
        self.add(key, Setting::Own(value));
    }

    /// Adds a number that the layer has as f32. It is written as its shortest decimal, 0.001 and not
    /// 0.0010000000474974513.
    pub(super) fn single(&mut self, key: &str, value: f32) {
        self.own(key, shortest(value));
    }

    /// Adds settings that no computation here needs, with Keras' defaults, from a JSON object.
    pub(super) fn kept(&mut self, defaults: Value) {
        for (key, value) in super::object(defaults) {
            self.add(&key, Setting::Kept(value));
        }
    }

    /// Lets everything follow that the file says besides.
    pub(super) fn rest(&mut self) {
        self.rest = true;
    }

    /// Whether everything else that the file says follows.
    pub(crate) fn has_rest(&self) -> bool {
        self.rest
    }

    /// All settings.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.all.iter().map(|(key, setting)| (key.as_str(), setting))
    }

    /// Those that the layer is computed with.
    pub(crate) fn own_settings(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.iter().filter(|(_, setting)| !matches!(setting, Setting::Kept(_)))
    }

    /// Those that the layer is computed with, as values.
    pub(crate) fn own_values(&self) -> impl Iterator<Item = (&str, Value)> {
        self.own_settings().map(|(key, setting)| (key, setting.value()))
    }

    /// The setting of a key that the layer is computed with.
    pub(crate) fn find(&self, key: &str) -> Option<&Setting> {
        self.own_settings().find(|(own, _)| *own == key).map(|(_, setting)| setting)
    }
}

/// An f32 as the shortest decimal that gives it again.
pub(super) fn shortest(value: f32) -> Value {
    json!(value.to_string().parse::<f64>().unwrap_or(value.into()))
}
