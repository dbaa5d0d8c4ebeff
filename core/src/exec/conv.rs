//! CONV: dense convolution of one output group.

use super::{Fault, Finish, Machine, Output, Place, Window, at_most, positive, shifted_bias};
use crate::isa::{Conv, ConvInit, Kind};
use crate::target::BankKind;

/// Contiguous input bytes and the weights they meet.
#[derive(Clone, Copy, Debug, Default)]
struct Segment {
    /// First input byte, in all banks.
    input: usize,
    /// First weight byte, counted from this output group's first weight.
    weight: u32,
    /// Bytes.
    len: u32,
}

/// Room for the segments of at least one output: 16 × 16 taps, each cut in two by the end of a bank.
const SEGMENTS: usize = 512;
/// Output columns whose segments are kept together, so that a lane's weights are used for all of them while cached.
const COLUMNS: usize = 64;

type Segments = heapless::Vec<Segment, SEGMENTS>;

impl Machine<'_> {
    pub(super) fn conv(&mut self, i: &Conv) -> Result<(), Fault> {
        let init = self.conv.ok_or(Fault::Uninitialised { inst: Kind::ConvInit.mnemonic() })?;
        let rows = init.valid_pixel_parallel;
        let lanes = u32::from(self.target.output_channel_parallel);
        at_most("valid_pixel_parallel", rows, self.target.pixel_parallel.into())?;
        at_most("kernel_h", init.kernel_h, 16)?;
        at_most("kernel_w", init.kernel_w, 16)?;
        let (window, output) = self.conv_maps(i, &init)?;
        at_most("channel_offset", i.channel_offset, window.rows.place.width.get() - 1)?;
        let taps = init.kernel_h * init.kernel_w;
        let entries = taps * i.channel_group;
        let weights = self.parameters(BankKind::ConvWeights, i.bank_addr_weights, entries)?;
        let bias = self.parameters(BankKind::Bias, i.bank_addr_bias, lanes.div_ceil(weights.width.get()))?;
        let finish = Finish::new(init.act_type, init.shift_cut, 1)?;
        output.rows.place.holds((i.length - 1) * output.jump + 1)?;

        let mut segments = Segments::new();
        for r in 0..rows {
            let (out, out_address) = output.row(r)?;
            let mut column = 0;
            while column < i.length {
                // As many columns as the list has room for; `ends` holds where each one's segments end.
                let mut ends = heapless::Vec::<u16, COLUMNS>::new();
                segments.clear();
                for x in column..i.length {
                    let before = segments.len();
                    if ends.is_full() || !gather(&window, i, r, x, &mut segments)? {
                        segments.truncate(before);
                        break;
                    }
                    let _ = ends.push(segments.len() as u16);
                }
                for lane in 0..lanes {
                    let bias = self.byte(&bias, i.bank_addr_bias, lane)?;
                    let bias = shifted_bias(bias, init.shift_bias)?;
                    let first = self.lane_weights(&weights, lane, i.bank_addr_weights);
                    let own = self.banks.get(first..first + (entries * weights.width.get()) as usize);
                    let own = own.ok_or(Fault::Bank { bank: lane })?;
                    let mut sums = [0i64; COLUMNS];
                    let mut start = 0;
                    for (total, end) in sums.iter_mut().zip(&ends) {
                        let list = segments.get(start..usize::from(*end)).unwrap_or(&[]);
                        start = usize::from(*end);
                        let sum = list.iter().fold(0i32, |sum, s| sum.wrapping_add(self.product(s, own)));
                        *total = 2 * i64::from(sum) + bias;
                    }
                    for (x, sum) in (column..).zip(sums.iter().take(ends.len())) {
                        let address = (out_address + x * output.jump) % out.depth;
                        let at = out.offset + (address * out.width.get() + lane) as usize;
                        *self.banks.get_mut(at).ok_or(Fault::Bank { bank: i.bank_id_out })? = finish.apply(*sum)?;
                        self.note(at, *sum, finish.shift as i32);
                    }
                }
                if ends.is_empty() {
                    // Cannot happen with at most 16 × 16 taps; an error beats an endless loop.
                    return Err(Fault::Value { field: "kernel_h", value: init.kernel_h, max: 16 });
                }
                column += ends.len() as u32;
            }
        }
        Ok(())
    }

    fn conv_maps(&self, i: &Conv, init: &ConvInit) -> Result<(Window, Output), Fault> {
        let last = |outputs: u32, stride: u32, pad: u32| (outputs - 1) * stride + pad;
        let window = Window {
            rows: self.rows(i.bank_id_in)?,
            addresses: [i.bank_addr_in, i.bank_addr_in_1, i.bank_addr_in_2, i.bank_addr_in_3],
            kernel: [init.kernel_h, init.kernel_w],
            stride: [positive("stride_h", init.stride_h)?, positive("stride_w", init.stride_w)?],
            first: [i.pad_top, i.pad_left],
            last: [
                last(init.valid_pixel_parallel, init.stride_h, i.pad_bottom),
                last(i.length, init.stride_w, i.pad_right),
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

    fn lane_weights(&self, weights: &Place, lane: u32, address: u32) -> usize {
        let bank = (weights.depth.get() * weights.width.get()) as usize;
        weights.offset + lane as usize * bank + (address * weights.width.get()) as usize
    }

    pub(super) fn byte(&self, place: &Place, address: u32, lane: u32) -> Result<u8, Fault> {
        let at = place.offset + (address * place.width.get() + lane) as usize;
        self.banks.get(at).copied().ok_or(Fault::Address { address, depth: place.depth.get() })
    }

    /// Sum of products of one segment. No overflow: at most `depth` addresses of products below 2^14 + 1.
    #[inline]
    fn product(&self, s: &Segment, weights: &[u8]) -> i32 {
        let (from, len) = (s.weight as usize, s.len as usize);
        match (self.banks.get(s.input..s.input + len), weights.get(from..from + len)) {
            (Some(x), Some(w)) => dot(x, w),
            _ => 0,
        }
    }
}

#[inline]
fn dot(x: &[u8], w: &[u8]) -> i32 {
    let product = |(x, w): (&u8, &u8)| i32::from(*x as i8).wrapping_mul(i32::from(*w as i8));
    x.iter().zip(w).fold(0i32, |sum, pair| sum.wrapping_add(product(pair)))
}

/// Appends the segments of output row `r`, column `x`; false if they did not fit.
fn gather(window: &Window, i: &Conv, r: u32, x: u32, out: &mut Segments) -> Result<bool, Fault> {
    let groups = i.channel_group;
    let width = window.rows.place.width.get();
    let used = groups * width - i.channel_offset;
    let columns = window.taps(1, x);
    for ky in window.taps(0, r) {
        let (place, address) = window.row(r * window.stride[0].get() + ky)?;
        if columns.is_empty() {
            continue;
        }
        // Pixels that lie one behind the other, without unused lanes between, are one run.
        let run = if window.jump == groups && i.channel_offset == 0 { columns.len() as u32 } else { 1 };
        let bytes = if run > 1 { run * groups * width } else { used };
        for kx in columns.clone().step_by(run.max(1) as usize) {
            let pixel = x * window.stride[1].get() + kx;
            let start = place.wrapped(u64::from(address) + u64::from(pixel) * u64::from(window.jump), run * groups)?;
            let mut weight = (ky * window.kernel[1] + kx) * groups * width;
            let mut rest = bytes;
            for (input, len) in place.pieces(start, run * groups) {
                let len = rest.min(len as u32);
                if len > 0 && out.push(Segment { input, weight, len }).is_err() {
                    return Ok(false);
                }
                weight += len;
                rest -= len;
            }
        }
    }
    Ok(true)
}
