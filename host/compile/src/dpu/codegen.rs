//! A layer and its tiling as instructions: loads, computation, passes over the finished tile, saves.

mod arrays;
pub(crate) mod bank_layout;
mod piece;

use shiftwise_core::isa::{AluInit, ConvInit, Inst, Load, Save};
use shiftwise_core::target::{BankKind, Target};

use crate::dpu::hazard::BANK_GRAIN;
use crate::dpu::layer::{Amount, Compute, Fill, Kernel, Layer, MAX_PITCH, Pass, Weights};
use crate::dpu::tile::{MAX_LENGTH, Machine, Shape, Tiling, Unit};
use bank_layout::Spot;

/// Largest `channel` of a LOAD (DOC: 14 bits).
const MAX_CHANNEL: u32 = 1 << 14;
/// Bytes of a SAVE of zeros.
const FILL_BYTES: u32 = 4096;

/// Hands out addresses of a part of a bank group, around and around.
#[derive(Clone, Copy, Debug)]
struct Ring {
    start: u32,
    end: u32,
    next: u32,
}

impl Ring {
    fn new(depth: u32) -> Self {
        Self { start: 0, end: depth, next: 0 }
    }

    /// The part of the group that it hands out from now on.
    fn within(&mut self, [start, end]: [u32; 2]) {
        (self.start, self.end) = (start, end);
        if self.next < start {
            self.next = start;
        }
    }

    /// Sees to it that the next `addresses` follow each other.
    fn reserve(&mut self, addresses: u32) {
        if self.next + addresses > self.end {
            self.next = self.start;
        }
    }

    fn take(&mut self, addresses: u32) -> u32 {
        let size = addresses.next_multiple_of(BANK_GRAIN);
        self.reserve(size);
        let at = self.next;
        self.next += size;
        at
    }
}

/// A tile's place in the output and the part of the input under it.
#[derive(Clone, Copy, Debug)]
struct Tile {
    /// First output row, column.
    at: [u32; 2],
    /// Output rows, columns.
    size: [u32; 2],
    /// First input row, column of the window, padding included.
    origin: [i64; 2],
    /// First loaded input column and number of loaded columns.
    columns: [u32; 2],
}

/// A tile of a set of groups, with everything of it in the banks.
#[derive(Clone, Copy, Debug)]
struct Piece<'a> {
    layer: &'a Layer,
    tiling: &'a Tiling,
    tile: &'a Tile,
    /// First group and number of groups.
    set: (u32, u32),
    /// The operands, from the set's first group on.
    from: &'a [Spot],
    /// Where operands of passes go.
    adds: u32,
    /// Address of the weights.
    kernel: u32,
    /// Address of the layer's biases.
    bias: u32,
    /// Addresses of weights and biases of a pointwise pass.
    point: (u32, u32),
}

/// Collects the instructions of a job.
#[derive(Debug)]
pub(crate) struct Emitter {
    m: Machine,
    pp: u32,
    gather_weights: bool,
    first: [u32; 2],
    first_weight_bank: u32,
    depthwise_bank: u32,
    bias_bank: u32,
    /// The program, without tokens.
    pub program: Vec<Inst>,
    input: Ring,
    output: Ring,
    weights: Ring,
    depthwise: Ring,
    bias: Ring,
    conv: Option<ConvInit>,
    alu: Option<AluInit>,
    port: u32,
    amount: Amount,
}

impl Emitter {
    /// `None` if the target lacks a bank group.
    pub(crate) fn new(target: &Target, m: Machine, gather_weights: bool) -> Option<Self> {
        let mut features = target.feature_groups();
        let first = [features.next()?.first.into(), features.next()?.first.into()];
        let group = |kind| target.group(kind).map(|(g, _)| g);
        let bias = group(BankKind::Bias)?;
        Some(Self {
            m,
            pp: m.pp,
            gather_weights,
            first,
            first_weight_bank: group(BankKind::ConvWeights)?.first.into(),
            depthwise_bank: group(BankKind::DepthwiseWeights)?.first.into(),
            bias_bank: bias.first.into(),
            program: Vec::new(),
            input: Ring::new(m.depth),
            output: Ring::new(m.depth),
            weights: Ring::new(m.weight_depth),
            depthwise: Ring::new(m.depthwise_depth),
            bias: Ring::new(bias.depth),
            conv: None,
            alu: None,
            port: 0,
            amount: Amount::default(),
        })
    }

    /// Appends the instructions of `layer`. `rooms`: the addresses of each feature-map group that its tiles may use.
    pub(crate) fn layer(&mut self, layer: &Layer, t: &Tiling, weights: Weights, rooms: [[u32; 2]; 2]) -> Amount {
        self.amount = Amount::default();
        self.input.within(rooms[0]);
        self.output.within(rooms[1]);
        layer.fills.iter().for_each(|f| self.fill(f));
        let s = &layer.shape;
        let total = s.groups_out(&self.m);
        let tiles: Vec<Tile> = tiles(s, t);
        let sets: Vec<(u32, u32)> =
            (0..total).step_by(t.groups as usize).map(|g| (g, t.groups.min(total - g))).collect();
        // What stays for all tiles lies in one piece, so that the later part never overwrites the earlier.
        let point = s.point.div_ceil(self.m.lanes);
        let biases = total.next_multiple_of(BANK_GRAIN) + point.next_multiple_of(BANK_GRAIN);
        self.bias.reserve(biases);
        if point > 0 {
            let own = if s.unit == Unit::Conv { s.weight_addresses(&self.m, t) } else { 0 };
            let both = own.next_multiple_of(BANK_GRAIN) + s.point_weights(&self.m);
            self.weights.reserve(both);
        }
        let bias = self.load_bias(layer, weights);
        let point = self.load_point(layer);
        if s.unit == Unit::Conv && !t.groups_outside && sets.len() > 1 {
            for tile in &tiles {
                let (from, adds) = self.load_inputs(layer, t, tile, (0, s.groups_in(&self.m)));
                for (turn, &set) in (0..).zip(&sets) {
                    let kernel = self.load_kernel(layer, weights, set);
                    let adds = adds + turn % 2 * s.adds * s.add_addresses(&self.m, t);
                    self.piece(&Piece { layer, tiling: t, tile, set, from: &from, adds, kernel, bias, point });
                }
            }
        } else {
            for &set in &sets {
                let kernel = self.load_kernel(layer, weights, set);
                for tile in &tiles {
                    let channels = if s.unit == Unit::Conv { (0, s.groups_in(&self.m)) } else { set };
                    let (from, adds) = self.load_inputs(layer, t, tile, channels);
                    self.piece(&Piece { layer, tiling: t, tile, set, from: &from, adds, kernel, bias, point });
                }
            }
        }
        self.amount
    }

    fn push(&mut self, inst: impl Into<Inst>) {
        self.program.push(inst.into());
    }

    fn load(&mut self, load: Load) {
        self.amount.load_bytes += u64::from(load.length) * u64::from(load.channel);
        self.push(load);
    }

    /// SAVEs of zeros. They read no bank, whatever they name.
    fn fill(&mut self, f: &Fill) {
        let Fill { map, size: [rows, columns], channels } = *f;
        let dense = map.pixel_pitch == channels;
        // Rows without gaps are one row of larger pixels.
        let (columns, channels) = if dense { (1, columns * channels) } else { (columns, channels) };
        for y in 0..rows {
            for x in (0..columns).step_by(MAX_LENGTH as usize) {
                for c in (0..channels).step_by(FILL_BYTES as usize) {
                    let (length, channel) = (MAX_LENGTH.min(columns - x), FILL_BYTES.min(channels - c));
                    self.amount.save_bytes += u64::from(length) * u64::from(channel);
                    let save = Save {
                        bank_id: self.first[1],
                        jump_write: if dense { channel } else { map.pixel_pitch },
                        length,
                        channel,
                        reg_id: map.reg_id,
                        ddr_addr: map.sub([y, 0, c]).offset + x * map.pixel_pitch,
                        const_en: 1,
                        hp_id: self.port,
                        ..Save::default()
                    };
                    self.port ^= 1;
                    self.push(save);
                }
            }
        }
    }

    fn load_bias(&mut self, layer: &Layer, weights: Weights) -> u32 {
        if !matches!(layer.compute, Compute::Conv { .. } | Compute::Depthwise { biased: true, .. }) {
            return 0;
        }
        let at = self.bias.take(layer.shape.groups_out(&self.m));
        self.load_bias_at(layer, weights, at);
        at
    }

    fn load_bias_at(&mut self, layer: &Layer, weights: Weights, at: u32) {
        let channels = layer.shape.output[2];
        self.load(Load {
            bank_id: self.bias_bank,
            bank_addr: at,
            jump_read: channels,
            channel: channels,
            ddr_addr: weights.bias + layer.bias,
            ..Load::default()
        });
    }

    /// Weights and biases of a pointwise pass, for all tiles; their addresses.
    fn load_point(&mut self, layer: &Layer) -> (u32, u32) {
        let point = layer.passes.iter().find_map(|p| match p {
            Pass::Point { layer, weights } => Some((layer, *weights)),
            _ => None,
        });
        let Some((point, weights)) = point else { return (0, 0) };
        let groups = point.shape.groups_out(&self.m);
        let bias = self.bias.take(groups);
        self.load_bias_at(point, weights, bias);
        (self.load_kernel(point, weights, (0, groups)), bias)
    }

    /// Weights of output groups `first..first + count`; their address.
    fn load_kernel(&mut self, layer: &Layer, weights: Weights, (first, count): (u32, u32)) -> u32 {
        let s = &layer.shape;
        let taps = s.kernel[0] * s.kernel[1];
        let lanes = self.m.lanes;
        let from = first * lanes;
        let end = ((first + count) * lanes).min(s.output[2]);
        let (reg_id, kernel) = match layer.kernel {
            Kernel::Constants(offset) => (0, weights.kernel + offset),
            Kernel::Memory { reg_id, offset } => (reg_id, offset),
        };
        match layer.compute {
            Compute::Conv { .. } => {
                let (channels, groups) = (s.input[2], s.groups_in(&self.m));
                let at = self.weights.take(taps * groups * count);
                let size = taps * channels;
                let place = |channel: u32| Load {
                    bank_id: self.first_weight_bank + channel % lanes,
                    bank_addr: at + (channel / lanes - first) * taps * groups,
                    reg_id,
                    ddr_addr: kernel + channel * size,
                    ..Load::default()
                };
                // Whole addresses: the taps of an output channel follow each other in memory and in the bank alike.
                let gather = self.gather_weights
                    && (taps == 1 || channels.is_multiple_of(lanes))
                    && size <= MAX_CHANNEL
                    && size * lanes <= MAX_PITCH
                    && taps * groups <= MAX_LENGTH;
                let loads: Vec<Load> = if gather {
                    let lane = |channel: u32| Load {
                        jump_write: taps * groups,
                        jump_read: size * lanes,
                        length: (end - channel).div_ceil(lanes),
                        channel: size,
                        ..place(channel)
                    };
                    (from..end.min(from + lanes)).map(lane).collect()
                } else {
                    let one = |channel: u32| Load {
                        jump_write: groups,
                        jump_read: channels,
                        length: taps,
                        channel: channels,
                        ..place(channel)
                    };
                    (from..end).map(one).collect()
                };
                loads.into_iter().for_each(|l| self.load(l));
                at
            }
            Compute::Depthwise { .. } => {
                let at = self.depthwise.take(taps * count);
                self.load(Load {
                    bank_id: self.depthwise_bank,
                    bank_addr: at,
                    jump_write: count,
                    jump_read: s.output[2],
                    length: taps,
                    channel: end - from,
                    reg_id,
                    ddr_addr: kernel + from,
                    ..Load::default()
                });
                at
            }
            Compute::Pool { .. } | Compute::HardSigmoid { .. } | Compute::Sum { .. } | Compute::Product { .. } => 0,
        }
    }

    /// Input groups `first..first + count` under a tile, for every operand; where they lie, and where operands of passes
    /// go.
    fn load_inputs(&mut self, layer: &Layer, t: &Tiling, tile: &Tile, (first, count): (u32, u32)) -> (Vec<Spot>, u32) {
        let s = &layer.shape;
        let lanes = self.m.lanes;
        let [x0, columns] = tile.columns;
        let channels = (count * lanes).min(s.input[2] - first * lanes);
        let mut spots = Vec::with_capacity(layer.inputs.len());
        // One block: parts of a tile that are needed together never overwrite each other.
        let block = self.input.take(s.input_block(&self.m, t));
        let size = s.input_addresses(&self.m, t).next_multiple_of(BANK_GRAIN);
        let mut base = block;
        for (k, map) in layer.inputs.iter().enumerate() {
            if let Some(held) = layer.held.get(k).copied().flatten() {
                spots.push(held.later_group(first));
                continue;
            }
            let origin = [tile.origin[0], x0.into()];
            let spot = Spot { pack: t.pack, ..Spot::tile(self.first[0], base, columns, count, origin) };
            spots.push(spot);
            base += size;
            for i in 0..s.rows_under(tile.size[0]) {
                // Between windows that do not touch lie rows that nobody reads.
                let between = i % s.stride[0] >= s.kernel[0];
                let Ok(y) = u32::try_from(tile.origin[0] + i64::from(i)) else { continue };
                if between || y >= s.input[0] {
                    continue;
                }
                let (bank_id, bank_addr) = spot.pixel(&self.m, y, x0);
                self.load(Load {
                    bank_id,
                    bank_addr,
                    jump_write: count,
                    jump_read: map.pixel_pitch,
                    length: columns,
                    channel: channels,
                    reg_id: map.reg_id,
                    ddr_addr: map.offset + y * map.row_pitch + x0 * map.pixel_pitch + first * lanes,
                    ..Load::default()
                });
            }
        }
        (spots, base)
    }
}

/// The tiles of a layer, row by row.
fn tiles(s: &Shape, t: &Tiling) -> Vec<Tile> {
    let mut all = Vec::new();
    for y in (0..s.output[0]).step_by(t.rows as usize) {
        for x in (0..s.output[1]).step_by(t.columns as usize) {
            let size = [t.rows.min(s.output[0] - y), t.columns.min(s.output[1] - x)];
            let origin = |axis: usize, at: u32| i64::from(at * s.stride[axis]) - i64::from(s.pad[axis]);
            let origin = [origin(0, y), origin(1, x)];
            let first = origin[1].max(0);
            let end = (origin[1] + i64::from(s.columns_under(size[1]))).min(s.input[1].into());
            let columns = [first as u32, (end - first).max(1) as u32];
            all.push(Tile { at: [y, x], size, origin, columns });
        }
    }
    all
}
