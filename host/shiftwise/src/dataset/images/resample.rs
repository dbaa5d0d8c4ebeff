//! Bilinear scaling of pictures as two references compute it, to the last bit.

/// Fraction bits of PIL's weights: a sum of products with 8 bits, and two bits to spare, fits 32 bits.
const PRECISION: u32 = 32 - 8 - 2;

/// A length along one axis of a picture, and the one that it is scaled to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub(super) from: usize,
    pub(super) to: usize,
}

/// For each output: the first input that it is made of, and the weights of this one and those after it.
type Taps = Vec<(usize, Vec<i32>)>;

impl Axis {
    /// The weights of PIL's BILINEAR: a triangle as wide as the scale where a picture shrinks, so that every input counts.
    fn pil(self) -> Taps {
        let scale = self.from as f64 / self.to as f64;
        let support = scale.max(1.0);
        let tap = |o: usize| {
            let center = (o as f64 + 0.5) * scale;
            // Casts cut off, as C's do.
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(self.from);
            let weight = |i: usize| {
                let x = ((i + first) as f64 - center + 0.5) * (1.0 / support);
                if x.abs() < 1.0 { 1.0 - x.abs() } else { 0.0 }
            };
            let weights: Vec<f64> = (0..end.saturating_sub(first)).map(weight).collect();
            let sum: f64 = weights.iter().sum();
            let part = |w: &f64| if sum == 0.0 { *w } else { w / sum };
            // No weight is negative.
            let fixed = |w: &f64| (0.5 + part(w) * f64::from(1 << PRECISION)) as i32;
            (first, weights.iter().map(fixed).collect())
        };
        (0..self.to).map(tap).collect()
    }

    /// The two inputs of each output of `tf.image.resize` and how far it lies between them: pixels have their values at
    /// their centres, and only the nearest two count even where a picture shrinks.
    fn tf(self) -> Vec<(usize, usize, f32)> {
        let scale = self.from as f32 / self.to as f32;
        let last = self.from.saturating_sub(1);
        let tap = |o: usize| {
            let at = (o as f32 + 0.5) * scale - 0.5;
            let floor = at.floor();
            ((floor.max(0.0) as usize).min(last), (at.ceil().max(0.0) as usize).min(last), at - floor)
        };
        (0..self.to).map(tap).collect()
    }
}

/// Scales rows of `width` pixels of `channels` bytes as PIL's `Image.resize(…, BILINEAR)`: along the rows, rounded to 8
/// bits, then along the columns, rounded again.
pub(super) fn pil(bytes: Vec<u8>, channels: usize, rows: Axis, columns: Axis) -> Vec<u8> {
    let bytes = if columns.from == columns.to { bytes } else { along_rows(&bytes, channels, columns) };
    if rows.from == rows.to { bytes } else { along_columns(&bytes, columns.to * channels, rows) }
}

/// A weighted sum, rounded and limited to 8 bits.
fn weighted(values: impl Iterator<Item = u8>, weights: &[i32]) -> u8 {
    let half = 1 << (PRECISION - 1);
    let sum = values.zip(weights).fold(half, |sum: i32, (v, w)| sum.wrapping_add(i32::from(v).wrapping_mul(*w)));
    (sum >> PRECISION).clamp(0, 255) as u8
}

fn along_rows(bytes: &[u8], channels: usize, axis: Axis) -> Vec<u8> {
    let taps = axis.pil();
    let mut out = Vec::with_capacity(bytes.len() / axis.from.max(1) * axis.to);
    for row in bytes.chunks_exact((axis.from * channels).max(1)) {
        for (first, weights) in &taps {
            let start = row.get(first * channels..).unwrap_or(&[]);
            out.extend((0..channels).map(|c| weighted(start.iter().skip(c).step_by(channels).copied(), weights)));
        }
    }
    out
}

fn along_columns(bytes: &[u8], stride: usize, axis: Axis) -> Vec<u8> {
    let stride = stride.max(1);
    let mut out = Vec::with_capacity(stride * axis.to);
    for (first, weights) in axis.pil() {
        let start = bytes.get(first * stride..).unwrap_or(&[]);
        out.extend((0..stride).map(|x| weighted(start.iter().skip(x).step_by(stride).copied(), &weights)));
    }
    out
}

/// Scales as `tf.image.resize(…, "bilinear")` without antialiasing: floats, not rounded.
pub(super) fn tf(bytes: &[u8], channels: usize, rows: Axis, columns: Axis) -> Vec<f32> {
    let (across, stride) = (columns.tf(), columns.from * channels);
    let mut out = Vec::with_capacity(rows.to * columns.to * channels);
    for (top, bottom, down) in rows.tf() {
        for (left, right, aside) in &across {
            for c in 0..channels {
                let at = |y: usize, x: usize| bytes.get(y * stride + x * channels + c).copied().map_or(0.0, f32::from);
                let between = |a: f32, b: f32, part: f32| a + (b - a) * part;
                let upper = between(at(top, *left), at(top, *right), *aside);
                let lower = between(at(bottom, *left), at(bottom, *right), *aside);
                out.push(between(upper, lower, down));
            }
        }
    }
    out
}
