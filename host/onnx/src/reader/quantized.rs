//! Quantized values: pairs of QuantizeLinear and DequantizeLinear, operators that move integers, weights stored as integers.

use std::collections::BTreeMap;

use shiftwise_core::arith::Round;
use shiftwise_core::fix::FixPos;
use shiftwise_graph::budget::Budget;
use shiftwise_graph::graph::NodeId;
use shiftwise_graph::ops::{Op, Quantize};
use shiftwise_quant::regroup::grids::{self, Integers};
use shiftwise_quant::scheme::Quantizer;

use crate::POSITIONS;
use crate::ops::call::Call;
use crate::proto::NodeProto;
use crate::reader::{Known, Step, one};
use crate::value::{Element, Kind};

/// What integers stand for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Grid {
    integers: Integers,
    /// Step and zero point: one for all, or one for each slice along an axis.
    steps: Vec<(f32, i64)>,
    axis: Option<usize>,
}

/// Operators that give a value's integers back in other places.
const MOVES: &[&str] = &[
    "Concat",
    "DepthToSpace",
    "Flatten",
    "Gather",
    "Identity",
    "MaxPool",
    "Reshape",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];

/// The grid of a type's integers by a node's scale and zero point, which are constants.
fn grid(call: &Call<'_>, element: Element, rank: usize) -> Result<Grid, String> {
    let scale = call.optional(1).ok_or("has a scale that is no constant")?;
    if element.is_float() || element.kind() == Kind::Bool {
        return Err(format!("has quantized values of type {}, which is not supported", element.name()));
    }
    if call.int("block_size", 0) != 0 {
        return Err("has a scale for each block, which no layer has".into());
    }
    let zeros = call.optional(2).map(|zero| zero.integers()).unwrap_or_default();
    let zero = |k: usize| zeros.get(k).or(zeros.first()).copied().unwrap_or(0);
    let steps: Vec<(f32, i64)> = scale.numbers().iter().enumerate().map(|(k, s)| (*s as f32, zero(k))).collect();
    if steps.is_empty() {
        return Err("has no scale".into());
    }
    let bits = u8::try_from(element.bits()).unwrap_or(u8::MAX);
    if bits > 32 {
        return Err(format!("has quantized values of type {}, which is not supported", element.name()));
    }
    let axis = if steps.len() == 1 { None } else { Some(call.axis("axis", 1, rank)?) };
    let unsigned = element.kind() == Kind::Unsigned;
    Ok(Grid { integers: Integers { bits, unsigned, narrow: false }, steps, axis })
}

impl Grid {
    /// What quantizes to it. TensorFlow's arithmetic is known by the name that converters keep; all else rounds as ONNX.
    fn quantizer(&self, name: &str, axis: Option<i64>) -> Option<Quantizer> {
        let round =
            if name.contains("FakeQuantWithMinMax") || self.is_position() { Round::HalfUp } else { Round::HalfToEven };
        grids::of_steps(self.integers, round, &self.steps, axis)
    }

    /// Whether it is a position's, which a DPU rounds half up whatever its file says.
    fn is_position(&self) -> bool {
        self.steps.iter().all(|(step, _)| grids::position(*step).is_some())
    }
}

pub(crate) fn quantize(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    let element = match (step.call.optional(2), step.call.int("output_dtype", 0)) {
        (Some(zero), _) => zero.element,
        (None, 0) => Element::Uint8,
        (None, code) => Element::of(i32::try_from(code).unwrap_or(0))?,
    };
    let grid = grid(&step.call, element, x.order.len() + 1)?;
    if grid.axis.is_some() {
        return Err("has a scale for each channel of samples, which no layer has".into());
    }
    let quantizer = grid.quantizer(step.name(), None).ok_or("has a scale or a zero point that is none")?;
    let id = step.add("", Op::Quantize(Quantize), &[x.id])?;
    step.reader.results.insert(id, quantizer);
    let output = step.node.output.first().map_or("", String::as_str);
    step.reader.integers.insert(output, grid);
    one(x.at(id))
}

pub(crate) fn dequantize(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    let input = step.node.input.first().map_or("", String::as_str);
    let own = step.reader.integers.get(input).cloned().ok_or("dequantizes samples that are no quantized values")?;
    let call = &step.call;
    let scale = call.optional(1).ok_or("has a scale that is no constant")?.numbers();
    let zero = call.optional(2).map_or(0, |z| z.integers().first().copied().unwrap_or(0));
    match (&scale[..], &own.steps[..]) {
        ([a], [b]) if *a as f32 == b.0 && zero == b.1 => one(x),
        _ => Err("dequantizes by another scale than what was quantized by, which no layer does".into()),
    }
}

impl<'a> super::Reader<'a> {
    /// Keeps account of integers that a node only moves, and refuses others that compute with integers.
    pub(super) fn moved(&mut self, node: &'a NodeProto) -> Result<(), String> {
        let grids: Vec<Grid> = node.input.iter().filter_map(|name| self.integers.get(name.as_str()).cloned()).collect();
        let Some(first) = grids.first() else { return Ok(()) };
        if node.op_type == "DequantizeLinear" {
            return Ok(());
        }
        if !MOVES.contains(&node.op_type.as_str()) || grids.iter().any(|g| g != first) {
            return Err("computes with integers, which no layer does".into());
        }
        node.output.iter().for_each(|name| drop(self.integers.insert(name, first.clone())));
        Ok(())
    }

    /// Keeps account of the grid of a constant, where a node gives it one or only turns it.
    pub(super) fn graded(&mut self, node: &'a NodeProto, call: &Call<'_>) {
        let Some(output) = node.output.first() else { return };
        let known = || node.input.first().and_then(|name| self.constants.get(name.as_str()).cloned());
        let own = match node.op_type.as_str() {
            "DequantizeLinear" => call.optional(0).and_then(|x| grid(call, x.element, x.shape.len()).ok()),
            "Reshape" | "Squeeze" | "Unsqueeze" | "Identity" | "Flatten" => known().filter(|g| g.axis.is_none()),
            "Transpose" => known().map(|g| {
                let turned =
                    |axis: usize| call.ints("perm").and_then(|p| p.iter().position(|from| *from == axis as i64));
                Grid { axis: g.axis.and_then(turned), ..g }
            }),
            _ => None,
        };
        own.map(|grid| self.constants.insert(output, grid));
    }

    /// Gives the layer of a node the quantizers of its weights; `names` are theirs in the file.
    pub(super) fn weigh(&mut self, id: NodeId, names: &[&str]) {
        let op = &self.builder.graph().node(id).op;
        if self.weights.contains_key(&id)
            || op.weighted().is_none()
            || !names.iter().any(|name| self.constants.contains_key(name))
        {
            return;
        }
        // The axis of outputs in a kernel.
        let outputs = match op {
            Op::DepthwiseConv2D(_) | Op::Conv2DTranspose(_) => -2,
            _ => -1,
        };
        let weights = op.layer().weights();
        let of = |(k, (_, tensor)): (usize, &(&str, &shiftwise_tensor::tensor::Tensor))| {
            let Some(grid) = names.get(k).and_then(|name| self.constants.get(name)) else {
                // What is stored as floats may stand on a grid all the same.
                let pos = grids::of_values(tensor.data())?;
                return Some(grids::of_positions(Integers::INT8, Round::HalfUp, &[pos], None));
            };
            let shape = tensor.shape();
            let axis: i64 = if k == 0 { outputs } else { -1 };
            let slices = shape.len().checked_sub(axis.unsigned_abs() as usize).map_or(0, |a| shape[a]);
            let one = grid.steps.len() == 1;
            // A float scale's bias is rounded to the steps of its layer's sums, which is what its integers are.
            let wide = grid.integers.bits > 16 && !grid.is_position();
            if wide || !(one || grid.steps.len() == slices) {
                return None;
            }
            let steps: Vec<FloatStep> = grid.steps.clone();
            let same = steps.iter().all(|s| *s == steps[0]);
            let grid = if same { Grid { steps: vec![steps[0]], ..grid.clone() } } else { grid.clone() };
            grid.quantizer("", (!same).then_some(axis))
        };
        let own: Vec<Option<Quantizer>> = weights.iter().enumerate().map(of).collect();
        self.weights.insert(id, own);
    }
}

/// The quantizers of weights that a file of ours says apart from their values.
///
/// Errors: the rest of a sentence about the file.
pub(super) fn said(text: Option<&str>, budget: &Budget) -> Result<BTreeMap<(String, String), Quantizer>, String> {
    let mut all = BTreeMap::new();
    let Some(text) = text else { return Ok(all) };
    let bad = || format!("has metadata `{POSITIONS}` that are damaged");
    let layers = shiftwise_files::json::parse(text.as_bytes(), budget).map_err(|_| bad())?;
    for (layer, weights) in layers.as_object().ok_or_else(bad)? {
        for (weight, own) in weights.as_object().ok_or_else(bad)? {
            let (pos, bits) = (own.get(0).and_then(|v| v.as_i64()), own.get(1).and_then(|v| v.as_u64()));
            let pos = pos.and_then(|p| i8::try_from(p).ok()).ok_or_else(bad)?;
            let bits = bits.and_then(|b| u8::try_from(b).ok()).filter(|b| (2..=32).contains(b)).ok_or_else(bad)?;
            let to = Integers { bits, unsigned: false, narrow: false };
            let own = grids::of_positions(to, Round::HalfUp, &[FixPos(pos)], None);
            all.insert((layer.clone(), weight.clone()), own);
        }
    }
    Ok(all)
}

/// A step and a zero point.
type FloatStep = (f32, i64);

/// Results and weights by the ids that their nodes have come to.
pub(super) fn renumbered<T>(all: BTreeMap<NodeId, T>, ids: &BTreeMap<NodeId, NodeId>) -> BTreeMap<NodeId, T> {
    all.into_iter().filter_map(|(id, own)| Some((*ids.get(&id)?, own))).collect()
}
