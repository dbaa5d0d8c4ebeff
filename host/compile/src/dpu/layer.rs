//! A layer as the DPU's engines do it: where its maps lie, what is computed, and the passes behind.

use crate::dpu::codegen::bank_layout::Spot;
use crate::dpu::tile::Shape;

/// A feature map in memory: pixel (y, x) starts at `offset + y·row_pitch + x·pixel_pitch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Map {
    /// Base register.
    pub reg_id: u32,
    /// Byte offset of pixel (0, 0).
    pub offset: u32,
    /// Bytes between rows.
    pub row_pitch: u32,
    /// Bytes between pixels.
    pub pixel_pitch: u32,
}

impl Map {
    /// The map from row, column and channel `at` on.
    pub(crate) fn sub(&self, [y, x, c]: [u32; 3]) -> Self {
        Self { offset: self.offset + y * self.row_pitch + x * self.pixel_pitch + c, ..*self }
    }

    /// Every `steps`-th row and column.
    pub(crate) fn every(&self, [rows, columns]: [u32; 2]) -> Self {
        Self { row_pitch: self.row_pitch * rows, pixel_pitch: self.pixel_pitch * columns, ..*self }
    }
}

/// What a layer computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Compute {
    /// CONV.
    Conv { shift_cut: u32, shift_bias: u32, act_type: u32 },
    /// ALU: depthwise convolution; without bias if `biased` is false.
    Depthwise { shift_cut: u32, shift_bias: u32, act_type: u32, biased: bool },
    /// ALU: `mode` is maximum or average.
    Pool { mode: u32, factor: u32, shift_cut: u32, act_type: u32 },
    /// ALU: hard sigmoid.
    HardSigmoid { input_pos: u32, shift_cut: u32 },
    /// ELEW: a sum of the operands.
    Sum { shift_read: Vec<u32>, shift_write: i32, relu: bool },
    /// ELEW: a product of the operands.
    Product { shift_write: i32, relu: bool },
}

impl Default for Compute {
    fn default() -> Self {
        Self::Sum { shift_read: vec![0], shift_write: 0, relu: false }
    }
}

/// Where a layer's kernel lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// Bytes from the op's first weight.
    Constants(u32),
    /// A vector of a feature map.
    Memory { reg_id: u32, offset: u32 },
}

impl Default for Kernel {
    fn default() -> Self {
        Self::Constants(0)
    }
}

/// A part of a map that is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fill {
    /// Where it begins.
    pub map: Map,
    /// Rows and columns.
    pub size: [u32; 2],
    /// Channels.
    pub channels: u32,
}

/// A pass over a finished tile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// ELEW with one operand: shift right, saturate.
    Shift { shift_write: i32, relu: bool },
    /// ALU, maximum of one tap: an activation that ELEW lacks.
    Act { act_type: u32 },
    /// The tile as it is so far is saved too.
    Keep(Vec<Map>),
    /// ELEW: the sum of the tile and of a map in memory, or in the banks if it is `held` there, each shifted left.
    Add { map: Map, held: Option<Spot>, shift_read: [u32; 2], shift_write: i32, relu: bool },
    /// CONV with one tap over all channels of the tile: a layer of the tile's size, and its constants.
    Point { layer: Box<Layer>, weights: Weights },
}

/// A layer for one engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layer {
    /// Sizes.
    pub shape: Shape,
    /// Operands in memory.
    pub inputs: Vec<Map>,
    /// Operands that lie in the banks, whole: as many as `inputs`, or none.
    pub held: Vec<Option<Spot>>,
    /// Result in memory, in every place that wants it.
    pub outputs: Vec<Map>,
    /// Where the whole result stays in the banks.
    pub stays: Option<Spot>,
    /// Operation.
    pub compute: Compute,
    /// What follows on chip.
    pub passes: Vec<Pass>,
    /// Its weights, if it has any.
    pub kernel: Kernel,
    /// First bias among the op's.
    pub bias: u32,
    /// What is zero around the result.
    pub fills: Vec<Fill>,
}

/// Offsets of an op's constants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weights {
    /// `[oc][kh][kw][ic]`, depthwise `[kh][kw][c]`.
    pub kernel: u32,
    /// `[oc]`.
    pub bias: u32,
}

/// What the instructions of a layer amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    /// Bytes of LOADs.
    pub load_bytes: u64,
    /// Bytes of SAVEs.
    pub save_bytes: u64,
    /// Multiply-accumulates of the arrays, unused lanes and rows included.
    pub engine_macs: u64,
    /// Tiles.
    pub tiles: u32,
}

/// Largest `jump_read` of a LOAD (DOC: 16 bits).
pub(crate) const MAX_PITCH: u32 = 1 << 16;
