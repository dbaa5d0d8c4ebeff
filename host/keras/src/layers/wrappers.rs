//! Layers around others: over sequences, over steps, and those of the user's own.

use serde_json::{Map, Value, json};

use crate::layers::{Config, Described, KerasForm, Setting, Settings, WeightSource, attributes, read, write};
use shiftwise_graph::ops::one_d::{self, widened};
use shiftwise_graph::ops::time::{refused, steps};
use shiftwise_graph::ops::{Custom, Layer, OneD, TimeDistributed};
use shiftwise_tensor::tensor::Tensor;

/// Settings with one number where those over images have two; the other is 1.
const PAIRS: &[&str] = &["kernel_size", "strides", "pool_size", "dilation_rate", "size", "output_padding"];

/// Settings with a margin before and behind; there are none above and below.
const MARGINS: &[&str] = &["padding", "cropping"];

/// A source of the weights of an image's layer: a dimension of 1 in front of a sequence's kernels.
struct Widened<'a>(&'a mut dyn WeightSource);

impl WeightSource for Widened<'_> {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, String> {
        let own = if shape.len() == 4 { &shape[1..] } else { shape };
        let tensor = self.0.take(name, own)?;
        tensor.reshaped(shape.to_vec()).ok_or_else(|| format!("its weight `{name}` is no {shape:?}"))
    }
}

/// The settings of a layer over sequences as those of its counterpart over images.
fn of_image(class: &str, config: Config<'_>) -> Map<String, Value> {
    let mut settings = config.0.clone();
    for (key, value) in &mut settings {
        let single = value.as_array().filter(|a| a.len() == 1).map_or(&*value, |a| &a[0]).clone();
        if PAIRS.contains(&key.as_str()) && !single.is_null() {
            let unit = u8::from(key != "output_padding");
            *value = json!([unit, single]);
        } else if MARGINS.contains(&key.as_str()) && !value.is_string() {
            let both = if single.is_array() { single } else { json!([single, single]) };
            *value = json!([[0, 0], both]);
        }
    }
    // Where a sequence's default is not twice that of an image.
    for (key, default) in [("pool_size", 2), ("size", 2)] {
        settings.entry(key).or_insert(json!([1, default]));
    }
    settings.entry("cropping").or_insert(json!([[0, 0], [1, 1]]));
    if class == "ZeroPadding1D" {
        settings.entry("padding").or_insert(json!([[0, 0], [1, 1]]));
    }
    settings
}

impl KerasForm for OneD {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        let counterpart = one_d::counterpart(from.class).ok_or("is no layer over sequences")?;
        let settings = of_image(from.class, from.config);
        let input = widened(from.input()?)?;
        let image = read(counterpart, Config(&settings), &[&input], &mut Widened(from.weights));
        Self::new(image.ok_or("its counterpart over images is unknown")??)
    }
    fn write(&self, to: &mut Settings, rank: usize) {
        let own = write(&self.image, rank + 1);
        // Keras' layers without the setting refuse it.
        let short = ["UpSampling1D", "ZeroPadding1D", "Cropping1D"].contains(&self.class());
        let written = own.own_values().filter(|(key, _)| !short || !["data_format", "interpolation"].contains(key));
        let last = ["activation", "use_bias"];
        let (behind, front): (Vec<_>, Vec<_>) = written.partition(|(key, _)| last.contains(key));
        for (key, value) in front.into_iter().chain(behind) {
            let narrowed = value.as_array().filter(|_| PAIRS.contains(&key) || MARGINS.contains(&key));
            let narrowed = narrowed.and_then(|both| both.get(1)).cloned();
            to.own(key, narrowed.unwrap_or(value));
        }
    }
}

impl KerasForm for TimeDistributed {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        let wrapped = from.config.get("layer").ok_or("it has no layer inside")?;
        let class = wrapped.get("class_name").and_then(Value::as_str).unwrap_or_default();
        let settings = wrapped.get("config").and_then(Value::as_object).ok_or("the layer inside has no settings")?;
        let (_, step) = steps(from.input()?)?;
        let step = step.to_vec();
        // A wrapper in a wrapper would allow any depth.
        let class = Some(class).filter(|class| *class != "TimeDistributed" && *class != "InputLayer");
        let layer = class.and_then(|class| read(class, Config(settings), &[&step], from.weights));
        let refused = || refused(wrapped.get("class_name").and_then(Value::as_str).unwrap_or_default());
        Ok(Self { layer: Box::new(layer.ok_or_else(refused)??), settings: attributes::of(settings) })
    }
    fn write(&self, to: &mut Settings, rank: usize) {
        // What the file says of the layer inside, and what the layer is computed with.
        let mut config = attributes::to_json(&self.settings);
        for (key, setting) in write(&self.layer, rank.saturating_sub(1)).own_settings() {
            if !config.get(key).is_some_and(|file| setting.same(file)) {
                config.insert(key.to_owned(), setting.value());
            }
        }
        to.own("layer", json!({ "class_name": self.layer.class(), "config": config }));
    }
}

/// The settings of a layer that is none of Keras' own: all that its file says.
pub(super) fn write_custom(layer: &Custom, to: &mut Settings) {
    // These three are written for every layer.
    for (key, value) in attributes::to_json(&layer.config) {
        if !["name", "trainable", "dtype"].contains(&key.as_str()) {
            to.add(&key, Setting::Own(value));
        }
    }
}
