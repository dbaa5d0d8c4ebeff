//! Layers that are operators of ONNX' own: kernels, windows, sizes.

use shiftwise_core::shape::Window;
use shiftwise_graph::dtype::Dtype;
use shiftwise_graph::ops::pool::PoolWindow;
use shiftwise_graph::ops::{Conv2D, Conv2DTranspose, DepthwiseConv2D, Interpolation, Padding, TfOp};
use shiftwise_operators::{Written, operand};
use shiftwise_tensor::array;
use shiftwise_tensor::tensor::Tensor;

use crate::writer::{Writer, float, int, ints, text};

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

impl Writer {
    /// A value rounded to a type, if that has 16 bits; it stays an f32, which holds every such number. `names`: of the two
    /// operators.
    pub(super) fn cast(&mut self, dtype: Dtype, value: String, names: [&str; 2]) -> String {
        let kind = match dtype {
            Dtype::Float16 => 10,
            Dtype::BFloat16 => 16,
            Dtype::Float32 | Dtype::Float64 => return value,
        };
        let half = self.node("Cast", names[0], &[&value], vec![int("to", kind)]);
        self.node("Cast", names[1], &[&half], vec![int("to", 1)])
    }

    /// A dense layer.
    pub(super) fn matmul(&mut self, w: &Written<'_>) -> Result<String, String> {
        let kernel = self.weight(&format!("{}/kernel", w.name), &w.weights[0], w.stored[0].as_ref())?;
        let product = self.node("MatMul", &format!("{}/MatMul", w.name), &[w.x()?, &kernel], Vec::new());
        let Some(bias) = w.weights.get(1) else { return Ok(product) };
        let bias = self.weight(&format!("{}/bias", w.name), bias, w.stored[1].as_ref())?;
        Ok(self.node("Add", &format!("{}/BiasAdd", w.name), &[&product, &bias], Vec::new()))
    }

    /// A product of two tensors.
    pub(super) fn matmul_of(&mut self, w: &Written<'_>, op: &TfOp, transpose: [bool; 2]) -> Result<String, String> {
        let sides = op.operands.iter().enumerate().map(|(k, own)| operand(self, w, k, own));
        let mut sides = sides.collect::<Result<Vec<_>, _>>()?;
        for (k, side) in sides.iter_mut().enumerate().take(2).filter(|(k, _)| transpose[*k]) {
            let own = w.shapes.get(k).map_or(2, |s| s.len() + 1);
            let mut perm: Vec<i64> = (0..own as i64).collect();
            perm.swap(own - 2, own - 1);
            *side = self.node("Transpose", &format!("{}/transpose", w.name), &[&*side], vec![ints("perm", &perm)]);
        }
        let [a, b, ..] = &sides[..] else { return Err("has not two operands".into()) };
        Ok(self.node("MatMul", &format!("{}/MatMul", w.name), &[a, b], Vec::new()))
    }

    /// A convolution of groups.
    pub(super) fn conv_2d(&mut self, w: &Written<'_>, l: &Conv2D) -> Result<String, String> {
        let kernel = array::transpose(&w.weights[0], &[3, 2, 0, 1]);
        self.convolution(w, &l.window(w.shapes[0])?, &kernel, l.groups)
    }

    /// A convolution of each channel.
    pub(super) fn depthwise_2d(&mut self, w: &Written<'_>, l: &DepthwiseConv2D) -> Result<String, String> {
        let k = w.weights[0].shape().to_vec();
        let kernel = array::transpose(&w.weights[0], &[2, 3, 0, 1]);
        let kernel = kernel.reshaped(vec![k[2] * k[3], 1, k[0], k[1]]).ok_or("its kernel is damaged")?;
        self.convolution(w, &l.window(w.shapes[0])?, &kernel, k[2])
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

    /// A transposed convolution.
    pub(super) fn conv_transpose(&mut self, w: &Written<'_>, l: &Conv2DTranspose) -> Result<String, String> {
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

    /// Windows of an image.
    pub(super) fn pooled(&mut self, operator: &str, w: &Written<'_>, pool: &PoolWindow) -> Result<String, String> {
        let name = format!("{}/{operator}", w.name);
        let over = pool.window(w.shapes[0])?;
        debug_assert!(pool.padding == Padding::Same || over.pad_before == [0, 0]);
        let x = self.channels_first(&name, &w.inputs[0]);
        let y = self.node(operator, &name, &[&x], window(&over, false));
        Ok(self.channels_last(&name, &y))
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
    pub(super) fn resize(&mut self, w: &Written<'_>, method: Interpolation) -> Result<String, String> {
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
}
