//! Maps that stay in the banks between layers.

use shiftwise_compile::{self as compile, DpuOptions};
use shiftwise_core::fix::FixPos;
use shiftwise_core::shape::Window;
use shiftwise_integer::graph::{IntAct, IntOpKind, Kind, TensorIx};
use shiftwise_tests::graphs::Builder;

use crate::compile::check_dpu;

fn same(k: u16) -> Window {
    let pad = [(k - 1) / 2; 2];
    Window { kernel: [k, k], pad_before: pad, pad_after: pad, ..Window::POINT }
}

fn max_pool(b: &mut Builder, x: TensorIx, window: Window) -> TensorIx {
    let [h, w, c] = b.shape(x)[..] else { panic!("an image") };
    let out = [window.outputs(0, h as u32) as usize, window.outputs(1, w as u32) as usize, c];
    let kind = b.graph.tensors[x.0].kind;
    b.op(IntOpKind::MaxPool { window, shift: 0, act: IntAct::None }, &[x], &out, kind)
}

fn add(b: &mut Builder, x: TensorIx, y: TensorIx) -> TensorIx {
    let (shape, kind) = (b.shape(x), b.graph.tensors[x.0].kind);
    b.op(IntOpKind::Add { shift_read: vec![0, 1], shift_write: 1, act: IntAct::Relu }, &[x, y], &shape, kind)
}

/// Inverted residuals, a stride of two on a convolution, a depthwise convolution and pools, a tensor that is read again
/// much later, one that is an output too, and an average over the whole map.
fn network(seed: u64, side: [usize; 2], channels: usize) -> Builder {
    let mut b = Builder::new("resident", seed);
    let input = b.input(&[side[0], side[1], channels]);
    let early = b.conv(input, same(3), channels, 1, IntAct::Relu);
    let y = b.conv(early, Window::POINT, 2 * channels, 1, IntAct::Relu6);
    let y = b.depthwise(y, same(3), IntAct::Relu6);
    let y = b.conv(y, Window::POINT, channels, 1, IntAct::None);
    let x = add(&mut b, early, y);
    let seen = b.conv(x, same(5), channels, 1, IntAct::Relu);
    let pooled = max_pool(&mut b, seen, same(3));
    let x = add(&mut b, pooled, early);
    let x = b.conv(x, same(3), channels, 1, IntAct::None);
    let down = b.conv(x, Window { stride: [2, 2], ..same(3) }, channels + 9, 1, IntAct::Relu);
    let x = b.conv(down, same(3), channels + 9, 1, IntAct::None);
    let x = add(&mut b, x, down);
    let x = b.depthwise(x, Window { stride: [2, 2], ..same(3) }, IntAct::Relu);
    let x = max_pool(&mut b, x, Window { kernel: [2, 2], stride: [2, 2], ..Window::POINT });
    let [h, w, c] = b.shape(x)[..] else { panic!("an image") };
    let window = Window { kernel: [h as u16, w as u16], ..Window::POINT };
    let average = IntOpKind::AveragePool { window, m: 21, shift: 10, act: IntAct::None };
    let x = b.op(average, &[x], &[1, 1, c], Kind::Fixed(FixPos(4)));
    let scores = b.dense(x, 10, IntAct::None);
    b.graph.outputs = vec![seen, scores];
    b
}

#[test]
fn maps_that_stay_are_what_would_be_loaded() {
    let mut kept = 0;
    for (name, seed) in [("B512", 0), ("B1152", 1), ("B4096", 2), ("B1152", 3)] {
        let target = shiftwise_targets::find(name).unwrap();
        for (side, channels) in [([16, 24], 20), ([19, 13], 33), ([28, 28], 64), ([33, 9], 7), ([8, 8], 160)] {
            let b = network(seed, side, channels);
            check_dpu(&format!("{side:?} × {channels}, seed {seed}"), &b.graph, &target, &DpuOptions::default());
            let program =
                compile::dpu(&b.graph, &target, &DpuOptions { observe: false, ..DpuOptions::default() }).unwrap();
            kept += program.layers.iter().filter(|l| l.kept_bytes > 0).count();
        }
    }
    assert!(kept > 150, "{kept}");
}

#[test]
fn small_maps_cross_the_bus_once() {
    let target = shiftwise_targets::find("B4096").unwrap();
    let mut b = Builder::new("tail", 4);
    let input = b.input(&[14, 14, 96]);
    let mut x = input;
    for _ in 0..5 {
        x = b.conv(x, same(3), 96, 1, IntAct::Relu);
    }
    b.graph.outputs = vec![x];
    let program = compile::dpu(&b.graph, &target, &DpuOptions { observe: false, ..DpuOptions::default() }).unwrap();
    let (map, weights) = (14 * 14 * 96, 5 * (9 * 96 * 96 + 96));
    assert_eq!(program.layers.iter().map(|l| l.load_bytes).sum::<u64>(), map + weights);
    assert_eq!(program.layers.iter().map(|l| l.save_bytes).sum::<u64>(), map);
    // What is in no memory takes none: only the largest place is there, for whoever looks at it.
    assert!(u64::from(program.memory.workspace_bytes) <= map);
    assert_eq!(program.memory.workspace_lower_bound, 0);
}

/// A permutation moves values as it saves them: its tiles in the banks are not the map that its readers want, even if that
/// has the same dimensions.
#[test]
fn a_permuted_square_is_read_from_memory() {
    for name in ["B512", "B1152", "B4096"] {
        let target = shiftwise_targets::find(name).unwrap();
        let mut b = Builder::new("square", 7);
        let input = b.input(&[8, 8, 2]);
        let kind = b.graph.tensors[input.0].kind;
        let turned = b.op(IntOpKind::Permute { dims: vec![1, 0, 2] }, &[input], &[8, 8, 2], kind);
        let out = b.depthwise(turned, Window::POINT, IntAct::None);
        b.graph.outputs = vec![out];
        check_dpu("a permuted square", &b.graph, &target, &DpuOptions::default());
    }
}

#[test]
fn a_view_of_an_earlier_map_is_seen_at_the_jobs_end() {
    for name in ["B512", "B4096"] {
        let target = shiftwise_targets::find(name).unwrap();
        let mut b = Builder::new("view", 8);
        let input = b.input(&[16, 16, 16]);
        // What the CPU writes before the job is read in the job, also under another name, long before its end.
        let sparse = Window { stride: [2, 2], dilation: [2, 2], ..same(3) };
        let first = b.conv(input, sparse, 16, 1, IntAct::None);
        let [h, w, c] = b.shape(first)[..] else { panic!("an image") };
        let kind = b.graph.tensors[first.0].kind;
        let mut x = b.conv(first, same(3), 16, 1, IntAct::Relu);
        let flat = b.op(IntOpKind::View, &[first], &[h * w * c], kind);
        let scores = b.dense(flat, 10, IntAct::None);
        for _ in 0..4 {
            x = b.conv(x, same(3), 16, 1, IntAct::Relu);
        }
        b.graph.outputs = vec![x, scores];
        let on_cpu = compile::placement(&b.graph, &target).unwrap().iter().filter(|r| r.is_some()).count();
        assert_eq!(on_cpu, 1);
        check_dpu("a view", &b.graph, &target, &DpuOptions::default());
    }
}
