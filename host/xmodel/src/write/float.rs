//! Layers of the integer form as the format's operations on floats, up to what quantizes their results.

use shiftwise_core::fix::FixPos;
use shiftwise_core::shape::Window;
use shiftwise_graph::attributes::Attribute;
use shiftwise_graph::dtype::Dtype;
use shiftwise_graph::ops::{ActivationFn, Custom, LeakyRelu, Merge, Op};
use shiftwise_integer::graph::{ConvKind, IntAct, IntConv, IntGraph, IntOp, IntOpKind};
use shiftwise_tensor::tensor::Tensor;

use super::{Names, Node, Setting, Settings, form, settings};

/// Operations in the making.
#[derive(Debug)]
pub struct Writer<'a> {
    /// The network.
    pub graph: &'a IntGraph,
    /// The operations so far.
    pub nodes: Vec<Node>,
    /// The names of operations and tensors so far.
    pub names: Names,
}

/// An operation's name, and its shape with the batch.
pub type Value = (String, Vec<usize>);

impl<'a> Writer<'a> {
    /// Without operations.
    pub fn new(graph: &'a IntGraph) -> Self {
        Self { graph, nodes: Vec::new(), names: Names::default() }
    }

    /// Adds an operation under a name that is free, and returns that: `NAME/KIND` where a layer is several operations.
    fn add(&mut self, node: Node) -> String {
        let taken = self.names.has(&node.name);
        let name = if taken { format!("{}/{}", node.name, node.kind) } else { node.name.clone() };
        let name = self.names.free(&name);
        let mut node = Node { name: name.clone(), ..node };
        node.tensor.name.clone_from(&name);
        self.nodes.push(node);
        name
    }

    /// Adds a `fix`.
    pub fn fix(&mut self, name: &str, from: &str, shape: &[usize], pos: FixPos) -> String {
        self.add(Node::float(name, "fix", shape).reads("input", &[from.to_owned()]).and(form::fixed(pos)))
    }

    /// Adds the same values under another shape.
    pub fn reshape(&mut self, name: &str, from: &str, shape: &[usize]) -> String {
        let node = Node::float(name, "reshape", shape).reads("input", &[from.to_owned()]);
        self.add(node.with("shape", Setting::shape(shape)))
    }

    /// Adds a constant of floats.
    fn floats(&mut self, name: &str, shape: &[usize], values: impl Iterator<Item = f32>) -> String {
        let data = values.flat_map(f32::to_le_bytes).collect();
        let node = Node::float(name, "const", shape).and(settings([
            ("shape", Setting::shape(shape)),
            ("data_type", Setting::text("float32")),
            ("data", Setting::bytes(data)),
        ]));
        self.add(node)
    }

    /// Adds a constant of integers with its `fix`. The floats are the integers' exact values, so that quantizing them again
    /// gives the integers.
    fn integers(&mut self, name: &str, q: &[i8], shape: &[usize], pos: FixPos) -> String {
        let step = (-f32::from(pos.0)).exp2();
        let raw = self.floats(name, shape, q.iter().map(|q| f32::from(*q) * step));
        self.fix(&format!("{name}_fixneuron"), &raw, shape, pos)
    }

    /// Adds what a layer computes of `inputs`, its activation included; returns the last operation.
    ///
    /// Errors: a layer that the format has no operation for.
    pub fn op(&mut self, op: &IntOp, inputs: &[String]) -> Result<Value, String> {
        let names = LayerNames::of(self.graph, op);
        let shape = form::shape(self.graph, op.output);
        let plain = |kind: &str, shape: &[usize]| Node::float(&names.main, kind, shape).reads("input", inputs);
        let node = match &op.kind {
            IntOpKind::Conv(c) | IntOpKind::Depthwise(c) | IntOpKind::ConvTranspose(c) => {
                let kind = op.kind.conv().map_or(ConvKind::Dense, |(_, kind)| kind);
                let value = self.convolution(op, (c, kind), inputs, &names.main)?;
                return Ok(self.activated(value, c.act, &names));
            }
            IntOpKind::MaxPool { window, act, .. } | IntOpKind::AveragePool { window, act, .. } => {
                let average = matches!(op.kind, IntOpKind::AveragePool { .. });
                let value = self.pool(op, (window, average), inputs, &names.main)?;
                return Ok(self.activated(value, *act, &names));
            }
            IntOpKind::Add { act, .. } => {
                let main = self.add(plain("add", &shape));
                return Ok(self.activated((main, shape), *act, &names));
            }
            IntOpKind::Multiply { act, .. } => {
                let main = self.add(plain("mul", &shape));
                return Ok(self.activated((main, shape), *act, &names));
            }
            IntOpKind::Requantize { act, .. } => {
                let from = inputs.first().cloned().ok_or("it has no operand")?;
                let names = LayerNames { activation: Some(names.main.clone()), ..names };
                return Ok(self.activated((from, shape), *act, &names));
            }
            IntOpKind::Concat { axis, .. } => plain("concat", &shape).with("axis", Setting::int(*axis as i32 + 1)),
            IntOpKind::HardSigmoid { .. } => plain("hard-sigmoid", &shape),
            IntOpKind::UpSample { factor: [y, x], .. } => {
                let scale = vec![*x as f32, *y as f32];
                plain("resize", &shape).and(settings([
                    ("mode", Setting::text("NEAREST")),
                    ("align_corners", Setting::flag(false)),
                    ("half_pixel_centers", Setting::flag(false)),
                    ("scale", Setting::floats(scale)),
                ]))
            }
            IntOpKind::Pad { before, after } => plain("pad", &shape).and(padding(*before, *after)),
            IntOpKind::Permute { dims } => {
                let order = std::iter::once(0).chain(dims.iter().map(|d| *d as i32 + 1));
                plain("transpose", &shape).with("order", Setting::ints(order))
            }
            IntOpKind::View => plain("reshape", &shape).with("shape", Setting::shape(&shape)),
            IntOpKind::PRelu { alpha, alpha_shape, shift_positive, shift_negative } => {
                let pos = shift_negative - shift_positive;
                let pos = i8::try_from(pos).map_err(|_| format!("a position of {pos} is out of range"))?;
                let alpha = self.integers(&format!("{}_alpha", names.main), alpha, alpha_shape, FixPos(pos));
                plain("prelu", &shape).reads("weight", &[alpha])
            }
            IntOpKind::Softmax => plain("softmax", &shape).with("axis", Setting::int(shape.len() as i32 - 1)),
            IntOpKind::Quantize => {
                return inputs.first().cloned().map(|from| (from, shape)).ok_or_else(|| "it has no operand".into());
            }
            IntOpKind::Float { op: layer, weights, dtype, why } => {
                if *dtype != Dtype::Float32 {
                    return Err("it computes in other floats than those of 32 bits, which the format lacks".into());
                }
                self.float(layer, weights, plain("", &shape))
                    .map_err(|lacks| format!("{lacks}, and no integers: {why}"))?
            }
            IntOpKind::Dequantize => return Err("it only changes how values are read".into()),
            IntOpKind::FakeQuantize(_) | IntOpKind::Scaled(_) => {
                return Err(
                    "its numbers are no signed 8-bit integers with positions, which are all that a DPU's graph has"
                        .into(),
                );
            }
        };
        Ok((self.add(node), shape))
    }

    /// Adds an activation behind an operation.
    fn activated(&mut self, (from, shape): Value, act: IntAct, names: &LayerNames) -> Value {
        let Some((kind, _)) = form::activation(act) else { return (from, shape) };
        let name = names.activation.clone().unwrap_or_else(|| format!("{from}/{kind}"));
        let mut node = Node::float(&name, kind, &shape).reads("input", &[from]);
        if act == IntAct::LeakyRelu {
            node = node.with("alpha", Setting::float(LeakyRelu::DPU_ALPHA));
        }
        (self.add(node), shape)
    }

    fn convolution(
        &mut self,
        op: &IntOp,
        (c, kind): (&IntConv, ConvKind),
        inputs: &[String],
        name: &str,
    ) -> Result<Value, String> {
        let (Some(input), Some(from)) = (inputs.first(), op.inputs.first()) else {
            return Err("it has no operand".into());
        };
        let (wpos, bpos) = form::positions(self.graph, c, *from, op.output)?;
        let own = form::shape(self.graph, *from);
        let bias = |w: &mut Self| {
            let values = c.bias.as_ref();
            values.map(|b| w.integers(&format!("{name}_bias"), b, &[b.len()], bpos))
        };
        // A dense layer over all of a sample is a product with a matrix.
        let points: usize = c.input.iter().product();
        if own == [1, points] && c.kernel.len() == points * c.output[2] && kind == ConvKind::Dense {
            let weights = self.integers(&format!("{name}_weights"), &c.kernel, &[points, c.output[2]], wpos);
            let bias = bias(self);
            let shape = vec![1, c.output[2]];
            let node = Node::float(name, "matmul", &shape).reads("input", &[input.clone(), weights]);
            let node = bias.into_iter().fold(node, |node, bias| node.reads("bias", &[bias]));
            let node = node.with("transpose_a", Setting::flag(false)).with("transpose_b", Setting::flag(false));
            return Ok((self.add(node), shape));
        }
        let map = |m: [usize; 3]| vec![1, m[0], m[1], m[2]];
        let image = map(c.input);
        let input = if own == image { input.clone() } else { self.reshape(&format!("{name}_image"), input, &image) };
        let (q, shape) = form::kernel(c, kind);
        let weights = self.integers(&format!("{name}_weights"), &q, &shape, wpos);
        let bias = bias(self);
        let shape = map(c.output);
        let node = Node::float(name, form::convolution_name(kind), &shape);
        let node = node.reads("input", &[input]).reads("weights", &[weights]);
        let node = bias.into_iter().fold(node, |node, bias| node.reads("bias", &[bias]));
        Ok((self.add(node.and(form::convolution(c, kind))), shape))
    }

    fn pool(
        &mut self,
        op: &IntOp,
        (window, average): (&Window, bool),
        inputs: &[String],
        name: &str,
    ) -> Result<Value, String> {
        let from = op.inputs.first().map(|t| form::shape(self.graph, *t)).unwrap_or_default();
        let &[_, h, w, c] = &from[..] else { return Err("it pools what is no image".into()) };
        let out = [window.outputs(0, h as u32), window.outputs(1, w as u32)].map(|n| n as usize);
        let shape = vec![1, out[0], out[1], c];
        let kind = if average { "avgpool2d" } else { "maxpool2d" };
        let mut node = Node::float(name, kind, &shape).reads("input", inputs).and(form::window(window));
        node = node.with("pad_mode", Setting::text("FLOOR")).with("global", Setting::flag(false));
        if average {
            node = node.with("count_include_pad", Setting::flag(true));
            node = node.with("count_include_invalid", Setting::flag(true));
        }
        Ok((self.add(node), shape))
    }

    /// A layer in floats, as `node` with its type and attributes.
    fn float(&mut self, op: &Op, weights: &[Tensor], node: Node) -> Result<Node, String> {
        let rank = node.tensor.shape.len();
        let function = |function: ActivationFn| float_function(function, rank);
        let foreign = || format!("it has no operation on floats in the vendor's format (class {})", op.class());
        let (kind, all): (&str, Settings) = match op {
            Op::Activation(a) => function(a.function).ok_or_else(foreign)?,
            Op::Softmax(s) => {
                let axis = if s.axis < 0 { s.axis + rank as i64 } else { s.axis };
                ("softmax", settings([("axis", Setting::int(axis as i32))]))
            }
            Op::Relu(r) if r.negative_slope == 0.0 && r.threshold == 0.0 && r.max_value.is_none() => {
                ("relu", Vec::new())
            }
            Op::Relu(r) if r.negative_slope == 0.0 && r.threshold == 0.0 && r.max_value == Some(6.0) => {
                ("relu6", Vec::new())
            }
            Op::LeakyRelu(l) => ("leaky-relu", settings([("alpha", Setting::float(l.alpha))])),
            Op::Add(_) => ("add", Vec::new()),
            Op::Multiply(_) => ("mul", Vec::new()),
            Op::Merge(Merge::Subtract) => ("sub", Vec::new()),
            Op::Merge(Merge::Maximum) => ("max", Vec::new()),
            Op::Merge(Merge::Minimum) => ("min", Vec::new()),
            Op::Concatenate(c) => ("concat", settings([("axis", Setting::int(c.axis as i32 + 1))])),
            Op::Reshape(_) | Op::Flatten(_) => ("reshape", settings([("shape", Setting::shape(&node.tensor.shape))])),
            Op::Permute(p) => {
                let order = std::iter::once(0).chain(p.dims.iter().map(|d| *d as i32 + 1));
                ("transpose", settings([("order", Setting::ints(order))]))
            }
            Op::Custom(custom) => return Ok(self.custom(custom, weights, node)),
            _ => return Err(foreign()),
        };
        Ok(Node { kind: kind.to_owned(), ..node }.and(all))
    }

    /// A layer of the user's own: its class, its configuration as far as the format has types for it, and its weights.
    fn custom(&mut self, custom: &Custom, weights: &[Tensor], mut node: Node) -> Node {
        let own: Vec<(String, &Tensor)> = custom.weights.iter().map(|(name, _)| name.clone()).zip(weights).collect();
        for (name, tensor) in own {
            let constant = self.floats(&format!("{name}:0_const"), tensor.shape(), tensor.data().iter().copied());
            if let Some((_, read)) = node.args.first_mut() {
                read.push(constant);
            }
        }
        let shape = Setting::shape(&node.tensor.shape);
        node.kind.clone_from(&custom.class);
        node = node.with("shape", shape).with("data_type", Setting::text("FLOAT32"));
        for (name, value) in custom.config.iter() {
            let value = match value {
                Attribute::Flag(v) => Setting::flag(*v),
                Attribute::Integer(v) => match i32::try_from(*v) {
                    Ok(v) => Setting::int(v),
                    Err(_) => continue,
                },
                Attribute::Number(v) => Setting::float(*v as f32),
                Attribute::Text(v) => Setting::text(v),
                Attribute::Null | Attribute::List(_) | Attribute::Map(_) => continue,
            };
            node = node.with(name, value);
        }
        node
    }
}

/// The operation of a function on floats, if the format has it.
fn float_function(function: ActivationFn, rank: usize) -> Option<(&'static str, Settings)> {
    let plain = |name| Some((name, Vec::new()));
    match function {
        ActivationFn::Linear => plain("identity"),
        ActivationFn::Relu => plain("relu"),
        ActivationFn::Relu6 => plain("relu6"),
        ActivationFn::Softmax => Some(("softmax", settings([("axis", Setting::int(rank as i32 - 1))]))),
        ActivationFn::Sigmoid => plain("sigmoid"),
        ActivationFn::Tanh => plain("tanh"),
        ActivationFn::Elu => Some(("elu", settings([("alpha", Setting::float(1.0))]))),
        ActivationFn::Selu => plain("selu"),
        ActivationFn::Swish => plain("swish"),
        ActivationFn::Gelu => plain("gelu"),
        ActivationFn::Exponential => plain("exp"),
        ActivationFn::HardSwish => plain("hard-swish"),
        ActivationFn::LeakyRelu => Some(("leaky-relu", settings([("alpha", Setting::float(0.2))]))),
        ActivationFn::Softplus
        | ActivationFn::Softsign
        | ActivationFn::HardSigmoid
        | ActivationFn::HardSigmoid6
        | ActivationFn::Mish
        | ActivationFn::LogSoftmax => None,
    }
}

fn padding(before: [usize; 2], after: [usize; 2]) -> Settings {
    let [top, left] = before.map(|n| n as i32);
    let [bottom, right] = after.map(|n| n as i32);
    settings([
        ("paddings", Setting::ints([0, 0, top, bottom, left, right, 0, 0])),
        ("mode", Setting::text("CONSTANT")),
        ("constant_values", Setting::floats(vec![0.0])),
    ])
}

/// What the operations of one layer are called: as the vendor's tool calls a quantized layer, `quant_NAME`.
struct LayerNames {
    main: String,
    /// Of an activation that is a layer by itself.
    activation: Option<String>,
}

impl LayerNames {
    fn of(graph: &IntGraph, op: &IntOp) -> Self {
        let tensor = graph.tensors.get(op.output.0).map_or("", |t| t.name.as_str());
        let first = op.layer.split('+').next().unwrap_or_default();
        let owner = tensor.strip_prefix("quant_").unwrap_or(tensor);
        // The integers before a function that is computed in floats: by the layer itself, or by one behind it.
        if op.kind.conv().is_some() && !first.is_empty() && owner != first && owner.ends_with("_input") {
            return Self { main: format!("quant_{first}"), activation: None };
        }
        if first.is_empty() || owner == first || act(&op.kind) == IntAct::None {
            return Self { main: tensor.to_owned(), activation: None };
        }
        Self { main: format!("quant_{first}"), activation: Some(tensor.to_owned()) }
    }
}

/// The activation of an op.
fn act(kind: &IntOpKind) -> IntAct {
    match kind {
        IntOpKind::Conv(c) | IntOpKind::Depthwise(c) | IntOpKind::ConvTranspose(c) => c.act,
        IntOpKind::MaxPool { act, .. }
        | IntOpKind::AveragePool { act, .. }
        | IntOpKind::Add { act, .. }
        | IntOpKind::Multiply { act, .. }
        | IntOpKind::Requantize { act, .. } => *act,
        IntOpKind::Concat { .. }
        | IntOpKind::UpSample { .. }
        | IntOpKind::HardSigmoid { .. }
        | IntOpKind::Pad { .. }
        | IntOpKind::PRelu { .. }
        | IntOpKind::Permute { .. }
        | IntOpKind::View
        | IntOpKind::Scaled(_)
        | IntOpKind::Softmax
        | IntOpKind::Float { .. }
        | IntOpKind::FakeQuantize(_)
        | IntOpKind::Quantize
        | IntOpKind::Dequantize => IntAct::None,
    }
}
