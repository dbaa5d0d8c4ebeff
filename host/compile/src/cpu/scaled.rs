//! One op on integers with steps of any size as one CPU step.

use shiftwise_core::model::{
    CpuOp, ScaledConcatOp, ScaledConvOp, ScaledCopyOp, ScaledOp as Step, ScaledPoolKind, ScaledPoolOp, ScaledProductOp,
    ScaledSumOp, TensorList,
};
use shiftwise_core::scale::Multiplier;

use crate::operand::{broadcasts, dims, id, narrow, refuse, shape};
use crate::program::ProgramStep;
use shiftwise_graph::error::Error;
use shiftwise_integer::graph::{IntGraph, IntOp, IntOpKind, image};
use shiftwise_integer::scaled::{ScaledConv, ScaledOp, ScaledPooling};

/// The step of an op; its weights and multipliers are appended to `constants`.
///
/// Errors: [`Error::Compile`], naming the layer, where a dimension does not fit.
pub(crate) fn step(
    graph: &IntGraph,
    op: &IntOp,
    own: &ScaledOp,
    constants: &mut Vec<u8>,
) -> Result<ProgramStep, Error> {
    let layer = op.layer.as_str();
    let (input, output) = (id(op.inputs[0])?, id(op.output)?);
    let inputs = TensorList(&[]);
    let step = match own {
        ScaledOp::Conv(c) => Step::Conv(conv(op, c, constants)?),
        ScaledOp::Pool { window, pooling, multipliers, bounds } => {
            let in_dims = dims(layer, image(shape(graph, op.inputs[0])))?;
            let outputs = [0, 1].map(|axis| window.outputs(axis, in_dims[axis].into()) as usize);
            let [h, w, _] = dims(layer, [outputs[0], outputs[1], 1])?;
            let kind = match pooling {
                ScaledPooling::Max => ScaledPoolKind::Max,
                ScaledPooling::Sum => ScaledPoolKind::Sum,
                ScaledPooling::Counted => ScaledPoolKind::Counted,
            };
            let (out_dims, window, bounds) = ([h, w], *window, *bounds);
            let multipliers = words(layer, constants, multipliers.iter().flat_map(words_of))?;
            Step::Pool(ScaledPoolOp { input, output, in_dims, out_dims, window, kind, multipliers, bounds })
        }
        ScaledOp::Sum { factors, n, bounds } => {
            let factors = words(layer, constants, factors.iter().copied())?;
            Step::Sum(ScaledSumOp { inputs, output, factors, n: *n, bounds: *bounds })
        }
        ScaledOp::Product { multiplier: Multiplier { m, n }, bounds } => {
            let out = shape(graph, op.output);
            if let Some(t) = op.inputs.iter().find(|t| !broadcasts(shape(graph, **t), out)) {
                return Err(refuse(layer, format!("{:?} does not broadcast to {out:?}", shape(graph, *t))));
            }
            let inputs = [input, id(op.inputs[1])?];
            Step::Product(ScaledProductOp { inputs, output, m: *m, n: *n, bounds: *bounds })
        }
        ScaledOp::Concat { axis, multipliers, bounds } => {
            let multipliers = words(layer, constants, multipliers.iter().flat_map(words_of))?;
            let axis = narrow(layer, "axis", *axis)?;
            Step::Concat(ScaledConcatOp { inputs, output, axis, multipliers, bounds: *bounds })
        }
    };
    let lists = matches!(step, Step::Sum(_) | Step::Concat(_));
    let inputs = op.inputs.iter().filter(|_| lists).map(|t| id(*t)).collect::<Result<_, _>>()?;
    Ok(ProgramStep::Scaled { inputs, op: step })
}

fn words_of(Multiplier { m, n }: &Multiplier) -> [u32; 2] {
    [*m, (*n).into()]
}

/// Words appended to the constants; their offset.
fn words(layer: &str, constants: &mut Vec<u8>, words: impl Iterator<Item = u32>) -> Result<u32, Error> {
    constants.resize(constants.len().next_multiple_of(4), 0);
    let at = narrow(layer, "offset of its multipliers", constants.len())?;
    constants.extend(words.flat_map(u32::to_le_bytes));
    Ok(at)
}

fn conv(op: &IntOp, c: &ScaledConv, constants: &mut Vec<u8>) -> Result<ScaledConvOp, Error> {
    let layer = op.layer.as_str();
    let channel = |c: &shiftwise_integer::scaled::Channel| {
        let bias = c.bias as u64;
        let [m, n] = words_of(&c.multiplier);
        [bias as u32, (bias >> 32) as u32, m, n]
    };
    let channels = words(layer, constants, c.channels.iter().flat_map(channel))?;
    let kernel = narrow(layer, "offset of the kernel", constants.len())?;
    let (weights, wide) = (c.by_output(), c.is_wide());
    let bytes = |w: &i16| w.to_le_bytes().into_iter().take(if wide { 2 } else { 1 });
    constants.extend(weights.iter().flat_map(bytes));
    Ok(ScaledConvOp {
        input: id(op.inputs[0])?,
        output: id(op.output)?,
        in_dims: dims(layer, c.input)?,
        out_dims: dims(layer, c.output)?,
        window: c.window,
        groups: narrow(layer, "number of groups", c.groups)?,
        transposed: c.transposed,
        kernel,
        wide,
        channels,
        bounds: c.bounds,
    })
}

/// A layer that only moves integers of such a step; `None` for any other.
///
/// Errors: more dimensions than can be moved.
pub(crate) fn moved(graph: &IntGraph, op: &IntOp) -> Result<Option<ProgramStep>, Error> {
    let (from, out) = (shape(graph, op.inputs[0]), shape(graph, op.output));
    let ([h, w, c], [_, columns, _]) = (image(from), image(out));
    let (sizes, steps_in, to, steps_out, fill) = match &op.kind {
        IntOpKind::Pad { before: [top, left], .. } => {
            let to = (top * columns + left) * c;
            ([1, 1, h, w, c], [0, 0, w * c, c, 1], to, [0, 0, columns * c, c, 1], true)
        }
        IntOpKind::UpSample { factor: [fy, fx], .. } => {
            let row = columns * c;
            ([h, *fy, w, *fx, c], [w * c, 0, c, 0, 1], 0, [fy * row, row, fx * c, c, 1], false)
        }
        IntOpKind::Permute { dims } => {
            let stride = |shape: &[usize], axis: usize| shape[axis + 1..].iter().product::<usize>();
            let first = 5usize.checked_sub(dims.len());
            let first = first.ok_or_else(|| refuse(&op.layer, format!("{} dimensions; up to 5 fit", dims.len())))?;
            let (mut sizes, mut steps_in, mut steps_out) = ([1; 5], [0; 5], [0; 5]);
            for (axis, own) in dims.iter().enumerate() {
                sizes[first + axis] = from[*own];
                steps_in[first + axis] = stride(from, *own);
                steps_out[first + axis] = stride(out, axis);
            }
            (sizes, steps_in, 0, steps_out, false)
        }
        _ => return Ok(None),
    };
    let five = |values: [usize; 5]| -> Result<[u32; 5], Error> {
        let mut all = [0; 5];
        for (to, value) in all.iter_mut().zip(values) {
            *to = narrow(&op.layer, "stride", value)?;
        }
        Ok(all)
    };
    let (input, output) = (id(op.inputs[0])?, id(op.output)?);
    let to = narrow(&op.layer, "first element", to)?;
    let (sizes, steps_in, steps_out) = (five(sizes)?, five(steps_in)?, five(steps_out)?);
    let copy = ScaledCopyOp { input, output, sizes, steps_in, to, steps_out, fill };
    Ok(Some(ProgramStep::Cpu(CpuOp::Scaled(Step::Copy(copy)))))
}
