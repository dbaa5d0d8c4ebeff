//! A tile from its operands in the banks to memory: computation, passes, saves.

use shiftwise_core::isa::{Load, Save, elew_type};

use super::arrays::Combine;
use super::{Compute, Emitter, Layer, Map, Pass, Piece, Tile};
use crate::compile::hazard::BANK_GRAIN;
use crate::compile::tile::{Shape, Tiling};

/// A finished tile in the second feature-map group.
#[derive(Clone, Copy, Debug)]
struct Finished {
    /// Its address.
    at: u32,
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
        let block = self.output.take(layer.shape.output_block(&self.m, p.tiling), self.m.depth);
        let mut next = block;
        let mut place = |emitter: &Self, groups: u32| {
            let [rows, columns] = tile.size;
            let at = next;
            next += (rows.div_ceil(emitter.pp) * columns * groups).next_multiple_of(BANK_GRAIN);
            at
        };
        let mut done = Finished { at: place(self, set.1), set, channels: layer.shape.output[2] };
        match &layer.compute {
            Compute::Sum { shift_read, shift_write, relu } => {
                let operands: Vec<_> = p.from.iter().zip(shift_read).map(|(b, s)| (self.first[0], *b, *s)).collect();
                let how = Combine { elew_type: elew_type::ADD, shift_write: *shift_write, relu: *relu };
                self.elew(&operands, done.at, tile.size, set.1, how);
            }
            Compute::Product { shift_write, relu } => {
                let operands: Vec<_> = p.from.iter().map(|b| (self.first[0], *b, 0)).collect();
                let how = Combine { elew_type: elew_type::MUL, shift_write: *shift_write, relu: *relu };
                self.elew(&operands, done.at, tile.size, set.1, how);
            }
            Compute::Conv { .. } => self.conv(p, done.at),
            Compute::Depthwise { .. } | Compute::Pool { .. } | Compute::HardSigmoid { .. } => self.alu(p, done.at),
        }
        for pass in &layer.passes {
            let groups = done.set.1;
            match pass {
                Pass::Shift { shift_write, relu } => {
                    let to = place(self, groups);
                    let how = Combine { elew_type: elew_type::ADD, shift_write: *shift_write, relu: *relu };
                    self.elew(&[(self.first[1], done.at, 0)], to, tile.size, groups, how);
                    done.at = to;
                }
                Pass::Act { act_type } => {
                    let to = place(self, groups);
                    self.act(done.at, to, tile.size, groups, *act_type);
                    done.at = to;
                }
                Pass::Keep(maps) => self.save(tile, &done, maps),
                Pass::Add { map, shift_read: [own, other], shift_write, relu } => {
                    self.load_add(p, &done, map);
                    let to = place(self, groups);
                    let operands = [(self.first[1], done.at, *own), (self.first[0], p.adds, *other)];
                    let how = Combine { elew_type: elew_type::ADD, shift_write: *shift_write, relu: *relu };
                    self.elew(&operands, to, tile.size, groups, how);
                    done.at = to;
                }
                Pass::Point { layer, .. } => {
                    let total = layer.shape.groups_out(&self.m);
                    let to = place(self, total);
                    self.point(p, layer, done.at, to);
                    done = Finished { at: to, set: (0, total), channels: layer.shape.output[2] };
                }
            }
        }
        self.save(tile, &done, &layer.outputs);
    }

    /// The pointwise convolution of a finished tile, which is its whole input.
    fn point(&mut self, p: &Piece<'_>, layer: &Layer, from: u32, to: u32) {
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
            from: &[from],
            bank: self.first[1],
            adds: 0,
            kernel: p.point.0,
            bias: p.point.1,
            point: (0, 0),
        };
        self.conv(&whole, to);
    }

    /// The part of a map in memory that belongs to a finished tile, in the layout of the tile.
    fn load_add(&mut self, p: &Piece<'_>, done: &Finished, map: &Map) {
        let [rows, columns] = p.tile.size;
        let (groups, channels) = (done.set.1, self.channels(done));
        for r in 0..rows {
            self.load(Load {
                bank_id: self.first[0] + r % self.pp,
                bank_addr: p.adds + r / self.pp * columns * groups,
                jump_write: groups,
                jump_read: map.pixel_pitch,
                length: columns,
                channel: channels,
                reg_id: map.reg_id,
                ddr_addr: map.sub([p.tile.at[0] + r, p.tile.at[1], done.set.0 * self.m.lanes]).offset,
                ..Load::default()
            });
        }
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
            let save = Save {
                bank_id: self.first[1] + r % self.pp,
                bank_addr: done.at + r / self.pp * columns * done.set.1,
                jump_write: map.pixel_pitch,
                jump_read: done.set.1,
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
