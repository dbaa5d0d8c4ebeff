//! Real models with real data, quantized: what boards are measured with.

use std::path::{Path, PathBuf};

use shiftwise::dataset::{DataSpec, Inputs};
use shiftwise_formats::{LoadOptions, load};
use shiftwise_graph::eval::Samples;
use shiftwise_integer::graph::IntGraph;
use shiftwise_integer::lower::lower;
use shiftwise_quant::pipeline::{PtqOptions, ptq};
use shiftwise_quant::strategy::Strategy;
use shiftwise_tensor::tensor::Tensor;

use crate::shared::shared;

/// A model with its data.
#[derive(Clone, Debug)]
pub struct RealModel {
    /// Name of its files.
    pub name: &'static str,
    /// The folder that they are in.
    folder: PathBuf,
    /// What its data is multiplied by.
    scale: f32,
}

/// The models in the repository, and those of the reference data where that is present: LeNet-5, ResNet-8 and the
/// MLPerf Tiny networks among them.
pub fn all() -> Vec<RealModel> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let byte = 1.0 / 255.0;
    let own = ["digits_lenet", "digits_resnet"].map(|name| RealModel { name, folder: own.clone(), scale: 1.0 });
    let reference = shared().into_iter().flat_map(|folder| {
        [
            ("lenet5_mnist", byte),
            ("resnet8_fashion", byte),
            ("mlperf_resnet8_cifar10", 1.0),
            ("mlperf_vww96_mobilenetv1", byte),
            ("mlperf_streaming_wakeword", 1.0),
            ("dscnn_fsdd", 1.0),
        ]
        .map(|(name, scale)| RealModel { name, folder: folder.join("models"), scale })
    });
    own.into_iter().chain(reference).collect()
}

impl RealModel {
    /// The network's integers, calibrated with its calibration data, and the first `samples` of its
    /// evaluation data, one tensor per input.
    ///
    /// Errors: what reading and quantizing give.
    pub fn quantized(&self, samples: usize) -> Result<(IntGraph, Vec<Tensor>), shiftwise_graph::error::Error> {
        self.quantized_by("pof2s", samples)
    }

    /// [`Self::quantized`] by another strategy.
    pub fn quantized_by(
        &self,
        strategy: &str,
        samples: usize,
    ) -> Result<(IntGraph, Vec<Tensor>), shiftwise_graph::error::Error> {
        let path = |ending: &str| self.folder.join(format!("{}.{ending}", self.name));
        let graph = load(&path("h5"), &LoadOptions::default())?;
        let inputs: Vec<(String, Vec<usize>)> =
            graph.inputs.iter().map(|id| (graph.node(*id).name.clone(), graph.node(*id).shape.clone())).collect();
        let inputs: Vec<(&str, &[usize])> = inputs.iter().map(|(name, shape)| (name.as_str(), &shape[..])).collect();
        // The models of the repository share one file.
        let data = if self.name.starts_with("digits") { self.folder.join("digits.npz") } else { path("npz") };
        let open = |key: &str| {
            let mut spec = DataSpec::parse(&format!("{}:{key}", data.display()));
            spec.scale = Some(self.scale);
            Inputs::open(&[(None, spec)], &inputs)
        };
        let options = PtqOptions { steps: Some(2), ..PtqOptions::new(Strategy::built_in(strategy)?) };
        let quantized = ptq(graph, &open("x_cal")?, &options, |_, _| {})?.quantized;
        Ok((lower(&quantized)?, open("x_eval")?.batch(0, samples)?))
    }
}
