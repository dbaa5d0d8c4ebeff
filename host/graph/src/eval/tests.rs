//! The planned engine against the unplanned walk, bit for bit, on random graphs.

use std::collections::BTreeMap;

use super::*;
use crate::dtype::Dtype;
use crate::graph::Graph;
use crate::ops::pool::PoolWindow;
use crate::ops::*;

struct Rng(u64);

impl Rng {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
    fn below(&mut self, n: usize) -> usize {
        self.draw() as usize % n
    }
    fn tensor(&mut self, shape: &[usize]) -> Tensor {
        let data = (0..shape.iter().product()).map(|_| (self.draw() % 2001) as f32 / 700.0 - 1.4).collect();
        Tensor::new(shape.to_vec(), data).unwrap()
    }
    fn weighted(&mut self, kernel: &[usize], outputs: usize) -> Weighted {
        use ActivationFn::{Linear, Relu, Relu6, Sigmoid, Softmax, Swish};
        let activation = [Linear, Linear, Relu, Relu6, Softmax, Sigmoid, Swish][self.below(7)];
        let bias = (self.below(3) > 0).then(|| self.tensor(&[outputs]));
        Weighted { kernel: self.tensor(kernel), bias, activation }
    }
    fn norm(&mut self, c: usize) -> BatchNormalization {
        let variance = (0..c).map(|_| 0.2 + self.below(9) as f32).collect();
        BatchNormalization {
            gamma: Some(self.tensor(&[c])),
            beta: (self.below(2) > 0).then(|| self.tensor(&[c])),
            mean: self.tensor(&[c]),
            variance: Tensor::vector(variance),
            epsilon: 1e-3,
            momentum: BatchNormalization::MOMENTUM,
        }
    }
    /// A layer over one map of `[h, w, c]`.
    fn layer(&mut self, [h, w, c]: [usize; 3]) -> Op {
        let size = [1 + self.below(h.min(3)), 1 + self.below(w.min(3))];
        let strides = [1 + self.below(2), 1 + self.below(2)];
        let padding = [Padding::Valid, Padding::Same][self.below(2)];
        let (dilation, groups) = ([1, 1], if c % 2 == 0 { 1 + self.below(2) } else { 1 });
        let oc = groups * (1 + self.below(20));
        match self.below(13) {
            0 | 1 => {
                let w = self.weighted(&[size[0], size[1], c / groups, oc], oc);
                Op::Conv2D(Conv2D { w, strides, dilation, padding, groups })
            }
            2 | 3 => {
                let m = 1 + self.below(2);
                let w = self.weighted(&[size[0], size[1], c, m], c * m);
                Op::DepthwiseConv2D(DepthwiseConv2D { w, strides, dilation, padding })
            }
            4 => Op::Dense(Dense { w: self.weighted(&[c, oc], oc) }),
            5 | 6 => Op::BatchNormalization(self.norm(c)),
            7 => Op::Relu(
                [Relu::PLAIN, Relu { max_value: Some(1.0), negative_slope: 0.1, threshold: 0.2 }][self.below(2)]
                    .clone(),
            ),
            8 => Op::LeakyRelu(LeakyRelu { alpha: 0.1 }),
            9 => {
                let function = [ActivationFn::Linear, ActivationFn::Swish, ActivationFn::Relu6][self.below(3)];
                Op::Activation(Activate { function })
            }
            10 => Op::ZeroPadding2D(ZeroPadding2D { rows: [1, 0], columns: [2, 1] }),
            11 => Op::MaxPooling2D(MaxPooling2D { pool: PoolWindow { size, strides, padding } }),
            _ => Op::Softmax(Softmax { axis: -1 }),
        }
    }
}

/// A network over maps, in which results meet again and are looked at in the middle.
fn network(seed: u64) -> Graph {
    let mut rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut graph = Graph::default();
    let shape = vec![1 + rng.below(7), 1 + rng.below(7), 1 + rng.below(20)];
    let mut all = vec![graph.add("x", Op::Input(Input { shape }), Vec::new(), Vec::new()).unwrap()];
    graph.inputs = all.clone();
    for i in 0..3 + rng.below(12) {
        let from = if rng.below(4) > 0 { all[all.len() - 1] } else { all[rng.below(all.len())] };
        let [h, w, c] = graph.node(from).shape[..] else { unreachable!() };
        let like = |id: &&NodeId| graph.node(**id).shape == [h, w, c];
        let other = all.iter().filter(like).nth(rng.below(3)).copied();
        let merge = [Op::Add(Add), Op::Multiply(Multiply)][rng.below(2)].clone();
        let (op, inputs) = match (rng.below(6), other) {
            (0, Some(other)) => (merge, vec![from, other]),
            (1, _) => {
                let pool = Op::GlobalAveragePooling2D(GlobalAveragePooling2D { keepdims: true, dpu: false });
                let means = graph.add(format!("means{i}"), pool, vec![from], Vec::new()).unwrap();
                let inputs = if rng.below(2) > 0 { vec![from, means] } else { vec![means, from, from] };
                (merge, inputs)
            }
            _ => (rng.layer([h, w, c]), vec![from]),
        };
        all.push(graph.add(format!("l{i}"), op, inputs, Vec::new()).unwrap());
    }
    let last = all[all.len() - 1];
    let flat = graph.add("flat", Op::Flatten(Flatten), vec![last], Vec::new()).unwrap();
    graph.outputs = vec![flat, all[rng.below(all.len())]];
    if seed.is_multiple_of(4) {
        let half = [Dtype::Float16, Dtype::BFloat16][rng.below(2)];
        graph.nodes.iter_mut().filter(|_| rng.below(2) > 0).for_each(|node| node.dtype = half);
    }
    graph
}

/// Rounds to eighths at some points.
struct Eighths(u64);

impl Eighths {
    fn sits(&self, point: Point) -> bool {
        let (kind, id) = match point {
            Point::Input(..) => return false,
            Point::PreActivation(id) => (1, id),
            Point::PostActivation(id) => (2, id),
            Point::Output(id) => (3, id),
        };
        self.0 > 0 && Rng(self.0 ^ kind << 20 ^ (id.0 as u64) << 8).draw().is_multiple_of(3)
    }
    fn round(values: &mut [f32]) {
        values.iter_mut().for_each(|x| *x = (*x * 8.0).round() / 8.0);
    }
    fn wants(&self, id: NodeId) -> bool {
        [Point::PreActivation(id), Point::PostActivation(id), Point::Output(id)].into_iter().any(|p| self.sits(p))
    }
}

impl Points for Eighths {
    fn apply(&mut self, point: Point, tensor: &mut Tensor) -> Result<(), Error> {
        if self.sits(point) {
            Self::round(tensor.data_mut());
        }
        Ok(())
    }
    fn wants(&self, id: NodeId) -> bool {
        self.wants(id)
    }
}

impl<'a> SamplePoints<'a> for Eighths {
    fn change(&self, point: Point) -> Option<Change<'a>> {
        self.sits(point).then(|| Box::new(Self::round) as Change<'a>)
    }
    fn wants(&self, id: NodeId) -> bool {
        self.wants(id)
    }
}

#[test]
fn planned_execution_equals_the_walk_over_the_graph() {
    for seed in 0..400 {
        let graph = network(seed);
        let weights: Vec<Vec<Tensor>> =
            graph.nodes.iter().map(|n| n.op.layer().weights().into_iter().map(|(_, w)| w.clone()).collect()).collect();
        let batch = Rng(seed).tensor(&[&[3], graph.node(graph.inputs[0]).shape.as_slice()].concat());
        for points in [0, seed + 1] {
            let want = run(&graph, &weights, vec![batch.clone()], &mut Eighths(points)).unwrap();
            let engine = FloatEngine::with(&graph, weights.clone(), &Eighths(points));
            for turn in 0..2 {
                let got = engine.run(std::slice::from_ref(&batch)).unwrap();
                for (k, (want, got)) in want.iter().zip(&got).enumerate() {
                    let bits = |t: &Tensor| t.data().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                    assert_eq!(want.shape(), got.shape(), "seed {seed}, output {k}");
                    let ops: Vec<&str> = graph.nodes.iter().map(|n| n.op.class()).collect();
                    assert!(bits(want) == bits(got), "seed {seed}, turn {turn}, points {points}, output {k}: {ops:?}");
                }
            }
        }
    }
}

/// Sees whole batches at one point of some layers, and makes integers of a step that follows from the largest value.
struct Integers {
    eighths: Eighths,
    seen: BTreeMap<Point, Vec<u32>>,
}

impl Integers {
    fn new(seed: u64) -> Self {
        Self { eighths: Eighths(seed), seen: BTreeMap::new() }
    }
    fn look(&mut self, point: Point, x: &[f32]) {
        self.seen.entry(point).or_default().extend(x.iter().map(|x| x.to_bits()));
    }
    fn step(largest: f32) -> f32 {
        if largest.is_normal() { (largest / 127.0).log2().ceil().exp2() } else { 1.0 }
    }
    fn code(x: f32, step: f32) -> i8 {
        (x / step).round() as i8
    }
}

impl Points for Integers {
    fn apply(&mut self, point: Point, tensor: &mut Tensor) -> Result<(), Error> {
        let (Point::Input(id, _) | Point::PreActivation(id) | Point::PostActivation(id) | Point::Output(id)) = point;
        if self.at(id).is_some_and(|(own, _)| own == point) {
            self.look(point, tensor.data());
            let step = Self::step(tensor.data().iter().fold(0.0, |a, x| a.max(x.abs())));
            tensor.data_mut().iter_mut().for_each(|x| *x = f32::from(Self::code(*x, step)) * step);
        }
        Ok(())
    }
    fn wants(&self, id: NodeId) -> bool {
        self.at(id).is_some()
    }
}

impl<'a> BatchPoints<'a> for Integers {
    fn at(&self, id: NodeId) -> Option<(Point, bool)> {
        let all = [Point::PreActivation(id), Point::PostActivation(id), Point::Output(id)];
        let point = all.into_iter().filter(|_| id.0 > 0).find(|point| self.eighths.sits(*point))?;
        Some((point, Rng(self.eighths.0 + id.0 as u64).below(3) > 0))
    }
    fn settle(&mut self, point: Point, values: usize, pass: Pass<'_>) -> Result<Settled<'a>, Error> {
        let (mut largest, mut all) = (0.0f32, Vec::new());
        pass(&mut |x| largest = x.iter().fold(largest, |a, x| a.max(x.abs())));
        pass(&mut |x| all.extend_from_slice(x));
        assert_eq!(all.len(), values);
        self.look(point, &all);
        let (Point::Input(id, _) | Point::PreActivation(id) | Point::PostActivation(id) | Point::Output(id)) = point;
        let step = Self::step(largest);
        let change =
            move |values: &mut [f32]| values.iter_mut().for_each(|x| *x = f32::from(Self::code(*x, step)) * step);
        let encode =
            move |x: &[f32], to: &mut [i8]| to.iter_mut().zip(x).for_each(|(to, x)| *to = Self::code(*x, step));
        Ok(match self.at(id) {
            Some((_, true)) => Settled::Codes(Box::new(encode), step),
            Some((_, false)) | None => Settled::Change(Box::new(change)),
        })
    }
}

#[test]
fn batches_that_are_seen_layer_by_layer_are_those_of_the_walk_over_the_graph() {
    for seed in (0..400u64).filter(|seed| !seed.is_multiple_of(4)) {
        let graph = network(seed);
        let weights: Vec<Vec<Tensor>> =
            graph.nodes.iter().map(|n| n.op.layer().weights().into_iter().map(|(_, w)| w.clone()).collect()).collect();
        let batch = Rng(seed).tensor(&[&[5], graph.node(graph.inputs[0]).shape.as_slice()].concat());
        let mut want = Integers::new(seed + 1);
        run(&graph, &weights, vec![batch.clone()], &mut want).unwrap();
        // All is kept, some, nothing.
        for most in [1 << 20, 200, 0] {
            let mut got = Integers::new(seed + 1);
            let mut engine = BatchEngine::keeping(&graph, weights.clone(), &got, 5, most);
            engine.run(std::slice::from_ref(&batch), &mut got).unwrap();
            assert_eq!(want.seen.keys().collect::<Vec<_>>(), got.seen.keys().collect::<Vec<_>>(), "seed {seed}");
            for (point, want) in &want.seen {
                assert!(got.seen[point] == *want, "seed {seed}, at most {most}, {point:?}");
            }
        }
    }
}

#[test]
fn a_batch_of_another_shape_is_refused() {
    let graph = network(1);
    assert!(matches!(run_float(&graph, vec![Tensor::zeros(&[2, 99])]), Err(Error::InputShape(_))));
    assert!(matches!(run_float(&graph, Vec::new()), Err(Error::InputShape(_))));
}
