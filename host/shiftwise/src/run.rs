//! Running deployables on this machine and collecting what they compute.
//!
//! A run is bounded before it starts: memory by the file's budget here, time by [`crate::cost`].

use shiftwise_core::exec::{ExecError, Machine};
use shiftwise_core::isa::{Line, codec};
use shiftwise_core::model::{DType, Deployable, Region, Step, TensorDesc, TensorId};
use shiftwise_core::run::{self, Dpu, Memory, NoDpu, Observer, RunError};
use shiftwise_core::target::Target;
use shiftwise_graph::budget::{Budget, Exceeded, filled};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;
use shiftwise_sim::{HostProducts, SimDpu, SimError};

use crate::device;
use crate::device::Device;
use crate::dump::{DumpTensor, Values};
use crate::text;

/// Every tensor of one run, in the order in which they were completed.
#[derive(Debug, Default)]
pub struct Tensors(pub Vec<(TensorId, Vec<u8>)>);

/// Keeps the tensors of a run as long as the file's budget lasts: tensors may share memory, so that their copies take any
/// multiple of it.
struct Keep {
    tensors: Tensors,
    budget: Budget,
    failed: Option<Exceeded>,
}

impl Observer for Keep {
    fn tensor(&mut self, id: TensorId, _: &TensorDesc<'_>, bytes: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        match self.budget.vec(bytes.len()) {
            Ok(mut copy) => {
                copy.extend_from_slice(bytes);
                self.tensors.0.push((id, copy));
            }
            Err(e) => self.failed = Some(e),
        }
    }
}

/// Frames that may run at the same time, so that what all of them take together is what the file may take.
pub fn together(model: &Deployable<'_>) -> usize {
    let all = [Region::Workspace, Region::Inputs, Region::Outputs].map(|r| model.region_bytes(r) as u64);
    let budget = Budget::for_file(model.file_bytes());
    // Half of it is for the copies of tensors.
    (budget.left() / 2 / all.iter().sum::<u64>().max(1)).clamp(1, 1 << 16) as usize
}

/// The checked deployable of a file's bytes; `path` only appears in messages.
///
/// Errors: [`Error::Format`].
pub fn parse<'a>(path: &std::path::Path, bytes: &'a [u8]) -> Result<Deployable<'a>, Error> {
    Deployable::parse(bytes).map_err(|e| Error::format(path, e.to_string()))
}

/// The target that a deployable was compiled for; `None` for the CPU.
///
/// Errors: [`Error::Target`] for one that is not known.
pub fn target_of(model: &Deployable<'_>) -> Result<Option<Target>, Error> {
    if model.fingerprint() == 0 { Ok(None) } else { device::named_target(model.facts().target).map(Some) }
}

/// Names and shapes of a deployable's inputs. The user's input has the name of the layer that the tensor came from.
pub fn inputs(model: &Deployable<'_>) -> Vec<(String, Vec<usize>)> {
    let of = |(_, t): (TensorId, TensorDesc<'_>)| {
        let name = t.name.strip_prefix("quant_").unwrap_or(t.name).to_owned();
        (name, t.shape.dims().iter().map(|d| *d as usize).collect())
    };
    model.inputs().map(of).collect()
}

/// Sample `index` as the bytes of every input tensor: int8 scaled, rounded half up and then saturated, or little-endian
/// floats.
///
/// Errors: those of the data.
pub fn input_bytes(model: &Deployable<'_>, samples: &dyn Samples, index: usize) -> Result<Vec<Vec<u8>>, Error> {
    let batch = samples.batch(index, 1)?;
    let bytes = |((_, t), x): ((TensorId, TensorDesc<'_>), &shiftwise_tensor::tensor::Tensor)| {
        x.data().iter().flat_map(|x| t.element(*x).into_iter().take(t.dtype.bytes() as usize)).collect()
    };
    Ok(model.inputs().zip(&batch).map(bytes).collect())
}

/// Runs one frame on the simulator, or on the CPU kernels when the deployable has no DPU code.
///
/// Errors: [`Error::Run`], with the layer where it is known.
pub fn frame(model: &Deployable<'_>, sim: Option<&mut SimDpu>, inputs: &[Vec<u8>]) -> Result<Tensors, Error> {
    match sim {
        Some(sim) => frame_on(model, sim, inputs, SimError::index),
        None => frame_on(model, &mut NoDpu, inputs, |_| None),
    }
}

/// Runs one frame in program order, without tokens and time.
///
/// Errors: [`Error::Run`]; [`Error::Target`] for one wider than the machine.
pub fn functional(model: &Deployable<'_>, target: &Target, inputs: &[Vec<u8>]) -> Result<Tensors, Error> {
    let mut banks = vec![0; target.bank_bytes()];
    let machine = Machine::new(target, &mut banks);
    let machine = machine.ok_or_else(|| Error::Target(format!("{} is wider than the machine handles", target.name)))?;
    let mut machine = machine.with(HostProducts::detect());
    frame_on(model, &mut machine, inputs, |e: &ExecError| Some(e.index))
}

/// `index` is the instruction that an error of the device is about.
fn frame_on<D: Dpu>(
    model: &Deployable<'_>,
    dpu: &mut D,
    inputs: &[Vec<u8>],
    index: impl Fn(&D::Error) -> Option<u32>,
) -> Result<Tensors, Error>
where
    RunError<D::Error>: std::fmt::Display,
{
    let budget = Budget::for_file(model.file_bytes());
    let fail = |e: Exceeded| Error::Run(format!("one sample: {e}"));
    let region =
        |r| budget.bytes(model.region_bytes(r) as u64).and_then(|()| filled(model.region_bytes(r), 0u8)).map_err(fail);
    let (mut workspace, mut input, mut output) =
        (region(Region::Workspace)?, region(Region::Inputs)?, region(Region::Outputs)?);
    let mut memory =
        Memory { constants: model.constants(), workspace: &mut workspace, inputs: &mut input, outputs: &mut output };
    for ((_, t), bytes) in model.inputs().zip(inputs) {
        let place = memory.tensor_mut(&t).filter(|p| p.len() == bytes.len());
        let place = place.ok_or_else(|| Error::Run(format!("input `{}` takes {} bytes", t.name, t.bytes())))?;
        place.copy_from_slice(bytes);
    }
    let mut keep = Keep { tensors: Tensors::default(), budget: budget.clone(), failed: None };
    run::run(model, dpu, &mut memory, &mut keep).map_err(|e| {
        let layer = match &e {
            RunError::Dpu { step, error } => index(error).and_then(|i| layer_of(model, *step, i)),
            _ => None,
        };
        Error::Run(layer.map_or_else(|| e.to_string(), |layer| format!("layer {layer}: {e}")))
    })?;
    keep.failed.map_or(Ok(keep.tensors), |e| Err(fail(e)))
}

/// Whether the tokens of every job order all that touches the same memory.
///
/// Errors: the first race, with its layers.
pub fn check_order(model: &Deployable<'_>, target: &Target) -> Result<(), Error> {
    let sizes = [Region::Constants, Region::Workspace, Region::Inputs, Region::Outputs].map(|r| match r {
        Region::Constants => 0,
        other => model.region_bytes(other),
    });
    for (step, job) in (0u16..).zip(model.steps()) {
        let Step::Dpu(job) = job else { continue };
        let lines: Vec<Line> = codec::program(target.isa, model.job_code(&job)).map_while(|(_, l)| l.ok()).collect();
        shiftwise_sim::check_order(target, &lines, &sizes).map_err(|race| {
            let layer = |index: u32| layer_of(model, step, index).unwrap_or("?");
            let (first, second) = (layer(race.first.0), layer(race.second.0));
            let layers = if first == second { first.to_owned() } else { format!("{first} and {second}") };
            Error::Run(format!("layer {layers}: step {step}: {race}"))
        })?;
    }
    Ok(())
}

/// The layer of an instruction.
fn layer_of<'a>(model: &Deployable<'a>, step: u16, index: u32) -> Option<&'a str> {
    model.layers().find(|l| l.step == step && index.wrapping_sub(l.first) < l.count).map(|l| l.layer)
}

/// A tensor's bytes as dump values.
pub fn values(t: &TensorDesc<'_>, bytes: &[u8]) -> Values {
    match t.dtype {
        DType::I8 => Values::Int8(bytes.iter().map(|b| *b as i8).collect()),
        DType::F32 => Values::Float(floats(bytes)),
        DType::Scaled(scale) if scale.is_wide() => {
            Values::Int32(bytes.as_chunks::<2>().0.iter().map(|b| i16::from_le_bytes(*b).into()).collect())
        }
        DType::Scaled(_) => Values::Int8(bytes.iter().map(|b| *b as i8).collect()),
    }
}

/// A tensor's bytes as real values.
pub fn reals(t: &TensorDesc<'_>, bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(t.dtype.bytes() as usize).map(|element| t.value(element)).collect()
}

/// A tensor's values as text: integers as they are, floats so that no two differ in bits only.
pub fn texts(t: &TensorDesc<'_>, bytes: &[u8]) -> Vec<String> {
    match values(t, bytes) {
        Values::Int8(q) => q.iter().map(ToString::to_string).collect(),
        Values::Int16(q) => q.iter().map(ToString::to_string).collect(),
        Values::Int32(q) => q.iter().map(ToString::to_string).collect(),
        Values::Float(x) => x.iter().map(|x| format!("{x:?} ({:#010x})", x.to_bits())).collect(),
    }
}

/// The index of a tensor's element along each dimension.
pub fn index(t: &TensorDesc<'_>, element: usize) -> Vec<usize> {
    let mut rest = element;
    let mut index: Vec<usize> = Vec::new();
    for size in t.shape.dims().iter().rev().map(|size| (*size as usize).max(1)) {
        index.insert(0, rest % size);
        rest /= size;
    }
    index
}

/// Little-endian floats.
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// Tensors of several samples as a dump: each tensor's samples one after the other.
pub fn to_dump(model: &Deployable<'_>, samples: &[Tensors]) -> Vec<DumpTensor> {
    let mut all: Vec<DumpTensor> = Vec::new();
    for sample in samples {
        for (id, bytes) in &sample.0 {
            let Some(t) = model.tensor(*id) else { continue };
            let values = values(&t, bytes);
            match all.iter_mut().find(|d| d.name == t.name) {
                // One tensor has one type.
                Some(tensor) => drop(tensor.values.append(values)),
                None => all.push(DumpTensor { name: t.name.into(), values }),
            }
        }
    }
    all
}

/// An explanation's lines, in which the layer's name makes none.
pub fn explanation(mut explained: shiftwise_sim::Explanation) -> String {
    explained.layer = text::name(&explained.layer);
    explained.to_string()
}

/// The instructions, accumulator and shift that made one element; `None` if the CPU did.
///
/// Errors: [`Error::Run`].
pub fn explain(
    model: &Deployable<'_>,
    device: &Device,
    inputs: &[Vec<u8>],
    id: TensorId,
    index: usize,
) -> Result<Option<String>, Error> {
    let mut region = vec![0u8; model.region_bytes(Region::Inputs)];
    for ((_, t), bytes) in model.inputs().zip(inputs) {
        let at = t.place.offset as usize;
        if let Some(place) = region.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
    let explained = shiftwise_sim::explain(model, &device.target, &region, id, index as u32);
    explained.map(|e| e.map(explanation)).map_err(|e| Error::Run(e.to_string()))
}
