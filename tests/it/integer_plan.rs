//! The integer engine's memory: what a sample leaves in it changes nothing, whatever of it is kept.

use shiftwise_integer::engine::Engine;
use shiftwise_integer::graph::{IntGraph, Kind, TensorIx};
use shiftwise_tensor::values::Values;
use shiftwise_tests::graphs::{Limits, random_graph, random_inputs};
use shiftwise_tests::reference::evaluate;

/// The inputs' bytes as values.
fn values(graph: &IntGraph, inputs: &[Vec<u8>]) -> Vec<Values> {
    let value = |(ix, bytes): (&TensorIx, &Vec<u8>)| match graph.tensors[ix.0].kind {
        Kind::Fixed(_) => Values::Int8(bytes.iter().map(|b| *b as i8).collect()),
        Kind::Scaled(_) => unreachable!("random graphs have power-of-two steps"),
        Kind::Float => Values::Float(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
    };
    graph.inputs.iter().zip(inputs).map(value).collect()
}

#[test]
fn tensors_in_shared_memory_are_those_of_the_definition() {
    for seed in 0..300 {
        let graph = random_graph(seed, Limits { extreme: seed % 2 == 0, ..Limits::CPU });
        let engine = Engine::new(&graph);
        // Three samples after each other in the memory of the first.
        for sample in 0..3 {
            let inputs = random_inputs(&graph, 1000 * seed + sample);
            let want = evaluate(&graph, &inputs);
            let keep = |ix: TensorIx| match sample {
                0 => false,
                1 => true,
                _ => ix.0.is_multiple_of(2),
            };
            let got = engine.run(values(&graph, &inputs), keep);
            for (i, (want, got)) in want.iter().zip(&got).enumerate() {
                let ix = TensorIx(i);
                match got {
                    Some(got) => assert!(got.to_bytes() == *want, "seed {seed}: {}", graph.tensors[i].name),
                    None => assert!(!keep(ix) && !graph.outputs.contains(&ix), "seed {seed}: tensor {i} is missing"),
                }
            }
        }
    }
}
