use super::*;
use proptest::prelude::*;

/// The state of a row's class with these settings; `None` for a scheme that has no state for each channel.
fn new(class: &str, per_channel: bool, settings: Value) -> Option<(Value, Quantizer)> {
    let mut parameters = json!({ "bit_width": 8, "method": 0, "round_mode": 1, "per_channel": per_channel });
    parameters.as_object_mut().unwrap().extend(settings.as_object().cloned().unwrap_or_default());
    // Blocks have no state, and no integers that could be unsigned.
    if class == "BFPQuantizer" {
        parameters.as_object_mut().unwrap().remove("unsigned");
        parameters["data_format"] = json!("bf16");
        if per_channel {
            return None;
        }
    }
    let entry = json!({ "quantizer_type": class, "quantizer_params": parameters });
    match Quantizer::from_entry(&entry) {
        Ok(own) => Some((entry, own)),
        Err(e) if per_channel && e.to_string().contains("per channel") => None,
        Err(e) => panic!("{class}: {e}"),
    }
}

fn calibrated(own: &Quantizer, tensor: &Tensor) -> Quantizer {
    let mut calibrator = own.calibrator();
    calibrator.see(tensor).unwrap();
    calibrator.finish(Subject::Weight { first: Some(own) }).unwrap()
}

fn fake_quantized(own: &Quantizer, tensor: &Tensor) -> Tensor {
    let mut result = tensor.clone();
    own.scheme().fake_quantize(&mut result);
    result
}

/// For every row and every name of it: the state comes back from its variables, the entry from its spelling.
#[test]
fn every_scheme_survives_its_file() {
    let tensor = Tensor::new(vec![2, 3], vec![1.0, 0.013, 0.4, -0.57, 0.02, -0.3]).unwrap();
    for (row, class) in CLASSES.iter().flat_map(|row| row.iter().map(move |class| (row, *class))) {
        for per_channel in [false, true] {
            let Some((entry, new)) = new(class, per_channel, json!({})) else { continue };
            assert_eq!(new.class(), row[0]);
            assert_eq!(new.to_entry(&Spelling::of(&entry)).to_string(), entry.to_string());
            assert_eq!(new.scheme().channel_axis().is_some(), per_channel, "{class}");

            let own = calibrated(&new, &tensor);
            let values: Vec<Numbers> = own.scheme().parts().into_iter().map(|part| part.values).collect();
            let mut back = new.clone();
            back.scheme_mut().restore("x", values.clone()).unwrap();
            assert_eq!(back, own, "{class}");
            let less = values.get(1..).map(<[Numbers]>::to_vec);
            assert!(less.is_none_or(|less| back.scheme_mut().restore("x", less).is_err()));
            assert_ne!(fake_quantized(&own, &tensor), tensor, "{class}");
        }
    }
}

proptest! {
    /// Rounding down a value that is an integer but for the last digit loses one, so that mode is left out where steps
    /// are no powers of two.
    #[test]
    fn every_scheme_quantizes_only_once_and_keeps_the_order_of_values(
        values in proptest::collection::vec(prop_oneof![4 => -3.0f32..3.0, 1 => -100.0f32..100.0, 1 => Just(0.0)], 2..40),
        seen in 1usize..40, bits in 2u8..=8, round in 0u64..3, flags in proptest::array::uniform4(any::<bool>()),
    ) {
        let [symmetry, unsigned, narrow, per_channel] = flags;
        // What is unsigned and symmetric has no negative values.
        let values: Vec<f32> = values.into_iter().map(|v| if unsigned && symmetry { v.abs() } else { v }).collect();
        let settings = json!({
            "bit_width": bits, "round_mode": round, "symmetry": symmetry, "unsigned": unsigned, "narrow_range": narrow,
        });
        let mut ascending = values.clone();
        ascending.sort_by(f32::total_cmp);
        for class in CLASSES.iter().map(|names| names[0]) {
            let mut settings = settings.clone();
            if class == "FSQuantizer" {
                settings["use_framework_quant"] = json!(round == 1);
            }
            let Some((_, new)) = new(class, per_channel, settings) else { continue };
            let tensor = |data: &[f32]| Tensor::new(vec![data.len(), 1], data.to_vec()).unwrap();
            let own = calibrated(&new, &tensor(&values[..seen.min(values.len())]));
            let once = fake_quantized(&own, &tensor(&ascending));
            prop_assert!(once.data().is_sorted(), "{class} {once:?}");
            prop_assert_eq!(fake_quantized(&own, &once), once, "{} {:?}", class, own);
        }
    }
}

/// Differences over many steps, so that rounding hardly shows: within a step of the slope's distance. Beyond the grid a
/// gradient may be passed straight through, as the scheme's sheet says.
#[test]
fn the_gradient_of_every_scheme_is_the_central_difference_away_from_edges() {
    let values: Vec<f32> = (-8..=8).map(|k| k as f32 / 8.0).collect();
    let tensor = |data: &[f32]| Tensor::new(vec![data.len(), 1], data.to_vec()).unwrap();
    const REACH: f32 = 0.25;
    for (class, sheet) in CLASSES.iter().map(|names| names[0]).zip(SHEETS) {
        for (per_channel, unsigned) in [(false, false), (true, false), (false, true)] {
            // Without sign and with a symmetric range nothing is below zero.
            let settings = json!({ "unsigned": unsigned, "symmetry": true });
            let Some((_, new)) = new(class, per_channel, settings) else { continue };
            let seen: Vec<f32> = values.iter().map(|v| if unsigned { v.abs() } else { *v }).collect();
            let own = calibrated(&new, &tensor(&seen));
            let points =
                if unsigned { vec![0.3f32, 0.51, 0.7, 3.0] } else { vec![-3.0, -0.61, -0.3, 0.02, 0.33, 0.7, 3.0] };
            let moved = |by: f32| fake_quantized(&own, &tensor(&points.iter().map(|x| x + by).collect::<Vec<_>>()));
            let (above, below) = (moved(REACH), moved(-REACH));
            let ones = tensor(&vec![1.0; points.len()]);
            let gradient = own.scheme().backward(&tensor(&points), &ones).tensor;
            for (k, x) in points.iter().enumerate() {
                let difference = (above.data()[k] - below.data()[k]) / (2.0 * REACH);
                let through = x.abs() > 1.0 && sheet.gradient.contains("straight through");
                let near = (gradient.data()[k] - difference).abs() < 0.05;
                assert!(
                    near || through && gradient.data()[k] == 1.0,
                    "{class} {x}: {} {difference}",
                    gradient.data()[k]
                );
            }
        }
    }
}

/// Of each format of blocks: values of the grid stay, whichever block they are in.
#[test]
fn every_format_of_blocks_quantizes_only_once() {
    let values: Vec<f32> = (0..96).map(|k| ((k * 37 % 101) as f32 - 50.0) / 17.0).collect();
    for (format, bits) in [("bfp", 16), ("bfp", 13), ("msfp", 16), ("msfp", 13), ("bf16", 16), ("fp32", 16)] {
        let parameters = json!({ "data_format": format, "bit_width": bits });
        let entry = json!({ "quantizer_type": "BFPQuantizer", "quantizer_params": parameters });
        let own = Quantizer::from_entry(&entry).unwrap();
        let once = fake_quantized(&own, &Tensor::new(vec![4, 24], values.clone()).unwrap());
        assert_eq!(fake_quantized(&own, &once), once, "{format} {bits}");
    }
}

#[test]
fn a_class_or_parameter_that_is_unknown_is_refused() {
    let entry = |class: &str| json!({ "quantizer_type": class, "quantizer_params": { "mine": 1 } });
    assert!(Quantizer::from_entry(&entry("Mine")).is_err());
    for class in CLASSES.iter().flat_map(|row| row.iter()) {
        let error = Quantizer::from_entry(&entry(class)).unwrap_err().to_string();
        assert!(error.contains(class) && error.contains("mine"), "{error}");
    }
}

/// `UPDATE_EXPECT=1 cargo test -p shiftwise-quant` rewrites the page.
#[test]
fn the_page_of_schemes_is_current() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("SCHEMES.md");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap_or_default() == page(), "SCHEMES.md is out of date; UPDATE_EXPECT=1");
}
