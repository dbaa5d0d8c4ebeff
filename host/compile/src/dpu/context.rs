//! What instruction selection knows about an op's surroundings, and what it makes of an op.

use shiftwise_core::fix::FixPos;
use shiftwise_core::isa::Activation;
use shiftwise_core::target::Target;

use crate::dpu::axes;
use crate::dpu::concat::Joins;
use crate::dpu::layer::{Layer, Map, Pass};
use crate::dpu::limits;
use crate::dpu::limits::Facts;
use crate::dpu::tile::{Machine, Unit};
use crate::reason::Reason;
use shiftwise_integer::graph::{IntAct, IntGraph, TensorIx};

/// An op as layers, with the constants they share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Way {
    /// Layers, in order; several for a dilated, grouped or transposed convolution, one per operand of a concatenation.
    pub layers: Vec<Layer>,
    /// `[oc][kh][kw][ic]`, depthwise `[kh][kw][c]`; several behind each other where layers have their own; empty without.
    pub kernel: Vec<i8>,
    /// `[oc]`; empty without.
    pub bias: Vec<i8>,
}

impl From<Layer> for Way {
    fn from(layer: Layer) -> Self {
        Self { layers: vec![layer], ..Self::default() }
    }
}

/// What lowering needs to know about the surroundings.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
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

impl Context<'_> {
    pub(crate) fn check(&self, unit: Unit, facts: &Facts) -> Result<(), Reason> {
        limits::check(unit, facts, self.target).map_err(|violation| Reason::Limit { violation })
    }

    /// A tensor's dimensions as `[h, w, c]`.
    pub(crate) fn dims(&self, t: TensorIx) -> Result<[u32; 3], Reason> {
        axes::dims(self.graph, t)
    }

    /// Where a tensor that is read as `[h, w, c]` lies.
    pub(crate) fn map(&self, t: TensorIx, dims: [u32; 3]) -> Map {
        match self.joins.home(t) {
            Some(slice) => self.map(slice.of, self.dims(slice.of).unwrap_or_default()).sub(slice.at),
            None => self.dense(t, dims),
        }
    }

    /// A tensor's own place.
    pub(crate) fn dense(&self, t: TensorIx, [_, w, c]: [u32; 3]) -> Map {
        let (reg_id, offset) = self.places.get(t.0).copied().unwrap_or_default();
        Map { reg_id, offset, row_pitch: w * c, pixel_pitch: c }
    }

    /// Everywhere that a tensor has to be written: its own place, and its part of what is joined from it.
    pub(crate) fn outputs(&self, t: TensorIx, dims: [u32; 3]) -> Vec<Map> {
        let own = self.joins.home(t).is_none().then(|| self.dense(t, dims));
        let slices = self.joins.slices(t).iter().flat_map(|slice| {
            let whole = self.dims(slice.of).unwrap_or_default();
            self.outputs(slice.of, whole).into_iter().map(|m| m.sub(slice.at))
        });
        own.into_iter().chain(slices).collect()
    }
}

pub(crate) fn one_operand() -> Facts {
    Facts { operands: 1, ..Facts::default() }
}

/// The output position if there is a ReLU6 that saturation does not do, else a legal one.
pub(crate) fn relu6(act: IntAct, pos: FixPos) -> i8 {
    if act == IntAct::Relu6 { pos.0 } else { 0 }
}

pub(crate) fn act_code(act: IntAct, pos: FixPos) -> Result<u32, Reason> {
    let activation = match act {
        IntAct::None => Activation::None,
        IntAct::Relu => Activation::Relu,
        IntAct::Relu6 => Activation::relu6(pos.0),
        IntAct::LeakyRelu => Activation::LeakyRelu,
    };
    activation.code().ok_or(Reason::Relu6 { pos })
}

/// The pass that ELEW's ReLU lacks to be a ReLU6.
pub(crate) fn relu6_pass(act: IntAct, pos: FixPos) -> Result<Option<Pass>, Reason> {
    if act == IntAct::LeakyRelu {
        return Err(Reason::LeakyElew {});
    }
    let code = act_code(act, pos)?;
    Ok((act == IntAct::Relu6 && Activation::relu6(pos.0) != Activation::Relu).then_some(Pass::Act { act_type: code }))
}

/// Passes that shift left and then activate.
pub(crate) fn finish(act: IntAct, pos: FixPos, shift: i32) -> Result<Vec<Pass>, Reason> {
    let mut passes = vec![Pass::Shift { shift_write: shift, relu: act != IntAct::None }];
    passes.extend(relu6_pass(act, pos)?);
    Ok(passes)
}
