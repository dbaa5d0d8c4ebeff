//! Operators on quantized numbers as what they stand for: their operands dequantized, the operator on floats, its result
//! quantized.

use crate::proto::NodeProto;

/// A quantized number's value, scale and zero point among a node's operands.
type Place = [usize; 3];

/// An operator on quantized numbers.
struct Quantized {
    /// Its name.
    name: &'static str,
    /// The operator on floats.
    of: &'static str,
    /// Its operands; a repeated one begins at the first and goes on to the end.
    operands: &'static [Place],
    repeated: bool,
    /// A bias in steps of the product of both operands' scales.
    bias: Option<usize>,
    /// Scale and zero point of its result.
    result: [usize; 2],
}

const ONE: &[Place] = &[[0, 1, 2]];
const TWO: &[Place] = &[[0, 1, 2], [3, 4, 5]];

const fn row(name: &'static str, of: &'static str, operands: &'static [Place], result: [usize; 2]) -> Quantized {
    Quantized { name, of, operands, repeated: false, bias: None, result }
}

/// All that are read as layers: ONNX' own, and those that onnxruntime adds in its domain.
const OPERATORS: &[Quantized] = &[
    Quantized { bias: Some(8), ..row("QLinearConv", "Conv", TWO, [6, 7]) },
    row("QLinearMatMul", "MatMul", TWO, [6, 7]),
    Quantized { bias: Some(6), ..row("QGemm", "Gemm", TWO, [7, 8]) },
    row("QLinearAdd", "Add", TWO, [6, 7]),
    row("QLinearMul", "Mul", TWO, [6, 7]),
    row("QLinearAveragePool", "AveragePool", ONE, [3, 4]),
    row("QLinearGlobalAveragePool", "GlobalAveragePool", ONE, [3, 4]),
    row("QLinearSigmoid", "Sigmoid", ONE, [3, 4]),
    row("QLinearLeakyRelu", "LeakyRelu", ONE, [3, 4]),
    row("QLinearSoftmax", "Softmax", ONE, [3, 4]),
    Quantized { repeated: true, ..row("QLinearConcat", "Concat", &[[2, 3, 4]], [0, 1]) },
];

/// Whether an operator of onnxruntime's own domain is one that ONNX has by the same name, or is read as several.
pub(crate) fn is_known(name: &str) -> bool {
    ["QuantizeLinear", "DequantizeLinear"].contains(&name) || OPERATORS.iter().any(|row| row.name == name)
}

/// The nodes with every operator on quantized numbers as several.
pub(crate) fn expand(nodes: Vec<NodeProto>) -> Vec<NodeProto> {
    let row = |node: &NodeProto| OPERATORS.iter().find(|row| row.name == node.op_type);
    if !nodes.iter().any(|node| row(node).is_some()) {
        return nodes;
    }
    // Names of values that nothing in the file has.
    let taken =
        |prefix: &str| nodes.iter().flat_map(|n| n.input.iter().chain(&n.output)).any(|n| n.starts_with(prefix));
    let prefix = (0..).map(|n| format!("float_{n}/")).find(|p| !taken(p)).unwrap_or_default();
    let mut all = Vec::new();
    for (i, node) in nodes.into_iter().enumerate() {
        match row(&node) {
            Some(row) => Expansion { node: &node, prefix: format!("{prefix}{i}/"), made: &mut all }.write(row),
            None => all.push(node),
        }
    }
    all
}

struct Expansion<'a> {
    node: &'a NodeProto,
    prefix: String,
    made: &'a mut Vec<NodeProto>,
}

impl Expansion<'_> {
    fn input(&self, k: usize) -> String {
        self.node.input.get(k).cloned().unwrap_or_default()
    }

    /// Adds a node of one result, which is returned.
    fn push(&mut self, op_type: &str, name: String, input: Vec<String>, output: String) -> String {
        let attribute = Vec::new();
        let node = NodeProto {
            input,
            output: vec![output.clone()],
            name,
            op_type: op_type.into(),
            attribute,
            domain: String::new(),
        };
        self.made.push(node);
        output
    }

    fn dequantized(&mut self, [x, scale, zero]: Place) -> String {
        let input = [x, scale, zero].map(|k| self.input(k)).to_vec();
        let (name, output) = (format!("{}_dequantize_{x}", self.node.name), format!("{}{x}", self.prefix));
        self.push("DequantizeLinear", name, input, output)
    }

    fn write(mut self, row: &Quantized) {
        let places: Vec<Place> = match (row.repeated, row.operands) {
            (true, [[first, ..]]) => (*first..self.node.input.len()).step_by(3).map(|k| [k, k + 1, k + 2]).collect(),
            (_, own) => own.to_vec(),
        };
        let mut input: Vec<String> = places.iter().map(|place| self.dequantized(*place)).collect();
        if let (Some(bias), [[_, a, _], [_, b, _]]) = (row.bias.filter(|k| !self.input(*k).is_empty()), &places[..]) {
            let scales = vec![self.input(*a), self.input(*b)];
            let scale =
                self.push("Mul", format!("{}_bias_scale", self.node.name), scales, format!("{}scale", self.prefix));
            let own = vec![self.input(bias), scale];
            let name = format!("{}_dequantize_bias", self.node.name);
            input.push(self.push("DequantizeLinear", name, own, format!("{}bias", self.prefix)));
            if let Some(node) = self.made.last_mut() {
                node.attribute.push(NodeProto::integer("axis", 0));
            }
        }
        let output = format!("{}result", self.prefix);
        let mut node = self.node.clone();
        (node.op_type, node.domain, node.input, node.output) =
            (row.of.into(), String::new(), input, vec![output.clone()]);
        if node.name.is_empty() {
            node.name = self.node.output.first().cloned().unwrap_or_default();
        }
        let name = format!("{}_quantize", node.name);
        // The weights of a convolution have a scale for each filter.
        let weights = self.made.iter().rposition(|n| n.output == [format!("{}3", self.prefix)]);
        if let Some(at) = weights.filter(|_| row.of == "Conv") {
            self.made[at].attribute.push(NodeProto::integer("axis", 0));
        }
        self.made.push(node);
        let last = [vec![output], row.result.map(|k| self.input(k)).to_vec()].concat();
        let result = self.node.output.first().cloned().unwrap_or_default();
        self.push("QuantizeLinear", name, last, result);
    }
}

impl NodeProto {
    /// An attribute that is a whole number.
    fn integer(name: &str, value: i64) -> crate::proto::AttributeProto {
        crate::proto::AttributeProto { name: name.into(), i: Some(value), kind: 2, ..Default::default() }
    }
}
