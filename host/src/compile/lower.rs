//! Ops of the integer form as layers of DPU engines, one arm per op.

use shiftwise_core::arith::align_bias;
use shiftwise_core::fix::FixPos;
use shiftwise_core::isa::{Activation, alu_mode};
use shiftwise_core::target::Target;

use super::constraint::{self, Facts};
use super::cpu::{position, shape};
use super::pack;
use super::program::op_name;
use super::schedule::{Compute, Layer, Map, Pass};
use super::tile::{Machine, Shape, Unit};
use crate::integer::{IntAct, IntConv, IntGraph, IntOp, IntOpKind, Kind, TensorIx, image};
use shiftwise_core::shape::Window;

/// An op as layers, with the constants they share.
#[derive(Clone, Debug, Default)]
pub(super) struct Lowered {
    /// Layers, in order; several for a dilated convolution.
    pub layers: Vec<Layer>,
    /// The same with channel augmentation, where the target and the layer allow it; empty otherwise.
    pub augmented: Vec<Layer>,
    /// `[oc][kh][kw][ic]`, depthwise `[kh][kw][c]`; empty without weights.
    pub kernel: Vec<i8>,
    /// `[oc]`; empty without.
    pub bias: Vec<i8>,
}

/// What lowering needs to know about the surroundings.
pub(super) struct Context<'a> {
    /// Network.
    pub graph: &'a IntGraph,
    /// DPU.
    pub target: &'a Target,
    /// Its sizes.
    pub machine: Machine,
    /// Per tensor: base register and byte offset.
    pub places: &'a [(u32, u32)],
}

/// The layers of `op`, or why the DPU can't do it.
pub(super) fn lower(cx: &Context<'_>, op: &IntOp) -> Result<Lowered, String> {
    let Some(&input) = op.inputs.first() else { return Err("it has no operands".into()) };
    let fixed = |t: &TensorIx| cx.graph.tensors.get(t.0).is_some_and(|t| matches!(t.kind, Kind::Fixed(_)));
    if !matches!(op.kind, IntOpKind::Float { .. } | IntOpKind::Softmax)
        && !op.inputs.iter().chain([&op.output]).all(fixed)
    {
        return Err("the DPU has no floats".into());
    }
    let pos = position(cx.graph, op.output);
    match &op.kind {
        IntOpKind::Conv(c) => cx.conv(op, c, input, pos),
        IntOpKind::Depthwise(c) => cx.depthwise(op, c, input, pos),
        IntOpKind::MaxPool { window, shift, act } if *shift < 0 => {
            // The ALU shifts right only; ELEW shifts left. Saturation is monotone and the maximum has 8 bits, so the
            // order of activation and shift does not matter to ReLU; ReLU6 clamps the result.
            let mut lowered =
                cx.pool(op, window, &Pooling { mode: alu_mode::MAX_POOL, factor: 0, shift: 0, act: IntAct::None })?;
            cx.check(Unit::Elew, &Facts { shift_write: *shift, relu6_pos: relu6(*act, pos), ..one_operand() })?;
            let passes = finish(*act, pos, *shift)?;
            for layer in &mut lowered.layers {
                layer.shape.passes = passes.len() as u32;
                layer.passes.clone_from(&passes);
            }
            Ok(lowered)
        }
        IntOpKind::MaxPool { window, shift, act } => {
            cx.pool(op, window, &Pooling { mode: alu_mode::MAX_POOL, factor: 0, shift: *shift, act: *act })
        }
        IntOpKind::AveragePool { window, m, shift, act } => {
            cx.pool(op, window, &Pooling { mode: alu_mode::AVG_POOL, factor: (*m).into(), shift: *shift, act: *act })
        }
        IntOpKind::Add { shift_read, shift_write, act } => cx.sum(op, shift_read.clone(), *shift_write, *act, pos),
        IntOpKind::Requantize { shift, act } => cx.sum(op, vec![0], *shift, *act, pos),
        IntOpKind::ConvTranspose(_)
        | IntOpKind::Multiply { .. }
        | IntOpKind::Concat { .. }
        | IntOpKind::UpSample { .. }
        | IntOpKind::HardSigmoid { .. }
        | IntOpKind::Pad { .. }
        | IntOpKind::PRelu { .. }
        | IntOpKind::Permute { .. } => Err(format!("{} is not placed yet", op_name(&op.kind))),
        IntOpKind::Softmax => Err("softmax is computed in floats".into()),
        IntOpKind::Float { why, .. } => Err(why.clone()),
        IntOpKind::FakeQuantize(_) | IntOpKind::Quantize | IntOpKind::Dequantize => Err("the DPU has no floats".into()),
        IntOpKind::View => Err("a view needs no engine".into()),
    }
}

/// What a pooling layer takes of its windows.
struct Pooling {
    mode: u32,
    factor: u32,
    shift: i32,
    act: IntAct,
}

impl Context<'_> {
    fn check(&self, unit: Unit, facts: &Facts) -> Result<(), String> {
        constraint::check(unit, facts, self.target).map_err(|v| v.to_string())
    }

    /// A tensor of `[h, w, c]` as a dense map.
    fn map(&self, t: TensorIx, [_, w, c]: [u32; 3]) -> Map {
        let (reg_id, offset) = self.places.get(t.0).copied().unwrap_or_default();
        Map { reg_id, offset, row_pitch: w * c, pixel_pitch: c }
    }

    fn conv(&self, op: &IntOp, c: &IntConv, input: TensorIx, pos: FixPos) -> Result<Lowered, String> {
        let kernel = pack::by_output(&op.layer, c).map_err(|e| e.to_string())?;
        let (dims, window) = self.reshaped(c)?;
        let output = narrow(c.output)?;
        let facts = Facts { channels_in: dims[2], ..weight_facts(&window, output[2], c, pos) };
        self.check(Unit::Conv, &facts)?;
        let (bias, shift_bias) = encode_bias(c, &pack::reach(&kernel, c.output[2], false))?;
        let compute = Compute::Conv { shift_cut: c.shift_cut as u32, shift_bias, act_type: act_code(c.act, pos)? };
        let whole = Layer {
            shape: Shape {
                input: dims,
                output,
                kernel: window.kernel.map(u32::from),
                stride: window.stride.map(u32::from),
                pad: window.pad_before.map(u32::from),
                operands: 1,
                passes: 0,
                unit: Unit::Conv,
            },
            inputs: vec![self.map(input, dims)],
            output: self.map(op.output, output),
            compute,
            passes: Vec::new(),
        };
        // CONV always adds a bias.
        let bias = bias.unwrap_or_else(|| vec![0; c.output[2]]);
        let augmented = if window.dilation == [1, 1] { self.augment(&whole) } else { Vec::new() };
        Ok(Lowered { layers: phases(&whole, window.dilation.map(u32::from))?, augmented, kernel, bias })
    }

    /// Channel augmentation: a LOAD gathers the kernel_w pixels under each output as channels of one pixel, and the kernel
    /// becomes one column wide (DEC). Weights keep their order. It saves lanes where the input has few channels.
    ///
    /// A gathered pixel can't reach past its row, so the output columns whose window does are layers of their own.
    fn augment(&self, whole: &Layer) -> Vec<Layer> {
        let s = &whole.shape;
        let ([_, width, channels], [kernel_h, kernel_w], step) = (s.input, s.kernel, s.stride[1]);
        let Some((map, inside)) = whole.inputs.first().zip((width + s.pad[1]).checked_sub(kernel_w)) else {
            return Vec::new();
        };
        let first = s.pad[1].div_ceil(step);
        let end = (inside / step + 1).min(s.output[1]);
        if kernel_w == 1 || kernel_w * channels > self.target.channel_augmentation.into() || end <= first {
            return Vec::new();
        }
        let columns = |from: u32, end: u32, shape: Shape, pixels: u32, x: u32| Layer {
            shape: Shape { output: [s.output[0], end - from, s.output[2]], ..shape },
            inputs: vec![Map { offset: map.offset + x * channels, pixel_pitch: pixels * channels, ..*map }],
            output: Map { offset: whole.output.offset + from * whole.output.pixel_pitch, ..whole.output },
            ..whole.clone()
        };
        let gathered = Shape {
            input: [s.input[0], end - first, kernel_w * channels],
            kernel: [kernel_h, 1],
            stride: [s.stride[0], 1],
            pad: [s.pad[0], 0],
            ..*s
        };
        let mut layers = vec![columns(first, end, gathered, step, first * step - s.pad[1])];
        if first > 0 {
            let under = ((first - 1) * step + kernel_w - s.pad[1]).min(width);
            layers.push(columns(0, first, Shape { input: [s.input[0], under, channels], ..*s }, 1, 0));
        }
        if end < s.output[1] {
            let x = end * step - s.pad[1];
            let rest = Shape { input: [s.input[0], width - x, channels], pad: [s.pad[0], 0], ..*s };
            layers.push(columns(end, s.output[1], rest, 1, x));
        }
        layers
    }

    /// Geometry of a convolution. A kernel that covers its whole input is a sum over a vector, which may be read under
    /// any shape; the one with the fewest steps that the engine can do is taken.
    fn reshaped(&self, c: &IntConv) -> Result<([u32; 3], Window), String> {
        let dims = narrow(c.input)?;
        let w = c.window;
        let whole = w.kernel.map(u32::from) == [dims[0], dims[1]]
            && [w.pad_before, w.pad_after] == [[0, 0]; 2]
            && w.dilation == [1, 1]
            && c.output[..2] == [1, 1];
        if !whole {
            return Ok((dims, w));
        }
        let n = dims.iter().product::<u32>();
        let l = &self.target.limits;
        let sides = || (1..=16u32).filter(|k| l.conv_kernel.contains(*k));
        let shapes = sides().flat_map(|h| sides().map(move |w| (h, w))).filter(|(h, w)| n % (h * w) == 0);
        let best = shapes
            .map(|(h, w)| ([h, w, n / (h * w)], h * w * (n / (h * w)).div_ceil(self.machine.lanes)))
            .filter(|(d, steps)| l.channels.contains(d[2]) && l.conv_weight_depth.contains(*steps))
            .min_by_key(|(_, steps)| *steps);
        Ok(best.map_or((dims, w), |(d, _)| (d, Window { kernel: [d[0] as u16, d[1] as u16], ..Window::POINT })))
    }

    fn depthwise(&self, op: &IntOp, c: &IntConv, input: TensorIx, pos: FixPos) -> Result<Lowered, String> {
        pack::check(&op.layer, c, true).map_err(|e| e.to_string())?;
        let (dims, output) = (narrow(c.input)?, narrow(c.output)?);
        self.check(Unit::Depthwise, &weight_facts(&c.window, output[2], c, pos))?;
        let (bias, shift_bias) = encode_bias(c, &pack::reach(&c.kernel, c.output[2], true))?;
        let whole = Layer {
            shape: Shape {
                input: dims,
                output,
                kernel: c.window.kernel.map(u32::from),
                stride: c.window.stride.map(u32::from),
                pad: c.window.pad_before.map(u32::from),
                operands: 1,
                passes: 0,
                unit: Unit::Depthwise,
            },
            inputs: vec![self.map(input, dims)],
            output: self.map(op.output, output),
            compute: Compute::Depthwise {
                shift_cut: c.shift_cut as u32,
                shift_bias,
                act_type: act_code(c.act, pos)?,
                biased: bias.is_some(),
            },
            passes: Vec::new(),
        };
        let layers = phases(&whole, c.window.dilation.map(u32::from))?;
        Ok(Lowered { layers, augmented: Vec::new(), kernel: c.kernel.clone(), bias: bias.unwrap_or_default() })
    }

    fn pool(&self, op: &IntOp, window: &Window, pooling: &Pooling) -> Result<Lowered, String> {
        let Pooling { mode, factor, shift, act } = *pooling;
        let pos = position(self.graph, op.output);
        if window.dilation != [1, 1] || !window.is_valid() {
            return Err("its window is dilated, or has no taps or strides".into());
        }
        let input = op.inputs[0];
        let dims = narrow(image(shape(self.graph, input)))?;
        let output = [window.outputs(0, dims[0]), window.outputs(1, dims[1]), dims[2]];
        narrow(output.map(|d| d as usize))?;
        let facts = Facts {
            operands: 1,
            shift_cut: shift,
            factor,
            relu6_pos: relu6(act, pos),
            ..window_facts(window, dims[2])
        };
        self.check(Unit::Pool, &facts)?;
        let layer = Layer {
            shape: Shape {
                input: dims,
                output,
                kernel: window.kernel.map(u32::from),
                stride: window.stride.map(u32::from),
                pad: window.pad_before.map(u32::from),
                operands: 1,
                passes: 0,
                unit: Unit::Pool,
            },
            inputs: vec![self.map(input, dims)],
            output: self.map(op.output, output),
            compute: Compute::Pool { mode, factor, shift_cut: shift as u32, act_type: act_code(act, pos)? },
            passes: Vec::new(),
        };
        Ok(Lowered { layers: vec![layer], ..Lowered::default() })
    }

    fn sum(
        &self,
        op: &IntOp,
        shift_read: Vec<u32>,
        shift_write: i32,
        act: IntAct,
        pos: FixPos,
    ) -> Result<Lowered, String> {
        let facts = Facts {
            operands: op.inputs.len() as u32,
            shift_read: shift_read.iter().copied().max().unwrap_or(0),
            shift_write,
            relu6_pos: relu6(act, pos),
            ..Facts::default()
        };
        self.check(Unit::Elew, &facts)?;
        let dims = narrow(image(shape(self.graph, op.output)))?;
        let elements = |t: TensorIx| shape(self.graph, t).iter().product::<usize>();
        if op.inputs.len() != shift_read.len() || op.inputs.iter().any(|t| elements(*t) != elements(op.output)) {
            return Err("its operands are not of one shape".into());
        }
        let passes: Vec<Pass> = relu6_pass(act, pos)?.into_iter().collect();
        let layer = Layer {
            shape: Shape {
                input: dims,
                output: dims,
                kernel: [1, 1],
                stride: [1, 1],
                pad: [0, 0],
                operands: op.inputs.len() as u32,
                passes: passes.len() as u32,
                unit: Unit::Elew,
            },
            inputs: op.inputs.iter().map(|t| self.map(*t, dims)).collect(),
            output: self.map(op.output, dims),
            compute: Compute::Sum { shift_read, shift_write, relu: act != IntAct::None },
            passes,
        };
        Ok(Lowered { layers: vec![layer], ..Lowered::default() })
    }
}

fn window_facts(w: &Window, channels: u32) -> Facts {
    Facts {
        kernel: w.kernel.map(u32::from),
        stride: w.stride.map(u32::from),
        dilation: w.dilation.map(u32::from),
        pad_before: w.pad_before.map(u32::from),
        pad_after: w.pad_after.map(u32::from),
        channels_in: channels,
        channels_out: channels,
        ..Facts::default()
    }
}

fn weight_facts(w: &Window, channels: u32, c: &IntConv, pos: FixPos) -> Facts {
    Facts {
        shift_cut: c.shift_cut,
        shift_bias: if c.bias.is_some() { c.shift_bias } else { 0 },
        relu6_pos: relu6(c.act, pos),
        ..window_facts(w, channels)
    }
}

fn one_operand() -> Facts {
    Facts { operands: 1, ..Facts::default() }
}

fn narrow(dims: [usize; 3]) -> Result<[u32; 3], String> {
    // 65535 a side and 29 bits in all keep every address of the map in 32 bits.
    let [h, w, c] = dims;
    if dims.iter().any(|d| *d == 0 || *d > 0xFFFF) || h * w * c > 1 << 29 {
        return Err(format!("a map of {h} × {w} × {c} is beyond the DPU's addresses"));
    }
    Ok(dims.map(|d| d as u32))
}

/// The output position if there is a ReLU6 that saturation does not do, else a legal one.
fn relu6(act: IntAct, pos: FixPos) -> i8 {
    if act == IntAct::Relu6 { pos.0 } else { 0 }
}

fn act_code(act: IntAct, pos: FixPos) -> Result<u32, String> {
    let activation = match act {
        IntAct::None => Activation::None,
        IntAct::Relu => Activation::Relu,
        IntAct::Relu6 => Activation::relu6(pos.0),
        IntAct::LeakyRelu => return Err("LeakyReLU is not placed yet".into()),
    };
    activation.code().ok_or_else(|| format!("there is no ReLU6 at output position {pos}"))
}

/// The pass that ELEW's ReLU lacks to be a ReLU6.
fn relu6_pass(act: IntAct, pos: FixPos) -> Result<Option<Pass>, String> {
    let code = act_code(act, pos)?;
    Ok((act == IntAct::Relu6 && Activation::relu6(pos.0) != Activation::Relu).then_some(Pass::Act { act_type: code }))
}

/// Passes that shift left and then activate.
fn finish(act: IntAct, pos: FixPos, shift: i32) -> Result<Vec<Pass>, String> {
    let mut passes = vec![Pass::Shift { shift_write: shift, relu: act != IntAct::None }];
    passes.extend(relu6_pass(act, pos)?);
    Ok(passes)
}

/// The bias and the field `shift_bias` (the shift plus one: the accumulator has an extra fraction bit, DEC).
///
/// A bias finer than half an accumulator step is replaced by the integer that gives the same results (see
/// [`align_bias`]); it has fewer bits, so it fits. Error: sums that could leave the 32-bit accumulator.
fn encode_bias(c: &IntConv, reach: &[i64]) -> Result<(Option<Vec<i8>>, u32), String> {
    let (bias, field) = match &c.bias {
        None => (None, 0),
        Some(bias) if c.shift_bias >= -1 => (Some(bias.clone()), (c.shift_bias + 1) as u32),
        Some(bias) => {
            let aligned = bias.iter().map(|b| align_bias((*b).into(), c.shift_bias, c.shift_cut) as i8);
            (Some(aligned.collect()), 1)
        }
    };
    for (channel, reach) in reach.iter().enumerate() {
        let bias = bias.as_ref().and_then(|b| b.get(channel)).map_or(0, |b| i64::from(b.unsigned_abs()));
        let most = 2 * reach + (bias << field);
        if most > i32::MAX.into() {
            return Err(format!("sums of channel {channel} reach {most}, beyond a 32-bit accumulator"));
        }
    }
    Ok((bias, field))
}

/// A dilated convolution as one plain convolution per phase, each over every d-th pixel of input and output.
///
/// Output o = d·u + φ reads input o + k·d − pad = d·(u + k + a) + ρ with φ − pad = d·a + ρ: taps next to each other on
/// the pixels of remainder ρ, padded by −a.
fn phases(whole: &Layer, dilation: [u32; 2]) -> Result<Vec<Layer>, String> {
    let split = |axis: usize| -> Result<Vec<Phase>, String> {
        let (d, outputs) = (dilation[axis], whole.shape.output[axis]);
        let (size, pad) = (whole.shape.input[axis], whole.shape.pad[axis]);
        if d == 1 {
            return Ok(vec![Phase { input: 0, inputs: size, output: 0, outputs, pad, step: 1 }]);
        }
        let phase = |output: u32| {
            let shifted = i64::from(output) - i64::from(pad);
            let (a, input) = (shifted.div_euclid(d.into()), shifted.rem_euclid(d.into()) as u32);
            if input >= size {
                return Err(format!("a dilation of {d} is larger than the map"));
            }
            Ok(Phase {
                input,
                inputs: (size - input).div_ceil(d),
                output,
                outputs: (outputs - output).div_ceil(d),
                pad: (-a) as u32,
                step: d,
            })
        };
        (0..d.min(outputs)).map(phase).collect()
    };
    let (rows, columns) = (split(0)?, split(1)?);
    let sub = |map: &Map, y: u32, x: u32, steps: [u32; 2]| Map {
        reg_id: map.reg_id,
        offset: map.offset + y * map.row_pitch + x * map.pixel_pitch,
        row_pitch: map.row_pitch * steps[0],
        pixel_pitch: map.pixel_pitch * steps[1],
    };
    let layer = |r: &Phase, c: &Phase| {
        let steps = [r.step, c.step];
        let s = &whole.shape;
        Layer {
            shape: Shape {
                input: [r.inputs, c.inputs, s.input[2]],
                output: [r.outputs, c.outputs, s.output[2]],
                pad: [r.pad, c.pad],
                ..*s
            },
            inputs: whole.inputs.iter().map(|m| sub(m, r.input, c.input, steps)).collect(),
            output: sub(&whole.output, r.output, c.output, steps),
            ..whole.clone()
        }
    };
    Ok(rows.iter().flat_map(|r| columns.iter().map(move |c| layer(r, c))).collect())
}

/// Every `step`-th pixel of one axis.
struct Phase {
    input: u32,
    inputs: u32,
    output: u32,
    outputs: u32,
    pad: u32,
    step: u32,
}
