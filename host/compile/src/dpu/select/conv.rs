//! Convolutions: whole, by groups, by phases of a dilation, with channel augmentation.

use shiftwise_core::arith::align_bias;
use shiftwise_core::fix::FixPos;
use shiftwise_core::shape::Window;

use crate::dpu::axes::narrow;
use crate::dpu::context::{Context, Way, act_code};
use crate::dpu::facts::weight_facts;
use crate::dpu::layer::{Compute, Kernel, Layer, Map};
use crate::dpu::limits::Facts;
use crate::dpu::tile::{Shape, Unit};
use crate::pack;
use crate::reason::Reason;
use shiftwise_integer::graph::{ConvKind, IntAct, IntConv, IntOp, TensorIx};

impl Context<'_> {
    pub(crate) fn conv(&self, op: &IntOp, c: &IntConv, input: TensorIx, pos: FixPos) -> Result<Vec<Way>, Reason> {
        pack::check(&op.layer, c, ConvKind::Dense).map_err(|e| Reason::Malformed { text: e.to_string() })?;
        let kernel = pack::by_output(c);
        let (bias, shift_bias) = encode_bias(c, &pack::reach(&kernel, c.output[2], false))?;
        // CONV always adds a bias.
        let bias = bias.unwrap_or_else(|| vec![0; c.output[2]]);
        let (dims, window) = self.reshaped(c, input)?;
        let output = narrow(c.output)?;
        let layer = Layer {
            shape: Shape {
                input: dims,
                output,
                kernel: window.kernel.map(u32::from),
                stride: window.stride.map(u32::from),
                pad: window.pad_before.map(u32::from),
                operands: 1,
                passes: 0,
                saves: 1,
                unit: Unit::Conv,
                ..Shape::default()
            },
            inputs: vec![self.map(input, dims)],
            outputs: self.outputs(op.output, output),
            compute: Compute::Conv {
                shift_cut: c.shift_cut.max(0) as u32,
                shift_bias,
                act_type: act_code(c.act, pos)?,
            },
            ..Layer::default()
        };
        let dilation = window.dilation.map(u32::from);
        let whole = || {
            let facts = Facts { channels_in: dims[2], ..weight_facts(&window, output[2], c, pos) };
            self.check(Unit::Conv, &facts)?;
            let kernel = pack::without_groups(kernel.clone(), c);
            let plain = Way { layers: phases(&layer, dilation)?, kernel, bias: bias.clone() };
            let augmented = if dilation == [1, 1] { self.augment(&layer) } else { Vec::new() };
            let augmented = Way { layers: augmented, ..plain.clone() };
            Ok([plain, augmented].into_iter().filter(|p| !p.layers.is_empty()).collect())
        };
        let by_groups = || {
            let groups = c.groups as u32;
            let facts = Facts { channels_in: dims[2] / groups, ..weight_facts(&window, output[2] / groups, c, pos) };
            self.check(Unit::Conv, &facts)?;
            let layers = (0..groups).map(|g| phases(&part(&layer, g, groups), dilation));
            let layers = layers.collect::<Result<Vec<_>, Reason>>()?.concat();
            Ok(vec![Way { layers, kernel: kernel.clone(), bias: bias.clone() }])
        };
        if c.groups == 1 {
            return whole();
        }
        // Zeros in place of the other groups' weights, or one convolution per group: whatever takes less time.
        match (whole(), by_groups()) {
            (Ok(plans), Ok(more)) => Ok([plans, more].concat()),
            (Ok(plans), Err(_)) | (Err(_), Ok(plans)) => Ok(plans),
            (Err(_), Err(why)) => Err(why),
        }
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
            outputs: whole.outputs.iter().map(|m| m.sub([0, from, 0])).collect(),
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
    fn reshaped(&self, c: &IntConv, input: TensorIx) -> Result<([u32; 3], Window), Reason> {
        let dims = narrow(c.input)?;
        let w = c.window;
        let whole = w.kernel.map(u32::from) == [dims[0], dims[1]]
            && [w.pad_before, w.pad_after] == [[0, 0]; 2]
            && w.dilation == [1, 1]
            && c.output[..2] == [1, 1];
        if !whole || self.joins.home(input).is_some() {
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

    pub(crate) fn depthwise(&self, op: &IntOp, c: &IntConv, input: TensorIx, pos: FixPos) -> Result<Way, Reason> {
        pack::check(&op.layer, c, ConvKind::Depthwise).map_err(|e| Reason::Malformed { text: e.to_string() })?;
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
                saves: 1,
                unit: Unit::Depthwise,
                ..Shape::default()
            },
            inputs: vec![self.map(input, dims)],
            outputs: self.outputs(op.output, output),
            compute: Compute::Depthwise {
                shift_cut: c.shift_cut as u32,
                shift_bias,
                act_type: act_code(c.act, pos)?,
                biased: bias.is_some(),
            },
            ..Layer::default()
        };
        let layers = phases(&whole, c.window.dilation.map(u32::from))?;
        Ok(Way { layers, kernel: c.kernel.clone(), bias: bias.unwrap_or_default() })
    }
}

/// Group `g` of `groups`: its channels of input and output, its weights and biases.
fn part(whole: &Layer, g: u32, groups: u32) -> Layer {
    let s = &whole.shape;
    let (ic, oc) = (s.input[2] / groups, s.output[2] / groups);
    let own = |maps: &[Map], c: u32| maps.iter().map(|m| m.sub([0, 0, c])).collect();
    Layer {
        shape: Shape { input: [s.input[0], s.input[1], ic], output: [s.output[0], s.output[1], oc], ..*s },
        inputs: own(&whole.inputs, g * ic),
        outputs: own(&whole.outputs, g * oc),
        kernel: Kernel::Constants(g * oc * s.kernel[0] * s.kernel[1] * ic),
        bias: g * oc,
        ..whole.clone()
    }
}

/// The bias and the field `shift_bias` (the shift plus one: the accumulator has an extra fraction bit, DEC).
///
/// A bias finer than half an accumulator step is replaced by the integer that gives the same results (see
/// [`align_bias`]); it has fewer bits, so it fits. Errors: sums that could leave the 32-bit accumulator; such a bias before
/// a LeakyReLU, which would magnify what is rounded away.
pub(crate) fn encode_bias(c: &IntConv, reach: &[i64]) -> Result<(Option<Vec<i8>>, u32), Reason> {
    let (bias, field) = match &c.bias {
        None => (None, 0),
        Some(bias) if c.shift_bias >= -1 => (Some(bias.clone()), (c.shift_bias + 1) as u32),
        Some(bias) if c.act == IntAct::LeakyRelu && bias.iter().any(|b| pack::finer(*b, c.shift_bias)) => {
            return Err(Reason::FineBias { shift: c.shift_bias });
        }
        Some(bias) => {
            let aligned = bias.iter().map(|b| align_bias((*b).into(), c.shift_bias, c.shift_cut) as i8);
            (Some(aligned.collect()), 1)
        }
    };
    for (channel, reach) in reach.iter().enumerate() {
        let bias = bias.as_ref().and_then(|b| b.get(channel)).map_or(0, |b| i64::from(b.unsigned_abs()));
        // Beyond this a bias of 1 alone leaves the accumulator.
        let most = (2 * reach).saturating_add(bias << field.min(40));
        if most > i32::MAX.into() {
            return Err(Reason::Sums { channel, most });
        }
    }
    Ok((bias, field))
}

/// A dilated convolution as one plain convolution per phase, each over every d-th pixel of input and output.
///
/// Output o = d·u + φ reads input o + k·d − pad = d·(u + k + a) + ρ with φ − pad = d·a + ρ: taps next to each other on
/// the pixels of remainder ρ, padded by −a.
pub(crate) fn phases(whole: &Layer, dilation: [u32; 2]) -> Result<Vec<Layer>, Reason> {
    let split = |axis: usize| -> Result<Vec<Phase>, Reason> {
        let (d, outputs) = (dilation[axis], whole.shape.output[axis]);
        let (size, pad) = (whole.shape.input[axis], whole.shape.pad[axis]);
        if d == 1 {
            return Ok(vec![Phase { input: 0, inputs: size, output: 0, outputs, pad, step: 1 }]);
        }
        let phase = |output: u32| {
            let shifted = i64::from(output) - i64::from(pad);
            let (a, input) = (shifted.div_euclid(d.into()), shifted.rem_euclid(d.into()) as u32);
            if input >= size {
                return Err(Reason::Dilation { dilation: d });
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
    few(rows.len(), columns.len())?;
    let sub =
        |maps: &[Map], y: u32, x: u32, steps: [u32; 2]| maps.iter().map(|m| m.sub([y, x, 0]).every(steps)).collect();
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
            inputs: sub(&whole.inputs, r.input, c.input, steps),
            outputs: sub(&whole.outputs, r.output, c.output, steps),
            ..whole.clone()
        }
    };
    Ok(rows.iter().flat_map(|r| columns.iter().map(move |c| layer(r, c))).collect())
}

/// Refuses more convolutions than a layer is taken apart into, before any of them is made.
pub(super) fn few(rows: usize, columns: usize) -> Result<(), Reason> {
    const MOST: usize = 1 << 12;
    match rows * columns {
        ..=MOST => Ok(()),
        parts => Err(Reason::Parts { parts, most: MOST }),
    }
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
