//! Pooling.

use serde_json::json;

use crate::layers::{Described, KerasForm, Settings};
use shiftwise_graph::ops::pool::PoolWindow;
use shiftwise_graph::ops::{AveragePooling2D, GlobalAveragePooling2D, GlobalMaxPooling2D, MaxPooling2D};

fn window(from: &Described<'_>) -> Result<PoolWindow, String> {
    let config = from.config;
    config.channels_last()?;
    let size = config.pair("pool_size", [2, 2])?;
    Ok(PoolWindow { size, strides: config.pair("strides", size)?, padding: config.padding()? })
}

fn write_window(to: &mut Settings, pool: &PoolWindow) {
    to.own("pool_size", json!(pool.size));
    to.own("padding", json!(pool.padding.name()));
    to.own("strides", json!(pool.strides));
    to.own("data_format", json!("channels_last"));
}

impl KerasForm for MaxPooling2D {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        Ok(Self { pool: window(from)? })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        write_window(to, &self.pool);
    }
}

impl KerasForm for AveragePooling2D {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        Ok(Self { pool: window(from)?, dpu: from.class.starts_with("Vitis") })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        write_window(to, &self.pool);
    }
}

/// Whether the axes of the pixels stay.
fn keepdims(from: &Described<'_>) -> Result<bool, String> {
    from.config.channels_last()?;
    from.config.bool_or("keepdims", false)
}

fn write_keepdims(to: &mut Settings, keepdims: bool) {
    to.own("data_format", json!("channels_last"));
    to.own("keepdims", json!(keepdims));
}

impl KerasForm for GlobalAveragePooling2D {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        Ok(Self { keepdims: keepdims(from)?, dpu: from.class.starts_with("Vitis") })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        write_keepdims(to, self.keepdims);
    }
}

impl KerasForm for GlobalMaxPooling2D {
    fn read(from: &mut Described<'_>) -> Result<Self, String> {
        Ok(Self { keepdims: keepdims(from)? })
    }
    fn write(&self, to: &mut Settings, _: usize) {
        write_keepdims(to, self.keepdims);
    }
}
