//! Which steps each kind of layer becomes.

use shiftwise_core::model::{Combine, FloatPoolKind, Function, RowFunction};
use shiftwise_core::shape::Window;

use super::Steps;
use shiftwise_graph::error::Error;
use shiftwise_graph::ops::{Dot, Interpolation, Op, UnitNormalization};
use shiftwise_integer::graph::image;
use shiftwise_tensor::tensor::Tensor;

impl Steps<'_> {
    /// The layer up to its activation attribute; false if there is no kernel for it.
    pub(super) fn layer_of(&mut self, float: &Op, weights: &[Tensor]) -> Result<bool, Error> {
        match float {
            Op::OneD(l) => {
                let weights = l.image_weights(&weights.iter().collect::<Vec<_>>());
                self.shapes[0].insert(0, 1);
                if self.out.len() == 2 {
                    self.out.insert(0, 1);
                }
                self.layer_of(&l.image, &weights)
            }
            Op::TimeDistributed(l) => l.pointwise().map_or(Ok(false), |layer| self.layer_of(layer, weights)),
            Op::TfOp(f) => self.function(f),
            _ => Ok(self.normalization(float, weights)?
                || self.activation(float, weights)?
                || self.merge(float)?
                || self.movement(float)?
                || self.pooling(float)?
                || self.weighted(float, weights)?),
        }
    }

    /// Normalizations and scales; false if it is none.
    fn normalization(&mut self, float: &Op, weights: &[Tensor]) -> Result<bool, Error> {
        let [h, w, c] = image(&self.shapes[0]);
        match float {
            Op::Rescaling(r) => {
                self.with_constant(Combine::Multiply, &r.scale)?;
                self.with_constant(Combine::Add, &r.offset)?;
            }
            Op::Normalization(n) => {
                let (mean, deviation) = n.statistics();
                self.with_constant(Combine::Subtract, &mean)?;
                self.with_constant(Combine::Divide, &deviation)?;
            }
            Op::BatchNormalization(b) => {
                let (factor, offset) = b.affine(&weights.iter().collect::<Vec<_>>());
                self.with_constant(Combine::Multiply, &factor)?;
                self.with_constant(Combine::Add, &offset)?;
            }
            Op::LayerNormalization(n) => {
                let (gamma, beta) = n.scale_and_offset(&weights.iter().collect::<Vec<_>>(), c);
                self.last_axis(n.function())?;
                self.with_constant(Combine::Multiply, &gamma)?;
                self.with_constant(Combine::Add, &beta)?;
            }
            Op::RmsNormalization(n) => {
                let Some(scale) = weights.first() else { return Ok(false) };
                self.last_axis(RowFunction::RootMeanSquare(n.epsilon))?;
                self.with_constant(Combine::Multiply, scale.data())?;
            }
            Op::LayerScale(_) => {
                let Some(gamma) = weights.first() else { return Ok(false) };
                self.with_constant(Combine::Multiply, gamma.data())?;
            }
            Op::GroupNormalization(n) => {
                let (gamma, beta) = n.norm.scale_and_offset(&weights.iter().collect::<Vec<_>>(), c);
                let part = c / n.groups.max(1);
                let (sizes, steps) = ([1, n.groups, h * w, part], [0, part, c, 1]);
                self.rows(sizes, steps, RowFunction::Standardize(n.norm.epsilon))?;
                self.with_constant(Combine::Multiply, &gamma)?;
                self.with_constant(Combine::Add, &beta)?;
            }
            Op::UnitNormalization(_) => self.last_axis(UnitNormalization::FUNCTION)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Functions of single values; false if it is none.
    fn activation(&mut self, float: &Op, weights: &[Tensor]) -> Result<bool, Error> {
        match float {
            Op::Elu(e) => self.map(Function::Elu(e.alpha)),
            Op::Relu(r) => self.map(r.function()),
            Op::LeakyRelu(r) => self.map(Function::LeakyRelu(r.alpha)),
            Op::HardSigmoid(_) => self.map(Function::DpuHardSigmoid),
            // The activation attribute follows.
            Op::Activation(_) | Op::Dropout(_) | Op::Flatten(_) | Op::Reshape(_) | Op::Quantize(_) => {
                self.map(Function::Identity);
            }
            Op::PRelu(_) => {
                let Some(alpha) = weights.first() else { return Ok(false) };
                let alpha = self.constant(alpha.shape(), alpha.data())?;
                self.zip(Combine::Slope, alpha);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Layers of several inputs; false if it is none.
    fn merge(&mut self, float: &Op) -> Result<bool, Error> {
        match float {
            Op::ScaledAdd(s) => {
                // The factor comes first, in the output's place; a sum of two is the same in either order.
                self.inputs.swap(0, 1);
                self.map(Function::Scale(s.scale));
                self.zip(Combine::Add, self.inputs[1]);
            }
            Op::Add(_) => self.fold(Combine::Add)?,
            Op::Multiply(_) => self.fold(Combine::Multiply)?,
            Op::Merge(m) => {
                self.fold(m.combine())?;
                if *m == shiftwise_graph::ops::Merge::Average {
                    self.with_constant(Combine::Divide, &[self.inputs.len() as f32])?;
                }
            }
            Op::Concatenate(c) => self.join(c.axis)?,
            Op::Dot(d) => {
                let [a0, depth, a1] = Dot::blocks(&self.shapes[0], d.axes[0]);
                let [b0, _, b1] = Dot::blocks(&self.shapes[1], d.axes[1]);
                let steps_a = [depth * a1, 1, 0, 0, a1];
                self.product([a0, a1, b0, b1, depth], steps_a, [0, 0, depth * b1, 1, b1])?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Layers that move values, and fill up between them; false if it is none.
    fn movement(&mut self, float: &Op) -> Result<bool, Error> {
        let [h, w, c] = image(&self.shapes[0]);
        match float {
            Op::RepeatVector(r) => self.copy([1, 1, 1, r.n, c], (0, [0, 0, 0, 0, 1]), (0, [0, 0, 0, c, 1]), None)?,
            Op::Resizing(r) => self.resize(r.size, r.interpolation)?,
            Op::Permute(p) => self.permute(&p.dims)?,
            Op::ZeroPadding2D(p) => {
                let ow = self.out.get(1).copied().unwrap_or(1);
                let to = (p.rows[0] * ow + p.columns[0]) * c;
                let (from, steps) = ([0, 0, w * c, c, 1], [0, 0, ow * c, c, 1]);
                self.copy([1, 1, h, w, c], (0, from), (to, steps), Some(0.0))?;
            }
            Op::Cropping2D(p) => {
                let [oh, ow, _] = image(&self.out);
                let from = (p.rows[0] * w + p.columns[0]) * c;
                self.copy([1, 1, oh, ow, c], (from, [0, 0, w * c, c, 1]), (0, [0, 0, ow * c, c, 1]), None)?;
            }
            Op::UpSampling2D(u) if u.interpolation == Interpolation::Nearest => {
                let [fy, fx] = u.size;
                let row = w * fx * c;
                self.copy([h, fy, w, fx, c], (0, [w * c, 0, c, 0, 1]), (0, [fy * row, row, fx * c, c, 1]), None)?;
            }
            Op::UpSampling2D(u) => {
                self.resize([h * u.size[0], w * u.size[1]], u.interpolation)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Pooling; false if it is none.
    fn pooling(&mut self, float: &Op) -> Result<bool, Error> {
        match float {
            Op::MaxPooling2D(p) => self.pool(p.pool.window(&self.shapes[0]), FloatPoolKind::Max, 1.0)?,
            Op::AveragePooling2D(p) => {
                self.pool(p.pool.window(&self.shapes[0]), FloatPoolKind::Average, p.dpu_factor(&self.out))?;
            }
            Op::GlobalAveragePooling2D(p) => {
                self.pool(self.whole(), FloatPoolKind::Average, p.dpu_factor(&self.shapes[0]))?;
            }
            Op::GlobalMaxPooling2D(_) => self.pool(self.whole(), FloatPoolKind::Max, 1.0)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Layers with a kernel; false if it is none.
    fn weighted(&mut self, float: &Op, weights: &[Tensor]) -> Result<bool, Error> {
        match float {
            Op::Conv2D(l) => self.conv(l.window(&self.shapes[0]), weights, l.groups, false)?,
            Op::DepthwiseConv2D(l) => {
                let channels = self.shapes[0].last().copied().unwrap_or(1);
                self.conv(l.window(&self.shapes[0]), weights, channels, false)?;
            }
            Op::Conv2DTranspose(l) => return self.transposed(l.window(&self.shapes[0]), weights),
            Op::Dense(_) => self.conv(Ok(Window::POINT), weights, 1, false)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// A transposed convolution, whose kernel is turned to have its output channels last; false without a kernel.
    fn transposed(&mut self, window: Result<Window, String>, weights: &[Tensor]) -> Result<bool, Error> {
        let Some(kernel) = weights.first() else { return Ok(false) };
        let (oc, ic) = (kernel.shape()[2], kernel.shape()[3]);
        let turned = |tap: &[f32]| {
            (0..ic).flat_map(|i| (0..oc).map(|o| tap[o * ic + i]).collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        let data: Vec<f32> = kernel.data().chunks_exact((oc * ic).max(1)).flat_map(turned).collect();
        let kernel = Tensor::new(kernel.shape().to_vec(), data).unwrap_or_else(|| Tensor::zeros(&[0]));
        let weights: Vec<Tensor> = std::iter::once(kernel).chain(weights.get(1).cloned()).collect();
        self.conv(window, &weights, 1, true)?;
        Ok(true)
    }
}
