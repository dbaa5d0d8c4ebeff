//! Why a DPU can't do a layer: one row per kind.

use crate::dpu::limits::Violation;
use shiftwise_core::fix::FixPos;
use shiftwise_integer::reasons;
use shiftwise_integer::reasons::FloatWhy;

const INTEGERS: &str = "quantize what it reads and what it makes";
const POSITIONS: &str = "let the quantizer adjust positions to the target";
const SMALLER: &str = "use a smaller map, or split the layer";
const RELU: &str = "use ReLU, or a LeakyReLU behind a convolution";
const DILATION: &str = "use a smaller stride or dilation";

reasons! {
    /// Why an op is on the CPU and not on the DPU.
    pub enum Reason;

    /// A number of the layer is outside a limit of the DPU's table.
    Limit {
        /// The number and its limit.
        violation: Violation
    } = "limit", Some(violation.remedy), ("{violation}");
    /// The layer has no integer form.
    Float {
        /// Why.
        why: FloatWhy
    } = "float", why.remedy(), ("{why}");
    /// The op reads or makes floats.
    NoFloats {} = "no_floats", Some(INTEGERS), ("the DPU has no floats");
    /// A softmax.
    Softmax {} = "softmax", None, ("softmax is computed in floats");
    /// A PReLU.
    PRelu {} = "prelu", Some("use ReLU or LeakyReLU"), ("how the ALU's PReLU takes its slopes is unknown");
    /// An op that reads nothing.
    NoOperands {} = "no_operands", None, ("it has no operands");
    /// A view, which nobody computes.
    View {} = "view", None, ("a view needs no engine");
    /// A map that addresses don't reach, or an empty one.
    Map {
        /// Rows, columns, channels.
        dims: [usize; 3]
    } = "map_size", Some(SMALLER), ("a map of {} × {} × {} is beyond the DPU's addresses", dims[0], dims[1], dims[2]);
    /// A concatenation of tensors that are no maps.
    Rank {
        /// Dimensions.
        rank: usize
    } = "concat_rank", Some("concatenate maps of up to three dimensions"), ("a concatenation of {rank} dimensions");
    /// A convolution whose numbers contradict each other.
    Malformed {
        /// What is wrong.
        text: String
    } = "malformed", None, ("{text}");
    /// A position for which the engine has no ReLU6.
    Relu6 {
        /// Position of the result.
        pos: FixPos
    } = "relu6_position", Some(POSITIONS), ("there is no ReLU6 at output position {pos}");
    /// A LeakyReLU behind an element-wise op.
    LeakyElew {} = "leaky_relu", Some(RELU), ("ELEW has no LeakyReLU before its shift");
    /// A LeakyReLU that would magnify what is rounded away of a bias.
    FineBias {
        /// Left shift of the bias.
        shift: i32
    } = "fine_bias", Some(POSITIONS), ("its bias is finer than the accumulator before a LeakyReLU (shift_bias {shift})");
    /// Sums that could leave the accumulator.
    Sums {
        /// Output channel.
        channel: usize,
        /// Largest sum, in half steps of the accumulator.
        most: i64
    } = "accumulator", Some("use fewer input channels, or smaller weights"),
        ("sums of channel {channel} reach {most}, beyond a 32-bit accumulator");
    /// A dilation that steps over the whole map.
    Dilation {
        /// Pixels from tap to tap.
        dilation: u32
    } = "dilation", Some(DILATION), ("a dilation of {dilation} is larger than the map");
    /// A convolution that is taken apart into too many.
    Parts {
        /// Convolutions that it would be.
        parts: usize,
        /// Most that are built.
        most: usize
    } = "parts", Some(DILATION), ("its strides or dilations make {parts} convolutions of it, at most {most} are built");
    /// A kernel beyond 32 bits.
    Kernel {} = "kernel_size", Some(SMALLER), ("its kernel is too large");
    /// A transposed convolution with an output that hardly anything reaches.
    Reach {} = "reach", Some("crop or pad in a layer of its own"), ("most of its output is out of its kernel's reach");
    /// A pooling window that the ALU has no fields for.
    Window {} = "window", Some("pool without dilation"), ("its window is dilated, or has no taps or strides");
    /// A product of one or many.
    Factors {} = "factors", Some("multiply in several layers"), ("a product of other than two operands");
    /// A product of shapes that repeat in another way than along pixels.
    Product {
        /// Shape of the first operand.
        a: Vec<usize>,
        /// Shape of the second operand.
        b: Vec<usize>
    } = "product_shapes", Some("repeat the smaller operand in the model"),
        ("{a:?} times {b:?}: a DPU multiplies equal shapes, or one factor per channel");
    /// A sum of unlike shapes.
    Shapes {} = "shapes", Some("bring the operands to one shape"), ("its operands are not of one shape");
    /// An upsampling that repeats pixels too often.
    Repeats {
        /// Repetitions, vertical and horizontal.
        factor: [usize; 2],
        /// Most SAVEs of one pixel.
        most: usize
    } = "repeats", Some("enlarge in two layers"),
        ("each pixel {} × {} times; up to {most} SAVEs of a pixel are made", factor[0], factor[1]);
    /// A padding between two positions.
    PadPosition {} = "pad_position", Some(POSITIONS), ("padding would change the position");
    /// A permutation that isn't one exchange.
    Axes {
        /// Shape of the operand.
        shape: Vec<usize>,
        /// Which of its axes is where.
        order: Vec<usize>
    } = "axes", Some("permute in several layers"),
        ("axes {shape:?} in the order {order:?} take more than one exchange of rows and columns");
    /// Pixels too far apart for a transfer.
    Pitch {
        /// Bytes.
        bytes: u32
    } = "pitch", Some("use fewer channels"), ("{bytes} bytes from pixel to pixel; a transfer's step has 16 bits");
    /// Not even one pixel of the layer fits.
    NoRoom {
        /// Addresses of a feature-map bank.
        maps: u32,
        /// Addresses of a weight bank.
        weights: u32
    } = "no_room", Some("use fewer channels, a smaller kernel or a larger DPU"), (
        "not even one output pixel of it fits the banks ({maps} addresses of feature maps, {weights} of weights)"
    );
}

impl serde::Serialize for Reason {
    /// The sentence, as tables and reports have it.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
