//! What a program for target `cpu` takes of a board: flash, RAM, and which layers need the most.

use std::collections::BTreeSet;

use serde::Serialize;
use shiftwise_core::cpu::scratch_bytes;
use shiftwise_core::model::{CpuOp, Deployable, Region, Step};
use shiftwise_targets::Board;

use crate::price::instructions as formulas;
use crate::program;
use crate::program::{Buffer, Program};

/// Alignment of the regions inside a board's arena.
const REGION_ALIGN: u64 = 16;

/// Memory in use while a layer runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LayerMemory {
    /// The user's layer.
    pub layer: String,
    /// Bytes of the workspace that hold something that is needed; where an output is written over its input, each byte
    /// counts once.
    pub bytes: u64,
    /// The buffers in use, as indices of [`Program::buffers`], by address.
    pub buffers: Vec<usize>,
}

/// The workspace, layer by layer.
pub fn layers(program: &Program) -> Vec<LayerMemory> {
    let row = |(index, row): (usize, &program::LayerRow)| {
        let needed = |b: &Buffer| b.ops.is_some_and(|(first, last)| (first..=last).contains(&index));
        let inside = |b: &Buffer| b.place.region == Region::Workspace && needed(b);
        let mut buffers: Vec<usize> = (0..program.buffers.len()).filter(|i| inside(&program.buffers[*i])).collect();
        buffers.sort_by_key(|i| program.buffers[*i].place.offset);
        let (mut bytes, mut end) = (0, 0);
        for b in buffers.iter().map(|i| &program.buffers[*i]) {
            let start = u64::from(b.place.offset);
            bytes += (start + b.bytes).saturating_sub(start.max(end));
            end = end.max(start + b.bytes);
        }
        LayerMemory { layer: row.layer.clone(), bytes, buffers }
    };
    program.layers.iter().enumerate().map(row).collect()
}

/// Instructions of each layer on a processor, estimated; `None` where nothing was measured for one of its steps.
pub fn instructions(program: &Program, deployable: &Deployable<'_>, cpu: &str) -> Vec<Option<u64>> {
    let steps: Vec<Option<u64>> = deployable
        .steps()
        .map(|step| match step {
            Step::Cpu(op) => formulas::instructions(deployable, &op, cpu),
            Step::Dpu(_) => None,
        })
        .collect();
    let starts = program.layers.iter().map(|l| l.step);
    let ends = starts.clone().skip(1).chain([None]).map(|next| next.unwrap_or(steps.len()));
    starts.zip(ends).map(|(start, end)| steps.get(start?..end)?.iter().copied().sum()).collect()
}

/// One kind of memory: what is needed of it, and what the board has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Need {
    /// What it is for.
    pub name: &'static str,
    /// Bytes needed.
    pub needed: u64,
    /// Bytes there.
    pub given: u64,
}

/// Bytes of workspace, inputs and outputs side by side.
fn arena(program: &Program) -> u64 {
    let m = &program.memory;
    let regions = [m.workspace_bytes, m.input_bytes, m.output_bytes].map(u64::from);
    regions.map(|n| n.next_multiple_of(REGION_ALIGN)).iter().sum()
}

/// Features of the runtime that build in layers of a program.
fn features(deployable: &Deployable<'_>) -> Vec<&'static str> {
    let of = |step| match step {
        Step::Cpu(op) => CpuOp::feature(&op),
        Step::Dpu(_) => None,
    };
    deployable.steps().filter_map(of).collect::<BTreeSet<_>>().into_iter().collect()
}

/// What a program takes of a board with firmware, or of one whose processor is described.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Footprint {
    /// Bytes of flash: the image's code and constants, if they were measured, and the deployable.
    pub flash: u64,
    /// Bytes of RAM: workspace, inputs, outputs, what the kernels gather in, the image's data and the deepest stack, if
    /// they were measured.
    pub ram: u64,
    /// Each kind of memory.
    pub needs: Vec<Need>,
    /// Features of the runtime that build in layers of this program; the others can be left out of a project's own image.
    pub features: Vec<&'static str>,
}

impl Footprint {
    /// Of a program and its deployable; `None` for a board that has no firmware and whose processor nobody has described.
    pub fn of(program: &Program, deployable: &Deployable<'_>, board: &Board) -> Option<Self> {
        let Some(firmware) = board.firmware.as_ref() else { return Self::of_own(program, deployable, board) };
        let (file, scratch) = (deployable.file_bytes() as u64, scratch_bytes(deployable) as u64);
        let arena = arena(program);
        let size = |name| board.memory(name).map_or(0, |m| m.bytes);
        let need = |name, needed, given| Need { name, needed, given };
        let mut needs = vec![
            need("deployable", file, firmware.store.bytes),
            need("workspace, inputs, outputs", arena, firmware.arena.bytes),
            // Kernels do with less, and slower.
            need("what kernels gather in", scratch, firmware.arena.bytes.saturating_sub(arena)),
        ];
        let (mut flash, mut ram) = (file, arena + scratch);
        if let Some(image) = firmware.image {
            needs.push(need("code and constants of the runtime", image.code, size("FLASH")));
            needs.push(need("data of the runtime", image.data, size("RAM").saturating_sub(firmware.stack)));
            needs.push(need("stack, measured", image.stack, firmware.stack));
            flash += image.code;
            ram += image.data + image.stack;
        }
        Some(Self { flash, ram, needs, features: features(deployable) })
    }

    /// In a program of the user's own on a board that there is no firmware for.
    fn of_own(program: &Program, deployable: &Deployable<'_>, board: &Board) -> Option<Self> {
        let processor = board.processor.as_ref()?;
        let (file, scratch) = (deployable.file_bytes() as u64, scratch_bytes(deployable) as u64);
        let size = |name| board.memory(name).map_or(0, |m| m.bytes);
        let (flash, ram) = (file + processor.runtime_code, arena(program) + scratch + processor.runtime_stack);
        let need = |name, needed, given| Need { name, needed, given };
        let needs = vec![
            need("deployable, and code and constants of the runtime", flash, size("FLASH")),
            need("workspace, inputs, outputs, what kernels gather in, stack", ram, size("RAM")),
        ];
        Some(Self { flash, ram, needs, features: features(deployable) })
    }

    /// Whether the board has enough of everything.
    pub fn fits(&self) -> bool {
        self.needs.iter().all(|n| n.needed <= n.given)
    }
}
