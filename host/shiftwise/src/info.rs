//! What a file is: any that is read or written here.
//!
//! `KINDS` is the table of what can be told. A kind looks at a file and either describes it or leaves it to the next.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};
use shiftwise_core::arith::Round;
use shiftwise_formats as format;
use shiftwise_formats::LoadOptions;
use shiftwise_graph::error::Error;
use shiftwise_quant::metadata::Metadata;

use crate::dataset::Described;

mod documents;
mod model;
mod program;
mod snippet;

pub use snippet::Snippet;

/// What a file is.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Info {
    /// The file or folder.
    pub file: PathBuf,
    /// What it is, with an article.
    pub kind: String,
    /// What it calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Size of the file; of a folder, of the files that were read.
    pub bytes: u64,
    /// What a network takes, in its order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Port>,
    /// What it gives.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Port>,
    /// What else there is to say of its kind.
    pub content: Content,
    /// What travels with a network beside its numbers: how data is prepared, what it looked like.
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    /// Lines for applications that quantize an input for this network.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snippets: Vec<Snippet>,
    /// What its reader found strange.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// An input or an output of a network.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Port {
    /// The layer's name.
    pub name: String,
    /// Shape of one sample, channels last.
    pub shape: Vec<usize>,
    /// What the dimensions are.
    pub layout: String,
    /// NumPy's name of the type: of the integers, where there are any.
    pub dtype: String,
    /// Fraction bits of the integers, if they have such.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<i8>,
    /// By what an application multiplies a value for its integer: 2^position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// The grid in full, as `quantize_info.json` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantizer: Option<Map<String, Value>>,
    /// How values between integers are rounded.
    #[serde(skip)]
    pub(crate) round: Round,
    /// Width of the integers, and whether they have a sign.
    #[serde(skip)]
    pub(crate) grid: (u8, bool),
}

impl Port {
    /// One of floats.
    fn float(name: impl Into<String>, shape: Vec<usize>) -> Self {
        Self {
            name: name.into(),
            layout: layout(&shape),
            shape,
            dtype: "float32".into(),
            position: None,
            factor: None,
            quantizer: None,
            round: Round::HalfUp,
            grid: (8, true),
        }
    }

    /// This one as integers of a width and position, rounded so.
    fn fixed(self, position: i8, (bits, signed): (u8, bool), round: Round) -> Self {
        let dtype = format!("{}int{bits}", if signed { "" } else { "u" });
        let factor = Some(2f64.powi(position.into()));
        Self { dtype, position: Some(position), factor, round, grid: (bits, signed), ..self }
    }
}

/// What the dimensions of a sample are.
fn layout(shape: &[usize]) -> String {
    match shape {
        [] => "a single value",
        [_] => "values",
        [_, _] => "steps, channels",
        [_, _, _] => "height, width, channels",
        [..] => "channels last",
    }
    .into()
}

/// What is said of a kind of file.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// A network of layers.
    Network(Network),
    /// A compiled one of ours.
    Deployable(Compiled),
    /// The vendor's graph or program.
    Xmodel(Xmodel),
    /// Tensors in the vendor's folder layout.
    Dump(Dump),
    /// Arrays.
    Arrays(Vec<Described>),
    /// A proof.
    Proof(Proof),
    /// Where a result came from.
    Provenance(Origin),
    /// How networks are quantized.
    Strategy {
        /// The sections that the file has.
        sections: Vec<String>,
    },
    /// What a shard of a run has given.
    Part {
        /// The command with its arguments.
        command: String,
        /// Which shard, from 1 on.
        shard: usize,
        /// Of how many.
        of: usize,
        /// Samples of the whole run.
        samples: usize,
        /// The version of the program.
        tool: String,
    },
}

/// A network of layers.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Network {
    /// The version of Keras that wrote it, if it says so.
    pub keras: Option<String>,
    /// Layers, those without weights included.
    pub layers: usize,
    /// How many there are of a class.
    pub classes: BTreeMap<String, usize>,
    /// Weights; those of a shared layer once.
    pub parameters: u64,
    /// Whether the file has their values.
    pub has_weights: bool,
    /// Multiply-accumulates of one sample.
    pub macs: u64,
    /// Layers that are wrapped by quantizers; `None` for a float network.
    pub quantized_layers: Option<usize>,
    /// Quantizers by their class.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub quantizers: BTreeMap<String, usize>,
    /// Where it came from, if the provenance beside the file is about this very file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// A compiled network.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Compiled {
    /// The DPU, or `cpu`.
    pub target: String,
    /// The target's identification; `None` for `cpu`.
    pub fingerprint: Option<String>,
    /// Tool and version that wrote it.
    pub tool: String,
    /// Jobs of the DPU.
    pub dpu_jobs: usize,
    /// Layers that the CPU computes.
    pub cpu_layers: usize,
    /// Bytes of instructions.
    pub code_bytes: usize,
    /// Bytes of weights and biases.
    pub constant_bytes: usize,
    /// Bytes of memory for what is between layers.
    pub workspace_bytes: usize,
    /// Bytes of the inputs.
    pub input_bytes: usize,
    /// Bytes of the outputs.
    pub output_bytes: usize,
    /// Samples that it tests itself with.
    pub self_test_samples: u16,
}

/// The vendor's graph or program.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Xmodel {
    /// Operations, constants included.
    pub operations: usize,
    /// The DPU of a compiled program.
    pub target: Option<String>,
    /// Its identification.
    pub fingerprint: Option<String>,
    /// The pieces of a compiled program, in order.
    pub subgraphs: Vec<Piece>,
    /// Bytes of instructions.
    pub code_bytes: usize,
    /// Bytes of weights and biases behind its registers.
    pub constant_bytes: usize,
}

/// A piece of a compiled program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Piece {
    /// Its name.
    pub name: String,
    /// What executes it: `DPU`, `CPU`, `USER` or the file's own word.
    pub device: String,
    /// Operations.
    pub operations: usize,
}

/// A folder of tensors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Dump {
    /// Weights and biases.
    pub weights: usize,
    /// Layer results.
    pub activations: usize,
    /// Values of all of them.
    pub values: usize,
    /// Whether a manifest says that it is whole.
    pub has_manifest: bool,
}

/// What a proof says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Proof {
    /// The result in a sentence.
    pub verdict: String,
    /// Whether every check holds.
    pub holds: bool,
    /// Samples that were run.
    pub samples: u64,
    /// What was compared: backend and what it was compiled for.
    pub checks: Vec<String>,
    /// Where it came from.
    pub origin: Option<Origin>,
}

/// Where a result came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Origin {
    /// Tool and version.
    pub tool: String,
    /// The options that it was given.
    pub options: Map<String, Value>,
    /// The files that it read.
    pub inputs: Vec<Input>,
}

/// A file that a result was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Input {
    /// What it was to the tool, such as `model`.
    pub role: String,
    /// Its path then.
    pub path: String,
    /// Its digest.
    pub sha256: String,
}

/// A file that somebody asks about.
#[derive(Debug)]
struct Subject<'a> {
    path: &'a Path,
    /// How it begins; empty for a folder.
    head: Vec<u8>,
    /// Size of the file.
    bytes: u64,
}

impl Subject<'_> {
    /// What is said of it so far.
    fn info(&self, kind: &str, content: Content) -> Info {
        Info {
            file: self.path.to_owned(),
            kind: kind.to_owned(),
            name: None,
            bytes: self.bytes,
            inputs: Vec::new(),
            outputs: Vec::new(),
            content,
            metadata: Metadata::default(),
            snippets: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// A kind of file: what it is called, and who describes it. `None` from that: it is another kind.
struct Kind {
    name: &'static str,
    read: fn(&Subject<'_>, &LoadOptions) -> Result<Option<Info>, Error>,
}

/// What can be told beside the formats of models, in the order in which the kinds are asked.
const KINDS: &[Kind] = &[
    Kind { name: "a compiled model (.swm)", read: program::deployable },
    Kind { name: "arrays (.npy, .npz)", read: documents::arrays },
    Kind { name: "a dump folder", read: documents::dump },
    Kind { name: "parts of shared runs (.part)", read: documents::part },
    Kind { name: "proof.json, provenance.json, a strategy (.json)", read: documents::document },
    Kind { name: "the vendor's graph or program (.xmodel)", read: program::xmodel },
];

/// What a file or folder is.
///
/// Errors: a file that can't be read, is damaged, or of a kind that is not known, with those that are.
pub fn info(path: &Path, options: &LoadOptions) -> Result<Info, Error> {
    /// Enough to tell what may be read without its whole.
    const HEAD: u64 = 64;
    let meta = std::fs::metadata(path).map_err(Error::io(path))?;
    let mut head = Vec::new();
    if !meta.is_dir() {
        let file = std::fs::File::open(path).map_err(Error::io(path))?;
        file.take(HEAD).read_to_end(&mut head).map_err(Error::io(path))?;
    }
    let subject = Subject { path, head, bytes: if meta.is_dir() { 0 } else { meta.len() } };
    for kind in KINDS {
        if let Some(info) = (kind.read)(&subject, options)? {
            return Ok(info);
        }
    }
    model::read(&subject, options)?.ok_or_else(|| unknown(path))
}

/// What is said of a file of no known kind.
fn unknown(path: &Path) -> Error {
    let kinds: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    Error::format(
        path,
        format!("is of a kind that is not known; what can be read: {}, {}", format::readable(), kinds.join(", ")),
    )
}
