//! A vendor-compiled program on the simulated DPU, and its comparison with the graph that it came from or with a dump.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;
use shiftwise_core::model::LayerSpan;
use shiftwise_core::target::Target;
use shiftwise_formats::{self as format, LoadOptions, Model};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;
use shiftwise_graph::ops::CustomLayers;
use shiftwise_integer::engine::Engine;
use shiftwise_integer::graph::{IntGraph, IntTensor, Kind};
use shiftwise_integer::lower;
use shiftwise_sim::{CycleReport, JobRun, SimDpu};
use shiftwise_xmodel::value::Held;
use shiftwise_xmodel::{self as xmodel, Device as RunsOn, Xmodel, graph, spans};

use crate::device;
use crate::dump::{self, Dump, DumpTensor, Type, Values};
use crate::listing::{Isa, isa_of};
use crate::targets;
use crate::vendor_program::{Executed, Program};

/// What to do with a program beside running it.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Samples to run, from the first.
    pub samples: usize,
    /// Values only, in program order: no tokens, no cycles.
    pub functional: bool,
    /// Every tensor that this graph has too is compared with it.
    pub graph: Option<&'a Reference>,
    /// Every tensor that this dump has too is compared with it.
    pub golden: Option<&'a Dump>,
    /// The user's layers, for operations on the CPU.
    pub custom: &'a CustomLayers,
}

/// What came of a program's run.
#[derive(Debug)]
pub struct Ran {
    /// All tensors of all samples.
    pub dump: Dump,
    /// The results: shape with the batch in front, and values.
    pub outputs: Vec<(Vec<usize>, Vec<f32>)>,
    /// Where the cycles of the first sample went.
    pub cycles: Option<ProgramCycles>,
    /// The timeline of the first sample, for Perfetto.
    pub trace: Option<String>,
    /// The comparison with the graph.
    pub graph: Option<Compared>,
    /// The comparison with the dump.
    pub golden: Option<Compared>,
    /// Tensors that only the graph has.
    pub only_in_graph: Vec<String>,
    /// Tensors that never leave the chip.
    pub on_chip: Vec<String>,
    /// Tensors whose values were given, because nothing here can compute them.
    pub given: Vec<String>,
    /// What the file's own parts say differently of one thing.
    pub disagreements: BTreeSet<String>,
}

/// What `simulate` reports of a vendor-compiled program.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProgramSimulation {
    /// Folder of the results.
    pub output_dir: PathBuf,
    /// Samples that were run.
    pub samples: usize,
    /// Where the cycles of the first sample went; absent if only values were asked for.
    pub cycles: Option<ProgramCycles>,
    /// Tensors that the dump shows.
    pub tensors: usize,
    /// Tensors that never leave the chip.
    pub on_chip: Vec<String>,
    /// Tensors whose values were given, because nothing here can compute them.
    pub given: Vec<String>,
    /// What the file's own parts say differently of one thing.
    pub disagreements: BTreeSet<String>,
    /// The comparison with the graph.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graph: Option<Agreement>,
    /// The comparison with a dump.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub golden: Option<Agreement>,
}

/// The cycles of a vendor-compiled program.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProgramCycles {
    /// Of the whole program.
    #[serde(flatten)]
    pub report: CycleReport,
    /// Of each layer's own code, run by itself, where the file has it.
    pub layers_alone: Vec<LayerAlone>,
    /// Operations that the CPU has to compute.
    pub on_cpu: Vec<CpuOperation>,
}

/// A layer's own code, run by itself.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LayerAlone {
    /// The subgraph.
    pub subgraph: String,
    /// The layer.
    pub layer: String,
    /// Its cycles.
    pub cycles: u64,
}

/// An operation that the CPU has to compute.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CpuOperation {
    /// Its name.
    pub layer: String,
    /// Its kind.
    pub operation: String,
    /// Whether it is computed here.
    pub computed: bool,
}

/// How a program's tensors agree with others, as a report says it.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Agreement {
    /// Tensors that were compared.
    pub tensors: usize,
    /// Their values.
    pub values: u64,
    /// Tensors that differ.
    pub differing_tensors: usize,
    /// The first difference in words, and how it came about.
    pub first_difference: Option<String>,
}

impl Ran {
    /// Whether everything that was compared is equal, and the file doesn't contradict itself.
    pub fn agrees(&self) -> bool {
        let equal = |c: &Option<Compared>| c.as_ref().is_none_or(Compared::is_equal);
        self.disagreements.is_empty() && equal(&self.graph) && equal(&self.golden)
    }

    /// For reports; `output_dir` is where the caller has put the results.
    pub fn report(&self, output_dir: PathBuf, samples: usize) -> ProgramSimulation {
        ProgramSimulation {
            output_dir,
            samples,
            cycles: self.cycles.clone(),
            tensors: self.dump.activations.len(),
            on_chip: self.on_chip.clone(),
            given: self.given.clone(),
            disagreements: self.disagreements.clone(),
            graph: self.graph.as_ref().map(Compared::agreement),
            golden: self.golden.as_ref().map(Compared::agreement),
        }
    }
}

/// Names and shapes of the values that a program asks for.
pub fn inputs<'p>(program: &'p Program<'_>) -> Vec<(&'p str, &'p [usize])> {
    let ops = program.inputs.iter().map(|op| &program.model.ops[*op]);
    ops.map(|op| (op.name.as_str(), op.tensor.shape.get(1..).unwrap_or(&[]))).collect()
}

/// Those of them that are no inputs: operations that nothing here can compute, by name and kind.
pub fn given<'p>(program: &'p Program<'_>) -> Vec<(&'p str, &'p str)> {
    let ops = program.inputs.iter().map(|op| &program.model.ops[*op]);
    ops.filter(|op| !graph::is_input(op)).map(|op| (op.name.as_str(), op.kind.as_str())).collect()
}

/// Runs samples of a vendor's program. `reference_path` appears in errors only; `progress(done)` is called after every
/// sample.
///
/// Errors: those of the data, of the machine (which instruction, and why), and of operations on the CPU.
pub fn simulate(
    program: &Program<'_>,
    sim: &mut SimDpu,
    samples: &dyn Samples,
    (options, reference_path): (&Options<'_>, &Path),
    mut progress: impl FnMut(usize),
) -> Result<Ran, Error> {
    let shapes = inputs(program);
    let mut ran = Ran {
        dump: Dump::default(),
        outputs: Vec::new(),
        cycles: None,
        trace: None,
        graph: options.graph.map(|_| Compared::default()),
        golden: options.golden.map(|_| Compared::default()),
        only_in_graph: Vec::new(),
        on_chip: Vec::new(),
        given: given(program).iter().map(|(name, _)| (*name).to_owned()).collect(),
        disagreements: BTreeSet::new(),
    };
    let mut outputs: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    for index in 0..options.samples {
        let batch = samples.batch(index, 1)?;
        let parts: Vec<&[f32]> = batch.iter().map(shiftwise_tensor::tensor::Tensor::data).collect();
        let done = program.run(&parts, sim)?;
        ran.disagreements.extend(done.disagreements.iter().cloned());
        if index == 0 && !options.functional {
            ran.cycles = Some(cycles(program, sim, &done));
            ran.trace = Some(sim.trace_layers(layers_of(program)));
        }
        sim.clear();
        if let (Some(reference), Some(compared)) = (options.graph, &mut ran.graph) {
            let named: BTreeMap<String, &[f32]> =
                shapes.iter().zip(&parts).map(|((name, _), x)| (matching(name), *x)).collect();
            let values = reference.run(reference_path, &named, options.custom)?;
            let by_name = values.into_iter().map(|(name, held)| (matching(&name), (name, held))).collect();
            compared.sample(program, &done, &by_name);
            if index == 0 {
                let missing = by_name.iter().filter(|(key, _)| !compared.reached.contains(*key));
                ran.only_in_graph = missing.map(|(_, (name, _))| name.clone()).collect();
            }
        }
        if let (Some(golden), Some(compared)) = (options.golden, &mut ran.golden) {
            compared.sample(program, &done, &part(golden, program, &done, index));
        }
        for (_, name, held) in tensors(program, &done) {
            append(&mut ran.dump.activations, DumpTensor::of(&name, &held.value));
        }
        collect(program, &done, &mut outputs);
        progress(index + 1);
    }
    let batched = |shape: &[usize]| [&[options.samples], shape.get(1..).unwrap_or(&[])].concat();
    ran.outputs = outputs.into_iter().map(|(_, shape, values)| (batched(&shape), values)).collect();
    ran.on_chip = on_chip(program, &ran.dump);
    Ok(ran)
}

/// The DPU that all of a program's subgraphs are for.
///
/// Errors: a target that is not simulated (what is missing is said), subgraphs for several.
pub fn target_of(path: &Path, model: &Xmodel) -> Result<Target, Error> {
    let mut found: Option<Target> = None;
    for run in model.root.children.iter().filter(|r| r.device == RunsOn::Dpu) {
        let (name, fingerprint) = run.target();
        let fingerprint = fingerprint.ok_or_else(|| Error::format(path, format!("{} names no target", run.name)))?;
        if let Isa::Described(set) = isa_of(run)? {
            let name = name.unwrap_or(set.name);
            return Err(Error::Target(format!(
                "{} is compiled for {name} ({fingerprint:#018x}): {} code is listed by `disasm` and not simulated: {}",
                run.name,
                set.name,
                targets::missing(name)
            )));
        }
        let target = device::named_target(&format!("{fingerprint:#018x}"))?;
        if found.as_ref().is_some_and(|f| f.fingerprint != target.fingerprint) {
            return Err(Error::format(path, "its subgraphs are for several targets"));
        }
        found = Some(target);
    }
    found.ok_or_else(|| {
        Error::wrong_kind(path, "is an xmodel without code: a reference for the compiled one, which is simulated")
    })
}

/// What a program's tensors are compared with.
#[derive(Debug)]
pub enum Reference {
    /// A graph of the vendor's.
    Xmodel(Xmodel),
    /// A quantized model.
    Quantized(Box<IntGraph>),
}

impl Reference {
    /// Reads a file of either kind.
    ///
    /// Errors: those of reading; [`Error::wrong_kind`] for a float model.
    pub fn open(path: &Path, custom: &CustomLayers) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        if xmodel::is_xmodel(&bytes) {
            return xmodel::read(path, &bytes).map(Self::Xmodel);
        }
        match format::open_bytes(path, bytes, &LoadOptions { custom: custom.clone(), ..LoadOptions::default() })? {
            Model::Quantized(q) => {
                shiftwise_graph::eval::needs(&q.graph).check(1)?;
                Ok(Self::Quantized(Box::new(lower::lower(&q)?)))
            }
            Model::Float(_) => Err(Error::wrong_kind(path, "is a float model, a quantized one is expected")),
        }
    }

    /// Every tensor of one sample, in order, by name. `inputs` are floats by name.
    fn run(
        &self,
        path: &Path,
        inputs: &BTreeMap<String, &[f32]>,
        custom: &CustomLayers,
    ) -> Result<Vec<(String, Held)>, Error> {
        let input = |name: &str| {
            let found = inputs.get(&matching(name)).copied();
            found.ok_or_else(|| Error::format(path, format!("its input `{name}` is none of the program's")))
        };
        match self {
            Self::Xmodel(model) => {
                let program = graph::Program::new(model, custom)?;
                let held = program.inputs().iter().map(|op| {
                    let xop = &model.ops[*op];
                    let fail = |why: String| Error::layer(&xop.name, &xop.kind, why);
                    let x = input(&xop.name)?;
                    Ok(match xmodel::value::declared(&xop.tensor).map_err(fail)? {
                        Kind::Float | Kind::Scaled(_) => Held::float(&xop.tensor.shape, x.to_vec()),
                        Kind::Fixed(pos) => {
                            let round = xmodel::value::rounding(&xop.tensor.attrs).map_err(fail)?;
                            let q = xmodel::value::quantize(x, pos.0, round);
                            Held::fixed(&xop.tensor.shape, pos.0, q)
                        }
                    })
                });
                let results = program.run(held.collect::<Result<_, Error>>()?)?;
                let named = model.ops.iter().zip(results).filter(|(op, _)| !graph::is_input(op));
                Ok(named.filter_map(|(op, held)| Some((op.tensor.name.clone(), held?))).collect())
            }
            Self::Quantized(graph) => {
                let engine = Engine::new(graph);
                let parts = graph.inputs.iter().map(|ix| {
                    let name = &graph.tensors[ix.0].name;
                    input(name.strip_prefix("quant_").unwrap_or(name))
                });
                let values = engine.quantize_inputs(&parts.collect::<Result<Vec<_>, _>>()?)?;
                let values = engine.run(values, |_| true);
                let held = |(t, v): (&IntTensor, Option<_>)| {
                    let shape = [&[1], t.shape.as_slice()].concat();
                    Some((t.name.clone(), Held { value: v?, kind: t.kind, shape }))
                };
                Ok(graph.tensors.iter().zip(values).filter_map(held).collect())
            }
        }
    }
}

/// A tensor's name without what compilation adds to it: the border to the CPU, quantizers that the compiler put in, and
/// remarks about rewriting.
fn plain(name: &str) -> String {
    let mut text = String::new();
    let mut depth = 0usize;
    for c in name.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            c if depth == 0 => text.push(c),
            _ => {}
        }
    }
    loop {
        let Some((head, tail)) = text.rsplit_once('_') else { return text };
        let numbered = !tail.is_empty() && tail.bytes().all(|b| b.is_ascii_digit());
        let shorter = ["_download", "_upload", "_inserted_fix"].iter().find_map(|s| head.strip_suffix(s));
        match shorter {
            Some(shorter) if numbered && !shorter.is_empty() => text = shorter.to_owned(),
            _ => return text,
        }
    }
}

/// What names of one tensor have in common: in a graph, in the program compiled from it, in a dump's files.
fn matching(name: &str) -> String {
    let name = plain(&name.replace('/', "_"));
    name.strip_suffix("_fix").map_or_else(|| name.clone(), str::to_owned)
}

/// A tensor's name in dumps: those of Keras models have the layers' names, as the vendor's do.
fn dump_name(keras: bool, name: &str) -> String {
    dump::short_name(&if keras { matching(name) } else { plain(name) })
}

/// Whether a program was compiled from a Keras model.
fn is_keras(model: &Xmodel) -> bool {
    model.attrs.text("origin").is_some_and(|o| o.starts_with("tensorflow"))
}

/// The types of all tensors that may be in a dump, by the names of their files; none of a name for both.
pub fn types(model: &Xmodel) -> dump::Types {
    let (mut types, mut both) = (dump::Types::new(), BTreeSet::new());
    for op in &model.ops {
        let kind = match xmodel::value::declared(&op.tensor) {
            Ok(Kind::Float | Kind::Scaled(_)) => Type::Float,
            Ok(Kind::Fixed(_)) => Type::Int8,
            Err(_) => continue,
        };
        for name in [dump_name(true, &op.tensor.name), dump_name(false, &op.tensor.name)] {
            let file = dump::file_name(&name, kind);
            if types.insert(file.clone(), kind).is_some_and(|other| other != kind) {
                both.insert(file);
            }
        }
    }
    types.retain(|file, _| !both.contains(file));
    types
}

/// A program's tensors by operation: the first of several with one name.
fn tensors<'a>(program: &Program<'_>, done: &'a Executed) -> Vec<(usize, String, &'a Held)> {
    let keras = is_keras(program.model);
    let mut names = BTreeSet::new();
    let mut all = Vec::new();
    for (op, held) in done.results.iter().enumerate() {
        let Some(held) = held else { continue };
        let xop = &program.model.ops[op];
        let name = dump_name(keras, &xop.tensor.name);
        let files = DumpTensor::of(&name, &held.value).file_name();
        if names.insert(files) {
            all.push((op, name, held));
        }
    }
    all
}

/// How a program's tensors compare with others of the same names.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    tensors: BTreeSet<String>,
    values: u64,
    differing: BTreeSet<String>,
    /// The first difference, in words.
    pub first: Option<String>,
    /// How it came about, in lines.
    pub why: Option<String>,
    /// Compared tensors of the reference, for what was not.
    reached: BTreeSet<String>,
}

impl Compared {
    /// Whether something was compared, and all of it was equal.
    pub fn is_equal(&self) -> bool {
        !self.tensors.is_empty() && self.differing.is_empty()
    }

    /// For reports.
    pub fn agreement(&self) -> Agreement {
        let why = self.why.as_deref().unwrap_or("");
        Agreement {
            tensors: self.tensors.len(),
            values: self.values,
            differing_tensors: self.differing.len(),
            first_difference: self.first.as_ref().map(|first| format!("{first}\n{why}")),
        }
    }

    /// Compares one sample; the first difference ever is explained.
    fn sample(&mut self, program: &Program<'_>, done: &Executed, reference: &BTreeMap<String, (String, Held)>) {
        for (op, name, own) in tensors(program, done) {
            let xop = &program.model.ops[op];
            // A dump has shortened names.
            let key = [matching(&xop.tensor.name), matching(&name)].into_iter().find(|k| reference.contains_key(k));
            let Some(key) = key else { continue };
            let Some((other_name, other)) = reference.get(&key).filter(|(_, o)| same_type(o, own)) else { continue };
            self.reached.insert(key);
            self.tensors.insert(name.clone());
            self.values += own.len().min(other.len()) as u64;
            let what = format!("{} ({}), against {other_name}", xop.tensor.name, xop.kind);
            let problem = if own.len() != other.len() {
                Some(format!("{what}: {} values, expected {}", own.len(), other.len()))
            } else if own.kind != other.kind {
                Some(format!("{what}: type {:?}, expected {:?}", own.kind, other.kind))
            } else {
                let (a, b) = (&other.value, &own.value);
                a.differences(b).first().map(|at| {
                    let number = |v: &Values| match v {
                        Values::Float(v) => v.get(*at).map_or_else(String::new, f32::to_string),
                        Values::Int8(_) | Values::Int16(_) | Values::Int32(_) => dump::value_text(v, *at),
                    };
                    let (expected, computed) = (number(a), number(b));
                    if self.first.is_none() {
                        self.why = program.explain(done, op, *at);
                    }
                    format!("{what} at {at}: expected {expected}, computed {computed}")
                })
            };
            if let Some(problem) = problem {
                self.differing.insert(name);
                self.first.get_or_insert(problem);
            }
        }
    }
}

/// Integers with integers, floats with floats.
fn same_type(a: &Held, b: &Held) -> bool {
    a.integers().is_some() == b.integers().is_some()
}

/// Tensors that never leave the chip, so that no one can look at them.
fn on_chip(program: &Program<'_>, all: &Dump) -> Vec<String> {
    let seen: BTreeSet<String> = all.activations.iter().map(|t| matching(&t.name)).collect();
    let computed = program.jobs.iter().flat_map(|j| j.run.all_ops()).map(|op| &program.model.ops[op]);
    let hidden =
        computed.filter(|op| !op.is_const() && !spans::is_alias(op) && !seen.contains(&matching(&op.tensor.name)));
    hidden.map(|op| op.tensor.name.clone()).collect()
}

fn layers_of<'p>(program: &'p Program<'_>) -> impl Fn(usize, &JobRun) -> Vec<LayerSpan<'p>> {
    |number, _| program.jobs.get(number).map_or_else(Vec::new, |job| job.layer_spans(number as u16))
}

/// Where the cycles went, with those of each layer's own code where the file has it.
fn cycles(program: &Program<'_>, sim: &SimDpu, done: &Executed) -> ProgramCycles {
    let alone = done.alone.iter().map(|(run, layer, cycles)| LayerAlone {
        subgraph: run.clone(),
        layer: layer.clone(),
        cycles: *cycles,
    });
    let cpu = program.model.root.children.iter().filter(|r| r.device == RunsOn::Cpu);
    let ops = cpu.flat_map(|r| r.all_ops()).map(|i| &program.model.ops[i]).filter(|op| !op.is_const());
    let on_cpu = ops.map(|op| CpuOperation {
        layer: op.name.clone(),
        operation: op.kind.clone(),
        computed: program.computes(&op.kind),
    });
    ProgramCycles {
        report: sim.report_layers(&program.model.name, layers_of(program)),
        layers_alone: alone.collect(),
        on_cpu: on_cpu.collect(),
    }
}

fn append(all: &mut Vec<DumpTensor>, new: DumpTensor) {
    match all.iter_mut().find(|t| t.name == new.name) {
        // One tensor has one type.
        Some(tensor) => drop(tensor.values.append(new.values)),
        None => all.push(new),
    }
}

/// Adds one sample's results, as floats.
fn collect(program: &Program<'_>, done: &Executed, outputs: &mut Vec<(String, Vec<usize>, Vec<f32>)>) {
    let model = program.model;
    let mut read = vec![false; model.ops.len()];
    model.ops.iter().flat_map(xmodel::XOp::inputs).for_each(|i| read[i] = true);
    let results = model.results();
    let others = (0..model.ops.len()).filter(|i| !results.contains(i));
    for op in results.iter().copied().chain(others).filter(|i| !read[*i] && !model.ops[*i].is_const()) {
        let Some(held) = &done.results[op] else { continue };
        let name = &model.ops[op].name;
        match outputs.iter_mut().find(|(n, ..)| n == name) {
            Some((_, _, values)) => values.extend(held.floats()),
            None => outputs.push((name.clone(), held.shape.clone(), held.floats())),
        }
    }
}

/// Sample `index` of a dump, for those tensors that the program has.
fn part(golden: &Dump, program: &Program<'_>, done: &Executed, index: usize) -> BTreeMap<String, (String, Held)> {
    let mut all = BTreeMap::new();
    let own: BTreeMap<String, &Held> = tensors(program, done).into_iter().map(|(_, n, h)| (matching(&n), h)).collect();
    for tensor in &golden.activations {
        // A dump with a manifest has whole names, the others shortened ones.
        let keys = [matching(&tensor.name), dump::short_name(&matching(&tensor.name))];
        let Some((key, held)) = keys.into_iter().find_map(|key| Some((key.clone(), own.get(&key)?))) else { continue };
        let range = index * held.len()..(index + 1) * held.len();
        // A dump doesn't say positions; the program's own are taken.
        if matches!(tensor.values, Values::Int16(_) | Values::Int32(_)) {
            // Of quantizers that no program computes with.
            continue;
        }
        let value =
            if range.end <= tensor.values.len() { tensor.values.select(range) } else { tensor.values.select(0..0) };
        all.insert(key, (tensor.name.clone(), Held { value, ..(*held).clone() }));
    }
    all
}
