//! Schemes against the vendor's tables of single operations: every element of every tensor.

use std::fs::File;

use ndarray_npy::NpzReader;
use serde_json::{Value, json};
use shiftwise_quant::observer::divergence;
use shiftwise_quant::observer::histogram::Histogram;
use shiftwise_quant::scheme::{Numbers, Quantizer, Subject};
use shiftwise_tensor::tensor::Tensor;
use shiftwise_tests::shared::shared;

/// A table of arrays by name.
struct Table(NpzReader<File>);

impl Table {
    fn open(name: &str) -> Option<Self> {
        let path = shared()?.join("golden/micro").join(name);
        Some(Self(NpzReader::new(File::open(path).unwrap()).unwrap()))
    }

    fn names(&mut self) -> Vec<String> {
        let names = self.0.names().unwrap();
        names.into_iter().map(|n| n.trim_end_matches(".npy").to_owned()).collect()
    }

    fn get(&mut self, name: &str) -> Tensor {
        let array: ndarray::ArrayD<f32> = self.0.by_name(name).unwrap();
        Tensor::new(array.shape().to_vec(), array.iter().copied().collect()).unwrap()
    }

    fn integers(&mut self, name: &str) -> Vec<i64> {
        let array: ndarray::ArrayD<i32> = self.0.by_name(name).unwrap();
        array.iter().map(|v| i64::from(*v)).collect()
    }

    fn number(&mut self, name: &str) -> f32 {
        self.get(name).data()[0]
    }
}

fn quantizer(class: &str, parameters: Value) -> Quantizer {
    Quantizer::from_entry(&json!({ "quantizer_type": class, "quantizer_params": parameters })).unwrap()
}

fn calibrated(own: &Quantizer, tensor: &Tensor) -> Quantizer {
    let mut calibrator = own.calibrator();
    calibrator.see(tensor).unwrap();
    calibrator.finish(Subject::Data { vote: true }).unwrap()
}

fn state(own: &Quantizer, name: &str) -> Vec<f32> {
    let part = own.scheme().parts().into_iter().find(|part| part.name == name).unwrap();
    match part.values {
        Numbers::State(values) => values,
        other => panic!("{other:?}"),
    }
}

fn fake_quantized(own: &Quantizer, tensor: &Tensor) -> Tensor {
    let mut result = tensor.clone();
    own.scheme().fake_quantize(&mut result);
    result
}

/// Values that are not those of the table; the two zeros are one value.
fn differing(ours: &Tensor, theirs: &Tensor) -> usize {
    assert_eq!(ours.data().len(), theirs.data().len());
    ours.data().iter().zip(theirs.data()).filter(|(a, b)| a != b).count()
}

/// TensorFlow's own kernel fuses a multiplication and an addition on this machine: values on the edge of a step.
const ON_THE_EDGE: usize = 2;

#[test]
fn float_scales_are_the_vendors_element_by_element() {
    let (Some(mut table), Some(mut tensors)) = (Table::open("fs_fakequant.npz"), Table::open("pof2s_tensors.npz"))
    else {
        return;
    };
    let (mut values, mut edge) = (0, 0);
    for name in table.names() {
        let parts: Vec<&str> = name.split('_').collect();
        let [tensor, symmetry, bits, kernel @ ..] = &parts[..] else { continue };
        let Some(bits) = bits.strip_prefix("bit") else { continue };
        let framework = kernel[0] == "framework";
        let round = kernel.get(1).map_or(1, |round| round.trim_start_matches("round").parse::<u8>().unwrap());
        let own = quantizer(
            "FSQuantizer",
            json!({
                "bit_width": bits.parse::<u8>().unwrap(), "method": 0, "round_mode": round,
                "symmetry": *symmetry == "sym1", "use_framework_quant": framework,
            }),
        );
        let whole = tensors.get(tensor);
        let first = Tensor::vector(whole.data().iter().take(400).copied().collect());
        let own = calibrated(&own, &first);
        let theirs = table.get(&name);
        let range = table.get(&format!("{tensor}_{symmetry}_minmax"));
        // The table's ranges are those of 8 bits.
        let own = if bits == "8" {
            assert_eq!([state(&own, "min")[0], state(&own, "max")[0]], range.data()[..], "{name}");
            own
        } else {
            let mut own = own;
            let mut parts: Vec<Numbers> = own.scheme().parts().into_iter().map(|part| part.values).collect();
            for (part, end) in parts.iter_mut().zip(range.data()) {
                *part = Numbers::State(vec![*end]);
            }
            own.scheme_mut().restore("x", parts).unwrap();
            own
        };
        let n = differing(&fake_quantized(&own, &first), &theirs);
        assert!(n == 0 || framework, "{name}: {n} values");
        (values, edge) = (values + theirs.data().len(), edge + n);
    }
    assert!(values > 20_000 && edge <= ON_THE_EDGE, "{edge} of {values} values");
}

#[test]
fn float_scales_per_channel_are_the_vendors_element_by_element() {
    let Some(mut table) = Table::open("fs_per_channel.npz") else { return };
    let w = table.get("w");
    let settings = json!({ "bit_width": 8, "method": 0, "round_mode": 1, "per_channel": true, "channel_axis": -1 });
    let own = calibrated(&quantizer("FSQuantizer", settings), &w);
    assert_eq!(state(&own, "min"), table.get("min").data());
    assert_eq!(state(&own, "max"), table.get("max").data());
    assert_eq!(differing(&fake_quantized(&own, &w), &table.get("fq")), 0);
}

#[test]
fn trained_thresholds_and_their_gradients_are_the_vendors_element_by_element() {
    let (Some(mut table), Some(mut tensors)) = (Table::open("tqt.npz"), Table::open("pof2s_tensors.npz")) else {
        return;
    };
    let mut checked = 0;
    for name in table.names() {
        let Some(tensor) = name.strip_suffix("_logth").filter(|name| !name.ends_with("grad")) else { continue };
        let x = tensors.get(tensor);
        let own = quantizer("TQTQuantizer", json!({ "bit_width": 8, "method": 0, "round_mode": 1 }));
        let own = calibrated(&own, &x);
        assert_eq!(state(&own, "log_th"), [table.number(&name)], "{name}");
        let y = fake_quantized(&own, &x);
        assert_eq!(differing(&y, &table.get(&format!("{tensor}_fq"))), 0, "{name}");
        // The loss is the sum of squares.
        let of_result = Tensor::new(y.shape().to_vec(), y.data().iter().map(|y| 2.0 * y).collect()).unwrap();
        let gradients = own.scheme().backward(&x, &of_result);
        assert_eq!(differing(&gradients.tensor, &table.get(&format!("{tensor}_grad_x"))), 0, "{name}");
        let (ours, theirs) = (gradients.parts[0].1[0], table.number(&format!("{tensor}_grad_logth")));
        // A sum of thousands of f32 in another order.
        let size: f32 = y.data().iter().map(|y| (2.0 * y * y).abs()).sum();
        assert!((ours - theirs).abs() <= 1e-5 * size.max(1e-9), "{name}: {ours} {theirs}");
        checked += 1;
    }
    assert!(checked >= 30, "{checked}");
}

#[test]
fn histograms_and_where_they_are_clipped_are_the_vendors() {
    let Some(mut table) = Table::open("calibrators.npz") else { return };
    let (mut checked, mut clipped, names) = (0, 0, table.names());
    for name in names.clone() {
        let Some(case) = name.strip_suffix("_batches") else { continue };
        let batches = table.get(&name);
        let mut all: Option<Histogram> = None;
        for batch in batches.data().chunks(batches.data().len() / batches.shape()[0]) {
            match &mut all {
                Some(all) => all.add(batch, 1).unwrap(),
                None => all = Histogram::first(batch).unwrap(),
            }
        }
        let histogram = all.unwrap();
        assert_eq!(histogram.edges, table.get(&format!("{case}_edges")).data(), "{case}");
        let counts: Vec<i64> = histogram.counts.iter().map(|n| *n as i64).collect();
        assert!(counts == table.integers(&format!("{case}_hist")), "{case}");
        for percent in ["99.0", "99.9", "99.99", "99.9999", "100.0"] {
            let theirs = table.number(&format!("{case}_percentile_{percent}"));
            assert_eq!(histogram.percentile(percent.parse().unwrap()), theirs, "{case} {percent}");
        }
        // Where the vendor's search was too slow, it was not run.
        if names.contains(&format!("{case}_kl")) {
            assert_eq!(divergence::clip(&histogram), table.number(&format!("{case}_kl")), "{case}");
            clipped += 1;
        }
        checked += 1;
    }
    assert!(checked >= 8 && clipped >= 4, "{checked} {clipped}");
}
