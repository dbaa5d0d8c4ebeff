//! What is written of a layer is read again as the same layer.

use serde_json::{Map, Value, json};

use super::gradients::rows::{Row, layers};
use super::*;
use shiftwise_graph::attributes::Attributes;
use shiftwise_graph::builder::Builder;

/// Weights of ascending numbers, the same whoever asks.
struct Counting;

impl WeightSource for Counting {
    fn take(&mut self, _: &str, shape: &[usize]) -> Result<Tensor, String> {
        let count = shape.iter().product::<usize>();
        Tensor::new(shape.to_vec(), (0..count).map(|i| i as f32).collect()).ok_or_else(|| "its shape is wrong".into())
    }
}

/// A layer with these settings, in a graph behind inputs of these shapes, with what its file says besides.
fn node(class: &str, config: &Map<String, Value>, shapes: &[Vec<usize>]) -> Node {
    let mut builder = Builder::default();
    let input = |(k, shape): (usize, &Vec<usize>)| {
        builder.layer(&format!("x{k}"), Op::Input(ops::Input { shape: shape.clone() }), &[]).unwrap()
    };
    let inputs: Vec<NodeId> = shapes.iter().enumerate().map(input).collect();
    let of: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
    let op = read(class, Config(config), &of, &mut Counting).unwrap_or_else(|| panic!("{class} has no row"));
    let op = op.unwrap_or_else(|e| panic!("{class} {config:?}: {e}"));
    let id = builder.layer("y", op, &inputs).unwrap_or_else(|e| panic!("{class}: {e}"));
    let node = builder.node_mut(id);
    node.extras = node::extras(&node.op, config, node.shape.len());
    node.clone()
}

/// What goes into a file of a layer, without the arguments of a function's call, which stand elsewhere.
fn written(node: &Node, config: &Map<String, Value>) -> Map<String, Value> {
    let mut written = node::config(node);
    written.extend(config.get(functions::CALL).map(|call| (functions::CALL.to_owned(), call.clone())));
    written
}

#[test]
fn every_layer_is_read_again_as_it_is_written() {
    let rows = layers();
    for class in CLASSES.iter().filter(|class| **class != "InputLayer") {
        assert!(rows.iter().any(|row| row.class == *class), "{class} has no row in this test");
    }
    for Row { class, config, shapes, .. } in rows {
        let config = object(config);
        let first = node(class, &config, &shapes);
        assert_eq!(first.op.class(), class);
        let file = written(&first, &config);
        let second = node(class, &file, &shapes);
        assert_eq!(node_text(&first), node_text(&second), "{class}");
        assert_eq!(first.shape, second.shape, "{class}");
        assert_eq!(first.op.layer().weights(), second.op.layer().weights(), "{class}");
        // To the letter, with the order of the keys: a file that is read and written stays as it is.
        assert_eq!(json!(written(&second, &file)).to_string(), json!(file).to_string(), "{class}");
    }
}

/// The layer of `docs/new-layer.md`.
struct Power {
    exponent: usize,
}

impl KerasForm for Power {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        Ok(Self { exponent: from.config.usize_or("exponent", 2)? })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        to.own("exponent", json!(self.exponent));
        to.kept(json!({ "comment": null }));
    }
}

#[test]
fn a_form_of_a_layer_is_read_and_written() {
    let config = object(json!({ "exponent": 3 }));
    let mut from = Described { class: "Power", config: Config(&config), inputs: &[], weights: &mut NoWeights };
    let mut to = Settings::default();
    Power::read(&mut from).unwrap().write(&mut to, 1);
    let all: Vec<String> = to.iter().map(|(key, setting)| format!("{key}={}", setting.value())).collect();
    assert_eq!(all, ["exponent=3", "comment=null"]);
    assert_eq!(to.own_values().count(), 1);
}

#[test]
fn an_input_is_read_again_with_its_batch() {
    for batch in [json!(null), json!(4)] {
        let config = object(json!({ "name": "y", "batch_input_shape": [batch, 2, 3], "dtype": "float32" }));
        let first = node("InputLayer", &config, &[]);
        let file = written(&first, &config);
        assert_eq!(file["batch_input_shape"], config["batch_input_shape"]);
        assert_eq!(first.shape, node("InputLayer", &file, &[]).shape);
    }
}

#[test]
fn a_files_form_of_a_setting_stays_as_long_as_it_means_the_same() {
    let shape = [vec![2, 3]];
    let config = |key: &str, value: Value| Map::from_iter([(key.to_owned(), value)]);
    for (class, key, value) in [
        ("LayerNormalization", "epsilon", json!(0.001_000_000_000_1)),
        ("BatchNormalization", "momentum", json!(1)),
        ("Rescaling", "scale", json!([[0.003_921_568_627_450_98, 1, 2]])),
        ("Rescaling", "offset", json!(-1)),
        ("Normalization", "axis", json!([-1])),
    ] {
        let node = node(class, &config(key, value.clone()), &shape);
        assert_eq!(node::config(&node)[key], value, "{class}");
    }
    let joined = |axis: i64| node("Concatenate", &config("axis", json!(axis)), &[vec![2, 3], vec![2, 3]]);
    for axis in [-1, 1, 2, -2] {
        assert_eq!(node::config(&joined(axis))["axis"], axis);
    }
    // A layer that a pass has changed since is written as it is now.
    let mut moved = joined(2);
    moved.op = Op::Concatenate(ops::Concatenate { axis: 0 });
    assert_eq!(node::config(&moved)["axis"], 1);
    let mut plain = joined(2);
    plain.extras = Attributes::default();
    assert_eq!(node::config(&plain)["axis"], -1);
}
