//! Where each op of a network runs on a DPU with a CPU beside it, decided once.
//!
//! Messages, prices and the inspector read a [`Placement`]; the program is written after it and decides nothing more than
//! where tensors lie in memory.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use shiftwise_core::target::Target;

use crate::dpu::concat::Joins;
use crate::dpu::context::Context;
use crate::dpu::options::DpuOptions;
use crate::dpu::resident::Residence;
use crate::dpu::tile::Machine;
use crate::placed::Placed;
use crate::price::cpu_us;
use crate::reason::Reason;
use shiftwise_integer::graph::{IntGraph, IntOp, TensorIx};

/// Where every op of a network runs, and what stays on chip between them.
#[derive(Clone, Debug)]
pub struct Placement<'a> {
    /// The network, with the paddings that other layers do.
    pub(crate) graph: Cow<'a, IntGraph>,
    pub(crate) target: &'a Target,
    pub(crate) options: DpuOptions,
    pub(crate) machine: Machine,
    /// Per op of `graph`.
    pub(crate) ops: Vec<Placed>,
    /// Runs of ops that the DPU does at a time, in order.
    pub(crate) jobs: Vec<Range<usize>>,
    /// Which tensors lie inside others.
    pub(crate) joins: Joins,
    /// What is in the banks, by the first op of each piece of work.
    pub(crate) residences: HashMap<usize, Residence>,
}

/// What is known of an op before there is a program.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Verdict<'a> {
    /// The user's layers.
    pub layer: &'a str,
    /// Kind of op.
    pub op: &'static str,
    /// Whether the CPU computes it.
    pub on_cpu: bool,
    /// Why.
    pub reason: Option<&'a Reason>,
    /// Stable name of the reason's kind.
    pub code: Option<&'static str>,
    /// What the user can change.
    pub remedy: Option<&'static str>,
    /// Microseconds on the CPU, estimated, if it runs there.
    pub cpu_us: Option<f64>,
}

impl Placement<'_> {
    /// The network that is placed: paddings that other layers do are not read any more, or not there.
    pub fn graph(&self) -> &IntGraph {
        &self.graph
    }

    /// What it is placed for.
    pub fn target(&self) -> &Target {
        self.target
    }

    /// How it is to be compiled.
    pub fn options(&self) -> &DpuOptions {
        &self.options
    }

    /// Where each op of [`Self::graph`] runs.
    pub fn ops(&self) -> &[Placed] {
        &self.ops
    }

    /// Runs of ops that the DPU does at a time.
    pub fn jobs(&self) -> &[Range<usize>] {
        &self.jobs
    }

    /// Ops on the CPU, with the reasons, in order.
    pub fn fallbacks(&self) -> impl Iterator<Item = (&IntOp, &Reason)> {
        self.graph.ops.iter().zip(&self.ops).filter_map(|(op, placed)| Some((op, placed.reason()?)))
    }

    /// A row per op, in order.
    pub fn verdicts(&self) -> impl Iterator<Item = Verdict<'_>> {
        self.graph.ops.iter().zip(&self.ops).map(|(op, placed)| {
            let reason = placed.reason();
            Verdict {
                layer: &op.layer,
                op: op.kind.name(),
                on_cpu: reason.is_some(),
                reason,
                code: reason.map(Reason::code),
                remedy: reason.and_then(Reason::remedy),
                cpu_us: reason.map(|_| cpu_us(&self.graph, op)),
            }
        })
    }

    /// The larger tensor that a tensor lies in instead of a place of its own, and its first row, column and channel there.
    pub fn home(&self, t: TensorIx) -> Option<(TensorIx, [u32; 3])> {
        self.joins.home(t).map(|slice| (slice.of, slice.at))
    }

    /// What selection needs, with the tensors at `places`: base register and offset of each.
    pub(crate) fn context<'c>(&'c self, places: &'c [(u32, u32)]) -> Context<'c> {
        Context { graph: &self.graph, target: self.target, machine: self.machine, places, joins: &self.joins }
    }
}
