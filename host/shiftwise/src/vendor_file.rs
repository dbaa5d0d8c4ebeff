//! Compiled programs in the vendor's format (`.xmodel`), as its runtime on a board loads them.
//!
//! The runtime runs one subgraph after the other, each on its device and with its own registers: what a subgraph on the DPU
//! reads is uploaded behind REG_2, what it leaves is downloaded from behind REG_3. So every run of layers on the DPU is
//! compiled as a network of its own, and what is between them is written as operations on floats, which the runtime's CPU
//! library computes. What the runtime asks of a file (DOC, its sources): every tensor of a subgraph on the DPU has a register, an
//! address and a location; an input is read by one `upload` of the subgraph; inputs and outputs are dense; tensors are found
//! by name.

use std::collections::BTreeMap;

use shiftwise_compile::{self as compile, DpuOptions, Placement};
use shiftwise_graph::error::Error;
use shiftwise_integer::graph::{IntGraph, IntOpKind, TensorIx};
use shiftwise_xmodel::Element;
use shiftwise_xmodel::write::float::Writer;
use shiftwise_xmodel::write::{Drawn, Node, Part, Setting, Settings, form, settings};

use crate::device::Device;

mod dpu;
mod work;

/// The libraries that run a subgraph: on the DPU, and on the CPU.
const DPU_RUNNER: [&str; 3] = ["libvart-dpu-runner.so", "libvart-sim-runner.so", "libvart-cpu-runner.so"];
const CPU_RUNNER: [&str; 3] = ["libvart-cpu-runner.so"; 3];

/// Compiles a network for a DPU into the bytes of a vendor's file.
///
/// `observe`: every tensor that a layer on the DPU makes is kept in memory. Layers that the vendor's format has no operation
/// for, and those whose numbers have no positions, are errors, with their names.
///
/// Errors: [`Error::Compile`], [`Error::Layer`], a network without a layer on the DPU.
pub fn write(graph: &IntGraph, device: &Device, observe: bool) -> Result<Vec<u8>, Error> {
    let options = DpuOptions { observe, ..DpuOptions::default() };
    let placement = compile::place(graph, &device.target, &options)?;
    if placement.jobs().is_empty() {
        let target = &device.target.name;
        return Err(Error::Compile(format!(
            "no layer of `{}` runs on {target}: there is nothing to write",
            graph.name
        )));
    }
    let mut own = Assembly::new(&placement);
    own.inputs();
    let ops = &placement.graph().ops;
    let mut at = 0;
    while at < ops.len() {
        if let Some(job) = placement.jobs().iter().find(|job| job.start == at) {
            own.flush();
            own.on_dpu(job.clone())?;
            at = job.end;
        } else {
            own.on_cpu(at)?;
            at += 1;
        }
    }
    own.outputs()?;
    own.flush();
    Ok(own.finish().to_bytes())
}

/// The operations that have a tensor's value.
#[derive(Clone, Debug, Default)]
struct Known {
    /// As integers.
    fixed: Option<String>,
    /// As floats.
    float: Option<String>,
}

/// A file in the making.
struct Assembly<'a> {
    placement: &'a Placement<'a>,
    writer: Writer<'a>,
    /// By tensor of the placed network.
    known: Vec<Known>,
    parts: Vec<Part>,
    /// Operations that are in a part already.
    placed: usize,
    results: Vec<String>,
}

impl<'a> Assembly<'a> {
    fn new(placement: &'a Placement<'a>) -> Self {
        let graph = placement.graph();
        let known = vec![Known::default(); graph.tensors.len()];
        Self { placement, writer: Writer::new(graph), known, parts: Vec::new(), placed: 0, results: Vec::new() }
    }

    fn graph(&self) -> &'a IntGraph {
        self.placement.graph()
    }

    fn name(&self, t: TensorIx) -> &'a str {
        self.graph().tensors.get(t.0).map_or("", |t| t.name.as_str())
    }

    /// Adds an operation on integers that the CPU or the user gives; returns its name.
    fn fixed(&mut self, name: &str, kind: &str, t: TensorIx, tensor: &str, device: &str) -> Node {
        let shape = form::shape(self.graph(), t);
        let pos = form::position(self.graph(), t).unwrap_or_default();
        let mut node = Node::float(&self.writer.names.free(name), kind, &shape);
        node.tensor.name = if tensor == node.name { tensor.to_owned() } else { self.writer.names.free(tensor) };
        node.tensor.element = Element::Fixed;
        node.tensor.settings = form::fixed(pos);
        node.with("device", Setting::text(device))
    }

    /// The inputs: each is a part of the user's.
    fn inputs(&mut self) {
        for t in self.graph().inputs.clone() {
            let (name, shape) = (self.name(t), form::shape(self.graph(), t));
            let raw = form::input_name(name);
            let node = match form::position(self.graph(), t) {
                Some(_) => {
                    let tensor = if raw == name { format!("{name}_fix") } else { name.to_owned() };
                    let node = self.fixed(raw, "data-fix", t, &tensor, "USER");
                    self.known[t.0].fixed = Some(node.name.clone());
                    node.with("shape", Setting::shape(&shape)).with("data_type", Setting::text("XINT8"))
                }
                None => {
                    let node = Node::float(&self.writer.names.free(name), "data", &shape);
                    self.known[t.0].float = Some(node.name.clone());
                    let node = node.with("device", Setting::text("USER"));
                    node.with("shape", Setting::shape(&shape)).with("data_type", Setting::text("FLOAT32"))
                }
            };
            let part = work::part(&node.name, vec![node.name.clone()], [0, 0]);
            self.parts.push(Part { settings: and(part.settings, [("device", Setting::text("USER"))]), ..part });
            self.writer.nodes.push(node);
            self.placed = self.writer.nodes.len();
        }
    }

    /// An op between the runs on the DPU.
    fn on_cpu(&mut self, index: usize) -> Result<(), Error> {
        let op = &self.graph().ops[index];
        let fail = |why: String| Error::layer(&op.layer, op.kind.name(), why);
        let first = self.writer.nodes.len();
        // The same integers under another shape.
        if let (IntOpKind::View, Some(from)) = (&op.kind, op.inputs.first().and_then(|t| self.known[t.0].fixed.clone()))
        {
            let (name, shape) = (self.name(op.output).to_owned(), form::shape(self.graph(), op.output));
            let node = self.fixed(&name, "reshape-fix", op.output, &format!("{name}_fix"), "CPU");
            self.known[op.output.0].fixed = Some(node.name.clone());
            self.writer.nodes.push(node.reads("input", &[from]).with("shape", Setting::shape(&shape)));
            return Ok(());
        }
        let inputs = op.inputs.iter().map(|t| self.float(*t)).collect::<Result<Vec<_>, _>>().map_err(fail)?;
        if matches!(op.kind, IntOpKind::Dequantize) {
            self.known[op.output.0].float = inputs.into_iter().next();
            return Ok(());
        }
        let (mut last, shape) = self.writer.op(op, &inputs).map_err(fail)?;
        let own = form::shape(self.graph(), op.output);
        if shape != own {
            last = self.writer.reshape(&format!("{}_reshaped", self.name(op.output)), &last, &own);
        }
        for node in &mut self.writer.nodes[first..] {
            if !node.settings.iter().any(|(name, _)| name == "device") {
                node.settings.push(("device".into(), Setting::text("CPU")));
            }
        }
        match form::position(self.graph(), op.output) {
            None => self.known[op.output.0].float = Some(last),
            Some(pos) => {
                let name = self.name(op.output);
                let node = self.fixed(&format!("{name}_fix"), "float2fix", op.output, &format!("{name}_fix"), "CPU");
                self.known[op.output.0].fixed = Some(node.name.clone());
                self.writer.nodes.push(node.reads("input", &[last]).and(form::fixed(pos)));
            }
        }
        Ok(())
    }

    /// A tensor's value as floats, which a `fix2float` gives where it has integers.
    fn float(&mut self, t: TensorIx) -> Result<String, String> {
        if let Some(known) = &self.known[t.0].float {
            return Ok(known.clone());
        }
        let missing = || format!("it reads `{}`, which nothing computes", self.name(t));
        let from = self.known[t.0].fixed.clone().ok_or_else(missing)?;
        let pos = form::position(self.graph(), t).unwrap_or_default();
        let name = self.writer.names.free(&format!("{}_fix_", self.name(t)));
        let node = Node::float(&name, "fix2float", &form::shape(self.graph(), t)).reads("input", &[from]);
        self.writer.nodes.push(node.and(form::fixed(pos)).with("device", Setting::text("CPU")));
        self.known[t.0].float = Some(name.clone());
        Ok(name)
    }

    /// Makes a part of what the CPU has computed since the last one.
    fn flush(&mut self) {
        let names: Vec<String> = self.writer.nodes[self.placed..].iter().map(|node| node.name.clone()).collect();
        self.placed = self.writer.nodes.len();
        let Some(first) = names.first().cloned() else { return };
        let part = work::part(&first, names, [0, 0]);
        let device = [("device", Setting::text("CPU")), ("runner", runner(CPU_RUNNER))];
        self.parts.push(Part { settings: and(part.settings, device), ..part });
    }

    /// The results, as floats.
    fn outputs(&mut self) -> Result<(), Error> {
        for t in self.graph().outputs.clone() {
            let name = self.float(t).map_err(Error::model)?;
            self.results.push(name);
        }
        Ok(())
    }

    fn finish(self) -> Drawn {
        let total = |k: usize| self.parts.iter().map(|part| work::of_part(part)[k]).sum();
        let work = work::settings([total(0), total(1)]);
        let root = Part { name: "root".into(), parts: self.parts, settings: work, ..Part::default() };
        let libraries = BTreeMap::from([("shiftwise".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
        let all = [
            ("origin", Setting::text("tensorflow2")),
            ("libs_info", Setting::text_map(libraries)),
            ("return_ops", Setting::texts(self.results)),
        ];
        let (name, nodes) = (self.writer.graph.name.clone(), self.writer.nodes);
        Drawn { name, nodes, root, settings: settings(all) }
    }
}

/// Settings with some more.
fn and<const N: usize>(mut all: Settings, more: [(&str, Setting); N]) -> Settings {
    all.extend(settings(more));
    all
}

fn runner([run, sim, reference]: [&str; 3]) -> Setting {
    let rows = [("run", run), ("sim", sim), ("ref", reference)];
    Setting::text_map(rows.into_iter().map(|(name, library)| (name.to_owned(), library.to_owned())).collect())
}
