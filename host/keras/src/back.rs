//! Whether a file that was written says what it was written from.

use std::collections::BTreeMap;
use std::path::Path;

use crate::open::read_h5;
use crate::quantize_info::quantize_info;
use crate::{layers, quantized};
use shiftwise_files::{Files, LoadOptions};
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::{Graph, Node};
use shiftwise_quant::quant_graph::{Model, QuantGraph};

/// Reads the bytes of a quantized model's file and compares them with the model.
///
/// Errors: a file that can't be read, or that is another model's; the layer is named. Such a file must not be written.
pub fn read_back(quantized: &QuantGraph, bytes: &[u8], path: &Path, options: &LoadOptions) -> Result<(), Error> {
    let refuse = |why: &str| Error::model(format!("{} would not be read as it is written: {why}", path.display()));
    let options = LoadOptions { custom: options.custom.clone(), ..LoadOptions::default() };
    let files = Files::of_bytes(path, bytes.to_vec());
    let budget = files.budget();
    let back = match read_h5(files, &options, &budget) {
        Ok(Model::Quantized(back)) => back,
        // Nothing in it is quantized where layers were converted to another type.
        Ok(Model::Float(graph)) if quantized.layers.is_empty() => {
            QuantGraph { graph, layers: BTreeMap::new(), ..quantized.clone() }
        }
        Ok(Model::Float(_)) => return Err(refuse("it is read as a float model")),
        Err(Error::Format { message, .. }) => return Err(refuse(&message)),
        Err(e) => return Err(refuse(&e.to_string())),
    };
    if let Some(why) = difference(&quantized.graph, &back.graph) {
        return Err(refuse(&why));
    }
    let info = |q: &QuantGraph| quantize_info(q).as_array().cloned().unwrap_or_default();
    let (own, other) = (info(quantized), info(&back));
    if own != other {
        let entry = own.iter().zip(&other).find(|(a, b)| a != b).and_then(|(a, _)| a["layer"].as_str());
        return Err(refuse(&format!("the positions of layer `{}` change", entry.unwrap_or("?"))));
    }
    // What is read is written the same way again, down to the last value.
    if quantized::write(&back, path)? == bytes {
        return Ok(());
    }
    let layers = |q: &QuantGraph| {
        let config = quantized::model_config(&quantized::Form::calibrated(q), &quantized::file_layers(&q.graph));
        config["config"]["layers"].as_array().cloned().unwrap_or_default()
    };
    let (own, other) = (layers(quantized), layers(&back));
    let differs = own.iter().zip(&other).find(|(a, b)| a != b).map(|(a, _)| a);
    let layer = differs.and_then(|layer| layer["config"]["name"].as_str().or_else(|| layer["name"].as_str()));
    Err(refuse(&match layer {
        Some(layer) => format!("the settings of layer `{layer}` change"),
        None => "its values or its ends change".into(),
    }))
}

/// What of a graph is not the same in another: a sentence that names the layer.
fn difference(own: &Graph, other: &Graph) -> Option<String> {
    let by_name: BTreeMap<&str, &Node> = other.nodes.iter().map(|n| (n.name.as_str(), n)).collect();
    let names = |graph: &Graph, ids: &[shiftwise_graph::graph::NodeId]| -> Vec<String> {
        ids.iter().map(|id| graph.node(*id).name.clone()).collect()
    };
    for node in &own.nodes {
        let layer = &node.name;
        let Some(back) = by_name.get(layer.as_str()) else { return Some(format!("layer `{layer}` is missing")) };
        if layers::node_text(node) != layers::node_text(back) {
            return Some(format!("the settings of layer `{layer}` change"));
        }
        if node.dtype != back.dtype {
            let (own, back) = (node.dtype.name(), back.dtype.name());
            return Some(format!("the type of layer `{layer}` changes: {own} becomes {back}"));
        }
        if names(own, &node.inputs) != names(other, &back.inputs) {
            return Some(format!("the inputs of layer `{layer}` change"));
        }
        if node.shape != back.shape {
            return Some(format!("the shape of layer `{layer}` changes: {:?} becomes {:?}", node.shape, back.shape));
        }
        let bits = |node: &Node| -> Vec<(String, Vec<usize>, Vec<u32>)> {
            let weights = node.op.layer().weights();
            // Weights are written in the layer's type.
            let bits = |data: &[f32]| data.iter().map(|v| node.dtype.round(*v).to_bits()).collect();
            weights.into_iter().map(|(n, t)| (n.to_owned(), t.shape().to_vec(), bits(t.data()))).collect()
        };
        if bits(node) != bits(back) {
            return Some(format!("the weights of layer `{layer}` change"));
        }
    }
    if own.nodes.len() != other.nodes.len() {
        return Some(format!("{} layers become {}", own.nodes.len(), other.nodes.len()));
    }
    let ends = |graph: &Graph| (names(graph, &graph.inputs), names(graph, &graph.outputs));
    (ends(own) != ends(other)).then(|| "its inputs or outputs change".into())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::open::read_json;
    use crate::quantized::write as quantized_bytes;
    use shiftwise_core::fix::FixPos;
    use shiftwise_quant::pipeline::without_data;
    use shiftwise_quant::strategy::Strategy;

    fn quantized(filters: u32, name: &str, seed: u64) -> QuantGraph {
        let layer = |class: &str, name: &str, mut config: Value, from: &[&str]| {
            config["name"] = name.into();
            let nodes: Vec<_> = from.iter().map(|f| json!([[f, 0, 0, {}]])).collect();
            json!({ "class_name": class, "name": name, "config": config, "inbound_nodes": nodes })
        };
        let layers = [
            layer("InputLayer", "x", json!({ "batch_input_shape": [null, 4, 4, 2] }), &[]),
            layer("Conv2D", "c", json!({ "filters": filters, "kernel_size": 1 }), &["x"]),
            layer("ReLU", name, json!({ "threshold": 0.5 }), &["c"]),
        ];
        let config =
            json!({ "name": "m", "layers": layers, "input_layers": [["x", 0, 0]], "output_layers": [[name, 0, 0]] });
        let text = json!({ "class_name": "Functional", "config": config }).to_string();
        let options = LoadOptions { random_weights: Some(seed), ..LoadOptions::default() };
        let files = Files::of_bytes(Path::new("m.json"), text.into_bytes());
        let budget = files.budget();
        match read_json(files, &options, &budget).unwrap() {
            Model::Float(graph) => without_data(graph, &Strategy::built_in("pof2s").unwrap()).unwrap(),
            Model::Quantized(_) => panic!("a float model"),
        }
    }

    #[test]
    fn a_file_of_another_model_is_refused_with_the_layers_name() {
        let path = Path::new("quantized.h5");
        let own = quantized(3, "r", 1);
        let bytes = quantized_bytes(&own, path).unwrap();
        read_back(&own, &bytes, path, &LoadOptions::default()).unwrap();
        let why = |other: &QuantGraph| read_back(other, &bytes, path, &LoadOptions::default()).unwrap_err().to_string();
        assert!(why(&quantized(4, "r", 1)).contains("layer `c`"), "{}", why(&quantized(4, "r", 1)));
        assert!(why(&quantized(3, "q", 1)).contains("layer `q` is missing"));
        assert!(why(&quantized(3, "r", 2)).contains("the weights of layer `c` change"));
        let mut moved = own.clone();
        let output = moved.layers.values_mut().find_map(|l| l.output.as_mut()).unwrap();
        output.scheme_mut().set_pos(FixPos(1));
        assert!(why(&moved).contains("the positions of layer `quant_"), "{}", why(&moved));
        let cut = read_back(&own, &bytes[..bytes.len() / 2], path, &LoadOptions::default()).unwrap_err();
        assert!(cut.to_string().contains("would not be read"), "{cut}");
    }
}
