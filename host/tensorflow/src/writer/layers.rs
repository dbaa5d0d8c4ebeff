//! Layers as TensorFlow's operations.

use shiftwise_graph::ops::pool::PoolWindow;
use shiftwise_graph::ops::{
    ActivationFn, Conv2D, Conv2DTranspose, Interpolation, LayerNormalization, Merge, Op, Padding,
};
use shiftwise_tensor::array;
use shiftwise_tensor::tensor::Tensor;

use crate::proto::Attribute;
use crate::writer::{FLOAT, INT32, Writer, list, text};

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
}

/// Two sizes of an image as attribute of a whole batch.
fn sides(own: [usize; 2]) -> Attribute {
    list(&[1, own[0] as i64, own[1] as i64, 1])
}

fn padding(own: Padding) -> Attribute {
    text(match own {
        Padding::Same => "SAME",
        Padding::Valid => "VALID",
    })
}

/// A kernel `[height, width, …]` with zeros between its taps.
fn dilated(kernel: &Tensor, by: [usize; 2]) -> Result<Tensor, String> {
    let shape = kernel.shape();
    let inner: usize = shape[2..].iter().product();
    let size = [0, 1].map(|axis| (shape[axis] - 1) * by[axis] + 1);
    let mut data = vec![0.0; size[0] * size[1] * inner];
    for (i, tap) in kernel.data().chunks_exact(inner.max(1)).enumerate() {
        let at = ((i / shape[1]) * by[0] * size[1] + (i % shape[1]) * by[1]) * inner;
        data[at..at + inner].copy_from_slice(tap);
    }
    Tensor::new([&size, &shape[2..]].concat(), data).ok_or_else(|| "has a damaged kernel".into())
}

impl Writer<'_> {
    /// The value of a layer before its activation.
    pub(super) fn op(&mut self, op: &Op, w: &Written<'_>) -> Result<String, String> {
        let x = || w.inputs.first().cloned().ok_or_else(|| "has no operands".to_owned());
        let named = |part: &str| format!("{}/{part}", w.name);
        match op {
            Op::Conv2D(l) if l.groups > 1 => self.grouped(w, l),
            Op::Conv2D(l) => {
                let kernel = self.floats(&named("Conv2D/kernel"), &w.weights[0]);
                let more = vec![
                    ("strides", sides(l.strides)),
                    ("dilations", sides(l.dilation)),
                    ("padding", padding(l.padding)),
                    ("data_format", text("NHWC")),
                    ("explicit_paddings", list(&[])),
                    ("use_cudnn_on_gpu", Attribute::Flag(true)),
                ];
                let y = self.float_node("Conv2D", &named("Conv2D"), &[&x()?, &kernel], more);
                self.biased(w, y)
            }
            Op::DepthwiseConv2D(l) => {
                if l.strides[0] != l.strides[1] {
                    return Err("has two different strides, which TensorFlow's operation has not".into());
                }
                // TensorFlow's operation has no dilation on a CPU.
                let kernel = self.floats(&named("depthwise/kernel"), &dilated(&w.weights[0], l.dilation)?);
                let more = vec![
                    ("strides", sides(l.strides)),
                    ("dilations", sides([1, 1])),
                    ("padding", padding(l.padding)),
                    ("data_format", text("NHWC")),
                    ("explicit_paddings", list(&[])),
                ];
                let y = self.float_node("DepthwiseConv2dNative", &named("depthwise"), &[&x()?, &kernel], more);
                self.biased(w, y)
            }
            Op::Conv2DTranspose(l) => self.transposed(w, l),
            Op::SeparableConv2D(l) => {
                let (first, second) = l.parts();
                let between = shiftwise_graph::ops::Layer::output_shape(&first, w.shapes)?;
                let name = named("separable_conv2d");
                let inner = Written { name: &name, shape: &between, weights: &w.weights[..1], ..*w };
                let middle = [self.op(&Op::DepthwiseConv2D(first), &inner)?];
                let outer = Written { inputs: &middle, shapes: &[&between], weights: &w.weights[1..], ..*w };
                self.op(&Op::Conv2D(second), &outer)
            }
            Op::Dense(_) => {
                let kernel = self.floats(&named("MatMul/kernel"), &w.weights[0]);
                let flags = |a, b| vec![(a, Attribute::Flag(false)), (b, Attribute::Flag(false))];
                let y = match w.shapes[0].len() {
                    1 => self.float_node(
                        "MatMul",
                        &named("MatMul"),
                        &[&x()?, &kernel],
                        flags("transpose_a", "transpose_b"),
                    ),
                    _ => self.float_node(
                        "BatchMatMulV2",
                        &named("Tensordot"),
                        &[&x()?, &kernel],
                        flags("adj_x", "adj_y"),
                    ),
                };
                self.biased(w, y)
            }
            Op::BatchNormalization(l) => {
                let (factors, offsets) = l.affine(&w.weights.iter().collect::<Vec<_>>());
                let y = self.scaled(&named("batchnorm"), &x()?, &Tensor::vector(factors));
                let offsets = self.floats(&named("batchnorm/offset"), &Tensor::vector(offsets));
                Ok(self.float_node("AddV2", &named("batchnorm/add_1"), &[&y, &offsets], Vec::new()))
            }
            Op::LayerNormalization(l) if !l.rms_scaling => self.layer_norm(w, l, x()?),
            Op::LayerScale(_) => Ok(self.scaled(w.name, &x()?, &w.weights[0])),
            Op::Rescaling(l) => {
                let y = self.scaled(w.name, &x()?, &Tensor::vector(l.scale.clone()));
                let offset = self.floats(&named("offset"), &Tensor::vector(l.offset.clone()));
                Ok(self.float_node("AddV2", &named("add"), &[&y, &offset], Vec::new()))
            }
            Op::Normalization(l) => {
                let (mean, deviation) = l.statistics();
                let mean = self.floats(&named("mean"), &Tensor::vector(mean));
                let deviation = self.floats(&named("deviation"), &Tensor::vector(deviation));
                let y = self.float_node("Sub", &named("sub"), &[&x()?, &mean], Vec::new());
                Ok(self.float_node("RealDiv", &named("truediv"), &[&y, &deviation], Vec::new()))
            }
            Op::Relu(l) => self.function(l.function(), w.name, x()?),
            Op::Elu(l) => self.function(shiftwise_core::model::Function::Elu(l.alpha), w.name, x()?),
            Op::LeakyRelu(l) => self.function(shiftwise_core::model::Function::LeakyRelu(l.alpha), w.name, x()?),
            Op::PRelu(_) => {
                let slope = self.floats(&named("alpha"), &w.weights[0]);
                let above = self.float_node("Relu", &named("Relu"), &[&x()?], Vec::new());
                let below = self.with("Minimum", &named("Minimum"), &x()?, 0.0);
                let below = self.float_node("Mul", &named("mul"), &[&slope, &below], Vec::new());
                Ok(self.float_node("AddV2", &named("add"), &[&above, &below], Vec::new()))
            }
            Op::HardSigmoid(_) => self.function(shiftwise_core::model::Function::DpuHardSigmoid, w.name, x()?),
            Op::Activation(_) | Op::Dropout(_) | Op::Quantize(_) | Op::Input(_) => x(),
            Op::Softmax(l) => self.rows("Softmax", w, l.axis),
            Op::Add(_) => self.folded("AddV2", "add", w),
            Op::Multiply(_) => self.folded("Mul", "mul", w),
            Op::Merge(Merge::Subtract) => self.folded("Sub", "sub", w),
            Op::Merge(Merge::Maximum) => self.folded("Maximum", "Maximum", w),
            Op::Merge(Merge::Minimum) => self.folded("Minimum", "Minimum", w),
            Op::Merge(Merge::Average) => {
                let sum = self.folded("AddV2", "add", w)?;
                Ok(self.with("RealDiv", &named("truediv"), &sum, w.inputs.len() as f32))
            }
            Op::ScaledAdd(l) => {
                let second = self.with("Mul", &named("mul"), &w.inputs[1], l.scale);
                Ok(self.float_node("AddV2", &named("add"), &[&w.inputs[0], &second], Vec::new()))
            }
            Op::Concatenate(l) => {
                let all: Vec<&str> = w.inputs.iter().map(String::as_str).collect();
                Ok(self.joined(&named("concat"), &all, l.axis as i64 + 1))
            }
            Op::MaxPooling2D(l) => self.pool("MaxPool", w, &l.pool),
            Op::AveragePooling2D(l) => {
                let y = self.pool("AvgPool", w, &l.pool)?;
                Ok(self.rescaled(w.name, y, l.dpu_factor(w.shape)))
            }
            Op::GlobalAveragePooling2D(l) => {
                let y = self.reduce("Mean", &named("Mean"), &x()?, &[1, 2], l.keepdims);
                Ok(self.rescaled(w.name, y, l.dpu_factor(w.shapes[0])))
            }
            Op::GlobalMaxPooling2D(l) => Ok(self.reduce("Max", &named("Max"), &x()?, &[1, 2], l.keepdims)),
            Op::Flatten(_) | Op::Reshape(_) => Ok(self.reshaped(&named("Reshape"), &x()?, w.shape)),
            Op::ZeroPadding2D(l) => {
                let pads = [0, 0, l.rows[0], l.rows[1], l.columns[0], l.columns[1], 0, 0].map(|n| n as i64);
                let pads = self.integers(&named("Pad/paddings"), &[4, 2], &pads);
                let more = vec![("Tpaddings", Attribute::Type(INT32))];
                Ok(self.float_node("Pad", &named("Pad"), &[&x()?, &pads], more))
            }
            Op::Cropping2D(l) => {
                let from = [0, l.rows[0], l.columns[0], 0].map(|n| n as i64);
                let size = [-1, w.shape[0] as i64, w.shape[1] as i64, -1];
                let from = self.integers(&named("Slice/begin"), &[4], &from);
                let size = self.integers(&named("Slice/size"), &[4], &size);
                let more = vec![("Index", Attribute::Type(INT32))];
                Ok(self.float_node("Slice", &named("Slice"), &[&x()?, &from, &size], more))
            }
            Op::UpSampling2D(l) => self.resized(w, l.interpolation),
            Op::Resizing(l) => self.resized(w, l.interpolation),
            Op::OneD(l) => {
                let from = [&[1], w.shapes[0]].concat();
                let image = [self.reshaped(&named("ExpandDims"), &x()?, &from)];
                let to = shiftwise_graph::ops::Layer::output_shape(l.image.layer(), &[&from])?;
                let weights = l.image_weights(&w.weights.iter().collect::<Vec<_>>());
                let inner = Written { inputs: &image, shapes: &[&from], shape: &to, weights: &weights, ..*w };
                let y = self.op(&l.image, &inner)?;
                Ok(self.reshaped(&named("Squeeze"), &y, w.shape))
            }
            Op::Permute(l) => {
                let perm: Vec<i64> = std::iter::once(0).chain(l.dims.iter().map(|d| *d as i64 + 1)).collect();
                Ok(self.turned(&named("transpose"), &x()?, &perm))
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
            | Op::Custom(_) => Err("is not written for TensorFlow".to_owned()),
        }
    }

    /// A convolution of groups, which TensorFlow does not fuse on a CPU: each for itself.
    fn grouped(&mut self, w: &Written<'_>, l: &Conv2D) -> Result<String, String> {
        let named = |part: &str| format!("{}/{part}", w.name);
        let x = w.inputs.first().ok_or("has no operands")?;
        let axis = self.integers(&named("split/split_dim"), &[], &[-1]);
        let more = vec![("num_split", Attribute::Integer(l.groups as i64))];
        let split = self.float_node("Split", &named("split"), &[&axis, x], more);
        let kernel = &w.weights[0];
        let (filters, taps) = (kernel.shape()[3], kernel.data().len() / kernel.shape()[3].max(1));
        let each = filters / l.groups.max(1);
        let mut parts = Vec::new();
        for group in 0..l.groups {
            let rows = (0..taps).flat_map(|tap| &kernel.data()[tap * filters..][group * each..(group + 1) * each]);
            let own = Tensor::new([&kernel.shape()[..3], &[each]].concat(), rows.copied().collect());
            let own = self.floats(&named("Conv2D/kernel"), &own.ok_or("has a damaged kernel")?);
            let from = if group == 0 { split.clone() } else { format!("{split}:{group}") };
            let more = vec![
                ("strides", sides(l.strides)),
                ("dilations", sides(l.dilation)),
                ("padding", padding(l.padding)),
                ("data_format", text("NHWC")),
                ("explicit_paddings", list(&[])),
                ("use_cudnn_on_gpu", Attribute::Flag(true)),
            ];
            parts.push(self.float_node("Conv2D", &named("Conv2D"), &[&from, &own], more));
        }
        let y = self.joined(&named("concat"), &parts.iter().map(String::as_str).collect::<Vec<_>>(), 3);
        self.biased(w, y)
    }

    fn biased(&mut self, w: &Written<'_>, y: String) -> Result<String, String> {
        let Some(bias) = w.weights.get(1) else { return Ok(y) };
        let bias = self.floats(&format!("{}/BiasAdd/bias", w.name), bias);
        let more = vec![("data_format", text("NHWC"))];
        Ok(self.float_node("BiasAdd", &format!("{}/BiasAdd", w.name), &[&y, &bias], more))
    }

    fn transposed(&mut self, w: &Written<'_>, l: &Conv2DTranspose) -> Result<String, String> {
        let named = |part: &str| format!("{}/{part}", w.name);
        let kernel = self.floats(&named("conv2d_transpose/kernel"), &w.weights[0]);
        // The size of the batch is only known of the value itself.
        let x = w.inputs.first().ok_or("has no operands")?;
        let shape = self.float_node("Shape", &named("Shape"), &[x], vec![("out_type", Attribute::Type(INT32))]);
        let [zero, one] = [0, 1].map(|k| self.integers(&named(&format!("strided_slice/stack_{k}")), &[1], &[k]));
        let masks = ["begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask"].map(|m| (m, Attribute::Integer(0)));
        let more = masks.into_iter().chain([
            ("shrink_axis_mask", Attribute::Integer(1)),
            ("T", Attribute::Type(INT32)),
            ("Index", Attribute::Type(INT32)),
        ]);
        let batch = self.node("StridedSlice", &named("strided_slice"), &[&shape, &zero, &one, &one], more.collect());
        let size = [0, 1, 2].map(|k| self.integers(&named(&format!("stack/{}", k + 1)), &[], &[w.shape[k] as i64]));
        let more = vec![("T", Attribute::Type(INT32)), ("N", Attribute::Integer(4)), ("axis", Attribute::Integer(0))];
        let size = self.node("Pack", &named("stack"), &[&batch, &size[0], &size[1], &size[2]], more);
        let more = vec![
            ("strides", sides(l.strides)),
            ("dilations", sides(l.dilation)),
            ("padding", padding(l.padding)),
            ("data_format", text("NHWC")),
            ("explicit_paddings", list(&[])),
            ("use_cudnn_on_gpu", Attribute::Flag(true)),
        ];
        let y = self.float_node("Conv2DBackpropInput", &named("conv2d_transpose"), &[&size, &kernel, x], more);
        self.biased(w, y)
    }

    fn pool(&mut self, op: &str, w: &Written<'_>, pool: &PoolWindow) -> Result<String, String> {
        let more = vec![
            ("ksize", sides(pool.size)),
            ("strides", sides(pool.strides)),
            ("padding", padding(pool.padding)),
            ("data_format", text("NHWC")),
        ];
        let x = w.inputs.first().ok_or("has no operands")?;
        Ok(self.float_node(op, &format!("{}/{op}", w.name), &[x], more))
    }

    /// A value times a factor, unless that is 1.
    fn rescaled(&mut self, name: &str, value: String, factor: f32) -> String {
        if factor == 1.0 { value } else { self.with("Mul", &format!("{name}/mul"), &value, factor) }
    }

    fn scaled(&mut self, name: &str, value: &str, factors: &Tensor) -> String {
        let factors = self.floats(&format!("{name}/scale"), factors);
        self.float_node("Mul", &format!("{name}/mul"), &[value, &factors], Vec::new())
    }

    fn layer_norm(&mut self, w: &Written<'_>, l: &LayerNormalization, x: String) -> Result<String, String> {
        let name = |part: &str| format!("{}/{part}", w.name);
        let axis = [w.shape.len() as i64];
        let mean = self.reduce("Mean", &name("moments/mean"), &x, &axis, true);
        let centred = self.float_node("Sub", &name("sub"), &[&x, &mean], Vec::new());
        let square = self.float_node("Square", &name("moments/Square"), &[&centred], Vec::new());
        let variance = self.reduce("Mean", &name("moments/variance"), &square, &axis, true);
        let sum = self.with("AddV2", &name("batchnorm/add"), &variance, l.epsilon);
        let root = self.float_node("Sqrt", &name("Sqrt"), &[&sum], Vec::new());
        let mut y = self.float_node("RealDiv", &name("truediv"), &[&centred, &root], Vec::new());
        let (gamma, beta) = l.scale_and_offset(&w.weights.iter().collect::<Vec<_>>(), w.shape[w.shape.len() - 1]);
        y = self.scaled(&name("gamma"), &y, &Tensor::vector(gamma));
        let beta = self.floats(&name("beta"), &Tensor::vector(beta));
        Ok(self.float_node("AddV2", &name("add_1"), &[&y, &beta], Vec::new()))
    }

    /// Operands combined from the first to the last.
    fn folded(&mut self, op: &str, part: &str, w: &Written<'_>) -> Result<String, String> {
        if w.shapes.iter().any(|s| s.len() != w.shape.len()) {
            return Err("has operands of different numbers of axes, which is not written for TensorFlow".into());
        }
        let (first, rest) = w.inputs.split_first().ok_or("has no operands")?;
        let name = format!("{}/{part}", w.name);
        Ok(rest.iter().fold(first.clone(), |all, other| self.float_node(op, &name, &[&all, other], Vec::new())))
    }

    /// Operands behind each other along an axis of the batch.
    pub(super) fn joined(&mut self, name: &str, all: &[&str], axis: i64) -> String {
        let axis = self.integers(&format!("{name}/axis"), &[], &[axis]);
        let more = vec![("N", Attribute::Integer(all.len() as i64)), ("Tidx", Attribute::Type(INT32))];
        self.float_node("ConcatV2", name, &[all, &[axis.as_str()]].concat(), more)
    }

    /// Axes in another order.
    pub(super) fn turned(&mut self, name: &str, x: &str, order: &[i64]) -> String {
        let order = self.integers(&format!("{name}/perm"), &[order.len()], order);
        self.float_node("Transpose", name, &[x, &order], vec![("Tperm", Attribute::Type(INT32))])
    }

    /// Axes folded.
    pub(super) fn reduce(&mut self, op: &str, name: &str, x: &str, axes: &[i64], keep: bool) -> String {
        let axes = self.integers(&format!("{name}/reduction_indices"), &[axes.len()], axes);
        let more = vec![("Tidx", Attribute::Type(INT32)), ("keep_dims", Attribute::Flag(keep))];
        self.float_node(op, name, &[x, &axes], more)
    }

    /// The same elements of each sample under another shape.
    pub(super) fn reshaped(&mut self, name: &str, x: &str, shape: &[usize]) -> String {
        let target: Vec<i64> = std::iter::once(-1).chain(shape.iter().map(|d| *d as i64)).collect();
        let target = self.integers(&format!("{name}/shape"), &[target.len()], &target);
        self.float_node("Reshape", name, &[x, &target], vec![("Tshape", Attribute::Type(INT32))])
    }

    /// An image of another size.
    pub(super) fn resized(&mut self, w: &Written<'_>, method: Interpolation) -> Result<String, String> {
        let op = match method {
            Interpolation::Nearest => "ResizeNearestNeighbor",
            Interpolation::Bilinear => "ResizeBilinear",
            Interpolation::Bicubic => "ResizeBicubic",
        };
        let name = format!("{}/resize/{op}", w.name);
        let size = self.integers(&format!("{name}/size"), &[2], &[w.shape[0] as i64, w.shape[1] as i64]);
        let more = vec![("align_corners", Attribute::Flag(false)), ("half_pixel_centers", Attribute::Flag(true))];
        let x = w.inputs.first().ok_or("has no operands")?;
        Ok(self.float_node(op, &name, &[x, &size], more))
    }

    /// A function of rows along an axis of the batch; TensorFlow's work along the last.
    pub(super) fn rows(&mut self, op: &str, w: &Written<'_>, axis: i64) -> Result<String, String> {
        let x = w.inputs.first().ok_or("has no operands")?;
        let rank = w.shape.len() as i64 + 1;
        let (axis, name) = (if axis < 0 { axis + rank } else { axis }, format!("{}/{op}", w.name));
        if axis == rank - 1 {
            return Ok(self.float_node(op, &name, &[x], Vec::new()));
        }
        let mut order: Vec<i64> = (0..rank).collect();
        order.swap(axis as usize, rank as usize - 1);
        let turned = self.turned(&format!("{name}/before"), x, &order);
        let y = self.float_node(op, &name, &[&turned], Vec::new());
        Ok(self.turned(&format!("{name}/behind"), &y, &order))
    }

    /// A layer's activation attribute.
    pub(super) fn activation(&mut self, function: ActivationFn, name: &str, x: String) -> Result<String, String> {
        match function {
            ActivationFn::Linear => Ok(x),
            ActivationFn::Softmax => Ok(self.float_node("Softmax", &format!("{name}/Softmax"), &[&x], Vec::new())),
            ActivationFn::LogSoftmax => {
                Ok(self.float_node("LogSoftmax", &format!("{name}/LogSoftmax"), &[&x], Vec::new()))
            }
            other => self.function(other.function(), name, x),
        }
    }

    /// These elements along an axis of the batch.
    pub(super) fn gathered(&mut self, name: &str, x: &str, indices: &[usize], axis: usize) -> String {
        let list: Vec<i64> = indices.iter().map(|i| *i as i64).collect();
        let list = self.integers(&format!("{name}/indices"), &[list.len()], &list);
        let axis = self.integers(&format!("{name}/axis"), &[], &[axis as i64]);
        let types = [("Tparams", FLOAT), ("Tindices", INT32), ("Taxis", INT32)].map(|(k, t)| (k, Attribute::Type(t)));
        let more = types.into_iter().chain([("batch_dims", Attribute::Integer(0))]).collect();
        self.node("GatherV2", name, &[x, &list, &axis], more)
    }

    /// A constant turned to the end of these axes, for functions of constants.
    pub(super) fn swapped(tensor: &Tensor) -> Tensor {
        let rank = tensor.shape().len();
        let mut order: Vec<usize> = (0..rank).collect();
        if rank > 1 {
            order.swap(rank - 2, rank - 1);
        }
        array::transpose(tensor, &order)
    }
}
