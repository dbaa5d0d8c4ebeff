//! Layers that only move values, and the ends of a graph.

use serde_json::{Value, json};

use crate::layers::config::{side, two};
use crate::layers::{Config, Described, KerasForm, Settings};
use shiftwise_graph::ops::{
    Cropping2D, Dropout, Flatten, Input, Interpolation, Layer, Permute, Quantize, RepeatVector, Reshape, Resizing,
    UpSampling2D, ZeroPadding2D,
};

impl KerasForm for Input {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        let config = from.config;
        let value =
            config.get("batch_input_shape").or(config.get("batch_shape")).ok_or("it has no batch_input_shape")?;
        let dims = value.as_array().and_then(|a| a.get(1..)).ok_or_else(|| format!("its shape is {value}"))?;
        let known = |d: &Value| d.as_u64().filter(|d| *d > 0).map(|d| d as usize);
        let shape = dims.iter().map(known).collect::<Option<Vec<usize>>>();
        shape.map(|shape| Self { shape }).ok_or_else(|| format!("its shape {value} is not fixed; pass --input-shape"))
    }
    fn write(&self, to: &mut Settings, _: usize) {
        let dims: Vec<Value> = std::iter::once(Value::Null).chain(self.shape.iter().map(|d| json!(d))).collect();
        to.own("batch_input_shape", Value::Array(dims));
        to.kept(json!({ "dtype": "float32" }));
        to.own("sparse", json!(false));
        to.own("ragged", json!(false));
    }
}

impl KerasForm for Quantize {
    fn read(_: &mut Described<'_>) -> Result<Self, String> {
        Ok(Self)
    }
    fn write(&self, _: &mut Settings, _: usize) {}
}

impl KerasForm for Dropout {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        Self::of_class(from.class).ok_or_else(|| "is no identity".into())
    }
    fn write(&self, to: &mut Settings, _: usize) {
        match self.class() {
            "Dropout" | "SpatialDropout2D" => to.kept(json!({ "rate": null, "noise_shape": null, "seed": null })),
            _ => to.rest(),
        }
    }
}

impl KerasForm for Flatten {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        from.config.channels_last().map(|()| Self)
    }
    fn write(&self, to: &mut Settings, _: usize) {
        to.own("data_format", json!("channels_last"));
    }
}

impl KerasForm for Reshape {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        let value = from.config.get("target_shape").and_then(Value::as_array).ok_or("it has no target_shape")?;
        let target = value.iter().map(Value::as_i64).collect::<Option<Vec<i64>>>();
        Ok(Self { target: target.ok_or("its target_shape is not a list of whole numbers")? })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        to.own("target_shape", json!(self.target));
    }
}

impl KerasForm for Permute {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        let value = from.config.get("dims").unwrap_or(&Value::Null);
        let dim = |v: &Value| v.as_u64().and_then(|v| usize::try_from(v).ok()?.checked_sub(1));
        let dims: Option<Vec<usize>> = value.as_array().and_then(|a| a.iter().map(dim).collect());
        let dims = dims.ok_or_else(|| format!("its dims are {value}, a list of whole numbers from 1 is expected"))?;
        Ok(Self { dims })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        to.own("dims", self.dims.iter().map(|d| d + 1).collect());
    }
}

impl KerasForm for RepeatVector {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        Ok(Self { n: from.config.usize("n")? })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        to.own("n", json!(self.n));
    }
}

/// Rows (above, below) and columns (left, right) as Keras writes them: one number, two, or two pairs.
fn margins(config: Config<'_>, key: &str, default: usize) -> Result<([usize; 2], [usize; 2]), String> {
    config.channels_last()?;
    let Some(value) = config.get(key) else { return Ok(([default; 2], [default; 2])) };
    let both = match value {
        Value::Array(a) if a.len() == 2 => two(&a[0], 0).zip(two(&a[1], 0)),
        one => side(one, 0).map(|v| ([v; 2], [v; 2])),
    };
    both.ok_or_else(|| format!("its {key} is {value}"))
}

fn write_margins(to: &mut Settings, key: &str, rows: [usize; 2], columns: [usize; 2]) {
    to.own(key, json!([rows, columns]));
    to.own("data_format", json!("channels_last"));
}

impl KerasForm for ZeroPadding2D {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        margins(from.config, "padding", 1).map(|(rows, columns)| Self { rows, columns })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        write_margins(to, "padding", self.rows, self.columns);
    }
}

impl KerasForm for Cropping2D {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        margins(from.config, "cropping", 0).map(|(rows, columns)| Self { rows, columns })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        write_margins(to, "cropping", self.rows, self.columns);
    }
}

fn interpolation(config: Config<'_>, default: &str) -> Result<Interpolation, String> {
    let name = config.str_or("interpolation", default)?;
    Interpolation::from_name(name).ok_or_else(|| {
        format!("the interpolation `{name}` is not supported; supported are `nearest`, `bilinear` and `bicubic`")
    })
}

impl KerasForm for UpSampling2D {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        from.config.channels_last()?;
        let interpolation = interpolation(from.config, "nearest")?;
        Ok(Self { size: from.config.pair("size", [2, 2])?, interpolation })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        to.own("size", json!(self.size));
        to.own("data_format", json!("channels_last"));
        to.own("interpolation", json!(self.interpolation.name()));
    }
}

impl KerasForm for Resizing {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        let config = from.config;
        config.channels_last()?;
        for key in ["crop_to_aspect_ratio", "pad_to_aspect_ratio", "antialias"] {
            if config.bool_or(key, false)? {
                return Err(format!("`{key}` is not supported"));
            }
        }
        let interpolation = interpolation(config, "bilinear")?;
        Ok(Self { size: [config.usize("height")?, config.usize("width")?], interpolation })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        to.own("height", json!(self.size[0]));
        to.own("width", json!(self.size[1]));
        to.own("interpolation", json!(self.interpolation.name()));
        to.own("crop_to_aspect_ratio", json!(false));
    }
}
