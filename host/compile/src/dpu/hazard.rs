//! Tokens: which instruction waits for which, found from what instructions read and write.
//!
//! Engines run at once, so two instructions of different engines that touch the same addresses, one of them writing,
//! need a token between them. [`order`] walks the program in order, keeps the last readers and writers of every piece
//! of every bank and memory region, and turns each conflict into a wait on the later and a signal on the earlier
//! instruction. A vector clock per instruction says what is complete before it starts, so conflicts that earlier
//! tokens cover get none. Then, for any timing:
//!
//! - Every conflict is ordered as in the program, so the bytes are those of program order.
//! - Waits point backwards in program order, so nothing deadlocks.
//! - END waits for everything, also for results that are never saved.
//! - Per pair of engines the signals stand in the order of their waits, one for one: each wait consumes the token it was
//!   made for, and at END every counter is where it began.
//!
//! Instructions of one engine wait for their predecessor by the engine's token with itself (DEC), END included. Two
//! SAVEs on different ports share that token as vendor programs do (DEC): the first takes it, the second gives it back,
//! so both ports run at once. Signals come in program order of an engine, so what waits for the second waits for both.

use shiftwise_core::isa::{Alu, AluInit, Conv, ConvInit, Elew, ElewInit, Engine, EngineSet, Inst, Tokens, alu_mode};
use shiftwise_core::target::{BankKind, Target};

/// Bank addresses that are told apart only together. Buffers start at multiples of it.
pub(crate) const BANK_GRAIN: u32 = 16;
/// Memory bytes that are told apart only together.
const MEMORY_GRAIN: u32 = 256;

/// The last accesses of one piece of memory, per engine: instruction numbers from 1, 0 for none.
#[derive(Clone, Copy, Default)]
struct Cell {
    read: [u32; 4],
    write: [u32; 4],
}

/// One contiguous access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Access {
    space: Space,
    start: u32,
    end: u32,
    write: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Space {
    Bank(u32),
    Memory(u32),
}

/// The tokens of every instruction of a job.
pub(crate) fn order(target: &Target, program: &[Inst]) -> Vec<Tokens> {
    let mut tokens = vec![Tokens::default(); program.len()];
    // Per instruction, per engine: the last instruction known to be complete when it completes.
    let mut done: Vec<[u32; 4]> = Vec::with_capacity(program.len());
    let mut last_of = [None::<usize>; 4];
    let mut cells = Cells::new(target);
    let mut state = Effects::new(target);
    let mut accesses = Vec::new();
    // The first SAVE of a pair that is still open.
    let mut open: Option<(usize, u32, Option<Access>)> = None;
    for (index, inst) in program.iter().enumerate() {
        let engine = inst.engine();
        let me = engine as usize;
        let number = index as u32 + 1;
        accesses.clear();
        state.of(inst, &mut accesses);
        let mut needed = [0u32; 4];
        for access in &accesses {
            for cell in cells.range(access) {
                for ((needed, written), read) in needed.iter_mut().zip(cell.write).zip(cell.read) {
                    *needed = (*needed).max(written).max(if access.write { read } else { 0 });
                }
            }
        }
        if let Inst::End(_) = inst {
            // Nothing runs on after END, not even what nobody has saved.
            needed = last_of.map(|last| last.map_or(0, |i| i as u32 + 1));
        }
        let mut clock = last_of[me].map_or([0; 4], |i| done[i]);
        let mut second = false;
        if let Inst::Save(save) = inst {
            let written = accesses.iter().find(|a| a.write).copied();
            if let Some((first, port, other)) = open
                && port != save.hp_id
                && !overlap(other, written)
            {
                // It may start before the first is done, but not before what the first waited for.
                second = true;
                clock[me] = clock[me].min(first as u32);
                tokens[first].signals = without(tokens[first].signals, engine);
            }
            open = if second { None } else { Some((index, save.hp_id, written)) };
        } else if engine == Engine::Save {
            open = None;
        }
        // Latest first: its completion often covers the others.
        let mut others: Vec<usize> = (0..4).filter(|e| *e != me).collect();
        others.sort_by_key(|e| std::cmp::Reverse(needed[*e]));
        for e in others {
            let wanted = needed[e];
            if wanted > clock[e] {
                let from = wanted as usize - 1;
                tokens[from].signals = tokens[from].signals.with(engine);
                tokens[index].waits = tokens[index].waits.with(Engine::ALL[e]);
                for (own, theirs) in clock.iter_mut().zip(done[from]) {
                    *own = (*own).max(theirs);
                }
            }
        }
        clock[me] = number;
        done.push(clock);
        last_of[me] = Some(index);
        if !second {
            tokens[index].waits = tokens[index].waits.with(engine);
        }
        tokens[index].signals = tokens[index].signals.with(engine);
        for access in &accesses {
            for cell in cells.range(access) {
                let slot = if access.write { &mut cell.write } else { &mut cell.read };
                slot[me] = number;
            }
        }
    }
    tokens
}

fn overlap(a: Option<Access>, b: Option<Access>) -> bool {
    a.zip(b).is_none_or(|(a, b)| a.space == b.space && a.start < b.end && b.start < a.end)
}

fn without(set: EngineSet, engine: Engine) -> EngineSet {
    EngineSet::from_bits(set.bits() & !EngineSet::of(&[engine]).bits())
}

/// The cells of all banks and regions.
struct Cells {
    banks: Vec<Vec<Cell>>,
    memory: [Vec<Cell>; 8],
}

impl Cells {
    fn new(target: &Target) -> Self {
        let banks = target.banks.iter().flat_map(|g| {
            let cells = g.depth.div_ceil(BANK_GRAIN) as usize;
            (0..g.count).map(move |_| vec![Cell::default(); cells])
        });
        Self { banks: banks.collect(), memory: Default::default() }
    }

    fn range(&mut self, access: &Access) -> &mut [Cell] {
        let (cells, grain) = match access.space {
            Space::Bank(id) => (self.banks.get_mut(id as usize), BANK_GRAIN),
            Space::Memory(id) => (self.memory.get_mut(id as usize), MEMORY_GRAIN),
        };
        let Some(cells) = cells else { return &mut [] };
        let (first, end) = ((access.start / grain) as usize, access.end.div_ceil(grain) as usize);
        if matches!(access.space, Space::Memory(_)) && cells.len() < end {
            cells.resize(end, Cell::default());
        }
        cells.get_mut(first..end).unwrap_or_default()
    }
}

/// What instructions read and write; remembers what the INIT instructions set.
struct Effects<'a> {
    target: &'a Target,
    conv: ConvInit,
    alu: AluInit,
    elew: [ElewInit; 4],
}

impl<'a> Effects<'a> {
    fn new(target: &'a Target) -> Self {
        Self { target, conv: ConvInit::default(), alu: AluInit::default(), elew: Default::default() }
    }

    fn of(&mut self, inst: &Inst, out: &mut Vec<Access>) {
        match inst {
            Inst::Load(l) => {
                let entries = l.channel.div_ceil(self.lanes());
                let pixels = l.pad_start + l.length + l.pad_end;
                out.push(memory(l.reg_id, l.ddr_addr, l.length, l.jump_read, l.channel, false));
                self.bank(l.bank_id, l.bank_addr.into(), (pixels - 1) * l.jump_write + entries, true, out);
            }
            Inst::Save(s) => {
                let entries = s.channel.div_ceil(self.lanes());
                self.bank(s.bank_id, s.bank_addr.into(), (s.length - 1) * s.jump_read + entries, false, out);
                out.push(memory(s.reg_id, s.ddr_addr, s.length, s.jump_write, s.channel, true));
            }
            Inst::ConvInit(i) => self.conv = *i,
            Inst::AluInit(i) => self.alu = *i,
            Inst::ElewInit(i) => {
                if let Some(slot) = self.elew.get_mut(i.id as usize) {
                    *slot = *i;
                }
            }
            Inst::Conv(c) => self.conv(c, out),
            Inst::Alu(a) => self.alu(a, out),
            Inst::Elew(e) => self.elew(e, out),
            _ => {}
        }
    }

    fn lanes(&self) -> u32 {
        u32::from(self.target.input_channel_parallel).max(1)
    }

    /// `entries` addresses of a bank from `address` on, around its end if need be.
    fn bank(&self, id: u32, address: u64, entries: u32, write: bool, out: &mut Vec<Access>) {
        let Some(bank) = self.target.bank(id) else { return };
        let depth = bank.group.depth;
        let (start, entries) = ((address % u64::from(depth)) as u32, entries.min(depth));
        let first = entries.min(depth - start);
        let space = Space::Bank(id);
        out.push(Access { space, start, end: start + first, write });
        if entries > first {
            out.push(Access { space, start: 0, end: entries - first, write });
        }
    }

    /// The bank `rows` after bank `id` of a feature-map group, and how often the group's end was passed.
    fn bank_after(&self, id: u32, rows: u32) -> (u32, u32) {
        let Some(bank) = self.target.bank(id) else { return (id, 0) };
        let (first, count) = (u32::from(bank.group.first), u32::from(bank.group.count));
        let q = u32::from(bank.index) + rows;
        (first + q % count, q / count)
    }

    fn parameters(&self, kind: BankKind, address: u32, entries: u32, out: &mut Vec<Access>) {
        if let Some((group, _)) = self.target.group(kind) {
            for id in group.first..group.first + group.count {
                self.bank(id.into(), address.into(), entries, false, out);
            }
        }
    }

    fn window(&self, w: &WindowRows, out: &mut Vec<Access>) {
        let reach = |outputs: u32, axis: usize| {
            let last = (outputs - 1) * w.stride[axis];
            (last + w.pad_after[axis]).min(last + w.kernel[axis] - 1)
        };
        let (last_row, last_column) = (reach(w.rows, 0), reach(w.columns, 1));
        for i in w.pad_before[0]..=last_row {
            let p = w.packed_at + i;
            let (bank, crossed) = self.bank_after(w.bank, p / w.stride[0]);
            let base = w.addresses.get(crossed as usize).copied().unwrap_or(0);
            let from = base + (p % w.stride[0]) * w.jump_row + w.pad_before[1] * w.jump;
            let columns = last_column.saturating_sub(w.pad_before[1]);
            self.bank(bank, from.into(), columns * w.jump + w.groups, false, out);
        }
    }

    fn conv(&self, c: &Conv, out: &mut Vec<Access>) {
        let i = &self.conv;
        let window = WindowRows {
            bank: c.bank_id_in,
            addresses: [c.bank_addr_in, c.bank_addr_in_1, c.bank_addr_in_2, c.bank_addr_in_3],
            kernel: [i.kernel_h, i.kernel_w],
            stride: [i.stride_h, i.stride_w],
            pad_before: [c.pad_top, c.pad_left],
            pad_after: [c.pad_bottom, c.pad_right],
            rows: i.valid_pixel_parallel,
            columns: c.length,
            packed_at: i.stride_offset_in,
            jump: i.jump_read,
            jump_row: i.jump_read_endl,
            groups: c.channel_group,
        };
        self.window(&window, out);
        let taps = i.kernel_h * i.kernel_w;
        self.parameters(BankKind::ConvWeights, c.bank_addr_weights, taps * c.channel_group, out);
        self.parameters(BankKind::Bias, c.bank_addr_bias, 1, out);
        for r in 0..i.valid_pixel_parallel {
            let p = i.stride_offset_out + r;
            let (bank, _) = self.bank_after(c.bank_id_out, p / i.stride_out);
            let from = c.bank_addr_out + (p % i.stride_out) * i.jump_write_endl;
            self.bank(bank, from.into(), (c.length - 1) * i.jump_write + 1, true, out);
        }
    }

    fn alu(&self, a: &Alu, out: &mut Vec<Access>) {
        let i = &self.alu;
        let window = WindowRows {
            bank: a.bank_id_in,
            addresses: [a.bank_addr_in, a.bank_addr_in_1, a.bank_addr_in_2, a.bank_addr_in_3],
            kernel: [i.kernel_h, i.kernel_w],
            stride: [i.stride_h, i.stride_w],
            pad_before: [a.pad_top, a.pad_left],
            pad_after: [a.pad_bottom, a.pad_right],
            rows: a.valid_pixel_parallel,
            columns: i.length,
            packed_at: i.stride_offset_in,
            jump: i.jump_read,
            jump_row: i.jump_read_endl,
            groups: i.channel_group,
        };
        self.window(&window, out);
        if matches!(i.exec_mode, alu_mode::DWCONV | alu_mode::DWCONV_NO_BIAS) {
            let entries = (i.kernel_h * i.kernel_w - 1) * i.jump_read_weights + i.channel_group;
            self.parameters(BankKind::DepthwiseWeights, a.bank_addr_weights, entries, out);
        }
        if i.exec_mode == alu_mode::DWCONV {
            self.parameters(BankKind::Bias, a.bank_addr_bias, i.channel_group, out);
        }
        for r in 0..a.valid_pixel_parallel {
            let p = i.stride_offset_out + r;
            let (bank, _) = self.bank_after(a.bank_id_out, p / i.stride_out);
            let from = a.bank_addr_out + (p % i.stride_out) * i.jump_write_endl;
            self.bank(bank, from.into(), (i.length - 1) * i.jump_write + i.channel_group, true, out);
        }
    }

    fn elew(&self, e: &Elew, out: &mut Vec<Access>) {
        for r in 0..e.valid_pixel_parallel {
            for o in self.elew.iter().take(e.num as usize) {
                let row = if o.share_pp == 0 { r } else { 0 };
                let (bank, crossed) = self.bank_after(o.bank_id_in, row * o.jump_bank);
                let from = o.bank_addr_in + crossed * o.jump_read_endl;
                self.bank(bank, from.into(), (e.length - 1) * o.jump_read + e.channel_group, false, out);
            }
            let (bank, crossed) = self.bank_after(e.bank_id_out, r);
            let to = e.bank_addr_out + crossed * e.jump_write_endl;
            self.bank(bank, to.into(), (e.length - 1) * e.jump_write + e.channel_group, true, out);
        }
    }
}

/// The input rows of a CONV or ALU.
struct WindowRows {
    bank: u32,
    addresses: [u32; 4],
    kernel: [u32; 2],
    stride: [u32; 2],
    pad_before: [u32; 2],
    pad_after: [u32; 2],
    rows: u32,
    columns: u32,
    packed_at: u32,
    jump: u32,
    jump_row: u32,
    groups: u32,
}

fn memory(reg_id: u32, start: u32, length: u32, jump: u32, channel: u32, write: bool) -> Access {
    let end = start.saturating_add((length - 1).saturating_mul(jump)).saturating_add(channel);
    Access { space: Space::Memory(reg_id), start, end, write }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiftwise_core::isa::{End, Load, Save};

    #[test]
    fn saves_on_two_ports_share_a_token() {
        let target = shiftwise_targets::find("B512").unwrap();
        let save = |port, ddr| Inst::from(Save { reg_id: 3, ddr_addr: ddr, hp_id: port, ..Save::default() });
        let check = |program: &[Inst], want: &[(u8, u8)]| {
            let tokens = order(&target, program);
            assert_eq!(tokens.iter().map(|t| (t.waits.bits(), t.signals.bits())).collect::<Vec<_>>(), want);
        };
        check(&[save(0, 0), save(1, 4096), save(0, 8192), End {}.into()], &[(2, 0), (0, 2), (2, 2), (2, 2)]);
        // The same port, or the same memory: one after the other.
        check(&[save(0, 0), save(0, 4096), End {}.into()], &[(2, 2), (2, 2), (2, 2)]);
        check(&[save(0, 0), save(1, 0), End {}.into()], &[(2, 2), (2, 2), (2, 2)]);
    }

    #[test]
    fn the_end_waits_for_what_nobody_saves() {
        let target = shiftwise_targets::find("B512").unwrap();
        let load = Inst::from(Load { bank_id: 1, reg_id: 2, ..Load::default() });
        let tokens = order(&target, &[load, End {}.into()]);
        let set = |engines: &[Engine]| EngineSet::of(engines);
        let end = Inst::from(End {}).engine();
        assert_eq!(tokens[0].signals, set(&[Engine::Load, end]));
        assert_eq!(tokens[1].waits, set(&[Engine::Load, end]));
    }

    #[test]
    fn a_save_waits_for_the_load_of_its_bank_and_a_second_load_for_the_save() {
        let target = shiftwise_targets::find("B512").unwrap();
        let load = |addr| Inst::from(Load { bank_id: 1, bank_addr: addr, reg_id: 2, ..Load::default() });
        let save =
            |addr, ddr| Inst::from(Save { bank_id: 1, bank_addr: addr, reg_id: 3, ddr_addr: ddr, ..Save::default() });
        let program = [load(0), load(64), save(0, 0), load(0), save(64, 4096), End {}.into()];
        let tokens = order(&target, &program);
        let [l, s] = [Engine::Load, Engine::Save];
        let set = |engines: &[Engine]| EngineSet::of(engines);
        let want = [
            (set(&[l]), set(&[l, s])),
            (set(&[l]), set(&[l, s])),
            (set(&[s, l]), set(&[s, l])),
            (set(&[l, s]), set(&[l, s])),
            // Reads what the second LOAD wrote; the first wait does not cover it.
            (set(&[s, l]), set(&[s])),
            // What the last LOAD wrote is never saved.
            (set(&[s, l]), set(&[s])),
        ];
        assert_eq!(tokens.iter().map(|t| (t.waits, t.signals)).collect::<Vec<_>>(), want);
    }
}
