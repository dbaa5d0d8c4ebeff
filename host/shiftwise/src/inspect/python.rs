//! Settings of Keras' layers as Python's `pprint` prints what `get_config` returns.

use std::fmt::Write as _;

use serde_json::{Map, Value};
use shiftwise_quant::python::repr32;

/// Characters of a line.
const WIDTH: usize = 80;

/// Settings that Keras keeps as tuples; JSON has no such thing.
const TUPLES: &[&str] = &[
    "batch_input_shape",
    "batch_shape",
    "cropping",
    "dilation_rate",
    "dims",
    "kernel_size",
    "output_padding",
    "padding",
    "pool_size",
    "size",
    "strides",
    "target_shape",
];

/// A Python value.
#[derive(Clone, Debug, PartialEq)]
enum Python {
    /// What is printed as it is: a number, a word, an object that prints itself.
    Atom(String),
    Text(String),
    List(Vec<Python>),
    Tuple(Vec<Python>),
    /// In the order of the keys.
    Dict(Vec<(String, Python)>),
}

/// The settings of a layer as `pprint.pformat(layer.get_config())` prints them in Keras 2.
pub(super) fn pformat(class: &str, config: &Map<String, Value>) -> String {
    let pairs = config.iter().map(|(key, value)| (key.clone(), setting(class, key, value)));
    let mut out = String::new();
    format(&dict(pairs.collect()), 0, 0, &mut out);
    out
}

fn dict(mut pairs: Vec<(String, Python)>) -> Python {
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    Python::Dict(pairs)
}

/// A setting as the layer holds it.
fn setting(class: &str, key: &str, value: &Value) -> Python {
    match (class, key, value) {
        ("ReLU", "max_value" | "negative_slope" | "threshold", Value::Number(n)) => {
            let digits = repr32(n.as_f64().unwrap_or_default() as f32);
            // NumPy leaves out a last zero.
            let digits = digits.strip_suffix(".0").map_or(digits.clone(), |whole| format!("{whole}."));
            Python::Atom(format!("array({digits}, dtype=float32)"))
        }
        ("BatchNormalization" | "LayerNormalization", "axis", Value::Array(_)) => {
            Python::Atom(format!("ListWrapper({})", repr(&plain(value))))
        }
        (_, key, Value::Array(items)) if TUPLES.contains(&key) => tuple(items),
        _ => plain(value),
    }
}

fn tuple(items: &[Value]) -> Python {
    let item = |value: &Value| match value {
        Value::Array(inner) => tuple(inner),
        other => plain(other),
    };
    Python::Tuple(items.iter().map(item).collect())
}

fn plain(value: &Value) -> Python {
    match value {
        Value::Null => Python::Atom("None".into()),
        Value::Bool(true) => Python::Atom("True".into()),
        Value::Bool(false) => Python::Atom("False".into()),
        Value::Number(_) => Python::Atom(shiftwise_quant::python::dumps(value)),
        Value::String(text) => Python::Text(text.clone()),
        Value::Array(items) => Python::List(items.iter().map(plain).collect()),
        Value::Object(map) => dict(map.iter().map(|(key, value)| (key.clone(), plain(value))).collect()),
    }
}

/// A string as Python writes it: in the quotes that need fewer escapes.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_control() => drop(write!(out, "\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

fn joined(items: &[Python]) -> String {
    items.iter().map(repr).collect::<Vec<_>>().join(", ")
}

/// A value on one line.
fn repr(value: &Python) -> String {
    match value {
        Python::Atom(text) => text.clone(),
        Python::Text(text) => quoted(text),
        Python::List(items) => format!("[{}]", joined(items)),
        Python::Tuple(items) if items.len() == 1 => format!("({},)", joined(items)),
        Python::Tuple(items) => format!("({})", joined(items)),
        Python::Dict(pairs) => {
            let pairs: Vec<String> = pairs.iter().map(|(k, v)| format!("{}: {}", quoted(k), repr(v))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// Writes a value that begins in column `indent`; `allowance` columns at its end belong to what encloses it.
fn format(value: &Python, indent: usize, allowance: usize, out: &mut String) {
    let line = repr(value);
    if length(&line) + indent + allowance <= WIDTH {
        out.push_str(&line);
        return;
    }
    match value {
        Python::Atom(_) => out.push_str(&line),
        Python::Text(text) => string(text, indent, allowance, out),
        Python::List(items) => {
            out.push('[');
            sequence(items, indent, allowance + 1, out);
            out.push(']');
        }
        Python::Tuple(items) => {
            let end = if items.len() == 1 { ",)" } else { ")" };
            out.push('(');
            sequence(items, indent, allowance + end.len(), out);
            out.push_str(end);
        }
        Python::Dict(pairs) => {
            out.push('{');
            for (i, (key, value)) in pairs.iter().enumerate() {
                let (key, last) = (quoted(key), i + 1 == pairs.len());
                if i > 0 {
                    newline(indent + 1, out);
                }
                out.push_str(&key);
                out.push_str(": ");
                format(value, indent + 1 + length(&key) + 2, if last { allowance + 1 } else { 1 }, out);
                if !last {
                    out.push(',');
                }
            }
            out.push('}');
        }
    }
}

fn newline(indent: usize, out: &mut String) {
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', indent));
}

fn sequence(items: &[Python], indent: usize, allowance: usize, out: &mut String) {
    for (i, item) in items.iter().enumerate() {
        let last = i + 1 == items.len();
        if i > 0 {
            newline(indent + 1, out);
        }
        format(item, indent + 1, if last { allowance } else { 1 }, out);
        if !last {
            out.push(',');
        }
    }
}

/// A long string, cut behind blanks and line ends into strings that stand below each other.
fn string(text: &str, indent: usize, allowance: usize, out: &mut String) {
    let width = WIDTH.saturating_sub(indent);
    let mut chunks: Vec<String> = Vec::new();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    for (i, line) in lines.iter().enumerate() {
        let last = i + 1 == lines.len();
        let room = if last { width.saturating_sub(allowance) } else { width };
        if length(&quoted(line)) <= room {
            chunks.push(quoted(line));
            continue;
        }
        let parts = words(line);
        let mut current = String::new();
        for (j, part) in parts.iter().enumerate() {
            let candidate = format!("{current}{part}");
            let room = if last && j + 1 == parts.len() { width.saturating_sub(allowance) } else { width };
            if length(&quoted(&candidate)) > room {
                if !current.is_empty() {
                    chunks.push(quoted(&current));
                }
                current = (*part).to_owned();
            } else {
                current = candidate;
            }
        }
        if !current.is_empty() {
            chunks.push(quoted(&current));
        }
    }
    for (i, chunk) in chunks.iter().enumerate() {
        if i > 0 {
            newline(indent, out);
        }
        out.push_str(chunk);
    }
}

/// Words with the blanks behind them.
fn words(line: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let word = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let blanks = rest[word..].find(|c: char| !c.is_whitespace()).map_or(rest.len(), |n| word + n);
        let (part, more) = rest.split_at(blanks);
        parts.push(part);
        rest = more;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn printed(class: &str, config: Value) -> String {
        pformat(class, config.as_object().unwrap())
    }

    /// Expected texts are those of Python 3.10's `pprint.pformat`.
    #[test]
    fn settings_are_printed_as_python_prints_them() {
        assert_eq!(printed("Add", json!({"name": "a", "dtype": "float32"})), "{'dtype': 'float32', 'name': 'a'}");
        let relu = json!({"max_value": 6.0, "negative_slope": 0.1, "name": "r", "threshold": null});
        let want = "{'max_value': array(6., dtype=float32),\n 'name': 'r',\n 'negative_slope': array(0.1, dtype=float32),\n 'threshold': None}";
        assert_eq!(printed("ReLU", relu), want);
        let pad = json!({"padding": [[1, 1], [0, 2]], "axis": [3], "target_shape": [5]});
        assert_eq!(printed("X", pad), "{'axis': [3], 'padding': ((1, 1), (0, 2)), 'target_shape': (5,)}");
        let long = json!({
            "f": "the quick brown fox jumps over the lazy dog and then it jumps again over the dog",
            "it's": true
        });
        let want = "{'f': 'the quick brown fox jumps over the lazy dog and then it jumps again '\n      'over the dog',\n \"it's\": True}";
        assert_eq!(printed("X", long), want);
    }
}
