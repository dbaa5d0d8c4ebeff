//! One sample through a vendor-compiled program: subgraphs on the simulated DPU, operations between them on the CPU.

use shiftwise_core::exec::{ExecError, Fault, Machine};
use shiftwise_core::isa::{Line, codec};
use shiftwise_core::model::{DpuJob, LayerSpan, Region, TensorId, TensorList};
use shiftwise_core::run::{Dpu, Memory};
use shiftwise_core::target::Target;
use shiftwise_graph::budget::{Budget, Exceeded, reserve};
use shiftwise_graph::error::Error;
use shiftwise_graph::ops::CustomLayers;
use shiftwise_integer::graph::Kind;
use shiftwise_sim::{Costs, HostProducts, SimDpu, SimError};
use shiftwise_tensor::values::Values;
use shiftwise_xmodel::graph::{Results, gather, host_step, is_input};
use shiftwise_xmodel::spans;
use shiftwise_xmodel::spans::{Spans, layer_name};
use shiftwise_xmodel::value::{Held, declared, quantize, rounding};
use shiftwise_xmodel::{self as xmodel, Device, Subgraph, Tensor, Xmodel, host};

use crate::cost;
use crate::run::explanation;

/// Copies of the registers that are held at the same time.
const COPIES: u64 = 4;

/// The memory behind the base registers of one subgraph.
#[derive(Clone, Debug, Default)]
pub struct Registers([Vec<u8>; 4]);

impl Registers {
    fn new(run: &Subgraph) -> Result<Self, String> {
        let mut all = Self::default();
        let registers = run.registers()?;
        let held = |r: &xmodel::Register| r.contents.as_ref().map_or(0, Vec::len);
        // Each run compares copies: before, in token order, in program order, layer by layer.
        let budget = Budget::for_file(run.code().map_or(0, <[u8]>::len) + registers.iter().map(held).sum::<usize>());
        for register in registers {
            let place = usize::try_from(register.id).ok().and_then(|id| all.0.get_mut(id));
            let place = place.ok_or_else(|| format!("it uses REG_{}; REG_0 to REG_3 are modelled", register.id))?;
            let asked = |e: Exceeded| format!("REG_{} of {} bytes: {e}", register.id, register.bytes);
            budget.elements(&[register.bytes], COPIES).map_err(asked)?;
            let mut bytes = reserve(register.bytes).map_err(asked)?;
            bytes.extend_from_slice(&register.contents.unwrap_or_default());
            bytes.resize(register.bytes, 0);
            *place = bytes;
        }
        Ok(all)
    }

    fn memory(&mut self) -> Memory<'_> {
        let [constants, workspace, inputs, outputs] = &mut self.0;
        Memory { constants, workspace, inputs, outputs }
    }

    /// A tensor's integers.
    fn read(&self, tensor: &Tensor) -> Option<Held> {
        let (place, Ok(Kind::Fixed(pos))) = (tensor.place()?, declared(tensor)) else { return None };
        let bytes = self.0.get(place.register as usize)?;
        let get = |at: usize| place.offset.checked_add(at).and_then(|at| bytes.get(at)).map(|b| b.cast_signed());
        Some(Held::fixed(&tensor.shape, pos.0, gather(&tensor.shape, &place.stride, tensor.elements()?, get)?))
    }

    fn write(&mut self, tensor: &Tensor, values: &[i8]) -> Option<()> {
        let place = tensor.place()?;
        let len = tensor.elements().filter(|n| *n == values.len())?;
        let at = gather(&tensor.shape, &place.stride, len, |at| place.offset.checked_add(at))?;
        let bytes = self.0.get_mut(place.register as usize)?;
        for (at, v) in at.into_iter().zip(values) {
            *bytes.get_mut(at)? = v.cast_unsigned();
        }
        Some(())
    }

    /// Where two memories differ first: register and byte.
    fn difference(&self, other: &Self) -> Option<(usize, usize)> {
        let at = |(a, b): (&Vec<u8>, &Vec<u8>)| a.iter().zip(b).position(|(a, b)| a != b);
        self.0.iter().zip(&other.0).enumerate().find_map(|(r, pair)| Some((r, at(pair)?)))
    }
}

/// A subgraph on the DPU, made ready once.
#[derive(Debug)]
pub struct Job<'a> {
    /// The subgraph.
    pub run: &'a Subgraph,
    /// Its code.
    pub code: &'a [u8],
    lines: Vec<(u32, Line)>,
    /// Which instructions are which layer's, and which tensors they complete.
    pub spans: Spans,
    target: Target,
}

impl<'a> Job<'a> {
    /// Decodes its code, bounds its time and checks the order of its tokens.
    ///
    /// Errors: [`Error::Run`].
    pub fn new(model: &Xmodel, run: &'a Subgraph, target: &Target) -> Result<Self, Error> {
        let fail = |why: String| Error::Run(format!("{}: {why}", run.name));
        let code = run.code().ok_or_else(|| fail("it has no code".into()))?;
        let mut lines = Vec::new();
        for (at, line) in codec::program(target.isa, code) {
            let line = line.map_err(|e| fail(format!("byte {at} of its code: {e}")))?;
            lines.push((at as u32, line));
        }
        let plain: Vec<Line> = lines.iter().map(|(_, line)| *line).collect();
        // Each instruction is compared with the tensors that it may belong to.
        let compared = (lines.len() as u64).saturating_mul(run.all_ops().len() as u64);
        let units = cost::instructions(target, plain.iter().map(|line| line.inst)).saturating_add(compared);
        cost::check(units, model.bytes)?;
        let job = Self { run, code, spans: spans::spans(model, run, &plain), lines, target: target.clone() };
        let mut sizes = [0; 4];
        for register in run.registers().map_err(fail)? {
            sizes.iter_mut().skip(register.id as usize).take(1).for_each(|s| *s = register.bytes);
        }
        shiftwise_sim::check_order(target, &plain, &sizes).map_err(|race| {
            let (first, second) = (job.layer(race.first.0), job.layer(race.second.0));
            let layers = if first == second { first.to_owned() } else { format!("{first} and {second}") };
            Error::Run(format!("{}: layer {layers}: {race}", run.name))
        })?;
        Ok(job)
    }

    /// The layer of an instruction.
    fn layer(&self, index: u32) -> &str {
        let holds = |l: &&spans::Layer| index.wrapping_sub(l.first) < l.count;
        self.spans.layers.iter().find(holds).map_or("?", |l| l.name.as_str())
    }

    /// Its layers for reports; `step` numbers the subgraph.
    pub fn layer_spans(&self, step: u16) -> Vec<LayerSpan<'_>> {
        // The tensor matters to deployables only.
        let output = TensorId(0);
        let all = self.spans.layers.iter();
        all.map(|l| LayerSpan { layer: &l.name, step, first: l.first, count: l.count, macs: l.macs, output }).collect()
    }

    fn failed(&self, error: &SimError) -> Error {
        let layer = match error {
            SimError::Exec(e) => self.layer(e.index).to_owned(),
            SimError::EarlyEnd { index, .. } => self.layer(*index).to_owned(),
            SimError::Deadlock { heads } => {
                let mut names: Vec<&str> = heads.iter().map(|h| self.layer(h.index)).collect();
                names.dedup();
                names.join(", ")
            }
            _ => String::new(),
        };
        let layer = if layer.is_empty() { layer } else { format!("layer {layer}: ") };
        Error::Run(format!("{}: {layer}{error}", self.run.name))
    }
}

/// What one subgraph started from, for explanations.
#[derive(Debug)]
pub struct Started {
    /// The job, as an index of [`Program::jobs`].
    pub job: usize,
    /// Its memory.
    pub before: Registers,
}

/// One sample's results.
#[derive(Debug)]
pub struct Executed {
    /// Every operation's result, where it was computed or seen.
    pub results: Results,
    /// What the subgraphs started from, in order.
    pub started: Vec<Started>,
    /// Cycles of each layer's own code, by subgraph and layer.
    pub alone: Vec<(String, String, u64)>,
    /// Subgraphs whose layers, run one by one, give other values than their whole code: sentences.
    pub disagreements: Vec<String>,
}

/// A program made ready.
#[derive(Debug)]
pub struct Program<'a> {
    /// The file.
    pub model: &'a Xmodel,
    /// Its subgraphs on the DPU, in order.
    pub jobs: Vec<Job<'a>>,
    /// Operations whose values the user gives: inputs, and what can't be computed.
    pub inputs: Vec<usize>,
    functional: bool,
    custom: CustomLayers,
}

impl<'a> Program<'a> {
    /// `functional`: in program order only, without tokens and cycles.
    ///
    /// Errors: [`Error::Run`]; tensors that are out of proportion to the file.
    pub fn new(model: &'a Xmodel, target: &Target, functional: bool, custom: CustomLayers) -> Result<Self, Error> {
        model.check_size()?;
        let runs = model.root.children.iter().filter(|r| r.device == Device::Dpu);
        let jobs = runs.map(|r| Job::new(model, r, target)).collect::<Result<_, _>>()?;
        let mut inputs: Vec<usize> = (0..model.ops.len()).filter(|i| is_input(&model.ops[*i])).collect();
        for run in model.root.children.iter().filter(|r| r.device != Device::Dpu && r.device != Device::User) {
            let unknown = |i: &usize| {
                let op = &model.ops[*i];
                !op.is_const() && !is_input(op) && !host::is_known(&op.kind, &custom)
            };
            inputs.extend(run.all_ops().into_iter().filter(unknown));
        }
        Ok(Self { model, jobs, inputs, functional, custom })
    }

    /// Whether an operation on the CPU is computed.
    pub fn computes(&self, kind: &str) -> bool {
        host::is_known(kind, &self.custom)
    }

    /// One sample. `inputs` are floats, in the order of [`Program::inputs`].
    ///
    /// Errors: [`Error::Run`], [`Error::Layer`] of an operation on the CPU.
    pub fn run(&self, inputs: &[&[f32]], sim: &mut SimDpu) -> Result<Executed, Error> {
        let model = self.model;
        let mut done = Executed {
            results: vec![None; model.ops.len()],
            started: Vec::new(),
            alone: Vec::new(),
            disagreements: Vec::new(),
        };
        for (op, x) in self.inputs.iter().zip(inputs) {
            let tensor = &model.ops[*op].tensor;
            let fail = |why: String| Error::Run(format!("input `{}`: {why}", model.ops[*op].name));
            done.results[*op] = Some(match declared(tensor).map_err(fail)? {
                Kind::Float | Kind::Scaled(_) => Held::float(&tensor.shape, x.to_vec()),
                Kind::Fixed(pos) => {
                    let round = rounding(&tensor.attrs).map_err(fail)?;
                    Held::fixed(&tensor.shape, pos.0, quantize(x, pos.0, round))
                }
            });
        }
        let mut jobs = 0..self.jobs.len();
        for run in &model.root.children {
            match run.device {
                Device::User => {}
                Device::Dpu => {
                    let number = jobs.next().unwrap_or(0);
                    self.on_dpu(number, &mut done, sim)?;
                }
                _ => self.on_cpu(run, &mut done.results)?,
            }
        }
        Ok(done)
    }

    fn on_cpu(&self, run: &Subgraph, results: &mut Results) -> Result<(), Error> {
        let mut ops = run.all_ops();
        ops.sort_unstable();
        for op in ops {
            let xop = &self.model.ops[op];
            if xop.is_const() || results[op].is_some() {
                continue;
            }
            let held = host_step(self.model, op, results, &self.custom)
                .map_err(|why| Error::layer(&xop.name, &xop.kind, why))?;
            results[op] = Some(held);
        }
        Ok(())
    }

    fn on_dpu(&self, number: usize, done: &mut Executed, sim: &mut SimDpu) -> Result<(), Error> {
        let job = &self.jobs[number];
        let before = self.begin(job, &mut done.results)?;
        let mut after = before.clone();
        if !self.functional {
            sim.run_code(&job.run.name, job.code, &mut after.memory()).map_err(|e| job.failed(&e))?;
        }
        // In program order once more, to see each tensor when it is complete: its place may be used again.
        let mut ordered = before.clone();
        let mut banks = vec![0; job.target.bank_bytes()];
        let machine = Machine::new(&job.target, &mut banks);
        let machine = machine.ok_or_else(|| Error::Target(format!("{} is too wide", job.target.name)))?;
        let mut machine = machine.with(HostProducts::detect());
        for (index, (offset, line)) in (0u32..).zip(&job.lines) {
            machine
                .execute(&line.inst, &mut ordered.memory())
                .map_err(|fault| job.fault(index, *offset, line, fault))?;
            for op in job.spans.completed.get(&index).into_iter().flatten() {
                done.results[*op] = ordered.read(&self.model.ops[*op].tensor);
            }
        }
        if !self.functional
            && let Some((register, byte)) = after.difference(&ordered)
        {
            let name = &job.run.name;
            return Err(Error::Run(format!(
                "{name}: REG_{register} differs at byte {byte} between token order and program order: a token is missing"
            )));
        }
        self.by_layers(number, &before, done)?;
        self.aliases(job.run, &mut done.results);
        let missing = |op: &&usize| done.results[**op].is_none() && self.model.ops[**op].kind == "download";
        if let Some(op) = job.run.all_ops().iter().find(missing) {
            let name = &self.model.ops[*op].name;
            return Err(Error::Run(format!("{}: its code never stores the whole of `{name}`", job.run.name)));
        }
        done.started.push(Started { job: number, before });
        Ok(())
    }

    /// The registers of a subgraph with its inputs in place.
    fn begin(&self, job: &Job<'_>, results: &mut Results) -> Result<Registers, Error> {
        let fail = |why: String| Error::Run(format!("{}: {why}", job.run.name));
        let mut registers = Registers::new(job.run).map_err(fail)?;
        for op in job.run.all_ops() {
            let xop = &self.model.ops[op];
            if xop.kind != "upload" {
                continue;
            }
            let source = xop.inputs().next().and_then(|i| results[i].as_ref());
            let held = source.ok_or_else(|| fail(format!("`{}` has no value", xop.name)))?;
            let Values::Int8(values) = &held.value else {
                return Err(fail(format!("`{}` uploads floats", xop.name)));
            };
            let place = || fail(format!("`{}` has no room for {} values", xop.name, values.len()));
            registers.write(&xop.tensor, values).ok_or_else(place)?;
            results[op] = Some(Held { shape: xop.tensor.shape.clone(), ..held.clone() });
        }
        Ok(registers)
    }

    /// Runs the layers' own code one after the other where the file has it: tensors that the whole code keeps on the
    /// chip, and cycles of each layer alone.
    fn by_layers(&self, number: usize, before: &Registers, done: &mut Executed) -> Result<(), Error> {
        let job = &self.jobs[number];
        let layers = job.run.layers();
        if !layers.iter().any(|l| l.code().is_some()) {
            return Ok(());
        }
        let mut registers = before.clone();
        let sim = SimDpu::new(job.target.clone(), job.target.clock_mhz, Costs::default());
        let mut sim = sim.map_err(|e| Error::Target(e.to_string()))?;
        for layer in layers {
            let Some(code) = layer.code() else { continue };
            let failed = |e: String| Error::Run(format!("{}: layer {}: {e}", job.run.name, layer_name(layer)));
            if self.functional {
                functional(&job.target, code, &mut registers).map_err(|e| failed(e.to_string()))?;
            } else {
                let cycles = sim.run_code(&layer.name, code, &mut registers.memory());
                let cycles = cycles.map_err(|e| failed(e.to_string()))?;
                done.alone.push((job.run.name.clone(), layer_name(layer).into(), cycles));
                sim.clear();
            }
            for op in layer.all_ops() {
                let xop = &self.model.ops[op];
                if xop.is_const() || spans::is_alias(xop) {
                    continue;
                }
                let Some(held) = registers.read(&xop.tensor) else { continue };
                match &done.results[op] {
                    Some(whole) if whole.value != held.value => done.disagreements.push(format!(
                        "`{}`: the code of layer {} gives other values than that of the whole subgraph",
                        xop.tensor.name,
                        layer_name(layer)
                    )),
                    Some(_) => {}
                    None => done.results[op] = Some(held),
                }
            }
        }
        Ok(())
    }

    /// Tensors that are others' memory under another name.
    fn aliases(&self, run: &Subgraph, results: &mut Results) {
        let mut ops = run.all_ops();
        ops.sort_unstable();
        for op in ops {
            let xop = &self.model.ops[op];
            if results[op].is_none() && spans::is_alias(xop) && xop.inputs().all(|i| results[i].is_some()) {
                // A shape that doesn't fit leaves it without a value, as its operand would.
                results[op] = host_step(self.model, op, results, &self.custom).ok();
            }
        }
    }

    /// The instructions, accumulator and shift behind one value; `None` if no SAVE stored it.
    pub fn explain(&self, done: &Executed, op: usize, index: usize) -> Option<String> {
        let xop = &self.model.ops[op];
        let (job, started) = done.started.iter().find_map(|s| {
            let job = &self.jobs[s.job];
            job.run.all_ops().contains(&op).then_some((job, s))
        })?;
        let place = xop.tensor.place()?;
        let at = {
            let (mut rest, mut at) = (index, place.offset);
            for (dim, stride) in xop.tensor.shape.iter().zip(&place.stride).rev() {
                at += rest % dim * stride;
                rest /= dim;
            }
            u32::try_from(at).ok()?
        };
        let region = Region::from_register(u8::try_from(place.register).ok()?)?;
        let completes = job.spans.completed.iter().find(|(_, ops)| ops.contains(&op)).map(|(i, _)| *i);
        let step = started.job as u16;
        let mut registers = started.before.clone();
        if let Some(last) = completes {
            let memory = registers.memory();
            let layer = (job.layer(last), step);
            return shiftwise_sim::explain_code(&job.target, job.code, &memory, (region, at), layer, 0..last + 1)
                .map(explanation);
        }
        for layer in job.run.layers() {
            let Some(code) = layer.code() else { continue };
            if layer.all_ops().contains(&op) {
                let memory = registers.memory();
                let name = (layer_name(layer), step);
                return shiftwise_sim::explain_code(&job.target, code, &memory, (region, at), name, 0..u32::MAX)
                    .map(explanation);
            }
            functional(&job.target, code, &mut registers).ok()?;
        }
        None
    }
}

impl Job<'_> {
    fn fault(&self, index: u32, offset: u32, line: &Line, fault: Fault) -> Error {
        let inst = line.inst.kind().mnemonic();
        self.failed(&SimError::Exec(ExecError { index, offset, inst, fault }))
    }
}

/// Runs code in program order.
fn functional(target: &Target, code: &[u8], registers: &mut Registers) -> Result<(), ExecError> {
    let mut banks = vec![0; target.bank_bytes()];
    let no_end = ExecError { index: 0, offset: 0, inst: "", fault: Fault::NoEnd };
    let Some(machine) = Machine::new(target, &mut banks) else { return Err(no_end) };
    let mut machine = machine.with(HostProducts::detect());
    let job = DpuJob { name: "", offset: 0, bytes: 0, outputs: TensorList(&[]) };
    machine.run(&job, code, &mut registers.memory())
}
