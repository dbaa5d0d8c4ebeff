//! ELEW: sums and products of up to four feature maps.

use super::{Fault, MAX_LANES, Machine, Rows, at_most};
use crate::arith::requantize_i8;
use crate::isa::{Elew, ElewInit, Kind, elew_type};

impl Machine<'_> {
    pub(super) fn elew(&mut self, i: &Elew) -> Result<(), Fault> {
        at_most("valid_pixel_parallel", i.valid_pixel_parallel, self.target.elew_pixel_parallel.into())?;
        at_most("act_type", i.act_type, 1)?;
        let multiply = match i.elew_type {
            elew_type::ADD => false,
            elew_type::MUL => true,
            value => return Err(Fault::Unsupported { field: "elew_type", value }),
        };
        let mut operands = heapless::Vec::<(ElewInit, Rows), 4>::new();
        for init in self.elew.iter().take(i.num as usize) {
            let init = init.ok_or(Fault::Uninitialised { inst: Kind::ElewInit.mnemonic() })?;
            // `take` and the array's length both bound this by four.
            let _ = operands.push((init, self.rows(init.bank_id_in)?));
        }
        at_most("num", i.num, operands.len() as u32)?;
        let output = self.rows(i.bank_id_out)?;
        output.place.holds((i.length - 1) * i.jump_write + i.channel_group)?;
        let width = output.place.width.get();
        for r in 0..i.valid_pixel_parallel {
            for x in 0..i.length {
                for g in 0..i.channel_group {
                    let mut acc = [i64::from(multiply); MAX_LANES];
                    for (o, rows) in &operands {
                        let row = if o.share_pp == 0 { r } else { 0 };
                        let at = entry(rows, row * o.jump_bank, o.bank_addr_in, o.jump_read_endl, x * o.jump_read + g);
                        let input = self.banks.get(at..at + width as usize).unwrap_or(&[]);
                        for (acc, x) in acc.iter_mut().zip(input) {
                            let x = i64::from(*x as i8) << o.shift_read;
                            // Four factors of 23 bits can leave 64 bits; saturation keeps that an overflow of 32.
                            *acc = if multiply { acc.saturating_mul(x) } else { *acc + x };
                        }
                    }
                    let at = entry(&output, r, i.bank_addr_out, i.jump_write_endl, x * i.jump_write + g);
                    for (at, exact) in (at..at + width as usize).zip(acc) {
                        let acc = i32::try_from(exact).map_err(|_| Fault::Accumulator { value: exact })?;
                        let acc = if i.act_type == 1 { acc.max(0) } else { acc };
                        let to = self.banks.get_mut(at).ok_or(Fault::Bank { bank: i.bank_id_out })?;
                        *to = requantize_i8(acc, i.shift_write) as u8;
                        self.note(at, exact, i.shift_write);
                    }
                }
            }
        }
        Ok(())
    }
}

/// First byte of the address `banks` further on: past the end of the group `jump_row` is added.
fn entry(rows: &Rows, banks: u32, address: u32, jump_row: u32, offset: u32) -> usize {
    let (place, crossed) = rows.at(banks);
    let address = (address + crossed * jump_row + offset) % place.depth;
    place.offset + (address * place.width.get()) as usize
}
