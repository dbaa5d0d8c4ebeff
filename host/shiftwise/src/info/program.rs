//! Compiled networks: ours, and the vendor's graphs and programs.

use shiftwise_core::arith::Round;
use shiftwise_core::model::{DType, MAGIC, Region, Step, TensorDesc};
use shiftwise_formats::LoadOptions;
use shiftwise_graph::error::Error;
use shiftwise_quant::metadata::Metadata;
use shiftwise_xmodel::graph::is_input;
use shiftwise_xmodel::value::quantization;
use shiftwise_xmodel::{self as xmodel, Device, Element, XOp};

use super::{Compiled, Content, Info, Piece, Port, Subject, Xmodel, snippet};
use crate::run;

pub(super) fn deployable(subject: &Subject<'_>, _: &LoadOptions) -> Result<Option<Info>, Error> {
    if !subject.head.starts_with(&MAGIC) {
        return Ok(None);
    }
    let bytes = std::fs::read(subject.path).map_err(Error::io(subject.path))?;
    let model = run::parse(subject.path, &bytes)?;
    let (facts, fingerprint) = (model.facts(), model.fingerprint());
    let dpu_jobs = model.steps().filter(|step| matches!(step, Step::Dpu(_))).count();
    let content = Compiled {
        target: facts.target.to_owned(),
        fingerprint: (fingerprint != 0).then(|| format!("{fingerprint:#018x}")),
        tool: facts.tool.to_owned(),
        dpu_jobs,
        cpu_layers: model.steps().count() - dpu_jobs,
        code_bytes: model.code().len(),
        constant_bytes: model.constants().len(),
        workspace_bytes: model.region_bytes(Region::Workspace),
        input_bytes: model.region_bytes(Region::Inputs),
        output_bytes: model.region_bytes(Region::Outputs),
        self_test_samples: facts.self_test_samples,
    };
    let mut info = subject.info("a compiled model (.swm)", Content::Deployable(content));
    info.name = Some(facts.name.to_owned());
    info.inputs = model.inputs().map(|(_, t)| described(&t)).collect();
    info.outputs = model.outputs().map(|(_, t)| described(&t)).collect();
    let metadata = std::str::from_utf8(model.metadata()).map_err(|_| "has metadata that is not text".to_owned());
    info.metadata = metadata.and_then(Metadata::parse).map_err(|why| Error::format(subject.path, why))?;
    info.snippets = snippet::all(&info.inputs, info.metadata.preprocessing.as_ref());
    Ok(Some(info))
}

fn described(t: &TensorDesc<'_>) -> Port {
    let name = t.name.strip_prefix("quant_").unwrap_or(t.name);
    let port = Port::float(name, t.shape.dims().iter().map(|d| *d as usize).collect());
    match t.dtype {
        DType::I8 => port.fixed(t.pos.0, (8, true), Round::HalfUp),
        DType::F32 => port,
        DType::Scaled(scale) => {
            let bits = 8 * scale.bytes();
            let entries = [
                ("bit_width", serde_json::json!(bits)),
                ("signed", serde_json::json!(true)),
                ("scale", serde_json::json!(scale.step())),
                ("zero_point", serde_json::json!(scale.zero)),
                ("min_integer", serde_json::json!(scale.low)),
                ("max_integer", serde_json::json!(scale.high)),
            ];
            let quantizer = entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            Port { dtype: format!("int{bits}"), quantizer: Some(quantizer), ..port }
        }
    }
}

pub(super) fn xmodel(subject: &Subject<'_>, _: &LoadOptions) -> Result<Option<Info>, Error> {
    if subject.head.is_empty() || subject.head.first() != Some(&0x0a) {
        return Ok(None);
    }
    let bytes = std::fs::read(subject.path).map_err(Error::io(subject.path))?;
    let files = shiftwise_formats::Files::of_bytes(subject.path, bytes);
    let bytes = files.bytes().unwrap_or_default();
    // TensorFlow's graphs begin like these.
    if !xmodel::is_xmodel(bytes)
        || shiftwise_formats::Format::of(&files).is_some_and(|own| own.name != shiftwise_formats::XMODEL)
    {
        return Ok(None);
    }
    let model = xmodel::read(subject.path, bytes)?;
    let compiled = model.is_compiled();
    let damaged = |why: String| Error::format(subject.path, why);
    let (mut code_bytes, mut constant_bytes, mut target, mut fingerprint) = (0, 0, None, None);
    for run in &model.root.children {
        code_bytes += run.code().map_or(0, <[u8]>::len);
        let registers = run.registers().map_err(damaged)?;
        constant_bytes += registers.iter().filter_map(|r| r.contents.as_ref()).map(Vec::len).sum::<usize>();
        let (name, number) = run.target();
        target = target.or(name.map(str::to_owned));
        fingerprint = fingerprint.or(number.map(|n| format!("{n:#018x}")));
    }
    let piece = |run: &xmodel::Subgraph| Piece {
        name: run.name.clone(),
        device: match &run.device {
            Device::User => "USER".into(),
            Device::Dpu => "DPU".into(),
            Device::Cpu => "CPU".into(),
            Device::Unsaid => "not said".into(),
            Device::Other(name) => name.clone(),
        },
        operations: run.all_ops().len(),
    };
    let subgraphs = if compiled { model.root.children.iter().map(piece).collect() } else { Vec::new() };
    let content = Xmodel { operations: model.ops.len(), target, fingerprint, subgraphs, code_bytes, constant_bytes };
    let kind = if compiled { "the vendor's compiled program (.xmodel)" } else { "the vendor's graph (.xmodel)" };
    let mut info = subject.info(kind, Content::Xmodel(content));
    info.name = Some(model.name.clone());
    let inputs = model.ops.iter().enumerate().filter(|(_, op)| is_input(op));
    info.inputs = inputs.map(|(index, op)| operation(op, behind(&model, index))).collect();
    let outputs = model.results().into_iter().filter_map(|index| model.ops.get(index));
    info.outputs = outputs.map(|op| operation(op, Some(op).filter(|op| is_grid(op)))).collect();
    info.snippets = snippet::all(&info.inputs, None);
    Ok(Some(info))
}

/// The operation that brings an input onto a grid, if it is the first behind it.
fn behind(model: &xmodel::Xmodel, input: usize) -> Option<&XOp> {
    model.ops.iter().find(|op| op.inputs().any(|i| i == input)).filter(|op| is_grid(op))
}

/// Whether an operation's own attributes say onto which grid it brings values.
fn is_grid(op: &XOp) -> bool {
    op.attrs.int("fix_point").is_some()
}

/// An input or output; `quantizer` brings it onto a grid.
fn operation(op: &XOp, quantizer: Option<&XOp>) -> Port {
    let t = &op.tensor;
    let port = Port::float(&op.name, t.shape.iter().skip(1).copied().collect());
    let fixed = |pos, round| port.clone().fixed(pos, (8, true), round);
    match (t.element, t.position(), quantizer.map(|q| quantization(&q.attrs))) {
        (Element::Fixed, Some(pos), _) => fixed(pos, Round::HalfUp),
        (_, _, Some(Ok((pos, round)))) => fixed(pos, round),
        (Element::Fixed | Element::Float | Element::Other(..), _, _) => port,
    }
}
