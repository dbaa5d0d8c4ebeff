//! Names of layers, from those of the operations that TensorFlow made of them.

use std::collections::{HashMap, HashSet};

/// Last parts of operations' names that say what the operation is, not what its author called it.
const OPERATIONS: &[&str] = &[
    "Add",
    "AddV2",
    "AvgPool",
    "BatchMatMulV2",
    "BiasAdd",
    "Cast",
    "Clip",
    "Concat",
    "Conv1D",
    "Conv2D",
    "Elu",
    "Exp",
    "ExpandDims",
    "Floor",
    "FusedBatchNorm",
    "FusedBatchNormV2",
    "FusedBatchNormV3",
    "GatherV2",
    "Identity",
    "LeakyRelu",
    "LogSoftmax",
    "MatMul",
    "Max",
    "MaxPool",
    "Maximum",
    "Mean",
    "Minimum",
    "Mul",
    "Neg",
    "Pad",
    "PadV2",
    "Pow",
    "Prelu",
    "RealDiv",
    "Relu",
    "Relu6",
    "Reshape",
    "Rsqrt",
    "Selu",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Softsign",
    "Split",
    "Sqrt",
    "Square",
    "Squeeze",
    "StridedSlice",
    "Sub",
    "Sum",
    "Tanh",
    "Tensordot",
    "Transpose",
    "add",
    "batchnorm",
    "clip_by_value",
    "concat",
    "conv2d_transpose",
    "convolution",
    "depthwise",
    "mul",
    "resize",
    "ResizeBilinear",
    "ResizeNearestNeighbor",
    "separable_conv2d",
    "sub",
    "transpose",
];

/// Scopes that a layer's operations stand in, below the layer's own.
const SCOPES: &[&str] = &["Conv1D", "Tensordot", "batchnorm", "clip_by_value", "resize", "separable_conv2d"];

/// Parts of names that stand for the model or for how it was saved.
const FRAMES: &[&str] = &["StatefulPartitionedCall", "PartitionedCall", "serving_default", "ReadVariableOp"];

/// Names that are longer than this tell nothing.
const LONGEST: usize = 4096;

/// What stands before the name of an input in a model that was saved with a signature.
const SIGNATURE: &str = "serving_default_";

/// Whether a part is one of these words, perhaps with a number behind it.
fn is_word(part: &str, words: &[&str]) -> bool {
    let bare = part.split(':').next().unwrap_or(part);
    let stem = bare.rsplit_once('_').filter(|(_, n)| n.bytes().all(|b| b.is_ascii_digit())).map_or(bare, |(s, _)| s);
    // TensorFlow Lite numbers results that would have one name.
    let plain = bare.trim_end_matches(|c: char| c.is_ascii_digit());
    [bare, stem, plain].iter().any(|form| words.contains(form))
}

/// The path of the author's layer that an operation belongs to, outermost scope first; empty where its name tells none.
///
/// TensorFlow Lite gives a fused operation the names of all its parts, with `;` between them; the last of them
/// whose last part is among `wanted` is taken, else the first.
pub(crate) fn path<'a>(name: &'a str, wanted: &[&str]) -> Vec<&'a str> {
    if name.len() > LONGEST {
        return Vec::new();
    }
    let all = || name.split(';').filter(|part| !part.is_empty());
    let ends = |one: &&str| is_word(one.rsplit('/').next().unwrap_or(one), wanted);
    let one = all().rfind(ends).or_else(|| all().next()).unwrap_or(name);
    let parts = one.split('/').filter(|part| !part.is_empty() && !is_word(part, FRAMES));
    let bare = |part: &'a str| {
        let part = part.split(':').next().unwrap_or(part);
        part.strip_prefix(SIGNATURE).unwrap_or(part)
    };
    let mut path: Vec<&str> = parts.map(bare).collect();
    // An author may call a layer as TensorFlow calls an operation: no more is taken off than the operation's own name, and
    // the scope around it.
    if path.len() > 1 && path.last().is_some_and(|last| is_word(last, OPERATIONS)) {
        path.pop();
        if path.len() > 1 && path.last().is_some_and(|last| SCOPES.contains(last)) {
            path.pop();
        }
    }
    path
}

/// Names that are each given once.
#[derive(Debug, Default)]
pub(crate) struct Names {
    taken: HashSet<String>,
    /// The last number that was given behind a name.
    numbers: HashMap<String, usize>,
}

impl Names {
    /// The shortest end of a path that is free, then the whole path with a number; `class` names what has no path.
    pub(crate) fn take(&mut self, path: &[&str], class: &str) -> String {
        let lower = class.to_lowercase();
        let path = if path.is_empty() { &[lower.as_str()][..] } else { path };
        let ends = (0..path.len()).rev().map(|from| path[from..].join("_"));
        let whole = path.last().map_or("", |last| *last);
        let last = self.numbers.get(whole).copied().unwrap_or(0);
        let numbered = (last + 1..).map(|n| (n, format!("{whole}_{n}")));
        let mut candidates = ends.map(|name| (last, name)).chain(numbered);
        let free = candidates.find(|(_, name)| !self.taken.contains(name));
        let (number, name) = free.unwrap_or_default();
        self.numbers.insert(whole.to_owned(), number);
        self.taken.insert(name.clone());
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_called_as_its_author_called_it() {
        let table: &[(&str, &[&str], &str)] = &[
            ("lenet/conv1/Conv2D", &[], "conv1"),
            ("StatefulPartitionedCall/lenet/dense/MatMul", &[], "dense"),
            ("model/bn/batchnorm/mul_1", &[], "bn"),
            ("model/add_1/add", &[], "add_1"),
            ("model/depthwise1/depthwise", &[], "depthwise1"),
            ("m/re_lu/Relu;m/bn/FusedBatchNormV3;m/c/BiasAdd;m/c/Conv2D;v/Read", &["Conv2D"], "c"),
            ("m/re_lu/Relu;m/bn/FusedBatchNormV3", &["Relu"], "re_lu"),
            ("m/re_lu/Relu;m/other/Conv2D;m/c/Conv2D1", &["Conv2D"], "c"),
            ("MobilenetV1/Conv2d_1_depthwise/depthwise", &[], "Conv2d_1_depthwise"),
            ("input:0", &[], "input"),
            ("serving_default_image:0", &[], "image"),
            ("add", &[], "add"),
        ];
        for (name, wanted, expected) in table {
            assert_eq!(Names::default().take(&path(name, wanted), "Op"), *expected, "{name}");
        }
        assert_eq!(Names::default().take(&path("StatefulPartitionedCall:0", &[]), "Softmax"), "softmax");
    }

    #[test]
    fn a_name_that_is_taken_is_told_with_its_scope_and_then_with_a_number() {
        let mut names = Names::default();
        let taken: Vec<String> = (0..4).map(|_| names.take(&["left", "conv"], "Conv2D")).collect();
        assert_eq!(taken, ["conv", "left_conv", "conv_1", "conv_2"]);
    }
}
