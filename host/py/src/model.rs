//! Networks of every kind: float, quantized, in training.

use std::path::{Path, PathBuf};

use numpy::PyArrayDyn;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use shiftwise::export::{self, Format};
use shiftwise::predict::{Arithmetic, Subject};
use shiftwise::{Error, evaluate};
use shiftwise_formats::onnx::{Form, WriteOptions, write_float, write_quantized};
use shiftwise_formats::{self as format, Files, LoadOptions, Model as Still, UserLayer, user_layers};
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::CustomLayers;
use shiftwise_quant::qat::Qat;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_tensor::tensor::Tensor;

use crate::custom;
use crate::error::{Raised, exception, json, work};
use crate::samples::{Source, arrays, tensors};

/// Shapes of inputs, batch first, by name; without a name for a network with one input.
type Shapes = Vec<(Option<String>, Vec<usize>)>;

/// A layer: its name, class, shape without the batch, number of weights, layers that it reads.
type LayerRow = (String, String, Vec<usize>, usize, Vec<String>);

/// A network.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one for each Python object")]
pub(crate) enum Kind {
    /// Float or quantized.
    Still(Still),
    /// With the variables that training changes.
    Training(Box<Qat>),
}

/// A network, which never changes; what would change it makes another.
#[pyclass(frozen, module = "shiftwise._native")]
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) kind: Kind,
    /// The layers in the words of the user's file.
    pub(crate) layers: Vec<UserLayer>,
    pub(crate) custom: CustomLayers,
    /// What callbacks of this network, or of a dataset that it runs over, have raised.
    pub(crate) raised: Raised,
}

impl Model {
    /// A network made of this one.
    pub(crate) fn with(&self, kind: Kind) -> Self {
        Self { kind, layers: Vec::new(), custom: self.custom.clone(), raised: self.raised.clone() }
    }

    pub(crate) fn graph(&self) -> &Graph {
        match &self.kind {
            Kind::Still(model) => evaluate::graph(model),
            Kind::Training(qat) => &qat.quantized.graph,
        }
    }

    /// The float or quantized network; one in training stands for what it is at inference.
    pub(crate) fn still(&self) -> std::borrow::Cow<'_, Still> {
        match &self.kind {
            Kind::Still(model) => std::borrow::Cow::Borrowed(model),
            Kind::Training(qat) => std::borrow::Cow::Owned(Still::Quantized(qat.folded())),
        }
    }

    /// The float network.
    pub(crate) fn float(&self) -> Result<&Graph, Error> {
        match &self.kind {
            Kind::Still(Still::Float(graph)) => Ok(graph),
            Kind::Still(Still::Quantized(_)) | Kind::Training(_) => {
                Err(Error::wrong_kind(Path::new("the model"), "is quantized already, a float one is expected"))
            }
        }
    }

    /// The quantized network.
    pub(crate) fn quantized(&self) -> Result<std::borrow::Cow<'_, QuantGraph>, Error> {
        match &self.kind {
            Kind::Still(Still::Quantized(own)) => Ok(std::borrow::Cow::Borrowed(own)),
            Kind::Training(qat) => Ok(std::borrow::Cow::Owned(qat.folded())),
            Kind::Still(Still::Float(_)) => {
                Err(Error::wrong_kind(Path::new("the model"), "is a float model, a quantized one is expected"))
            }
        }
    }

    pub(crate) fn load_options(&self) -> LoadOptions {
        LoadOptions { custom: self.custom.clone(), ..LoadOptions::default() }
    }

    fn read(
        files: Files,
        input_shapes: Shapes,
        custom: CustomLayers,
        raised: Raised,
        training: bool,
    ) -> Result<Self, Error> {
        let options = LoadOptions { input_shapes, custom: custom.clone(), ..LoadOptions::default() };
        let made = |kind, layers| Self { kind, layers, custom, raised };
        if training {
            let qat = format::load_training_files(files, &options)?;
            return Ok(made(Kind::Training(Box::new(qat)), Vec::new()));
        }
        let again = files.clone();
        let model = format::open_files(files, &options)?;
        let layers = user_layers(evaluate::graph(&model), Some(&again));
        Ok(made(Kind::Still(model), layers))
    }

    fn node(&self, layer: &str) -> Result<NodeId, Error> {
        let graph = self.graph();
        let found = graph.ids().find(|id| graph.node(*id).name == layer);
        found.ok_or_else(|| Error::Options(format!("the model has no layer `{layer}`")))
    }

    fn graph_with(&self, layer: &str, weights: Vec<Tensor>) -> Result<Graph, Error> {
        let (id, mut graph) = (self.node(layer)?, self.graph().clone());
        let node = graph.node_mut(id);
        let set = node.op.set_weights(weights);
        set.map_err(|why| Error::layer(layer, node.op.layer().class(), why))?;
        Ok(graph)
    }
}

#[pymethods]
impl Model {
    /// Reads a file or folder of any known format.
    #[staticmethod]
    #[pyo3(signature = (path, input_shapes = Vec::new(), custom = Vec::new(), training = false))]
    fn open(
        py: Python<'_>,
        path: PathBuf,
        input_shapes: Shapes,
        custom: Vec<(String, Bound<'_, PyAny>)>,
        training: bool,
    ) -> PyResult<Self> {
        let raised = Raised::default();
        let custom = custom::layers(custom, &raised)?;
        work(py, &raised.clone(), || Self::read(Files::open(&path)?, input_shapes, custom, raised, training))
    }

    /// Reads a file that is in memory; `name` appears in messages.
    #[staticmethod]
    #[pyo3(signature = (name, data, input_shapes = Vec::new(), custom = Vec::new(), training = false))]
    fn from_bytes(
        py: Python<'_>,
        name: PathBuf,
        data: PyBackedBytes,
        input_shapes: Shapes,
        custom: Vec<(String, Bound<'_, PyAny>)>,
        training: bool,
    ) -> PyResult<Self> {
        let raised = Raised::default();
        let custom = custom::layers(custom, &raised)?;
        work(py, &raised.clone(), || {
            Self::read(Files::of_bytes(&name, data.to_vec()), input_shapes, custom, raised, training)
        })
    }

    /// `float`, `quantized` or `training`.
    #[getter]
    fn kind(&self) -> &'static str {
        match &self.kind {
            Kind::Still(Still::Float(_)) => "float",
            Kind::Still(Still::Quantized(_)) => "quantized",
            Kind::Training(_) => "training",
        }
    }

    /// The network's name.
    #[getter]
    fn name(&self) -> String {
        self.graph().name.clone()
    }

    /// What its reader warns of.
    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.graph().warnings.clone()
    }

    /// Name and shape of every input, without the batch.
    #[getter]
    fn inputs(&self) -> Vec<(String, Vec<usize>)> {
        let graph = self.graph();
        graph.inputs.iter().map(|id| (graph.node(*id).name.clone(), graph.node(*id).shape.clone())).collect()
    }

    /// Name and shape of every output, without the batch.
    #[getter]
    fn outputs(&self) -> Vec<(String, Vec<usize>)> {
        let still = self.still();
        Subject::Model(&still).outputs().into_iter().map(|own| (own.name, own.shape)).collect()
    }

    /// Every layer: its name, class, shape without the batch, number of weights, layers that it reads.
    fn layers(&self) -> Vec<LayerRow> {
        let graph = self.graph();
        let row = |id: NodeId| {
            let node = graph.node(id);
            let layer = node.op.layer();
            let count = layer.weights().iter().map(|(_, w)| w.data().len()).sum();
            let inputs = node.inputs.iter().map(|id| graph.node(*id).name.clone()).collect();
            (node.name.clone(), layer.class().to_owned(), node.shape.clone(), count, inputs)
        };
        graph.ids().map(row).collect()
    }

    /// Names and values of a layer's weights.
    fn weights<'py>(&self, py: Python<'py>, layer: &str) -> PyResult<Vec<(String, Bound<'py, PyArrayDyn<f32>>)>> {
        let id = self.node(layer).map_err(|e| exception(py, &e))?;
        let all = self.graph().node(id).op.layer().weights();
        let (names, values): (Vec<_>, Vec<_>) = all.into_iter().map(|(n, w)| (n.to_owned(), w.clone())).unzip();
        Ok(names.into_iter().zip(arrays(py, values)?).collect())
    }

    /// The network with other weights in a layer.
    fn with_weights(&self, py: Python<'_>, layer: &str, weights: &Bound<'_, PyAny>) -> PyResult<Self> {
        let weights = tensors(weights)?;
        let kind = work(py, &self.raised, || {
            let graph = self.graph_with(layer, weights)?;
            Ok(match &self.kind {
                Kind::Still(Still::Float(_)) => Kind::Still(Still::Float(graph)),
                Kind::Still(Still::Quantized(own)) => {
                    Kind::Still(Still::Quantized(QuantGraph { graph, ..own.clone() }))
                }
                Kind::Training(qat) => {
                    let quantized = QuantGraph { graph, ..qat.quantized.clone() };
                    Kind::Training(Box::new(Qat { quantized, norms: qat.norms.clone() }))
                }
            })
        })?;
        Ok(self.with(kind))
    }

    /// What is quantized, tensor by tensor, as JSON.
    fn quantize_info(&self, py: Python<'_>) -> PyResult<String> {
        work(py, &self.raised, || json(&format::quantize_info(self.quantized()?.as_ref())))
    }

    /// The bytes of the Keras file that the vendor's tool would save.
    #[pyo3(signature = (name = PathBuf::from("model.h5")))]
    fn h5<'py>(&self, py: Python<'py>, name: PathBuf) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = work(py, &self.raised, || match &self.kind {
            Kind::Still(Still::Quantized(own)) => format::quantized_bytes(own, &name),
            Kind::Still(Still::Float(graph)) => format::quantized_bytes(&whole(graph), &name),
            Kind::Training(qat) => format::training_bytes(qat, &name),
        })?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// The bytes of an ONNX file; `qdq` is for QuantizeLinear and DequantizeLinear in place of the vendor's operators.
    #[pyo3(signature = (opset = 13, qdq = false))]
    fn onnx<'py>(&self, py: Python<'py>, opset: i64, qdq: bool) -> PyResult<Bound<'py, PyBytes>> {
        let form = if qdq { Form::Qdq } else { Form::Vendor };
        let bytes = work(py, &self.raised, || {
            if !WriteOptions::OPSETS.contains(&opset) {
                let (least, most) = (WriteOptions::OPSETS.start(), WriteOptions::OPSETS.end());
                return Err(Error::Options(format!("`onnx_opset_version` is {opset}; {least} to {most} are written")));
            }
            match self.still().as_ref() {
                Still::Quantized(own) => write_quantized(own, &WriteOptions { form, opset }),
                Still::Float(_) if qdq => Err(Error::Options("the form qdq is for quantized models".into())),
                Still::Float(graph) => write_float(graph, &WriteOptions { form, opset }),
            }
        })?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// Writes the network in a format: h5, onnx, tf (a folder), pb or c. Returns a report as JSON.
    #[pyo3(signature = (path, format, opset = 13, qdq = false))]
    fn export(&self, py: Python<'_>, path: PathBuf, format: &str, opset: i64, qdq: bool) -> PyResult<String> {
        work(py, &self.raised, || {
            let known = || Format::ALL.map(Format::name).join(", ");
            let own = Format::from_name(format)
                .ok_or_else(|| Error::Options(format!("the format is {format}; one of {} is expected", known())))?;
            let form = if qdq { Form::Qdq } else { Form::Vendor };
            let options = WriteOptions { form, opset };
            let made = export::files(&self.still(), own, &options, &path)?;
            json(&export::export(&made, Path::new(&self.name()), (own, &options), &path)?)
        })
    }

    /// The outputs of a dataset, batch by batch: `each` is called with a list of arrays for every batch.
    #[pyo3(signature = (data, batch_size, each, numerics = "vendor"))]
    fn predict(
        &self,
        py: Python<'_>,
        data: &Bound<'_, PyAny>,
        batch_size: usize,
        each: Py<PyAny>,
        numerics: &str,
    ) -> PyResult<()> {
        let arithmetic = match numerics {
            "vendor" => Arithmetic::Vendor,
            "dpu" => Arithmetic::Dpu,
            "float" => Arithmetic::Float,
            other => {
                return Err(exception(
                    py,
                    &Error::Options(format!("`numerics` is {other}; dpu, vendor or float is expected")),
                ));
            }
        };
        let samples = Source::new(data, self.graph(), &self.raised)?;
        work(py, &self.raised, || {
            let still = self.still();
            if matches!((arithmetic, still.as_ref()), (Arithmetic::Dpu, Still::Float(_))) {
                return Err(Error::Options("a float model has no integers; quantize it first".into()));
            }
            let hand = |out: Vec<Tensor>| {
                let call = Python::attach(|py| each.call1(py, (arrays(py, out)?,)).map(drop));
                call.map_err(|e| self.raised.keep(e))
            };
            Subject::Model(&still).run(arithmetic, &samples, batch_size.max(1), hand, &mut |_| ()).map(drop)
        })
    }

    /// The network whose quantizers train, of a quantized one.
    fn for_training(&self, py: Python<'_>) -> PyResult<Self> {
        let kind = work(py, &self.raised, || match &self.kind {
            Kind::Training(qat) => Ok(Kind::Training(qat.clone())),
            Kind::Still(Still::Quantized(own)) => {
                Ok(Kind::Training(Box::new(Qat { quantized: own.clone(), norms: Default::default() })))
            }
            Kind::Still(Still::Float(graph)) => {
                Ok(Kind::Training(Box::new(Qat { quantized: whole(graph), norms: Default::default() })))
            }
        })?;
        Ok(self.with(kind))
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err("a model is not pickled; `save` writes it to a file"))
    }
}

/// A network without quantizers, in the form of quantized ones.
pub(crate) fn whole(graph: &Graph) -> QuantGraph {
    QuantGraph { graph: graph.clone(), layers: Default::default(), metadata: Default::default(), trained: false }
}
