//! The deployable's own samples, run in slices small enough for a start-up that feeds a watchdog.

use shiftwise_core::model::{Deployable, TensorDesc, TensorId};
use shiftwise_core::run::{Dpu, Observer, RunError, step_with};

use crate::error::{Error, Mismatch};
use crate::kernels::Fast;
use crate::network::Network;

/// How far a self-test is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do.
    Running,
    /// All samples gave the outputs that the deployable says.
    Passed,
}

/// What stops a self-test.
pub(crate) enum Stop<E> {
    /// A step failed.
    Run(RunError<E>),
    /// Anything else.
    Other(Error),
}

/// Runs the self-test samples of a deployable, a layer at a time. It is bound to no network: use it with one only, and
/// run nothing else on that network until it is over.
#[derive(Clone, Debug, Default)]
pub struct SelfTest {
    sample: u16,
    /// Steps of this sample that have run.
    done: u16,
}

impl SelfTest {
    /// At the first step of the first sample.
    pub const fn new() -> Self {
        Self { sample: 0, done: 0 }
    }

    /// Runs one step of the network; before a sample's first it fills the inputs, after its last it compares the outputs.
    ///
    /// `observer` sees what it would see in a run: a [`Monitor`](shiftwise_core::monitor::Monitor) here learns what to
    /// expect of good data. Errors: [`Error::NoSelfTest`], [`Error::SelfTest`] with the first wrong byte, or those of the
    /// run; then a next call begins again.
    pub fn step<D: Dpu>(
        &mut self,
        network: &mut Network<'_, D>,
        observer: &mut impl Observer,
    ) -> Result<Progress, Error> {
        self.try_step(network, observer).map_err(|stop| match stop {
            Stop::Run(error) => error.into(),
            Stop::Other(error) => error,
        })
    }

    /// [`Self::step`] with the device's own error.
    pub(crate) fn try_step<D: Dpu>(
        &mut self,
        network: &mut Network<'_, D>,
        observer: &mut impl Observer,
    ) -> Result<Progress, Stop<D::Error>> {
        let result = self.advance(network, observer);
        if !matches!(result, Ok(Progress::Running)) {
            *self = Self::new();
        }
        result
    }

    fn advance<D: Dpu>(
        &mut self,
        network: &mut Network<'_, D>,
        observer: &mut impl Observer,
    ) -> Result<Progress, Stop<D::Error>> {
        let model = &network.deployable;
        let samples = model.facts().self_test_samples;
        if self.sample >= samples {
            return Err(Stop::Other(Error::NoSelfTest));
        }
        if self.done == 0 {
            let mut bytes = vectors(model, self.sample);
            for (id, tensor) in model.inputs() {
                let (Some(given), Some(to)) = (take(&mut bytes, &tensor), network.memory.tensor_mut(&tensor)) else {
                    return Err(Stop::Other(Error::NoSelfTest));
                };
                // As long as each other, which the compiler cannot see: a copy that checks it could panic.
                to.iter_mut().zip(given).for_each(|(to, from)| *to = *from);
                observer.tensor(id, &tensor, to);
            }
        }
        if let Some(step) = model.steps().nth(self.done.into()) {
            let mut kernels = Fast::new(network.scratch);
            let (dpu, memory) = (&mut network.dpu, &mut network.memory);
            step_with(model, (self.done, &step), dpu, &mut kernels, memory, observer).map_err(Stop::Run)?;
            self.done = self.done.saturating_add(1);
        }
        if self.done < model.step_count() {
            return Ok(Progress::Running);
        }
        compare(network, self.sample).map_err(Stop::Other)?;
        *self = Self { sample: self.sample.saturating_add(1), done: 0 };
        Ok(if self.sample < samples { Progress::Running } else { Progress::Passed })
    }

    /// All steps at once.
    pub fn run<D: Dpu>(network: &mut Network<'_, D>, observer: &mut impl Observer) -> Result<(), Error> {
        let mut test = Self::new();
        while test.step(network, observer)? == Progress::Running {}
        Ok(())
    }
}

/// The bytes of one sample: inputs, then outputs.
fn vectors<'a>(model: &Deployable<'a>, sample: u16) -> &'a [u8] {
    let bytes = |tensors: &mut dyn Iterator<Item = (TensorId, TensorDesc<'a>)>| -> usize {
        tensors.map(|(_, tensor)| tensor.bytes() as usize).sum()
    };
    let each = bytes(&mut model.inputs()) + bytes(&mut model.outputs());
    model.self_test().get(each * usize::from(sample)..).unwrap_or(&[])
}

/// The next tensor's bytes.
fn take<'a>(bytes: &mut &'a [u8], tensor: &TensorDesc<'_>) -> Option<&'a [u8]> {
    let (part, rest) = bytes.split_at_checked(tensor.bytes() as usize)?;
    *bytes = rest;
    Some(part)
}

fn compare<D: Dpu>(network: &Network<'_, D>, sample: u16) -> Result<(), Error> {
    let model = &network.deployable;
    let mut bytes = vectors(model, sample);
    for (_, tensor) in model.inputs() {
        take(&mut bytes, &tensor);
    }
    for (output, (_, tensor)) in (0u8..).zip(model.outputs()) {
        let (Some(wanted), Some(found)) = (take(&mut bytes, &tensor), network.memory.tensor(&tensor)) else {
            return Err(Error::NoSelfTest);
        };
        let pairs = wanted.iter().zip(found);
        if let Some((byte, (wanted, found))) = (0u32..).zip(pairs).find(|(_, (wanted, found))| wanted != found) {
            return Err(Error::SelfTest(Mismatch { sample, output, byte, wanted: *wanted, found: *found }));
        }
    }
    Ok(())
}
