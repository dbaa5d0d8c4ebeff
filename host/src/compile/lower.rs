//! Ops of the integer form as layers of DPU engines, one arm per op.

mod conv;
mod elementwise;
mod moves;
mod pool;
mod transposed;

use shiftwise_core::fix::FixPos;
use shiftwise_core::isa::{Activation, alu_mode};
use shiftwise_core::target::Target;

use super::constraint::{self, Facts};
use super::cpu::{position, shape};
use super::join::Joins;
use super::schedule::{Layer, Map, Pass};
use super::tile::{Machine, Unit};
use crate::integer::{IntAct, IntGraph, IntOp, IntOpKind, Kind, TensorIx, image};

pub(super) use self::moves::{image_axis, needs_dense};
use self::pool::Pooling;

/// An op as layers, with the constants they share.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    /// Layers, in order; several for a dilated, grouped or transposed convolution, one per operand of a concatenation.
    pub layers: Vec<Layer>,
    /// `[oc][kh][kw][ic]`, depthwise `[kh][kw][c]`; several behind each other where layers have their own; empty without.
    pub kernel: Vec<i8>,
    /// `[oc]`; empty without.
    pub bias: Vec<i8>,
}

impl From<Layer> for Plan {
    fn from(layer: Layer) -> Self {
        Self { layers: vec![layer], ..Self::default() }
    }
}

/// What lowering needs to know about the surroundings.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    /// Network.
    pub graph: &'a IntGraph,
    /// DPU.
    pub target: &'a Target,
    /// Its sizes.
    pub machine: Machine,
    /// Per tensor: base register and byte offset.
    pub places: &'a [(u32, u32)],
    /// Which tensors lie inside others.
    pub joins: &'a Joins,
}

/// Ways to do `op`, at least one, or why the DPU can't do it.
pub(super) fn lower(cx: &Context<'_>, op: &IntOp) -> Result<Vec<Plan>, String> {
    let Some(&input) = op.inputs.first() else { return Err("it has no operands".into()) };
    let fixed = |t: &TensorIx| cx.graph.tensors.get(t.0).is_some_and(|t| matches!(t.kind, Kind::Fixed(_)));
    if !matches!(op.kind, IntOpKind::Float { .. } | IntOpKind::Softmax)
        && !op.inputs.iter().chain([&op.output]).all(fixed)
    {
        return Err("the DPU has no floats".into());
    }
    let pos = position(cx.graph, op.output);
    let one = |plan: Result<Plan, String>| plan.map(|p| vec![p]);
    match &op.kind {
        IntOpKind::Conv(c) => cx.conv(op, c, input, pos),
        IntOpKind::Depthwise(c) => one(cx.depthwise(op, c, input, pos)),
        IntOpKind::ConvTranspose(c) => one(cx.transposed(op, c, input, pos)),
        IntOpKind::MaxPool { window, shift, act } if *shift < 0 => one(cx.max_and_shift(op, window, *shift, *act)),
        IntOpKind::MaxPool { window, shift, act } => {
            one(cx.pool(op, window, &Pooling { mode: alu_mode::MAX_POOL, factor: 0, shift: *shift, act: *act }))
        }
        IntOpKind::AveragePool { window, m, shift, act } => one(cx.pool(
            op,
            window,
            &Pooling { mode: alu_mode::AVG_POOL, factor: (*m).into(), shift: *shift, act: *act },
        )),
        IntOpKind::Add { shift_read, shift_write, act } => one(cx.sum(op, shift_read.clone(), *shift_write, *act)),
        IntOpKind::Multiply { shift, act } => one(cx.multiply(op, *shift, *act)),
        IntOpKind::Requantize { shift, act } => one(cx.requantize(op, *shift, *act)),
        IntOpKind::HardSigmoid { shift } => one(cx.hard_sigmoid(op, *shift)),
        IntOpKind::Concat { axis, shifts } => one(cx.concat(op, *axis, shifts)),
        IntOpKind::UpSample { factor, shift } => one(cx.upsample(op, *factor, *shift)),
        IntOpKind::Pad { before, after } => one(cx.pad(op, *before, *after)),
        IntOpKind::Permute { dims } => one(cx.permute(op, dims)),
        IntOpKind::PRelu { .. } => Err("how the ALU's PReLU takes its slopes is unknown".into()),
        IntOpKind::Softmax => Err("softmax is computed in floats".into()),
        IntOpKind::Float { why, .. } => Err(why.clone()),
        IntOpKind::FakeQuantize(_) | IntOpKind::Quantize | IntOpKind::Dequantize => Err("the DPU has no floats".into()),
        IntOpKind::View => Err("a view needs no engine".into()),
    }
}

impl Context<'_> {
    fn check(&self, unit: Unit, facts: &Facts) -> Result<(), String> {
        constraint::check(unit, facts, self.target).map_err(|v| v.to_string())
    }

    /// A tensor's dimensions as `[h, w, c]`.
    pub(super) fn dims(&self, t: TensorIx) -> Result<[u32; 3], String> {
        narrow(image(shape(self.graph, t)))
    }

    /// Where a tensor that is read as `[h, w, c]` lies.
    pub(super) fn map(&self, t: TensorIx, dims: [u32; 3]) -> Map {
        match self.joins.home(t) {
            Some(slice) => self.map(slice.of, self.dims(slice.of).unwrap_or_default()).sub(slice.at),
            None => self.dense(t, dims),
        }
    }

    /// A tensor's own place.
    fn dense(&self, t: TensorIx, [_, w, c]: [u32; 3]) -> Map {
        let (reg_id, offset) = self.places.get(t.0).copied().unwrap_or_default();
        Map { reg_id, offset, row_pitch: w * c, pixel_pitch: c }
    }

    /// Everywhere that a tensor has to be written: its own place, and its part of what is joined from it.
    fn outputs(&self, t: TensorIx, dims: [u32; 3]) -> Vec<Map> {
        let own = self.joins.home(t).is_none().then(|| self.dense(t, dims));
        let slices = self.joins.slices(t).iter().flat_map(|slice| {
            let whole = self.dims(slice.of).unwrap_or_default();
            self.outputs(slice.of, whole).into_iter().map(|m| m.sub(slice.at))
        });
        own.into_iter().chain(slices).collect()
    }
}

fn one_operand() -> Facts {
    Facts { operands: 1, ..Facts::default() }
}

pub(super) fn narrow(dims: [usize; 3]) -> Result<[u32; 3], String> {
    // 65535 a side and 29 bits in all keep every address of the map in 32 bits.
    let [h, w, c] = dims;
    if dims.iter().any(|d| *d == 0 || *d > 0xFFFF) || h * w * c > 1 << 29 {
        return Err(format!("a map of {h} × {w} × {c} is beyond the DPU's addresses"));
    }
    Ok(dims.map(|d| d as u32))
}

/// The output position if there is a ReLU6 that saturation does not do, else a legal one.
fn relu6(act: IntAct, pos: FixPos) -> i8 {
    if act == IntAct::Relu6 { pos.0 } else { 0 }
}

fn act_code(act: IntAct, pos: FixPos) -> Result<u32, String> {
    let activation = match act {
        IntAct::None => Activation::None,
        IntAct::Relu => Activation::Relu,
        IntAct::Relu6 => Activation::relu6(pos.0),
        IntAct::LeakyRelu => Activation::LeakyRelu,
    };
    activation.code().ok_or_else(|| format!("there is no ReLU6 at output position {pos}"))
}

/// The pass that ELEW's ReLU lacks to be a ReLU6.
fn relu6_pass(act: IntAct, pos: FixPos) -> Result<Option<Pass>, String> {
    if act == IntAct::LeakyRelu {
        return Err("ELEW has no LeakyReLU before its shift".into());
    }
    let code = act_code(act, pos)?;
    Ok((act == IntAct::Relu6 && Activation::relu6(pos.0) != Activation::Relu).then_some(Pass::Act { act_type: code }))
}

/// Passes that shift left and then activate.
fn finish(act: IntAct, pos: FixPos, shift: i32) -> Result<Vec<Pass>, String> {
    let mut passes = vec![Pass::Shift { shift_write: shift, relu: act != IntAct::None }];
    passes.extend(relu6_pass(act, pos)?);
    Ok(passes)
}
