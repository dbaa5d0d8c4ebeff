//! The code of a run of ops on the DPU.

use std::ops::Range;

use shiftwise_core::isa::codec::encode;
use shiftwise_core::isa::{End, Inst, Line};
use shiftwise_core::model::{CODE_ALIGN, TensorId};

use crate::dpu::codegen::Emitter;
use crate::dpu::context::{Context, Way};
use crate::dpu::fused_layer::join;
use crate::dpu::hazard;
use crate::dpu::layer::{Layer, Weights};
use crate::dpu::resident::Residence;
use crate::dpu::select::select;
use crate::dpu::tile::Unit;
use crate::dpu::{ALIGN, REACH};
use crate::memory::Sharing;
use crate::placed::{Fusion, Placed};
use crate::placement::Placement;
use crate::program::{Engine, LayerRow, Program, ProgramStep, Span};
use shiftwise_graph::error::Error;

/// Appends a job: its constants, instructions, step and rows.
///
/// Errors: [`Error::Compile`] naming the layer that has no encoding or that the placement doesn't fit.
pub(crate) fn write(
    placement: &Placement<'_>,
    cx: &Context<'_>,
    job: Range<usize>,
    sharing: &Sharing,
    program: &mut Program,
) -> Result<(), Error> {
    let lacking = || Error::Target(format!("{}: it lacks a bank group", cx.target.name));
    let emitter = Emitter::new(cx.target, cx.machine, placement.options.gather_weights).ok_or_else(lacking)?;
    let step = program.steps.len();
    let observe = placement.options.observe;
    let complete = cx.graph.ops[job.clone()].iter().map(|op| op.output).filter(|t| {
        let own_place = cx.joins.home(*t).is_none();
        own_place && (observe || sharing.outlives(*t, job.end))
    });
    let outputs = complete.map(|t| TensorId(t.0 as u16)).collect();
    let mut writer = Writer { placement, cx, program, emitter, step, owners: Vec::new() };
    for index in job {
        match &placement.ops[index] {
            Placed::Dpu { way, fused, .. } => writer.work(index, *way, fused.as_ref())?,
            Placed::Fused { .. } => {}
            Placed::Cpu(_) | Placed::View => {
                let row = LayerRow::new(cx.graph, &cx.graph.ops[index], Engine::View, Some(step));
                writer.program.layers.push(row);
            }
        }
    }
    writer.finish(outputs)
}

/// A job that is being written.
struct Writer<'a> {
    placement: &'a Placement<'a>,
    cx: &'a Context<'a>,
    program: &'a mut Program,
    emitter: Emitter,
    step: usize,
    /// Where the instructions of each layer end.
    owners: Vec<(usize, String)>,
}

impl Writer<'_> {
    /// An op, with those that are done on its tiles.
    fn work(&mut self, index: usize, way: usize, fused: Option<&Fusion>) -> Result<(), Error> {
        let cx = self.cx;
        let op = &cx.graph.ops[index];
        let ops = index..index + fused.map_or(1, |f| f.ops);
        let mut row = LayerRow::new(cx.graph, op, Engine::Misc, Some(self.step));
        let (ways, weights) = self.ways(ops.clone(), way, &mut row)?;
        row.engine = match ways[0].layers.first().map(|l| l.shape.unit) {
            Some(Unit::Conv) => Engine::Conv,
            Some(Unit::Depthwise | Unit::Pool | Unit::Elew) => Engine::Misc,
            None => Engine::View,
        };
        let broken = || Error::Compile(format!("layer `{}`: no place in the banks was planned for it", op.layer));
        let residence = self.placement.residences.get(&index).ok_or_else(broken)?;
        let mut layers = self.layers(index, ways, &weights, fused.is_some())?;
        if let [layer] = layers.as_mut_slice() {
            residence.apply(layer, &cx.graph.ops[ops.clone()]);
            let last = cx.graph.ops.get(ops.end - 1).unwrap_or(op);
            row.kept_bytes = residence.kept_bytes(cx, last.output);
        }
        if layers.len() != residence.tilings.len() {
            return Err(broken());
        }
        let first = self.emitter.program.len();
        self.instructions(&layers, residence, weights[0], &mut row);
        self.spans(ops, first, &mut row);
        self.program.layers.push(row);
        self.owners.push((self.emitter.program.len(), op.layer.clone()));
        Ok(())
    }

    /// The ways that were chosen for `ops`, the first of which is done in `way`, and where their constants lie.
    fn ways(&mut self, ops: Range<usize>, way: usize, row: &mut LayerRow) -> Result<(Vec<Way>, Vec<Weights>), Error> {
        let (mut chosen, mut weights) = (Vec::new(), Vec::new());
        for index in ops {
            let op = &self.cx.graph.ops[index];
            let mut ways = select(self.cx, op).map_err(|e| Error::Compile(format!("layer `{}`: {e}", op.layer)))?;
            let way = if let Placed::Fused { way } = self.placement.ops[index] { way } else { way };
            // Selecting again gives as many ways.
            let way = ways.swap_remove(way.min(ways.len() - 1));
            let (at, bytes) = constants(&way, &mut self.program.constants)?;
            row.constant_bytes += bytes;
            weights.push(at);
            chosen.push(way);
        }
        Ok((chosen, weights))
    }

    /// The layers of a way, or the one layer that all `ways` are together.
    fn layers(&self, index: usize, mut ways: Vec<Way>, weights: &[Weights], fused: bool) -> Result<Vec<Layer>, Error> {
        if !fused {
            return Ok(ways.swap_remove(0).layers);
        }
        let layer = join(self.cx, index, ways, weights, self.placement.options.observe);
        let name = &self.cx.graph.ops[index].layer;
        layer
            .map(|layer| vec![layer])
            .ok_or_else(|| Error::Compile(format!("layer `{name}`: its chain cannot be built again")))
    }

    fn instructions(&mut self, layers: &[Layer], residence: &Residence, weights: Weights, row: &mut LayerRow) {
        for (layer, tiling) in layers.iter().zip(&residence.tilings) {
            let amount = self.emitter.layer(layer, tiling, weights, residence.rooms);
            row.load_bytes += amount.load_bytes;
            row.save_bytes += amount.save_bytes;
            row.engine_macs += amount.engine_macs;
            row.tiles += amount.tiles;
        }
    }

    /// Notes whose the instructions from `first` on are. Fused ops share theirs.
    fn spans(&mut self, ops: Range<usize>, first: usize, row: &mut LayerRow) {
        row.instructions = (self.emitter.program.len() - first) as u32;
        for op in &self.cx.graph.ops[ops] {
            self.program.spans.push(Span {
                layer: op.layer.clone(),
                step: self.step as u16,
                first: first as u32,
                count: row.instructions,
                macs: op.macs(),
                output: TensorId(op.output.0 as u16),
            });
            row.extend(self.cx.graph, op);
        }
    }

    /// Orders the engines, encodes the instructions and appends the step.
    fn finish(mut self, outputs: Vec<TensorId>) -> Result<(), Error> {
        self.emitter.program.push(Inst::from(End {}));
        let program = self.program;
        program.code.resize(program.code.len().next_multiple_of(CODE_ALIGN), 0);
        let offset = program.code.len();
        let tokens = hazard::order(self.cx.target, &self.emitter.program);
        for (i, (inst, tokens)) in self.emitter.program.into_iter().zip(tokens).enumerate() {
            let words = encode(self.cx.target.isa, &Line { tokens, inst }).map_err(|e| {
                let layer = self.owners.iter().find(|(end, _)| i < *end).map_or("END", |(_, l)| l.as_str());
                Error::Compile(format!("layer `{layer}`: no encoding: {e}"))
            })?;
            program.code.extend(words.bytes());
        }
        let too_large = |_| Error::Compile("more than 4 GiB of code".into());
        program.steps.push(ProgramStep::Dpu {
            name: format!("{}_dpu{}", self.cx.graph.name, program.steps.len()),
            offset: u32::try_from(offset).map_err(too_large)?,
            bytes: u32::try_from(program.code.len() - offset).map_err(too_large)?,
            outputs,
        });
        Ok(())
    }
}

/// Appends a layer's kernel and bias.
fn constants(way: &Way, blob: &mut Vec<u8>) -> Result<(Weights, u64), Error> {
    let mut append = |values: &[i8]| {
        if values.is_empty() {
            return Ok(0);
        }
        blob.resize(blob.len().next_multiple_of(ALIGN as usize), 0);
        let at = u32::try_from(blob.len()).ok().filter(|a| u64::from(*a) + (values.len() as u64) < REACH);
        blob.extend(values.iter().map(|v| *v as u8));
        at.ok_or_else(|| Error::Compile(format!("more than {REACH} bytes of constants; addresses have 29 bits")))
    };
    let weights = Weights { kernel: append(&way.kernel)?, bias: append(&way.bias)? };
    Ok((weights, (way.kernel.len() + way.bias.len()) as u64))
}
