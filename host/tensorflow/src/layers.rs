//! Layers with weights, pools and activations, from operations.

use serde_json::json;

use crate::constants::Constant;
use crate::network::{Network, Slot};
use shiftwise_core::model::Combine;
use shiftwise_graph::graph::NodeId;
use shiftwise_graph::ops::pool::PoolWindow;
use shiftwise_graph::ops::tfop::Kind;
use shiftwise_graph::ops::{
    Activate, ActivationFn, Add, AveragePooling2D, BatchNormalization, Conv2D, Conv2DTranspose, Dense, DepthwiseConv2D,
    Elu, GlobalAveragePooling2D, GlobalMaxPooling2D, LeakyRelu, MaxPooling2D, Merge, Multiply, Op, Operand, PRelu,
    Padding, Relu, Softmax, TfOp, Weighted, ZeroPadding2D,
};
use shiftwise_tensor::array;
use shiftwise_tensor::tensor::Tensor;

/// How an operation with a window pads: TensorFlow's two ways, or by so many rows and columns, (before, after) each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edges {
    Valid,
    Same,
    Explicit([[usize; 2]; 2]),
}

/// The geometry of a convolution; vertical numbers first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sliding {
    pub(crate) strides: [usize; 2],
    pub(crate) dilation: [usize; 2],
    pub(crate) edges: Edges,
}

fn weighted(kernel: Tensor, bias: Option<&Constant>) -> Result<Weighted, String> {
    let bias = bias.map(Constant::tensor).transpose()?;
    let bias = bias.map(|b| Tensor::vector(b.into_data()));
    Ok(Weighted { kernel, bias, activation: ActivationFn::Linear })
}

fn rank_4(kernel: &Tensor) -> Result<[usize; 4], String> {
    let fail = |_| format!("its kernel has shape {:?}, four dimensions are expected", kernel.shape());
    kernel.shape().try_into().map_err(fail)
}

impl Network<'_> {
    /// The operand of a window: explicit rows and columns of zeros become a layer in front of it.
    fn padded(&mut self, operation: &str, x: NodeId, edges: Edges) -> Result<(NodeId, Padding), String> {
        match edges {
            Edges::Valid => Ok((x, Padding::Valid)),
            Edges::Same => Ok((x, Padding::Same)),
            Edges::Explicit([[0, 0], [0, 0]]) => Ok((x, Padding::Valid)),
            Edges::Explicit([rows, columns]) => {
                let op = Op::ZeroPadding2D(ZeroPadding2D { rows, columns });
                let slot = self.add(&format!("{operation}_padding"), op, &[x])?;
                self.layer_of(&slot).map(|id| (id, Padding::Valid))
            }
        }
    }

    /// A convolution; kernel `[h, w, input channels / groups, filters]`.
    pub(crate) fn convolution(
        &mut self,
        operation: &str,
        x: &Slot,
        kernel: Tensor,
        bias: Option<&Constant>,
        sliding: Sliding,
    ) -> Result<Slot, String> {
        let (x, padding) = self.padded(operation, self.layer_of(x)?, sliding.edges)?;
        let [_, _, channels, _] = rank_4(&kernel)?;
        let groups = match self.sample(x) {
            [_, _, c] if channels > 0 && c.is_multiple_of(channels) => c / channels,
            shape => return Err(format!("its kernel has shape {:?} and its input {shape:?}", kernel.shape())),
        };
        let w = weighted(kernel, bias)?;
        let (strides, dilation) = (sliding.strides, sliding.dilation);
        self.add(operation, Op::Conv2D(Conv2D { w, strides, dilation, padding, groups }), &[x])
    }

    /// A convolution of each channel; kernel `[h, w, channels, multiplier]`.
    pub(crate) fn depthwise(
        &mut self,
        operation: &str,
        x: &Slot,
        kernel: Tensor,
        bias: Option<&Constant>,
        sliding: Sliding,
    ) -> Result<Slot, String> {
        let (x, padding) = self.padded(operation, self.layer_of(x)?, sliding.edges)?;
        let w = weighted(kernel, bias)?;
        let (strides, dilation) = (sliding.strides, sliding.dilation);
        self.add(operation, Op::DepthwiseConv2D(DepthwiseConv2D { w, strides, dilation, padding }), &[x])
    }

    /// A transposed convolution whose result has this size; kernel `[h, w, filters, input channels]`.
    pub(crate) fn transposed(
        &mut self,
        operation: &str,
        x: &Slot,
        kernel: Tensor,
        bias: Option<&Constant>,
        (sliding, size): (Sliding, [i64; 2]),
    ) -> Result<Slot, String> {
        let x = self.layer_of(x)?;
        let padding = match sliding.edges {
            Edges::Valid => Padding::Valid,
            Edges::Same => Padding::Same,
            Edges::Explicit(_) => {
                return Err("a transposed convolution that pads in its own way is not supported".into());
            }
        };
        rank_4(&kernel)?;
        let w = weighted(kernel, bias)?;
        let (strides, dilation) = (sliding.strides, sliding.dilation);
        // Keras has a rule for the size, and a setting where another one is meant.
        let more = (0..strides[0]).flat_map(|a| (0..strides[1]).map(move |b| Some([a, b])));
        for output_padding in std::iter::once(None).chain(more).take(1024) {
            let op = Conv2DTranspose { w: w.clone(), strides, dilation, padding, output_padding };
            let op = Op::Conv2DTranspose(op);
            op.layer().check()?;
            let shape = op.layer().output_shape(&[self.sample(x)])?;
            if shape.iter().take(2).map(|d| *d as i64).eq(size) {
                return self.add(operation, op, &[x]);
            }
        }
        Err(format!("its result of {size:?} pixels is none that a transposed convolution has"))
    }

    /// A product with a constant matrix `[inputs, units]` over the last axis.
    pub(crate) fn dense(
        &mut self,
        operation: &str,
        x: &Slot,
        kernel: Tensor,
        bias: Option<&Constant>,
    ) -> Result<Slot, String> {
        let (id, merged) = match x {
            Slot::Layer { id, merged } => (*id, *merged),
            other => (self.layer_of(other)?, false),
        };
        let w = weighted(kernel, bias)?;
        match self.add(operation, Op::Dense(Dense { w }), &[id])? {
            Slot::Layer { id, .. } => Ok(Slot::Layer { id, merged }),
            other => Ok(other),
        }
    }

    /// A normalization by constant statistics: scale, offset, mean, variance.
    pub(crate) fn normalization(
        &mut self,
        operation: &str,
        x: &Slot,
        [gamma, beta, mean, variance]: [Tensor; 4],
        epsilon: f32,
    ) -> Result<Slot, String> {
        let x = self.layer_of(x)?;
        let momentum = BatchNormalization::MOMENTUM;
        let norm = BatchNormalization { gamma: Some(gamma), beta: Some(beta), mean, variance, epsilon, momentum };
        self.add(operation, Op::BatchNormalization(norm), &[x])
    }

    /// The largest or the mean value of each window.
    pub(crate) fn pool(
        &mut self,
        operation: &str,
        x: &Slot,
        largest: bool,
        (size, strides, edges): ([usize; 2], [usize; 2], Edges),
    ) -> Result<Slot, String> {
        let padding = match edges {
            Edges::Valid => Padding::Valid,
            Edges::Same => Padding::Same,
            Edges::Explicit(_) => return Err("a pool that pads in its own way is not supported".into()),
        };
        let x = self.layer_of(x)?;
        let pool = PoolWindow { size, strides, padding };
        let op = match largest {
            true => Op::MaxPooling2D(MaxPooling2D { pool }),
            false => Op::AveragePooling2D(AveragePooling2D { pool, dpu: false }),
        };
        self.add(operation, op, &[x])
    }

    /// A fold along axes by one of TensorFlow's functions; over height and width it is a global pool.
    pub(crate) fn reduce(
        &mut self,
        operation: &str,
        function: &str,
        x: &Slot,
        axes: &[i64],
        keep: bool,
    ) -> Result<Slot, String> {
        let rank = self.rank(x)?;
        let axes = axes.iter().map(|a| array::axis(*a, rank)).collect::<Result<Vec<_>, _>>()?;
        let mut sorted = axes.clone();
        sorted.sort_unstable();
        if rank == 4 && sorted == [1, 2] && x.constant().is_none() {
            let id = self.layer_of(x)?;
            match function {
                "math.reduce_mean" => {
                    let op = GlobalAveragePooling2D { keepdims: keep, dpu: false };
                    return self.add(operation, Op::GlobalAveragePooling2D(op), &[id]);
                }
                "math.reduce_max" => {
                    let op = Op::GlobalMaxPooling2D(GlobalMaxPooling2D { keepdims: keep });
                    return self.add(operation, op, &[id]);
                }
                _ => {}
            }
        }
        self.function(operation, function, std::slice::from_ref(x), &[], json!({ "axis": axes, "keepdims": keep }))
    }

    /// A function of two operands by TensorFlow's name; of two tensors it is the layer that Keras has for it.
    pub(crate) fn binary(&mut self, operation: &str, function: &str, [a, b]: [&Slot; 2]) -> Result<Slot, String> {
        if let ("math.equal", Slot::Layer { id, merged: false }, Some(zero)) = (function, a, b.constant())
            && zero.tensor()?.data().iter().all(|v| *v == 0.0)
        {
            return Ok(Slot::IsZero(*id));
        }
        let layer = match function {
            "math.add" => Some(Op::Add(Add)),
            "math.multiply" => Some(Op::Multiply(Multiply)),
            "math.subtract" => Some(Op::Merge(Merge::Subtract)),
            "math.maximum" => Some(Op::Merge(Merge::Maximum)),
            "math.minimum" => Some(Op::Merge(Merge::Minimum)),
            _ => None,
        };
        if let (Some(layer), Slot::Layer { id: x, merged: false }, Slot::Layer { id: y, merged: false }) = (layer, a, b)
            && self.sample(*x).len() == self.sample(*y).len()
        {
            return self.add(operation, layer, &[*x, *y]);
        }
        self.function(operation, function, &[a.clone(), b.clone()], &["y"], json!({}))
    }

    /// One of two by a condition that is known; or a quotient, and 0 where it would divide by 0.
    pub(crate) fn select(&mut self, operation: &str, [condition, a, b]: [&Slot; 3]) -> Result<Slot, String> {
        let divisor = match condition {
            Slot::Constant(constant) => match constant.whole()?[..] {
                [0] => return Ok(b.clone()),
                [_] => return Ok(a.clone()),
                _ => return Err("its condition is not one truth value".into()),
            },
            Slot::IsZero(id) => *id,
            Slot::Layer { .. } | Slot::Nothing => return Err("its condition depends on the samples".into()),
        };
        let zero = a.constant().is_some_and(|c| c.tensor().is_ok_and(|t| t.data().iter().all(|v| *v == 0.0)));
        let quotient = self.layer_of(b)?;
        let node = self.node(quotient);
        let operands = match &node.op {
            Op::TfOp(TfOp { kind: Kind::Binary(Combine::Divide), operands, .. }) if zero => operands.clone(),
            _ => return Err("its condition depends on the samples".into()),
        };
        let inputs = node.inputs.clone();
        let slot = |operand: &Operand| match operand {
            Operand::Tensor(k) => Slot::Layer { id: inputs.get(*k).copied().unwrap_or(quotient), merged: false },
            Operand::Constant(t) => Slot::Constant(Constant::Floats(t.clone())),
        };
        match &operands.iter().map(slot).collect::<Vec<_>>()[..] {
            [x, y @ Slot::Layer { id, .. }] if *id == divisor => self.binary(operation, "math.divide_no_nan", [x, y]),
            _ => Err("its condition depends on the samples".into()),
        }
    }

    /// An activation by its Keras name, as the layer that Keras has for it.
    pub(crate) fn activation(&mut self, operation: &str, x: &Slot, name: &str) -> Result<Slot, String> {
        let (id, merged) = match x {
            Slot::Layer { id, merged } => (*id, *merged),
            other => (self.layer_of(other)?, false),
        };
        let op = match name {
            "relu" => Op::Relu(Relu::PLAIN),
            "relu6" => Op::Relu(Relu { max_value: Some(6.0), ..Relu::PLAIN }),
            "elu" => Op::Elu(Elu { alpha: 1.0 }),
            "softmax" => Op::Softmax(Softmax { axis: -1 }),
            other => {
                let function = ActivationFn::from_name(other).ok_or("its activation is not known")?;
                Op::Activation(Activate { function })
            }
        };
        match self.add(operation, op, &[id])? {
            Slot::Layer { id, .. } => Ok(Slot::Layer { id, merged }),
            other => Ok(other),
        }
    }

    /// x for x ≥ 0, else alpha·x.
    pub(crate) fn leaky(&mut self, operation: &str, x: &Slot, alpha: f32) -> Result<Slot, String> {
        let id = self.layer_of(x)?;
        self.add(operation, Op::LeakyRelu(LeakyRelu { alpha }), &[id])
    }

    /// A learned slope for negative values.
    pub(crate) fn prelu(&mut self, operation: &str, x: &Slot, alpha: &Constant) -> Result<Slot, String> {
        let id = self.layer_of(x)?;
        let alpha = alpha.tensor()?;
        let rank = self.sample(id).len();
        let skipped = alpha.shape().len().saturating_sub(rank);
        let own: Vec<usize> = alpha.shape()[skipped..].to_vec();
        let shape = [vec![1; rank.saturating_sub(own.len())], own].concat();
        let shared_axes = (1..=rank).filter(|i| shape[i - 1] == 1).collect();
        let alpha = alpha.reshaped(shape).ok_or("its slopes are one set for each sample")?;
        self.add(operation, Op::PRelu(PRelu { alpha, shared_axes }), &[id])
    }
}
