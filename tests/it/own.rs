//! The repository's own models against expected values in the repository: float outputs by TensorFlow
//! (`tests/data/make_expected.py`), and the quantized tensors' positions as reviewed text (`tests/snap`, rewritten with
//! `UPDATE_EXPECT=1`).

use std::path::PathBuf;

use serde_json::Value;
use shiftwise::dataset::{DataSpec, Dataset};
use shiftwise_formats::{self as format, LoadOptions};
use shiftwise_graph::eval;
use shiftwise_graph::eval::Samples;
use shiftwise_graph::graph::Graph;
use shiftwise_quant::pipeline::{PtqOptions, ptq};
use shiftwise_quant::strategy::Strategy;
use shiftwise_tensor::tensor::Tensor;

const MODELS: [&str; 2] = ["digits_resnet", "digits_lenet"];

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn model(name: &str) -> Graph {
    format::load(&file("data").join(format!("{name}.h5")), &LoadOptions::default()).unwrap()
}

fn images(archive: &str, key: &str, shape: &[usize], count: usize) -> Tensor {
    let spec = DataSpec::parse(&format!("{}:{key}", file("data").join(archive).display()));
    let data = Dataset::open(&spec, shape).unwrap();
    data.batch(0, count.min(data.len())).unwrap()
}

#[test]
fn float_outputs_are_tensorflows() {
    for name in MODELS {
        let graph = model(name);
        let outputs = eval::run_float(&graph, vec![images("digits.npz", "x_eval", &[8, 8, 1], 16)]).unwrap();
        let want = images("digits_expected.npz", name, &[10], 16);
        assert_eq!(outputs[0].shape(), want.shape());
        let worst = outputs[0].data().iter().zip(want.data()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "{name}: {worst}");
    }
}

#[test]
fn positions_are_the_reviewed_ones() {
    for name in MODELS {
        let calib: Vec<Tensor> = vec![images("digits.npz", "x_cal", &[8, 8, 1], 100)];
        assert_eq!(calib.len(), 1);
        assert_eq!(Samples::len(&calib), 100);
        let options = PtqOptions::new(Strategy::built_in("pof2s").unwrap());
        let quantized = ptq(model(name), &calib, &options, |_, _| {}).unwrap().quantized;
        let info = format::quantize_info(&quantized);
        let word = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
        let lines = info
            .as_array()
            .unwrap()
            .iter()
            .map(|row| format!("{} {} {}\n", word(row, "layer"), word(row, "role"), row["position"]));
        let text: String = lines.collect();
        let snap = file("snap").join(format!("{name}.positions.txt"));
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&snap, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(&snap).unwrap(), "{name}; UPDATE_EXPECT=1 rewrites it");
    }
}
