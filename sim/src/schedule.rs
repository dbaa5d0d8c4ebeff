//! The event loop: which instruction starts when.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use shiftwise_core::exec::{ExecError, Fault, Machine};
use shiftwise_core::isa::codec::program;
use shiftwise_core::isa::{Engine, Kind, Line};
use shiftwise_core::run::Memory;

use crate::timing::Ports;
use crate::{Costs, Event, SimError, Waiting};

struct Entry {
    line: Line,
    offset: u32,
    /// Cycle at which it has been fetched.
    fetched: u64,
}

/// Decodes a job up to END, with the time each instruction arrives.
fn fetch(machine: &Machine<'_>, costs: &Costs, code: &[u8]) -> Result<Vec<Entry>, SimError> {
    let error = |index: usize, offset: usize, fault| {
        SimError::Exec(ExecError { index: index as u32, offset: offset as u32, inst: "", fault })
    };
    let isa = machine.target().isa;
    let mut entries: Vec<Entry> = Vec::new();
    for (index, (offset, line)) in program(isa, code).enumerate() {
        let line = line.map_err(|e| error(index, offset, Fault::Decode(e)))?;
        let words = offset / 4 + isa.of(line.inst.kind()).map_or(0, |l| usize::from(l.words));
        let fetched = (words as f64 * costs.fetch_word) as u64;
        entries.push(Entry { line, offset: offset as u32, fetched });
    }
    match entries.last() {
        Some(last) if last.line.inst.kind() == Kind::End => Ok(entries),
        last => Err(error(entries.len(), last.map_or(0, |e| e.offset as usize), Fault::NoEnd)),
    }
}

/// Runs one job; the events come in program order. Without memory only time passes: no values are moved or computed.
pub(crate) fn run(
    machine: &mut Machine<'_>,
    costs: &Costs,
    code: &[u8],
    mut memory: Option<&mut Memory<'_>>,
) -> Result<Vec<Event>, SimError> {
    machine.reset();
    let entries = fetch(machine, costs, code)?;
    let mut queues = [const { VecDeque::<usize>::new() }; 4];
    for (index, entry) in entries.iter().enumerate() {
        queues[entry.line.inst.engine() as usize].push_back(index);
    }
    // tokens[a][b]: signalled by a, for b to consume.
    let mut tokens = [[0u32; 4]; 4];
    Engine::ALL.into_iter().for_each(|e| tokens[e as usize][e as usize] = 1);
    let mut events: Vec<Option<Event>> = vec![None; entries.len()];
    let mut ports = Ports::default();
    // When an engine's last started instruction is done; completion is in order, so this never decreases.
    let mut done = [0u64; 4];
    let mut completions = BinaryHeap::new();
    let mut now = 0;
    loop {
        let mut next_fetch: Option<u64> = None;
        for engine in Engine::ALL {
            while let Some(&index) = queues[engine as usize].front() {
                let entry = &entries[index];
                let waits = entry.line.tokens.waits;
                if waits.iter().any(|from| tokens[from as usize][engine as usize] == 0) {
                    break;
                }
                // The compute arrays are one each: without self tokens they still take one instruction at a time.
                let array = matches!(engine, Engine::Conv | Engine::Misc);
                let ready = entry.fetched.max(if array { done[engine as usize] } else { 0 });
                if ready > now {
                    next_fetch = Some(next_fetch.map_or(ready, |n| n.min(ready)));
                    break;
                }
                queues[engine as usize].pop_front();
                waits.iter().for_each(|from| tokens[from as usize][engine as usize] -= 1);
                let kind = entry.line.inst.kind();
                let work = match &mut memory {
                    Some(memory) => machine.execute(&entry.line.inst, memory),
                    None => machine.cost(&entry.line.inst),
                };
                let work = work.map_err(|fault| {
                    let (index, offset) = (index as u32, entry.offset);
                    SimError::Exec(ExecError { index, offset, inst: kind.mnemonic(), fault })
                })?;
                let end = ports.finish(costs, &work, index as u64, now).max(done[engine as usize]);
                done[engine as usize] = end;
                events[index] = Some(Event {
                    index: index as u32,
                    kind,
                    start: now,
                    end,
                    bytes_in: work.bytes_in,
                    bytes_out: work.bytes_out,
                    macs: work.macs,
                });
                completions.push(Reverse((end, index)));
            }
        }
        let next_done = completions.peek().map(|Reverse((end, _))| *end);
        now = match (next_done, next_fetch) {
            (Some(a), Some(b)) => a.min(b),
            (Some(a), None) | (None, Some(a)) => a,
            (None, None) => break,
        };
        while let Some(&Reverse((end, index))) = completions.peek()
            && end <= now
        {
            completions.pop();
            let entry = &entries[index];
            let from = entry.line.inst.engine();
            entry.line.tokens.signals.iter().for_each(|to| tokens[from as usize][to as usize] += 1);
        }
    }
    settle(&entries, &queues, &tokens, &events)?;
    Ok(events.into_iter().flatten().collect())
}

/// What must hold when nothing can move any more.
fn settle(
    entries: &[Entry],
    queues: &[VecDeque<usize>; 4],
    tokens: &[[u32; 4]; 4],
    events: &[Option<Event>],
) -> Result<(), SimError> {
    let heads: Vec<Waiting> = Engine::ALL
        .into_iter()
        .filter_map(|engine| {
            let index = *queues[engine as usize].front()?;
            let Line { tokens: t, inst } = entries[index].line;
            let missing = t.waits.iter().filter(|from| tokens[*from as usize][engine as usize] == 0).collect();
            Some(Waiting { index: index as u32, kind: inst.kind(), missing })
        })
        .collect();
    if !heads.is_empty() {
        return Err(SimError::Deadlock { heads });
    }
    for (from, to) in Engine::ALL.into_iter().flat_map(|a| Engine::ALL.map(|b| (a, b))) {
        let (count, expected) = (tokens[from as usize][to as usize], u32::from(from == to));
        if count != expected {
            return Err(SimError::Leftover { from, to, count, expected });
        }
    }
    let end = events.last().and_then(|e| e.as_ref()).map_or(0, |e| e.end);
    match events.iter().flatten().find(|e| e.end > end) {
        Some(late) => Err(SimError::EarlyEnd { index: late.index, kind: late.kind }),
        None => Ok(()),
    }
}
