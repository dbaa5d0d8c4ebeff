//! Code that no deployable holds: programs of other compilers, job by job.

use shiftwise_core::model::{DpuJob, LayerSpan, TensorList};
use shiftwise_core::run::{Dpu, Memory};

use crate::{CycleReport, JobRun, SimDpu, SimError, report, trace};

impl SimDpu {
    /// Runs code to its END on the caller's memory, in token order. The run is recorded as a job.
    ///
    /// Errors: as a job of a deployable.
    pub fn run_code(&mut self, name: &str, code: &[u8], memory: &mut Memory<'_>) -> Result<u64, SimError> {
        let bytes = u32::try_from(code.len()).unwrap_or(u32::MAX);
        self.run(&DpuJob { name, offset: 0, bytes, outputs: TensorList(&[]) }, code, memory)?;
        Ok(self.jobs().last().map_or(0, |job| job.cycles))
    }

    /// Cycles of the recorded jobs, whose layers `spans` gives by the job's place.
    pub fn report_layers<'m>(&self, name: &str, spans: impl Fn(usize, &JobRun) -> Vec<LayerSpan<'m>>) -> CycleReport {
        report::report(self, name, spans)
    }

    /// The recorded jobs in the Chrome trace format, with layers that `spans` gives by the job's place.
    pub fn trace_layers<'m>(&self, spans: impl Fn(usize, &JobRun) -> Vec<LayerSpan<'m>>) -> String {
        trace::chrome(self.clock_mhz(), self.jobs(), spans)
    }
}
