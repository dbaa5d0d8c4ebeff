//! `shiftwise simulate FILE.xmodel`: a vendor-compiled program, and its comparison with the graph that it came from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use shiftwise::device::Device as Dpu;
use shiftwise::dump::{Dump, DumpTensor, Type, Values};
use shiftwise::{device, dump};
use shiftwise_core::model::LayerSpan;
use shiftwise_formats::files::Set;
use shiftwise_formats::{self as format, LoadOptions, Model};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;
use shiftwise_graph::ops::CustomLayers;
use shiftwise_integer::engine::Engine;
use shiftwise_integer::lower;
use shiftwise_sim::{JobRun, SimDpu};
use shiftwise_tensor::tensor::Tensor;
use shiftwise_xmodel::value::Held;
use shiftwise_xmodel::{self as xmodel, Device, Xmodel, graph, spans};

use crate::outcome::{Outcome, pretty};
use crate::screen::{Screen, count};
use crate::simulate::Args;
use crate::{data, targets};
use shiftwise::listing::{Isa, isa_of};
use shiftwise::vendor_program::{Executed, Program};

/// The DPU that all of a program's subgraphs are for.
///
/// Errors: a target that is not simulated (what is missing is said), subgraphs for several.
fn target_of(path: &Path, model: &Xmodel) -> Result<shiftwise_core::target::Target, Error> {
    let mut found: Option<shiftwise_core::target::Target> = None;
    for run in model.root.children.iter().filter(|r| r.device == Device::Dpu) {
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
        Error::wrong_kind(path, "is an xmodel without code: give it as --graph, and the compiled one to simulate")
    })
}

/// What a program's tensors are compared with.
enum Reference {
    Xmodel(Xmodel),
    Quantized(Box<shiftwise_integer::graph::IntGraph>),
}

impl Reference {
    fn open(path: &Path, custom: &CustomLayers) -> Result<Self, Error> {
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
                        shiftwise_integer::graph::Kind::Float => Held::float(&xop.tensor.shape, x.to_vec()),
                        shiftwise_integer::graph::Kind::Fixed(pos) => {
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
                let held = |(t, v): (&shiftwise_integer::graph::IntTensor, Option<_>)| {
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
fn types(model: &Xmodel) -> dump::Types {
    let (mut types, mut both) = (dump::Types::new(), BTreeSet::new());
    for op in &model.ops {
        let kind = match xmodel::value::declared(&op.tensor) {
            Ok(shiftwise_integer::graph::Kind::Float) => Type::Float,
            Ok(shiftwise_integer::graph::Kind::Fixed(_)) => Type::Int8,
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
#[derive(Default)]
struct Comparison {
    tensors: BTreeSet<String>,
    values: u64,
    differing: BTreeSet<String>,
    first: Option<String>,
    /// How it came about, in lines.
    why: Option<String>,
    /// Compared tensors of the reference, for what was not.
    reached: BTreeSet<String>,
}

impl Comparison {
    fn is_equal(&self) -> bool {
        !self.tensors.is_empty() && self.differing.is_empty()
    }

    fn json(&self) -> Value {
        json!({
            "tensors": self.tensors.len(), "values": self.values, "differing_tensors": self.differing.len(),
            "first_difference": self.first.as_ref().map(|f| [f.as_str(), self.why.as_deref().unwrap_or("")].join("\n")),
        })
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
                let (a, b) = (Values::of(&other.value), Values::of(&own.value));
                a.differences(&b).first().map(|at| {
                    let number = |v: &Values| match v {
                        Values::Int8(v) => v.get(*at).map_or_else(String::new, i8::to_string),
                        Values::Int32(v) => v.get(*at).map_or_else(String::new, i32::to_string),
                        Values::Float(v) => v.get(*at).map_or_else(String::new, f32::to_string),
                    };
                    let (expected, computed) = (number(&a), number(&b));
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

    fn say(&self, what: &str, screen: &Screen) {
        if let Some(first) = &self.first {
            screen.say(format!("first difference: {first}"));
        }
        if let Some(why) = &self.why {
            screen.lines(why);
        }
        screen.say(format!(
            "{what}: {} tensors, {} values, {} tensors differ",
            self.tensors.len(),
            count(self.values),
            self.differing.len()
        ));
    }
}

/// Integers with integers, floats with floats.
fn same_type(a: &Held, b: &Held) -> bool {
    a.integers().is_some() == b.integers().is_some()
}

pub(super) fn run(args: &Args, bytes: &[u8], screen: &Screen) -> Result<Outcome, Error> {
    let path = args.model.as_path();
    let model = xmodel::read(path, bytes)?;
    let target = target_of(path, &model)?;
    let inputs = [&args.model].into_iter().chain(&args.golden).chain(&args.graph).map(PathBuf::as_path);
    data::keep(inputs, &args.trace.iter().chain([&args.output_dir]).map(PathBuf::as_path).collect::<Vec<_>>())?;
    let golden = args.golden.as_deref().map(|dir| dump::read_with(dir, &types(&model))).transpose()?;
    let custom = args.custom.layers()?;
    let reference = args.graph.as_deref().map(|p| Reference::open(p, &custom)).transpose()?;
    let device = Dpu::new(target, args.clock);
    let mut sim = device.simulator()?;
    let program = Program::new(&model, &device.target, args.functional, custom.clone())?;

    let shapes: Vec<(&str, &[usize])> = program
        .inputs
        .iter()
        .map(|op| (model.ops[*op].name.as_str(), model.ops[*op].tensor.shape.get(1..).unwrap_or(&[])))
        .collect();
    let unknown = || program.inputs.iter().map(|op| &model.ops[*op]).filter(|op| !graph::is_input(op));
    for op in unknown() {
        screen.note(format!("`{}` ({}) can't be computed here: its values are read from --data", op.name, op.kind));
    }
    let samples = args.preprocess.open(&args.data, &shapes)?;
    let n = args.samples.clamp(1, samples.len().max(1));

    let mut progress = screen.progress("simulating", "samples", n);
    let mut all = Dump::default();
    let mut outputs: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    let (mut graph, mut golds) = (Comparison::default(), Comparison::default());
    let mut report = Value::Null;
    let mut disagreements = BTreeSet::new();
    for index in 0..n {
        let batch: Vec<Tensor> = samples.batch(index, 1)?;
        let parts: Vec<&[f32]> = batch.iter().map(Tensor::data).collect();
        let done = program.run(&parts, &mut sim)?;
        disagreements.extend(done.disagreements.iter().cloned());
        if index == 0 && !args.functional {
            report = timing(&program, &sim, &done, screen)?;
            if let Some(path) = &args.trace {
                format::write_file(path, sim.trace_layers(layers_of(&program)).as_bytes())?;
            }
        }
        sim.clear();
        if let Some(reference) = &reference {
            let named: BTreeMap<String, &[f32]> =
                shapes.iter().zip(&parts).map(|((name, _), x)| (matching(name), *x)).collect();
            let path = args.graph.as_deref().unwrap_or(path);
            let values = reference.run(path, &named, &custom)?;
            let by_name = values.into_iter().map(|(name, held)| (matching(&name), (name, held))).collect();
            graph.sample(&program, &done, &by_name);
            if index == 0 {
                let rest = |(_, (name, _)): &(&String, &(String, Held))| name.clone();
                let missing = by_name.iter().filter(|(key, _)| !graph.reached.contains(*key)).collect::<Vec<_>>();
                missing.iter().for_each(|m| screen.detail(format!("only in the graph: {}", rest(m))));
            }
        }
        if let Some(golden) = &golden {
            golds.sample(&program, &done, &part(golden, &program, &done, index));
        }
        for (_, name, held) in tensors(&program, &done) {
            append(&mut all.activations, DumpTensor::of(&name, &held.value));
        }
        collect(&program, &done, &mut outputs);
        progress.set(index + 1);
    }
    let mut set = Set::new(&args.output_dir, dump::MANIFEST)?;
    dump::add(&mut set, &all, true)?;
    for (k, (_, shape, values)) in outputs.into_iter().enumerate() {
        let shape = [&[n], shape.get(1..).unwrap_or(&[])].concat();
        shiftwise::outputs::add_output(&mut set, k, shape, values)?;
    }
    if !args.functional {
        set.add(crate::simulate::CYCLES, pretty(&report).as_bytes())?;
    }
    set.commit(serde_json::Map::new())?;
    disagreements.iter().for_each(|d| screen.say(d));
    let mut yes = disagreements.is_empty();
    let mut json = json!({
        "output_dir": args.output_dir, "samples": n, "cycles": report, "tensors": all.activations.len(),
        "on_chip": on_chip(&program, &all), "given": unknown().map(|op| op.name.as_str()).collect::<Vec<_>>(),
        "disagreements": disagreements,
    });
    for (key, what, compared, asked) in
        [("graph", "the graph", &graph, reference.is_some()), ("golden", "the dump", &golds, golden.is_some())]
    {
        if asked {
            compared.say(what, screen);
            yes &= compared.is_equal();
            json[key] = compared.json();
        }
    }
    Ok(Outcome { json, yes })
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

/// The report of the whole program, with the cycles of each layer's own code where the file has it.
fn timing(program: &Program<'_>, sim: &SimDpu, done: &Executed, screen: &Screen) -> Result<Value, Error> {
    let report = sim.report_layers(&program.model.name, layers_of(program));
    crate::simulate::say_cycles(&report, screen);
    let mut json = serde_json::to_value(&report).map_err(|e| Error::Run(e.to_string()))?;
    let alone =
        done.alone.iter().map(|(run, layer, cycles)| json!({ "subgraph": run, "layer": layer, "cycles": cycles }));
    json["layers_alone"] = Value::Array(alone.collect());
    let cpu = program.model.root.children.iter().filter(|r| r.device == Device::Cpu);
    let ops = cpu.flat_map(|r| r.all_ops()).map(|i| &program.model.ops[i]).filter(|op| !op.is_const());
    json["on_cpu"] = ops
        .map(|op| json!({ "layer": op.name, "operation": op.kind, "computed": program.computes(&op.kind) }))
        .collect();
    Ok(json)
}

fn append(all: &mut Vec<DumpTensor>, new: DumpTensor) {
    match (all.iter_mut().find(|t| t.name == new.name).map(|t| &mut t.values), new.values) {
        (Some(Values::Int8(all)), Values::Int8(new)) => all.extend(new),
        (Some(Values::Float(all)), Values::Float(new)) => all.extend(new),
        (None, values) => all.push(DumpTensor { name: new.name, values }),
        // One tensor has one type.
        (Some(_), _) => {}
    }
}

/// Adds one sample's results, as floats.
fn collect(program: &Program<'_>, done: &Executed, outputs: &mut Vec<(String, Vec<usize>, Vec<f32>)>) {
    let model = program.model;
    let mut read = vec![false; model.ops.len()];
    model.ops.iter().flat_map(xmodel::XOp::inputs).for_each(|i| read[i] = true);
    for op in (0..model.ops.len()).filter(|i| !read[*i] && !model.ops[*i].is_const()) {
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
        let value = match &tensor.values {
            Values::Int8(v) => shiftwise_integer::engine::Value::Fixed(v.get(range).unwrap_or(&[]).to_vec()),
            // Of quantizers that no program computes with.
            Values::Int32(_) => continue,
            Values::Float(v) => shiftwise_integer::engine::Value::Float(v.get(range).unwrap_or(&[]).to_vec()),
        };
        all.insert(key, (tensor.name.clone(), Held { value, ..(*held).clone() }));
    }
    all
}
