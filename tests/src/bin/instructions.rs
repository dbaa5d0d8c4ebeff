//! Measures the firmware's kernels on emulated boards.
//!
//! `instructions [BOARD…]` runs the real models on these boards, or on all, and prints `firmware/MEASURED.md`, where the
//! layers of the first are listed; with `--write` it also writes that page, and the fitted prices of
//! `shiftwise_compile::instructions`.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use nalgebra::{DMatrix, DVector};
use serde_json::{Value, json};
use shiftwise_board::image::{BoardImage, board, build};
use shiftwise_board::{BoardSpec, Report, run_on_board};
use shiftwise_compile::instructions::work;
use shiftwise_compile::{self as compile, CpuOptions};
use shiftwise_core::cpu::scratch_bytes;
use shiftwise_core::model::{ConvOp, CpuOp, Deployable, Region, Step};
use shiftwise_tests::models::{self, RealModel};
use shiftwise_tests::shared::shared;

/// The boards that are asked when none is named.
const BOARDS: [&str; 4] = ["mps2-an386", "cortex-r5f", "xlnx-zcu102", "riscv32-virt"];

/// One step of a model.
struct Row {
    kind: &'static str,
    text: String,
    /// Multiplications, or elements of a sum.
    amount: u64,
    instructions: u64,
    /// CMSIS-NN's, for the same layer.
    peer: Option<u64>,
}

/// A model on a board.
struct Run {
    name: &'static str,
    file: Vec<u8>,
    rows: Vec<Row>,
}

impl Run {
    fn total(&self) -> u64 {
        self.rows.iter().map(|row| row.instructions).sum()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (options, mut names): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|word| word.starts_with("--"));
    let write = options.iter().any(|word| word == "--write");
    if names.is_empty() {
        names.extend(BOARDS.map(String::from));
    }
    let peers = peers();
    let mut all = Vec::new();
    for name in &names {
        let board = board(name)?;
        let image = build(board)?;
        let runs = models::all()
            .iter()
            .map(|model| run(board, &image.elf, model, &peers))
            .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
        eprintln!("{name}: {} models", runs.len());
        all.push((board, image.code, runs));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let path = root.join("host/compile/src/price/instructions.json");
    // Prices of processors that were not asked stay.
    let mut prices: BTreeMap<String, Value> = serde_json::from_slice(&std::fs::read(&path)?)?;
    prices.extend(all.iter().map(|(board, _, runs)| (cpu(board).to_string(), json!(fit(runs)))));
    let page = page(&all, &prices);
    print!("{page}");
    if write {
        std::fs::write(root.join("firmware/MEASURED.md"), &page)?;
        std::fs::write(path, serde_json::to_string_pretty(&prices)? + "\n")?;
    }
    Ok(())
}

fn cpu(board: &BoardImage) -> &'static str {
    shiftwise_targets::find_board(&board.name).map_or("", |board| String::leak(board.cpu))
}

fn run(board: &'static BoardImage, elf: &Path, model: &RealModel, peers: &[Value]) -> Result<Run, Box<dyn Error>> {
    let (graph, inputs) = model.quantized(1)?;
    let file = compile::cpu(&graph, &CpuOptions::default())?.to_bytes(&[])?;
    let parsed = Deployable::parse(&file)?;
    let sample = parsed.inputs().map(|(_, t)| vec![0; t.bytes() as usize]).collect::<Vec<_>>();
    drop(inputs);
    let session = run_on_board(&BoardSpec::Qemu(board), elf, &file, [sample], Report::None)?;
    let steps = session.samples.first().map(|sample| sample.steps.clone()).unwrap_or_default();
    let rows = parsed.steps().zip(steps).filter_map(|(step, instructions)| match step {
        Step::Cpu(op) => Some(row(&parsed, &op, instructions, peers)),
        Step::Dpu(_) => None,
    });
    Ok(Run { name: model.name, rows: rows.collect(), file: file.clone() })
}

fn row(model: &Deployable<'_>, op: &CpuOp<'_>, instructions: u64, peers: &[Value]) -> Row {
    let elements = model.tensor(op.output()).and_then(|t| t.shape.elements()).unwrap_or(0);
    let kind = work(model, op).map_or("float", |work| work.kind);
    let conv = |c: &ConvOp, share: u16| {
        let [kh, kw] = c.window.kernel;
        let text = format!(
            "{}×{}×{} → {}×{}×{}, {kh}×{kw}/{}",
            c.in_dims[0], c.in_dims[1], c.in_dims[2], c.out_dims[0], c.out_dims[1], c.out_dims[2], c.window.stride[0]
        );
        let macs = u64::from(elements) * u64::from(kh) * u64::from(kw) * u64::from(share);
        (text, macs)
    };
    let (text, amount) = match op {
        CpuOp::Conv(c) | CpuOp::ConvTranspose(c) => conv(c, c.in_dims[2] / c.groups.max(1)),
        CpuOp::Depthwise(c) => conv(c, 1),
        CpuOp::Pool(p) => {
            let [kh, kw] = p.window.kernel;
            let text = format!("{}×{}×{}, {kh}×{kw}/{}", p.in_dims[0], p.in_dims[1], p.in_dims[2], p.window.stride[0]);
            (text, 0)
        }
        CpuOp::Add(_) => (format!("{elements} elements"), elements.into()),
        _ => (format!("{elements} elements"), 0),
    };
    let peer = peers.iter().find(|peer| is_same(peer, op, elements)).and_then(|peer| peer["instructions"].as_u64());
    Row { kind, text, amount, instructions, peer }
}

/// Layers measured with CMSIS-NN.
fn peers() -> Vec<Value> {
    let text = shared().and_then(|folder| std::fs::read_to_string(folder.join("data/cmsis_nn_m4.jsonl")).ok());
    text.unwrap_or_default().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Whether a measurement is of a layer of this shape.
fn is_same(peer: &Value, op: &CpuOp<'_>, elements: u32) -> bool {
    let same = |kind: &str, c: &ConvOp| {
        let [kh, kw] = c.window.kernel;
        peer["op"] == kind
            && peer["in"] == json!(c.in_dims)
            && peer["kernel"] == kh
            && kh == kw
            && peer["stride"] == c.window.stride[0]
            && (kind == "depthwise" || peer["out_ch"] == c.out_dims[2])
    };
    match op {
        CpuOp::Conv(c) if c.in_dims[..2] == [1, 1] => {
            peer["op"] == "dense" && peer["in"] == json!([c.in_dims[2]]) && peer["out_ch"] == c.out_dims[2]
        }
        CpuOp::Conv(c) => same("conv", c),
        CpuOp::Depthwise(c) => same("depthwise", c),
        CpuOp::Add(_) => peer["op"] == "add" && peer["elements"] == elements,
        CpuOp::Pool(p) => {
            let whole = p.out_dims == [1, 1];
            let kind = if whole { "global_average" } else { "maxpool2x2" };
            peer["op"] == kind && peer["in"] == json!(p.in_dims) && (whole || p.window.kernel == [2, 2])
        }
        _ => false,
    }
}

/// Prices of the units of each kind of kernel: least squares of the relative error, none negative.
fn fit(runs: &[Run]) -> BTreeMap<&'static str, Vec<f64>> {
    let mut samples: BTreeMap<&'static str, Vec<(Vec<f64>, f64)>> = BTreeMap::new();
    for run in runs {
        let Ok(model) = Deployable::parse(&run.file) else { continue };
        for (step, row) in model.steps().zip(&run.rows) {
            if let Step::Cpu(op) = &step
                && let Some(work) = work(&model, op)
            {
                samples.entry(work.kind).or_default().push((work.units, row.instructions as f64));
            }
        }
    }
    samples.into_iter().map(|(kind, samples)| (kind, solve(&samples))).collect()
}

/// Non-negative least squares by leaving out what would be negative, the most negative first.
fn solve(samples: &[(Vec<f64>, f64)]) -> Vec<f64> {
    let units = samples.first().map_or(0, |(units, _)| units.len());
    let mut used: Vec<usize> = (0..units).collect();
    loop {
        let matrix = DMatrix::from_fn(samples.len(), used.len(), |r, c| samples[r].0[used[c]] / samples[r].1);
        let ones = DVector::from_element(samples.len(), 1.0);
        let found = matrix.svd(true, true).solve(&ones, 1e-9).map(|x| x.as_slice().to_vec()).unwrap_or_default();
        let worst = found.iter().enumerate().filter(|(_, x)| **x < 0.0).min_by(|a, b| a.1.total_cmp(b.1));
        match worst {
            Some((at, _)) => {
                used.remove(at);
            }
            None => {
                let mut all = vec![0.0; units];
                for (at, price) in used.iter().zip(found) {
                    all[*at] = (price * 100.0).round() / 100.0;
                }
                return all;
            }
        }
    }
}

fn page(all: &[(&BoardImage, u64, Vec<Run>)], prices: &BTreeMap<String, Value>) -> String {
    let mut out = String::new();
    let text = &mut out;
    let _ = writeln!(
        text,
        "# What the kernels take\n\n\
         Made by `cargo run --release -p shiftwise-tests --bin instructions -- --write`. Instructions, not cycles: QEMU's \
         `-icount shift=0` counts them; on mps2-an386 in steps of 40. A step counts from its record being read to its output being complete, \
         without the link. Weights and data do not change the number. \"CMSIS-NN\" are its int8 kernels on the same \
         emulated processor, for a layer of the same shape.\n\n\
         RAM is what a network needs beside the runtime's own: workspace with inputs and outputs, and scratch memory with \
         which the kernels are as fast as here. The image is the whole firmware with link, log, and a DPU in software.\n"
    );
    let _ = writeln!(text, "| model | deployable, bytes | workspace | scratch | {} |", boards(all).join(" | "));
    let _ = writeln!(text, "|---|---|---|---|{}", "---|".repeat(all.len()));
    let models = all.first().map_or(0, |(_, _, runs)| runs.len());
    for n in 0..models {
        let Some((name, file)) = all.first().and_then(|(_, _, runs)| runs.get(n)).map(|run| (run.name, &run.file))
        else {
            continue;
        };
        let Ok(model) = Deployable::parse(file) else { continue };
        let memory: usize =
            [Region::Workspace, Region::Inputs, Region::Outputs].iter().map(|r| model.region_bytes(*r)).sum();
        let totals: Vec<String> =
            all.iter().map(|(_, _, runs)| runs.get(n).map_or(String::new(), |run| spaced(run.total()))).collect();
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {} |",
            spaced(file.len() as u64),
            spaced(memory as u64),
            spaced(scratch_bytes(&model) as u64),
            totals.join(" | ")
        );
    }
    let codes: Vec<String> = all.iter().map(|(board, code, _)| format!("{} {}", board.name, spaced(*code))).collect();
    let _ = writeln!(text, "\nImages, bytes of code and constants: {}.", codes.join(", "));
    let Some((board, _, runs)) = all.first() else { return out };
    let prices = prices.get(cpu(board));
    // As `shiftwise_compile::instructions` does it, with the new prices.
    let formula = |model: &Deployable<'_>, op: &CpuOp<'_>| -> Option<f64> {
        let work = work(model, op)?;
        let prices: Vec<f64> = prices?.get(work.kind)?.as_array()?.iter().filter_map(Value::as_f64).collect();
        Some(prices.iter().zip(&work.units).map(|(price, n)| price * n).sum())
    };
    for run in runs {
        let _ = writeln!(text, "\n## {} on {}\n", run.name, board.name);
        let _ = writeln!(text, "| layer | shape | instructions | a product | CMSIS-NN | ratio | formula |");
        let _ = writeln!(text, "|---|---|---|---|---|---|---|");
        let Ok(model) = Deployable::parse(&run.file) else { continue };
        for (step, row) in model.steps().zip(&run.rows) {
            let Step::Cpu(op) = &step else { continue };
            let each = if row.amount == 0 {
                String::new()
            } else {
                format!("{:.2}", row.instructions as f64 / row.amount as f64)
            };
            let peer = row.peer.map_or((String::new(), String::new()), |peer| {
                (spaced(peer), format!("{:.2}", row.instructions as f64 / peer as f64))
            });
            let estimate = formula(&model, op)
                .map_or(String::new(), |n| format!("{:+.0} %", (n / row.instructions as f64 - 1.0) * 100.0));
            let _ = writeln!(
                text,
                "| {} | {} | {} | {each} | {} | {} | {estimate} |",
                row.kind,
                row.text,
                spaced(row.instructions),
                peer.0,
                peer.1
            );
        }
        let _ = writeln!(text, "| all | | {} | | | | |", spaced(run.total()));
    }
    out
}

fn boards(all: &[(&BoardImage, u64, Vec<Run>)]) -> Vec<String> {
    all.iter().map(|(board, _, _)| format!("{} ({})", board.name, cpu(board))).collect()
}

/// 12 345 678.
fn spaced(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}
