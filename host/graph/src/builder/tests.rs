//! Every invariant of every layer is broken through the builder, which says which.

use std::sync::Arc;

use super::*;
use crate::ops::custom::Unknown;
use crate::ops::pool::PoolWindow;
use crate::ops::*;
use shiftwise_tensor::tensor::Tensor;

fn ones(shape: &[usize]) -> Tensor {
    Tensor::new(shape.to_vec(), vec![1.0; shape.iter().product()]).unwrap()
}

/// What the builder says of a layer over inputs of these shapes.
fn said(op: Op, shapes: &[&[usize]]) -> Result<Vec<usize>, String> {
    let mut builder = Builder::new("m");
    let input = |(k, shape): (usize, &&[usize])| {
        builder.layer(&format!("x{k}"), Op::Input(Input { shape: shape.to_vec() }), &[]).unwrap()
    };
    let inputs: Vec<NodeId> = shapes.iter().enumerate().map(input).collect();
    let y = builder.layer("y", op, &inputs).map_err(|e| e.to_string())?;
    Ok(builder.finish(&[y]).map_err(|e| e.to_string())?.nodes.pop().unwrap().shape)
}

fn weighted(kernel: &[usize], bias: Option<usize>) -> Weighted {
    Weighted { kernel: ones(kernel), bias: bias.map(|n| ones(&[n])), activation: ActivationFn::Linear }
}

fn conv(kernel: &[usize], bias: Option<usize>) -> Conv2D {
    let w = weighted(kernel, bias);
    Conv2D { w, strides: [1, 1], dilation: [1, 1], padding: Padding::Valid, groups: 1 }
}

fn depthwise(kernel: &[usize], bias: Option<usize>) -> DepthwiseConv2D {
    DepthwiseConv2D { w: weighted(kernel, bias), strides: [1, 1], dilation: [1, 1], padding: Padding::Valid }
}

fn transposed(kernel: &[usize], bias: Option<usize>) -> Conv2DTranspose {
    let w = weighted(kernel, bias);
    Conv2DTranspose { w, strides: [1, 1], dilation: [1, 1], padding: Padding::Valid, output_padding: None }
}

fn separable(depthwise: &[usize], pointwise: &[usize], bias: Option<usize>) -> SeparableConv2D {
    SeparableConv2D {
        depthwise: ones(depthwise),
        w: weighted(pointwise, bias),
        strides: [1, 1],
        dilation: [1, 1],
        padding: Padding::Valid,
    }
}

fn pool(size: [usize; 2], strides: [usize; 2]) -> PoolWindow {
    PoolWindow { size, strides, padding: Padding::Valid }
}

fn layer_norm(gamma: Option<usize>, beta: Option<usize>) -> LayerNormalization {
    let of = |n: Option<usize>| n.map(|n| ones(&[n]));
    LayerNormalization { gamma: of(gamma), beta: of(beta), epsilon: 1e-3, rms_scaling: false }
}

fn batch_norm(gamma: usize, variance: usize) -> BatchNormalization {
    BatchNormalization {
        gamma: Some(ones(&[gamma])),
        beta: None,
        mean: ones(&[3]),
        variance: ones(&[variance]),
        epsilon: 1e-3,
        momentum: 0.99,
    }
}

type Row<'a> = (Op, &'a [&'a [usize]], &'a str);

/// Shapes of one image, of two, and of a row.
const IMAGE: &[&[usize]] = &[&[4, 4, 3]];
const IMAGES: &[&[usize]] = &[&[4, 4, 3], &[4, 4, 3]];
const ROW: &[&[usize]] = &[&[3]];

fn convolutions() -> Vec<Row<'static>> {
    let strided = |strides, dilation| Op::Conv2D(Conv2D { strides, dilation, ..conv(&[1, 1, 3, 2], None) });
    let grouped = |kernel: &[usize], groups| Op::Conv2D(Conv2D { groups, ..conv(kernel, None) });
    let more = |more| Conv2DTranspose { output_padding: Some([more, 0]), ..transposed(&[2, 2, 2, 3], None) };
    vec![
        (Op::Conv2D(conv(&[1, 3, 2], None)), IMAGE, "its kernel has shape [1, 3, 2]"),
        (Op::Conv2D(conv(&[1, 1, 3, 0], None)), IMAGE, "its kernel has shape [1, 1, 3, 0]"),
        (Op::Conv2D(conv(&[1, 1, 3, 2], Some(3))), IMAGE, "its bias has shape [3], [2] is expected"),
        (Op::Conv2D(conv(&[1, 1, 2, 2], None)), IMAGE, "its kernel takes 2 input channels and its input has 3"),
        (Op::Conv2D(conv(&[5, 1, 3, 2], None)), IMAGE, "its window of 5 pixels does not fit into 4"),
        (Op::Conv2D(conv(&[1, 1, 3, 2], None)), ROW, "[height, width, channels] is expected"),
        (Op::Conv2D(conv(&[1, 1, 3, 2], None)), IMAGES, "it has 2 inputs, exactly one is expected"),
        (Op::Conv2D(conv(&[70_000, 1, 3, 1], None)), IMAGE, "its kernel size is [70000, 1]"),
        (strided([0, 1], [1, 1]), IMAGE, "its strides is [0, 1], whole numbers from 1 to 65535 are expected"),
        (strided([1, 1], [1, 70_000]), IMAGE, "its dilation rate is [1, 70000]"),
        (grouped(&[1, 1, 3, 2], 0), IMAGE, "0 groups don't divide 0 input channels and 2 filters"),
        (grouped(&[1, 1, 1, 2], 3), IMAGE, "3 groups don't divide 3 input channels and 2 filters"),
        (Op::DepthwiseConv2D(depthwise(&[1, 1, 3], None)), IMAGE, "its kernel has shape [1, 1, 3]"),
        (Op::DepthwiseConv2D(depthwise(&[1, 1, 3, 0], None)), IMAGE, "its kernel has shape [1, 1, 3, 0]"),
        (Op::DepthwiseConv2D(depthwise(&[1, 1, 3, 2], Some(3))), IMAGE, "its bias has shape [3], [6] is expected"),
        (Op::DepthwiseConv2D(depthwise(&[1, 1, 2, 1], None)), IMAGE, "its kernel takes 2 channels and its input has 3"),
        (Op::Conv2DTranspose(transposed(&[2, 2, 3], None)), IMAGE, "its kernel has shape [2, 2, 3]"),
        (Op::Conv2DTranspose(transposed(&[2, 2, 3, 2], None)), IMAGE, "its kernel takes 2 input channels"),
        (Op::Conv2DTranspose(transposed(&[2, 2, 2, 3], Some(3))), IMAGE, "its bias has shape [3], [2] is expected"),
        (Op::Conv2DTranspose(more(70_000)), IMAGE, "its output padding is [70000, 0]"),
        (Op::SeparableConv2D(separable(&[1, 1, 3], &[1, 1, 3, 2], None)), IMAGE, "its kernel has shape [1, 1, 3]"),
        (
            Op::SeparableConv2D(separable(&[1, 1, 3, 2], &[1, 1, 3, 2], None)),
            IMAGE,
            "its pointwise kernel has shape [1, 1, 3, 2], [1, 1, 6, 2] is expected",
        ),
        (Op::SeparableConv2D(separable(&[1, 1, 2, 1], &[1, 1, 2, 2], None)), IMAGE, "its kernel takes 2 channels"),
        (Op::SeparableConv2D(separable(&[1, 1, 3, 1], &[1, 1, 3, 2], Some(1))), IMAGE, "its bias has shape [1]"),
        (Op::Dense(Dense { w: weighted(&[3], None) }), ROW, "its kernel has shape [3], [inputs, units] is expected"),
        (Op::Dense(Dense { w: weighted(&[3, 2], Some(3)) }), ROW, "its bias has shape [3], [2] is expected"),
        (Op::Dense(Dense { w: weighted(&[4, 2], None) }), ROW, "its kernel takes 4 inputs"),
    ]
}

fn normalizations() -> Vec<Row<'static>> {
    let rms = LayerNormalization { rms_scaling: true, ..layer_norm(None, None) };
    let wide = LayerNormalization { epsilon: f32::INFINITY, ..layer_norm(None, None) };
    let group = |groups, norm| Op::GroupNormalization(GroupNormalization { groups, norm });
    vec![
        (Op::BatchNormalization(batch_norm(2, 3)), IMAGE, "its gamma has shape [2], [3] is expected"),
        (Op::BatchNormalization(batch_norm(3, 4)), IMAGE, "its moving_variance has shape [4], [3] is expected"),
        (
            Op::BatchNormalization(batch_norm(3, 3)),
            &[&[4, 4, 2]],
            "it has 3 channels and its input has shape [4, 4, 2]",
        ),
        (Op::LayerNormalization(layer_norm(Some(3), Some(2))), ROW, "its beta has shape [2], [3] is expected"),
        (Op::LayerNormalization(layer_norm(Some(2), None)), ROW, "channels and its input has shape [3]"),
        (Op::LayerNormalization(rms), ROW, "a normalization with rms_scaling has a gamma and no beta"),
        (Op::LayerNormalization(wide), ROW, "its epsilon is inf, a finite number is expected"),
        (group(2, layer_norm(None, None)), IMAGE, "2 groups don't divide 3 channels"),
        (group(0, layer_norm(None, None)), IMAGE, "0 groups don't divide 3 channels"),
        (group(1, layer_norm(Some(2), None)), IMAGE, "channels and its input has shape [4, 4, 3]"),
        (
            Op::RmsNormalization(RmsNormalization { scale: ones(&[2]), epsilon: 1e-6 }),
            ROW,
            "it has 2 channels and its input has shape [3]",
        ),
        (
            Op::RmsNormalization(RmsNormalization { scale: ones(&[3, 1]), epsilon: 1e-6 }),
            ROW,
            "its scale has shape [3, 1], [3] is expected",
        ),
        (
            Op::DpuLayerNorm(DpuLayerNorm { norm: layer_norm(None, None) }),
            ROW,
            "the last dimension must be a multiple of 8",
        ),
        (Op::UnitNormalization(UnitNormalization), IMAGES, "it has 2 inputs, exactly one is expected"),
    ]
}

fn activations() -> Vec<Row<'static>> {
    let slopes = |shape: &[usize], shared_axes| Op::PRelu(PRelu { alpha: ones(shape), shared_axes });
    vec![
        (Op::Relu(Relu { threshold: f32::NAN, ..Relu::PLAIN }), ROW, "its threshold is NaN, a finite number"),
        (Op::Relu(Relu { max_value: Some(f32::INFINITY), ..Relu::PLAIN }), ROW, "its max_value is inf"),
        (Op::Elu(Elu { alpha: f32::INFINITY }), ROW, "its alpha is inf"),
        (Op::LeakyRelu(LeakyRelu { alpha: f32::NAN }), ROW, "its alpha is NaN"),
        (slopes(&[2], vec![]), ROW, "its slopes have shape [2] and its input [3]"),
        (slopes(&[1], vec![2]), ROW, "its shared_axes are [2], axes from 1 to 1 are expected"),
        (Op::Softmax(Softmax { axis: 1 }), IMAGE, "softmax over axis 1, only the last axis"),
        (Op::DpuSoftmax(DpuSoftmax { axis: -1 }), ROW, "the last dimension must be a multiple of 16"),
        (Op::Activation(Activate { function: ActivationFn::Relu }), IMAGES, "it has 2 inputs"),
        (Op::HardSigmoid(HardSigmoid), IMAGES, "it has 2 inputs"),
    ]
}

fn merges() -> Vec<Row<'static>> {
    vec![
        (Op::Add(Add), IMAGE, "it has 1 inputs, at least two are expected"),
        (Op::Multiply(Multiply), &[&[4, 4, 3], &[4, 3, 3]], "broadcast"),
        (Op::Merge(Merge::Subtract), &[&[3], &[3], &[3]], "it has 3 inputs, two are expected"),
        (Op::ScaledAdd(ScaledAdd { scale: 1.0 }), IMAGE, "two of one shape are expected"),
        (Op::ScaledAdd(ScaledAdd { scale: f32::INFINITY }), IMAGES, "its scale is inf"),
        (Op::Dot(Dot { axes: [0, 2] }), IMAGES, "have no product along axes [0, 2]"),
        (Op::Dot(Dot { axes: [3, 0] }), IMAGES, "have no product along axes [3, 0]"),
        (Op::Dot(Dot { axes: [0, 0] }), IMAGE, "it has 1 inputs, two are expected"),
        (Op::Concatenate(Concatenate { axis: 3 }), IMAGES, "it joins axis 3 of tensors with 3 dimensions"),
        (Op::Concatenate(Concatenate { axis: 0 }), &[&[4, 4, 3], &[4, 4, 2]], "which differ in more than axis 0"),
    ]
}

fn moves() -> Vec<Row<'static>> {
    let (rows, columns) = ([0, 0], [0, 0]);
    let up = |size| Op::UpSampling2D(UpSampling2D { size, interpolation: Interpolation::Nearest });
    let resized = |size| Op::Resizing(Resizing { size, interpolation: Interpolation::Nearest });
    vec![
        (Op::MaxPooling2D(MaxPooling2D { pool: pool([0, 1], [1, 1]) }), IMAGE, "its pool size is [0, 1]"),
        (Op::MaxPooling2D(MaxPooling2D { pool: pool([5, 1], [1, 1]) }), IMAGE, "its window of 5 pixels does not fit"),
        (
            Op::AveragePooling2D(AveragePooling2D { pool: pool([1, 1], [1, 0]), dpu: false }),
            IMAGE,
            "its strides is [1, 0]",
        ),
        (
            Op::GlobalAveragePooling2D(GlobalAveragePooling2D { keepdims: true, dpu: false }),
            ROW,
            "[height, width, channels] is expected",
        ),
        (Op::GlobalMaxPooling2D(GlobalMaxPooling2D { keepdims: true }), ROW, "[height, width, channels] is expected"),
        (Op::Flatten(Flatten), IMAGES, "it has 2 inputs, exactly one is expected"),
        (Op::Reshape(Reshape { target: vec![-1, -1] }), IMAGE, "[4, 4, 3] can't be reshaped to [-1, -1]"),
        (Op::Reshape(Reshape { target: vec![7] }), IMAGE, "[4, 4, 3] can't be reshaped to [7]"),
        (Op::ZeroPadding2D(ZeroPadding2D { rows: [0, 70_000], columns }), IMAGE, "its padding is [0, 70000, 0, 0]"),
        (Op::Cropping2D(Cropping2D { rows, columns: [2, 2] }), IMAGE, "nothing remains of its input of 4x4 pixels"),
        (Op::Cropping2D(Cropping2D { rows: [usize::MAX, 1], columns }), IMAGE, "its cropping is"),
        (up([0, 2]), IMAGE, "its size is [0, 2]"),
        (resized([2, 70_000]), IMAGE, "its size is [2, 70000]"),
        (Op::RepeatVector(RepeatVector { n: 0 }), ROW, "at least one repetition are expected"),
        (Op::RepeatVector(RepeatVector { n: 1 << 40 }), ROW, "values are supported"),
        (Op::Permute(Permute { dims: vec![0, 0, 1] }), IMAGE, "its dims [0, 0, 1] are no order of the 3 of its input"),
        (Op::Input(Input { shape: vec![3] }), ROW, "an input layer has no inputs"),
        (Op::Input(Input { shape: vec![3, 0] }), &[], "its shape [3, 0] has an empty dimension"),
        (Op::Dropout(Dropout::PLAIN), IMAGES, "it has 2 inputs, exactly one is expected"),
        (Op::Quantize(Quantize), IMAGES, "it has 2 inputs, exactly one is expected"),
    ]
}

#[test]
fn every_invariant_that_is_broken_is_named() {
    let rows = [convolutions(), normalizations(), activations(), merges(), moves()].concat();
    for (op, shapes, sentence) in rows {
        let what = format!("{} over {shapes:?}", op.class());
        let message = said(op, shapes).expect_err(&what);
        assert!(message.starts_with("layer `y` (") && message.contains(sentence), "{what}: {message}");
    }
}

#[test]
fn layers_whose_parts_belong_together_are_taken() {
    type Taken = (Op, &'static [&'static [usize]], &'static [usize]);
    let rows: Vec<Taken> = vec![
        (Op::Conv2D(Conv2D { groups: 3, ..conv(&[2, 2, 1, 6], Some(6)) }), IMAGE, &[3, 3, 6]),
        (Op::DepthwiseConv2D(depthwise(&[2, 1, 3, 2], Some(6))), IMAGE, &[3, 4, 6]),
        (Op::Conv2DTranspose(transposed(&[2, 2, 5, 3], Some(5))), IMAGE, &[5, 5, 5]),
        (Op::SeparableConv2D(separable(&[1, 1, 3, 2], &[1, 1, 6, 4], Some(4))), IMAGE, &[4, 4, 4]),
        (Op::BatchNormalization(batch_norm(3, 3)), IMAGE, &[4, 4, 3]),
        (Op::LayerNormalization(layer_norm(None, Some(3))), ROW, &[3]),
        (Op::Concatenate(Concatenate { axis: 2 }), IMAGES, &[4, 4, 6]),
    ];
    for (op, shapes, shape) in rows {
        let class = op.class().to_owned();
        assert_eq!(said(op, shapes).unwrap(), shape, "{class}");
    }
}

#[test]
fn a_name_stands_once_and_a_layer_behind_its_inputs() {
    let mut builder = Builder::new("m");
    let x = builder.layer("x", Op::Input(Input { shape: vec![2] }), &[]).unwrap();
    let twice = builder.layer("x", Op::Flatten(Flatten), &[x]).unwrap_err().to_string();
    assert_eq!(twice, "layer `x` (Flatten): its name stands twice in the graph");
    let early = builder.layer("y", Op::Flatten(Flatten), &[NodeId(1)]).unwrap_err().to_string();
    assert_eq!(early, "layer `y` (Flatten): it stands before one of its inputs");
    // What was refused leaves nothing behind.
    let y = builder.layer("y", Op::Flatten(Flatten), &[x]).unwrap();
    assert_eq!(builder.clone().finish(&[]).unwrap_err().to_string(), "the model has no output");
    assert!(builder.clone().finish(&[NodeId(7)]).unwrap_err().to_string().contains("none of its layers"));
    let mut other = builder.clone();
    other.inputs(&[y]);
    assert_eq!(other.finish(&[y]).unwrap_err().to_string(), "an input of the model is not an input layer");
    assert_eq!(builder.finish(&[y]).unwrap().inputs, [x]);
}

#[test]
fn a_layer_of_the_users_own_says_itself_what_does_not_fit() {
    let own = |shape: &[usize]| {
        let implementation = Arc::new(Unknown::new("Mine", shape));
        Op::Custom(Custom::new("Mine", implementation))
    };
    assert_eq!(said(own(&[2, 2]), ROW).unwrap(), [2, 2]);
    assert!(said(own(&[0]), ROW).unwrap_err().contains("in which a dimension is 0"));
}
