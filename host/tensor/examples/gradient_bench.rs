//! Speed of the gradient kernels on one thread, by CPU time: one line of JSON per line read from standard input, for
//! `benches/gradients.py`.

use std::hint::black_box;
use std::io::{BufRead, Write};

use shiftwise_tensor::kernel::ConvGeometry;
use shiftwise_tensor::kernel::backward::{InputGradient, conv_weights, depthwise_weights};

const BATCH: usize = 8;

/// Name, size of the image, input channels, output channels, kernel, groups; stride 1, padding "same".
const LAYERS: [(&str, usize, usize, usize, usize, usize); 6] = [
    ("3x3 56x56 64-64", 56, 64, 64, 3, 1),
    ("3x3 28x28 128-128", 28, 128, 128, 3, 1),
    ("3x3 14x14 256-256", 14, 256, 256, 3, 1),
    ("1x1 56x56 64-256", 56, 64, 256, 1, 1),
    ("1x1 14x14 1024-256", 14, 1024, 256, 1, 1),
    ("depthwise 3x3 56x56 128", 56, 128, 128, 3, 128),
];

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

/// Smallest CPU time of three calls, in seconds.
fn best(mut call: impl FnMut()) -> f64 {
    call();
    let once = |_| {
        let start = cpu_seconds();
        call();
        cpu_seconds() - start
    };
    (0..3).map(once).fold(f64::INFINITY, f64::min)
}

fn floats(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 37 % 101) as f32 / 101.0 - 0.5).collect()
}

/// GFLOP/s of dX and of dW; preparing the kernel is part of dX.
fn measure(g: &ConvGeometry) -> [f64; 2] {
    let (x, dy, kernel) = (floats(BATCH * g.input_len()), floats(BATCH * g.output_len()), floats(g.kernel_len()));
    let (mut dx, mut dw) = (vec![0.0f32; x.len()], vec![0.0f32; kernel.len()]);
    let of_input = best(|| {
        let gradient = InputGradient::new(&kernel, g);
        let images = dx.chunks_exact_mut(g.input_len()).zip(dy.chunks_exact(g.output_len()));
        images.for_each(|(dx, dy)| gradient.run(dy, dx));
        black_box(&mut dx);
    });
    let of_kernel = best(|| {
        dw.fill(0.0);
        let images = x.chunks_exact(g.input_len()).zip(dy.chunks_exact(g.output_len()));
        if g.groups == g.in_c {
            depthwise_weights(g, images, &mut dw)
        } else {
            conv_weights(g, 0..g.in_c, images, &mut dw)
        }
        black_box(&mut dw);
    });
    [of_input, of_kernel].map(|seconds| 2e-9 * (BATCH * g.macs()) as f64 / seconds)
}

fn json() -> String {
    let entry = |(name, size, cin, cout, kernel, groups): (&str, usize, usize, usize, usize, usize)| {
        let [dx, dw] = measure(&ConvGeometry {
            in_h: size,
            in_w: size,
            out_h: size,
            out_w: size,
            kernel: [kernel, kernel],
            pad_before: [kernel / 2, kernel / 2],
            groups,
            ..ConvGeometry::dense(1, cin, cout)
        });
        format!(r#"{{"layer":"{name}","dX":{dx:.3},"dW":{dw:.3}}}"#)
    };
    format!("[{}]", LAYERS.map(entry).join(","))
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        line?;
        writeln!(out, "{}", json())?;
        out.flush()?;
    }
    Ok(())
}
