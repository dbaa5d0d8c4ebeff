//! Where one value of a result came from: the instructions that computed and stored it, and its accumulator.

use core::fmt;

use shiftwise_core::exec::{ExecError, Machine, Probed};
use shiftwise_core::isa::codec::program;
use shiftwise_core::isa::{Inst, Line, Save};
use shiftwise_core::model::{Deployable, DpuJob, LayerSpan, Region, Step, TensorDesc, TensorId};
use shiftwise_core::run::{self, Dpu, Memory};
use shiftwise_core::target::Target;

use crate::Error;

/// The history of one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The user's layer.
    pub layer: String,
    /// Step of the deployable.
    pub step: u16,
    /// The value.
    pub value: i8,
    /// The SAVE that stored it: index in its job, and the instruction.
    pub save: (u32, Line),
    /// The instruction that last wrote its bank byte before, if any.
    pub writer: Option<(u32, Line)>,
    /// The accumulator before activation and the right shift after it, if the byte was computed. The accumulators of
    /// CONV and of depthwise convolutions have one extra fraction bit; the shift includes it.
    pub accumulator: Option<(i64, i32)>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "layer {}, step {}: {}", self.layer, self.step, self.value)?;
        if let Some((accumulator, shift)) = self.accumulator {
            write!(f, " = accumulator {accumulator} shifted right by {shift}")?;
        }
        if let Some((index, line)) = &self.writer {
            write!(f, "\n  written by instruction {index}: {line}")?;
        }
        write!(f, "\n  stored by instruction {}: {}", self.save.0, self.save.1)
    }
}

/// Runs a frame in program order and explains element `index` of `tensor`.
///
/// `None` if no DPU job stores that element: it is an input, or computed by the CPU.
///
/// Errors: [`Error::Input`], [`Error::Target`], [`Error::Run`].
pub fn explain(
    model: &Deployable<'_>,
    target: &Target,
    input: &[u8],
    tensor: TensorId,
    index: u32,
) -> Result<Option<Explanation>, Error> {
    let wanted = model.region_bytes(Region::Inputs);
    if input.len() != wanted {
        return Err(Error::Input { given: input.len(), wanted });
    }
    let of_tensor = |step: &Step<'_>| matches!(step, Step::Dpu(job) if job.outputs.iter().any(|t| t == tensor));
    let steps = (0u16..).zip(model.steps());
    let (Some(desc), Some((step, Step::Dpu(job)))) =
        (model.tensor(tensor).filter(|t| index < t.bytes()), steps.into_iter().find(|(_, s)| of_tensor(s)))
    else {
        return Ok(None);
    };
    let mut banks = vec![0; target.bank_bytes()];
    let Some(machine) = Machine::new(target, &mut banks) else {
        return Err(Error::Target { name: target.name.as_str().into() });
    };
    // The instructions that may store it: those of its layer, or the whole job if no layer claims the tensor.
    let spans: Vec<_> = model.layers().filter(|l| l.step == step && l.output == tensor).collect();
    let origin = desc.origin;
    let mut probe = Probe { machine, job: job.offset, spans: spans.clone(), desc, index, found: None };
    let mut inputs = input.to_vec();
    let mut workspace = vec![0; model.region_bytes(Region::Workspace)];
    let mut outputs = vec![0; model.region_bytes(Region::Outputs)];
    let mut memory =
        Memory { constants: model.constants(), workspace: &mut workspace, inputs: &mut inputs, outputs: &mut outputs };
    run::run(model, &mut probe, &mut memory, &mut ()).map_err(|e| Error::Run(crate::in_simulation(e)))?;
    Ok(probe.found.map(|found| {
        let layer = spans.iter().find(|l| holds(l, found.1.0)).map_or(origin, |l| l.layer).to_string();
        explanation(found, layer, step)
    }))
}

fn holds(span: &LayerSpan<'_>, index: u32) -> bool {
    index.checked_sub(span.first).is_some_and(|i| i < span.count)
}

type Writer = (u32, Line, Probed);

/// A machine that watches one job.
struct Probe<'a> {
    machine: Machine<'a>,
    job: u32,
    spans: Vec<LayerSpan<'a>>,
    desc: TensorDesc<'a>,
    index: u32,
    found: Option<History>,
}

impl Dpu for Probe<'_> {
    type Error = ExecError;

    fn run(&mut self, job: &DpuJob<'_>, code: &[u8], memory: &mut Memory<'_>) -> Result<(), ExecError> {
        if job.offset != self.job {
            return self.machine.run(job, code, memory);
        }
        let at = self.desc.place.offset + self.index;
        let region = self.desc.place.region;
        let within = |i: u32| self.spans.is_empty() || self.spans.iter().any(|s| holds(s, i));
        // The job as a whole first: its faults are reported with their place, and memory ends as it should.
        let mut before = Snapshot::take(&self.machine, memory);
        self.machine.run(job, code, memory)?;
        self.found = history(self.machine.target(), code, &mut before, memory.constants, (region, at), within);
        Ok(())
    }
}

/// What stored a byte of memory last, and what wrote the byte of the banks that it copied.
type History = (i8, (u32, Line), Option<Writer>);

/// Runs code up to the last SAVE that covers a byte of memory, watching what that SAVE copies.
fn history(
    target: &Target,
    code: &[u8],
    before: &mut Snapshot,
    constants: &[u8],
    (region, at): (Region, u32),
    within: impl Fn(u32) -> bool,
) -> Option<History> {
    let mut machine = Machine::new(target, &mut before.banks)?;
    let lines: Vec<Line> = program(target.isa, code).map_while(|(_, line)| line.ok()).collect();
    let numbered: Vec<(u32, &Line)> = (0u32..).zip(&lines).collect();
    let stores = |i: u32, save: &Save| within(i) && save.reg_id == region as u32 && save.const_en == 0;
    let (index, line, byte) = numbered.iter().rev().find_map(|(i, line)| match &line.inst {
        Inst::Save(save) if stores(*i, save) => Some((*i, **line, machine.source_of(save, at)?)),
        _ => None,
    })?;
    let mut copy = Memory {
        constants,
        workspace: &mut before.workspace,
        inputs: &mut before.inputs,
        outputs: &mut before.outputs,
    };
    machine.probe(Some(byte));
    let mut writer = None;
    for (i, line) in numbered.into_iter().take(index as usize) {
        // It ran once without a fault.
        let _ = machine.execute(&line.inst, &mut copy);
        writer = machine.probed().map(|probed| (i, *line, probed)).or(writer);
    }
    let value = machine.banks().get(byte).map_or(0, |v| *v as i8);
    Some((value, (index, line), writer))
}

/// Explains a byte that code of no deployable stores: the last SAVE among the instructions `within` that covers byte `at`
/// of a region. `memory` is as it was before the code ran, and stays so; banks start as zeros.
///
/// `None` if no SAVE stores it.
pub fn explain_code(
    target: &Target,
    code: &[u8],
    memory: &Memory<'_>,
    (region, at): (Region, u32),
    (layer, step): (&str, u16),
    within: std::ops::Range<u32>,
) -> Option<Explanation> {
    let mut before = Snapshot {
        banks: vec![0; target.bank_bytes()],
        workspace: memory.workspace.to_vec(),
        inputs: memory.inputs.to_vec(),
        outputs: memory.outputs.to_vec(),
    };
    let found = history(target, code, &mut before, memory.constants, (region, at), |i| within.contains(&i))?;
    Some(explanation(found, layer.into(), step))
}

fn explanation((value, save, writer): History, layer: String, step: u16) -> Explanation {
    let accumulator = writer.as_ref().and_then(|(_, _, probed)| match probed {
        Probed::Computed { accumulator, shift } => Some((*accumulator, *shift)),
        Probed::Loaded => None,
    });
    Explanation { layer, step, value, save, writer: writer.map(|(i, line, _)| (i, line)), accumulator }
}

/// Everything a job starts from.
struct Snapshot {
    banks: Vec<u8>,
    workspace: Vec<u8>,
    inputs: Vec<u8>,
    outputs: Vec<u8>,
}

impl Snapshot {
    fn take(machine: &Machine<'_>, memory: &Memory<'_>) -> Self {
        Self {
            banks: machine.banks().to_vec(),
            workspace: memory.workspace.to_vec(),
            inputs: memory.inputs.to_vec(),
            outputs: memory.outputs.to_vec(),
        }
    }
}
