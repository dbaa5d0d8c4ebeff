//! What a command that ran has to say.

use clap::builder::RangedU64ValueParser;
use serde::Serialize;
use serde_json::Value;
use shiftwise_graph::error::Error;

/// What a command that ran has to say.
pub(crate) struct Outcome {
    /// For `--json`.
    pub(crate) json: Value,
    /// Whether the answer is yes: exit code 0 or 1.
    pub(crate) yes: bool,
}

impl Outcome {
    /// A report whose answer is yes.
    pub(crate) fn done(report: impl Serialize) -> Result<Self, Error> {
        Self::of(report, true)
    }

    /// A report and its answer.
    pub(crate) fn of(report: impl Serialize, yes: bool) -> Result<Self, Error> {
        Ok(Self { json: to_json(report)?, yes })
    }
}

/// A report as JSON.
pub(crate) fn to_json(report: impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(report).map_err(|e| Error::Run(e.to_string()))
}

/// JSON for people.
pub(crate) fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// A number of things, of which there must be one.
pub(crate) fn positive() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}
