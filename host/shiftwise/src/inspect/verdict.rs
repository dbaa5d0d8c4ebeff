//! What an inspection finds.

use serde::Serialize;
use serde_json::{Map, Value};
use shiftwise_compile::CpuPrice;
use shiftwise_quant::quant_graph::QuantGraph;

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
    pub(super) config: Map<String, Value>,
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

/// A rewrite that was done.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Done {
    /// Its name.
    pub rewrite: String,
    /// The user's layers that it was done to.
    pub layers: Vec<String>,
    /// Whether the network computes the same, up to rounding.
    pub exact: bool,
    /// Largest difference that it makes to an output, as a share of the output's largest value, measured on normal random
    /// inputs.
    pub error: f64,
}
