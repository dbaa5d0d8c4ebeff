//! CONV: dense convolution of one output group.

use super::finish::{Finish, Lanes};
use super::products::{COLUMNS, Products, Segment, Tile};
use super::{Fault, MAX_LANES, Machine, Output, Window, at_most, positive};
use crate::isa::{Conv, ConvInit, Kind};
use crate::target::BankKind;

/// Room for the segments of at least one output: 16 × 16 taps, each cut in two by the end of a bank.
const SEGMENTS: usize = 512;

type Segments = heapless::Vec<Segment, SEGMENTS>;

impl<P: Products> Machine<'_, P> {
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

        let biases = bias.byte(i.bank_addr_bias);
        let biases = self.banks.get(biases..biases + lanes as usize);
        let biases = biases.ok_or(Fault::Address { address: i.bank_addr_bias, depth: bias.depth.get() })?;
        let pitch = weights.bytes();
        let first = weights.byte(i.bank_addr_weights);
        let weight_bytes = entries as usize * weights.width.get() as usize;
        let acc = Lanes::<MAX_LANES>::doubled(biases, init.shift_bias, weight_bytes)?;
        // Every lane's weights are there if the last one's are.
        if first + (lanes as usize - 1) * pitch + weight_bytes > self.banks.len() {
            return Err(Fault::Bank { bank: lanes - 1 });
        }

        let mut segments = Segments::new();
        let mut sums = [[0; MAX_LANES]; COLUMNS];
        for r in 0..rows {
            let (out, out_address) = output.row(r)?;
            let mut column = 0;
            while column < i.length {
                segments.clear();
                if !gather(&window, i, r, column, &mut segments)? {
                    // Cannot happen with at most 16 × 16 taps; an error beats a wrong sum.
                    return Err(Fault::Value { field: "kernel_h", value: init.kernel_h, max: 16 });
                }
                let each = segments.len();
                let mut columns = 1;
                while columns < COLUMNS && column + (columns as u32) < i.length {
                    let before = segments.len();
                    let fits = gather(&window, i, r, column + columns as u32, &mut segments)?;
                    if !fits || !alike(&segments, each, before) {
                        segments.truncate(before);
                        break;
                    }
                    columns += 1;
                }
                let tile =
                    Tile { banks: self.banks, segments: &segments, columns, weights: [first, pitch], weight_bytes };
                self.products.sums(&tile, lanes as usize, &mut sums);
                for (x, sums) in (column..).zip(sums.iter().take(columns)) {
                    let at = out.byte(out.brought(u64::from(out_address) + u64::from(x) * u64::from(output.jump)));
                    let to = self.banks.get_mut(at..at + lanes as usize).ok_or(Fault::Bank { bank: i.bank_id_out })?;
                    finish.lanes(sums, &acc, 0, to)?;
                    self.note(at, lanes as usize, finish.shift as i32, |lane| acc.exact(sums, lane));
                }
                column += columns as u32;
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
}

/// Whether a column's segments, from `other` on, meet the weights of the first column's, of which there are `each`.
fn alike(segments: &[Segment], each: usize, other: usize) -> bool {
    let (first, other) = (segments.get(..each).unwrap_or(&[]), segments.get(other..).unwrap_or(&[]));
    first.len() == other.len() && first.iter().zip(other).all(|(a, b)| (a.weight, a.len) == (b.weight, b.len))
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
        let mut kx = columns.start;
        while kx < columns.end {
            let pixel = x * window.stride[1].get() + kx;
            let start = place.wrapped(u64::from(address) + u64::from(pixel) * u64::from(window.jump), run * groups)?;
            let mut weight = (ky * window.kernel[1] + kx) * groups * width;
            let mut rest = bytes;
            for (input, len) in place.pieces(start, run * groups) {
                let len = rest.min(len as u32);
                if len > 0 && out.push(Segment { input: input as u32, weight, len }).is_err() {
                    return Ok(false);
                }
                weight += len;
                rest -= len;
            }
            kx += run;
        }
    }
    Ok(true)
}
