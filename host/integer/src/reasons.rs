//! Why a layer has no integer form: one row per kind.

use shiftwise_graph::dtype::Dtype;
use shiftwise_graph::ops::ActivationFn;

use shiftwise_core::shift::{READ, SIGMOID_POSITIONS};

/// Declares reasons, one row per kind: documentation, name and fields, then the stable code, what the user can change
/// (`None` if nothing in the model or the settings helps), and the sentence with the fields' names in it.
///
/// The rows make the enum with `code`, `remedy`, [`std::fmt::Display`], and `CODES`: the codes of all rows in order.
#[macro_export]
macro_rules! reasons {
    (
        $(#[$meta:meta])*
        pub enum $name:ident;
        $(
            $(#[$doc:meta])*
            $kind:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty),* } =
                $code:literal, $remedy:expr, ($($text:tt)+);
        )+
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$doc])* $kind { $($(#[$field_doc])* $field: $type),* },)+
        }

        impl $name {
            /// The codes of all kinds.
            pub const CODES: &'static [&'static str] = &[$($code),+];

            /// A name of the kind that stays the same in later versions.
            pub fn code(&self) -> &'static str {
                match self {
                    $(Self::$kind { .. } => $code,)+
                }
            }

            /// What the user can change, if anything helps.
            #[allow(unused_variables, reason = "not every row's remedy depends on its fields")]
            pub fn remedy(&self) -> Option<&'static str> {
                match self {
                    $(Self::$kind { $($field),* } => $remedy,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $(Self::$kind { $($field),* } => write!(f, $($text)+),)+
                }
            }
        }
    };
}

/// What makes a quantizable layer of one that is applied several times.
pub(crate) const COPY: &str = "give each call a layer of its own, a copy with the same weights, and they are quantized";

/// What a DPU lacks of a scheme with steps of any size.
pub const FLOAT_SCALE: &str = "a float scale";
const POF2S: &str = "quantize with `--strategy pof2s`: to signed 8 bits, round mode 1, with one symmetric power-of-two \
                     scale per tensor";
const INT8: &str = "quantize to signed 8 bits, round mode 1, with one symmetric power-of-two scale per tensor";
const STRATEGY: &str = "name the layer in the strategy, or use a layer that it quantizes";
const BEFORE: &str = "quantize the layer in front of it";

reasons! {
    /// Why a layer has no integer form and is computed in floats.
    pub enum FloatWhy;

    /// An input layer that the model doesn't list.
    StrayInput {} = "stray_input", None, ("is not an input of the model");
    /// Nothing quantizes what the layer makes.
    Unquantized {} = "unquantized_result", Some(STRATEGY), ("its result is not quantized");
    /// The strategy has no entry for the layer.
    Strategy {} = "left_by_strategy", Some(STRATEGY), ("the strategy leaves it float");
    /// The layer has no quantizers although its kind takes some.
    NoQuantizers {} = "no_quantizers", Some(STRATEGY), ("it is not quantized");
    /// The passes were told to leave the layer alone.
    Outside {} = "outside", None, ("it is outside the layers that are to be quantized");
    /// One layer applied several times.
    Shared {
        /// Number of calls.
        calls: usize
    } = "shared", Some(COPY), ("called {}, left float as the vendor does", times(*calls));
    /// A layer whose function is not known.
    UnknownClass {} = "unknown_class", None, ("nothing is known of its class but the shape of its result");
    /// An operand that has no tensor.
    NoOperand {} = "no_operand", None, ("reads a tensor without an integer form");
    /// The only operand is float.
    FloatInput {} = "float_input", Some(BEFORE), ("its input is float");
    /// An operand is float.
    FloatOperand {
        /// The layer that makes it.
        name: String
    } = "float_operand", Some(BEFORE), ("its input `{name}` is float");
    /// A weight is float.
    FloatWeight {
        /// The weight's name in its layer.
        name: String
    } = "float_weight", Some(STRATEGY), ("its {name} is not quantized");
    /// A weight of another range than 8 bits, signed.
    WeightRange {
        /// The weight's name in its layer.
        name: String,
        /// Smallest integer.
        low: i64,
        /// Largest integer.
        high: i64
    } = "weight_range", Some(INT8), ("has a {name} of {low}..={high}; the DPU has signed 8 bits");
    /// A weight on a grid that isn't one symmetric power of two.
    WeightScheme {
        /// The weight's name in its layer.
        name: String,
        /// What the DPU lacks.
        seen: &'static str
    } = "weight_scheme", Some(scheme(seen)), ("has a {name} with {seen}");
    /// A result on a grid that isn't one symmetric power of two.
    Scheme {
        /// What the DPU lacks.
        seen: &'static str
    } = "scheme", Some(scheme(seen)), ("is quantized with {seen}, which the DPU doesn't have");
    /// A layer of other floats.
    Type {
        /// The type.
        dtype: Dtype
    } = "type", Some("leave the layer out of `layer_config` and `convert_datatype`, and it is quantized"),
        ("computes in {}, which the DPU doesn't have", dtype.name());
    /// A result of other integers than the DPU's.
    Format {
        /// Without a sign.
        unsigned: bool,
        /// Width.
        bits: u8,
        /// The vendor's number of the rounding.
        round: u8,
        /// The smallest integer is left out.
        narrow: bool
    } = "format", Some(INT8), (
        "is quantized to {} {bits} bits, round mode {round}, narrow range {narrow}; the DPU has signed 8 bits, round \
         mode 1, full range",
        if *unsigned { "unsigned" } else { "signed" }
    );
    /// A window that the layer cannot have over its input.
    Window {
        /// What is wrong with it.
        text: String
    } = "window", None, ("{text}");
    /// A sum of unlike shapes.
    Shapes {} = "shapes", Some("bring its inputs to one shape"), ("its inputs have different shapes");
    /// A sum of positions that are too far apart.
    Apart {
        /// Bits between the finest and the coarsest.
        bits: u32
    } = "apart", Some("let the quantizer adjust positions to the target"),
        ("its inputs' positions are {bits} bits apart, at most {} can be aligned", READ.end());
    /// A product of more than two.
    Factors {} = "factors", Some("multiply in several layers"), ("multiplies more than two inputs");
    /// A hard sigmoid of a position that it has no constants for.
    SigmoidPosition {
        /// Position of the input.
        pos: i32
    } = "sigmoid_position", Some("let the quantizer adjust positions to the target"), (
        "its input has position {pos}; the hard sigmoid takes {}..={}",
        SIGMOID_POSITIONS.start(),
        SIGMOID_POSITIONS.end()
    );
    /// An activation without an integer form in the place of one that is done with the layer's sum.
    Activation {} = "activation", Some("use ReLU, ReLU6 or a LeakyReLU with a slope of 26/256"),
        ("its activation is not linear, ReLU, ReLU6 or LeakyReLU with a slope of 26/256");
    /// A ReLU6 whose bound is between two integers.
    Bound {} = "relu6_bound", Some("use ReLU, or let the quantizer choose a position of 0 or more"),
        ("the bound 6 is not on its grid");
    /// A function of quantized sums.
    Function {
        /// The function.
        function: ActivationFn
    } = "function", Some("use ReLU, ReLU6 or a LeakyReLU with a slope of 26/256"),
        ("its activation {} is computed in floats", function.name());
    /// An average over a window without an integer factor.
    AverageWindow {} = "average_window", Some("average in two layers"),
        ("averages over more than 255 rows or columns");
    /// An average whose factor is too large.
    AverageFactor {} = "average_factor", Some("average over a window that is more like a square"),
        ("has an averaging factor beyond 16 bits");
    /// Steps for which no multiplier of 31 bits requantizes exactly in 64.
    Steps {} = "steps", Some("widen or narrow its range, or use fewer bits"),
        ("the steps of its operands and its result are too far apart for exact integers");
    /// A convolution without weights.
    NoKernel {} = "no_kernel", None, ("has no kernel");
}

fn scheme(seen: &str) -> &'static str {
    if seen == FLOAT_SCALE { POF2S } else { INT8 }
}

fn times(calls: usize) -> String {
    if calls == 2 { "twice".to_owned() } else { format!("{calls} times") }
}
