//! Layers as ONNX' operators.

use shiftwise_core::shape::Window;
use shiftwise_graph::ops::pool::PoolWindow;
use shiftwise_graph::ops::{ActivationFn, BatchNormalization, Conv2DTranspose, Interpolation, Merge, Op, Padding};
use shiftwise_quant::scheme::pof2::Pof2;
use shiftwise_tensor::array;
use shiftwise_tensor::tensor::Tensor;

use crate::writer::{Writer, float, int, ints, text};

/// A layer that is being written.
pub(super) struct Written<'a> {
    /// The name that its nodes begin with.
    pub(super) name: &'a str,
    /// Its operands.
    pub(super) inputs: &'a [String],
    /// Shapes of a sample of each.
    pub(super) shapes: &'a [&'a [usize]],
    /// Shape of a sample of its result.
    pub(super) shape: &'a [usize],
    /// Its weights.
    pub(super) weights: &'a [Tensor],
    /// What quantizes them in the graph.
    pub(super) stored: &'a [Option<Pof2>],
}

fn long(p: [u16; 2]) -> [i64; 2] {
    p.map(i64::from)
}

/// Attributes of a window.
fn window(window: &Window, dilated: bool) -> Vec<crate::proto::AttributeProto> {
    let (before, after) = (long(window.pad_before), long(window.pad_after));
    let mut all = vec![ints("strides", &long(window.stride)), ints("kernel_shape", &long(window.kernel))];
    if dilated {
        all.push(ints("dilations", &long(window.dilation)));
    }
    if before != [0, 0] || after != [0, 0] {
        all.push(ints("pads", &[before, after].concat()));
    }
    all
}

impl Writer<'_> {
    /// The value of a layer before its activation.
    pub(super) fn op(&mut self, op: &Op, w: &Written<'_>) -> Result<String, String> {
        let x = || w.inputs.first().cloned().ok_or_else(|| "has no operands".to_owned());
        let unwritten = || Err("is not written as ONNX".to_owned());
        match op {
            Op::Conv2D(l) => {
                let kernel = array::transpose(&w.weights[0], &[3, 2, 0, 1]);
                self.convolution(w, &l.window(w.shapes[0])?, &kernel, l.groups)
            }
            Op::DepthwiseConv2D(l) => {
                let k = w.weights[0].shape().to_vec();
                let kernel = array::transpose(&w.weights[0], &[2, 3, 0, 1]);
                let kernel = kernel.reshaped(vec![k[2] * k[3], 1, k[0], k[1]]).ok_or("its kernel is damaged")?;
                self.convolution(w, &l.window(w.shapes[0])?, &kernel, k[2])
            }
            Op::Conv2DTranspose(l) => self.transposed(w, l),
            Op::SeparableConv2D(l) => {
                let (first, second) = l.parts();
                let between = shiftwise_graph::ops::Layer::output_shape(&first, w.shapes)?;
                let (name, weights) = (format!("{}/depthwise", w.name), &w.weights[..1]);
                let inner = Written { name: &name, shape: &between, weights, stored: &[None], ..*w };
                let middle = [self.op(&Op::DepthwiseConv2D(first), &inner)?];
                let rest = vec![None; w.weights.len() - 1];
                let outer =
                    Written { inputs: &middle, shapes: &[&between], weights: &w.weights[1..], stored: &rest, ..*w };
                self.op(&Op::Conv2D(second), &outer)
            }
            Op::Dense(_) => {
                let kernel = self.weight(&format!("{}/kernel", w.name), &w.weights[0], w.stored[0].as_ref())?;
                let product = self.node("MatMul", &format!("{}/MatMul", w.name), &[&x()?, &kernel], Vec::new());
                let Some(bias) = w.weights.get(1) else { return Ok(product) };
                let bias = self.weight(&format!("{}/bias", w.name), bias, w.stored[1].as_ref())?;
                Ok(self.node("Add", &format!("{}/BiasAdd", w.name), &[&product, &bias], Vec::new()))
            }
            Op::BatchNormalization(l) => self.batch_norm(w, l, x()?),
            Op::LayerNormalization(l) if !l.rms_scaling => self.layer_norm(w, l, x()?),
            Op::LayerScale(_) => self.scaled(w.name, x()?, &w.weights[0]),
            Op::Rescaling(l) => {
                let (scale, offset) = (Tensor::vector(l.scale.clone()), Tensor::vector(l.offset.clone()));
                let y = self.scaled(w.name, x()?, &scale)?;
                let offset = self.floats(&format!("{}/offset", w.name), &offset);
                Ok(self.node("Add", &format!("{}/add", w.name), &[&y, &offset], Vec::new()))
            }
            Op::Normalization(l) => {
                let (mean, deviation) = l.statistics();
                let mean = self.floats(&format!("{}/mean", w.name), &Tensor::vector(mean));
                let deviation = self.floats(&format!("{}/deviation", w.name), &Tensor::vector(deviation));
                let y = self.node("Sub", &format!("{}/sub", w.name), &[&x()?, &mean], Vec::new());
                Ok(self.node("Div", &format!("{}/truediv", w.name), &[&y, &deviation], Vec::new()))
            }
            Op::Relu(l) => self.function(l.function(), w.name, x()?),
            Op::Elu(l) => Ok(self.node("Elu", &format!("{}/Elu", w.name), &[&x()?], vec![float("alpha", l.alpha)])),
            Op::LeakyRelu(l) => {
                Ok(self.node("LeakyRelu", &format!("{}/LeakyRelu", w.name), &[&x()?], vec![float("alpha", l.alpha)]))
            }
            Op::PRelu(_) => {
                let slope = self.weight(&format!("{}/alpha", w.name), &w.weights[0], w.stored[0].as_ref())?;
                Ok(self.node("PRelu", &format!("{}/PRelu", w.name), &[&x()?, &slope], Vec::new()))
            }
            Op::HardSigmoid(_) => self.function(shiftwise_core::model::Function::DpuHardSigmoid, w.name, x()?),
            Op::Activation(_) | Op::Dropout(_) | Op::Quantize(_) | Op::Input(_) => x(),
            Op::Softmax(l) => {
                Ok(self.node("Softmax", &format!("{}/Softmax", w.name), &[&x()?], vec![int("axis", l.axis)]))
            }
            Op::Add(_) => self.folded("Add", "add", w),
            Op::Multiply(_) => self.folded("Mul", "mul", w),
            Op::Merge(Merge::Subtract) => self.folded("Sub", "sub", w),
            Op::Merge(Merge::Maximum) => self.folded("Max", "Maximum", w),
            Op::Merge(Merge::Minimum) => self.folded("Min", "Minimum", w),
            Op::Merge(Merge::Average) => {
                let sum = self.folded("Add", "add", w)?;
                let count = self.float(&format!("{}/count", w.name), w.inputs.len() as f32);
                Ok(self.node("Div", &format!("{}/truediv", w.name), &[&sum, &count], Vec::new()))
            }
            Op::ScaledAdd(l) => {
                let scale = self.float(&format!("{}/scale", w.name), l.scale);
                let second = self.node("Mul", &format!("{}/mul", w.name), &[&w.inputs[1], &scale], Vec::new());
                Ok(self.node("Add", &format!("{}/add", w.name), &[&w.inputs[0], &second], Vec::new()))
            }
            Op::Concatenate(l) => {
                let all: Vec<&str> = w.inputs.iter().map(String::as_str).collect();
                Ok(self.node("Concat", &format!("{}/concat", w.name), &all, vec![int("axis", l.axis as i64 + 1)]))
            }
            Op::MaxPooling2D(l) => self.pool("MaxPool", w, &l.pool),
            Op::AveragePooling2D(l) => {
                let y = self.pool("AveragePool", w, &l.pool)?;
                self.rescaled(w.name, y, l.dpu_factor(w.shape))
            }
            Op::GlobalAveragePooling2D(l) => {
                let y = self.reduce("ReduceMean", &format!("{}/Mean", w.name), &x()?, &[1, 2], l.keepdims);
                self.rescaled(w.name, y, l.dpu_factor(w.shapes[0]))
            }
            Op::GlobalMaxPooling2D(l) => {
                Ok(self.reduce("ReduceMax", &format!("{}/Max", w.name), &x()?, &[1, 2], l.keepdims))
            }
            Op::Flatten(_) | Op::Reshape(_) => Ok(self.reshaped(&format!("{}/Reshape", w.name), &x()?, w.shape)),
            Op::ZeroPadding2D(l) => {
                let pads = [0, l.rows[0], l.columns[0], 0, 0, l.rows[1], l.columns[1], 0].map(|n| n as i64);
                let pads = self.integers(&format!("{}/Pad/paddings", w.name), &pads);
                Ok(self.node("Pad", &format!("{}/Pad", w.name), &[&x()?, &pads], Vec::new()))
            }
            Op::Cropping2D(l) => {
                let at = [l.rows[0], l.columns[0]].map(|n| n as i64);
                let end = [at[0] + w.shape[0] as i64, at[1] + w.shape[1] as i64];
                Ok(self.sliced(&format!("{}/strided_slice", w.name), &x()?, (&at, &end), &[1, 2], &[1, 1]))
            }
            Op::UpSampling2D(l) => self.resized(w, l.interpolation),
            Op::Resizing(l) => self.resized(w, l.interpolation),
            Op::OneD(l) => {
                let wide = |s: &[usize]| [&[1], s].concat();
                let (from, image) =
                    (wide(w.shapes[0]), self.reshaped(&format!("{}/ExpandDims", w.name), &x()?, &wide(w.shapes[0])));
                let to = shiftwise_graph::ops::Layer::output_shape(l.image.layer(), &[&from])?;
                let weights = l.image_weights(&w.weights.iter().collect::<Vec<_>>());
                let inner = Written { inputs: &[image], shapes: &[&from], shape: &to, weights: &weights, ..*w };
                let y = self.op(&l.image, &inner)?;
                Ok(self.reshaped(&format!("{}/Squeeze", w.name), &y, w.shape))
            }
            Op::Permute(l) => {
                let perm: Vec<i64> = std::iter::once(0).chain(l.dims.iter().map(|d| *d as i64 + 1)).collect();
                Ok(self.node("Transpose", &format!("{}/transpose", w.name), &[&x()?], vec![ints("perm", &perm)]))
            }
            Op::TfOp(l) => self.tf_op(l, w),
            Op::LayerNormalization(_)
            | Op::GroupNormalization(_)
            | Op::UnitNormalization(_)
            | Op::RmsNormalization(_)
            | Op::DpuLayerNorm(_)
            | Op::DpuSoftmax(_)
            | Op::Dot(_)
            | Op::MultiHeadAttention(_)
            | Op::RepeatVector(_)
            | Op::TimeDistributed(_)
            | Op::Custom(_) => unwritten(),
        }
    }

    /// A convolution; the kernel is ONNX' own.
    fn convolution(
        &mut self,
        w: &Written<'_>,
        over: &Window,
        kernel: &Tensor,
        groups: usize,
    ) -> Result<String, String> {
        let kernel = self.weight(&format!("{}/kernel", w.name), kernel, w.stored[0].as_ref())?;
        let bias = match w.weights.get(1) {
            Some(bias) => Some(self.weight(&format!("{}/bias", w.name), bias, w.stored[1].as_ref())?),
            None => None,
        };
        let name = format!("{}/{}", w.name, if bias.is_some() { "BiasAdd" } else { "Conv2D" });
        let x = self.channels_first(&name, &w.inputs[0]);
        let operands: Vec<&str> = [&x, &kernel].into_iter().chain(&bias).map(String::as_str).collect();
        let attributes = [window(over, true), vec![int("group", groups as i64)]].concat();
        let y = self.node("Conv", &name, &operands, attributes);
        Ok(self.channels_last(&name, &y))
    }

    fn transposed(&mut self, w: &Written<'_>, l: &Conv2DTranspose) -> Result<String, String> {
        let over = l.window(w.shapes[0])?;
        let kernel = array::transpose(&w.weights[0], &[3, 2, 0, 1]);
        let kernel = self.weight(&format!("{}/kernel", w.name), &kernel, w.stored[0].as_ref())?;
        let bias = match w.weights.get(1) {
            Some(bias) => Some(self.weight(&format!("{}/bias", w.name), bias, w.stored[1].as_ref())?),
            None => None,
        };
        let (stride, before) = (long(over.stride), long(over.pad_before));
        let ends = [0, 1].map(|axis| {
            let full = (w.shapes[0][axis] as i64 - 1) * stride[axis] + i64::from(over.extent(axis));
            full - before[axis] - w.shape[axis] as i64
        });
        let (after, more) = (ends.map(|e| e.max(0)), ends.map(|e| (-e).max(0)));
        let attributes = vec![
            ints("strides", &stride),
            ints("kernel_shape", &long(over.kernel)),
            ints("dilations", &long(over.dilation)),
            ints("pads", &[before, after].concat()),
            ints("output_padding", &more),
        ];
        let name = format!("{}/{}", w.name, if bias.is_some() { "BiasAdd" } else { "conv2d_transpose" });
        let x = self.channels_first(&name, &w.inputs[0]);
        let operands: Vec<&str> = [&x, &kernel].into_iter().chain(&bias).map(String::as_str).collect();
        let y = self.node("ConvTranspose", &name, &operands, attributes);
        Ok(self.channels_last(&name, &y))
    }

    fn pool(&mut self, operator: &str, w: &Written<'_>, pool: &PoolWindow) -> Result<String, String> {
        let name = format!("{}/{operator}", w.name);
        let over = pool.window(w.shapes[0])?;
        debug_assert!(pool.padding == Padding::Same || over.pad_before == [0, 0]);
        let x = self.channels_first(&name, &w.inputs[0]);
        let y = self.node(operator, &name, &[&x], window(&over, false));
        Ok(self.channels_last(&name, &y))
    }

    /// A value times a factor, unless that is 1.
    fn rescaled(&mut self, name: &str, value: String, factor: f32) -> Result<String, String> {
        if factor == 1.0 {
            return Ok(value);
        }
        let factor = self.float(&format!("{name}/mul/y"), factor);
        Ok(self.node("Mul", &format!("{name}/mul"), &[&value, &factor], Vec::new()))
    }

    fn scaled(&mut self, name: &str, value: String, factors: &Tensor) -> Result<String, String> {
        let factors = self.floats(&format!("{name}/scale"), factors);
        Ok(self.node("Mul", &format!("{name}/mul"), &[&value, &factors], Vec::new()))
    }

    fn batch_norm(&mut self, w: &Written<'_>, l: &BatchNormalization, x: String) -> Result<String, String> {
        let (factors, offsets) = l.affine(&w.weights.iter().collect::<Vec<_>>());
        let y = self.scaled(&format!("{}/batchnorm", w.name), x, &Tensor::vector(factors))?;
        let offsets = self.floats(&format!("{}/batchnorm/offset", w.name), &Tensor::vector(offsets));
        Ok(self.node("Add", &format!("{}/batchnorm/add_1", w.name), &[&y, &offsets], Vec::new()))
    }

    fn layer_norm(
        &mut self,
        w: &Written<'_>,
        l: &shiftwise_graph::ops::LayerNormalization,
        x: String,
    ) -> Result<String, String> {
        let name = |part: &str| format!("{}/{part}", w.name);
        let axis = [w.shape.len() as i64];
        let mean = self.reduce("ReduceMean", &name("moments/mean"), &x, &axis, true);
        let centred = self.node("Sub", &name("sub"), &[&x, &mean], Vec::new());
        let square = self.node("Mul", &name("square"), &[&centred, &centred], Vec::new());
        let variance = self.reduce("ReduceMean", &name("moments/variance"), &square, &axis, true);
        let epsilon = self.float(&name("epsilon"), l.epsilon);
        let sum = self.node("Add", &name("add"), &[&variance, &epsilon], Vec::new());
        let root = self.node("Sqrt", &name("Sqrt"), &[&sum], Vec::new());
        let mut y = self.node("Div", &name("truediv"), &[&centred, &root], Vec::new());
        let (gamma, beta) = l.scale_and_offset(&w.weights.iter().collect::<Vec<_>>(), w.shape[w.shape.len() - 1]);
        let (gamma, beta) =
            (self.floats(&name("gamma"), &Tensor::vector(gamma)), self.floats(&name("beta"), &Tensor::vector(beta)));
        y = self.node("Mul", &name("mul_1"), &[&y, &gamma], Vec::new());
        Ok(self.node("Add", &name("add_1"), &[&y, &beta], Vec::new()))
    }

    /// Operands combined from the first to the last.
    fn folded(&mut self, operator: &str, part: &str, w: &Written<'_>) -> Result<String, String> {
        if w.shapes.iter().any(|s| s.len() != w.shape.len()) {
            return Err("has operands of different numbers of axes, which is not written as ONNX".into());
        }
        let mut all = w.inputs[0].clone();
        for other in &w.inputs[1..] {
            all = self.node(operator, &format!("{}/{part}", w.name), &[&all, other], Vec::new());
        }
        Ok(all)
    }

    /// Axes folded; they are an operand from opset 18 on, of sums from 13 on.
    pub(super) fn reduce(&mut self, operator: &str, name: &str, x: &str, axes: &[i64], keep: bool) -> String {
        let keep = int("keepdims", i64::from(keep));
        let operand = self.options.opset >= 18 || operator == "ReduceSum";
        if operand {
            let axes = self.integers(&format!("{name}/axes"), axes);
            self.node(operator, name, &[x, &axes], vec![keep])
        } else {
            self.node(operator, name, &[x], vec![ints("axes", axes), keep])
        }
    }

    /// The same elements of each sample under another shape.
    pub(super) fn reshaped(&mut self, name: &str, x: &str, shape: &[usize]) -> String {
        let target: Vec<i64> = std::iter::once(-1).chain(shape.iter().map(|d| *d as i64)).collect();
        let target = self.integers(&format!("{name}/shape"), &target);
        self.node("Reshape", name, &[x, &target], Vec::new())
    }

    /// Elements from starts to ends along axes.
    pub(super) fn sliced(
        &mut self,
        name: &str,
        x: &str,
        (from, to): (&[i64], &[i64]),
        axes: &[i64],
        steps: &[i64],
    ) -> String {
        let parts = [("starts", from), ("ends", to), ("axes", axes), ("steps", steps)];
        let [a, b, c, d] = parts.map(|(part, values)| self.integers(&format!("{name}/{part}"), values));
        self.node("Slice", name, &[x, &a, &b, &c, &d], Vec::new())
    }

    /// An image of another size. Our pixel of a nearest one is the one that the centre lies in.
    pub(super) fn resized(&mut self, w: &Written<'_>, method: Interpolation) -> Result<String, String> {
        let name = format!("{}/Resize", w.name);
        let x = self.channels_first(&name, &w.inputs[0]);
        let mut attributes = vec![text("coordinate_transformation_mode", "half_pixel")];
        attributes.extend(match method {
            Interpolation::Nearest => vec![text("mode", "nearest"), text("nearest_mode", "round_prefer_ceil")],
            Interpolation::Bilinear => vec![text("mode", "linear")],
            Interpolation::Bicubic => {
                vec![text("mode", "cubic"), float("cubic_coeff_a", -0.5), int("exclude_outside", 1)]
            }
        });
        let whole = (0..2).all(|axis| w.shape[axis].is_multiple_of(w.shapes[0][axis]));
        let y = if whole {
            let factor = |axis: usize| (w.shape[axis] / w.shapes[0][axis]) as f32;
            let scales = self.floats(&format!("{name}/scales"), &Tensor::vector(vec![1.0, 1.0, factor(0), factor(1)]));
            self.node("Resize", &name, &[&x, "", &scales], attributes)
        } else {
            // Sizes include those of the batch, which only the value itself knows.
            let shape = self.node("Shape", &format!("{name}/Shape"), &[&x], Vec::new());
            let kept = self.sliced(&format!("{name}/kept"), &shape, (&[0], &[2]), &[0], &[1]);
            let size = self.integers(&format!("{name}/size"), &[w.shape[0] as i64, w.shape[1] as i64]);
            let sizes = self.node("Concat", &format!("{name}/sizes"), &[&kept, &size], vec![int("axis", 0)]);
            self.node("Resize", &name, &[&x, "", "", &sizes], attributes)
        };
        Ok(self.channels_last(&name, &y))
    }

    /// A layer's activation attribute.
    pub(super) fn activation(&mut self, function: ActivationFn, name: &str, x: String) -> Result<String, String> {
        match function {
            ActivationFn::Linear => Ok(x),
            ActivationFn::Softmax => Ok(self.node("Softmax", &format!("{name}/Softmax"), &[&x], vec![int("axis", -1)])),
            ActivationFn::LogSoftmax => {
                Ok(self.node("LogSoftmax", &format!("{name}/LogSoftmax"), &[&x], vec![int("axis", -1)]))
            }
            other => self.function(other.function(), name, x),
        }
    }
}
