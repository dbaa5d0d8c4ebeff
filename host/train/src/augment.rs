//! Augmentations: THE table of what is done to images at random before each step.

use crate::random::Random;
use shiftwise_tensor::tensor::Tensor;

/// An augmentation: a row of [`AUGMENTATIONS`].
#[derive(Debug)]
struct Row {
    name: &'static str,
    form: &'static str,
    /// Whether it takes a number of pixels.
    sized: bool,
    /// Changes one image `[h, w, c]`.
    apply: fn(usize, [usize; 3], &mut [f32], &mut Random),
}

/// Every augmentation.
#[rustfmt::skip]
const AUGMENTATIONS: &[Row] = &[
    Row { name: "flip", form: "flip", sized: false, apply: flip },
    Row { name: "crop", form: "crop:PIXELS", sized: true, apply: crop },
];

/// An augmentation with its setting.
#[derive(Clone, Copy, Debug)]
pub struct Augment {
    row: &'static Row,
    pixels: usize,
}

/// As users write it.
impl std::fmt::Display for Augment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.row.name)?;
        if self.row.sized { write!(f, ":{}", self.pixels) } else { Ok(()) }
    }
}

impl Augment {
    /// A list of augmentations from what users write. Errors: the forms that there are.
    pub fn parse(text: &str) -> Result<Vec<Self>, String> {
        let one = |text: &str| {
            let (name, pixels) = text.split_once(':').map_or((text, None), |(name, n)| (name, Some(n)));
            let row = AUGMENTATIONS.iter().find(|row| row.name == name && row.sized == pixels.is_some());
            let pixels = pixels.map_or(Some(0), |n| n.parse().ok().filter(|n| (1..=4096).contains(n)));
            row.zip(pixels).map(|(row, pixels)| Self { row, pixels })
        };
        let forms = || AUGMENTATIONS.iter().map(|row| row.form).collect::<Vec<_>>().join(", ");
        text.split(',').map(one).collect::<Option<Vec<_>>>().ok_or_else(|| format!("a list of {} is expected", forms()))
    }

    /// Changes a batch of images `[n, h, w, c]`: what is drawn for a sample depends on its number alone. What is no image
    /// stays.
    pub fn apply(all: &[Self], batch: &mut Tensor, samples: &[usize], random: Random) {
        let [_, h, w, c] = batch.shape()[..] else { return };
        let images = batch.data_mut().chunks_exact_mut((h * w * c).max(1));
        for (image, sample) in images.zip(samples) {
            let mut random = random.stream(*sample as u64);
            all.iter().for_each(|own| (own.row.apply)(own.pixels, [h, w, c], image, &mut random));
        }
    }
}

/// Half of the images are mirrored, left to right.
fn flip(_: usize, [_, w, c]: [usize; 3], image: &mut [f32], random: &mut Random) {
    if random.unit() < 0.5 {
        return;
    }
    for row in image.chunks_exact_mut((w * c).max(1)) {
        let old = row.to_vec();
        row.chunks_exact_mut(c.max(1))
            .zip(old.chunks_exact(c.max(1)).rev())
            .for_each(|(to, from)| to.copy_from_slice(from));
    }
}

/// The image is moved by up to `pixels` in both directions; its edge is repeated.
fn crop(pixels: usize, [h, w, c]: [usize; 3], image: &mut [f32], random: &mut Random) {
    let by = |random: &mut Random| random.below(2 * pixels + 1) as isize - pixels as isize;
    let (down, right) = (by(random), by(random));
    let old = image.to_vec();
    let place = |at: usize, by: isize, size: usize| (at as isize + by).clamp(0, size as isize - 1) as usize;
    for y in 0..h {
        for x in 0..w {
            let from = (place(y, down, h) * w + place(x, right, w)) * c;
            image[(y * w + x) * c..][..c].copy_from_slice(&old[from..from + c]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_moved_and_mirrored_the_same_way_whatever_batch_they_are_in() {
        let all = Augment::parse("flip,crop:1").unwrap();
        let image: Vec<f32> = (0..9).map(|i| i as f32).collect();
        let batch = |samples: &[usize]| {
            let mut batch = Tensor::new(vec![samples.len(), 3, 3, 1], image.repeat(samples.len())).unwrap();
            Augment::apply(&all, &mut batch, samples, Random::new(3));
            batch.into_data()
        };
        let many = batch(&[0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(many[45..54], batch(&[5]));
        assert!(many.chunks(9).any(|own| own != image));
        assert!(many.iter().all(|v| image.contains(v)));
        assert!(
            Augment::parse("flip:3").is_err() && Augment::parse("crop").is_err() && Augment::parse("turn").is_err()
        );
    }
}
