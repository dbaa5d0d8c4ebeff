//! Blocks of layers that the vendor's tool leaves float, as Keras describes them.

use serde_json::{Map, Value, json};
use shiftwise_formats::keras::layers::{Config, WeightSource, read};
use shiftwise_graph::graph::NodeId;
use shiftwise_tensor::tensor::Tensor;

use super::Drawing;

/// Weights that are made as they are asked for.
struct Made<'a>(&'a mut Drawing);

impl WeightSource for Made<'_> {
    fn take(&mut self, _: &str, shape: &[usize]) -> Result<Tensor, String> {
        Ok(self.0.tensor(shape, 0.7))
    }
}

impl Drawing {
    /// A layer of a Keras class and settings.
    fn described(&mut self, class: &str, config: &Value, from: &[NodeId]) -> NodeId {
        let config: Map<String, Value> = config.as_object().expect("settings").clone();
        let shapes: Vec<Vec<usize>> = from.iter().map(|id| self.shape(*id)).collect();
        let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
        let op = read(class, Config(&config), &shapes, &mut Made(self));
        let op = op.unwrap_or_else(|| panic!("{class} is unknown")).unwrap_or_else(|e| panic!("{class}: {e}"));
        self.add(op, from)
    }

    /// A TensorFlow function of tensors.
    fn function(&mut self, name: &str, settings: Value, from: &[NodeId]) -> NodeId {
        let class = if name.ends_with("getitem") { "SlicingOpLambda" } else { "TFOpLambda" };
        let tensors: Vec<Value> = (0..from.len()).map(|k| json!({ "tensor": k })).collect();
        let list = ["concat", "stack"].contains(&name);
        let args = if list { json!([tensors]) } else { json!([tensors[0]]) };
        self.described(class, &json!({ "function": name, "call": { "args": args, "kwargs": settings } }), from)
    }

    fn reshaped(&mut self, target: &[usize], from: NodeId) -> NodeId {
        self.described("Reshape", &json!({ "target_shape": target }), &[from])
    }

    /// One of them; its result is a map again.
    pub(super) fn described_block(&mut self, from: NodeId) -> NodeId {
        let [h, w, c] = self.image(from);
        let method = ["bilinear", "nearest"][self.rng.size(0, 1)];
        let size = [self.rng.size(1, 7), self.rng.size(1, 7)];
        match self.rng.range(0, 14) {
            0 => self.described("ELU", &json!({ "alpha": 0.75 }), &[from]),
            1 => {
                let groups = (1..=c).rev().find(|n| c % n == 0 && (*n < c || self.rng.one_in(2))).unwrap_or(1);
                self.described("GroupNormalization", &json!({ "groups": groups }), &[from])
            }
            2 => self.described("UnitNormalization", &json!({}), &[from]),
            3 => {
                let config = json!({ "height": size[0], "width": size[1], "interpolation": method });
                self.described("Resizing", &config, &[from])
            }
            4 => self.function("image.resize", json!({ "size": size, "method": method }), &[from]),
            5..=7 => {
                // A sequence of pixels.
                let mut at = self.reshaped(&[h * w, c], from);
                let k = self.rng.size(1, (h * w).min(3));
                let (class, config) = match self.rng.range(0, 6) {
                    0 => ("Conv1D", json!({ "filters": c + 1, "kernel_size": [k], "activation": "tanh" })),
                    1 => ("Conv1D", json!({ "filters": 2, "kernel_size": k, "padding": "same", "strides": 2 })),
                    2 => ("DepthwiseConv1D", json!({ "kernel_size": k, "dilation_rate": 1 })),
                    3 => ("Conv1DTranspose", json!({ "filters": 3, "kernel_size": k, "strides": 2 })),
                    4 => ("MaxPooling1D", json!({ "pool_size": k, "strides": 1, "padding": "same" })),
                    5 => ("UpSampling1D", json!({ "size": 2 })),
                    _ => ("ZeroPadding1D", json!({ "padding": [1, 2] })),
                };
                at = self.described(class, &config, &[at]);
                let [steps, channels] = self.shape(at)[..] else { panic!("a sequence") };
                self.reshaped(&[1, steps, channels], at)
            }
            8 if h * w < 60 => {
                // Attention of every pixel to every other.
                let row = self.reshaped(&[h * w, c], from);
                let scores = self.described("Dot", &json!({ "axes": [2, 2] }), &[row, row]);
                let axis = [1, 2, -1][self.rng.size(0, 2)];
                let scores = self.function("nn.softmax", json!({ "axis": axis }), &[scores]);
                let at = if self.rng.one_in(2) {
                    self.described("Dot", &json!({ "axes": [2, 1] }), &[scores, row])
                } else {
                    let turned = json!({ "b": { "tensor": 1 }, "transpose_a": true });
                    self.function("linalg.matmul", turned, &[scores, row])
                };
                self.reshaped(&[h, w, c], at)
            }
            9 => {
                let (by, axis) = (["mean", "sum", "max", "min"][self.rng.size(0, 3)], self.rng.size(1, 3));
                let axes = if self.rng.one_in(2) { json!([axis, axis % 3 + 1]) } else { json!(axis) };
                let settings = json!({ "axis": axes, "keepdims": true });
                let folded = self.function(&format!("math.reduce_{by}"), settings, &[from]);
                self.function("math.subtract", json!({ "y": { "tensor": 1 } }), &[from, folded])
            }
            10 => {
                let value = if self.rng.one_in(2) { 0.5 } else { 0.0 };
                let settings = json!({ "paddings": [[0, 0], [1, 0], [0, 2], [0, 1]], "mode": "CONSTANT", "constant_values": value });
                self.function("pad", settings, &[from])
            }
            11 => {
                let range = |start: Value, step: Value| json!({ "start": start, "stop": null, "step": step });
                let parts = [
                    range(Value::Null, Value::Null),
                    range(json!(h / 2), Value::Null),
                    range(Value::Null, json!(-1)),
                    range(Value::Null, json!(2)),
                ];
                self.function("__operators__.getitem", json!({ "slice_spec": parts }), &[from])
            }
            12 => {
                let stacked = self.function("stack", json!({ "axis": 2 }), &[from, from]);
                self.reshaped(&[h, 2 * w, c], stacked)
            }
            13 => self.function("nn.elu", json!({}), &[from]),
            _ => {
                let mean = self.described("GlobalAveragePooling2D", &json!({}), &[from]);
                let repeated = self.described("RepeatVector", &json!({ "n": h * w }), &[mean]);
                self.reshaped(&[h, w, c], repeated)
            }
        }
    }
}
