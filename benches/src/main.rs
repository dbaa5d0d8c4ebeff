//! Our side of paired measurements: `shiftwise-benches MODEL HxWxC [vendor]`.
//!
//! Reads a model once, an architecture (.json) with random weights, and answers each line of standard input with the milliseconds of
//! CPU that one image takes, a batch of eight on one thread: in floats, or in integers for a quantized model, or in the vendor's
//! numerics.

use std::error::Error;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};
use shiftwise_formats::{LoadOptions, Model};
use shiftwise_graph::eval::FloatEngine;
use shiftwise_integer::engine::Engine;
use shiftwise_integer::lower;
use shiftwise_quant::eval::VendorEngine;
use shiftwise_tensor::tensor::Tensor;

const BATCH: usize = 8;

/// Any problem, which passes between threads.
type Problem = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Problem> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (model, size, vendor) = match words.as_slice() {
        [model, size] => (*model, *size, false),
        [model, size, "vendor"] => (*model, *size, true),
        _ => return Err("usage: shiftwise-benches MODEL HxWxC [vendor]".into()),
    };
    let shape = size.split('x').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    let random_weights = model.ends_with(".json").then_some(1);
    let options = LoadOptions { random_weights, ..LoadOptions::default() };
    let model = shiftwise_formats::open(Path::new(model), &options)?;
    let batch = images(&[&[BATCH], shape.as_slice()].concat());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    pool.install(|| match &model {
        Model::Float(graph) => {
            let engine = FloatEngine::new(graph);
            serve(|| {
                black_box(engine.run(&batch)?);
                Ok(())
            })
        }
        Model::Quantized(q) if vendor => {
            let engine = VendorEngine::new(q);
            serve(|| {
                black_box(engine.run(batch.clone())?);
                Ok(())
            })
        }
        Model::Quantized(q) => {
            let graph = lower::lower(q)?;
            let engine = Engine::new(&graph);
            serve(|| {
                black_box(engine.run_batch(&batch)?);
                Ok(())
            })
        }
    })
}

/// Values between −1 and 1: what they are doesn't matter to any kernel.
fn images(shape: &[usize]) -> Vec<Tensor> {
    let value = |i: usize| (i * 37 % 1009) as f32 / 504.5 - 1.0;
    Tensor::new(shape.to_vec(), (0..shape.iter().product()).map(value).collect()).into_iter().collect()
}

/// Answers each line with the time that a batch took.
fn serve(run: impl Fn() -> Result<(), Problem>) -> Result<(), Problem> {
    run()?;
    let mut out = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        line?;
        let start = cpu();
        run()?;
        writeln!(out, "{}", 1000.0 * (cpu() - start) / BATCH as f64)?;
        out.flush()?;
    }
    Ok(())
}

/// Seconds of CPU of the whole process, helpers included.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64
}
