//! ELEW: sums and products of up to four feature maps.

use super::products::Products;
use super::{Fault, MAX_LANES, Machine, Rows, at_most};
use crate::arith::requantize_lanes;
use crate::isa::{Elew, ElewInit, Kind, elew_type};

impl<P: Products> Machine<'_, P> {
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
        let width = output.place.width.get() as usize;
        // Four terms of int8 and 20 bits of shift stay within 32 bits.
        let narrow = !multiply && operands.iter().all(|(o, _)| o.shift_read <= 20);
        for r in 0..i.valid_pixel_parallel {
            for x in 0..i.length {
                for g in 0..i.channel_group {
                    let inputs = operands.iter().map(|(o, rows)| {
                        let row = if o.share_pp == 0 { r } else { 0 };
                        let at = entry(rows, row * o.jump_bank, o.bank_addr_in, o.jump_read_endl, x * o.jump_read + g);
                        (self.banks.get(at..at + width).unwrap_or(&[]), o.shift_read)
                    });
                    let mut acc = [i64::from(multiply); MAX_LANES];
                    let mut sums = [0i32; MAX_LANES];
                    if narrow {
                        for (input, shift) in inputs {
                            sums.iter_mut().zip(input).for_each(|(sum, x)| *sum += i32::from(*x as i8) << shift);
                        }
                    } else {
                        for (input, shift) in inputs {
                            for (acc, x) in acc.iter_mut().zip(input) {
                                let x = i64::from(*x as i8) << shift;
                                // Four factors of 23 bits can leave 64 bits; saturation keeps that an overflow of 32.
                                *acc = if multiply { acc.saturating_mul(x) } else { *acc + x };
                            }
                        }
                        for (sum, exact) in sums.iter_mut().zip(acc) {
                            *sum = i32::try_from(exact).map_err(|_| Fault::Accumulator { value: exact })?;
                        }
                    }
                    let at = entry(&output, r, i.bank_addr_out, i.jump_write_endl, x * i.jump_write + g);
                    let to = self.banks.get_mut(at..at + width).ok_or(Fault::Bank { bank: i.bank_id_out })?;
                    let least = if i.act_type == 1 { 0 } else { i32::MIN };
                    requantize_lanes(sums.iter().map(|sum| *sum.max(&least)), i.shift_write, to);
                    let exact = |lane: usize| sums.get(lane).copied().unwrap_or(0).into();
                    self.note(at, width, i.shift_write, exact);
                }
            }
        }
        Ok(())
    }
}

/// First byte of the address `banks` further on: past the end of the group `jump_row` is added.
fn entry(rows: &Rows, banks: u32, address: u32, jump_row: u32, offset: u32) -> usize {
    let (place, crossed) = rows.at(banks);
    place.byte(place.brought((address + crossed * jump_row + offset).into()))
}
