//! What running compiled files takes, before they are run: a few bytes may claim steps that take for ever.
//!
//! One unit is a multiplication as the defining kernels do it, about a nanosecond.

use shiftwise_core::exec::{Machine, Work};
use shiftwise_core::isa::{Inst, codec};
use shiftwise_core::model::{CpuOp, Deployable, FloatOp, Region, ScaledOp, Step, TensorId};
use shiftwise_core::shape::Window;
use shiftwise_core::target::Target;
use shiftwise_graph::budget::Budget;
use shiftwise_graph::error::Error;

/// Units that one sample of any file may take: some seconds.
const FLOOR: u64 = 1 << 32;

/// More of them for each byte of the file: a weight is read at some thousand places.
const PER_BYTE: u64 = 1 << 14;

/// Multiply-accumulates of a DPU in one unit: the host computes them as vectors.
const MACS_PER_UNIT: u64 = 16;

/// Bytes that LOAD and SAVE move in one unit.
const BYTES_PER_UNIT: u64 = 4;

/// Units of an instruction beside what it computes.
const INSTRUCTION: u64 = 100;

/// Refuses more units than a file of `bytes` may take.
pub fn check(units: u64, bytes: usize) -> Result<(), Error> {
    let most = FLOOR.saturating_add((bytes as u64).saturating_mul(PER_BYTE));
    if units <= most {
        return Ok(());
    }
    Err(Error::Run(format!(
        "one sample takes about {units} multiplications, at most {most} are run for a file of {bytes} bytes"
    )))
}

/// Refuses a deployable whose memory or time is out of proportion to its size.
pub fn deployable(model: &Deployable<'_>, target: Option<&Target>) -> Result<(), Error> {
    let budget = Budget::for_file(model.file_bytes());
    let regions = [Region::Workspace, Region::Inputs, Region::Outputs].map(|r| model.region_bytes(r) as u64);
    budget.bytes(regions.iter().sum()).map_err(|e| Error::Run(format!("one sample: {e}")))?;
    let units = model.steps().map(|step| match step {
        Step::Cpu(op) => cpu(model, &op),
        Step::Dpu(job) => target.map_or(0, |target| code(target, model.job_code(&job))),
    });
    check(units.fold(0, u64::saturating_add), model.file_bytes())
}

/// Units of a code stream. What can't be decoded or executed costs nothing: the run says so.
pub fn code(target: &Target, code: &[u8]) -> u64 {
    let lines = codec::program(target.isa, code).map_while(|(_, line)| line.ok());
    instructions(target, lines.map(|line| line.inst))
}

/// Units of instructions in program order.
pub fn instructions(target: &Target, all: impl Iterator<Item = Inst>) -> u64 {
    let mut banks = vec![0; target.bank_bytes()];
    let Some(mut machine) = Machine::new(target, &mut banks) else { return 0 };
    let units = |work: Work| {
        let moved = (work.bytes_in.saturating_add(work.bytes_out)) / BYTES_PER_UNIT;
        INSTRUCTION.saturating_add(work.macs / MACS_PER_UNIT).saturating_add(moved)
    };
    all.map_while(|inst| machine.cost(&inst).ok()).map(units).fold(0, u64::saturating_add)
}

fn product(factors: impl IntoIterator<Item = u64>) -> u64 {
    factors.into_iter().fold(1, u64::saturating_mul)
}

/// Taps that can meet the input.
fn taps(window: &Window, input: &[u16]) -> u64 {
    product(window.kernel.iter().zip(input).map(|(k, n)| u64::from(*k.min(n))))
}

/// Units of a layer on the CPU, from above.
fn cpu(model: &Deployable<'_>, op: &CpuOp<'_>) -> u64 {
    let bytes = |id: TensorId| model.tensor(id).map_or(0, |t| u64::from(t.bytes()));
    let dims = |dims: &[u16]| product(dims.iter().map(|d| u64::from(*d)));
    let out = bytes(op.output());
    let conv = |out: &[u16], input: &[u16], window: &Window, groups: u16| {
        let share = input.get(2).map_or(1, |c| u64::from(*c / groups.max(1))).max(1);
        product([dims(out), taps(window, input), share])
    };
    let transposed = |out: u16, input: &[u16], window: &Window| {
        product([dims(input), product(window.kernel.map(u64::from)), out.into()])
    };
    let own = match op {
        CpuOp::Conv(c) => conv(&c.out_dims, &c.in_dims, &c.window, c.groups),
        CpuOp::Depthwise(c) => product([dims(&c.out_dims), taps(&c.window, &c.in_dims)]),
        CpuOp::ConvTranspose(c) => transposed(c.out_dims[2], &c.in_dims, &c.window),
        CpuOp::Pool(p) => product([dims(&p.out_dims), p.in_dims[2].into(), taps(&p.window, &p.in_dims)]),
        CpuOp::Add(a) => product([out, a.inputs.iter().len() as u64]),
        CpuOp::View { .. } => return 0,
        CpuOp::Float { op, .. } => match op {
            FloatOp::Conv(c) if c.transposed => transposed(c.out_dims[2], &c.in_dims, &c.window),
            FloatOp::Conv(c) => conv(&c.out_dims, &c.in_dims, &c.window, c.groups),
            FloatOp::Pool(p) => product([dims(&p.out_dims), p.in_dims[2].into(), taps(&p.window, &p.in_dims)]),
            FloatOp::Copy(c) => product(c.sizes.map(u64::from)),
            FloatOp::Rows(r) => product(r.sizes.map(u64::from)),
            FloatOp::Product(p) => product(p.sizes.map(u64::from)),
            FloatOp::Reduce { input, .. } => bytes(*input),
            FloatOp::Map { .. } | FloatOp::Zip { .. } | FloatOp::Resize(_) => 0,
        },
        CpuOp::Scaled(op) => match op {
            ScaledOp::Conv(c) if c.transposed => {
                product([dims(&c.out_dims), product(c.window.kernel.map(u64::from)), c.in_dims[2].into()])
            }
            ScaledOp::Conv(c) => conv(&c.out_dims, &c.in_dims, &c.window, c.groups),
            ScaledOp::Pool(p) => product([dims(&p.out_dims), p.in_dims[2].into(), taps(&p.window, &p.in_dims)]),
            ScaledOp::Sum(s) => product([out, s.inputs.iter().len() as u64]),
            ScaledOp::Copy(c) => product(c.sizes.map(u64::from)),
            ScaledOp::Product(_) | ScaledOp::Concat(_) => 0,
        },
        _ => 0,
    };
    own.saturating_add(out)
}
