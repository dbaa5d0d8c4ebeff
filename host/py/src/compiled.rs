//! Compiled networks and their simulation.

use std::path::{Path, PathBuf};

use numpy::PyArrayDyn;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use shiftwise::build::{Compiled, OnCpu, check_grids, program};
use shiftwise::device::{Device, clock, find_board};
use shiftwise::dump::{self, Dump};
use shiftwise::estimate::Times;
use shiftwise::memory::Memory;
use shiftwise::simulate::{Simulated, simulate};
use shiftwise::{Error, cost, listing, outputs, run};
use shiftwise_compile::DpuOptions;
use shiftwise_compile::place;
use shiftwise_formats::write_file;
use shiftwise_graph::eval::Samples;
use shiftwise_integer::lower;
use shiftwise_tensor::tensor::Tensor;

use crate::commands::device;
use crate::error::{Raised, json, work};
use crate::model::Model;
use crate::samples::{array, fetched};

/// A compiled network: the bytes of its file.
#[pyclass(frozen, module = "shiftwise._native")]
#[derive(Debug)]
pub(crate) struct Deployable {
    bytes: Vec<u8>,
    name: PathBuf,
}

/// Samples of a Python dataset for a program, whose inputs are told by the program.
#[derive(Debug)]
struct Fed {
    object: Py<PyAny>,
    len: usize,
    inputs: Vec<(String, Vec<usize>)>,
    raised: Raised,
}

impl Samples for Fed {
    fn len(&self) -> usize {
        self.len
    }

    fn batch(&self, start: usize, count: usize) -> Result<Vec<Tensor>, Error> {
        let batch = fetched(&self.object, start, count, &self.raised)?;
        let fits = |(tensor, (_, shape)): (&Tensor, &(String, Vec<usize>))| {
            tensor.shape() == [&[count], shape.as_slice()].concat() && tensor.data().iter().all(|v| v.is_finite())
        };
        match batch.len() == self.inputs.len() && batch.iter().zip(&self.inputs).all(fits) {
            true => Ok(batch),
            false => {
                let shapes = self.inputs.iter().map(|(name, shape)| format!("`{name}` {shape:?}")).collect::<Vec<_>>();
                let text = format!(
                    "the data does not fit the inputs {}, or has values that are not finite",
                    shapes.join(", ")
                );
                Err(Error::Dataset(text))
            }
        }
    }
}

/// Compiles a quantized network. Returns the program and a report as JSON; with `strict`, layers on the CPU are an error.
#[pyfunction]
#[pyo3(signature = (model, target = None, board = None, strict = false, fast = false))]
pub(crate) fn compile(
    py: Python<'_>,
    model: &Model,
    target: Option<&str>,
    board: Option<&str>,
    strict: bool,
    fast: bool,
) -> PyResult<(Deployable, String)> {
    work(py, &model.raised, || {
        let quantized = model.quantized()?;
        let device = device(target, board)?;
        check_grids(&quantized)?;
        let graph = lower::lower(&quantized)?;
        if let Some(device) = device.as_ref().filter(|_| strict) {
            let placement = place(&graph, &device.target, &DpuOptions::default())?;
            if let Some(first) = shiftwise::reports::Fallback::all(&placement).first() {
                let text =
                    format!("{} does not run all: layer `{}`: {}", device.target.name, first.layer, first.reason);
                return Err(Error::Compile(text));
            }
        }
        let mut program = program(&graph, device.as_ref(), strict, !fast)?;
        program.metadata = quantized.metadata.to_text();
        let bytes = program.to_bytes(&[])?;
        let name = PathBuf::from(format!("{}.swm", graph.name));
        let parsed = run::parse(&name, &bytes)?;
        let fault = |why| Error::Compile(format!("the deployable does not say what was compiled: {why}"));
        program.check(&parsed).map_err(fault)?;
        let times = device.as_ref().map(|d| Times::of(&parsed, d)).transpose()?;
        let board = board.filter(|_| device.is_none()).map(find_board).transpose()?;
        let on_cpu = times.is_none().then(|| OnCpu::of(&program, &parsed, board.as_ref()));
        let report = Compiled {
            output: PathBuf::new(),
            target: program.target.to_string(),
            memory: Memory::of(&program),
            footprint: on_cpu.as_ref().map(|c| c.report(&program)),
            speed: times.as_ref().map(|t| t.speed),
            cycles: times.map(|t| t.report),
            layers: program.layers,
            averages: Vec::new(),
        };
        let report = json(&report)?;
        Ok((Deployable { bytes, name }, report))
    })
}

#[pymethods]
impl Deployable {
    /// A program out of its file's bytes.
    #[new]
    fn new(py: Python<'_>, name: PathBuf, data: PyBackedBytes) -> PyResult<Self> {
        work(py, &Raised::default(), || {
            run::parse(&name, &data)?;
            Ok(Self { bytes: data.to_vec(), name })
        })
    }

    /// The file's bytes.
    fn bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.bytes)
    }

    /// Name and shape of every input, without the batch.
    #[getter]
    fn inputs(&self, py: Python<'_>) -> PyResult<Vec<(String, Vec<usize>)>> {
        work(py, &Raised::default(), || Ok(run::inputs(&run::parse(&self.name, &self.bytes)?)))
    }

    /// The target's name; `cpu` without a DPU.
    #[getter]
    fn target(&self, py: Python<'_>) -> PyResult<String> {
        work(py, &Raised::default(), || Ok(run::parse(&self.name, &self.bytes)?.facts().target.to_owned()))
    }

    /// The program's listing.
    fn listing(&self, py: Python<'_>) -> PyResult<String> {
        work(py, &Raised::default(), || listing::listing(&run::parse(&self.name, &self.bytes)?))
    }

    /// Runs the first samples in the simulator, or on the kernels of boards without a DPU. Returns the outputs and the
    /// cycles as JSON; `dump_dir` is where every tensor is written.
    #[pyo3(signature = (data, samples = 1, functional = false, clock = None, trace = None, dump_dir = None))]
    #[allow(clippy::too_many_arguments, reason = "the flags of the command")]
    fn simulate<'py>(
        &self,
        py: Python<'py>,
        data: &Bound<'py, PyAny>,
        samples: usize,
        functional: bool,
        clock: Option<&str>,
        trace: Option<PathBuf>,
        dump_dir: Option<PathBuf>,
    ) -> PyResult<(Vec<Bound<'py, PyArrayDyn<f32>>>, String)> {
        let raised = Raised::default();
        let fed =
            Fed { object: data.clone().unbind(), len: data.len()?, inputs: self.inputs(py)?, raised: raised.clone() };
        let (outputs, cycles) = work(py, &raised, || {
            let model = run::parse(&self.name, &self.bytes)?;
            let clock = clock.map(self::clock).transpose().map_err(Error::Options)?;
            let device = run::target_of(&model)?.map(|target| Device::new(target, clock));
            if let Some(device) = device.as_ref().filter(|_| !functional) {
                run::check_order(&model, &device.target)?;
            }
            cost::deployable(&model, device.as_ref().map(|d| &d.target))?;
            if fed.is_empty() {
                return Err(Error::Dataset("the data has no samples".into()));
            }
            let count = samples.clamp(1, fed.len());
            let Simulated { tensors, sim } = simulate(&model, device.as_ref(), &fed, (count, functional), &|| ())?;
            if let (Some(path), Some(sim)) = (&trace, &sim) {
                write_file(path, sim.chrome_trace(&model).as_bytes())?;
            }
            if let Some(dir) = &dump_dir {
                let all = Dump { weights: Vec::new(), activations: run::to_dump(&model, &tensors) };
                dump::write(dir, &all, true)?;
            }
            let cycles = sim.as_ref().map(|sim| sim.report(&model));
            let floats: Vec<Vec<Vec<f32>>> = tensors.iter().map(|sample| outputs::floats(&model, sample)).collect();
            let own = shiftwise::predict::Subject::Deployable(&model).outputs();
            let of = |(k, output): (usize, shiftwise::predict::Output)| {
                let data = floats.iter().filter_map(|sample| sample.get(k)).flatten().copied().collect();
                Tensor::new([&[count], output.shape.as_slice()].concat(), data)
                    .ok_or_else(|| Error::Run(format!("output `{}` is incomplete", output.name)))
            };
            let outputs = own.into_iter().enumerate().map(of).collect::<Result<Vec<_>, _>>()?;
            Ok((outputs, json(&cycles)?))
        })?;
        Ok((outputs.into_iter().map(|own| array(py, own)).collect::<PyResult<_>>()?, cycles))
    }

    /// Writes the file.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        work(py, &Raised::default(), || write_file(Path::new(&path), &self.bytes))
    }
}
