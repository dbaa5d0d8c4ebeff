//! POOL and DPTWISE: older encodings of what ALU does, executed as such. INF: no sample exists.

use super::products::Products;
use super::{Fault, Machine};
use crate::isa::{Alu, AluInit, DptWise, DwInit, Kind, Pool, PoolInit, alu_mode, pool_type};

/// By pixels of the window, from 1: the factor m and the shift n with m / 2^n ≈ 1 / pixels that the vendor's quantizers
/// assume (DOC). Windows of 3×3, 5×5, 6×6 and 7×7 have their own.
const FACTORS: [(u8, u8); 64] = [
    (1, 0),
    (1, 1),
    (85, 8),
    (1, 2),
    (51, 8),
    (85, 9),
    (73, 9),
    (1, 3),
    (57, 9),
    (51, 9),
    (93, 10),
    (85, 10),
    (79, 10),
    (73, 10),
    (17, 8),
    (1, 4),
    (15, 8),
    (57, 10),
    (27, 9),
    (51, 10),
    (49, 10),
    (93, 11),
    (89, 11),
    (85, 11),
    (41, 10),
    (79, 11),
    (19, 9),
    (73, 11),
    (71, 11),
    (17, 9),
    (33, 10),
    (1, 5),
    (31, 10),
    (15, 9),
    (117, 12),
    (57, 11),
    (111, 12),
    (27, 10),
    (105, 12),
    (51, 11),
    (25, 10),
    (49, 11),
    (95, 12),
    (93, 12),
    (91, 12),
    (89, 12),
    (87, 12),
    (85, 12),
    (21, 10),
    (41, 11),
    (5, 8),
    (79, 12),
    (77, 12),
    (19, 10),
    (37, 11),
    (73, 12),
    (9, 9),
    (71, 12),
    (69, 12),
    (17, 10),
    (67, 12),
    (33, 11),
    (65, 12),
    (1, 6),
];

/// m and n of an average over a window of at most 8 × 8; `None` beyond.
pub fn pool_factor(kernel_h: u32, kernel_w: u32) -> Option<(u8, u8)> {
    match (kernel_h, kernel_w) {
        (3, 3) => Some((7, 6)),
        (5, 5) => Some((10, 8)),
        (6, 6) => Some((7, 8)),
        (7, 7) => Some((21, 10)),
        (1..=8, 1..=8) => FACTORS.get((kernel_h * kernel_w) as usize - 1).copied(),
        _ => None,
    }
}

/// The ALU operation that a POOL is.
///
/// Errors: what is not modelled.
pub fn pool_as_alu(init: &PoolInit, i: &Pool) -> Result<(AluInit, Alu), Fault> {
    for (field, value) in
        [("downsample_kernel_w", i.downsample_kernel_w), ("downsample_kernel_h", i.downsample_kernel_h)]
    {
        if value != 0 {
            return Err(Fault::Unsupported { field, value });
        }
    }
    let (exec_mode, (factor, shift)) = match init.pool_type {
        pool_type::MAX => (alu_mode::MAX_POOL, (0, 0)),
        pool_type::AVERAGE => {
            let window = pool_factor(init.kernel_h, init.kernel_w);
            let beyond = Fault::Value { field: "kernel_h", value: init.kernel_h, max: 8 };
            (alu_mode::AVG_POOL, window.ok_or(beyond)?)
        }
        value => return Err(Fault::Unsupported { field: "pool_type", value }),
    };
    let PoolInit { kernel_h, kernel_w, stride_h, stride_w, shift_cut, jump_read, jump_write, .. } = *init;
    let as_init = AluInit {
        exec_mode,
        kernel_h,
        kernel_w,
        stride_h,
        stride_w,
        length: i.length,
        channel_group: i.channel_group,
        shift_cut: shift_cut + u32::from(shift),
        multi_factor: factor.into(),
        jump_read,
        jump_read_endl: i.jump_read_endl,
        jump_write,
        jump_write_endl: i.jump_write_endl,
        stride_out: init.stride_out,
        stride_offset_in: init.stride_offset_in,
        stride_offset_out: init.stride_offset_out,
        ..AluInit::default()
    };
    let Pool { bank_id_in, bank_addr_in, bank_addr_in_1, bank_addr_in_2, bank_addr_in_3, .. } = *i;
    let as_alu = Alu {
        bank_id_in,
        bank_addr_in,
        bank_addr_in_1,
        bank_addr_in_2,
        bank_addr_in_3,
        valid_pixel_parallel: init.valid_pixel_parallel,
        pad_top: i.pad_top,
        pad_left: i.pad_left,
        pad_bottom: i.pad_bottom,
        pad_right: i.pad_right,
        bank_id_out: i.bank_id_out,
        bank_addr_out: i.bank_addr_out,
        ..Alu::default()
    };
    Ok((as_init, as_alu))
}

/// The ALU operation that a DPTWISE is.
pub fn dpt_wise_as_alu(init: &DwInit, i: &DptWise) -> (AluInit, Alu) {
    let DwInit { kernel_h, kernel_w, stride_h, stride_w, shift_cut, shift_bias, .. } = *init;
    let as_init = AluInit {
        exec_mode: alu_mode::DWCONV,
        kernel_h,
        kernel_w,
        stride_h,
        stride_w,
        length: i.length,
        channel_group: i.channel_group,
        channel_offset: i.channel_offset,
        shift_cut,
        shift_bias,
        act_type: i.act_type,
        jump_read: init.jump_read,
        jump_read_endl: init.jump_read_endl,
        jump_write: init.jump_write,
        jump_write_endl: init.jump_write_endl,
        jump_read_weights: i.channel_group,
        stride_out: init.stride_out,
        stride_offset_in: init.stride_offset_in,
        stride_offset_out: init.stride_offset_out,
        ..AluInit::default()
    };
    let DptWise { bank_id_in, bank_addr_in, bank_addr_in_1, bank_addr_in_2, bank_addr_in_3, .. } = *i;
    let as_alu = Alu {
        bank_id_in,
        bank_addr_in,
        bank_addr_in_1,
        bank_addr_in_2,
        bank_addr_in_3,
        valid_pixel_parallel: init.valid_pixel_parallel,
        pad_top: i.pad_top,
        pad_left: i.pad_left,
        pad_bottom: i.pad_bottom,
        pad_right: i.pad_right,
        bank_addr_weights: i.bank_addr_weights,
        bank_addr_bias: i.bank_addr_bias,
        bank_id_out: i.bank_id_out,
        bank_addr_out: i.bank_addr_out,
        ..Alu::default()
    };
    (as_init, as_alu)
}

impl<P: Products> Machine<'_, P> {
    pub(super) fn pool(&mut self, i: &Pool) -> Result<(), Fault> {
        let init = self.pool.ok_or(Fault::Uninitialised { inst: Kind::PoolInit.mnemonic() })?;
        let (init, alu) = pool_as_alu(&init, i)?;
        self.alu_with(&init, &alu)
    }

    pub(super) fn dpt_wise(&mut self, i: &DptWise) -> Result<(), Fault> {
        let init = self.dw.ok_or(Fault::Uninitialised { inst: Kind::DwInit.mnemonic() })?;
        let (init, alu) = dpt_wise_as_alu(&init, i);
        self.alu_with(&init, &alu)
    }
}
