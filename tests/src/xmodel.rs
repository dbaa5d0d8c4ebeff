//! Files of the vendor's graph format, written from our own networks: a quantized graph as a quantizer exports it, and a
//! compiled program around our own compiler's code. The writer knows the format by its field numbers only.

use shiftwise_compile::Program;
use shiftwise_compile::program::ProgramStep;
use shiftwise_core::model::{Region, Role};
use shiftwise_integer::graph::{IntAct, IntConv, IntGraph, IntOpKind, Kind, TensorIx};

pub mod raw;

/// A protobuf message under construction.
#[derive(Clone, Debug, Default)]
pub struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut v: u64) {
        while v > 127 {
            self.0.push(v as u8 | 128);
            v >>= 7;
        }
        self.0.push(v as u8);
    }

    /// A number.
    pub fn int(mut self, field: u64, v: i64) -> Self {
        self.varint(field << 3);
        self.varint(v.cast_unsigned());
        self
    }

    /// Bytes, text or a message.
    pub fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    /// A message.
    pub fn message(self, field: u64, message: &Self) -> Self {
        self.bytes(field, &message.0)
    }

    /// An entry of a map of attributes.
    pub fn attr(self, field: u64, name: &str, value: &Self) -> Self {
        self.message(field, &Self::default().bytes(1, name.as_bytes()).message(2, value))
    }

    /// The bytes so far.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Attribute values.
fn int(v: i64) -> Message {
    Message::default().int(5, v)
}

fn text(v: &str) -> Message {
    Message::default().bytes(11, v.as_bytes())
}

fn data(v: &[u8]) -> Message {
    Message::default().message(12, &Message::default().bytes(1, v))
}

fn ints(v: &[i64]) -> Message {
    let mut packed = Message::default();
    v.iter().for_each(|v| packed.varint(v.cast_unsigned()));
    Message::default().message(14, &Message::default().bytes(1, &packed.0))
}

fn texts<T: AsRef<str>>(v: &[T]) -> Message {
    let list = v.iter().fold(Message::default(), |m, t| m.bytes(1, t.as_ref().as_bytes()));
    Message::default().message(20, &list)
}

fn map(field: u64, entries: &[(String, Message)]) -> Message {
    let entry =
        |(name, m): &(String, Message)| Message::default().bytes(1, name.as_bytes()).0.into_iter().chain(m.0.clone());
    let all = entries.iter().fold(Message::default(), |m, e| m.bytes(1, &entry(e).collect::<Vec<u8>>()));
    Message::default().message(field, &all)
}

/// An operation: name, type, attributes, arguments, tensor name, shape, whether it is float, tensor attributes.
struct Op<'a> {
    name: &'a str,
    kind: &'a str,
    attrs: Vec<(&'a str, Message)>,
    args: Vec<(&'a str, Vec<String>)>,
    tensor: String,
    shape: Vec<usize>,
    float: bool,
    tensor_attrs: Vec<(&'a str, Message)>,
}

impl<'a> Op<'a> {
    fn float(name: &'a str, kind: &'a str, shape: &[usize]) -> Self {
        let shape = shape.to_vec();
        Self { name, kind, attrs: vec![], args: vec![], tensor: name.into(), shape, float: true, tensor_attrs: vec![] }
    }

    fn reads(mut self, arg: &'a str, ops: &[String]) -> Self {
        self.args.push((arg, ops.to_vec()));
        self
    }

    fn with(mut self, name: &'a str, value: Message) -> Self {
        self.attrs.push((name, value));
        self
    }

    fn message(&self) -> Message {
        let mut packed = Message::default();
        self.shape.iter().for_each(|d| packed.varint(*d as u64));
        let (kind, bits) = if self.float { (4, 32) } else { (2, 8) };
        let mut tensor =
            Message::default().bytes(1, self.tensor.as_bytes()).bytes(2, &packed.0).int(5, kind).int(6, bits);
        for (name, value) in &self.tensor_attrs {
            tensor = tensor.attr(10, name, value);
        }
        let mut op = Message::default().bytes(1, self.name.as_bytes()).bytes(2, self.kind.as_bytes());
        for (name, value) in &self.attrs {
            op = op.attr(3, name, value);
        }
        for (name, ops) in &self.args {
            let arg = Message::default().bytes(1, name.as_bytes());
            op = op.message(4, &ops.iter().fold(arg, |m, o| m.bytes(2, o.as_bytes())));
        }
        op.message(5, &tensor)
    }
}

/// A graph being written: operations and the names of tensors' operations.
struct Writer<'a> {
    graph: &'a IntGraph,
    file: Message,
}

impl Writer<'_> {
    fn put(&mut self, op: &Op<'_>) {
        self.file = std::mem::take(&mut self.file).message(5, &op.message());
    }

    fn pos(&self, t: TensorIx) -> i32 {
        match self.graph.tensors[t.0].kind {
            Kind::Fixed(pos) => pos.0.into(),
            Kind::Float | Kind::Scaled(_) => 0,
        }
    }

    fn name(&self, t: TensorIx) -> String {
        self.graph.tensors[t.0].name.clone()
    }

    fn shape(&self, t: TensorIx) -> Vec<usize> {
        [&[1], self.graph.tensors[t.0].shape.as_slice()].concat()
    }

    /// A `fix` behind an operation.
    fn fix(&mut self, name: &str, from: &str, shape: &[usize], pos: i32, round: &str) {
        let mut op = Op::float(name, "fix", shape).reads("input", &[from.into()]);
        op.tensor = format!("{name}_fix");
        let op = op.with("fix_point", int(pos.into())).with("bit_width", int(8));
        self.put(&op.with("if_signed", int(1)).with("round_mode", text(round)));
    }

    /// A constant with its `fix`; returns the name to read.
    fn constant(&mut self, name: &str, q: &[i8], shape: &[usize], pos: i32) -> String {
        let floats: Vec<u8> = q.iter().flat_map(|q| (f32::from(*q) * (-pos as f32).exp2()).to_le_bytes()).collect();
        let raw = format!("{name}_value");
        self.put(&Op::float(&raw, "const", shape).with("data", data(&floats)).with("data_type", text("FLOAT32")));
        self.fix(name, &raw, shape, pos, "PY3_ROUND");
        name.into()
    }

    /// The input under another shape, if it has not this one.
    fn shaped(&mut self, name: &str, from: TensorIx, shape: &[usize]) -> String {
        if self.shape(from) == shape {
            return self.name(from);
        }
        let dims: Vec<i64> = shape.iter().map(|d| *d as i64).collect();
        let from = self.name(from);
        self.put(&Op::float(name, "reshape", shape).reads("input", &[from]).with("shape", ints(&dims)));
        name.into()
    }

    fn conv(&mut self, kind: &str, c: &IntConv, from: TensorIx, to: TensorIx) -> String {
        let name = self.name(to);
        let map = |m: [usize; 3]| [1, m[0], m[1], m[2]];
        let input = self.shaped(&format!("{name}/in"), from, &map(c.input));
        let [kh, kw] = c.window.kernel.map(usize::from);
        let wpos = c.shift_cut + self.pos(to) - self.pos(from);
        let bpos = self.pos(from) + wpos - c.shift_bias;
        let oc = c.output[2];
        let (kernel, shape) = if kind == "depthwise-conv2d" {
            (c.kernel.clone(), [1, kh, kw, oc])
        } else {
            let ic = c.kernel.len() / (kh * kw * oc);
            let mut kernel = Vec::new();
            for (o, tap) in (0..oc).flat_map(|o| (0..kh * kw).map(move |t| (o, t))) {
                // The file counts a transposed convolution's taps from the far end.
                let tap = if kind == "transposed-conv2d" { kh * kw - 1 - tap } else { tap };
                kernel.extend((0..ic).map(|i| c.kernel[(tap * ic + i) * oc + o]));
            }
            (kernel, [oc, kh, kw, ic])
        };
        let weights = self.constant(&format!("{name}/kernel"), &kernel, &shape, wpos);
        let bias = c.bias.as_ref().map(|b| self.constant(&format!("{name}/bias"), b, &[oc], bpos));
        let raw = format!("{name}/conv");
        let w = &c.window;
        let pair = |p: [u16; 2]| ints(&[p[1].into(), p[0].into()]);
        let pads = [w.pad_before[1], w.pad_after[1], w.pad_before[0], w.pad_after[0]].map(i64::from);
        let mut op = Op::float(&raw, kind, &map(c.output)).reads("input", &[input]).reads("weights", &[weights]);
        if let Some(bias) = bias {
            op = op.reads("bias", &[bias]);
        }
        let op = op.with("kernel", pair(w.kernel)).with("stride", pair(w.stride)).with("dilation", pair(w.dilation));
        self.put(&op.with("pad", ints(&pads)).with("pad_mode", text("FLOOR")).with("group", int(c.groups as i64)));
        raw
    }

    fn activated(&mut self, raw: String, act: IntAct, shape: &[usize]) -> String {
        let kind = match act {
            IntAct::None => return raw,
            IntAct::Relu => "relu",
            IntAct::Relu6 => "relu6",
            IntAct::LeakyRelu => "leaky-relu",
        };
        let name = format!("{raw}/{kind}");
        let alpha = Message(vec![9 << 3 | 5].into_iter().chain((26f32 / 256.0).to_le_bytes()).collect());
        let op = Op::float(&name, kind, shape).reads("input", &[raw]);
        self.put(&if act == IntAct::LeakyRelu { op.with("alpha", alpha) } else { op });
        name
    }

    /// Writes an op; `None` if the format has none for it.
    fn op(&mut self, kind: &IntOpKind, inputs: &[TensorIx], to: TensorIx) -> Option<()> {
        let (name, shape, pos) = (self.name(to), self.shape(to), self.pos(to));
        let raw = format!("{name}/op");
        let reads: Vec<String> = inputs.iter().map(|t| self.name(*t)).collect();
        let plain = |kind| Op::float(&raw, kind, &shape).reads("input", &reads);
        // A global pool gives a vector; the file's has a map of one pixel.
        let pixel = match *shape {
            [1, c] => vec![1, 1, 1, c],
            _ => shape.clone(),
        };
        let pooled = |kind, w: &shiftwise_core::shape::Window| {
            let pair = |p: [u16; 2]| ints(&[p[1].into(), p[0].into()]);
            let pads = [w.pad_before[1], w.pad_after[1], w.pad_before[0], w.pad_after[0]].map(i64::from);
            Op::float(&raw, kind, &pixel)
                .reads("input", &reads)
                .with("kernel", pair(w.kernel))
                .with("stride", pair(w.stride))
                .with("pad", ints(&pads))
        };
        let (raw, act, full) = match kind {
            IntOpKind::Conv(c) | IntOpKind::Depthwise(c) | IntOpKind::ConvTranspose(c) => {
                let kind = match kind {
                    IntOpKind::Conv(_) => "conv2d",
                    IntOpKind::Depthwise(_) => "depthwise-conv2d",
                    _ => "transposed-conv2d",
                };
                let raw = self.conv(kind, c, *inputs.first()?, to);
                (raw, c.act, vec![1, c.output[0], c.output[1], c.output[2]])
            }
            IntOpKind::MaxPool { window, act, .. } => {
                self.put(&pooled("maxpool2d", window));
                (raw, *act, pixel)
            }
            IntOpKind::AveragePool { window, act, .. } => {
                self.put(&pooled("avgpool2d", window));
                (raw, *act, pixel)
            }
            IntOpKind::Add { act, .. } => {
                self.put(&plain("add"));
                (raw, *act, shape.clone())
            }
            IntOpKind::Multiply { act, .. } => {
                self.put(&plain("mul"));
                (raw, *act, shape.clone())
            }
            IntOpKind::Concat { axis, .. } => {
                self.put(&plain("concat").with("axis", int(*axis as i64 + 1)));
                (raw, IntAct::None, shape.clone())
            }
            IntOpKind::HardSigmoid { .. } => {
                self.put(&plain("hard-sigmoid"));
                (raw, IntAct::None, shape.clone())
            }
            IntOpKind::UpSample { .. } => {
                self.put(&plain("resize").with("mode", text("NEAREST")));
                (raw, IntAct::None, shape.clone())
            }
            IntOpKind::View => {
                let dims: Vec<i64> = shape.iter().map(|d| *d as i64).collect();
                self.put(&plain("reshape").with("shape", ints(&dims)));
                (raw, IntAct::None, shape.clone())
            }
            IntOpKind::Requantize { act, .. } => (reads.first()?.clone(), *act, shape.clone()),
            _ => return None,
        };
        let activated = self.activated(raw, act, &full);
        if full == shape {
            self.fix(&name, &activated, &shape, pos, "DPU_ROUND");
            return Some(());
        }
        // The map first, then its reshape under the tensor's name.
        let map = format!("{name}/map");
        self.fix(&map, &activated, &full, pos, "DPU_ROUND");
        let dims: Vec<i64> = shape.iter().map(|d| *d as i64).collect();
        let mut op = Op::float(&name, "reshape", &shape).reads("input", &[map]).with("shape", ints(&dims));
        op.tensor = format!("{name}_fix");
        self.put(&op);
        Some(())
    }
}

/// The quantized graph of a network in the vendor's format: float operations with a `fix` behind each, whose tensor is
/// `NAME_fix` for the network's tensor NAME. `None` if the network has an op that the format lacks.
pub fn quantized(graph: &IntGraph) -> Option<Vec<u8>> {
    let mut w = Writer { graph, file: Message::default().bytes(1, graph.name.as_bytes()) };
    for t in &graph.inputs {
        let (name, shape) = (w.name(*t), w.shape(*t));
        let raw = name.strip_prefix("quant_").unwrap_or(&name).to_owned();
        if raw == name || !matches!(graph.tensors[t.0].kind, Kind::Fixed(_)) {
            return None;
        }
        w.put(&Op::float(&raw, "data", &shape).with("data_type", text("FLOAT32")));
        w.fix(&name, &raw, &shape, w.pos(*t), "DPU_ROUND");
    }
    for op in &graph.ops {
        w.op(&op.kind, &op.inputs, op.output)?;
    }
    let root = Message::default().bytes(1, b"root");
    let outputs: Vec<String> = graph.outputs.iter().map(|t| w.name(*t)).collect();
    Some(w.file.message(10, &root).attr(11, "return_ops", &texts(&outputs)).into_bytes())
}

/// A compiled program in the vendor's format: our compiler's code, with registers and places as a file states them.
/// `None` unless the whole network is one job.
pub fn compiled(graph: &IntGraph, program: &Program) -> Option<Vec<u8>> {
    let [ProgramStep::Dpu { offset, bytes, .. }] = program.steps.as_slice() else { return None };
    let code = &program.code[*offset as usize..(*offset + *bytes) as usize];
    let mut file = Message::default().bytes(1, graph.name.as_bytes());
    let mut dpu: Vec<Vec<u8>> = Vec::new();
    let mut user: Vec<String> = Vec::new();
    let leaf = |name: &str, ops: &[String]| {
        let s = Message::default().bytes(1, format!("subgraph_{name}").as_bytes());
        ops.iter().fold(s, |s, op| s.bytes(3, op.as_bytes()))
    };
    let place = |t: &shiftwise_compile::program::ProgramTensor, on_chip: bool| {
        let dims = t.shape.dims();
        let mut stride = vec![1i64; dims.len() + 1];
        (0..dims.len()).rev().for_each(|i| stride[i] = stride[i + 1] * i64::from(dims[i]));
        vec![
            ("fix_point", int(t.pos.0.into())),
            ("reg_id", int(t.place.region as i64)),
            ("ddr_addr", int(t.place.offset.into())),
            ("location", int(i64::from(!on_chip))),
            ("stride", ints(&stride)),
        ]
    };
    let shape = |t: &shiftwise_compile::program::ProgramTensor| {
        std::iter::once(1).chain(t.shape.dims().iter().map(|d| *d as usize)).collect::<Vec<_>>()
    };
    let fixed = |name: &str, kind: &str, from: Option<String>, t: &shiftwise_compile::program::ProgramTensor| {
        let mut op = Op { float: false, tensor: format!("{name}_fix"), ..Op::float("", "", &shape(t)) };
        op.args.extend(from.map(|f| ("input", vec![f])));
        op.tensor_attrs = place(t, false);
        let message = Op { name, kind, ..op };
        message.message()
    };
    for (t, ix) in graph.inputs.iter().map(|t| (&program.tensors[t.0], t)) {
        let name = graph.tensors[ix.0].name.clone();
        let raw = name.strip_prefix("quant_").unwrap_or(&name).to_owned();
        file = file
            .message(5, &fixed(&raw, "data-fix", None, t))
            .message(5, &fixed(&name, "upload", Some(raw.clone()), t));
        user.push(raw);
        dpu.push(leaf(&name, std::slice::from_ref(&name)).into_bytes());
    }
    for op in &graph.ops {
        let (name, from) = (&graph.tensors[op.output.0].name, graph.tensors[op.inputs[0].0].name.clone());
        let kind = if matches!(op.kind, IntOpKind::View) { "reshape-fix" } else { "conv2d-fix" };
        file = file.message(5, &fixed(name, kind, Some(from), &program.tensors[op.output.0]));
    }
    let mut order = Vec::new();
    let mut placed: Vec<String> = Vec::new();
    for span in &program.spans {
        let of_span = |layer: &str| layer.split('+').any(|l| span.layer.split('+').any(|m| l == m));
        let ops = graph.ops.iter().filter(|o| of_span(&o.layer) && !matches!(o.kind, IntOpKind::View));
        let names: Vec<String> = ops.map(|o| graph.tensors[o.output.0].name.clone()).collect();
        let s = leaf(&span.layer, &names).attr(5, "workload", &Message::default().int(8, 2 * span.macs as i64));
        order.push(format!("subgraph_{}", span.layer));
        dpu.push(s.into_bytes());
        placed.extend(names);
    }
    let rest = graph.ops.iter().map(|o| graph.tensors[o.output.0].name.clone()).filter(|n| !placed.contains(n));
    for name in rest {
        dpu.push(leaf(&name, std::slice::from_ref(&name)).into_bytes());
    }
    for t in &graph.outputs {
        let name = graph.tensors[t.0].name.clone();
        let roles = || {
            program.tensors.iter().filter(|p| matches!(p.role, Role::Output(_)) && p.place.region == Region::Outputs)
        };
        let own = roles().find(|p| p.name == name)?;
        let mut op = Op { float: false, tensor: format!("{name}_fix_download_0"), ..Op::float("", "", &shape(own)) };
        op.tensor_attrs = vec![("fix_point", int(own.pos.0.into()))];
        op.args.push(("input", vec![name.clone()]));
        let download = format!("{name}_download_0");
        file = file.message(5, &Op { name: &download, kind: "download", ..op }.message());
        dpu.push(leaf(&download, std::slice::from_ref(&download)).into_bytes());
    }
    let m = &program.memory;
    let sizes = [program.constants.len() as u32, m.workspace_bytes, m.input_bytes, m.output_bytes];
    let register = |(i, bytes): (usize, &u32)| (format!("REG_{i}"), Message::default().int(2, (*bytes).into()));
    let sizes: Vec<_> = sizes.iter().enumerate().map(register).collect();
    let blob = Message::default().message(2, &Message::default().bytes(1, &program.constants));
    let mut run = leaf("all", &[]);
    for s in &dpu {
        run = run.bytes(10, s);
    }
    let fingerprint = Message::default().int(8, program.fingerprint.cast_signed());
    let run = run.attr(5, "device", &text("DPU")).attr(5, "dpu_name", &text(&program.target));
    let run = run.attr(5, "dpu_fingerprint", &fingerprint).attr(5, "mc_code", &data(code));
    let run = run.attr(5, "reg_id_to_size", &map(22, &sizes)).attr(5, "children_topological_sort", &texts(&order));
    let run = run.attr(5, "reg_id_to_parameter_value", &map(27, &[("REG_0".into(), blob)]));
    let user = leaf("user", &user).attr(5, "device", &text("USER"));
    let root = Message::default().bytes(1, b"root").message(10, &user).message(10, &run);
    Some(file.message(10, &root).into_bytes())
}
