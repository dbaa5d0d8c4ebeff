//! `--shard` and `shiftwise merge`: runs that several processes share.

use std::path::{Path, PathBuf};

use serde_json::Value;
use shiftwise::part::{Part, Shard, Whole};
use shiftwise::reports::Sharded;
use shiftwise_graph::error::Error;

use crate::given;
use crate::outcome::Outcome;
use crate::screen::Screen;

/// Which part of a run is done, and where it goes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ShardArgs {
    /// Do the K-th of N parts of the work and write what it gives to a file; `merge` joins the files of all N
    #[arg(long, value_name = "K/N", value_parser = Shard::parse)]
    shard: Option<Shard>,
    /// The part's file [default: COMMAND-K-of-N.part]
    #[arg(long, value_name = "FILE", requires = "shard")]
    part: Option<PathBuf>,
}

impl ShardArgs {
    /// The shard, if the run is one.
    pub(crate) fn shard(&self) -> Option<Shard> {
        self.shard
    }

    /// Where the part goes.
    pub(crate) fn file(&self, command: &str, shard: Shard) -> PathBuf {
        let default = || PathBuf::from(format!("{command}-{}-of-{}.part", shard.number, shard.of));
        self.part.clone().unwrap_or_else(default)
    }

    /// Writes a part with what its shard of so many samples gave. `total` is the whole run's.
    pub(crate) fn write(
        &self,
        (command, shard): (&str, Shard),
        models: &[&Path],
        (total, own): (usize, usize),
        answer: Value,
        screen: &Screen,
    ) -> Result<Outcome, Error> {
        let file = self.file(command, shard);
        crate::data::keep(models.iter().copied(), &[&file])?;
        Part::new((arguments()?, shard), models, total, answer)?.write(&file)?;
        screen.say(format!("part {}/{}, {own} of {total} samples, in {}", shard.number, shard.of, file.display()));
        Outcome::done(Sharded { part: file, shard: shard.number, of: shard.of, samples: own })
    }
}

/// The arguments of this run, less those about shards and those about what is printed.
fn arguments() -> Result<Vec<String>, Error> {
    let words = given::arguments().into_iter().skip(1).map(std::ffi::OsString::into_string);
    let words = words.collect::<Result<Vec<String>, _>>();
    let words = words.map_err(|_| Error::Options("a part holds the arguments, which must be Unicode".into()))?;
    let (mut kept, mut skip) = (Vec::new(), false);
    for word in words {
        if std::mem::take(&mut skip) {
            continue;
        }
        match word.as_str() {
            "--shard" | "--part" | "--threads" => skip = true,
            "--json" | "-q" | "--quiet" => {}
            other if ["--shard=", "--part=", "--threads="].iter().any(|start| other.starts_with(start)) => {}
            _ => kept.push(word),
        }
    }
    Ok(kept)
}

/// Commands to begin with; behind the options.
const EXAMPLES: &str = "\
Examples:
  shiftwise evaluate quantized.h5 --data images.npy --labels labels.npy --shard 1/2
  shiftwise evaluate quantized.h5 --data images.npy --labels labels.npy --shard 2/2
  shiftwise merge evaluate-1-of-2.part evaluate-2-of-2.part

The parts hold the arguments: merge is started in the same folder, and reads the same models and data.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Parts of one run, in any order
    #[arg(required = true, value_name = "PART")]
    parts: Vec<PathBuf>,
}

impl Args {
    /// All parts, joined.
    pub(crate) fn whole(&self) -> Result<Whole, Error> {
        let one = |path: &PathBuf| match Part::read(path)? {
            Some(part) => Ok(part),
            None => Err(Error::format(path, "is no part of a run: `--shard K/N` writes such")),
        };
        Whole::of(self.parts.iter().map(one).collect::<Result<_, Error>>()?)
    }
}
