//! Maps that stay on chip, whole, from the layer that makes them to the last that reads them.
//!
//! Layers are visited in order. A result that fits beside what stays already gets a place at an end of what is free of a
//! feature-map group, if the layers up to its last reader then take less time by the estimate that chooses tiles, although
//! their tiles have less room. Its readers load nothing. It is also saved if anybody else reads it.

use std::collections::HashMap;
use std::ops::Range;

use shiftwise_core::target::Target;

use crate::dpu::codegen::bank_layout::Spot;
use crate::dpu::context::Context;
use crate::dpu::fused_layer::{alone, join, last_channels};
use crate::dpu::hazard::BANK_GRAIN;
use crate::dpu::layer::{Compute, Kernel, Layer, Pass, Weights};
use crate::dpu::select::select;
use crate::dpu::tile::{Machine, Shape, Tiling, Unit};
use crate::placed::Placed;
use shiftwise_integer::graph::{IntOp, TensorIx};

/// Largest `jump_write_endl` and `jump_read_endl` of a CONV (DOC: 10-bit fields), and most channel groups of a pixel.
const MAX_ROW: u32 = 1024;
const MAX_GROUPS: u32 = 256;

/// How an op, with the ops chained to it, uses the feature-map banks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Residence {
    /// Operands that lie in the banks.
    reads: Vec<(TensorIx, Spot)>,
    /// Where the result stays.
    stays: Option<Spot>,
    /// The result is in no memory.
    pub unsaved: bool,
    /// Addresses of each group that its tiles may use: first, end.
    pub rooms: [[u32; 2]; 2],
    /// How each layer is cut.
    pub tilings: Vec<Tiling>,
}

impl Residence {
    /// Writes into `layer`, which does `ops`, what it need not load and save.
    pub(crate) fn apply(&self, layer: &mut Layer, ops: &[IntOp]) {
        let spot = |t: TensorIx| self.reads.iter().find(|(r, _)| *r == t).map(|(_, s)| *s);
        if let Some(first) = ops.first().filter(|op| op.inputs.len() == layer.inputs.len()) {
            layer.held = first.inputs.iter().map(|t| spot(*t)).collect();
            layer.shape.held = layer.held.iter().flatten().count() as u32;
            layer.shape.held_pack = layer.held.iter().flatten().map(|s| s.pack).max().unwrap_or(1);
        }
        let operand = added(ops).and_then(spot);
        for pass in &mut layer.passes {
            if let Pass::Add { held, .. } = pass {
                *held = operand;
                layer.shape.held_adds = operand.is_some().into();
            }
        }
        layer.stays = self.stays;
        layer.shape.stays = self.stays.is_some();
        if self.unsaved {
            layer.outputs.clear();
            layer.shape.saves = 0;
        }
    }

    /// Operands that lie in the banks.
    #[cfg(test)]
    pub(crate) fn held(&self) -> Vec<TensorIx> {
        self.reads.iter().map(|(t, _)| *t).collect()
    }

    /// Where an operand lies in the banks.
    #[cfg(test)]
    pub(crate) fn spot(&self, t: TensorIx) -> Option<Spot> {
        self.reads.iter().find(|(r, _)| *r == t).map(|(_, s)| *s)
    }

    /// Where the result stays.
    #[cfg(test)]
    pub(crate) fn stays(&self) -> Option<Spot> {
        self.stays
    }

    /// Bytes of operands that are not loaded and of a result that is not saved.
    pub(crate) fn kept_bytes(&self, cx: &Context<'_>, output: TensorIx) -> u64 {
        let bytes = |t: TensorIx| cx.graph.tensors.get(t.0).map_or(0, |t| t.shape.iter().map(|d| *d as u64).product());
        self.reads.iter().map(|(t, _)| bytes(*t)).sum::<u64>() + if self.unsaved { bytes(output) } else { 0 }
    }
}

/// The operand from elsewhere of the sum in a chain of ops.
fn added(ops: &[IntOp]) -> Option<TensorIx> {
    let pairs = ops.iter().zip(ops.iter().skip(1));
    pairs
        .filter(|(_, op)| op.inputs.len() == 2)
        .find_map(|(before, op)| op.inputs.iter().copied().find(|t| *t != before.output))
}

/// An op and what is chained to it.
struct Work<'a> {
    ops: &'a [IntOp],
    layers: Vec<Layer>,
    tilings: Vec<Tiling>,
    /// What is decided so far, without rooms and tilings.
    residence: Residence,
}

/// A map's place from work `first` to work `last`.
#[derive(Clone, Copy, Debug)]
struct Pin {
    group: usize,
    at: [u32; 2],
    last: usize,
}

/// Tilings by shape and room: layers are often alike, and asked about again and again.
type Known = HashMap<(Shape, [u32; 2]), Option<(u64, Tiling)>>;

/// The residences of the ops that begin work in `job`, by op.
pub(crate) fn plan(
    cx: &Context<'_>,
    target: &Target,
    places: &[Placed],
    job: Range<usize>,
    observe: bool,
) -> HashMap<usize, Residence> {
    let mut works = works(cx, places, job.clone(), observe);
    let banks: Vec<u32> = target.feature_groups().take(2).map(|g| g.first.into()).collect();
    let mut pins: Vec<(usize, Pin)> = Vec::new();
    let mut known = Known::new();
    for u in 0..works.len() {
        let Some(wish) = Wish::of(cx, &works, u, &job, observe) else { continue };
        let before = (u..=wish.last).map(|v| cost(&cx.machine, &works[v], v, &pins, &mut known)).sum::<Option<u64>>();
        let mut best: Option<(u64, Pin, Spot)> = None;
        for (group, bank) in banks.iter().enumerate() {
            let [start, end] = gap(&cx.machine, u, group, &pins);
            if end - start < wish.addresses {
                continue;
            }
            for at in [start, end - wish.addresses] {
                let pin = Pin { group, at: [at, at + wish.addresses], last: wish.last };
                let spot = wish.spot(*bank, at);
                pins.push((u, pin));
                let old: Vec<Residence> = works[u..=wish.last].iter().map(|w| w.residence.clone()).collect();
                wish.grant(&mut works, u, spot);
                let after = (u..=wish.last).map(|v| cost(&cx.machine, &works[v], v, &pins, &mut known)).sum();
                pins.pop();
                for (work, old) in works[u..=wish.last].iter_mut().zip(old) {
                    work.residence = old;
                }
                let (Some(after), Some(before)): (Option<u64>, Option<u64>) = (after, before) else { continue };
                if after < before && best.is_none_or(|(cost, ..)| after < cost) {
                    best = Some((after, pin, spot));
                }
            }
        }
        if let Some((_, pin, spot)) = best {
            pins.push((u, pin));
            wish.grant(&mut works, u, spot);
        }
    }
    let mut found = HashMap::new();
    let mut op = job.start;
    for (v, work) in works.into_iter().enumerate() {
        let Work { ops, layers, tilings, mut residence } = work;
        residence.rooms = [0, 1].map(|group| gap(&cx.machine, v, group, &pins));
        residence.tilings = cut(&cx.machine, &layers, ops, &residence, &mut known)
            .map_or(tilings, |cuts| cuts.into_iter().map(|(_, t)| t).collect());
        found.insert(op, residence);
        op += ops.len();
    }
    found
}

/// What is done in a job, op by op; nothing for views and for ops without layers.
fn works<'a>(cx: &Context<'a>, places: &[Placed], job: Range<usize>, observe: bool) -> Vec<Work<'a>> {
    let mut works = Vec::new();
    let mut at = job.start;
    while at < job.end {
        let (mut count, mut layers, mut cuts) = (1, Vec::new(), Vec::new());
        if let Placed::Dpu { way, tilings, fused } = &places[at] {
            count = fused.as_ref().map_or(1, |f| f.ops);
            if let Some(found) = fused {
                let plans = (at..at + count).map(|op| alone(cx, places, op)).collect::<Option<Vec<_>>>();
                let joined = plans.and_then(|p| join(cx, at, p, &vec![Weights::default(); count], observe));
                layers.extend(joined);
                cuts.push(found.tiling);
            } else if let Ok(mut ways) = select(cx, &cx.graph.ops[at])
                && *way < ways.len()
            {
                layers = ways.swap_remove(*way).layers;
                cuts.clone_from(tilings);
            }
        }
        let ops = &cx.graph.ops[at..at + count];
        works.push(Work { ops, layers, tilings: cuts, residence: Residence::default() });
        at += count;
    }
    works
}

/// A result that could stay.
struct Wish {
    tensor: TensorIx,
    /// Rows, columns, channel groups.
    size: [u32; 3],
    pack: u32,
    addresses: u32,
    /// Works that would read it in the banks.
    readers: Vec<usize>,
    last: usize,
    unsaved: bool,
}

impl Wish {
    fn of(cx: &Context<'_>, works: &[Work<'_>], u: usize, job: &Range<usize>, observe: bool) -> Option<Self> {
        let work = &works[u];
        let ([layer], Some(op)) = (work.layers.as_slice(), work.ops.last()) else { return None };
        let tensor = op.output;
        let dims = cx.dims(tensor).ok()?;
        let made = [layer.shape.output[0], layer.shape.output[1], last_channels(layer)];
        // What is saved elsewhere than where it lies in the banks, as by a permutation, is not what its readers want.
        let plain = layer.outputs.contains(&cx.map(tensor, dims));
        if made != dims || !layer.fills.is_empty() || !plain {
            return None;
        }
        let users: Vec<usize> = (u + 1..works.len()).filter(|v| uses(works[*v].ops, tensor)).collect();
        // ELEW's rows don't share banks.
        let by_elew = match layer.passes.iter().rev().find(|p| !matches!(p, Pass::Keep(_))) {
            Some(Pass::Act { .. } | Pass::Point { .. }) => false,
            Some(_) => true,
            None => layer.shape.unit == Unit::Elew,
        };
        let packs = if by_elew { &[1][..] } else { &[1, 2] };
        let size = [dims[0], dims[1], dims[2].div_ceil(cx.machine.lanes)];
        let held_by = |pack: u32| {
            let readers: Vec<usize> =
                users.iter().copied().filter(|v| holds(cx, &works[*v], tensor, dims, pack)).collect();
            (pack, readers)
        };
        let (pack, readers) = packs.iter().map(|p| held_by(*p)).max_by_key(|(p, r)| (r.len(), *p == 1))?;
        let last = *readers.last()?;
        let fits = size[2] <= MAX_GROUPS && (pack == 1 || size[1] * size[2] <= MAX_ROW);
        let all = |i: usize, op: &IntOp| !op.inputs.contains(&tensor) || job.contains(&i);
        let unsaved = !observe
            && readers == users
            && !cx.graph.outputs.contains(&tensor)
            && cx.joins.slices(tensor).is_empty()
            && cx.graph.ops.iter().enumerate().all(|(i, op)| all(i, op));
        let addresses = Spot::addresses(&cx.machine, size, pack).next_multiple_of(BANK_GRAIN);
        fits.then_some(Self { tensor, size, pack, addresses, readers, last, unsaved })
    }

    fn spot(&self, bank: u32, at: u32) -> Spot {
        let [_, columns, groups] = self.size;
        Spot { bank, at, groups, row: columns * groups, pack: self.pack, origin: [0, 0] }
    }

    fn grant(&self, works: &mut [Work<'_>], u: usize, spot: Spot) {
        works[u].residence.stays = Some(spot);
        works[u].residence.unsaved = self.unsaved;
        for v in &self.readers {
            works[*v].residence.reads.push((self.tensor, spot));
        }
    }
}

fn uses(ops: &[IntOp], t: TensorIx) -> bool {
    ops.iter().any(|op| op.inputs.contains(&t))
}

/// Whether a work can read all that it wants of a tensor in the banks, `pack` rows to a bank.
fn holds(cx: &Context<'_>, work: &Work<'_>, t: TensorIx, dims: [u32; 3], pack: u32) -> bool {
    let ([layer], Some((first, rest))) = (work.layers.as_slice(), work.ops.split_first()) else { return false };
    let s = &layer.shape;
    let whole = || {
        let map = cx.map(t, dims);
        let rows = s.stride[0] == pack || s.output[0] == 1 && s.unit != Unit::Elew;
        let wide = match layer.compute {
            Compute::Conv { .. } | Compute::Depthwise { .. } | Compute::Pool { .. } => true,
            Compute::HardSigmoid { .. } | Compute::Sum { .. } | Compute::Product { .. } => pack == 1,
        };
        let same = first.inputs.iter().zip(&layer.inputs).all(|(i, m)| *i != t || *m == map);
        first.inputs.len() == layer.inputs.len()
            && matches!(layer.kernel, Kernel::Constants(_))
            && s.input == dims
            && same
            && rows
            && wide
    };
    // Behind the first, only the sum's other operand comes from elsewhere.
    let later = !uses(rest, t) || (added(work.ops) == Some(t) && pack == 1);
    later && (!first.inputs.contains(&t) || whole())
}

/// The largest part of a feature-map group that no map stays in while work `v` is done.
fn gap(m: &Machine, v: usize, group: usize, pins: &[(usize, Pin)]) -> [u32; 2] {
    let mut taken: Vec<[u32; 2]> =
        pins.iter().filter(|(u, p)| p.group == group && *u <= v && v <= p.last).map(|(_, p)| p.at).collect();
    taken.push([m.depth; 2]);
    taken.sort_unstable();
    let (mut from, mut best) = (0, [0, 0]);
    for [start, end] in taken {
        if start > from && start - from > best[1] - best[0] {
            best = [from, start];
        }
        from = from.max(end);
    }
    best
}

/// Estimated cycles of a work; `None` if its tiles don't fit.
fn cost(m: &Machine, work: &Work<'_>, v: usize, pins: &[(usize, Pin)], known: &mut Known) -> Option<u64> {
    let rooms = [0, 1].map(|group| gap(m, v, group, pins));
    let residence = Residence { rooms, ..work.residence.clone() };
    Some(cut(m, &work.layers, work.ops, &residence, known)?.iter().map(|(cost, _)| cost).sum())
}

fn cut(
    m: &Machine,
    layers: &[Layer],
    ops: &[IntOp],
    residence: &Residence,
    known: &mut Known,
) -> Option<Vec<(u64, Tiling)>> {
    let rooms = residence.rooms.map(|[start, end]| end - start);
    let machine = Machine { rooms, ..*m };
    let one = |layer: &Layer| {
        let mut shape = layer.shape;
        if let [single] = layers {
            let mut layer = single.clone();
            residence.apply(&mut layer, ops);
            shape = layer.shape;
        }
        *known.entry((shape, rooms)).or_insert_with(|| shape.tiling(&machine))
    };
    layers.iter().map(one).collect()
}
