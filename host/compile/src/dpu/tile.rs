//! Cutting a layer into tiles that fit the banks.
//!
//! A tile is `rows` × `columns` output pixels of `groups` channel groups. Its input lies in the first feature-map group,
//! its result in the second; both are rings, so that with tiles of at most half a bank the next tile loads while this
//! one computes and the last one is saved. All sizes that fit are priced by [`Cost`], and the cheapest wins.

use shiftwise_core::target::Target;

use crate::dpu::hazard::BANK_GRAIN;

/// Sizes of a layer as the engines see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    /// Input rows, columns, channels.
    pub input: [u32; 3],
    /// Output rows, columns, channels.
    pub output: [u32; 3],
    /// Taps.
    pub kernel: [u32; 2],
    /// Strides.
    pub stride: [u32; 2],
    /// Padding above and left.
    pub pad: [u32; 2],
    /// Input maps.
    pub operands: u32,
    /// Passes over the finished tile.
    pub passes: u32,
    /// Places that the result is saved to.
    pub saves: u32,
    /// Passes that load an operand of the finished tile's size.
    pub adds: u32,
    /// Output channels of a pointwise convolution over the finished tile, 0 without; `passes` come before it.
    pub point: u32,
    /// Passes over its result.
    pub point_passes: u32,
    /// Places that results on the way are saved to, of all passes together.
    pub keeps: u32,
    /// Input maps that lie in the banks already; rows of theirs that share a bank.
    pub held: u32,
    pub held_pack: u32,
    /// Operands of passes that lie in the banks already.
    pub held_adds: u32,
    /// The result has a place of its own in the banks.
    pub stays: bool,
    /// Which engine, and what it may do at once.
    pub unit: Unit,
}

/// The engine of a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Unit {
    /// CONV: reads all channels, writes one output group at a time.
    Conv,
    /// ALU with weights.
    Depthwise,
    /// ALU without weights.
    Pool,
    /// ELEW.
    #[default]
    Elew,
}

/// How a layer is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// Output rows of a tile.
    pub rows: u32,
    /// Output columns of a tile.
    pub columns: u32,
    /// Channel groups of a tile: output groups of CONV, input and output groups otherwise.
    pub groups: u32,
    /// Input rows that share a bank.
    pub pack: u32,
    /// All tiles of one set of groups before the next set: weights are loaded once, inputs once per set.
    pub groups_outside: bool,
}

/// The numbers of a target that tiles depend on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    /// Banks of a feature-map group.
    pub pp: u32,
    /// Bytes of a bank address.
    pub lanes: u32,
    /// Addresses of a feature-map bank.
    pub depth: u32,
    /// Addresses of them that tiles may use, per group: what maps that stay there leave.
    pub rooms: [u32; 2],
    /// Addresses of a weight bank.
    pub weight_depth: u32,
    /// Addresses of a depthwise weight bank.
    pub depthwise_depth: u32,
    /// Rows of an ALU.
    pub alu_rows: u32,
    /// Rows of an ELEW.
    pub elew_rows: u32,
}

impl Machine {
    /// Rows that one instruction of a unit computes.
    pub(crate) fn rows_at_once(&self, unit: Unit) -> u32 {
        match unit {
            Unit::Conv => self.pp,
            Unit::Depthwise | Unit::Pool => self.alu_rows,
            Unit::Elew => self.elew_rows,
        }
        .clamp(1, self.pp)
    }
}

/// Longest transfer of one LOAD or SAVE, and longest row of CONV (DOC: 10-bit fields).
pub(crate) const MAX_LENGTH: u32 = 1024;
/// Largest `jump_read_endl` of CONVINIT (DOC).
const MAX_CONV_ENDL: u32 = 1024;
/// Largest `jump_read_endl` of ALUINIT (DOC).
const MAX_ALU_ENDL: u32 = 8192;
/// Most channel groups of an instruction (DOC).
const MAX_GROUPS: u32 = 256;
/// Address fields of an input: the rows of an instruction pass the end of the bank group at most three times (DEC).
const ROW_TURNS: u32 = 4;

/// Bytes per cycle that loads and saves get, and cycles that every instruction costs on top. Estimates for choosing
/// tiles only (dpu.md §6: 24 bytes per cycle measured, 30 to 150 cycles assumed).
const BYTES_PER_CYCLE: u64 = 24;
const TRANSFER_START: u64 = 30;
const COMPUTE_START: u64 = 40;

impl Shape {
    /// One operand of `[h, w, c]`, element by element on ELEW.
    pub(crate) fn copy(dims: [u32; 3]) -> Self {
        let unit = Unit::Elew;
        Self {
            input: dims,
            output: dims,
            kernel: [1, 1],
            stride: [1, 1],
            operands: 1,
            saves: 1,
            unit,
            ..Self::default()
        }
    }

    /// Input maps that are loaded.
    pub(crate) fn loaded(&self) -> u32 {
        self.operands - self.held
    }

    /// Channel groups of the input.
    pub(crate) fn groups_in(&self, m: &Machine) -> u32 {
        self.input[2].div_ceil(m.lanes)
    }

    /// Channel groups of the output.
    pub(crate) fn groups_out(&self, m: &Machine) -> u32 {
        self.output[2].div_ceil(m.lanes)
    }

    /// Input columns under `columns` outputs, padding included.
    pub(crate) fn columns_under(&self, columns: u32) -> u32 {
        (columns - 1) * self.stride[1] + self.kernel[1]
    }

    /// Input rows under `rows` outputs, padding included.
    pub(crate) fn rows_under(&self, rows: u32) -> u32 {
        (rows - 1) * self.stride[0] + self.kernel[0]
    }

    /// Addresses of a tile's input in each bank.
    pub(crate) fn input_addresses(&self, m: &Machine, t: &Tiling) -> u32 {
        let groups = if self.unit == Unit::Conv { self.groups_in(m) } else { t.groups };
        let columns = self.columns_under(t.columns).min(self.input[1]);
        product([self.rows_under(t.rows).div_ceil(t.pack).div_ceil(m.pp), t.pack, columns, groups])
    }

    /// Addresses of a tile's result in each bank.
    pub(crate) fn output_addresses(m: &Machine, t: &Tiling) -> u32 {
        product([t.rows.div_ceil(m.pp), t.columns, t.groups, 1])
    }

    /// Addresses of a set of weights in each bank.
    pub(crate) fn weight_addresses(&self, m: &Machine, t: &Tiling) -> u32 {
        let taps = self.kernel[0] * self.kernel[1];
        match self.unit {
            Unit::Conv => taps.saturating_mul(self.groups_in(m)).saturating_mul(t.groups),
            Unit::Depthwise => taps.saturating_mul(t.groups),
            Unit::Pool | Unit::Elew => 0,
        }
    }

    /// Channel groups of what is saved at the end, if the tile has `groups`.
    fn groups_last(&self, m: &Machine, groups: u32) -> u32 {
        if self.point == 0 { groups } else { self.point.div_ceil(m.lanes) }
    }

    /// Addresses of one block of inputs: the operands under a tile, then operands of passes (two places each where
    /// several sets of groups follow each other).
    pub(crate) fn input_block(&self, m: &Machine, t: &Tiling) -> u32 {
        let sets = if self.unit == Unit::Conv && t.groups < self.groups_out(m) { 2 } else { 1 };
        self.loaded().saturating_mul(aligned(self.input_addresses(m, t))).saturating_add(product([
            self.adds - self.held_adds,
            sets,
            self.add_addresses(m, t),
            1,
        ]))
    }

    /// Addresses of an operand of a pass.
    pub(crate) fn add_addresses(&self, m: &Machine, t: &Tiling) -> u32 {
        aligned(Self::output_addresses(m, &Tiling { groups: self.groups_last(m, t.groups), ..*t }))
    }

    /// Addresses of one block of results: the tile, and one more for every pass; the last may have a place of its own.
    pub(crate) fn output_block(&self, m: &Machine, t: &Tiling) -> u32 {
        let elsewhere = u32::from(self.stays);
        let own = |results: u32| results.saturating_mul(aligned(Self::output_addresses(m, t)));
        if self.point == 0 {
            return own(1 + self.passes - elsewhere);
        }
        let point = (1 + self.point_passes - elsewhere).saturating_mul(self.add_addresses(m, t));
        own(1 + self.passes).saturating_add(point)
    }

    /// Addresses that the weights of the pointwise convolution take in each bank.
    pub(crate) fn point_weights(&self, m: &Machine) -> u32 {
        if self.point == 0 { 0 } else { aligned(product([self.groups_out(m), self.point.div_ceil(m.lanes), 1, 1])) }
    }

    /// Whether a tile fits `slots` times, and every field of its instructions holds its value.
    fn fits(&self, m: &Machine, t: &Tiling, slots: u32) -> bool {
        let room = |addresses: u32, slots: u32, depth: u32| addresses.checked_mul(slots).is_some_and(|a| a <= depth);
        // Weights that are loaded once need no second place.
        let weight_slots = if t.groups < self.groups_out(m) { slots } else { 1 };
        let columns = self.columns_under(t.columns).min(self.input[1]);
        let row = columns * if self.unit == Unit::Conv { self.groups_in(m) } else { t.groups };
        let endl = if self.unit == Unit::Conv { MAX_CONV_ENDL } else { MAX_ALU_ENDL };
        let at_once = m.rows_at_once(self.unit).min(t.rows);
        // The last instruction of a bank turn starts furthest into it.
        let first_bank = if t.rows == 1 { 0 } else { (m.pp - 1) / at_once * at_once };
        let first_bank = if self.held > 0 { m.pp - 1 } else { first_bank.min((t.rows - 1) / at_once * at_once) };
        let pack = if self.held > 0 { self.held_pack } else { t.pack };
        let reach = first_bank + ((at_once - 1) * self.stride[0] + self.kernel[0] + pack - 2) / pack;
        let own = aligned(self.weight_addresses(m, t));
        let weights = if self.unit == Unit::Conv {
            let point = self.point_weights(m);
            own.checked_mul(weight_slots).and_then(|w| w.checked_add(point)).is_some_and(|w| w <= m.weight_depth)
        } else {
            room(own, weight_slots, m.depthwise_depth) && self.point_weights(m) <= m.weight_depth
        };
        // A pointwise convolution over the tile reads all of its channels.
        let whole = self.point == 0 || t.groups == self.groups_out(m);
        columns <= MAX_LENGTH
            && t.columns <= MAX_LENGTH
            && t.groups.max(self.groups_last(m, t.groups)) <= MAX_GROUPS
            && whole
            && (t.pack == 1 || row <= endl)
            && reach < ROW_TURNS * m.pp
            && room(self.input_block(m, t), slots, m.rooms[0])
            && room(self.output_block(m, t), slots, m.rooms[1])
            && weights
    }

    /// The cheapest tiling and its estimated cycles; `None` if no tile fits.
    pub(crate) fn tiling(&self, m: &Machine) -> Option<(u64, Tiling)> {
        let [height, width, _] = self.output;
        let groups = self.groups_out(m);
        let mut rows: Vec<u32> = (1..=16).map(|n| n * m.pp).filter(|r| *r < height).collect();
        rows.extend([1, height]);
        let columns = parts(width);
        let sets = if self.point == 0 { parts(groups) } else { vec![groups] };
        let mut best: Option<(u64, Tiling)> = None;
        for &rows in &rows {
            let own = [self.stride[0], self.kernel[0].div_ceil(m.pp)];
            // With one output row the stride is free, and packing brings a tall window into few banks.
            let packs = if rows == 1 { &own[..] } else { &own[..1] };
            for (&pack, &columns) in packs.iter().flat_map(|p| columns.iter().map(move |c| (p, c))) {
                for &groups in &sets {
                    for groups_outside in [false, true] {
                        let t = Tiling { rows, columns, groups, pack, groups_outside };
                        let slots = if self.fits(m, &t, 2) {
                            2
                        } else if self.fits(m, &t, 1) {
                            1
                        } else {
                            continue;
                        };
                        let cost = self.cost(m, &t, slots);
                        if best.is_none_or(|(c, _)| cost < c) {
                            best = Some((cost, t));
                        }
                    }
                }
            }
        }
        best
    }

    /// Estimated cycles.
    fn cost(&self, m: &Machine, t: &Tiling, slots: u32) -> u64 {
        let wide = u64::from;
        let [height, width, channels] = self.output;
        let (row_tiles, column_tiles) = (wide(height.div_ceil(t.rows)), wide(width.div_ceil(t.columns)));
        let sets = wide(self.groups_out(m).div_ceil(t.groups));
        let tiles = row_tiles * column_tiles;
        let conv = self.unit == Unit::Conv;
        let taps = wide(self.kernel[0]) * wide(self.kernel[1]);
        let rows_in = wide(self.rows_under(t.rows).min(self.input[0]));
        let columns_in = wide(self.columns_under(t.columns).min(self.input[1]));
        // Channels of a tile's input; tiles of other units split them, so that the sum over sets is the same.
        let input_loads = if conv && t.groups_outside { sets } else { 1 };
        let input_bytes = rows_in * columns_in * wide(self.input[2]) * wide(self.loaded());
        let input_count = rows_in * wide(self.loaded()) * if conv { input_loads } else { sets };
        let weights = match self.unit {
            Unit::Conv => taps * wide(self.input[2]) * wide(channels),
            Unit::Depthwise => taps * wide(channels),
            Unit::Pool | Unit::Elew => 0,
        };
        let weight_loads = if conv && sets > 1 && !t.groups_outside { tiles } else { 1 };
        let weight_count = if conv { wide(channels) } else { sets };
        let point = wide(self.point);
        let adds = wide(self.adds - self.held_adds);
        let last_channels = if self.point == 0 { wide(channels) } else { point };
        let pixels = wide(height) * wide(width);
        let load = (tiles * input_bytes * input_loads
            + weights * weight_loads
            + wide(channels) * point
            + pixels * last_channels * adds)
            / BYTES_PER_CYCLE
            + (tiles * input_count + weight_count * weight_loads + point + wide(height) * column_tiles * sets * adds)
                * TRANSFER_START;
        let kept = if self.point == 0 { last_channels } else { wide(channels) };
        let output_bytes = pixels * (last_channels * wide(self.saves) + kept * wide(self.keeps));
        let saves = wide(self.saves + self.keeps);
        let save = output_bytes / BYTES_PER_CYCLE + wide(height) * column_tiles * sets * saves * TRANSFER_START;
        let at_once = m.rows_at_once(self.unit);
        let last = height - (height.div_ceil(t.rows) - 1) * t.rows;
        let row_groups = |at_once: u32| (row_tiles - 1) * wide(t.rows.div_ceil(at_once)) + wide(last.div_ceil(at_once));
        let (depth, calls) = if conv {
            (wide(self.groups_in(m)) * wide(self.groups_out(m)), wide(self.groups_out(m)))
        } else {
            (wide(self.groups_out(m)) * wide(self.operands + self.passes), sets)
        };
        let own = row_groups(at_once) * (wide(width) * taps * depth + column_tiles * calls * COMPUTE_START);
        let last_groups = wide(self.groups_last(m, self.groups_out(m)));
        let on_conv = if self.point == 0 {
            0
        } else {
            row_groups(m.rows_at_once(Unit::Conv))
                * last_groups
                * (wide(width) * wide(self.groups_out(m)) + column_tiles * COMPUTE_START)
        };
        let on_misc =
            row_groups(m.rows_at_once(Unit::Elew)) * wide(2 * self.adds) * (wide(width) * last_groups + COMPUTE_START);
        // Two arrays work at once, one of them the layer's own.
        let compute = if conv { (own + on_conv).max(on_misc) } else { (own + on_misc).max(on_conv) };
        let ends = (input_bytes + weights / sets) / BYTES_PER_CYCLE + save / (tiles * sets);
        if slots == 1 {
            return load + compute + save;
        }
        // Transfers that hide behind computation still take memory from others, so they are not free.
        load.max(compute).max(save) + ends + (load + save) / 4
    }
}

/// Addresses in whole grains, so that blocks start at multiples of it.
fn aligned(addresses: u32) -> u32 {
    addresses.checked_next_multiple_of(BANK_GRAIN).unwrap_or(u32::MAX)
}

/// A product that stays at the largest number instead of overflowing: sizes of tiles that are tried and don't fit.
fn product(factors: [u32; 4]) -> u32 {
    factors.into_iter().fold(1, u32::saturating_mul)
}

/// Sizes that cut `whole` into equal parts, largest first.
fn parts(whole: u32) -> Vec<u32> {
    let mut sizes: Vec<u32> = (1..=whole.min(32)).map(|n| whole.div_ceil(n)).collect();
    let mut size = whole / 33;
    while size > 0 {
        sizes.push(size);
        size = size * 2 / 3;
    }
    sizes.push(1);
    sizes.dedup();
    sizes
}

impl Machine {
    /// The numbers of `target`; `None` if it lacks a bank group that tiles need.
    pub(crate) fn of(target: &Target) -> Option<Self> {
        use shiftwise_core::target::BankKind;
        let mut features = target.feature_groups();
        let (first, second) = (features.next()?, features.next()?);
        let pp = u32::from(target.pixel_parallel);
        let lanes = u32::from(target.input_channel_parallel);
        let usable = lanes == u32::from(target.output_channel_parallel)
            && [first, second].iter().all(|g| u32::from(g.count) == pp && u32::from(g.width) == lanes)
            && first.depth == second.depth
            && pp > 0;
        usable.then_some(Self {
            pp,
            lanes,
            depth: first.depth,
            rooms: [first.depth; 2],
            weight_depth: target.group(BankKind::ConvWeights)?.0.depth,
            depthwise_depth: target.group(BankKind::DepthwiseWeights)?.0.depth,
            alu_rows: target.alu_pixel_parallel.into(),
            elew_rows: target.elew_pixel_parallel.into(),
        })
    }
}
