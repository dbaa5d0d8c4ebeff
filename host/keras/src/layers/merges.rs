//! Layers that merge several tensors.

use serde_json::{Value, json};

use crate::layers::{Described, KerasForm, Setting, Settings};
use shiftwise_graph::ops::{Add, Concatenate, Dot, Merge, Multiply, ScaledAdd};
use shiftwise_tensor::array;

impl KerasForm for Add {
    fn read(_: &mut Described<'_>) -> Result<Self, String> {
        Ok(Self)
    }
    fn write(&self, _: &mut Settings, _: usize) {}
}

impl KerasForm for Multiply {
    fn read(_: &mut Described<'_>) -> Result<Self, String> {
        Ok(Self)
    }
    fn write(&self, _: &mut Settings, _: usize) {}
}

impl KerasForm for Merge {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        Self::of_class(from.class).ok_or_else(|| "is no merging layer".into())
    }
    fn write(&self, _: &mut Settings, _: usize) {}
}

impl KerasForm for ScaledAdd {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        from.config.get("scale").ok_or("it has no scale")?;
        Ok(Self { scale: from.config.f32_or("scale", 1.0)? })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        to.single("scale", self.scale);
    }
}

impl KerasForm for Dot {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        let [a, b] = from.inputs else { return Err(format!("it has {} inputs, two are expected", from.inputs.len())) };
        if from.config.bool_or("normalize", false)? {
            return Err("`normalize` is not supported; put a UnitNormalization before it".into());
        }
        let value = from.config.get("axes").cloned().unwrap_or(json!(-1));
        let list = value.as_array().cloned().unwrap_or_else(|| vec![value.clone(); 2]);
        // Keras counts the batch.
        let axis = |v: &Value, rank: usize| array::axis(v.as_i64()?, rank + 1).ok()?.checked_sub(1);
        let axes = match &list[..] {
            [of_a, of_b] => axis(of_a, a.len()).zip(axis(of_b, b.len())),
            _ => None,
        };
        let (of_a, of_b) =
            axes.ok_or_else(|| format!("its axes are {value}, for samples of shapes {a:?} and {b:?}"))?;
        Ok(Self { axes: [of_a, of_b] })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        to.own("axes", json!(self.axes.map(|axis| axis + 1)));
        to.own("normalize", json!(false));
    }
}

impl KerasForm for Concatenate {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        let axis = from.config.get("axis").map_or(Some(-1), Value::as_i64).ok_or("its axis is not a whole number")?;
        let rank = from.inputs.first().map_or(0, |s| s.len()) as i64;
        // Axis 0 of the batched tensor is the batch, which no layer may touch.
        let own = if axis < 0 { axis.saturating_add(rank) } else { axis - 1 };
        let own = usize::try_from(own).ok().filter(|own| (*own as i64) < rank);
        own.map(|axis| Self { axis })
            .ok_or_else(|| format!("it concatenates along axis {axis} of tensors with {rank} dimensions and the batch"))
    }
    fn write(&self, to: &mut Settings, rank: usize) {
        let axis = if self.axis + 1 == rank { -1 } else { self.axis as i64 + 1 };
        to.add("axis", Setting::Axis(axis, rank + 1));
    }
}
