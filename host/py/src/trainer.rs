//! Steps of training, one call each: Python has the loop, the data and the callbacks.

use std::sync::{Mutex, MutexGuard, PoisonError};

use numpy::PyReadonlyArrayDyn;
use pyo3::prelude::*;
use shiftwise::Error;
use shiftwise_tensor::tensor::Tensor;
use shiftwise_train::loss::{LOSSES, Labels, Loss, Target};
use shiftwise_train::optim::{OPTIMIZERS, Optimizer, Settings};
use shiftwise_train::trainer::{Goal, Options, Trainer as Own};

use crate::error::{Raised, work};
use crate::model::{Kind, Model};
use crate::samples::{array, tensor, tensors};

/// A network in training.
#[pyclass(frozen, module = "shiftwise._native")]
#[derive(Debug)]
pub(crate) struct Trainer {
    own: Mutex<Own>,
    labels: Vec<Option<Labels>>,
    raised: Raised,
}

fn goal(name: Option<&str>, weight: f64) -> Result<Option<Goal>, Error> {
    let Some(name) = name else { return Ok(None) };
    let known = || LOSSES.iter().map(|own| own.name).collect::<Vec<_>>().join(", ");
    let loss = Loss::find(name);
    let loss = loss.ok_or_else(|| Error::Options(format!("the loss is {name}; one of {} is expected", known())))?;
    Ok(Some(Goal { loss, weight }))
}

fn positive(name: &str, value: f64) -> Result<f64, Error> {
    match value.is_finite() && value >= 0.0 {
        true => Ok(value),
        false => Err(Error::Options(format!("`{name}` is {value}, a number from 0 is expected"))),
    }
}

impl Trainer {
    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a Python function says of an output.
    fn judged(&self, judge: &Py<PyAny>, k: usize, output: &Tensor) -> Result<Option<(f64, Tensor)>, Error> {
        let answer = Python::attach(|py| {
            py.check_signals()?;
            let answer = judge.call1(py, (k, array(py, output.clone())?))?;
            let answer: Option<(f64, Bound<'_, PyAny>)> = answer.extract(py)?;
            answer.map(|(loss, gradient)| Ok((loss, tensor(&gradient)?))).transpose()
        });
        answer.map_err(|e| self.raised.keep(e))
    }

    /// Labels as the losses of the outputs take them.
    fn targets(&self, labels: &Bound<'_, PyAny>) -> PyResult<Vec<Option<Target>>> {
        let mut given = labels.try_iter()?;
        let mut targets = Vec::with_capacity(self.labels.len());
        for kind in &self.labels {
            targets.push(match (kind, given.next().transpose()?) {
                (Some(Labels::Classes), Some(array)) => {
                    let array: PyReadonlyArrayDyn<'_, i64> = array.extract()?;
                    Some(Target::Classes(array.as_array().iter().copied().collect()))
                }
                (Some(Labels::Values), Some(array)) => Some(Target::Values(tensor(&array)?)),
                (None, _) => None,
                (Some(_), None) => {
                    let error = Error::Dataset("there are fewer arrays of labels than outputs that are trained".into());
                    return Err(crate::error::exception(labels.py(), &error));
                }
            });
        }
        Ok(targets)
    }
}

#[pymethods]
impl Trainer {
    /// A network before its first step; `losses` has one name for each output, or `None` for one that is not trained.
    #[new]
    #[pyo3(signature = (model, losses, weights, optimizer = "adam", rate = 1e-3, momentum = 0.0, weight_decay = None, threshold_rate = None, seed = 0))]
    #[allow(clippy::too_many_arguments, reason = "the settings of training")]
    fn new(
        py: Python<'_>,
        model: &Model,
        losses: Vec<Option<String>>,
        weights: Vec<f64>,
        optimizer: &str,
        rate: f64,
        momentum: f64,
        weight_decay: Option<f64>,
        threshold_rate: Option<f64>,
        seed: u64,
    ) -> PyResult<Self> {
        work(py, &model.raised, || {
            let Kind::Training(qat) = &model.kind else {
                return Err(Error::Options("only a model that is prepared for training has steps".into()));
            };
            let outputs = qat.quantized.graph.outputs.len();
            if losses.len() != outputs || weights.len() != outputs {
                return Err(Error::Options(format!(
                    "the model has {outputs} outputs, and {} losses are given",
                    losses.len()
                )));
            }
            let goals = losses.iter().zip(&weights).map(|(name, weight)| goal(name.as_deref(), *weight));
            let goals = goals.collect::<Result<Vec<_>, _>>()?;
            let known = || OPTIMIZERS.iter().map(|own| own.name).collect::<Vec<_>>().join(", ");
            let found = Optimizer::find(optimizer);
            let optimizer = found.ok_or_else(|| {
                Error::Options(format!("the optimizer is {optimizer}; one of {} is expected", known()))
            })?;
            if momentum != 0.0 && !optimizer.has_momentum {
                return Err(Error::Options(format!("`momentum` has no effect on {}", optimizer.name)));
            }
            let decay = weight_decay.map(|own| positive("weight_decay", own)).transpose()?;
            let settings = Settings {
                rate: positive("learning_rate", rate)?,
                momentum: positive("momentum", momentum)?,
                weight_decay: decay.or(optimizer.weight_decay),
            };
            let labels = goals.iter().map(|goal| goal.as_ref().map(|own| own.loss.labels)).collect();
            let correction = Default::default();
            let options = Options { optimizer, settings, threshold_rate, correction, goals, seed };
            Ok(Self { own: Mutex::new(Own::new(qat.as_ref().clone(), options)), labels, raised: model.raised.clone() })
        })
    }

    /// Makes a step on a batch; returns the loss before it. Labels are int64 classes or float32 values, one array for each
    /// output that is trained or not.
    ///
    /// `judge(k, output)` sees every output of the step; where output `k` has no loss by name, it answers with the loss and
    /// its gradient, or with `None` for an output that is not trained.
    #[pyo3(signature = (inputs, labels, judge = None))]
    fn step(
        &self,
        py: Python<'_>,
        inputs: &Bound<'_, PyAny>,
        labels: &Bound<'_, PyAny>,
        judge: Option<Py<PyAny>>,
    ) -> PyResult<f64> {
        let (inputs, targets) = (tensors(inputs)?, self.targets(labels)?);
        work(py, &self.raised, || {
            let mut own = self.own();
            fits(&own, &inputs)?;
            match &judge {
                Some(judge) => own.step_judged(inputs, &targets, &mut |k, output| self.judged(judge, k, output)),
                None => own.step(inputs, &targets),
            }
        })
    }

    /// Changes the rates of learning.
    #[pyo3(signature = (rate, threshold_rate = None))]
    fn set_rates(&self, py: Python<'_>, rate: f64, threshold_rate: Option<f64>) -> PyResult<()> {
        work(py, &self.raised, || {
            self.own().set_rates(positive("learning_rate", rate)?, threshold_rate);
            Ok(())
        })
    }

    /// Steps so far.
    #[getter]
    fn steps(&self) -> u64 {
        self.own().steps()
    }

    /// The network as it is now.
    fn model(&self, like: &Model) -> Model {
        like.with(Kind::Training(Box::new(self.own().qat().clone())))
    }
}

/// Refuses batches that are not the network's.
fn fits(own: &Own, inputs: &[Tensor]) -> Result<(), Error> {
    let graph = &own.qat().quantized.graph;
    let shapes: Vec<&[usize]> = graph.inputs.iter().map(|id| graph.node(*id).shape.as_slice()).collect();
    let seen: Vec<&[usize]> = inputs.iter().map(|x| x.shape().get(1..).unwrap_or_default()).collect();
    let batches: Vec<Option<&usize>> = inputs.iter().map(|x| x.shape().first()).collect();
    let same = batches.windows(2).all(|pair| pair[0] == pair[1]) && batches.first().is_some_and(|n| *n != Some(&0));
    match seen == shapes && same {
        true => Ok(()),
        false => Err(Error::Dataset(format!("the batch has samples of shapes {seen:?}, {shapes:?} are expected"))),
    }
}
