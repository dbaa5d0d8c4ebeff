//! ALU: depthwise convolution, pooling and hard sigmoid, lane by lane.

use super::finish::{Finish, Lanes};
use super::products::Products;
use super::{Fault, Machine, Output, Place, Window, at_most, positive};
use crate::isa::{Alu, AluInit, Kind, alu_mode};
use crate::target::BankKind;

/// Channels whose sums are kept at once: whole addresses of a bank, at least one of the widest.
const CHANNELS: usize = 2 * super::MAX_LANES;

impl<P: Products> Machine<'_, P> {
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
        let kernel = Operation::new(self, i, init)?;
        let finish = Finish::new(init.act_type, init.shift_cut, kernel.extra())?;
        let groups = init.channel_group;
        output.rows.place.holds((init.length - 1) * output.jump + groups)?;
        let most = (CHANNELS as u32 / window.rows.place.width).max(1);
        let mut g = 0;
        while g < groups {
            let n = most.min(groups - g);
            // What is not used of the last group stays zero.
            let unused = if g + n == groups { init.channel_offset } else { 0 };
            let used = (n * width - unused) as usize;
            let acc = kernel.accumulators(self.banks, init, g * width, used)?;
            for r in 0..i.valid_pixel_parallel {
                let (out, out_address) = output.row(r)?;
                for x in 0..init.length {
                    let mut sums = [0i32; CHANNELS];
                    let (sums, _) = sums.split_at_mut_checked(used).unwrap_or_default();
                    kernel.sums(self.banks, &window, [r, x], [g, n], sums)?;
                    let start =
                        out.brought(u64::from(out_address) + u64::from(x) * u64::from(output.jump) + u64::from(g));
                    let mut done = 0;
                    for (at, len) in out.pieces(start, n) {
                        let to = self.banks.get_mut(at..at + len).ok_or(Fault::Bank { bank: i.bank_id_out })?;
                        let (to, rest) = to.split_at_mut_checked(len.min(used - done)).unwrap_or_default();
                        kernel.finish(&finish, &acc, sums, done, to)?;
                        rest.fill(0);
                        let (sums, shift) = (&*sums, finish.shift as i32);
                        self.note(at, len, shift, |lane| kernel.exact(&acc, sums, done + lane));
                        done = used.min(done + len);
                    }
                }
            }
            g += n;
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
#[derive(Clone, Copy, Debug)]
enum Operation {
    Depthwise {
        weights: usize,
        jump: u32,
        bias: Option<usize>,
    },
    Max,
    /// The sum times a factor, plus a term, not below a bound.
    Scaled {
        factor: i64,
        plus: i64,
        least: i64,
    },
}

impl Operation {
    fn new<P: Products>(machine: &Machine<'_, P>, i: &Alu, init: &AluInit) -> Result<Self, Fault> {
        let taps = init.kernel_h * init.kernel_w;
        Ok(match init.exec_mode {
            mode @ (alu_mode::DWCONV | alu_mode::DWCONV_NO_BIAS) => {
                let entries = (taps - 1).saturating_mul(init.jump_read_weights).saturating_add(init.channel_group);
                let weights = machine.parameters(BankKind::DepthwiseWeights, i.bank_addr_weights, entries)?;
                let bias = match mode {
                    alu_mode::DWCONV => {
                        let bias = machine.parameters(BankKind::Bias, i.bank_addr_bias, init.channel_group)?;
                        Some(bias.byte(i.bank_addr_bias))
                    }
                    _ => None,
                };
                Self::Depthwise { weights: weights.byte(i.bank_addr_weights), jump: init.jump_read_weights, bias }
            }
            alu_mode::MAX_POOL => Self::Max,
            alu_mode::AVG_POOL => Self::Scaled { factor: init.multi_factor.into(), plus: 0, least: i64::MIN },
            alu_mode::HSIGMOID => {
                at_most("kernel_h", init.kernel_h, 1)?;
                at_most("kernel_w", init.kernel_w, 1)?;
                at_most("shift_bias", init.shift_bias, 15)?;
                // (x + 3) / 6 with 1/6 ≈ 2731 / 2^14. The upper clamp at 2^32 is never reached.
                Self::Scaled { factor: 2731, plus: (3 * 2731) << init.shift_bias, least: 0 }
            }
            mode => return Err(Fault::Unsupported { field: "exec_mode", value: mode }),
        })
    }

    /// Fraction bits of the accumulator beyond `shift_cut`.
    fn extra(&self) -> u32 {
        matches!(self, Self::Depthwise { .. }).into()
    }

    /// How the sums of `used` channels from `first` on become accumulators.
    fn accumulators(&self, banks: &[u8], init: &AluInit, first: u32, used: usize) -> Result<Lanes<CHANNELS>, Fault> {
        let Self::Depthwise { bias, .. } = self else { return Ok(Lanes::plain()) };
        let biases = bias.and_then(|at| banks.get(at + first as usize..)).and_then(|b| b.get(..used)).unwrap_or(&[]);
        Lanes::doubled(biases, init.shift_bias, (init.kernel_h * init.kernel_w) as usize)
    }

    /// The sums of output row and column `[r, x]` for the channels of the `n` addresses from `g` on; `sums` start as zeros.
    fn sums(
        &self,
        banks: &[u8],
        window: &Window,
        [r, x]: [u32; 2],
        [g, n]: [u32; 2],
        sums: &mut [i32],
    ) -> Result<(), Fault> {
        if let Self::Max = self {
            sums.fill(i32::MIN);
        }
        for ky in window.taps(0, r) {
            let (place, address) = window.row(r * window.stride[0].get() + ky)?;
            for kx in window.taps(1, x) {
                let pixel = x * window.stride[1].get() + kx;
                let address = u64::from(address) + u64::from(pixel) * u64::from(window.jump) + u64::from(g);
                let tap = ky * window.kernel[1] + kx;
                self.tap(banks, &place, place.wrapped(address, n)?, [tap, g, n], sums);
            }
        }
        if let Self::Max = self {
            // A window of padding only.
            sums.iter_mut().filter(|sum| **sum == i32::MIN).for_each(|sum| *sum = 0);
        }
        Ok(())
    }

    /// One tap's part of the sums. They cannot leave 32 bits: at most 2^16 taps of products up to 2^14.
    #[inline]
    fn tap(&self, banks: &[u8], place: &Place, start: u32, [tap, g, n]: [u32; 3], mut sums: &mut [i32]) {
        let mut channel = 0;
        for (at, len) in place.pieces(start, n) {
            let len = len.min(sums.len());
            let (now, later) = sums.split_at_mut_checked(len).unwrap_or_default();
            sums = later;
            let input = banks.get(at..at + len).unwrap_or(&[]);
            match self {
                Self::Depthwise { weights, jump, .. } => {
                    let entry = tap as usize * *jump as usize + g as usize;
                    let at = weights + entry * place.width.get() as usize + channel;
                    let weights = banks.get(at..at + len).unwrap_or(&[]);
                    for ((sum, x), w) in now.iter_mut().zip(input).zip(weights) {
                        // Within 16 bits, which vectors multiply faster.
                        *sum = sum.wrapping_add(i16::from(*x as i8).wrapping_mul(i16::from(*w as i8)).into());
                    }
                }
                Self::Max => now.iter_mut().zip(input).for_each(|(max, x)| *max = (*max).max((*x as i8).into())),
                Self::Scaled { .. } => {
                    now.iter_mut().zip(input).for_each(|(sum, x)| *sum = sum.wrapping_add((*x as i8).into()));
                }
            }
            channel += len;
        }
    }

    /// The accumulator of a channel.
    fn exact(&self, acc: &Lanes<CHANNELS>, sums: &[i32], channel: usize) -> i64 {
        match self {
            Self::Scaled { factor, plus, least } => {
                (i64::from(sums.get(channel).copied().unwrap_or(0)) * factor + plus).max(*least)
            }
            _ => acc.exact(sums, channel),
        }
    }

    /// The output lanes of the channels from `first` on.
    fn finish(
        &self,
        finish: &Finish,
        acc: &Lanes<CHANNELS>,
        sums: &[i32],
        first: usize,
        to: &mut [u8],
    ) -> Result<(), Fault> {
        match self {
            Self::Scaled { .. } => {
                for (channel, to) in (first..).zip(to) {
                    *to = finish.apply(self.exact(acc, sums, channel))?;
                }
                Ok(())
            }
            _ => finish.lanes(sums, acc, first, to),
        }
    }
}
