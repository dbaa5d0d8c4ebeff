//! Where each layer of a network would run, and why: the vendor's inspector, answered by our own compiler.
//!
//! Without a target a layer that is quantized counts as one of the DPU's, as the vendor's inspector has it. With a target
//! the compiler's placement decides. No data is needed: positions are legal ones that mean nothing.

mod fix;
mod layout;
mod message;
mod notes;
mod place;
mod plot;
mod python;
mod supported;
mod text;
mod verdict;

use std::collections::BTreeMap;

use serde_json::Value;
use shiftwise_formats::{Model, UserLayer};
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::Graph;
use shiftwise_integer::lower;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::strategy::Strategy;

use crate::device::Device;
pub use fix::{Fixed, REWRITES, Rewrite, fix};
use notes::Notes;
use place::{Devices, Subject, cost, cuts, located, placement, wrapped};
pub use supported::page;
pub use verdict::{CPU, Cost, Cut, DPU, Done, Fallback, INPUT, Inspection, LayerVerdict, Proposal, Report};

/// Inspects a model; `layers` are those of its user, in their order.
///
/// `strategy` is followed up to calibration. Without a target nothing is compiled.
///
/// Errors: those of the passes and of the compiler; an op on the CPU is none.
pub fn inspect(
    model: &Model,
    layers: &[UserLayer],
    strategy: &Strategy,
    device: Option<&Device>,
) -> Result<Inspection, Error> {
    let Subject { quantized, mut notes } = Subject::of(model, strategy)?;
    let graph = crate::evaluate::graph(model);
    let integers = device.map(|_| lower::lower(&quantized)).transpose()?;
    let placed = integers.as_ref().zip(device).map(|(integers, device)| placement(integers, device)).transpose()?;
    let (devices, fallbacks) = match &placed {
        None => (wrapped(&quantized, &mut notes), BTreeMap::new()),
        Some(placement) => located(placement, layers, &mut notes),
    };
    let inputs = edges(graph);
    let verdict = |layer: &UserLayer| LayerVerdict {
        layer: layer.name.clone(),
        class: layer.class.clone(),
        activation: activation(layer),
        device: device_of(layer, &quantized, &devices, &notes),
        inputs: inputs.get(&layer.name).cloned().unwrap_or_default(),
        notes: notes.told.get(&layer.name).cloned().unwrap_or_default(),
        fallbacks: fallbacks.get(&layer.name).cloned().unwrap_or_default(),
        config: layer.config.clone(),
    };
    let cost = placed.as_ref().zip(device).map(|(placement, device)| cost(placement, device)).transpose()?;
    let rewrites = match (model, device, &cost) {
        (Model::Float(graph), Some(device), Some(cost)) => fix::proposals(graph, strategy, device, *cost)?,
        _ => Vec::new(),
    };
    Ok(Inspection {
        model: graph.name.clone(),
        target: device.map(|device| device.target.name.to_string()),
        layers: layers.iter().map(verdict).collect(),
        cost,
        cuts: placed.as_ref().map_or_else(Vec::new, cuts),
        rewrites,
        quantized: quantized.clone(),
    })
}

impl Inspection {
    /// The text file that the vendor's inspector writes; `verbose` adds the notes of layers on the DPU to its tables.
    pub fn text(&self, verbose: bool) -> String {
        text::file(self, verbose)
    }

    /// The lines that the vendor's inspector shows.
    pub fn summary(&self, verbose: bool) -> Vec<String> {
        text::summary(self, verbose)
    }

    /// The network as a picture, in SVG: layers coloured by their devices, with hints.
    pub fn svg(&self) -> String {
        plot::svg(self)
    }

    /// Whether the DPU does every layer.
    pub fn all_on_dpu(&self) -> bool {
        self.layers.iter().all(|layer| layer.device == DPU || layer.device == INPUT)
    }
}

/// A layer's setting `activation`, as a word.
fn activation(layer: &UserLayer) -> Option<String> {
    match layer.config.get("activation")? {
        Value::Null => None,
        Value::String(name) => Some(name.clone()),
        Value::Object(map) => map.get("class_name").and_then(Value::as_str).map(str::to_owned),
        other => Some(other.to_string()),
    }
}

/// A layer's devices as one word. A layer that has left no trace costs nothing, and none but the DPU could stand for it.
fn device_of(layer: &UserLayer, quantized: &QuantGraph, devices: &Devices, notes: &Notes) -> String {
    if layer.class == "InputLayer" {
        return INPUT.into();
    }
    let absorbed = || {
        let node = quantized.graph.find(notes.absorbed.get(&layer.name)?)?;
        quantized.graph.node(node).origin.iter().find_map(|origin| devices.0.get(origin))
    };
    devices.0.get(&layer.name).or_else(absorbed).map_or_else(|| DPU.to_owned(), |own| own.join("+"))
}

/// What each of the user's layers reads.
fn edges(graph: &Graph) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for node in &graph.nodes {
        let Some(layer) = node.origin.first() else { continue };
        let own = all.entry(layer.clone()).or_default();
        for from in node.inputs.iter().filter_map(|id| graph.node(*id).origin.last()) {
            if from != layer && !own.contains(from) {
                own.push(from.clone());
            }
        }
    }
    all
}
