//! What instructions do to memory: the machine that defines the meaning of a DPU program.
//!
//! [`Machine`] executes one [`Inst`] after another on on-chip banks that the caller owns. It knows no time: the simulator
//! adds queues and cycles around [`Machine::execute`], the firmware uses it as a soft device. Results are bytes of int8
//! lanes; all rounding goes through [`crate::arith`]. Words from outside never panic: whatever is not in range is a
//! [`Fault`], and [`Machine::run`](Dpu::run) says at which instruction.

mod alu;
mod conv;
mod elew;
mod fault;
mod finish;
mod older;
mod products;
#[cfg(test)]
mod tests;

use core::num::{NonZeroU32, NonZeroU64};

use crate::isa::codec::{self, program};
use crate::isa::{AluInit, ConvInit, DwInit, ElewInit, Engine, Inst, Kind, Load, PoolInit, Save};
use crate::model::{DpuJob, Region};
use crate::run::{Dpu, Memory};
use crate::target::{BankGroup, BankKind, Target};

pub use fault::{ExecError, Fault};
pub use older::{dpt_wise_as_alu, pool_as_alu, pool_factor};
pub use products::{COLUMNS, Plain, Products, Segment, Tile};

/// Widest bank address, in bytes, that a machine handles.
pub const MAX_LANES: usize = 64;

/// Products of int8 below which a sum stays within 32 bits: 2^31 / 2^14.
const MOST_PRODUCTS: usize = 1 << 17;

/// What one instruction cost, as facts for a timing model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// The engine.
    pub engine: Engine,
    /// The instruction.
    pub kind: Kind,
    /// Steps of the compute array without fill and drain: CONV `length·KH·KW·G` (DEC); ALU the same (INF); ELEW
    /// `length·G·operands` (INF); 0 for transfers.
    pub steps: u64,
    /// Multiply-accumulates that the array performs, including unused lanes and padding.
    pub macs: u64,
    /// Bytes read from memory.
    pub bytes_in: u64,
    /// Bytes written to memory.
    pub bytes_out: u64,
    /// Contiguous pieces of memory in the transfer.
    pub segments: u32,
    /// Data port that a SAVE names.
    pub port: u8,
}

impl Work {
    fn compute(kind: Kind, steps: u64, macs: u64) -> Self {
        Self { engine: kind.engine(), kind, steps, macs, bytes_in: 0, bytes_out: 0, segments: 0, port: 0 }
    }
}

/// A DPU without time. See the [module documentation](self).
///
/// `P` sums products for CONV; it never changes a result.
#[derive(Debug)]
pub struct Machine<'a, P = Plain> {
    products: P,
    target: &'a Target,
    banks: &'a mut [u8],
    conv: Option<ConvInit>,
    alu: Option<AluInit>,
    elew: [Option<ElewInit>; 4],
    pool: Option<PoolInit>,
    dw: Option<DwInit>,
    probe: Option<usize>,
    probed: Option<Probed>,
}

/// What an instruction wrote to a probed byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probed {
    /// A byte from memory, or a zero.
    Loaded,
    /// A computed lane: the accumulator before activation, and the right shift that follows. CONV and depthwise
    /// accumulators have one extra fraction bit, which the shift includes.
    Computed {
        /// The exact accumulator.
        accumulator: i64,
        /// Right shift to the output.
        shift: i32,
    },
}

impl<'a> Machine<'a> {
    /// A machine with the target's banks in `banks`: at least [`Target::bank_bytes`] bytes, kept as they are.
    ///
    /// `None` if there are too few bytes, the target is wider than [`MAX_LANES`], or its weight banks are so deep that a
    /// sum of products could leave 32 bits: the inner loops rely on it.
    pub fn new(target: &'a Target, banks: &'a mut [u8]) -> Option<Self> {
        let fits = banks.len() >= target.bank_bytes()
            && target.banks.iter().all(|g| g.kind == BankKind::Feature || g.bank_bytes() < MOST_PRODUCTS)
            && target.banks.iter().all(|g| (1..=MAX_LANES).contains(&g.width.into()) && g.depth > 0 && g.count > 0);
        let (conv, alu, pool, dw) = (None, None, None, None);
        let products = Plain;
        fits.then_some(Self {
            products,
            target,
            banks,
            conv,
            alu,
            elew: [None; 4],
            pool,
            dw,
            probe: None,
            probed: None,
        })
    }

    /// The same machine with another way to sum products.
    pub fn with<P: Products>(self, products: P) -> Machine<'a, P> {
        let Self { target, banks, conv, alu, elew, pool, dw, probe, probed, .. } = self;
        Machine { products, target, banks, conv, alu, elew, pool, dw, probe, probed }
    }
}

impl<'a, P: Products> Machine<'a, P> {
    /// Its target.
    pub fn target(&self) -> &'a Target {
        self.target
    }

    /// All banks, in order of ids.
    pub fn banks(&self) -> &[u8] {
        self.banks
    }

    /// Watches one byte of the banks, for explaining a result; `None` stops.
    pub fn probe(&mut self, byte: Option<usize>) {
        (self.probe, self.probed) = (byte, None);
    }

    /// What the instructions since the last call wrote to the probed byte, if anything.
    pub fn probed(&mut self) -> Option<Probed> {
        self.probed.take()
    }

    /// The byte of the banks that a SAVE copies to byte `to` of its region; the last, if several.
    pub fn source_of(&self, save: &Save, to: u32) -> Option<usize> {
        let bank = self.feature_bank(save.bank_id).ok()?;
        let covers = |pixel: &u32| {
            let first = u64::from(save.ddr_addr) + u64::from(*pixel) * u64::from(save.jump_write);
            u64::from(to).checked_sub(first).is_some_and(|byte| byte < save.channel.into())
        };
        let pixel = (0..save.length).rev().find(covers)?;
        let byte = (u64::from(to) - u64::from(save.ddr_addr) - u64::from(pixel) * u64::from(save.jump_write)) as u32;
        let address = u64::from(save.bank_addr) + u64::from(pixel) * u64::from(save.jump_read);
        let address = bank.wrapped(address + u64::from(byte / bank.width), 1).ok()?;
        Some(bank.byte(address) + (byte % bank.width) as usize)
    }

    /// Forgets what initialisations set; a job starts like this.
    pub fn reset(&mut self) {
        self.conv = None;
        self.alu = None;
        self.elew = [None; 4];
        self.pool = None;
        self.dw = None;
    }

    /// Executes one instruction completely.
    ///
    /// Errors: any [`Fault`] but `NoEnd` and `Decode`; the banks and memory may then be partly written.
    pub fn execute(&mut self, inst: &Inst, memory: &mut Memory<'_>) -> Result<Work, Fault> {
        let work = self.cost(inst)?;
        match inst {
            Inst::Load(i) => self.load(i, memory)?,
            Inst::Save(i) => self.save(i, memory)?,
            Inst::Conv(i) => self.conv(i)?,
            Inst::Alu(i) => self.alu(i)?,
            Inst::Elew(i) => self.elew(i)?,
            Inst::Pool(i) => self.pool(i)?,
            Inst::DptWise(i) => self.dpt_wise(i)?,
            _ => {}
        }
        Ok(work)
    }

    /// What [`execute`](Self::execute) would cost, without moving or computing values: initialisations take effect,
    /// banks and memory stay as they are.
    ///
    /// Errors: values that do not encode, instructions that are not modelled, a missing initialisation.
    pub fn cost(&mut self, inst: &Inst) -> Result<Work, Fault> {
        // The arithmetic below relies on field ranges: sizes and strides are at least 1, nothing is wide.
        codec::check(self.target.isa, inst).map_err(Fault::Encode)?;
        let kind = inst.kind();
        let lanes = u64::from(self.target.input_channel_parallel);
        let missing = |kind: Kind| Fault::Uninitialised { inst: kind.mnemonic() };
        let product = |factors: [u32; 4]| factors.into_iter().map(u64::from).product::<u64>();
        let compute = |steps: u64, rows: u32, lanes: u64| Work::compute(kind, steps, steps * u64::from(rows) * lanes);
        Ok(match inst {
            Inst::Load(i) => Work {
                bytes_in: u64::from(i.length) * u64::from(i.channel),
                segments: if i.jump_read == i.channel { 1 } else { i.length },
                ..Work::compute(kind, 0, 0)
            },
            Inst::Save(i) => Work {
                bytes_out: u64::from(i.length) * u64::from(i.channel),
                segments: if i.jump_write == i.channel { 1 } else { i.length },
                port: i.hp_id as u8,
                ..Work::compute(kind, 0, 0)
            },
            Inst::Conv(i) => {
                let init = self.conv.ok_or(missing(Kind::ConvInit))?;
                let steps = product([i.length, init.kernel_h, init.kernel_w, i.channel_group]);
                compute(steps, init.valid_pixel_parallel, lanes * u64::from(self.target.output_channel_parallel))
            }
            Inst::Alu(i) => {
                let init = self.alu.ok_or(missing(Kind::AluInit))?;
                let steps = product([init.length, init.kernel_h, init.kernel_w, init.channel_group]);
                compute(steps, i.valid_pixel_parallel, lanes)
            }
            Inst::Elew(i) => compute(product([i.length, i.channel_group, i.num, 1]), i.valid_pixel_parallel, lanes),
            Inst::ConvInit(i) => {
                self.conv = Some(*i);
                Work::compute(kind, 0, 0)
            }
            Inst::AluInit(i) => {
                self.alu = Some(*i);
                Work::compute(kind, 0, 0)
            }
            Inst::ElewInit(i) => {
                let slot = self.elew.get_mut(i.id as usize);
                *slot.ok_or(Fault::Value { field: "id", value: i.id, max: 3 })? = Some(*i);
                Work::compute(kind, 0, 0)
            }
            Inst::End(_) => Work::compute(kind, 0, 0),
            Inst::PoolInit(i) => {
                self.pool = Some(*i);
                Work::compute(kind, 0, 0)
            }
            Inst::DwInit(i) => {
                self.dw = Some(*i);
                Work::compute(kind, 0, 0)
            }
            Inst::Pool(i) => {
                let init = self.pool.ok_or(missing(Kind::PoolInit))?;
                let steps = product([i.length, init.kernel_h, init.kernel_w, i.channel_group]);
                compute(steps, init.valid_pixel_parallel, lanes)
            }
            Inst::DptWise(i) => {
                let init = self.dw.ok_or(missing(Kind::DwInit))?;
                let steps = product([i.length, init.kernel_h, init.kernel_w, i.channel_group]);
                compute(steps, init.valid_pixel_parallel, lanes)
            }
        })
    }

    fn load(&mut self, i: &Load, memory: &Memory<'_>) -> Result<(), Fault> {
        for (field, value) in [("mode_avg", i.mode_avg), ("broadcast", i.broadcast)] {
            if value != 0 {
                return Err(Fault::Unsupported { field, value });
            }
        }
        let region = region(i.reg_id)?;
        let bank = self.bank(i.bank_id)?;
        let entries = i.channel.div_ceil(bank.width.get());
        let pixels = i.pad_start + i.length + i.pad_end;
        bank.holds((pixels - 1) * i.jump_write + entries)?;
        for pixel in 0..pixels {
            let address = u64::from(i.bank_addr) + u64::from(pixel) * u64::from(i.jump_write);
            let start = bank.wrapped(address, entries)?;
            let data = pixel.checked_sub(i.pad_start).filter(|p| *p < i.length);
            let source = match data {
                Some(p) => {
                    let from = u64::from(i.ddr_addr) + u64::from(p) * u64::from(i.jump_read);
                    let bytes = usize::try_from(from).ok().and_then(|f| memory.read(region, f, i.channel as usize));
                    bytes.ok_or(Fault::Memory { reg_id: i.reg_id, start: from, bytes: i.channel })?
                }
                None => &[],
            };
            let mut rest = source;
            for (at, len) in bank.pieces(start, entries) {
                if self.probe.is_some_and(|p| (at..at + len).contains(&p)) {
                    self.probed = Some(Probed::Loaded);
                }
                let to = self.banks.get_mut(at..at + len).ok_or(Fault::Bank { bank: i.bank_id })?;
                let (now, later) = rest.split_at_checked(len).unwrap_or((rest, &[]));
                if let Some((filled, zeros)) = to.split_at_mut_checked(now.len()) {
                    filled.copy_from_slice(now);
                    zeros.fill(0);
                }
                rest = later;
            }
        }
        Ok(())
    }

    fn save(&mut self, i: &Save, memory: &mut Memory<'_>) -> Result<(), Fault> {
        let region = region(i.reg_id)?;
        if region == Region::Constants {
            return Err(Fault::Register { reg_id: i.reg_id });
        }
        let bank = self.feature_bank(i.bank_id)?;
        let entries = i.channel.div_ceil(bank.width.get());
        for pixel in 0..i.length {
            let address = u64::from(i.bank_addr) + u64::from(pixel) * u64::from(i.jump_read);
            let start = bank.wrapped(address, entries)?;
            let to = u64::from(i.ddr_addr) + u64::from(pixel) * u64::from(i.jump_write);
            let outside = Fault::Memory { reg_id: i.reg_id, start: to, bytes: i.channel };
            let target = usize::try_from(to).ok().and_then(|t| memory.write(region, t, i.channel as usize));
            let mut rest = target.ok_or(outside)?;
            if i.const_en != 0 {
                rest.fill(i.const_value as u8);
                continue;
            }
            for (at, len) in bank.pieces(start, entries) {
                let from = self.banks.get(at..at + len).ok_or(Fault::Bank { bank: i.bank_id })?;
                let (now, later) = rest.split_at_mut(len.min(rest.len()));
                if let Some(from) = from.get(..now.len()) {
                    now.copy_from_slice(from);
                }
                rest = later;
            }
        }
        Ok(())
    }

    /// Remembers the accumulator of the probed byte if it is one of the `lanes` that were computed from byte `at` on.
    #[inline]
    fn note(&mut self, at: usize, lanes: usize, shift: i32, accumulator: impl FnOnce(usize) -> i64) {
        if let Some(lane) = self.probe.and_then(|p| p.checked_sub(at)).filter(|lane| *lane < lanes) {
            self.probed = Some(Probed::Computed { accumulator: accumulator(lane), shift });
        }
    }

    fn bank(&self, id: u32) -> Result<Place, Fault> {
        let bank = self.target.bank(id);
        bank.and_then(|bank| Place::new(bank.group, bank.offset)).ok_or(Fault::Bank { bank: id })
    }

    fn feature_bank(&self, id: u32) -> Result<Place, Fault> {
        self.bank(id)?.wraps.then(|| self.bank(id)).ok_or(Fault::Bank { bank: id })?
    }

    /// A bank of weights or biases of which `entries` addresses from `address` on are used.
    fn parameters(&self, kind: BankKind, address: u32, entries: u32) -> Result<Place, Fault> {
        let group = self.target.group(kind);
        let place = group.and_then(|(group, offset)| Place::new(group, offset));
        let place = place.ok_or(Fault::Bank { bank: u32::MAX })?;
        place.wrapped(address.into(), entries)?;
        Ok(place)
    }

    /// The rows of a feature map from bank `id` on.
    fn rows(&self, id: u32) -> Result<Rows, Fault> {
        let bank =
            self.target.bank(id).filter(|b| b.group.kind == BankKind::Feature).ok_or(Fault::Bank { bank: id })?;
        let bank_bytes = bank.group.bank_bytes();
        Ok(Rows {
            place: self.bank(id)?,
            group_offset: bank.offset - usize::from(bank.index) * bank_bytes,
            bank_bytes,
            count: NonZeroU32::new(bank.group.count.into()).ok_or(Fault::Bank { bank: id })?,
            index: bank.index.into(),
        })
    }
}

impl<P: Products> Dpu for Machine<'_, P> {
    type Error = ExecError;

    /// Executes the job's instructions in program order up to END; tokens have no say in it.
    fn run(&mut self, _: &DpuJob<'_>, code: &[u8], memory: &mut Memory<'_>) -> Result<(), ExecError> {
        self.reset();
        let mut end = (0, 0);
        for (index, (offset, line)) in (0u32..).zip(program(self.target.isa, code)) {
            let error = |inst, fault| ExecError { index, offset: offset as u32, inst, fault };
            let line = line.map_err(|e| error("", Fault::Decode(e)))?;
            let kind = line.inst.kind();
            self.execute(&line.inst, memory).map_err(|fault| error(kind.mnemonic(), fault))?;
            if kind == Kind::End {
                return Ok(());
            }
            end = (index + 1, offset as u32);
        }
        Err(ExecError { index: end.0, offset: end.1, inst: "", fault: Fault::NoEnd })
    }
}

fn region(reg_id: u32) -> Result<Region, Fault> {
    u8::try_from(reg_id).ok().and_then(Region::from_register).ok_or(Fault::Register { reg_id })
}

/// One bank in the machine's bytes.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: usize,
    depth: NonZeroU32,
    width: NonZeroU32,
    wraps: bool,
}

impl Place {
    /// The bank of a group that starts at byte `offset`; `None` for one without bytes.
    fn new(group: &BankGroup, offset: usize) -> Option<Self> {
        let (depth, width) = (NonZeroU32::new(group.depth)?, NonZeroU32::new(group.width.into())?);
        Some(Self { offset, depth, width, wraps: group.kind == BankKind::Feature })
    }

    /// `address` brought into the bank; an error if it has to be and the bank does not wrap.
    fn wrapped(&self, address: u64, entries: u32) -> Result<u32, Fault> {
        let depth = u64::from(self.depth.get());
        let past = if self.wraps { u64::from(entries) > depth } else { address + u64::from(entries) > depth };
        if past {
            let address = (address + u64::from(entries)).min(u32::MAX.into()) as u32;
            return Err(Fault::Address { address, depth: self.depth.get() });
        }
        Ok(self.brought(address))
    }

    /// `address` modulo the bank's depth. Most addresses are inside: the division is spared.
    #[inline]
    fn brought(&self, address: u64) -> u32 {
        match u32::try_from(address) {
            Ok(inside) if inside < self.depth.get() => inside,
            Ok(past) => past % self.depth,
            // A 64-bit divisor that is known not to be zero has no panic either.
            Err(_) => (address % NonZeroU64::from(self.depth)) as u32,
        }
    }

    /// The first byte of an address of the bank.
    #[inline]
    fn byte(&self, address: u32) -> usize {
        self.offset + address as usize * self.width.get() as usize
    }

    /// Bytes of the bank.
    fn bytes(&self) -> usize {
        self.depth.get() as usize * self.width.get() as usize
    }

    /// An error if `entries` addresses in a row are more than the bank has, so that the last would overwrite the first.
    fn holds(&self, entries: u32) -> Result<(), Fault> {
        let depth = self.depth.get();
        if entries > depth { Err(Fault::Address { address: entries, depth }) } else { Ok(()) }
    }

    /// The bytes of `entries` consecutive addresses: one piece, or two around the end of the bank.
    fn pieces(&self, start: u32, entries: u32) -> impl Iterator<Item = (usize, usize)> {
        let first = entries.min(self.depth.get() - start);
        let piece = |start: u32, n: u32| (self.byte(start), n as usize * self.width.get() as usize);
        [piece(start, first), piece(0, entries - first)].into_iter().filter(|(_, len)| *len > 0)
    }
}

/// A feature-map group seen from one of its banks.
#[derive(Clone, Copy, Debug)]
struct Rows {
    place: Place,
    group_offset: usize,
    bank_bytes: usize,
    count: NonZeroU32,
    index: u32,
}

impl Rows {
    /// The bank `banks` further on, and how often the end of the group was passed.
    fn at(&self, banks: u32) -> (Place, u32) {
        let q = self.index + banks;
        let offset = self.group_offset + (q % self.count) as usize * self.bank_bytes;
        (Place { offset, ..self.place }, q / self.count)
    }
}

/// The input window of CONV and ALU: rows over banks, and what of it counts.
#[derive(Clone, Copy, Debug)]
struct Window {
    rows: Rows,
    addresses: [u32; 4],
    kernel: [u32; 2],
    stride: [NonZeroU32; 2],
    /// First row and column that count.
    first: [u32; 2],
    /// Last row and column that count.
    last: [u32; 2],
    packed_at: u32,
    jump: u32,
    jump_row: u32,
}

impl Window {
    /// Bank and address of row `i`, before its first (possibly padded) pixel.
    fn row(&self, i: u32) -> Result<(Place, u32), Fault> {
        let p = self.packed_at + i;
        let (place, crossed) = self.rows.at(p / self.stride[0]);
        let base = self.addresses.get(crossed as usize).ok_or(Fault::Rows { row: i })?;
        Ok((place, base + (p % self.stride[0]) * self.jump_row))
    }

    /// The taps of output `out` along `axis` (0 rows, 1 columns) that count.
    #[inline(always)]
    fn taps(&self, axis: usize, out: u32) -> core::ops::Range<u32> {
        let origin = out * self.stride[axis].get();
        let end = (self.last[axis] + 1).saturating_sub(origin).min(self.kernel[axis]);
        self.first[axis].saturating_sub(origin).min(end)..end
    }
}

/// The output rows of CONV and ALU.
#[derive(Clone, Copy, Debug)]
struct Output {
    rows: Rows,
    address: u32,
    packing: NonZeroU32,
    packed_at: u32,
    jump: u32,
    jump_row: u32,
}

impl Output {
    /// Bank and address of output row `r`. Rows must not pass the end of the bank group.
    fn row(&self, r: u32) -> Result<(Place, u32), Fault> {
        let p = self.packed_at + r;
        match self.rows.at(p / self.packing) {
            (place, 0) => Ok((place, self.address + (p % self.packing) * self.jump_row)),
            _ => Err(Fault::Rows { row: r }),
        }
    }
}

/// A stride or packing, which [`Machine::cost`] has found to be encodable and so not 0.
fn positive(field: &'static str, value: u32) -> Result<NonZeroU32, Fault> {
    NonZeroU32::new(value).ok_or(Fault::Unsupported { field, value })
}

fn at_most(field: &'static str, value: u32, max: u32) -> Result<(), Fault> {
    if value <= max { Ok(()) } else { Err(Fault::Value { field, value, max }) }
}
