//! Gradients against loops that read like their definition.

use proptest::prelude::*;

use crate::kernel::backward::depthwise::depthwise_weights_on;
use crate::kernel::backward::weights::conv_weights_on;
use crate::kernel::backward::{InputGradient, bias, conv_weights};
use crate::kernel::tests::{bits, floats, geometry, paths};
use crate::kernel::{ConvGeometry, Path};

/// Input pixel of an output and a tap along an axis, unless it lies in the padding.
fn meets(g: &ConvGeometry, axis: usize, output: usize, tap: usize) -> Option<usize> {
    let size = [g.in_h, g.in_w][axis];
    (output * g.stride[axis] + tap * g.dilation[axis]).checked_sub(g.pad_before[axis]).filter(|at| *at < size)
}

/// dX, element by element: the chain over taps from the last to the first, and channels.
fn input_by_definition(g: &ConvGeometry, kernel: &[f32], dy: &[f32]) -> Vec<f32> {
    let (cin, cout) = (g.in_c / g.groups, g.out_c / g.groups);
    let mut dx = vec![0.0f32; g.input_len()];
    for (at, dx) in dx.iter_mut().enumerate() {
        let (c, x, y) = (at % g.in_c, at / g.in_c % g.in_w, at / g.in_c / g.in_w);
        for ky in (0..g.kernel[0]).rev() {
            let Some(oy) = (0..g.out_h).find(|o| meets(g, 0, *o, ky) == Some(y)) else { continue };
            for kx in (0..g.kernel[1]).rev() {
                let Some(ox) = (0..g.out_w).find(|o| meets(g, 1, *o, kx) == Some(x)) else { continue };
                for o in c / cin * cout..(c / cin + 1) * cout {
                    let w = kernel[((ky * g.kernel[1] + kx) * cin + c % cin) * g.out_c + o];
                    *dx = dy[(oy * g.out_w + ox) * g.out_c + o].mul_add(w, *dx);
                }
            }
        }
    }
    dx
}

/// dW in whole numbers, where every order gives the same sum.
fn weights_by_definition(g: &ConvGeometry, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let (cin, cout) = (g.in_c / g.groups, g.out_c / g.groups);
    let mut dw = vec![0.0f32; g.kernel_len()];
    for (at, dw) in dw.iter_mut().enumerate() {
        let (o, c, tap) = (at % g.out_c, at / g.out_c % cin, at / g.out_c / cin);
        for pixel in 0..g.pixels() {
            let iy = meets(g, 0, pixel / g.out_w, tap / g.kernel[1]);
            let ix = meets(g, 1, pixel % g.out_w, tap % g.kernel[1]);
            if let (Some(iy), Some(ix)) = (iy, ix) {
                *dw += x[(iy * g.in_w + ix) * g.in_c + o / cout * cin + c] * dy[pixel * g.out_c + o];
            }
        }
    }
    dw
}

fn whole(seed: u64, len: usize) -> Vec<f32> {
    crate::kernel::tests::integers(seed, len).into_iter().map(|v| f32::from(v % 16)).collect()
}

proptest! {
    #[test]
    fn the_inputs_gradient_is_the_definition(g in geometry(false), seed: u64) {
        let (kernel, dy) = (floats(seed, g.kernel_len()), floats(!seed, g.output_len()));
        let wanted = input_by_definition(&g, &kernel, &dy);
        for path in paths() {
            let mut dx = vec![7.0; g.input_len()];
            InputGradient::with_path(&kernel, &g, path).run(&dy, &mut dx);
            prop_assert_eq!(bits(&dx), bits(&wanted), "{:?}", path);
        }
    }

    #[test]
    fn the_inputs_gradient_of_a_depthwise_convolution_is_the_definition(g in geometry(true), seed: u64) {
        let (kernel, dy) = (floats(seed, g.kernel_len()), floats(!seed, g.output_len()));
        let mut dx = vec![7.0; g.input_len()];
        InputGradient::new(&kernel, &g).run(&dy, &mut dx);
        prop_assert_eq!(bits(&dx), bits(&input_by_definition(&g, &kernel, &dy)));
    }

    #[test]
    fn the_kernels_gradient_is_the_sum_over_pixels(g in geometry(false), seed: u64) {
        let images: Vec<_> = (0..2).map(|i| (whole(seed ^ i, g.input_len()), whole(!seed ^ i, g.output_len()))).collect();
        let parts: Vec<_> = images.iter().map(|(x, dy)| weights_by_definition(&g, x, dy)).collect();
        let wanted: Vec<f32> = parts[0].iter().zip(&parts[1]).map(|(a, b)| a + b).collect();
        for path in paths() {
            let mut dw = vec![0.0; g.kernel_len()];
            let pairs = images.iter().map(|(x, dy)| (x.as_slice(), dy.as_slice()));
            conv_weights_on(path, &g, 0..g.group_in(), pairs, &mut dw);
            prop_assert_eq!(&dw, &wanted, "{:?}", path);
        }
    }

    #[test]
    fn the_kernels_gradient_of_a_depthwise_convolution_is_the_sum_over_pixels(g in geometry(true), seed: u64) {
        let (x, dy) = (whole(seed, g.input_len()), whole(!seed, g.output_len()));
        for path in paths() {
            let mut dw = vec![0.0; g.kernel_len()];
            depthwise_weights_on(path, &g, std::iter::once((x.as_slice(), dy.as_slice())), &mut dw);
            prop_assert_eq!(&dw, &weights_by_definition(&g, &x, &dy), "{:?}", path);
        }
    }

    /// Rounding shows: paths and cuts by channels give the same bytes.
    #[test]
    fn the_kernels_gradient_depends_neither_on_path_nor_on_cut(g in geometry(false), seed: u64, cut: usize) {
        let (x, dy) = (floats(seed, g.input_len()), floats(!seed, g.output_len()));
        let pair = || std::iter::once((x.as_slice(), dy.as_slice()));
        let mut all = vec![0.0; g.kernel_len()];
        conv_weights_on(Path::Portable, &g, 0..g.group_in(), pair(), &mut all);
        let cut = cut % (g.group_in() + 1);
        let taps = g.kernel[0] * g.kernel[1];
        for range in [0..cut, cut..g.group_in()] {
            let mut part = vec![0.0; taps * range.len() * g.out_c];
            conv_weights(&g, range.clone(), pair(), &mut part);
            for tap in 0..taps {
                let size = range.len() * g.out_c;
                let of_all = &all[(tap * g.group_in() + range.start) * g.out_c..][..size];
                prop_assert_eq!(bits(&part[tap * size..][..size]), bits(of_all));
            }
        }
    }
}

/// 600 pixels in one row are three blocks; 20 rows of 30 columns are three blocks of up to 8 rows.
#[test]
fn blocks_are_chains_of_their_own() {
    let x: Vec<f32> = floats(3, 600);
    let dy: Vec<f32> = floats(4, 600);
    let chain = |pixels: std::ops::Range<usize>| pixels.fold(0.0f32, |sum, i| x[i].mul_add(dy[i], sum));
    for (rows, columns, cuts) in [(1, 600, vec![0, 256, 512, 600]), (20, 30, vec![0, 240, 480, 600])] {
        let flat = ConvGeometry::dense(600, 1, 1);
        // A kernel of two rows of which the second is all padding keeps the image from being laid in one row.
        let g = ConvGeometry { in_h: rows, in_w: columns, out_h: rows, out_w: columns, kernel: [2, 1], ..flat };
        let wanted = cuts.windows(2).fold(0.0f32, |sum, cut| sum + chain(cut[0]..cut[1]));
        let mut dw = vec![0.0; 2];
        conv_weights(&g, 0..1, std::iter::once((x.as_slice(), dy.as_slice())), &mut dw);
        assert_eq!(dw[0].to_bits(), wanted.to_bits(), "{rows}x{columns}");
    }
}

#[test]
fn the_biases_gradient_is_the_sum_over_pixels() {
    let dy = whole(5, 1000 * 3);
    let mut db = vec![1.0; 3];
    bias(&dy, &mut db);
    let sum = |c: usize| 1.0 + dy.iter().skip(c).step_by(3).sum::<f32>();
    assert_eq!(db, [sum(0), sum(1), sum(2)]);
}
