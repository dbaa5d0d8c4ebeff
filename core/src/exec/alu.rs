//! ALU: depthwise convolution, pooling and hard sigmoid, lane by lane.

use super::{Fault, Finish, MAX_LANES, Machine, Output, Window, at_most, positive, shifted_bias};
use crate::isa::{Alu, AluInit, Kind, alu_mode};
use crate::target::BankKind;

impl Machine<'_> {
    pub(super) fn alu(&mut self, i: &Alu) -> Result<(), Fault> {
        let init = self.alu.ok_or(Fault::Uninitialised { inst: Kind::AluInit.mnemonic() })?;
        self.alu_with(&init, i)
    }

    pub(super) fn alu_with(&mut self, init: &AluInit, i: &Alu) -> Result<(), Fault> {
        at_most("valid_pixel_parallel", i.valid_pixel_parallel, self.target.alu_pixel_parallel.into())?;
        if i.kernel_d != 1 {
            return Err(Fault::Unsupported { field: "kernel_d", value: i.kernel_d });
        }
        let (window, output) = self.alu_maps(i, init)?;
        let width = window.rows.place.width.get();
        at_most("channel_offset", init.channel_offset, width - 1)?;
        let kernel = Lanes::new(self, i, init)?;
        let finish = Finish::new(init.act_type, init.shift_cut, kernel.extra())?;
        output.rows.place.holds((init.length - 1) * output.jump + init.channel_group)?;
        for r in 0..i.valid_pixel_parallel {
            let (out, out_address) = output.row(r)?;
            for x in 0..init.length {
                for g in 0..init.channel_group {
                    let mut sums = [0i64; MAX_LANES];
                    let last = g + 1 == init.channel_group;
                    let used = if last { width - init.channel_offset } else { width };
                    kernel.sums(self, &window, [r, x, g], &mut sums, used as usize)?;
                    let address = (out_address + x * output.jump + g) % out.depth;
                    let at = out.offset + (address * width) as usize;
                    for (lane, sum) in (0..width as usize).zip(sums) {
                        let to = self.banks.get_mut(at + lane).ok_or(Fault::Bank { bank: i.bank_id_out })?;
                        *to = if lane < used as usize { finish.apply(sum)? } else { 0 };
                        self.note(at + lane, sum, finish.shift as i32);
                    }
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
            stride: [positive("stride_h", init.stride_h)?, positive("stride_w", init.stride_w)?],
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
            packing: positive("stride_out", init.stride_out)?,
            packed_at: init.stride_offset_out,
            jump: init.jump_write,
            jump_row: init.jump_write_endl,
        };
        Ok((window, output))
    }
}

/// The operation, resolved and checked once per instruction.
enum Lanes {
    Depthwise { weights: usize, jump: u32, bias: Option<usize>, shift_bias: u32 },
    Max,
    Average { factor: i64 },
    HardSigmoid { input_pos: u32 },
}

impl Lanes {
    fn new(machine: &Machine<'_>, i: &Alu, init: &AluInit) -> Result<Self, Fault> {
        let taps = init.kernel_h * init.kernel_w;
        Ok(match init.exec_mode {
            mode @ (alu_mode::DWCONV | alu_mode::DWCONV_NO_BIAS) => {
                let entries = (taps - 1).saturating_mul(init.jump_read_weights).saturating_add(init.channel_group);
                let weights = machine.parameters(BankKind::DepthwiseWeights, i.bank_addr_weights, entries)?;
                let bias = if mode == alu_mode::DWCONV {
                    let bias = machine.parameters(BankKind::Bias, i.bank_addr_bias, init.channel_group)?;
                    Some(bias.offset + (i.bank_addr_bias * bias.width.get()) as usize)
                } else {
                    None
                };
                Self::Depthwise {
                    weights: weights.offset + (i.bank_addr_weights * weights.width.get()) as usize,
                    jump: init.jump_read_weights,
                    bias,
                    shift_bias: init.shift_bias,
                }
            }
            alu_mode::MAX_POOL => Self::Max,
            alu_mode::AVG_POOL => Self::Average { factor: init.multi_factor.into() },
            alu_mode::HSIGMOID => {
                at_most("kernel_h", init.kernel_h, 1)?;
                at_most("kernel_w", init.kernel_w, 1)?;
                at_most("shift_bias", init.shift_bias, 15)?;
                Self::HardSigmoid { input_pos: init.shift_bias }
            }
            mode => return Err(Fault::Unsupported { field: "exec_mode", value: mode }),
        })
    }

    /// Fraction bits of the accumulator beyond `shift_cut`.
    fn extra(&self) -> u32 {
        matches!(self, Self::Depthwise { .. }).into()
    }

    /// The accumulators of the first `used` lanes of output row, column, group `[r, x, g]`.
    fn sums(
        &self,
        machine: &Machine<'_>,
        window: &Window,
        [r, x, g]: [u32; 3],
        sums: &mut [i64; MAX_LANES],
        used: usize,
    ) -> Result<(), Fault> {
        let start = if let Self::Max = self { i32::MIN } else { 0 };
        let mut acc = [start; MAX_LANES];
        let acc = acc.get_mut(..used).unwrap_or_default();
        let width = window.rows.place.width.get();
        for ky in window.taps(0, r) {
            let (place, address) = window.row(r * window.stride[0].get() + ky)?;
            for kx in window.taps(1, x) {
                let pixel = x * window.stride[1].get() + kx;
                let address = u64::from(address) + u64::from(pixel) * u64::from(window.jump) + u64::from(g);
                let at = place.offset + (place.wrapped(address, 1)? * width) as usize;
                let input = machine.banks.get(at..at + used).unwrap_or(&[]);
                // Sums cannot leave 32 bits: at most 2^16 taps of products up to 2^14.
                match self {
                    Self::Depthwise { weights, jump, .. } => {
                        let tap = (ky * window.kernel[1] + kx) * jump + g;
                        let at = weights + (tap * width) as usize;
                        let weights = machine.banks.get(at..at + used).unwrap_or(&[]);
                        for ((acc, x), w) in acc.iter_mut().zip(input).zip(weights) {
                            *acc = acc.wrapping_add(i32::from(*x as i8).wrapping_mul(i32::from(*w as i8)));
                        }
                    }
                    Self::Max => {
                        acc.iter_mut().zip(input).for_each(|(acc, x)| *acc = (*acc).max((*x as i8).into()));
                    }
                    Self::Average { .. } | Self::HardSigmoid { .. } => {
                        acc.iter_mut().zip(input).for_each(|(acc, x)| *acc = acc.wrapping_add((*x as i8).into()));
                    }
                }
            }
        }
        for (lane, (out, acc)) in sums.iter_mut().zip(acc.iter()).enumerate() {
            let sum = i64::from(*acc);
            *out = match self {
                Self::Depthwise { bias, shift_bias, .. } => {
                    let bias = match bias {
                        Some(at) => {
                            let at = at + (g * width) as usize + lane;
                            shifted_bias(machine.banks.get(at).copied().unwrap_or(0), *shift_bias)?
                        }
                        None => 0,
                    };
                    2 * sum + bias
                }
                Self::Max => {
                    if *acc == i32::MIN {
                        0
                    } else {
                        sum
                    }
                }
                Self::Average { factor } => sum * factor,
                // (x + 3) / 6 with 1/6 ≈ 2731 / 2^14. The upper clamp at 2^32 is never reached.
                Self::HardSigmoid { input_pos } => (sum * 2731 + ((3 * 2731) << input_pos)).max(0),
            };
        }
        Ok(())
    }
}
