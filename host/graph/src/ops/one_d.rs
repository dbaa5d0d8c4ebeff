//! Layers over sequences `[steps, channels]`: those over images, of one row.

use serde_json::{Map, Value, json};

use crate::ops::{ActivationFn, Config, Layer, Op, WeightSource, one};
use shiftwise_tensor::tensor::Tensor;

/// Class over sequences, class over images.
const CLASSES: &[(&str, &str)] = &[
    ("Conv1D", "Conv2D"),
    ("DepthwiseConv1D", "DepthwiseConv2D"),
    ("SeparableConv1D", "SeparableConv2D"),
    ("Conv1DTranspose", "Conv2DTranspose"),
    ("MaxPooling1D", "MaxPooling2D"),
    ("AveragePooling1D", "AveragePooling2D"),
    ("GlobalAveragePooling1D", "GlobalAveragePooling2D"),
    ("GlobalMaxPooling1D", "GlobalMaxPooling2D"),
    ("UpSampling1D", "UpSampling2D"),
    ("ZeroPadding1D", "ZeroPadding2D"),
    ("Cropping1D", "Cropping2D"),
];

/// Settings with one number where those over images have two; the other is 1.
const PAIRS: &[&str] = &["kernel_size", "strides", "pool_size", "dilation_rate", "size", "output_padding"];

/// Settings with a margin before and behind; there are none above and below.
const MARGINS: &[&str] = &["padding", "cropping"];

/// A layer over sequences. The vendor's tool leaves all of them float.
#[derive(Clone, Debug)]
pub struct OneD {
    class: &'static str,
    /// The layer over images.
    pub image: Box<Op>,
    /// Weights without the leading dimension of the image's.
    weights: Vec<(String, Tensor)>,
}

/// A source of the weights of an image's layer: a dimension of 1 in front of a sequence's kernels.
struct Widened<'a> {
    inner: &'a mut dyn WeightSource,
    taken: Vec<(String, Tensor)>,
}

impl WeightSource for Widened<'_> {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, String> {
        let own = if shape.len() == 4 { &shape[1..] } else { shape };
        let tensor = self.inner.take(name, own)?;
        self.taken.push((name.to_owned(), tensor.clone()));
        tensor.reshaped(shape.to_vec()).ok_or_else(|| format!("its weight `{name}` is no {shape:?}"))
    }
}

/// The sequence as an image of one row.
pub(crate) fn widened(shape: &[usize]) -> Result<[usize; 3], String> {
    match shape {
        [steps, channels] => Ok([1, *steps, *channels]),
        other => Err(format!("its input has shape {other:?}, [steps, channels] is expected")),
    }
}

impl OneD {
    pub(crate) fn class(&self) -> &'static str {
        self.class
    }

    pub(crate) fn from_keras(
        class: &str,
        config: Config<'_>,
        inputs: &[&[usize]],
        weights: &mut dyn WeightSource,
    ) -> Result<Self, String> {
        let (class, of_image) = CLASSES.iter().find(|(own, _)| *own == class).ok_or("is no layer over sequences")?;
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
        if *class == "ZeroPadding1D" {
            settings.entry("padding").or_insert(json!([[0, 0], [1, 1]]));
        }
        let input = widened(one(inputs)?)?;
        let mut source = Widened { inner: weights, taken: Vec::new() };
        let image = Op::from_keras(of_image, Config(&settings), &[&input], &mut source);
        let image = image.ok_or("its counterpart over images is unknown")??;
        Ok(Self { class, image: Box::new(image), weights: source.taken })
    }

    /// A separable convolution as two layers; bias and activation belong to the second.
    pub fn parts(&self) -> Option<(Self, Self)> {
        let Op::SeparableConv2D(separable) = &*self.image else { return None };
        let (depthwise, pointwise) = separable.parts();
        let (first, rest) = self.weights.split_at(self.weights.len().min(1));
        let layer = |class, image, weights: &[(String, Tensor)]| Self {
            class,
            image: Box::new(image),
            weights: weights.to_vec(),
        };
        let depthwise = layer("DepthwiseConv1D", Op::DepthwiseConv2D(depthwise), first);
        Some((depthwise, layer("Conv1D", Op::Conv2D(pointwise), rest)))
    }

    /// `weights` as those of the image's layer.
    pub fn image_weights(&self, weights: &[&Tensor]) -> Vec<Tensor> {
        let own = self.image.layer().weights();
        let shapes = own.iter().map(|(_, w)| w.shape().to_vec());
        weights.iter().zip(shapes).filter_map(|(w, shape)| (*w).clone().reshaped(shape)).collect()
    }
}

/// The shape of a row: without the dimension of 1 in front.
fn narrowed(shape: &[usize]) -> Vec<usize> {
    if shape.len() == 3 { shape[1..].to_vec() } else { shape.to_vec() }
}

impl Layer for OneD {
    fn check(&self) -> Result<(), String> {
        self.image.layer().check()
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let input = widened(one(inputs)?)?;
        self.image.layer().output_shape(&[&input]).map(|shape| narrowed(&shape))
    }
    fn weights(&self) -> Vec<(&str, &Tensor)> {
        self.weights.iter().map(|(name, w)| (name.as_str(), w)).collect()
    }
    fn activation(&self) -> ActivationFn {
        self.image.layer().activation()
    }
    fn eval(&self, inputs: &[&Tensor], weights: &[&Tensor]) -> Tensor {
        let shape = inputs[0].shape();
        let image = inputs[0].clone().reshaped([&shape[..1], &[1], &shape[1..]].concat());
        let image = image.unwrap_or_else(|| Tensor::zeros(&[0]));
        let weights = self.image_weights(weights);
        let out = self.image.layer().eval(&[&image], &weights.iter().collect::<Vec<_>>());
        let row = [&shape[..1], narrowed(&out.shape()[1..]).as_slice()].concat();
        out.reshaped(row).unwrap_or_else(|| Tensor::zeros(&[0]))
    }
    fn to_keras(&self) -> Map<String, Value> {
        let mut map = self.image.layer().to_keras();
        // Keras' layers without the setting refuse it.
        if ["UpSampling1D", "ZeroPadding1D", "Cropping1D"].contains(&self.class) {
            map.retain(|key, _| key != "data_format" && key != "interpolation");
        }
        for (key, value) in &mut map {
            if (PAIRS.contains(&key.as_str()) || MARGINS.contains(&key.as_str()))
                && let Value::Array(both) = value
                && let Some(own) = both.get(1).cloned()
            {
                *value = own;
            }
        }
        map
    }
    fn macs(&self, output: &[usize]) -> u64 {
        self.image.layer().macs(output)
    }
}
