//! Layers that have an integer form, one method for each kind.

use super::Lowering;
use crate::graph::{IntOpKind, Kind, TensorIx};
use crate::left_alone;
use crate::reasons::FloatWhy;
use shiftwise_core::shape::Window;
use shiftwise_core::shift::{READ, SIGMOID_POSITIONS};
use shiftwise_graph::graph::NodeId;
use shiftwise_graph::ops::pool::{AveragePooling2D, GlobalAveragePooling2D, MaxPooling2D, average_factor};
use shiftwise_graph::ops::{ActivationFn, Interpolation, Op, PRelu};

impl Lowering<'_> {
    /// Lowers a layer to integers; leaves nothing behind when it fails.
    pub(super) fn integer(&mut self, id: NodeId) -> Result<(), FloatWhy> {
        let node = self.q.graph.node(id);
        if let Some(why) = left_alone::grid(self.q, id) {
            return Err(why);
        }
        match &node.op {
            Op::Input(_) => Err(FloatWhy::StrayInput {}),
            Op::Quantize(_) => self.quantize(id),
            Op::Conv2D(_) | Op::DepthwiseConv2D(_) | Op::Conv2DTranspose(_) | Op::Dense(_) => self.conv(id),
            Op::MaxPooling2D(pool) => self.max_pool(id, pool),
            Op::AveragePooling2D(pool) => self.average_pool(id, pool),
            Op::GlobalAveragePooling2D(pool) => self.global_average(id, pool),
            Op::Add(_) => self.sum(id),
            Op::Multiply(_) => self.product(id),
            Op::Concatenate(c) => self.concatenation(id, c.axis),
            Op::UpSampling2D(u) if u.interpolation == Interpolation::Nearest => self.repeated(id, u.size),
            Op::HardSigmoid(_) => self.hard_sigmoid(id),
            Op::PRelu(p) => self.prelu(id, p),
            Op::ZeroPadding2D(p) => {
                let kind = IntOpKind::Pad { before: [p.rows[0], p.columns[0]], after: [p.rows[1], p.columns[1]] };
                self.moved_integers(id, kind)
            }
            Op::Permute(p) => self.moved_integers(id, IntOpKind::Permute { dims: p.dims.clone() }),
            Op::Flatten(_) | Op::Reshape(_) | Op::Dropout(_) => {
                let input = self.operand(id, 0)?;
                self.moved(id, input, IntOpKind::View);
                Ok(())
            }
            Op::Relu(_) | Op::LeakyRelu(_) | Op::Activation(_) if self.q.layers.contains_key(&id) => self.activated(id),
            Op::Softmax(_) => self.softmax(id, self.operand(id, 0)?),
            Op::Activation(a) if a.function == ActivationFn::Softmax => self.softmax(id, self.operand(id, 0)?),
            Op::Custom(c) if !c.computes() => Err(FloatWhy::UnknownClass {}),
            _ => Err(FloatWhy::Strategy {}),
        }
    }

    fn quantize(&mut self, id: NodeId) -> Result<(), FloatWhy> {
        let q = self.q.layers.get(&id).and_then(|l| l.result());
        let q = q.ok_or(FloatWhy::Unquantized {})?;
        let tensor = self.quantized(id, q, self.operand(id, 0)?, self.q.graph.node(id).name.clone());
        self.value.insert(id, tensor);
        Ok(())
    }

    fn max_pool(&mut self, id: NodeId, layer: &MaxPooling2D) -> Result<(), FloatWhy> {
        let (input, i) = self.fixed_operand(id, 0)?;
        let window = layer.pool.window(&self.out.tensors[input.0].shape).map_err(|text| FloatWhy::Window { text })?;
        self.fused(id, vec![input], |tail| IntOpKind::MaxPool {
            window,
            shift: i - i32::from(tail.pos.0),
            act: tail.act,
        })
    }

    fn average_pool(&mut self, id: NodeId, layer: &AveragePooling2D) -> Result<(), FloatWhy> {
        let node = self.q.graph.node(id);
        let input = &self.q.graph.node(node.inputs[0]).shape;
        let window = layer.pool.window(input).map_err(|text| FloatWhy::Window { text })?;
        let size = layer.pool.size;
        let factor = layer.factor_window(&node.shape).unwrap_or((size[0], size[1]));
        self.average(id, window, factor, size)
    }

    fn global_average(&mut self, id: NodeId, layer: &GlobalAveragePooling2D) -> Result<(), FloatWhy> {
        let shape = &self.q.graph.node(self.q.graph.node(id).inputs[0]).shape;
        let [h, w] = [shape[0], shape[1]];
        let window = Window { kernel: [h as u16, w as u16], ..Window::POINT };
        self.average(id, window, layer.factor_window(&[h, w]), [h, w])
    }

    /// `factor` is the window whose m / 2^n applies; `size` the cells that are summed.
    fn average(
        &mut self,
        id: NodeId,
        window: Window,
        factor: (usize, usize),
        size: [usize; 2],
    ) -> Result<(), FloatWhy> {
        let (input, i) = self.fixed_operand(id, 0)?;
        let Some((m, n)) = average_factor(factor.0, factor.1) else {
            return Err(FloatWhy::AverageWindow {});
        };
        // A rectangle with the factor of a square: the square's mean has area / size times as many cells.
        let m = usize::from(m) * (factor.0 * factor.1) / (size[0] * size[1]).max(1);
        let m = u16::try_from(m).map_err(|_| FloatWhy::AverageFactor {})?;
        self.fused(id, vec![input], |tail| {
            let shift = i32::from(n) + i - i32::from(tail.pos.0);
            IntOpKind::AveragePool { window, m, shift, act: tail.act }
        })
    }

    fn sum(&mut self, id: NodeId) -> Result<(), FloatWhy> {
        let node = self.q.graph.node(id);
        let operands = self.fixed_operands(id)?;
        if node.inputs.iter().any(|i| self.q.graph.node(*i).shape != node.shape) {
            return Err(FloatWhy::Shapes {});
        }
        let finest = operands.iter().map(|(_, p)| *p).max().unwrap_or(0);
        let shift_read: Vec<u32> = operands.iter().map(|(_, p)| (finest - p) as u32).collect();
        if let Some(&bits) = shift_read.iter().find(|s| !READ.contains(&(**s as i32))) {
            return Err(FloatWhy::Apart { bits });
        }
        self.fused(id, operands.into_iter().map(|(t, _)| t).collect(), |tail| {
            let shift_write = finest - i32::from(tail.pos.0);
            IntOpKind::Add { shift_read: shift_read.clone(), shift_write, act: tail.act }
        })
    }

    fn product(&mut self, id: NodeId) -> Result<(), FloatWhy> {
        let operands = self.fixed_operands(id)?;
        let [(a, i), (b, j)] = operands[..] else {
            return Err(FloatWhy::Factors {});
        };
        self.fused(id, vec![a, b], |tail| IntOpKind::Multiply { shift: i + j - i32::from(tail.pos.0), act: tail.act })
    }

    fn concatenation(&mut self, id: NodeId, axis: usize) -> Result<(), FloatWhy> {
        let operands = self.fixed_operands(id)?;
        self.fused(id, operands.iter().map(|(t, _)| *t).collect(), |tail| {
            let shifts = operands.iter().map(|(_, i)| i - i32::from(tail.pos.0)).collect();
            IntOpKind::Concat { axis, shifts }
        })
    }

    /// Every pixel several times.
    fn repeated(&mut self, id: NodeId, factor: [usize; 2]) -> Result<(), FloatWhy> {
        let (input, i) = self.fixed_operand(id, 0)?;
        self.fused(id, vec![input], |tail| IntOpKind::UpSample { factor, shift: i - i32::from(tail.pos.0) })
    }

    fn hard_sigmoid(&mut self, id: NodeId) -> Result<(), FloatWhy> {
        let (input, i) = self.fixed_operand(id, 0)?;
        if !SIGMOID_POSITIONS.contains(&i) {
            return Err(FloatWhy::SigmoidPosition { pos: i });
        }
        self.fused(id, vec![input], |tail| IntOpKind::HardSigmoid { shift: 14 + i - i32::from(tail.pos.0) })
    }

    fn prelu(&mut self, id: NodeId, layer: &PRelu) -> Result<(), FloatWhy> {
        let (input, i) = self.fixed_operand(id, 0)?;
        let (a, alpha) = self.integers(id, 0, &layer.alpha)?;
        self.fused(id, vec![input], |tail| {
            let o = i32::from(tail.pos.0);
            IntOpKind::PRelu {
                alpha: alpha.clone(),
                alpha_shape: layer.alpha.shape().to_vec(),
                shift_positive: i - o,
                shift_negative: i + a - o,
            }
        })
    }

    /// An activation with a quantizer of its own.
    fn activated(&mut self, id: NodeId) -> Result<(), FloatWhy> {
        let (input, i) = self.fixed_operand(id, 0)?;
        self.fused(id, vec![input], |tail| IntOpKind::Requantize { shift: i - i32::from(tail.pos.0), act: tail.act })
    }

    /// A layer that moves integers, which floats would not survive as such.
    fn moved_integers(&mut self, id: NodeId, op: IntOpKind) -> Result<(), FloatWhy> {
        let input = self.operand(id, 0)?;
        let Kind::Fixed(_) = self.out.tensors[input.0].kind else {
            return Err(FloatWhy::FloatInput {});
        };
        self.moved(id, input, op);
        Ok(())
    }

    /// A layer that only moves values: its result has its operand's kind.
    pub(super) fn moved(&mut self, id: NodeId, input: TensorIx, op: IntOpKind) {
        let kind = self.out.tensors[input.0].kind;
        let tensor = self.tensor(self.q.quant_name(id), self.q.graph.node(id), kind);
        self.push(op, vec![input], tensor, &[id]);
        self.value.insert(id, tensor);
    }
}
