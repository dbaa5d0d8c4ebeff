//! Averages that the DPU computes otherwise than the vendor's simulation, measured on data.
//!
//! The DPU sums a window with zeros for padding and multiplies by m / 2^n. The simulation divides by the cells that
//! exist, and for some windows it divides exactly. See DIVERGENCES.md.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::graph::{IntAct, IntGraph, IntOp, IntOpKind, Kind, TensorIx};
use shiftwise_core::arith::Round;
use shiftwise_core::fix::{self, FixSpec};
use shiftwise_graph::graph::{Graph, Node};
use shiftwise_graph::ops::Op;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_tensor::tensor::Tensor;
use shiftwise_tensor::values::Values;

/// Why an average differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its windows reach over the input's borders.
    Padding,
    /// Its window is a rectangle for which the simulation has no factor.
    Rectangle,
    /// It was quantized without the DPU's factor.
    Division,
}

/// Names in JSON, what the DPU does, and what helps.
const CAUSES: [(Cause, &str, &str, &str); 3] = [
    (
        Cause::Padding,
        "padding",
        "it counts padding as zeros, the vendor's simulation leaves it out",
        "use padding=\"valid\", behind a ZeroPadding2D if the size shall stay, or GlobalAveragePooling2D for the whole map",
    ),
    (
        Cause::Rectangle,
        "rectangle",
        "its factor for this rectangle is m/2^n, the vendor's simulation divides exactly",
        "use a square window, or GlobalAveragePooling2D for the whole map",
    ),
    (
        Cause::Division,
        "division",
        "it multiplies by m/2^n, the vendor's simulation divides exactly",
        "quantize with convert_average_pooling2d_to_dpu_version=true",
    ),
];

impl Cause {
    fn of(graph: &Graph, node: &Node) -> Option<Self> {
        let input = graph.node(*node.inputs.first()?).shape.as_slice();
        match &node.op {
            Op::AveragePooling2D(p) => {
                let window = p.pool.window(input).ok()?;
                if window.pad_before != [0, 0] || window.pad_after != [0, 0] {
                    Some(Self::Padding)
                } else if !p.dpu {
                    Some(Self::Division)
                } else {
                    p.factor_window(&node.shape).is_none().then_some(Self::Rectangle)
                }
            }
            Op::GlobalAveragePooling2D(p) => (!p.dpu).then_some(Self::Division),
            _ => None,
        }
    }

    /// Its name in JSON, what the DPU does, and what helps.
    fn texts(self) -> (&'static str, &'static str, &'static str) {
        let row = CAUSES.iter().find(|(cause, ..)| *cause == self);
        row.map_or(("", "", ""), |(_, name, why, remedy)| (name, why, remedy))
    }
}

/// How far an average on the DPU was from the simulation of the same layer on the same input.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The layer.
    pub layer: String,
    /// Why.
    pub cause: Cause,
    /// The largest difference, in steps of the layer's output.
    pub steps: u32,
    /// The same in the output's units.
    pub value: f32,
}

impl Difference {
    /// The cause's name in JSON, and what helps against it.
    pub fn words(&self) -> (&'static str, &'static str) {
        let (name, _, remedy) = self.cause.texts();
        (name, remedy)
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (_, why, remedy) = self.cause.texts();
        let (layer, value, steps) = (&self.layer, self.value, self.steps);
        let s = if steps == 1 { "" } else { "s" };
        write!(f, "layer `{layer}`: the DPU averages otherwise by up to {value} ({steps} step{s}): {why}; {remedy}")
    }
}

#[derive(Debug)]
struct Layer<'a> {
    node: &'a Node,
    cause: Cause,
    /// Where its input and output are, and the activation between them.
    input: TensorIx,
    output: TensorIx,
    act: IntAct,
    /// The largest difference so far: the same in whatever order samples come.
    steps: AtomicU32,
}

/// The averages of a network that may differ. Those that compute in floats can't.
#[derive(Debug)]
pub struct Averages<'a> {
    graph: &'a IntGraph,
    layers: Vec<Layer<'a>>,
}

impl<'a> Averages<'a> {
    /// `graph` is the integer form of `quantized`.
    pub fn new(quantized: &'a QuantGraph, graph: &'a IntGraph) -> Self {
        let is = |op: &IntOp, name: &str| {
            let rest = op.layer.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('+'))
        };
        let layer = |node: &'a Node| {
            let cause = Cause::of(&quantized.graph, node)?;
            graph.ops.iter().find_map(|op| match op.kind {
                IntOpKind::AveragePool { act, .. } if is(op, &node.name) => {
                    let (input, output) = (*op.inputs.first()?, op.output);
                    Some(Layer { node, cause, input, output, act, steps: AtomicU32::new(0) })
                }
                _ => None,
            })
        };
        Self { graph, layers: quantized.graph.nodes.iter().filter_map(layer).collect() }
    }

    /// Whether no average can differ.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// Whether [`Self::see`] needs this tensor.
    pub fn needs(&self, tensor: TensorIx) -> bool {
        self.layers.iter().any(|l| l.input == tensor || l.output == tensor)
    }

    /// Looks at the tensors of one sample.
    pub fn see(&self, values: &[Option<Values>]) {
        for layer in &self.layers {
            let tensor = |ix: TensorIx| Some((values.get(ix.0)?.as_ref()?, self.graph.tensors.get(ix.0)?));
            let (Some((x, input)), Some((Values::Int8(y), output))) = (tensor(layer.input), tensor(layer.output))
            else {
                continue;
            };
            let (Kind::Fixed(pos), Some(x)) =
                (output.kind, Tensor::new([&[1], input.shape.as_slice()].concat(), input.kind.reals(x)))
            else {
                continue;
            };
            let simulated = layer.node.op.layer().eval(&[&x], &[]);
            let apart = simulated.data().iter().zip(y).map(|(v, y)| {
                let v = fix::quantize(activated(*v, layer.act), FixSpec::int8(pos.0), Round::HalfUp);
                v.abs_diff(i32::from(*y))
            });
            layer.steps.fetch_max(apart.max().unwrap_or(0), Ordering::Relaxed);
        }
    }

    /// Counts what was seen elsewhere.
    pub fn recall(&self, layer: &str, steps: u32) {
        for own in self.layers.iter().filter(|own| own.node.name == layer) {
            own.steps.fetch_max(steps, Ordering::Relaxed);
        }
    }

    /// The averages that differed on what was seen, in the model's order.
    pub fn differences(&self) -> Vec<Difference> {
        let one = |layer: &Layer<'_>| {
            let steps = layer.steps.load(Ordering::Relaxed);
            let Kind::Fixed(pos) = self.graph.tensors.get(layer.output.0)?.kind else { return None };
            let value = fix::dequantize(i32::try_from(steps).ok()?, pos);
            (steps > 0).then(|| Difference { layer: layer.node.name.clone(), cause: layer.cause, steps, value })
        };
        self.layers.iter().filter_map(one).collect()
    }
}

fn activated(v: f32, act: IntAct) -> f32 {
    match act {
        IntAct::None => v,
        IntAct::Relu => v.max(0.0),
        IntAct::Relu6 => v.clamp(0.0, 6.0),
        IntAct::LeakyRelu => {
            if v < 0.0 {
                v * (26.0 / 256.0)
            } else {
                v
            }
        }
    }
}
