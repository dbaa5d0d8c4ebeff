//! What every scheme does: the trait [`Scheme`] and the types of its functions. It knows no scheme.

use std::fmt::Debug;

use serde_json::{Map, Value, json};

use crate::observer::range_error::RangeError;
use shiftwise_core::fix::FixPos;
use shiftwise_graph::eval::{Pass, Settled};
use shiftwise_tensor::tensor::Tensor;

/// One variable of a quantizer in `quantized.h5`.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Last part of the variable's name.
    pub name: &'static str,
    /// Its values.
    pub values: Numbers,
    /// Whether training changes it: the vendor's files list such variables with the weights.
    pub trained: bool,
    /// Whether infinity is one of its values.
    pub infinite: bool,
}

/// The values of a [`Part`].
#[derive(Clone, Debug, PartialEq)]
pub enum Numbers {
    /// One value, or one for each channel.
    State(Vec<f32>),
    /// Any number of values.
    Floats(Vec<f32>),
    /// Any number of integers.
    Integers(Vec<i32>),
}

impl Part {
    /// A variable that no training changes, with one value for the tensor or for each channel.
    pub fn state(name: &'static str, values: Vec<f32>) -> Self {
        Self { name, values: Numbers::State(values), trained: false, infinite: false }
    }
}

/// What a quantizer's tensor is.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a, Q> {
    /// One of a layer's own: the same in every batch.
    Weight {
        /// The quantizer of the layer's first quantized weight, unless it is one of another scheme.
        first: Option<&'a Q>,
    },
    /// Made from data.
    Data {
        /// Whether the batches vote; otherwise the last one decides. Of schemes with something to vote for.
        vote: bool,
    },
}

/// Derivatives of a loss by what a quantizer works on.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// By the tensor's values.
    pub tensor: Tensor,
    /// By the quantizer's own variables, by the last part of their name: one value, or one for each channel.
    pub parts: Vec<(&'static str, Vec<f32>)>,
}

/// A quantizer of one scheme: its settings and what it has learned from data.
pub trait Scheme: Debug {
    /// A quantizer that has learned nothing yet, from the vendor's `quantizer_params`.
    ///
    /// Errors: parameters that don't exist or make no sense, of a quantizer of this class.
    fn from_parameters(class: &str, parameters: Value) -> Result<Self, String>
    where
        Self: Sized;
    /// All of the vendor's `quantizer_params`, in its order.
    fn parameters(&self) -> Map<String, Value>;
    /// What the vendor's class writes of itself where it stands alone.
    fn config(&self) -> Map<String, Value> {
        self.parameters()
    }
    /// Whether data teaches it anything.
    fn learns(&self) -> bool {
        true
    }
    /// Gives the quantizer another width in bits; what it has learned stays.
    fn set_width(&mut self, bits: u8);
    /// The axis of the channels, if each has a state of its own; negative ones are counted from the end.
    fn channel_axis(&self) -> Option<i64>;
    /// What looks at batches of this quantizer's tensor.
    fn calibrator(&self) -> Box<dyn Calibrator<Self>>
    where
        Self: Sized;
    /// Replaces every value by its fake-quantized one.
    fn fake_quantize(&self, tensor: &mut Tensor);
    /// The position, of a scheme that has such, unless there is one for each channel.
    fn pos(&self) -> Option<FixPos>;
    /// Moves the position, if there is one for the whole tensor.
    fn set_pos(&mut self, pos: FixPos);
    /// The variables in `quantized.h5`, in order.
    fn parts(&self) -> Vec<Part>;
    /// Takes over the values of [`Scheme::parts`]. Errors: a value that can't be, with its variable `prefix_…`.
    fn restore(&mut self, prefix: &str, values: Vec<Numbers>) -> Result<(), String>;
    /// What `quantize_info.json` says of the quantizer.
    fn info(&self) -> Map<String, Value>;
    /// The factors, one or one for each channel, by which the vendor's dumps multiply values for their integers. Empty:
    /// they have no integers of such a tensor.
    fn dump_factors(&self) -> Vec<f32> {
        Vec::new()
    }
    /// The integers of a tensor's fake-quantized values, where [`Scheme::dump_factors`] doesn't give them: their zero is
    /// the `zero_point` of [`Scheme::info`].
    fn integers(&self, _: &Tensor) -> Option<Vec<i32>> {
        None
    }
    /// Takes in a batch as training does: what follows the data is derived from it anew, what training itself changes stays;
    /// the batch becomes what the layers behind compute with. Returns whether it was quantized at all: gradients then go
    /// through [`Scheme::backward`]. A scheme that learns nothing only quantizes.
    ///
    /// Errors: as those of calibration.
    fn train(&mut self, tensor: &mut Tensor) -> Result<bool, RangeError> {
        self.fake_quantize(tensor);
        Ok(true)
    }
    /// Derivatives by a tensor and the quantizer's variables, from those by the fake-quantized tensor. Unless a scheme says
    /// otherwise, rounding and clamping are passed straight through.
    fn backward(&self, _tensor: &Tensor, of_result: &Tensor) -> Gradients {
        Gradients { tensor: of_result.clone(), parts: Vec::new() }
    }
}

/// Looks at batches and learns what becomes a quantizer `Q`.
pub trait Calibrator<Q> {
    /// Sees a batch of the tensor.
    fn see(&mut self, tensor: &Tensor) -> Result<(), RangeError>;
    /// Sees a batch of so many values sample by sample, in passes over all of them, and settles what becomes of each. `None`,
    /// the default: such a calibrator must [see](Self::see) a batch as a whole.
    fn see_samples(&mut self, _values: usize, _pass: Pass<'_>) -> Option<Result<Settled<'static>, RangeError>> {
        None
    }
    /// Sees the tensor that was seen last `times` times more: the weights of a layer are seen with every batch.
    fn see_again(&mut self, _tensor: &Tensor, _times: usize) -> Result<(), RangeError> {
        Ok(())
    }
    /// Fake-quantizes the batch that was seen last as that batch alone demands.
    fn fake_quantize(&self, tensor: &mut Tensor);
    /// What the batches have taught, in a form that another process can join. `None` where a batch is computed with what the
    /// batches before it have taught, so that parts of them say nothing.
    fn seen(&self) -> Option<Value> {
        None
    }
    /// Takes over what a calibrator of the same quantizer has seen of the batches behind its own. `None`: it is not what
    /// such a calibrator sees.
    fn join(&mut self, _later: &Value) -> Option<()> {
        None
    }
    /// The quantizer with what all batches taught.
    fn finish(self: Box<Self>, subject: Subject<'_, Q>) -> Result<Q, RangeError>;
}

/// What `SCHEMES.md` says of a scheme.
#[derive(Clone, Copy, Debug)]
pub struct Sheet {
    /// What the scheme is, as a heading.
    pub title: &'static str,
    /// What becomes of a value.
    pub formula: &'static str,
    /// How values are rounded.
    pub rounding: &'static str,
    /// What becomes of values beyond the grid.
    pub saturation: &'static str,
    /// What calibration learns.
    pub calibration: &'static str,
    /// What gradients pass.
    pub gradient: &'static str,
    /// Where the definition comes from, and what shows that it is kept.
    pub source: &'static str,
}

/// The settings of a quantizer from its entry's parameters.
///
/// Errors: the first parameter that is unknown, that has another type, or that is missing, of a quantizer of this class.
pub(crate) fn settings<T: serde::de::DeserializeOwned + serde::Serialize>(
    class: &str,
    parameters: Value,
) -> Result<T, String> {
    if let Ok(own) = serde_json::from_value(parameters.clone()) {
        return Ok(own);
    }
    let Value::Object(given) = parameters else {
        return Err(format!("parameters {parameters} of a {class}, an object is expected"));
    };
    // What every quantizer is made with, and one parameter after the other beside it.
    let example = json!({ "bit_width": 8, "method": 0, "round_mode": 1 });
    let with = |key: &str, value: Option<&Value>| {
        let mut own = example.as_object().cloned().unwrap_or_default();
        match value {
            Some(value) => drop(own.insert(key.to_owned(), value.clone())),
            None => drop(own.remove(key)),
        }
        serde_json::from_value::<T>(Value::Object(own)).ok()
    };
    let known = with("bit_width", Some(&json!(8))).map(|own| json!(own));
    let known: Vec<&String> = known.iter().filter_map(Value::as_object).flat_map(Map::keys).collect();
    for (key, value) in &given {
        if !known.contains(&key) {
            let known = known.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            return Err(format!("parameter `{key}` is unknown of a {class}; known are {known}"));
        }
        if with(key, Some(value)).is_none() {
            return Err(format!("`{key}` is {value}, which is no such parameter of a {class}"));
        }
    }
    let missing = known.iter().find(|key| !given.contains_key(**key) && with(key, None).is_none());
    Err(format!("parameter `{}` is missing of a {class}", missing.map_or("", |key| key.as_str())))
}
