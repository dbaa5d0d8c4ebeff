//! Static memory: which tensors share bytes, how long each block is needed, where it lies.

use std::collections::BTreeMap;

use shiftwise_core::cpu::Rows;
use shiftwise_core::model::Region;

use shiftwise_graph::error::Error;
use shiftwise_integer::graph::{Class, IntGraph, IntOp, IntOpKind, TensorIx};
use shiftwise_integer::scaled::ScaledOp;

/// A block of memory that is needed from step `first` to step `last`, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Size.
    pub bytes: u64,
    /// First step at which it holds data.
    pub first: usize,
    /// Last step at which it is read.
    pub last: usize,
}

impl Block {
    fn meets(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// Two blocks that are both needed at one step, where `writer` is written row by row over the rows of `reader` that
/// nobody reads any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follow {
    /// Index of the block that is read, for the last time.
    pub reader: usize,
    /// Index of the block that is written, for the first time.
    pub writer: usize,
    /// The writer starts so many bytes before the reader, or more.
    pub below: u64,
    /// Or else so many bytes behind the reader's start, or more.
    pub above: u64,
}

impl Follow {
    /// Bytes that both need together.
    fn union(&self, blocks: &[Block]) -> u64 {
        let (reader, writer) = (blocks[self.reader].bytes, blocks[self.writer].bytes);
        writer.max(self.below + reader).min(reader.max(self.above + writer)).min(reader + writer)
    }
}

/// Offsets for `blocks`, and the bytes used in all. Blocks that are needed at the same step never overlap, but for those
/// of `follows`, which keep the distances given there.
///
/// Best fit: blocks are placed one after another, each into the smallest hole among the ones already placed that it
/// fits into. Optimal placement is NP-hard, so some orders are tried (largest first, largest area of bytes × steps
/// first, earliest first, latest first) and the best result wins; [`lower_bound`] says how far from optimal it can be.
pub fn place(blocks: &[Block], follows: &[Follow], align: u64) -> (Vec<u64>, u64) {
    type Key = fn(&Block) -> (u64, usize);
    let keys: [Key; 4] = [
        |b| (u64::MAX - b.bytes, b.first),
        |b| (u64::MAX - b.bytes.saturating_mul((b.last - b.first + 1) as u64), b.first),
        |b| (b.first as u64, usize::MAX - b.last),
        |b| (u64::MAX - b.last as u64, b.first),
    ];
    let follows: BTreeMap<(usize, usize), Follow> = follows.iter().map(|f| ((f.reader, f.writer), *f)).collect();
    let tries = keys.iter().map(|key| {
        let mut order: Vec<usize> = (0..blocks.len()).collect();
        order.sort_by_key(|&i| key(&blocks[i]));
        place_in(blocks, &follows, &order, align)
    });
    tries.min_by_key(|(_, total)| *total).unwrap_or_default()
}

fn place_in(
    blocks: &[Block],
    follows: &BTreeMap<(usize, usize), Follow>,
    order: &[usize],
    align: u64,
) -> (Vec<u64>, u64) {
    let mut offsets = vec![0u64; blocks.len()];
    let mut total = 0;
    for (n, &i) in order.iter().enumerate() {
        let block = &blocks[i];
        // Per block in the way: the last start before it, which may be none, and the first behind it.
        let mut taken: Vec<(Option<u64>, u64)> = order[..n]
            .iter()
            .filter(|&&j| blocks[j].meets(block))
            .map(|&j| {
                let (before, behind) = if let Some(f) = follows.get(&(j, i)) {
                    (f.below.min(block.bytes), f.above.min(blocks[j].bytes))
                } else if let Some(f) = follows.get(&(i, j)) {
                    (f.above.min(block.bytes), f.below.min(blocks[j].bytes))
                } else {
                    (block.bytes, blocks[j].bytes)
                };
                (offsets[j].checked_sub(before), offsets[j] + behind)
            })
            .collect();
        taken.sort_unstable();
        let mut best: Option<(u64, u64)> = None;
        let mut from = 0u64;
        for (last, next) in taken {
            if let Some(slack) = last.and_then(|last| last.checked_sub(from))
                && best.is_none_or(|(least, _)| slack < least)
            {
                best = Some((slack, from));
            }
            from = from.max(next.next_multiple_of(align));
        }
        offsets[i] = best.map_or(from, |(_, at)| at);
        total = total.max(offsets[i] + block.bytes);
    }
    (offsets, total)
}

/// The most bytes that are needed at one step: no placement can do with less.
pub fn lower_bound(blocks: &[Block], follows: &[Follow]) -> u64 {
    let at = |step: usize| {
        let all: u64 = blocks.iter().filter(|b| (b.first..=b.last).contains(&step)).map(|b| b.bytes).sum();
        let over = follows.iter().find(|f| blocks[f.writer].first == step);
        all - over.map_or(0, |f| blocks[f.reader].bytes + blocks[f.writer].bytes - f.union(blocks))
    };
    blocks.iter().map(|b| at(b.first)).max().unwrap_or(0)
}

/// Which tensors share one block, and where the network's ends are.
#[derive(Clone, Debug)]
pub struct Sharing {
    /// Per tensor: the tensor that stands for its block.
    root: Vec<usize>,
    /// Per representing tensor: first and last step, counted from 1; inputs are there from step 0, outputs stay to the
    /// step after the last op.
    life: Vec<(usize, usize)>,
    /// Per representing tensor: bytes.
    bytes: Vec<u64>,
    /// Per representing tensor.
    region: Vec<Region>,
    /// Blocks that may lie over each other, by representing tensor.
    follows: Vec<Follow>,
    /// Per tensor: it is in no memory.
    nowhere: Vec<bool>,
}

/// What may share memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Network inputs and outputs lie in regions of their own instead of the workspace.
    pub separate_io: bool,
    /// An element-wise layer may overwrite an operand that nobody reads afterwards.
    pub in_place: bool,
}

impl Sharing {
    /// Checks that the graph is in execution order and finds blocks and lifetimes. Views share their source's block.
    pub fn of(graph: &IntGraph, policy: Policy) -> Result<Self, Error> {
        let n = graph.tensors.len();
        check_order(graph)?;
        let bytes = graph.tensors.iter().map(tensor_bytes).collect::<Result<Vec<_>, _>>()?;
        let mut this = Self {
            root: (0..n).collect(),
            life: vec![(0, 0); n],
            bytes,
            region: vec![Region::Workspace; n],
            follows: Vec::new(),
            nowhere: vec![false; n],
        };
        for op in &graph.ops {
            if let (IntOpKind::View, [source]) = (&op.kind, op.inputs.as_slice()) {
                if this.bytes[source.0] != this.bytes[op.output.0] {
                    return Err(Error::Compile(format!("layer `{}`: a view changes the number of bytes", op.layer)));
                }
                this.root[op.output.0] = this.root[source.0];
            }
        }
        for (step, op) in (1..).zip(&graph.ops) {
            let out = this.root[op.output.0];
            if out == op.output.0 {
                this.life[out] = (step, step);
            }
            for input in &op.inputs {
                let root = this.root[input.0];
                this.life[root].1 = this.life[root].1.max(step);
            }
        }
        let end = graph.ops.len() + 1;
        for output in &graph.outputs {
            let root = this.root[output.0];
            this.life[root].1 = end;
            if policy.separate_io {
                this.region[root] = Region::Outputs;
            }
        }
        if policy.separate_io {
            // An input that is an output as well stays among the inputs: the reader finds it by its place.
            graph.inputs.iter().for_each(|t| this.region[t.0] = Region::Inputs);
        }
        if policy.in_place {
            this.overwrite(graph);
        }
        Ok(this)
    }

    fn overwrite(&mut self, graph: &IntGraph) {
        for (step, op) in (1..).zip(&graph.ops) {
            let sum = matches!(&op.kind, IntOpKind::Scaled(own) if matches!(**own, ScaledOp::Sum { .. }));
            if op.kind.class() != Class::ElementWise && !sum {
                continue;
            }
            let out = op.output.0;
            let width = |t: &TensorIx| graph.tensors[t.0].kind.bytes();
            let alike = op.inputs.iter().filter(|t| width(t) == width(&op.output));
            let dying = alike.map(|t| self.root[t.0]).find(|&r| {
                self.life[r].1 == step && self.bytes[r] == self.bytes[out] && self.region[r] == self.region[out]
            });
            if let Some(operand) = dying {
                self.life[operand].1 = self.life[out].1;
                for root in self.root.iter_mut().filter(|r| **r == out) {
                    *root = operand;
                }
            }
        }
    }

    /// Lets the output of the op at `step`, counted from 1, be written over its only input as `rows` tell, if nobody else
    /// needs either at that step.
    pub fn follow(&mut self, op: &IntOp, step: usize, rows: &Rows) {
        let [input] = op.inputs[..] else { return };
        let (reader, writer) = (self.root[input.0], self.root[op.output.0]);
        let meet_here = self.life[reader].1 == step && self.life[writer].0 == step && reader != writer;
        if meet_here && [reader, writer].iter().all(|t| self.region[*t] == Region::Workspace) {
            self.follows.push(Follow { reader, writer, below: rows.below(), above: rows.above() });
        }
    }

    /// Every block stays to the end of the range of steps that it is written in, so that all of them can be read there:
    /// also under the name of a view made in a later range.
    ///
    /// `end_of(step)` is the last step of the range with step `step`, counted from 1.
    pub fn extend(&mut self, graph: &IntGraph, end_of: impl Fn(usize) -> usize) {
        for (step, op) in (1..).zip(&graph.ops) {
            let life = &mut self.life[self.root[op.output.0]];
            life.1 = life.1.max(end_of(step));
        }
    }

    /// Ops that are done on each other's tiles: all that they read is needed to the end of the last, and all that they
    /// write is written from the first on.
    pub fn together(&mut self, graph: &IntGraph, ops: std::ops::Range<usize>) {
        // Steps count from 1.
        let (first, last) = (ops.start + 1, ops.end);
        for op in graph.ops.get(ops).unwrap_or_default() {
            for input in &op.inputs {
                let root = self.root[input.0];
                self.life[root].1 = self.life[root].1.max(last);
            }
            let root = self.root[op.output.0];
            self.life[root].0 = self.life[root].0.min(first);
            self.life[root].1 = self.life[root].1.max(last);
        }
    }

    /// Lets `part` be written into `whole`, from its first step on; it has no block of its own if it lies `inside`.
    ///
    /// To be called in the order of the ops that make the parts.
    pub fn join(&mut self, part: TensorIx, whole: TensorIx, inside: bool) {
        let (part, whole) = (self.root[part.0], self.root[whole.0]);
        self.life[whole].0 = self.life[whole].0.min(self.life[part].0);
        if inside {
            self.life[whole].1 = self.life[whole].1.max(self.life[part].1);
            for root in self.root.iter_mut().filter(|r| **r == part) {
                *root = whole;
            }
        }
    }

    /// A tensor that nobody writes to memory or reads from there: its place overlaps others'.
    pub fn dismiss(&mut self, t: TensorIx) {
        self.nowhere[t.0] = true;
    }

    /// Whether a tensor is still needed after the first `steps` ops.
    pub fn outlives(&self, t: TensorIx, steps: usize) -> bool {
        self.root.get(t.0).is_some_and(|root| self.life[*root].1 > steps)
    }

    /// Per tensor its region and offset, and the layout of each region.
    pub fn lay_out(&self, align: u64) -> Result<Layout, Error> {
        let mut places = vec![(Region::Workspace, 0); self.root.len()];
        let (mut sizes, mut placed) = (Vec::new(), Vec::new());
        for region in [Region::Workspace, Region::Inputs, Region::Outputs] {
            let of_region = (0..self.root.len()).filter(|&i| self.root[i] == i && self.region[i] == region);
            let (dismissed, roots): (Vec<usize>, Vec<usize>) = of_region.partition(|&i| self.nowhere[i]);
            let blocks: Vec<Block> = roots
                .iter()
                .map(|&i| {
                    // Inputs and outputs are the caller's: nothing else ever lies there.
                    let (first, last) = if region == Region::Workspace { self.life[i] } else { (0, usize::MAX) };
                    Block { bytes: self.bytes[i], first, last: last.min(usize::MAX - 1) }
                })
                .collect();
            let index = |root: usize| roots.iter().position(|r| *r == root);
            let follow = |f: &Follow| Some(Follow { reader: index(f.reader)?, writer: index(f.writer)?, ..*f });
            let follows: Vec<Follow> = self.follows.iter().filter_map(follow).collect();
            let (offsets, total) = place(&blocks, &follows, align);
            // Every place lies in its region, whoever looks.
            let total = dismissed.iter().map(|&i| self.bytes[i]).fold(total, u64::max);
            if total > u32::MAX.into() {
                return Err(Error::Compile(format!("region {region:?} needs {total} bytes; addresses have 32 bits")));
            }
            for ((&i, offset), block) in roots.iter().zip(&offsets).zip(&blocks) {
                places[i] = (region, *offset as u32);
                let tensors = (0..self.root.len()).filter(|t| self.root[*t] == i).map(TensorIx).collect();
                placed.push(Placed { region, offset: *offset as u32, block: *block, tensors });
            }
            sizes.push((total as u32, lower_bound(&blocks, &follows)));
        }
        for i in 0..places.len() {
            places[i] = places[self.root[i]];
        }
        let (workspace, inputs, outputs) = (sizes[0].0, sizes[1].0, sizes[2].0);
        Ok(Layout { places, blocks: placed, workspace, inputs, outputs, lower_bound: sizes[0].1 })
    }
}

/// A block where it lies.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Its region.
    pub region: Region,
    /// First byte in the region.
    pub offset: u32,
    /// Size and lifetime, in steps counted from 1; what is there before the first op is from step 0 on.
    pub block: Block,
    /// The tensors that it holds one after the other, or under several names.
    pub tensors: Vec<TensorIx>,
}

/// Where everything lies.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Per tensor.
    pub places: Vec<(Region, u32)>,
    /// All blocks.
    pub blocks: Vec<Placed>,
    /// Bytes of the workspace.
    pub workspace: u32,
    /// Bytes of the input region.
    pub inputs: u32,
    /// Bytes of the output region.
    pub outputs: u32,
    /// The most workspace bytes alive at one step.
    pub lower_bound: u64,
}

fn tensor_bytes(t: &shiftwise_integer::graph::IntTensor) -> Result<u64, Error> {
    let size = t.kind.bytes() as u64;
    let bytes = t.shape.iter().try_fold(size, |n: u64, d| n.checked_mul(*d as u64));
    bytes.filter(|b| *b <= u32::MAX.into()).ok_or_else(|| {
        Error::Compile(format!("tensor `{}` of shape {:?} does not fit a 32-bit memory", t.name, t.shape))
    })
}

/// Every tensor is written once, before it is read.
pub(crate) fn check_order(graph: &IntGraph) -> Result<(), Error> {
    let mut known = vec![false; graph.tensors.len()];
    let bad = |what: &str, t: TensorIx| {
        let name = graph.tensors.get(t.0).map_or("?", |t| t.name.as_str());
        Error::Compile(format!("the integer form is inconsistent: tensor `{name}` is {what}"))
    };
    let write = |known: &mut Vec<bool>, t: TensorIx| match known.get_mut(t.0) {
        Some(k) if !*k => {
            *k = true;
            Ok(())
        }
        Some(_) => Err(bad("written twice", t)),
        None => Err(bad("not in the table", t)),
    };
    graph.inputs.iter().try_for_each(|t| write(&mut known, *t))?;
    for op in &graph.ops {
        if let Some(t) = op.inputs.iter().find(|t| known.get(t.0) != Some(&true)) {
            return Err(bad("read before it is written", *t));
        }
        write(&mut known, op.output)?;
    }
    match graph.outputs.iter().find(|t| known.get(t.0) != Some(&true)) {
        Some(t) => Err(bad("an output that nothing writes", *t)),
        None => known.iter().position(|k| !k).map_or(Ok(()), |i| Err(bad("never written", TensorIx(i)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_chain_needs_its_largest_neighbours() {
        let block = |bytes, first| Block { bytes, first, last: first + 1 };
        let blocks = [block(100, 0), block(40, 1), block(60, 2), block(90, 3)];
        let (_, total) = place(&blocks, &[], 4);
        // 60 and 90 are alive together, 100 and 40 as well.
        assert_eq!(total, 150);
        assert_eq!(lower_bound(&blocks, &[]), 150);
    }

    #[test]
    fn a_chain_of_rows_needs_its_largest_and_little_more() {
        let block = |bytes, first| Block { bytes, first, last: first + 1 };
        let blocks = [block(1000, 0), block(1000, 1), block(500, 2), block(1000, 3), block(100, 4)];
        let follow = |reader, below, above| Follow { reader, writer: reader + 1, below, above };
        let follows = [follow(0, 60, 60), follow(1, 40, 520), follow(2, 520, 40), follow(3, 20, 920)];
        let (_, total) = place(&blocks, &follows, 4);
        assert_eq!((total, lower_bound(&blocks, &follows)), (1060, 1060));
    }

    proptest! {
        #[test]
        fn blocks_alive_together_are_disjoint(
            raw in prop::collection::vec((1u64..500, 0usize..12, 0usize..5), 0..30),
            over in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1u64..300, 1u64..300), 0..20),
        ) {
            let blocks: Vec<Block> =
                raw.iter().map(|&(bytes, first, n)| Block { bytes, first, last: first + n }).collect();
            let mut follows: Vec<Follow> = Vec::new();
            for (a, b, below, above) in over.iter().filter(|_| !blocks.is_empty()) {
                let (reader, writer) = (a.index(blocks.len()), b.index(blocks.len()));
                let step = blocks[writer].first;
                // One op a step.
                if reader != writer && blocks[reader].last == step && follows.iter().all(|f| blocks[f.writer].first != step) {
                    follows.push(Follow { reader, writer, below: *below, above: *above });
                }
            }
            let (offsets, total) = place(&blocks, &follows, 4);
            prop_assert!(total >= lower_bound(&blocks, &follows));
            for (i, a) in blocks.iter().enumerate() {
                prop_assert!(offsets[i] % 4 == 0 && offsets[i] + a.bytes <= total);
                for (j, b) in blocks.iter().enumerate().take(i) {
                    let apart = offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
                    let follows = follows.iter().any(|f| {
                        let (reader, writer) = (offsets[f.reader], offsets[f.writer]);
                        [[i, j], [j, i]].contains(&[f.reader, f.writer])
                            && (writer + f.below <= reader || reader + f.above <= writer)
                    });
                    prop_assert!(apart || follows || !a.meets(b), "{i} and {j}");
                }
            }
        }
    }
}
