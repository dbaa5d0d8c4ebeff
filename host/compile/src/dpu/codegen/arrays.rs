//! Computation of a tile: CONV, ALU and ELEW instructions.

use shiftwise_core::isa::{Alu, AluInit, Conv, ConvInit, Elew, ElewInit, alu_mode};

use crate::dpu::codegen::bank_layout::Spot;
use crate::dpu::codegen::{Emitter, Piece, Tile};
use crate::dpu::layer::{Compute, Layer};
use crate::dpu::tile::Unit;

impl Emitter {
    /// Input addresses of the instruction for output row `r` of a tile, before the padding columns; then the pads.
    fn window(&self, p: &Piece<'_>, r: u32, n: u32) -> Option<Window> {
        let Piece { layer: Layer { shape: s, .. }, tile, .. } = *p;
        let from = p.from.first()?;
        let hidden = (i64::from(tile.columns[0]) - tile.origin[1]) as u32;
        let y = tile.origin[0] + i64::from(r * s.stride[0]);
        let start = from.start(&self.m, y, tile.origin[1]);
        let address = |turns: u32| (start.at + i64::from(turns * from.turn())).rem_euclid(self.m.depth.into()) as u32;
        let cap = if s.unit == Unit::Conv { 15 } else { 255 };
        let after = |axis: usize, last: u32| {
            let inside = i64::from(s.input[axis]) - 1 + i64::from(s.pad[axis]) - i64::from(last * s.stride[axis]);
            inside.clamp(0, cap) as u32
        };
        Some(Window {
            bank: start.bank,
            addresses: [0, 1, 2, 3].map(address),
            packed: start.packed,
            pad_top: (-y).max(0) as u32,
            pad_left: hidden,
            pad_bottom: after(0, tile.at[0] + r + n - 1),
            pad_right: after(1, tile.at[1] + tile.size[1] - 1),
            stride_h: if n == 1 { from.pack } else { s.stride[0] },
            jump: from.groups,
            jump_row: if from.pack > 1 { from.row } else { 1 },
        })
    }

    /// CONV: one output group after the other of each row group.
    pub(super) fn conv(&mut self, p: &Piece<'_>, to: Spot) {
        let Piece { layer, tile, set: (first, count), kernel, bias, .. } = *p;
        let Compute::Conv { shift_cut, shift_bias, act_type } = layer.compute else { return };
        let s = &layer.shape;
        let [rows, columns] = tile.size;
        let groups = s.groups_in(&self.m);
        let taps = s.kernel[0] * s.kernel[1];
        for r in (0..rows).step_by(self.m.rows_at_once(s.unit) as usize) {
            let n = (rows - r).min(self.m.rows_at_once(s.unit));
            let Some(w) = self.window(p, r, n) else { return };
            let out = self.row_of(&to, tile.at, r);
            let init = ConvInit {
                kernel_h: s.kernel[0],
                kernel_w: s.kernel[1],
                stride_h: w.stride_h,
                stride_w: s.stride[1],
                shift_cut,
                shift_bias,
                act_type,
                jump_read: w.jump,
                jump_read_endl: w.jump_row,
                jump_write: to.groups,
                jump_write_endl: out.jump_row,
                stride_out: to.pack,
                stride_offset_in: w.packed,
                stride_offset_out: out.packed,
                valid_pixel_parallel: n,
            };
            if self.conv != Some(init) {
                self.conv = Some(init);
                self.push(init);
            }
            for g in 0..count {
                let [a, b, c, d] = w.addresses;
                self.amount.engine_macs += u64::from(columns * taps * groups)
                    * u64::from(self.pp)
                    * u64::from(self.m.lanes)
                    * u64::from(self.m.lanes);
                self.push(Conv {
                    bank_id_in: w.bank,
                    bank_addr_in: a,
                    bank_addr_in_1: b,
                    bank_addr_in_2: c,
                    bank_addr_in_3: d,
                    pad_top: w.pad_top,
                    pad_left: w.pad_left,
                    pad_bottom: w.pad_bottom,
                    pad_right: w.pad_right,
                    channel_group: groups,
                    channel_offset: groups * self.m.lanes - s.input[2],
                    length: columns,
                    bank_addr_weights: kernel + g * taps * groups,
                    bank_addr_bias: bias + first + g,
                    bank_id_out: out.bank,
                    bank_addr_out: out.at + g,
                });
            }
        }
    }

    /// ALU: all groups of each row group.
    pub(super) fn alu(&mut self, p: &Piece<'_>, to: Spot) {
        let Piece { layer, tile, set: (first, count), kernel, bias, .. } = *p;
        let s = &layer.shape;
        let [rows, columns] = tile.size;
        let end = (first + count) * self.m.lanes;
        let base = AluInit {
            kernel_h: s.kernel[0],
            kernel_w: s.kernel[1],
            stride_w: s.stride[1],
            length: columns,
            channel_group: count,
            channel_offset: end.saturating_sub(s.output[2]),
            jump_write: to.groups,
            stride_out: to.pack,
            jump_read_weights: count,
            ..AluInit::default()
        };
        let base = match layer.compute {
            Compute::HardSigmoid { input_pos, shift_cut } => {
                AluInit { exec_mode: alu_mode::HSIGMOID, shift_cut, shift_bias: input_pos, ..base }
            }
            Compute::Depthwise { shift_cut, shift_bias, act_type, biased } => {
                let exec_mode = if biased { alu_mode::DWCONV } else { alu_mode::DWCONV_NO_BIAS };
                AluInit { exec_mode, shift_cut, shift_bias, act_type, ..base }
            }
            Compute::Pool { mode, factor, shift_cut, act_type } => {
                AluInit { exec_mode: mode, multi_factor: factor, shift_cut, act_type, ..base }
            }
            Compute::Conv { .. } | Compute::Sum { .. } | Compute::Product { .. } => return,
        };
        let steps = columns * count * s.kernel[0] * s.kernel[1];
        for r in (0..rows).step_by(self.m.rows_at_once(s.unit) as usize) {
            let n = (rows - r).min(self.m.rows_at_once(s.unit));
            let Some(w) = self.window(p, r, n) else { return };
            let out = self.row_of(&to, tile.at, r);
            self.alu_init(AluInit {
                stride_h: w.stride_h,
                jump_read: w.jump,
                jump_read_endl: w.jump_row,
                jump_write_endl: out.jump_row,
                stride_offset_in: w.packed,
                stride_offset_out: out.packed,
                ..base
            });
            self.amount.engine_macs += u64::from(steps) * u64::from(self.m.alu_rows) * u64::from(self.m.lanes);
            let [a, b, c, d] = w.addresses;
            self.push(Alu {
                bank_id_in: w.bank,
                bank_addr_in: a,
                bank_addr_in_1: b,
                bank_addr_in_2: c,
                bank_addr_in_3: d,
                valid_pixel_parallel: n,
                pad_top: w.pad_top,
                pad_left: w.pad_left,
                pad_bottom: w.pad_bottom,
                pad_right: w.pad_right,
                bank_addr_weights: kernel,
                bank_addr_bias: bias + first,
                bank_id_out: out.bank,
                bank_addr_out: out.at,
                ..Alu::default()
            });
        }
    }

    /// Parts of maps at a tile's place, with a left shift each, made into one.
    pub(super) fn elew(&mut self, operands: &[(Spot, u32)], to: Spot, tile: &Tile, groups: u32, how: Combine) {
        let [rows, columns] = tile.size;
        let at_once = self.m.rows_at_once(Unit::Elew);
        for r in (0..rows).step_by(at_once as usize) {
            for (id, (from, shift_read)) in (0..).zip(operands) {
                let own = self.row_of(from, tile.at, r);
                self.push(ElewInit {
                    id,
                    bank_id_in: own.bank,
                    bank_addr_in: own.at,
                    jump_read: from.groups,
                    shift_read: *shift_read,
                    ..ElewInit::default()
                });
            }
            let n = (rows - r).min(at_once);
            let out = self.row_of(&to, tile.at, r);
            self.amount.engine_macs +=
                u64::from(columns * groups) * operands.len() as u64 * u64::from(at_once * self.m.lanes);
            self.push(Elew {
                num: operands.len() as u32,
                elew_type: how.elew_type,
                act_type: how.relu.into(),
                shift_write: how.shift_write,
                length: columns,
                channel_group: groups,
                valid_pixel_parallel: n,
                jump_write: to.groups,
                bank_id_out: out.bank,
                bank_addr_out: out.at,
                ..Elew::default()
            });
        }
    }

    /// An activation over a tile: the maximum of one tap.
    pub(super) fn act(&mut self, from: &Spot, to: &Spot, tile: &Tile, groups: u32, act_type: u32) {
        let [rows, columns] = tile.size;
        let at_once = self.m.rows_at_once(Unit::Pool);
        for r in (0..rows).step_by(at_once as usize) {
            let (own, out) = (self.row_of(from, tile.at, r), self.row_of(to, tile.at, r));
            self.alu_init(AluInit {
                exec_mode: alu_mode::MAX_POOL,
                act_type,
                length: columns,
                channel_group: groups,
                jump_read: from.groups,
                jump_write: to.groups,
                jump_write_endl: out.jump_row,
                stride_out: to.pack,
                stride_offset_out: out.packed,
                ..AluInit::default()
            });
            self.amount.engine_macs += u64::from(columns * groups) * u64::from(at_once * self.m.lanes);
            self.push(Alu {
                bank_id_in: own.bank,
                bank_addr_in: own.at,
                valid_pixel_parallel: (rows - r).min(at_once),
                bank_id_out: out.bank,
                bank_addr_out: out.at,
                ..Alu::default()
            });
        }
    }

    /// Where row `r` of a tile at `at` begins.
    fn row_of(&self, spot: &Spot, at: [u32; 2], r: u32) -> Row {
        let start = spot.start(&self.m, (at[0] + r).into(), at[1].into());
        let jump_row = if spot.pack > 1 { spot.row } else { 1 };
        let at = start.at.rem_euclid(self.m.depth.into()) as u32;
        Row { bank: start.bank, at, packed: start.packed, jump_row }
    }

    fn alu_init(&mut self, init: AluInit) {
        if self.alu != Some(init) {
            self.alu = Some(init);
            self.push(init);
        }
    }
}

/// What ELEW makes of its operands.
#[derive(Clone, Copy)]
pub(crate) struct Combine {
    pub elew_type: u32,
    pub shift_write: i32,
    pub relu: bool,
}

/// The first row of an instruction's operand or result.
struct Row {
    bank: u32,
    at: u32,
    packed: u32,
    jump_row: u32,
}

/// The input side of one CONV or ALU.
struct Window {
    bank: u32,
    addresses: [u32; 4],
    packed: u32,
    pad_top: u32,
    pad_left: u32,
    pad_bottom: u32,
    pad_right: u32,
    stride_h: u32,
    jump: u32,
    jump_row: u32,
}
