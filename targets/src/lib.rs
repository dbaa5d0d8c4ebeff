//! DPU targets and boards: data files in `dpu/` and `boards/`, looked up by name, `arch.json` or fingerprint.
//!
//! This crate turns files into [`shiftwise_core::target::Target`] and [`Board`]; how a DPU behaves is not its business.
//! Targets that nothing can be compiled for are [`Description`]s: what is public about them, and what is missing.

pub mod parse;
pub mod timing;

use std::path::Path;

pub use parse::{
    Board, Description, DpuPort, Emulator, Firmware, Measured, MemoryRange, Processor, Range, RegisterLayout,
};
use shiftwise_core::target::Target;
pub use timing::Timing;

include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// A target's data file.
struct DpuFile {
    /// Its name, which is the target's.
    name: &'static str,
    /// The target's fingerprint; 0 if it has none.
    fingerprint: u64,
    /// Whether it is a description only.
    described: bool,
    text: &'static str,
}

impl DpuFile {
    fn parse(&self) -> Result<Entry, Error> {
        if self.described {
            parse::description(self.name, self.text).map(|d| Entry::Description(Box::new(d)))
        } else {
            parse::target(self.name, self.text).map(|t| Entry::Target(Box::new(t)))
        }
    }
}

/// What is known under a target's name.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// A target that programs are compiled for and run on.
    Target(Box<Target>),
    /// A target that is described only.
    Description(Box<Description>),
}

impl Entry {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Target(t) => &t.name,
            Self::Description(d) => &d.name,
        }
    }

    fn target(self) -> Result<Target, Error> {
        match self {
            Self::Target(t) => Ok(*t),
            Self::Description(d) => Err(Error::Described { name: d.name, missing: d.missing }),
        }
    }
}

/// Why a target or board was not found or is not usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such name or fingerprint.
    #[error("unknown {what} `{asked}`{}", suggestion(.near))]
    Unknown {
        /// `target` or `board`.
        what: &'static str,
        /// What was asked for.
        asked: String,
        /// Names close to it, or the closest ones if none is close.
        near: Vec<String>,
    },
    /// A target that is described only.
    #[error("{name} is described only, nothing is compiled for it or simulated: {missing}")]
    Described {
        /// Its name.
        name: String,
        /// What is missing.
        missing: String,
    },
    /// A file that cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An `arch.json` without a `target` or `fingerprint`.
    #[error("`{path}` is no arch.json: it needs a `target` or a `fingerprint`")]
    Arch {
        /// The file.
        path: String,
    },
    /// A data file that is not TOML of the expected form.
    #[error("`{file}` is no target or board description: {}", source.message())]
    Toml {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A description that contradicts itself.
    #[error("`{file}`: {fault}")]
    Invalid {
        /// The file.
        file: String,
        /// What is wrong.
        fault: String,
    },
}

fn suggestion(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(", ")) }
}

/// All targets that programs are compiled for, in order of peak performance.
pub fn targets() -> Vec<Target> {
    // The shipped files are checked by a test, so that none is dropped here.
    let executed = DPU_FILES.iter().filter(|f| !f.described);
    let mut all: Vec<Target> = executed.filter_map(|f| parse::target(f.name, f.text).ok()).collect();
    all.sort_by_key(Target::peak_ops_per_cycle);
    all
}

/// All targets that are described only, by name.
pub fn descriptions() -> Vec<Description> {
    let described = DPU_FILES.iter().filter(|f| f.described);
    described.filter_map(|f| parse::description(f.name, f.text).ok()).collect()
}

/// Whether a target of this name is known, of either kind.
pub(crate) fn is_target(name: &str) -> bool {
    DPU_FILES.iter().any(|f| f.name == name)
}

/// All boards, by name.
pub fn boards() -> Vec<Board> {
    BOARD_FILES.iter().filter_map(|(name, text)| parse::board(name, text).ok()).collect()
}

/// A target by name (any case; `B4096` for `DPUCZDX8G_ISA1_B4096`), by fingerprint in hex (`0x…`), by the path of
/// an `arch.json`, or by the path of a TOML description.
///
/// A fingerprint that is not in the data but has the size, ALU width and bank groups of a known DPU gives that DPU under
/// the vendor's long name: the other feature bits (argmax, mean, leaky ReLU) do not change what is compiled here.
///
/// Errors: [`Error::Unknown`] with near misses; [`Error::Described`] for a target that nothing is compiled for; file
/// errors for paths.
pub fn find(asked: &str) -> Result<Target, Error> {
    find_entry(asked)?.target()
}

/// As [`find`], for targets that are described only too.
///
/// Errors: [`Error::Unknown`] with near misses; file errors for paths.
pub fn find_entry(asked: &str) -> Result<Entry, Error> {
    match Path::new(asked).extension().and_then(|e| e.to_str()) {
        Some("json") => arch(asked),
        Some("toml") => parse::entry(asked, &read(asked)?),
        _ => find_name(asked),
    }
}

/// A target by what a file says: a name or a fingerprint as [`find`] takes it, and never a path, so that no file
/// decides which other file is opened.
///
/// Errors: [`Error::Unknown`] with near misses; [`Error::Described`] for a target that nothing is compiled for.
pub fn named(name: &str) -> Result<Target, Error> {
    find_name(name)?.target()
}

fn find_name(asked: &str) -> Result<Entry, Error> {
    if let Some(hex) = asked.strip_prefix("0x").or_else(|| asked.strip_prefix("0X")) {
        let known = DPU_FILES.iter().filter(|f| f.fingerprint != 0);
        return u64::from_str_radix(hex, 16).ok().and_then(by_fingerprint).ok_or_else(|| Error::Unknown {
            what: "target",
            asked: asked.into(),
            near: known.map(|f| format!("{} ({:#018x})", f.name, f.fingerprint)).take(8).collect(),
        });
    }
    let short = |f: &DpuFile| f.name.rsplit('_').next().unwrap_or_default().to_ascii_lowercase();
    let lower = asked.to_ascii_lowercase();
    let named = DPU_FILES.iter().find(|f| f.name.eq_ignore_ascii_case(asked));
    // Short names are those of the executed ones.
    let executed = || DPU_FILES.iter().filter(|f| !f.described);
    if let Some(file) = named.or_else(|| executed().find(|f| short(f) == lower)) {
        return file.parse();
    }
    let names = executed().map(|f| (short(f), f.name));
    let names = names.chain(DPU_FILES.iter().map(|f| (f.name.to_ascii_lowercase(), f.name)));
    Err(Error::Unknown { what: "target", asked: asked.into(), near: near(&lower, names) })
}

/// A board by name (any case) or by the path of a TOML description.
///
/// Errors: [`Error::Unknown`] with near misses; file errors for paths.
pub fn find_board(asked: &str) -> Result<Board, Error> {
    if Path::new(asked).extension().is_some_and(|e| e == "toml") {
        return parse::board(asked, &read(asked)?);
    }
    let all = boards();
    if let Some(board) = all.iter().find(|b| b.name.eq_ignore_ascii_case(asked)) {
        return Ok(board.clone());
    }
    let near = near(&asked.to_ascii_lowercase(), all.iter().map(|b| (b.name.clone(), &b.name)));
    Err(Error::Unknown { what: "board", asked: asked.into(), near })
}

fn read(path: &str) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.into(), source })
}

fn arch(path: &str) -> Result<Entry, Error> {
    let text = read(path)?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|_| Error::Arch { path: path.into() })?;
    let field = |name: &str| json.get(name).and_then(|v| v.as_str());
    match (field("target"), field("fingerprint")) {
        (Some(name), _) => find_name(name),
        (_, Some(hex)) if hex.starts_with("0x") || hex.starts_with("0X") => find_name(hex),
        (_, Some(hex)) => find_name(&format!("0x{hex}")),
        _ => Err(Error::Arch { path: path.into() }),
    }
}

fn by_fingerprint(fingerprint: u64) -> Option<Entry> {
    let is = |f: &&DpuFile| f.fingerprint == fingerprint && fingerprint != 0;
    if let Some(known) = DPU_FILES.iter().find(is) {
        return known.parse().ok();
    }
    // Type and ISA version, image bank groups 25..24, channel augmentation 26, ALU width 11..8, size 3..0. DOC
    const SAME: u64 = 0xFFFF_0000_0700_0F0F;
    let like = DPU_FILES.iter().find(|f| !f.described && f.fingerprint & SAME == fingerprint & SAME)?;
    let like = parse::target(like.name, like.text).ok()?;
    let name = format!("{}_{fingerprint:016X}", like.name);
    Some(Entry::Target(Box::new(Target { name: name.parse().ok()?, fingerprint, ..like })))
}

/// The three names whose key is closest to `asked`; none for what is too long to be meant as a name.
fn near<N: ToString>(asked: &str, names: impl Iterator<Item = (String, N)>) -> Vec<String> {
    if asked.len() > 100 {
        return Vec::new();
    }
    let mut scored: Vec<(usize, String)> = names.map(|(key, name)| (distance(asked, &key), name.to_string())).collect();
    scored.sort();
    let mut out: Vec<String> = Vec::new();
    for (_, name) in scored {
        if !out.contains(&name) && out.len() < 3 {
            out.push(name);
        }
    }
    out
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let best = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = best;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// How a board is added; its example is compiled and run here.
#[cfg(doctest)]
#[doc = include_str!("../../docs/new-board.md")]
struct NewBoard;

#[cfg(test)]
mod tests {
    use shiftwise_core::target::BankKind;

    use super::*;

    #[test]
    fn every_shipped_file_is_valid() {
        for f in DPU_FILES {
            let entry = f.parse().unwrap_or_else(|e| panic!("{e}: {:?}", std::error::Error::source(&e)));
            assert_eq!(entry.name(), f.name, "the file's name is the target's");
            let fingerprint = match &entry {
                Entry::Target(t) => t.fingerprint,
                Entry::Description(d) => d.fingerprint.unwrap_or(0),
            };
            assert_eq!(fingerprint, f.fingerprint, "{}", f.name);
        }
        for (name, text) in BOARD_FILES {
            let b = parse::board(name, text).unwrap_or_else(|e| panic!("{e}: {:?}", std::error::Error::source(&e)));
            assert_eq!(b.name, *name);
        }
        assert_eq!((targets().len() + descriptions().len(), boards().len()), (DPU_FILES.len(), BOARD_FILES.len()));
        assert_eq!((targets().len(), descriptions().len()), (8, 76));
    }

    #[test]
    fn what_a_file_says_is_a_name_and_opens_no_file() {
        let folder = std::env::temp_dir().join(format!("shiftwise-named-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let own = folder.join("own.toml");
        std::fs::write(&own, include_str!("../dpu/DPUCZDX8G_ISA1_B512.toml")).unwrap();
        let own = own.to_str().unwrap();
        assert_eq!(find(own).unwrap().name, "DPUCZDX8G_ISA1_B512");
        assert!(matches!(named(own), Err(Error::Unknown { .. })));
        // A file that names itself, one that names another, and one of a board.
        let arch = folder.join("arch.json");
        for target in [arch.to_str().unwrap(), own, "0xZZ"] {
            std::fs::write(&arch, serde_json::json!({ "target": target }).to_string()).unwrap();
            assert!(matches!(find(arch.to_str().unwrap()), Err(Error::Unknown { .. })), "{target}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(named("b4096").unwrap(), find("B4096").unwrap());
        assert_eq!(named("0x0101000056010407").unwrap(), find("B4096").unwrap());
    }

    #[test]
    fn few_names_are_suggested() {
        for asked in ["nothing like it", "B9", "x", ""] {
            let Err(Error::Unknown { near, .. }) = find(asked) else { panic!("{asked}") };
            assert_eq!(near.len(), 3, "{asked}: {near:?}");
        }
        let Err(Error::Unknown { near, .. }) = find(&"a".repeat(100_000)) else { panic!("a long name") };
        assert!(near.is_empty());
    }

    #[test]
    fn peak_is_the_number_in_the_name() {
        let all = targets();
        assert_eq!(all.len(), 8);
        for t in all {
            assert!(t.name.ends_with(&format!("_B{}", t.peak_ops_per_cycle())), "{}", t.name);
        }
    }

    #[test]
    fn names_fingerprints_and_near_misses() {
        let b4096 = find("DPUCZDX8G_ISA1_B4096").unwrap();
        assert_eq!(find("b4096").unwrap(), b4096);
        assert_eq!(find("0x0101000056010407").unwrap(), b4096);
        assert_eq!(b4096.bank_bytes(), (512 + 512 + 32 + 32) * 1024);
        let bias = b4096.bank(33).unwrap();
        assert_eq!((bias.group.kind, bias.offset), (BankKind::Bias, (1024 + 32) * 1024));
        assert_eq!(b4096.bank(34), None);
        let message = find("DPUCZDX8G_ISA1_B4069").unwrap_err().to_string();
        assert!(message.contains("did you mean DPUCZDX8G_ISA1_B4096"), "{message}");
        assert!(find_board("kv26").unwrap_err().to_string().contains("kv260"));
        assert_eq!(find_board("KV260").unwrap().cores, 1);
    }

    #[test]
    fn a_fingerprint_with_other_feature_bits_is_the_same_size_under_its_long_name() {
        let t = find("0x0101000016010407").unwrap();
        assert_eq!(t.name, "DPUCZDX8G_ISA1_B4096_0101000016010407");
        assert_eq!(t.pixel_parallel, 8);
        assert!(find("0x0201000016010407").is_err());
    }

    #[test]
    fn described_targets_are_found_and_say_what_is_missing() {
        for asked in ["dpucvdx8g_isa3_c32b6", "0x0603000b56011861"] {
            let Entry::Description(d) = find_entry(asked).unwrap() else { panic!("{asked} is executed") };
            assert_eq!((d.name.as_str(), d.batch, d.parallelism.peak_ops_per_cycle), ("DPUCVDX8G_ISA3_C32B6", 6, 8192));
            let error = find(asked).unwrap_err();
            assert!(
                error.to_string().contains("described only") && error.to_string().contains("AI engines"),
                "{error}"
            );
        }
        let older = find("DPUCZDX8G_ISA0_B4096_MAX_BG2").unwrap_err().to_string();
        assert!(older.contains("only LOAD and SAVE"), "{older}");
        let near = find("DPUCVDX8G_ISA3_C32B7").unwrap_err().to_string();
        assert!(near.contains("did you mean DPUCVDX8G_ISA3_C32B"), "{near}");
    }

    #[test]
    fn arch_json_names_a_target_or_a_fingerprint() {
        let folder = std::env::temp_dir().join(format!("shiftwise-targets-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("arch.json");
        let ask = |text: &str| {
            std::fs::write(&file, text).unwrap();
            find(file.to_str().unwrap())
        };
        assert_eq!(ask(r#"{"fingerprint":"0x101000056010407"}"#).unwrap().name, "DPUCZDX8G_ISA1_B4096");
        assert_eq!(ask(r#"{"target":"DPUCZDX8G_ISA1_B512"}"#).unwrap().name, "DPUCZDX8G_ISA1_B512");
        assert!(matches!(ask("{}"), Err(Error::Arch { .. })));
        assert!(matches!(ask("B512"), Err(Error::Arch { .. })));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(matches!(find("nowhere/arch.json"), Err(Error::Read { .. })));
    }
}
