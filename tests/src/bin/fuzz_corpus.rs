//! Writes the fuzzers' corpus, `fuzz/corpus/TARGET`: small files of every kind, made of the repository's own models and data.
//!
//! `cargo run -p shiftwise-tests --bin fuzz_corpus`

use std::error::Error;
use std::io::Read;
use std::path::Path;

use ndarray::Array;
use ndarray_npy::WriteNpyExt;
use shiftwise::device::Device;
use shiftwise::vendor_file;
use shiftwise_compile::{self as compile, CpuOptions, DpuOptions};
use shiftwise_core::link::{FRAME, Report, Request, Response, encode, encode_answer};
use shiftwise_core::model::TensorId;
use shiftwise_formats::{LoadOptions, Model, open_bytes, quantized_bytes};
use shiftwise_integer::lower::lower;
use shiftwise_quant::strategy::Strategy;
use shiftwise_tests::agreement;
use shiftwise_tests::command::data;
use shiftwise_tests::fuzz::{archive, corpus, members, saved_model_bytes};
use shiftwise_tests::graphs::{Limits, random_graph};
use shiftwise_tests::networks::random_network;
use shiftwise_tests::odd::choices_of;
use shiftwise_tests::{small, xmodel};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

fn write(target: &str, name: &str, bytes: &[u8]) -> Result {
    let folder = corpus(target);
    std::fs::create_dir_all(&folder)?;
    Ok(std::fs::write(folder.join(name), bytes)?)
}

/// A member of an archive of the repository.
fn member(archive: &str, name: &str) -> Result<Vec<u8>> {
    let file = std::fs::File::open(data().join("keras").join(archive))?;
    let mut bytes = Vec::new();
    zip::ZipArchive::new(file)?.by_name(name)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The smallest file of a quantized network of one block.
fn quantized_file() -> Result<Vec<u8>> {
    let strategy = Strategy::built_in("pof2s")?;
    let file = |seed: u64| {
        let q = agreement::quantized(&random_network(seed, 1), seed, 4, strategy.clone()).ok()?;
        quantized_bytes(&q, Path::new("quantized.h5")).ok()
    };
    (0..40).filter_map(file).min_by_key(Vec::len).ok_or_else(|| "no network of these was quantized".into())
}

fn models() -> Result {
    let keras = data().join("keras");
    write("h5", "custom", &std::fs::read(keras.join("custom_keras2.h5"))?)?;
    write("h5", "quantized", &quantized_file()?)?;
    for name in ["classifier", "moves", "pools", "transposed"] {
        write("onnx", name, &std::fs::read(data().join("onnx/cases").join(name).join("model.onnx"))?)?;
    }
    write("keras", "custom", &std::fs::read(keras.join("custom_keras3.keras"))?)?;
    for name in ["nested_keras2", "nested_keras3", "shared_keras3", "functions_keras3", "spelled_keras3"] {
        let config = member(&format!("{name}.keras"), "config.json")?;
        write("json", name, &config)?;
    }
    let tf = data().join("tf");
    for name in ["small", "small_int8"] {
        write("tflite", name, &std::fs::read(tf.join(format!("{name}.tflite")))?)?;
    }
    write("graph_def", "small", &std::fs::read(tf.join("small.pb"))?)?;
    let saved = |name: &str| std::fs::read(tf.join("small_saved_model").join(name));
    let [index, weights] = [saved("variables/variables.index")?, saved("variables/variables.data-00000-of-00001")?];
    write("saved_model", "small", &saved_model_bytes(&saved("saved_model.pb")?, &index, &weights))?;
    let (config, weights) =
        (member("custom_keras3.keras", "config.json")?, member("custom_keras3.keras", "model.weights.h5")?);
    write("keras_members", "custom", &archive(&config, &weights))
}

fn programs() -> Result {
    let target = shiftwise_targets::find("B512")?;
    let limits = Limits { ops: 5, side: 5, channels: 5, cpu_only: false, extreme: false };
    for seed in [3, 5, 8] {
        let graph = random_graph(seed, limits);
        let program = compile::cpu(&graph, &CpuOptions::default())?;
        write("deployable", &format!("cpu{seed}"), &program.to_bytes(&[])?)?;
        let program = compile::dpu(&graph, &target, &DpuOptions::default())?;
        write("deployable", &format!("dpu{seed}"), &program.to_bytes(&[])?)?;
        write("code", &format!("dpu{seed}"), &program.code)?;
    }
    write("deployable", "small", &small::deployable().map_err(|e| format!("{e:?}"))?)?;
    let code = random_graph(3, limits);
    let program = compile::dpu(&code, &target, &DpuOptions::default())?;
    let lines = shiftwise_core::isa::codec::program(target.isa, &program.code);
    let lines: Vec<String> = lines.filter_map(|(_, line)| Some(line.ok()?.to_string())).take(40).collect();
    write("listing", "dpu", lines.join("\n").as_bytes())?;
    // Not every layer has a form in the vendor's file.
    let graphs = || (0..).map(|seed| random_graph(seed, limits));
    let quantized = graphs().find_map(|graph| xmodel::quantized(&graph)).unwrap_or_default();
    write("xmodel", "quantized", &quantized)?;
    let compiled = graphs().find_map(|graph| {
        let program = compile::dpu(&graph, &target, &DpuOptions::default()).ok()?;
        xmodel::compiled(&graph, &program)
    });
    write("xmodel", "compiled", &compiled.unwrap_or_default())?;
    let own = match open_bytes(Path::new("quantized.h5"), quantized_file()?, &LoadOptions::default())? {
        Model::Quantized(own) => own,
        Model::Float(_) => return Err("a quantized network is expected".into()),
    };
    write("xmodel", "exported", &shiftwise_xmodel::write::write(&own)?)?;
    let device = Device::new(target, None);
    write("xmodel", "program", &vendor_file::write(&lower(&own)?, &device, true)?)?;
    Ok(())
}

fn arrays() -> Result {
    let array = |n: usize| -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        Array::from_shape_fn((n, 4, 3, 1), |(n, y, x, _)| (n * 12 + y * 3 + x) as f32).write_npy(&mut bytes)?;
        Ok(bytes)
    };
    let labels = |n: i64| -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        Array::from_shape_fn(n as usize, |i| i as i64).write_npy(&mut bytes)?;
        Ok(bytes)
    };
    write("npy", "samples", &array(5)?)?;
    write("npy", "labels", &labels(7)?)?;
    write("npz_members", "stored", &members(false, &array(2)?, &labels(2)?))?;
    write("npz_members", "deflated", &members(true, &array(2)?, &labels(2)?))?;
    write("npz", "expected", &std::fs::read(data().join("digits_expected.npz"))?)
}

fn texts() -> Result {
    let strategy = Strategy::built_in("pof2s")?.dump(0);
    write("strategy", "pof2s", strategy.as_bytes())?;
    write("strategy", "flat", br#"{"calibrate_with_cle": true, "bias_bit": 8, "ignore_layers": ["a"]}"#)?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../targets");
    for (name, file) in [
        ("b512", "dpu/DPUCZDX8G_ISA1_B512.toml"),
        ("described", "dpu/DPUCAHX8H_ISA2.toml"),
        ("board", "boards/mps2-an386.toml"),
        ("timing", "timing/DPUCZDX8G.toml"),
    ] {
        write("toml", name, &std::fs::read(root.join(file))?)?;
    }
    write("formula", "prelu", b"Mylayer=maximum(x, 0) + alpha * minimum(x, 0)")?;
    write("formula", "blend", b"Blend=ratio * x0 * w0 + (1 - ratio) * matmul(x1, -pow(x, 2e-3))")
}

fn frames() -> Result {
    let mut buffer = [0; FRAME];
    let requests = [
        Request::Hello,
        Request::Load { offset: 4, bytes: &[1, 0, 2] },
        Request::Run { inputs: 7, report: Report::Tensor(TensorId(3)) },
    ];
    let mut line = Vec::new();
    for (number, request) in (0..).zip(&requests) {
        line.extend_from_slice(encode(number, request, &mut buffer)?);
    }
    line.extend_from_slice(encode_answer((1, 2), &Response::Ready, &mut buffer)?);
    write("link", "session", &line)
}

fn main() -> Result {
    models()?;
    programs()?;
    arrays()?;
    texts()?;
    frames()?;
    pictures()?;
    for seed in 0..6 {
        write("graph", &seed.to_string(), &choices_of(seed, 200))?;
        write("network", &seed.to_string(), &choices_of(seed, 200))?;
    }
    Ok(())
}

/// A picture in each of the formats and kinds of colour that are read.
fn pictures() -> Result {
    use image::{DynamicImage, ImageFormat, RgbaImage};
    let all = RgbaImage::from_fn(6, 5, |x, y| image::Rgba([x as u8 * 40, y as u8 * 50, 90, 255 - x as u8]));
    let all = DynamicImage::from(all);
    for (name, picture, format) in [
        ("rgba.png", all.clone(), ImageFormat::Png),
        ("grey.png", all.to_luma8().into(), ImageFormat::Png),
        ("deep.png", all.to_rgb16().into(), ImageFormat::Png),
        ("rgb.jpg", all.to_rgb8().into(), ImageFormat::Jpeg),
        ("grey.jpg", all.to_luma8().into(), ImageFormat::Jpeg),
    ] {
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format)?;
        write("images", name, bytes.get_ref())?;
    }
    Ok(())
}
