//! Why values can't be observed.

/// Most bins of a histogram: the vendor's tool has no limit, and takes memory and hours.
pub const MOST_BINS: usize = 1 << 20;

/// Why a tensor can't be quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// A value is NaN or infinite.
    #[error("a value is not finite")]
    NotFinite,
    /// Unsigned symmetric quantization of a negative value.
    #[error("input tensor values should be non-negative in symmetric unsigned quantization")]
    Negative,
    /// A batch reaches so much further than the first that a histogram would have more than [`MOST_BINS`] bins of the
    /// first's width.
    #[error(
        "its histogram would need more than {} bins: later batches reach much further than the first; shuffle the \
         calibration data, use larger batches, or set the method to 0",
        MOST_BINS
    )]
    Bins,
}
