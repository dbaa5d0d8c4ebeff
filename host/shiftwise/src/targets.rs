//! What there is to compile for: DPUs and boards.

use serde::Serialize;
use shiftwise_core::isa::described::InstructionSet;
use shiftwise_core::target::Target;
use shiftwise_graph::error::Error;
use shiftwise_targets::{Board, Description, Entry};

/// What can be done with an executed target.
pub const USES: &str = "compile, simulate";

/// What `targets` reports of all of them.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TargetList {
    /// DPUs that programs are compiled for and simulated on.
    pub targets: Vec<TargetRow>,
    /// DPUs that are only described.
    pub descriptions: Vec<DescriptionRow>,
    /// Boards.
    pub boards: Vec<Board>,
}

/// A DPU that programs are compiled for.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TargetRow {
    /// Its name.
    pub name: String,
    /// Its fingerprint, in hexadecimal.
    pub fingerprint: String,
    /// What can be done with it.
    #[serde(rename = "use")]
    pub uses: &'static str,
}

/// A DPU that is only described.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DescriptionRow {
    /// Its name.
    pub name: String,
    /// Its fingerprint, in hexadecimal, if it has one.
    pub fingerprint: Option<String>,
    /// What is missing before programs could be compiled for it.
    pub missing: String,
    /// The instruction set in which its code is listed, if it is.
    pub isa: Option<&'static str>,
}

/// What `targets NAME` reports.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum OneTarget {
    /// A DPU that programs are compiled for.
    Target(#[cfg_attr(feature = "schema", schemars(with = "serde_json::Value"))] Box<Target>),
    /// A DPU that is only described.
    Description(Box<Description>),
    /// A board.
    Board(Box<Board>),
}

/// All targets and boards.
pub fn list() -> TargetList {
    let hex = |fingerprint: u64| format!("{fingerprint:#018x}");
    let target =
        |t: Target| TargetRow { name: t.name.as_str().to_owned(), fingerprint: hex(t.fingerprint), uses: USES };
    let description = |d: Description| DescriptionRow {
        isa: instruction_set(&d),
        name: d.name,
        fingerprint: d.fingerprint.map(hex),
        missing: d.missing,
    };
    TargetList {
        targets: shiftwise_targets::targets().into_iter().map(target).collect(),
        descriptions: shiftwise_targets::descriptions().into_iter().map(description).collect(),
        boards: shiftwise_targets::boards(),
    }
}

/// A target by name, fingerprint or `arch.json`, or a board by name.
///
/// Errors: [`Error::Target`].
pub fn one(name: &str) -> Result<OneTarget, Error> {
    match (shiftwise_targets::find_entry(name), shiftwise_targets::find_board(name)) {
        (Ok(Entry::Description(d)), _) => Ok(OneTarget::Description(d)),
        (Ok(Entry::Target(t)), _) => Ok(OneTarget::Target(t)),
        (Err(_), Ok(board)) => Ok(OneTarget::Board(Box::new(board))),
        (Err(e), Err(_)) => Err(Error::Target(e.to_string())),
    }
}

/// The instruction set in which a described target's code is listed, if it is.
pub fn instruction_set(d: &Description) -> Option<&'static str> {
    d.fingerprint.and_then(InstructionSet::of_fingerprint).map(|set| set.name)
}

/// What is missing before a described target could be simulated.
pub fn missing(name: &str) -> String {
    match shiftwise_targets::find_entry(name) {
        Ok(Entry::Description(d)) => d.missing,
        Ok(Entry::Target(_)) | Err(_) => "nothing more is known about it".into(),
    }
}
