//! What commands answer as JSON: THE table of reports, and those reports that belong to no function of their own.
//!
//! The JSON of a command is its report, serialized. With the feature `schema` the table gives a JSON Schema for each
//! command; they are kept under `docs/schema` and checked by the tests.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;
use shiftwise_compile::Placement;
use shiftwise_integer::graph::IntOp;
use shiftwise_integer::unquantized;
use shiftwise_quant::finetune::Finetuned;
use shiftwise_quant::passes::dead::DeadChannels;
use shiftwise_quant::strategy::Change;

use crate::analyze::{Analysis, LayerAnalysis, OutputNoise};
use crate::averages;
use crate::tune::Tuned;

/// What `quantize` reports.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Quantization {
    /// The quantized model's file.
    pub quantized: PathBuf,
    /// The same as in `quantize_info.json`: an object for every quantized tensor.
    pub quantize_info: Value,
    /// What the user should know, in sentences.
    pub warnings: Vec<String>,
    /// Layers that stay float.
    pub left_float: Vec<LeftFloat>,
    /// How much of the outputs is noise, and which layers make most of it; without calibration data, nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Accuracy>,
    /// Averages that the DPU computes otherwise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub averages: Vec<averages::Row>,
    /// Channels that were folded because no data gets through them, by layer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dead_channels: Vec<DeadChannels>,
    /// What finetuning did, by layer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub finetuned: Vec<Finetuned>,
    /// The DPU or board whose limits were asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Layers that it leaves to the CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_cpu: Option<Vec<Fallback>>,
}

/// The short form of an analysis.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Accuracy {
    /// Samples that it is of.
    pub samples: usize,
    /// At each output.
    pub outputs: Vec<OutputNoise>,
    /// The layers that lose most by themselves, the worst first.
    pub worst: Vec<LayerAnalysis>,
}

impl Accuracy {
    /// Layers that are told.
    const WORST: usize = 3;

    /// Of an analysis.
    pub fn of(analysis: &Analysis) -> Self {
        let worst = analysis.worst(Self::WORST).into_iter().cloned().collect();
        Self { samples: analysis.samples, outputs: analysis.outputs.clone(), worst }
    }
}

/// What `tune` reports.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Tuning {
    /// The search.
    #[serde(flatten)]
    pub tuned: Tuned,
    /// The chosen strategy's file.
    pub strategy: PathBuf,
    /// The model that is quantized with it.
    pub quantized: PathBuf,
}

/// What a command reports of one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Sharded {
    /// The file for `merge`.
    pub part: PathBuf,
    /// K, from 1 on.
    pub shard: usize,
    /// N.
    pub of: usize,
    /// Samples of this shard.
    pub samples: usize,
}

/// Layers that stay float for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LeftFloat {
    /// The user's layers, in the network's order.
    pub layers: Vec<String>,
    /// Why, in a sentence.
    pub reason: String,
    /// What to do about it, if the model is to blame.
    pub remedy: Option<&'static str>,
}

impl LeftFloat {
    /// For reports.
    pub fn of(left: &unquantized::LeftFloat) -> Self {
        Self { layers: left.layers.clone(), reason: left.reason.to_string(), remedy: left.remedy }
    }
}

/// A layer that a DPU leaves to the CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Fallback {
    /// The user's layer.
    pub layer: String,
    /// Why, in a sentence.
    pub reason: String,
}

impl Fallback {
    /// Those of a placement, in the network's order. What belongs to no layer of the user's is called by its tensor.
    pub fn all(placement: &Placement<'_>) -> Vec<Self> {
        let tensors = &placement.graph().tensors;
        let name = |op: &IntOp| match op.layer.as_str() {
            "" => tensors.get(op.output.0).map_or_else(String::new, |t| t.name.clone()),
            layer => layer.to_owned(),
        };
        placement.fallbacks().map(|(op, why)| Self { layer: name(op), reason: why.to_string() }).collect()
    }
}

/// What `compile --strict` reports of a network that the target can't run as a whole; nothing is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NotPlaced {
    /// The target.
    pub target: String,
    /// Layers that it leaves to the CPU.
    pub on_cpu: Vec<Fallback>,
}

/// What `strategy check` reports.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StrategyChanges {
    /// The strategy that is changed.
    pub strategy: String,
    /// What is changed.
    pub changes: Vec<Change>,
}

/// What `completions` reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Completions {
    /// The shell.
    pub shell: String,
    /// The text that it reads.
    pub script: String,
}

/// What `man` reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ManPages {
    /// The folder.
    pub output_dir: PathBuf,
    /// The files in it, one for each command.
    pub pages: Vec<String>,
}

/// What every command reports instead, where it fails (exit code 2).
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Failure {
    /// The error.
    pub error: FailureText,
}

/// An error for programs and people.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FailureText {
    /// The stable code.
    pub code: String,
    /// A sentence.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

/// Declares what the commands report: a row for each, with one type, or several where the command's input decides.
#[cfg(feature = "schema")]
macro_rules! reports {
    ($($command:literal: $($report:ty)|+;)*) => {
        /// The commands of the table.
        pub const COMMANDS: &[&str] = &[$($command),*];

        /// The JSON Schema (draft 2020-12) of what a command reports; `None` for one that is not in the table.
        pub fn schema(command: &str) -> Option<Value> {
            match command {
                $($command => {
                    let mut generator = schemars::generate::SchemaSettings::draft2020_12().for_serialize().into_generator();
                    let kinds = vec![$(generator.subschema_for::<$report>().to_value()),+];
                    Some(document(command, kinds, generator.take_definitions(true)))
                })*
                _ => None,
            }
        }
    };
}

/// A command's schema from those of its kinds of reports.
#[cfg(feature = "schema")]
fn document(command: &str, mut kinds: Vec<Value>, definitions: serde_json::Map<String, Value>) -> Value {
    let mut all = serde_json::Map::new();
    all.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    all.insert("title".into(), format!("shiftwise {command} --json").into());
    match (kinds.pop(), kinds.is_empty()) {
        (Some(Value::Object(only)), true) => all.extend(only),
        (last, _) => drop(all.insert("anyOf".into(), kinds.into_iter().chain(last).collect())),
    }
    if !definitions.is_empty() {
        all.insert("$defs".into(), definitions.into());
    }
    Value::Object(all)
}

#[cfg(feature = "schema")]
reports! {
    "quantize": Quantization | Sharded;
    "evaluate": crate::evaluate::Evaluation | crate::evaluate::Errors | Sharded;
    "merge": crate::evaluate::Evaluation | Quantization | crate::dump::Dumped | Tuning | crate::verify::Proof;
    "train": crate::training::Training;
    "deploy": crate::deployment::Deployment;
    "dump": crate::dump::Dumped | Sharded;
    "compare": crate::dump::Comparison;
    "convert": crate::convert::Converted;
    "export": crate::export::Exported;
    "predict": crate::predict::Predictions;
    "compile": crate::build::Compiled | NotPlaced;
    "analyze": Analysis;
    "tune": Tuning | Sharded;
    "report": crate::report::Report;
    "diff": crate::diff::Difference;
    "inspect": crate::inspect::Report;
    "estimate": crate::estimate::Estimate | crate::estimate::CpuEstimate;
    "simulate": crate::simulate::Simulation | crate::vendor_simulation::ProgramSimulation;
    "verify": crate::verify::Proof | Sharded;
    "run": crate::board_run::BoardRun | crate::board_run::SelfTestRun;
    "targets": crate::targets::TargetList | crate::targets::OneTarget;
    "strategy": StrategyChanges | serde_json::Map<String, Value>;
    "disasm": crate::listing::Listing | crate::listing::RoundTrip;
    "asm": crate::listing::Assembled;
    "info": crate::info::Info;
    "completions": Completions;
    "man": ManPages;
    "error": Failure;
}
