//! Speed of the convolution kernels on one thread, by CPU time.
//!
//! ```text
//! cargo run --release -p shiftwise-tensor --example conv_bench             # a table
//! cargo run --release -p shiftwise-tensor --example conv_bench -- --json   # one JSON line per call, for benches/compare.py
//! cargo run --release -p shiftwise-tensor --example conv_bench -- --serve  # as --json, once per line read from standard input
//! ```

use std::hint::black_box;
use std::io::{BufRead, Write};

use shiftwise_tensor::kernel::{
    ConvGeometry, FinishF32, FinishI8, PackedDepthwiseI8, PackedF32, PackedI8, Scratch, conv_f32_finish,
    conv_i8_finish, depthwise_f32, depthwise_i8_finish,
};

const BATCH: usize = 8;

struct Layer {
    name: &'static str,
    geometry: ConvGeometry,
    depthwise: bool,
}

/// Square image, square kernel, stride 1, padding "same".
fn same(size: usize, cin: usize, cout: usize, kernel: usize, groups: usize) -> ConvGeometry {
    ConvGeometry {
        in_h: size,
        in_w: size,
        out_h: size,
        out_w: size,
        kernel: [kernel, kernel],
        pad_before: [kernel / 2, kernel / 2],
        groups,
        ..ConvGeometry::dense(1, cin, cout)
    }
}

fn layers() -> Vec<Layer> {
    let conv = |name, geometry| Layer { name, geometry, depthwise: false };
    vec![
        conv("3x3 56x56 64-64", same(56, 64, 64, 3, 1)),
        conv("3x3 28x28 128-128", same(28, 128, 128, 3, 1)),
        conv("3x3 14x14 256-256", same(14, 256, 256, 3, 1)),
        conv("1x1 56x56 64-256", same(56, 64, 256, 1, 1)),
        conv("1x1 14x14 1024-256", same(14, 1024, 256, 1, 1)),
        Layer { name: "depthwise 3x3 56x56 128", geometry: same(56, 128, 128, 3, 128), depthwise: true },
    ]
}

/// CPU seconds of this thread so far.
#[cfg(unix)]
fn cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one `timespec`, which is what it is given.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(status, 0, "the thread's CPU clock can't be read");
    time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64
}

/// Elsewhere wall time has to do.
#[cfg(not(unix))]
fn cpu_seconds() -> f64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// Smallest CPU time of `rounds` calls, in seconds.
fn best(rounds: usize, mut call: impl FnMut()) -> f64 {
    call();
    let mut best = f64::INFINITY;
    for _ in 0..rounds {
        let start = cpu_seconds();
        call();
        best = best.min(cpu_seconds() - start);
    }
    best
}

fn time_f32(layer: &Layer, rounds: usize) -> f64 {
    let g = &layer.geometry;
    let input: Vec<f32> = (0..BATCH * g.input_len()).map(|i| (i * 37 % 101) as f32 / 101.0 - 0.5).collect();
    let kernel: Vec<f32> = (0..g.kernel_len()).map(|i| (i * 53 % 103) as f32 / 103.0 - 0.5).collect();
    let bias: Vec<f32> = (0..g.out_c).map(|i| i as f32 / 256.0).collect();
    let mut output = vec![0.0f32; BATCH * g.output_len()];
    let images = |output: &mut Vec<f32>, run: &mut dyn FnMut(&[f32], &mut [f32])| {
        for (x, y) in input.chunks_exact(g.input_len()).zip(output.chunks_exact_mut(g.output_len())) {
            run(x, y);
        }
        black_box(output);
    };
    if layer.depthwise {
        return best(rounds, || images(&mut output, &mut |x, y| depthwise_f32(g, &kernel, x, Some(&bias), y)));
    }
    let packed = PackedF32::new(&kernel, g);
    let finish = FinishF32 { bias: Some(&bias), relu: Some(f32::INFINITY), ..FinishF32::default() };
    best(rounds, || images(&mut output, &mut |x, y| conv_f32_finish(&packed, g, x, finish, y)))
}

/// Int8 in and out: bias, ReLU and requantization by a shift.
fn time_i8(layer: &Layer, rounds: usize) -> f64 {
    let g = &layer.geometry;
    let input: Vec<i8> = (0..BATCH * g.input_len()).map(|i| (i * 37 % 251) as u8 as i8).collect();
    let kernel: Vec<i8> = (0..g.kernel_len()).map(|i| (i * 53 % 241) as u8 as i8).collect();
    let bias: Vec<i32> = (0..g.out_c).map(|i| i as i32 * 16 + 512).collect();
    let mut output = vec![0i8; BATCH * g.output_len()];
    let finish = FinishI8 { bias: &bias, shift: 10, low: 0, high: 127 };
    let mut scratch = Scratch::default();
    let mut images = |run: &mut dyn FnMut(&[i8], &mut [i8])| {
        for (x, y) in input.chunks_exact(g.input_len()).zip(output.chunks_exact_mut(g.output_len())) {
            run(x, y);
        }
        black_box(&mut output);
    };
    if layer.depthwise {
        let packed = PackedDepthwiseI8::new(&kernel, g);
        return best(rounds, || images(&mut |x, y| depthwise_i8_finish(&packed, x, finish, y)));
    }
    let packed = PackedI8::new(&kernel, g);
    best(rounds, || images(&mut |x, y| conv_i8_finish(&mut scratch, &packed, g, x, finish, y)))
}

fn measure(rounds: usize) -> Vec<(&'static str, f64, f64)> {
    let gflops = |layer: &Layer, seconds: f64| 2e-9 * (BATCH * layer.geometry.macs()) as f64 / seconds;
    layers().iter().map(|l| (l.name, gflops(l, time_f32(l, rounds)), gflops(l, time_i8(l, rounds)))).collect()
}

fn json() -> String {
    let entries: Vec<String> = measure(3)
        .iter()
        .map(|(name, f32, i8)| format!(r#"{{"layer":"{name}","f32":{f32:.3},"int8":{i8:.3}}}"#))
        .collect();
    format!("[{}]", entries.join(","))
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout();
    match std::env::args().nth(1).as_deref() {
        Some("--json") => writeln!(out, "{}", json())?,
        Some("--serve") => {
            for line in std::io::stdin().lock().lines() {
                line?;
                writeln!(out, "{}", json())?;
                out.flush()?;
            }
        }
        _ => {
            writeln!(out, "{:26}{:>10}{:>10}", "G(FL)OP/s, one thread", "f32", "int8")?;
            for (name, f32, i8) in measure(40) {
                writeln!(out, "{name:26}{f32:10.1}{i8:10.1}")?;
            }
        }
    }
    Ok(())
}
