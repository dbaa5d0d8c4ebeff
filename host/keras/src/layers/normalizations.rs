//! Normalizations, and what multiplies and adds by channel.

use serde_json::{Value, json};

use crate::layers::settings::initializer;
use crate::layers::settings::shortest;
use crate::layers::{Config, Described, KerasForm, Setting, Settings};
use shiftwise_graph::ops::{
    BatchNormalization, DpuLayerNorm, GroupNormalization, LayerNormalization, LayerScale, Normalization, Rescaling,
    RmsNormalization, UnitNormalization,
};
use shiftwise_tensor::tensor::Tensor;

/// The axes of the sample that `axis` names, from 0 and ascending, for samples of `rank` dimensions; `None` if it names
/// none.
pub(crate) fn axes(config: Config<'_>, rank: usize) -> Result<Option<Vec<usize>>, String> {
    let Some(value) = config.get("axis") else { return Ok(None) };
    let of_sample = |v: &Value| {
        let axis = v.as_i64().and_then(|a| if a < 0 { a.checked_add(rank as i64 + 1) } else { Some(a) });
        axis.and_then(|a| usize::try_from(a).ok()).filter(|a| (1..=rank).contains(a)).map(|a| a - 1)
    };
    let all: Option<Vec<usize>> = match value {
        Value::Array(list) => list.iter().map(of_sample).collect(),
        one => of_sample(one).map(|axis| vec![axis]),
    };
    let mut all = all.ok_or_else(|| format!("its axis is {value}, axes from 1 to {rank} of its input are expected"))?;
    all.sort_unstable();
    all.dedup();
    Ok(Some(all))
}

/// Fails unless `axis` is the last one of the input.
fn last_axis(from: &Described<'_>) -> Result<(), String> {
    let rank = from.input()?.len();
    match from.config.axis() {
        Some(axis) if !axis.as_i64().is_some_and(|a| a == -1 || a == rank as i64) => {
            Err(format!("it normalizes axis {axis}, only the last one ({rank}) is supported"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Scale and offset of each channel, as `scale` and `center` say.
struct Affine {
    gamma: Option<Tensor>,
    beta: Option<Tensor>,
    epsilon: f32,
}

/// What every normalization along the last axis has. `rms`: there is a scale and no offset.
fn affine(from: &mut Described<'_>, rms: bool) -> Result<Affine, String> {
    last_axis(from)?;
    let channels = [from.channels()?];
    let (center, scale) = (from.config.bool_or("center", true)?, from.config.bool_or("scale", true)?);
    let mut weight = |wanted: bool, name: &str| wanted.then(|| from.weights.take(name, &channels)).transpose();
    Ok(Affine {
        gamma: weight(scale || rms, "gamma")?,
        beta: weight(center && !rms, "beta")?,
        epsilon: from.config.f32_or("epsilon", 1e-3)?,
    })
}

fn write_affine(to: &mut Settings, epsilon: f32, beta: &Option<Tensor>, gamma: &Option<Tensor>) {
    to.single("epsilon", epsilon);
    to.own("center", json!(beta.is_some()));
    to.own("scale", json!(gamma.is_some()));
}

/// What no computation here needs, of a layer with a scale and an offset.
fn keep_affine(to: &mut Settings) {
    to.kept(json!({
        "beta_regularizer": null, "gamma_regularizer": null, "beta_constraint": null, "gamma_constraint": null,
    }));
}

impl KerasForm for BatchNormalization {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        let Affine { gamma, beta, epsilon } = affine(from, false)?;
        let channels = [from.channels()?];
        Ok(Self {
            gamma,
            beta,
            mean: from.weights.take("moving_mean", &channels)?,
            variance: from.weights.take("moving_variance", &channels)?,
            epsilon,
            momentum: from.config.f64_or("momentum", Self::MOMENTUM)?,
        })
    }
    fn write(&self, to: &mut Settings, rank: usize) {
        to.kept(json!({ "axis": [rank] }));
        to.own("momentum", json!(self.momentum));
        write_affine(to, self.epsilon, &self.beta, &self.gamma);
        let (zeros, ones) = (initializer("Zeros"), initializer("Ones"));
        to.kept(json!({
            "beta_initializer": zeros, "gamma_initializer": ones, "moving_mean_initializer": zeros,
            "moving_variance_initializer": ones,
        }));
        keep_affine(to);
    }
}

/// The settings of a layer normalization that is none of root mean squares.
fn write_layer_norm(norm: &LayerNormalization, to: &mut Settings, rank: usize) {
    to.kept(json!({ "axis": [rank] }));
    write_affine(to, norm.epsilon, &norm.beta, &norm.gamma);
    to.kept(json!({ "beta_initializer": initializer("Zeros"), "gamma_initializer": initializer("Ones") }));
    keep_affine(to);
}

impl KerasForm for LayerNormalization {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        let rms_scaling = from.config.bool_or("rms_scaling", false)?;
        let Affine { gamma, beta, epsilon } = affine(from, rms_scaling)?;
        Ok(Self { gamma, beta, epsilon, rms_scaling })
    }
    fn write(&self, to: &mut Settings, rank: usize) {
        if self.rms_scaling {
            // Only Keras 3 knows the setting.
            write_affine(to, self.epsilon, &self.beta, &self.gamma);
            to.own("rms_scaling", json!(true));
        } else {
            write_layer_norm(self, to, rank);
        }
    }
}

impl KerasForm for DpuLayerNorm {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        Ok(Self { norm: LayerNormalization::read(from)? })
    }
    fn write(&self, to: &mut Settings, rank: usize) {
        write_layer_norm(&self.norm, to, rank);
    }
}

impl KerasForm for GroupNormalization {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        let channels = from.channels()?;
        let groups = match from.config.get("groups").map_or(Some(32), Value::as_i64) {
            Some(-1) => channels,
            groups => groups.and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
        };
        Self::check_groups(groups, channels)?;
        Ok(Self { groups, norm: LayerNormalization::read(from)? })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        write_affine(to, self.norm.epsilon, &self.norm.beta, &self.norm.gamma);
        to.own("groups", json!(self.groups));
    }
}

impl KerasForm for RmsNormalization {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        last_axis(from)?;
        let channels = [from.channels()?];
        Ok(Self { scale: from.weights.take("scale", &channels)?, epsilon: from.config.f32_or("epsilon", 1e-6)? })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        to.own("axis", json!(-1));
        to.single("epsilon", self.epsilon);
    }
}

impl KerasForm for UnitNormalization {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        last_axis(from).map(|()| Self)
    }
    fn write(&self, to: &mut Settings, _: usize) {
        to.own("axis", json!(-1));
    }
}

impl KerasForm for LayerScale {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        let size = [from.config.usize("projection_dim")?];
        // Keras 3 leaves the weight without a name.
        let gamma = from.weights.take("gamma", &size);
        Ok(Self { gamma: gamma.or_else(|_| from.weights.take("variable", &size))? })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        // What training began with.
        to.kept(json!({ "init_values": 1e-6 }));
        to.own("projection_dim", json!(self.gamma.data().len()));
    }
}

/// One value, or one for each channel.
fn per_channel(values: &[f32]) -> Setting {
    Setting::Flat(if let [only] = values { shortest(*only) } else { values.iter().copied().map(shortest).collect() })
}

impl KerasForm for Rescaling {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        let list = |key: &str, default: f32| Ok::<_, String>(from.config.numbers(key)?.unwrap_or(vec![default]));
        Ok(Self { scale: list("scale", 1.0)?, offset: list("offset", 0.0)? })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        to.add("scale", per_channel(&self.scale));
        to.add("offset", per_channel(&self.offset));
    }
}

impl KerasForm for Normalization {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        let config = from.config;
        let channels = from.input()?.last().copied().unwrap_or(1);
        if config.bool_or("invert", false)? {
            return Err("it inverts a normalization, which is not supported".into());
        }
        if let Some((mean, variance)) = config.numbers("mean")?.zip(config.numbers("variance")?) {
            return Ok(Self { mean: Tensor::vector(mean), variance: Tensor::vector(variance), constant: true });
        }
        let whole = config.0.contains_key("axis") && config.get("axis").is_none();
        let shape: &[usize] = if whole { &[] } else { &[channels] };
        if !whole {
            last_axis(from)?;
        }
        let mut weight = |name: &str| from.weights.take(name, shape);
        Ok(Self { mean: weight("mean")?, variance: weight("variance")?, constant: false })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        to.own("axis", json!([-1]));
        for (key, statistic) in [("mean", &self.mean), ("variance", &self.variance)] {
            let constant = match statistic.data() {
                _ if !self.constant => Value::Null,
                [only] => shortest(*only),
                several => json!(several),
            };
            to.own(key, constant);
        }
        to.rest();
    }
    fn integers(&self) -> Vec<(&'static str, i32)> {
        if self.constant { Vec::new() } else { vec![("count", 0)] }
    }
}
