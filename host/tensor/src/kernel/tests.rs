//! Every path against the definition, bit for bit.

use core::ops::Range;

use proptest::prelude::*;

use crate::kernel::*;

/// The definition as seven loops: `[pixel][channel]` sums.
fn by_definition<X: Copy, A: Copy>(
    g: &ConvGeometry,
    kernel: &[X],
    input: &[X],
    zero: A,
    step: impl Fn(A, X, X) -> A,
) -> Vec<A> {
    let mut sums = Vec::new();
    for oy in 0..g.out_h {
        for ox in 0..g.out_w {
            for oc in 0..g.out_c {
                let group = oc / g.group_out();
                let mut acc = zero;
                for ky in 0..g.kernel[0] {
                    for kx in 0..g.kernel[1] {
                        let y = (oy * g.stride[0] + ky * g.dilation[0]).wrapping_sub(g.pad_before[0]);
                        let x = (ox * g.stride[1] + kx * g.dilation[1]).wrapping_sub(g.pad_before[1]);
                        if y >= g.in_h || x >= g.in_w {
                            continue;
                        }
                        for c in 0..g.group_in() {
                            let x = input[(y * g.in_w + x) * g.in_c + group * g.group_in() + c];
                            let w = kernel[((ky * g.kernel[1] + kx) * g.group_in() + c) * g.out_c + oc];
                            acc = step(acc, x, w);
                        }
                    }
                }
                sums.push(acc);
            }
        }
    }
    sums
}

/// The paths that this processor has; the others are told, once.
pub(super) fn paths() -> impl Iterator<Item = Path> {
    static TOLD: std::sync::Once = std::sync::Once::new();
    TOLD.call_once(|| {
        for path in Path::ALL.into_iter().filter(|path| !path.is_available()) {
            eprintln!("skipped: this processor lacks {}", path.name());
        }
    });
    Path::ALL.into_iter().filter(|p| p.is_available())
}

/// Numbers that make a wrong order of summation visible: many magnitudes, both zeros, and products that underflow.
pub(super) fn floats(seed: u64, len: usize) -> Vec<f32> {
    integers(seed, len)
        .into_iter()
        .zip(integers(seed ^ 0x55, len))
        .map(|(m, e)| match e {
            0 => -0.0,
            1 => f32::MIN_POSITIVE * f32::from(m),
            _ => f32::from(m) * f32::from(e % 8).exp2() / 37.0,
        })
        .collect()
}

pub(super) fn integers(seed: u64, len: usize) -> Vec<i8> {
    let mut state = seed | 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as i8
        })
        .collect()
}

pub(super) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn axis() -> impl Strategy<Value = (usize, usize, usize, usize, usize, usize)> {
    // (input, kernel, stride, dilation, pad before, pad after)
    (1..12usize, 1..5usize, 1..4usize, 1..4usize, 0..5usize, 0..5usize)
        .prop_filter("window larger than the padded image", |(n, k, _, d, b, a)| (k - 1) * d < n + b + a)
}

pub(super) fn geometry(depthwise: bool) -> impl Strategy<Value = ConvGeometry> {
    (axis(), axis(), 1..4usize, 1..40usize, 1..40usize).prop_map(move |(v, h, groups, cin, cout)| {
        let outputs =
            |(n, k, s, d, b, a): (usize, usize, usize, usize, usize, usize)| (n + b + a - (k - 1) * d - 1) / s + 1;
        let (in_c, out_c, groups) = if depthwise {
            (cin + cout, (cin + cout) * groups, cin + cout)
        } else {
            (cin * groups, cout * groups, groups)
        };
        ConvGeometry {
            in_h: v.0,
            in_w: h.0,
            in_c,
            out_h: outputs(v),
            out_w: outputs(h),
            out_c,
            kernel: [v.1, h.1],
            stride: [v.2, h.2],
            dilation: [v.3, h.3],
            pad_before: [v.4, h.4],
            groups,
        }
    })
}

/// Runs `compute` over the image in two ranges cut at `cut`, and counts that each output is stored once.
fn collect<A: Copy + Default>(
    g: &ConvGeometry,
    cut: usize,
    mut compute: impl FnMut(Range<usize>, &mut dyn FnMut(usize, usize, &[A])),
) -> Vec<A> {
    let mut output = vec![A::default(); g.output_len()];
    let mut stores = vec![0u8; g.output_len()];
    let cut = cut % (g.pixels() + 1);
    for range in [0..cut, cut..g.pixels()] {
        compute(range.clone(), &mut |pixel, channel, sums| {
            assert!(range.contains(&pixel));
            let at = pixel * g.out_c + channel;
            output[at..at + sums.len()].copy_from_slice(sums);
            stores[at..at + sums.len()].iter_mut().for_each(|s| *s += 1);
        });
    }
    assert!(stores.iter().all(|s| *s == 1));
    output
}

proptest! {
    #[test]
    fn conv_f32_is_the_definition(g in geometry(false), seed: u64, cut: usize) {
        let (input, kernel) = (floats(seed, g.input_len()), floats(!seed, g.kernel_len()));
        let bias = floats(seed ^ 7, g.out_c);
        let sums = by_definition(&g, &kernel, &input, 0.0f32, |a, x, w| x.mul_add(w, a));
        let biased: Vec<f32> = sums.iter().enumerate().map(|(i, s)| s + bias[i % g.out_c]).collect();
        for path in paths() {
            let packed = PackedF32::with_path(&kernel, &g, path);
            let mut output = vec![0.0; g.output_len()];
            conv_f32(&packed, &g, &input, None, &mut output);
            prop_assert_eq!(bits(&output), bits(&sums), "{:?}", path);
            conv_f32(&packed, &g, &input, Some(&bias), &mut output);
            prop_assert_eq!(bits(&output), bits(&biased), "{:?}", path);
            let pieces = collect(&g, cut, |range, store| conv_f32_with(&packed, &g, &input, range, store));
            prop_assert_eq!(bits(&pieces), bits(&sums), "{:?}", path);
        }
    }

    #[test]
    fn conv_i8_is_the_definition(g in geometry(false), seed: u64, cut: usize) {
        let (input, kernel) = (integers(seed, g.input_len()), integers(!seed, g.kernel_len()));
        let sums = by_definition(&g, &kernel, &input, 0i32, |a, x, w| a + i32::from(x) * i32::from(w));
        for path in paths() {
            let packed = PackedI8::with_path(&kernel, &g, path);
            let mut output = vec![0; g.output_len()];
            conv_i8(&packed, &g, &input, &mut output);
            prop_assert_eq!(&output, &sums, "{:?}", path);
            let pieces = collect(&g, cut, |range, store| conv_i8_with(&packed, &g, &input, range, store));
            prop_assert_eq!(&pieces, &sums, "{:?}", path);
        }
    }

    #[test]
    fn depthwise_is_the_definition(g in geometry(true), seed: u64, cut: usize) {
        let (input, kernel) = (floats(seed, g.input_len()), floats(!seed, g.kernel_len()));
        let sums = by_definition(&g, &kernel, &input, 0.0f32, |a, x, w| x.mul_add(w, a));
        for path in paths() {
            let pieces =
                collect(&g, cut, |range, store| depthwise::f32_on(path, &g, &kernel, &input, range, store));
            prop_assert_eq!(bits(&pieces), bits(&sums), "{:?}", path);
        }
        let bias = floats(seed ^ 7, g.out_c);
        let biased: Vec<f32> = sums.iter().enumerate().map(|(i, s)| s + bias[i % g.out_c]).collect();
        let mut output = vec![0.0; g.output_len()];
        depthwise_f32(&g, &kernel, &input, Some(&bias), &mut output);
        prop_assert_eq!(bits(&output), bits(&biased));

        let (input, kernel) = (integers(seed, g.input_len()), integers(!seed, g.kernel_len()));
        let sums = by_definition(&g, &kernel, &input, 0i32, |a, x, w| a + i32::from(x) * i32::from(w));
        for path in paths() {
            let pieces = collect(&g, cut, |range, store| depthwise::i8_on(path, &g, &kernel, &input, range, store));
            prop_assert_eq!(&pieces, &sums, "{:?}", path);
            let packed = PackedDepthwiseI8::with_path(&kernel, &g, path);
            let whole = collect(&g, g.pixels(), |range, store| {
                if !range.is_empty() {
                    depthwise_i8_packed(&packed, &input, store);
                }
            });
            prop_assert_eq!(&whole, &sums, "{:?}", path);
        }
        let mut output = vec![0; g.output_len()];
        depthwise_i8(&g, &kernel, &input, &mut output);
        prop_assert_eq!(&output, &sums);
    }
}

/// What becomes of sums of floats, by its definition: bias, normalization and ReLU, each rounded.
fn finished(sum: f32, channel: usize, finish: &FinishF32<'_>) -> f32 {
    let mut y = sum;
    if let Some(bias) = finish.bias {
        y += bias[channel];
    }
    if let Some((factor, offset)) = finish.affine {
        let scaled = y * factor[channel];
        y = scaled + offset[channel];
    }
    match finish.relu {
        Some(max) if y >= max => max,
        Some(_) if y.is_nan() || y <= 0.0 => 0.0,
        _ => y,
    }
}

/// Sizes as mobile networks have them: whole vectors and rests of them, windows that pixels share.
fn mobile(depthwise: bool) -> impl Strategy<Value = ConvGeometry> {
    let axis = || (1..20usize, 0..3usize);
    (axis(), axis(), 0..3usize, 1..3usize, 1..150usize, 1..150usize).prop_filter_map(
        "window larger than the padded image",
        move |((in_h, top), (in_w, left), size, stride, in_c, out_c)| {
            let size = [1, 3, 5][size];
            let outputs = |n: usize, before: usize| Some((n + 2 * before).checked_sub(size)? / stride + 1);
            let out_c = if depthwise { in_c } else { out_c };
            Some(ConvGeometry {
                in_h,
                in_w,
                out_h: outputs(in_h, top)?,
                out_w: outputs(in_w, left)?,
                kernel: [size; 2],
                stride: [stride; 2],
                pad_before: [top, left],
                groups: if depthwise { in_c } else { 1 },
                ..ConvGeometry::dense(1, in_c, out_c)
            })
        },
    )
}

fn any_geometry() -> impl Strategy<Value = (bool, ConvGeometry)> {
    any::<bool>().prop_flat_map(|depthwise| {
        prop_oneof![geometry(depthwise), mobile(depthwise)].prop_map(move |g| (depthwise, g))
    })
}

proptest! {
    #[test]
    fn floats_are_finished_by_the_definition(
        (depthwise, g) in any_geometry(),
        seed: u64,
        parts in any::<(bool, bool)>(),
        relu in prop_oneof![Just(None), Just(Some(f32::INFINITY)), Just(Some(6.0)), Just(Some(-1.0)), Just(Some(0.0))],
        unusual in prop_oneof![Just(0.0), Just(f32::NAN), Just(f32::INFINITY)],
    ) {
        let (mut input, kernel) = (floats(seed, g.input_len()), floats(!seed, g.kernel_len()));
        input[0] += unusual;
        let [bias, factor, offset] = [1, 2, 3].map(|i| floats(seed ^ i, g.out_c));
        let finish = FinishF32 {
            bias: parts.0.then_some(&bias[..]),
            affine: parts.1.then_some((&factor[..], &offset[..])),
            relu,
        };
        let sums = by_definition(&g, &kernel, &input, 0.0f32, |a, x, w| x.mul_add(w, a));
        let want: Vec<f32> = sums.iter().enumerate().map(|(i, s)| finished(*s, i % g.out_c, &finish)).collect();
        // Which of many is a NaN is up to the processor.
        let bits = |values: &[f32]| bits(&values.iter().map(|v| if v.is_nan() { f32::NAN } else { *v }).collect::<Vec<_>>());
        for path in paths() {
            let mut output = vec![0.0; g.output_len()];
            if depthwise {
                depthwise::finish_f32_on(path, &g, &kernel, &input, finish, &mut output);
            } else {
                conv_f32_finish(&PackedF32::with_path(&kernel, &g, path), &g, &input, finish, &mut output);
            }
            prop_assert_eq!(bits(&output), bits(&want), "{:?}", path);
        }
    }

    #[test]
    fn integers_are_finished_by_the_definition(
        (depthwise, g) in any_geometry(),
        seed: u64,
        shift in 0..31u32,
        bounds in prop_oneof![Just((-128, 127)), Just((0, 127)), Just((0, 96)), Just((-7, 9))],
    ) {
        let (input, kernel) = (integers(seed, g.input_len()), integers(!seed, g.kernel_len()));
        let bias: Vec<i32> = integers(seed ^ 7, g.out_c).into_iter().map(|b| i32::from(b) << (shift % 20)).collect();
        let sums = by_definition(&g, &kernel, &input, 0i32, |a, x, w| a + i32::from(x) * i32::from(w));
        let want: Vec<i8> = sums
            .iter()
            .enumerate()
            .map(|(i, sum)| (i64::from(*sum) + i64::from(bias[i % g.out_c])).div_euclid(1 << shift))
            .map(|y| y.clamp(bounds.0.into(), bounds.1.into()) as i8)
            .collect();
        let finish = FinishI8 { bias: &bias, shift, low: bounds.0, high: bounds.1 };
        let mut scratch = Scratch::default();
        for path in paths() {
            let mut output = vec![0; g.output_len()];
            if depthwise {
                depthwise_i8_finish(&PackedDepthwiseI8::with_path(&kernel, &g, path), &input, finish, &mut output);
            } else {
                conv_i8_finish(&mut scratch, &PackedI8::with_path(&kernel, &g, path), &g, &input, finish, &mut output);
            }
            prop_assert_eq!(&output, &want, "{:?}", path);
        }
    }
}

/// The largest products on every tap: nothing may saturate on the way to i32.
#[test]
fn extreme_integers_do_not_saturate() {
    let g = ConvGeometry::dense(7, 1000, 33);
    for (x, w) in [(-128i8, -128i8), (-128, 127), (127, 127)] {
        for path in paths() {
            let packed = PackedI8::with_path(&vec![w; g.kernel_len()], &g, path);
            let mut output = vec![0; g.output_len()];
            conv_i8(&packed, &g, &vec![x; g.input_len()], &mut output);
            assert!(output.iter().all(|o| *o == 1000 * i32::from(x) * i32::from(w)), "{path:?}");
        }
    }
}

/// A tap in the padding is skipped: an infinite weight there must not turn into NaN.
#[test]
fn padding_never_enters_the_chain() {
    let g = ConvGeometry { in_h: 1, out_h: 1, kernel: [3, 1], pad_before: [1, 0], ..ConvGeometry::dense(9, 2, 17) };
    let kernel: Vec<f32> =
        (0..g.kernel_len()).map(|i| if (34..68).contains(&i) { 1.0 } else { f32::INFINITY }).collect();
    for path in paths() {
        let mut output = vec![0.0; g.output_len()];
        conv_f32(&PackedF32::with_path(&kernel, &g, path), &g, &[0.25; 18], None, &mut output);
        assert!(output.iter().all(|o| *o == 0.5), "{path:?}");
    }
}
