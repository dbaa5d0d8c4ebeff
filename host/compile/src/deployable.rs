//! Writing a deployable: the inverse of [`Deployable::parse`].

use serde::Serialize;
use shiftwise_core::model::{
    CODE_ALIGN, CONST_ALIGN, CpuOp, DType, Deployable, FORMAT_VERSION, Facts, HEADER_BYTES, LayerSpan, MAGIC,
    PLAIN_VERSION, ParseError, SECTIONS, Section, Step, TensorDesc, crc32,
};

/// Everything that a deployable holds, decoded.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    /// Names, sizes of the regions, number of self-test samples.
    pub facts: Facts<'a>,
    /// The target's 64-bit identification; 0 for target `cpu`.
    pub fingerprint: u64,
    /// Tensors; a [`shiftwise_core::model::TensorId`] is an index into them.
    pub tensors: &'a [TensorDesc<'a>],
    /// Steps in execution order.
    pub steps: &'a [Step<'a>],
    /// Origins of DPU instructions.
    pub layers: &'a [LayerSpan<'a>],
    /// Per sample the inputs' bytes, then the outputs' bytes.
    pub self_test: &'a [u8],
    /// Weights and biases.
    pub constants: &'a [u8],
    /// DPU instructions; each job starts at a multiple of [`CODE_ALIGN`].
    pub code: &'a [u8],
    /// JSON that travels with the network; nothing is written if it is empty.
    pub metadata: &'a [u8],
}

/// Why parts cannot be written as a deployable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// More than 65 535 records in a table, or more than 4 GiB in all.
    #[error("section {} of the deployable is too large for the format", *.0 as usize)]
    TooLarge(Section),
    /// A record cannot be encoded.
    #[error("a record of section {} cannot be encoded: {}", *.0 as usize, .1)]
    Encode(Section, postcard::Error),
    /// The parts contradict each other; the reader would refuse the file.
    #[error("inconsistent deployable: {0}")]
    Inconsistent(#[from] ParseError),
}

/// The bytes of a deployable that [`Deployable::parse`] accepts.
///
/// Layout: header, section table, sections in the order of [`Section`] (constants aligned to [`CONST_ALIGN`], code to
/// [`CODE_ALIGN`]), the metadata if there is some, then a CRC-32 over all bytes before it. The result is parsed once before it is returned, so parts
/// that contradict each other are an error here and not on the board.
pub fn write(parts: &Parts<'_>) -> Result<Vec<u8>, EmitError> {
    let facts = encode(Section::Facts, &parts.facts)?;
    let tensors = table(Section::Tensors, parts.tensors)?;
    let steps = table(Section::Steps, parts.steps)?;
    let layers = table(Section::Layers, parts.layers)?;
    let sections: [(Section, &[u8], usize); SECTIONS] = [
        (Section::Facts, &facts, 1),
        (Section::Tensors, &tensors, 1),
        (Section::Steps, &steps, 1),
        (Section::Layers, &layers, 1),
        (Section::SelfTest, parts.self_test, 1),
        (Section::Constants, parts.constants, CONST_ALIGN),
        (Section::Code, parts.code, if parts.code.is_empty() { 1 } else { CODE_ALIGN }),
    ];
    let mut body = vec![0; HEADER_BYTES];
    let mut entries = Vec::with_capacity(8 * SECTIONS);
    for (section, bytes, align) in sections {
        body.resize(body.len().next_multiple_of(align), 0);
        entries.extend(word(section, body.len())?);
        entries.extend(word(section, bytes.len())?);
        body.extend_from_slice(bytes);
    }
    let mut metadata = [0; 4];
    if !parts.metadata.is_empty() {
        metadata = word(Section::Code, body.len())?;
        body.extend(word(Section::Code, parts.metadata.len())?);
        body.extend_from_slice(parts.metadata);
    }
    let length = word(Section::Code, body.len() + 4)?;
    let header = MAGIC
        .into_iter()
        .chain(version(parts).to_le_bytes())
        .chain((SECTIONS as u16).to_le_bytes())
        .chain(parts.fingerprint.to_le_bytes())
        .chain(length)
        .chain(metadata)
        .chain(entries);
    body.splice(..HEADER_BYTES, header);
    let crc = crc32(&body);
    body.extend_from_slice(&crc.to_le_bytes());
    Deployable::parse(&body)?;
    Ok(body)
}

/// The oldest version that has all that is in the parts.
fn version(parts: &Parts<'_>) -> u16 {
    let tensors = parts.tensors.iter().any(|t| matches!(t.dtype, DType::Scaled(_)));
    let steps = parts.steps.iter().any(|step| matches!(step, Step::Cpu(CpuOp::Scaled(_))));
    if tensors || steps { FORMAT_VERSION } else { PLAIN_VERSION }
}

fn word(section: Section, value: usize) -> Result<[u8; 4], EmitError> {
    u32::try_from(value).map(u32::to_le_bytes).map_err(|_| EmitError::TooLarge(section))
}

fn encode(section: Section, record: &impl Serialize) -> Result<Vec<u8>, EmitError> {
    postcard::to_stdvec(record).map_err(|e| EmitError::Encode(section, e))
}

/// `u32` count, `u32` offsets from the section's start, records.
fn table(section: Section, records: &[impl Serialize]) -> Result<Vec<u8>, EmitError> {
    u16::try_from(records.len()).map_err(|_| EmitError::TooLarge(section))?;
    let mut head = word(section, records.len())?.to_vec();
    let mut tail = Vec::new();
    for record in records {
        head.extend(word(section, 4 + 4 * records.len() + tail.len())?);
        tail.extend(encode(section, record)?);
    }
    head.extend(tail);
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiftwise_core::fix::FixPos;
    use shiftwise_core::model::{Act, ConvOp, DpuJob, Place, Region, Role, TensorId, TensorList};
    use shiftwise_core::shape::{Shape, Window};

    fn tensor(name: &'static str, region: Region, dims: &[u32], role: Role) -> TensorDesc<'static> {
        TensorDesc {
            name,
            origin: "layer",
            shape: Shape::new(dims).unwrap(),
            dtype: DType::I8,
            pos: FixPos(-3),
            place: Place { region, offset: 0 },
            role,
        }
    }

    fn with_parts<T>(code: &[u8], use_parts: impl FnOnce(Parts<'_>) -> T) -> T {
        let conv = ConvOp {
            input: TensorId(0),
            output: TensorId(1),
            in_dims: [2, 2, 3],
            out_dims: [2, 2, 1],
            window: Window::POINT,
            groups: 1,
            kernel: 4,
            bias: Some(0),
            fine: 0,
            shift_cut: 5,
            act: Act::ReluMax(77),
        };
        let outputs = [1, 0];
        let job = DpuJob { name: "job", offset: 0, bytes: code.len() as u32, outputs: TensorList(&outputs) };
        let steps = [Step::Cpu(CpuOp::Conv(conv)), Step::Dpu(job)];
        let tensors = [
            tensor("in", Region::Inputs, &[2, 2, 3], Role::Input(0)),
            tensor("out", Region::Outputs, &[4], Role::Output(0)),
        ];
        let layers = [LayerSpan { layer: "conv", step: 1, first: 0, count: 2, macs: 1 << 40, output: TensorId(1) }; 1];
        use_parts(Parts {
            facts: Facts {
                name: "net",
                target: "cpu",
                tool: "test",
                workspace_bytes: 0,
                input_bytes: 12,
                output_bytes: 4,
                self_test_samples: 2,
            },
            fingerprint: 0x0123_4567_89AB_CDEF,
            tensors: &tensors,
            steps: &steps,
            layers: &layers,
            self_test: &[9; 2 * (12 + 4)],
            constants: &[1, 2, 3, 4, 5, 6, 7],
            code,
            metadata: if code.is_empty() { &[] } else { b"{}" },
        })
    }

    #[test]
    fn parse_gives_back_what_was_written() {
        for code in [&[][..], &[7; 8]] {
            with_parts(code, |parts| {
                let bytes = write(&parts).unwrap();
                let read = Deployable::parse(&bytes).unwrap();
                assert_eq!(*read.facts(), parts.facts);
                assert_eq!(read.fingerprint(), parts.fingerprint);
                assert_eq!(read.tensors().map(|(_, t)| t).collect::<Vec<_>>(), parts.tensors);
                assert_eq!(read.steps().collect::<Vec<_>>(), parts.steps);
                assert_eq!(read.layers().collect::<Vec<_>>(), parts.layers);
                assert_eq!(read.self_test(), parts.self_test);
                assert_eq!(read.constants(), parts.constants);
                assert_eq!(read.code(), parts.code);
                assert_eq!(read.metadata(), parts.metadata);
                let offset = |part: &[u8]| part.as_ptr() as usize - bytes.as_ptr() as usize;
                assert_eq!(offset(read.constants()) % CONST_ALIGN, 0);
                assert!(code.is_empty() || offset(read.code()) % CODE_ALIGN == 0);
            });
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = with_parts(&[], |parts| write(&parts)).unwrap();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            assert!(Deployable::parse(&bad).is_err(), "byte {at}");
            assert!(Deployable::parse(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn contradicting_parts_are_refused() {
        let error = with_parts(&[], |parts| write(&Parts { constants: &[1, 2, 3], ..parts })).unwrap_err();
        assert!(matches!(error, EmitError::Inconsistent(ParseError::Reference(2, 0))), "{error}");
        let error = with_parts(&[], |parts| write(&Parts { self_test: &[], ..parts })).unwrap_err();
        assert!(matches!(error, EmitError::Inconsistent(ParseError::Section(4))), "{error}");
    }
}
