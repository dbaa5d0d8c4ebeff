//! The quantizer of float scales: a range of floats is divided into equal steps.
//!
//! A range is that of all batches together, or what clips a histogram of all batches; unlike positions, ranges don't vote.
//! While a histogram is collected, values pass unquantized.

use rayon::prelude::*;
use serde_json::{Map, Value, json};

use crate::observer::divergence;
use crate::observer::extrema::{extrema, range};
use crate::observer::histogram::Histogram;
use crate::observer::range_error::RangeError;
use crate::regroup::integers::Integers;
use crate::scheme::channels::Channels;
use crate::scheme::interface::{Calibrator, Gradients, Numbers, Part, Scheme, Sheet, Subject};
use crate::scheme::pof2::Pof2;
use grid::Grid;
use shiftwise_core::arith::Round;
use shiftwise_core::fix::FixPos;
use shiftwise_tensor::tensor::Tensor;

pub use params::{Method, Params};
pub use state::Range;

mod grid;
mod params;
mod state;
#[cfg(test)]
mod tests;

/// Elements that one task works on.
const BLOCK: usize = 1 << 14;

/// The scheme's sheet.
pub(super) const SHEET: Sheet = Sheet {
    title: "Float scales",
    formula: "with `use_framework_quant`, signed: S = (max − min) / (2^b − 1, or 2^b − 2 if narrow), nz = the step from min that \
              is zero, rounded half away from zero and clamped, y = floor((clamp(x, −nz · S, (steps − nz) · S) + nz · S) · \
              (1 / S) − nz + 0.5) · S; unsigned: y = floor(clamp(x, 0, max) · (qmax / max) + 0.5) · (max / qmax). Without: \
              s = (qmax − qmin) / (max − min), y = clamp(round(x · s), qmin, qmax) / s; where `symmetry` is off, \
              y = (clamp(qmin + round((x − m) · s), qmin, qmax) − qmin) / s + m with m = (qmin − z) / s and \
              z = clamp(round half away from zero(qmin − min · s), qmin, qmax)",
    rounding: "half up with `use_framework_quant`, which takes no other; else `round`",
    saturation: "with `use_framework_quant` the value is clamped before rounding, else the integer behind it",
    calibration: "methods 0 and 1: the range of all batches, with zero; 2 and 3: ± the magnitude at which a histogram of all \
                  batches is clipped, by the least Kullback-Leibler divergence or where `method_percentile` percent are \
                  reached; values pass unquantized meanwhile",
    gradient: "passed from the smallest to the largest value of the grid (of the range, with the vendor's own symmetric \
               arithmetic); beyond, the gradient of min or max, where these are trained",
    source: "TensorFlow's `FakeQuantWithMinMaxVars` and `QuantizeAndDequantizeV2`, the vendor's tool, NumPy's histograms; tests \
             `scheme::affine`, `schemes` (element by element) and `golden`",
};

/// A quantizer of float scales.
#[derive(Clone, Debug, PartialEq)]
pub struct Affine {
    /// Settings.
    pub params: Params,
    /// One, or one for each channel: those are known only after calibration.
    pub ranges: Vec<Range>,
    /// What was collected, as the vendor's files keep it; of a quantizer that collects nothing, one count of zero.
    counts: Vec<i32>,
    edges: Vec<f32>,
}

impl Affine {
    /// Not yet calibrated.
    pub fn new(params: Params) -> Self {
        let ranges = if params.per_channel { Vec::new() } else { vec![Range::default()] };
        Self { params, ranges, counts: vec![0], edges: vec![0.0] }
    }

    /// The float scale that does what a position does, by the vendor's rules: the range is −128 to 127 steps whatever the
    /// width, and TensorFlow's arithmetic, which rounds half up, is taken where it can be.
    pub fn from_pof2(own: &Pof2) -> Self {
        let p = &own.params;
        let params = Params {
            bit_width: p.bit_width,
            method: p.method,
            round_mode: 1,
            symmetry: p.symmetry,
            per_channel: p.per_channel,
            channel_axis: p.channel_axis,
            use_framework_quant: p.bit_width == 8,
            unsigned: p.unsigned,
            narrow_range: p.narrow_range,
            method_percentile: 99.99,
        };
        let range = |pos: FixPos| Range { min: -128.0 / pos.scale(), max: 127.0 / pos.scale(), ..Range::default() };
        Self { ranges: own.states.iter().map(|state| range(state.pos)).collect(), ..Self::new(params) }
    }

    /// The quantizer that has these steps and zero points: one, or one for each channel along an axis. Half up is
    /// TensorFlow's arithmetic, whose integers have a sign; another rounding is the vendor's own.
    ///
    /// `None` for steps that are no steps, and for zero points that are none of the integers.
    pub fn of_steps(to: Integers, round: Round, steps: &[(f32, i64)], axis: Option<i64>) -> Option<Self> {
        let framework = round == Round::HalfUp && to.bits <= 16;
        let down = if framework && to.unsigned { 1i64 << (to.bits - 1) } else { 0 };
        let params = Params {
            bit_width: to.bits,
            method: 0,
            round_mode: round.id(),
            symmetry: !framework && !to.unsigned && steps.iter().all(|(_, zero)| *zero == 0),
            per_channel: axis.is_some(),
            channel_axis: axis.unwrap_or(-1),
            use_framework_quant: framework,
            unsigned: to.unsigned && !framework,
            narrow_range: to.narrow,
            method_percentile: 99.99,
        };
        let (low, high) = params.bounds();
        let range = |(step, zero): &(f32, i64)| {
            let zero = (zero - down) as f32;
            let fits = step.is_normal() && *step > 0.0 && (low..=high).contains(&zero);
            let range = Range { min: (low - zero) * step, max: (high - zero) * step, ..Range::default() };
            (fits && range.min.is_finite() && range.max.is_finite()).then_some(range)
        };
        let ranges = steps.iter().map(range).collect::<Option<Vec<_>>>()?;
        Some(Self { ranges, ..Self::new(params) })
    }

    /// TensorFlow's quantizer of a range, signed.
    ///
    /// `None` for a range that is none, and for a width that TensorFlow has not.
    pub fn of_range(to: Integers, min: f32, max: f32) -> Option<Self> {
        let step = [(1.0, 0)];
        let own = Self::of_steps(to, Round::HalfUp, &step, None).filter(|own| own.params.use_framework_quant)?;
        let fits = min.is_finite() && max.is_finite() && min <= 0.0 && max >= 0.0 && min < max;
        fits.then(|| Self { ranges: vec![Range { min, max, ..Range::default() }], ..own })
    }

    /// Steps and zero points, one or one for each channel: value = (integer − zero point) · step.
    pub fn steps(&self) -> Vec<(f32, f32)> {
        self.ranges.iter().map(|range| Grid::new(*range, &self.params).step_and_zero()).collect()
    }

    /// Lets the ranges hold a batch too.
    fn widen(&mut self, tensor: &Tensor) -> Result<(), RangeError> {
        let to = self.params.integers();
        let seen = match self.params.per_channel {
            true => {
                let channels = self.channels(tensor).split(tensor.data());
                channels.iter().map(|channel| range(extrema(channel)?, to)).collect::<Result<Vec<_>, _>>()?
            }
            false => vec![range(extrema(tensor.data())?, to)?],
        };
        self.ranges.resize(seen.len(), Range::default());
        for (own, (min, max)) in self.ranges.iter_mut().zip(seen) {
            (own.min, own.max) = (own.min.min(min), own.max.max(max));
        }
        Ok(())
    }

    /// What was collected so far; `None` before the first batch, whose place one count holds.
    fn histogram(&self) -> Option<Histogram> {
        let counts: Vec<u64> = self.counts.iter().map(|n| u64::try_from(*n).unwrap_or(0)).collect();
        (counts.len() > 1 && self.edges.len() == counts.len() + 1)
            .then(|| Histogram { counts, edges: self.edges.clone() })
    }

    /// Keeps what was collected as the vendor's files do.
    fn keep(&mut self, histogram: Histogram) {
        // The vendor's counts are 32 bits wide.
        self.counts = histogram.counts.iter().map(|n| i32::try_from(*n).unwrap_or(i32::MAX)).collect();
        self.edges = histogram.edges;
    }

    /// The range that clips what was collected, where that is how the range is found.
    fn clip(&mut self, histogram: &Histogram) {
        let end = match self.params.method() {
            Method::Percentile(percent) => histogram.percentile(percent),
            Method::Range | Method::Divergence => divergence::clip(histogram),
        };
        let (low, high) = self.params.bounds();
        self.ranges = vec![Range { min: -end, max: end, scale: (high - low) / (2.0 * end) }];
    }

    /// Whether values are quantized while training: not while a histogram is collected.
    pub fn quantizes_in_training(&self) -> bool {
        self.params.method() == Method::Range
    }

    /// Finds the range of what training has collected; the vendor's tool leaves it at nothing.
    pub fn settle(&mut self) {
        if let (Method::Divergence | Method::Percentile(_), Some(histogram)) = (self.params.method(), self.histogram())
        {
            self.clip(&histogram);
        }
    }

    fn grids(&self) -> Vec<Grid> {
        self.ranges.iter().map(|range| Grid::new(*range, &self.params)).collect()
    }

    fn channels(&self, tensor: &Tensor) -> Channels {
        Channels::of(tensor.shape(), self.params.channel_axis)
    }
}

impl Scheme for Affine {
    fn from_parameters(class: &str, parameters: Value) -> Result<Self, String> {
        let p: Params = crate::scheme::interface::settings(class, parameters)?;
        match p.check() {
            Ok(()) => Ok(Self::new(p)),
            Err(bad) => Err(format!("{bad} of a {class}")),
        }
    }

    fn parameters(&self) -> Map<String, Value> {
        match json!(self.params) {
            Value::Object(all) => all,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
        }
    }

    fn set_width(&mut self, bits: u8) {
        self.params.bit_width = bits;
    }

    fn channel_axis(&self) -> Option<i64> {
        self.params.per_channel.then_some(self.params.channel_axis)
    }

    fn calibrator(&self) -> Box<dyn Calibrator<Self>> {
        let own = Self::new(self.params.clone());
        match self.params.method() {
            Method::Range => Box::new(Running(own)),
            Method::Divergence | Method::Percentile(_) => Box::new(Collected { own, histogram: None }),
        }
    }

    fn fake_quantize(&self, tensor: &mut Tensor) {
        let grids = self.grids();
        let narrow = self.params.bit_width <= 16;
        if self.params.per_channel {
            let channels = self.channels(tensor);
            let grid = |channel: usize| grids.get(channel % channels.count.max(1));
            // Elements of one channel that lie side by side: one, where the channels are the last axis.
            match channels.run() {
                1 => grid::fake_quantize_each(tensor.data_mut(), &grids, narrow),
                run => tensor.data_mut().chunks_mut(run).enumerate().for_each(|(k, run)| {
                    if let Some(grid) = grid(k) {
                        grid::fake_quantize(run, grid, narrow);
                    }
                }),
            }
        } else if let Some(grid) = grids.first() {
            tensor.data_mut().par_chunks_mut(BLOCK).for_each(|block| grid::fake_quantize(block, grid, narrow));
        }
    }

    fn pos(&self) -> Option<FixPos> {
        None
    }

    fn set_pos(&mut self, _: FixPos) {}

    fn parts(&self) -> Vec<Part> {
        let part = |name, value: fn(&Range) -> f32| Part::state(name, self.ranges.iter().map(value).collect());
        let more = |name, values| Part { name, values, trained: false, infinite: false };
        vec![
            part("min", |s| s.min),
            part("max", |s| s.max),
            // A tensor of zeros has infinitely many steps per unit.
            Part { infinite: true, ..part("scale", |s| s.scale) },
            more("calib_hist", Numbers::Integers(self.counts.clone())),
            more("calib_bin_edges", Numbers::Floats(self.edges.clone())),
        ]
    }

    fn restore(&mut self, prefix: &str, values: Vec<Numbers>) -> Result<(), String> {
        let Ok(
            [
                Numbers::State(min),
                Numbers::State(max),
                Numbers::State(scale),
                Numbers::Integers(counts),
                Numbers::Floats(edges),
            ],
        ) = <[Numbers; 5]>::try_from(values)
        else {
            return Err(format!("its `{prefix}` has no state"));
        };
        let ranges = min.iter().zip(&max).zip(&scale).map(|((min, max), scale)| {
            if !(min.is_finite() && max.is_finite() && min <= max) {
                return Err(format!("its `{prefix}_min` is {min} and its `{prefix}_max` is {max}"));
            }
            Ok(Range { min: *min, max: *max, scale: *scale })
        });
        self.ranges = ranges.collect::<Result<_, _>>()?;
        if edges.iter().any(|edge| !edge.is_finite()) {
            return Err(format!("its `{prefix}_calib_bin_edges` are not finite"));
        }
        (self.counts, self.edges) = (counts, edges);
        Ok(())
    }

    fn info(&self) -> Map<String, Value> {
        let p = &self.params;
        let all = |value: &dyn Fn(usize) -> Value| match (p.per_channel, self.ranges.len()) {
            (false, 1) => value(0),
            (_, n) => (0..n).map(value).collect(),
        };
        let steps = self.steps();
        let entries = [
            ("bit_width", json!(p.bit_width)),
            ("signed", json!(!p.unsigned)),
            ("round_mode", json!(p.round_mode)),
            ("min", all(&|k| json!(self.ranges[k].min))),
            ("max", all(&|k| json!(self.ranges[k].max))),
            ("scale", all(&|k| json!(steps[k].0))),
            ("zero_point", all(&|k| json!(steps[k].1 as i64))),
        ];
        entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    fn dump_factors(&self) -> Vec<f32> {
        self.ranges.iter().map(|range| range.scale).collect()
    }

    fn integers(&self, tensor: &Tensor) -> Option<Vec<i32>> {
        let grids = self.grids();
        if !self.params.per_channel {
            return Some(grid::integers(tensor.data(), grids.first()?));
        }
        let channels = self.channels(tensor);
        let runs = tensor.data().chunks(channels.run()).enumerate();
        let of = |(k, run): (usize, &[f32])| Some(grid::integers(run, grids.get(k % channels.count.max(1))?));
        Some(runs.map(of).collect::<Option<Vec<_>>>()?.concat())
    }

    /// Ranges grow from batch to batch. Histograms grow instead, and meanwhile nothing is quantized, as in the vendor's tool.
    fn train(&mut self, tensor: &mut Tensor) -> Result<bool, RangeError> {
        match self.params.method() {
            Method::Range => {
                self.widen(tensor)?;
                self.fake_quantize(tensor);
                return Ok(true);
            }
            Method::Divergence | Method::Percentile(_) => {}
        }
        let histogram = match self.histogram() {
            Some(mut histogram) => {
                histogram.add(tensor.data(), 1)?;
                Some(histogram)
            }
            None => Histogram::first(tensor.data())?,
        };
        if let Some(histogram) = histogram {
            self.keep(histogram);
        }
        Ok(false)
    }

    /// By the tensor: passed inside the range, as it is on the grid. By its ends, where the vendor's own arithmetic is used:
    /// what lies beyond.
    fn backward(&self, tensor: &Tensor, of_result: &Tensor) -> Gradients {
        let channels =
            if self.params.per_channel { self.channels(tensor) } else { Channels::whole(tensor.data().len()) };
        let passes: Vec<(f32, f32)> = self.grids().iter().map(Grid::passes).collect();
        let (mut min, mut max) = (vec![0.0f64; passes.len()], vec![0.0f64; passes.len()]);
        let mut by_tensor = of_result.clone();
        for (i, (dy, x)) in by_tensor.data_mut().iter_mut().zip(tensor.data()).enumerate() {
            let channel = channels.of_element(i);
            let Some((low, high)) = passes.get(channel) else { continue };
            if x < low {
                min[channel] += f64::from(*dy);
            } else if x > high {
                max[channel] += f64::from(*dy);
            } else {
                continue;
            }
            *dy = 0.0;
        }
        let single = |sums: Vec<f64>| sums.into_iter().map(|sum| sum as f32).collect();
        let parts = match self.params.use_framework_quant {
            true => Vec::new(),
            false => vec![("min", single(min)), ("max", single(max))],
        };
        Gradients { tensor: by_tensor, parts }
    }
}

/// The range of all batches so far.
#[derive(Debug)]
struct Running(Affine);

impl Calibrator<Affine> for Running {
    fn see(&mut self, tensor: &Tensor) -> Result<(), RangeError> {
        self.0.widen(tensor)
    }

    fn fake_quantize(&self, tensor: &mut Tensor) {
        self.0.fake_quantize(tensor);
    }

    /// The steps per unit of weights are stored, by the width of the layer's first weight, as in the vendor's tool.
    fn finish(self: Box<Self>, subject: Subject<'_, Affine>) -> Result<Affine, RangeError> {
        let mut own = self.0;
        if let Subject::Weight { first: Some(first) } = subject {
            let (low, high) = first.params.bounds();
            own.ranges.iter_mut().for_each(|range| range.scale = (high - low) / (range.max - range.min));
        }
        Ok(own)
    }
}

/// A histogram of all batches so far.
#[derive(Debug)]
struct Collected {
    own: Affine,
    histogram: Option<Histogram>,
}

impl Calibrator<Affine> for Collected {
    fn see(&mut self, tensor: &Tensor) -> Result<(), RangeError> {
        match &mut self.histogram {
            Some(histogram) => histogram.add(tensor.data(), 1)?,
            None => self.histogram = Histogram::first(tensor.data())?,
        }
        Ok(())
    }

    fn see_again(&mut self, tensor: &Tensor, times: usize) -> Result<(), RangeError> {
        match &mut self.histogram {
            Some(histogram) if times > 0 => histogram.add(tensor.data(), times as u64),
            Some(_) | None => Ok(()),
        }
    }

    fn fake_quantize(&self, _: &mut Tensor) {}

    fn finish(self: Box<Self>, _: Subject<'_, Affine>) -> Result<Affine, RangeError> {
        let Self { mut own, histogram } = *self;
        let Some(histogram) = histogram else { return Ok(own) };
        own.clip(&histogram);
        own.keep(histogram);
        Ok(own)
    }
}
