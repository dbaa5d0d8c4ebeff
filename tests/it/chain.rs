//! Ops that are done on each other's tiles compute what they compute alone.

use shiftwise_compile::{self as compile, DpuOptions};
use shiftwise_core::model::Deployable;
use shiftwise_core::shape::Window;
use shiftwise_integer::graph::{IntAct, IntOpKind, TensorIx};
use shiftwise_sim::{Costs, SimDpu};
use shiftwise_tests::graphs::{Builder, random_inputs};
use shiftwise_tests::reference::evaluate;

use crate::compile::check_dpu;

fn add(b: &mut Builder, x: TensorIx, y: TensorIx, act: IntAct) -> TensorIx {
    let (shape, kind) = (b.shape(x), b.graph.tensors[x.0].kind);
    b.op(IntOpKind::Add { shift_read: vec![0, 2], shift_write: 2, act }, &[x, y], &shape, kind)
}

/// A residual block (depthwise or dense 3×3, 1×1, sum), a pointwise pair, and a sum whose operand somebody else reads.
fn network(seed: u64, side: [usize; 2], channels: usize, depthwise: bool) -> Builder {
    let same = |k: u16| {
        let pad = [(k - 1) / 2; 2];
        Window { kernel: [k, k], pad_before: pad, pad_after: pad, ..Window::POINT }
    };
    let mut b = Builder::new("chains", seed);
    let input = b.input(&[side[0], side[1], channels]);
    let x = b.conv(input, same(3), channels, 1, IntAct::Relu);
    let y = if depthwise { b.depthwise(x, same(3), IntAct::Relu6) } else { b.conv(x, same(3), 24, 1, IntAct::Relu) };
    let y = b.conv(y, Window::POINT, channels, 1, IntAct::None);
    let x = add(&mut b, y, x, IntAct::Relu);
    // Two branches of one size: the pointwise convolution does not read what is computed before it.
    let left = b.conv(x, same(3), channels, 1, IntAct::Relu);
    let right = b.conv(x, Window::POINT, channels, 1, IntAct::None);
    let x = add(&mut b, left, right, IntAct::None);
    let down = Window { stride: [2, 2], ..same(3) };
    let y = b.depthwise(x, down, IntAct::Relu);
    let y = b.conv(y, Window::POINT, channels + 17, 1, IntAct::Relu);
    let z = b.conv(y, same(3), channels + 17, 1, IntAct::None);
    let sum = add(&mut b, y, z, IntAct::Relu6);
    let twice = b.conv(z, Window::POINT, 5, 1, IntAct::None);
    b.graph.outputs = vec![sum, twice];
    b
}

#[test]
fn chained_layers_compute_the_integer_form() {
    let mut chains = 0;
    for (name, seed) in [("B512", 0), ("B1152", 1), ("B4096", 2), ("B4096", 3), ("B512", 4)] {
        let target = shiftwise_targets::find(name).unwrap();
        for (side, channels) in [([17, 23], 20), ([40, 9], 33), ([7, 7], 130), ([56, 60], 16)] {
            let b = network(seed, side, channels, seed % 2 == 0);
            let what = format!("{side:?} × {channels}, seed {seed}");
            check_dpu(&what, &b.graph, &target, &DpuOptions::default());
            // Without places for what stays on chip only the outputs can be compared.
            let options = DpuOptions { observe: false, ..DpuOptions::default() };
            let program = compile::dpu(&b.graph, &target, &options).unwrap();
            chains += program.layers.iter().filter(|l| l.op.contains('+')).count();
            let inputs = random_inputs(&b.graph, 5);
            let values = evaluate(&b.graph, &inputs);
            let want: Vec<u8> = b.graph.outputs.iter().flat_map(|t| values[t.0].clone()).collect();
            let bytes = program.to_bytes(&[]).unwrap();
            let model = Deployable::parse(&bytes).unwrap();
            for costs in [Costs::default(), Costs::shuffled(1), Costs::shuffled(2)] {
                let mut sim = SimDpu::new(target.clone(), 300, costs).unwrap();
                let region = shiftwise_sim::frame(&model, &mut sim, &inputs[0], &mut ()).unwrap();
                let got: Vec<u8> = model
                    .outputs()
                    .flat_map(|(_, t)| region[t.place.offset as usize..][..t.bytes() as usize].to_vec())
                    .collect();
                assert_eq!(got, want, "{what} on {name}");
                let report = sim.report(&model);
                let cycles: u64 = report.layers.iter().map(|l| l.cycles).sum();
                assert_eq!(cycles, report.cycles);
                let bytes: u64 = report.layers.iter().map(|l| l.bytes_in).sum();
                assert_eq!(bytes, report.bytes_in, "chained layers are counted once");
            }
        }
    }
    assert!(chains >= 50, "{chains}");
}

#[test]
fn branches_over_maps_of_one_shape_are_no_chain() {
    // Behind the 3×3 stands a pointwise convolution over the map that the 3×3 read, as in ResNet's projections.
    for (name, side, channels) in [("B4096", [16, 16], 64), ("B4096", [9, 9], 192), ("B512", [16, 16], 32)] {
        let same = Window { kernel: [3, 3], pad_before: [1, 1], pad_after: [1, 1], ..Window::POINT };
        let mut b = Builder::new("branches", 7);
        let input = b.input(&[side[0], side[1], channels]);
        let x = b.conv(input, same, channels, 1, IntAct::Relu);
        let y = b.conv(x, same, channels, 1, IntAct::Relu);
        let z = b.conv(x, Window::POINT, 4 * channels, 1, IntAct::None);
        let y = b.conv(y, Window::POINT, 4 * channels, 1, IntAct::None);
        b.graph.outputs = vec![add(&mut b, z, y, IntAct::Relu)];
        let target = shiftwise_targets::find(name).unwrap();
        check_dpu(&format!("branches on {name}"), &b.graph, &target, &DpuOptions::default());
    }
}

#[test]
fn a_chain_moves_less_than_its_layers_alone() {
    let target = shiftwise_targets::find("B4096").unwrap();
    let b = network(0, [56, 56], 64, true);
    let moved = |observe| {
        let options = DpuOptions { observe, ..DpuOptions::default() };
        let program = compile::dpu(&b.graph, &target, &options).unwrap();
        program.layers.iter().map(|l| l.load_bytes + l.save_bytes).sum::<u64>()
    };
    // The depthwise result and the one before the sum are never written.
    let map = 56 * 56 * 64;
    assert!(moved(false) + 2 * map <= moved(true), "{} {}", moved(false), moved(true));
}
