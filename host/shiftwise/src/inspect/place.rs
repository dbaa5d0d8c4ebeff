//! Devices of layers: what is quantized, or where the compiler places it, at what price.

use std::collections::BTreeMap;

use shiftwise_compile::{CpuPrice, DpuOptions, Placed, Placement, Reason, cpu_price};
use shiftwise_core::model::{Deployable, Step};
use shiftwise_formats::{Model, UserLayer};
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::Graph;
use shiftwise_graph::ops::Op;
use shiftwise_integer::graph::{IntGraph, IntOp, IntOpKind};
use shiftwise_integer::lower;
use shiftwise_quant::pipeline::without_data_watched;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::strategy::Strategy;

use super::message::note;
use super::notes::{Notes, Watcher, unquantized};
use super::verdict::{CPU, Cost, Cut, DPU, Fallback, INPUT};
use crate::device::Device;

/// The quantized form that is inspected, what was noted on the way, and its origin.
pub(super) struct Subject {
    pub(super) quantized: QuantGraph,
    pub(super) notes: Notes,
}

impl Subject {
    pub(super) fn of(model: &Model, strategy: &Strategy) -> Result<Self, Error> {
        match model {
            Model::Quantized(quantized) => Ok(Self { quantized: quantized.clone(), notes: Notes::default() }),
            Model::Float(graph) => {
                let mut watcher = Watcher::of(graph);
                let watch = &mut |pass: &'static str, graph: &Graph| watcher.see(pass, graph);
                let quantized = without_data_watched(graph.clone(), strategy, watch)?;
                Ok(Self { quantized, notes: watcher.notes })
            }
        }
    }
}

/// Devices by the user's layer, in the order in which they are met.
#[derive(Debug, Default)]
pub(super) struct Devices(pub(super) BTreeMap<String, Vec<&'static str>>);

impl Devices {
    fn add(&mut self, layer: &str, device: &'static str) {
        let own = self.0.entry(layer.to_owned()).or_default();
        if !own.contains(&device) {
            own.push(device);
        }
    }
}

/// The devices of layers that nobody compiles: those that are quantized are the DPU's.
pub(super) fn wrapped(quantized: &QuantGraph, notes: &mut Notes) -> Devices {
    let mut devices = Devices::default();
    for id in quantized.graph.ids() {
        let node = quantized.graph.node(id);
        let device = match (&node.op, quantized.layers.contains_key(&id)) {
            // It belongs to no layer of the user's.
            (Op::Quantize(_), _) => continue,
            (Op::Input(_), _) => INPUT,
            (_, true) => DPU,
            (_, false) => {
                if let Some(layer) = node.origin.first() {
                    notes.tell(layer, unquantized(node));
                }
                CPU
            }
        };
        node.origin.iter().for_each(|layer| devices.add(layer, device));
    }
    devices
}

/// The user's layers in the name of an op, which joins them with `+`.
fn layers_of<'n>(name: &'n str, known: &BTreeMap<&str, &str>) -> Vec<&'n str> {
    let mut found = Vec::new();
    let mut start = 0;
    let ends = name.match_indices('+').map(|(at, _)| at).chain([name.len()]);
    for end in ends {
        if known.contains_key(&name[start..end]) {
            found.push(&name[start..end]);
            start = (end + 1).min(name.len());
        }
    }
    found
}

/// Devices and reasons by the user's layer.
pub(super) type Verdicts = (Devices, BTreeMap<String, Vec<Fallback>>);

/// Where the compiler places a network for timing.
pub(super) fn placement<'p>(integers: &'p IntGraph, device: &'p Device) -> Result<Placement<'p>, Error> {
    let options = DpuOptions { observe: false, timing_only: true, ..DpuOptions::default() };
    shiftwise_compile::place(integers, &device.target, &options)
}

/// What a placed network takes.
pub(super) fn cost(placement: &Placement<'_>, device: &Device) -> Result<Cost, Error> {
    let program = shiftwise_compile::compile(placement)?;
    let file = program.to_bytes(&[])?;
    let failed = |e: &dyn std::fmt::Display| Error::Compile(e.to_string());
    let model = Deployable::parse(&file).map_err(|e| failed(&e))?;
    let mut sim = device.simulator()?;
    shiftwise_sim::time(&model, &mut sim).map_err(|e| failed(&e))?;
    let subgraphs = model.steps().filter(|s| matches!(s, Step::Dpu(_))).count();
    let (dpu_us, cpu_us) = (sim.report(&model).latency_us, program.layers.iter().filter_map(|l| l.cpu_us).sum::<f64>());
    // The sum of nothing is −0.
    let cpu_us = cpu_us + 0.0;
    Ok(Cost { subgraphs, dpu_us, cpu_us, total_us: dpu_us + cpu_us })
}

/// What a network takes that would be quantized so.
pub(super) fn cost_of(quantized: &QuantGraph, device: &Device) -> Result<Cost, Error> {
    let integers = lower::lower(quantized)?;
    cost(&placement(&integers, device)?, device)
}

/// Where the compiler places each op, by the user's layers.
pub(super) fn located(placement: &Placement<'_>, layers: &[UserLayer], notes: &mut Notes) -> Verdicts {
    let classes: BTreeMap<&str, &str> = layers.iter().map(|l| (l.name.as_str(), l.class.as_str())).collect();
    let (mut devices, mut fallbacks) = (Devices::default(), BTreeMap::<String, Vec<Fallback>>::new());
    for (op, placed) in placement.graph().ops.iter().zip(placement.ops()) {
        let own = layers_of(&op.layer, &classes);
        let device = match placed {
            Placed::Dpu { .. } | Placed::Fused { .. } => DPU,
            Placed::Cpu(reason) => {
                if let Some(layer) = own.first() {
                    // A conversion is there because of a layer in floats, which has a note of its own.
                    if !converts(op) {
                        notes.tell_once(layer, note(classes.get(layer).unwrap_or(&""), op, reason));
                    }
                    fallbacks.entry((*layer).to_owned()).or_default().push(Fallback::of(placement.graph(), op, reason));
                }
                CPU
            }
            Placed::View => continue,
        };
        own.iter().for_each(|layer| devices.add(layer, device));
    }
    for (layer, own) in &fallbacks {
        notes.tell(layer, advice(own));
    }
    (devices, fallbacks)
}

/// Whether an op only brings numbers from one type to another.
fn converts(op: &IntOp) -> bool {
    matches!(op.kind, IntOpKind::Quantize | IntOpKind::Dequantize)
}

/// Runs of ops on the CPU.
pub(super) fn cuts(placement: &Placement<'_>) -> Vec<Cut> {
    let mut cuts: Vec<Cut> = Vec::new();
    let (mut open, mut dpu_before) = (false, false);
    for (op, placed) in placement.graph().ops.iter().zip(placement.ops()) {
        match placed {
            Placed::View => {}
            Placed::Dpu { .. } | Placed::Fused { .. } => {
                if let Some(cut) = cuts.last_mut().filter(|_| open) {
                    cut.between = dpu_before;
                }
                (open, dpu_before) = (false, true);
            }
            Placed::Cpu(_) => {
                if !open {
                    cuts.push(Cut { layers: Vec::new(), between: false, saves_us: 0.0 });
                }
                open = true;
                if let Some(cut) = cuts.last_mut() {
                    cut.saves_us += cpu_price(placement.graph(), op).total_us();
                    let name = called(placement.graph(), op);
                    if !converts(op) && !cut.layers.contains(&name) {
                        cut.layers.push(name);
                    }
                }
            }
        }
    }
    cuts
}

/// An op's layers; what belongs to no layer of the user's is called by its tensor.
fn called(graph: &IntGraph, op: &IntOp) -> String {
    match op.layer.as_str() {
        "" => graph.tensors.get(op.output.0).map_or_else(String::new, |t| t.name.clone()),
        layer => layer.to_owned(),
    }
}

impl Fallback {
    fn of(graph: &IntGraph, op: &IntOp, reason: &Reason) -> Self {
        let price = cpu_price(graph, op);
        let violation = match reason {
            Reason::Limit { violation } => Some(violation),
            _ => None,
        };
        Self {
            op: op.kind.name().to_owned(),
            code: reason.code().to_owned(),
            reason: reason.to_string(),
            rule: violation.map(|v| v.what.to_owned()),
            value: violation.map(|v| v.value),
            limit: violation.map(|v| [v.min, v.max]),
            remedy: reason.remedy().map(str::to_owned),
            price,
            cpu_us: price.total_us(),
        }
    }
}

/// What a layer takes on the CPU, and what helps.
fn advice(fallbacks: &[Fallback]) -> String {
    let sum = |part: fn(&CpuPrice) -> f64| fallbacks.iter().map(|f| part(&f.price)).sum::<f64>();
    let remedy = fallbacks.iter().find_map(|f| f.remedy.as_deref());
    let remedy = remedy.map_or_else(String::new, |remedy| format!("; {remedy}"));
    format!(
        "About {:.0} µs on the CPU (computing {:.0}, transfers {:.0}, the cut {:.0}){remedy}.",
        sum(CpuPrice::total_us),
        sum(|p| p.compute_us),
        sum(|p| p.transfer_us),
        sum(|p| p.handover_us),
    )
}
