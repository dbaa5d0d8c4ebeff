//! Layers of class `TensorFlowOpLayer`, which tf.keras of TensorFlow 2.0 to 2.3 made of functions on tensors: a node of
//! a TensorFlow graph and its constants, as the functions that later versions record instead.

use std::collections::HashMap;

use prost::Message;
use serde_json::{Map, Value, json};

use crate::call::{Call, tensor_argument};
use crate::record::LayerConfig;
use shiftwise_graph::error::Error;

/// The class.
pub(crate) const CLASS: &str = "TensorFlowOpLayer";

/// More operands than this are refused.
const MAX_OPERANDS: usize = 4096;

/// An operation whose operands and attributes have counterparts among a function's arguments.
struct Row {
    operation: &'static str,
    function: &'static str,
    /// What the function calls the operands behind the first.
    operands: &'static [&'static str],
    /// Attributes as (TensorFlow's, the function's).
    attributes: &'static [(&'static str, &'static str)],
}

const fn row(
    operation: &'static str,
    function: &'static str,
    operands: &'static [&'static str],
    attributes: &'static [(&'static str, &'static str)],
) -> Row {
    Row { operation, function, operands, attributes }
}

const KEEP: &[(&str, &str)] = &[("keep_dims", "keepdims")];

const ROWS: &[Row] = &[
    row("AddV2", "math.add", &["y"], &[]),
    row("Add", "math.add", &["y"], &[]),
    row("Sub", "math.subtract", &["y"], &[]),
    row("Mul", "math.multiply", &["y"], &[]),
    row("RealDiv", "math.truediv", &["y"], &[]),
    row("Div", "math.truediv", &["y"], &[]),
    row("DivNoNan", "math.divide_no_nan", &["y"], &[]),
    row("Maximum", "math.maximum", &["y"], &[]),
    row("Minimum", "math.minimum", &["y"], &[]),
    row("Pow", "math.pow", &["y"], &[]),
    row("SquaredDifference", "math.squared_difference", &["y"], &[]),
    row("BiasAdd", "nn.bias_add", &["bias"], &[("data_format", "data_format")]),
    row("ClipByValue", "clip_by_value", &["clip_value_min", "clip_value_max"], &[]),
    row("MatMul", "linalg.matmul", &["b"], &[("transpose_a", "transpose_a"), ("transpose_b", "transpose_b")]),
    row("BatchMatMul", "linalg.matmul", &["b"], &[("adj_x", "transpose_a"), ("adj_y", "transpose_b")]),
    row("BatchMatMulV2", "linalg.matmul", &["b"], &[("adj_x", "transpose_a"), ("adj_y", "transpose_b")]),
    row("Neg", "math.negative", &[], &[]),
    row("Abs", "math.abs", &[], &[]),
    row("Square", "math.square", &[], &[]),
    row("Sqrt", "math.sqrt", &[], &[]),
    row("Rsqrt", "math.rsqrt", &[], &[]),
    row("Reciprocal", "math.reciprocal", &[], &[]),
    row("Inv", "math.reciprocal", &[], &[]),
    row("Exp", "math.exp", &[], &[]),
    row("Log", "math.log", &[], &[]),
    row("Sign", "math.sign", &[], &[]),
    row("Floor", "math.floor", &[], &[]),
    row("Ceil", "math.ceil", &[], &[]),
    row("Round", "math.round", &[], &[]),
    row("Identity", "identity", &[], &[]),
    row("StopGradient", "stop_gradient", &[], &[]),
    row("Relu", "nn.relu", &[], &[]),
    row("Relu6", "nn.relu6", &[], &[]),
    row("LeakyRelu", "nn.leaky_relu", &[], &[("alpha", "alpha")]),
    row("Elu", "nn.elu", &[], &[]),
    row("Selu", "nn.selu", &[], &[]),
    row("Softplus", "math.softplus", &[], &[]),
    row("Softsign", "nn.softsign", &[], &[]),
    row("Sigmoid", "math.sigmoid", &[], &[]),
    row("Tanh", "math.tanh", &[], &[]),
    row("Softmax", "nn.softmax", &[], &[]),
    row("Mean", "math.reduce_mean", &["axis"], KEEP),
    row("Sum", "math.reduce_sum", &["axis"], KEEP),
    row("Max", "math.reduce_max", &["axis"], KEEP),
    row("Min", "math.reduce_min", &["axis"], KEEP),
    row("Reshape", "reshape", &["shape"], &[]),
    row("Transpose", "transpose", &["perm"], &[]),
    row("ExpandDims", "expand_dims", &["axis"], &[]),
    row("Squeeze", "squeeze", &[], &[("squeeze_dims", "axis")]),
    row("Pad", "pad", &["paddings"], &[]),
    row("PadV2", "pad", &["paddings", "constant_values"], &[]),
    row("SplitV", "split", &["num_or_size_splits", "axis"], &[("num_split", IGNORED)]),
    row("Unpack", "unstack", &[], &[("num", "num"), ("axis", "axis")]),
    row("DepthToSpace", "nn.depth_to_space", &[], &[("block_size", "block_size"), ("data_format", "data_format")]),
    row("SpaceToDepth", "nn.space_to_depth", &[], &[("block_size", "block_size"), ("data_format", "data_format")]),
];

/// An attribute that says nothing new.
const IGNORED: &str = "";

/// A node as TensorFlow 2.0 and 2.1 write it: the bytes of the message, as text.
#[derive(Clone, PartialEq, Message)]
struct NodeDef {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    op: String,
    #[prost(string, repeated, tag = "3")]
    input: Vec<String>,
    #[prost(map = "string, message", tag = "5")]
    attr: HashMap<String, AttrValue>,
}

/// The kinds of attributes that are understood; one of them is set.
#[derive(Clone, PartialEq, Message)]
struct AttrValue {
    #[prost(bytes = "vec", optional, tag = "2")]
    s: Option<Vec<u8>>,
    #[prost(int64, optional, tag = "3")]
    i: Option<i64>,
    #[prost(float, optional, tag = "4")]
    f: Option<f32>,
    #[prost(bool, optional, tag = "5")]
    b: Option<bool>,
    #[prost(int32, optional, tag = "6")]
    r#type: Option<i32>,
    #[prost(message, optional, tag = "1")]
    list: Option<AttrList>,
}

#[derive(Clone, PartialEq, Message)]
struct AttrList {
    #[prost(int64, repeated, tag = "3")]
    i: Vec<i64>,
}

/// TensorFlow's number of 32-bit floats.
const DT_FLOAT: i32 = 1;

impl AttrValue {
    fn value(&self) -> Value {
        let text = |bytes: &Vec<u8>| json!(String::from_utf8_lossy(bytes));
        let number = |v: f32| json!(v.to_string().parse::<f64>().unwrap_or(v.into()));
        let kind = |t: i32| if t == DT_FLOAT { json!("DT_FLOAT") } else { json!(format!("type {t}")) };
        let found = self.s.as_ref().map(text).or(self.i.map(Value::from)).or(self.f.map(number));
        let found = found.or(self.b.map(Value::from)).or(self.r#type.map(kind));
        found.or(self.list.as_ref().map(|list| json!(list.i))).unwrap_or(Value::Null)
    }
}

/// The words that attributes are made of, as base64.
const WORDS: &[(&str, &str)] = &[
    ("TkhXQw==", "NHWC"),
    ("TkNIVw==", "NCHW"),
    ("U0FNRQ==", "SAME"),
    ("VkFMSUQ=", "VALID"),
    ("TkhXQ19WRUNUX0M=", "NCHW_VECT_C"),
];

/// An attribute of a node's JSON, in which 64-bit integers are text and bytes are base64.
fn attribute(value: &Value) -> Value {
    let whole = |v: &Value| v.as_str().and_then(|s| s.parse::<i64>().ok()).map_or_else(|| v.clone(), Value::from);
    let text =
        |v: &Value| WORDS.iter().find(|(coded, _)| v == coded).map_or_else(|| v.clone(), |(_, word)| json!(word));
    match value.as_object().and_then(|o| o.iter().next()) {
        Some((kind, v)) => match kind.as_str() {
            "i" => whole(v),
            "s" => text(v),
            "list" => v.get("i").and_then(Value::as_array).map_or_else(|| json!([]), |l| l.iter().map(whole).collect()),
            _ => v.clone(),
        },
        None => Value::Null,
    }
}

/// A node of a graph with what it needs of the layer.
struct Node {
    operation: String,
    /// How many tensors and constants it reads.
    operands: usize,
    attributes: Map<String, Value>,
}

impl Node {
    fn parse(value: &Value) -> Option<Self> {
        // Names behind ^ only order operations.
        let count = |names: &mut dyn Iterator<Item = &str>| names.filter(|name| !name.starts_with('^')).count();
        if let Some(text) = value.as_str() {
            let node = NodeDef::decode(text.as_bytes()).ok()?;
            let mut attributes: Map<String, Value> = node.attr.iter().map(|(k, v)| (k.clone(), v.value())).collect();
            attributes.sort_keys();
            let operands = count(&mut node.input.iter().map(String::as_str));
            return Some(Self { operation: node.op, operands, attributes });
        }
        let names = value.get("input").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let attributes = value.get("attr").and_then(Value::as_object);
        Some(Self {
            operation: value.get("op")?.as_str()?.to_owned(),
            operands: count(&mut names.iter().filter_map(Value::as_str)),
            attributes: attributes.into_iter().flatten().map(|(k, v)| (k.clone(), attribute(v))).collect(),
        })
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.attributes.shift_remove(name).filter(|v| !v.is_null())
    }

    fn is_on(&mut self, name: &str) -> bool {
        self.take(name).and_then(|v| v.as_bool()) == Some(true)
    }

    fn bits(&mut self, name: &str) -> u64 {
        self.take(name).and_then(|v| v.as_u64()).unwrap_or(0)
    }
}

/// The arguments of a function, or the settings of a layer, whose name begins with a capital.
struct Translated {
    function: &'static str,
    args: Vec<Value>,
    kwargs: Map<String, Value>,
}

impl Translated {
    fn new(function: &'static str, first: Value, kwargs: Value) -> Self {
        Self { function, args: vec![first], kwargs: kwargs.as_object().cloned().unwrap_or_default() }
    }
}

/// Rewrites the layer as a `TFOpLambda` layer or as the layer that its operation is.
///
/// An operation that has no counterpart is named in the layer's class. Errors: operands that don't fit an operation.
pub(crate) fn to_function(layer: &mut LayerConfig) -> Result<(), Error> {
    let (name, class) = (layer.name.clone(), layer.class.clone());
    let fail = |message: &str| Error::layer(&name, &class, message);
    let node = layer.config.get("node_def").and_then(Node::parse);
    let node = node.ok_or_else(|| fail("its node_def is not understood"))?;
    let class_of_node = format!("{CLASS} {:.60}", node.operation);
    let constants = layer.config.get("constants").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut translated = None;
    for call in &mut layer.calls {
        let node = Node { attributes: node.attributes.clone(), operation: node.operation.clone(), ..node };
        let operands = operands(&node, &constants, call).map_err(|message| fail(&message))?;
        let found = translate(node, operands).map_err(|message| Error::layer(&name, &class_of_node, message))?;
        let Some(Translated { function, args, kwargs }) = found else {
            // Nobody knows it, unless the user does.
            layer.class = class_of_node;
            return Ok(());
        };
        (call.args, call.kwargs) = (args, kwargs);
        translated = Some(function);
    }
    let function = translated.ok_or_else(|| fail("it is not called"))?;
    if function.starts_with(char::is_uppercase) {
        // A layer: what a function is told by name are its settings.
        layer.class = function.into();
        layer.config = Map::from_iter([("name".to_owned(), json!(name))]);
        layer.calls.iter_mut().for_each(|call| layer.config.append(&mut call.kwargs));
        return Ok(());
    }
    let class = if function == "__operators__.getitem" { "SlicingOpLambda" } else { "TFOpLambda" };
    layer.class = class.into();
    let config = json!({ "name": name, "trainable": true, "dtype": "float32", "function": function });
    layer.config = config.as_object().cloned().unwrap_or_default();
    Ok(())
}

/// Tensors and constants in the operation's order.
fn operands(node: &Node, constants: &Map<String, Value>, call: &Call) -> Result<Vec<Value>, String> {
    let count = call.tensors.len() + constants.len();
    if count != node.operands || count > MAX_OPERANDS {
        return Err(format!(
            "its operation {:.60} has {} operands, and {count} are given",
            node.operation, node.operands
        ));
    }
    let mut tensors = (0..call.tensors.len()).map(tensor_argument);
    let one = |k: usize| constants.get(&k.to_string()).cloned().or_else(|| tensors.next());
    let all: Option<Vec<Value>> = (0..count).map(one).collect();
    all.ok_or_else(|| format!("its constants are none of its {count} operands"))
}

/// The function of an operation; `None` if there is none.
fn translate(mut node: Node, mut operands: Vec<Value>) -> Result<Option<Translated>, String> {
    let operation = node.operation.clone();
    let found = match ROWS.iter().find(|row| row.operation == operation) {
        Some(row) => {
            if operands.len() != row.operands.len() + 1 {
                return Err(format!("it has {} operands, {} are expected", operands.len(), row.operands.len() + 1));
            }
            let rest = operands.split_off(1);
            let mut translated = Translated::new(row.function, operands.remove(0), Value::Null);
            translated.kwargs.extend(row.operands.iter().map(|n| (*n).to_owned()).zip(rest));
            for (attribute, argument) in row.attributes {
                let value = node.take(attribute).filter(|_| *argument != IGNORED);
                translated.kwargs.extend(value.map(|value| ((*argument).to_owned(), value)));
            }
            translated
        }
        None => match special(&operation, &mut node, operands)? {
            Some(translated) => translated,
            None => return Ok(None),
        },
    };
    // Types of operands, and what graphs note beside an operation.
    let means_nothing = |key: &str| {
        key.starts_with('T')
            || key.starts_with('_')
            || matches!(key, "N" | "SrcT" | "Index" | "grad_x" | "grad_y" | "explicit_paddings")
    };
    match node.attributes.iter().find(|(key, value)| !means_nothing(key) && !value.is_null()) {
        Some((key, value)) => Err(format!("its attribute `{key:.60}` = {value:.60} is not supported")),
        None => Ok(Some(found)),
    }
}

/// Operations whose operands are in another order, or whose attributes are bits.
fn special(operation: &str, node: &mut Node, mut operands: Vec<Value>) -> Result<Option<Translated>, String> {
    let missing = || "it has too few operands".to_owned();
    let next = |operands: &mut Vec<Value>| {
        if operands.is_empty() { Err(missing()) } else { Ok(operands.remove(0)) }
    };
    Ok(Some(match operation {
        "ConcatV2" => {
            let axis = operands.pop().ok_or_else(missing)?;
            Translated::new("concat", Value::Array(operands), json!({ "axis": axis }))
        }
        "Pack" => {
            let axis = node.take("axis").unwrap_or(json!(0));
            Translated::new("stack", Value::Array(operands), json!({ "axis": axis }))
        }
        "AddN" => Translated { function: "Add", args: vec![Value::Array(operands)], kwargs: Map::new() },
        "MaxPool" | "AvgPool" => {
            let class = if operation == "MaxPool" { "MaxPooling2D" } else { "AveragePooling2D" };
            let ends = node.take("data_format").is_none_or(|v| v == "NHWC");
            let padding = node.take("padding").and_then(|v| v.as_str().map(str::to_lowercase));
            let [size, strides] = ["ksize", "strides"].map(|name| node.take(name).and_then(|v| window(&v)));
            let known = padding.filter(|p| ends && (p == "same" || p == "valid")).zip(size.zip(strides));
            let (padding, (size, strides)) =
                known.ok_or("it pools over other axes than height and width, or pads in its own way")?;
            let settings = json!({ "pool_size": size, "strides": strides, "padding": padding });
            Translated::new(class, next(&mut operands)?, settings)
        }
        "Split" => {
            let (axis, value) = (next(&mut operands)?, next(&mut operands)?);
            let count = node.take("num_split").ok_or("its attribute `num_split` is missing")?;
            Translated::new("split", value, json!({ "num_or_size_splits": count, "axis": axis }))
        }
        "Cast" => match node.take("DstT") {
            Some(to) if to != json!("DT_FLOAT") => return Err(format!("it casts to {to:.40}, floats are expected")),
            _ => {
                node.take("Truncate");
                Translated::new("identity", next(&mut operands)?, Value::Null)
            }
        },
        "ResizeNearestNeighbor" | "ResizeBilinear" => {
            let (value, size) = (next(&mut operands)?, next(&mut operands)?);
            let (half, corners) = (node.is_on("half_pixel_centers"), node.is_on("align_corners"));
            if !half || corners {
                return Err("only images whose pixels' centers are half a pixel from the edge can be resized \
                            (half_pixel_centers=True, align_corners=False, as tf.image.resize does it)"
                    .into());
            }
            let method = if operation == "ResizeBilinear" { "bilinear" } else { "nearest" };
            Translated::new("image.resize", value, json!({ "size": size, "method": method }))
        }
        "StridedSlice" => {
            let value = next(&mut operands)?;
            let parts = [next(&mut operands)?, next(&mut operands)?, next(&mut operands)?];
            let spec = strided_slice(node, &parts)?;
            Translated::new("__operators__.getitem", value, json!({ "slice_spec": spec }))
        }
        _ => return Ok(None),
    }))
}

/// Height and width of `[1, height, width, 1]`.
fn window(value: &Value) -> Option<[u64; 2]> {
    match value.as_array()?.iter().map(Value::as_u64).collect::<Option<Vec<u64>>>()?.as_slice() {
        [1, height, width, 1] => Some([*height, *width]),
        _ => None,
    }
}

/// A subscript from begins, ends and steps, with bits for what they don't say.
fn strided_slice(node: &mut Node, parts: &[Value; 3]) -> Result<Vec<Value>, String> {
    let list =
        |v: &Value| v.as_array().map(|l| l.iter().map(Value::as_i64).collect::<Option<Vec<i64>>>()).unwrap_or(None);
    let all: Option<Vec<Vec<i64>>> = parts.iter().map(list).collect();
    let all = all.filter(|all| all[0].len() == all[1].len() && all[0].len() == all[2].len() && all[0].len() <= 32);
    let Some([begin, end, step]) = all.as_deref() else {
        return Err("its begins, ends and steps are no lists of whole numbers of the same length".into());
    };
    let masks = ["begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask"];
    let [no_begin, no_end, ellipsis, new_axis, shrink] = masks.map(|mask| node.bits(mask));
    let one = |i: usize| {
        let bit = |mask: u64| mask >> i & 1 == 1;
        if bit(ellipsis) {
            json!("...")
        } else if bit(new_axis) {
            Value::Null
        } else if bit(shrink) {
            json!(begin[i])
        } else {
            let (from, to) = ((!bit(no_begin)).then_some(begin[i]), (!bit(no_end)).then_some(end[i]));
            json!({ "start": from, "stop": to, "step": step[i] })
        }
    };
    Ok((0..begin.len()).map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(node: Value, constants: Value, tensors: usize) -> Result<(String, Value, Value), Error> {
        let config = json!({ "name": "f", "node_def": node, "constants": constants }).as_object().cloned().unwrap();
        let tensor = super::super::call::TensorRef { layer: "x".into(), node: 0, tensor: 0, shape: None };
        let call = Call { tensors: vec![tensor; tensors], ..Call::default() };
        let mut layer = LayerConfig { name: "f".into(), class: CLASS.into(), config, calls: vec![call], inner: None };
        to_function(&mut layer)?;
        let function = layer.config.get("function").map_or(layer.class.clone(), |f| f.as_str().unwrap().to_owned());
        Ok((function, json!(layer.calls[0].args), json!(layer.calls[0].kwargs)))
    }

    fn node(op: &str, inputs: usize, attr: Value) -> Value {
        json!({ "name": "n", "op": op, "input": vec!["i"; inputs], "attr": attr })
    }

    #[test]
    fn operations_are_functions() {
        let t = tensor_argument;
        let whole = |v: &str| json!({ "i": v });
        let table = [
            (
                node("Sub", 2, json!({ "T": { "type": "DT_FLOAT" } })),
                json!({ "0": 1.0 }),
                1,
                "math.subtract",
                json!([1.0]),
                json!({ "y": t(0) }),
            ),
            (
                node("Mean", 2, json!({ "keep_dims": { "b": true } })),
                json!({ "1": [1, 2] }),
                1,
                "math.reduce_mean",
                json!([t(0)]),
                json!({ "axis": [1, 2], "keepdims": true }),
            ),
            (
                node("ConcatV2", 3, json!({ "N": whole("2") })),
                json!({ "2": -1 }),
                2,
                "concat",
                json!([[t(0), t(1)]]),
                json!({ "axis": -1 }),
            ),
            (
                node("Split", 2, json!({ "num_split": whole("2") })),
                json!({ "0": 3 }),
                1,
                "split",
                json!([t(0)]),
                json!({ "num_or_size_splits": 2, "axis": 3 }),
            ),
            (
                node("Squeeze", 1, json!({ "squeeze_dims": { "list": { "i": ["1", "2"] } } })),
                json!({}),
                1,
                "squeeze",
                json!([t(0)]),
                json!({ "axis": [1, 2] }),
            ),
            (
                node("BiasAdd", 2, json!({ "data_format": { "s": "TkhXQw==" } })),
                json!({ "1": [1.0] }),
                1,
                "nn.bias_add",
                json!([t(0)]),
                json!({ "bias": [1.0], "data_format": "NHWC" }),
            ),
            (node("AddN", 3, json!({ "N": whole("3") })), json!({}), 3, "Add", json!([[t(0), t(1), t(2)]]), json!({})),
            (
                node(
                    "StridedSlice",
                    4,
                    json!({ "begin_mask": whole("1"), "end_mask": whole("3"), "shrink_axis_mask": whole("4") }),
                ),
                json!({ "1": [0, 1, 2], "2": [0, 0, 3], "3": [1, 1, 1] }),
                1,
                "__operators__.getitem",
                json!([t(0)]),
                json!({ "slice_spec": [{ "start": null, "stop": null, "step": 1 }, { "start": 1, "stop": null, "step": 1 }, 2] }),
            ),
        ];
        for (node, constants, tensors, function, args, kwargs) in table {
            let context = node.to_string();
            assert_eq!(layer(node, constants, tensors).unwrap(), (function.to_owned(), args, kwargs), "{context}");
        }
    }

    /// TensorFlow 2.0 and 2.1 put the message's bytes into the JSON.
    #[test]
    fn nodes_may_be_messages() {
        let attr = HashMap::from([
            ("T".to_owned(), AttrValue { r#type: Some(DT_FLOAT), ..AttrValue::default() }),
            ("alpha".to_owned(), AttrValue { f: Some(2.0), ..AttrValue::default() }),
        ]);
        let node = NodeDef { name: "n".into(), op: "LeakyRelu".into(), input: vec!["x".into()], attr };
        let text = String::from_utf8(node.encode_to_vec()).unwrap();
        let want = ("nn.leaky_relu".to_owned(), json!([tensor_argument(0)]), json!({ "alpha": 2.0 }));
        assert_eq!(layer(json!(text), json!({}), 1).unwrap(), want);
    }

    #[test]
    fn what_is_unknown_is_named() {
        assert_eq!(layer(node("Erf", 1, json!({})), json!({}), 1).unwrap().0, "TensorFlowOpLayer Erf");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let half = json!({ "align_corners": { "b": true }, "half_pixel_centers": { "b": false } });
        for (node, constants, tensors, says) in [
            (node("Mul", 2, json!({})), json!({}), 1, "has 2 operands, and 1 are given"),
            (node("Mul", 2, json!({})), json!({ "7": 1.0 }), 1, "none of its 2 operands"),
            (node("Relu", 1, json!({ "odd": { "b": true } })), json!({}), 1, "attribute `odd`"),
            (node("ResizeBilinear", 2, half), json!({ "1": [4, 4] }), 1, "half_pixel_centers"),
            (node("Cast", 1, json!({ "DstT": { "type": "DT_UINT8" } })), json!({}), 1, "DT_UINT8"),
            (json!(7), json!({}), 1, "node_def is not understood"),
            (json!("\u{1}\u{2}"), json!({}), 1, "node_def is not understood"),
        ] {
            let e = layer(node, constants, tensors).unwrap_err().to_string();
            assert!(e.contains(says), "{e}");
        }
    }
}
