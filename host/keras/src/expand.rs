//! Keras layers that are others in disguise: a layer over channels that come first is one over channels that come last
//! between two permutations, a causal convolution has its zeros in front, a centre crop is a crop.
//!
//! An [`Expansion`] says what a layer is made of. The layer that does the work keeps the name; what stands around it is
//! named after it.

use serde_json::{Map, Value, json};

use crate::layers::{Config, WeightSource, normalizations};
use shiftwise_graph::ops::reshape::IDENTITIES;
use shiftwise_graph::ops::{Cropping2D, OneD, Op, Permute, Reshape, ZeroPadding2D};
use shiftwise_tensor::tensor::Tensor;

/// Layers that work along `axis`, and whether that may be several axes.
const AXES: &[(&str, bool)] = &[
    ("BatchNormalization", false),
    ("LayerNormalization", true),
    ("RMSNormalization", true),
    ("GroupNormalization", false),
    ("UnitNormalization", true),
    ("Normalization", false),
    ("Softmax", true),
];

/// Convolutions that may be causal.
const CAUSAL: &[&str] = &["Conv1D", "SeparableConv1D"];

/// Keras 3's pooling functions, with their layers over sequences and over images.
const POOLS: &[(&str, [&str; 2])] =
    &[("MaxPool", ["MaxPooling1D", "MaxPooling2D"]), ("AveragePool", ["AveragePooling1D", "AveragePooling2D"])];

/// A layer in terms of others.
#[derive(Clone, Debug)]
pub(crate) struct Expansion {
    /// Class of the layer that does the work.
    pub(crate) class: String,
    /// Its settings.
    pub(crate) config: Map<String, Value>,
    /// What its input goes through first.
    pub(crate) before: Vec<Op>,
    /// Shape of one sample of the input of the layer that does the work.
    pub(crate) input: Vec<usize>,
    /// The order of the permutation in front, which is undone behind.
    order: Option<Vec<usize>>,
    /// Shape that is restored behind, where several axes have become one.
    restored: Option<Vec<usize>>,
    /// Sizes of several axes that have become one; the weights have them.
    joined: Vec<usize>,
}

impl Expansion {
    /// What a layer is made of; `None` for one that is nothing but itself.
    pub(crate) fn of(class: &str, config: &Map<String, Value>, input: &[usize]) -> Result<Option<Self>, String> {
        let mut all = Self {
            class: class.to_owned(),
            config: config.clone(),
            before: Vec::new(),
            input: input.to_vec(),
            order: None,
            restored: None,
            joined: Vec::new(),
        };
        all.channels_last()?;
        all.last_axis()?;
        all.pool();
        all.causal()?;
        all.crop()?;
        let same = all.class == class && all.before.is_empty() && all.config == *config;
        Ok((!same).then_some(all))
    }

    /// What stands behind the layer that does the work, whose result has this shape.
    pub(crate) fn after(&self, output: &[usize]) -> Vec<Op> {
        let mut ops = Vec::new();
        let mut rank = output.len();
        if let Some(shape) = &self.restored {
            rank = shape.len();
            ops.push(Op::Reshape(Reshape { target: shape.iter().map(|d| *d as i64).collect() }));
        }
        // A result without the input's axes, such as that of a global pooling, has nothing to be turned.
        if let Some(order) = self.order.as_ref().filter(|order| order.len() == rank) {
            ops.push(Op::Permute(Permute { dims: inverse(order) }));
        }
        ops
    }

    /// `weights` as the layer that does the work asks for them.
    pub(crate) fn weights<'a>(&'a self, weights: &'a mut dyn WeightSource) -> Joined<'a> {
        Joined { inner: weights, sizes: &self.joined }
    }

    fn push(&mut self, op: Op) -> Result<(), String> {
        self.input = op.layer().output_shape(&[&self.input])?;
        self.before.push(op);
        Ok(())
    }

    fn permute(&mut self, order: Vec<usize>) -> Result<(), String> {
        if order.iter().copied().eq(0..order.len()) {
            return Ok(());
        }
        self.order = Some(order.clone());
        self.push(Op::Permute(Permute { dims: order }))
    }

    fn channels_last(&mut self) -> Result<(), String> {
        let first = Config(&self.config).str_or("data_format", "channels_last").is_ok_and(|f| f == "channels_first");
        // What does nothing at inference has no use for it.
        if !first || IDENTITIES.contains(&self.class.as_str()) {
            return Ok(());
        }
        self.config.insert("data_format".into(), json!("channels_last"));
        let rank = self.input.len();
        if rank > 0 { self.permute((1..rank).chain([0]).collect()) } else { Ok(()) }
    }

    /// Brings the axes that a layer works along to the end, and makes one of several.
    fn last_axis(&mut self) -> Result<(), String> {
        let Some((_, several)) = AXES.iter().find(|(class, _)| *class == self.class) else { return Ok(()) };
        let rank = self.input.len();
        let Some(axes) = normalizations::axes(Config(&self.config), rank)? else { return Ok(()) };
        if axes.is_empty() || axes == [rank - 1] || axes.len() > 1 && !several {
            return Ok(());
        }
        let rest: Vec<usize> = (0..rank).filter(|i| !axes.contains(i)).collect();
        self.permute(rest.iter().chain(&axes).copied().collect())?;
        let mut rank = rank;
        if axes.len() > 1 {
            self.joined = self.input[rest.len()..].to_vec();
            self.restored = Some(self.input.clone());
            let target = rest.iter().enumerate().map(|(i, _)| self.input[i] as i64);
            let target = target.chain([self.joined.iter().product::<usize>() as i64]).collect();
            self.push(Op::Reshape(Reshape { target }))?;
            rank = rest.len() + 1;
        }
        self.config.insert("axis".into(), json!([rank]));
        Ok(())
    }

    fn pool(&mut self) {
        let Some((_, layers)) = POOLS.iter().find(|(class, _)| *class == self.class) else { return };
        self.class = layers[usize::from(self.input.len() != 2)].to_owned();
    }

    /// Zeros of the kernel's reach in front, then a convolution without padding.
    fn causal(&mut self) -> Result<(), String> {
        let config = Config(&self.config);
        if !CAUSAL.contains(&self.class.as_str()) || config.get("padding") != Some(&json!("causal")) {
            return Ok(());
        }
        let (kernel, dilation) = (number(config, "kernel_size")?, number(config, "dilation_rate")?);
        let zeros = ZeroPadding2D { rows: [0, 0], columns: [dilation * (kernel - 1), 0] };
        self.config.insert("padding".into(), json!("valid"));
        self.push(Op::OneD(OneD::new(Op::ZeroPadding2D(zeros))?))
    }

    /// Crops: of the centre where it is large enough; else of the largest part with the result's proportions, which is
    /// then resized.
    fn crop(&mut self) -> Result<(), String> {
        let (centre, resize) = match self.class.as_str() {
            "CenterCrop" => (true, true),
            // Keras crops at random in training only; its declared size is what later layers are made for.
            "RandomCrop" => (false, true),
            "Resizing" => (false, Config(&self.config).bool_or("crop_to_aspect_ratio", false)?),
            _ => return Ok(()),
        };
        let [h, w, _] = self.input[..] else {
            return if self.class == "Resizing" {
                Ok(())
            } else {
                Err(format!("its input has shape {:?}, [height, width, channels] is expected", self.input))
            };
        };
        if !resize {
            return Ok(());
        }
        let size = [Config(&self.config).usize("height")?, Config(&self.config).usize("width")?];
        if size.contains(&0) {
            return Err(format!("its size is {}x{}, at least 1x1 is expected", size[0], size[1]));
        }
        let margins = |part: [usize; 2]| {
            let (y, x) = ((h - part[0]) / 2, (w - part[1]) / 2);
            Cropping2D { rows: [y, h - part[0] - y], columns: [x, w - part[1] - x] }
        };
        if centre && h >= size[0] && w >= size[1] {
            let crop = margins(size);
            (self.class, self.config) = ("Cropping2D".into(), own(&self.config));
            self.config.insert("cropping".into(), json!([crop.rows, crop.columns]));
            return Ok(());
        }
        // The side of the other's proportion, in whole pixels of the input.
        let side = |own: usize, other: usize, target: usize, by: usize| {
            ((other as f64 * target as f64 / by as f64) as usize).min(own).max(1)
        };
        let crop = margins([side(h, w, size[0], size[1]), side(w, h, size[1], size[0])]);
        if crop.rows != [0, 0] || crop.columns != [0, 0] {
            self.push(Op::Cropping2D(crop))?;
        }
        if self.class != "Resizing" {
            (self.class, self.config) = ("Resizing".into(), own(&self.config));
            self.config.insert("height".into(), json!(size[0]));
            self.config.insert("width".into(), json!(size[1]));
        }
        self.config.insert("crop_to_aspect_ratio".into(), json!(false));
        Ok(())
    }
}

/// A setting of a layer over sequences: a number, alone or in a list; 1 if absent.
fn number(config: Config<'_>, key: &str) -> Result<usize, String> {
    let Some(value) = config.get(key) else { return Ok(1) };
    let own = value.as_array().filter(|a| a.len() == 1).map_or(value, |a| &a[0]);
    let number = own.as_u64().filter(|n| (1..=65535).contains(n)).map(|n| n as usize);
    number.ok_or_else(|| format!("`{key}` is {value}, a whole number from 1 to 65535 is expected"))
}

/// The settings that every layer has, channels last.
fn own(config: &Map<String, Value>) -> Map<String, Value> {
    let shared = ["name", "trainable", "dtype"].iter();
    let shared = shared.filter_map(|key| Some(((*key).to_owned(), config.get(*key)?.clone())));
    shared.chain([("data_format".to_owned(), json!("channels_last"))]).collect()
}

/// The order that undoes an order.
pub(crate) fn inverse(order: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; order.len()];
    order.iter().enumerate().for_each(|(i, from)| inverse[*from] = i);
    inverse
}

/// A source of weights over several axes for a layer over one.
pub(crate) struct Joined<'a> {
    inner: &'a mut dyn WeightSource,
    sizes: &'a [usize],
}

impl WeightSource for Joined<'_> {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, String> {
        if self.sizes.is_empty() {
            return self.inner.take(name, shape);
        }
        let tensor = self.inner.take(name, self.sizes)?;
        tensor.reshaped(shape.to_vec()).ok_or_else(|| format!("its weight `{name}` is no {shape:?}"))
    }
    fn all(&mut self) -> Result<Vec<(String, Tensor)>, String> {
        self.inner.all()
    }
}
