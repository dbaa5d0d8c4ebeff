//! From the integer form to a program, and the report of what it takes.

use std::path::PathBuf;

use serde::Serialize;
use shiftwise_compile::footprint::{self, Footprint, LayerMemory};
use shiftwise_compile::{self as compile, CpuOptions, DpuOptions, LayerRow, Program};
use shiftwise_core::model::Deployable;
use shiftwise_graph::error::Error;
use shiftwise_integer::graph::IntGraph;
use shiftwise_integer::unquantized;
use shiftwise_integer::unquantized::LeftFloat;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_sim::CycleReport;
use shiftwise_targets::Board;

use crate::averages;
use crate::device::Device;
use crate::memory::Memory;
use crate::speed::Speed;

/// Compiles for a DPU, or for the CPU alone.
///
/// `strict`: layers that the DPU can't run are an error. `observe`: every tensor can be compared after a run; otherwise
/// the program is faster.
///
/// Errors: [`Error::Compile`].
pub fn program(graph: &IntGraph, device: Option<&Device>, strict: bool, observe: bool) -> Result<Program, Error> {
    match device {
        Some(d) => compile::dpu(graph, &d.target, &DpuOptions { strict, observe, ..DpuOptions::default() }),
        None => compile::cpu(graph, &CpuOptions::default()),
    }
}

/// Refuses networks with layers on grids that neither a DPU nor a kernel of the CPU has, naming each with the reason and
/// what to change.
///
/// Errors: [`Error::Compile`].
pub fn check_grids(quantized: &QuantGraph) -> Result<(), Error> {
    let grids = unquantized::grids(quantized);
    let line = |left: &LeftFloat| {
        let remedy = left.remedy.map_or(String::new(), |remedy| format!("; {remedy}"));
        format!("{}: {}{remedy}", left.layers.join(", "), left.reason)
    };
    let lines: Vec<String> = grids.iter().map(line).collect();
    if lines.is_empty() { Ok(()) } else { Err(Error::Compile(lines.join(". "))) }
}

/// What `compile` reports.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Compiled {
    /// The deployable's file.
    pub output: PathBuf,
    /// What it was compiled for.
    pub target: String,
    /// Layers in the order in which they run.
    pub layers: Vec<LayerRow>,
    /// Cycles of one frame on a DPU.
    pub cycles: Option<CycleReport>,
    /// Frames per second on a DPU.
    pub speed: Option<Speed>,
    /// The memory map.
    pub memory: Memory,
    /// On the CPU alone: which memory is in use when.
    pub footprint: Option<CpuMemory>,
    /// Averages that the DPU computes otherwise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub averages: Vec<averages::Row>,
}

/// What is known of a program on the CPU, row by row of its layers, and of its board.
#[derive(Clone, Debug)]
pub struct OnCpu {
    /// Memory in use while each layer runs.
    pub memory: Vec<LayerMemory>,
    /// Instructions of each layer on the board's processor; empty without a board.
    pub instructions: Vec<Option<u64>>,
    /// What it takes of the board; `None` without a board or without firmware for it.
    pub footprint: Option<Footprint>,
}

impl OnCpu {
    /// Of a program for the CPU.
    pub fn of(program: &Program, model: &Deployable<'_>, board: Option<&Board>) -> Self {
        Self {
            memory: footprint::layers(program),
            instructions: board.map_or_else(Vec::new, |b| footprint::instructions(program, model, b.counted_on())),
            footprint: board.and_then(|b| Footprint::of(program, model, b)),
        }
    }

    /// Instructions of all layers that were measured; `None` if none was.
    pub fn instructions(&self) -> Option<u64> {
        let mut known = self.instructions.iter().flatten().peekable();
        known.peek().is_some().then(|| known.sum())
    }

    /// The layer that decides the size of the workspace.
    pub fn peak(&self) -> Option<&LayerMemory> {
        self.memory.iter().rev().max_by_key(|m| m.bytes)
    }

    /// For reports.
    pub fn report(&self, program: &Program) -> CpuMemory {
        let layer = |index: usize| program.layers.get(index).map(|l| l.layer.clone());
        let buffers = program.buffers.iter().map(|b| Buffer {
            tensors: b.tensors.clone(),
            region: format!("{:?}", b.place.region),
            offset: b.place.offset,
            bytes: b.bytes,
            first_layer: b.ops.and_then(|(first, _)| layer(first)),
            last_layer: b.ops.and_then(|(_, last)| layer(last)),
        });
        CpuMemory {
            buffers: buffers.collect(),
            layers: self.memory.clone(),
            instructions: self.instructions.clone(),
            peak_layer: self.peak().map(|m| m.layer.clone()),
            board: self.footprint.clone(),
            fits: self.footprint.as_ref().map(Footprint::fits),
        }
    }
}

/// The memory of a program on the CPU: what lives when, and whether a board has enough.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CpuMemory {
    /// Pieces of memory.
    pub buffers: Vec<Buffer>,
    /// Memory in use, layer by layer.
    pub layers: Vec<LayerMemory>,
    /// Instructions, layer by layer, where they were measured; empty without a board.
    pub instructions: Vec<Option<u64>>,
    /// The layer that decides the size of the workspace.
    pub peak_layer: Option<String>,
    /// What it takes of the board.
    pub board: Option<Footprint>,
    /// Whether the board has enough.
    pub fits: Option<bool>,
}

/// A piece of memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Buffer {
    /// Tensors that lie there.
    pub tensors: Vec<String>,
    /// The region it is in.
    pub region: String,
    /// Byte offset in the region.
    pub offset: u32,
    /// Its size.
    pub bytes: u64,
    /// The layer that writes it first.
    pub first_layer: Option<String>,
    /// The last layer that needs it.
    pub last_layer: Option<String>,
}
