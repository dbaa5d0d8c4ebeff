//! What stays in floats: operations with the reason, and the quantizers around them.

use super::Lowering;
use crate::graph::{IntOpKind, IntTensor, Kind, TensorIx};
use crate::reasons::FloatWhy;
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::NodeId;
use shiftwise_graph::ops::{Activate, ActivationFn, Interpolation, Layer, Op, Reshape, TfOp, cubic};
use shiftwise_quant::eval::layer_weights;
use shiftwise_quant::layer_quant::ActivationQuant;
use shiftwise_quant::scheme::Quantizer;
use shiftwise_tensor::tensor::Tensor;

impl Lowering<'_> {
    /// A layer in floats, from its operands to its result, quantized where the graph says so.
    pub(super) fn float_layer(&mut self, id: NodeId, why: FloatWhy) -> Result<(), Error> {
        let node = self.q.graph.node(id);
        let layer = self.q.layers.get(&id);
        let inputs = (0..node.inputs.len()).map(|k| self.operand(id, k)).collect::<Result<Vec<_>, _>>();
        let inputs = inputs.map_err(|why| self.fail(id, &why.to_string()))?;
        let mut op = node.op.clone();
        let name = self.q.quant_name(id);
        if let Some(ActivationQuant::Before(q)) = layer.map(|l| &l.activation) {
            // The sum is quantized, then the function follows in floats.
            let function = op.weighted_mut().map(|w| std::mem::replace(&mut w.activation, ActivationFn::Linear));
            let mut sum = inputs;
            if function.is_some() {
                sum = vec![self.float_op(id, op, sum, why.clone())];
                self.out.tensors[sum[0].0].name += "_float";
            }
            let function = function.unwrap_or(node.op.layer().activation());
            let tensor = self.quantized(id, q, sum[0], name + "_input");
            self.float_op(id, Op::Activation(Activate { function }), vec![tensor], why);
            return Ok(());
        }
        let result = self.float_op(id, op, inputs, why);
        if let Some(q) = layer.and_then(|l| l.result()) {
            self.out.tensors[result.0].name += "_float";
            let tensor = self.quantized(id, q, result, name);
            self.value.insert(id, tensor);
        }
        Ok(())
    }

    /// Emits float ops that compute (part of) a layer's result: a separable convolution is two, and a softmax of sums
    /// works on a tensor of its own.
    pub(super) fn float_op(&mut self, id: NodeId, mut op: Op, inputs: Vec<TensorIx>, why: FloatWhy) -> TensorIx {
        let mut inputs: Vec<TensorIx> = inputs.into_iter().map(|x| self.float(x)).collect();
        if let Some(own) = self.q.layers.get(&id).and_then(|l| l.input.as_ref()) {
            inputs = inputs.into_iter().enumerate().map(|(k, x)| self.read(id, (k, x), own)).collect();
        }
        let mut weights = if op.layer().weights().is_empty() { Vec::new() } else { layer_weights(self.q, id) };
        let name = self.q.quant_name(id);
        if let Op::SeparableConv2D(separable) = &op {
            let (depthwise, pointwise) = separable.parts();
            let middle = depthwise.output_shape(&[&self.out.tensors[inputs[0].0].shape]).unwrap_or_default();
            let rest = weights.split_off(weights.len().min(1));
            let own = std::mem::replace(&mut weights, rest);
            let first = Op::DepthwiseConv2D(depthwise);
            inputs = vec![self.float_part(id, first, own, inputs, (format!("{name}_depthwise"), middle), why.clone())];
            op = Op::Conv2D(pointwise);
        }
        let shape = self.q.graph.node(id).shape.clone();
        if let Op::OneD(row) = &op
            && let Some((depthwise, pointwise)) = row.parts()
        {
            let middle = depthwise.output_shape(&[&self.out.tensors[inputs[0].0].shape]).unwrap_or_default();
            let rest = weights.split_off(weights.len().min(1));
            let own = std::mem::replace(&mut weights, rest);
            let first = Op::OneD(depthwise);
            inputs = vec![self.float_part(id, first, own, inputs, (format!("{name}_depthwise"), middle), why.clone())];
            op = Op::OneD(pointwise);
        }
        let half = self.q.graph.node(id).dtype.is_half();
        if !half && let Some(last) = self.custom(id, &op, &inputs, (&weights, &why)) {
            (inputs, op, weights) = (last.0, last.1, Vec::new());
        }
        if !half && let Some(last) = self.cubic(id, &op, inputs[0], &why) {
            (inputs, op) = last;
        }
        let function = op.layer().activation();
        if let (ActivationFn::Softmax | ActivationFn::LogSoftmax, Some(w)) = (function, op.weighted_mut()) {
            w.activation = ActivationFn::Linear;
            inputs =
                vec![self.float_part(id, op, weights, inputs, (format!("{name}_sums"), shape.clone()), why.clone())];
            (op, weights) = (Op::Activation(Activate { function }), Vec::new());
        }
        let tensor = self.float_part(id, op, weights, inputs, (name, shape), why);
        self.value.insert(id, tensor);
        tensor
    }

    /// An input as the layer alone reads it.
    fn read(&mut self, id: NodeId, (k, from): (usize, TensorIx), own: &Quantizer) -> TensorIx {
        let shape = self.out.tensors[from.0].shape.clone();
        let name = format!("{}_input_{k}", self.q.quant_name(id));
        self.out.tensors.push(IntTensor { name, shape, kind: Kind::Float });
        let output = TensorIx(self.out.tensors.len() - 1);
        self.push(IntOpKind::FakeQuantize(Box::new(own.clone())), vec![from], output, &[id]);
        output
    }

    /// A custom layer, or an attention, as the layers that it is made of: what the last of them reads, and it itself. `None` for others.
    fn custom(
        &mut self,
        id: NodeId,
        op: &Op,
        inputs: &[TensorIx],
        (weights, why): (&[Tensor], &FloatWhy),
    ) -> Option<(Vec<TensorIx>, Op)> {
        let shapes: Vec<Vec<usize>> = inputs.iter().map(|t| self.out.tensors[t.0].shape.clone()).collect();
        let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
        let own: Vec<&Tensor> = weights.iter().collect();
        let mut parts = match op {
            Op::Custom(custom) => custom.parts(&shapes, &own),
            Op::MultiHeadAttention(attention) => attention.parts(&shapes, &own),
            _ => None,
        }?;
        let last = parts.pop()?;
        let name = self.q.quant_name(id);
        let mut all = inputs.to_vec();
        for (k, part) in parts.into_iter().enumerate() {
            let own = part.inputs.iter().map(|i| all[*i]).collect();
            let place = (format!("{name}_part_{k}"), part.shape);
            let tensor = self.float_part(id, part.op, Vec::new(), own, place, why.clone());
            all.push(tensor);
        }
        Some((last.inputs.iter().map(|i| all[*i]).collect(), last.op))
    }

    /// A bicubic resizing as two products of matrices, over rows and over columns: what the last of them reads, and it
    /// itself. `None` for other layers.
    fn cubic(&mut self, id: NodeId, op: &Op, input: TensorIx, why: &FloatWhy) -> Option<(Vec<TensorIx>, Op)> {
        let [h, w, c] = self.out.tensors[input.0].shape[..] else { return None };
        let (size, method) = match op {
            Op::Resizing(r) => (r.size, r.interpolation),
            Op::UpSampling2D(u) => ([h * u.size[0], w * u.size[1]], u.interpolation),
            Op::TfOp(f) => f.resizing()?,
            _ => return None,
        };
        // Beyond that the matrices would be larger than what they are for.
        if method != Interpolation::Bicubic || (h * size[0]).max(w * size[1]) > 1 << 24 {
            return None;
        }
        let name = self.q.quant_name(id);
        let view = |shape: &[usize]| Op::Reshape(Reshape { target: shape.iter().map(|d| *d as i64).collect() });
        let rows = Op::TfOp(TfOp::product_with(cubic::matrix(h, size[0])));
        let steps = [
            ("lines", view(&[h, w * c]), vec![h, w * c]),
            ("rows", rows, vec![size[0], w * c]),
            ("columns", view(&[size[0], w, c]), vec![size[0], w, c]),
        ];
        let mut at = input;
        for (what, op, shape) in steps {
            at = self.float_part(id, op, Vec::new(), vec![at], (format!("{name}_{what}"), shape), why.clone());
        }
        Some((vec![at], Op::TfOp(TfOp::product_with(cubic::matrix(w, size[1])))))
    }

    pub(super) fn float_part(
        &mut self,
        id: NodeId,
        op: Op,
        weights: Vec<Tensor>,
        inputs: Vec<TensorIx>,
        (name, shape): (String, Vec<usize>),
        why: FloatWhy,
    ) -> TensorIx {
        self.out.tensors.push(IntTensor { name, shape, kind: Kind::Float });
        let tensor = TensorIx(self.out.tensors.len() - 1);
        let dtype = self.q.graph.node(id).dtype;
        self.push(IntOpKind::Float { op: Box::new(op), weights, dtype, why }, inputs, tensor, &[id]);
        tensor
    }

    pub(super) fn softmax(&mut self, id: NodeId, input: TensorIx) -> Result<(), FloatWhy> {
        let tensor = self.tensor(self.q.quant_name(id), self.q.graph.node(id), Kind::Float);
        self.push(IntOpKind::Softmax, vec![input], tensor, &[id]);
        self.value.insert(id, tensor);
        Ok(())
    }
}
