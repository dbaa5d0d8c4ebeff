//! The type that a layer's Keras config names.

use serde_json::{Map, Value};

use shiftwise_graph::dtype::Dtype;

/// The type of a layer's Keras config. A policy of two types is its `float32`: what is stored and what flows between
/// layers would differ, and rounding only loses.
pub(crate) fn of_config(config: &Map<String, Value>) -> Dtype {
    let value = config.get("dtype");
    let policy = || value?.get("config")?.get("name")?.as_str();
    let name = value.and_then(Value::as_str).or_else(policy);
    name.and_then(Dtype::from_name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_of_two_types_are_single() {
        let of = |value: Value| of_config(&Map::from_iter([("dtype".to_owned(), value)]));
        let policy = |name: &str| serde_json::json!({ "class_name": "Policy", "config": { "name": name } });
        assert_eq!(of("bfloat16".into()), Dtype::BFloat16);
        assert_eq!(of(policy("float16")), Dtype::Float16);
        assert_eq!((of(policy("mixed_float16")), of(Value::Null)), (Dtype::Float32, Dtype::Float32));
    }
}
