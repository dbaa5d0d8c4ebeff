//! A tile from its operands in the banks to memory: computation, passes, saves.

use shiftwise_core::isa::{Load, Save, elew_type};

use crate::dpu::codegen::arrays::Combine;
use crate::dpu::codegen::bank_layout::Spot;
use crate::dpu::codegen::{Emitter, Piece, Tile};
use crate::dpu::hazard::BANK_GRAIN;
use crate::dpu::layer::{Compute, Layer, Map, Pass};
use crate::dpu::tile::{Shape, Tiling};

/// A finished tile.
#[derive(Clone, Copy, Debug)]
struct Finished {
    /// Where it lies, from its first group on.
    spot: Spot,
    /// First channel group and number of groups.
    set: (u32, u32),
    /// Channels of the whole map.
    channels: u32,
}

impl Emitter {
    /// Computes and saves.
    pub(super) fn piece(&mut self, p: &Piece<'_>) {
        let Piece { layer, tile, set, .. } = *p;
        self.amount.tiles += 1;
        // One block: a tile and what passes make of it never overwrite each other.
        let block = self.output.take(layer.shape.output_block(&self.m, p.tiling));
        let mut next = block;
        let mut results = 1 + layer.passes.iter().filter(|p| !matches!(p, Pass::Keep(_))).count();
        // Of the last result the whole map may stay.
        let mut place = |emitter: &Self, (first, groups): (u32, u32)| {
            let [rows, columns] = tile.size;
            results -= 1;
            if let (0, Some(spot)) = (results, layer.stays) {
                return spot.later_group(first);
            }
            let spot = Spot::tile(emitter.first[1], next, columns, groups, tile.at.map(i64::from));
            next += (rows.div_ceil(emitter.pp) * columns * groups).next_multiple_of(BANK_GRAIN);
            spot
        };
        let mut done = Finished { spot: place(self, set), set, channels: layer.shape.output[2] };
        match &layer.compute {
            Compute::Sum { shift_read, shift_write, relu } => {
                let operands: Vec<_> = p.from.iter().copied().zip(shift_read.iter().copied()).collect();
                let how = Combine { elew_type: elew_type::ADD, shift_write: *shift_write, relu: *relu };
                self.elew(&operands, done.spot, tile, set.1, how);
            }
            Compute::Product { shift_write, relu } => {
                let operands: Vec<_> = p.from.iter().map(|spot| (*spot, 0)).collect();
                let how = Combine { elew_type: elew_type::MUL, shift_write: *shift_write, relu: *relu };
                self.elew(&operands, done.spot, tile, set.1, how);
            }
            Compute::Conv { .. } => self.conv(p, done.spot),
            Compute::Depthwise { .. } | Compute::Pool { .. } | Compute::HardSigmoid { .. } => self.alu(p, done.spot),
        }
        for pass in &layer.passes {
            let groups = done.set.1;
            match pass {
                Pass::Shift { shift_write, relu } => {
                    let to = place(self, done.set);
                    let how = Combine { elew_type: elew_type::ADD, shift_write: *shift_write, relu: *relu };
                    self.elew(&[(done.spot, 0)], to, tile, groups, how);
                    done.spot = to;
                }
                Pass::Act { act_type } => {
                    let to = place(self, done.set);
                    self.act(&done.spot, &to, tile, groups, *act_type);
                    done.spot = to;
                }
                Pass::Keep(maps) => self.save(tile, &done, maps),
                Pass::Add { map, held, shift_read: [own, other], shift_write, relu } => {
                    let operand = match held {
                        Some(spot) => spot.later_group(done.set.0),
                        None => self.load_add(p, &done, map),
                    };
                    let to = place(self, done.set);
                    let operands = [(done.spot, *own), (operand, *other)];
                    let how = Combine { elew_type: elew_type::ADD, shift_write: *shift_write, relu: *relu };
                    self.elew(&operands, to, tile, groups, how);
                    done.spot = to;
                }
                Pass::Point { layer, .. } => {
                    let total = layer.shape.groups_out(&self.m);
                    let to = place(self, (0, total));
                    self.point(p, layer, done.spot, to);
                    done = Finished { spot: to, set: (0, total), channels: layer.shape.output[2] };
                }
            }
        }
        self.save(tile, &done, &layer.outputs);
    }

    /// The pointwise convolution of a finished tile, which is its whole input.
    fn point(&mut self, p: &Piece<'_>, layer: &Layer, from: Spot, to: Spot) {
        let [rows, columns] = p.tile.size;
        let s = &layer.shape;
        let local = Layer {
            shape: Shape { input: [rows, columns, s.input[2]], output: [rows, columns, s.output[2]], ..*s },
            compute: layer.compute.clone(),
            ..Layer::default()
        };
        let groups = s.groups_out(&self.m);
        let tile = Tile { at: [0, 0], size: p.tile.size, origin: [0, 0], columns: [0, columns] };
        let tiling = Tiling { rows, columns, groups, pack: 1, groups_outside: false };
        let whole = Piece {
            layer: &local,
            tiling: &tiling,
            tile: &tile,
            set: (0, groups),
            from: &[from.counted_from(p.tile.at)],
            adds: 0,
            kernel: p.point.0,
            bias: p.point.1,
            point: (0, 0),
        };
        self.conv(&whole, to.counted_from(p.tile.at));
    }

    /// The part of a map in memory that belongs to a finished tile, in the layout of the tile.
    fn load_add(&mut self, p: &Piece<'_>, done: &Finished, map: &Map) -> Spot {
        let [rows, columns] = p.tile.size;
        let (groups, channels) = (done.set.1, self.channels(done));
        let [top, left] = p.tile.at;
        let spot = Spot::tile(self.first[0], p.adds, columns, groups, p.tile.at.map(i64::from));
        for r in 0..rows {
            let (bank_id, bank_addr) = spot.pixel(&self.m, top + r, left);
            self.load(Load {
                bank_id,
                bank_addr,
                jump_write: groups,
                jump_read: map.pixel_pitch,
                length: columns,
                channel: channels,
                reg_id: map.reg_id,
                ddr_addr: map.sub([top + r, left, done.set.0 * self.m.lanes]).offset,
                ..Load::default()
            });
        }
        spot
    }

    /// Channels of a finished tile.
    fn channels(&self, done: &Finished) -> u32 {
        (done.set.1 * self.m.lanes).min(done.channels - done.set.0 * self.m.lanes)
    }

    /// The tile to every place that wants it.
    fn save(&mut self, tile: &Tile, done: &Finished, maps: &[Map]) {
        let [rows, columns] = tile.size;
        let channels = self.channels(done);
        for (r, map) in (0..rows).flat_map(|r| maps.iter().map(move |m| (r, m))) {
            self.amount.save_bytes += u64::from(columns) * u64::from(channels);
            let (bank_id, bank_addr) = done.spot.pixel(&self.m, tile.at[0] + r, tile.at[1]);
            let save = Save {
                bank_id,
                bank_addr,
                jump_write: map.pixel_pitch,
                jump_read: done.spot.groups,
                length: columns,
                channel: channels,
                reg_id: map.reg_id,
                ddr_addr: map.sub([tile.at[0] + r, tile.at[1], done.set.0 * self.m.lanes]).offset,
                hp_id: self.port,
                ..Save::default()
            };
            self.port ^= 1;
            self.push(save);
        }
    }
}
