//! What the passes do to a network, as the vendor's inspector tells it: THE table of its notes, and a watcher of passes.

use std::collections::{BTreeMap, BTreeSet};

use shiftwise_graph::graph::{Graph, Node};
use shiftwise_graph::ops::{ActivationFn, Op};

/// A layer as a pass finds it.
struct Seen {
    class: String,
    function: ActivationFn,
    origin: Vec<String>,
    inputs: Vec<String>,
}

/// The layers of a graph by their names.
type Layers = BTreeMap<String, Seen>;

fn layers(graph: &Graph) -> Layers {
    let seen = |node: &Node| Seen {
        class: node.op.class().to_owned(),
        function: node.op.layer().activation(),
        origin: node.origin.clone(),
        inputs: node.inputs.iter().map(|i| graph.node(*i).name.clone()).collect(),
    };
    graph.nodes.iter().map(|node| (node.name.clone(), seen(node))).collect()
}

/// What is told of the user's layers, in the order in which it happened.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Sentences by the user's layer.
    pub(super) told: BTreeMap<String, Vec<String>>,
    /// The layer that computes what a user's layer did, where that one's node has gone without a trace.
    pub(super) absorbed: BTreeMap<String, String>,
}

impl Notes {
    /// Tells a sentence of a layer.
    pub(super) fn tell(&mut self, layer: &str, sentence: impl Into<String>) {
        self.told.entry(layer.to_owned()).or_default().push(sentence.into());
    }

    /// [`Self::tell`], unless it has been told.
    pub(super) fn tell_once(&mut self, layer: &str, sentence: String) {
        if !self.told.get(layer).is_some_and(|all| all.contains(&sentence)) {
            self.tell(layer, sentence);
        }
    }

    fn tell_first(&mut self, seen: &Seen, sentence: String) {
        if let Some(layer) = seen.origin.first() {
            self.tell(layer, sentence);
        }
    }
}

/// What a pass did to a network, before and after it.
type Teller = fn(&Layers, &Layers, &mut Notes);

/// A row per pass that the vendor's inspector speaks of; passes are named by their keys in the strategy.
const TELLERS: &[(&str, Teller)] = &[
    ("remove_dropout", |before, after, notes| {
        gone(before, after).for_each(|(_, seen)| notes.tell_first(seen, "Dropout removed in inference.".into()));
    }),
    ("separate_conv_act", |before, after, notes| {
        for (_, seen) in gone(after, before) {
            // The vendor's spelling.
            notes.tell_first(seen, format!("Seperate layer activation `{}`.", seen.function.name()));
        }
    }),
    ("fold_conv_bn", |before, after, notes| {
        for (_, seen) in gone(before, after) {
            let into = seen.inputs.first().map_or("", String::as_str);
            notes.tell_first(seen, format!("Folded into previous layer {into}."));
        }
    }),
    ("convert_bn_to_dwconv", |before, after, notes| {
        // Without a full stop, as the vendor has it.
        changed(before, after).for_each(|(was, is)| notes.tell_first(was, format!("Converted to {}", is.class)));
    }),
    ("convert_sigmoid_to_hard_sigmoid", |before, after, notes| {
        for (name, was) in before {
            let is = after.get(name).map(|seen| seen.function);
            let parts = match was.function {
                ActivationFn::Sigmoid | ActivationFn::HardSigmoid6 => "VitisSigmoid",
                ActivationFn::Swish | ActivationFn::HardSwish => "VitisSigmoid + Multiply",
                _ => continue,
            };
            if is != Some(was.function) {
                notes.tell_first(was, format!("Convert activation `{}` to {parts}.", was.function.name()));
            }
        }
    }),
    ("convert_hard_sigmoid_to_dpu_version", |before, after, notes| {
        for (name, made) in gone(after, before) {
            absorb(before, after, (name, made), notes);
        }
    }),
    ("convert_softmax_to_dpu_version", |before, after, notes| {
        changed(before, after).for_each(|(was, _)| notes.tell_first(was, "Convert `softmax` to VitisSoftmax.".into()));
    }),
    ("convert_layernorm_to_dpu_version", |before, after, notes| {
        changed(before, after)
            .for_each(|(was, _)| notes.tell_first(was, "Convert `layernorm` to VitisLayernorm.".into()));
    }),
    ("convert_average_pooling2d_to_dpu_version", converted),
    ("convert_leaky_relu_to_dpu_version", |_, after, notes| {
        // Told of every slope, though only one of 0.1 is converted: the vendor's words.
        for seen in after.values().filter(|seen| seen.class == "LeakyReLU") {
            notes.tell_first(seen, "Converted alpha 0.1 to 26./256. to match DPU implementation.".into());
        }
    }),
];

/// Layers of `one` that are not in `other`.
fn gone<'l>(one: &'l Layers, other: &'l Layers) -> impl Iterator<Item = (&'l str, &'l Seen)> {
    one.iter().filter(|(name, _)| !other.contains_key(*name)).map(|(name, seen)| (name.as_str(), seen))
}

/// Layers whose class is another one now.
fn changed<'l>(before: &'l Layers, after: &'l Layers) -> impl Iterator<Item = (&'l Seen, &'l Seen)> {
    let pairs = before.iter().filter_map(|(name, was)| Some((was, after.get(name)?)));
    pairs.filter(|(was, is)| was.class != is.class)
}

fn converted(before: &Layers, after: &Layers, notes: &mut Notes) {
    for (was, is) in changed(before, after) {
        notes.tell_first(was, format!("Converted to {}.", is.class));
    }
}

/// Tells of the layers that a new one stands for: the one that it was made of, and those in front that have gone with it.
fn absorb(before: &Layers, after: &Layers, (name, made): (&str, &Seen), notes: &mut Notes) {
    let lost: BTreeSet<&str> = gone(before, after).map(|(name, _)| name).collect();
    let start = before.iter().find(|(own, seen)| lost.contains(own.as_str()) && seen.origin == made.origin);
    let mut at = start.map(|(own, _)| own.as_str());
    while let Some(seen) = at.and_then(|own| before.get(own)) {
        notes.tell_first(seen, "Convert `relu6(x+3)*(1/6)` to VitisSigmoid.".into());
        for layer in &seen.origin {
            notes.absorbed.insert(layer.clone(), name.to_owned());
        }
        at = seen.inputs.iter().map(String::as_str).find(|input| lost.contains(input));
    }
}

/// Sees a network after each pass.
pub(super) struct Watcher {
    before: Layers,
    pub(super) notes: Notes,
}

impl Watcher {
    /// Of a network before any pass.
    pub(super) fn of(graph: &Graph) -> Self {
        Self { before: layers(graph), notes: Notes::default() }
    }

    /// What a pass has done.
    pub(super) fn see(&mut self, pass: &str, graph: &Graph) {
        let after = layers(graph);
        if let Some((_, tell)) = TELLERS.iter().find(|(name, _)| *name == pass) {
            tell(&self.before, &after, &mut self.notes);
        }
        self.before = after;
    }
}

/// What is told of a layer that nothing quantizes.
pub(super) fn unquantized(node: &Node) -> String {
    if node.excluded {
        return "It is outside the layers that are to be quantized.".into();
    }
    let alone = match &node.op {
        Op::Relu(_) => Some("relu"),
        Op::LeakyRelu(_) => Some("leaky_relu"),
        Op::Activation(a) => Some(a.function.name()),
        _ => None,
    };
    match alone {
        Some(function) => format!("Standalone activation `{function}` is not supported."),
        None => format!("`{}` is not supported by target.", node.op.class()),
    }
}
