//! The power-of-two quantizer on whole tensors: range, position, fake quantization.
//!
//! The arithmetic is f32 in the order of the vendor's tool as TensorFlow executes it inside a graph, where division by
//! a constant has become multiplication by its f32 reciprocal. Sums over a tensor are f64 in fixed blocks, so the
//! result doesn't depend on the number of threads.

use rayon::prelude::*;
use serde_json::{Map, Value, json};

use crate::observer::extrema::{extrema, range};
use crate::observer::range_error::RangeError;
use crate::scheme::channels::Channels;
use crate::scheme::interface::{Calibrator, Numbers, Part, Scheme, Sheet, Subject};
use grid::Grid;
use search::Search;
use shiftwise_core::fix::{FixPos, FixSpec};
use shiftwise_graph::eval::{Pass, Settled};
use shiftwise_tensor::tensor::Tensor;

pub use params::{Method, Params, Rounding};
pub use state::State;

mod fix_neuron;
mod grid;
mod params;
mod search;
mod state;

/// Elements that one task works on; also the block of a deterministic sum.
const BLOCK: usize = 1 << 14;

/// Reciprocal of ln 2 as f32(1 / f32(ln 2)).
pub(super) const PER_LN_2: f32 = f32::from_bits(0x3FB8_AA3B);

/// The scheme's sheet.
pub(super) const SHEET: Sheet = Sheet {
    title: "Power-of-two steps",
    formula: "y = clamp(round(x · 2^p), qmin, qmax) · 2^(−p) with the position p; where `symmetry` is off, \
              y = (clamp(qmin + round((x − m) · 2^p), qmin, qmax) − qmin) · 2^(−p) + m with m = (qmin − z) · 2^(−p) and the \
              zero point z = clamp(round half away from zero(qmin − min · 2^p), qmin, qmax)",
    rounding: "`round`; with `use_fixneuron_quant` half up for weights and half away from zero for all else",
    saturation: "the integer is clamped, behind rounding",
    calibration: "method 0: the largest p at which the range has no integer beyond the bounds; 1: of that p and the four above \
                  the one with the least squared error; every batch chooses, and the most frequent p wins",
    gradient: "passed straight through, beyond the bounds too",
    source: "the vendor's tool; tests `scheme::pof2` and `golden`",
};

/// A power-of-two quantizer.
#[derive(Clone, Debug, PartialEq)]
pub struct Pof2 {
    /// Settings.
    pub params: Params,
    /// One, or one for each channel: those are known only after calibration.
    pub states: Vec<State>,
}

impl Pof2 {
    /// Not yet calibrated.
    pub fn new(params: Params) -> Self {
        let states = if params.per_channel { Vec::new() } else { vec![State::default()] };
        Self { params, states }
    }

    /// What fake-quantizes the values of one sample in place, unless there is a grid for each channel.
    pub fn by_sample(&self) -> Option<impl Fn(&mut [f32]) + Send + Sync + 'static> {
        let fit = self.states.first().filter(|_| !self.params.per_channel)?;
        let (grid, pos, rounding) = (Grid::new(fit, &self.params), fit.pos, self.params.rounding());
        Some(move |values: &mut [f32]| match rounding {
            Rounding::FixNeuron(round) => fix_neuron::fake_quantize(values, pos, round),
            Rounding::Plain(_) => grid::fake_quantize(values, &grid),
        })
    }

    /// Whether positions are found in passes over the samples of a batch ([`Calibrator::see_samples`]), and whether these
    /// become integers of 8 bits.
    pub fn in_passes(&self) -> Option<bool> {
        let plain = matches!(self.params.rounding(), Rounding::Plain(_)) && !self.params.per_channel;
        plain.then(|| Grid::has_codes(&self.params))
    }

    /// The integers of values on a grid of at most 8 bits whose zero has no sign.
    pub fn codes(&self, values: &[f32]) -> Option<Vec<i8>> {
        let fit = self.states.first().filter(|_| self.in_passes() == Some(true))?;
        let mut codes = vec![0; values.len()];
        grid::codes(values, &Grid::new(fit, &self.params), &mut codes);
        Some(codes)
    }

    /// The integer grid, unless there is one for each channel.
    pub fn spec(&self) -> Option<FixSpec> {
        Some(FixSpec { pos: self.pos()?, bits: self.params.bit_width, signed: !self.params.unsigned })
    }
}

impl Scheme for Pof2 {
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
        Box::new(Votes { params: self.params.clone(), count: Vec::new(), last: Vec::new() })
    }

    fn fake_quantize(&self, tensor: &mut Tensor) {
        fake_quantize(tensor, &self.states, &self.params);
    }

    fn pos(&self) -> Option<FixPos> {
        match self.states[..] {
            [one] if !self.params.per_channel => Some(one.pos),
            _ => None,
        }
    }

    fn set_pos(&mut self, pos: FixPos) {
        if let ([one], false) = (&mut self.states[..], self.params.per_channel) {
            one.pos = pos;
        }
    }

    fn parts(&self) -> Vec<Part> {
        let part = |name, value: fn(&State) -> f32| Part::state(name, self.states.iter().map(value).collect());
        vec![part("min", |s| s.min), part("max", |s| s.max), part("pos", |s| f32::from(s.pos.0))]
    }

    fn restore(&mut self, prefix: &str, values: Vec<Numbers>) -> Result<(), String> {
        let [Numbers::State(min), Numbers::State(max), Numbers::State(pos)] = &values[..] else {
            return Err(format!("its `{prefix}` has no state"));
        };
        let states = min.iter().zip(max).zip(pos).map(|((min, max), pos)| {
            if pos.fract() != 0.0 || !(f32::from(i8::MIN)..=f32::from(i8::MAX)).contains(pos) {
                return Err(format!("its `{prefix}_pos` is {pos}, a whole number from -128 to 127 is expected"));
            }
            Ok(State::new(FixPos(*pos as i8), *min, *max))
        });
        self.states = states.collect::<Result<_, _>>()?;
        Ok(())
    }

    fn info(&self) -> Map<String, Value> {
        let p = &self.params;
        let position = match self.pos() {
            Some(pos) => json!(pos.0),
            None => self.states.iter().map(|state| state.pos.0).collect(),
        };
        let all = [
            ("bit_width", json!(p.bit_width)),
            ("signed", json!(!p.unsigned)),
            ("round_mode", json!(p.round_mode)),
            ("position", position),
        ];
        all.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    fn dump_factors(&self) -> Vec<f32> {
        self.states.iter().map(|state| state.pos.scale()).collect()
    }

    /// Every batch has its own position.
    fn train(&mut self, tensor: &mut Tensor) -> Result<bool, RangeError> {
        self.states = calibrate(tensor, &self.params)?;
        self.fake_quantize(tensor);
        Ok(true)
    }
}

/// Positions that the batches voted for, and the last batch's state.
#[derive(Debug)]
struct Votes {
    params: Params,
    /// (position, votes) in order of first appearance.
    count: Vec<(FixPos, usize)>,
    last: Vec<State>,
}

impl Votes {
    fn add(&mut self, states: Vec<State>) {
        // Channels don't vote: the last batch decides, as in the vendor's tool.
        if let [one] = states[..] {
            match self.count.iter_mut().find(|(p, _)| *p == one.pos) {
                Some((_, n)) => *n += 1,
                None => self.count.push((one.pos, 1)),
            }
        }
        self.last = states;
    }

    /// The most frequent position; of equally frequent ones the one that appeared first, or, for FixNeuron, the smallest.
    fn winner(&self) -> FixPos {
        let most = self.count.iter().map(|(_, n)| *n).max().unwrap_or(0);
        let mut best = self.count.iter().filter(|(_, n)| *n == most).map(|(p, _)| *p);
        let winner = match self.params.rounding() {
            Rounding::FixNeuron(_) => best.min_by_key(|p| p.0),
            Rounding::Plain(_) => best.next(),
        };
        winner.unwrap_or_default()
    }
}

impl Calibrator<Pof2> for Votes {
    fn see(&mut self, tensor: &Tensor) -> Result<(), RangeError> {
        self.add(calibrate(tensor, &self.params)?);
        Ok(())
    }

    fn see_samples(&mut self, values: usize, pass: Pass<'_>) -> Option<Result<Settled<'static>, RangeError>> {
        let codes = Pof2::new(self.params.clone()).in_passes()?;
        let state = match calibrate_samples(values, pass, &self.params) {
            Ok(state) => state,
            Err(e) => return Some(Err(e)),
        };
        self.add(vec![state]);
        let grid = Grid::new(&state, &self.params);
        Some(Ok(match codes {
            true => Settled::Codes(Box::new(move |values, to| grid::codes(values, &grid, to)), grid.step()),
            false => Settled::Change(Box::new(move |values| grid::fake_quantize(values, &grid))),
        }))
    }

    fn fake_quantize(&self, tensor: &mut Tensor) {
        fake_quantize(tensor, &self.last, &self.params);
    }

    fn seen(&self) -> Option<Value> {
        let count: Vec<(i8, usize)> = self.count.iter().map(|(pos, n)| (pos.0, *n)).collect();
        let last: Vec<(i8, u32, u32)> =
            self.last.iter().map(|own| (own.pos.0, own.min.to_bits(), own.max.to_bits())).collect();
        Some(json!([count, last]))
    }

    fn join(&mut self, later: &Value) -> Option<()> {
        type Seen = (Vec<(i8, usize)>, Vec<(i8, u32, u32)>);
        let (count, last): Seen = serde_json::from_value(later.clone()).ok()?;
        for (pos, votes) in count {
            match self.count.iter_mut().find(|(own, _)| own.0 == pos) {
                Some((_, n)) => *n = n.checked_add(votes)?,
                None => self.count.push((FixPos(pos), votes)),
            }
        }
        let one = |(pos, min, max): (i8, u32, u32)| {
            let state = State::new(FixPos(pos), f32::from_bits(min), f32::from_bits(max));
            (state.min.is_finite() && state.max.is_finite()).then_some(state)
        };
        let last = last.into_iter().map(one).collect::<Option<Vec<_>>>()?;
        if last.is_empty() || (!self.params.per_channel && last.len() != 1) {
            return None;
        }
        self.last = last;
        Some(())
    }

    fn finish(self: Box<Self>, subject: Subject<'_, Pof2>) -> Result<Pof2, RangeError> {
        let mut own = Pof2::new(self.params.clone());
        if self.params.per_channel {
            own.states = self.last;
        } else if let [last] = self.last[..] {
            let votes = matches!(subject, Subject::Data { vote: true });
            let pos = if votes { self.winner() } else { last.pos };
            own.states = vec![State::new(pos, last.min, last.max)];
        }
        Ok(own)
    }
}

/// The finest position at which nothing of the range overflows.
///
/// `floor(−ln(step) / ln 2)` in f32, including its artefacts: an exact power of two may give one less, an all-zero
/// tensor gives 51.
fn non_overflow((low, high): (f32, f32), p: &Params) -> i32 {
    let (qmin, qmax) = p.bounds();
    let step = if !p.symmetry {
        (high - low) * (1.0 / (qmax - qmin))
    } else if p.unsigned {
        high * (1.0 / qmax)
    } else {
        (low * (1.0 / qmin)).max(high * (1.0 / qmax))
    };
    let step = step.max(f32::EPSILON * f32::EPSILON * 0.015_625);
    // The f64 logarithm rounded to f32 is the correctly rounded f32 logarithm, on every platform alike.
    let ln = libm::log(f64::from(step)) as f32;
    (-ln * PER_LN_2).floor() as i32
}

/// Position and range of one tensor by the quantizer's method: one fit, or one for each channel.
fn calibrate(tensor: &Tensor, p: &Params) -> Result<Vec<State>, RangeError> {
    let data = tensor.data();
    if let Rounding::FixNeuron(round) = p.rounding() {
        return fix_neuron::calibrate(data, round, p.method()).map(|fit| vec![fit]);
    }
    if !p.per_channel {
        let whole: Pass<'_> = &mut |see: &mut dyn FnMut(&[f32])| see(data);
        return calibrate_samples(data.len(), whole, p).map(|fit| vec![fit]);
    }
    let parts = Channels::of(tensor.shape(), p.channel_axis).split(data);
    let mut fits = parts.iter().map(|part| first(extrema(part)?, p)).collect::<Result<Vec<State>, _>>()?;
    if p.method() == Method::MinMse {
        // One offset for all channels, chosen by the error of the whole tensor.
        let mut errors = [0.0f64; 5];
        for (part, fit) in parts.iter().zip(&fits) {
            errors.iter_mut().zip(squared_errors(part, fit, p)).for_each(|(sum, e)| *sum += e);
        }
        // The first of equal minima wins.
        let best = (1..5).fold(0, |best, i| if errors[i] < errors[best] { i } else { best });
        fits.iter_mut().for_each(|fit| fit.pos.0 = fit.pos.0.saturating_add(best as i8));
    }
    Ok(fits)
}

/// The range of a tensor with these extrema, and the finest position at which nothing of it overflows.
fn first(extrema: (f32, f32), p: &Params) -> Result<State, RangeError> {
    let (min, max) = range(extrema, p.integers())?;
    let pos = non_overflow((min, max), p).clamp(-128, 127);
    Ok(State::new(FixPos(pos as i8), min, max))
}

/// [`calibrate`] of a tensor that comes in parts, for a quantizer of one position and without FixNeuron arithmetic.
fn calibrate_samples(values: usize, pass: Pass<'_>, p: &Params) -> Result<State, RangeError> {
    let mut ends = Ok((f32::INFINITY, f32::NEG_INFINITY));
    pass(&mut |part| {
        if let Ok((low, high)) = ends {
            ends = extrema(part).map(|(smallest, largest)| (low.min(smallest), high.max(largest)));
        }
    });
    let mut fit = first(ends?, p)?;
    if p.method() == Method::MinMse {
        let mut search = Search::new(&fit, p, values);
        loop {
            pass(&mut |part| search.add(part));
            if !search.end() {
                break;
            }
        }
        fit.pos.0 = fit.pos.0.saturating_add(search.best());
    }
    Ok(fit)
}

/// Σ (x − fake-quantized x)² at the fit's position and the four finer ones, in one pass over the data.
fn squared_errors(data: &[f32], fit: &State, p: &Params) -> [f64; 5] {
    let grids: [Grid; 5] =
        std::array::from_fn(|i| Grid::new(&State { pos: FixPos(fit.pos.0.saturating_add(i as i8)), ..*fit }, p));
    let blocks: Vec<[f64; 5]> = data.par_chunks(BLOCK).map(|block| grid::squared_errors(block, &grids)).collect();
    blocks.iter().fold([0.0; 5], |sum, b| std::array::from_fn(|i| sum[i] + b[i]))
}

/// Replaces every value by its fake-quantized one: scaled, rounded, clamped to the integer range, scaled back.
///
/// `fits` has one entry, or one for each channel of the tensor.
fn fake_quantize(tensor: &mut Tensor, fits: &[State], p: &Params) {
    if p.per_channel {
        let channels = Channels::of(tensor.shape(), p.channel_axis);
        let grids: Vec<Grid> = fits.iter().map(|fit| Grid::new(fit, p)).collect();
        for (i, x) in tensor.data_mut().iter_mut().enumerate() {
            if let Some(grid) = grids.get(channels.of_element(i)) {
                *x = grid.one(*x);
            }
        }
        return;
    }
    let Some(fit) = fits.first() else { return };
    if let Rounding::FixNeuron(round) = p.rounding() {
        return fix_neuron::fake_quantize(tensor.data_mut(), fit.pos, round);
    }
    let grid = Grid::new(fit, p);
    tensor.data_mut().par_chunks_mut(BLOCK).for_each(|block| grid::fake_quantize(block, &grid));
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiftwise_core::arith::Round;
    use shiftwise_core::fix;

    fn pof2(bit_width: u8, method: u8, round_mode: u8) -> Params {
        serde_json::from_value(
            serde_json::json!({ "bit_width": bit_width, "method": method, "round_mode": round_mode }),
        )
        .unwrap()
    }

    fn fit(data: &[f32], p: &Params) -> Result<State, RangeError> {
        calibrate(&Tensor::vector(data.to_vec()), p).map(|fits| fits[0])
    }

    fn pos(data: &[f32], p: &Params) -> i8 {
        fit(data, p).unwrap().pos.0
    }

    fn quantized(data: &[f32], fits: &[State], p: &Params) -> Vec<f32> {
        let mut tensor = Tensor::vector(data.to_vec());
        fake_quantize(&mut tensor, fits, p);
        tensor.into_data()
    }

    #[test]
    fn the_most_frequent_position_wins_and_the_first_of_equals() {
        let vote = |positions: &[i8]| {
            let mut votes = Votes { params: pof2(8, 0, 1), count: Vec::new(), last: Vec::new() };
            positions.iter().for_each(|p| votes.add(vec![State::new(FixPos(*p), 0.0, 0.0)]));
            votes.winner().0
        };
        assert_eq!(vote(&[6, 7, 7, 6, 5]), 6);
        assert_eq!(vote(&[3, 2, 3, 2, 2, 3]), 3);
        assert_eq!(vote(&[4, 5, 5]), 5);
    }

    #[test]
    fn parts_of_the_batches_join_to_what_all_of_them_vote_for() {
        let batches = [1.0f32, 0.4, 0.4, 1.0, 2.0, 0.4].map(|x| Tensor::vector(vec![x, -x / 3.0]));
        for method in [0, 1] {
            let quantizer = Pof2::new(pof2(8, method, 1));
            let mut all = quantizer.calibrator();
            batches.iter().for_each(|b| all.see(b).unwrap());
            let mut joined = quantizer.calibrator();
            for part in [&batches[..1], &batches[1..4], &batches[4..]] {
                let mut own = quantizer.calibrator();
                part.iter().for_each(|b| own.see(b).unwrap());
                joined.join(&own.seen().unwrap()).unwrap();
            }
            assert_eq!(joined.seen(), all.seen());
            let data = || Subject::Data { vote: true };
            assert_eq!(joined.finish(data()).unwrap(), all.finish(data()).unwrap());
        }
        let mut own = Pof2::new(pof2(8, 0, 1)).calibrator();
        for bad in [
            json!(null),
            json!([[[1, 1]], []]),
            json!([[[300, 1]], [[3, 0, 0]]]),
            json!([[], [[3, 0x7f80_0000u32, 0]]]),
        ] {
            assert!(own.join(&bad).is_none(), "{bad}");
        }
    }

    /// Values observed from the vendor's tool.
    #[test]
    fn non_overflow_positions() {
        let p = pof2(8, 0, 1);
        assert_eq!(pos(&[1.0], &p), 6);
        assert_eq!(pos(&[-1.0], &p), 7);
        assert_eq!(pos(&[0.5, -0.3, 0.9, -1.1], &p), 6);
        assert_eq!(pos(&[0.0; 4], &p), 51);
        assert_eq!(pos(&[], &p), 51);
        assert_eq!(pos(&[-0.015_625], &p), 12, "an exact power of two that the logarithm misses");
        assert_eq!(pos(&[0.1, -0.7], &pof2(16, 0, 1)), 15);
        assert_eq!(pos(&[1.0, -1.0], &pof2(4, 0, 1)), 2);
        let c = fit(&[0.5, -0.3, 0.9, -1.1], &p).unwrap();
        assert_eq!((c.min, c.max), (-1.1, 1.091_406_2));
    }

    #[test]
    fn min_mse_clips_one_outlier_for_a_finer_step() {
        let mut data: Vec<f32> = (0..99).map(|i| -0.49 + 0.01 * i as f32).collect();
        data.push(0.51);
        assert_eq!(pos(&data, &pof2(8, 0, 1)), 7);
        assert_eq!(pos(&data, &pof2(8, 1, 1)), 8);
    }

    #[test]
    fn vector_rounding_equals_the_specified_one() {
        for mode in 0..4 {
            let p = pof2(16, 0, mode);
            let data: Vec<f32> = (-70_000..70_000).map(|i| i as f32 * 0.3 + 0.499_999_97).collect();
            let fast = quantized(&data, &[State { pos: FixPos(1), ..State::default() }], &p);
            for (x, y) in data.iter().zip(&fast) {
                let want = fix::round_f32(x * 2.0, Round::from_id(mode).unwrap()).clamp(-32768.0, 32767.0) / 2.0;
                assert_eq!(*y, want, "{x} mode {mode}");
            }
        }
    }

    #[test]
    fn bad_values_are_refused() {
        assert_eq!(fit(&[1.0, f32::NAN], &pof2(8, 0, 1)), Err(RangeError::NotFinite));
        assert_eq!(fit(&[f32::INFINITY], &pof2(8, 0, 1)), Err(RangeError::NotFinite));
        let unsigned = Params { unsigned: true, ..pof2(8, 0, 1) };
        assert_eq!(fit(&[-1.0], &unsigned), Err(RangeError::Negative));
        assert_eq!(pos(&[0.0, 0.5, 1.0], &unsigned), 7);
    }

    /// Values observed from the vendor's tool.
    #[test]
    fn an_asymmetric_range_is_moved_so_that_zero_is_on_the_grid() {
        let p = Params { symmetry: false, ..pof2(8, 0, 1) };
        let data = [-0.2, 0.5, 1.0];
        let fit = fit(&data, &p).unwrap();
        assert_eq!(fit.pos.0, 7);
        assert_eq!(quantized(&data, &[fit], &p), [-0.203_125, 0.5, 1.0]);
    }

    #[test]
    fn channels_have_positions_of_their_own_and_one_offset() {
        let p = Params { per_channel: true, ..pof2(8, 1, 0) };
        let tensor = Tensor::new(vec![2, 3], vec![1.0, 0.01, 0.0, -0.5, 0.02, 0.0]).unwrap();
        let fits = calibrate(&tensor, &p).unwrap();
        let plain = calibrate(&tensor, &Params { method: 0, ..p.clone() }).unwrap();
        let offsets: Vec<i8> = fits.iter().zip(&plain).map(|(a, b)| a.pos.0 - b.pos.0).collect();
        assert!(offsets.iter().all(|o| *o == offsets[0]), "{offsets:?}");
        assert_eq!(plain.iter().map(|f| f.pos.0).collect::<Vec<_>>(), [6, 12, 51]);
    }
}
