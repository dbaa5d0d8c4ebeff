//! Parts of a run that several processes share: one file each, joined to what one process gives.
//!
//! A *shard* is a range of a run's samples, whole batches of them. What a process learns of its shard goes into a part,
//! together with the arguments of the run; when all parts are there, the run is repeated with their answers in place of the work. So the
//! joined result is that of the code that a single process runs, and has its bytes.
//!
//! A part is JSON of the version [`VERSION`]: numbers in it are whole, floats are their bits.

use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shiftwise_formats as formats;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;
use shiftwise_tensor::tensor::Tensor;

/// The version of the format.
pub const VERSION: u64 = 1;
/// Bytes of a part at most: its numbers are counts, not samples.
const MOST_BYTES: u64 = 256 << 20;

/// The K of N processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// K, from 1 to N.
    pub number: usize,
    /// N.
    pub of: usize,
}

impl Shard {
    /// Shards at most: more processes than anybody has.
    const MOST: usize = 1 << 20;

    /// `K/N`.
    ///
    /// Errors: what is expected, as a clause.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
        let own = parsed.map(|(number, of)| Self { number, of });
        let fits = own.filter(|s| (1..=s.of).contains(&s.number) && s.of <= Self::MOST);
        fits.ok_or_else(|| "K/N is expected, the K-th of N shards, such as 1/8".into())
    }

    /// Its share of so many things, in their order: the shards' shares follow each other, and differ by one at most.
    ///
    /// Errors: fewer things than shards, of which some would have nothing to do.
    pub fn range(self, things: usize, what: &str) -> Result<Range<usize>, Error> {
        if things < self.of {
            return Err(Error::Options(format!(
                "{} shards of {things} {what}: at most {things} can share them",
                self.of
            )));
        }
        let cut = |k: usize| (things as u128 * k as u128 / self.of as u128) as usize;
        Ok(cut(self.number - 1)..cut(self.number))
    }

    /// Its share of so many samples, in whole batches of `batch`.
    ///
    /// Errors: fewer batches than shards.
    pub fn samples(self, samples: usize, batch: usize) -> Result<Range<usize>, Error> {
        let batches = self.range(samples.div_ceil(batch.max(1)), &format!("batches of {batch} samples"))?;
        Ok(batches.start * batch..(batches.end * batch).min(samples))
    }
}

/// A range of other samples.
pub struct Window<'s> {
    samples: &'s dyn Samples,
    range: Range<usize>,
}

impl std::fmt::Debug for Window<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Window").field("range", &self.range).finish_non_exhaustive()
    }
}

impl<'s> Window<'s> {
    /// Samples of this range, which must be within.
    pub fn new(samples: &'s dyn Samples, range: Range<usize>) -> Self {
        let end = range.end.min(samples.len());
        Self { samples, range: range.start.min(end)..end }
    }
}

impl Samples for Window<'_> {
    fn len(&self) -> usize {
        self.range.len()
    }

    fn batch(&self, start: usize, count: usize) -> Result<Vec<Tensor>, Error> {
        if start.checked_add(count).is_none_or(|end| end > self.len()) {
            return Err(Error::Dataset(format!("samples {start} and {count} more are past the end at {}", self.len())));
        }
        self.samples.batch(self.range.start + start, count)
    }
}

/// A part's file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// [`VERSION`].
    pub shiftwise_part: u64,
    /// The version of the program: another one may count otherwise.
    pub tool: String,
    /// The command that is shared, with its arguments less those about shards.
    pub arguments: Vec<String>,
    /// K.
    pub shard: usize,
    /// N.
    pub of: usize,
    /// SHA-256 of the models.
    pub models: Vec<String>,
    /// Samples of the whole run.
    pub samples: usize,
    /// What was learned of this shard, in the form of the command.
    pub answer: Value,
}

impl Part {
    /// Of one shard of a run.
    ///
    /// Errors: a model that can't be read.
    pub fn new(
        (command, shard): (Vec<String>, Shard),
        models: &[&Path],
        samples: usize,
        answer: Value,
    ) -> Result<Self, Error> {
        Ok(Self {
            shiftwise_part: VERSION,
            tool: env!("CARGO_PKG_VERSION").into(),
            arguments: command,
            shard: shard.number,
            of: shard.of,
            models: crate::provenance::digests(models)?,
            samples,
            answer,
        })
    }

    /// Writes its file.
    ///
    /// Errors: those of the file.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_string(self).map_err(|e| Error::Run(e.to_string()))?;
        formats::write_file(path, format!("{text}\n").as_bytes())
    }

    /// Reads a part; `None` for a file that is none.
    ///
    /// Errors: a file that can't be read, a part that is damaged or of another version.
    pub fn read(path: &Path) -> Result<Option<Self>, Error> {
        let size = std::fs::metadata(path).map_err(Error::io(path))?;
        if size.is_dir() || size.len() > MOST_BYTES {
            return Ok(None);
        }
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let Ok(value) = formats::json(&bytes) else { return Ok(None) };
        let Some(version) = value.get("shiftwise_part") else { return Ok(None) };
        if *version != VERSION {
            let what = format!("is a part of version {version}; this program has version {VERSION}");
            return Err(Error::format(path, what));
        }
        let own = serde_json::from_value::<Self>(value)
            .map_err(|e| Error::format(path, format!("is a damaged part: {e}")))?;
        Shard::parse(&format!("{}/{}", own.shard, own.of))
            .map_err(|e| Error::format(path, format!("is a part: {e}")))?;
        Ok(Some(own))
    }
}

/// What all shards of a run have answered, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Whole {
    /// The command, with its arguments.
    pub arguments: Vec<String>,
    /// SHA-256 of the models.
    pub models: Vec<String>,
    /// Samples of the run.
    pub samples: usize,
    /// A part's answer for each shard.
    pub answers: Vec<Value>,
}

impl Whole {
    /// Joins parts that were read in any order.
    ///
    /// Errors: a shard that is missing, or there twice; parts of different runs.
    pub fn of(mut parts: Vec<Part>) -> Result<Self, Error> {
        parts.sort_by_key(|part| part.shard);
        let Some(first) = parts.first().cloned() else {
            return Err(Error::Options("there is no part to merge".into()));
        };
        let other = |p: &&Part| {
            (&p.tool, &p.arguments, p.of, &p.models, p.samples)
                != (&first.tool, &first.arguments, first.of, &first.models, first.samples)
        };
        if let Some(other) = parts.iter().find(other) {
            return Err(Error::Options(format!(
                "the parts {}/{} and {}/{} are of different runs: of `{}` and `{}`, with other models, data or programs",
                first.shard,
                first.of,
                other.shard,
                other.of,
                first.arguments.join(" "),
                other.arguments.join(" ")
            )));
        }
        if first.tool != env!("CARGO_PKG_VERSION") {
            let own = env!("CARGO_PKG_VERSION");
            return Err(Error::Options(format!("the parts are of version {}, this program is {own}", first.tool)));
        }
        if let Some(pair) = parts.windows(2).find(|pair| pair[0].shard == pair[1].shard) {
            return Err(Error::Options(format!("shard {}/{} is there twice", pair[0].shard, first.of)));
        }
        let has = |k: &usize| parts.iter().any(|part| part.shard == *k);
        let missing: Vec<String> =
            (1..=first.of).filter(|k| !has(k)).take(10).map(|k| format!("{k}/{}", first.of)).collect();
        if !missing.is_empty() {
            return Err(Error::Options(format!("parts are missing: {}", missing.join(", "))));
        }
        let answers = parts.into_iter().map(|part| part.answer).collect();
        Ok(Self { arguments: first.arguments, models: first.models, samples: first.samples, answers })
    }

    /// Refuses other models, or another number of samples, than the parts are of.
    ///
    /// Errors: those, and a model that can't be read.
    pub fn check(&self, models: &[&Path], samples: usize) -> Result<(), Error> {
        if crate::provenance::digests(models)? != self.models {
            return Err(Error::Options("the parts are of other models than the files that are there now".into()));
        }
        if samples != self.samples {
            return Err(Error::Options(format!(
                "the parts are of {} samples, and {samples} are there now",
                self.samples
            )));
        }
        Ok(())
    }

    /// The answers in the form of a command.
    ///
    /// Errors: answers of another form.
    pub fn answers<T: serde::de::DeserializeOwned>(&self) -> Result<Vec<T>, Error> {
        let one = |answer: &Value| {
            serde_json::from_value(answer.clone())
                .map_err(|e| Error::Options(format!("a part has a damaged answer: {e}")))
        };
        self.answers.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_all_shards_follow_each_other_and_cover_everything() {
        for (things, of) in [(1, 1), (7, 3), (8, 8), (1000, 7), (64, 5)] {
            let shares: Vec<Range<usize>> =
                (1..=of).map(|number| Shard { number, of }.range(things, "things").unwrap()).collect();
            assert_eq!((shares[0].start, shares[of - 1].end), (0, things));
            assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start));
            let sizes = shares.iter().map(Range::len);
            assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
        }
        assert!(Shard { number: 1, of: 3 }.range(2, "things").is_err());
        assert_eq!(Shard { number: 2, of: 2 }.samples(130, 64).unwrap(), 64..130);
    }

    #[test]
    fn a_shard_is_one_of_all_counted_from_one() {
        assert_eq!(Shard::parse("2/8"), Ok(Shard { number: 2, of: 8 }));
        for bad in ["", "2", "0/3", "4/3", "1/0", "-1/2", "1/9999999999", "a/b", "1/2/3"] {
            assert!(Shard::parse(bad).is_err(), "{bad}");
        }
    }

    fn part(shard: usize) -> Part {
        let (tool, arguments) = (env!("CARGO_PKG_VERSION").to_owned(), vec!["evaluate".to_owned()]);
        Part {
            shiftwise_part: VERSION,
            tool,
            arguments,
            shard,
            of: 3,
            models: Vec::new(),
            samples: 9,
            answer: shard.into(),
        }
    }

    #[test]
    fn parts_in_any_order_are_joined_and_every_shard_must_be_there_once() {
        let joined = Whole::of(vec![part(3), part(1), part(2)]).unwrap();
        assert_eq!(joined.answers::<usize>().unwrap(), [1, 2, 3]);
        let refused = |parts: Vec<Part>| Whole::of(parts).unwrap_err().to_string();
        assert!(refused(vec![part(1), part(3)]).contains("missing: 2/3"));
        assert!(refused(vec![part(1), part(2), part(2), part(3)]).contains("twice"));
        assert!(refused(Vec::new()).contains("no part"));
        let other = Part { samples: 8, ..part(2) };
        assert!(refused(vec![part(1), other, part(3)]).contains("different runs"));
        assert!(Whole::of(vec![part(1), part(2), part(3)]).unwrap().answers::<String>().is_err());
    }
}
