//! Pooling.

use shiftwise_core::isa::alu_mode;
use shiftwise_core::shape::Window;

use crate::dpu::axes::narrow;
use crate::dpu::context::{Context, Way, act_code, finish, one_operand, relu6};
use crate::dpu::facts::window_facts;
use crate::dpu::layer::{Compute, Layer};
use crate::dpu::limits::Facts;
use crate::dpu::tile::{Shape, Unit};
use crate::operand::position;
use crate::reason::Reason;
use shiftwise_integer::graph::{IntAct, IntOp};

/// What a pooling layer takes of its windows.
pub(crate) struct Pooling {
    pub mode: u32,
    pub factor: u32,
    pub shift: i32,
    pub act: IntAct,
}

impl Context<'_> {
    /// A maximum that is then shifted left.
    ///
    /// The ALU shifts right only; ELEW shifts left. Saturation is monotone and the maximum has 8 bits, so the order of
    /// activation and shift does not matter to ReLU; ReLU6 clamps the result.
    pub(crate) fn max_and_shift(&self, op: &IntOp, window: &Window, shift: i32, act: IntAct) -> Result<Way, Reason> {
        let pos = position(self.graph, op.output);
        let maximum = Pooling { mode: alu_mode::MAX_POOL, factor: 0, shift: 0, act: IntAct::None };
        let mut plan = self.pool(op, window, &maximum)?;
        self.check(Unit::Elew, &Facts { shift_write: shift, relu6_pos: relu6(act, pos), ..one_operand() })?;
        let passes = finish(act, pos, shift)?;
        for layer in &mut plan.layers {
            layer.shape.passes = passes.len() as u32;
            layer.passes.clone_from(&passes);
        }
        Ok(plan)
    }

    pub(crate) fn pool(&self, op: &IntOp, window: &Window, pooling: &Pooling) -> Result<Way, Reason> {
        let Pooling { mode, factor, shift, act } = *pooling;
        let pos = position(self.graph, op.output);
        if window.dilation != [1, 1] || !window.is_valid() {
            return Err(Reason::Window {});
        }
        let input = op.inputs[0];
        let dims = self.dims(input)?;
        let output = [window.outputs(0, dims[0]), window.outputs(1, dims[1]), dims[2]];
        narrow(output.map(|d| d as usize))?;
        let facts = Facts {
            operands: 1,
            shift_cut: shift,
            factor,
            relu6_pos: relu6(act, pos),
            ..window_facts(window, dims[2])
        };
        self.check(Unit::Pool, &facts)?;
        let layer = Layer {
            shape: Shape {
                input: dims,
                output,
                kernel: window.kernel.map(u32::from),
                stride: window.stride.map(u32::from),
                pad: window.pad_before.map(u32::from),
                operands: 1,
                passes: 0,
                saves: 1,
                unit: Unit::Pool,
                ..Shape::default()
            },
            inputs: vec![self.map(input, dims)],
            outputs: self.outputs(op.output, output),
            compute: Compute::Pool { mode, factor, shift_cut: shift as u32, act_type: act_code(act, pos)? },
            ..Layer::default()
        };
        Ok(layer.into())
    }
}
