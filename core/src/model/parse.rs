//! Reading a deployable: every reference is checked once, and afterwards nothing fails.

use super::check;
use super::deployable::{
    CODE_ALIGN, CONST_ALIGN, Deployable, FORMAT_VERSION, HEADER_BYTES, MAGIC, PLAIN_VERSION, SECTIONS, Section, Table,
    crc32, word,
};
use super::ids::{TensorId, TensorList};
use super::ops::layers;
use super::parse_error::ParseError;
use super::records::{DType, LayerSpan, Role, Step, TensorDesc};

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
        if !(PLAIN_VERSION..=FORMAT_VERSION).contains(&version) {
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
        // The header's last word: where the metadata is, its length in front; 0 where there is none.
        let metadata = match field(20)? as usize {
            0 => &[][..],
            at => {
                let bad = ParseError::Section(SECTIONS as u8);
                let start = at.checked_add(4).filter(|start| *start <= body).ok_or(bad)?;
                let end = start.checked_add(word(bytes, at).ok_or(bad)? as usize).filter(|end| *end <= body);
                end.and_then(|end| bytes.get(start..end)).ok_or(bad)?
            }
        };
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
            metadata,
        };
        this.check(version)?;
        Ok(this)
    }

    fn check(&self, version: u16) -> Result<(), ParseError> {
        let (mut input_bytes, mut output_bytes) = (0u64, 0u64);
        for i in 0..self.tensors.count {
            let t: TensorDesc<'_> = self.tensors.get(i).ok_or(ParseError::Record(Section::Tensors as u8, i))?;
            let bad = ParseError::Reference(Section::Tensors as u8, i);
            let elements = t.shape.elements().ok_or(bad)?;
            let bytes = elements.checked_mul(t.dtype.bytes()).ok_or(bad)?;
            let end = t.place.offset.checked_add(bytes).ok_or(bad)?;
            if t.dtype == DType::F32 && !t.place.offset.is_multiple_of(4)
                || matches!(t.dtype, DType::Scaled(scale) if !scale.is_valid() || version < FORMAT_VERSION)
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
                check::check(self, op)
            }
        }
    }
}
