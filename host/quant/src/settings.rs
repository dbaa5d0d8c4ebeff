//! Every keyword argument of the vendor's `quantize_model`: THE table of settings.
//!
//! What a setting takes, where it stands in a strategy, which parameter of which quantizer it replaces, what it was called
//! and what it changes here is read from its row; so are messages, the command line's arguments of the call, and the page
//! `SETTINGS.md`.

use serde_json::Value;

use crate::role::Role;

/// Where a setting stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Nowhere in a strategy: an argument of the call.
    Call,
    /// Nowhere in the vendor's strategy: ours alone.
    Ours,
    /// The user's part of the registry: says otherwise than the entries of all layers.
    User,
    /// Passes over the float graph.
    Optimize,
    /// Layers replaced by what a DPU computes.
    Quantize,
    /// What happens after calibration.
    Refine,
    /// What is written.
    Finalize,
}

impl Section {
    /// The section's key in a strategy's JSON; `None` for what is in none.
    pub const fn key(self) -> Option<&'static str> {
        match self {
            Self::Call | Self::Ours => None,
            Self::User => Some("user_quantize_config"),
            Self::Optimize => Some("optimize_pipeline_config"),
            Self::Quantize => Some("quantize_pipeline_config"),
            Self::Refine => Some("refine_pipeline_config"),
            Self::Finalize => Some("finalize_pipeline_config"),
        }
    }
}

/// What a setting takes. The user's settings and arguments of the call also take `null`: as if they weren't there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `true` or `false`.
    Flag,
    /// A word.
    Word,
    /// Any number.
    Number,
    /// A whole number from 0.
    Whole,
    /// A whole number of either sign.
    Level,
    /// A whole number from 1.
    Count,
    /// A whole number that is no longer patience than a computer's.
    Steps,
    /// Which FixNeuron arithmetic.
    FixNeuron,
    /// The format of a written model.
    OutputFormat,
    /// How weights are finetuned.
    Algorithm,
    /// Names of layers.
    Layers,
    /// Types by layer.
    Widths,
    /// A shape, several, or several by input.
    Shapes,
}

impl Type {
    /// What is expected, as the end of a sentence.
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::Flag => "true or false",
            Self::Word => "a word",
            Self::Number => "a number",
            Self::Whole | Self::Level => "a whole number",
            Self::Count => "a whole number from 1",
            Self::Steps => "a whole number up to 1000",
            Self::FixNeuron => "0, 1 or 2",
            Self::OutputFormat => "h5, tf, pb, onnx or an empty word",
            Self::Algorithm => "adaquant or reconstruct",
            Self::Layers => "a list of layer names",
            Self::Widths => "an object of types by layer",
            Self::Shapes => "a list of whole numbers",
        }
    }

    fn takes(self, value: &Value) -> bool {
        match self {
            Self::Flag => value.is_boolean(),
            Self::Word => value.is_string(),
            Self::Number => value.is_number(),
            Self::Whole => value.is_u64(),
            Self::Level => value.is_i64(),
            Self::Count => value.as_u64().is_some_and(|n| n > 0),
            Self::Steps => value.as_u64().is_some_and(|n| n <= 1000),
            Self::FixNeuron => value.as_u64().is_some_and(|n| n <= 2),
            Self::OutputFormat => value.as_str().is_some_and(|v| ["", "h5", "tf", "pb", "onnx"].contains(&v)),
            Self::Algorithm => value.as_str().is_some_and(|v| ["adaquant", "reconstruct"].contains(&v)),
            Self::Layers => value.as_array().is_some_and(|list| list.iter().all(Value::is_string)),
            Self::Widths => value.is_object(),
            Self::Shapes => value.is_array() || value.is_object(),
        }
    }
}

/// What a setting changes here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// What it says.
    Full,
    /// Only these values (as JSON) can be had, and why not yet others.
    Only(&'static [&'static str], &'static str),
    /// These values (as JSON) have it; others are kept for what a later version does with them, and why so.
    Later(&'static [&'static str], &'static str),
    /// Nothing, and why.
    Idle(&'static str),
}

/// One keyword argument.
#[derive(Debug)]
pub struct Setting {
    /// The vendor's name.
    pub name: &'static str,
    /// What it takes.
    pub takes: Type,
    /// Default, as JSON.
    pub default: &'static str,
    /// Where it stands.
    pub section: Section,
    /// One sentence on what it means.
    pub doc: &'static str,
    /// The quantizers it is about and their parameter that it replaces.
    pub of: Option<(Role, &'static str)>,
    /// What it changes here.
    pub effect: Effect,
    /// What it was called.
    pub old: Option<&'static str>,
    /// For a setting of ours: the vendor's setting that a strategy must have.
    pub beside: Option<&'static str>,
}

impl Setting {
    /// Whether a value is of the setting's type.
    pub fn takes(&self, value: &Value) -> bool {
        let absent = matches!(self.section, Section::User | Section::Call) && value.is_null();
        absent || self.takes.takes(value)
    }

    /// The parameter of quantizers that it replaces.
    pub(crate) fn parameter(&self) -> Option<&'static str> {
        let of_all =
            ["data_format", "use_framework_quant", "use_fixneuron_quant"].contains(&self.name).then_some(self.name);
        self.of.map(|(_, parameter)| parameter).or(of_all)
    }

    /// Whether the values that this version has include this one.
    pub fn has(&self, value: &Value) -> bool {
        match self.effect {
            Effect::Only(values, _) => values.contains(&value.to_string().as_str()),
            Effect::Full | Effect::Later(..) | Effect::Idle(_) => true,
        }
    }

    /// The sentence for a value that [`Setting::takes`] refuses. `current` is what a key of a pipeline stands at: its type
    /// is told by example.
    pub fn refusal(&self, value: &Value, current: &Value) -> String {
        let name = self.name;
        match (self.section, self.takes) {
            (Section::Call | Section::User, _) | (_, Type::Steps) => {
                format!("`{name}` is set to {value}, {} is expected", self.takes.phrase())
            }
            (Section::Ours | Section::Optimize | Section::Quantize | Section::Refine | Section::Finalize, _) => {
                format!("`{name}` is set to {value}; its default is {current}")
            }
        }
    }
}

/// Rows by section: documentation, name, type and default; `of ROLE PARAMETER` where the setting replaces a parameter of
/// quantizers; `only [VALUES] REASON`, `later [VALUES] REASON` or `idle REASON` where it hasn't its full effect; `was NAME` if it
/// had another; `beside NAME` where a strategy has it only together with that one.
macro_rules! settings {
    ($($section:ident {
        $(
            $(#[doc = $doc:literal])+
            $name:ident: $takes:ident = $default:literal
            $(, of $role:ident $parameter:ident)?
            $(, only $values:tt $why:literal)?
            $(, later $now:tt $until:literal)?
            $(, idle $idle:literal)?
            $(, was $old:ident)?
            $(, beside $beside:ident)?;
        )*
    })*) => {
        /// Every setting, section by section.
        pub const SETTINGS: &[Setting] = &[$($(Setting {
            name: stringify!($name),
            takes: Type::$takes,
            default: $default,
            section: Section::$section,
            doc: concat!($($doc),+),
            of: settings!(@option $((Role::$role, stringify!($parameter)))?),
            effect: settings!(@effect $(only $values $why)? $(later $now $until)? $(idle $idle)?),
            old: settings!(@option $(stringify!($old))?),
            beside: settings!(@option $(stringify!($beside))?),
        },)*)*];
    };
    (@option) => { None };
    (@option $some:expr) => { Some($some) };
    (@effect) => { Effect::Full };
    (@effect only $values:tt $why:literal) => { Effect::Only(&$values, $why) };
    (@effect later $values:tt $why:literal) => { Effect::Later(&$values, $why) };
    (@effect idle $why:literal) => { Effect::Idle($why) };
}

settings! {
    Optimize {
        /// Removes Dropout layers.
        remove_dropout: Flag = "true";
        /// Separates the activation function of a layer into a layer of its own.
        separate_conv_act: Flag = "true";
        /// Folds a BatchNormalization into the convolution or dense layer before it.
        fold_conv_bn: Flag = "true";
        /// Turns every other BatchNormalization into a depthwise convolution.
        convert_bn_to_dwconv: Flag = "true", was fold_bn;
        /// Replaces ReLU6 by ReLU.
        convert_relu6_to_relu: Flag = "false", was replace_relu6;
        /// Replaces operations of TensorFlow 1 by layers.
        convert_tf_op_to_keras: Flag = "true", idle "no Keras model of today holds such an operation", was convert_tf_op;
        /// Equalizes the ranges of channels across layers before calibration.
        include_cle: Flag = "true";
        /// Equalizes across ReLU6 too, as if it were a ReLU.
        cle_to_relu6: Flag = "false", was forced_cle;
        /// Rounds of equalization.
        cle_steps: Steps = "10";
        /// How the range of a channel is measured.
        cle_balance_method: Word = "\"max\"", was balance_method;
        /// Channels whose weights on both sides sum up to less are left alone.
        cle_weight_threshold: Number = "0.1", was weight_threshold;
        /// Trains a BatchNormalization as one layer with the convolution before it; calibration folds it last, behind equalization.
        train_with_bn: Flag = "false";
        /// Splits a separable convolution in its two parts.
        separable_conv: Flag = "true";
    }
    Quantize {
        /// Converts layers to float16, bfloat16, float32 or float64 instead of quantizing them: the whole model, or the
        /// part that `input_layers`, `output_layers` and `ignore_layers` leave.
        convert_datatype: Word = "\"\"";
        /// Replaces sigmoid by hard sigmoid.
        convert_sigmoid_to_hard_sigmoid: Flag = "true", was replace_sigmoid;
        /// Replaces hard sigmoid by what a DPU computes.
        convert_hard_sigmoid_to_dpu_version: Flag = "true", was replace_hard_sigmoid;
        /// Replaces average poolings by what a DPU computes.
        convert_average_pooling2d_to_dpu_version: Flag = "true", was replace_average_pooling2d;
        /// Replaces LeakyReLU by what a DPU computes.
        convert_leaky_relu_to_dpu_version: Flag = "true", was replace_leaky_relu;
        /// Replaces softmax by the vendor's version for DPUs.
        convert_softmax_to_dpu_version: Flag = "false";
        /// Replaces LayerNormalization by the vendor's version for DPUs.
        convert_layernorm_to_dpu_version: Flag = "false";
        /// Leaves the result of a convolution with a trained BatchNormalization to the activation behind it.
        no_quant_in_conv_bn_act: Flag = "true", idle "no such layers are left when quantization begins";
        /// Leaves the result of a convolution or dense layer to the activation behind it.
        no_quant_in_conv_act: Flag = "true";
        /// Leaves the result of a sum to the activation behind it.
        no_quant_in_add_act: Flag = "true";
        /// Training steps after which the statistics of BatchNormalization stay.
        freeze_bn_delay: Number = "-1";
        /// Asks the vendor's compiler which layers to quantize.
        quantize_with_xcompiler: Flag = "true", idle "the vendor's compiler is closed";
    }
    Refine {
        /// Brings positions around a hard sigmoid within a DPU's limits.
        adjust_dpu_sigmoid: Flag = "true";
        /// Brings the shift from accumulator to output within a DPU's limits.
        adjust_dpu_shift_cut: Flag = "true";
        /// Brings the shift of biases within a DPU's limits.
        adjust_dpu_shift_bias: Flag = "true";
        /// Brings the shift of biases before a LeakyReLU within a DPU's limits.
        adjust_dpu_shift_bias_leakyrelu: Flag = "true";
        /// Brings the spread of an element-wise layer's inputs within a DPU's limits.
        adjust_dpu_shift_read: Flag = "true";
        /// Brings the shift of an element-wise layer's output within a DPU's limits.
        adjust_dpu_shift_write: Flag = "true";
        /// Brings the shift of a hard swish within a DPU's limits.
        adjust_dpu_shift_swish: Flag = "true";
        /// Gives all tensors of a concatenation one position.
        align_concat: Flag = "true";
        /// Gives input and output of a pooling one position.
        align_pool: Flag = "true";
        /// Finetunes weights layer by layer after calibration.
        include_fast_ft: Flag = "false";
        /// Epochs of that finetuning, at most, for each layer.
        fast_ft_epochs: Number = "10";
        /// Corrects biases after calibration.
        include_bias_corr: Flag = "false", idle "the vendor's tool never looks at it";
        /// Replaces power-of-two quantizers by those of float scales.
        convert_to_fs_quantize_strategy: Flag = "false";
        /// Replaces quantizers of thresholds by power-of-two quantizers, which are then adjusted.
        convert_to_pof2s_quantize_strategy: Flag = "true";
    }
    Finalize {
        /// The format of the written model.
        output_format: OutputFormat = "\"\"", later ["\"\"", "\"h5\""] "only h5 is written";
        /// The version of a written ONNX model's operators.
        onnx_opset_version: Number = "13", later ["13"] "no ONNX is written";
        /// Folder of the results.
        output_dir: Word = "\"./quantize_results/\"";
    }
    User {
        /// The format of block floating point quantizers: bfp, msfp (widths of 16, 13 or 11), bf16 or fp32.
        data_format: Word = "null";
        /// Width of inputs in bits.
        input_bit: Whole = "null", of Input bit_width;
        /// How the position of inputs is chosen: 0 so that nothing overflows, 1 by least squared error; or their range: 0 all
        /// that was seen, 2 by least divergence of a histogram, 3 by a share of it.
        input_method: Whole = "null", of Input method;
        /// The share of values, in percent, that the range of inputs holds, for method 3.
        input_method_percentile: Number = "null", of Input method_percentile;
        /// Whether the zero of inputs is the integer zero.
        input_symmetry: Flag = "null", of Input symmetry;
        /// One position for each channel of inputs.
        input_per_channel: Flag = "null", of Input per_channel;
        /// How inputs are rounded: 0 half to even, 1 half up, 2 half away from zero, 3 down.
        input_round_mode: Whole = "null", of Input round_mode;
        /// No negative integers for inputs.
        input_unsigned: Flag = "null", of Input unsigned;
        /// Inputs without the most negative integer.
        input_narrow_range: Flag = "null", of Input narrow_range;
        /// Width of kernels, and of gamma, beta, alpha, in bits.
        weight_bit: Whole = "null", of Weight bit_width;
        /// How the position of kernels is chosen: see `input_method`.
        weight_method: Whole = "null", of Weight method;
        /// Whether the zero of kernels is the integer zero.
        weight_symmetry: Flag = "null", of Weight symmetry;
        /// One position for each channel of kernels.
        weight_per_channel: Flag = "null", of Weight per_channel;
        /// How kernels are rounded: see `input_round_mode`.
        weight_round_mode: Whole = "null", of Weight round_mode;
        /// No negative integers for kernels.
        weight_unsigned: Flag = "null", of Weight unsigned;
        /// Kernels without the most negative integer.
        weight_narrow_range: Flag = "null", of Weight narrow_range;
        /// Width of biases in bits.
        bias_bit: Whole = "null", of Bias bit_width;
        /// How the position of biases is chosen: see `input_method`.
        bias_method: Whole = "null", of Bias method;
        /// Whether the zero of biases is the integer zero.
        bias_symmetry: Flag = "null", of Bias symmetry;
        /// One position for each channel of biases.
        bias_per_channel: Flag = "null", of Bias per_channel;
        /// How biases are rounded: see `input_round_mode`.
        bias_round_mode: Whole = "null", of Bias round_mode;
        /// No negative integers for biases.
        bias_unsigned: Flag = "null", of Bias unsigned;
        /// Biases without the most negative integer.
        bias_narrow_range: Flag = "null", of Bias narrow_range;
        /// Width of activations and layer outputs in bits.
        activation_bit: Whole = "null", of Output bit_width;
        /// How the position of activations and layer outputs is chosen: see `input_method`.
        activation_method: Whole = "null", of Output method;
        /// The share of values, in percent, that the range of activations and layer outputs holds, for method 3.
        activation_method_percentile: Number = "null", of Output method_percentile;
        /// Whether the zero of activations and layer outputs is the integer zero.
        activation_symmetry: Flag = "null", of Output symmetry;
        /// One position for each channel of activations and layer outputs.
        activation_per_channel: Flag = "null", of Output per_channel;
        /// How activations and layer outputs are rounded: see `input_round_mode`.
        activation_round_mode: Whole = "null", of Output round_mode;
        /// No negative integers for activations and layer outputs; where zero is zero, only behind a ReLU or ReLU6.
        activation_unsigned: Flag = "null", of Output unsigned;
        /// Activations and layer outputs without the most negative integer.
        activation_narrow_range: Flag = "null", of Output narrow_range;
        /// The framework's own arithmetic where a quantizer has two.
        use_framework_quant: Flag = "null";
        /// The FixNeuron arithmetic: 0 for none, 1 or 2 for the one of each role.
        use_fixneuron_quant: FixNeuron = "null";
        /// Layers at which the quantized part begins.
        input_layers: Layers = "[]";
        /// Layers at which the quantized part ends.
        output_layers: Layers = "[]";
        /// Layers that stay float.
        ignore_layers: Layers = "[]";
        /// Types of single layers by name: int8, int16, int32, float16, bfloat16, float32 or float64.
        layer_config: Widths = "{}";
    }
    Ours {
        /// Calibrates layers of `layer_config` at their new width: integers of 16 bits are then finer, not only reach further.
        layer_config_recalibrate: Flag = "false", beside layer_config;
        /// Zeroes the kernels of channels that a ReLU lets nothing of through, or that are constant, on the calibration
        /// data.
        fold_dead_channels: Flag = "false", beside include_fast_ft;
        /// How `include_fast_ft` finetunes: adaquant as the vendor's tool does, or reconstruct, which solves for the weights
        /// of each layer on its quantized inputs.
        fast_ft_algorithm: Algorithm = "\"adaquant\"", beside include_fast_ft;
    }
    Call {
        /// Samples in a calibration batch, 32 if null; every batch votes for positions.
        calib_batch_size: Count = "null";
        /// Calibration batches at most, all if null.
        calib_steps: Count = "null";
        /// The shape of the input, or of each, where the model leaves it open.
        input_shape: Shapes = "null";
        /// How much is told of the work: 0, 1 or 2.
        verbose: Level = "0";
        /// Stores the shapes of layers in the model.
        add_shape_info: Flag = "false", idle "the shape of every layer is known here";
    }
}

/// Whether a setting changes what a conversion to another type of floats does: the part that is converted, and the passes
/// before. True for an unknown name, which `Strategy::set` refuses.
pub fn shapes_a_conversion(name: &str) -> bool {
    let Some(setting) = renamed(name).or_else(|| find(name)) else { return true };
    match setting.section {
        Section::User => ["input_layers", "output_layers", "ignore_layers"].contains(&setting.name),
        // A conversion leaves weights and dropouts alone.
        Section::Optimize => {
            let idle = ["remove_dropout", "include_cle", "train_with_bn"].contains(&setting.name);
            !idle && !setting.name.starts_with("cle_")
        }
        Section::Call | Section::Ours | Section::Quantize | Section::Refine | Section::Finalize => false,
    }
}

/// The setting of a name.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.name == name)
}

/// The setting that was once called so.
pub fn renamed(old: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.old == Some(old))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_one_that_the_setting_takes_and_has() {
        for s in SETTINGS {
            let default: Value = serde_json::from_str(s.default).unwrap();
            assert!(s.takes(&default) && s.has(&default), "{}", s.name);
            assert!(s.of.is_none_or(|(role, _)| s.name.starts_with(role.row().setting)), "{}", s.name);
            assert!(SETTINGS.iter().filter(|o| o.name == s.name || o.old == Some(s.name)).count() == 1, "{}", s.name);
        }
    }
}
