//! Layers of classes that only the user knows, computed by Python.

use pyo3::prelude::*;
use serde_json::{Map, Value};
use shiftwise::Error;
use shiftwise_graph::attributes::{Attribute, Attributes};
use shiftwise_graph::ops::CustomLayers;
use shiftwise_graph::ops::custom::{Custom, CustomLayer};
use shiftwise_tensor::tensor::Tensor;

use crate::error::Raised;
use crate::samples::{arrays, tensor};

/// A Python object that computes the layers of a class: `shape(config, weights, shapes)` is the shape of a sample's result,
/// `eval(config, weights, inputs)` the result of a batch. `config` is JSON, arrays are float32.
#[derive(Debug)]
struct Callable {
    class: String,
    object: Py<PyAny>,
    raised: Raised,
}

fn value(attribute: &Attribute) -> Value {
    match attribute {
        Attribute::Null => Value::Null,
        Attribute::Flag(flag) => (*flag).into(),
        Attribute::Integer(n) => i64::try_from(*n).map_or(Value::Null, Value::from),
        Attribute::Number(n) => (*n).into(),
        Attribute::Text(text) => text.as_str().into(),
        Attribute::List(list) => list.iter().map(value).collect(),
        Attribute::Map(map) => Value::Object(object(map)),
    }
}

fn object(attributes: &Attributes) -> Map<String, Value> {
    attributes.iter().map(|(name, own)| (name.to_owned(), value(own))).collect()
}

impl Callable {
    fn config(layer: &Custom) -> String {
        Value::Object(object(&layer.config)).to_string()
    }
}

impl CustomLayer for Callable {
    fn class(&self) -> &str {
        &self.class
    }

    fn output_shape(&self, layer: &Custom, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let shape = Python::attach(|py| {
            let weights = arrays(py, layer.weights.iter().map(|(_, w)| w.clone()).collect())?;
            let names: Vec<&str> = layer.weights.iter().map(|(name, _)| name.as_str()).collect();
            let weights: Vec<_> = names.into_iter().zip(weights).collect();
            let shapes: Vec<Vec<usize>> = inputs.iter().map(|shape| shape.to_vec()).collect();
            self.object.call_method1(py, "shape", (Self::config(layer), weights, shapes))?.extract(py)
        });
        shape.map_err(|e: PyErr| {
            let text = format!("its Python code raises {e}");
            self.raised.keep(e);
            text
        })
    }

    fn eval(&self, layer: &Custom, inputs: &[&Tensor], weights: &[&Tensor]) -> Tensor {
        let result = Python::attach(|py| {
            let values = arrays(py, weights.iter().map(|w| (*w).clone()).collect())?;
            let names: Vec<&str> = layer.weights.iter().map(|(name, _)| name.as_str()).collect();
            let values: Vec<_> = names.into_iter().zip(values).collect();
            let inputs = arrays(py, inputs.iter().map(|x| (*x).clone()).collect())?;
            tensor(self.object.call_method1(py, "eval", (Self::config(layer), values, inputs))?.bind(py))
        });
        let batch = inputs.first().and_then(|x| x.shape().first()).copied().unwrap_or(1);
        let shapes: Vec<&[usize]> = inputs.iter().map(|x| x.shape().get(1..).unwrap_or_default()).collect();
        result.unwrap_or_else(|e| {
            self.raised.keep(e);
            // The work ends with the exception; until then something of the right shape goes on.
            let shape = self.output_shape(layer, &shapes).unwrap_or_default();
            Tensor::zeros(&[&[batch], shape.as_slice()].concat())
        })
    }
}

/// The layers that a reader knows: formulas are texts, anything else is an object as [`Callable`] has it.
pub(crate) fn layers(given: Vec<(String, Bound<'_, PyAny>)>, raised: &Raised) -> PyResult<CustomLayers> {
    let mut custom = CustomLayers::default();
    for (class, own) in given {
        match own.extract::<String>() {
            Ok(formula) => {
                let bad = |e: String| crate::error::exception(own.py(), &Error::Options(format!("custom layer {e}")));
                custom.add_formula(&format!("{class}={formula}")).map_err(bad)?;
            }
            Err(_) => {
                let object = own.unbind();
                custom.add(std::sync::Arc::new(Callable { class, object, raised: raised.clone() }));
            }
        }
    }
    Ok(custom)
}
