//! Networks that all engines must compute alike, or refuse.

use shiftwise_formats::graph_text;
use shiftwise_graph::ops::Op;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::strategy::Strategy;

use crate::agreement::{self, Verdict, refusal};
use crate::graphs::random_inputs;
use crate::networks::random_samples;
use crate::odd::{Choices, odd_graph, odd_network};

/// An odd graph in integer form.
pub(super) fn integer(bytes: &[u8]) {
    if let Err(why) = compare_graph(bytes) {
        panic!("{why}");
    }
}

/// An odd network in floats.
pub(super) fn float(bytes: &[u8]) {
    if let Err(why) = compare_network(bytes) {
        panic!("{why}");
    }
}

/// The odd graph of these decisions on the oracle, the integer engine and every program.
pub fn compare_graph(bytes: &[u8]) -> Result<Verdict, String> {
    let graph = odd_graph(&mut Choices::new(bytes));
    agreement::integer_graph(&graph, &random_inputs(&graph, 7)).map_err(|why| format!("{why}\n{graph:?}"))
}

/// The odd network of these decisions, quantized, on every engine and program.
pub fn compare_network(bytes: &[u8]) -> Result<Verdict, String> {
    let graph = odd_network(&mut Choices::new(bytes));
    let told = |why: String| format!("{why}\n{}", graph_text(&graph));
    graph.verify().map_err(|e| told(e.to_string()))?;
    let strategy = Strategy::built_in("pof2s").map_err(|e| e.to_string())?;
    let q = match agreement::quantized(&graph, 1, 2, strategy) {
        Ok(q) => q,
        Err(e) => return refusal(e).map(Verdict::Refused).map_err(|e| told(e.to_string())),
    };
    let samples = random_samples(&graph, 2, 1);
    if averages_are_alike(&q) {
        agreement::float_and_integer(&q, &samples).map_err(told)?;
    }
    agreement::engine_and_programs(&q, &samples).map_err(told)
}

/// Whether every average is over unpadded squares: where a DPU and TensorFlow average the same cells.
fn averages_are_alike(q: &QuantGraph) -> bool {
    q.graph.nodes.iter().all(|n| match &n.op {
        Op::AveragePooling2D(average) => {
            let pool = &average.pool;
            pool.size[0] == pool.size[1] && pool.padding == shiftwise_graph::ops::Padding::Valid
        }
        Op::GlobalAveragePooling2D(_) => {
            let shape = &q.graph.node(n.inputs[0]).shape;
            shape.first() == shape.get(1)
        }
        _ => true,
    })
}
