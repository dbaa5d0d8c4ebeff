//! A deployable on a board: its samples, the board's own test, a comparison with this machine, and what tensors hold.

use serde::Serialize;
use shiftwise_board::{Board, LinkError, Report, Reported, SampleResult, SelfTested, Session};
use shiftwise_core::model::{Deployable, TensorId};
use shiftwise_core::monitor::{Drift, Expected, OCTAVES, Sketch};
use shiftwise_graph::error::Error;

use crate::run::{self, Tensors};

/// What to ask of a board beside running samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// To run the model's own samples.
    pub self_test: bool,
    /// Whether every tensor is what this machine computes.
    pub check: bool,
    /// What the tensors have held.
    pub drift: bool,
}

/// What a board answered.
#[derive(Debug)]
pub struct Answered {
    /// Samples and log.
    pub session: Session,
    /// The model's own samples.
    pub self_test: Option<SelfTest>,
    /// The comparison with this machine.
    pub check: Option<BoardCheck>,
    /// What the tensors have held.
    pub drift: Option<Vec<TensorDrift>>,
}

/// The model's own samples on a board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SelfTest {
    /// How many there are.
    pub samples: u16,
    /// The first wrong byte.
    pub first_wrong: Option<WrongByte>,
}

/// A byte of an output that is not what the model's own sample says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WrongByte {
    /// The sample.
    pub sample: u16,
    /// The output.
    pub output: u8,
    /// The byte in it.
    pub byte: u32,
    /// What it should be.
    pub expected: u8,
    /// What it is.
    pub computed: u8,
}

/// A comparison of every tensor with this machine's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BoardCheck {
    /// Samples that were asked for; it ends at the first difference.
    pub samples: usize,
    /// The first tensor that differs.
    pub first_difference: Option<BoardDifference>,
}

/// A tensor in which a board differs from this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BoardDifference {
    /// The user's layer.
    pub layer: String,
    /// The tensor.
    pub tensor: String,
    /// Its values.
    pub values: usize,
    /// The first value that differs; absent if the board was right when it was asked again.
    #[serde(flatten)]
    pub first: Option<DifferingValue>,
    /// The sample.
    pub sample: usize,
}

/// A value that is not this machine's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DifferingValue {
    /// Its index along each dimension.
    pub index: Vec<usize>,
    /// This machine's value, as text.
    pub expected: String,
    /// The board's value, as text.
    pub computed: String,
    /// Values of the tensor that differ.
    pub differing: usize,
}

/// What a tensor has held on a board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TensorDrift {
    /// The tensor.
    pub tensor: String,
    /// Times that it was seen.
    pub runs: u32,
    /// Its smallest value.
    pub min: i8,
    /// Its largest value.
    pub max: i8,
    /// Values at the limits of 8 bits.
    pub saturated: u64,
    /// All values.
    pub values: u64,
    /// Values by magnitude: zeros, then those from 2^(k-1) to below 2^k.
    pub octaves: [u32; OCTAVES],
    /// What that says, compared with the self-test, or with the position alone where there is none.
    #[serde(serialize_with = "name_of")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub drift: Drift,
}

fn name_of<S: serde::Serializer>(drift: &Drift, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&format!("{drift:?}").to_lowercase())
}

/// What `run` reports.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BoardRun {
    /// The board, as the caller named it.
    pub board: String,
    /// Samples that were run.
    pub samples: usize,
    /// What a step's time is counted in: instructions of an emulator, or ticks of the board's clock.
    pub unit: &'static str,
    /// The model's own samples.
    pub self_test: Option<SelfTest>,
    /// The comparison with this machine.
    pub check: Option<BoardCheck>,
    /// What the tensors have held.
    pub drift: Option<Vec<TensorDrift>>,
    /// The time of every step, sample by sample.
    pub per_step: Vec<Vec<u64>>,
    /// The board's log.
    pub log: Vec<String>,
}

/// What `run --self-test` reports where no samples were given.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SelfTestRun {
    /// The board, as the caller named it.
    pub board: String,
    /// The model's own samples.
    pub self_test: Option<SelfTest>,
    /// The board's log.
    pub log: Vec<String>,
}

fn failed(error: LinkError) -> Error {
    Error::Run(error.to_string())
}

impl From<SelfTested> for SelfTest {
    fn from(tested: SelfTested) -> Self {
        let wrong = tested.wrong.map(|w| WrongByte {
            sample: w.sample,
            output: w.output,
            byte: w.byte,
            expected: w.wanted,
            computed: w.found,
        });
        Self { samples: tested.samples, first_wrong: wrong }
    }
}

impl std::fmt::Display for SelfTest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.first_wrong {
            None => write!(f, "{} samples right", self.samples),
            Some(w) => write!(
                f,
                "sample {}, output {}, byte {}: expected {:#04x}, computed {:#04x}",
                w.sample, w.output, w.byte, w.expected, w.computed
            ),
        }
    }
}

impl std::fmt::Display for BoardDifference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sample {}, layer {}, tensor {}", self.sample, self.layer, self.tensor)?;
        match &self.first {
            Some(d) => {
                write!(f, ", at {:?}: expected {}, computed {}", d.index, d.expected, d.computed)?;
                write!(f, "; {} of {} values differ", d.differing, self.values)
            }
            None => write!(f, ", right at the second try: the board does not always compute the same"),
        }
    }
}

impl Answered {
    /// Whether the board was right in everything that was asked for.
    pub fn is_right(&self) -> bool {
        let tested = self.self_test.as_ref().is_none_or(|t| t.first_wrong.is_none());
        tested && self.check.as_ref().is_none_or(|c| c.first_difference.is_none())
    }
}

/// The first tensor in which the board differs from this machine, and the first value in it.
fn difference(
    board: &mut Board,
    model: &Deployable<'_>,
    (sample, inputs): (usize, &[Vec<u8>]),
) -> Result<Option<BoardDifference>, Error> {
    let wanted = match run::target_of(model)? {
        Some(target) => run::functional(model, &target, inputs)?,
        None => run::frame(model, None, inputs)?,
    };
    let Some(difference) = board.first_difference(inputs, &wanted.0).map_err(failed)? else { return Ok(None) };
    let known = wanted.0.iter().find(|(id, _)| *id == difference.tensor).zip(model.tensor(difference.tensor));
    let Some(((_, wanted), tensor)) = known else {
        return Err(Error::Run(format!("the board told of tensor {}, which there is not", difference.tensor.0)));
    };
    let (wanted, found) = (run::texts(&tensor, wanted), run::texts(&tensor, &difference.found));
    let differ = || wanted.iter().zip(&found).enumerate().filter(|(_, (a, b))| a != b);
    let first = difference.first.and_then(|_| differ().next()).map(|(element, (expected, computed))| DifferingValue {
        index: run::index(&tensor, element),
        expected: expected.to_string(),
        computed: computed.to_string(),
        differing: differ().count(),
    });
    let (layer, name) = (tensor.origin.to_owned(), tensor.name.to_owned());
    Ok(Some(BoardDifference { layer, tensor: name, values: wanted.len(), first, sample }))
}

/// What the tensors have held; `expected` is what they held in the self-test.
fn drift(model: &Deployable<'_>, seen: &[(TensorId, Sketch)], expected: &[(TensorId, Sketch)]) -> Vec<TensorDrift> {
    let one = |(id, sketch): &(TensorId, Sketch)| {
        let known = expected.iter().find(|(other, _)| other == id);
        TensorDrift {
            tensor: model.tensor(*id).map_or("?", |t| t.name).to_owned(),
            runs: sketch.runs,
            min: sketch.min,
            max: sketch.max,
            saturated: sketch.saturated(),
            values: sketch.values(),
            octaves: sketch.octaves,
            drift: sketch.drift(known.map_or(Expected::OF_POSITION, |(_, sketch)| sketch.into())),
        }
    };
    seen.iter().map(one).collect()
}

/// Loads a deployable, whose file this is, on a board and runs samples, given as the bytes of each input.
///
/// Errors: [`Error::Run`] where the link or the board fails.
pub fn run_samples(
    mut board: Board,
    (file, model): (&[u8], &Deployable<'_>),
    samples: &[Vec<Vec<u8>>],
    asked: Asked,
) -> Result<Answered, Error> {
    board.load(file).map_err(failed)?;
    let (mut self_test, mut expected) = (None, Vec::new());
    if asked.self_test || asked.drift && model.facts().self_test_samples > 0 {
        self_test = Some(SelfTest::from(board.self_test().map_err(failed)?));
        if asked.drift {
            expected = board.sketches().map_err(failed)?;
            board.forget().map_err(failed)?;
        }
    }
    let mut runs = Vec::new();
    for sample in samples {
        runs.push(board.sample(sample, Report::Outputs).map_err(failed)?);
    }
    let drift = match asked.drift {
        true => Some(drift(model, &board.sketches().map_err(failed)?, &expected)),
        false => None,
    };
    let mut check = None;
    if asked.check {
        let mut first_difference = None;
        for sample in samples.iter().enumerate() {
            first_difference = difference(&mut board, model, (sample.0, sample.1))?;
            if first_difference.is_some() {
                break;
            }
        }
        check = Some(BoardCheck { samples: samples.len(), first_difference });
    }
    let info = board.info().clone();
    let log = board.finish().map_err(failed)?;
    Ok(Answered { session: Session { info, samples: runs, log }, self_test, check, drift })
}

/// A sample's tensors as the board sent them.
pub fn tensors(result: &SampleResult) -> Tensors {
    let bytes = |r: &Reported| if let Reported::Bytes(b) = r { Some(b.clone()) } else { None };
    Tensors(result.tensors.iter().filter_map(|(id, r)| Some((*id, bytes(r)?))).collect())
}
