//! `shiftwise disasm` and `shiftwise asm`.

use std::path::PathBuf;

use shiftwise::listing::{self, Assembled, ISA_REMARK, Isa, Listing, Piece};
use shiftwise::run;
use shiftwise_core::model::MAGIC;
use shiftwise_core::target::IsaVersion;
use shiftwise_formats as format;
use shiftwise_graph::error::Error;
use shiftwise_xmodel::{self as xmodel, Stream, Xmodel};

use crate::data;
use crate::outcome::Outcome;
use crate::screen::Screen;

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

/// The code of a vendor's program, of which there must be some.
fn pieces<'a>(args: &Args, model: &'a Xmodel) -> Result<Vec<Piece<'a>>, Error> {
    let only = args.subgraph.as_deref();
    let all = listing::xmodel_pieces(model, only)?;
    if !all.is_empty() {
        return Ok(all);
    }
    let names: Vec<String> = model.streams().iter().map(Stream::name).collect();
    Err(match only {
        _ if names.is_empty() => {
            Error::wrong_kind(&args.file, "is an xmodel without code: a quantized graph, not a compiled program")
        }
        Some(only) => Error::Options(format!("--subgraph {only}: the file has code for {}", names.join(", "))),
        None => Error::wrong_kind(&args.file, "has no code"),
    })
}

/// Decodes and encodes all pieces; the first words that don't come back are shown.
fn check(pieces: &[Piece<'_>], screen: &Screen) -> Result<Outcome, Error> {
    let report = listing::round_trip(pieces);
    let right = report.differences.is_empty();
    report.differences.iter().take(10).for_each(|w| screen.say(w));
    screen.say(format!(
        "{} pieces of {} code, {} instructions, {} bytes: {}",
        report.pieces,
        report.isa.join(" and "),
        report.instructions,
        report.bytes,
        if right { "all encode back to their words" } else { "not all encode back to their words" }
    ));
    Outcome::of(report, right)
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
    if is_xmodel {
        let model = xmodel::read(&args.file, &bytes)?;
        let pieces = pieces(args, &model)?;
        return match args.check {
            true => check(&pieces, screen),
            false => listed(&listing::xmodel_listing(&model, &pieces, args.subgraph.is_none()), screen),
        };
    }
    if is_model {
        let model = run::parse(&args.file, &bytes)?;
        return match args.check {
            true => check(&listing::pieces(&model)?, screen),
            false => listed(&listing::listing(&model)?, screen),
        };
    }
    if args.check {
        return check(&[Piece { name: "code".into(), isa, code: &bytes, layers: Vec::new() }], screen);
    }
    let text = listing::raw_listing(&args.file, isa, &bytes)?;
    let remark = if args.isa.is_some() { format!("{ISA_REMARK}{}\n", isa.name()) } else { String::new() };
    listed(&(remark + &text), screen)
}

fn listed(text: &str, screen: &Screen) -> Result<Outcome, Error> {
    screen.lines(text.trim_end());
    Outcome::done(Listing { listing: text.lines().map(str::to_owned).collect() })
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
    let isa = Isa::named(args.isa.as_deref().unwrap_or(IsaVersion::Dpuczdx8gIsa1.name()))?;
    let (code, instructions) = listing::assemble(&args.file, &text, isa)?;
    format::write_file(&args.output, &code)?;
    screen.say(format!("{instructions} instructions, {} bytes in {}", code.len(), args.output.display()));
    Outcome::done(Assembled { instructions, bytes: code.len(), output: args.output.clone() })
}
