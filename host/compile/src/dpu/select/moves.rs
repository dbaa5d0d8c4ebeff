//! Ops that move bytes: a copy through the banks whose SAVEs put pixels elsewhere.

use crate::dpu::axes::{image_axis, narrow};
use crate::dpu::context::{Context, Way, one_operand};
use crate::dpu::layer::{Compute, Fill, Layer, Map};
use crate::dpu::limits::Facts;
use crate::dpu::tile::{Shape, Unit};
use crate::operand::{position, shape};
use crate::reason::Reason;
use shiftwise_integer::graph::IntOp;

impl Context<'_> {
    /// A map copied to `outputs`, shifted right by `shift`.
    fn copy(&self, from: Map, dims: [u32; 3], outputs: Vec<Map>, shift: i32) -> Result<Layer, Reason> {
        self.check(Unit::Elew, &Facts { shift_write: shift, ..one_operand() })?;
        Ok(Layer {
            shape: Shape { saves: outputs.len() as u32, ..Shape::copy(dims) },
            inputs: vec![from],
            outputs,
            compute: Compute::Sum { shift_read: vec![0], shift_write: shift, relu: false },
            ..Layer::default()
        })
    }

    /// Operands that their producers have not put in their place already.
    pub(crate) fn concat(&self, op: &IntOp, axis: usize, shifts: &[i32]) -> Result<Way, Reason> {
        let whole = self.dims(op.output)?;
        let mut plan = Way::default();
        let mut at = [0; 3];
        let axis = image_axis(shape(self.graph, op.output).len(), axis)?;
        for (operand, (t, shift)) in op.inputs.iter().zip(shifts).enumerate() {
            let dims = self.dims(*t)?;
            if !self.joins.is_joined(op.output, operand) {
                let outputs = self.outputs(op.output, whole).iter().map(|m| m.sub(at)).collect();
                plan.layers.push(self.copy(self.map(*t, dims), dims, outputs, *shift)?);
            }
            at[axis] += dims[axis];
        }
        Ok(plan)
    }

    /// Each pixel is saved as often as it is repeated.
    pub(crate) fn upsample(&self, op: &IntOp, factor: [usize; 2], shift: i32) -> Result<Way, Reason> {
        let (dims, out) = (self.dims(op.inputs[0])?, self.dims(op.output)?);
        if factor.iter().try_fold(1, |n: usize, f| n.checked_mul(*f)).is_none_or(|n| n > MAX_REPEATS) {
            return Err(Reason::Repeats { factor, most: MAX_REPEATS });
        }
        let [fy, fx] = factor.map(|f| f as u32);
        let spots = || (0..fy).flat_map(|y| (0..fx).map(move |x| [y, x, 0]));
        let whole = self.outputs(op.output, out);
        let outputs = whole.iter().flat_map(|m| spots().map(|at| m.sub(at).every([fy, fx]))).collect();
        Ok(self.copy(self.map(op.inputs[0], dims), dims, outputs, shift)?.into())
    }

    /// A copy, and SAVEs of a constant around it.
    pub(crate) fn pad(&self, op: &IntOp, before: [usize; 2], after: [usize; 2]) -> Result<Way, Reason> {
        let input = op.inputs[0];
        if position(self.graph, input) != position(self.graph, op.output) {
            return Err(Reason::PadPosition {});
        }
        let (dims, out) = (self.dims(input)?, self.dims(op.output)?);
        let [[top, left], [bottom, right]] = [before, after].map(|p| p.map(|n| n as u32));
        let [h, w, channels] = dims;
        let whole = self.outputs(op.output, out);
        let mut layer =
            self.copy(self.map(input, dims), dims, whole.iter().map(|m| m.sub([top, left, 0])).collect(), 0)?;
        for m in &whole {
            let border = [
                ([0, 0], [top, out[1]]),
                ([top + h, 0], [bottom, out[1]]),
                ([top, 0], [h, left]),
                ([top, left + w], [h, right]),
            ];
            let fills = border.into_iter().filter(|(_, [rows, columns])| rows * columns > 0);
            layer.fills.extend(fills.map(|([y, x], size)| Fill { map: m.sub([y, x, 0]), size, channels }));
        }
        Ok(layer.into())
    }

    /// Two (runs of) axes change places, maybe with unmoved channels behind.
    pub(crate) fn permute(&self, op: &IntOp, dims: &[usize]) -> Result<Way, Reason> {
        let from = shape(self.graph, op.inputs[0]);
        // Runs of axes that stay together, in the order of the result; axes of size 1 are nowhere.
        let mut runs: Vec<(usize, usize, usize)> = Vec::new();
        for axis in dims.iter().filter(|d| from[**d] > 1) {
            let next = |last: usize| (last + 1..*axis).all(|a| from[a] == 1);
            match runs.last_mut().filter(|(_, last, _)| *axis > *last && next(*last)) {
                Some((_, last, size)) => (*last, *size) = (*axis, *size * from[*axis]),
                None => runs.push((*axis, *axis, from[*axis])),
            }
        }
        let size = |i: usize| runs.get(i).map_or(1, |r| r.2);
        let order: Vec<usize> = {
            let mut starts: Vec<usize> = runs.iter().map(|r| r.0).collect();
            starts.sort_unstable();
            runs.iter().map(|r| starts.iter().position(|s| *s == r.0).unwrap_or(0)).collect()
        };
        // The operand as rows, columns and channels, and where the result has them.
        let (own, swapped) = match order[..] {
            [] | [0] => (self.dims(op.output)?, false),
            [1, 0] => (narrow([size(1), size(0), 1])?, true),
            [1, 0, 2] => (narrow([size(1), size(0), size(2)])?, true),
            _ => return Err(Reason::Axes { shape: from.to_vec(), order: dims.to_vec() }),
        };
        let [h, _, c] = own;
        let output = self.dense(op.output, own);
        let output = if swapped { Map { row_pitch: c, pixel_pitch: h * c, ..output } } else { output };
        Ok(self.copy(self.dense(op.inputs[0], own), own, vec![output], 0)?.into())
    }
}

/// Most SAVEs of one pixel.
const MAX_REPEATS: usize = 256;
