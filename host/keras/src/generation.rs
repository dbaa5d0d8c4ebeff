//! Which Keras wrote a file. Every rule that differs between the generations asks here.

use serde_json::{Map, Value, json};

use shiftwise_graph::error::Error;
use shiftwise_graph::ops::act::HARD_SIGMOID_6;

/// Settings that only Keras 1 wrote, of layers that both know.
const KERAS_1_SETTINGS: &[&str] = &[
    "nb_filter",
    "nb_row",
    "nb_col",
    "border_mode",
    "dim_ordering",
    "subsample",
    "subsample_length",
    "W_regularizer",
    "W_constraint",
    "b_regularizer",
    "output_dim",
];

/// Classes that may have one of these settings: Keras' own, so that layers of the user's may be called anything.
const KERAS_1_CLASSES: &[&str] = &[
    "Dense",
    "Convolution1D",
    "Convolution2D",
    "AtrousConvolution2D",
    "Deconvolution2D",
    "SeparableConvolution2D",
    "MaxPooling1D",
    "MaxPooling2D",
    "AveragePooling1D",
    "AveragePooling2D",
    "GlobalMaxPooling2D",
    "GlobalAveragePooling2D",
    "ZeroPadding2D",
    "Cropping2D",
    "UpSampling2D",
];

/// Names of classes that Keras 2 reads as others.
const ALIASES: &[(&str, &str)] = &[
    ("Convolution1D", "Conv1D"),
    ("Convolution2D", "Conv2D"),
    ("Convolution3D", "Conv3D"),
    ("Convolution1DTranspose", "Conv1DTranspose"),
    ("Convolution2DTranspose", "Conv2DTranspose"),
    ("Deconvolution2D", "Conv2DTranspose"),
    ("SeparableConvolution1D", "SeparableConv1D"),
    ("SeparableConvolution2D", "SeparableConv2D"),
    ("AvgPool1D", "AveragePooling1D"),
    ("AvgPool2D", "AveragePooling2D"),
    ("MaxPool1D", "MaxPooling1D"),
    ("MaxPool2D", "MaxPooling2D"),
    ("GlobalAvgPool1D", "GlobalAveragePooling1D"),
    ("GlobalAvgPool2D", "GlobalAveragePooling2D"),
    ("GlobalMaxPool1D", "GlobalMaxPooling1D"),
    ("GlobalMaxPool2D", "GlobalMaxPooling2D"),
    ("BatchNormalizationV1", "BatchNormalization"),
    ("BatchNormalizationV2", "BatchNormalization"),
];

/// The class that is meant by a name.
pub(crate) fn class_of(name: &str) -> &str {
    ALIASES.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new)
}

/// Layers that compute something else while training; `true` marks those that do so only at a rate above 0.
const TRAINING: &[(&str, bool)] = &[
    ("Dropout", true),
    ("SpatialDropout1D", true),
    ("SpatialDropout2D", true),
    ("AlphaDropout", true),
    ("GaussianDropout", true),
    ("GaussianNoise", true),
    ("BatchNormalization", false),
    ("RandomFlip", false),
    ("RandomRotation", false),
    ("RandomTranslation", false),
    ("RandomZoom", false),
    ("RandomContrast", false),
    ("RandomBrightness", false),
    ("RandomCrop", false),
    ("RandomHeight", false),
    ("RandomWidth", false),
];

/// Keras' own classes for which training makes no difference; of a class that is not here nobody knows.
fn ignores_training(class: &str) -> bool {
    crate::layers::CLASSES.contains(&class) && !TRAINING.iter().any(|(known, _)| *known == class)
}

/// Whether a layer that trains computes something else than one that predicts.
pub(crate) fn training_matters(class: &str, config: &Map<String, Value>) -> bool {
    let of = |value: &Value| {
        let class = value.get("class_name").and_then(Value::as_str).unwrap_or_default();
        let config = value.get("config").and_then(Value::as_object);
        config.is_none_or(|config| training_matters(class_of(class), config))
    };
    // A model hands the flag to its layers, a wrapper to the layer inside.
    if let Some(layers) = config.get("layers").and_then(Value::as_array) {
        return layers.iter().any(of);
    }
    if let Some(layer) = config.get("layer") {
        return of(layer);
    }
    match TRAINING.iter().find(|(known, _)| *known == class) {
        Some((_, true)) => {
            let rate = config.get("rate").or_else(|| config.get("stddev"));
            rate.and_then(Value::as_f64) != Some(0.0)
        }
        // A frozen one normalizes by its moving averages whatever it is told.
        Some(_) => class != "BatchNormalization" || config.get("trainable") != Some(&json!(false)),
        None => !ignores_training(class),
    }
}

/// Generations of files, as far as their rules differ.
///
/// Keras 1 is told and refused. tf.keras of TensorFlow 2.0 to 2.3 follows Keras 2's rules; what it has of its own, the
/// layers of class `TensorFlowOpLayer`, tells itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generation {
    /// Keras 2 and tf.keras up to TensorFlow 2.15, and what the vendor's tools write.
    Keras2,
    /// Keras 3, in archives, `.h5` files and JSON alike.
    Keras3,
}

/// What in a file speaks for a generation.
#[derive(Default)]
struct Signs {
    /// Calls as lists `[["layer", 0, 0, {}]]`.
    lists: bool,
    /// Calls as objects with `args` and `kwargs`.
    objects: bool,
    /// Settings as Keras 3 writes them.
    settings_3: bool,
    /// Settings as Keras 2 writes them.
    settings_2: bool,
}

impl Signs {
    fn node(&mut self, node: &Value) {
        if is_keras3_call(node) {
            self.objects = true;
        } else if node.is_object() || node.as_array().is_some_and(|a| !a.is_empty()) {
            self.lists = true;
        }
    }

    fn settings(&mut self, config: &Value) {
        let policy = config.get("dtype").and_then(|d| d.get("class_name")).and_then(Value::as_str);
        self.settings_3 |= config.get("batch_shape").is_some() || policy.is_some_and(|p| p.contains("DTypePolicy"));
        self.settings_2 |= config.get("batch_input_shape").is_some();
    }
}

/// Whether an inbound node is a call as Keras 3 writes it. In Keras 2's an object holds inputs by their names.
pub(crate) fn is_keras3_call(node: &Value) -> bool {
    let args = node.get("args").filter(|args| !args.get(0).is_some_and(Value::is_string));
    args.is_some_and(Value::is_array) || node.get("args").is_some() && node.get("kwargs").is_some()
}

/// The layer inside a wrapper, or the layers inside a model.
fn inside(config: &Value) -> impl Iterator<Item = &Value> {
    let layers = config.get("layers").or(Some(config)).and_then(Value::as_array);
    layers.into_iter().flatten().chain(config.get("layer"))
}

impl Generation {
    /// From a model's JSON and the version that the file names beside it.
    ///
    /// Errors: a file of Keras 1, or one whose calls are written by the rules of two generations.
    pub(crate) fn of(model: &Value, version: Option<&str>) -> Result<Self, Error> {
        let keras1 = |why: String| {
            Error::model(format!("the model was saved by Keras 1 ({why}); load it with Keras 2 and save it again"))
        };
        let version = version.or_else(|| model.get("keras_version").and_then(Value::as_str)).unwrap_or_default();
        if version.starts_with("1.") {
            return Err(keras1(format!("version {version:.20}")));
        }
        let mut signs = Signs::default();
        let mut left = vec![model];
        while let Some(layer) = left.pop() {
            let class = layer.get("class_name").and_then(Value::as_str).unwrap_or_default();
            let nodes = layer.get("inbound_nodes").and_then(Value::as_array);
            nodes.into_iter().flatten().for_each(|node| signs.node(node));
            let Some(config) = layer.get("config") else { continue };
            let old = KERAS_1_SETTINGS.iter().find(|key| config.get(**key).is_some());
            if let Some(key) = old.filter(|_| KERAS_1_CLASSES.contains(&class)) {
                return Err(keras1(format!("a layer of class {class} has the setting `{key}`")));
            }
            signs.settings(config);
            left.extend(inside(config));
        }
        match signs {
            Signs { lists: true, objects: true, .. } => Err(Error::model(
                "the model's calls are written in part as Keras 2 and in part as Keras 3 writes them, so neither reading holds",
            )),
            Signs { objects: true, .. } => Ok(Self::Keras3),
            Signs { lists: true, .. } => Ok(Self::Keras2),
            Signs { settings_3: true, .. } => Ok(Self::Keras3),
            Signs { settings_2: true, .. } => Ok(Self::Keras2),
            _ if version.starts_with('3') => Ok(Self::Keras3),
            _ => Ok(Self::Keras2),
        }
    }

    /// The number that stands for the first call of a model inside a model: among the arguments of calls, and at the
    /// ends of the model around it. Other layers are counted from 0.
    ///
    /// Keras 2 counts the call that a model has had when it was made. Keras 3 counts it at the ends only, and of
    /// functional models only.
    pub(crate) fn first_calls(self, functional: bool) -> [usize; 2] {
        match self {
            Self::Keras2 => [1, 1],
            Self::Keras3 => [0, usize::from(functional)],
        }
    }

    /// Whether a call that was made with `training=True` trains when the model only predicts. Keras 3 lets the outer
    /// call decide.
    pub(crate) fn keeps_training(self) -> bool {
        self == Self::Keras2
    }

    /// Whether layers may be operations without settings of a layer (`keras.ops`).
    pub(crate) fn has_operations(self) -> bool {
        self == Self::Keras3
    }

    /// Gives activations whose names mean another function in this generation a name of their own, in a layer's
    /// settings and in those of layers inside it.
    pub(crate) fn name_activations(self, config: &mut Map<String, Value>) {
        if self == Self::Keras2 {
            return;
        }
        if let Some(activation) = config.get_mut("activation") {
            let wrapped = activation.get_mut("config").filter(|inner| inner.is_string());
            let name = match wrapped {
                Some(inner) => inner,
                None => activation,
            };
            if *name == "hard_sigmoid" {
                *name = json!(HARD_SIGMOID_6);
            }
        }
        let layer = config.get_mut("layer").and_then(|layer| layer.get_mut("config")).and_then(Value::as_object_mut);
        if let Some(layer) = layer {
            self.name_activations(layer);
        }
    }
}

/// The policy of a layer's number format by its name: a word, or an object around one.
fn policy(dtype: &Value) -> Option<&str> {
    dtype.as_str().or_else(|| dtype.get("config")?.get("name")?.as_str())
}

/// Fails for a layer that computes with quantized weights. Of the float formats the weights are read as f32, and all is
/// computed in f32.
pub(crate) fn check_policy(config: &Map<String, Value>) -> Result<(), String> {
    let Some(dtype) = config.get("dtype") else { return Ok(()) };
    let name = policy(dtype).unwrap_or_default();
    let class = dtype.get("class_name").and_then(Value::as_str).unwrap_or_default();
    if class.starts_with("Quantized") || name.contains("_from_") {
        return Err(format!(
            "its dtype policy is `{name:.60}`; a model is read before it is quantized, with float weights"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_node(node: Value) -> Value {
        json!({ "class_name": "Functional", "config": { "layers": [
            { "class_name": "Dense", "config": {}, "inbound_nodes": [node] },
        ], "output_layers": [] } })
    }

    #[test]
    fn calls_settings_and_version_tell_the_generation() {
        let lists = with_node(json!([["x", 0, 0, {}]]));
        let named = with_node(json!({ "args": ["x", 0, 0, {}], "b": ["y", 0, 0, {}] }));
        let objects = with_node(json!({ "args": [], "kwargs": {} }));
        let sequential = |config: Value| json!({ "class_name": "Sequential", "config": [{ "config": config }] });
        let table = [
            (lists.clone(), None, Generation::Keras2),
            (lists, Some("3.1.0"), Generation::Keras2),
            (named, None, Generation::Keras2),
            (objects.clone(), Some("2.12.0"), Generation::Keras3),
            (objects, None, Generation::Keras3),
            (sequential(json!({ "batch_shape": [1] })), None, Generation::Keras3),
            (sequential(json!({ "batch_input_shape": [1] })), Some("3.0"), Generation::Keras2),
            (sequential(json!({ "dtype": { "class_name": "DTypePolicy" } })), None, Generation::Keras3),
            (sequential(json!({})), Some("3.0.5"), Generation::Keras3),
            (sequential(json!({})), Some("2.2.4-tf"), Generation::Keras2),
            (sequential(json!({})), None, Generation::Keras2),
        ];
        for (model, version, want) in table {
            assert_eq!(Generation::of(&model, version).unwrap(), want, "{model} {version:?}");
        }
    }

    #[test]
    fn keras_1_and_mixtures_are_refused() {
        let mixed = json!({ "class_name": "Functional", "config": { "layers": [
            with_node(json!([["x", 0, 0, {}]])), with_node(json!({ "args": [], "kwargs": {} })),
        ] } });
        let old = |class: &str| json!({ "class_name": "Sequential", "config": [{ "class_name": class, "config": { "nb_filter": 3 } }] });
        let says = |model: &Value, version| Generation::of(model, version).unwrap_err().to_string();
        assert!(says(&mixed, None).contains("neither reading holds"));
        assert!(says(&old("Convolution2D"), Some("2.12.0")).contains("Keras 1"));
        assert!(says(&json!({}), Some("1.2.2")).contains("Keras 1 (version 1.2.2)"));
        // A layer of the user's may call its settings as it likes.
        assert!(Generation::of(&old("Mine"), None).is_ok());
    }

    #[test]
    fn training_matters_where_it_changes_something() {
        let layer = |class: &str, config: Value| training_matters(class, config.as_object().unwrap());
        for (class, config, want) in [
            ("Conv2D", json!({}), false),
            ("Resizing", json!({}), false),
            ("Dropout", json!({ "rate": 0.5 }), true),
            ("Dropout", json!({ "rate": 0.0 }), false),
            ("BatchNormalization", json!({}), true),
            ("BatchNormalization", json!({ "trainable": false }), false),
            ("RandomFlip", json!({}), true),
            ("Mine", json!({}), true),
            ("Functional", json!({ "layers": [{ "class_name": "ReLU", "config": {} }] }), false),
            ("Functional", json!({ "layers": [{ "class_name": "Dropout", "config": { "rate": 0.1 } }] }), true),
            ("TimeDistributed", json!({ "layer": { "class_name": "Dense", "config": {} } }), false),
        ] {
            assert_eq!(layer(class, config.clone()), want, "{class} {config}");
        }
    }
}
