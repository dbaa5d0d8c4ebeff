//! An operator where a model has it.

use crate::proto::{AttributeProto, NodeProto};
use crate::value::{self, Value};
use prost::bytes::Bytes;
use shiftwise_graph::budget::Budget;
use shiftwise_tensor::array;

/// Values of one operator's results.
pub(crate) type Results = Result<Vec<Value>, String>;

/// A node with its operands.
pub(crate) struct Call<'a> {
    /// The node.
    pub(crate) node: &'a NodeProto,
    /// Its operands; those that are left out are `None`.
    pub(crate) inputs: &'a [Option<&'a Value>],
    /// The version of the operators that its model uses.
    pub(crate) version: i64,
    /// What the model may take.
    pub(crate) budget: &'a Budget,
}

impl<'a> Call<'a> {
    /// An operand.
    pub(crate) fn input(&self, k: usize) -> Result<&'a Value, String> {
        self.optional(k).ok_or_else(|| format!("has no operand {k}"))
    }

    /// An operand that may be left out.
    pub(crate) fn optional(&self, k: usize) -> Option<&'a Value> {
        self.inputs.get(k).copied().flatten()
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&'a AttributeProto> {
        self.node.attribute.iter().find(|a| a.name == name)
    }

    /// Whether an attribute is given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    /// A whole number.
    pub(crate) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).and_then(|a| a.i).unwrap_or(default)
    }

    /// A number.
    pub(crate) fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).and_then(|a| a.f).unwrap_or(default)
    }

    /// A word.
    pub(crate) fn text(&self, name: &str, default: &str) -> String {
        let own = self.attribute(name).and_then(|a| a.s.as_ref()).map(Bytes::as_ref);
        own.map_or_else(|| default.to_owned(), |s| String::from_utf8_lossy(s).into_owned())
    }

    /// Whole numbers.
    pub(crate) fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.attribute(name).map(|a| a.ints.as_slice())
    }

    /// Numbers.
    pub(crate) fn floats(&self, name: &str) -> Option<&'a [f32]> {
        self.attribute(name).map(|a| a.floats.as_slice())
    }

    /// An array.
    pub(crate) fn tensor(&self, name: &str) -> Result<Option<Value>, String> {
        let own = self.attribute(name).and_then(|a| a.t.as_ref());
        own.map(|tensor| value::decode(tensor, None, self.budget)).transpose()
    }

    /// Whole numbers that are an operand in late opsets and an attribute in early ones.
    pub(crate) fn list(&self, k: usize, name: &str) -> Result<Option<Vec<i64>>, String> {
        if let Some(own) = self.ints(name) {
            return Ok(Some(own.to_vec()));
        }
        Ok(self.optional(k).map(Value::integers))
    }

    /// An axis of `rank`.
    pub(crate) fn axis(&self, name: &str, default: i64, rank: usize) -> Result<usize, String> {
        array::axis(self.int(name, default), rank).map_err(|why| format!("is wrong: {why}"))
    }

    /// A size.
    pub(crate) fn size(&self, name: &str, default: i64) -> Result<usize, String> {
        let own = self.int(name, default);
        let size = usize::try_from(own).ok().filter(|n| *n <= 1 << 31);
        size.ok_or_else(|| format!("has an attribute `{name}` of {own}"))
    }

    /// A size for each axis.
    pub(crate) fn sizes(&self, name: &str, axes: usize, default: usize) -> Result<Vec<usize>, String> {
        let Some(own) = self.ints(name).filter(|all| !all.is_empty()) else { return Ok(vec![default; axes]) };
        let least = i64::from(name != "output_padding");
        let sizes: Option<Vec<usize>> =
            own.iter().map(|n| usize::try_from(*n).ok().filter(|_| (least..=65535).contains(n))).collect();
        let sizes = sizes.filter(|all| all.len() == axes);
        sizes.ok_or_else(|| format!("has an attribute `{name}` of {own:?} for {axes} axes"))
    }

    /// `pads`: elements before and after each spatial axis.
    pub(crate) fn pads(&self, axes: usize) -> Result<Vec<(i64, i64)>, String> {
        let Some(own) = self.ints("pads").filter(|all| !all.is_empty()) else { return Ok(vec![(0, 0); axes]) };
        if own.len() != 2 * axes || own.iter().any(|p| !(-65535..=65535).contains(p)) {
            return Err(format!("has an attribute `pads` of {own:?} for {axes} axes"));
        }
        Ok((0..axes).map(|i| (own[i], own[axes + i])).collect())
    }

    /// `perm`: the order of axes; backwards if it is left out.
    pub(crate) fn order(&self, rank: usize) -> Result<Vec<usize>, String> {
        let Some(own) = self.ints("perm") else { return Ok((0..rank).rev().collect()) };
        let order: Option<Vec<usize>> = own.iter().map(|i| usize::try_from(*i).ok()).collect();
        let whole = order.filter(|o| o.len() == rank && (0..rank).all(|i| o.contains(&i)));
        whole.ok_or_else(|| format!("has an order {own:?} of {rank} axes"))
    }

    /// `blocksize`: the side of blocks of pixels.
    pub(crate) fn block(&self) -> Result<usize, String> {
        let own = self.size("blocksize", 0)?;
        (1..=4096).contains(&own).then_some(own).ok_or_else(|| format!("has blocks of {own} pixels"))
    }
}
