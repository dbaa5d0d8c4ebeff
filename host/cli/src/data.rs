//! Data and model arguments that several commands share.

use std::path::{Path, PathBuf};

use shiftwise::dataset::{ChannelOrder, DataSpec, Inputs, Notes, ResizeFilter};
use shiftwise_core::model::Deployable;
use shiftwise_formats::{self as format, LoadOptions, Model};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;
use shiftwise_graph::graph::Graph;
use shiftwise_graph::ops::CustomLayers;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_tensor::tensor::Tensor;

use crate::screen::Screen;

/// How data is brought to the model's input.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = PICTURES)]
pub(crate) struct Preprocess {
    /// Subtracted from every value, one number or one per channel
    #[arg(long, value_delimiter = ',', allow_negative_numbers = true, value_name = "A,B,C")]
    mean: Vec<f32>,
    /// Multiplied after the mean is subtracted
    #[arg(long, value_name = "S")]
    scale: Option<f32>,
    /// Scale images to this size
    #[arg(long, value_name = "HxW", value_parser = size)]
    resize: Option<Size>,
    /// Scale as PIL's BILINEAR (antialiased, rounded to 8 bits) or as tf.image.resize (bilinear, not antialiased, not
    /// rounded)
    #[arg(long, default_value = "pil", value_name = "pil|tf", value_parser = filter)]
    resize_filter: ResizeFilter,
    /// Turn images as their Exif data asks for, as PIL's ImageOps.exif_transpose
    #[arg(long)]
    exif: bool,
    /// Order of an image's colours in the model's channels
    #[arg(long, default_value = "rgb", value_name = "rgb|bgr", value_parser = order)]
    channel_order: ChannelOrder,
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

impl Preprocess {
    /// Says what the pictures that were read have shown.
    pub(crate) fn tell(&self, screen: &Screen) {
        self.notes.warnings().iter().for_each(|text| screen.note(format!("warning: {text}")));
    }

    /// A data argument, without its `NAME=`.
    pub(crate) fn spec(&self, text: &str) -> DataSpec {
        DataSpec {
            resize: self.resize.map(|s| s.0),
            filter: self.resize_filter,
            exif: self.exif,
            notes: self.notes.clone(),
            order: self.channel_order,
            mean: self.mean.clone(),
            scale: self.scale,
            ..DataSpec::parse(text)
        }
    }

    /// Data for all inputs of a model, given as `DATA` or `NAME=DATA` in any order. `inputs` are names and shapes.
    pub(crate) fn open(&self, data: &[String], inputs: &[(&str, &[usize])]) -> Result<Inputs, Error> {
        let named = |text: &String| {
            let (name, data) = named(text);
            (name.map(str::to_owned), self.spec(data))
        };
        Inputs::open(&data.iter().map(named).collect::<Vec<_>>(), inputs)
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

    /// Data for a deployable's inputs.
    pub(crate) fn for_deployable(&self, data: &[String], model: &Deployable<'_>) -> Result<Inputs, Error> {
        let shapes = shiftwise::run::inputs(model);
        let inputs: Vec<(&str, &[usize])> = shapes.iter().map(|(n, s)| (n.as_str(), s.as_slice())).collect();
        self.open(data, &inputs)
    }
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
        let options = LoadOptions { input_shapes, random_weights, weights, custom, keep_unknown };
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
