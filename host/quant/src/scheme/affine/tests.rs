use super::*;
use crate::scheme::tqt::Tqt;

fn affine(settings: Value) -> Affine {
    let mut parameters = json!({ "bit_width": 8, "method": 0, "round_mode": 1 });
    parameters.as_object_mut().unwrap().extend(settings.as_object().cloned().unwrap());
    Affine::from_parameters("FSQuantizer", parameters).unwrap()
}

fn with_range(settings: Value, min: f32, max: f32) -> Affine {
    Affine { ranges: vec![Range { min, max, ..Range::default() }], ..affine(settings) }
}

fn quantized(own: &Affine, data: &[f32]) -> Vec<f32> {
    let mut tensor = Tensor::vector(data.to_vec());
    own.fake_quantize(&mut tensor);
    tensor.into_data()
}

/// Values observed from TensorFlow and the vendor's tool.
#[test]
fn grids_are_the_vendors() {
    let data = [-0.3, 0.004, 0.5, 0.99];
    let grid = |settings: Value, min, max, data: &[f32]| quantized(&with_range(settings, min, max), data);
    assert_eq!(grid(json!({}), -1.0, 1.0, &data), [-0.298_039_23, 0.007_843_138, 0.501_960_8, 0.988_235_35]);
    assert_eq!(grid(json!({}), -1.0, 1.0, &[-1.2, 1.0]), [-0.996_078_5, 1.003_921_6]);
    let narrow = json!({ "narrow_range": true });
    assert_eq!(grid(narrow.clone(), -1.0, 1.0, &data), [-0.299_212_6, 0.007_874_016, 0.503_937, 0.992_126]);
    assert_eq!(grid(narrow, -1.0, 1.0, &[-1.2]), [-1.0]);
    assert_eq!(grid(json!({}), -0.3, 1.0, &[-1.2]), [-0.300_784_3]);
    assert_eq!(with_range(json!({}), -0.3, 1.0).steps(), [(0.005_098_039, -69.0)]);
    let unsigned = [0.0, 0.2, 0.5, 1.0, 1.5];
    assert_eq!(grid(json!({ "unsigned": true }), 0.0, 1.0, &unsigned), [0.0, 0.200_000_02, 0.501_960_8, 1.0, 1.0]);
    let own = json!({ "use_framework_quant": false });
    assert_eq!(grid(own.clone(), -1.0, 1.0, &[-1.2, -0.3, 1.0]), [-1.003_921_6, -0.298_039_23, 0.996_078_43]);
    let asymmetric = json!({ "use_framework_quant": false, "symmetry": false });
    assert_eq!(grid(asymmetric, -0.3, 1.0, &[-1.2, 0.004]), [-0.300_784_3, 0.005_098_045]);
    assert_eq!(grid(own, 0.0, 0.0, &[1.0, -1.0]), [0.0, 0.0]);
}

#[test]
fn what_an_arithmetic_lacks_is_refused_with_what_to_change() {
    for (settings, word) in [
        (json!({ "round_mode": 0 }), "use_framework_quant=false"),
        (json!({ "bit_width": 32 }), "use_framework_quant=false"),
        (json!({ "method": 2, "per_channel": true }), "method other than 0 or 1"),
        (json!({ "method": 4 }), "outside 0..3"),
        (json!({ "method_percentile": 101.0 }), "outside 0..100"),
    ] {
        let mut parameters = json!({ "bit_width": 8, "method": 0, "round_mode": 1 });
        parameters.as_object_mut().unwrap().extend(settings.as_object().cloned().unwrap());
        let error = Affine::from_parameters("FSQuantizer", parameters).unwrap_err();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn ranges_grow_over_batches_and_values_pass_while_a_histogram_is_collected() {
    let learn = |own: &Affine, batches: &[&[f32]]| {
        let mut calibrator = own.calibrator();
        let mut last = Vec::new();
        for batch in batches {
            let mut tensor = Tensor::vector(batch.to_vec());
            calibrator.see(&tensor).unwrap();
            calibrator.fake_quantize(&mut tensor);
            last = tensor.into_data();
        }
        (calibrator.finish(Subject::Data { vote: false }).unwrap(), last)
    };
    let (own, last) = learn(&affine(json!({ "symmetry": false })), &[&[0.5, 2.0], &[-1.0, 0.3]]);
    assert_eq!((own.ranges[0].min, own.ranges[0].max), (-1.0, 2.0));
    assert_eq!(last, quantized(&own, &[-1.0, 0.3]));
    let (own, last) = learn(&affine(json!({ "method": 3, "method_percentile": 100.0 })), &[&[0.5, 2.0], &[-1.0, 0.3]]);
    assert_eq!(last, [-1.0, 0.3]);
    assert!((own.ranges[0].max - 2.0).abs() < 1e-3 && own.ranges[0].min == -own.ranges[0].max);
}

#[test]
fn channels_of_any_axis_have_ranges_of_their_own() {
    let data: Vec<f32> = (0..24).map(|i| i as f32 - 11.5).collect();
    let tensor = Tensor::new(vec![2, 3, 4], data).unwrap();
    for (axis, unsigned) in [(0, false), (1, false), (2, false), (-1, false), (-2, false), (1, true), (2, true)] {
        let settings = json!({ "symmetry": !unsigned, "unsigned": unsigned });
        let mut per_channel = settings.clone();
        per_channel["per_channel"] = json!(true);
        per_channel["channel_axis"] = json!(axis);
        let own = affine(per_channel);
        let mut calibrator = own.calibrator();
        calibrator.see(&tensor).unwrap();
        let own = calibrator.finish(Subject::Data { vote: false }).unwrap();
        let mut all = tensor.clone();
        own.fake_quantize(&mut all);
        // One channel after the other, each as a tensor of its own.
        let channels = Channels::of(tensor.shape(), axis);
        let mut expected = tensor.clone();
        for (c, range) in own.ranges.iter().enumerate() {
            let one = with_range(settings.clone(), range.min, range.max);
            for i in (0..24).filter(|i| channels.of_element(*i) == c) {
                expected.data_mut()[i] = quantized(&one, &tensor.data()[i..=i])[0];
            }
        }
        assert_eq!(all, expected, "axis {axis}");
    }
}

#[test]
fn counts_beyond_what_the_vendors_file_holds_are_stored_as_the_most_that_it_holds() {
    let tensor = Tensor::vector(vec![0.0, 0.0, 1.0]);
    let mut calibrator = affine(json!({ "method": 3, "method_percentile": 50.0 })).calibrator();
    calibrator.see(&tensor).unwrap();
    calibrator.see_again(&tensor, 3_000_000_000).unwrap();
    let own = calibrator.finish(Subject::Data { vote: true }).unwrap();
    assert_eq!((own.counts[0], own.counts[1], own.counts[2047]), (i32::MAX, 0, i32::MAX));
    assert_eq!(own.ranges[0].max, 0.0);
}

/// Away from the ends, and with a step that is small against the difference, the grid is the identity inside the range and
/// its ends outside; so are the derivatives.
#[test]
fn gradients_are_central_differences_away_from_edges() {
    let values = [-2.0f32, -0.7, -0.11, 0.2, 0.63, 1.9];
    for settings in [
        json!({ "bit_width": 16 }),
        json!({ "bit_width": 16, "unsigned": true }),
        json!({ "bit_width": 16, "use_framework_quant": false }),
        json!({ "bit_width": 16, "use_framework_quant": false, "symmetry": false }),
    ] {
        let unsigned = settings.get("unsigned").is_some();
        let (min, max) = if unsigned { (0.0, 1.0) } else { (-1.0, 1.0) };
        let own = with_range(settings.clone(), min, max);
        let weights = [0.3f32, -1.2, 0.8, 2.0, -0.4, 1.1];
        let loss = |own: &Affine, values: &[f32]| -> f64 {
            quantized(own, values).iter().zip(weights).map(|(y, w)| f64::from(*y) * f64::from(w)).sum()
        };
        let gradients = own.backward(&Tensor::vector(values.to_vec()), &Tensor::vector(weights.to_vec()));
        let h = 0.05f32;
        for (i, by) in gradients.tensor.data().iter().enumerate() {
            let at = |d: f32| {
                let mut moved = values;
                moved[i] += d;
                loss(&own, &moved)
            };
            let difference = (at(h) - at(-h)) / f64::from(2.0 * h);
            assert!((difference - f64::from(*by)).abs() < 2e-3, "{settings} {i}: {difference} {by}");
        }
        for (name, by) in gradients.parts {
            let at = |d: f32| {
                let moved = if name == "min" { (min + d, max) } else { (min, max + d) };
                loss(&with_range(settings.clone(), moved.0, moved.1), &values)
            };
            // Where zero stays zero, an end that moves alone stretches the grid and clamps at both ends; the vendor's
            // derivative is of the ends alone.
            if settings.get("symmetry").is_some() {
                let difference = (at(h) - at(-h)) / f64::from(2.0 * h);
                assert!((difference - f64::from(by[0])).abs() < 5e-3, "{settings} {name}: {difference} {by:?}");
            }
        }
    }
}

#[test]
fn the_gradient_of_a_threshold_is_the_vendors() {
    let mut own =
        Tqt::from_parameters("TQTQuantizer", json!({ "bit_width": 8, "method": 0, "round_mode": 1 })).unwrap();
    own.log_threshold = -0.3;
    let tensor = Tensor::vector(vec![-1.2, -0.3, 0.0, 0.4, 0.9999, 2.0]);
    let mut result = tensor.clone();
    own.fake_quantize(&mut result);
    assert_eq!(result.data(), [-1.0, -0.296_875, 0.0, 0.398_437_5, 0.992_187_5, 0.992_187_5]);
    let gradients = own.backward(&tensor, &Tensor::vector(vec![1.0; 6]));
    assert_eq!(gradients.tensor.data(), [0.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
    assert!((gradients.parts[0].1[0] - 0.683_399_8).abs() < 1e-6);
    assert_eq!(own.integers(&tensor), Some(vec![-128, -38, 0, 51, 127, 127]));
}
