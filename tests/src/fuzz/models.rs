//! Models of networks.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::Path;

use shiftwise::device::Device;
use shiftwise::vendor_file;
use shiftwise_compile::{self as compile, CpuOptions, DpuOptions};
use shiftwise_core::isa::{Line, codec};
use shiftwise_core::target::IsaVersion;
use shiftwise_formats::onnx::{Dim, Element, Network, Port, Value};
use shiftwise_formats::{Files, LoadOptions, Model, graph_text, open_bytes, open_files, quantized_bytes};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::run_float;
use shiftwise_graph::graph::Graph;
use shiftwise_graph::ops::CustomLayers;
use shiftwise_integer::engine::Engine;
use shiftwise_integer::graph::IntGraph;
use shiftwise_integer::lower::lower;
use shiftwise_quant::pipeline::without_data;
use shiftwise_quant::strategy::Strategy;
use shiftwise_xmodel::value::Held;
use shiftwise_xmodel::{self as xmodel, Xmodel, graph, spans};
use zip::write::SimpleFileOptions;

use crate::networks::random_samples;

/// Most multiplications and elements of a network that is computed.
const WORK: usize = 1 << 22;

/// A model of any kind.
pub(super) fn file(bytes: &[u8]) {
    open(bytes, &LoadOptions::default());
}

/// An ONNX model: as layers, and computed as its file states it, of inputs of zeros.
pub(super) fn onnx(bytes: &[u8]) {
    file(bytes);
    let path = Path::new("model.onnx");
    let Ok(network) = Network::read(Files::of_bytes(path, bytes.to_vec())) else { return };
    let input = |port: &Port| {
        let size = |dim: &Dim| if let Dim::Size(n) = dim { *n } else { 1 };
        let shape: Vec<usize> = port.dims.iter().flatten().map(size).collect();
        let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= 1 << 16)?;
        let element = port.element.unwrap_or(Element::Float);
        Some(Value::real(Element::Double, shape, vec![0.0; count]).cast(element))
    };
    if let Some(inputs) = network.inputs.iter().map(input).collect() {
        let _ = network.run(inputs, path);
    }
}

/// A model of TensorFlow Lite: as floats, and with its integers kept.
pub(super) fn lite(bytes: &[u8]) {
    file(bytes);
    open(bytes, &LoadOptions { keep_quantization: true, ..LoadOptions::default() });
}

/// An architecture, whose weights are drawn.
pub(super) fn architecture(bytes: &[u8]) {
    open(bytes, &LoadOptions { random_weights: Some(1), ..LoadOptions::default() });
}

/// `config.json` and `model.weights.h5`, see [`archive`].
pub(super) fn archived(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return };
    let (config, weights) = rest.split_at((u32::from_le_bytes(*length) as usize).min(rest.len()));
    open(&zipped(&[("config.json", config), ("model.weights.h5", weights)], false), &LoadOptions::default());
}

/// The members of a `.keras` archive as the target `keras_members` takes them.
pub fn archive(config: &[u8], weights: &[u8]) -> Vec<u8> {
    [&(config.len() as u32).to_le_bytes(), config, weights].concat()
}

/// Files of a SavedModel: its graph and the index of its variables.
const SAVED: [&str; 3] = ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"];

/// Graph, index and data of a SavedModel, see [`saved_model_bytes`].
pub(super) fn saved_model(bytes: &[u8]) {
    let mut rest = bytes;
    let mut files = BTreeMap::new();
    for name in &SAVED[..2] {
        let Some((length, behind)) = rest.split_first_chunk::<4>() else { return };
        let (own, behind) = behind.split_at((u32::from_le_bytes(*length) as usize).min(behind.len()));
        files.insert((*name).to_owned(), own.to_vec());
        rest = behind;
    }
    files.insert(SAVED[2].to_owned(), rest.to_vec());
    use_model(open_files(Files::of_folder(Path::new("m"), files), &LoadOptions::default()));
}

/// The files of a SavedModel as the target `saved_model` takes them.
pub fn saved_model_bytes(graph: &[u8], index: &[u8], data: &[u8]) -> Vec<u8> {
    let length = |bytes: &[u8]| (bytes.len() as u32).to_le_bytes();
    [&length(graph), graph, &length(index), index, data].concat()
}

/// A zip archive.
pub(super) fn zipped(members: &[(&str, &[u8])], deflated: bool) -> Vec<u8> {
    let method = if deflated { zip::CompressionMethod::Deflated } else { zip::CompressionMethod::Stored };
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).expect("a short name");
        zip.write_all(bytes).expect("memory takes everything");
    }
    zip.finish().expect("memory takes everything").into_inner()
}

fn open(bytes: &[u8], options: &LoadOptions) {
    use_model(open_bytes(Path::new("fuzzed.h5"), bytes.to_vec(), options));
}

fn use_model(model: Result<Model, Error>) {
    let path = Path::new("fuzzed.h5");
    match model {
        Ok(Model::Float(graph)) => use_float(&graph),
        Ok(Model::Quantized(q)) if is_small(&q.graph) => {
            let _ = quantized_bytes(&q, path);
            if let Ok(bytes) = xmodel::write::write(&q) {
                xmodel::read(path, &bytes).expect("what is written is read");
            }
            if let Ok(integers) = lower(&q) {
                use_integers(&integers);
            }
        }
        Ok(Model::Quantized(_)) | Err(_) => {}
    }
}

/// Whether a network may be computed in a moment.
fn is_small(graph: &Graph) -> bool {
    let work = graph.nodes.iter().map(|n| {
        let elements = n.shape.iter().product::<usize>();
        let weights: usize = n.op.layer().weights().iter().map(|(_, w)| w.data().len()).sum();
        let read: usize = n.inputs.iter().map(|i| graph.node(*i).shape.iter().product::<usize>()).sum();
        // Whatever the layer is: no output reads more than all inputs, or all weights.
        elements.saturating_mul(weights.min(512) + 1).saturating_add(read)
    });
    work.fold(0usize, usize::saturating_add) < WORK
}

fn use_float(graph: &Graph) {
    if !is_small(graph) {
        return;
    }
    let _ = graph_text(graph);
    let _ = run_float(graph, random_samples(graph, 1, 1));
    let Ok(strategy) = Strategy::built_in("pof2s") else { return };
    if let Ok(q) = without_data(graph.clone(), &strategy)
        && let Ok(integers) = lower(&q)
    {
        use_integers(&integers);
    }
}

/// Computed and compiled.
fn use_integers(graph: &IntGraph) {
    let engine = Engine::new(graph);
    let zeros: Vec<Vec<f32>> =
        graph.inputs.iter().map(|t| vec![0.5; graph.tensors[t.0].shape.iter().product()]).collect();
    let zeros: Vec<&[f32]> = zeros.iter().map(Vec::as_slice).collect();
    if let Ok(inputs) = engine.quantize_inputs(&zeros) {
        engine.run(inputs, |_| false);
    }
    let program = compile::cpu(graph, &CpuOptions::default());
    let _ = program.and_then(|p| p.to_bytes(&[]));
    if let Ok(target) = shiftwise_targets::find("B512") {
        let program = compile::dpu(graph, &target, &DpuOptions::default());
        let _ = program.and_then(|p| p.to_bytes(&[]));
        if let Ok(bytes) = vendor_file::write(graph, &Device::new(target, None), true) {
            let model = xmodel::read(Path::new("written.xmodel"), &bytes).expect("what is written is read");
            assert!(model.is_compiled());
        }
    }
}

/// A graph file: its structure, its code, its operations.
pub(super) fn xmodel(bytes: &[u8]) {
    file(bytes);
    let Ok(model) = xmodel::read(Path::new("fuzzed.xmodel"), bytes) else { return };
    let _ = (model.is_compiled(), model.results());
    for stream in model.streams() {
        let lines = codec::program(IsaVersion::Dpuczdx8gIsa1, stream.code);
        let lines: Vec<Line> = lines.map_while(|(_, line)| line.ok()).collect();
        let _ = (stream.name(), spans::spans(&model, stream.run, &lines), stream.run.registers());
    }
    let elements = |m: &Xmodel| {
        m.ops.iter().map(|op| op.tensor.elements().unwrap_or(usize::MAX)).fold(0usize, usize::saturating_add)
    };
    if elements(&model) > WORK >> 4 {
        return;
    }
    let custom = CustomLayers::default();
    let Ok(program) = graph::Program::new(&model, &custom) else { return };
    let inputs = program.inputs().iter().map(|op| {
        let shape = &model.ops[*op].tensor.shape;
        Held::float(shape, vec![0.5; shape.iter().product()])
    });
    let _ = program.run(inputs.collect());
    if let Ok(integers) = program.into_integer() {
        use_integers(&integers);
    }
}
