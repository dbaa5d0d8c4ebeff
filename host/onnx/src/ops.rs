//! The operators of ONNX: what each computes of values, and which layers of ours it is.
//!
//! [`OPS`] is the one table. A row's `eval` follows the operator's definition for arrays of any type, and is what constants
//! are folded with and what a network is computed with that is no network of layers. Its `layer` says the same with the
//! layers of a graph, for one sample.

use crate::expand;
use crate::proto::NodeProto;
use crate::reader::layers::{self, LayerOf};
use crate::reader::quantized as quantizers;
use crate::value::Value;

pub(crate) mod call;
pub(crate) mod einsum;
pub(crate) mod elements;
pub(crate) mod moves;
pub(crate) mod norms;
pub(crate) mod picks;
pub(crate) mod quantized;
pub(crate) mod resize;
pub(crate) mod sums;

/// An operator.
pub(crate) struct Operator {
    /// ONNX' name.
    pub(crate) name: &'static str,
    /// Its values, or the rest of a sentence about the node.
    pub(crate) eval: fn(&Call<'_>) -> Results,
    /// Its layers, if it has any.
    pub(crate) layer: Option<LayerOf>,
}

/// Rows of the table: `"Name" => values, layer`.
macro_rules! operators {
    ($($name:literal => $eval:expr, $layer:expr;)*) => {
        /// All operators that are known.
        pub(crate) const OPS: &[Operator] = &[$(Operator { name: $name, eval: $eval, layer: $layer },)*];
    };
}

use elements::{ADD, DIV, MAX, MIN, MUL, POW, SUB, Two, binary, compare, folded, logic, unary};
use std::cmp::Ordering;
use sums::{global_pool, reduce};

use call::{Call, Results};

operators! {
    "Abs" => |c| unary(c, f64::abs, Some(i128::abs)), Some(layers::function);
    "Acos" => |c| unary(c, libm::acos, None), None;
    "Acosh" => |c| unary(c, libm::acosh, None), None;
    "Add" => |c| binary(c, &ADD), Some(layers::binary);
    "And" => |c| logic(c, |a, b| a && b), None;
    "ArgMax" => |c| moves::arg(c, 1.0), None;
    "ArgMin" => |c| moves::arg(c, -1.0), None;
    "Asin" => |c| unary(c, libm::asin, None), None;
    "Asinh" => |c| unary(c, libm::asinh, None), None;
    "Atan" => |c| unary(c, libm::atan, None), None;
    "Atanh" => |c| unary(c, libm::atanh, None), None;
    "AveragePool" => sums::average_pool, Some(layers::average_pool);
    "BatchNormalization" => sums::batch_norm, Some(layers::batch_norm);
    "BitShift" => elements::shift, None;
    "BitwiseAnd" => |c| binary(c, &Two { real: |a, _| a, whole: |a, b| Some(a & b) }), None;
    "BitwiseNot" => |c| unary(c, |x| x, Some(|x| !x)), None;
    "BitwiseOr" => |c| binary(c, &Two { real: |a, _| a, whole: |a, b| Some(a | b) }), None;
    "BitwiseXor" => |c| binary(c, &Two { real: |a, _| a, whole: |a, b| Some(a ^ b) }), None;
    "Cast" => elements::cast, Some(layers::cast);
    "CastLike" => elements::cast_like, None;
    "Ceil" => |c| unary(c, f64::ceil, Some(|x| x)), Some(layers::function);
    "Celu" => |c| elements::with_alpha(c, 1.0, |x, a| if x > 0.0 { x } else { a * libm::expm1(x / a) }), None;
    "Clip" => elements::clip, Some(layers::clip);
    "Compress" => picks::compress, None;
    "Concat" => moves::concat, Some(layers::concat);
    "Constant" => moves::constant, None;
    "ConstantOfShape" => moves::constant_of_shape, None;
    "Conv" => sums::conv, Some(layers::conv);
    "ConvInteger" => |c| quantized::integers(c, true), None;
    "ConvTranspose" => sums::conv_transpose, Some(layers::conv_transpose);
    "Cos" => |c| unary(c, libm::cos, None), None;
    "Cosh" => |c| unary(c, libm::cosh, None), None;
    "CumProd" => |c| picks::cumulative(c, 1.0, |a, b| a * b), None;
    "CumSum" => |c| picks::cumulative(c, 0.0, |a, b| a + b), None;
    "DepthToSpace" => moves::depth_to_space, Some(layers::depth_to_space);
    "DequantizeLinear" => quantized::dequantize, Some(quantizers::dequantize);
    "Div" => |c| binary(c, &DIV), Some(layers::binary);
    "Dropout" => elements::dropout, Some(layers::identity);
    "DynamicQuantizeLinear" => quantized::dynamic, None;
    "Einsum" => einsum::einsum, Some(layers::einsum);
    "Elu" => |c| elements::with_alpha(c, 1.0, |x, a| if x < 0.0 { a * libm::expm1(x) } else { x }), Some(layers::elu);
    "Equal" => |c| compare(c, Ordering::is_eq), Some(layers::guarded_quotient);
    "Erf" => |c| unary(c, libm::erf, None), Some(layers::erf);
    "Exp" => |c| unary(c, libm::exp, None), Some(layers::function);
    "Expand" => moves::expand, None;
    "EyeLike" => picks::eye_like, None;
    "Flatten" => moves::flatten, Some(layers::flatten);
    "Floor" => |c| unary(c, f64::floor, Some(|x| x)), Some(layers::function);
    "Gather" => moves::gather, Some(layers::gather);
    "GatherElements" => picks::gather_elements, None;
    "GatherND" => picks::gather_nd, None;
    "Gelu" => elements::gelu, Some(layers::gelu);
    "Gemm" => sums::gemm, Some(layers::gemm);
    "GlobalAveragePool" => |c| global_pool(c, sums::mean), Some(layers::global_pool);
    "GlobalLpPool" => norms::global_lp_pool, None;
    "GlobalMaxPool" => |c| global_pool(c, sums::largest), Some(layers::global_pool);
    "Greater" => |c| compare(c, Ordering::is_gt), None;
    "GreaterOrEqual" => |c| compare(c, Ordering::is_ge), None;
    "GroupNormalization" => |c| sums::group_norm(c, Some(c.size("num_groups", 1)?)), Some(layers::group_norm);
    "HardSigmoid" => elements::hard_sigmoid, Some(layers::hard_sigmoid);
    "HardSwish" => |c| unary(c, |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0), None), Some(layers::activation);
    "Hardmax" => picks::hardmax, None;
    "Identity" => |c| Ok(vec![c.input(0)?.clone()]), Some(layers::identity);
    "InstanceNormalization" => |c| sums::group_norm(c, None), Some(layers::group_norm);
    "IsInf" => elements::is_infinite, None;
    "IsNaN" => |c| elements::is(c, f64::is_nan), None;
    "LRN" => sums::lrn, Some(layers::lrn);
    "LayerNormalization" => sums::layer_norm, Some(layers::layer_norm);
    "LeakyRelu" => |c| elements::with_alpha(c, 0.01, |x, a| if x < 0.0 { a * x } else { x }), Some(layers::leaky_relu);
    "Less" => |c| compare(c, Ordering::is_lt), None;
    "LessOrEqual" => |c| compare(c, Ordering::is_le), None;
    "Log" => |c| unary(c, libm::log, None), Some(layers::function);
    "LogSoftmax" => |c| elements::softmax(c, true), Some(layers::softmax);
    "LpNormalization" => norms::lp, Some(layers::lp_norm);
    "LpPool" => norms::lp_pool, None;
    "MatMul" => sums::matmul, Some(layers::matmul);
    "MatMulInteger" => |c| quantized::integers(c, false), None;
    "Max" => |c| folded(c, &MAX), Some(layers::binary);
    "MaxPool" => sums::max_pool, Some(layers::max_pool);
    "Mean" => elements::mean, None;
    "MeanVarianceNormalization" => norms::mean_variance, None;
    "Min" => |c| folded(c, &MIN), Some(layers::binary);
    "Mish" => |c| unary(c, |x| x * libm::tanh(softplus(x)), None), Some(layers::activation);
    "Mod" => elements::modulo, None;
    "Mul" => |c| binary(c, &MUL), Some(layers::binary);
    "Neg" => |c| unary(c, |x| -x, Some(|x| -x)), Some(layers::function);
    "NonZero" => picks::non_zero, None;
    "Not" => |c| unary(c, |x| x, Some(|x| i128::from(x == 0))), None;
    "OneHot" => picks::one_hot, None;
    "Or" => |c| logic(c, |a, b| a || b), None;
    "PRelu" => elements::prelu, Some(layers::prelu);
    "Pad" => moves::pad, Some(layers::pad);
    "Pow" => |c| binary(c, &POW), Some(layers::binary);
    "QLinearConv" => quantized::conv, None;
    "QLinearMatMul" => quantized::matmul, None;
    "QuantizeLinear" => quantized::quantize, Some(quantizers::quantize);
    "RMSNormalization" => norms::root_mean_square, Some(layers::root_mean_square);
    "Range" => moves::range, None;
    "Reciprocal" => |c| unary(c, |x| 1.0 / x, None), Some(layers::function);
    "ReduceL1" => |c| reduce(c, |v| v.iter().map(|x| x.abs()).sum()), Some(layers::reduced_by_parts);
    "ReduceL2" => |c| reduce(c, |v| v.iter().map(|x| x * x).sum::<f64>().sqrt()), Some(layers::reduced_by_parts);
    "ReduceLogSum" => |c| reduce(c, |v| libm::log(v.iter().sum())), Some(layers::reduced_by_parts);
    "ReduceLogSumExp" => |c| reduce(c, norms::log_sum_exp), Some(layers::reduced_by_parts);
    "ReduceMax" => |c| reduce(c, sums::largest), Some(layers::reduce);
    "ReduceMean" => |c| reduce(c, sums::mean), Some(layers::reduce);
    "ReduceMin" => |c| reduce(c, |v| v.iter().fold(f64::INFINITY, |m, x| m.min(*x))), Some(layers::reduce);
    "ReduceProd" => |c| reduce(c, |v| v.iter().product()), None;
    "ReduceSum" => |c| reduce(c, |v| v.iter().sum()), Some(layers::reduce);
    "ReduceSumSquare" => |c| reduce(c, |v| v.iter().map(|x| x * x).sum()), Some(layers::reduced_by_parts);
    "Relu" => |c| unary(c, |x| if x < 0.0 { 0.0 } else { x }, Some(|x| x.max(0))), Some(layers::relu);
    "Reshape" => moves::reshape, Some(layers::reshape);
    "Resize" => resize::resize, Some(layers::resize);
    "Round" => |c| unary(c, libm::rint, Some(|x| x)), Some(layers::function);
    "Scatter" => picks::scatter_elements, None;
    "ScatterElements" => picks::scatter_elements, None;
    "ScatterND" => picks::scatter_nd, None;
    "Selu" => elements::selu, Some(layers::selu);
    "Shape" => moves::shape, Some(layers::shape);
    "Shrink" => elements::shrink, None;
    "Sigmoid" => |c| unary(c, |x| 1.0 / (1.0 + libm::exp(-x)), None), Some(layers::activation);
    "Sign" => |c| unary(c, |x| if x == 0.0 { 0.0 } else { x.signum() }, Some(i128::signum)), Some(layers::function);
    "Sin" => |c| unary(c, libm::sin, None), None;
    "Sinh" => |c| unary(c, libm::sinh, None), None;
    "Size" => |c| Ok(vec![Value::int64(vec![], vec![c.input(0)?.len() as i64])]), None;
    "Slice" => moves::slice, Some(layers::slice);
    "Softmax" => |c| elements::softmax(c, false), Some(layers::softmax);
    "Softplus" => |c| unary(c, softplus, None), Some(layers::activation);
    "Softsign" => |c| unary(c, |x| x / (1.0 + x.abs()), None), Some(layers::activation);
    "SpaceToDepth" => moves::space_to_depth, Some(layers::space_to_depth);
    "Split" => moves::split, Some(layers::split);
    "Sqrt" => |c| unary(c, f64::sqrt, None), Some(layers::function);
    "Squeeze" => moves::squeeze, Some(layers::reshape);
    "Sub" => |c| binary(c, &SUB), Some(layers::binary);
    "Sum" => |c| folded(c, &ADD), Some(layers::binary);
    "Swish" => |c| elements::with_alpha(c, 1.0, |x, a| x / (1.0 + libm::exp(-a * x))), Some(layers::swish);
    "Tan" => |c| unary(c, libm::tan, None), None;
    "Tanh" => |c| unary(c, libm::tanh, None), Some(layers::activation);
    "ThresholdedRelu" => |c| elements::with_alpha(c, 1.0, |x, a| if x > a { x } else { 0.0 }), Some(layers::thresholded_relu);
    "Tile" => moves::tile, None;
    "TopK" => picks::top_k, None;
    "Transpose" => moves::transpose, Some(layers::transpose);
    "Trilu" => picks::trilu, None;
    "Unsqueeze" => moves::unsqueeze, Some(layers::reshape);
    "Upsample" => resize::resize, Some(layers::resize);
    "Where" => elements::choose, None;
    "Xor" => |c| logic(c, |a, b| a != b), None;
}

fn softplus(x: f64) -> f64 {
    if x > 30.0 { x } else { libm::log1p(libm::exp(x)) }
}

/// The operator of a node, if it is known.
pub(crate) fn of(node: &NodeProto) -> Option<&'static Operator> {
    let own = match node.domain.as_str() {
        "" | "ai.onnx" => true,
        "com.microsoft" => expand::is_known(&node.op_type),
        _ => false,
    };
    OPS.iter().find(|op| own && op.name == node.op_type)
}
