//! The event loop: which instruction starts when.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use shiftwise_core::exec::{ExecError, Fault, Machine, Products, Work};
use shiftwise_core::isa::codec::program;
use shiftwise_core::isa::{Engine, Inst, Kind, Line};
use shiftwise_core::model::Region;
use shiftwise_core::run::Memory;
use shiftwise_core::target::IsaVersion;

use crate::timing::{Ddr, Ports};
use crate::{Costs, Event, SimError, Waiting};

/// A decoded instruction.
pub(crate) struct Entry {
    line: Line,
    offset: u32,
    /// Words of the job up to its end: what must have been fetched before it starts.
    words: u32,
}

/// Decodes a job up to END.
pub(crate) fn fetch(isa: IsaVersion, code: &[u8]) -> Result<Vec<Entry>, SimError> {
    let error = |index: usize, offset: usize, fault| {
        SimError::Exec(ExecError { index: index as u32, offset: offset as u32, inst: "", fault })
    };
    let mut entries: Vec<Entry> = Vec::new();
    for (index, (offset, line)) in program(isa, code).enumerate() {
        let line = line.map_err(|e| error(index, offset, Fault::Decode(e)))?;
        let words = offset / 4 + isa.of(line.inst.kind()).map_or(0, |l| usize::from(l.words));
        entries.push(Entry { line, offset: offset as u32, words: words as u32 });
    }
    match entries.last() {
        Some(last) if last.line.inst.kind() == Kind::End => Ok(entries),
        last => Err(error(entries.len(), last.map_or(0, |e| e.offset as usize), Fault::NoEnd)),
    }
}

/// What every instruction costs, in program order: values are not needed for that.
pub(crate) fn work(machine: &mut Machine<'_>, entries: &[Entry]) -> Result<Vec<Work>, SimError> {
    machine.reset();
    (0..entries.len()).map(|i| fault_at(entries, i, machine.cost(&entries[i].line.inst))).collect()
}

fn fault_at(entries: &[Entry], index: usize, work: Result<Work, Fault>) -> Result<Work, SimError> {
    work.map_err(|fault| {
        let (entry, inst) = (&entries[index], entries[index].line.inst.kind().mnemonic());
        SimError::Exec(ExecError { index: index as u32, offset: entry.offset, inst, fault })
    })
}

/// The array that computes beside an engine's own; `None` for engines without one.
fn other_array(engine: Engine) -> Option<Engine> {
    match engine {
        Engine::Conv => Some(Engine::Misc),
        Engine::Misc => Some(Engine::Conv),
        Engine::Load | Engine::Save => None,
    }
}

/// Whether an instruction uses its array, which initialisations do not.
fn computes(kind: Kind) -> bool {
    match kind {
        Kind::Conv | Kind::Alu | Kind::Elew | Kind::Pool | Kind::DptWise => true,
        Kind::Load | Kind::Save | Kind::End => false,
        Kind::ConvInit | Kind::AluInit | Kind::ElewInit | Kind::PoolInit | Kind::DwInit => false,
    }
}

/// One core in the middle of a job.
pub(crate) struct Core<'e> {
    entries: &'e [Entry],
    /// Cycle at which the job started.
    origin: u64,
    queues: [VecDeque<usize>; 4],
    /// `tokens[a][b]`: signalled by a, for b to consume.
    tokens: [[u32; 4]; 4],
    ports: Ports,
    /// When an engine's last started instruction is done, and when it lets the next one start; in order, so neither ever
    /// decreases.
    done: [u64; 4],
    free: [u64; 4],
    /// When an array's last computation is done.
    computing: [u64; 4],
    /// Time, instruction, and whether it is the engine's own token.
    completions: BinaryHeap<Reverse<(u64, usize, bool)>>,
}

impl<'e> Core<'e> {
    /// A core that starts a job at cycle `origin`.
    pub(crate) fn new(entries: &'e [Entry], origin: u64) -> Self {
        let mut queues = [const { VecDeque::<usize>::new() }; 4];
        for (index, entry) in entries.iter().enumerate() {
            queues[entry.line.inst.engine() as usize].push_back(index);
        }
        let mut tokens = [[0u32; 4]; 4];
        Engine::ALL.into_iter().for_each(|e| tokens[e as usize][e as usize] = 1);
        Self {
            entries,
            origin,
            queues,
            tokens,
            ports: Ports::default(),
            done: [origin; 4],
            free: [origin; 4],
            computing: [origin; 4],
            completions: BinaryHeap::new(),
        }
    }

    /// Everything that happens at cycle `now`; the next cycle at which something can, if any.
    ///
    /// `work(i)` executes instruction i and says what it costs; `started` hears of each start.
    pub(crate) fn advance(
        &mut self,
        now: u64,
        costs: &Costs,
        ddr: &mut Ddr,
        mut work: impl FnMut(usize) -> Result<Work, SimError>,
        mut started: impl FnMut(Event),
    ) -> Result<Option<u64>, SimError> {
        while let Some(&Reverse((time, index, own))) = self.completions.peek()
            && time <= now
        {
            self.completions.pop();
            let line = &self.entries[index].line;
            let from = line.inst.engine();
            // The engine's token with itself comes back when it may go on, the others when the results are there.
            let signals = line.tokens.signals.iter().filter(|to| (*to == from) == own);
            signals.for_each(|to| self.tokens[from as usize][to as usize] += 1);
        }
        let mut next: Option<u64> = None;
        for engine in Engine::ALL {
            let e = engine as usize;
            while let Some(&index) = self.queues[e].front() {
                let entry = &self.entries[index];
                let waits = entry.line.tokens.waits;
                if waits.iter().any(|from| self.tokens[from as usize][e] == 0) {
                    break;
                }
                // The compute arrays are one each: without self tokens they still take one instruction at a time.
                let array = matches!(engine, Engine::Conv | Engine::Misc);
                let fetched = self.origin + (f64::from(entry.words) * costs.fetch_word) as u64;
                let ready = fetched.max(if array { self.done[e] } else { 0 });
                if ready > now {
                    next = Some(next.map_or(ready, |n| n.min(ready)));
                    break;
                }
                self.queues[e].pop_front();
                waits.iter().for_each(|from| self.tokens[from as usize][e] -= 1);
                let work = work(index)?;
                let mut times = self.ports.finish(costs, ddr, &work, index as u64, now);
                if let (Some(other), true) = (other_array(engine), computes(work.kind)) {
                    times = times.beside(costs, now, self.computing[other as usize]);
                    self.computing[e] = self.computing[e].max(times.end);
                }
                let end = times.end.max(self.done[e]);
                self.done[e] = end;
                // The arrays are busy to the end; transfers follow each other sooner.
                self.free[e] = if array { end } else { times.free.max(self.free[e]) };
                started(Event {
                    index: index as u32,
                    kind: work.kind,
                    start: now,
                    end,
                    bytes_in: work.bytes_in,
                    bytes_out: work.bytes_out,
                    macs: work.macs,
                    constants: matches!(entry.line.inst, Inst::Load(l) if l.reg_id == Region::Constants as u32),
                });
                self.completions.push(Reverse((self.free[e], index, true)));
                self.completions.push(Reverse((end, index, false)));
            }
        }
        let done = self.completions.peek().map(|Reverse((time, ..))| *time);
        Ok(next.into_iter().chain(done).min())
    }

    /// The last cycle so far.
    pub(crate) fn end(&self) -> u64 {
        self.done.into_iter().max().unwrap_or(self.origin)
    }

    /// What must hold when nothing can move any more.
    pub(crate) fn settle(&self) -> Result<(), SimError> {
        let heads: Vec<Waiting> = Engine::ALL
            .into_iter()
            .filter_map(|engine| {
                let index = *self.queues[engine as usize].front()?;
                let Line { tokens: t, inst } = self.entries[index].line;
                let missing = t.waits.iter().filter(|from| self.tokens[*from as usize][engine as usize] == 0).collect();
                Some(Waiting { index: index as u32, kind: inst.kind(), missing })
            })
            .collect();
        if !heads.is_empty() {
            return Err(SimError::Deadlock { heads });
        }
        for (from, to) in Engine::ALL.into_iter().flat_map(|a| Engine::ALL.map(|b| (a, b))) {
            let (count, expected) = (self.tokens[from as usize][to as usize], u32::from(from == to));
            if count != expected {
                return Err(SimError::Leftover { from, to, count, expected });
            }
        }
        Ok(())
    }
}

/// Runs one job; the events come in program order. Without memory only time passes: no values are moved or computed.
pub(crate) fn run<P: Products>(
    machine: &mut Machine<'_, P>,
    costs: &Costs,
    code: &[u8],
    mut memory: Option<&mut Memory<'_>>,
) -> Result<Vec<Event>, SimError> {
    machine.reset();
    let entries = fetch(machine.target().isa, code)?;
    let mut core = Core::new(&entries, 0);
    let mut ddr = Ddr::default();
    let mut events: Vec<Option<Event>> = vec![None; entries.len()];
    let mut now = Some(0);
    while let Some(time) = now {
        let work = |index: usize| {
            let inst = &entries[index].line.inst;
            let work = match &mut memory {
                Some(memory) => machine.execute(inst, memory),
                None => machine.cost(inst),
            };
            fault_at(&entries, index, work)
        };
        now = core.advance(time, costs, &mut ddr, work, |e| events[e.index as usize] = Some(e))?;
    }
    core.settle()?;
    let end = events.last().and_then(|e| e.as_ref()).map_or(0, |e| e.end);
    if let Some(late) = events.iter().flatten().find(|e| e.end > end) {
        return Err(SimError::EarlyEnd { index: late.index, kind: late.kind });
    }
    Ok(events.into_iter().flatten().collect())
}

/// A job's instructions and what they cost.
pub(crate) struct Decoded {
    entries: Vec<Entry>,
    work: Vec<Work>,
}

impl Decoded {
    pub(crate) fn new(machine: &mut Machine<'_>, code: &[u8]) -> Result<Self, SimError> {
        let entries = fetch(machine.target().isa, code)?;
        let work = work(machine, &entries)?;
        Ok(Self { entries, work })
    }
}

/// What is done in one frame of these jobs.
pub(crate) fn totals(jobs: &[Decoded]) -> crate::Totals {
    let mut sum = crate::Totals { jobs: jobs.len() as u64, ..crate::Totals::default() };
    for (entry, work) in jobs.iter().flat_map(|job| job.entries.iter().zip(&job.work)) {
        match entry.line.inst {
            Inst::Load(l) if l.reg_id == Region::Constants as u32 => sum.bytes_constants += work.bytes_in,
            Inst::Conv(_) => sum.conv_steps += work.steps,
            Inst::Load(_) | Inst::Save(_) | Inst::End(_) => {}
            Inst::Alu(_) | Inst::Elew(_) | Inst::Pool(_) | Inst::DptWise(_) => sum.misc_steps += work.steps,
            Inst::ConvInit(_) | Inst::AluInit(_) | Inst::ElewInit(_) | Inst::PoolInit(_) | Inst::DwInit(_) => {}
        }
        sum.computations += u64::from(computes(work.kind));
        sum.bytes_in += work.bytes_in;
        sum.bytes_out += work.bytes_out;
    }
    sum
}

/// Cycles per frame and core when `cores` cores run these jobs, one after the other, again and again, on one memory.
///
/// `gap`: cycles between an END and the next job's start. Cores start spread over a frame of `alone` cycles, so that they
/// don't all stream weights at once; the first frame of each is not counted.
pub(crate) fn share(
    jobs: &[Decoded],
    costs: &Costs,
    gap: u64,
    ddr: &mut Ddr,
    cores: u32,
    alone: u64,
) -> Result<f64, SimError> {
    const FRAMES: usize = 3;
    struct Running<'e> {
        core: Core<'e>,
        job: usize,
        ends: Vec<u64>,
    }
    if jobs.is_empty() || cores == 0 {
        return Ok(0.0);
    }
    let mut running: Vec<Running<'_>> = (0..u64::from(cores))
        .map(|k| {
            let start = k * alone / u64::from(cores);
            Running { core: Core::new(&jobs[0].entries, start), job: 0, ends: vec![start] }
        })
        .collect();
    let mut queue: BinaryHeap<Reverse<(u64, usize)>> =
        running.iter().enumerate().map(|(k, r)| Reverse((r.core.origin, k))).collect();
    // Every core goes on until all have counted enough, so that the load stays the same.
    while running.iter().any(|r| r.ends.len() <= FRAMES) {
        let Some(Reverse((now, k))) = queue.pop() else { break };
        let r = &mut running[k];
        let next = r.core.advance(now, costs, ddr, |i| Ok(jobs[r.job].work[i]), |_| {})?;
        if let Some(next) = next {
            queue.push(Reverse((next, k)));
            continue;
        }
        r.core.settle()?;
        let end = r.core.end();
        r.job += 1;
        if r.job == jobs.len() {
            r.job = 0;
            r.ends.push(end + gap);
        }
        let start = end + gap;
        r.core = Core::new(&jobs[r.job].entries, start);
        queue.push(Reverse((start, k)));
    }
    let cycles: f64 = running.iter().map(|r| (r.ends[FRAMES] - r.ends[1]) as f64).sum();
    Ok(cycles / f64::from(cores) / (FRAMES - 1) as f64)
}
