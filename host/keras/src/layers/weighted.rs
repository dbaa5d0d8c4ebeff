//! Convolutions and dense layers.

use serde_json::{Value, json};

use crate::layers::activations::activation;
use crate::layers::config::two;
use crate::layers::settings::initializer;
use crate::layers::{Config, Described, KerasForm, Settings};
use shiftwise_graph::ops::{
    Conv2D, Conv2DTranspose, Dense, DepthwiseConv2D, Padding, SeparableConv2D, Weighted, image,
};

/// Keras' default initializer of kernels.
fn glorot() -> Value {
    json!({ "class_name": "GlorotUniform", "config": { "seed": null } })
}

/// How a kernel slides over an image.
struct Geometry {
    channels: usize,
    kernel: [usize; 2],
    strides: [usize; 2],
    dilation: [usize; 2],
    padding: Padding,
}

impl Geometry {
    fn read(from: &Described<'_>) -> Result<Self, String> {
        let config = from.config;
        config.channels_last()?;
        let [_, _, channels] = image(from.inputs)?;
        Ok(Self {
            channels,
            kernel: config.pair("kernel_size", [1, 1])?,
            strides: config.pair("strides", [1, 1])?,
            dilation: config.pair("dilation_rate", [1, 1])?,
            padding: config.padding()?,
        })
    }

    /// Everything in front of what the kinds of convolutions do not share.
    fn write(to: &mut Settings, kernel: &[usize], strides: [usize; 2], padding: Padding, dilation: [usize; 2]) {
        to.own("kernel_size", json!(kernel.get(..2)));
        to.own("strides", json!(strides));
        to.own("padding", json!(padding.name()));
        to.own("data_format", json!("channels_last"));
        to.own("dilation_rate", json!(dilation));
    }
}

/// Kernel, bias and activation. `kernel`: the name and shape of the kernel.
fn weighted(from: &mut Described<'_>, kernel: (&str, &[usize]), outputs: usize) -> Result<Weighted, String> {
    let activation = activation(from.config, "activation")?;
    let biased = from.config.bool_or("use_bias", true)?;
    let kernel = from.weights.take(kernel.0, kernel.1)?;
    let bias = biased.then(|| from.weights.take("bias", &[outputs])).transpose()?;
    Ok(Weighted { kernel, bias, activation })
}

fn write_weighted(to: &mut Settings, w: &Weighted) {
    to.own("activation", json!(w.activation.name()));
    to.own("use_bias", json!(w.bias.is_some()));
}

/// What no computation here needs, of a layer with a kernel and a bias.
fn keep_kernel_and_bias(to: &mut Settings) {
    to.kept(json!({
        "kernel_initializer": glorot(), "bias_initializer": initializer("Zeros"), "kernel_regularizer": null,
        "bias_regularizer": null, "activity_regularizer": null, "kernel_constraint": null, "bias_constraint": null,
    }));
}

impl KerasForm for Conv2D {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        let Geometry { channels, kernel: [h, w], strides, dilation, padding } = Geometry::read(from)?;
        let (filters, groups) = (from.config.usize("filters")?, from.config.usize_or("groups", 1)?);
        Self::check_groups(groups, channels, filters)?;
        let w = weighted(from, ("kernel", &[h, w, channels / groups, filters]), filters)?;
        Ok(Self { w, strides, dilation, padding, groups })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        to.own("filters", json!(self.w.kernel.shape()[3]));
        Geometry::write(to, self.w.kernel.shape(), self.strides, self.padding, self.dilation);
        to.own("groups", json!(self.groups));
        write_weighted(to, &self.w);
        keep_kernel_and_bias(to);
    }
}

impl KerasForm for DepthwiseConv2D {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        let Geometry { channels, kernel: [h, w], strides, dilation, padding } = Geometry::read(from)?;
        let multiplier = from.config.usize_or("depth_multiplier", 1)?;
        let kernel = ("depthwise_kernel", &[h, w, channels, multiplier][..]);
        Ok(Self { w: weighted(from, kernel, channels * multiplier)?, strides, dilation, padding })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        Geometry::write(to, self.w.kernel.shape(), self.strides, self.padding, self.dilation);
        to.kept(json!({ "groups": 1 }));
        write_weighted(to, &self.w);
        to.kept(json!({
            "bias_initializer": initializer("Zeros"), "bias_regularizer": null, "activity_regularizer": null,
            "bias_constraint": null,
        }));
        to.own("depth_multiplier", json!(self.w.kernel.shape()[3]));
        to.kept(json!({
            "depthwise_initializer": glorot(), "depthwise_regularizer": null, "depthwise_constraint": null,
        }));
    }
}

/// Rows and columns by which an output is larger; `None` where Keras chooses.
fn output_padding(config: Config<'_>) -> Result<Option<[usize; 2]>, String> {
    let Some(value) = config.get("output_padding") else { return Ok(None) };
    two(value, 0).map(Some).ok_or_else(|| format!("its output_padding is {value}"))
}

impl KerasForm for Conv2DTranspose {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        let Geometry { channels, kernel: [h, w], strides, dilation, padding } = Geometry::read(from)?;
        let (filters, output_padding) = (from.config.usize("filters")?, output_padding(from.config)?);
        let w = weighted(from, ("kernel", &[h, w, filters, channels]), filters)?;
        Ok(Self { w, strides, dilation, padding, output_padding })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        to.own("filters", json!(self.w.kernel.shape()[2]));
        Geometry::write(to, self.w.kernel.shape(), self.strides, self.padding, self.dilation);
        to.kept(json!({ "groups": 1 }));
        write_weighted(to, &self.w);
        keep_kernel_and_bias(to);
        to.own("output_padding", json!(self.output_padding));
    }
}

impl KerasForm for SeparableConv2D {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        let Geometry { channels, kernel: [h, w], strides, dilation, padding } = Geometry::read(from)?;
        let (filters, m) = (from.config.usize("filters")?, from.config.usize_or("depth_multiplier", 1)?);
        let depthwise = from.weights.take("depthwise_kernel", &[h, w, channels, m])?;
        let w = weighted(from, ("pointwise_kernel", &[1, 1, channels * m, filters]), filters)?;
        Ok(Self { depthwise, w, strides, dilation, padding })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        to.own("filters", json!(self.w.kernel.shape()[3]));
        Geometry::write(to, self.depthwise.shape(), self.strides, self.padding, self.dilation);
        to.kept(json!({ "groups": 1 }));
        write_weighted(to, &self.w);
        keep_kernel_and_bias(to);
        to.own("depth_multiplier", json!(self.depthwise.shape()[3]));
        to.kept(json!({
            "depthwise_initializer": glorot(), "pointwise_initializer": glorot(), "depthwise_regularizer": null,
            "pointwise_regularizer": null, "depthwise_constraint": null, "pointwise_constraint": null,
        }));
    }
}

impl KerasForm for Dense {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        let (units, inputs) = (from.config.usize("units")?, from.channels()?);
        Ok(Self { w: weighted(from, ("kernel", &[inputs, units]), units)? })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        to.own("units", json!(self.w.kernel.shape()[1]));
        write_weighted(to, &self.w);
        keep_kernel_and_bias(to);
    }
}
