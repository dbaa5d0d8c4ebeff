//! Transposed convolutions: one plain convolution per phase of the stride, between whose outputs the others lie.

use shiftwise_core::fix::FixPos;

use crate::dpu::axes::narrow;
use crate::dpu::context::{Context, Way, act_code};
use crate::dpu::facts::weight_facts;
use crate::dpu::layer::{Compute, Kernel, Layer};
use crate::dpu::limits::Facts;
use crate::dpu::select::conv::{encode_bias, few, phases};
use crate::dpu::tile::{Shape, Unit};
use crate::pack;
use crate::reason::Reason;
use shiftwise_integer::graph::{ConvKind, IntConv, IntOp, TensorIx};

/// Every stride-th output of one axis: a convolution with stride 1 over the taps that hit it.
#[derive(Debug, PartialEq, Eq)]
struct Phase {
    /// First output.
    output: u32,
    /// Outputs.
    outputs: u32,
    /// First input pixel and their number.
    input: u32,
    inputs: u32,
    /// Window pixels before the first input.
    pad: u32,
    /// Taps in the order of their input pixels, which is backwards; `None` weighs nothing.
    taps: Vec<Option<u32>>,
    /// Input pixels from one tap to the next.
    dilation: u32,
}

impl Phase {
    /// Window pixels behind the last input.
    fn pad_after(&self) -> u32 {
        let reach = self.outputs + (self.taps.len() as u32 - 1) * self.dilation;
        reach.saturating_sub(self.inputs + self.pad)
    }
}

/// The phases of one axis. Output o = stride·u + φ takes input i by tap k where o + pad = stride·i + dilation·k.
fn split(c: &IntConv, axis: usize) -> Vec<Phase> {
    let [stride, dilation, taps, pad] =
        [c.window.stride, c.window.dilation, c.window.kernel, c.window.pad_before].map(|pair| i64::from(pair[axis]));
    let (input, output) = (c.input[axis] as i64, c.output[axis] as i64);
    let phase = |first: i64| {
        let outputs = (output - first + stride - 1) / stride;
        let hits = (0..taps).rev().filter(|k| (first + pad - k * dilation) % stride == 0);
        let mut taps: Vec<Option<u32>> = hits.map(|k| Some(k as u32)).collect();
        // Taps that hit the same phase are a multiple of the stride apart.
        let step = match taps[..] {
            [Some(a), Some(b), ..] => i64::from(a - b) * dilation / stride,
            _ => 1,
        };
        // Input pixel of the first tap for the first output.
        let mut origin = match taps.first() {
            Some(Some(last)) => (first + pad - i64::from(*last) * dilation) / stride,
            _ => 0,
        };
        if taps.is_empty() {
            taps.push(None);
        }
        // Windows that lie wholly outside reach in with taps that weigh nothing.
        while origin + (taps.len() as i64 - 1) * step < 0 {
            taps.push(None);
        }
        while origin + outputs - 1 > input - 1 {
            taps.insert(0, None);
            origin -= step;
        }
        let skipped = origin.max(0);
        Phase {
            output: first as u32,
            outputs: outputs as u32,
            input: skipped as u32,
            inputs: (input - skipped) as u32,
            pad: (skipped - origin) as u32,
            taps,
            dilation: step as u32,
        }
    };
    (0..stride.min(output)).map(phase).collect()
}

impl Context<'_> {
    pub(crate) fn transposed(&self, op: &IntOp, c: &IntConv, input: TensorIx, pos: FixPos) -> Result<Way, Reason> {
        pack::check(&op.layer, c, ConvKind::Transposed).map_err(|e| Reason::Malformed { text: e.to_string() })?;
        let (dims, output) = (narrow(c.input)?, narrow(c.output)?);
        if (0..2).any(|a| c.output[a] > 4 * (c.input[a] + 64) * usize::from(c.window.stride[a])) {
            return Err(Reason::Reach {});
        }
        let packed = pack::by_output(c);
        let (bias, shift_bias) = encode_bias(c, &pack::reach(&packed, c.output[2], false))?;
        let compute =
            Compute::Conv { shift_cut: c.shift_cut.max(0) as u32, shift_bias, act_type: act_code(c.act, pos)? };
        let (map, outputs) = (self.map(input, dims), self.outputs(op.output, output));
        let stride = c.window.stride.map(u32::from);
        let (rows, columns) = (split(c, 0), split(c, 1));
        few(rows.len(), columns.len())?;
        let mut plan = Way { bias: bias.unwrap_or_else(|| vec![0; c.output[2]]), ..Way::default() };
        for (r, col) in rows.iter().flat_map(|r| columns.iter().map(move |c| (r, c))) {
            let kernel = [r.taps.len() as u32, col.taps.len() as u32];
            let facts = Facts {
                kernel,
                stride: [1, 1],
                dilation: [r.dilation, col.dilation],
                pad_before: [r.pad, col.pad],
                pad_after: [r.pad_after(), col.pad_after()],
                channels_in: dims[2],
                ..weight_facts(&c.window, output[2], c, pos)
            };
            self.check(Unit::Conv, &facts)?;
            let layer = Layer {
                shape: Shape {
                    input: [r.inputs, col.inputs, dims[2]],
                    output: [r.outputs, col.outputs, output[2]],
                    kernel,
                    pad: [r.pad, col.pad],
                    unit: Unit::Conv,
                    ..Shape::copy(dims)
                },
                inputs: vec![map.sub([r.input, col.input, 0])],
                outputs: outputs.iter().map(|m| m.sub([r.output, col.output, 0]).every(stride)).collect(),
                compute: compute.clone(),
                kernel: Kernel::Constants(u32::try_from(plan.kernel.len()).map_err(|_| Reason::Kernel {})?),
                ..Layer::default()
            };
            plan.layers.extend(phases(&layer, [r.dilation, col.dilation])?);
            select(&mut plan.kernel, &packed, c, [&r.taps, &col.taps]);
        }
        Ok(plan)
    }
}

/// Appends the taps `[rows, columns]` of a kernel `[oc][kh][kw][ic]`.
fn select(to: &mut Vec<i8>, packed: &[i8], c: &IntConv, [rows, columns]: [&[Option<u32>]; 2]) {
    let (ic, kw) = (c.input[2], usize::from(c.window.kernel[1]));
    let taps = usize::from(c.window.kernel[0]) * kw;
    for own in packed.chunks_exact((taps * ic).max(1)) {
        for (y, x) in rows.iter().flat_map(|y| columns.iter().map(move |x| (y, x))) {
            match (y, x) {
                (Some(y), Some(x)) => to.extend_from_slice(&own[(*y as usize * kw + *x as usize) * ic..][..ic]),
                _ => to.resize(to.len() + ic, 0),
            }
        }
    }
}
