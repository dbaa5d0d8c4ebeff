//! Layers over sequences `[steps, channels]`: those over images, of one row.

use crate::ops::{ActivationFn, Layer, Op, one};
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

/// A layer over sequences. The vendor's tool leaves all of them float.
#[derive(Clone, Debug)]
pub struct OneD {
    class: &'static str,
    /// The layer over images.
    pub image: Box<Op>,
    /// Weights without the leading dimension of the image's.
    weights: Vec<(String, Tensor)>,
}

/// The sequence as an image of one row.
pub fn widened(shape: &[usize]) -> Result<[usize; 3], String> {
    match shape {
        [steps, channels] => Ok([1, *steps, *channels]),
        other => Err(format!("its input has shape {other:?}, [steps, channels] is expected")),
    }
}

/// The class over images that a class over sequences is one row of.
pub fn counterpart(class: &str) -> Option<&'static str> {
    CLASSES.iter().find(|(own, _)| *own == class).map(|(_, of_image)| *of_image)
}

impl OneD {
    /// The layer over sequences that is this one over images of one row.
    ///
    /// Errors: a layer over images that has none.
    pub fn new(image: Op) -> Result<Self, String> {
        let found = CLASSES.iter().find(|(_, of_image)| *of_image == image.class());
        let (class, _) =
            found.ok_or_else(|| format!("a layer of class `{}` has none over sequences", image.class()))?;
        let narrow = |(name, weight): (&str, &Tensor)| {
            let shape = weight.shape();
            let own =
                if shape.len() == 4 { weight.clone().reshaped(shape[1..].to_vec()) } else { Some(weight.clone()) };
            let own = own.ok_or_else(|| format!("its weight `{name}` has shape {shape:?}, one row is expected"))?;
            Ok((name.to_owned(), own))
        };
        let weights = image.layer().weights().into_iter().map(narrow).collect::<Result<_, String>>()?;
        Ok(Self { class, image: Box::new(image), weights })
    }

    /// A separable convolution as two layers; bias and activation belong to the second.
    pub fn parts(&self) -> Option<(Self, Self)> {
        let Op::SeparableConv2D(separable) = &*self.image else { return None };
        let (depthwise, pointwise) = separable.parts();
        Self::new(Op::DepthwiseConv2D(depthwise)).ok().zip(Self::new(Op::Conv2D(pointwise)).ok())
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
    fn class(&self) -> &str {
        self.class
    }
    fn check(&self) -> Result<(), String> {
        self.image.layer().check()
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let input = widened(one(inputs)?)?;
        match self.image.layer().output_shape(&[&input])? {
            shape if shape.len() == 3 && shape[0] != 1 => Err(format!("it makes {} rows of one", shape[0])),
            shape => Ok(narrowed(&shape)),
        }
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
    fn macs(&self, output: &[usize]) -> u64 {
        self.image.layer().macs(output)
    }
}
