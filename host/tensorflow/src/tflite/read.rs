//! A network from a file.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::constants::Constant;
use crate::network::{Network, Slot};
use crate::tflite::ops::{self, OPS, Operator, Row};
use crate::tflite::schema::{Table, fields as f};
use crate::{check_inputs, has_weights, input_shape, names};
use shiftwise_core::arith::Round;
use shiftwise_files::{Files, LoadOptions};
use shiftwise_graph::budget::Budget;
use shiftwise_graph::error::Error;
use shiftwise_quant::quant_graph::Model;
use shiftwise_quant::regroup::grids::{self, Integers};
use shiftwise_tensor::half::f16_value;
use shiftwise_tensor::tensor::Tensor;

/// Element types, by the schema's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    Float32,
    Float16,
    Float64,
    /// A whole number of so many bytes, with a sign or not.
    Whole(usize, bool),
    /// Two signed numbers in a byte, the first one in the low bits.
    Int4,
}

impl Element {
    fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Float32,
            1 => Self::Float16,
            2 => Self::Whole(4, true),
            3 | 6 => Self::Whole(1, false),
            4 => Self::Whole(8, true),
            7 => Self::Whole(2, true),
            9 => Self::Whole(1, true),
            10 => Self::Float64,
            12 => Self::Whole(8, false),
            15 => Self::Whole(4, false),
            16 => Self::Whole(2, false),
            17 => Self::Int4,
            _ => return None,
        })
    }

    /// Bytes of so many elements.
    fn bytes(self, count: usize) -> Option<usize> {
        match self {
            Self::Float32 => count.checked_mul(4),
            Self::Float16 => count.checked_mul(2),
            Self::Float64 => count.checked_mul(8),
            Self::Whole(size, _) => count.checked_mul(size),
            Self::Int4 => Some(count.div_ceil(2)),
        }
    }

    /// Whole numbers from their bytes.
    fn whole(self, bytes: &[u8], count: usize) -> Vec<i64> {
        let (size, signed) = match self {
            Self::Whole(size, signed) => (size, signed),
            Self::Int4 => {
                let nibbles = bytes.iter().flat_map(|b| [(b << 4).cast_signed() >> 4, b.cast_signed() >> 4]);
                return nibbles.map(i64::from).take(count).collect();
            }
            Self::Float32 | Self::Float16 | Self::Float64 => return Vec::new(),
        };
        let number = |b: &[u8]| {
            let value = b.iter().rev().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
            let unused = 64 - 8 * size as u32;
            if signed { (value << unused).cast_signed() >> unused } else { value.cast_signed() }
        };
        bytes.chunks_exact(size).map(number).collect()
    }

    /// Floats from their bytes; `None` for whole numbers.
    fn floats(self, bytes: &[u8]) -> Option<Vec<f32>> {
        let bits = |b: &[u8]| b.iter().rev().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
        Some(match self {
            Self::Float32 => bytes.chunks_exact(4).map(|b| f32::from_bits(bits(b) as u32)).collect(),
            Self::Float16 => bytes.chunks_exact(2).map(|b| f16_value(bits(b) as u16)).collect(),
            Self::Float64 => bytes.chunks_exact(8).map(|b| f64::from_bits(bits(b)) as f32).collect(),
            Self::Whole(..) | Self::Int4 => return None,
        })
    }
}

/// A file that is read.
struct Reader<'a> {
    model: Table<'a>,
    graph: Table<'a>,
    budget: &'a Budget,
    /// What has been computed, by the tensor's number.
    slots: HashMap<usize, Slot>,
    /// Whether a tensor that is no constant has whole numbers which stand for others.
    quantized: bool,
    /// Whether these numbers are kept, at positions.
    keep: bool,
}

/// Reads a model.
pub fn read(files: Files, options: &LoadOptions, budget: &Budget) -> Result<Model, Error> {
    has_weights(options)?;
    let damaged = |message: String| Error::format(files.path(), message);
    let bytes = files.bytes().unwrap_or_default();
    let model = Table::root(bytes, budget).map_err(damaged)?;
    let graph = model.of(f::MODEL_SUBGRAPHS, 0).map_err(damaged)?;
    let mut reader =
        Reader { model, graph, budget, slots: HashMap::new(), quantized: false, keep: options.keep_quantization };
    let name = graph.text(f::GRAPH_NAME).map_err(damaged)?;
    let mut network = Network::new(if name.is_empty() { "main" } else { &name }, budget);
    let inputs = reader.inputs(&mut network, options, files.path())?;
    let operators = graph.count(f::GRAPH_OPERATORS).map_err(damaged)?;
    for k in 0..operators {
        reader.operator(&mut network, k, files.path())?;
    }
    let mut outputs = Vec::new();
    for number in graph.ints(f::GRAPH_OUTPUTS).map_err(damaged)? {
        let slot = reader.slot(number).map_err(damaged)?;
        outputs.push(network.layer_of(&slot).map_err(|why| Error::model(format!("an output of the model: {why}")))?);
    }
    if reader.quantized && !reader.keep {
        network.leave_quantizer_out();
    }
    if reader.keep && !reader.quantized {
        return Err(Error::Options("the model's numbers are floats, so there is no quantization to keep".into()));
    }
    network.finish(&outputs, &inputs, &[])
}

impl Reader<'_> {
    fn tensor(&self, number: usize) -> Result<Table<'_>, String> {
        self.graph.of(f::GRAPH_TENSORS, number)
    }

    /// The shape of a tensor.
    fn shape(&self, number: usize) -> Result<Vec<i64>, String> {
        Ok(self.tensor(number)?.ints(f::TENSOR_SHAPE)?.into_iter().map(i64::from).collect())
    }

    fn inputs(
        &mut self,
        network: &mut Network<'_>,
        options: &LoadOptions,
        path: &Path,
    ) -> Result<Vec<shiftwise_graph::graph::NodeId>, Error> {
        let damaged = |message: String| Error::format(path, message);
        let (mut inputs, mut all) = (Vec::new(), Vec::new());
        for number in self.graph.ints(f::GRAPH_INPUTS).map_err(damaged)? {
            let number = usize::try_from(number).map_err(|_| damaged("an input of it is no tensor".into()))?;
            let name = self.tensor(number).and_then(|t| t.text(f::TENSOR_NAME)).map_err(damaged)?;
            let shape = self.shape(number).map_err(damaged)?;
            let own = names::path(&name, &[]).last().copied().unwrap_or("input").to_owned();
            let shape = input_shape(options, &own, &shape)?;
            let slot = network.input(&name, shape).map_err(|why| Error::layer(&own, "InputLayer", why))?;
            inputs.push(network.layer_of(&slot).map_err(Error::model)?);
            let slot = self.kept(network, number, (&name, slot)).map_err(damaged)?;
            self.slots.insert(number, slot);
            all.push(own);
        }
        check_inputs(options, &all)?;
        Ok(inputs)
    }

    /// What a tensor is; −1 is one that is left out.
    fn slot(&mut self, number: i32) -> Result<Slot, String> {
        let Ok(number) = usize::try_from(number) else { return Ok(Slot::Nothing) };
        if let Some(slot) = self.slots.get(&number) {
            return Ok(slot.clone());
        }
        let slot = match self.constant(number)? {
            Some(constant) => Slot::Constant(constant),
            None => return Err(format!("tensor {number} is read before it is computed")),
        };
        self.slots.insert(number, slot.clone());
        Ok(slot)
    }

    /// The bytes of a tensor; `None` for one that has none in the file.
    fn bytes(&self, tensor: Table<'_>) -> Result<Option<&[u8]>, String> {
        let number = usize::try_from(tensor.int(f::TENSOR_BUFFER, 0)?).map_err(|_| "a tensor's buffer is missing")?;
        if number == 0 {
            return Ok(None);
        }
        let buffer = self.model.of(f::MODEL_BUFFERS, number)?;
        let offset = buffer.long(f::BUFFER_OFFSET)?;
        // Large files have their buffers behind the tables.
        let bytes = match offset {
            0 | 1 => buffer.bytes(f::BUFFER_DATA)?,
            offset => self.model.outside(offset, buffer.long(f::BUFFER_SIZE)?)?,
        };
        Ok((!bytes.is_empty()).then_some(bytes))
    }

    /// The numbers of a constant tensor, quantized ones as what they stand for.
    fn constant(&self, number: usize) -> Result<Option<Constant>, String> {
        let tensor = self.tensor(number)?;
        let shape: Option<Vec<usize>> =
            tensor.ints(f::TENSOR_SHAPE)?.into_iter().map(|d| usize::try_from(d).ok()).collect();
        let shape = shape.ok_or_else(|| format!("constant {number} has a negative size"))?;
        let Some(bytes) = self.bytes(tensor)? else {
            // An empty list has no bytes.
            return Ok(shape.contains(&0).then(|| Constant::Integers(shape, Arc::default())));
        };
        if tensor.table(f::TENSOR_SPARSITY)?.is_some() {
            return Err("constants that leave zeros out (sparse ones) are not supported".into());
        }
        let kind = tensor.byte(f::TENSOR_TYPE)?;
        let element = Element::of(kind).ok_or_else(|| format!("constants of type number {kind} are not supported"))?;
        let count = self.budget.elements(&shape, 8).map_err(|e| e.to_string())?;
        if element.bytes(count) != Some(bytes.len()) {
            return Err(format!("constant {number} of shape {shape:?} has {} bytes", bytes.len()));
        }
        if let Some(floats) = element.floats(bytes) {
            return Ok(Tensor::new(shape, floats).map(Constant::Floats));
        }
        let whole = element.whole(bytes, count);
        let scales = match tensor.table(f::TENSOR_QUANTIZATION)? {
            Some(by) => (by.floats(f::QUANTIZATION_SCALE)?, by),
            None => return Ok(Some(Constant::Integers(shape, Arc::new(whole)))),
        };
        let (scales, by) = scales;
        if scales.is_empty() {
            return Ok(Some(Constant::Integers(shape, Arc::new(whole))));
        }
        let zeros = by.longs(f::QUANTIZATION_ZERO)?;
        let axis = usize::try_from(by.int(f::QUANTIZATION_AXIS, 0)?).unwrap_or(usize::MAX);
        dequantized(shape, &whole, &scales, (&zeros, axis)).map(Some)
    }

    /// Reads an operator.
    fn operator(&mut self, network: &mut Network<'_>, k: usize, path: &Path) -> Result<(), Error> {
        let damaged = |message: String| Error::format(path, message);
        let operator = self.graph.of(f::GRAPH_OPERATORS, k).map_err(damaged)?;
        let outputs = operator.ints(f::OPERATOR_OUTPUTS).map_err(damaged)?;
        let outputs: Vec<usize> = outputs.into_iter().filter_map(|n| usize::try_from(n).ok()).collect();
        let first = *outputs.first().ok_or_else(|| damaged(format!("operator {k} has no result")))?;
        let name = self.tensor(first).and_then(|t| t.text(f::TENSOR_NAME)).map_err(damaged)?;
        let short = names::path(&name, &[]).last().copied().unwrap_or_default().to_owned();
        let row = self.row(operator, &short, path)?;
        let shape = self.shape(first).map_err(damaged)?;
        let fail = |why: String| Error::layer(&short, row.0, why);
        let numbers = operator.ints(f::OPERATOR_INPUTS).map_err(damaged)?;
        let inputs = numbers.iter().map(|n| self.slot(*n)).collect::<Result<Vec<_>, _>>().map_err(fail)?;
        self.quantized |= row.0 != "DEQUANTIZE" && row.0 != "QUANTIZE" && self.is_quantized(first).map_err(damaged)?;
        let options = operator.table(f::OPERATOR_OPTIONS).map_err(damaged)?;
        let operand = numbers.first().and_then(|n| usize::try_from(*n).ok());
        let whole = [operand, Some(first)].map(|n| n.map_or(Ok(false), |n| self.is_whole(n)));
        let [from, to] = whole;
        let whole = [from.map_err(damaged)?, to.map_err(damaged)?];
        let operator = Operator { name, inputs, outputs: outputs.len(), shape, options, whole };
        let results = ops::read(row.2, network, &operator).map_err(fail)?;
        for (number, slot) in outputs.into_iter().zip(results) {
            let slot = self.kept(network, number, (&operator.name, slot)).map_err(fail)?;
            self.slots.insert(number, slot);
        }
        Ok(())
    }

    /// A result behind the quantizer that its whole numbers are, where these are kept: at the finest position that holds
    /// their range, which is told beside the step that it stands for.
    fn kept(&self, network: &mut Network<'_>, number: usize, (name, slot): (&str, Slot)) -> Result<Slot, String> {
        if !self.keep || !matches!(slot, Slot::Layer { merged: false, .. }) || !self.is_quantized(number)? {
            return Ok(slot);
        }
        let tensor = self.tensor(number)?;
        let Some(by) = tensor.table(f::TENSOR_QUANTIZATION)? else { return Ok(slot) };
        let ([step], zeros) = (&by.floats(f::QUANTIZATION_SCALE)?[..], by.longs(f::QUANTIZATION_ZERO)?) else {
            return Err("its result has a scale for each channel, which no layer has".into());
        };
        let Some(Element::Whole(size, signed)) = Element::of(tensor.byte(f::TENSOR_TYPE)?) else { return Ok(slot) };
        let zero = zeros.first().copied().unwrap_or(0);
        if !(-65536..=65535).contains(&zero) {
            return Err(format!("its result has a zero point of {zero}"));
        }
        let own = Integers { bits: 8 * size as u8, unsigned: !signed, narrow: false };
        let pos = grids::snapped(own, *step, zero).ok_or_else(|| format!("its result has a step of {step}"))?;
        let off = (pos.step() / step - 1.0) * 100.0;
        network.warn(format!(
            "`{name:.80}`: the step {step:?} is {:?} now, position {} ({off:+.1} %)",
            pos.step(),
            pos.0
        ));
        let to = Integers { unsigned: false, ..own };
        network.quantize(&format!("{name}_quantize"), &slot, grids::of_positions(to, Round::HalfUp, &[pos], None))
    }

    /// Whether a tensor has whole numbers that stand for themselves.
    fn is_whole(&self, number: usize) -> Result<bool, String> {
        let whole = matches!(Element::of(self.tensor(number)?.byte(f::TENSOR_TYPE)?), Some(Element::Whole(..)));
        Ok(whole && !self.is_quantized(number)?)
    }

    /// Whether the numbers of a tensor stand for others.
    fn is_quantized(&self, number: usize) -> Result<bool, String> {
        let tensor = self.tensor(number)?;
        let scaled = tensor.table(f::TENSOR_QUANTIZATION)?.map(|by| by.floats(f::QUANTIZATION_SCALE)).transpose()?;
        let whole = matches!(Element::of(tensor.byte(f::TENSOR_TYPE)?), Some(Element::Whole(1 | 2, _)));
        Ok(whole && scaled.is_some_and(|scales| !scales.is_empty()))
    }

    /// The row of an operator.
    fn row(&self, operator: Table<'_>, name: &str, path: &Path) -> Result<&'static Row, Error> {
        let damaged = |message: String| Error::format(path, message);
        let unknown = |class: String| Error::UnsupportedLayer { layer: name.to_owned(), class };
        let number = operator.int(f::OPERATOR_CODE, 0).map_err(damaged)?;
        let code = self.model.of(f::MODEL_OPERATOR_CODES, usize::try_from(number).unwrap_or(usize::MAX));
        let code = code.map_err(damaged)?;
        // Codes were bytes once.
        let small = i32::from(code.byte(f::CODE_SMALL).map_err(damaged)?.cast_signed());
        let wide = code.int(f::CODE, 0).map_err(damaged)?.max(small);
        let custom = code.text(f::CODE_CUSTOM).map_err(damaged)?;
        if !custom.is_empty() {
            return Err(unknown(format!("TensorFlow Lite custom {custom:.60}")));
        }
        let found = OPS.iter().find(|row| row.1 == wide);
        found.ok_or_else(|| unknown(format!("TensorFlow Lite operator {wide}")))
    }
}

/// What quantized numbers stand for: scale · (q − zero), one pair for all or one for each index along an axis.
fn dequantized(
    shape: Vec<usize>,
    whole: &[i64],
    scales: &[f32],
    (zeros, axis): (&[i64], usize),
) -> Result<Constant, String> {
    let inner: usize = shape.get(axis.saturating_add(1)..).unwrap_or_default().iter().product::<usize>().max(1);
    if scales.len() != 1 && shape.get(axis) != Some(&scales.len()) {
        return Err(format!("a constant of shape {shape:?} has {} scales along axis {axis}", scales.len()));
    }
    let value = |(i, q): (usize, &i64)| {
        let channel = if scales.len() == 1 { 0 } else { i / inner % scales.len() };
        let zero = zeros.get(channel).or(zeros.first()).copied().unwrap_or(0);
        q.wrapping_sub(zero) as f32 * scales[channel]
    };
    let data = whole.iter().enumerate().map(value).collect();
    Tensor::new(shape, data).map(Constant::Floats).ok_or_else(|| "a constant has another size than its shape".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantized_constants_are_what_they_stand_for() {
        let by_row = dequantized(vec![2, 2], &[1, -2, 3, 4], &[0.5, 2.0], (&[0, 1], 0));
        let expected = Tensor::new(vec![2, 2], vec![0.5, -1.0, 4.0, 6.0]).map(Constant::Floats);
        assert_eq!(by_row.ok(), expected);
        let by_column = dequantized(vec![2, 2], &[1, 1, 1, 1], &[0.5, 2.0], (&[], 1));
        let expected = Tensor::new(vec![2, 2], vec![0.5, 2.0, 0.5, 2.0]).map(Constant::Floats);
        assert_eq!(by_column.ok(), expected);
        assert!(dequantized(vec![2, 2], &[1; 4], &[1.0; 3], (&[], 0)).is_err());
        assert!(dequantized(vec![2], &[1; 2], &[1.0; 2], (&[], usize::MAX - 1)).is_err());
    }

    #[test]
    fn numbers_of_four_bits_have_a_sign() {
        assert_eq!(Element::Int4.whole(&[0x7f, 0x08], 3), [-1, 7, -8]);
        assert_eq!(Element::Whole(2, true).whole(&[0xff, 0xff, 1, 0], 2), [-1, 1]);
        assert_eq!(Element::Whole(1, false).whole(&[0xff], 1), [255]);
    }
}
