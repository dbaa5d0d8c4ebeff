//! The kernels on five layers as a ResNet has them, and on a depthwise layer. One image per iteration, one thread.
//!
//! `cargo bench -p shiftwise-tensor --bench kernels`

use divan::Bencher;
use divan::counter::ItemsCount;
use shiftwise_tensor::kernel::backward::{InputGradient, conv_weights, depthwise_weights};
use shiftwise_tensor::kernel::{ConvGeometry, PackedF32, PackedI8, conv_f32, conv_i8, depthwise_f32, depthwise_i8};

fn main() {
    divan::main();
}

/// `(size, input channels, output channels, kernel)`, stride 1, padding "same".
const LAYERS: [(usize, usize, usize, usize); 5] =
    [(56, 64, 64, 3), (28, 128, 128, 3), (14, 256, 256, 3), (56, 64, 256, 1), (14, 1024, 256, 1)];

fn same((size, cin, cout, kernel): (usize, usize, usize, usize), groups: usize) -> ConvGeometry {
    ConvGeometry {
        in_h: size,
        in_w: size,
        out_h: size,
        out_w: size,
        kernel: [kernel, kernel],
        pad_before: [kernel / 2, kernel / 2],
        groups,
        ..ConvGeometry::dense(1, cin, cout)
    }
}

fn floats(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 37 % 101) as f32 / 101.0 - 0.5).collect()
}

fn integers(len: usize) -> Vec<i8> {
    (0..len).map(|i| (i * 37 % 251) as u8 as i8).collect()
}

/// An item is one multiply-add.
fn items(geometry: &ConvGeometry) -> ItemsCount {
    ItemsCount::new(geometry.macs())
}

fn run_f32(bencher: Bencher, g: &ConvGeometry) {
    let packed = PackedF32::new(&floats(g.kernel_len()), g);
    let (input, bias) = (floats(g.input_len()), floats(g.out_c));
    let mut output = vec![0.0; g.output_len()];
    bencher.counter(items(g)).bench_local(|| conv_f32(&packed, g, &input, Some(&bias), &mut output));
}

fn run_i8(bencher: Bencher, g: &ConvGeometry) {
    let packed = PackedI8::new(&integers(g.kernel_len()), g);
    let input = integers(g.input_len());
    let mut output = vec![0; g.output_len()];
    bencher.counter(items(g)).bench_local(|| conv_i8(&packed, g, &input, &mut output));
}

#[divan::bench(args = LAYERS)]
fn f32_conv(bencher: Bencher, layer: &(usize, usize, usize, usize)) {
    run_f32(bencher, &same(*layer, 1));
}

#[divan::bench(args = LAYERS)]
fn i8_conv(bencher: Bencher, layer: &(usize, usize, usize, usize)) {
    run_i8(bencher, &same(*layer, 1));
}

/// One vector: bound by reading the weights.
#[divan::bench(args = [1, 8])]
fn f32_dense_2048_1000(bencher: Bencher, rows: usize) {
    run_f32(bencher, &ConvGeometry::dense(rows, 2048, 1000));
}

#[divan::bench(args = [1, 8])]
fn i8_dense_2048_1000(bencher: Bencher, rows: usize) {
    run_i8(bencher, &ConvGeometry::dense(rows, 2048, 1000));
}

#[divan::bench]
fn f32_depthwise(bencher: Bencher) {
    let g = same((56, 128, 128, 3), 128);
    let (kernel, input, bias) = (floats(g.kernel_len()), floats(g.input_len()), floats(g.out_c));
    let mut output = vec![0.0; g.output_len()];
    bencher.counter(items(&g)).bench_local(|| depthwise_f32(&g, &kernel, &input, Some(&bias), &mut output));
}

#[divan::bench]
fn i8_depthwise(bencher: Bencher) {
    let g = same((56, 128, 128, 3), 128);
    let (kernel, input) = (integers(g.kernel_len()), integers(g.input_len()));
    let mut output = vec![0; g.output_len()];
    bencher.counter(items(&g)).bench_local(|| depthwise_i8(&g, &kernel, &input, &mut output));
}

/// The gradient of the input, with the kernel prepared.
#[divan::bench(args = LAYERS)]
fn f32_conv_dx(bencher: Bencher, layer: &(usize, usize, usize, usize)) {
    let g = same(*layer, 1);
    let (gradient, dy) = (InputGradient::new(&floats(g.kernel_len()), &g), floats(g.output_len()));
    let mut dx = vec![0.0; g.input_len()];
    bencher.counter(items(&g)).bench_local(|| gradient.run(&dy, &mut dx));
}

/// The gradient of the kernel.
#[divan::bench(args = LAYERS)]
fn f32_conv_dw(bencher: Bencher, layer: &(usize, usize, usize, usize)) {
    let g = same(*layer, 1);
    let (x, dy, mut dw) = (floats(g.input_len()), floats(g.output_len()), vec![0.0; g.kernel_len()]);
    bencher.counter(items(&g)).bench_local(|| {
        conv_weights(&g, 0..g.in_c, std::iter::once((x.as_slice(), dy.as_slice())), &mut dw);
    });
}

#[divan::bench]
fn f32_depthwise_dx(bencher: Bencher) {
    let g = same((56, 128, 128, 3), 128);
    let (gradient, dy) = (InputGradient::new(&floats(g.kernel_len()), &g), floats(g.output_len()));
    let mut dx = vec![0.0; g.input_len()];
    bencher.counter(items(&g)).bench_local(|| gradient.run(&dy, &mut dx));
}

#[divan::bench]
fn f32_depthwise_dw(bencher: Bencher) {
    let g = same((56, 128, 128, 3), 128);
    let (x, dy, mut dw) = (floats(g.input_len()), floats(g.output_len()), vec![0.0; g.kernel_len()]);
    bencher.counter(items(&g)).bench_local(|| {
        depthwise_weights(&g, std::iter::once((x.as_slice(), dy.as_slice())), &mut dw);
    });
}
