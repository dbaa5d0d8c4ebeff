//! `shiftwise disasm`.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::json;
use shiftwise::Error;
use shiftwise_core::isa::codec;
use shiftwise_core::model::{CpuOp, Deployable, MAGIC, Step};
use shiftwise_core::target::IsaVersion;

use super::screen::Screen;
use super::{Outcome, backend};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A compiled model (.swm), or a file of raw DPUCZDX8G ISA1 code
    file: PathBuf,
}

/// The instructions of a deployable, one a line, under the layer that they came from.
pub(super) fn listing(model: &Deployable<'_>) -> Result<String, Error> {
    let target = backend::target_of(model)?;
    let mut text = String::new();
    for (index, step) in (0u16..).zip(model.steps()) {
        // Writing to a String cannot fail.
        match &step {
            Step::Dpu(job) => {
                let _ = writeln!(text, "# step {index}: {}", job.name);
                let isa = target.as_ref().map_or(IsaVersion::Dpuczdx8gIsa1, |t| t.isa);
                let layers: Vec<_> = model.layers().filter(|l| l.step == index).collect();
                for (n, line) in (0u32..).zip(code_lines(isa, model.job_code(job))) {
                    for l in layers.iter().filter(|l| l.first == n) {
                        let _ = writeln!(text, "# layer {}", l.layer);
                    }
                    let _ = writeln!(text, "{line}");
                }
            }
            Step::Cpu(CpuOp::View { .. }) => {}
            Step::Cpu(op) => {
                let name = model.tensor(op.output()).map_or("?", |t| t.name);
                let _ = writeln!(text, "# step {index}: {name} on the CPU");
            }
        }
    }
    Ok(text)
}

/// Raw code as text; a word that doesn't decode becomes a remark.
fn code_lines(isa: IsaVersion, code: &[u8]) -> impl Iterator<Item = String> {
    codec::program(isa, code).map(|(offset, line)| match line {
        Ok(line) => line.to_string(),
        Err(e) => format!("# byte {offset}: {e}"),
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
