//! `shiftwise disasm` and `shiftwise asm`.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::json;
use shiftwise::{Error, format};
use shiftwise_core::isa::{Line, codec};
use shiftwise_core::model::{CpuOp, Deployable, MAGIC, Step};
use shiftwise_core::target::IsaVersion;

use super::screen::Screen;
use super::{Outcome, backend, data};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A compiled model (.swm), or a file of raw DPUCZDX8G ISA1 code
    file: PathBuf,
}

/// The instructions of a deployable, one a line, under the layer that they came from; CPU steps as remarks.
pub(super) fn listing(model: &Deployable<'_>) -> Result<String, Error> {
    let isa = backend::target_of(model)?.map_or(IsaVersion::Dpuczdx8gIsa1, |t| t.isa);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = shiftwise_core::listing::write(model, isa, &mut text);
    for (index, step) in model.steps().enumerate() {
        if let Step::Cpu(op) = step
            && !matches!(op, CpuOp::View { .. })
        {
            let name = model.tensor(op.output()).map_or("?", |t| t.name);
            let _ = writeln!(text, "; step {index}: {name} on the CPU");
        }
    }
    Ok(text)
}

/// Raw code as text; a word that doesn't decode becomes a remark.
fn code_lines(isa: IsaVersion, code: &[u8]) -> impl Iterator<Item = String> {
    codec::program(isa, code).map(|(offset, line)| match line {
        Ok(line) => line.to_string(),
        Err(e) => format!("; byte {offset}: {e}"),
    })
}

pub(super) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let bytes = std::fs::read(&args.file).map_err(Error::io(&args.file))?;
    let text = if bytes.starts_with(&MAGIC) {
        listing(&backend::parse(&args.file, &bytes)?)?
    } else {
        let isa = IsaVersion::Dpuczdx8gIsa1;
        // Noise may well begin with a word that decodes: code is what decodes to its end.
        let wrong = codec::program(isa, &bytes).find_map(|(at, line)| Some((at, line.err()?)));
        if bytes.is_empty() || wrong.is_some() {
            let at = wrong.map_or_else(String::new, |(at, e)| format!(": byte {at}: {e}"));
            return Err(Error::format(&args.file, format!("is neither a deployable nor DPU code{at}")));
        }
        code_lines(isa, &bytes).map(|l| l + "\n").collect()
    };
    screen.say(text.trim_end());
    Outcome::done(json!({ "listing": text.lines().collect::<Vec<_>>() }))
}

#[derive(Debug, clap::Args)]
pub(super) struct AsmArgs {
    /// A listing; text behind `;` is ignored
    file: PathBuf,
    /// File of raw DPUCZDX8G ISA1 code to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub(super) fn assemble(args: &AsmArgs, screen: &Screen) -> Result<Outcome, Error> {
    data::keep([args.file.as_path()], &[&args.output])?;
    let text = std::fs::read_to_string(&args.file).map_err(Error::io(&args.file))?;
    let mut code = Vec::new();
    let mut instructions = 0usize;
    for (number, line) in text.lines().enumerate() {
        let line = line.split(';').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let bad = |why: String| Error::format(&args.file, format!("line {}: {why}", number + 1));
        let parsed: Line = line.parse().map_err(|e: codec::ListingError| bad(e.to_string()))?;
        let words = codec::encode(IsaVersion::Dpuczdx8gIsa1, &parsed).map_err(|e| bad(e.to_string()))?;
        code.extend(words.bytes());
        instructions += 1;
    }
    format::write_file(&args.output, &code)?;
    screen.say(format!("{instructions} instructions, {} bytes in {}", code.len(), args.output.display()));
    Outcome::done(json!({ "instructions": instructions, "bytes": code.len(), "output": args.output }))
}
