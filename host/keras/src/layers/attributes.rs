//! JSON values as the attributes that a graph keeps, and back. Nothing is lost on the way.

use serde_json::{Map, Number, Value};

use shiftwise_graph::attributes::{Attribute, Attributes};

/// A JSON object.
pub fn of(map: &Map<String, Value>) -> Attributes {
    map.iter().map(|(key, value)| (key.clone(), attribute(value))).collect()
}

/// A JSON value.
pub fn attribute(value: &Value) -> Attribute {
    match value {
        Value::Null => Attribute::Null,
        Value::Bool(flag) => Attribute::Flag(*flag),
        Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => Attribute::Integer(n.into()),
            (None, Some(n)) => Attribute::Integer(n.into()),
            (None, None) => Attribute::Number(n.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Attribute::Text(text.clone()),
        Value::Array(items) => Attribute::List(items.iter().map(attribute).collect()),
        Value::Object(map) => Attribute::Map(of(map)),
    }
}

/// Attributes as a JSON object.
pub fn to_json(attributes: &Attributes) -> Map<String, Value> {
    attributes.iter().map(|(key, attribute)| (key.to_owned(), value(attribute))).collect()
}

/// An attribute as a JSON value.
pub fn value(attribute: &Attribute) -> Value {
    match attribute {
        Attribute::Null => Value::Null,
        Attribute::Flag(flag) => Value::Bool(*flag),
        Attribute::Integer(n) => match (i64::try_from(*n), u64::try_from(*n)) {
            (Ok(n), _) => n.into(),
            (Err(_), Ok(n)) => n.into(),
            (Err(_), Err(_)) => Value::Null,
        },
        Attribute::Number(n) => Number::from_f64(*n).map_or(Value::Null, Value::Number),
        Attribute::Text(text) => Value::String(text.clone()),
        Attribute::List(items) => items.iter().map(value).collect(),
        Attribute::Map(map) => Value::Object(to_json(map)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_comes_back_as_it_was() {
        let given = json!({
            "b": null, "a": [true, 1, -1, 0.1, 1.0, 1e300, u64::MAX, i64::MIN, "word", [], {}], "c": { "z": 1, "y": [2] },
        });
        let back = to_json(&of(given.as_object().unwrap()));
        assert_eq!(Value::Object(back).to_string(), given.to_string());
    }
}
