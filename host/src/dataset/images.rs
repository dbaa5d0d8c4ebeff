//! Samples from pictures.

use std::path::Path;

use image::imageops::FilterType;
use image::{DynamicImage, ImageReader};

use crate::error::Error;

/// Order of colours in the channels of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelOrder {
    /// Red first.
    #[default]
    Rgb,
    /// Blue first.
    Bgr,
}

/// A picture as `[h, w, c]` values from 0 to 255, scaled bilinearly if asked. One channel means grey, three colours.
pub(super) fn read(
    path: &Path,
    resize: Option<[usize; 2]>,
    order: ChannelOrder,
    shape: &[usize],
) -> Result<Vec<f32>, Error> {
    let fail = |message: String| Error::Dataset(format!("{}: {message}", path.display()));
    let [height, width, channels @ (1 | 3)] = *shape else {
        return Err(fail(format!("images can't be samples of shape {shape:?}, [h, w, 1] or [h, w, 3] is expected")));
    };
    let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(Error::io(path))?;
    let mut picture = reader.decode().map_err(|e| fail(e.to_string()))?;
    if let Some([h, w]) = resize {
        let [Ok(h), Ok(w)] = [u32::try_from(h), u32::try_from(w)] else {
            return Err(fail(format!("it can't be scaled to {h}x{w}")));
        };
        picture = flat(picture, channels).resize_exact(w, h, FilterType::Triangle);
    }
    let seen = [picture.height() as usize, picture.width() as usize];
    if seen != [height, width] {
        return Err(fail(format!(
            "the image has {}x{} pixels, {height}x{width} are expected; --resize scales them",
            seen[0], seen[1]
        )));
    }
    let mut bytes = match flat(picture, channels) {
        DynamicImage::ImageLuma8(grey) => grey.into_raw(),
        colours => colours.into_rgb8().into_raw(),
    };
    if order == ChannelOrder::Bgr && channels == 3 {
        bytes.chunks_exact_mut(3).for_each(<[u8]>::reverse);
    }
    Ok(bytes.into_iter().map(f32::from).collect())
}

/// 8 bits, grey or colours, without transparency.
fn flat(picture: DynamicImage, channels: usize) -> DynamicImage {
    if channels == 1 { picture.into_luma8().into() } else { picture.into_rgb8().into() }
}
