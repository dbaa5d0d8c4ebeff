//! Where one op runs.

use crate::dpu::tile::Tiling;
use crate::reason::Reason;

/// Where an op runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placed {
    /// On the DPU.
    Dpu {
        /// Which of the ways that selection finds.
        way: usize,
        /// How each layer of that way is cut, if the op is done alone and with empty banks.
        tilings: Vec<Tiling>,
        /// The ops behind it that are done on its tiles.
        fused: Option<Fusion>,
    },
    /// On the DPU, on the tiles of an op before.
    Fused {
        /// Which of the ways that selection finds.
        way: usize,
    },
    /// On the CPU, because.
    Cpu(Reason),
    /// Nowhere: the same bytes under another shape.
    View,
}

/// The first op of a run of ops as the layer that does all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fusion {
    /// Number of ops, the first one included.
    pub ops: usize,
    /// How the layer is cut with empty banks.
    pub tiling: Tiling,
}

impl Placed {
    /// Why the op is on the CPU, if it is.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Cpu(reason) => Some(reason),
            Self::Dpu { .. } | Self::Fused { .. } | Self::View => None,
        }
    }

    /// Whether the DPU begins work with this op.
    pub(crate) fn begins(&self) -> bool {
        match self {
            Self::Dpu { .. } => true,
            Self::Fused { .. } | Self::Cpu(_) | Self::View => false,
        }
    }
}
