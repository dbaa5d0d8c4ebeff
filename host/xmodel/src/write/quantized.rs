//! A quantized network as the vendor's quantizers write it: operations on floats, and a `fix` behind each that has integers.

use shiftwise_graph::error::Error;
use shiftwise_integer::graph::{IntGraph, IntOpKind, TensorIx};
use shiftwise_integer::lower::lower;
use shiftwise_quant::quant_graph::QuantGraph;

use super::float::Writer;
use super::{Drawn, Node, Part, Setting, form, settings};

/// The bytes of a quantized network's file.
///
/// Errors: a layer that the format has no operation for, or whose numbers have no positions, by its name.
pub fn write(quantized: &QuantGraph) -> Result<Vec<u8>, Error> {
    Ok(draw(&lower(quantized)?)?.to_bytes())
}

/// The operations of a network in integer form.
fn draw(graph: &IntGraph) -> Result<Drawn, Error> {
    let mut own = Fixed { writer: Writer::new(graph), values: vec![None; graph.tensors.len()] };
    for t in &graph.inputs {
        own.input(*t);
    }
    for op in &graph.ops {
        let fail = |why: String| Error::layer(&op.layer, op.kind.name(), why);
        let inputs: Option<Vec<String>> = op.inputs.iter().map(|t| own.values[t.0].clone()).collect();
        let inputs = inputs.ok_or_else(|| fail("it reads what nothing computes".into()))?;
        // Floats are what a `fix` gives.
        if matches!(op.kind, IntOpKind::Dequantize) {
            own.values[op.output.0] = inputs.into_iter().next();
            continue;
        }
        let (last, shape) = own.writer.op(op, &inputs).map_err(fail)?;
        own.values[op.output.0] = Some(own.fixed(op.output, &last, shape));
    }
    let outputs = graph.outputs.iter().filter_map(|t| own.values[t.0].clone()).collect();
    let nodes = own.writer.nodes;
    let root = Part { name: "root".into(), nodes: nodes.iter().map(|n| n.name.clone()).collect(), ..Part::default() };
    let settings = settings([("origin", Setting::text("tensorflow2")), ("return_ops", Setting::texts(outputs))]);
    Ok(Drawn { name: graph.name.clone(), nodes, root, settings })
}

struct Fixed<'a> {
    writer: Writer<'a>,
    /// The operation that has each tensor's value.
    values: Vec<Option<String>>,
}

impl Fixed<'_> {
    fn input(&mut self, t: TensorIx) {
        let (graph, shape) = (self.writer.graph, form::shape(self.writer.graph, t));
        let name = graph.tensors[t.0].name.clone();
        let pos = form::position(graph, t);
        let raw = pos.map_or(name.as_str(), |_| form::input_name(&name));
        let raw = self.writer.names.free(raw);
        let data = Node::float(&raw, "data", &shape);
        let data = data.with("shape", Setting::shape(&shape)).with("data_type", Setting::text("FLOAT32"));
        self.writer.nodes.push(data);
        let own = match pos {
            Some(pos) => {
                let name = if name == raw { format!("{raw}_fix") } else { name };
                self.writer.fix(&name, &raw, &shape, pos)
            }
            None => raw,
        };
        self.values[t.0] = Some(own);
    }

    /// The value of a tensor whose numbers `last` computes: quantized, and under its own shape.
    fn fixed(&mut self, t: TensorIx, last: &str, shape: Vec<usize>) -> String {
        let (graph, own) = (self.writer.graph, form::shape(self.writer.graph, t));
        let name = graph.tensors[t.0].name.clone();
        let value = match form::position(graph, t) {
            Some(pos) => self.writer.fix(&format!("{name}_fix"), last, &shape, pos),
            None => last.to_owned(),
        };
        if shape == own { value } else { self.writer.reshape(&format!("{name}_reshaped"), &value, &own) }
    }
}
