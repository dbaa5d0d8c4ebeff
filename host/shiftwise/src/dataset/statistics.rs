//! What data looks like at a network's inputs, and whether other data looks like it.

use std::sync::{Mutex, PoisonError};

use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;
use shiftwise_quant::metadata::InputStatistics;
use shiftwise_tensor::tensor::Tensor;

/// Samples that are described while somebody else reads them.
#[derive(Debug)]
pub struct Observed<'a, S: Samples> {
    samples: &'a S,
    inputs: Mutex<Vec<Sums>>,
}

/// What has been seen of one input, by channel.
#[derive(Clone, Debug)]
struct Sums {
    name: String,
    samples: u64,
    channels: Vec<Channel>,
}

#[derive(Clone, Copy, Debug)]
struct Channel {
    count: u64,
    min: f32,
    max: f32,
    sum: f64,
    squares: f64,
}

impl Channel {
    const EMPTY: Self = Self { count: 0, min: f32::INFINITY, max: f32::NEG_INFINITY, sum: 0.0, squares: 0.0 };

    fn see(&mut self, x: f32) {
        self.count += 1;
        self.min = self.min.min(x);
        self.max = self.max.max(x);
        self.sum += f64::from(x);
        self.squares += f64::from(x) * f64::from(x);
    }

    fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }

    fn deviation(&self) -> f64 {
        (self.squares / self.count.max(1) as f64 - self.mean() * self.mean()).max(0.0).sqrt()
    }
}

impl Sums {
    fn see(&mut self, batch: &Tensor) {
        let shape = batch.shape();
        let channels = match shape {
            [_, .., c] if (1..=InputStatistics::MOST_CHANNELS).contains(c) => *c,
            _ => 1,
        };
        if self.channels.is_empty() {
            self.channels = vec![Channel::EMPTY; channels];
        }
        self.samples += shape.first().copied().unwrap_or(0) as u64;
        for pixel in batch.data().chunks(channels) {
            self.channels.iter_mut().zip(pixel).for_each(|(channel, x)| channel.see(*x));
        }
    }

    fn statistics(&self) -> InputStatistics {
        let list = |of: fn(&Channel) -> f32| self.channels.iter().map(of).collect();
        InputStatistics {
            name: self.name.clone(),
            samples: self.samples,
            min: list(|c| c.min),
            max: list(|c| c.max),
            mean: list(|c| c.mean() as f32),
            deviation: list(|c| c.deviation() as f32),
        }
    }
}

impl<'a, S: Samples> Observed<'a, S> {
    /// Of inputs with these names.
    pub fn new<'n>(samples: &'a S, names: impl IntoIterator<Item = &'n str>) -> Self {
        let empty = |name: &str| Sums { name: name.to_owned(), samples: 0, channels: Vec::new() };
        Self { samples, inputs: Mutex::new(names.into_iter().map(empty).collect()) }
    }

    /// What was read so far; nothing of an input that nobody read.
    pub fn statistics(&self) -> Vec<InputStatistics> {
        let inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        inputs.iter().filter(|input| input.samples > 0).map(Sums::statistics).collect()
    }
}

impl<S: Samples> Samples for Observed<'_, S> {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn batch(&self, start: usize, count: usize) -> Result<Vec<Tensor>, Error> {
        let batch = self.samples.batch(start, count)?;
        let mut inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        inputs.iter_mut().zip(&batch).for_each(|(input, batch)| input.see(batch));
        drop(inputs);
        Ok(batch)
    }
}

/// How data differs from what a network was calibrated on, so much that a mistake is likely.
#[derive(Clone, Debug, PartialEq)]
pub enum Doubt {
    /// Every value is 0.
    Zeros,
    /// Numbers from 0 on to this one, as images have them before they are scaled.
    Raw(f32),
    /// Whole numbers up to 255 where calibration saw small numbers: its largest magnitude.
    Unscaled(f32),
    /// The largest magnitude, and that of the calibration data, which is far smaller.
    Larger(f32, f32),
    /// The largest magnitude, and that of the calibration data, which is far larger.
    Smaller(f32, f32),
    /// The smallest value is negative, and calibration saw no negative ones.
    Negative(f32),
    /// There is no negative value, and calibration's smallest is this.
    NoNegative(f32),
    /// The channels' means are those of the calibration data in reverse.
    Channels,
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Zeros => write!(f, "every value is 0: is the data empty, or the sensor off?"),
            Self::Raw(max) => {
                write!(f, "values go up to {max}, as those of images that are not scaled: was the network trained so?")
            }
            Self::Unscaled(to) => {
                write!(f, "values are whole numbers up to 255, calibration saw values up to {to}: is a scale missing?")
            }
            Self::Larger(own, to) => write!(f, "values reach {own}, calibration saw {to} at most: is a scale missing?"),
            Self::Smaller(own, to) => {
                write!(f, "values reach {own} only, calibration saw up to {to}: is the data scaled already, or twice?")
            }
            Self::Negative(min) => {
                write!(
                    f,
                    "values go down to {min}, calibration saw none below 0: is a mean subtracted that should not be?"
                )
            }
            Self::NoNegative(min) => {
                write!(f, "no value is negative, calibration saw values down to {min}: is a mean missing?")
            }
            Self::Channels => {
                write!(f, "the channels' means are the calibration data's in reverse: is the order of colours right?")
            }
        }
    }
}

/// How many times larger or smaller values are when a scale is doubted.
const FAR: f32 = 16.0;
/// Samples without which means say nothing.
const ENOUGH: u64 = 8;

/// Whether data that a network was calibrated on as it is looks like images that nobody has scaled.
pub fn looks_raw(calibrated: &InputStatistics) -> Option<Doubt> {
    let least = calibrated.min.iter().copied().fold(f32::INFINITY, f32::min);
    let most = calibrated.max.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    (least >= 0.0 && (128.0..=255.0).contains(&most)).then_some(Doubt::Raw(most))
}

/// What makes a batch of an input unlike the data that the network was calibrated on.
pub fn doubt(calibrated: &InputStatistics, batch: &Tensor) -> Option<Doubt> {
    let mut sums = Sums { name: String::new(), samples: 0, channels: Vec::new() };
    sums.see(batch);
    let own = sums.statistics();
    let least = |list: &[f32]| list.iter().copied().fold(f32::INFINITY, f32::min);
    let most = |list: &[f32]| list.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (min, max) = (least(&own.min), most(&own.max));
    let (calib_min, calib_max) = (least(&calibrated.min), most(&calibrated.max));
    let (reach, calib) = (min.abs().max(max.abs()), calib_min.abs().max(calib_max.abs()));
    if !(reach.is_finite() && calib.is_finite()) || calib == 0.0 && reach == 0.0 {
        return None;
    }
    let whole = || batch.data().iter().all(|x| x.fract() == 0.0 && (0.0..=255.0).contains(x));
    Some(match () {
        () if reach == 0.0 => Doubt::Zeros,
        () if reach >= FAR * calib && max > 1.0 && whole() => Doubt::Unscaled(calib),
        () if reach >= FAR * calib => Doubt::Larger(reach, calib),
        () if reach * FAR <= calib => Doubt::Smaller(reach, calib),
        () if calib_min >= 0.0 && min < -0.05 * calib => Doubt::Negative(min),
        () if calib_min < -0.25 * calib && min >= 0.0 => Doubt::NoNegative(calib_min),
        () if is_reversed(calibrated, &own) => Doubt::Channels,
        () => return None,
    })
}

/// Whether three channels' means are much nearer to the other's in reverse than in order.
fn is_reversed(calibrated: &InputStatistics, own: &InputStatistics) -> bool {
    let ([a, b, c], [x, y, z], [spread, ..]) = (&calibrated.mean[..], &own.mean[..], &calibrated.deviation[..]) else {
        return false;
    };
    let distance = |[p, q, r]: [&f32; 3]| (p - x).abs() + (q - y).abs() + (r - z).abs();
    let apart = (a - c).abs() > 0.1 * spread;
    own.samples >= ENOUGH && apart && 4.0 * distance([c, b, a]) < distance([a, b, c])
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One(Tensor);

    impl Samples for One {
        fn len(&self) -> usize {
            self.0.shape()[0]
        }
        fn batch(&self, start: usize, count: usize) -> Result<Vec<Tensor>, Error> {
            let size = self.0.data().len() / self.len();
            let shape = [&[count], &self.0.shape()[1..]].concat();
            Ok(vec![Tensor::new(shape, self.0.data()[start * size..][..count * size].to_vec()).unwrap()])
        }
    }

    /// Eight samples of one pixel with these three channels, each spread a little.
    fn pixels(channels: [f32; 3], spread: f32) -> Tensor {
        let of = |i: usize| channels.map(|c| c + spread * (i as f32 - 3.5) / 3.5);
        Tensor::new(vec![8, 1, 1, 3], (0..8).flat_map(of).collect()).unwrap()
    }

    fn statistics(tensor: Tensor) -> InputStatistics {
        let samples = One(tensor);
        let observed = Observed::new(&samples, ["x"]);
        observed.batch(0, 3).unwrap();
        observed.batch(3, 5).unwrap();
        observed.statistics().remove(0)
    }

    #[test]
    fn channels_are_described_over_all_batches() {
        let own = statistics(Tensor::new(vec![8, 2], (0..16u8).map(f32::from).collect()).unwrap());
        assert_eq!((own.samples, own.min, own.max), (8, vec![0.0, 1.0], vec![14.0, 15.0]));
        assert_eq!(own.mean, [7.0, 8.0]);
        // The even numbers up to 14: the mean of their squares is 70.
        assert_eq!(own.deviation, [21f32.sqrt(); 2]);
    }

    #[test]
    fn calibration_data_like_unscaled_images_is_doubted() {
        assert_eq!(looks_raw(&statistics(pixels([10.0, 20.0, 250.0], 5.0))), Some(Doubt::Raw(255.0)));
        assert_eq!(looks_raw(&statistics(pixels([0.1, 0.2, 0.9], 0.1))), None);
        assert_eq!(looks_raw(&statistics(pixels([-10.0, 20.0, 250.0], 5.0))), None);
        assert_eq!(looks_raw(&statistics(pixels([10.0, 20.0, 4000.0], 5.0))), None);
    }

    #[test]
    fn mistakes_of_preparation_are_told_apart() {
        let calibrated = statistics(pixels([0.2, 0.5, 0.7], 0.1));
        let of = |tensor| doubt(&calibrated, &tensor);
        assert_eq!(of(pixels([0.21, 0.5, 0.69], 0.2)), None);
        assert_eq!(of(pixels([0.0; 3], 0.0)), Some(Doubt::Zeros));
        assert_eq!(of(Tensor::new(vec![1, 1, 1, 3], vec![3.0, 100.0, 255.0]).unwrap()), Some(Doubt::Unscaled(0.8)));
        assert!(matches!(of(pixels([3.5, 99.0, 80.0], 0.0)), Some(Doubt::Larger(..))));
        assert!(matches!(of(pixels([0.01; 3], 0.001)), Some(Doubt::Smaller(..))));
        assert!(matches!(of(pixels([-0.5, 0.0, 0.5], 0.1)), Some(Doubt::Negative(_))));
        assert_eq!(of(pixels([0.7, 0.5, 0.2], 0.1)), Some(Doubt::Channels));
        let centred = statistics(pixels([-0.9, 0.0, 0.9], 0.05));
        assert!(matches!(doubt(&centred, &pixels([0.1, 0.5, 0.9], 0.0)), Some(Doubt::NoNegative(_))));
    }
}
