//! Attention of several heads along the sequence.

use crate::backward::{Call, Grads, NoGradient, Saved};
use crate::ops::custom::Part;
use crate::ops::tfop::{Kind, Operand};
use crate::ops::{Layer, Op, TfOp, finite, shaped};
use shiftwise_core::model::{Combine, RowFunction};
use shiftwise_tensor::array;
use shiftwise_tensor::tensor::Tensor;

/// What is added to scores that a causal mask leaves out, as Keras does.
const MASKED: f32 = -1e9;

/// A kernel and its bias.
#[derive(Clone, Debug)]
pub struct Projection {
    /// `[inputs, heads, size]`; of the output `[heads, size, outputs]`.
    pub kernel: Tensor,
    /// `[heads, size]`; of the output `[outputs]`.
    pub bias: Option<Tensor>,
}

/// Keras' `MultiHeadAttention` of samples `[steps, channels]`, in f32.
///
/// Each head has q, k and v from its own parts of the projections; its result is `softmax(q · kᵀ / √key_dim) · v`, and the
/// results of all heads are projected together. Inputs are query and value, and a key where it isn't the value.
#[derive(Clone, Debug)]
pub struct MultiHeadAttention {
    /// Number of heads.
    pub heads: usize,
    /// Size of q and k of a head.
    pub key_dim: usize,
    /// Size of v of a head.
    pub value_dim: usize,
    /// Projections of query, key and value.
    pub inputs: [Projection; 3],
    /// Projection of the results of all heads.
    pub output: Projection,
    /// Whether a step sees no later steps.
    pub causal: bool,
    /// Share of scores that training drops; kept for files.
    pub dropout: f32,
    /// Whether the output's size was given; kept for files.
    pub own_output: bool,
}

impl MultiHeadAttention {
    /// Keras' names of the projections, in the order of the weights.
    pub const PROJECTIONS: [&'static str; 4] = ["query", "key", "value", "attention_output"];

    fn projections(&self) -> [&Projection; 4] {
        let [query, key, value] = &self.inputs;
        [query, key, value, &self.output]
    }

    /// The layer as functions of its inputs, its weights and those functions, in that order of their indices. Shapes are
    /// those of samples.
    fn functions(&self, inputs: &[&[usize]]) -> Result<Vec<Part>, String> {
        let (query, value) = match inputs {
            [query, value] | [query, value, _] => (*query, *value),
            _ => return Err(format!("it has {} inputs, query, value and maybe a key are expected", inputs.len())),
        };
        let key = inputs.get(2).copied().unwrap_or(value);
        let (&[steps, _], &[seen, _], &[keys, _]) = (query, value, key) else {
            return Err(format!("its inputs have shapes {inputs:?}, [steps, channels] are expected"));
        };
        if keys != seen {
            return Err(format!("its key has {keys} steps and its value {seen}"));
        }
        let mut all = Functions { first: inputs.len() + self.weights().len(), parts: Vec::new() };
        let (heads, size) = (self.heads, self.key_dim);
        let sources = [0, inputs.len() - 1, 1];
        let mut weight = inputs.len();
        let mut own = [0; 3];
        for (k, projection) in self.inputs.iter().enumerate() {
            let size = if k == 2 { self.value_dim } else { size };
            let channels = projection.kernel.shape().first().copied().unwrap_or(0);
            let kernel = all.reshape(weight, &[channels, heads * size], false);
            let mut at = all.product([sources[k], kernel], [false; 2]);
            weight += 1;
            if projection.bias.is_some() {
                let bias = all.reshape(weight, &[heads * size], false);
                at = all.push(Kind::Binary(Combine::Add), vec![at, bias], None);
                weight += 1;
            }
            if k == 0 {
                let scale = Tensor::new(Vec::new(), vec![1.0 / (size as f32).sqrt()]);
                at = all.push(Kind::Binary(Combine::Multiply), vec![at], scale);
            }
            let steps = if k == 0 { steps } else { seen };
            let split = all.reshape(at, &[steps, heads, size], true);
            own[k] = all.push(Kind::Transpose(Some(vec![0, 2, 1, 3])), vec![split], None);
        }
        let mut scores = all.product([own[0], own[1]], [false, true]);
        if self.causal {
            let mask = (0..steps).flat_map(|i| (0..seen).map(move |j| if j <= i { 0.0 } else { MASKED })).collect();
            scores = all.push(Kind::Binary(Combine::Add), vec![scores], Tensor::new(vec![steps, seen], mask));
        }
        let shares = all.push(Kind::Rows(RowFunction::Softmax, -1), vec![scores], None);
        let seen_by_heads = all.product([shares, own[2]], [false; 2]);
        let joined = all.push(Kind::Transpose(Some(vec![0, 2, 1, 3])), vec![seen_by_heads], None);
        let joined = all.reshape(joined, &[steps, heads * self.value_dim], true);
        let outputs = self.output.kernel.shape().last().copied().unwrap_or(0);
        let kernel = all.reshape(weight, &[heads * self.value_dim, outputs], false);
        let at = all.product([joined, kernel], [false; 2]);
        if self.output.bias.is_some() {
            all.push(Kind::Binary(Combine::Add), vec![at, weight + 1], None);
        }
        Ok(all.parts)
    }

    /// The layer as known layers one after the other, with these weights in them; `None` for inputs that don't fit.
    pub fn parts(&self, inputs: &[&[usize]], weights: &[&Tensor]) -> Option<Vec<Part>> {
        let (n, first) = (inputs.len(), inputs.len() + weights.len());
        // What each index has become: a constant, or an input or part.
        let mut known: Vec<Result<usize, Tensor>> = (0..n).map(Ok).collect();
        known.extend(weights.iter().map(|w| Err((*w).clone())));
        let mut shapes: Vec<Vec<usize>> = inputs.iter().map(|s| s.to_vec()).collect();
        let mut parts: Vec<Part> = Vec::new();
        for part in self.functions(inputs).ok()? {
            let Op::TfOp(function) = part.op else { return None };
            let (mut operands, mut from) = (Vec::new(), Vec::new());
            for operand in function.operands {
                operands.push(match operand {
                    Operand::Constant(t) => Operand::Constant(t),
                    Operand::Tensor(k) => match known.get(*part.inputs.get(k)?)? {
                        Err(constant) => Operand::Constant(constant.clone()),
                        Ok(index) => {
                            from.push(*index);
                            Operand::Tensor(from.len() - 1)
                        }
                    },
                });
            }
            let function = TfOp { operands, ..function };
            if from.is_empty() {
                known.push(Err(function.eval(&[], &[])));
                continue;
            }
            let own: Vec<&[usize]> = from.iter().map(|i| shapes.get(*i).map_or(&[][..], Vec::as_slice)).collect();
            let shape = function.output_shape(&own).ok()?;
            shapes.push(shape.clone());
            known.push(Ok(n + parts.len()));
            parts.push(Part { op: Op::TfOp(function), inputs: from, shape });
        }
        debug_assert!(known.len() >= first);
        Some(parts)
    }

    /// Every tensor of the layer for a batch: inputs, weights, then the results of its functions.
    fn evaluated(&self, inputs: &[&Tensor], weights: &[&Tensor]) -> (Vec<Part>, Vec<Tensor>) {
        let samples: Vec<&[usize]> = inputs.iter().map(|t| t.shape().get(1..).unwrap_or_default()).collect();
        let parts = self.functions(&samples).unwrap_or_default();
        let mut all: Vec<Tensor> = inputs.iter().chain(weights).map(|t| (*t).clone()).collect();
        for part in &parts {
            let own: Vec<&Tensor> = part.inputs.iter().filter_map(|i| all.get(*i)).collect();
            let result = part.op.layer().eval(&own, &[]);
            all.push(result);
        }
        (parts, all)
    }
}

/// Functions while they are listed.
struct Functions {
    /// The index of the first one.
    first: usize,
    parts: Vec<Part>,
}

impl Functions {
    fn push(&mut self, kind: Kind, inputs: Vec<usize>, constant: Option<Tensor>) -> usize {
        let operands = (0..inputs.len()).map(Operand::Tensor).chain(constant.map(Operand::Constant)).collect();
        let op = Op::TfOp(TfOp { function: "attention".into(), operands, kind });
        self.parts.push(Part { op, inputs, shape: Vec::new() });
        self.first + self.parts.len() - 1
    }

    fn product(&mut self, inputs: [usize; 2], transpose: [bool; 2]) -> usize {
        self.push(Kind::MatMul { transpose }, inputs.into(), None)
    }

    /// The same elements in another shape, with a batch in front or without.
    fn reshape(&mut self, input: usize, shape: &[usize], batched: bool) -> usize {
        let batch = batched.then_some(-1);
        self.push(Kind::Reshape(batch.into_iter().chain(shape.iter().map(|d| *d as i64)).collect()), vec![input], None)
    }
}

impl Layer for MultiHeadAttention {
    fn class(&self) -> &str {
        "MultiHeadAttention"
    }
    fn check(&self) -> Result<(), String> {
        let sizes = [self.heads, self.key_dim, self.value_dim];
        if sizes.contains(&0) || sizes.iter().any(|n| *n > 1 << 16) {
            return Err(format!("its heads, key_dim and value_dim are {sizes:?}, 1 to 65536 are expected"));
        }
        finite("dropout", self.dropout)?;
        for (k, projection) in self.inputs.iter().enumerate() {
            let size = if k == 2 { self.value_dim } else { self.key_dim };
            let channels = projection.kernel.shape().first().copied().unwrap_or(0);
            shaped("kernel", &projection.kernel, &[channels, self.heads, size])?;
            projection.bias.as_ref().map_or(Ok(()), |bias| shaped("bias", bias, &[self.heads, size]))?;
        }
        let outputs = self.output.kernel.shape().last().copied().unwrap_or(0);
        shaped("kernel", &self.output.kernel, &[self.heads, self.value_dim, outputs])?;
        self.output.bias.as_ref().map_or(Ok(()), |bias| shaped("bias", bias, &[outputs]))
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        self.functions(inputs)?;
        let sources = [inputs[0], inputs[inputs.len() - 1], inputs[1]];
        for ((source, projection), name) in sources.iter().zip(&self.inputs).zip(Self::PROJECTIONS) {
            let own = projection.kernel.shape().first();
            if source.last() != own {
                return Err(format!("its {name} has shape {source:?}, and its kernel takes {own:?} channels"));
            }
        }
        Ok(vec![inputs[0][0], self.output.kernel.shape()[2]])
    }
    fn weights(&self) -> Vec<(&str, &Tensor)> {
        const NAMES: [[&str; 2]; 4] = [
            ["query/kernel", "query/bias"],
            ["key/kernel", "key/bias"],
            ["value/kernel", "value/bias"],
            ["attention_output/kernel", "attention_output/bias"],
        ];
        let mut all = Vec::new();
        for (own, names) in self.projections().into_iter().zip(NAMES) {
            let [kernel, bias] = names;
            all.push((kernel, &own.kernel));
            all.extend(own.bias.as_ref().map(|b| (bias, b)));
        }
        all
    }
    fn eval(&self, inputs: &[&Tensor], weights: &[&Tensor]) -> Tensor {
        self.evaluated(inputs, weights).1.pop().unwrap_or_else(|| Tensor::zeros(&[0]))
    }
    fn macs(&self, output: &[usize]) -> u64 {
        let steps = output.first().copied().unwrap_or(0) as u64;
        let projections = self.projections().iter().map(|p| p.kernel.data().len() as u64).sum::<u64>();
        // Every step meets every other one in both products of each head.
        steps * (projections + steps * (self.heads * (self.key_dim + self.value_dim)) as u64)
    }
}

impl MultiHeadAttention {
    /// Gradients of inputs and weights, backwards through the functions that the layer is made of.
    pub(crate) fn gradients(&self, call: &Call<'_>, dy: &Tensor) -> Result<Grads, NoGradient> {
        let (inputs, weights): (Vec<&Tensor>, Vec<&Tensor>) =
            (call.inputs.iter().collect(), call.weights.iter().collect());
        let (parts, all) = self.evaluated(&inputs, &weights);
        let first = inputs.len() + weights.len();
        let mut gradients: Vec<Option<Tensor>> = vec![None; all.len()];
        *gradients.last_mut().ok_or(NoGradient::Shapes)? = Some(dy.clone());
        for (k, part) in parts.iter().enumerate().rev() {
            let Some(dy) = gradients.get_mut(first + k).and_then(Option::take) else { continue };
            let Op::TfOp(function) = &part.op else { return Err(NoGradient::Shapes) };
            let own: Vec<Tensor> = part.inputs.iter().filter_map(|i| all.get(*i).cloned()).collect();
            let shapes: Vec<Vec<usize>> = own.iter().map(|t| t.shape().to_vec()).collect();
            let wanted = vec![true; own.len()];
            let step = Call { shapes: &shapes, inputs: &own, weights: &[], saved: &Saved::Nothing, wanted: &wanted };
            for (i, d) in part.inputs.iter().zip(function.gradients(&step, &dy)?) {
                let slot = gradients.get_mut(*i).ok_or(NoGradient::Shapes)?;
                *slot = match (slot.take(), d) {
                    (Some(sum), Some(d)) => Some(array::zip(&sum, &d, |a, b| a + b)),
                    (sum, d) => sum.or(d),
                };
            }
        }
        gradients.truncate(first);
        let params = gradients.split_off(inputs.len());
        Ok(Grads { inputs: gradients, params })
    }
}
