//! A compiled network before it becomes bytes.

use shiftwise_core::fix::FixPos;
use shiftwise_core::model::{
    Act, AddOp, ConcatOp, CpuOp, DType, Deployable, DpuJob, Facts, LayerSpan, ParseError, Place, Role, ScaledConcatOp,
    ScaledOp, ScaledSumOp, Section, Step, TensorDesc, TensorId, TensorList,
};
use shiftwise_core::shape::Shape;

use crate::deployable;
use crate::deployable::{EmitError, Parts};
use crate::memory::{Layout, Placed};
use crate::reason::Reason;
use shiftwise_graph::error::Error;
use shiftwise_integer::graph::{Class, IntGraph, IntOp, Kind, TensorIx};

/// A compiled network. [`Program::to_bytes`] writes the deployable.
#[derive(Clone, Debug)]
pub struct Program {
    /// The network's name.
    pub name: String,
    /// Target's name.
    pub target: String,
    /// Target's 64-bit identification; 0 for target `cpu`.
    pub fingerprint: u64,
    /// Tensors, as in the integer form, then one more for every further role of a tensor that has one already.
    pub tensors: Vec<ProgramTensor>,
    /// Steps in execution order.
    pub steps: Vec<ProgramStep>,
    /// Origins of DPU instructions.
    pub spans: Vec<Span>,
    /// Weights and biases.
    pub constants: Vec<u8>,
    /// DPU instructions.
    pub code: Vec<u8>,
    /// What the regions need.
    pub memory: MemoryMap,
    /// What lies where, and when.
    pub buffers: Vec<Buffer>,
    /// Per op of the integer form: where it runs and what it needs.
    pub layers: Vec<LayerRow>,
    /// What travels with the network, as the text of its metadata; empty if there is none.
    pub metadata: String,
}

/// [`TensorDesc`] with its own text.
#[derive(Clone, Debug)]
pub struct ProgramTensor {
    /// Name in the golden dump.
    pub name: String,
    /// The user's layer.
    pub origin: String,
    /// Without the batch.
    pub shape: Shape,
    /// Element type.
    pub dtype: DType,
    /// Fraction bits.
    pub pos: FixPos,
    /// Where it lies while it is alive.
    pub place: Place,
    /// Input, output or inner.
    pub role: Role,
}

/// [`Step`] with its own lists.
#[derive(Clone, Debug)]
pub enum ProgramStep {
    /// Instructions for the DPU.
    Dpu {
        /// Name of the subgraph.
        name: String,
        /// Byte offset in the code.
        offset: u32,
        /// Bytes of code.
        bytes: u32,
        /// Tensors that are complete when it ends.
        outputs: Vec<TensorId>,
    },
    /// A layer on the CPU that has no list of operands.
    Cpu(CpuOp<'static>),
    /// A concatenation on the CPU.
    Concat {
        /// Operands.
        inputs: Vec<TensorId>,
        /// Right shift of each, an `i8` in one byte.
        shifts: Vec<u8>,
        /// Result.
        output: TensorId,
        /// Axis of its shape.
        axis: u8,
    },
    /// An element-wise sum on the CPU.
    Add {
        /// Operands.
        inputs: Vec<TensorId>,
        /// Left shift of each.
        shift_read: Vec<u8>,
        /// Sum.
        output: TensorId,
        /// Activation on the sum.
        act: Act,
        /// Right shift.
        shift_write: i8,
    },
    /// A layer on integers with steps of any size.
    Scaled {
        /// Operands of a sum or a concatenation; others name theirs.
        inputs: Vec<TensorId>,
        /// The layer; a list of operands in it is empty.
        op: ScaledOp<'static>,
    },
}

/// [`LayerSpan`] with its own text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The user's layer.
    pub layer: String,
    /// Step that holds the instructions.
    pub step: u16,
    /// First instruction, counted from the start of the job.
    pub first: u32,
    /// Number of instructions.
    pub count: u32,
    /// Multiply-accumulates of the layer.
    pub macs: u64,
    /// The tensor that the layer completes.
    pub output: TensorId,
}

/// A piece of memory with the tensors that it holds one after the other, or under several names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Names of the tensors.
    pub tensors: Vec<String>,
    /// Where it starts.
    pub place: Place,
    /// Its bytes.
    pub bytes: u64,
    /// The ops of the integer form during which it is needed, from the first to the last; in a program for target `cpu`
    /// these are the rows of [`Program::layers`]. `None` for a network without ops.
    pub ops: Option<(usize, usize)>,
}

/// Bytes that a program needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryMap {
    /// Intermediate tensors: peak, memory is used again after the last reader.
    pub workspace_bytes: u32,
    /// Network inputs, if they have a region of their own.
    pub input_bytes: u32,
    /// Network outputs, if they have a region of their own.
    pub output_bytes: u32,
    /// Workspace that no placement could do without: the most bytes alive at one step.
    pub workspace_lower_bound: u64,
    /// Sum of all tensors that are not views, if nothing were shared.
    pub unshared_bytes: u64,
}

impl MemoryMap {
    /// RAM of a run: workspace, inputs and outputs.
    pub fn ram_bytes(&self) -> u64 {
        u64::from(self.workspace_bytes) + u64::from(self.input_bytes) + u64::from(self.output_bytes)
    }
}

/// What executes a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Convolution engine of a DPU.
    Conv,
    /// ALU of a DPU: depthwise, pooling, element-wise.
    Misc,
    /// The CPU.
    Cpu,
    /// Nobody: the same bytes under another shape, or put in place by other layers.
    View,
}

/// One line of the table that `compile` prints.
#[derive(Clone, Debug, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LayerRow {
    /// The user's layers.
    pub layer: String,
    /// Kind of op; several, joined with `+`, if they are done on the same tiles.
    pub op: String,
    /// What executes it.
    pub engine: Engine,
    /// Why it isn't on the DPU, if it isn't.
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub reason: Option<Reason>,
    /// Microseconds on the CPU, estimated, if it runs there beside a DPU.
    pub cpu_us: Option<f64>,
    /// Step that executes it.
    pub step: Option<usize>,
    /// Multiply-accumulates as the user counts them.
    pub macs: u64,
    /// Multiply-accumulates that the engine executes, with its padding to full lanes and rows; 0 on the CPU.
    pub engine_macs: u64,
    /// DPU instructions.
    pub instructions: u32,
    /// Bytes of weights and biases.
    pub constant_bytes: u64,
    /// Bytes that LOADs move.
    pub load_bytes: u64,
    /// Bytes that SAVEs move.
    pub save_bytes: u64,
    /// Bytes of operands that are read, and of a result that is left, in the banks instead of being loaded and saved.
    pub kept_bytes: u64,
    /// Tiles that it is cut into.
    pub tiles: u32,
    /// Name of the result.
    pub output: String,
}

impl LayerRow {
    /// A row with nothing moved yet.
    pub(crate) fn new(graph: &IntGraph, op: &IntOp, engine: Engine, step: Option<usize>) -> Self {
        let view = op.kind.class() == Class::View;
        Self {
            layer: op.layer.clone(),
            op: op.kind.name().into(),
            engine: if view { Engine::View } else { engine },
            reason: None,
            cpu_us: None,
            step,
            macs: op.macs(),
            engine_macs: 0,
            instructions: 0,
            constant_bytes: 0,
            load_bytes: 0,
            save_bytes: 0,
            kept_bytes: 0,
            tiles: 0,
            output: graph.tensors.get(op.output.0).map(|t| t.name.clone()).unwrap_or_default(),
        }
    }
}

impl LayerRow {
    /// Adds an op that is done on the same tiles, if it isn't the row's own.
    pub(crate) fn extend(&mut self, graph: &IntGraph, op: &IntOp) {
        if self.layer == op.layer {
            return;
        }
        self.layer = format!("{}+{}", self.layer, op.layer);
        self.op = format!("{}+{}", self.op, op.kind.name());
        self.macs += op.macs();
        self.output = graph.tensors.get(op.output.0).map(|t| t.name.clone()).unwrap_or_default();
    }
}

impl Program {
    /// A program without steps: the tensors of `graph` at the places of `layout`.
    pub(crate) fn new(graph: &IntGraph, target: &str, fingerprint: u64, layout: &Layout) -> Result<Self, Error> {
        let mut origins: Vec<String> =
            graph.tensors.iter().map(|t| t.name.strip_prefix("quant_").unwrap_or(&t.name).to_owned()).collect();
        for op in &graph.ops {
            origins[op.output.0].clone_from(&op.layer);
        }
        let mut tensors = Vec::with_capacity(graph.tensors.len());
        let mut unshared_bytes = 0;
        let views: Vec<usize> =
            graph.ops.iter().filter(|o| o.kind.class() == Class::View).map(|o| o.output.0).collect();
        for ((i, t), origin) in graph.tensors.iter().enumerate().zip(origins) {
            let (region, offset) = layout.places[i];
            let dims: Option<Vec<u32>> = t.shape.iter().map(|d| u32::try_from(*d).ok()).collect();
            let shape = dims.and_then(|d| Shape::new(&d)).ok_or_else(|| {
                Error::Compile(format!("tensor `{}` has {} dimensions; up to 4 can be deployed", t.name, t.shape.len()))
            })?;
            let (dtype, pos) = match t.kind {
                Kind::Fixed(pos) => (DType::I8, pos),
                Kind::Scaled(scale) => (DType::Scaled(scale), FixPos(0)),
                Kind::Float => (DType::F32, FixPos(0)),
            };
            if !views.contains(&i) {
                unshared_bytes += u64::from(shape.elements().unwrap_or(0)) * u64::from(dtype.bytes());
            }
            let place = Place { region, offset };
            tensors.push(ProgramTensor { name: t.name.clone(), origin, shape, dtype, pos, place, role: Role::Inner });
        }
        let too_many = |_| Error::Compile("more than 256 inputs or outputs".into());
        for (n, t) in graph.inputs.iter().enumerate() {
            tensors[t.0].role = Role::Input(u8::try_from(n).map_err(too_many)?);
        }
        for (n, t) in graph.outputs.iter().enumerate() {
            let role = Role::Output(u8::try_from(n).map_err(too_many)?);
            if tensors[t.0].role == Role::Inner {
                tensors[t.0].role = role;
            } else {
                // A tensor that is an input or another output as well gets a second name for the same bytes.
                let again = ProgramTensor { role, ..tensors[t.0].clone() };
                tensors.push(again);
            }
        }
        if tensors.len() > u16::MAX.into() {
            return Err(Error::Compile(format!("{} tensors; a deployable holds up to 65535", tensors.len())));
        }
        let memory = MemoryMap {
            workspace_bytes: layout.workspace,
            input_bytes: layout.inputs,
            output_bytes: layout.outputs,
            workspace_lower_bound: layout.lower_bound,
            unshared_bytes,
        };
        let buffers = layout.blocks.iter().map(|b| buffer(graph, b)).collect();
        Ok(Self {
            name: graph.name.clone(),
            target: target.into(),
            fingerprint,
            tensors,
            steps: Vec::with_capacity(graph.ops.len()),
            spans: Vec::new(),
            constants: Vec::new(),
            code: Vec::new(),
            memory,
            buffers,
            layers: Vec::with_capacity(graph.ops.len()),
            metadata: String::new(),
        })
    }

    /// The deployable's bytes.
    ///
    /// `self_test`: per sample the inputs' bytes, then the outputs' bytes, both in order and in the tensors' own types.
    /// Errors: [`Error::Compile`] if the self-test does not fit the inputs and outputs, or a table is too large.
    pub fn to_bytes(&self, self_test: &[Vec<u8>]) -> Result<Vec<u8>, Error> {
        let lists: Vec<Vec<u8>> = self.steps.iter().map(step_list).collect();
        let steps: Vec<Step<'_>> = self.steps.iter().zip(&lists).map(|(s, list)| borrow_step(s, list)).collect();
        let tensors: Vec<TensorDesc<'_>> = self.tensors.iter().map(borrow_tensor).collect();
        let layers: Vec<LayerSpan<'_>> = self.spans.iter().map(borrow_span).collect();
        let self_test_samples = u16::try_from(self_test.len())
            .map_err(|_| Error::Compile(format!("{} self-test samples; up to 65535 fit", self_test.len())))?;
        let parts = Parts {
            facts: Facts {
                name: &self.name,
                target: &self.target,
                tool: concat!("shiftwise ", env!("CARGO_PKG_VERSION")),
                workspace_bytes: self.memory.workspace_bytes,
                input_bytes: self.memory.input_bytes,
                output_bytes: self.memory.output_bytes,
                self_test_samples,
            },
            fingerprint: self.fingerprint,
            tensors: &tensors,
            steps: &steps,
            layers: &layers,
            self_test: &self_test.concat(),
            constants: &self.constants,
            code: &self.code,
            metadata: self.metadata.as_bytes(),
        };
        deployable::write(&parts).map_err(|e| self.refused(&e))
    }

    /// What the reader of a deployable doesn't take, by the layer that it is of.
    fn refused(&self, error: &EmitError) -> Error {
        let step = match error {
            EmitError::Inconsistent(ParseError::Record(section, i) | ParseError::Reference(section, i))
                if *section == Section::Steps as u8 =>
            {
                Some(usize::from(*i))
            }
            _ => None,
        };
        let row = step.and_then(|step| self.layers.iter().rev().find(|row| row.step.is_some_and(|own| own <= step)));
        Error::Compile(match row {
            Some(row) => {
                let (layer, op) = (&row.layer, &row.op);
                format!("layer `{layer}`: a {op} of this geometry is beyond what the CPU's kernels take")
            }
            None => error.to_string(),
        })
    }

    /// Fails with the first thing that a deployable does not say as this program does.
    pub fn check(&self, model: &Deployable<'_>) -> Result<(), String> {
        let lists: Vec<Vec<u8>> = self.steps.iter().map(step_list).collect();
        let steps = self.steps.iter().zip(&lists).map(|(s, list)| borrow_step(s, list));
        let facts = model.facts();
        let memory = (facts.workspace_bytes, facts.input_bytes, facts.output_bytes);
        let own = (self.memory.workspace_bytes, self.memory.input_bytes, self.memory.output_bytes);
        if (facts.name, facts.target, model.fingerprint()) != (&self.name, &self.target, self.fingerprint) {
            return Err("its name or its target".into());
        }
        let tensors = self.tensors.iter().map(borrow_tensor);
        if let Some(tensor) = differing(tensors, model.tensors().map(|(_, t)| t)) {
            return Err(format!("layer `{}`, tensor `{}`", tensor.origin, tensor.name));
        }
        if let Some(step) = differing(steps, model.steps()) {
            let output = if let Step::Cpu(op) = &step { Some(op.output()) } else { None };
            let layer = output.and_then(|id| self.tensors.get(usize::from(id.0)));
            return Err(
                layer.map_or_else(|| "a step on the DPU".into(), |t| format!("the step of layer `{}`", t.origin))
            );
        }
        if let Some(span) = differing(self.spans.iter().map(borrow_span), model.layers()) {
            return Err(format!("the instructions of layer `{}`", span.layer));
        }
        if (model.constants(), model.code(), memory) != (&self.constants, &self.code, own) {
            return Err("its constants, its code or its memory".into());
        }
        Ok(())
    }
}

fn buffer(graph: &IntGraph, placed: &Placed) -> Buffer {
    let name = |t: &TensorIx| graph.tensors.get(t.0).map(|t| t.name.clone()).unwrap_or_default();
    let last = placed.block.last.min(graph.ops.len());
    Buffer {
        tensors: placed.tensors.iter().map(name).collect(),
        place: Place { region: placed.region, offset: placed.offset },
        bytes: placed.block.bytes,
        // Steps count from 1.
        ops: last.checked_sub(1).map(|last| (placed.block.first.saturating_sub(1).min(last), last)),
    }
}

/// The first item that is not the same in both, or that one of them lacks.
fn differing<T: PartialEq>(a: impl Iterator<Item = T>, b: impl Iterator<Item = T>) -> Option<T> {
    let (mut a, mut b) = (a, b);
    loop {
        match (a.next(), b.next()) {
            (None, None) => return None,
            (Some(a), Some(b)) if a == b => {}
            (a, b) => return a.or(b),
        }
    }
}

fn step_list(step: &ProgramStep) -> Vec<u8> {
    let (ProgramStep::Dpu { outputs: ids, .. }
    | ProgramStep::Add { inputs: ids, .. }
    | ProgramStep::Scaled { inputs: ids, .. }
    | ProgramStep::Concat { inputs: ids, .. }) = step
    else {
        return Vec::new();
    };
    ids.iter().flat_map(|t| t.0.to_le_bytes()).collect()
}

fn borrow_step<'a>(step: &'a ProgramStep, list: &'a [u8]) -> Step<'a> {
    match step {
        ProgramStep::Dpu { name, offset, bytes, .. } => {
            Step::Dpu(DpuJob { name, offset: *offset, bytes: *bytes, outputs: TensorList(list) })
        }
        ProgramStep::Cpu(op) => Step::Cpu(op.clone()),
        ProgramStep::Scaled { op, .. } => {
            let inputs = TensorList(list);
            Step::Cpu(CpuOp::Scaled(match *op {
                ScaledOp::Sum(op) => ScaledOp::Sum(ScaledSumOp { inputs, ..op }),
                ScaledOp::Concat(op) => ScaledOp::Concat(ScaledConcatOp { inputs, ..op }),
                op @ (ScaledOp::Conv(_) | ScaledOp::Pool(_) | ScaledOp::Product(_) | ScaledOp::Copy(_)) => op,
            }))
        }
        ProgramStep::Concat { shifts, output, axis, .. } => {
            Step::Cpu(CpuOp::Concat(ConcatOp { inputs: TensorList(list), shifts, output: *output, axis: *axis }))
        }
        ProgramStep::Add { shift_read, output, act, shift_write, .. } => Step::Cpu(CpuOp::Add(AddOp {
            inputs: TensorList(list),
            shift_read,
            output: *output,
            act: *act,
            shift_write: *shift_write,
        })),
    }
}

fn borrow_tensor(t: &ProgramTensor) -> TensorDesc<'_> {
    TensorDesc {
        name: &t.name,
        origin: &t.origin,
        shape: t.shape,
        dtype: t.dtype,
        pos: t.pos,
        place: t.place,
        role: t.role,
    }
}

fn borrow_span(s: &Span) -> LayerSpan<'_> {
    LayerSpan { layer: &s.layer, step: s.step, first: s.first, count: s.count, macs: s.macs, output: s.output }
}
