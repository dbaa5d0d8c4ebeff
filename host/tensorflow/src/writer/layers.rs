//! Layers that are operations of TensorFlow's own: kernels and windows.

use shiftwise_graph::ops::pool::PoolWindow;
use shiftwise_graph::ops::{Conv2D, Conv2DTranspose, DepthwiseConv2D, Operand, Padding, TfOp};
use shiftwise_operators::{Operators, Written, constant, operand};
use shiftwise_tensor::array;
use shiftwise_tensor::tensor::Tensor;

use crate::proto::Attribute;
use crate::writer::{INT32, Writer, list, text};

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

/// Attributes of a convolution's window. `plain`: one that a library of NVIDIA's might compute.
fn window(strides: [usize; 2], dilation: [usize; 2], pads: Padding, plain: bool) -> Vec<(&'static str, Attribute)> {
    let mut all = vec![
        ("strides", sides(strides)),
        ("dilations", sides(dilation)),
        ("padding", padding(pads)),
        ("data_format", text("NHWC")),
        ("explicit_paddings", list(&[])),
    ];
    all.extend(plain.then_some(("use_cudnn_on_gpu", Attribute::Flag(true))));
    all
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

impl Writer {
    /// A dense layer.
    pub(super) fn matmul(&mut self, w: &Written<'_>) -> Result<String, String> {
        let named = |part: &str| format!("{}/{part}", w.name);
        let kernel = self.floats(&named("MatMul/kernel"), &w.weights[0]);
        let (op, part, flags) = match w.shapes.first().map_or(0, |s| s.len()) {
            1 => ("MatMul", "MatMul", ["transpose_a", "transpose_b"]),
            _ => ("BatchMatMulV2", "Tensordot", ["adj_x", "adj_y"]),
        };
        let flags = flags.map(|flag| (flag, Attribute::Flag(false))).into();
        let y = self.float_node(op, &named(part), &[w.x()?, &kernel], flags);
        self.biased(w, y)
    }

    /// A product of two tensors. Constants are turned at once.
    pub(super) fn matmul_of(&mut self, w: &Written<'_>, op: &TfOp, transpose: [bool; 2]) -> Result<String, String> {
        let mut sides = Vec::new();
        for (k, own) in op.operands.iter().enumerate() {
            sides.push(match own {
                Operand::Constant(own) if transpose.get(k) == Some(&true) => constant(self, w, k, &swapped(own)),
                own => operand(self, w, k, own)?,
            });
        }
        let [a, b, ..] = &sides[..] else { return Err("has not two operands".into()) };
        let turned = |k: usize| transpose[k] && matches!(op.operands.get(k), Some(Operand::Tensor(_)));
        let more = vec![("adj_x", Attribute::Flag(turned(0))), ("adj_y", Attribute::Flag(turned(1)))];
        Ok(self.float_node("BatchMatMulV2", &format!("{}/MatMul", w.name), &[a, b], more))
    }

    /// A convolution of all channels.
    pub(super) fn conv_2d(&mut self, w: &Written<'_>, l: &Conv2D) -> Result<String, String> {
        let name = format!("{}/Conv2D", w.name);
        let kernel = self.floats(&format!("{name}/kernel"), &w.weights[0]);
        let y = self.float_node("Conv2D", &name, &[w.x()?, &kernel], window(l.strides, l.dilation, l.padding, true));
        self.biased(w, y)
    }

    /// A convolution of each channel. TensorFlow's operation has no dilation on a CPU.
    pub(super) fn depthwise_2d(&mut self, w: &Written<'_>, l: &DepthwiseConv2D) -> Result<String, String> {
        if l.strides[0] != l.strides[1] {
            return Err("has two different strides, which TensorFlow's operation has not".into());
        }
        let name = format!("{}/depthwise", w.name);
        let kernel = self.floats(&format!("{name}/kernel"), &dilated(&w.weights[0], l.dilation)?);
        let more = window(l.strides, [1, 1], l.padding, false);
        let y = self.float_node("DepthwiseConv2dNative", &name, &[w.x()?, &kernel], more);
        self.biased(w, y)
    }

    /// A convolution of groups, which TensorFlow does not fuse on a CPU: each for itself.
    pub(super) fn grouped(&mut self, w: &Written<'_>, l: &Conv2D) -> Result<String, String> {
        let named = |part: &str| format!("{}/{part}", w.name);
        let x = w.x()?;
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
            let more = window(l.strides, l.dilation, l.padding, true);
            parts.push(self.float_node("Conv2D", &named("Conv2D"), &[&from, &own], more));
        }
        let y = self.joined(&named("concat"), &parts.iter().map(String::as_str).collect::<Vec<_>>(), 3);
        self.biased(w, y)
    }

    pub(super) fn biased(&mut self, w: &Written<'_>, y: String) -> Result<String, String> {
        let Some(bias) = w.weights.get(1) else { return Ok(y) };
        let bias = self.floats(&format!("{}/BiasAdd/bias", w.name), bias);
        let more = vec![("data_format", text("NHWC"))];
        Ok(self.float_node("BiasAdd", &format!("{}/BiasAdd", w.name), &[&y, &bias], more))
    }

    /// A transposed convolution.
    pub(super) fn conv_transpose(&mut self, w: &Written<'_>, l: &Conv2DTranspose) -> Result<String, String> {
        let named = |part: &str| format!("{}/{part}", w.name);
        let kernel = self.floats(&named("conv2d_transpose/kernel"), &w.weights[0]);
        // The size of the batch is only known of the value itself.
        let x = w.x()?;
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
        let more = window(l.strides, l.dilation, l.padding, true);
        let y = self.float_node("Conv2DBackpropInput", &named("conv2d_transpose"), &[&size, &kernel, x], more);
        self.biased(w, y)
    }

    /// Windows of an image.
    pub(super) fn pooled(&mut self, op: &str, w: &Written<'_>, pool: &PoolWindow) -> Result<String, String> {
        let more = vec![
            ("ksize", sides(pool.size)),
            ("strides", sides(pool.strides)),
            ("padding", padding(pool.padding)),
            ("data_format", text("NHWC")),
        ];
        let x = w.x()?;
        Ok(self.float_node(op, &format!("{}/{op}", w.name), &[x], more))
    }
}

/// A constant turned to the end of these axes, for functions of constants.
fn swapped(tensor: &Tensor) -> Tensor {
    let rank = tensor.shape().len();
    let mut order: Vec<usize> = (0..rank).collect();
    if rank > 1 {
        order.swap(rank - 2, rank - 1);
    }
    array::transpose(tensor, &order)
}
