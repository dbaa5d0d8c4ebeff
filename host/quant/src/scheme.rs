//! Number formats that tensors are quantized to: THE table of schemes.
//!
//! A scheme is a type that holds a quantizer's settings and what it has learned, in a file of its own, and a row of the
//! table below. Strategies, calibration, evaluation, `quantized.h5` and `quantize_info.json` go through the trait
//! [`Scheme`] and need nothing else. What only one scheme can do, such as lowering to integers, matches on [`Quantizer`],
//! so that the compiler names the places when a row is added.

use std::fmt::Debug;

use serde_json::{Map, Value, json};

use shiftwise_core::fix::FixPos;
use shiftwise_graph::error::Error;
use shiftwise_tensor::tensor::Tensor;

pub mod affine;
pub mod block;
pub mod channels;
pub mod pof2;
mod round;
pub mod tqt;

/// Why a tensor can't be quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// A value is NaN or infinite.
    #[error("a value is not finite")]
    NotFinite,
    /// Unsigned symmetric quantization of a negative value.
    #[error("input tensor values should be non-negative in symmetric unsigned quantization")]
    Negative,
    /// A batch reaches so much further than the first that the histogram would have too many bins of the first's width.
    #[error(
        "its histogram would need more than {} bins: later batches reach much further than the first; shuffle the \
         calibration data, use larger batches, or set the method to 0",
        crate::observer::histogram::MOST_BINS
    )]
    Bins,
}

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
pub enum Subject<'a> {
    /// One of a layer's own: the same in every batch.
    Weight {
        /// The quantizer of the layer's first quantized weight.
        first: &'a Quantizer,
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
    fn calibrator(&self) -> Box<dyn Calibrator>;
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

/// Looks at batches and learns.
pub trait Calibrator {
    /// Sees a batch of the tensor.
    fn see(&mut self, tensor: &Tensor) -> Result<(), RangeError>;
    /// Sees the tensor that was seen last `times` times more: the weights of a layer are seen with every batch.
    fn see_again(&mut self, _tensor: &Tensor, _times: usize) -> Result<(), RangeError> {
        Ok(())
    }
    /// Fake-quantizes the batch that was seen last as that batch alone demands.
    fn fake_quantize(&self, tensor: &mut Tensor);
    /// The quantizer with what all batches taught.
    fn finish(self: Box<Self>, subject: Subject<'_>) -> Result<Quantizer, RangeError>;
}

/// What an entry leaves open: a quantizer's class has other names, and parameters may be in any order or left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spelling {
    class: String,
    parameters: Vec<String>,
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

macro_rules! schemes {
    ($($(#[$doc:meta])+ $variant:ident($own:ty, $sheet:expr) = $class:literal $(| $alias:literal)*;)*) => {
        /// A quantizer with its state.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Quantizer {
            $($(#[$doc])+ $variant($own),)*
        }

        /// The sheets of all schemes, in the order of the rows.
        const SHEETS: &[&Sheet] = &[$(&$sheet,)*];

        /// The vendor's classes of quantizers, a row for each scheme: first the name under which files are written.
        pub const CLASSES: &[&[&str]] = &[$(&[$class $(, $alias)*],)*];

        impl Quantizer {
            /// The vendor's class.
            pub fn class(&self) -> &'static str {
                match self { $(Self::$variant(_) => $class,)* }
            }

            /// The scheme behind it.
            pub fn scheme(&self) -> &dyn Scheme {
                match self { $(Self::$variant(own) => own,)* }
            }

            /// [`Quantizer::scheme`], writable.
            pub fn scheme_mut(&mut self) -> &mut dyn Scheme {
                match self { $(Self::$variant(own) => own,)* }
            }

            /// A quantizer of a class; `None` for a class that isn't in the table.
            fn of_class(class: &str, parameters: Value) -> Option<Result<Self, String>> {
                match class {
                    $($class $(| $alias)* => Some(<$own>::from_parameters(class, parameters).map(Self::$variant)),)*
                    _ => None,
                }
            }
        }
    };
}

schemes! {
    /// Power-of-two steps.
    Pof2(pof2::Pof2, pof2::SHEET) = "Pof2SQuantizer" | "LastValueQuantPosQuantizer";
    /// Steps of any size, with or without a zero point.
    Affine(affine::Affine, affine::SHEET) = "FSQuantizer" | "LastValueMinMaxQuantizer";
    /// Power-of-two steps from a trained threshold.
    Tqt(tqt::Tqt, tqt::SHEET) = "TQTQuantizer" | "LastValueLogThQuantizer";
    /// Blocks of values with one exponent.
    Block(block::Block, block::SHEET) = "BFPQuantizer";
}

impl Quantizer {
    /// A quantizer that has learned nothing yet, from its strategy entry: `quantizer_type` and `quantizer_params`.
    pub fn from_entry(entry: &Value) -> Result<Self, Error> {
        let class = entry.get("quantizer_type").and_then(Value::as_str).unwrap_or("none");
        let parameters = entry.get("quantizer_params").cloned().unwrap_or_default();
        match Self::of_class(class, parameters) {
            Some(own) => own.map_err(Error::Options),
            None => {
                let known: Vec<&str> = CLASSES.iter().filter_map(|names| names.first().copied()).collect();
                Err(Error::Options(format!("quantizer type `{class}`; this version has {}", known.join(", "))))
            }
        }
    }

    /// The quantizer's strategy entry, spelled as one that it came from.
    pub fn to_entry(&self, spelling: &Spelling) -> Value {
        let all = self.scheme().parameters();
        let named = |key: &String| Some((key.clone(), all.get(key)?.clone()));
        let parameters: Map<String, Value> = spelling.parameters.iter().filter_map(named).collect();
        json!({ "quantizer_type": spelling.class, "quantizer_params": parameters })
    }
}

impl Spelling {
    /// How a quantizer's strategy entry spells it.
    pub fn of(entry: &Value) -> Self {
        let class = entry.get("quantizer_type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let parameters = entry.get("quantizer_params").and_then(Value::as_object);
        Self { class, parameters: parameters.into_iter().flatten().map(|(key, _)| key.clone()).collect() }
    }

    /// Whether it spells a quantizer of another class.
    pub(crate) fn class_is_foreign(&self, quantizer: &Quantizer) -> bool {
        let names = CLASSES.iter().find(|names| names.first() == Some(&quantizer.class()));
        !names.is_some_and(|names| names.contains(&self.class.as_str()))
    }

    /// The spelling of a quantizer that comes from no entry: everything in the class's order.
    pub fn whole(quantizer: &Quantizer) -> Self {
        let parameters = quantizer.scheme().parameters().into_iter().map(|(key, _)| key).collect();
        Self { class: quantizer.class().to_owned(), parameters }
    }
}

/// The page of all schemes, in Markdown.
pub fn page() -> String {
    let mut page = String::from(
        "# Number formats\n\nOne section per scheme of quantizers. b is `bit_width`, qmin and qmax are the integers' bounds: \
         −2^(b−1) and 2^(b−1)−1, one more than that where `narrow_range` is set, or 0 and 2^b−1 where `unsigned` is. `round` is \
         `round_mode`: 0 half to even, 1 half up, 2 half away from zero, 3 down. All arithmetic is f32, one rounding after each \
         operation. Made from the table in `src/scheme.rs`.\n",
    );
    for (names, sheet) in CLASSES.iter().zip(SHEETS) {
        let class = names.first().copied().unwrap_or_default();
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        let Sheet { title, formula, rounding, saturation, calibration, gradient, source } = sheet;
        page += &format!("\n## {title}\n\nClass {}.\n\n", names.join(" or "));
        let parameters = json!({ "bit_width": 8, "method": 0, "round_mode": 1 });
        if let Some(Ok(own)) = Quantizer::of_class(class, parameters) {
            let settings = own.scheme().parameters().into_iter().map(|(key, value)| format!("`{key}` {value}"));
            page +=
                &format!("- Settings, with an example or the default: {}.\n", settings.collect::<Vec<_>>().join(", "));
        }
        for (what, text) in [
            ("Value", formula),
            ("Rounding", rounding),
            ("Saturation", saturation),
            ("Calibration", calibration),
            ("Gradient", gradient),
            ("Source", source),
        ] {
            page += &format!("- {what}: {text}.\n");
        }
    }
    page
}

#[cfg(test)]
mod tests;
