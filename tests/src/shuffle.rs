//! A DPU whose engines take turns at random: only tokens order them.

use std::collections::VecDeque;

use shiftwise_core::exec::{Fault, Machine};
use shiftwise_core::isa::codec::program;
use shiftwise_core::isa::{Engine, Kind, Line};
use shiftwise_core::model::DpuJob;
use shiftwise_core::run::{Dpu, Memory};

use crate::graphs::Rng;

/// Wraps a machine. At each turn a random one of the engines whose next instruction has its tokens executes it.
#[derive(Debug)]
pub struct Shuffled<'a, 'b> {
    /// What executes instructions.
    pub machine: &'b mut Machine<'a>,
    /// Turns.
    pub rng: Rng,
    /// How much more often an engine is chosen than its rank says: 1 to 1000 for each.
    pub weights: [i64; 4],
}

/// Why a program stops before its end.
#[derive(Debug)]
pub enum ShuffleError {
    /// No engine's next instruction has its tokens; the numbers of instructions left.
    Deadlock([usize; 4]),
    /// END came with instructions left.
    Early([usize; 4]),
    /// Counters at END, row: from engine.
    Unbalanced([[i64; 4]; 4]),
    /// An instruction failed.
    Fault(usize, Fault),
}

impl Dpu for Shuffled<'_, '_> {
    type Error = ShuffleError;

    fn run(&mut self, _: &DpuJob<'_>, code: &[u8], memory: &mut Memory<'_>) -> Result<(), ShuffleError> {
        self.machine.reset();
        let mut queues: [VecDeque<(usize, Line)>; 4] = Default::default();
        for (index, (_, line)) in program(self.machine.target().isa, code).enumerate() {
            let line = line.map_err(|e| ShuffleError::Fault(index, Fault::Decode(e)))?;
            queues[line.inst.engine() as usize].push_back((index, line));
        }
        let mut tokens = [[0i64; 4]; 4];
        (0..4).for_each(|e| tokens[e][e] = 1);
        loop {
            let ready = |e: &usize| {
                queues[*e].front().is_some_and(|(_, l)| l.tokens.waits.iter().all(|a| tokens[a as usize][*e] > 0))
            };
            let ready: Vec<usize> = (0..4).filter(ready).collect();
            let left = [0, 1, 2, 3].map(|e| queues[e].len());
            if ready.is_empty() {
                return Err(ShuffleError::Deadlock(left));
            }
            let total = ready.iter().map(|e| self.weights[*e]).sum();
            let mut at = self.rng.range(1, total);
            let chosen = ready.into_iter().find(|e| {
                at -= self.weights[*e];
                at <= 0
            });
            let me = chosen.unwrap_or(Engine::Save as usize);
            let Some((index, line)) = queues[me].pop_front() else { return Err(ShuffleError::Deadlock(left)) };
            line.tokens.waits.iter().for_each(|a| tokens[a as usize][me] -= 1);
            self.machine.execute(&line.inst, memory).map_err(|f| ShuffleError::Fault(index, f))?;
            line.tokens.signals.iter().for_each(|b| tokens[me][b as usize] += 1);
            if line.inst.kind() == Kind::End {
                let left = [0, 1, 2, 3].map(|e| queues[e].len());
                if left != [0; 4] {
                    return Err(ShuffleError::Early(left));
                }
                let begun = (0..4).all(|a| (0..4).all(|b| tokens[a][b] == i64::from(a == b)));
                return if begun { Ok(()) } else { Err(ShuffleError::Unbalanced(tokens)) };
            }
        }
    }
}
