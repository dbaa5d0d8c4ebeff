//! The kernel, bias and positions of one layer, solved for on its quantized inputs.

use rayon::prelude::*;

use super::moments::{Groups, Moments};
use super::solve::Factor;
use shiftwise_core::fix;
use shiftwise_tensor::tensor::Tensor;

/// What is added to the diagonal of a group's second moments, as a share of its mean: towards the float weights.
const DAMPINGS: [f64; 3] = [0.01, 0.05, 0.3];

/// Of [`DAMPINGS`], the one for rounding the float weights themselves.
const FOR_ROUNDING: usize = 1;

/// Integers of a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Integers {
    /// The least.
    pub(super) low: f64,
    /// The largest.
    pub(super) high: f64,
}

impl Integers {
    /// The nearest value of the grid of a position.
    pub(super) fn nearest(self, value: f64, position: i32) -> f64 {
        let scale = f64::from(fix::exp2(position));
        (value * scale).round_ties_even().clamp(self.low, self.high) / scale
    }

    /// Of these positions the one with the least squared error; the coarsest of equal ones.
    pub(super) fn best(self, values: &[f64], positions: std::ops::RangeInclusive<i32>) -> i32 {
        let error = |p: i32| values.iter().map(|v| (v - self.nearest(*v, p)).powi(2)).sum::<f64>();
        let mut best = (*positions.start(), f64::INFINITY);
        for p in positions {
            let own = error(p);
            if own < best.1 {
                best = (p, own);
            }
        }
        best.0
    }
}

/// What a layer's weights may be.
#[derive(Clone, Debug)]
pub(super) struct Task<'a> {
    /// How the kernel falls apart.
    pub(super) groups: &'a Groups,
    /// The float kernel.
    pub(super) kernel: &'a Tensor,
    /// The kernel as it is quantized now.
    pub(super) quantized: &'a Tensor,
    /// The bias as it is quantized now.
    pub(super) bias: Option<&'a Tensor>,
    /// Integers of the kernel.
    pub(super) integers: Integers,
    /// The kernel's position now.
    pub(super) position: i32,
    /// Positions that it may have.
    pub(super) positions: std::ops::RangeInclusive<i32>,
}

/// A kernel with what it costs.
#[derive(Clone, Debug)]
pub(super) struct Solved {
    /// The kernel; `None` if it stays as it is.
    pub(super) kernel: Option<Tensor>,
    /// The kernel's position.
    pub(super) position: i32,
    /// Mean squared error on held-out pixels: now, with the bias refitted, with the kernel solved for too.
    pub(super) errors: [f64; 3],
}

/// What is known of one group.
struct Group {
    fit: Moments,
    held: Moments,
    float: Vec<f64>,
    /// For each damping, the factored moments in the order of `order`, and the kernel that they ask for, in that order.
    systems: Vec<Option<(Factor, Vec<f64>)>>,
    /// Inputs by the square that they have in the mean, the least first: rounding begins with the last.
    order: Vec<usize>,
}

/// Which kernel is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// The float weights.
    Weights,
    /// What a damping asks for.
    Output(usize),
}

impl Target {
    fn damping(self) -> usize {
        match self {
            Self::Weights => FOR_ROUNDING,
            Self::Output(damping) => damping,
        }
    }
}

/// Rows of a matrix `[_, width]` in another order.
fn ordered(rows: &[f64], width: usize, order: &[usize]) -> Vec<f64> {
    order.iter().flat_map(|i| &rows[i * width..(i + 1) * width]).copied().collect()
}

/// The rows back where they were.
fn restored(rows: &[f64], width: usize, order: &[usize]) -> Vec<f64> {
    let mut back = vec![0.0; rows.len()];
    for (row, i) in rows.chunks_exact(width).zip(order) {
        back[i * width..(i + 1) * width].copy_from_slice(row);
    }
    back
}

/// A system of a group at one damping; see [`Group::systems`].
fn system(moments: &Moments, float: &[f64], order: &[usize], bias: bool, damping: f64) -> Option<(Factor, Vec<f64>)> {
    let (k, c) = (order.len(), float.len() / order.len().max(1));
    let (xx, xy) = moments.centred(bias);
    let diagonal = (0..k).map(|i| xx[i * k + i]).sum::<f64>() / k.max(1) as f64;
    let added = damping * diagonal;
    let rows = ordered(&xx, k, order);
    let both: Vec<f64> = rows.chunks_exact(k).flat_map(|row| order.iter().map(|j| row[*j])).collect();
    let factor = Factor::new(&both, k, added)?;
    let mut wanted = ordered(&xy, c, order);
    wanted.iter_mut().zip(ordered(float, c, order)).for_each(|(v, w)| *v += added * w);
    factor.solve(&mut wanted, c);
    Some((factor, wanted))
}

impl Group {
    fn new(fit: Moments, held: Moments, float: Vec<f64>, bias: bool) -> Self {
        let (xx, _) = fit.centred(bias);
        let k = (xx.len() as f64).sqrt().round() as usize;
        let mut order: Vec<usize> = (0..k).collect();
        order.sort_by(|a, b| xx[a * k + a].total_cmp(&xx[b * k + b]).then(a.cmp(b)));
        let systems = DAMPINGS.map(|damping| system(&fit, &float, &order, bias, damping)).into();
        Self { fit, held, float, systems, order }
    }

    /// The bias for a kernel by the moments of these pixels.
    fn bias(&self, moments: &Moments, kernel: &[f64], bias: bool) -> Vec<f64> {
        let outputs = kernel.len() / self.order.len().max(1);
        if bias { moments.bias(kernel) } else { vec![0.0; outputs] }
    }

    /// The error on held-out pixels of a kernel whose bias is fitted on the others.
    fn error(&self, kernel: &[f64], bias: bool) -> f64 {
        self.held.errors(kernel, &self.bias(&self.fit, kernel, bias)).iter().sum()
    }

    /// A target on the grid of a position; `None` where the moments decide nothing.
    fn rounded(&self, target: Target, position: i32, integers: Integers) -> Option<Vec<f64>> {
        let (factor, wanted) = self.systems.get(target.damping())?.as_ref()?;
        Some(self.round(factor, wanted, target, position, integers))
    }

    fn round(&self, factor: &Factor, wanted: &[f64], target: Target, position: i32, integers: Integers) -> Vec<f64> {
        let outputs = self.float.len() / self.order.len().max(1);
        let mut kernel = match target {
            Target::Weights => ordered(&self.float, outputs, &self.order),
            Target::Output(_) => wanted.to_vec(),
        };
        factor.round(&mut kernel, outputs, &|v| integers.nearest(v, position));
        restored(&kernel, outputs, &self.order)
    }

    /// [`Group::rounded`] by the moments of all pixels.
    fn final_kernel(&self, target: Target, position: i32, integers: Integers, bias: bool) -> Option<Vec<f64>> {
        let all = self.fit.plus(&self.held);
        let (factor, wanted) = system(&all, &self.float, &self.order, bias, DAMPINGS[target.damping()])?;
        Some(self.round(&factor, &wanted, target, position, integers))
    }

    /// Of several targets the one with the least error at a position.
    fn best(&self, targets: &[Target], position: i32, integers: Integers, bias: bool) -> Option<(Target, f64)> {
        let of = |target: &Target| {
            let kernel = self.rounded(*target, position, integers)?;
            Some((*target, self.error(&kernel, bias)))
        };
        targets.iter().filter_map(of).reduce(|best, own| if own.1 < best.1 { own } else { best })
    }
}

/// Every target.
const TARGETS: [Target; 4] = [Target::Weights, Target::Output(0), Target::Output(1), Target::Output(2)];

/// Solves for a layer's kernel.
///
/// `x` are the quantized inputs, `y` the float results before the activation, both for each sample; `fit` and `held` are
/// pixels as (sample, pixel). Errors in the result are means over the held-out pixels and all output channels.
pub(super) fn solve(
    task: &Task<'_>,
    x: &[Tensor],
    y: &[Tensor],
    fit: &[(usize, usize)],
    held: &[(usize, usize)],
) -> Solved {
    let groups = task.groups;
    let bias = task.bias.is_some();
    let group = |g: usize| {
        let [fit, held] = [fit, held].map(|pixels| Moments::of(groups, g, x, y, pixels));
        Group::new(fit, held, groups.take(task.kernel.data(), g), bias)
    };
    let all: Vec<Group> = (0..groups.count).into_par_iter().map(group).collect();
    let channels = (groups.count * groups.outputs).max(1) as f64;
    let as_is = |(g, own): (usize, &Group)| {
        let kernel = groups.take(task.quantized.data(), g);
        let own_bias = |b: &Tensor| (0..groups.outputs).map(|c| f64::from(b.data()[g * groups.outputs + c])).collect();
        let now = own.held.errors(&kernel, &task.bias.map_or_else(|| vec![0.0; groups.outputs], own_bias));
        [now.iter().sum::<f64>(), own.error(&kernel, bias)]
    };
    let costs: Vec<[f64; 2]> = all.par_iter().enumerate().map(as_is).collect();
    let [now, refitted] = [0, 1].map(|k| costs.iter().map(|cost| cost[k]).sum::<f64>() / channels);
    let stays = Solved { kernel: None, position: task.position, errors: [now, refitted, refitted] };
    let Some((position, targets, error)) = search(task, &all, bias) else { return stays };
    let error = error / channels;
    if error.partial_cmp(&refitted.min(now)) != Some(std::cmp::Ordering::Less) {
        return stays;
    }
    let kernels: Option<Vec<Vec<f64>>> = all
        .par_iter()
        .zip(&targets)
        .map(|(own, target)| own.final_kernel(*target, position, task.integers, bias))
        .collect();
    let Some(kernels) = kernels else { return stays };
    let mut kernel = task.kernel.clone();
    kernels.iter().enumerate().for_each(|(g, own)| groups.put(kernel.data_mut(), g, own));
    Solved { kernel: Some(kernel), position, errors: [now, refitted, error] }
}

/// The position of the kernel, the target of each group, and the sum of their errors. The first position is the one that the
/// layer has; then finer and coarser ones are tried as long as the error falls.
fn search(task: &Task<'_>, all: &[Group], bias: bool) -> Option<(i32, Vec<Target>, f64)> {
    let at = |position: i32, targets: &dyn Fn(usize) -> Vec<Target>| {
        let lists: Vec<Vec<Target>> = (0..all.len()).map(targets).collect();
        let found: Option<Vec<(Target, f64)>> =
            all.par_iter().zip(&lists).map(|(own, list)| own.best(list, position, task.integers, bias)).collect();
        let found = found?;
        let error = found.iter().map(|(_, error)| error).sum::<f64>();
        Some((position, found.into_iter().map(|(target, _)| target).collect::<Vec<_>>(), error))
    };
    let start = task.position.clamp(*task.positions.start(), *task.positions.end());
    let mut best = at(start, &|_| TARGETS.to_vec())?;
    // Larger groups keep their target: trying all of them at every position costs more than it brings.
    let few = task.groups.inputs > 64;
    for step in [1, -1] {
        let from = best.0;
        while task.positions.contains(&(best.0 + step)) {
            let again = |g: usize| if few { vec![best.1[g]] } else { TARGETS.to_vec() };
            match at(best.0 + step, &again) {
                Some(own) if own.2 < best.2 => best = own,
                Some(_) | None => break,
            }
        }
        if best.0 != from {
            break;
        }
    }
    Some(best)
}
