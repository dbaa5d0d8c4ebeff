//! Running a deployable: steps in order, DPU jobs through a device, other layers on the CPU.

use crate::cpu::{self, Kernels, Spec};
pub use crate::memory::{Memory, Rest};
use crate::model::{Deployable, DpuJob, Region, Step, TensorDesc, TensorId};

/// A device that executes DPU jobs: the soft machine, the timed simulator, or registers of real hardware.
pub trait Dpu {
    /// What can go wrong.
    type Error;
    /// The bytes of `deployable` are new in memory, and stay as they are until the next call.
    ///
    /// Whoever changes them, or runs several deployables in turn, says so by calling this; a device that keeps nothing
    /// about them needs nothing done, and without any call every device is right.
    fn load(&mut self, deployable: &Deployable<'_>) {
        let _ = deployable;
    }
    /// Runs `code` up to its END instruction. On success every tensor of `job.outputs` is in `memory`.
    fn run(&mut self, job: &DpuJob<'_>, code: &[u8], memory: &mut Memory<'_>) -> Result<(), Self::Error>;
}

/// The device of a board that has none: refuses every job.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDpu;

/// The deployable holds DPU code and this board has no device for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct NoDpuError;

impl core::fmt::Display for NoDpuError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the deployable holds DPU code and there is no DPU here")
    }
}

impl core::error::Error for NoDpuError {}

impl Dpu for NoDpu {
    type Error = NoDpuError;
    fn run(&mut self, _: &DpuJob<'_>, _: &[u8], _: &mut Memory<'_>) -> Result<(), NoDpuError> {
        Err(NoDpuError)
    }
}

/// Sees the run as it happens.
pub trait Observer {
    /// A step is about to run.
    fn step(&mut self, index: u16, step: &Step<'_>) {
        let _ = (index, step);
    }
    /// `bytes` of `tensor` are complete; memory may be reused later, so this is the time to look.
    fn tensor(&mut self, id: TensorId, tensor: &TensorDesc<'_>, bytes: &[u8]) {
        let _ = (id, tensor, bytes);
    }
}

/// Looks at nothing.
impl Observer for () {}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum RunError<E> {
    /// A region is smaller than the deployable needs.
    Region {
        /// Which.
        region: Region,
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        given: usize,
    },
    /// The device failed in this step.
    Dpu {
        /// Step index.
        step: u16,
        /// The device's error.
        error: E,
    },
    /// A CPU layer's tensors overlap in a way that its kernel can't work with.
    Layout {
        /// Step index.
        step: u16,
    },
}

impl<E: core::fmt::Display> core::fmt::Display for RunError<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Region { region, needed, given } => {
                write!(f, "region {region:?} needs {needed} bytes and has {given}")
            }
            Self::Dpu { step, error } => write!(f, "step {step}: {error}"),
            Self::Layout { step } => write!(f, "step {step}: its tensors overlap"),
        }
    }
}

impl<E: core::fmt::Debug + core::fmt::Display> core::error::Error for RunError<E> {}

/// [`run_with`] the kernels that define what a layer computes.
pub fn run<D: Dpu>(
    deployable: &Deployable<'_>,
    dpu: &mut D,
    memory: &mut Memory<'_>,
    observer: &mut impl Observer,
) -> Result<(), RunError<D::Error>> {
    run_with(deployable, dpu, &mut Spec, memory, observer)
}

/// Runs every step of `deployable` on `memory`, whose inputs are in place: DPU jobs on `dpu`, CPU layers by `kernels`.
///
/// `memory.constants` may be the deployable's own section. The observer sees inputs first, then each step's tensors.
pub fn run_with<D: Dpu>(
    deployable: &Deployable<'_>,
    dpu: &mut D,
    kernels: &mut impl Kernels,
    memory: &mut Memory<'_>,
    observer: &mut impl Observer,
) -> Result<(), RunError<D::Error>> {
    for (region, given) in [
        (Region::Constants, memory.constants.len()),
        (Region::Workspace, memory.workspace.len()),
        (Region::Inputs, memory.inputs.len()),
        (Region::Outputs, memory.outputs.len()),
    ] {
        let needed = deployable.region_bytes(region);
        if given < needed {
            return Err(RunError::Region { region, needed, given });
        }
    }
    for (id, _) in deployable.inputs() {
        show(deployable, id, memory, observer);
    }
    for (index, step) in (0u16..).zip(deployable.steps()) {
        step_with(deployable, (index, &step), dpu, kernels, memory, observer)?;
    }
    Ok(())
}

/// Runs one step of [`run_with`], for callers that do other work between the steps.
///
/// The memory is that of the steps before, unchanged, and as large as the deployable says.
pub fn step_with<D: Dpu>(
    deployable: &Deployable<'_>,
    (index, step): (u16, &Step<'_>),
    dpu: &mut D,
    kernels: &mut impl Kernels,
    memory: &mut Memory<'_>,
    observer: &mut impl Observer,
) -> Result<(), RunError<D::Error>> {
    observer.step(index, step);
    match step {
        Step::Dpu(job) => {
            dpu.run(job, deployable.job_code(job), memory).map_err(|error| RunError::Dpu { step: index, error })?;
            job.outputs.iter().for_each(|id| show(deployable, id, memory, observer));
        }
        Step::Cpu(op) => {
            cpu::execute(deployable, op, kernels, memory).ok_or(RunError::Layout { step: index })?;
            if op.completes() {
                show(deployable, op.output(), memory, observer);
            }
        }
    }
    Ok(())
}

fn show(deployable: &Deployable<'_>, id: TensorId, memory: &Memory<'_>, observer: &mut impl Observer) {
    if let Some(t) = deployable.tensor(id)
        && let Some(bytes) = memory.tensor(&t)
    {
        observer.tensor(id, &t, bytes);
    }
}
