//! A network in floats, each layer quantized alone, and the quantized network, side by side on the same samples.

use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Point;
use shiftwise_graph::graph::NodeId;
use shiftwise_graph::ops::{ActivationFn, Op};
use shiftwise_quant::eval::quantized_weights;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::scheme::Quantizer;
use shiftwise_tensor::tensor::Tensor;

/// Bars of a histogram over the chosen range.
pub(super) const BARS: usize = 32;

/// Values that are looked at before they are counted.
const PART: usize = 64;

/// Counts that are kept apart.
const SIDE_BY_SIDE: usize = 4;

/// What is seen of a layer's result.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Sum of the squares of the float network's values.
    pub(super) signal: f64,
    /// Sum of squared differences: of the quantized network up to here.
    pub(super) cumulative: f64,
    /// Of this layer quantized alone, on float inputs.
    pub(super) alone: f64,
    /// Values that were seen where the layer is quantized, in floats.
    pub(super) values: u64,
    /// Those that the grid does not reach.
    pub(super) saturated: u64,
    /// Smallest and largest of them.
    pub(super) range: [f32; 2],
    /// Ends of the grid; `None` before the first batch, or without a quantizer of the result.
    pub(super) grid: Option<[f32; 2]>,
    /// Values over the grid, from end to end.
    pub(super) histogram: Vec<u64>,
    /// Largest magnitude of each channel of the last axis.
    pub(super) channels: Vec<f32>,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            signal: 0.0,
            cumulative: 0.0,
            alone: 0.0,
            values: 0,
            saturated: 0,
            range: [f32::INFINITY, f32::NEG_INFINITY],
            grid: None,
            histogram: vec![0; BARS],
            channels: Vec::new(),
        }
    }
}

/// Signal to noise in decibels; `None` where there is no noise, or nothing but noise.
pub(super) fn decibels(signal: f64, noise: f64) -> Option<f64> {
    (signal > 0.0 && noise > 0.0).then(|| 10.0 * (signal / noise).log10())
}

/// Sum of the squares of a tensor, and of its squared differences from two others: three chains that don't wait for each
/// other.
fn sums(y: &Tensor, others: [&Tensor; 2]) -> [f64; 3] {
    // What an iterator's sum begins with.
    let mut sums = [-0.0f64; 3];
    for ((y, a), b) in y.data().iter().zip(others[0].data()).zip(others[1].data()) {
        let y = f64::from(*y);
        let (a, b) = (y - f64::from(*a), y - f64::from(*b));
        sums = [sums[0] + y * y, sums[1] + a * a, sums[2] + b * b];
    }
    sums
}

/// Sum of squared differences.
pub(super) fn noise(a: &Tensor, b: &Tensor) -> f64 {
    a.data().iter().zip(b.data()).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum()
}

/// The ends of a quantizer's grid: what it makes of numbers beyond any.
fn grid(quantizer: &Quantizer) -> [f32; 2] {
    const FAR: f32 = 1e30;
    let mut ends = Tensor::vector(vec![-FAR, FAR]);
    quantizer.scheme().fake_quantize(&mut ends);
    match ends.data() {
        [low, high] => [*low, *high],
        _ => [0.0, 0.0],
    }
}

impl Seen {
    /// A batch in floats where it is quantized.
    fn look(&mut self, quantizer: &Quantizer, x: &Tensor) {
        let [low, high] = *self.grid.get_or_insert_with(|| grid(quantizer));
        // Half a step beyond the last value still rounds to it; a step is no more than this where the grid has 8 bits.
        let slack = (high - low) / 510.0;
        self.values += x.data().len() as u64;
        let width = high - low;
        // Counted side by side, as neighbours are often in one bar; behind the bars what the grid doesn't reach.
        let mut counts = [[0u64; BARS + 1]; SIDE_BY_SIDE];
        for part in x.data().chunks(PART) {
            let mut bars = [0u8; PART];
            for (bar, v) in bars.iter_mut().zip(part) {
                self.range = [self.range[0].min(*v), self.range[1].max(*v)];
                let inside = ((v - low) / width * BARS as f32) as i32;
                let outside = *v < low - slack || *v > high + slack;
                *bar = if outside { BARS as u8 } else { inside.clamp(0, BARS as i32 - 1) as u8 };
            }
            for bars in bars[..part.len()].chunks(SIDE_BY_SIDE) {
                counts.iter_mut().zip(bars).for_each(|(counts, bar)| counts[usize::from(*bar)] += 1);
            }
        }
        for counts in counts {
            self.saturated += counts[BARS];
            if width > 0.0 {
                self.histogram.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
            }
        }
        let count = x.shape().last().copied().unwrap_or(1).max(1);
        self.channels.resize(count, 0.0);
        for pixel in x.data().chunks_exact(count) {
            self.channels.iter_mut().zip(pixel).for_each(|(m, v)| *m = m.max(v.abs()));
        }
    }
}

/// The three networks.
pub(super) struct Walk<'q> {
    q: &'q QuantGraph,
    float: Vec<Vec<Tensor>>,
    quantized: Vec<Vec<Tensor>>,
    /// Per node.
    pub(super) seen: Vec<Seen>,
}

/// How a layer is computed.
enum Mode<'s> {
    /// In floats, looking at what would be quantized.
    Float(&'s mut Seen),
    Quantized,
}

impl<'q> Walk<'q> {
    pub(super) fn new(q: &'q QuantGraph) -> Self {
        let own = |op: &Op| op.layer().weights().into_iter().map(|(_, w)| w.clone()).collect();
        let float = q.graph.nodes.iter().map(|n| own(&n.op)).collect();
        Self { q, float, quantized: quantized_weights(q), seen: vec![Seen::default(); q.graph.nodes.len()] }
    }

    /// One layer on its inputs.
    fn layer(q: &QuantGraph, id: NodeId, inputs: &[&Tensor], weights: &[Tensor], mut mode: Mode<'_>) -> Tensor {
        let op = &q.graph.node(id).op;
        let mut at = |point: Point, x: &mut Tensor| {
            if let Some(quantizer) = q.quantizer(point) {
                match &mut mode {
                    Mode::Float(seen) => seen.look(quantizer, x),
                    Mode::Quantized => quantizer.scheme().fake_quantize(x),
                }
            }
        };
        let weights: Vec<&Tensor> = weights.iter().collect();
        let reads = q.layers.get(&id).is_some_and(|layer| layer.reads());
        let mut y = match op {
            Op::Input(_) => inputs[0].clone(),
            _ if reads => {
                let mut own: Vec<Tensor> = inputs.iter().map(|x| (*x).clone()).collect();
                own.iter_mut().enumerate().for_each(|(k, x)| at(Point::Input(id, k), x));
                op.layer().eval(&own.iter().collect::<Vec<_>>(), &weights)
            }
            _ => op.layer().eval(inputs, &weights),
        };
        at(Point::PreActivation(id), &mut y);
        let function = op.layer().activation();
        if function != ActivationFn::Linear {
            function.apply(&mut y);
        }
        at(Point::PostActivation(id), &mut y);
        at(Point::Output(id), &mut y);
        y
    }

    /// Takes a batch through all three.
    ///
    /// Errors: a batch that is not one of the network's.
    pub(super) fn batch(&mut self, inputs: Vec<Tensor>) -> Result<(), Error> {
        let q = self.q;
        let missing = || Error::Dataset("the data has fewer inputs than the network".into());
        let mut left = q.graph.uses();
        let mut values: Vec<Option<(Tensor, Tensor)>> = vec![None; q.graph.nodes.len()];
        let mut given: Vec<Option<Tensor>> = vec![None; q.graph.nodes.len()];
        for (id, x) in q.graph.inputs.iter().zip(inputs) {
            given[id.0] = Some(x);
        }
        for id in q.graph.ids() {
            let node = q.graph.node(id);
            let own = given[id.0].take();
            let (float, quantized): (Vec<&Tensor>, Vec<&Tensor>) = match (&node.op, &own) {
                (Op::Input(_), Some(x)) => (vec![x], vec![x]),
                (Op::Input(_), None) => return Err(missing()),
                _ => {
                    let read = |i: &NodeId| values[i.0].as_ref().map(|(a, b)| (a, b)).ok_or_else(missing);
                    node.inputs.iter().map(read).collect::<Result<Vec<_>, _>>()?.into_iter().unzip()
                }
            };
            let seen = &mut self.seen[id.0];
            let y = Self::layer(q, id, &float, &self.float[id.0], Mode::Float(seen));
            let alone = Self::layer(q, id, &float, &self.quantized[id.0], Mode::Quantized);
            let whole = Self::layer(q, id, &quantized, &self.quantized[id.0], Mode::Quantized);
            let [signal, of_alone, cumulative] = sums(&y, [&alone, &whole]);
            seen.signal += signal;
            seen.alone += of_alone;
            seen.cumulative += cumulative;
            values[id.0] = Some((y, whole));
            for input in &node.inputs {
                left[input.0] -= 1;
                if left[input.0] == 0 {
                    values[input.0] = None;
                }
            }
        }
        Ok(())
    }
}
