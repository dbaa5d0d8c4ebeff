//! A quantized graph of a file as a network of layers: what `compile` and all other commands on quantized models take.
//!
//! The vendor's quantizers write operations on floats with `fix` between them, which are Quantize layers here, and give
//! parameters a `fix` of their own. Operations that no layer is, but that [`crate::host`] computes, become layers of that.

use std::collections::BTreeMap;
use std::sync::Arc;

use shiftwise_core::arith::Round;
use shiftwise_core::fix::FixPos;
use shiftwise_core::model::Combine;
use shiftwise_core::shape::Window;
use shiftwise_files::{Files, LoadOptions};
use shiftwise_graph::budget::Budget;
use shiftwise_graph::builder::Builder;
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::NodeId;
use shiftwise_graph::ops::pool::PoolWindow;
use shiftwise_graph::ops::tfop::Kind;
use shiftwise_graph::ops::{
    Activate, ActivationFn, Add, AveragePooling2D, Concatenate, Conv2D, Conv2DTranspose, Cropping2D, Custom,
    CustomLayer, CustomLayers, Dense, DepthwiseConv2D, HardSigmoid, Input, Interpolation, LeakyRelu, MaxPooling2D,
    Merge, Multiply, Op, Operand, PRelu, Padding, Permute, Quantize, Relu, Reshape, Softmax, TfOp, UpSampling2D,
    Weighted, ZeroPadding2D,
};
use shiftwise_quant::quant_graph::Model;
use shiftwise_quant::regroup::grids::{Integers, of_positions};
use shiftwise_quant::regroup::{self, Apart};
use shiftwise_quant::scheme::Quantizer;
use shiftwise_tensor::array;
use shiftwise_tensor::tensor::Tensor;

use crate::graph::is_input;
use crate::value::{Held, constant, quantization};
use crate::window::{pair, window};
use crate::{XOp, Xmodel, host};

mod names;

use names::Names;

/// Whether a file is an xmodel.
pub fn is_model(files: &Files) -> bool {
    files.bytes().is_some_and(|bytes| !files.is_zip() && crate::is_xmodel(bytes))
}

/// Reads a quantized graph as a quantized model.
///
/// Errors: a compiled program; an operation that neither a layer is nor the CPU computes, by its name.
pub fn read_model(files: Files, options: &LoadOptions, budget: &Budget) -> Result<Model, Error> {
    let path = files.path().to_owned();
    let bytes = files.into_bytes().unwrap_or_default();
    budget.bytes(bytes.len() as u64).map_err(|e| Error::format(&path, e.to_string()))?;
    let model = crate::read(&path, &bytes)?;
    if model.is_compiled() {
        return Err(Error::format(
            &path,
            "is the vendor's compiled program, which `simulate` runs; its graph before compilation is a model",
        ));
    }
    let mut reader = Reader {
        model: &model,
        custom: &options.custom,
        names: Names::of(&model),
        builder: Builder::new(&model.name),
        known: Vec::new(),
        results: BTreeMap::new(),
        weights: BTreeMap::new(),
    };
    let mut inputs = Vec::new();
    for xop in &model.ops {
        let fail = |why: String| Error::layer(&xop.name, &xop.kind, why);
        let known = reader.op(xop, budget).map_err(fail)?;
        if let (true, Known::Layer(id)) = (is_input(xop), &known) {
            inputs.push(*id);
        }
        reader.known.push(known);
    }
    reader.builder.inputs(&inputs);
    let outputs = model.results().into_iter().map(|op| match reader.known.get(op) {
        Some(Known::Layer(id)) => Ok(*id),
        _ => Err(Error::model("a result of the graph is a constant")),
    });
    let outputs = outputs.collect::<Result<Vec<_>, _>>()?;
    let (graph, ids) = reader.builder.finish_with_ids(&outputs)?;
    let results = reader.results.into_iter().filter_map(|(id, own)| Some((*ids.get(&id)?, own))).collect();
    let weights = reader.weights.into_iter().filter_map(|(id, own)| Some((*ids.get(&id)?, own))).collect();
    regroup::model(Apart { graph, results, weights, ..Apart::default() })
}

/// What an operation's result is.
#[derive(Clone, Debug)]
enum Known {
    Layer(NodeId),
    /// A parameter, with what quantizes it.
    Constant(Tensor, Option<Quantizer>),
}

struct Reader<'a> {
    model: &'a Xmodel,
    custom: &'a CustomLayers,
    names: Names,
    builder: Builder,
    /// By operation, as far as they are read.
    known: Vec<Known>,
    results: BTreeMap<NodeId, Quantizer>,
    weights: BTreeMap<NodeId, Vec<Option<Quantizer>>>,
}

impl Reader<'_> {
    /// The sample's shape of an operation's result.
    fn sample<'x>(&self, xop: &'x XOp) -> Result<&'x [usize], String> {
        match xop.tensor.shape.split_first() {
            Some((1, sample)) => Ok(sample),
            _ => Err(format!("its shape is {:?}; a batch of 1 is expected", xop.tensor.shape)),
        }
    }

    fn known(&self, op: usize) -> Result<&Known, String> {
        self.known.get(op).ok_or_else(|| "it stands before one of its operands".into())
    }

    /// The layers that an operation reads.
    fn layers(&self, xop: &XOp) -> Result<Vec<NodeId>, String> {
        let data = xop.args.iter().filter(|(name, _)| !["weights", "bias"].contains(&name.as_str()));
        let layer = |op: usize| match self.known(op)? {
            Known::Layer(id) => Ok(*id),
            Known::Constant(..) => Err("one of its operands is a constant".to_owned()),
        };
        data.flat_map(|(_, ops)| ops).map(|op| layer(*op)).collect()
    }

    /// A parameter of an operation.
    fn parameter(&self, xop: &XOp, name: &str) -> Result<Option<(Tensor, Option<Quantizer>)>, String> {
        let Some(op) = xop.arg(name) else { return Ok(None) };
        match self.known(op)? {
            Known::Constant(tensor, own) => Ok(Some((tensor.clone(), own.clone()))),
            Known::Layer(_) => Err(format!("its {name} are no constants")),
        }
    }

    fn add(&mut self, name: &str, op: Op, inputs: &[NodeId]) -> Result<NodeId, String> {
        self.builder.layer(name, op, inputs).map_err(|e| match e {
            Error::Layer { message, .. } => message,
            other => other.to_string(),
        })
    }

    /// The name of the layer that the operation being read becomes.
    fn name(&self) -> String {
        self.names.layer(self.known.len())
    }

    /// The name of another layer that it needs beside that.
    fn beside(&self, suffix: &str) -> String {
        self.names.beside(self.known.len(), suffix)
    }

    /// Reads an operation.
    fn op(&mut self, xop: &XOp, budget: &Budget) -> Result<Known, String> {
        let size = xop.tensor.elements().ok_or("its result is too large")?;
        match xop.kind.as_str() {
            "const" => {
                budget.bytes(4 * size as u64).map_err(|e| e.to_string())?;
                let values = Tensor::new(xop.tensor.shape.clone(), constant(xop)?);
                return values.map(|t| Known::Constant(t, None)).ok_or_else(|| "it is damaged".into());
            }
            "data" => {
                let shape = self.sample(xop)?.to_vec();
                return self.add(&xop.name, Op::Input(Input { shape }), &[]).map(Known::Layer);
            }
            "fix" => return self.fix(xop),
            _ => {}
        }
        let id = match xop.kind.as_str() {
            "conv2d" | "depthwise-conv2d" | "transposed-conv2d" => self.convolution(xop)?,
            "matmul" | "inner-product" => self.dense(xop)?,
            "prelu" => self.prelu(xop)?,
            "add" | "mul" if xop.inputs().any(|op| matches!(self.known.get(op), Some(Known::Constant(..)))) => {
                self.with_constant(xop)?
            }
            _ => {
                let inputs = self.layers(xop)?;
                match self.plain(xop, &inputs)? {
                    Some(op) => self.add(&self.name(), op, &inputs)?,
                    None => self.several(xop, &inputs)?,
                }
            }
        };
        let (own, made) = (self.sample(xop)?, &self.builder.graph().node(id).shape);
        if own != made {
            return Err(format!("its shape is {own:?}, and its operands give {made:?}"));
        }
        Ok(Known::Layer(id))
    }

    /// A quantizer, of data or of a parameter.
    fn fix(&mut self, xop: &XOp) -> Result<Known, String> {
        let (pos, round) = quantization(&xop.attrs)?;
        let own = |round: Round| of_positions(Integers::INT8, round, &[FixPos(pos)], None);
        let source = xop.inputs().next().ok_or("it has no operand")?;
        match self.known(source)?.clone() {
            Known::Constant(tensor, _) => Ok(Known::Constant(tensor, Some(own(round)))),
            Known::Layer(id) => {
                let id = self.add(&self.name(), Op::Quantize(Quantize), &[id])?;
                self.results.insert(id, own(round));
                Ok(Known::Layer(id))
            }
        }
    }

    /// A convolution of any kind, with zeros around its operand where no padding of a layer says them.
    fn convolution(&mut self, xop: &XOp) -> Result<NodeId, String> {
        let (x, source) = match (self.layers(xop)?.as_slice(), xop.arg("input")) {
            (&[x], Some(source)) => (x, source),
            _ => return Err("it has not one operand".into()),
        };
        let (kernel, kernel_grid) = self.parameter(xop, "weights")?.ok_or("it has no weights")?;
        let bias = self.parameter(xop, "bias")?;
        let (&[_, h, w, _], &[_, oh, ow, _]) = (&self.model.ops[source].tensor.shape[..], &xop.tensor.shape[..]) else {
            return Err("an image in and an image out are expected".into());
        };
        if kernel.shape().len() != 4 {
            return Err(format!("its weights have the shape {:?}", kernel.shape()));
        }
        let transposed = xop.kind == "transposed-conv2d";
        let over = window(xop, [h, w], [oh, ow], transposed)?;
        let [strides, dilation] = [over.stride, over.dilation].map(|pair| pair.map(usize::from));
        let kernel = if transposed {
            // The file counts the taps of a transposed convolution from the far end (DEC).
            array::transpose(&reversed(&kernel), &[1, 2, 0, 3])
        } else {
            array::transpose(&kernel, &[1, 2, 3, 0])
        };
        let (bias, bias_grid) = bias.map_or((None, None), |(tensor, own)| (Some(tensor), own));
        let grids = if bias.is_some() { vec![kernel_grid, bias_grid] } else { vec![kernel_grid] };
        let weighted = Weighted { kernel, bias, activation: ActivationFn::Linear };
        let id = if transposed {
            self.transposed(x, (weighted, strides, dilation), (over, [oh, ow]))?
        } else {
            let (x, padding) = self.padded(x, &over, [h, w])?;
            let groups = xop.attrs.int("group").unwrap_or(1);
            let groups = usize::try_from(groups).map_err(|_| format!("its groups are {groups}"))?;
            let op = match xop.kind.as_str() {
                "conv2d" => Op::Conv2D(Conv2D { w: weighted, strides, dilation, padding, groups }),
                _ => Op::DepthwiseConv2D(DepthwiseConv2D { w: weighted, strides, dilation, padding }),
            };
            self.add(&self.name(), op, &[x])?
        };
        self.weights.insert(id, grids);
        Ok(id)
    }

    /// A product with a matrix of constants.
    fn dense(&mut self, xop: &XOp) -> Result<NodeId, String> {
        let source = xop.inputs().next().ok_or("it has no operand")?;
        let Known::Layer(x) = self.known(source)?.clone() else { return Err("its operand is a constant".into()) };
        let weights = xop.arg("weights").or_else(|| xop.inputs().nth(1)).ok_or("it has no weights")?;
        let Known::Constant(kernel, grid) = self.known(weights)?.clone() else {
            return Err("its weights are no constants".into());
        };
        let said = |name: &str| xop.attrs.int(name).unwrap_or(0) != 0;
        if kernel.shape().len() != 2 || said("transpose_a") {
            return Err(format!("weights of shape {:?}, or a first operand that is transposed", kernel.shape()));
        }
        let by_outputs = xop.kind == "inner-product" || said("transpose_b");
        let kernel = if by_outputs { array::transpose(&kernel, &[1, 0]) } else { kernel };
        let (bias, bias_grid) = self.parameter(xop, "bias")?.map_or((None, None), |(b, own)| (Some(b), own));
        let grids = if bias.is_some() { vec![grid, bias_grid] } else { vec![grid] };
        let w = Weighted { kernel, bias, activation: ActivationFn::Linear };
        let id = self.add(&self.name(), Op::Dense(Dense { w }), &[x])?;
        self.weights.insert(id, grids);
        Ok(id)
    }

    /// A ReLU with a slope for what is negative.
    fn prelu(&mut self, xop: &XOp) -> Result<NodeId, String> {
        let source = xop.inputs().next().ok_or("it has no operand")?;
        let Known::Layer(x) = self.known(source)?.clone() else { return Err("its operand is a constant".into()) };
        let weights = xop.arg("weight").or_else(|| xop.inputs().nth(1)).ok_or("it has no slopes")?;
        let Known::Constant(alpha, grid) = self.known(weights)?.clone() else {
            return Err("its slopes are no constants".into());
        };
        let rank = self.builder.graph().node(x).shape.len();
        let shape: Vec<usize> = std::iter::repeat_n(1, rank.saturating_sub(alpha.shape().len()))
            .chain(alpha.shape().iter().copied())
            .collect();
        let shared_axes = (1..).zip(&shape).filter(|(_, d)| **d == 1).map(|(axis, _)| axis).collect();
        let alpha = Tensor::new(shape, alpha.into_data()).ok_or("its slopes are damaged")?;
        let id = self.add(&self.name(), Op::PRelu(PRelu { alpha, shared_axes }), &[x])?;
        self.weights.insert(id, vec![grid]);
        Ok(id)
    }

    /// The operand with zeros around it, and the padding that is left.
    fn padded(&mut self, x: NodeId, over: &Window, size: [usize; 2]) -> Result<(NodeId, Padding), String> {
        let [rows, columns] = [0, 1].map(|a| [usize::from(over.pad_before[a]), usize::from(over.pad_after[a])]);
        if rows == [0, 0] && columns == [0, 0] {
            return Ok((x, Padding::Valid));
        }
        let same = (0..2).all(|a| {
            let own = Window::same_padding(size[a] as u32, over.kernel[a], over.stride[a], over.dilation[a]);
            own == (over.pad_before[a], over.pad_after[a])
        });
        if same {
            return Ok((x, Padding::Same));
        }
        let id = self.add(&self.beside("pad"), Op::ZeroPadding2D(ZeroPadding2D { rows, columns }), &[x])?;
        Ok((id, Padding::Valid))
    }

    /// A transposed convolution over everything, with what its padding cuts off taken off behind it.
    fn transposed(
        &mut self,
        x: NodeId,
        (w, strides, dilation): (Weighted, [usize; 2], [usize; 2]),
        (over, out): (Window, [usize; 2]),
    ) -> Result<NodeId, String> {
        let size = self.builder.graph().node(x).shape.clone();
        let same = (0..2).all(|a| {
            let cut = usize::from(over.kernel[a]).checked_sub(strides[a]);
            let whole = size.get(a).and_then(|n| n.checked_mul(strides[a]));
            dilation[a] == 1 && whole == Some(out[a]) && cut.is_some_and(|n| usize::from(over.pad_before[a]) == n / 2)
        });
        let padding = if same && over.kernel != over.stride { Padding::Same } else { Padding::Valid };
        let op = Conv2DTranspose { w, strides, dilation, padding, output_padding: None };
        let id = self.add(&self.name(), Op::Conv2DTranspose(op), &[x])?;
        let full = self.builder.graph().node(id).shape.clone();
        if full.get(..2) == Some(&out[..]) {
            return Ok(id);
        }
        let cut = [0, 1].map(|a| {
            let before = usize::from(over.pad_before[a]);
            Some([before, full[a].checked_sub(before + out[a])?])
        });
        let [Some(rows), Some(columns)] = cut else {
            return Err(format!("its result {out:?} is larger than {full:?}"));
        };
        self.add(&self.beside("crop"), Op::Cropping2D(Cropping2D { rows, columns }), &[id])
    }

    /// A sum or a product with a constant.
    fn with_constant(&mut self, xop: &XOp) -> Result<NodeId, String> {
        let (mut layer, mut tensor) = (None, None);
        for op in xop.inputs() {
            match self.known(op)? {
                Known::Layer(id) => layer = Some(*id),
                Known::Constant(own, _) => tensor = Some(own.clone()),
            }
        }
        let (Some(x), Some(tensor), 2) = (layer, tensor, xop.inputs().count()) else {
            return Err("a tensor and a constant are expected".into());
        };
        let (function, combine) = match xop.kind.as_str() {
            "add" => ("math.add", Combine::Add),
            _ => ("math.multiply", Combine::Multiply),
        };
        let operands = vec![Operand::Tensor(0), Operand::Constant(tensor)];
        let op = TfOp { function: function.into(), operands, kind: Kind::Binary(combine) };
        self.add(&self.name(), Op::TfOp(op), &[x])
    }

    /// The layer that an operation is by itself.
    fn plain(&self, xop: &XOp, inputs: &[NodeId]) -> Result<Option<Op>, String> {
        let shape = |k: usize| inputs.get(k).map_or(&[][..], |id| self.builder.graph().node(*id).shape.as_slice());
        let own = self.sample(xop)?;
        let float = |name: &str| xop.attrs.float(name).map(|v| v as f32);
        let function = |function: ActivationFn| Op::Activation(Activate { function });
        Ok(Some(match xop.kind.as_str() {
            "relu" => Op::Relu(Relu::PLAIN),
            "relu6" => Op::Relu(Relu { max_value: Some(6.0), ..Relu::PLAIN }),
            // The vendor writes 0.1 for the slope of a DPU.
            "leaky-relu" => {
                let alpha = float("alpha").unwrap_or(0.1);
                Op::LeakyRelu(LeakyRelu { alpha: if (alpha - 0.1).abs() < 1e-6 { 26.0 / 256.0 } else { alpha } })
            }
            "hard-sigmoid" => Op::HardSigmoid(HardSigmoid),
            "hard-swish" => function(ActivationFn::HardSwish),
            "sigmoid" => function(ActivationFn::Sigmoid),
            "tanh" => function(ActivationFn::Tanh),
            "elu" if float("alpha").unwrap_or(1.0) == 1.0 => function(ActivationFn::Elu),
            "selu" => function(ActivationFn::Selu),
            "gelu" => function(ActivationFn::Gelu),
            "swish" => function(ActivationFn::Swish),
            "exp" => function(ActivationFn::Exponential),
            "add" => Op::Add(Add),
            "mul" => Op::Multiply(Multiply),
            "sub" if inputs.len() == 2 => Op::Merge(Merge::Subtract),
            "max" => Op::Merge(Merge::Maximum),
            "min" => Op::Merge(Merge::Minimum),
            "concat" => {
                let axis = host::one_axis(xop, own.len() + 1)?.checked_sub(1).ok_or("it joins samples of a batch")?;
                Op::Concatenate(Concatenate { axis })
            }
            "softmax" => {
                let axis = host::one_axis(xop, own.len() + 1)?;
                // A function that is an activation quantizes what it reads, and that is called after it.
                let source = xop.inputs().next().map(|i| self.model.ops[i].name.as_str());
                let base = source.and_then(|name| name.strip_suffix("_input_fix"));
                if axis == own.len() && base.is_some_and(|base| xop.name.split('/').next() == Some(base)) {
                    return Ok(Some(function(ActivationFn::Softmax)));
                }
                Op::Softmax(Softmax { axis: if axis == own.len() { -1 } else { axis as i64 } })
            }
            "transpose" => {
                let order = host::order(xop, own.len() + 1)?;
                if order.first() != Some(&0) {
                    return Err("it moves the batch".into());
                }
                Op::Permute(Permute { dims: order.iter().skip(1).map(|a| a - 1).collect() })
            }
            "reshape" | "flatten" | "squeeze" | "identity" => {
                Op::Reshape(Reshape { target: own.iter().map(|d| *d as i64).collect() })
            }
            "resize" => {
                let (&[h, w, _], &[oh, ow, _]) = (shape(0), own) else { return Ok(None) };
                if h == 0 || w == 0 || !oh.is_multiple_of(h) || !ow.is_multiple_of(w) {
                    return Ok(None);
                }
                let interpolation = match xop.attrs.text("mode") {
                    Some("NEAREST") => Interpolation::Nearest,
                    Some("BILINEAR") if xop.attrs.int("half_pixel_centers") == Some(1) => Interpolation::Bilinear,
                    _ => return Ok(None),
                };
                Op::UpSampling2D(UpSampling2D { size: [oh / h, ow / w], interpolation })
            }
            "pad" => {
                let zero = xop.attrs.text("mode").is_none_or(|mode| mode == "CONSTANT");
                let all: Option<Vec<usize>> =
                    xop.attrs.ints("paddings").and_then(|p| p.iter().map(|n| usize::try_from(*n).ok()).collect());
                match all.as_deref() {
                    Some(&[0, 0, top, bottom, left, right, 0, 0]) if zero => {
                        Op::ZeroPadding2D(ZeroPadding2D { rows: [top, bottom], columns: [left, right] })
                    }
                    _ => return Ok(None),
                }
            }
            _ => return Ok(None),
        }))
    }

    /// Operations that are several layers; what is none of these is computed as [`host`] does it.
    fn several(&mut self, xop: &XOp, inputs: &[NodeId]) -> Result<NodeId, String> {
        let &[x] = inputs else { return self.on_the_cpu(xop, inputs) };
        let shape = self.builder.graph().node(x).shape.clone();
        let own = self.sample(xop)?.to_vec();
        let pooled = match (xop.kind.as_str(), &shape[..], &own[..]) {
            ("maxpool2d" | "avgpool2d", &[h, w, _], &[oh, ow, _]) => {
                let over = if xop.attrs.int("global") == Some(1) {
                    let side = |n: usize| u16::try_from(n).map_err(|_| format!("a window of {n} is too large"));
                    let kernel = [side(h)?, side(w)?];
                    Window { kernel, stride: kernel, ..Window::POINT }
                } else {
                    pair(xop, "kernel", None)?;
                    window(xop, [h, w], [oh, ow], false)?
                };
                Some(over)
            }
            ("reduction_max", &[h, w, _], _) => {
                let side = |n: usize| u16::try_from(n).map_err(|_| format!("a window of {n} is too large"));
                let kernel = match host::one_axis(xop, 4)? {
                    1 => Some([side(h)?, 1]),
                    2 => Some([1, side(w)?]),
                    _ => None,
                };
                kernel.map(|kernel| Window { kernel, stride: kernel, ..Window::POINT })
            }
            _ => None,
        };
        let Some(over) = pooled else { return self.on_the_cpu(xop, inputs) };
        let average = xop.kind == "avgpool2d";
        let (size, strides) = (over.kernel.map(usize::from), over.stride.map(usize::from));
        let (padding, x) = match self.padded(x, &over, [shape[0], shape[1]])? {
            (id, padding) if id == x => (padding, x),
            // Zeros are counted by the vendor's averages, and are no largest value behind a ReLU.
            (id, padding) => (padding, id),
        };
        let pool = PoolWindow { size, strides, padding };
        let op = if average {
            Op::AveragePooling2D(AveragePooling2D { pool, dpu: true })
        } else {
            Op::MaxPooling2D(MaxPooling2D { pool })
        };
        let id = self.add(&self.name(), op, &[x])?;
        if self.builder.graph().node(id).shape == own {
            return Ok(id);
        }
        let target = own.iter().map(|d| *d as i64).collect();
        self.add(&self.beside("shape"), Op::Reshape(Reshape { target }), &[id])
    }

    /// An operation that no layer is: as the user's custom layer, or as it is computed beside a DPU.
    fn on_the_cpu(&mut self, xop: &XOp, inputs: &[NodeId]) -> Result<NodeId, String> {
        if matches!(xop.kind.as_str(), "resize" | "pad") {
            return Err("no layer resizes or pads as its attributes say".into());
        }
        if !host::is_known(&xop.kind, self.custom) {
            return Err("it is no operation that can be computed".into());
        }
        let layer: Arc<dyn CustomLayer> = match self.custom.get(&xop.kind) {
            Some(layer) => layer,
            None => Arc::new(OnTheCpu(xop.clone())),
        };
        let mut custom = Custom::new(&xop.kind, layer);
        for (name, value) in host::settings(xop).filter(|(name, _)| !["shape", "data_type"].contains(&name.as_str())) {
            custom.config.insert(name, value);
        }
        self.add(&self.name(), Op::Custom(custom), inputs)
    }
}

/// A kernel `[oc, kh, kw, ic]` with its taps from the last to the first.
fn reversed(kernel: &Tensor) -> Tensor {
    let shape = kernel.shape().to_vec();
    let &[_, kh, kw, ic] = &shape[..] else { return kernel.clone() };
    let taps = (kh * kw).max(1);
    let at = |i: usize| {
        let (channel, tap, out) = (i % ic.max(1), i / ic.max(1) % taps, i / (ic * taps).max(1));
        (out * taps + taps - 1 - tap) * ic + channel
    };
    let values = (0..kernel.data().len()).map(|i| kernel.data()[at(i)]).collect();
    Tensor::new(shape, values).unwrap_or_else(|| kernel.clone())
}

/// An operation that is computed beside a DPU, as a layer.
#[derive(Debug)]
struct OnTheCpu(XOp);

impl CustomLayer for OnTheCpu {
    fn class(&self) -> &str {
        &self.0.kind
    }

    fn output_shape(&self, _: &Custom, _: &[&[usize]]) -> Result<Vec<usize>, String> {
        Ok(self.0.tensor.shape.get(1..).unwrap_or_default().to_vec())
    }

    /// Operands that don't fit the operation give zeros.
    fn eval(&self, _: &Custom, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let batch = inputs.first().and_then(|x| x.shape().first()).copied().unwrap_or(1);
        let sample: Vec<usize> = self.0.tensor.shape.get(1..).unwrap_or_default().to_vec();
        let mut all = Vec::new();
        for k in 0..batch {
            let held = inputs.iter().map(|x| {
                let size: usize = x.shape()[1..].iter().product();
                Held::float(&[&[1], &x.shape()[1..]].concat(), x.data()[k * size..(k + 1) * size].to_vec())
            });
            let held: Vec<Held> = held.collect();
            let y = host::compute(&self.0, &held.iter().collect::<Vec<_>>()).map(|y| y.floats());
            all.extend(y.unwrap_or_else(|_| vec![0.0; sample.iter().product()]));
        }
        let shape = [&[batch], &sample[..]].concat();
        Tensor::new(shape.clone(), all).unwrap_or_else(|| Tensor::zeros(&shape))
    }
}
