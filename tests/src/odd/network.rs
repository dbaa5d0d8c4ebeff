//! Odd float networks, as Keras would describe them.

use serde_json::{Map, Value, json};
use shiftwise_formats::keras::layers::{Config, WeightSource, read};
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::Op;
use shiftwise_tensor::tensor::Tensor;

use super::Choices;
use crate::graphs::Rng;

/// Largest number of elements of a tensor, and of weights of a layer.
const ELEMENTS: usize = 4000;

/// Weights that look random; none for a layer that wants too many.
struct Weights(Rng);

impl WeightSource for Weights {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, String> {
        let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= 4 * ELEMENTS);
        let count = count.ok_or("more weights than a test should make")?;
        let positive = name.contains("variance");
        let value = |rng: &mut Rng| rng.range(if positive { 100 } else { -700 }, 1000) as f32 / 1000.0;
        let data = (0..count).map(|_| value(&mut self.0)).collect();
        Tensor::new(shape.to_vec(), data).ok_or_else(|| "a shape without elements".into())
    }
}

/// Settings of a class, and how many tensors its layers read.
type Row = (&'static str, usize, fn(&mut Choices<'_>) -> Value);

/// One or two numbers.
fn pair(c: &mut Choices<'_>, of: &[usize]) -> Value {
    if c.one_in(3) { json!([c.of(of), c.of(of)]) } else { json!(c.of(of)) }
}

/// Settings of everything with a window, more than any one class has.
fn window(c: &mut Choices<'_>) -> Map<String, Value> {
    let size = pair(c, &[3, 1, 2, 5, 1, 9, 30]);
    let strides = pair(c, &[1, 1, 2, 3, 7, 300]);
    let dilation = pair(c, &[1, 1, 1, 1, 2, 5, 40]);
    let padding = c.of(&["same", "valid", "same"]);
    let activation = c.of(&["linear", "relu", "linear", "relu6", "sigmoid", "swish", "hard_sigmoid", "softmax"]);
    let settings = json!({
        "kernel_size": size, "pool_size": size, "strides": strides, "dilation_rate": dilation, "padding": padding,
        "activation": activation, "use_bias": !c.one_in(4), "filters": c.of(&[4, 1, 3, 8, 17]),
        "depth_multiplier": c.of(&[1, 1, 2, 3]), "units": c.of(&[4, 1, 10]),
    });
    settings.as_object().cloned().unwrap_or_default()
}

fn windowed(c: &mut Choices<'_>) -> Value {
    window(c).into()
}

fn grouped(c: &mut Choices<'_>) -> Value {
    let mut settings = window(c);
    let groups = c.of(&[1, 1, 1, 2, 3]);
    settings.insert("groups".into(), groups.into());
    settings.into()
}

fn transposed(c: &mut Choices<'_>) -> Value {
    let mut settings = window(c);
    let more = c.of(&[json!(null), json!(null), json!([0, 0]), json!([1, 0])]);
    settings.insert("output_padding".into(), more);
    settings.into()
}

fn nothing(_: &mut Choices<'_>) -> Value {
    json!({})
}

fn sides(c: &mut Choices<'_>, of: &[usize]) -> Value {
    json!([[c.of(of), c.of(of)], [c.of(of), c.of(of)]])
}

/// All classes; those that have an integer form more often.
const ROWS: &[Row] = &[
    ("Conv2D", 1, windowed),
    ("Conv2D", 1, windowed),
    ("Conv2D", 1, grouped),
    ("DepthwiseConv2D", 1, windowed),
    ("Conv2DTranspose", 1, transposed),
    ("SeparableConv2D", 1, windowed),
    ("MaxPooling2D", 1, windowed),
    ("AveragePooling2D", 1, windowed),
    ("Dense", 1, windowed),
    ("Add", 2, nothing),
    ("Add", 3, nothing),
    ("Multiply", 2, nothing),
    ("Subtract", 2, nothing),
    ("Maximum", 3, nothing),
    ("Concatenate", 2, |c| json!({ "axis": c.of(&[-1, 1, 2, 3, -2]) })),
    ("Concatenate", 3, |c| json!({ "axis": c.of(&[-1, 1, 2, 3]) })),
    ("ReLU", 1, |c| {
        json!({ "max_value": c.of(&[json!(null), json!(6.0), json!(0.5), json!(0.0)]),
                "negative_slope": c.of(&[0.0, 0.0, 0.1, 3.0]), "threshold": c.of(&[0.0, 0.0, 1.5]) })
    }),
    ("LeakyReLU", 1, |c| json!({ "alpha": c.of(&[0.1, 0.1, 0.3, 0.0]) })),
    ("PReLU", 1, |c| json!({ "shared_axes": c.of(&[json!([1, 2]), json!(null), json!([1])]) })),
    (
        "Activation",
        1,
        |c| json!({ "activation": c.of(&["relu", "relu6", "sigmoid", "hard_sigmoid", "tanh", "softmax"]) }),
    ),
    ("BatchNormalization", 1, |c| {
        json!({ "axis": c.of(&[json!(-1), json!([3]), json!(1)]), "epsilon": c.of(&[1e-3, 0.0, 5.0]),
                "center": !c.one_in(4), "scale": !c.one_in(4) })
    }),
    ("ZeroPadding2D", 1, |c| json!({ "padding": sides(c, &[1, 0, 2, 9]) })),
    ("Cropping2D", 1, |c| json!({ "cropping": sides(c, &[0, 1, 0, 2]) })),
    (
        "UpSampling2D",
        1,
        |c| json!({ "size": pair(c, &[2, 1, 3, 9]), "interpolation": c.of(&["nearest", "nearest", "bilinear"]) }),
    ),
    ("GlobalAveragePooling2D", 1, |c| json!({ "keepdims": c.one_in(2) })),
    ("GlobalMaxPooling2D", 1, |c| json!({ "keepdims": c.one_in(2) })),
    ("Flatten", 1, nothing),
    ("Reshape", 1, |c| {
        let of = [-1, 1, 2, 3, 4, 6, 8];
        json!({ "target_shape": (0..c.size(1, 4)).map(|_| c.of(&of)).collect::<Vec<i32>>() })
    }),
    ("Permute", 1, |c| json!({ "dims": c.of(&[[2, 1, 3], [3, 1, 2], [1, 2, 3], [3, 2, 1]]) })),
    ("Dropout", 1, |_| json!({ "rate": 0.5 })),
    ("Softmax", 1, |c| json!({ "axis": c.of(&[-1, 1, 2]) })),
];

/// The network that these choices describe, of the layers that their readers accept.
pub fn odd_network(c: &mut Choices<'_>) -> Graph {
    const SIZES: [usize; 8] = [1, 5, 1, 2, 3, 8, 4, 12];
    let mut graph = Graph { name: "odd".into(), ..Graph::default() };
    let mut live = Vec::new();
    for _ in 0..c.of(&[1, 1, 2, 3]) {
        let shape = [c.of(&SIZES), c.of(&SIZES), c.of(&[3, 1, 2, 8, 17])];
        let shape = shape[if c.one_in(8) { 2 } else { 0 }..].to_vec();
        if let Some(input) = add(&mut graph, Op::Input(shiftwise_graph::ops::Input { shape }), &[]) {
            graph.inputs.push(input);
            live.push(input);
        }
    }
    for _ in 0..c.size(1, 10) {
        live.extend(layer(&mut graph, c, &live));
    }
    let read: Vec<NodeId> = graph.nodes.iter().flat_map(|n| n.inputs.clone()).collect();
    graph.outputs = live.iter().copied().filter(|id| !read.contains(id) && !graph.inputs.contains(id)).collect();
    for _ in 0..c.of(&[0, 0, 1, 2]) {
        let extra = live[c.size(0, live.len() - 1)];
        if !graph.inputs.contains(&extra) && !graph.outputs.contains(&extra) {
            graph.outputs.push(extra);
        }
    }
    if graph.outputs.is_empty() {
        // Nothing was accepted, or all of it is read: a network has an output.
        let last = live[live.len() - 1];
        let output = layer_of(&mut graph, ("ReLU", 1, nothing), c, &[last]);
        graph.outputs.extend(output);
    }
    graph.normalize();
    graph
}

fn add(graph: &mut Graph, op: Op, inputs: &[NodeId]) -> Option<NodeId> {
    let name = format!("layer{}", graph.nodes.len());
    let id = graph.add(&name, op, inputs.to_vec(), vec![name.clone()]).ok()?;
    // Too large for a test.
    let elements: usize = graph.node(id).shape.iter().product();
    if elements > ELEMENTS {
        graph.nodes.pop();
        return None;
    }
    Some(id)
}

fn layer(graph: &mut Graph, c: &mut Choices<'_>, live: &[NodeId]) -> Option<NodeId> {
    let row = c.of(ROWS);
    let newest = live[live.len() - 1];
    let from = if c.one_in(3) { live[c.size(0, live.len() - 1)] } else { newest };
    let alike: Vec<NodeId> =
        live.iter().copied().filter(|id| graph.node(*id).shape == graph.node(from).shape).collect();
    let mut inputs = vec![from];
    // Mostly tensors of the same shape, at times the tensor itself, at times any.
    (1..row.1).for_each(|_| inputs.push(if c.one_in(4) { c.of(live) } else { c.of(&alike) }));
    layer_of(graph, row, c, &inputs)
}

fn layer_of(graph: &mut Graph, row: Row, c: &mut Choices<'_>, inputs: &[NodeId]) -> Option<NodeId> {
    let (class, _, settings) = row;
    let config = settings(c);
    let config = config.as_object()?;
    let shapes: Vec<Vec<usize>> = inputs.iter().map(|id| graph.node(*id).shape.clone()).collect();
    let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
    let op = read(class, Config(config), &shapes, &mut Weights(c.noise()))?.ok()?;
    add(graph, op, inputs)
}
