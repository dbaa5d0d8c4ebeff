//! Which instructions of a compiled subgraph belong to which layer, from what its SAVEs write.
//!
//! A file gives a layer's tensors their places, and memory is used again, so a SAVE alone doesn't tell its tensor. Layers
//! finish in order: walking the SAVEs forwards, each belongs to the first tensor that it fits and that isn't complete,
//! walking backwards, to the last. Where both agree on all SAVEs of a tensor, they are its own; a tensor that never
//! leaves the chip in this program, and whose place another one uses, is left out.

use std::collections::BTreeMap;

use shiftwise_core::isa::{Inst, Line, Save};

use crate::{Place, Subgraph, Tensor, XOp, Xmodel};

/// What is known about a subgraph's code.
#[derive(Clone, Debug, Default)]
pub struct Spans {
    /// Layers in program order; together they cover all instructions.
    pub layers: Vec<Layer>,
    /// Tensors by the instruction that completes them, in that order.
    pub completed: BTreeMap<u32, Vec<usize>>,
}

/// Consecutive instructions of one layer, or of several that can't be told apart.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Names of the file's subgraphs, joined with `+`.
    pub name: String,
    /// First instruction.
    pub first: u32,
    /// Number of instructions.
    pub count: u32,
    /// Multiply-accumulates: half of the operations that the file states.
    pub macs: u64,
}

/// Operations that move nothing: their tensor is the operand's memory under another shape or name.
pub fn is_alias(op: &XOp) -> bool {
    matches!(
        op.kind.as_str(),
        "upload" | "download" | "concat-fix" | "reshape-fix" | "flatten-fix" | "squeeze-fix" | "reshape" | "identity"
    )
}

/// The name of a layer: its subgraph's, without the prefix.
pub fn layer_name(layer: &Subgraph) -> &str {
    layer.name.strip_prefix("subgraph_").unwrap_or(&layer.name)
}

struct Candidate {
    op: usize,
    layer: usize,
    extent: Extent,
    bytes: u64,
}

/// A tensor's bytes in memory as rows of pixels.
struct Extent {
    place: Place,
    /// Rows, pixels, channels.
    dims: [u64; 3],
    /// Bytes between rows and between pixels.
    steps: [u64; 2],
}

impl Extent {
    fn of(tensor: &Tensor) -> Option<Self> {
        let place = tensor.place()?;
        let n = tensor.shape.len();
        let dim = |back: usize| n.checked_sub(back).map_or(1, |i| tensor.shape[i] as u64);
        let step = |back: usize| n.checked_sub(back).map(|i| place.stride[i] as u64);
        if n > 4 || dim(4) != 1 || step(1) != Some(1) || tensor.elements()? == 0 {
            return None;
        }
        let pixel = step(2).unwrap_or(dim(1)).max(1);
        let row = step(3).unwrap_or(pixel.saturating_mul(dim(2))).max(1);
        Some(Self { dims: [dim(3), dim(2), dim(1)], steps: [row, pixel], place })
    }

    fn bytes(&self) -> u64 {
        self.dims.iter().product()
    }

    /// Whether `len` bytes at an offset of the register are bytes of the tensor.
    fn holds(&self, at: u64, len: u64) -> bool {
        let [rows, pixels, channels] = self.dims;
        let Some(offset) = at.checked_sub(self.place.offset as u64) else { return false };
        let (row, rest) = (offset / self.steps[0], offset % self.steps[0]);
        let (pixel, channel) = (rest / self.steps[1], rest % self.steps[1]);
        // Where pixels touch, one piece may hold several.
        let end = if self.steps[1] == channels { rest + len <= pixels * channels } else { channel + len <= channels };
        row < rows && pixel < pixels && end
    }

    fn takes(&self, save: &Save) -> bool {
        let last = u64::from(save.ddr_addr) + u64::from(save.length - 1) * u64::from(save.jump_write);
        save.reg_id == self.place.register
            && self.holds(save.ddr_addr.into(), save.channel.into())
            && self.holds(last, save.channel.into())
    }
}

fn bytes(save: &Save) -> u64 {
    u64::from(save.length) * u64::from(save.channel)
}

/// The first incomplete tensor in `order` that a SAVE fits; its bytes are counted.
fn fit(
    candidates: &[Candidate],
    filled: &mut [u64],
    save: &Save,
    mut order: impl Iterator<Item = usize>,
) -> Option<usize> {
    let found = order.find(|c| filled[*c] < candidates[*c].bytes && candidates[*c].extent.takes(save))?;
    filled[found] += bytes(save);
    Some(found)
}

/// Attributes the instructions of `run`'s whole code, decoded as `lines`.
pub fn spans(model: &Xmodel, run: &Subgraph, lines: &[Line]) -> Spans {
    let ordered = run.layers();
    let layers: Vec<&Subgraph> = if ordered.is_empty() { run.children.iter().collect() } else { ordered };
    let mut candidates: Vec<Candidate> = Vec::new();
    for (layer, s) in layers.iter().enumerate() {
        for op in s.all_ops() {
            let xop = &model.ops[op];
            if xop.is_const() || is_alias(xop) {
                continue;
            }
            if let Some(extent) = Extent::of(&xop.tensor) {
                candidates.push(Candidate { op, layer, bytes: extent.bytes(), extent });
            }
        }
    }
    let saves: Vec<(u32, &Save)> = (0u32..)
        .zip(lines)
        .filter_map(|(i, line)| match &line.inst {
            Inst::Save(save) => Some((i, save)),
            _ => None,
        })
        .collect();
    let n = candidates.len();
    let mut filled = vec![0u64; n];
    let forwards: Vec<Option<usize>> = saves.iter().map(|(_, s)| fit(&candidates, &mut filled, s, 0..n)).collect();
    filled.fill(0);
    let last_first = saves.iter().rev().map(|(_, s)| fit(&candidates, &mut filled, s, (0..n).rev()));
    let mut backwards: Vec<Option<usize>> = last_first.collect();
    backwards.reverse();

    let mut known = vec![0u64; candidates.len()];
    let mut doubtful = vec![false; candidates.len()];
    let mut last = vec![0u32; candidates.len()];
    for (((i, save), f), b) in saves.iter().zip(&forwards).zip(&backwards) {
        match (f, b) {
            (Some(f), Some(b)) if f == b => {
                known[*f] += bytes(save);
                last[*f] = *i;
            }
            _ => [f, b].into_iter().flatten().for_each(|c| doubtful[*c] = true),
        }
    }
    let mut completed: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    let mut ends: Vec<Option<u32>> = vec![None; layers.len()];
    for (k, c) in candidates.iter().enumerate() {
        if known[k] == c.bytes && !doubtful[k] {
            completed.entry(last[k]).or_default().push(c.op);
            ends[c.layer] = ends[c.layer].max(Some(last[k]));
        }
    }
    Spans { layers: cover(&layers, &ends, lines.len() as u32), completed }
}

/// Layers from one end to the next; what has no end of its own belongs to the next that has one.
fn cover(layers: &[&Subgraph], ends: &[Option<u32>], count: u32) -> Vec<Layer> {
    let mut out: Vec<Layer> = Vec::new();
    let mut first = 0;
    let (mut names, mut macs) = (Vec::new(), 0);
    for (layer, end) in layers.iter().zip(ends) {
        let operations = layer.attrs.int("workload").and_then(|w| u64::try_from(w).ok()).unwrap_or(0);
        if layer.code().is_none() && operations == 0 && end.is_none() {
            continue;
        }
        names.push(layer_name(layer).to_owned());
        macs += operations / 2;
        if let Some(end) = end.filter(|end| *end >= first) {
            out.push(Layer { name: names.join("+"), first, count: end + 1 - first, macs });
            (first, macs) = (end + 1, 0);
            names.clear();
        }
    }
    match out.last_mut() {
        // END, and what could not be told apart.
        Some(last) => {
            last.count = count - last.first;
            last.macs += macs;
            if !names.is_empty() {
                last.name = format!("{}+{}", last.name, names.join("+"));
            }
        }
        None => out.push(Layer { name: names.join("+"), first: 0, count, macs }),
    }
    out
}
