//! Machine code as text and back: of deployables, of the vendor's programs, of raw code.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use shiftwise_core::isa::codec::{DecodeError, ListingError};
use shiftwise_core::isa::described::InstructionSet;
use shiftwise_core::isa::{Line, codec};
use shiftwise_core::listing::OneLine;
use shiftwise_core::model::{CpuOp, Deployable, Step};
use shiftwise_core::target::IsaVersion;
use shiftwise_graph::error::Error;
use shiftwise_xmodel::{self as xmodel, Device, Stream, Xmodel, spans};

use crate::run;

/// An instruction's text and bytes, or why there is none.
pub type Decoded = Result<(String, Vec<u8>), DecodeError>;

/// An instruction set that can be listed and encoded.
#[derive(Clone, Copy, Debug)]
pub enum Isa {
    /// The one that is executed too.
    Executed(IsaVersion),
    /// One that is described only.
    Described(&'static InstructionSet),
}

impl Isa {
    /// By name, in any case.
    ///
    /// Errors: [`Error::Target`].
    pub fn named(name: &str) -> Result<Self, Error> {
        let executed = IsaVersion::ALL.iter().find(|v| v.name().eq_ignore_ascii_case(name));
        let described = || InstructionSet::named(name).map(Self::Described);
        executed.map(|v| Self::Executed(*v)).or_else(described).ok_or_else(|| {
            let names = IsaVersion::ALL.iter().map(|v| v.name());
            let names: Vec<&str> = names.chain(InstructionSet::all_names()).collect();
            Error::Target(format!("unknown instruction set `{name}`; known are {}", names.join(", ")))
        })
    }

    /// That of a target's fingerprint.
    pub fn of_fingerprint(fingerprint: u64) -> Option<Self> {
        let described = || InstructionSet::of_fingerprint(fingerprint).map(Self::Described);
        IsaVersion::of_fingerprint(fingerprint).map(Self::Executed).or_else(described)
    }

    /// The vendor's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Executed(version) => version.name(),
            Self::Described(set) => set.name,
        }
    }

    /// The instructions of `code` as offset, text and bytes; the last may be an error.
    pub fn lines(self, code: &[u8]) -> Vec<(usize, Decoded)> {
        match self {
            Self::Executed(version) => {
                let encoded =
                    |line: &Line| codec::encode(version, line).map_or_else(|_| Vec::new(), |w| w.bytes().collect());
                codec::program(version, code)
                    .map(|(at, line)| (at, line.map(|line| (line.to_string(), encoded(&line)))))
                    .collect()
            }
            Self::Described(set) => {
                set.program(code).map(|(at, item)| (at, item.map(|i| (i.to_string(), i.bytes().collect())))).collect()
            }
        }
    }

    /// The bytes of a line of a listing.
    ///
    /// Errors: what is wrong with the line.
    pub fn assemble(self, text: &str) -> Result<Vec<u8>, String> {
        match self {
            Self::Executed(version) => {
                let line: Line = text.parse().map_err(|e: ListingError| e.to_string())?;
                codec::encode(version, &line).map(|w| w.bytes().collect()).map_err(|e| e.to_string())
            }
            Self::Described(set) => set.parse(text).map(|i| i.bytes().collect()).map_err(|e| e.to_string()),
        }
    }
}

/// The remark that names a listing's instruction set; the assembler reads it.
pub const ISA_REMARK: &str = "; isa ";

/// The instructions of a deployable, one a line, under the layer that they came from; CPU steps as remarks.
///
/// Errors: [`Error::Target`] for a target that is not known.
pub fn listing(model: &Deployable<'_>) -> Result<String, Error> {
    let isa = run::target_of(model)?.map_or(IsaVersion::Dpuczdx8gIsa1, |t| t.isa);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = shiftwise_core::listing::write(model, isa, &mut text);
    for (index, step) in model.steps().enumerate() {
        if let Step::Cpu(op) = step
            && !matches!(op, CpuOp::View { .. })
        {
            let name = model.tensor(op.output()).map_or("?", |t| t.name);
            let _ = writeln!(text, "; step {index}: {} on the CPU", OneLine(name));
        }
    }
    Ok(text)
}

/// A piece of code with its instruction set, and the layers that its instructions belong to.
#[derive(Clone, Debug)]
pub struct Piece<'a> {
    /// As a listing names it.
    pub name: String,
    /// Its instruction set.
    pub isa: Isa,
    /// Its bytes.
    pub code: &'a [u8],
    /// Layers, where they can be told.
    pub layers: Vec<spans::Layer>,
}

/// The instruction set of a subgraph.
///
/// Errors: a target that no public instruction set is known of.
pub fn isa_of(run: &xmodel::Subgraph) -> Result<Isa, Error> {
    let (name, fingerprint) = run.target();
    let name = name.unwrap_or("an unnamed target");
    let isa = fingerprint.and_then(Isa::of_fingerprint);
    isa.ok_or_else(|| Error::Target(format!("the fields of {name}'s instructions are not public")))
}

/// The layers of a whole subgraph's code, where it can be told.
fn layers(model: &Xmodel, stream: &Stream<'_>, isa: Isa) -> Vec<spans::Layer> {
    let (None, Isa::Executed(version)) = (stream.layer, isa) else { return Vec::new() };
    let lines: Vec<Line> = codec::program(version, stream.code).map_while(|(_, line)| line.ok()).collect();
    spans::spans(model, stream.run, &lines).layers
}

/// The code of a vendor's program; of several pieces only that of this name, if one is given. None at all is no error.
///
/// Errors: [`Error::Target`] for code of a target that no public instruction set is known of.
pub fn xmodel_pieces<'a>(model: &'a Xmodel, only: Option<&str>) -> Result<Vec<Piece<'a>>, Error> {
    let asked = |stream: &Stream<'_>| only.is_none_or(|only| only == stream.name());
    let piece = |stream: Stream<'a>| {
        let isa = isa_of(stream.run)?;
        Ok(Piece { layers: layers(model, &stream, isa), name: stream.name(), isa, code: stream.code })
    };
    model.streams().into_iter().filter(asked).map(piece).collect()
}

/// The code of a deployable, job by job.
///
/// Errors: [`Error::Target`] for a target that is not known.
pub fn pieces<'a>(model: &Deployable<'a>) -> Result<Vec<Piece<'a>>, Error> {
    let version = run::target_of(model)?.map_or(IsaVersion::Dpuczdx8gIsa1, |t| t.isa);
    let jobs = model.steps().filter_map(|s| if let Step::Dpu(job) = s { Some(job) } else { None });
    let piece = |job: shiftwise_core::model::DpuJob<'a>| Piece {
        name: job.name.into(),
        isa: Isa::Executed(version),
        code: model.job_code(&job),
        layers: Vec::new(),
    };
    Ok(jobs.map(piece).collect())
}

/// A file of raw code. Noise may well begin with a word that decodes: code is what decodes to its end.
///
/// Errors: [`Error::Format`]; `path` only appears in it.
pub fn raw_listing(path: &Path, isa: Isa, code: &[u8]) -> Result<String, Error> {
    let lines = isa.lines(code);
    let wrong = lines.iter().find_map(|(at, line)| Some((at, line.as_ref().err()?)));
    if code.is_empty() || wrong.is_some() {
        let at = wrong.map_or_else(String::new, |(at, e)| format!(": byte {at}: {e}"));
        let what = format!("is neither a deployable, nor an xmodel, nor {} code{at}", isa.name());
        return Err(Error::format(path, what));
    }
    let text = lines.into_iter().filter_map(|(_, l)| l.ok());
    Ok(text.fold(String::new(), |all, (line, _)| all + &line + "\n"))
}

/// A piece as text. Names may hold anything, and none makes a line.
fn write_piece(piece: &Piece<'_>, text: &mut String) {
    let name = |name: &str| OneLine(name).to_string();
    let _ = writeln!(text, "{ISA_REMARK}{}", piece.isa.name());
    let _ = writeln!(text, "; code {} ({} bytes)", name(&piece.name), piece.code.len());
    for (index, (at, line)) in (0u32..).zip(piece.isa.lines(piece.code)) {
        if let Some(l) = piece.layers.iter().find(|l| l.first == index) {
            let _ = writeln!(text, "; layer {}: {} instructions from {index}, {} MAC", name(&l.name), l.count, l.macs);
        }
        let _ = match line {
            Ok((line, _)) => writeln!(text, "{line}"),
            Err(e) => writeln!(text, "; byte {at}: {e}"),
        };
    }
}

/// The code of a vendor's program as text; `whole`: its operations on the CPU too, as remarks.
pub fn xmodel_listing(model: &Xmodel, pieces: &[Piece<'_>], whole: bool) -> String {
    let mut text = String::new();
    pieces.iter().for_each(|p| write_piece(p, &mut text));
    if whole {
        for run in model.root.children.iter().filter(|r| r.device == Device::Cpu) {
            for op in run.all_ops().into_iter().map(|i| &model.ops[i]).filter(|op| !op.is_const()) {
                let _ = writeln!(text, "; {} ({}) on the CPU", OneLine(&op.name), OneLine(&op.kind));
            }
        }
    }
    text
}

/// What `disasm` reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Listing {
    /// Its lines.
    pub listing: Vec<String>,
}

/// What `asm` reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Assembled {
    /// Instructions.
    pub instructions: usize,
    /// Bytes of code.
    pub bytes: usize,
    /// The file that they were written to.
    pub output: PathBuf,
}

/// What `disasm --check` reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RoundTrip {
    /// Pieces of code.
    pub pieces: usize,
    /// Their instruction sets, by name.
    pub isa: Vec<&'static str>,
    /// Instructions of all of them.
    pub instructions: usize,
    /// Bytes of all of them.
    pub bytes: usize,
    /// Instructions that don't encode back to their words: sentences.
    pub differences: Vec<String>,
}

/// Decodes and encodes all pieces; each word that doesn't come back is named.
pub fn round_trip(pieces: &[Piece<'_>]) -> RoundTrip {
    let (mut instructions, mut bytes, mut wrong) = (0usize, 0usize, Vec::new());
    for piece in pieces {
        let mut end = 0;
        for (at, line) in piece.isa.lines(piece.code) {
            let problem = match line {
                Err(e) => Some(e.to_string()),
                Ok((text, again)) => {
                    instructions += 1;
                    end = at + again.len();
                    let back = piece.isa.assemble(&text);
                    (!piece.code[at..].starts_with(&again) || again.is_empty() || back.as_ref() != Ok(&again))
                        .then(|| format!("`{text}` encodes to other words"))
                }
            };
            wrong.extend(problem.map(|p| format!("{}: byte {at}: {p}", piece.name)));
        }
        if end < piece.code.len() && wrong.is_empty() {
            wrong.push(format!("{}: {} bytes follow END", piece.name, piece.code.len() - end));
        }
        bytes += piece.code.len();
    }
    let isa: BTreeSet<&str> = pieces.iter().map(|p| p.isa.name()).collect();
    let isa = isa.into_iter().collect();
    RoundTrip { pieces: pieces.len(), isa, instructions, bytes, differences: wrong }
}

/// The code of a listing, and its number of instructions. `isa` counts until the listing says another with
/// [`ISA_REMARK`].
///
/// Errors: [`Error::Format`] with the line; [`Error::Target`]. `path` only appears in them.
pub fn assemble(path: &Path, text: &str, mut isa: Isa) -> Result<(Vec<u8>, usize), Error> {
    let mut code = Vec::new();
    let mut instructions = 0usize;
    for (number, line) in text.lines().enumerate() {
        if let Some(name) = line.strip_prefix(ISA_REMARK) {
            isa = Isa::named(name.trim())?;
            continue;
        }
        let line = line.split(';').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let bad = |why: String| Error::format(path, format!("line {}: {why}", number + 1));
        code.extend(isa.assemble(line).map_err(bad)?);
        instructions += 1;
    }
    Ok((code, instructions))
}
