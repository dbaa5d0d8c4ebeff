//! How two dumps compare, tensor by tensor.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::{ACTIVATIONS, Dump, DumpTensor, INTEGERS, Type, WEIGHTS, dump_weight_is_shown, value_text};
use crate::text;

/// A tensor that is not the same in two dumps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Difference {
    /// Folder and name of its files.
    pub tensor: String,
    /// Number of values in each dump.
    pub values: (usize, usize),
    /// Values that differ, as far as both reach.
    pub differing: usize,
    /// The first of them; absent if only the numbers of values differ.
    pub first_difference: Option<FirstDifference>,
}

/// A value that is not the same in two dumps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FirstDifference {
    /// Where it is, row-major.
    pub index: usize,
    /// The value in the first dump, as text.
    pub first: String,
    /// The value in the second dump, as text.
    pub second: String,
}

/// How two dumps compare: what `compare` reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Comparison {
    /// Tensors that both have.
    pub tensors: usize,
    /// Values compared.
    pub values: u64,
    /// Tensors that differ.
    pub differences: Vec<Difference>,
    /// Tensors that only the first dump has.
    pub only_first: Vec<String>,
    /// Tensors that only the second dump has.
    pub only_second: Vec<String>,
}

impl Comparison {
    /// Whether every tensor that both have is the same, and there is one. Tensors that only one dump has don't count.
    pub fn is_equal(&self) -> bool {
        self.tensors > 0 && self.differences.is_empty()
    }

    /// Whether both have the same tensors. What the vendor's own dumps lack may be missing on one side: some weights
    /// ([`dump_weight_is_shown`]), and integers under names of their own.
    pub fn is_whole(&self) -> bool {
        self.only_first.iter().chain(&self.only_second).all(|name| vendors_lack(name))
    }
}

/// Whether the vendor's own dumps lack such a tensor, by folder and name of its files.
fn vendors_lack(name: &str) -> bool {
    let weight = name.strip_prefix(WEIGHTS).and_then(|n| n.strip_prefix('/'));
    name.ends_with(INTEGERS) || weight.is_some_and(|name| !dump_weight_is_shown(name))
}

/// Compares two dumps by file names.
pub fn compare(first: &Dump, second: &Dump) -> Comparison {
    let mut result = Comparison::default();
    for (folder, a, b) in
        [(WEIGHTS, &first.weights, &second.weights), (ACTIVATIONS, &first.activations, &second.activations)]
    {
        let index = |tensors: &'_ [DumpTensor]| -> BTreeMap<String, usize> {
            tensors.iter().enumerate().map(|(i, t)| (t.file_name(), i)).collect()
        };
        let (in_first, in_second) = (index(a), index(b));
        let missing = |from: &BTreeMap<String, usize>| -> Vec<String> {
            from.keys()
                .filter(|n| !in_first.contains_key(*n) || !in_second.contains_key(*n))
                .map(|n| format!("{folder}/{n}"))
                .collect()
        };
        result.only_first.extend(missing(&in_first));
        result.only_second.extend(missing(&in_second));
        // In the model's order, so that the first difference is the earliest.
        for a in a {
            let Some(b) = in_second.get(&a.file_name()).and_then(|i| b.get(*i)) else { continue };
            let (x, y) = (&a.values, &b.values);
            let differences = x.differences(y);
            result.tensors += 1;
            result.values += x.len().min(y.len()) as u64;
            // Files of one name may still be of two types, where a manifest says so.
            if differences.is_empty() && x.len() == y.len() && Type::of(x) == Type::of(y) {
                continue;
            }
            result.differences.push(Difference {
                tensor: format!("{folder}/{}", a.file_name()),
                values: (x.len(), y.len()),
                differing: differences.len(),
                first_difference: differences.first().map(|i| FirstDifference {
                    index: *i,
                    first: value_text(x, *i),
                    second: value_text(y, *i),
                }),
            });
        }
    }
    result
}

/// Lines of one kind that a comparison shows.
const MOST_LINES: usize = 100;

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = |f: &mut fmt::Formatter<'_>, all: usize, what: &str| match all.checked_sub(MOST_LINES) {
            Some(more @ 1..) => writeln!(f, "and {more} more {what}"),
            _ => Ok(()),
        };
        let shown: Vec<(String, &Difference)> =
            self.differences.iter().take(MOST_LINES).map(|d| (text::name(&d.tensor), d)).collect();
        let width = shown.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, d) in shown {
            write!(f, "{name:width$}  ")?;
            let (a, b) = d.values;
            if a != b {
                write!(f, "{a} values against {b}; ")?;
            }
            write!(f, "{} of {} differ", d.differing, a.min(b))?;
            match &d.first_difference {
                Some(d) => writeln!(f, ", first at {}: {} against {}", d.index, d.first, d.second)?,
                None => writeln!(f)?,
            }
        }
        more(f, self.differences.len(), "that differ")?;
        for (which, names) in [("first", &self.only_first), ("second", &self.only_second)] {
            for name in names.iter().take(MOST_LINES) {
                let counts = if vendors_lack(name) { ", which doesn't count: the vendor's dumps lack it" } else { "" };
                writeln!(f, "{}  only in the {which}{counts}", text::name(name))?;
            }
            more(f, names.len(), &format!("only in the {which}"))?;
        }
        let differing = self.differences.len();
        write!(f, "{} tensors, {} values, {differing} tensors differ", self.tensors, self.values)
    }
}
