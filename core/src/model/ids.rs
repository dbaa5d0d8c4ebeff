//! What records refer to: tensors by number, bytes by region and offset.

use serde::{Deserialize, Serialize};

/// The four memory regions. The discriminants are the base-register numbers of vendor-compiled programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Region {
    /// Weights and biases, read only.
    Constants = 0,
    /// Intermediate tensors.
    Workspace = 1,
    /// Network inputs.
    Inputs = 2,
    /// Network outputs.
    Outputs = 3,
}

impl Region {
    /// The region of a base-register number.
    pub const fn from_register(register: u8) -> Option<Self> {
        match register {
            0 => Some(Self::Constants),
            1 => Some(Self::Workspace),
            2 => Some(Self::Inputs),
            3 => Some(Self::Outputs),
            _ => None,
        }
    }
}

/// A byte address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Place {
    /// Which region.
    pub region: Region,
    /// Byte offset in it.
    pub offset: u32,
}

/// Index into the tensor table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TensorId(pub u16);

/// A list of tensor ids kept as little-endian 16-bit numbers, so that a record can borrow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorList<'a>(pub &'a [u8]);

impl TensorList<'_> {
    /// The ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = TensorId> + '_ {
        let (pairs, _) = self.0.as_chunks();
        pairs.iter().map(|pair| TensorId(u16::from_le_bytes(*pair)))
    }
}
