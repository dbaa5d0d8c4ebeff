//! The deployable: one file that holds a compiled network.
//!
//! A fixed header, a postcard record of facts, tables of tensors and steps, then raw sections for constants and DPU
//! code, and a CRC-32 over all of it. `FORMAT.md` beside this crate has the byte tables. [`Deployable::parse`] checks
//! everything once and borrows from the bytes; afterwards no accessor fails or panics. Records stay encoded and are
//! decoded one at a time, so a reader needs no memory beyond the file itself.

#[cfg(feature = "floats")]
mod floats;
#[cfg(all(test, feature = "depthwise", feature = "extra", feature = "floats"))]
mod format_page;
#[cfg(not(feature = "floats"))]
mod no_floats;
mod ops;

#[cfg(feature = "floats")]
pub use floats::{
    Combine, CopyOp, FloatConvOp, FloatOp, FloatPoolKind, FloatPoolOp, Function, ProductOp, ResizeOp, RowFunction,
    RowsOp,
};
#[cfg(not(feature = "floats"))]
pub use no_floats::FloatOp;
pub(crate) use ops::layers;
pub use ops::{
    Act, AddOp, ConcatOp, ConvOp, CpuOp, MultiplyOp, PReluOp, PadOp, PermuteOp, PoolKind, PoolOp, SoftmaxOp, UpSampleOp,
};

use serde::{Deserialize, Serialize};

use crate::crc::Crc32;
use crate::fix::FixPos;
use crate::shape::Shape;

/// First four bytes of a deployable.
pub const MAGIC: [u8; 4] = *b"SWM1";
/// Version of the format that this crate reads and writes.
pub const FORMAT_VERSION: u16 = 2;
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

/// What the deployable is and what it needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts<'a> {
    /// The network's name.
    pub name: &'a str,
    /// Target it was compiled for: a DPU's name, or `cpu`.
    pub target: &'a str,
    /// Tool and version that wrote it.
    pub tool: &'a str,
    /// Bytes of the workspace region.
    pub workspace_bytes: u32,
    /// Bytes of the input region.
    pub input_bytes: u32,
    /// Bytes of the output region.
    pub output_bytes: u32,
    /// Samples in the self-test section.
    pub self_test_samples: u16,
}

/// The four memory regions. The discriminants are the base-register numbers of vendor-compiled programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Region {
    /// Weights and biases, read only.
    Constants = 0,
    /// Intermediate tensors.
    Workspace = 1,
    /// Network inputs.
    Inputs = 2,
    /// Network outputs.
    Outputs = 3,
}

impl Region {
    /// The region of a base-register number.
    pub const fn from_register(register: u8) -> Option<Self> {
        match register {
            0 => Some(Self::Constants),
            1 => Some(Self::Workspace),
            2 => Some(Self::Inputs),
            3 => Some(Self::Outputs),
            _ => None,
        }
    }
}

/// A byte address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Place {
    /// Which region.
    pub region: Region,
    /// Byte offset in it.
    pub offset: u32,
}

/// Element type of a tensor in memory, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum DType {
    /// Signed 8-bit integers with a fix position.
    I8,
    /// 32-bit floats; the position is meaningless.
    F32,
}

impl DType {
    /// Bytes of one element.
    pub const fn bytes(self) -> u32 {
        match self {
            Self::I8 => 1,
            Self::F32 => 4,
        }
    }
}

/// What a tensor is to the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Role {
    /// The network's n-th input.
    Input(u8),
    /// The network's n-th output.
    Output(u8),
    /// Between layers.
    Inner,
}

/// Index into the tensor table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TensorId(pub u16);

/// One tensor of one sample: dense, row-major, channels last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorDesc<'a> {
    /// Name in the golden dump, such as `quant_conv1_relu`.
    pub name: &'a str,
    /// The user's layer it came from.
    pub origin: &'a str,
    /// `[h, w, c]` or `[c]`, without the batch.
    pub shape: Shape,
    /// Element type.
    pub dtype: DType,
    /// Fraction bits of an integer tensor.
    pub pos: FixPos,
    /// Where it lies while it is alive; planned memory is reused after its last reader.
    pub place: Place,
    /// Input, output or inner.
    pub role: Role,
}

impl TensorDesc<'_> {
    /// Bytes in memory; checked when the deployable is parsed.
    pub fn bytes(&self) -> u32 {
        self.shape.elements().unwrap_or(0).saturating_mul(self.dtype.bytes())
    }
}

/// A list of tensor ids kept as little-endian 16-bit numbers, so that a record can borrow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorList<'a>(pub &'a [u8]);

impl TensorList<'_> {
    /// The ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = TensorId> + '_ {
        let (pairs, _) = self.0.as_chunks();
        pairs.iter().map(|pair| TensorId(u16::from_le_bytes(*pair)))
    }
}

/// One entry of the program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Step<'a> {
    /// Instructions for the DPU.
    Dpu(#[serde(borrow)] DpuJob<'a>),
    /// A layer computed by the CPU.
    Cpu(#[serde(borrow)] CpuOp<'a>),
}

/// A run of DPU instructions up to END.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DpuJob<'a> {
    /// Name of the subgraph.
    pub name: &'a str,
    /// Byte offset in the code section, a multiple of [`CODE_ALIGN`].
    pub offset: u32,
    /// Bytes of code, a multiple of 4.
    pub bytes: u32,
    /// Tensors in memory that are complete when it ends, in the order of their layers.
    pub outputs: TensorList<'a>,
}

/// Which instructions of a DPU job came from which layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerSpan<'a> {
    /// The user's layer.
    pub layer: &'a str,
    /// Step that holds the instructions.
    pub step: u16,
    /// First instruction, counted from the start of the job.
    pub first: u32,
    /// Number of instructions.
    pub count: u32,
    /// Multiply-accumulates of the layer as the user counts them, without the hardware's padding.
    pub macs: u64,
    /// The tensor that the layer completes.
    pub output: TensorId,
}

/// Why bytes are not a deployable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ParseError {
    /// Fewer bytes than the header, or than the header announces.
    Truncated,
    /// The first bytes are not [`MAGIC`].
    Magic,
    /// A format version this reader does not know.
    Version(u16),
    /// The CRC-32 does not match the bytes.
    Crc,
    /// A section reaches outside the file or is misaligned.
    Section(u8),
    /// A record of a section does not decode.
    Record(u8, u16),
    /// A record refers to a tensor, constant or code that does not exist, or its geometry is inconsistent.
    Reference(u8, u16),
    /// A step is of a layer that this reader was built without, see the features of this crate.
    LeftOut(u16),
}

impl ParseError {
    /// A stable number for links and logs.
    pub const fn code(self) -> u8 {
        match self {
            Self::Truncated => 1,
            Self::Magic => 2,
            Self::Version(_) => 3,
            Self::Crc => 4,
            Self::Section(_) => 5,
            Self::Record(..) => 6,
            Self::Reference(..) => 7,
            Self::LeftOut(_) => 8,
        }
    }
}

impl core::fmt::Display for ParseError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Truncated => write!(f, "the deployable is cut short"),
            Self::Magic => write!(f, "not a shiftwise deployable: it does not start with SWM1"),
            Self::Version(v) => write!(f, "deployable format version {v}, this reader knows {FORMAT_VERSION}"),
            Self::Crc => write!(f, "the deployable's checksum does not match its bytes"),
            Self::Section(s) => write!(f, "section {s} of the deployable lies outside the file"),
            Self::Record(s, i) => write!(f, "record {i} of section {s} does not decode"),
            Self::Reference(s, i) => write!(f, "record {i} of section {s} refers to something that does not exist"),
            Self::LeftOut(i) => write!(f, "step {i} is of a layer that this runtime was built without"),
        }
    }
}

impl core::error::Error for ParseError {}

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
struct Table<'a> {
    bytes: &'a [u8],
    count: u16,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

impl<'a> Table<'a> {
    fn open(bytes: &'a [u8]) -> Option<Self> {
        let count = u16::try_from(word(bytes, 0)?).ok()?;
        bytes.get(..4 + 4 * usize::from(count))?;
        Some(Self { bytes, count })
    }

    /// A record and what lies behind it.
    fn record(&self, index: u16) -> Option<&'a [u8]> {
        if index >= self.count {
            return None;
        }
        let start = word(self.bytes, 4 + 4 * usize::from(index))? as usize;
        self.bytes.get(start..)
    }

    fn get<T: Deserialize<'a>>(&self, index: u16) -> Option<T> {
        postcard::from_bytes(self.record(index)?).ok()
    }
}

/// A checked view of a deployable's bytes.
#[derive(Clone, Debug)]
pub struct Deployable<'a> {
    facts: Facts<'a>,
    fingerprint: u64,
    file_bytes: usize,
    tensors: Table<'a>,
    steps: Table<'a>,
    layers: Table<'a>,
    self_test: &'a [u8],
    constants: &'a [u8],
    code: &'a [u8],
}

impl<'a> Deployable<'a> {
    /// Checks the bytes and borrows from them.
    ///
    /// Errors: [`ParseError`], naming the section and record. Every reference inside is checked here: tensor ids,
    /// constants, code ranges, shapes and window geometry, places inside their regions.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let head = bytes.get(..HEADER_BYTES).ok_or(ParseError::Truncated)?;
        if head[..4] != MAGIC {
            return Err(ParseError::Magic);
        }
        let version = u16::from_le_bytes([head[4], head[5]]);
        if version != FORMAT_VERSION {
            return Err(ParseError::Version(version));
        }
        if usize::from(u16::from_le_bytes([head[6], head[7]])) != SECTIONS {
            return Err(ParseError::Section(SECTIONS as u8));
        }
        let field = |at| word(head, at).ok_or(ParseError::Truncated);
        let fingerprint = u64::from(field(8)?) | u64::from(field(12)?) << 32;
        let length = field(16)? as usize;
        let body = length.checked_sub(4).ok_or(ParseError::Truncated)?;
        let bytes = bytes.get(..length).ok_or(ParseError::Truncated)?;
        if body < HEADER_BYTES || word(bytes, body) != Some(crc32(&bytes[..body])) {
            return Err(ParseError::Crc);
        }
        let section = |s: Section| {
            let at = 24 + 8 * s as usize;
            let (start, len) = (field(at)? as usize, field(at + 4)? as usize);
            let align = match s {
                Section::Constants => CONST_ALIGN,
                Section::Code if len > 0 => CODE_ALIGN,
                _ => 1,
            };
            let end = start.checked_add(len).filter(|e| *e <= body && start % align == 0);
            end.and_then(|end| bytes.get(start..end)).ok_or(ParseError::Section(s as u8))
        };
        let table = |s: Section| Table::open(section(s)?).ok_or(ParseError::Section(s as u8));
        let facts =
            postcard::from_bytes(section(Section::Facts)?).map_err(|_| ParseError::Record(Section::Facts as u8, 0))?;
        let this = Self {
            facts,
            fingerprint,
            file_bytes: length,
            tensors: table(Section::Tensors)?,
            steps: table(Section::Steps)?,
            layers: table(Section::Layers)?,
            self_test: section(Section::SelfTest)?,
            constants: section(Section::Constants)?,
            code: section(Section::Code)?,
        };
        this.check()?;
        Ok(this)
    }

    fn check(&self) -> Result<(), ParseError> {
        let (mut input_bytes, mut output_bytes) = (0u64, 0u64);
        for i in 0..self.tensors.count {
            let t: TensorDesc<'_> = self.tensors.get(i).ok_or(ParseError::Record(Section::Tensors as u8, i))?;
            let bad = ParseError::Reference(Section::Tensors as u8, i);
            let elements = t.shape.elements().ok_or(bad)?;
            let bytes = elements.checked_mul(t.dtype.bytes()).ok_or(bad)?;
            let end = t.place.offset.checked_add(bytes).ok_or(bad)?;
            if t.dtype == DType::F32 && !t.place.offset.is_multiple_of(4)
                || end as usize > self.region_bytes(t.place.region)
            {
                return Err(bad);
            }
            match t.role {
                Role::Input(_) => input_bytes += u64::from(bytes),
                Role::Output(_) => output_bytes += u64::from(bytes),
                Role::Inner => {}
            }
        }
        for i in 0..self.steps.count {
            let step: Step<'_> = self.steps.get(i).ok_or_else(|| match self.steps.record(i) {
                // `Step::Cpu` and the tag of its `CpuOp`.
                Some([1, tag, ..]) if layers::left_out(*tag) => ParseError::LeftOut(i),
                _ => ParseError::Record(Section::Steps as u8, i),
            })?;
            self.check_step(&step).ok_or(ParseError::Reference(Section::Steps as u8, i))?;
        }
        for i in 0..self.layers.count {
            let span: LayerSpan<'_> = self.layers.get(i).ok_or(ParseError::Record(Section::Layers as u8, i))?;
            if span.step >= self.steps.count || span.output.0 >= self.tensors.count {
                return Err(ParseError::Reference(Section::Layers as u8, i));
            }
        }
        let self_test = (input_bytes + output_bytes) * u64::from(self.facts.self_test_samples);
        if self.self_test.len() as u64 != self_test {
            return Err(ParseError::Section(Section::SelfTest as u8));
        }
        Ok(())
    }

    fn check_step(&self, step: &Step<'_>) -> Option<()> {
        let known = |id: TensorId| (id.0 < self.tensors.count).then_some(());
        let all = |list: &TensorList<'_>| {
            list.0.len().is_multiple_of(2).then_some(())?;
            list.iter().try_for_each(known)
        };
        match step {
            Step::Dpu(job) => {
                all(&job.outputs)?;
                self.code_of(job)?;
                ((job.offset as usize).is_multiple_of(CODE_ALIGN) && job.bytes % 4 == 0).then_some(())
            }
            Step::Cpu(op) => {
                known(op.output())?;
                crate::cpu::check(self, op)
            }
        }
    }

    fn code_of(&self, job: &DpuJob<'_>) -> Option<&'a [u8]> {
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
