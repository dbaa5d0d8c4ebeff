//! Running a deployable: steps in order, DPU jobs through a device, other layers on the CPU.

use crate::cpu::{self, Kernels, Spec};
use crate::model::{Deployable, DpuJob, Region, Step, TensorDesc, TensorId};

/// The four regions, as the caller's slices.
#[derive(Debug)]
pub struct Memory<'a> {
    /// Weights and biases.
    pub constants: &'a [u8],
    /// Intermediate tensors.
    pub workspace: &'a mut [u8],
    /// Network inputs.
    pub inputs: &'a mut [u8],
    /// Network outputs.
    pub outputs: &'a mut [u8],
}

impl Memory<'_> {
    /// `len` bytes of `region` from `offset`; `None` outside it.
    pub fn read(&self, region: Region, offset: usize, len: usize) -> Option<&[u8]> {
        let bytes = match region {
            Region::Constants => self.constants,
            Region::Workspace => self.workspace,
            Region::Inputs => self.inputs,
            Region::Outputs => self.outputs,
        };
        bytes.get(offset..offset.checked_add(len)?)
    }

    /// `len` writable bytes of `region` from `offset`; `None` outside it or for the constants.
    pub fn write(&mut self, region: Region, offset: usize, len: usize) -> Option<&mut [u8]> {
        let bytes = match region {
            Region::Constants => return None,
            Region::Workspace => &mut *self.workspace,
            Region::Inputs => &mut *self.inputs,
            Region::Outputs => &mut *self.outputs,
        };
        bytes.get_mut(offset..offset.checked_add(len)?)
    }

    /// All of a region; `None` for the constants.
    pub(crate) fn region_mut(&mut self, region: Region) -> Option<&mut [u8]> {
        match region {
            Region::Constants => None,
            Region::Workspace => Some(self.workspace),
            Region::Inputs => Some(self.inputs),
            Region::Outputs => Some(self.outputs),
        }
    }

    /// The bytes of a tensor.
    pub fn tensor(&self, t: &TensorDesc<'_>) -> Option<&[u8]> {
        self.read(t.place.region, t.place.offset as usize, t.bytes() as usize)
    }

    /// The writable bytes of a tensor.
    pub fn tensor_mut(&mut self, t: &TensorDesc<'_>) -> Option<&mut [u8]> {
        self.write(t.place.region, t.place.offset as usize, t.bytes() as usize)
    }

    /// The writable bytes of `output`, and all other memory to read meanwhile; `None` if the tensor lies outside.
    pub fn split(&mut self, output: &TensorDesc<'_>) -> Option<(&mut [u8], Rest<'_>)> {
        let Memory { constants, workspace, inputs, outputs } = self;
        let (region, start) = (output.place.region, output.place.offset as usize);
        let (whole, mut parts): (&mut [u8], [&[u8]; 4]) = match region {
            Region::Constants => return None,
            Region::Workspace => (workspace, [constants, &[], inputs, outputs]),
            Region::Inputs => (inputs, [constants, workspace, &[], outputs]),
            Region::Outputs => (outputs, [constants, workspace, inputs, &[]]),
        };
        let (before, rest) = whole.split_at_mut_checked(start)?;
        let (bytes, after) = rest.split_at_mut_checked(output.bytes() as usize)?;
        *parts.get_mut(region as usize)? = before;
        Some((bytes, Rest { parts, region, start: start + output.bytes() as usize, after }))
    }

    /// An input tensor to read and an output tensor to write at once; `None` if they overlap or lie outside.
    pub fn pair(&mut self, input: &TensorDesc<'_>, output: &TensorDesc<'_>) -> Option<(&[u8], &mut [u8])> {
        let (to, rest) = self.split(output)?;
        Some((rest.tensor(input)?, to))
    }
}

/// All memory but the bytes of one tensor, see [`Memory::split`].
#[derive(Clone, Copy, Debug)]
pub struct Rest<'a> {
    /// Each region from its beginning; `region` ends where the tensor begins.
    parts: [&'a [u8]; 4],
    region: Region,
    /// `region` from `start`, the tensor's end.
    after: &'a [u8],
    start: usize,
}

impl<'a> Rest<'a> {
    /// The bytes of a tensor; `None` if it lies outside or overlaps the one that is left out.
    pub fn tensor(&self, t: &TensorDesc<'_>) -> Option<&'a [u8]> {
        let (region, offset, len) = (t.place.region, t.place.offset as usize, t.bytes() as usize);
        let (part, from) = match offset.checked_sub(self.start) {
            Some(from) if region == self.region => (self.after, from),
            _ => (*self.parts.get(region as usize)?, offset),
        };
        part.get(from..from.checked_add(len)?)
    }
}

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
