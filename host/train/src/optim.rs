//! Optimizers: THE table of rules by which a variable follows its gradient.
//!
//! Formulas, order of operations and defaults are those of Keras 2.12's `keras.optimizers` in f32: a constant of the
//! settings is a number of Python, which is rounded to f32 where it meets a tensor. A row names the optimizer as Keras
//! does, says how many tensors of state it keeps for a variable, and has the function of one step.

use rayon::prelude::*;

/// Values that one task updates.
const BLOCK: usize = 1 << 14;

/// What an optimizer is set to. What a rule doesn't know, it passes over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The rate of learning.
    pub rate: f64,
    /// How much of the last step is made again (`sgd`, `rmsprop`); 0 for none.
    pub momentum: f64,
    /// The share of a variable, times the rate, that is taken from it before each step. `None` for none.
    pub weight_decay: Option<f64>,
}

/// An optimizer: a row of [`OPTIMIZERS`].
#[derive(Debug)]
pub struct Optimizer {
    /// Keras' name.
    pub name: &'static str,
    /// What it does, as the end of a sentence.
    pub doc: &'static str,
    /// Weight decay, where the user says nothing.
    pub weight_decay: Option<f64>,
    /// Whether it has a momentum.
    pub has_momentum: bool,
    /// Tensors of state for each variable.
    states: fn(&Settings) -> usize,
    /// One step of a part of a variable.
    update: Update,
}

/// Factors, the values, their gradient, tensors of state.
type Update = fn(&Factors, &mut [f32], &[f32], &mut [&mut [f32]]);

/// Every optimizer.
#[rustfmt::skip]
pub const OPTIMIZERS: &[Optimizer] = &[
    Optimizer { name: "sgd", doc: "the gradient, with momentum where that is asked for",
                weight_decay: None, has_momentum: true, states: momentum_alone, update: sgd },
    Optimizer { name: "adam", doc: "the gradient's moving mean over the root of its moving square",
                weight_decay: None, has_momentum: false, states: |_| 2, update: adam },
    Optimizer { name: "adamw", doc: "as adam, with weight decay",
                weight_decay: Some(0.004), has_momentum: false, states: |_| 2, update: adam },
    Optimizer { name: "rmsprop", doc: "the gradient over the root of its moving square",
                weight_decay: None, has_momentum: true, states: |s| 1 + momentum_alone(s), update: rmsprop },
];

/// Keras' `beta_1` of Adam.
const BETA_1: f64 = 0.9;
/// Keras' `beta_2` of Adam.
const BETA_2: f64 = 0.999;
/// Keras' `rho` of RMSprop.
const RHO: f64 = 0.9;
/// Keras' `epsilon`.
const EPSILON: f64 = 1e-7;

/// What is the same for all values of a step, in f32.
#[derive(Clone, Copy, Debug)]
struct Factors {
    rate: f32,
    momentum: f32,
    /// Adam's rate with the corrections of its moving means.
    alpha: f32,
}

/// Tensors of state for a momentum.
fn momentum_alone(settings: &Settings) -> usize {
    usize::from(settings.momentum != 0.0)
}

impl Optimizer {
    /// The optimizer of a name.
    pub fn find(name: &str) -> Option<&'static Self> {
        OPTIMIZERS.iter().find(|own| own.name == name)
    }

    /// The state of a variable of so many values before its first step: zeros.
    pub fn state(&self, settings: &Settings, len: usize) -> Vec<Vec<f32>> {
        vec![vec![0.0; len]; (self.states)(settings)]
    }

    /// Makes step `step`, counted from 1, of one variable: `values` follow `gradient`. `state` comes from
    /// [`Optimizer::state`] with the same settings; what has another length is left alone.
    pub fn step(&self, settings: &Settings, step: u64, values: &mut [f32], gradient: &[f32], state: &mut [Vec<f32>]) {
        let rate = settings.rate as f32;
        if let Some(decay) = settings.weight_decay {
            let decay = decay as f32;
            values.par_chunks_mut(BLOCK).for_each(|values| values.iter_mut().for_each(|v| *v -= *v * decay * rate));
        }
        let power = |beta: f64| (beta as f32).powf(step as f32);
        let alpha = rate * (1.0 - power(BETA_2)).sqrt() / (1.0 - power(BETA_1));
        let factors = Factors { rate, momentum: settings.momentum as f32, alpha };
        let parts = values.par_chunks_mut(BLOCK).zip(gradient.par_chunks(BLOCK));
        match state {
            [] => parts.for_each(|(v, g)| (self.update)(&factors, v, g, &mut [])),
            [a] => parts.zip(a.par_chunks_mut(BLOCK)).for_each(|((v, g), a)| (self.update)(&factors, v, g, &mut [a])),
            [a, b, ..] => {
                let parts = parts.zip(a.par_chunks_mut(BLOCK)).zip(b.par_chunks_mut(BLOCK));
                parts.for_each(|(((v, g), a), b)| (self.update)(&factors, v, g, &mut [a, b]));
            }
        }
    }
}

/// `m = -g · rate + m · momentum; v += m`, or `v += -g · rate`.
fn sgd(f: &Factors, values: &mut [f32], gradient: &[f32], state: &mut [&mut [f32]]) {
    match state {
        [moment, ..] => {
            for ((v, g), m) in values.iter_mut().zip(gradient).zip(moment.iter_mut()) {
                *m = -g * f.rate + *m * f.momentum;
                *v += *m;
            }
        }
        [] => values.iter_mut().zip(gradient).for_each(|(v, g)| *v += -g * f.rate),
    }
}

/// `m += (g − m)(1 − β₁); s += (g² − s)(1 − β₂); v −= m · α / (√s + ε)`.
fn adam(f: &Factors, values: &mut [f32], gradient: &[f32], state: &mut [&mut [f32]]) {
    let [mean, square, ..] = state else { return };
    let (first, second, epsilon) = ((1.0 - BETA_1) as f32, (1.0 - BETA_2) as f32, EPSILON as f32);
    for (((v, g), m), s) in values.iter_mut().zip(gradient).zip(mean.iter_mut()).zip(square.iter_mut()) {
        *m += (g - *m) * first;
        *s += (g * g - *s) * second;
        *v -= (*m * f.alpha) / (s.sqrt() + epsilon);
    }
}

/// `s = ρ · s + (1 − ρ) · g²; d = rate · g / √(s + ε)`; then `m = momentum · m + d; v −= m`, or `v −= d`.
fn rmsprop(f: &Factors, values: &mut [f32], gradient: &[f32], state: &mut [&mut [f32]]) {
    let (rho, epsilon) = (RHO as f32, EPSILON as f32);
    let mut states = state.iter_mut();
    let Some(square) = states.next() else { return };
    let mut moment = states.next();
    for (i, ((v, g), s)) in values.iter_mut().zip(gradient).zip(square.iter_mut()).enumerate() {
        *s = rho * *s + (1.0 - rho) * (g * g);
        let step = f.rate * g * (1.0 / (*s + epsilon).sqrt());
        match moment.as_mut().and_then(|m| m.get_mut(i)) {
            Some(m) => {
                *m = f.momentum * *m + step;
                *v += -*m;
            }
            None => *v += -step,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(rate: f64) -> Settings {
        Settings { rate, momentum: 0.0, weight_decay: None }
    }

    /// Runs steps of one value along given gradients.
    fn path(name: &str, settings: &Settings, start: f32, gradients: &[f32]) -> Vec<f32> {
        let own = Optimizer::find(name).unwrap();
        let (mut values, mut state) = (vec![start], own.state(settings, 1));
        let step = |(k, g): (usize, &f32)| {
            own.step(settings, k as u64 + 1, &mut values, &[*g], &mut state);
            values[0]
        };
        gradients.iter().enumerate().map(step).collect()
    }

    /// The textbook's formulas in f64.
    #[test]
    fn every_optimizer_follows_its_formula() {
        let gradients = [0.5f32, -0.25, 2.0, 0.125];
        let near = |ours: Vec<f32>, theirs: Vec<f64>| {
            for (a, b) in ours.iter().zip(theirs) {
                // 1 - 0.999^t loses digits in f32, as in Keras.
                assert!((f64::from(*a) - b).abs() < 1e-5, "{a} {b}");
            }
        };
        let (mut v, mut m) = (1.0f64, 0.0f64);
        let momentum = Settings { momentum: 0.9, ..settings(0.1) };
        let sgd = gradients.map(|g| {
            m = 0.9 * m - 0.1 * f64::from(g);
            v += m;
            v
        });
        near(path("sgd", &momentum, 1.0, &gradients), sgd.to_vec());
        for decay in [0.0f64, 0.004] {
            let (mut v, mut m, mut s, mut t) = (1.0f64, 0.0f64, 0.0f64, 0);
            let adam = gradients.map(|g| {
                let g = f64::from(g);
                t += 1;
                v -= v * decay * 0.1;
                m = 0.9 * m + 0.1 * g;
                s = 0.999 * s + 0.001 * g * g;
                v -= 0.1 * (m / (1.0 - 0.9f64.powi(t))) / ((s / (1.0 - 0.999f64.powi(t))).sqrt() + 1e-7);
                v
            });
            let own = Settings { weight_decay: (decay > 0.0).then_some(decay), ..settings(0.1) };
            near(path(if decay > 0.0 { "adamw" } else { "adam" }, &own, 1.0, &gradients), adam.to_vec());
        }
        let (mut v, mut s) = (1.0f64, 0.0f64);
        let rms = gradients.map(|g| {
            let g = f64::from(g);
            s = 0.9 * s + 0.1 * g * g;
            v -= 0.1 * g / (s + 1e-7).sqrt();
            v
        });
        near(path("rmsprop", &settings(0.1), 1.0, &gradients), rms.to_vec());
    }

    #[test]
    fn names_are_unique_and_states_fit_their_variables() {
        for (i, own) in OPTIMIZERS.iter().enumerate() {
            assert!(OPTIMIZERS[..i].iter().all(|other| other.name != own.name));
            assert!(own.state(&settings(0.1), 7).iter().all(|state| state.len() == 7));
        }
    }
}
