//! A run of layers on the DPU as a subgraph: its code, its registers, and where each tensor lies.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use shiftwise_compile::program::ProgramStep;
use shiftwise_compile::{self as compile, DpuOptions, Placement, Program};
use shiftwise_core::model::{Place, Region, Role};
use shiftwise_graph::error::Error;
use shiftwise_integer::graph::{ConvKind, IntAct, IntConv, IntGraph, IntOp, IntOpKind, TensorIx, image};
use shiftwise_xmodel::Element;
use shiftwise_xmodel::write::{Node, Part, Setting, Settings, form, settings};

use super::{Assembly, DPU_RUNNER, runner, work};

/// What the vendor's files say of a hard sigmoid that a convolution does not have.
const NO_SIGMOID: i32 = -128;
/// Bytes between places where our compiler puts constants.
const ALIGN: usize = 16;

/// The ops of a run as a network of its own, with the tensors of the whole that its tensors are.
fn cut(graph: &IntGraph, job: Range<usize>) -> (IntGraph, Vec<TensorIx>) {
    let ops = &graph.ops[job.clone()];
    let made = |t: &TensorIx| ops.iter().any(|op| op.output == *t);
    let mut whole: Vec<TensorIx> = ops.iter().flat_map(|op| op.inputs.iter().copied().chain([op.output])).collect();
    whole.sort();
    whole.dedup();
    let own = |t: &TensorIx| TensorIx(whole.binary_search(t).unwrap_or_default());
    let read_elsewhere = |t: &TensorIx| {
        let elsewhere = graph.ops[..job.start].iter().chain(&graph.ops[job.end..]);
        graph.outputs.contains(t) || elsewhere.flat_map(|op| &op.inputs).any(|i| i == t)
    };
    let renamed = |op: &IntOp| IntOp {
        kind: op.kind.clone(),
        inputs: op.inputs.iter().map(own).collect(),
        output: own(&op.output),
        layer: op.layer.clone(),
    };
    let part = IntGraph {
        name: graph.name.clone(),
        tensors: whole.iter().map(|t| graph.tensors[t.0].clone()).collect(),
        ops: ops.iter().map(renamed).collect(),
        inputs: whole.iter().filter(|t| !made(t)).map(own).collect(),
        outputs: whole.iter().filter(|t| made(t) && read_elsewhere(t)).map(own).collect(),
    };
    (part, whole)
}

impl Assembly<'_> {
    /// Adds a run of ops as a subgraph.
    pub(super) fn on_dpu(&mut self, job: Range<usize>) -> Result<(), Error> {
        let (graph, whole) = cut(self.graph(), job);
        let options = DpuOptions { strict: true, ..*self.placement.options() };
        let placement = compile::place(&graph, self.placement.target(), &options)?;
        let program = compile::compile(&placement)?;
        let [ProgramStep::Dpu { offset, bytes, .. }] = program.steps[..] else {
            let layer = graph.ops.first().map_or("", |op| op.layer.as_str());
            return Err(Error::Compile(format!(
                "layer `{layer}`: it and those behind it do not run on the DPU by themselves"
            )));
        };
        let first = self.writer.nodes.len();
        let code = program.code.get(offset as usize..(offset + bytes) as usize).unwrap_or_default().to_vec();
        let constants = program.constants.clone();
        let mut run = Run {
            all: self,
            graph: placement.graph(),
            placement: &placement,
            program: &program,
            whole: &whole,
            values: vec![None; placement.graph().tensors.len()],
            constants,
            searched: 0,
            children: Vec::new(),
            order: Vec::new(),
        };
        run.uploads()?;
        run.layers()?;
        run.downloads()?;
        run.prune(first);
        let part = run.part(code);
        self.parts.push(part);
        self.placed = self.writer.nodes.len();
        Ok(())
    }
}

struct Run<'r, 'a> {
    all: &'r mut Assembly<'a>,
    graph: &'r IntGraph,
    placement: &'r Placement<'r>,
    program: &'r Program,
    /// By tensor of the run: that of the whole network.
    whole: &'r [TensorIx],
    /// By tensor of the run: the operation that has its value.
    values: Vec<Option<String>>,
    /// Weights and biases, and behind them those that the program has in another order.
    constants: Vec<u8>,
    /// Constants up to here belong to operations before.
    searched: usize,
    children: Vec<Part>,
    order: Vec<String>,
}

/// Whether a row's name ends where an op's layers do, or goes on with those of the next op.
fn is_end(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('+')
}

/// Elements between neighbours of a dense tensor.
fn dense(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i].saturating_mul(shape[i]);
    }
    strides
}

fn number(n: usize) -> Setting {
    Setting::int(i32::try_from(n).unwrap_or(i32::MAX))
}

/// Where a tensor lies: its register, address and strides; `on_chip` for what is in no memory.
fn place(place: Place, stride: &[usize], on_chip: bool) -> Settings {
    let mut all = settings([
        ("reg_id", Setting::int(place.region as i32)),
        ("ddr_addr", number(place.offset as usize)),
        ("location", Setting::int(i32::from(!on_chip))),
    ]);
    if !on_chip {
        all.push(("stride".into(), Setting::shape(stride)));
    }
    all
}

impl Run<'_, '_> {
    fn name(&self, t: TensorIx) -> String {
        self.graph.tensors[t.0].name.clone()
    }

    /// The place of a tensor under a shape of the same elements, and its strides.
    fn place(&self, t: TensorIx, shape: &[usize]) -> (Place, Vec<usize>) {
        let output = self.graph.outputs.iter().position(|o| *o == t).and_then(|n| u8::try_from(n).ok());
        let as_output = output.and_then(|n| self.program.tensors.iter().find(|p| p.role == Role::Output(n)));
        let own = as_output.unwrap_or(&self.program.tensors[t.0]).place;
        let (mut at, mut outer) = (own.offset as usize, None);
        let mut inner = t;
        while let Some((home, [y, x, c])) = self.placement.home(inner) {
            // Offsets are those of the outermost tensor's rows and pixels.
            let mut last = home;
            while let Some((next, _)) = self.placement.home(last) {
                last = next;
            }
            let [_, w, channels] = image(&self.graph.tensors[last.0].shape);
            at += (y as usize * w + x as usize) * channels + c as usize;
            (outer, inner) = (Some([w * channels, channels]), home);
        }
        let place = Place { region: own.region, offset: u32::try_from(at).unwrap_or(u32::MAX) };
        let stride = match (outer, shape) {
            (Some([row, pixel]), &[_, h, _, _]) => vec![h * row, row, pixel, 1],
            _ => dense(shape),
        };
        (place, stride)
    }

    /// An operation of the subgraph whose integers lie where tensor `t` does.
    fn node(&mut self, name: &str, kind: &str, tensor: &str, t: TensorIx, shape: &[usize]) -> Node {
        let mut node = Node::float(&self.all.writer.names.free(name), kind, shape);
        node.tensor.name = if tensor == node.name { tensor.to_owned() } else { self.all.writer.names.free(tensor) };
        node.tensor.element = Element::Fixed;
        node.tensor.settings = form::fixed(form::position(self.graph, t).unwrap_or_default());
        node.with("device", Setting::text("DPU"))
    }

    /// A subgraph of one operation that has no code.
    fn moved(&mut self, node: &Node) {
        let part = work::part(&node.name, vec![node.name.clone()], [0, 0]);
        self.children
            .push(Part { settings: super::and(part.settings, [("skip_code_gen", Setting::flag(true))]), ..part });
    }

    fn uploads(&mut self) -> Result<(), Error> {
        for t in self.graph.inputs.clone() {
            let known = self.all.known[self.whole[t.0].0].fixed.clone();
            let from = known.ok_or_else(|| Error::Compile(format!("`{}` has no integers to upload", self.name(t))))?;
            let shape = form::shape(self.graph, t);
            let tensor = self.all.writer.nodes.iter().find(|n| n.name == from).map_or(&from, |n| &n.tensor.name);
            let (name, tensor) = (format!("{from}_upload_0"), format!("{tensor}_upload_0"));
            let mut node = self.node(&name, "upload", &tensor, t, &shape).reads("input", &[from]);
            let (at, stride) = self.place(t, &shape);
            node.tensor.settings.extend(place(at, &stride, false));
            self.values[t.0] = Some(node.name.clone());
            self.moved(&node);
            self.all.writer.nodes.push(node);
        }
        Ok(())
    }

    /// The layers: what shares instructions is one subgraph.
    fn layers(&mut self) -> Result<(), Error> {
        let mut last: Option<u32> = None;
        for index in 0..self.graph.ops.len() {
            let op = &self.graph.ops[index];
            let span = self.program.spans.iter().find(|s| usize::from(s.output.0) == op.output.0 && s.count > 0);
            let row = self.program.layers.iter().find(|row| row.layer.strip_prefix(&op.layer).is_some_and(is_end));
            let work = work::of(self.graph, op, self.placement.target(), row.map(|row| row.engine_macs));
            let first = self.all.writer.nodes.len();
            let shown = self.layer(index, work).map_err(|why| Error::layer(&op.layer, op.kind.name(), why))?;
            let names = self.all.writer.nodes[first..].iter().map(|n| n.name.clone()).collect::<Vec<_>>();
            let code = span.map(|s| s.first);
            match (code, self.children.last_mut()) {
                (None, _) => {
                    let part = work::part(&shown, names, work);
                    let no_code = [("skip_code_gen", Setting::flag(true))];
                    self.children.push(Part { settings: super::and(part.settings, no_code), ..part });
                }
                (Some(at), Some(part)) if last == Some(at) => {
                    part.nodes.extend(names);
                    let [a, b] = work::of_part(part);
                    part.settings = work::settings([a + work[0], b + work[1]]);
                }
                (Some(_), _) => {
                    let part = work::part(&shown, names, work);
                    self.order.push(part.name.clone());
                    self.children.push(part);
                }
            }
            last = code;
        }
        Ok(())
    }

    /// Adds a layer's operations; returns the name of the one that computes.
    fn layer(&mut self, index: usize, amount: work::Work) -> Result<String, String> {
        let op = &self.graph.ops[index];
        let (t, own) = (op.output, form::shape(self.graph, op.output));
        let name = self.name(t);
        let is_output = self.graph.outputs.contains(&t);
        let fixed = if is_output { format!("{name}_fix_download_0") } else { format!("{name}_fix") };
        let on_chip = compile::is_on_chip(self.placement, index);
        let form = self.form(op, &name)?;
        let tensor = if form.shape == own { fixed.clone() } else { format!("{name}_fix_map") };
        let mut node = self.node(&name, form.kind, &tensor, t, &form.shape).and(form.settings);
        node.args = form.args;
        if amount != [0, 0] {
            node = node.and(work::settings(amount));
        }
        let (at, stride) = self.place(t, &form.shape);
        node.tensor.settings.extend(place(at, &stride, on_chip));
        let main = node.name.clone();
        self.all.writer.nodes.push(node);
        self.values[t.0] = Some(main.clone());
        if form.shape != own {
            let node = self.reshaped(&format!("{name}_reshaped"), &fixed, t, &main, &own, on_chip);
            self.values[t.0] = Some(node);
        }
        Ok(main)
    }

    /// Adds the same integers under another shape.
    fn reshaped(
        &mut self,
        name: &str,
        tensor: &str,
        t: TensorIx,
        from: &str,
        shape: &[usize],
        on_chip: bool,
    ) -> String {
        let mut node = self.node(name, "reshape-fix", tensor, t, shape).reads("input", &[from.to_owned()]);
        let (at, _) = self.place(t, shape);
        node.tensor.settings.extend(place(at, &dense(shape), on_chip));
        let name = node.name.clone();
        self.all.writer.nodes.push(node.with("shape", Setting::shape(shape)));
        name
    }

    fn downloads(&mut self) -> Result<(), Error> {
        for t in self.graph.outputs.clone() {
            let shape = form::shape(self.graph, t);
            let from = self.values[t.0].clone().unwrap_or_default();
            let tensor = format!("{}_fix", self.name(t));
            let node = self.node(&format!("{from}_download_0"), "download", &tensor, t, &shape).reads("input", &[from]);
            self.all.known[self.whole[t.0].0].fixed = Some(node.name.clone());
            self.children.push(work::part(&node.name, vec![node.name.clone()], [0, 0]));
            self.all.writer.nodes.push(node);
        }
        Ok(())
    }

    /// Takes away operations from `first` on that nothing reads: the runtime would take them for results.
    fn prune(&mut self, first: usize) {
        let nodes = &mut self.all.writer.nodes;
        let mut read: HashSet<String> = HashSet::new();
        let mut kept = Vec::new();
        for node in nodes.split_off(first).into_iter().rev() {
            if node.kind == "download" || read.contains(&node.name) {
                read.extend(node.args.iter().flat_map(|(_, names)| names.iter().cloned()));
                kept.push(node);
            }
        }
        let names: HashSet<&str> = kept.iter().map(|node| node.name.as_str()).collect();
        for part in &mut self.children {
            part.nodes.retain(|name| names.contains(name.as_str()));
        }
        self.children.retain(|part| !part.nodes.is_empty());
        let children = &self.children;
        self.order.retain(|name| children.iter().any(|part| part.name == *name));
        nodes.extend(kept.into_iter().rev());
    }

    /// The subgraph.
    fn part(self, code: Vec<u8>) -> Part {
        let (m, program) = (&self.program.memory, self.program);
        let sizes =
            [self.constants.len() as u64, m.workspace_bytes.into(), m.input_bytes.into(), m.output_bytes.into()];
        let kinds = [
            ("CONST", "CONST", "W0"),
            ("DATA", "WORKSPACE", "D0"),
            ("DATA", "INTERFACE", "D0"),
            ("DATA", "INTERFACE", "D0"),
        ];
        let there: Vec<usize> = (0..4).filter(|i| sizes[*i] > 0).collect();
        let texts = |of: fn(&(&'static str, &'static str, &'static str)) -> &'static str| {
            Setting::text_map(there.iter().map(|i| (format!("REG_{i}"), of(&kinds[*i]).to_owned())).collect())
        };
        let bytes = there.iter().map(|i| (format!("REG_{i}"), i32::try_from(sizes[*i]).unwrap_or(i32::MAX)));
        let (context, newer, segment) = (texts(|k| k.0), texts(|k| k.1), texts(|k| k.2));
        let bytes = Setting::int_map(bytes.collect());
        let blob: BTreeMap<String, Vec<u8>> = if self.constants.is_empty() {
            BTreeMap::new()
        } else {
            BTreeMap::from([("REG_0".into(), self.constants)])
        };
        let total = |k: usize| self.children.iter().map(|part| work::of_part(part)[k]).sum();
        let work = work::settings([total(0), total(1)]);
        let name = self.order.first().cloned().unwrap_or_default();
        // A design that is known by its fingerprint alone has that in its name here, and not in the vendor's.
        let design = format!("_{:016X}", program.fingerprint);
        let mut all = settings([
            ("device", Setting::text("DPU")),
            ("dpu_name", Setting::text(program.target.strip_suffix(&design).unwrap_or(&program.target))),
            ("dpu_fingerprint", Setting::wide(program.fingerprint)),
            ("mc_code", Setting::bytes(code)),
            ("mc_code_preload", Setting::bytes(Vec::new())),
            ("reg_id_to_context_type", context),
            ("reg_id_to_context_type_v2", newer),
            ("reg_id_to_hw_segment", segment),
            ("reg_id_to_size", bytes),
            ("reg_id_to_parameter_value", Setting::bytes_map(blob)),
            ("children_topological_sort", Setting::texts(self.order)),
            ("runner", runner(DPU_RUNNER)),
            ("if_prefetch", Setting::flag(false)),
            ("debug_mode", Setting::text("performance")),
        ]);
        all.extend(work);
        Part { name, nodes: Vec::new(), parts: self.children, settings: all }
    }
}

/// An operation on integers, but for names and places.
struct Form {
    kind: &'static str,
    /// Of its result, with the batch.
    shape: Vec<usize>,
    args: Vec<(&'static str, Vec<String>)>,
    settings: Settings,
}

impl Run<'_, '_> {
    fn value(&self, t: TensorIx) -> Result<String, String> {
        self.values[t.0].clone().ok_or_else(|| format!("it reads `{}`, which nothing computes", self.name(t)))
    }

    /// The operation that a layer is.
    fn form(&mut self, op: &IntOp, name: &str) -> Result<Form, String> {
        let shape = form::shape(self.graph, op.output);
        let read = || op.inputs.iter().map(|t| self.value(*t)).collect::<Result<Vec<_>, _>>();
        let nonlinear = |act: IntAct| Setting::text(form::activation(act).map_or("NONE", |(_, name)| name));
        let position =
            |t: Option<&TensorIx>| t.and_then(|t| form::position(self.graph, *t)).map_or(0, |p| i32::from(p.0));
        let (kind, all): (&'static str, Settings) = match &op.kind {
            IntOpKind::Conv(c) => return self.convolution(op, c, ConvKind::Dense, name),
            IntOpKind::Depthwise(c) => return self.convolution(op, c, ConvKind::Depthwise, name),
            IntOpKind::ConvTranspose(c) => return self.convolution(op, c, ConvKind::Transposed, name),
            IntOpKind::MaxPool { window, act, .. } | IntOpKind::AveragePool { window, act, .. } => {
                let average = matches!(op.kind, IntOpKind::AveragePool { .. });
                let mut all = form::window(window);
                all.push(("type".into(), Setting::text(if average { "AVG" } else { "MAX" })));
                if *act != IntAct::None {
                    all.push(("nonlinear".into(), nonlinear(*act)));
                }
                let from = op.inputs.first().map(|t| form::shape(self.graph, *t)).unwrap_or_default();
                let &[_, h, w, c] = &from[..] else { return Err("it pools what is no image".into()) };
                let out = [window.outputs(0, h as u32), window.outputs(1, w as u32)].map(|n| n as usize);
                let shape = vec![1, out[0], out[1], c];
                return Ok(Form { kind: "pool-fix", shape, args: vec![("input", read()?)], settings: all });
            }
            IntOpKind::Add { act, .. } | IntOpKind::Requantize { act, .. } => {
                ("eltwise-fix", settings([("type", Setting::text("ADD")), ("nonlinear", nonlinear(*act))]))
            }
            IntOpKind::Multiply { act, .. } => {
                ("eltwise-fix", settings([("type", Setting::text("MUL")), ("nonlinear", nonlinear(*act))]))
            }
            IntOpKind::Concat { axis, .. } => ("concat-fix", settings([("axis", number(axis + 1))])),
            IntOpKind::HardSigmoid { shift } => (
                "hard-sigmoid-fix",
                settings([
                    ("hsigmoid_in", Setting::int(position(op.inputs.first()))),
                    ("shift_hsigmoid", Setting::int(*shift)),
                ]),
            ),
            IntOpKind::UpSample { factor: [y, x], .. } => (
                "upsample-fix",
                settings([
                    ("mode", Setting::text("NEAREST")),
                    ("align_corners", Setting::flag(false)),
                    ("half_pixel_centers", Setting::flag(false)),
                    ("scale", Setting::floats(vec![*x as f32, *y as f32])),
                ]),
            ),
            IntOpKind::Pad { before: [top, left], after: [bottom, right] } => (
                "pad-fix",
                settings([
                    ("paddings", Setting::shape(&[0, 0, *top, *bottom, *left, *right, 0, 0])),
                    ("mode", Setting::text("CONSTANT")),
                ]),
            ),
            IntOpKind::Permute { dims } => {
                let order: Vec<usize> = std::iter::once(0).chain(dims.iter().map(|d| d + 1)).collect();
                ("transpose", settings([("order", Setting::shape(&order))]))
            }
            IntOpKind::View => ("reshape-fix", settings([("shape", Setting::shape(&shape))])),
            IntOpKind::PRelu { .. }
            | IntOpKind::Scaled(_)
            | IntOpKind::Softmax
            | IntOpKind::Float { .. }
            | IntOpKind::FakeQuantize(_)
            | IntOpKind::Quantize
            | IntOpKind::Dequantize => return Err("the DPU has no such layer".into()),
        };
        Ok(Form { kind, shape, args: vec![("input", read()?)], settings: all })
    }

    fn convolution(&mut self, op: &IntOp, c: &IntConv, kind: ConvKind, name: &str) -> Result<Form, String> {
        let from = *op.inputs.first().ok_or("it has no operand")?;
        let (wpos, bpos) = form::positions(self.graph, c, from, op.output)?;
        let [ih, iw, ic] = c.input;
        let input = self.image(from, &[1, ih, iw, ic], name)?;
        let (q, shape) = form::kernel(c, kind);
        let weights = self.constant(&format!("{name}_weights"), &q, &shape, wpos);
        let mut args = vec![("input", vec![input]), ("weights", vec![weights])];
        if let Some(bias) = &c.bias {
            args.push(("bias", vec![self.constant(&format!("{name}_bias"), bias, &[bias.len()], bpos)]));
        }
        let mut all = form::convolution(c, kind);
        all.push(("nonlinear".into(), Setting::text(form::activation(c.act).map_or("NONE", |(_, name)| name))));
        let kind = match kind {
            ConvKind::Dense => {
                let sigmoid = ["hsigmoid_in", "shift_hsigmoid", "shift_hswish"];
                all.extend(sigmoid.map(|name| (name.to_owned(), Setting::int(NO_SIGMOID))));
                "conv2d-fix"
            }
            ConvKind::Depthwise => "depthwise-conv2d-fix",
            ConvKind::Transposed => "transposed-conv2d-fix",
        };
        let [oh, ow, oc] = c.output;
        Ok(Form { kind, shape: vec![1, oh, ow, oc], args, settings: all })
    }

    /// The value of a tensor as the image that a layer reads: that of which it is a view, or the same under another shape.
    fn image(&mut self, from: TensorIx, image: &[usize], name: &str) -> Result<String, String> {
        if form::shape(self.graph, from) == image {
            return self.value(from);
        }
        let view = self.graph.ops.iter().find(|op| op.output == from && matches!(op.kind, IntOpKind::View));
        let source = view.and_then(|op| op.inputs.first().copied());
        if let Some(source) = source.filter(|t| form::shape(self.graph, *t) == image) {
            return self.value(source);
        }
        let value = self.value(from)?;
        let tensor = format!("{name}_image_fix");
        Ok(self.reshaped(&format!("{name}_image"), &tensor, from, &value, image, false))
    }

    /// Adds a constant: where the program has it, or behind the program's own, for it may have it in another order.
    fn constant(&mut self, name: &str, q: &[i8], shape: &[usize], pos: shiftwise_core::fix::FixPos) -> String {
        let bytes: Vec<u8> = q.iter().map(|q| q.cast_unsigned()).collect();
        let own = self.program.constants.len();
        let found = (self.searched..own)
            .step_by(ALIGN)
            .find(|at| self.constants.get(*at..at + bytes.len()) == Some(&bytes[..]));
        let at = found.filter(|at| at + bytes.len() <= own).unwrap_or_else(|| {
            self.constants.resize(self.constants.len().next_multiple_of(ALIGN), 0);
            self.constants.extend(&bytes);
            self.constants.len() - bytes.len()
        });
        if at < own {
            self.searched = (at + bytes.len()).next_multiple_of(ALIGN);
        }
        let mut node = Node::float(&self.all.writer.names.free(name), "const-fix", shape).and(settings([
            ("shape", Setting::shape(shape)),
            ("data_type", Setting::text("XINT8")),
            ("data", Setting::bytes(Vec::new())),
            ("device", Setting::text("DPU")),
        ]));
        node.tensor.name = self.all.writer.names.free(&format!("{name}_fixneuron"));
        node.tensor.element = Element::Fixed;
        node.tensor.settings = form::fixed(pos);
        let at = Place { region: Region::Constants, offset: u32::try_from(at).unwrap_or(u32::MAX) };
        node.tensor.settings.extend(settings([
            ("reg_id", Setting::int(at.region as i32)),
            ("ddr_addr", number(at.offset as usize)),
            ("location", Setting::int(1)),
        ]));
        let name = node.name.clone();
        self.all.writer.nodes.push(node);
        name
    }
}
