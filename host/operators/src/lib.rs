//! Networks as the operators of other formats: which operators a layer with its quantizers is, in one walk that the writers
//! of all such formats share.
//!
//! # Invariants
//! - The walk knows no format, and a format no network: [`Operators`] spells one operator after the other, in the order in
//!   which they are computed.
//! - A value between operators has the layout of our layers: the batch first, channels last.
//! - Names of operators are a scope and a part of it. Scopes are those of the vendor's graphs; a format that is not
//!   TensorFlow's may call a part otherwise ([`Operators::named`]).

mod functions;
mod layers;
mod quantizers;
mod walk;

use shiftwise_core::arith::Round;
use shiftwise_core::model::{Combine, Function, RowFunction};
use shiftwise_graph::dtype::Dtype;
use shiftwise_graph::graph::Node;
use shiftwise_graph::ops::pool::PoolWindow;
use shiftwise_graph::ops::tfop::Reduction;
use shiftwise_graph::ops::{Conv2D, Conv2DTranspose, Cropping2D, DepthwiseConv2D, Interpolation, TfOp};
use shiftwise_quant::scheme::affine::Affine;
use shiftwise_quant::scheme::block::Block;
use shiftwise_quant::scheme::pof2::Pof2;
use shiftwise_tensor::tensor::Tensor;

pub use functions::{constant, operand};
pub use quantizers::{by, rounded};
pub use walk::{ModelRef, Walk, parts};

/// A layer that is being written.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    /// The scope of its operators.
    pub name: &'a str,
    /// Its operands.
    pub inputs: &'a [String],
    /// Shapes of a sample of each.
    pub shapes: &'a [&'a [usize]],
    /// Shape of a sample of its result.
    pub shape: &'a [usize],
    /// Its weights.
    pub weights: &'a [Tensor],
    /// What quantizes each of them in the graph; without it a weight stands there as the floats that it is.
    pub stored: &'a [Option<Pof2>],
}

impl Written<'_> {
    /// The first operand.
    ///
    /// Errors: a layer without operands.
    pub fn x(&self) -> Result<&str, String> {
        self.inputs.first().map(String::as_str).ok_or_else(|| "has no operands".into())
    }
}

/// Which elements of an axis a subscript takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Along {
    /// The axis of the batch.
    pub axis: usize,
    /// The first element.
    pub start: usize,
    /// How many.
    pub count: usize,
    /// From each to the next; it may go backwards.
    pub step: isize,
}

/// A grid of steps of any size whose lowest integer stands for an offset: the vendor's asymmetric quantizers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moved {
    /// The value of the lowest integer.
    pub offset: f32,
    /// Steps per unit.
    pub scale: f32,
    /// The step: 1 / scale.
    pub step: f32,
    /// The lowest integer.
    pub low: f32,
    /// The highest.
    pub high: f32,
    /// How quotients become integers.
    pub round: Round,
}

/// What pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// The largest of a window.
    Max,
    /// The mean of those elements of a window that are in the image.
    Average,
}

/// How a format spells operators. What a method returns is the name of the value that it has written.
///
/// A `scope` is the layer's name in the file, `name` that of the operator to write; constants that an operator takes are
/// written by the method itself, which names them.
///
/// Errors are the end of a sentence that begins with the layer: what is not written in the format.
pub trait Operators {
    /// The format, behind "is not written".
    const FORMAT: &'static str;
    /// Whether a constant that two operators take is written once; otherwise it stands beside each of them.
    const SHARES_CONSTANTS: bool;
    /// The operator that takes elements of two values, as a third one says.
    const SELECT: &'static str;

    /// The name of an operator or a constant: a part of a scope, as this format calls it.
    fn named(&self, scope: &str, part: &str) -> String {
        format!("{scope}/{part}")
    }

    /// The name of an operator that has a constant as its second operand: after a label, or after itself.
    fn named_with(&self, operator: &str, scope: &str, label: Option<&str>) -> String;

    /// An operator of values that has no attributes.
    fn operator(&mut self, operator: &str, name: &str, inputs: &[&str]) -> String;
    /// A constant.
    fn tensor(&mut self, name: &str, tensor: &Tensor) -> String;
    /// A constant that is one number.
    fn number(&mut self, name: &str, value: f32) -> String;

    /// A function of each element where one call of this format computes it; `None` where it is several operators.
    fn unary(&mut self, function: Function, scope: &str, x: &str) -> Option<String>;
    /// The operator that combines two values; `None` where there is none.
    fn binary(&self, combine: Combine) -> Option<&'static str>;
    /// Values between 0 and `max`, which is finite.
    fn bounded(&mut self, scope: &str, x: &str, max: f32) -> String;
    /// Values between two others.
    fn clipped(&mut self, scope: &str, x: &str, low: &str, high: &str) -> String;
    /// Squares of values.
    fn squared(&mut self, scope: &str, part: &str, x: &str) -> String;
    /// Softmax, or its logarithm, along an axis of the batch: from the end if it is negative.
    fn rows(&mut self, logarithm: bool, scope: &str, x: &str, axis: i64, rank: usize) -> String;
    /// Axes of the batch folded, under the operator's own name or that of a part.
    fn reduced(&mut self, by: Reduction, scope: &str, part: Option<&str>, x: &str, axes: &[i64], keep: bool) -> String;

    /// A product with a kernel of `[inputs, outputs]`, and its bias.
    fn dense(&mut self, w: &Written<'_>) -> Result<String, String>;
    /// A convolution with its bias, its channels in groups.
    fn conv(&mut self, w: &Written<'_>, layer: &Conv2D) -> Result<String, String>;
    /// A convolution of each channel with its bias.
    fn depthwise(&mut self, w: &Written<'_>, layer: &DepthwiseConv2D) -> Result<String, String>;
    /// A transposed convolution with its bias.
    fn transposed(&mut self, w: &Written<'_>, layer: &Conv2DTranspose) -> Result<String, String>;
    /// max(x, 0) + slope · min(x, 0), with a slope for each channel or element.
    fn prelu(&mut self, w: &Written<'_>) -> Result<String, String>;
    /// Windows of an image.
    fn pool(&mut self, kind: Pool, w: &Written<'_>, pool: &PoolWindow) -> Result<String, String>;
    /// The product of two tensors, either of which may be turned first.
    fn product(&mut self, w: &Written<'_>, op: &TfOp, transpose: [bool; 2]) -> Result<String, String>;
    /// An image of the size of the layer's result. Nearest: our pixel is the one that the centre lies in.
    fn resized(&mut self, w: &Written<'_>, method: Interpolation) -> Result<String, String>;

    /// Values behind each other along an axis of the batch.
    fn joined(&mut self, name: &str, all: &[&str], axis: i64) -> String;
    /// Axes in another order.
    fn turned(&mut self, name: &str, x: &str, order: &[i64]) -> String;
    /// The same elements of each sample under another shape.
    fn reshaped(&mut self, name: &str, x: &str, shape: &[usize]) -> String;
    /// Elements before and behind each axis of the batch: zeros, or a value.
    fn padded(&mut self, scope: &str, x: &str, widths: &[(usize, usize)], value: Option<f32>) -> String;
    /// An image without its borders.
    fn cropped(&mut self, w: &Written<'_>, layer: &Cropping2D) -> Result<String, String>;
    /// Some elements of some axes.
    fn strided(&mut self, scope: &str, x: &str, along: &[Along]) -> String;
    /// These elements of an axis of the batch.
    fn gathered(&mut self, scope: &str, x: &str, indices: &[usize], axis: usize) -> String;
    /// Axes of the batch backwards.
    fn reversed(&mut self, scope: &str, x: &str, axes: &[usize]) -> String;
    /// Squares of pixels as channels, or back if `wide`.
    fn blocks(&mut self, wide: bool, scope: &str, x: &str, block: usize) -> String;

    /// Whether quantizers of weights stand in the graph, behind the weights as they are.
    fn keeps_quantizers(&self) -> bool {
        false
    }
    /// Steps that are powers of two where the format has an operator for them; `None` where they are arithmetic.
    fn stepped(&mut self, _own: &Pof2, _scope: &str, _value: &str) -> Option<String> {
        None
    }
    /// Steps from an offset.
    fn moved(&mut self, grid: &Moved, scope: &str, value: String) -> String;
    /// Steps of any size, the same for the whole value.
    fn affine(&mut self, own: &Affine, scope: &str, value: String) -> Result<String, String>;
    /// Blocks of values of this shape of a sample, each with one exponent.
    fn block(&mut self, own: &Block, scope: &str, shape: &[usize], value: String) -> Result<String, String>;

    /// Whether a layer of this type is written.
    fn takes(&self, node: &Node) -> Result<(), String>;
    /// A value rounded to a type that has 16 bits, and an f32 again; as it is for other types.
    fn halved(&mut self, dtype: Dtype, scope: &str, value: String) -> String;
    /// The value of a layer as those behind it take it.
    fn finished(&mut self, _node: &Node, value: String) -> String {
        value
    }

    /// A function of rows along an axis of the batch.
    fn row_function(
        &mut self,
        function: RowFunction,
        scope: &str,
        x: &str,
        axis: i64,
        rank: usize,
    ) -> Result<String, String> {
        match function {
            RowFunction::Softmax => Ok(self.rows(false, scope, x, axis, rank)),
            RowFunction::LogSoftmax => Ok(self.rows(true, scope, x, axis, rank)),
            other => Err(format!("the function {other:?} of rows is not written {}", Self::FORMAT)),
        }
    }
}
