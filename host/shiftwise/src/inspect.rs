//! Where each layer of a network would run, and why: the vendor's inspector, answered by our own compiler.
//!
//! Without a target a layer that is quantized counts as one of the DPU's, as the vendor's inspector has it. With a target
//! the compiler's [`Placement`] decides. No data is needed: positions are legal ones that mean nothing.

mod fix;
mod layout;
mod message;
mod notes;
mod plot;
mod python;
mod supported;
mod text;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};
use shiftwise_compile::{CpuPrice, DpuOptions, Placed, Placement, Reason, cpu_price};
use shiftwise_core::model::{Deployable, Step};
use shiftwise_formats::{Model, UserLayer};
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::Graph;
use shiftwise_graph::ops::Op;
use shiftwise_integer::graph::{IntGraph, IntOp};
use shiftwise_integer::lower;
use shiftwise_quant::pipeline::without_data_watched;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::strategy::Strategy;

use crate::device::Device;
pub use fix::{Done, Fixed, REWRITES, Rewrite, fix};
use notes::{Notes, Watcher};
pub use supported::page;

/// The device of a layer that the DPU does.
pub const DPU: &str = "DPU";
/// That of one that the CPU does.
pub const CPU: &str = "CPU";
/// That of an input of the network.
pub const INPUT: &str = "INPUT";

/// What an inspection finds.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Inspection {
    /// The network's name.
    pub model: String,
    /// The DPU; `None` for what holds of all.
    pub target: Option<String>,
    /// The user's layers, in the order of the file.
    pub layers: Vec<LayerVerdict>,
    /// What the network takes on the target.
    pub cost: Option<Cost>,
    /// Runs of layers on the CPU, each with its price.
    pub cuts: Vec<Cut>,
    /// Rewrites that would change where layers run, with what they would give.
    pub rewrites: Vec<Proposal>,
    /// The network as it would be quantized, with positions that mean nothing.
    #[serde(skip)]
    pub quantized: QuantGraph,
}

/// Where a layer runs.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LayerVerdict {
    /// The user's layer.
    pub layer: String,
    /// Its class.
    pub class: String,
    /// Its setting `activation`, if it has one.
    pub activation: Option<String>,
    /// `DPU`, `CPU`, `INPUT`, or several with `+`.
    pub device: String,
    /// Layers that it reads.
    pub inputs: Vec<String>,
    /// What is to be said, in sentences of the vendor's inspector.
    pub notes: Vec<String>,
    /// What of it the target leaves to the CPU.
    pub fallbacks: Vec<Fallback>,
    /// Its settings in the file.
    #[serde(skip)]
    config: Map<String, Value>,
}

/// An op that the target leaves to the CPU.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Fallback {
    /// Kind of op.
    pub op: String,
    /// Stable name of the kind of reason.
    pub code: String,
    /// Why, in a sentence.
    pub reason: String,
    /// The number that a limit is about.
    pub rule: Option<String>,
    /// The layer's number.
    pub value: Option<i64>,
    /// Smallest and largest number that the target takes.
    pub limit: Option<[i64; 2]>,
    /// What the user can change.
    pub remedy: Option<String>,
    /// What it takes on the CPU.
    pub price: CpuPrice,
    /// The same as one number.
    pub cpu_us: f64,
}

/// What a network takes on a target.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Cost {
    /// Pieces of the network on the DPU.
    pub subgraphs: usize,
    /// Microseconds of the DPU for a frame.
    pub dpu_us: f64,
    /// Microseconds of the CPU for a frame, estimated.
    pub cpu_us: f64,
    /// One after the other.
    pub total_us: f64,
}

/// Layers on the CPU in a run.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Cut {
    /// The layers.
    pub layers: Vec<String>,
    /// Whether the DPU works before and after it: without it there would be one piece less.
    pub between: bool,
    /// Microseconds that they take on the CPU, which the DPU would save, less its own time for them.
    pub saves_us: f64,
}

/// A rewrite and what it would give.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Proposal {
    /// Its name.
    pub rewrite: String,
    /// What it does.
    pub what: String,
    /// The layers that it is about.
    pub layers: Vec<String>,
    /// Whether the network computes the same afterwards, up to rounding.
    pub exact: bool,
    /// The network as it is.
    pub before: Cost,
    /// The network after it.
    pub after: Cost,
}

/// What `inspect` reports: what it found, and what was done about it.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Report {
    /// What was found.
    #[serde(flatten)]
    pub inspection: Inspection,
    /// Rewrites that were done, if any were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed: Option<Vec<Done>>,
}

/// The quantized form that is inspected, what was noted on the way, and its origin.
struct Subject {
    quantized: QuantGraph,
    notes: Notes,
}

impl Subject {
    fn of(model: &Model, strategy: &Strategy) -> Result<Self, Error> {
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
struct Devices(BTreeMap<String, Vec<&'static str>>);

impl Devices {
    fn add(&mut self, layer: &str, device: &'static str) {
        let own = self.0.entry(layer.to_owned()).or_default();
        if !own.contains(&device) {
            own.push(device);
        }
    }
}

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

/// The devices of layers that nobody compiles: those that are quantized are the DPU's.
fn wrapped(quantized: &QuantGraph, notes: &mut Notes) -> Devices {
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
                    notes.tell(layer, notes::unquantized(node));
                }
                CPU
            }
        };
        node.origin.iter().for_each(|layer| devices.add(layer, device));
    }
    devices
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
type Verdicts = (Devices, BTreeMap<String, Vec<Fallback>>);

/// Where the compiler places a network for timing.
fn placement<'p>(integers: &'p IntGraph, device: &'p Device) -> Result<Placement<'p>, Error> {
    let options = DpuOptions { observe: false, timing_only: true, ..DpuOptions::default() };
    shiftwise_compile::place(integers, &device.target, &options)
}

/// What a placed network takes.
fn cost(placement: &Placement<'_>, device: &Device) -> Result<Cost, Error> {
    let program = shiftwise_compile::compile(placement)?;
    let file = program.to_bytes(&[])?;
    let failed = |e: &dyn std::fmt::Display| Error::Compile(e.to_string());
    let model = Deployable::parse(&file).map_err(|e| failed(&e))?;
    let mut sim = device.simulator()?;
    shiftwise_sim::time(&model, &mut sim).map_err(|e| failed(&e))?;
    let subgraphs = model.steps().filter(|s| matches!(s, Step::Dpu(_))).count();
    let (dpu_us, cpu_us) = (sim.report(&model).latency_us, program.layers.iter().filter_map(|l| l.cpu_us).sum());
    Ok(Cost { subgraphs, dpu_us, cpu_us, total_us: dpu_us + cpu_us })
}

/// What a network takes that would be quantized so.
fn cost_of(quantized: &QuantGraph, device: &Device) -> Result<Cost, Error> {
    let integers = lower::lower(quantized)?;
    cost(&placement(&integers, device)?, device)
}

/// Where the compiler places each op, by the user's layers.
fn located(placement: &Placement<'_>, layers: &[UserLayer], notes: &mut Notes) -> Verdicts {
    let classes: BTreeMap<&str, &str> = layers.iter().map(|l| (l.name.as_str(), l.class.as_str())).collect();
    let (mut devices, mut fallbacks) = (Devices::default(), BTreeMap::<String, Vec<Fallback>>::new());
    for (op, placed) in placement.graph().ops.iter().zip(placement.ops()) {
        let own = layers_of(&op.layer, &classes);
        let device = match placed {
            Placed::Dpu { .. } | Placed::Fused { .. } => DPU,
            Placed::Cpu(reason) => {
                if let Some(layer) = own.first() {
                    notes.tell(layer, message::note(classes.get(layer).unwrap_or(&""), op, reason));
                    let fallback = Fallback::of(placement.graph(), op, reason);
                    notes.tell(layer, fallback.advice());
                    fallbacks.entry((*layer).to_owned()).or_default().push(fallback);
                }
                CPU
            }
            Placed::View => continue,
        };
        own.iter().for_each(|layer| devices.add(layer, device));
    }
    (devices, fallbacks)
}

/// Runs of ops on the CPU.
fn cuts(placement: &Placement<'_>) -> Vec<Cut> {
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
                    if !cut.layers.contains(&name) {
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

    /// The price, and what helps.
    fn advice(&self) -> String {
        let CpuPrice { handover_us, compute_us, transfer_us } = self.price;
        let remedy = self.remedy.as_ref().map_or_else(String::new, |remedy| format!("; {remedy}"));
        format!(
            "About {:.0} µs on the CPU (computing {compute_us:.0}, transfers {transfer_us:.0}, the cut \
             {handover_us:.0}){remedy}.",
            self.cpu_us
        )
    }
}
