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

pub mod block;
pub mod channels;
pub mod pof2;

/// Why a tensor can't be quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// A value is NaN or infinite.
    #[error("a value is not finite")]
    NotFinite,
    /// Unsigned symmetric quantization of a negative value.
    #[error("input tensor values should be non-negative in symmetric unsigned quantization")]
    Negative,
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
    /// The variables in `quantized.h5`, in order: last part of the name, and the value, or the values of the channels.
    fn variables(&self) -> Vec<(&'static str, Vec<f32>)>;
    /// Takes over the values of [`Scheme::variables`]. Errors: a value that can't be, with its variable `prefix_…`.
    fn restore(&mut self, prefix: &str, values: &[Vec<f32>]) -> Result<(), String>;
    /// What `quantize_info.json` says of the quantizer.
    fn info(&self) -> Map<String, Value>;
}

/// Looks at batches and learns.
pub trait Calibrator {
    /// Sees a batch of the tensor.
    fn see(&mut self, tensor: &Tensor) -> Result<(), RangeError>;
    /// Fake-quantizes the batch that was seen last as that batch alone demands.
    fn fake_quantize(&self, tensor: &mut Tensor);
    /// The quantizer with what all batches taught.
    fn finish(self: Box<Self>) -> Quantizer;
}

/// What an entry leaves open: a quantizer's class has other names, and parameters may be in any order or left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spelling {
    class: String,
    parameters: Vec<String>,
}

macro_rules! schemes {
    ($($(#[$doc:meta])+ $variant:ident($own:ty) = $class:literal $(| $alias:literal)*;)*) => {
        /// A quantizer with its state.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Quantizer {
            $($(#[$doc])+ $variant($own),)*
        }

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
    Pof2(pof2::Pof2) = "Pof2SQuantizer" | "LastValueQuantPosQuantizer";
    /// Blocks of values with one exponent.
    Block(block::Block) = "BFPQuantizer";
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
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Settings that every scheme takes.
    fn entry(class: &str, per_channel: bool) -> Value {
        let mut params = json!({ "bit_width": 8, "method": 1, "round_mode": 1, "per_channel": per_channel });
        if class == "BFPQuantizer" {
            params["data_format"] = json!("bf16");
        }
        json!({ "quantizer_type": class, "quantizer_params": params })
    }

    fn calibrated(own: &Quantizer, tensor: &Tensor) -> Quantizer {
        let mut calibrator = own.scheme().calibrator();
        calibrator.see(tensor).unwrap();
        calibrator.finish()
    }

    /// For every row and every name of it: the state comes back from its variables, the entry from its spelling, and
    /// values on the grid stay where they are.
    #[test]
    fn every_scheme_survives_its_file_and_quantizes_only_once() {
        let tensor = Tensor::new(vec![2, 3], vec![1.0, 0.013, 0.4, -0.57, 0.02, -0.3]).unwrap();
        for (row, class) in CLASSES.iter().flat_map(|row| row.iter().map(move |class| (row, *class))) {
            for per_channel in [false, true] {
                let entry = entry(class, per_channel);
                let new = Quantizer::from_entry(&entry).unwrap();
                assert_eq!(new.class(), row[0]);
                assert_eq!(new.to_entry(&Spelling::of(&entry)).to_string(), entry.to_string());
                let channels = per_channel && new.scheme().learns();
                assert_eq!(new.scheme().channel_axis().is_some(), channels, "{class}");

                let own = calibrated(&new, &tensor);
                let values: Vec<Vec<f32>> = own.scheme().variables().into_iter().map(|(_, values)| values).collect();
                let mut back = new.clone();
                back.scheme_mut().restore("x", &values).unwrap();
                assert_eq!(back, own, "{class}");

                let mut once = tensor.clone();
                own.scheme().fake_quantize(&mut once);
                let mut twice = once.clone();
                own.scheme().fake_quantize(&mut twice);
                assert_eq!(once, twice, "{class}");
                assert_ne!(once, tensor, "{class}");
            }
        }
    }

    #[test]
    fn a_class_or_parameter_that_is_unknown_is_refused() {
        assert!(Quantizer::from_entry(&entry("Mine", false)).is_err());
        for class in CLASSES.iter().flat_map(|row| row.iter()) {
            let mut entry = entry(class, false);
            entry["quantizer_params"]["mine"] = json!(1);
            let error = Quantizer::from_entry(&entry).unwrap_err().to_string();
            assert!(error.contains(class) && error.contains("mine"), "{error}");
        }
    }
}
