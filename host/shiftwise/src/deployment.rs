//! What a trained network is at inference, side by side with the trained one.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;
use shiftwise_integer::engine::Engine;
use shiftwise_integer::lower;
use shiftwise_quant::eval::run_vendor;
use shiftwise_quant::qat::{Deployed, Qat};
use shiftwise_tensor::tensor::Tensor;

/// What `deploy` reports.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Deployment {
    /// The network's file.
    pub quantized: PathBuf,
    /// The same as in `quantize_info.json`: an object for every quantized tensor.
    pub quantize_info: Value,
    /// Layers at which a position was adjusted, with the rule.
    pub adjusted: Vec<Adjusted>,
    /// How far outputs are from the trained network's, if there is data.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Gap>,
}

/// A position that was adjusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Adjusted {
    /// The layer.
    pub layer: String,
    /// The rule.
    pub rule: String,
}

/// How far an output is from the trained network's.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Gap {
    /// The output's layer.
    pub output: String,
    /// Signal to noise of the deployed network in floats, in decibels; none where they are equal.
    pub deployed_db: Option<f64>,
    /// The same of its exact integers; none where they are equal or it has no integer form.
    pub integers_db: Option<f64>,
}

/// Positions that were adjusted, for reports.
pub fn adjusted(deployed: &Deployed) -> Vec<Adjusted> {
    let row = |change: &shiftwise_quant::passes::adjust_pos::Change| Adjusted {
        layer: change.layer.clone(),
        rule: change.rule.to_owned(),
    };
    deployed.changes.iter().map(row).collect()
}

/// Compares outputs of the trained network, the deployed one and its exact integers on some samples.
///
/// Errors: those of data and networks.
pub fn gaps(qat: &Qat, deployed: &Deployed, samples: &dyn Samples, count: usize) -> Result<Vec<Gap>, Error> {
    let batch = samples.batch(0, count.clamp(1, samples.len().max(1)))?;
    let trained = run_vendor(&qat.folded(), batch.clone())?;
    let own = run_vendor(&deployed.quantized, batch.clone())?;
    let integers = match lower::lower(&deployed.quantized) {
        Ok(graph) => Some(Engine::new(&graph).run_batch_seeing(&batch, |_| false, |_| {})?),
        Err(_) => None,
    };
    let graph = &deployed.quantized.graph;
    let db = |a: &Tensor, b: &Tensor| super::training::sqnr(a, b);
    let row = |(k, id): (usize, &shiftwise_graph::graph::NodeId)| {
        let of = |all: &[Tensor]| db(trained.get(k)?, all.get(k)?);
        Gap {
            output: graph.node(*id).name.clone(),
            deployed_db: of(&own),
            integers_db: integers.as_deref().and_then(of),
        }
    };
    Ok(graph.outputs.iter().enumerate().map(row).collect())
}
