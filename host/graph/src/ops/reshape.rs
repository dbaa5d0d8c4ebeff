//! Layers that only move values, and the ends of a graph.

use crate::ops::{Layer, cubic, image, one, sides};
use shiftwise_tensor::tensor::Tensor;

/// The batch of a tensor under a new per-sample shape.
fn reshaped(x: Tensor, shape: &[usize]) -> Tensor {
    let batched = [&x.shape()[..1], shape].concat();
    x.reshaped(batched).unwrap_or_else(|| Tensor::zeros(&[0]))
}

/// A model input.
#[derive(Clone, Debug)]
pub struct Input {
    /// Shape of one sample.
    pub shape: Vec<usize>,
}

impl Layer for Input {
    fn class(&self) -> &str {
        "InputLayer"
    }
    fn check(&self) -> Result<(), String> {
        let fixed = !self.shape.contains(&0);
        fixed.then_some(()).ok_or_else(|| format!("its shape {:?} has an empty dimension", self.shape))
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        if inputs.is_empty() { Ok(self.shape.clone()) } else { Err("an input layer has no inputs".into()) }
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        inputs[0].clone()
    }
}

/// A quantizer as a layer of its own; the identity in the float graph.
#[derive(Clone, Debug)]
pub struct Quantize;

impl Layer for Quantize {
    fn class(&self) -> &str {
        "VitisQuantize"
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        one(inputs).map(<[usize]>::to_vec)
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        inputs[0].clone()
    }
    fn reuse(&self, input: Tensor) -> Result<Tensor, Tensor> {
        Ok(input)
    }
}

/// Layers that do something in training only, by Keras class. The first is the one that the vendor's pass removes.
pub const IDENTITIES: &[&str] = &[
    "Dropout",
    "SpatialDropout2D",
    "SpatialDropout1D",
    "AlphaDropout",
    "GaussianDropout",
    "GaussianNoise",
    "ActivityRegularization",
    "RandomFlip",
    "RandomRotation",
    "RandomTranslation",
    "RandomZoom",
    "RandomContrast",
    "RandomBrightness",
    "Identity",
    "StochasticDepth",
    "SpatialDropout3D",
    "RandomHeight",
    "RandomWidth",
    "RandomColorDegeneration",
    "RandomColorJitter",
    "RandomElasticTransform",
    "RandomErasing",
    "RandomGaussianBlur",
    "RandomGrayscale",
    "RandomHue",
    "RandomInvert",
    "RandomPerspective",
    "RandomPosterization",
    "RandomSaturation",
    "RandomSharpness",
    "RandomShear",
    "AugMix",
    "CutMix",
    "MixUp",
    "RandAugment",
];

/// Identity at inference.
#[derive(Clone, Debug)]
pub struct Dropout {
    class: &'static str,
}

impl Dropout {
    /// Keras' Dropout itself.
    pub const PLAIN: Self = Self { class: IDENTITIES[0] };

    /// The layer of a class.
    pub fn of_class(class: &str) -> Option<Self> {
        IDENTITIES.iter().find(|own| **own == class).map(|class| Self { class })
    }

    /// Whether it is of the class `Dropout`.
    pub fn is_plain(&self) -> bool {
        self.class == IDENTITIES[0]
    }
}

impl Layer for Dropout {
    fn class(&self) -> &str {
        self.class
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        one(inputs).map(<[usize]>::to_vec)
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        inputs[0].clone()
    }
    fn reuse(&self, input: Tensor) -> Result<Tensor, Tensor> {
        Ok(input)
    }
}

/// All dimensions in one.
#[derive(Clone, Debug)]
pub struct Flatten;

impl Layer for Flatten {
    fn class(&self) -> &str {
        "Flatten"
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        Ok(vec![one(inputs)?.iter().product()])
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        self.reuse(inputs[0].clone()).unwrap_or_else(|x| x)
    }
    fn reuse(&self, input: Tensor) -> Result<Tensor, Tensor> {
        let size = input.shape()[1..].iter().product();
        Ok(reshaped(input, &[size]))
    }
}

/// A new shape for the same values; one dimension may be −1.
#[derive(Clone, Debug)]
pub struct Reshape {
    /// Target shape of one sample.
    pub target: Vec<i64>,
}

impl Layer for Reshape {
    fn class(&self) -> &str {
        "Reshape"
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let input = one(inputs)?;
        let total: usize = input.iter().product();
        let given = self.target.iter().filter(|d| **d >= 0);
        let known = given.fold(1usize, |n, d| n.saturating_mul(usize::try_from(*d).unwrap_or(usize::MAX)));
        let open = self.target.iter().filter(|d| **d < 0).count();
        let fail = || format!("{input:?} can't be reshaped to {:?}", self.target);
        match open {
            0 if known == total => Ok(self.target.iter().map(|d| *d as usize).collect()),
            1 if known > 0 && total.is_multiple_of(known) => {
                Ok(self.target.iter().map(|d| if *d < 0 { total / known } else { *d as usize }).collect())
            }
            _ => Err(fail()),
        }
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        self.reuse(inputs[0].clone()).unwrap_or_else(|x| x)
    }
    fn reuse(&self, input: Tensor) -> Result<Tensor, Tensor> {
        let shape = self.output_shape(&[&input.shape()[1..]]).unwrap_or_default();
        Ok(reshaped(input, &shape))
    }
}

/// Rows and columns of zeros around an image.
#[derive(Clone, Debug)]
pub struct ZeroPadding2D {
    /// Rows above and below.
    pub rows: [usize; 2],
    /// Columns left and right.
    pub columns: [usize; 2],
}

impl Layer for ZeroPadding2D {
    fn class(&self) -> &str {
        "ZeroPadding2D"
    }
    fn check(&self) -> Result<(), String> {
        sides("padding", 0, &[self.rows, self.columns].concat())
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [h, w, c] = image(inputs)?;
        Ok(vec![h + self.rows[0] + self.rows[1], w + self.columns[0] + self.columns[1], c])
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let x = inputs[0];
        let [n, h, w, c] = [x.shape()[0], x.shape()[1], x.shape()[2], x.shape()[3]];
        let (oh, ow) = (h + self.rows[0] + self.rows[1], w + self.columns[0] + self.columns[1]);
        let mut out = Tensor::zeros(&[n, oh, ow, c]);
        for (i, row) in x.data().chunks_exact((w * c).max(1)).enumerate() {
            let (image, y) = (i / h, i % h);
            let at = ((image * oh + y + self.rows[0]) * ow + self.columns[0]) * c;
            out.data_mut()[at..at + w * c].copy_from_slice(row);
        }
        out
    }
}

/// Rows and columns cut off an image.
#[derive(Clone, Debug)]
pub struct Cropping2D {
    /// Rows above and below.
    pub rows: [usize; 2],
    /// Columns left and right.
    pub columns: [usize; 2],
}

impl Layer for Cropping2D {
    fn class(&self) -> &str {
        "Cropping2D"
    }
    fn check(&self) -> Result<(), String> {
        sides("cropping", 0, &[self.rows, self.columns].concat())
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [h, w, c] = image(inputs)?;
        let rest = |size: usize, cut: [usize; 2]| size.checked_sub(cut[0] + cut[1]).filter(|d| *d > 0);
        let both = rest(h, self.rows).zip(rest(w, self.columns));
        both.map(|(h, w)| vec![h, w, c]).ok_or_else(|| format!("nothing remains of its input of {h}x{w} pixels"))
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let x = inputs[0];
        let [n, h, w, c] = [x.shape()[0], x.shape()[1], x.shape()[2], x.shape()[3]];
        let (oh, ow) = (h - self.rows[0] - self.rows[1], w - self.columns[0] - self.columns[1]);
        let mut data = Vec::with_capacity(n * oh * ow * c);
        for (i, row) in x.data().chunks_exact(w * c).enumerate() {
            if (self.rows[0]..self.rows[0] + oh).contains(&(i % h)) {
                data.extend_from_slice(&row[self.columns[0] * c..][..ow * c]);
            }
        }
        Tensor::new(vec![n, oh, ow, c], data).unwrap_or_else(|| Tensor::zeros(&[0]))
    }
}

/// How an image is enlarged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// Every pixel repeated.
    Nearest,
    /// Weighted mean of the four nearest pixels, whose centres are at half-integers.
    Bilinear,
    /// Keys' cubic with a = −0.5 over four rows and four columns, as TensorFlow computes it.
    Bicubic,
}

/// An image enlarged by whole factors.
#[derive(Clone, Debug)]
pub struct UpSampling2D {
    /// Factors, vertical and horizontal.
    pub size: [usize; 2],
    /// Method.
    pub interpolation: Interpolation,
}

/// The two neighbours of each output along an axis, and the weight of the second, as TensorFlow computes them: the
/// centre of output `o` lies at (o + 0.5) / factor − 0.5, in f32.
fn neighbours(input: usize, output: usize) -> Vec<(usize, usize, f32)> {
    let scale = input as f32 / output as f32;
    (0..output)
        .map(|o| {
            let at = (o as f32 + 0.5) * scale - 0.5;
            let floor = at.floor();
            let low = floor.max(0.0) as usize;
            let high = (at.ceil().max(0.0) as usize).min(input - 1);
            (low.min(input - 1), high, at - floor)
        })
        .collect()
}

impl Interpolation {
    /// The method of a Keras name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Nearest, Self::Bilinear, Self::Bicubic].into_iter().find(|method| method.name() == name)
    }

    /// Keras' name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
        }
    }

    /// Images `[n, h, w, c]` brought to a size of `[height, width]`.
    pub(crate) fn resize(self, x: &Tensor, [oh, ow]: [usize; 2]) -> Tensor {
        let [n, h, w, c] = [x.shape()[0], x.shape()[1], x.shape()[2], x.shape()[3]];
        if self == Self::Bicubic {
            return cubic::resize(x, [oh, ow]);
        }
        let pixel = |image: usize, y: usize, x0: usize| &x.data()[((image * h + y) * w + x0) * c..][..c];
        let mut data = Vec::with_capacity(n * oh * ow * c);
        // The pixel that the centre of output `o` lies in.
        let nearest = |o: usize, input: usize, output: usize| {
            (((o as f32 + 0.5) * (input as f32 / output as f32)).floor() as usize).min(input - 1)
        };
        let (rows, columns) = (neighbours(h, oh), neighbours(w, ow));
        for (image, oy, ox) in (0..n).flat_map(|i| (0..oh).flat_map(move |y| (0..ow).map(move |x| (i, y, x)))) {
            if self == Self::Nearest {
                data.extend_from_slice(pixel(image, nearest(oy, h, oh), nearest(ox, w, ow)));
                continue;
            }
            let ((y0, y1, fy), (x0, x1, fx)) = (rows[oy], columns[ox]);
            let corners = [pixel(image, y0, x0), pixel(image, y0, x1), pixel(image, y1, x0), pixel(image, y1, x1)];
            data.extend((0..c).map(|i| {
                let [a, b, d, e] = corners.map(|p| p[i]);
                let (top, bottom) = (a + (b - a) * fx, d + (e - d) * fx);
                top + (bottom - top) * fy
            }));
        }
        Tensor::new(vec![n, oh, ow, c], data).unwrap_or_else(|| Tensor::zeros(&[0]))
    }
}

/// Pixels repeated by whole factors; images `[n, h, w, c]`.
fn repeat(x: &Tensor, size: [usize; 2]) -> Tensor {
    let [n, h, w, c] = [x.shape()[0], x.shape()[1], x.shape()[2], x.shape()[3]];
    let (oh, ow) = (h * size[0], w * size[1]);
    let mut data = Vec::with_capacity(n * oh * ow * c);
    for (image, oy, ox) in (0..n).flat_map(|i| (0..oh).flat_map(move |y| (0..ow).map(move |x| (i, y, x)))) {
        data.extend_from_slice(&x.data()[((image * h + oy / size[0]) * w + ox / size[1]) * c..][..c]);
    }
    Tensor::new(vec![n, oh, ow, c], data).unwrap_or_else(|| Tensor::zeros(&[0]))
}

impl Layer for UpSampling2D {
    fn class(&self) -> &str {
        "UpSampling2D"
    }
    fn check(&self) -> Result<(), String> {
        sides("size", 1, &self.size)
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [h, w, c] = image(inputs)?;
        Ok(vec![h * self.size[0], w * self.size[1], c])
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let x = inputs[0];
        match self.interpolation {
            Interpolation::Nearest => repeat(x, self.size),
            method @ (Interpolation::Bilinear | Interpolation::Bicubic) => {
                method.resize(x, [x.shape()[1] * self.size[0], x.shape()[2] * self.size[1]])
            }
        }
    }
}

/// An image brought to a size.
#[derive(Clone, Debug)]
pub struct Resizing {
    /// Height and width.
    pub size: [usize; 2],
    /// Method.
    pub interpolation: Interpolation,
}

impl Layer for Resizing {
    fn class(&self) -> &str {
        "Resizing"
    }
    fn check(&self) -> Result<(), String> {
        sides("size", 1, &self.size)
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [_, _, c] = image(inputs)?;
        Ok(vec![self.size[0], self.size[1], c])
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        self.interpolation.resize(inputs[0], self.size)
    }
}

/// A vector n times.
#[derive(Clone, Debug)]
pub struct RepeatVector {
    /// How often.
    pub n: usize,
}

impl Layer for RepeatVector {
    fn class(&self) -> &str {
        "RepeatVector"
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match one(inputs)? {
            [c] if self.n > 0 => Ok(vec![self.n, *c]),
            other => Err(format!("its input has shape {other:?}, a vector and at least one repetition are expected")),
        }
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let (batch, c) = (inputs[0].shape()[0], inputs[0].shape()[1]);
        let data = inputs[0].data().chunks_exact(c.max(1)).flat_map(|row| row.repeat(self.n)).collect();
        Tensor::new(vec![batch, self.n, c], data).unwrap_or_else(|| Tensor::zeros(&[0]))
    }
}

/// Dimensions in another order.
#[derive(Clone, Debug)]
pub struct Permute {
    /// For each output dimension, the dimension of the sample that it is, from 0.
    pub dims: Vec<usize>,
}

impl Layer for Permute {
    fn class(&self) -> &str {
        "Permute"
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let input = one(inputs)?;
        let mut sorted = self.dims.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..input.len()) {
            return Err(format!("its dims {:?} are no order of the {} of its input", self.dims, input.len()));
        }
        Ok(self.dims.iter().map(|d| input[*d]).collect())
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let x = inputs[0];
        let sample = &x.shape()[1..];
        let size = sample.iter().product::<usize>().max(1);
        let stride = |d: usize| sample[d + 1..].iter().product::<usize>();
        let from = self.dims.iter().fold(vec![0usize], |all, d| {
            let step = stride(*d);
            all.iter().flat_map(|base| (0..sample[*d]).map(move |k| base + k * step)).collect()
        });
        let data = x.data().chunks_exact(size).flat_map(|image| from.iter().map(|i| image[*i])).collect();
        let shape = x.shape()[..1].iter().copied().chain(self.dims.iter().map(|d| sample[*d])).collect();
        Tensor::new(shape, data).unwrap_or_else(|| Tensor::zeros(&[0]))
    }
}
