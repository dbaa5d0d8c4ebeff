//! Whether a program's tokens order everything that touches the same memory.
//!
//! A simulation shows one order of events; with other costs another order may come out, and a program that forgot a token
//! then computes something else. Here the tokens alone are followed: which instruction is certain to be complete before
//! another starts, whatever they cost. Two accesses to one address, one of them writing, that are not ordered so are a
//! [`Race`]. An engine starts its instructions in order; CONV and MISC have one array and complete them in order too.

use std::fmt;

use shiftwise_core::exec::{dpt_wise_as_alu, pool_as_alu};
use shiftwise_core::isa::{
    Alu, AluInit, Conv, ConvInit, DwInit, Elew, ElewInit, Engine, Inst, Kind, Line, PoolInit, alu_mode,
};
use shiftwise_core::target::{BankKind, Target};

/// Two instructions that may run in either order, or at once, and must not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Race {
    /// The one that came first where the tokens were followed.
    pub first: (u32, Kind),
    /// The other.
    pub second: (u32, Kind),
    /// What both touch.
    pub place: Place,
}

/// An address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Of a bank.
    Bank {
        /// Bank id.
        bank: u32,
        /// Address.
        address: u32,
    },
    /// Of memory.
    Memory {
        /// Base register.
        reg_id: u32,
        /// Byte.
        byte: u32,
    },
}

impl fmt::Display for Race {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((a, first), (b, second)) = (self.first, self.second);
        let (first, second) = (first.mnemonic(), second.mnemonic());
        write!(f, "no token orders instruction {a} {first} and instruction {b} {second}, which both use ")?;
        match self.place {
            Place::Bank { bank, address } => write!(f, "address {address} of bank {bank}"),
            Place::Memory { reg_id, byte } => write!(f, "byte {byte} of base register {reg_id}"),
        }
    }
}

impl std::error::Error for Race {}

/// Instructions of each engine, counted from its first, that are certain to be complete.
type Clock = [u32; 4];

fn join(a: &mut Clock, b: &Clock) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a = (*a).max(*b));
}

/// Who touched an address last, per engine: places in the engine's order from 1, 0 for nobody.
#[derive(Clone, Copy, Default)]
struct Cell {
    read: Clock,
    write: Clock,
}

/// Memory is read by LOAD and written by SAVE only.
#[derive(Clone, Copy, Default)]
struct Byte {
    load: u32,
    save: u32,
}

/// Checks a program. `regions` are the sizes of the base registers' memory, by number; what lies outside is not looked
/// at (executing it is an error of its own). A program that gets stuck is checked as far as it goes.
///
/// Errors: the first race.
pub fn check_order(target: &Target, lines: &[Line], regions: &[usize]) -> Result<(), Race> {
    let mut queues: [Vec<u32>; 4] = Default::default();
    for (index, line) in (0u32..).zip(lines) {
        queues[line.inst.engine() as usize].push(index);
    }
    // Tokens that were given and not taken: what was complete when each was given.
    let mut tokens: [[std::collections::VecDeque<Clock>; 4]; 4] = Default::default();
    Engine::ALL.into_iter().for_each(|e| tokens[e as usize][e as usize].push_back([0; 4]));
    let mut next = [0usize; 4];
    let (mut started, mut done) = ([[0; 4]; 4], [[0; 4]; 4]);
    let mut memory = Touched::new(target, regions);
    loop {
        let before = next;
        for engine in Engine::ALL {
            let e = engine as usize;
            while let Some(&index) = queues[e].get(next[e]) {
                let Line { tokens: t, inst } = &lines[index as usize];
                if t.waits.iter().any(|from| tokens[from as usize][e].is_empty()) {
                    break;
                }
                let mut start: Clock = started[e];
                if matches!(engine, Engine::Conv | Engine::Misc) {
                    join(&mut start, &done[e]);
                }
                for from in t.waits.iter() {
                    if let Some(clock) = tokens[from as usize][e].pop_front() {
                        join(&mut start, &clock);
                    }
                }
                next[e] += 1;
                let number = next[e] as u32;
                memory.touch(inst, engine, number, &start).map_err(|(engine, number, place)| {
                    let first = queues[engine][number as usize - 1];
                    Race { first: (first, lines[first as usize].inst.kind()), second: (index, inst.kind()), place }
                })?;
                started[e] = start;
                join(&mut done[e], &start);
                done[e][e] = number;
                t.signals.iter().for_each(|to| tokens[e][to as usize].push_back(done[e]));
            }
        }
        if next == before {
            return Ok(());
        }
    }
}

type Clash = (usize, u32, Place);

struct Touched<'a> {
    target: &'a Target,
    banks: Vec<Vec<Cell>>,
    /// Per base register: its size, and the bytes as far as they have been touched.
    regions: Vec<(usize, Vec<Byte>)>,
    conv: ConvInit,
    alu: AluInit,
    pool: PoolInit,
    dw: DwInit,
    elew: [ElewInit; 4],
}

/// One access to a bank: `count` runs of `run` addresses, `jump` apart.
#[derive(Clone, Copy)]
struct Access {
    bank: u32,
    start: u32,
    count: u32,
    jump: u32,
    run: u32,
    write: bool,
}

impl<'a> Touched<'a> {
    fn new(target: &'a Target, regions: &[usize]) -> Self {
        let banks = target.banks.iter().flat_map(|g| (0..g.count).map(|_| vec![Cell::default(); g.depth as usize]));
        // Constants are never written.
        let region = |(id, bytes): (usize, &usize)| (if id == 0 { 0 } else { *bytes }, Vec::new());
        Self {
            target,
            banks: banks.collect(),
            regions: regions.iter().enumerate().map(region).collect(),
            conv: ConvInit::default(),
            alu: AluInit::default(),
            pool: PoolInit::default(),
            dw: DwInit::default(),
            elew: Default::default(),
        }
    }

    /// Notes what an instruction touches; an earlier access that isn't ordered before it is an error.
    fn touch(&mut self, inst: &Inst, engine: Engine, number: u32, start: &Clock) -> Result<(), Clash> {
        let mut all = Vec::new();
        match inst {
            Inst::Load(l) => {
                let pixels = l.pad_start + l.length + l.pad_end;
                let run = l.channel.div_ceil(self.lanes());
                all.push(Access {
                    bank: l.bank_id,
                    start: l.bank_addr,
                    count: pixels,
                    jump: l.jump_write,
                    run,
                    write: true,
                });
                self.bytes(l.reg_id, [l.ddr_addr, l.length, l.jump_read, l.channel], false, number, start)?;
            }
            Inst::Save(s) => {
                let run = s.channel.div_ceil(self.lanes());
                all.push(Access {
                    bank: s.bank_id,
                    start: s.bank_addr,
                    count: s.length,
                    jump: s.jump_read,
                    run,
                    write: false,
                });
                self.bytes(s.reg_id, [s.ddr_addr, s.length, s.jump_write, s.channel], true, number, start)?;
            }
            Inst::ConvInit(i) => self.conv = *i,
            Inst::AluInit(i) => self.alu = *i,
            Inst::PoolInit(i) => self.pool = *i,
            Inst::DwInit(i) => self.dw = *i,
            Inst::ElewInit(i) => {
                if let Some(slot) = self.elew.get_mut(i.id as usize) {
                    *slot = *i;
                }
            }
            Inst::Conv(c) => self.conv(c, &mut all),
            Inst::Alu(a) => self.alu(&self.alu, a, &mut all),
            // What the machine refuses touches nothing.
            Inst::Pool(p) => {
                if let Ok((init, alu)) = pool_as_alu(&self.pool, p) {
                    self.alu(&init, &alu, &mut all);
                }
            }
            Inst::DptWise(d) => {
                let (init, alu) = dpt_wise_as_alu(&self.dw, d);
                self.alu(&init, &alu, &mut all);
            }
            Inst::Elew(e) => self.elew(e, &mut all),
            Inst::End(_) => {}
        }
        all.iter().try_for_each(|access| self.bank(access, engine as usize, number, start))
    }

    fn lanes(&self) -> u32 {
        u32::from(self.target.input_channel_parallel).max(1)
    }

    fn bank(&mut self, access: &Access, engine: usize, number: u32, start: &Clock) -> Result<(), Clash> {
        let Access { bank, start: first, count, jump, run, write } = *access;
        let Some(cells) = self.banks.get_mut(bank as usize) else { return Ok(()) };
        let depth = cells.len() as u64;
        for i in 0..count {
            for k in 0..run {
                let address = (u64::from(first) + u64::from(i) * u64::from(jump) + u64::from(k)) % depth;
                let Some(cell) = cells.get_mut(address as usize) else { continue };
                // An instruction is never its own rival.
                let own = |e: usize, n: u32| (e, n) == (engine, number);
                let rival = |clock: &Clock| (0..4).map(|e| (e, clock[e])).find(|(e, n)| *n > start[*e] && !own(*e, *n));
                let found = rival(&cell.write).or_else(|| if write { rival(&cell.read) } else { None });
                if let Some((e, n)) = found {
                    return Err((e, n, Place::Bank { bank, address: address as u32 }));
                }
                if write {
                    cell.write[engine] = number;
                } else {
                    cell.read[engine] = number;
                }
            }
        }
        Ok(())
    }

    fn bytes(
        &mut self,
        reg_id: u32,
        [first, length, jump, channel]: [u32; 4],
        write: bool,
        number: u32,
        start: &Clock,
    ) -> Result<(), Clash> {
        let (load, save) = (Engine::Load as usize, Engine::Save as usize);
        let Some((size, region)) = self.regions.get_mut(reg_id as usize) else { return Ok(()) };
        for i in 0..length {
            let at = first as usize + i as usize * jump as usize;
            let end = at + channel as usize;
            if end <= *size && end > region.len() {
                region.resize(end, Byte::default());
            }
            let Some(bytes) = region.get_mut(at..end) else { continue };
            for (k, byte) in bytes.iter_mut().enumerate() {
                let place = || Place::Memory { reg_id, byte: (at + k) as u32 };
                if byte.save > start[save] && !(write && byte.save == number) {
                    return Err((save, byte.save, place()));
                }
                if write {
                    if byte.load > start[load] {
                        return Err((load, byte.load, place()));
                    }
                    byte.save = number;
                } else {
                    byte.load = number;
                }
            }
        }
        Ok(())
    }

    /// The bank `rows` after bank `id` of a feature-map group, and how often the group's end was passed.
    fn after(&self, id: u32, rows: u32) -> (u32, u32) {
        let Some(bank) = self.target.bank(id) else { return (id, 0) };
        let (first, count) = (u32::from(bank.group.first), u32::from(bank.group.count));
        let q = u32::from(bank.index) + rows;
        (first + q % count, q / count)
    }

    fn parameters(&self, kind: BankKind, start: u32, run: u32, out: &mut Vec<Access>) {
        if let Some((group, _)) = self.target.group(kind) {
            let ids = u32::from(group.first)..u32::from(group.first + group.count);
            out.extend(ids.map(|bank| Access { bank, start, count: 1, jump: 1, run, write: false }));
        }
    }

    fn conv(&self, c: &Conv, out: &mut Vec<Access>) {
        let i = &self.conv;
        let rows = Rows {
            bank: c.bank_id_in,
            addresses: [c.bank_addr_in, c.bank_addr_in_1, c.bank_addr_in_2, c.bank_addr_in_3],
            kernel: [i.kernel_h, i.kernel_w],
            stride: [i.stride_h, i.stride_w],
            before: [c.pad_top, c.pad_left],
            after: [c.pad_bottom, c.pad_right],
            outputs: [i.valid_pixel_parallel, c.length],
            packed_at: i.stride_offset_in,
            jump: [i.jump_read_endl, i.jump_read],
            groups: c.channel_group,
        };
        self.window(&rows, out);
        self.parameters(BankKind::ConvWeights, c.bank_addr_weights, i.kernel_h * i.kernel_w * c.channel_group, out);
        self.parameters(BankKind::Bias, c.bank_addr_bias, 1, out);
        for r in 0..i.valid_pixel_parallel {
            let p = i.stride_offset_out + r;
            let (bank, _) = self.after(c.bank_id_out, p / i.stride_out);
            let start = c.bank_addr_out + (p % i.stride_out) * i.jump_write_endl;
            out.push(Access { bank, start, count: c.length, jump: i.jump_write, run: 1, write: true });
        }
    }

    fn alu(&self, i: &AluInit, a: &Alu, out: &mut Vec<Access>) {
        let rows = Rows {
            bank: a.bank_id_in,
            addresses: [a.bank_addr_in, a.bank_addr_in_1, a.bank_addr_in_2, a.bank_addr_in_3],
            kernel: [i.kernel_h, i.kernel_w],
            stride: [i.stride_h, i.stride_w],
            before: [a.pad_top, a.pad_left],
            after: [a.pad_bottom, a.pad_right],
            outputs: [a.valid_pixel_parallel, i.length],
            packed_at: i.stride_offset_in,
            jump: [i.jump_read_endl, i.jump_read],
            groups: i.channel_group,
        };
        self.window(&rows, out);
        if matches!(i.exec_mode, alu_mode::DWCONV | alu_mode::DWCONV_NO_BIAS) {
            let taps = i.kernel_h * i.kernel_w;
            let run = (taps - 1).saturating_mul(i.jump_read_weights).saturating_add(i.channel_group);
            self.parameters(BankKind::DepthwiseWeights, a.bank_addr_weights, run, out);
        }
        if i.exec_mode == alu_mode::DWCONV {
            self.parameters(BankKind::Bias, a.bank_addr_bias, i.channel_group, out);
        }
        for r in 0..a.valid_pixel_parallel {
            let p = i.stride_offset_out + r;
            let (bank, _) = self.after(a.bank_id_out, p / i.stride_out);
            let start = a.bank_addr_out + (p % i.stride_out) * i.jump_write_endl;
            out.push(Access { bank, start, count: i.length, jump: i.jump_write, run: i.channel_group, write: true });
        }
    }

    fn elew(&self, e: &Elew, out: &mut Vec<Access>) {
        for r in 0..e.valid_pixel_parallel {
            for o in self.elew.iter().take(e.num as usize) {
                let row = if o.share_pp == 0 { r } else { 0 };
                let (bank, crossed) = self.after(o.bank_id_in, row * o.jump_bank);
                let start = o.bank_addr_in + crossed * o.jump_read_endl;
                out.push(Access {
                    bank,
                    start,
                    count: e.length,
                    jump: o.jump_read,
                    run: e.channel_group,
                    write: false,
                });
            }
            let (bank, crossed) = self.after(e.bank_id_out, r);
            let start = e.bank_addr_out + crossed * e.jump_write_endl;
            out.push(Access { bank, start, count: e.length, jump: e.jump_write, run: e.channel_group, write: true });
        }
    }

    /// The input rows and columns that count.
    fn window(&self, w: &Rows, out: &mut Vec<Access>) {
        let last = |axis: usize| {
            let origin = (w.outputs[axis] - 1) * w.stride[axis];
            (origin + w.after[axis]).min(origin + w.kernel[axis] - 1)
        };
        let Some(columns) = (last(1) + 1).checked_sub(w.before[1]) else { return };
        for i in w.before[0]..=last(0) {
            let p = w.packed_at + i;
            let (bank, crossed) = self.after(w.bank, p / w.stride[0]);
            let Some(base) = w.addresses.get(crossed as usize) else { continue };
            let start = base + (p % w.stride[0]) * w.jump[0] + w.before[1] * w.jump[1];
            out.push(Access { bank, start, count: columns, jump: w.jump[1], run: w.groups, write: false });
        }
    }
}

/// The input rows of a window; pairs are (vertical, horizontal).
struct Rows {
    bank: u32,
    addresses: [u32; 4],
    kernel: [u32; 2],
    stride: [u32; 2],
    before: [u32; 2],
    after: [u32; 2],
    outputs: [u32; 2],
    packed_at: u32,
    jump: [u32; 2],
    groups: u32,
}
