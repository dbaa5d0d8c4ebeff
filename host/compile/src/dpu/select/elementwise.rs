//! Element-wise ops.

use shiftwise_core::isa::alu_mode;
use shiftwise_core::shape::Window;

use crate::dpu::context::{Context, Way, act_code, one_operand, relu6, relu6_pass};
use crate::dpu::layer::{Compute, Kernel, Layer, Map, Pass};
use crate::dpu::limits::Facts;
use crate::dpu::select::pool::Pooling;
use crate::dpu::tile::{Shape, Unit};
use crate::operand::{position, shape};
use crate::reason::Reason;
use shiftwise_integer::graph::{IntAct, IntOp, TensorIx};

impl Context<'_> {
    /// Requantization. ELEW shifts both ways; LeakyReLU is the ALU's.
    pub(crate) fn requantize(&self, op: &IntOp, shift: i32, act: IntAct) -> Result<Way, Reason> {
        if act == IntAct::LeakyRelu {
            let pooling = Pooling { mode: alu_mode::MAX_POOL, factor: 0, shift, act };
            return self.pool(op, &Window::POINT, &pooling);
        }
        self.sum(op, vec![0], shift, act)
    }

    pub(crate) fn sum(&self, op: &IntOp, shift_read: Vec<u32>, shift_write: i32, act: IntAct) -> Result<Way, Reason> {
        let widest = shift_read.iter().copied().max().unwrap_or(0);
        self.elew(op, widest, shift_write, act, |relu| Compute::Sum { shift_read, shift_write, relu })
    }

    /// A product of two maps of one shape on ELEW. A vector of one factor per channel is loaded as the weights of a
    /// depthwise convolution with one tap. OURS
    pub(crate) fn multiply(&self, op: &IntOp, shift: i32, act: IntAct) -> Result<Way, Reason> {
        let &[a, b] = op.inputs.as_slice() else { return Err(Reason::Factors {}) };
        let out = self.dims(op.output)?;
        let whole = |t: TensorIx| self.dims(t).is_ok_and(|d| d == out);
        let per_channel = |t: TensorIx| self.dims(t).is_ok_and(|d| d == [1, 1, out[2]]);
        let (map, vector) = match (whole(a), whole(b)) {
            (true, true) => {
                return self.elew(op, 0, shift, act, |relu| Compute::Product { shift_write: shift, relu });
            }
            (true, false) if per_channel(b) => (a, b),
            (false, true) if per_channel(a) => (b, a),
            _ => {
                let [a, b] = [a, b].map(|t| shape(self.graph, t).to_vec());
                return Err(Reason::Product { a, b });
            }
        };
        let pos = position(self.graph, op.output);
        let facts = Facts {
            kernel: [1, 1],
            stride: [1, 1],
            dilation: [1, 1],
            channels_in: out[2],
            channels_out: out[2],
            shift_cut: shift,
            relu6_pos: relu6(act, pos),
            ..Facts::default()
        };
        self.check(Unit::Depthwise, &facts)?;
        let Map { reg_id, offset, .. } = self.map(vector, [1, 1, out[2]]);
        let layer = Layer {
            shape: Shape { unit: Unit::Depthwise, ..Shape::copy(out) },
            inputs: vec![self.map(map, out)],
            outputs: self.outputs(op.output, out),
            compute: Compute::Depthwise {
                shift_cut: shift as u32,
                shift_bias: 0,
                act_type: act_code(act, pos)?,
                biased: false,
            },
            kernel: Kernel::Memory { reg_id, offset },
            ..Layer::default()
        };
        Ok(layer.into())
    }

    /// The ALU's hard sigmoid.
    pub(crate) fn hard_sigmoid(&self, op: &IntOp, shift: i32) -> Result<Way, Reason> {
        let input = op.inputs[0];
        let ipos = position(self.graph, input).0;
        // It has no clamp at one. The largest input, 127, is below 3 from position 6 on; else saturation has to do it.
        let one = if ipos >= 6 { 7 } else { 14 + i32::from(ipos) - shift };
        let facts = Facts { shift_cut: shift, sigmoid_in: ipos, sigmoid_out: one, ..one_operand() };
        let facts = Facts { kernel: [1, 1], stride: [1, 1], dilation: [1, 1], ..facts };
        self.check(Unit::Pool, &facts)?;
        let dims = self.dims(op.output)?;
        let layer = Layer {
            shape: Shape { unit: Unit::Pool, ..Shape::copy(dims) },
            inputs: vec![self.map(input, dims)],
            outputs: self.outputs(op.output, dims),
            compute: Compute::HardSigmoid { input_pos: ipos as u32, shift_cut: shift as u32 },
            ..Layer::default()
        };
        Ok(layer.into())
    }

    /// ELEW over operands of the result's size; `compute` is told whether ELEW's ReLU is wanted.
    fn elew(
        &self,
        op: &IntOp,
        shift_read: u32,
        shift_write: i32,
        act: IntAct,
        compute: impl FnOnce(bool) -> Compute,
    ) -> Result<Way, Reason> {
        let pos = position(self.graph, op.output);
        let operands = op.inputs.len() as u32;
        let facts = Facts { operands, shift_read, shift_write, relu6_pos: relu6(act, pos), ..Facts::default() };
        self.check(Unit::Elew, &facts)?;
        let dims = self.dims(op.output)?;
        let elements = |t: TensorIx| shape(self.graph, t).iter().product::<usize>();
        if op.inputs.iter().any(|t| elements(*t) != elements(op.output)) {
            return Err(Reason::Shapes {});
        }
        let passes: Vec<Pass> = relu6_pass(act, pos)?.into_iter().collect();
        let layer = Layer {
            shape: Shape { operands, passes: passes.len() as u32, ..Shape::copy(dims) },
            inputs: op.inputs.iter().map(|t| self.map(*t, dims)).collect(),
            outputs: self.outputs(op.output, dims),
            compute: compute(act != IntAct::None),
            passes,
            ..Layer::default()
        };
        Ok(layer.into())
    }
}
