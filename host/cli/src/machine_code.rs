//! `shiftwise disasm` and `shiftwise asm`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use shiftwise_core::isa::codec::{DecodeError, ListingError};
use shiftwise_core::isa::described::InstructionSet;
use shiftwise_core::isa::{Line, codec};
use shiftwise_core::listing::OneLine;
use shiftwise_core::model::{CpuOp, Deployable, MAGIC, Step};
use shiftwise_core::target::IsaVersion;
use shiftwise_formats as format;
use shiftwise_graph::error::Error;
use shiftwise_xmodel::{self as xmodel, Device, Stream, Xmodel, spans};

use crate::data;
use crate::outcome::Outcome;
use crate::screen::Screen;
use shiftwise::run;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A compiled model (.swm), a vendor-compiled .xmodel, or a file of raw code
    file: PathBuf,
    /// Instruction set of raw code [default: DPUCZDX8G_ISA1]
    #[arg(long, value_name = "ISA")]
    isa: Option<String>,
    /// Of an .xmodel: only this code, SUBGRAPH or SUBGRAPH/LAYER as the listing names it
    #[arg(long, value_name = "NAME")]
    subgraph: Option<String>,
    /// No listing: decode everything, encode it again, and compare the words; exit with 1 at any difference
    #[arg(long)]
    check: bool,
}

/// An instruction's text and bytes, or why there is none.
type Decoded = Result<(String, Vec<u8>), DecodeError>;

/// An instruction set that can be listed and encoded.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Isa {
    /// The one that is executed too.
    Executed(IsaVersion),
    /// One that is described only.
    Described(&'static InstructionSet),
}

impl Isa {
    /// By name, in any case.
    pub(crate) fn named(name: &str) -> Result<Self, Error> {
        let executed = IsaVersion::ALL.iter().find(|v| v.name().eq_ignore_ascii_case(name));
        let described = || InstructionSet::named(name).map(Self::Described);
        executed.map(|v| Self::Executed(*v)).or_else(described).ok_or_else(|| {
            let names = IsaVersion::ALL.iter().map(|v| v.name());
            let names: Vec<&str> = names.chain(InstructionSet::all_names()).collect();
            Error::Target(format!("unknown instruction set `{name}`; known are {}", names.join(", ")))
        })
    }

    /// That of a target's fingerprint.
    pub(crate) fn of_fingerprint(fingerprint: u64) -> Option<Self> {
        let described = || InstructionSet::of_fingerprint(fingerprint).map(Self::Described);
        IsaVersion::of_fingerprint(fingerprint).map(Self::Executed).or_else(described)
    }

    /// The vendor's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Executed(version) => version.name(),
            Self::Described(set) => set.name,
        }
    }

    /// The instructions of `code` as offset, text and bytes; the last may be an error.
    fn lines(self, code: &[u8]) -> Vec<(usize, Decoded)> {
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
    fn assemble(self, text: &str) -> Result<Vec<u8>, String> {
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
const ISA_REMARK: &str = "; isa ";

/// The instructions of a deployable, one a line, under the layer that they came from; CPU steps as remarks.
pub(crate) fn listing(model: &Deployable<'_>) -> Result<String, Error> {
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
struct Piece<'a> {
    name: String,
    isa: Isa,
    code: &'a [u8],
    layers: Vec<spans::Layer>,
}

/// The instruction set of a subgraph.
///
/// Errors: a target that no public instruction set is known of.
pub(crate) fn isa_of(run: &xmodel::Subgraph) -> Result<Isa, Error> {
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

fn pieces<'a>(path: &Path, model: &'a Xmodel, only: Option<&str>) -> Result<Vec<Piece<'a>>, Error> {
    let mut all = Vec::new();
    for stream in model.streams() {
        let name = stream.name();
        if only.is_some_and(|only| only != name) {
            continue;
        }
        let isa = isa_of(stream.run)?;
        all.push(Piece { layers: layers(model, &stream, isa), name, isa, code: stream.code });
    }
    if all.is_empty() {
        let names: Vec<String> = model.streams().iter().map(Stream::name).collect();
        return Err(match only {
            _ if names.is_empty() => {
                Error::wrong_kind(path, "is an xmodel without code: a quantized graph, not a compiled program")
            }
            Some(only) => Error::Options(format!("--subgraph {only}: the file has code for {}", names.join(", "))),
            None => Error::wrong_kind(path, "has no code"),
        });
    }
    Ok(all)
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

fn xmodel_listing(model: &Xmodel, pieces: &[Piece<'_>], whole: bool) -> String {
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

/// Decodes and encodes all pieces; the first word that doesn't come back is named.
fn check(pieces: &[Piece<'_>], screen: &Screen) -> Outcome {
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
    wrong.iter().take(10).for_each(|w| screen.say(w));
    let names: std::collections::BTreeSet<&str> = pieces.iter().map(|p| p.isa.name()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    screen.say(format!(
        "{} pieces of {} code, {instructions} instructions, {bytes} bytes: {}",
        pieces.len(),
        names.join(" and "),
        if wrong.is_empty() { "all encode back to their words" } else { "not all encode back to their words" }
    ));
    let json = json!({
        "pieces": pieces.len(), "isa": names, "instructions": instructions, "bytes": bytes, "differences": wrong,
    });
    Outcome { json, yes: wrong.is_empty() }
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let bytes = std::fs::read(&args.file).map_err(Error::io(&args.file))?;
    let isa = Isa::named(args.isa.as_deref().unwrap_or(IsaVersion::Dpuczdx8gIsa1.name()))?;
    let is_model = bytes.starts_with(&MAGIC);
    let is_xmodel = !is_model && xmodel::is_xmodel(&bytes);
    if args.subgraph.is_some() && !is_xmodel {
        return Err(Error::Options("--subgraph is for .xmodel files".into()));
    }
    if args.isa.is_some() && (is_model || is_xmodel) {
        return Err(Error::Options("--isa is for raw code; the file says its own".into()));
    }
    let model;
    let deployable;
    let pieces = if is_xmodel {
        model = xmodel::read(&args.file, &bytes)?;
        let pieces = pieces(&args.file, &model, args.subgraph.as_deref())?;
        if !args.check {
            return listed(&xmodel_listing(&model, &pieces, args.subgraph.is_none()), screen);
        }
        pieces
    } else if is_model {
        deployable = run::parse(&args.file, &bytes)?;
        if !args.check {
            return listed(&listing(&deployable)?, screen);
        }
        let version = run::target_of(&deployable)?.map_or(IsaVersion::Dpuczdx8gIsa1, |t| t.isa);
        let jobs = deployable.steps().filter_map(|s| if let Step::Dpu(job) = s { Some(job) } else { None });
        jobs.map(|job| Piece {
            name: job.name.into(),
            isa: Isa::Executed(version),
            code: deployable.job_code(&job),
            layers: Vec::new(),
        })
        .collect()
    } else {
        let piece = Piece { name: "code".into(), isa, code: &bytes, layers: Vec::new() };
        let lines = isa.lines(&bytes);
        // Noise may well begin with a word that decodes: code is what decodes to its end.
        let wrong = lines.iter().find_map(|(at, line)| Some((at, line.as_ref().err()?)));
        if !args.check && (bytes.is_empty() || wrong.is_some()) {
            let at = wrong.map_or_else(String::new, |(at, e)| format!(": byte {at}: {e}"));
            let what = format!("is neither a deployable, nor an xmodel, nor {} code{at}", isa.name());
            return Err(Error::format(&args.file, what));
        }
        if !args.check {
            let mut text = String::new();
            if args.isa.is_some() {
                let _ = writeln!(text, "{ISA_REMARK}{}", isa.name());
            }
            lines.into_iter().filter_map(|(_, l)| l.ok()).for_each(|(l, _)| text.push_str(&(l + "\n")));
            return listed(&text, screen);
        }
        vec![piece]
    };
    Ok(check(&pieces, screen))
}

fn listed(text: &str, screen: &Screen) -> Result<Outcome, Error> {
    screen.lines(text.trim_end());
    Outcome::done(json!({ "listing": text.lines().collect::<Vec<_>>() }))
}

#[derive(Debug, clap::Args)]
pub(crate) struct AsmArgs {
    /// A listing; text behind `;` is ignored
    file: PathBuf,
    /// Instruction set, where the listing doesn't say it with `; isa NAME` [default: DPUCZDX8G_ISA1]
    #[arg(long, value_name = "ISA")]
    isa: Option<String>,
    /// File of raw code to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub(crate) fn assemble(args: &AsmArgs, screen: &Screen) -> Result<Outcome, Error> {
    data::keep([args.file.as_path()], &[&args.output])?;
    let text = std::fs::read_to_string(&args.file).map_err(Error::io(&args.file))?;
    let mut isa = Isa::named(args.isa.as_deref().unwrap_or(IsaVersion::Dpuczdx8gIsa1.name()))?;
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
        let bad = |why: String| Error::format(&args.file, format!("line {}: {why}", number + 1));
        code.extend(isa.assemble(line).map_err(bad)?);
        instructions += 1;
    }
    format::write_file(&args.output, &code)?;
    screen.say(format!("{instructions} instructions, {} bytes in {}", code.len(), args.output.display()));
    Outcome::done(json!({ "instructions": instructions, "bytes": code.len(), "output": args.output }))
}
