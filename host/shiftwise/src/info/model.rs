//! Networks in any format of models.

use std::collections::BTreeMap;

use shiftwise_core::arith::Round;
use shiftwise_formats::files::{Manifest, sha256};
use shiftwise_formats::{self as format, Files, Format, LoadOptions, Model};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Point;
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::Op;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::scheme::Quantizer;

use super::{Content, Info, Network, Origin, Port, Subject, documents, snippet};
use crate::evaluate;

/// What the folder of a quantized model says of it.
const PROVENANCE: &str = "provenance.json";

pub(super) fn read(subject: &Subject<'_>, options: &LoadOptions) -> Result<Option<Info>, Error> {
    let files = Files::open(subject.path)?;
    let Some(found) = Format::of(&files) else { return Ok(None) };
    let keras = format::keras_version(&files);
    let digest = files.bytes().map(sha256);
    let mut options = LoadOptions { keep_unknown: true, ..options.clone() };
    let (model, has_weights) = match found.open(files, &options) {
        Err(Error::NoWeights { .. }) => {
            // What they are doesn't matter: they are counted.
            options.random_weights = Some(0);
            (found.open(Files::open(subject.path)?, &options)?, false)
        }
        other => (other?, true),
    };
    let graph = evaluate::graph(&model);
    let quantized = evaluate::quantized(&model);
    let mut network = Network {
        keras,
        layers: graph.nodes.len(),
        classes: BTreeMap::new(),
        parameters: parameters(graph),
        has_weights,
        macs: graph.nodes.iter().map(|n| n.op.layer().macs(&n.shape)).fold(0, u64::saturating_add),
        quantized_layers: quantized.map(|q| q.layers.len()),
        quantizers: BTreeMap::new(),
        origin: digest.and_then(|digest| origin(subject, &digest)),
    };
    graph.nodes.iter().for_each(|n| *network.classes.entry(n.op.class().to_owned()).or_default() += 1);
    for own in quantized.iter().flat_map(|q| q.layers.values()).flat_map(|layer| layer.all()) {
        *network.quantizers.entry(own.class().to_owned()).or_default() += 1;
    }
    let kind = match &model {
        Model::Quantized(_) => {
            let bare = found.name.strip_prefix("an ").or(found.name.strip_prefix("a ")).unwrap_or(found.name);
            format!("a quantized {bare}")
        }
        Model::Float(_) => found.name.to_owned(),
    };
    let mut info = subject.info(&kind, Content::Network(network));
    info.name = Some(graph.name.clone());
    info.warnings.clone_from(&graph.warnings);
    info.inputs = graph.inputs.iter().map(|id| port(graph, quantized, *id, true)).collect();
    info.outputs = graph.outputs.iter().map(|id| port(graph, quantized, *id, false)).collect();
    info.metadata = quantized.map(|q| q.metadata.clone()).unwrap_or_default();
    info.snippets = snippet::all(&info.inputs, info.metadata.preprocessing.as_ref());
    Ok(Some(info))
}

/// Weights of all layers; those of a shared one once.
fn parameters(graph: &Graph) -> u64 {
    let own = graph.nodes.iter().filter(|n| n.shared.as_ref().is_none_or(|call| call.number == 0));
    own.flat_map(|n| n.op.layer().weights()).map(|(_, weight)| weight.data().len() as u64).sum()
}

/// Where a model came from: the manifest beside it, if that names this very file.
fn origin(subject: &Subject<'_>, digest: &str) -> Option<Origin> {
    let folder = subject.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(".".as_ref());
    let manifest = Manifest::read(folder, PROVENANCE).ok().flatten()?;
    let name = subject.path.file_name()?.to_str()?;
    manifest.files.iter().find(|file| file.path == name && file.sha256 == digest)?;
    documents::origin(&format::json(&std::fs::read(folder.join(PROVENANCE)).ok()?).ok()?)
}

/// An input or output, with the grid of what the network computes with.
fn port(graph: &Graph, quantized: Option<&QuantGraph>, id: NodeId, is_input: bool) -> Port {
    let node = graph.node(id);
    let mut port = Port::float(&node.name, node.shape.clone());
    if quantized.is_none() {
        node.dtype.name().clone_into(&mut port.dtype);
    }
    let own = quantized.and_then(|q| if is_input { reads(q, id) } else { gives(q, id) });
    let Some(own) = own else { return port };
    let info = own.scheme().info();
    let number = |key: &str| info.get(key).and_then(serde_json::Value::as_u64).and_then(|n| u8::try_from(n).ok());
    let signed = info.get("signed").and_then(serde_json::Value::as_bool).unwrap_or(true);
    if let (Some(pos), Some(bits)) = (own.scheme().pos(), number("bit_width")) {
        let round = number("round_mode").and_then(Round::from_id).unwrap_or(Round::HalfUp);
        port = port.fixed(pos.0, (bits, signed), round);
    }
    Port { quantizer: Some(info), ..port }
}

/// The quantizer that an input's values go through first: its own, or the one node behind it.
fn reads(quantized: &QuantGraph, id: NodeId) -> Option<&Quantizer> {
    let own = quantized.quantizer(Point::Output(id)).or_else(|| quantized.layers.get(&id)?.result());
    let behind = || {
        let graph = &quantized.graph;
        let readers = &graph.consumers()[id.0];
        let of = |reader: &NodeId| match (&graph.node(*reader).op, readers.len()) {
            (Op::Quantize(_), 1) => quantized.quantizer(Point::Output(*reader)),
            _ => quantized.quantizer(Point::Input(*reader, 0)),
        };
        readers.first().and_then(of)
    };
    own.or_else(behind)
}

/// The quantizer of an output's values. Layers that only move them have none of their own: it is their source's.
fn gives(quantized: &QuantGraph, mut id: NodeId) -> Option<&Quantizer> {
    loop {
        if let Some(own) = quantized.layers.get(&id).and_then(|layer| layer.result()) {
            return Some(own);
        }
        match (&quantized.graph.node(id).op, &quantized.graph.node(id).inputs[..]) {
            (Op::Flatten(_) | Op::Reshape(_) | Op::Permute(_) | Op::Dropout(_), [input]) => id = *input,
            _ => return None,
        }
    }
}
