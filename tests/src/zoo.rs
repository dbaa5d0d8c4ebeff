//! The architectures of `zoo/` and the published measurements that belong to them.

use std::path::{Path, PathBuf};

use shiftwise_compile::{self as compile, DpuOptions};
use shiftwise_core::model::Deployable;
use shiftwise_core::target::Target;
use shiftwise_formats::{self as format, LoadOptions};
use shiftwise_graph::error::Error;
use shiftwise_integer::lower;
use shiftwise_quant::pipeline as quantize;
use shiftwise_quant::strategy::Strategy;
use shiftwise_sim::{Costs, Prepared, SimDpu};

/// The folder of architectures.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo")
}

/// One published measurement.
#[derive(Clone, Debug)]
pub struct Row {
    /// File name of its architecture, without `.json`.
    pub architecture: String,
    /// Name in the publication.
    pub published: String,
    /// Release of the vendor's tools.
    pub release: String,
    /// Our name of the board.
    pub board: String,
    /// Clock of the DPU.
    pub mhz: u32,
    /// Operations of the network, 10^9.
    pub gops: f64,
    /// Frames per second with one thread.
    pub fps_single: Option<f64>,
    /// Frames per second with as many threads as keep all cores busy.
    pub fps_multi: Option<f64>,
}

/// All measurements of `zoo/rows.csv`.
///
/// # Panics
/// If the file is damaged.
pub fn rows() -> Vec<Row> {
    let text = std::fs::read_to_string(folder().join("rows.csv")).expect("zoo/rows.csv");
    let row = |line: &str| {
        let f: Vec<&str> = line.split(',').collect();
        assert_eq!(f.len(), 8, "{line}");
        Row {
            architecture: f[0].into(),
            published: f[1].into(),
            release: f[2].into(),
            board: f[3].into(),
            mhz: f[4].parse().expect(line),
            gops: f[5].parse().expect(line),
            fps_single: f[6].parse().ok(),
            fps_multi: f[7].parse().ok(),
        }
    };
    text.lines().skip(1).map(row).collect()
}

/// Multiply-accumulates of an architecture, and its program for a target, ready to be timed.
pub fn prepare(architecture: &str, target: &Target) -> Result<(u64, Prepared), Error> {
    let path = folder().join(format!("{architecture}.json"));
    let options = LoadOptions { random_weights: Some(0), ..LoadOptions::default() };
    let graph = format::load(&path, &options)?;
    let quantized = quantize::without_data(graph, &Strategy::built_in("pof2s")?)?;
    let graph = lower::lower(&quantized)?;
    drop(quantized);
    let options = DpuOptions { observe: false, timing_only: true, ..DpuOptions::default() };
    let program = compile::dpu(&graph, target, &options)?;
    drop(graph);
    let failed = |e: &dyn std::fmt::Display| Error::Run(format!("{architecture}: {e}"));
    // Reshaping, softmax and the like are not what is measured; anything else would be.
    if let Some(l) = program.layers.iter().find(|l| l.cpu_us.is_some() && l.op != "softmax") {
        return Err(failed(&format!("layer `{}` is not on the DPU: {:?}", l.layer, l.reason)));
    }
    let bytes = program.to_bytes(&[])?;
    let model = Deployable::parse(&bytes).map_err(|e| failed(&e))?;
    let mut sim = SimDpu::new(target.clone(), target.clock_mhz, Costs::default()).map_err(|e| failed(&e))?;
    let macs = program.layers.iter().map(|l| l.macs).sum();
    Ok((macs, Prepared::new(&model, &mut sim).map_err(|e| failed(&e))?))
}
