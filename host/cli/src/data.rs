//! Data and model arguments that several commands share.

use std::path::{Path, PathBuf};

use shiftwise::dataset::{ChannelOrder, DataSpec, Inputs, Notes, ResizeFilter};
use shiftwise_core::model::Deployable;
use shiftwise_formats::{self as format, LoadOptions, Model};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;
use shiftwise_graph::graph::Graph;
use shiftwise_graph::ops::CustomLayers;
use shiftwise_quant::metadata::{Metadata, Preprocessing};
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_tensor::tensor::Tensor;

use crate::screen::Screen;

/// How data is brought to the model's input.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = PICTURES)]
pub(crate) struct Preprocess {
    /// Subtracted from every value, one number or one per channel
    #[arg(long, value_delimiter = ',', allow_negative_numbers = true, value_name = "A,B,C", value_parser = number)]
    mean: Vec<f32>,
    /// Multiplied after the mean is subtracted; 1/255 is a number too
    #[arg(long, allow_negative_numbers = true, value_name = "S", value_parser = scale)]
    scale: Option<f32>,
    /// Scale images to this size
    #[arg(long, value_name = "HxW", value_parser = size)]
    resize: Option<Size>,
    /// Scale as PIL's BILINEAR (antialiased, rounded to 8 bits) or as tf.image.resize (bilinear, not antialiased, not
    /// rounded) [default: pil]
    #[arg(long, value_name = "pil|tf", value_parser = filter)]
    resize_filter: Option<ResizeFilter>,
    /// Turn images as their Exif data asks for, as PIL's ImageOps.exif_transpose
    #[arg(long)]
    exif: bool,
    /// Order of an image's colours in the model's channels [default: rgb]
    #[arg(long, value_name = "rgb|bgr", value_parser = order)]
    channel_order: Option<ChannelOrder>,
    /// The data is prepared already: what the quantized model has stored of these options is not applied
    #[arg(long, conflicts_with_all = ["mean", "scale", "resize", "resize_filter", "exif", "channel_order"])]
    raw: bool,
    #[arg(skip)]
    notes: Notes,
}

/// Which reference each step from a picture to a sample equals; behind the options of every command that takes pictures.
const PICTURES: &str = "\
Images, step by step; each gives the bytes that PIL gives (Python, also behind keras.utils.load_img):
  files        PNG, JPEG, BMP of a folder, by name; names with a dot in front and other kinds are left out
  JPEG         as libjpeg-turbo decodes by default: accurate integer transform, \"fancy\" spreading of colours;
               CMYK and YCCK as convert(\"RGB\"), inks inverted as Adobe writes them. tf.io.decode_jpeg decodes so
               with dct_method=\"INTEGER_ACCURATE\"
  Exif         not turned, with a warning where a file asks for it; --exif turns as ImageOps.exif_transpose
  alpha        dropped, not blended, as convert(\"RGB\") and convert(\"L\")
  palette      its colours, transparent ones too
  1 to 4 bits  spread to 0..255
  16 bits      the upper 8; plain grey is limited to 255 (PIL's mode I;16), with a warning
  grey         three channels: repeated. One channel from colours: 0.299 R + 0.587 G + 0.114 B, as convert(\"L\"),
               cv2 and tf.image.rgb_to_grayscale weigh them
  --resize     after these, Image.resize(size, BILINEAR); --resize-filter tf: tf.image.resize(x, size)
  profiles     gamma and ICC profiles are not applied
Then --mean is subtracted and --scale multiplied.";

/// Height and width.
#[derive(Clone, Copy, Debug)]
struct Size([usize; 2]);

/// Pixels along a side of a scaled image: far beyond what networks take, and little enough to be computed.
const MOST_SIDE: usize = 8192;

fn size(text: &str) -> Result<Size, String> {
    let parsed = text.split_once('x').and_then(|(h, w)| Some([h.parse().ok()?, w.parse().ok()?]));
    parsed
        .filter(|size| size.iter().all(|n| (1..=MOST_SIDE).contains(n)))
        .map(Size)
        .ok_or_else(|| format!("HEIGHTxWIDTH up to {MOST_SIDE} each is expected, such as 224x224"))
}

fn filter(text: &str) -> Result<ResizeFilter, String> {
    match text {
        "pil" => Ok(ResizeFilter::Pil),
        "tf" => Ok(ResizeFilter::Tf),
        _ => Err("pil or tf is expected".into()),
    }
}

fn order(text: &str) -> Result<ChannelOrder, String> {
    match text {
        "rgb" => Ok(ChannelOrder::Rgb),
        "bgr" => Ok(ChannelOrder::Bgr),
        _ => Err("rgb or bgr is expected".into()),
    }
}

/// A number, or one divided by another.
fn number(text: &str) -> Result<f32, String> {
    let parse = |t: &str| t.trim().parse::<f64>().ok();
    let value = match text.split_once('/') {
        Some((a, b)) => parse(a).zip(parse(b)).map(|(a, b)| (a / b) as f32),
        // In one step: a number that is rounded twice may be another.
        None => text.trim().parse::<f32>().ok(),
    };
    value.filter(|v| v.is_finite()).ok_or_else(|| "a number is expected, such as 127.5 or 1/255".into())
}

/// A number that is not 0: every value would be.
fn scale(text: &str) -> Result<f32, String> {
    match number(text)? {
        0.0 => Err("a scale of 0 makes every value 0".into()),
        other => Ok(other),
    }
}

const fn filter_name(filter: ResizeFilter) -> &'static str {
    match filter {
        ResizeFilter::Pil => "pil",
        ResizeFilter::Tf => "tf",
    }
}

const fn order_name(order: ChannelOrder) -> &'static str {
    match order {
        ChannelOrder::Rgb => "rgb",
        ChannelOrder::Bgr => "bgr",
    }
}

impl Preprocess {
    /// What is given, for the quantized model to remember.
    pub(crate) fn given(&self) -> Preprocessing {
        Preprocessing {
            mean: self.mean.clone(),
            scale: self.scale,
            resize: self.resize.map(|s| s.0),
            resize_filter: self.resize_filter.map(|f| filter_name(f).to_owned()),
            exif: self.exif.then_some(true),
            channel_order: self.channel_order.map(|o| order_name(o).to_owned()),
        }
    }

    /// These options, and those that the model has stored where they are not given, which is said; a given one that
    /// contradicts the model is used, with a warning.
    pub(crate) fn for_model(&self, metadata: &Metadata, screen: &Screen) -> Result<Self, Error> {
        let given = self.given();
        let Some(stored) = metadata.preprocessing.as_ref().filter(|p| !p.is_empty() && !self.raw) else {
            return Ok(self.clone());
        };
        let (own, kept) = (given.settings(), stored.settings());
        for (name, value) in &own {
            match kept.iter().find(|(other, _)| other == name) {
                Some((_, other)) if other != value => screen.note(format!(
                    "warning: --{name} {value} is used, but the model was calibrated with --{name} {other}"
                )),
                Some(_) => {}
                None => screen
                    .note(format!("warning: --{name} {value} is used, but the model was calibrated without --{name}")),
            }
        }
        let more = kept.iter().filter(|(name, _)| !own.iter().any(|(other, _)| other == name));
        // Arrays are as large as they are, and nobody knows which of their channels is red.
        let (all, images): (Vec<_>, Vec<_>) = more.partition(|(name, _)| matches!(*name, "mean" | "scale"));
        let words = |settings: &[&(&str, String)]| {
            settings.iter().map(|(name, value)| format!("--{name} {value}")).collect::<Vec<_>>().join(" ")
        };
        let parts = [words(&all), if images.is_empty() { String::new() } else { format!("images {}", words(&images)) }];
        let said = parts.iter().filter(|p| !p.is_empty()).cloned().collect::<Vec<_>>().join("; ");
        if !said.is_empty() {
            screen.note(format!("as the model was calibrated: {said} (--raw: data is used as it is)"));
        }
        let both = given.or(stored);
        let bad = |why: String| Error::Options(format!("the preprocessing that the model has stored: {why}"));
        Ok(Self {
            mean: both.mean,
            scale: both.scale,
            resize: both.resize.map(Size),
            resize_filter: both.resize_filter.as_deref().map(filter).transpose().map_err(bad)?,
            exif: both.exif.unwrap_or(false),
            channel_order: both.channel_order.as_deref().map(order).transpose().map_err(bad)?,
            raw: false,
            notes: self.notes.clone(),
        })
    }

    /// Says what the pictures that were read have shown.
    pub(crate) fn tell(&self, screen: &Screen) {
        self.notes.warnings().iter().for_each(|text| screen.note(format!("warning: {text}")));
    }

    /// A data argument, without its `NAME=`.
    pub(crate) fn spec(&self, text: &str) -> DataSpec {
        DataSpec {
            resize: self.resize.map(|s| s.0),
            filter: self.resize_filter.unwrap_or_default(),
            exif: self.exif,
            notes: self.notes.clone(),
            order: self.channel_order.unwrap_or_default(),
            mean: self.mean.clone(),
            scale: self.scale,
            ..DataSpec::parse(text)
        }
    }

    /// A data argument of labels, which are no pictures and stay as they are.
    pub(crate) fn plain(&self, text: &str) -> DataSpec {
        DataSpec::parse(text)
    }

    /// Data arguments with the names that are given before them.
    pub(crate) fn specs(&self, data: &[String]) -> Vec<(Option<String>, DataSpec)> {
        let named = |text: &String| {
            let (name, data) = named(text);
            (name.map(str::to_owned), self.spec(data))
        };
        data.iter().map(named).collect()
    }

    /// Data for all inputs of a model, given as `DATA` or `NAME=DATA` in any order. `inputs` are names and shapes.
    pub(crate) fn open(&self, data: &[String], inputs: &[(&str, &[usize])]) -> Result<Inputs, Error> {
        Inputs::open(&self.specs(data), inputs)
    }

    /// The shapes of the data's samples in the form of `--input-shape`, as far as they can be told without a model.
    pub(crate) fn shapes(&self, data: &[String]) -> Vec<String> {
        let shape = |text: &String| {
            let (name, data) = named(text);
            let name = name.map(|n| format!("{n}=")).unwrap_or_default();
            let dims = shiftwise::dataset::sample_shape(&self.spec(data))?;
            Some(format!("{name}1,{}", dims.iter().map(usize::to_string).collect::<Vec<_>>().join(",")))
        };
        data.iter().filter_map(shape).collect()
    }

    /// Data for a graph's inputs.
    pub(crate) fn for_graph(&self, data: &[String], graph: &Graph) -> Result<Inputs, Error> {
        let inputs: Vec<(&str, &[usize])> =
            graph.inputs.iter().map(|id| (graph.node(*id).name.as_str(), graph.node(*id).shape.as_slice())).collect();
        self.open(data, &inputs)
    }

    /// Data for a quantized model's inputs, prepared as it has stored; data that looks like no data of the calibration is
    /// warned of.
    pub(crate) fn for_quantized(&self, data: &[String], q: &QuantGraph, screen: &Screen) -> Result<Inputs, Error> {
        let inputs = self.for_model(&q.metadata, screen)?.for_graph(data, &q.graph)?;
        doubts(&q.metadata, &inputs, screen)?;
        Ok(inputs)
    }

    /// Data for a deployable's inputs, as [`Preprocess::for_quantized`].
    pub(crate) fn for_deployable(
        &self,
        data: &[String],
        model: &Deployable<'_>,
        screen: &Screen,
    ) -> Result<Inputs, Error> {
        let metadata = std::str::from_utf8(model.metadata()).map_err(|_| "has metadata that is no text".to_owned());
        let metadata = metadata.and_then(Metadata::parse);
        let metadata = metadata.map_err(|why| Error::Run(format!("{}: it {why}", model.facts().name)))?;
        let inputs = self.for_model(&metadata, screen)?.shaped_for(data, model)?;
        doubts(&metadata, &inputs, screen)?;
        Ok(inputs)
    }

    fn shaped_for(&self, data: &[String], model: &Deployable<'_>) -> Result<Inputs, Error> {
        let shapes = shiftwise::run::inputs(model);
        let inputs: Vec<(&str, &[usize])> = shapes.iter().map(|(n, s)| (n.as_str(), s.as_slice())).collect();
        self.open(data, &inputs)
    }
}

/// Samples that are looked at before the work.
const LOOK: usize = 16;

/// Warns of data that is unlike what the model was calibrated on.
pub(crate) fn doubts(metadata: &Metadata, inputs: &Inputs, screen: &Screen) -> Result<(), Error> {
    if metadata.inputs.is_empty() {
        return Ok(());
    }
    let batch = inputs.batch(0, LOOK.min(inputs.len()))?;
    for (known, tensor) in metadata.inputs.iter().zip(&batch) {
        if let Some(doubt) = shiftwise::dataset::doubt(known, tensor) {
            screen.note(format!("warning: input `{}`: {doubt}", known.name));
        }
    }
    Ok(())
}

/// `NAME=DATA`, or `DATA` alone; a path may hold a `=` too.
fn named(text: &str) -> (Option<&str>, &str) {
    match text.split_once('=') {
        Some((name, data)) if !name.contains('/') => (Some(name), data),
        _ => (None, text),
    }
}

/// The files that data arguments name, for provenance.
pub(crate) fn files(data: &[String]) -> Vec<PathBuf> {
    data.iter().map(|text| DataSpec::parse(named(text).1).path).collect()
}

/// Refuses an output that is one of the inputs: inputs are never changed.
pub(crate) fn keep<'a>(inputs: impl IntoIterator<Item = &'a Path>, outputs: &[&Path]) -> Result<(), Error> {
    // What doesn't exist has no canonical form, and is neither overwritten nor read.
    let inputs: Vec<PathBuf> = inputs.into_iter().filter_map(|p| p.canonicalize().ok()).collect();
    for output in outputs {
        if output.canonicalize().is_ok_and(|o| inputs.contains(&o)) {
            return Err(Error::Options(format!("{} is an input and would be overwritten", output.display())));
        }
    }
    Ok(())
}

/// A model argument and its input shapes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ModelArgs {
    #[arg(value_name = "MODEL", help = format!("Model, float or quantized: {}", shiftwise_formats::readable()))]
    pub(crate) path: PathBuf,
    /// Shape of an input, batch first, where the model leaves it open; [NAME=]1,224,224,3
    #[arg(long, value_name = "[NAME=]SHAPE")]
    pub(crate) input_shape: Vec<String>,
    /// Draw the weights of an architecture (model.to_json()) from this seed
    #[arg(long, value_name = "SEED")]
    pub(crate) random_weights: Option<u64>,
    /// Weights for an architecture, or instead of a model's own: what `save_weights` wrote, or a model of the same layers
    #[arg(long, value_name = "FILE", conflicts_with = "random_weights")]
    pub(crate) weights: Option<PathBuf>,
    /// Read a quantized TensorFlow Lite model as a quantized one, its scales as the positions next to them
    #[arg(long)]
    pub(crate) keep_quantization: bool,
    #[command(flatten)]
    pub(crate) custom: Custom,
}

/// Layers that only the user knows.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Custom {
    /// What a layer computes, by the layer's name or by its class: inputs x (or x0, x1, …), weights and settings by their
    /// names. A layer's name goes before its class. Also for activation functions, by the function's or the layer's name
    #[arg(long, value_name = "NAME=FORMULA")]
    custom_layer: Vec<String>,
}

impl Custom {
    /// The layers, with those that are known anyway.
    pub(crate) fn layers(&self) -> Result<CustomLayers, Error> {
        let mut custom = CustomLayers::default();
        for formula in &self.custom_layer {
            custom.add_formula(formula).map_err(|e| Error::Options(format!("--custom-layer {e}")))?;
        }
        Ok(custom)
    }
}

impl ModelArgs {
    /// The files that the model is read from.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> + Clone {
        std::iter::once(&self.path).chain(&self.weights)
    }

    /// Reads the model; an architecture without weights gets some, for they don't matter.
    pub(crate) fn open_for_timing(&self, screen: &Screen) -> Result<Model, Error> {
        match self.read(screen, true) {
            Err(Error::NoWeights { .. }) => Self { random_weights: Some(0), ..self.clone() }.read(screen, true),
            other => other,
        }
    }

    /// Reads the model; one that leaves its size open takes that of the data.
    pub(crate) fn open_for(&self, data: &[String], preprocess: &Preprocess, screen: &Screen) -> Result<Model, Error> {
        match self.open(screen) {
            Err(Error::InputShape(why)) if self.input_shape.is_empty() => {
                let sized = Self { input_shape: preprocess.shapes(data), ..self.clone() };
                if sized.input_shape.is_empty() { Err(Error::InputShape(why)) } else { sized.open(screen) }
            }
            result => result,
        }
    }

    /// Reads the model, and says what is strange about it.
    pub(crate) fn open(&self, screen: &Screen) -> Result<Model, Error> {
        self.read(screen, false)
    }

    fn read(&self, screen: &Screen, keep_unknown: bool) -> Result<Model, Error> {
        let shape = |text: &String| {
            let (name, dims) = match text.split_once('=') {
                Some((name, dims)) => (Some(name.to_owned()), dims),
                None => (None, text.as_str()),
            };
            let dims: Result<Vec<usize>, _> = dims.split(',').map(|d| d.trim().parse()).collect();
            dims.map(|d| (name, d)).map_err(|_| {
                Error::InputShape(format!("--input-shape {text}: whole numbers separated by commas are expected"))
            })
        };
        let input_shapes = self.input_shape.iter().map(shape).collect::<Result<_, _>>()?;
        let (random_weights, weights) = (self.random_weights, self.weights.clone());
        let custom = self.custom.layers()?;
        let keep_quantization = self.keep_quantization;
        let options = LoadOptions { input_shapes, random_weights, weights, custom, keep_quantization, keep_unknown };
        let model = format::open(&self.path, &options)?;
        let (Model::Float(graph) | Model::Quantized(QuantGraph { graph, .. })) = &model;
        graph.warnings.iter().for_each(|warning| screen.note(format!("warning: {warning}")));
        Ok(model)
    }
}

/// The first `count` samples (all if `None`), as one batch per input.
pub(crate) fn take(samples: &dyn Samples, count: Option<usize>) -> Result<Vec<Tensor>, Error> {
    if samples.is_empty() {
        return Err(Error::Dataset("the data has no samples".into()));
    }
    samples.batch(0, count.unwrap_or(usize::MAX).clamp(1, samples.len()))
}
