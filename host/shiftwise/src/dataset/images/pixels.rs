//! Pixels of 8 bits, grey or in colours, as PIL converts to them.

use image::DynamicImage;

/// A picture as its file holds it, apart from its compression.
#[derive(Debug)]
pub(super) enum Pixels {
    /// One byte a pixel.
    Grey(Vec<u8>),
    /// Red, green, blue.
    Colours(Vec<u8>),
}

impl Pixels {
    /// Grey (one channel) or colours, as PIL's `convert("L")` and `convert("RGB")`.
    pub(super) fn into_channels(self, channels: usize) -> Vec<u8> {
        match (self, channels) {
            (Self::Grey(bytes), 1) | (Self::Colours(bytes), 3) => bytes,
            (Self::Grey(bytes), _) => bytes.iter().flat_map(|v| [*v; 3]).collect(),
            (Self::Colours(bytes), _) => bytes.as_chunks().0.iter().map(|rgb| grey(*rgb)).collect(),
        }
    }
}

/// 0.299 R + 0.587 G + 0.114 B, rounded: ITU-R BT.601, in 16 bits behind the point.
fn grey([r, g, b]: [u8; 3]) -> u8 {
    ((u32::from(r) * 19_595 + u32::from(g) * 38_470 + u32::from(b) * 7_471 + 0x8000) >> 16) as u8
}

/// The first `keep` of each `of` values.
fn some<T: Copy>(values: &[T], of: usize, keep: usize, byte: impl Fn(T) -> u8) -> Vec<u8> {
    values.chunks_exact(of).flat_map(|pixel| pixel.iter().take(keep)).map(|v| byte(*v)).collect()
}

/// Pixels without transparency, and whether 16 bits of grey lost something.
///
/// Of 16 bits the upper 8 are kept, except for plain grey: PIL has a mode for 16 bits of grey, and limits its values to
/// 255 when it converts them. `plain` says that grey with transparency was plain grey in the file.
pub(super) fn flat(picture: DynamicImage, plain: bool) -> (Pixels, bool) {
    let high = |v: u16| (v >> 8) as u8;
    let limited = |v: u16| v.min(255) as u8;
    let pixels = match picture {
        DynamicImage::ImageLuma8(p) => Pixels::Grey(p.into_raw()),
        DynamicImage::ImageLumaA8(p) => Pixels::Grey(some(p.as_raw(), 2, 1, |v| v)),
        DynamicImage::ImageRgb8(p) => Pixels::Colours(p.into_raw()),
        DynamicImage::ImageRgba8(p) => Pixels::Colours(some(p.as_raw(), 4, 3, |v| v)),
        DynamicImage::ImageRgb16(p) => Pixels::Colours(some(p.as_raw(), 3, 3, high)),
        DynamicImage::ImageRgba16(p) => Pixels::Colours(some(p.as_raw(), 4, 3, high)),
        DynamicImage::ImageLumaA16(p) if !plain => Pixels::Grey(some(p.as_raw(), 2, 1, high)),
        DynamicImage::ImageLumaA16(p) => {
            let beyond = p.as_raw().iter().step_by(2).any(|v| *v > 255);
            return (Pixels::Grey(some(p.as_raw(), 2, 1, limited)), beyond);
        }
        DynamicImage::ImageLuma16(p) => {
            let beyond = p.as_raw().iter().any(|v| *v > 255);
            return (Pixels::Grey(some(p.as_raw(), 1, 1, limited)), beyond);
        }
        other => Pixels::Colours(other.into_rgb8().into_raw()),
    };
    (pixels, false)
}
