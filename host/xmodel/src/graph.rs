//! A quantized graph of a file in integer form, and its evaluation.
//!
//! Both styles are read: float operations with `fix` behind them, as the vendor's quantizers write them, and the fused
//! fixed-point operations of compiled files. A run of operations with an integer form becomes an [`IntGraph`]; what has
//! none (custom operations, float arithmetic) is a [`Step::Host`] between two of them. Tensors keep the file's names.

use std::collections::HashMap;

use shiftwise_core::fix::FixPos;

use crate::value::{Held, constant, declared, quantization, quantize};
use crate::{Attr, Element, XOp, Xmodel, host};
use shiftwise_graph::budget::Budget;
use shiftwise_graph::error::Error;
use shiftwise_graph::ops::CustomLayers;
use shiftwise_integer::engine::Engine;
use shiftwise_integer::graph::{IntAct, IntGraph, IntOp, IntOpKind, IntTensor, Kind, TensorIx};
use shiftwise_tensor::values::Values;

pub(crate) mod kinds;

use kinds::Open;

/// A part of a graph, in execution order.
#[derive(Debug)]
pub enum Step {
    /// Operations in integer form; `ops` is the operation behind each tensor.
    Integer {
        /// The integer form. Its inputs are results of earlier steps.
        graph: IntGraph,
        /// By tensor: the operation whose result it is.
        ops: Vec<usize>,
    },
    /// An operation computed by [`host::compute`].
    Host(usize),
}

/// A graph made ready for evaluation.
#[derive(Debug)]
pub struct Program<'a> {
    model: &'a Xmodel,
    custom: CustomLayers,
    steps: Vec<Step>,
    /// Inputs: operations in the file's order.
    inputs: Vec<usize>,
}

/// Results by operation.
pub type Results = Vec<Option<Held>>;

impl<'a> Program<'a> {
    /// Plans a graph; `custom` are the custom layers that are known.
    ///
    /// Errors: an operation that has no integer form where integers are needed, or is none that can be computed.
    pub fn new(model: &'a Xmodel, custom: &CustomLayers) -> Result<Self, Error> {
        model.check_size()?;
        let mut plan = Plan::new(model, custom);
        for op in 0..model.ops.len() {
            let xop = &model.ops[op];
            plan.place(op).map_err(|why| Error::layer(&xop.name, &xop.kind, why))?;
        }
        plan.finish()?;
        let inputs = (0..model.ops.len()).filter(|i| is_input(&model.ops[*i])).collect();
        let steps = plan.steps();
        for step in &steps {
            if let Step::Integer { graph, .. } = step {
                graph.verify()?;
            }
        }
        Ok(Self { model, custom: custom.clone(), steps, inputs })
    }

    /// Its steps.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The operations that are its inputs.
    pub fn inputs(&self) -> &[usize] {
        &self.inputs
    }

    /// The integer form of a graph that has one as a whole, from its first quantized input on.
    ///
    /// Errors: an operation on the CPU between two on the DPU is named.
    pub fn into_integer(mut self) -> Result<IntGraph, Error> {
        let wanted: Vec<usize> = self.model.results();
        let is_integer = |s: &Step| matches!(s, Step::Integer { .. });
        if self.steps.iter().filter(|s| is_integer(s)).count() != 1 {
            let host = self.steps.iter().find_map(|s| if let Step::Host(op) = s { Some(*op) } else { None });
            let name = host.map_or("nothing", |op| self.model.ops[op].name.as_str());
            return Err(Error::model(format!("the graph has no integer form as a whole: `{name}` runs on the CPU")));
        }
        let at = self.steps.iter().position(is_integer).unwrap_or(0);
        let Step::Integer { mut graph, ops } = self.steps.swap_remove(at) else {
            return Err(Error::model("the graph is empty"));
        };
        let index: HashMap<usize, usize> = ops.iter().enumerate().map(|(ix, op)| (*op, ix)).collect();
        graph.outputs = wanted.iter().filter_map(|op| index.get(op).copied().map(TensorIx)).collect();
        graph.verify()?;
        Ok(graph)
    }

    /// Computes everything for one sample. `inputs` are the values of [`Program::inputs`], in order.
    ///
    /// Errors: an input of another size, an operation whose operands don't fit it.
    pub fn run(&self, inputs: Vec<Held>) -> Result<Results, Error> {
        let model = self.model;
        let mut results: Results = vec![None; model.ops.len()];
        for (op, held) in self.inputs.iter().zip(inputs) {
            let tensor = &model.ops[*op].tensor;
            if Some(held.len()) != tensor.elements() {
                let (name, shape, n) = (&tensor.name, &tensor.shape, held.len());
                return Err(Error::InputShape(format!("input `{name}` has shape {shape:?} and the data {n} values")));
            }
            results[*op] = Some(held);
        }
        for step in &self.steps {
            match step {
                Step::Integer { graph, ops } => {
                    let value = |ix: &TensorIx| results[ops[ix.0]].as_ref().map(|h| h.value.clone());
                    let inputs: Option<Vec<Values>> = graph.inputs.iter().map(value).collect();
                    let inputs = inputs.ok_or_else(|| Error::model("a step reads what no earlier one computes"))?;
                    let values = Engine::new(graph).run(inputs, |_| true);
                    for ((tensor, op), value) in graph.tensors.iter().zip(ops).zip(values) {
                        let shape = model.ops[*op].tensor.shape.clone();
                        results[*op] = value.map(|value| Held { value, kind: tensor.kind, shape });
                    }
                }
                Step::Host(op) => {
                    let xop = &model.ops[*op];
                    let fail = |why: String| Error::layer(&xop.name, &xop.kind, why);
                    let held = host_step(model, *op, &results, &self.custom).map_err(fail)?;
                    results[*op] = Some(held);
                }
            }
        }
        Ok(results)
    }
}

/// Computes one operation from the results so far; constants are read from the file.
pub fn host_step(model: &Xmodel, op: usize, results: &Results, custom: &CustomLayers) -> Result<Held, String> {
    let xop = &model.ops[op];
    let constants: HashMap<usize, Held> = xop
        .inputs()
        .filter(|i| results[*i].is_none())
        .filter_map(|i| Some((i, constant(&model.ops[i]).ok()?)))
        .map(|(i, values)| (i, Held::float(&model.ops[i].tensor.shape, values)))
        .collect();
    let operand = |i: usize| {
        let missing = || format!("`{}` has no value that it could read", model.ops[i].name);
        results[i].as_ref().or_else(|| constants.get(&i)).ok_or_else(missing)
    };
    if let Some(layer) = custom.get(&xop.kind) {
        let (weights, data): (Vec<usize>, Vec<usize>) = xop.inputs().partition(|i| model.ops[*i].is_const());
        let data = data.into_iter().map(operand).collect::<Result<Vec<_>, _>>()?;
        let weights = weights.into_iter().map(|i| Ok((model.ops[i].name.as_str(), operand(i)?)));
        return host::compute_custom(xop, layer, &data, &weights.collect::<Result<Vec<_>, String>>()?);
    }
    let operands = xop.inputs().map(operand).collect::<Result<Vec<_>, _>>()?;
    host::compute(xop, &operands)
}

/// Whether an operation is an input of the graph.
pub fn is_input(op: &XOp) -> bool {
    matches!(op.kind.as_str(), "data" | "data-fix")
}

/// What is known about an operation's result while planning.
#[derive(Clone, Debug)]
enum Form {
    /// A constant, read when it is needed.
    Constant,
    /// A constant that a `fix` quantizes.
    FixedConstant,
    /// Integers of a position.
    Fixed(i8),
    /// Floats.
    Float,
    /// A computation whose output position isn't known yet.
    Open(Open),
}

/// An operation in integer form: what it computes, what it reads, whose result it is.
#[derive(Debug)]
struct Planned {
    kind: IntOpKind,
    inputs: Vec<usize>,
    output: usize,
}

#[derive(Debug)]
enum Entry {
    Integer(Planned),
    Host(usize),
}

struct Plan<'a> {
    model: &'a Xmodel,
    custom: &'a CustomLayers,
    forms: Vec<Form>,
    entries: Vec<Entry>,
    parameters: HashMap<usize, Vec<i8>>,
    budget: Budget,
}

/// Bytes for each value of a constant that an operation reads: floats, integers, and integers in the order of an engine.
/// Any number of operations may read the same constant.
const CONSTANT: u64 = 8;

/// Concatenations of concatenations that are followed.
const MOST_NESTED: usize = 16;

impl<'a> Plan<'a> {
    fn new(model: &'a Xmodel, custom: &'a CustomLayers) -> Self {
        let forms = Vec::with_capacity(model.ops.len());
        let budget = Budget::for_file(model.bytes);
        Self { model, custom, forms, entries: Vec::new(), parameters: parameters(model), budget }
    }

    /// Decides about the next operation.
    fn place(&mut self, op: usize) -> Result<(), String> {
        let form = self.form(op)?;
        self.forms.push(form);
        Ok(())
    }

    /// Gives results that nothing quantizes the position that they have by themselves.
    fn finish(&mut self) -> Result<(), Error> {
        let mut read = vec![false; self.forms.len()];
        self.model.ops.iter().flat_map(XOp::inputs).for_each(|i| read[i] = true);
        for op in self.model.results().into_iter().chain((0..self.forms.len()).filter(|i| !read[*i])) {
            let Form::Open(open) = self.forms[op].clone() else { continue };
            let xop = &self.model.ops[op];
            let fail = |why: String| Error::layer(&xop.name, &xop.kind, why);
            let pos = open.natural.ok_or_else(|| fail("its result isn't quantized".into()))?;
            self.forms[op] = self.close(&open, op, pos, 0).map_err(fail)?;
        }
        Ok(())
    }

    fn form(&mut self, op: usize) -> Result<Form, String> {
        let model = self.model;
        let xop = &model.ops[op];
        Ok(match xop.kind.as_str() {
            "const" => Form::Constant,
            "const-fix" => Form::FixedConstant,
            "data" => Form::Float,
            "data-fix" => Form::Fixed(xop.tensor.position().ok_or("its integers have no fix_point")?),
            "fix" | "float2fix" => {
                let input = xop.inputs().next().ok_or("it has no operand")?;
                let (pos, _) = quantization(&xop.attrs)?;
                match self.forms[input].clone() {
                    Form::Constant => Form::FixedConstant,
                    Form::FixedConstant => return Err("it quantizes a constant twice".into()),
                    Form::Float => self.host(op, Form::Fixed(pos)),
                    Form::Fixed(from) => {
                        let shift = i32::from(from) - i32::from(pos);
                        self.integer(IntOpKind::Requantize { shift, act: IntAct::None }, vec![input], op, pos)
                    }
                    Form::Open(open) => self.close(&open, op, pos, 0)?,
                }
            }
            _ => match kinds::open(self, op)? {
                // Fixed-point operations say their position themselves.
                Some(open) if xop.tensor.element == Element::Fixed => {
                    let Kind::Fixed(pos) = declared(&xop.tensor)? else { return Ok(Form::Float) };
                    self.close(&open, op, pos.0, 0)?
                }
                Some(open) => Form::Open(open),
                None => self.on_host(op)?,
            },
        })
    }

    /// An operation for the CPU; what it reads is brought to a form with values first.
    fn on_host(&mut self, op: usize) -> Result<Form, String> {
        let xop = &self.model.ops[op];
        if !host::is_known(&xop.kind, self.custom) {
            return Err("it is no operation that can be computed here".into());
        }
        for input in xop.inputs() {
            match self.forms[input].clone() {
                Form::Open(open) => {
                    let pos = open.natural.ok_or_else(|| {
                        format!("it reads `{}`, whose result isn't quantized", self.model.ops[input].name)
                    })?;
                    self.forms[input] = self.close(&open, input, pos, 0)?;
                }
                Form::FixedConstant => return Err("it reads a quantized constant".into()),
                Form::Constant | Form::Fixed(_) | Form::Float => {}
            }
        }
        let form = match declared(&xop.tensor)? {
            Kind::Fixed(pos) => Form::Fixed(pos.0),
            Kind::Float | Kind::Scaled(_) => Form::Float,
        };
        Ok(self.host(op, form))
    }

    fn host(&mut self, op: usize, form: Form) -> Form {
        self.entries.push(Entry::Host(op));
        form
    }

    fn integer(&mut self, kind: IntOpKind, inputs: Vec<usize>, output: usize, pos: i8) -> Form {
        self.entries.push(Entry::Integer(Planned { kind, inputs, output }));
        Form::Fixed(pos)
    }

    /// Gives an open computation its output position; the result is that of operation `output`.
    fn close(&mut self, open: &Open, output: usize, pos: i8, depth: usize) -> Result<Form, String> {
        // Operands that are open too, of a concatenation: quantizing them is quantizing the whole.
        let mut positions = Vec::with_capacity(open.inputs.len());
        for input in &open.inputs {
            if let Form::Open(inner) = self.forms[*input].clone() {
                if depth == MOST_NESTED {
                    return Err("operands that aren't quantized are nested too deeply".into());
                }
                let to = if open.transparent { Some(pos) } else { inner.natural };
                let name = || format!("it reads `{}`, whose result isn't quantized", self.model.ops[*input].name);
                let to = to.ok_or_else(name)?;
                self.forms[*input] = self.close(&inner, *input, to, depth + 1)?;
            }
            match &self.forms[*input] {
                Form::Fixed(pos) => positions.push(*pos),
                Form::Float => {
                    return Err(format!("it reads `{}`, whose result isn't quantized", self.model.ops[*input].name));
                }
                _ => return Err(format!("it reads the constant `{}`", self.model.ops[*input].name)),
            }
        }
        self.budget.bytes(open.weights() as u64 * CONSTANT)?;
        let kind = kinds::close(open, &positions, pos)?;
        Ok(self.integer(kind, open.inputs.clone(), output, pos))
    }

    /// A quantized constant: integers and position. `Ok(None)` if the operation is none.
    fn constant(&self, op: usize) -> Result<Option<(Vec<i8>, i8)>, String> {
        let xop = &self.model.ops[op];
        self.budget.elements(&xop.tensor.shape, CONSTANT)?;
        match (&self.forms[op], xop.kind.as_str()) {
            (Form::FixedConstant, "const-fix") => {
                let pos = xop.tensor.position().ok_or("a constant has no fix_point")?;
                let own = xop.attrs.bytes("data").map(|b| b.iter().map(|b| b.cast_signed()).collect());
                let q = own.or_else(|| self.parameters.get(&op).cloned());
                let q: Vec<i8> = q.ok_or_else(|| format!("the constant `{}` has no values", xop.name))?;
                if Some(q.len()) != xop.tensor.elements() {
                    return Err(format!("the constant `{}` has {} values", xop.name, q.len()));
                }
                Ok(Some((q, pos)))
            }
            (Form::FixedConstant, _) => {
                let (pos, round) = quantization(&xop.attrs)?;
                let float = xop.inputs().next().ok_or("a fix has no operand")?;
                Ok(Some((quantize(&constant(&self.model.ops[float])?, pos, round), pos)))
            }
            _ => Ok(None),
        }
    }

    /// Consecutive operations in integer form as graphs.
    fn steps(self) -> Vec<Step> {
        let model = self.model;
        let mut steps = Vec::new();
        let mut run: Vec<Planned> = Vec::new();
        let mut kinds: HashMap<usize, Kind> = HashMap::new();
        for (op, form) in self.forms.iter().enumerate() {
            if let Form::Fixed(pos) = form {
                kinds.insert(op, Kind::Fixed(FixPos(*pos)));
            }
        }
        for entry in self.entries {
            match entry {
                Entry::Integer(planned) => run.push(planned),
                Entry::Host(op) => {
                    steps.extend(segment(model, std::mem::take(&mut run), &kinds));
                    steps.push(Step::Host(op));
                }
            }
        }
        steps.extend(segment(model, run, &kinds));
        steps
    }
}

fn segment(model: &Xmodel, run: Vec<Planned>, kinds: &HashMap<usize, Kind>) -> Option<Step> {
    if run.is_empty() {
        return None;
    }
    let mut graph = IntGraph {
        name: model.name.clone(),
        tensors: Vec::new(),
        ops: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
    };
    let mut ops: Vec<usize> = Vec::new();
    let mut index: HashMap<usize, TensorIx> = HashMap::new();
    let mut tensor = |op: usize, graph: &mut IntGraph, ops: &mut Vec<usize>| -> (TensorIx, bool) {
        if let Some(ix) = index.get(&op) {
            return (*ix, false);
        }
        let ix = TensorIx(graph.tensors.len());
        let t = &model.ops[op].tensor;
        let kind = kinds.get(&op).copied().unwrap_or(Kind::Float);
        graph.tensors.push(IntTensor { name: t.name.clone(), shape: t.shape.get(1..).unwrap_or(&[]).to_vec(), kind });
        ops.push(op);
        index.insert(op, ix);
        (ix, true)
    };
    for planned in run {
        let mut inputs = Vec::with_capacity(planned.inputs.len());
        for op in planned.inputs {
            let (ix, new) = tensor(op, &mut graph, &mut ops);
            if new {
                graph.inputs.push(ix);
            }
            inputs.push(ix);
        }
        let (output, _) = tensor(planned.output, &mut graph, &mut ops);
        let layer = model.ops[planned.output].name.clone();
        graph.ops.push(IntOp { kind: planned.kind, inputs, output, layer });
        graph.outputs.push(output);
    }
    Some(Step::Integer { graph, ops })
}

/// The constants of compiled subgraphs, from the contents of their registers.
fn parameters(model: &Xmodel) -> HashMap<usize, Vec<i8>> {
    let mut all = HashMap::new();
    for run in &model.root.children {
        let Some(blobs) = run.attrs.map("reg_id_to_parameter_value") else { continue };
        for op in run.all_ops() {
            let xop = &model.ops[op];
            let (Some(place), Some(len)) = (xop.tensor.place(), xop.tensor.elements()) else { continue };
            let blob = match blobs.get(&format!("REG_{}", place.register)) {
                Some(Attr::Bytes(blob)) if xop.kind == "const-fix" => blob,
                _ => continue,
            };
            let values = gather(&xop.tensor.shape, &place.stride, len, |at| {
                place.offset.checked_add(at).and_then(|at| blob.get(at)).map(|b| b.cast_signed())
            });
            all.extend(values.map(|v| (op, v)));
        }
    }
    all
}

/// A tensor's values from memory; `None` where memory has none.
pub fn gather<T>(shape: &[usize], stride: &[usize], len: usize, get: impl Fn(usize) -> Option<T>) -> Option<Vec<T>> {
    let at = |flat: usize| {
        let (mut rest, mut at) = (flat, 0usize);
        for (dim, stride) in shape.iter().zip(stride).rev() {
            at = at.checked_add((rest % dim).checked_mul(*stride)?)?;
            rest /= dim;
        }
        Some(at)
    };
    (0..len).map(|flat| get(at(flat)?)).collect()
}
