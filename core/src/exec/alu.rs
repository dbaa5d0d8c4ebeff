//! ALU: depthwise convolution, pooling and hard sigmoid, lane by lane.

use super::{Fault, Finish, MAX_LANES, Machine, Output, Window, at_most, shifted_bias};
use crate::isa::{Alu, AluInit, Kind, alu_mode};
use crate::target::BankKind;

impl Machine<'_> {
    pub(super) fn alu(&mut self, i: &Alu) -> Result<(), Fault> {
        let init = self.alu.ok_or(Fault::Uninitialised { inst: Kind::AluInit.mnemonic() })?;
        at_most("valid_pixel_parallel", i.valid_pixel_parallel, self.target.alu_pixel_parallel.into())?;
        if i.kernel_d != 1 {
            return Err(Fault::Unsupported { field: "kernel_d", value: i.kernel_d });
        }
        let (window, output) = self.alu_maps(i, &init)?;
        let width = window.rows.place.width;
        at_most("channel_offset", init.channel_offset, width - 1)?;
        let kernel = Lanes::new(self, i, &init)?;
        for r in 0..i.valid_pixel_parallel {
            let (out, out_address) = output.row(r)?;
            for x in 0..init.length {
                for g in 0..init.channel_group {
                    let mut lanes = [0u8; MAX_LANES];
                    let last = g + 1 == init.channel_group;
                    let used = if last { width - init.channel_offset } else { width };
                    kernel.compute(self, &window, [r, x, g], &mut lanes, used as usize)?;
                    let address = (out_address + x * output.jump + g) % out.depth;
                    let at = out.offset + (address * width) as usize;
                    let to = self.banks.get_mut(at..at + width as usize);
                    let to = to.ok_or(Fault::Bank { bank: i.bank_id_out })?;
                    to.iter_mut().zip(lanes).for_each(|(to, lane)| *to = lane);
                }
            }
        }
        Ok(())
    }

    fn alu_maps(&self, i: &Alu, init: &AluInit) -> Result<(Window, Output), Fault> {
        let last = |outputs: u32, stride: u32, pad: u32| (outputs - 1) * stride + pad;
        let window = Window {
            rows: self.rows(i.bank_id_in)?,
            addresses: [i.bank_addr_in, i.bank_addr_in_1, i.bank_addr_in_2, i.bank_addr_in_3],
            kernel: [init.kernel_h, init.kernel_w],
            stride: [init.stride_h, init.stride_w],
            first: [i.pad_top, i.pad_left],
            last: [
                last(i.valid_pixel_parallel, init.stride_h, i.pad_bottom),
                last(init.length, init.stride_w, i.pad_right),
            ],
            packed_at: init.stride_offset_in,
            jump: init.jump_read,
            jump_row: init.jump_read_endl,
        };
        let output = Output {
            rows: self.rows(i.bank_id_out)?,
            address: i.bank_addr_out,
            packing: init.stride_out,
            packed_at: init.stride_offset_out,
            jump: init.jump_write,
            jump_row: init.jump_write_endl,
        };
        Ok((window, output))
    }
}

/// The operation, resolved and checked once per instruction.
enum Lanes {
    Depthwise { weights: usize, jump: u32, bias: Option<usize>, shift_bias: u32, finish: Finish },
    Max { finish: Finish },
    Average { factor: i32, finish: Finish },
    HardSigmoid { input_pos: u32, finish: Finish },
}

impl Lanes {
    fn new(machine: &Machine<'_>, i: &Alu, init: &AluInit) -> Result<Self, Fault> {
        let taps = init.kernel_h * init.kernel_w;
        let plain = || Finish::new(init.act_type, init.shift_cut, 0);
        Ok(match init.exec_mode {
            mode @ (alu_mode::DWCONV | alu_mode::DWCONV_NO_BIAS) => {
                let entries = (taps - 1).saturating_mul(init.jump_read_weights).saturating_add(init.channel_group);
                let weights = machine.parameters(BankKind::DepthwiseWeights, i.bank_addr_weights, entries)?;
                let bias = if mode == alu_mode::DWCONV {
                    let bias = machine.parameters(BankKind::Bias, i.bank_addr_bias, init.channel_group)?;
                    Some(bias.offset + (i.bank_addr_bias * bias.width) as usize)
                } else {
                    None
                };
                Self::Depthwise {
                    weights: weights.offset + (i.bank_addr_weights * weights.width) as usize,
                    jump: init.jump_read_weights,
                    bias,
                    shift_bias: init.shift_bias,
                    finish: Finish::new(init.act_type, init.shift_cut, 1)?,
                }
            }
            alu_mode::MAX_POOL => Self::Max { finish: plain()? },
            alu_mode::AVG_POOL => Self::Average { factor: init.multi_factor as i32, finish: plain()? },
            alu_mode::HSIGMOID => {
                at_most("kernel_h", init.kernel_h, 1)?;
                at_most("kernel_w", init.kernel_w, 1)?;
                at_most("shift_bias", init.shift_bias, 15)?;
                Self::HardSigmoid { input_pos: init.shift_bias, finish: plain()? }
            }
            mode => return Err(Fault::Unsupported { field: "exec_mode", value: mode }),
        })
    }

    /// The first `used` lanes of output row, column, group `[r, x, g]`.
    fn compute(
        &self,
        machine: &Machine<'_>,
        window: &Window,
        [r, x, g]: [u32; 3],
        lanes: &mut [u8; MAX_LANES],
        used: usize,
    ) -> Result<(), Fault> {
        let start = if let Self::Max { .. } = self { i32::MIN } else { 0 };
        let mut acc = [start; MAX_LANES];
        let (acc, _) = acc.split_at_mut(used);
        let width = window.rows.place.width;
        for ky in window.taps(0, r) {
            let (place, address) = window.row(r * window.stride[0] + ky)?;
            for kx in window.taps(1, x) {
                let pixel = x * window.stride[1] + kx;
                let address = u64::from(address) + u64::from(pixel) * u64::from(window.jump) + u64::from(g);
                let at = place.offset + (place.wrapped(address, 1)? * width) as usize;
                let input = machine.banks.get(at..at + used).unwrap_or(&[]);
                match self {
                    Self::Depthwise { weights, jump, .. } => {
                        let tap = (ky * window.kernel[1] + kx) * jump + g;
                        let at = weights + (tap * width) as usize;
                        let weights = machine.banks.get(at..at + used).unwrap_or(&[]);
                        for ((acc, x), w) in acc.iter_mut().zip(input).zip(weights) {
                            *acc = acc.wrapping_add(i32::from(*x as i8) * i32::from(*w as i8));
                        }
                    }
                    Self::Max { .. } => {
                        acc.iter_mut().zip(input).for_each(|(acc, x)| *acc = (*acc).max((*x as i8).into()));
                    }
                    Self::Average { .. } | Self::HardSigmoid { .. } => {
                        acc.iter_mut().zip(input).for_each(|(acc, x)| *acc = acc.wrapping_add((*x as i8).into()));
                    }
                }
            }
        }
        // Sums cannot leave 32 bits: at most 2^16 taps of products up to 2^14.
        for (lane, (out, acc)) in lanes.iter_mut().zip(acc.iter()).enumerate() {
            let sum = i64::from(*acc);
            *out = match self {
                Self::Depthwise { bias, shift_bias, finish, .. } => {
                    let bias = match bias {
                        Some(at) => {
                            let at = at + (g * width) as usize + lane;
                            shifted_bias(machine.banks.get(at).copied().unwrap_or(0), *shift_bias)?
                        }
                        None => 0,
                    };
                    finish.apply(2 * sum + bias)?
                }
                Self::Max { finish } => finish.apply(if *acc == i32::MIN { 0 } else { sum })?,
                Self::Average { factor, finish } => finish.apply(sum * i64::from(*factor))?,
                Self::HardSigmoid { input_pos, finish } => {
                    // (x + 3) / 6 with 1/6 ≈ 2731 / 2^14; 2^32 is beyond 127 for every shift the rule allows, and the
                    // sum stays below it, so 32 bits suffice.
                    let exact = sum * 2731 + ((3 * 2731) << input_pos);
                    finish.apply(exact.clamp(0, 1 << 32))?
                }
            };
        }
        Ok(())
    }
}
