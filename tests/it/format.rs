//! Float models from Keras files.

use std::path::Path;

use shiftwise_formats::{LoadOptions, graph_text, load, open_bytes};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::run_float;
use shiftwise_graph::graph::{Graph, Node};
use shiftwise_tensor::tensor::Tensor;
use shiftwise_tests::shared::{golden_cases, shared};

fn config(case: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(case.join("config.json")).unwrap()).unwrap()
}

/// Models with open dimensions are given the shape of their calibration data's pixels.
fn options(case: &Path) -> LoadOptions {
    let open = ["dyn_shape", "s_input_shape", "s_add_shape"].iter().any(|n| case.to_string_lossy().contains(n));
    let input_shapes = if open { vec![(None, vec![1, 12, 12, 3])] } else { Vec::new() };
    LoadOptions { input_shapes, ..LoadOptions::default() }
}

#[test]
fn every_golden_model_of_known_layers_loads_in_keras_order() {
    let (mut loaded, cases) = (0, golden_cases());
    for case in cases.iter().filter(|c| c.join("model.h5").is_file()) {
        match load(&case.join("model.h5"), &options(case)) {
            Ok(graph) => {
                loaded += 1;
                let config = config(case);
                let Some(want) = config["float_graph"].as_array() else { continue };
                // The reference lists a shared layer once.
                let first = |n: &&Node| n.shared.as_ref().is_none_or(|call| call.number == 0);
                let names: Vec<&str> = graph.nodes.iter().filter(first).map(|n| n.name.as_str()).collect();
                let want: Vec<&str> = want.iter().filter_map(|l| l["name"].as_str()).collect();
                // The reference doesn't list the input layer of a sequential model.
                let from = names.len() - want.len();
                assert!(from <= 1, "{case:?}");
                assert_eq!(names[from..], want, "{case:?}");
            }
            Err(Error::UnsupportedLayer { .. }) => {}
            Err(e) => panic!("{case:?}: {e}"),
        }
    }
    assert!(cases.is_empty() || loaded >= 200, "{loaded}");
}

#[test]
fn input_shapes_are_checked() {
    let Some(case) = golden_cases().into_iter().find(|c| c.ends_with("pof2s_dyn_shape_v0")) else { return };
    let file = case.join("model.h5");
    let open = load(&file, &LoadOptions::default()).unwrap_err();
    assert!(matches!(open, Error::InputShape(_)) && open.to_string().contains("input_1"), "{open}");
    let load_with = |name: Option<&str>, shape: &[usize]| {
        load(
            &file,
            &LoadOptions { input_shapes: vec![(name.map(str::to_owned), shape.to_vec())], ..LoadOptions::default() },
        )
    };
    let graph = load_with(Some("input_1"), &[1, 9, 7, 3]).unwrap();
    assert_eq!(graph.node(graph.inputs[0]).shape, [9, 7, 3]);
    for (name, shape) in [(None, &[1, 8, 8][..]), (Some("image"), &[1, 8, 8, 3]), (None, &[1, 0, 8, 3])] {
        assert!(matches!(load_with(name, shape), Err(Error::InputShape(_))), "{name:?} {shape:?}");
    }
    let channels = load_with(None, &[1, 8, 8, 4]).unwrap_err().to_string();
    assert!(channels.contains("conv2d") && channels.contains("[3, 3, 4, "), "{channels}");
}

#[test]
fn foreign_files_are_named() {
    let path = Path::new("model.h5");
    for (bytes, says) in [
        (&b""[..], "is empty"),
        (b"PK\x03\x04rest", "archive is damaged"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"hello, world", "not an HDF5"),
    ] {
        let error = open_bytes(path, bytes.to_vec(), &LoadOptions::default()).unwrap_err();
        assert!(matches!(error, Error::Format { .. }) && error.to_string().contains(says), "{error}");
    }
}

/// A xorshift generator: the same numbers everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

/// `count` damaged copies of a file go through `read`, which must come back.
pub(crate) fn mutate(bytes: &[u8], count: usize, mut read: impl FnMut(Vec<u8>) -> bool) {
    let mut random = Random(0x5eed_1234_abcd_ef01);
    let mut refused = 0;
    for i in 0..count {
        let mut copy = bytes.to_vec();
        if i % 8 == 0 {
            copy.truncate(random.below(copy.len()));
        } else {
            for _ in 0..=random.below(6) {
                let at = random.below(copy.len());
                copy[at] = [0, 0xff, 0x80, copy[at] ^ (1 << random.below(8)), random.below(256) as u8][random.below(5)];
            }
        }
        refused += usize::from(!read(copy));
    }
    // Truncated copies at least.
    assert!(refused >= count / 10, "{refused} of {count} were refused");
}

#[test]
fn damaged_files_are_refused_without_a_panic() {
    let Some(case) = golden_cases().into_iter().find(|c| c.ends_with("pof2s_conv_bn_relu_v0")) else { return };
    let bytes = std::fs::read(case.join("model.h5")).unwrap();
    let path = Path::new("damaged.h5");
    mutate(&bytes, 3000, |copy| open_bytes(path, copy, &LoadOptions::default()).is_ok());
}

fn random(seed: u64) -> LoadOptions {
    LoadOptions { random_weights: Some(seed), ..LoadOptions::default() }
}

#[test]
fn architectures_load_with_random_weights() {
    let Some(folder) = shared().map(|s| s.join("zoo")) else { return };
    let mut loaded = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        assert!(matches!(load(&path, &LoadOptions::default()), Err(Error::NoWeights { .. })));
        let graph = match load(&path, &random(7)) {
            Ok(graph) => graph,
            Err(Error::UnsupportedLayer { .. }) => continue,
            Err(e) => panic!("{}: {e}", path.display()),
        };
        loaded += 1;
        // Neither all the same nor beyond what a quantizer can represent.
        if path.ends_with("mobilenet_0_5_160.json") {
            let classes = run_float(&graph, vec![input(&graph)]).unwrap();
            let largest = classes[0].data().iter().fold(0.0f32, |m, v| m.max(*v));
            assert!((0.001..0.9).contains(&largest), "{largest}");
        }
    }
    assert!(loaded >= 5, "{loaded}");
}

/// A made-up sample for a model with one input.
fn input(graph: &Graph) -> Tensor {
    let shape = [&[1], graph.node(graph.inputs[0]).shape.as_slice()].concat();
    let data = (0..shape.iter().product::<usize>()).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    Tensor::new(shape, data).unwrap()
}

#[test]
fn an_archive_of_keras_3_holds_the_same_network_as_its_h5() {
    let Some(models) = shared().map(|s| s.join("models")) else { return };
    let [archive, h5] = ["digits8x8.keras", "digits8x8_keras3.h5"]
        .map(|name| load(&models.join(name), &LoadOptions::default()).unwrap());
    assert_eq!(graph_text(&archive), graph_text(&h5));
    for (a, b) in archive.nodes.iter().zip(&h5.nodes) {
        assert_eq!(a.op.layer().weights(), b.op.layer().weights(), "{}", a.name);
    }
    let x = input(&archive);
    assert_eq!(run_float(&archive, vec![x.clone()]).unwrap(), run_float(&h5, vec![x]).unwrap());
}
