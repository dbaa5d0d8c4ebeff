//! The file's layout, and a checked view of its bytes.

use serde::Deserialize;

use super::ids::{Region, TensorId};
use super::records::{DpuJob, Facts, LayerSpan, Role, Step, TensorDesc, Unnamed};
use crate::crc::Crc32;

/// First four bytes of a deployable.
pub const MAGIC: [u8; 4] = *b"SWM1";
/// Newest version of the format that this crate reads and writes.
pub const FORMAT_VERSION: u16 = 3;
/// Version of a deployable without [`DType::Scaled`](super::DType) and [`CpuOp::Scaled`](super::CpuOp), which readers of
/// that version know as well.
pub const PLAIN_VERSION: u16 = 2;
/// Bytes before the first section: magic, version, section count, fingerprint, length, then the section table.
pub const HEADER_BYTES: usize = 24 + SECTIONS * 8;
/// Alignment of the constants section in the file, so that kernels may read 32-bit words in place.
pub const CONST_ALIGN: usize = 16;
/// Alignment of DPU code in the file; the hardware's instruction address counts in pages of this size.
pub const CODE_ALIGN: usize = 4096;

/// The sections, in file order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Section {
    /// One [`Facts`] record.
    Facts = 0,
    /// A table of [`TensorDesc`] records.
    Tensors = 1,
    /// A table of [`Step`] records, in execution order.
    Steps = 2,
    /// A table of [`LayerSpan`] records: which instructions came from which layer.
    Layers = 3,
    /// Self-test vectors: per sample the inputs' bytes, then the outputs' bytes.
    SelfTest = 4,
    /// Weights and biases: base region 0 of a DPU.
    Constants = 5,
    /// DPU instructions.
    Code = 6,
}

/// Number of sections.
pub const SECTIONS: usize = 7;

/// CRC-32 (ISO-HDLC, as in zip and Ethernet) of the bytes.
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32_of([bytes])
}

/// [`crc32`] of the bytes one after the other.
pub fn crc32_of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut crc = Crc32::default();
    parts.into_iter().for_each(|bytes| crc.update(bytes));
    crc.value()
}

/// A table section: `u32` count, then that many `u32` offsets from the section's start, then the records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'a> {
    bytes: &'a [u8],
    pub(super) count: u16,
}

pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

impl<'a> Table<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Option<Self> {
        let count = u16::try_from(word(bytes, 0)?).ok()?;
        bytes.get(..4 + 4 * usize::from(count))?;
        Some(Self { bytes, count })
    }

    /// A record and what lies behind it.
    pub(super) fn record(&self, index: u16) -> Option<&'a [u8]> {
        if index >= self.count {
            return None;
        }
        let start = word(self.bytes, 4 + 4 * usize::from(index))? as usize;
        self.bytes.get(start..)
    }

    pub(super) fn get<T: Deserialize<'a>>(&self, index: u16) -> Option<T> {
        postcard::from_bytes(self.record(index)?).ok()
    }
}

/// A checked view of a deployable's bytes.
#[derive(Clone, Debug)]
pub struct Deployable<'a> {
    pub(super) facts: Facts<'a>,
    pub(super) fingerprint: u64,
    pub(super) file_bytes: usize,
    pub(super) tensors: Table<'a>,
    pub(super) steps: Table<'a>,
    pub(super) layers: Table<'a>,
    pub(super) self_test: &'a [u8],
    pub(super) constants: &'a [u8],
    pub(super) code: &'a [u8],
    pub(super) metadata: &'a [u8],
}

impl<'a> Deployable<'a> {
    pub(super) fn code_of(&self, job: &DpuJob<'_>) -> Option<&'a [u8]> {
        let start = job.offset as usize;
        self.code.get(start..start.checked_add(job.bytes as usize)?)
    }

    /// What it is and needs.
    pub fn facts(&self) -> &Facts<'a> {
        &self.facts
    }

    /// The target's 64-bit identification; 0 for target `cpu`.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Bytes of the file up to and including its checksum; more may follow in the bytes that were parsed.
    pub fn file_bytes(&self) -> usize {
        self.file_bytes
    }

    /// Bytes that a region must have.
    pub fn region_bytes(&self, region: Region) -> usize {
        match region {
            Region::Constants => self.constants.len(),
            Region::Workspace => self.facts.workspace_bytes as usize,
            Region::Inputs => self.facts.input_bytes as usize,
            Region::Outputs => self.facts.output_bytes as usize,
        }
    }

    /// Weights and biases.
    pub fn constants(&self) -> &'a [u8] {
        self.constants
    }

    /// All DPU code.
    pub fn code(&self) -> &'a [u8] {
        self.code
    }

    /// What travels with the network beside its numbers: JSON for hosts, which nothing on a board reads. Empty if there
    /// is none.
    pub fn metadata(&self) -> &'a [u8] {
        self.metadata
    }

    /// Instructions of one job.
    pub fn job_code(&self, job: &DpuJob<'_>) -> &'a [u8] {
        self.code_of(job).unwrap_or(&[])
    }

    /// Number of tensors.
    pub fn tensor_count(&self) -> u16 {
        self.tensors.count
    }

    /// A tensor; `None` if there is no such id.
    pub fn tensor(&self, id: TensorId) -> Option<TensorDesc<'a>> {
        self.tensors.get(id.0)
    }

    /// [`Self::tensor`] with empty names, for running a layer.
    pub(crate) fn unnamed(&self, id: TensorId) -> Option<TensorDesc<'static>> {
        let Unnamed { shape, dtype, pos, place, role, .. } = self.tensors.get(id.0)?;
        Some(TensorDesc { name: "", origin: "", shape, dtype, pos, place, role })
    }

    /// All tensors.
    pub fn tensors(&self) -> impl Iterator<Item = (TensorId, TensorDesc<'a>)> + '_ {
        (0..self.tensors.count).filter_map(|i| Some((TensorId(i), self.tensors.get(i)?)))
    }

    /// The network's inputs, in order.
    pub fn inputs(&self) -> impl Iterator<Item = (TensorId, TensorDesc<'a>)> + '_ {
        self.by_role(|role| matches!(role, Role::Input(_)))
    }

    /// The network's outputs, in order.
    pub fn outputs(&self) -> impl Iterator<Item = (TensorId, TensorDesc<'a>)> + '_ {
        self.by_role(|role| matches!(role, Role::Output(_)))
    }

    fn by_role(&self, wanted: fn(Role) -> bool) -> impl Iterator<Item = (TensorId, TensorDesc<'a>)> + '_ {
        // The writer numbers roles from zero without gaps; tables are small, so a scan per index is cheap.
        (0..=u8::MAX).map_while(move |n| {
            self.tensors().find(|(_, t)| wanted(t.role) && matches!(t.role, Role::Input(k) | Role::Output(k) if k == n))
        })
    }

    /// Number of steps.
    pub fn step_count(&self) -> u16 {
        self.steps.count
    }

    /// The steps, in execution order.
    pub fn steps(&self) -> impl Iterator<Item = Step<'a>> + '_ {
        (0..self.steps.count).filter_map(|i| self.steps.get(i))
    }

    /// Origins of DPU instructions.
    pub fn layers(&self) -> impl Iterator<Item = LayerSpan<'a>> + '_ {
        (0..self.layers.count).filter_map(|i| self.layers.get(i))
    }

    /// Self-test vectors: `facts().self_test_samples` times (inputs, outputs).
    pub fn self_test(&self) -> &'a [u8] {
        self.self_test
    }
}
