//! What a caller decides about a program for a DPU.

/// How [`compile`](super::compile) lays a network out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DpuOptions {
    /// Keep every tensor of a job in memory to the job's end, so that all of them can be compared. Default. Otherwise
    /// memory is used again after the last reader, and only what later steps read can be seen.
    pub observe: bool,
    /// An op that the DPU can't do is an error instead of a CPU step.
    pub strict: bool,
    /// One LOAD for all output channels of a lane, where rows of weights fill whole bank addresses. Default off: vendor
    /// programs have one LOAD per output channel (DEC), and no sample shows that the hardware takes more (INF).
    pub gather_weights: bool,
    /// The program is for timing alone: an op that the CPU has no kernel for gets no step instead of being an error.
    pub timing_only: bool,
}

impl Default for DpuOptions {
    fn default() -> Self {
        Self { observe: true, strict: false, gather_weights: false, timing_only: false }
    }
}
