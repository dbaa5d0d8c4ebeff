//! Where each op runs.

use crate::dpu::tile::Tiling;

/// Where an op runs.
pub(crate) enum Placed {
    /// On the DPU, each layer cut like this.
    Dpu {
        /// Which of the ways that there are.
        plan: usize,
        /// Per layer.
        tilings: Vec<Tiling>,
        /// The ops behind it that are done on its tiles.
        chain: Option<Chain>,
    },
    /// On the DPU, on the tiles of an op before.
    Chained {
        /// Which of the ways that there are.
        plan: usize,
    },
    /// On the CPU, because.
    Cpu(String),
    /// Nowhere.
    View,
}

/// The first op of a run of ops as the layer that does all of them, and how it is cut.
pub(crate) struct Chain {
    /// Number of ops.
    pub ops: usize,
    /// How the layer is cut.
    pub tiling: Tiling,
}
