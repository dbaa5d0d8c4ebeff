//! Frames per second.

use serde::Serialize;

/// Frames per second of a stream of frames.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Speed {
    /// On one core that always has the next frame.
    pub fps_one_core_busy: f64,
    /// On all cores, which share the memory.
    pub fps_all_cores: f64,
    /// Half width of the band that 9 of 10 unseen networks were within; `None` where no measurement calibrates the model.
    pub error_band_percent: Option<f64>,
}
