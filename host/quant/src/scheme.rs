//! Number formats that tensors are quantized to: THE table of schemes.
//!
//! A scheme is a type that holds a quantizer's settings and what it has learned, in a file of its own, and a row of the
//! table below. Strategies, calibration, evaluation, `quantized.h5` and `quantize_info.json` go through the trait
//! [`Scheme`] and need nothing else. What only one scheme can do, such as lowering to integers, matches on [`Quantizer`],
//! so that the compiler names the places when a row is added.

use serde_json::{Map, Value, json};

use shiftwise_graph::error::Error;
use shiftwise_graph::eval::{Pass, Settled};
use shiftwise_tensor::tensor::Tensor;

pub mod affine;
pub mod block;
pub mod channels;
mod interface;
pub mod pof2;
mod round;
pub mod tqt;

pub use crate::observer::range_error::RangeError;
pub use interface::{Calibrator, Gradients, Numbers, Part, Scheme, Sheet, Subject};

/// What an entry leaves open: a quantizer's class has other names, and parameters may be in any order or left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spelling {
    class: String,
    parameters: Vec<String>,
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

            /// What looks at batches of this quantizer's tensor.
            pub fn calibrator(&self) -> Box<dyn Calibrator<Self>> {
                match self {
                    $(Self::$variant(own) => Box::new(Of {
                        scheme: own.calibrator(),
                        own: |quantizer: &Self| match quantizer {
                            Self::$variant(own) => Some(own),
                            #[allow(unreachable_patterns)]
                            _ => None,
                        },
                        wrap: Self::$variant,
                    }),)*
                }
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

/// A scheme's calibrator, for a quantizer of any scheme.
struct Of<Q> {
    scheme: Box<dyn Calibrator<Q>>,
    /// A quantizer of this scheme, if it is one.
    own: fn(&Quantizer) -> Option<&Q>,
    wrap: fn(Q) -> Quantizer,
}

impl<Q> Calibrator<Quantizer> for Of<Q> {
    fn see(&mut self, tensor: &Tensor) -> Result<(), RangeError> {
        self.scheme.see(tensor)
    }

    fn see_samples(&mut self, values: usize, pass: Pass<'_>) -> Option<Result<Settled<'static>, RangeError>> {
        self.scheme.see_samples(values, pass)
    }

    fn see_again(&mut self, tensor: &Tensor, times: usize) -> Result<(), RangeError> {
        self.scheme.see_again(tensor, times)
    }

    fn fake_quantize(&self, tensor: &mut Tensor) {
        self.scheme.fake_quantize(tensor);
    }

    fn seen(&self) -> Option<Value> {
        self.scheme.seen()
    }

    fn join(&mut self, later: &Value) -> Option<()> {
        self.scheme.join(later)
    }

    fn finish(self: Box<Self>, subject: Subject<'_, Quantizer>) -> Result<Quantizer, RangeError> {
        let subject = match subject {
            Subject::Weight { first } => Subject::Weight { first: first.and_then(self.own) },
            Subject::Data { vote } => Subject::Data { vote },
        };
        self.scheme.finish(subject).map(self.wrap)
    }
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
