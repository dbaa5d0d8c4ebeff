//! What a DPU is: its engines' sizes, on-chip banks and limits. Filled from data files by the `targets` crate.

use serde::{Deserialize, Serialize};

pub use crate::isa::layout::IsaVersion;

/// Longest name of a target.
pub const NAME_BYTES: usize = 64;
/// Most bank groups of a target.
pub const MAX_GROUPS: usize = 8;

/// A DPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The vendor's name, such as `DPUCZDX8G_ISA1_B4096`.
    pub name: heapless::String<NAME_BYTES>,
    /// 64-bit identification: type code in bits 63..56, ISA version in 55..48, feature code below. DOC
    pub fingerprint: u64,
    /// Instruction set.
    pub isa: IsaVersion,
    /// PP: rows of CONV, and banks of a feature-map group.
    pub pixel_parallel: u16,
    /// ICP: input channels per cycle, and bytes of a bank address.
    pub input_channel_parallel: u16,
    /// OCP: output channels per cycle, and banks of conv weights.
    pub output_channel_parallel: u16,
    /// Rows of ALU.
    pub alu_pixel_parallel: u16,
    /// Rows of ELEW.
    pub elew_pixel_parallel: u16,
    /// Largest kernel_w · channels that a LOAD may gather as channels of the first layer; 0 if it cannot.
    pub channel_augmentation: u16,
    /// Clock of the general logic in MHz when no board says otherwise.
    pub clock_mhz: u32,
    /// On-chip memory, in order of bank ids.
    pub banks: heapless::Vec<BankGroup, MAX_GROUPS>,
    /// What the operators may ask for.
    pub limits: Limits,
}

/// What a bank group holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[serde(rename_all = "kebab-case")]
pub enum BankKind {
    /// Feature maps; addresses wrap around.
    Feature,
    /// Weights of CONV, one bank per output lane.
    ConvWeights,
    /// Weights of depthwise convolutions.
    DepthwiseWeights,
    /// Biases.
    Bias,
}

/// Banks of one kind with consecutive ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BankGroup {
    /// The vendor's name: `VB0`, `CONVW`, …
    pub name: heapless::String<8>,
    /// What it holds.
    pub kind: BankKind,
    /// Id of its first bank.
    pub first: u16,
    /// Number of banks.
    pub count: u16,
    /// Addresses per bank.
    pub depth: u32,
    /// Bytes per address.
    pub width: u16,
}

impl BankGroup {
    /// Bytes of one bank.
    pub fn bank_bytes(&self) -> usize {
        self.depth as usize * usize::from(self.width)
    }
}

/// An inclusive range, `[min, max]` in data files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u32; 2]", into = "[u32; 2]")]
pub struct Limit {
    /// Smallest legal value.
    pub min: u32,
    /// Largest legal value.
    pub max: u32,
}

impl Limit {
    /// Whether `value` is legal.
    pub const fn contains(self, value: u32) -> bool {
        self.min <= value && value <= self.max
    }
}

impl From<[u32; 2]> for Limit {
    fn from([min, max]: [u32; 2]) -> Self {
        Self { min, max }
    }
}

impl From<Limit> for [u32; 2] {
    fn from(limit: Limit) -> Self {
        [limit.min, limit.max]
    }
}

impl core::fmt::Display for Limit {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}..={}", self.min, self.max)
    }
}

/// Operator limits. DOC
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Kernel height and width of CONV.
    pub conv_kernel: Limit,
    /// Strides of CONV.
    pub conv_stride: Limit,
    /// Rows that CONV may pack into one output bank.
    pub conv_stride_out: Limit,
    /// Input and output channels, and dilation · input channels.
    pub channels: Limit,
    /// kernel_h · kernel_w · ceil(input channels / ICP).
    pub conv_weight_depth: Limit,
    /// Kernel height and width of ALU: depthwise convolution and pooling.
    pub alu_kernel: Limit,
    /// Strides of ALU.
    pub alu_stride: Limit,
    /// Rows that ALU may pack into one output bank.
    pub alu_stride_out: Limit,
    /// Padding left of and above ALU inputs.
    pub alu_pad_before: Limit,
    /// Padding right of and below ALU inputs.
    pub alu_pad_after: Limit,
    /// Operands of an element-wise operation.
    pub elew_operands: Limit,
    /// `shift_cut` of convolutions.
    pub shift_cut: Limit,
}

/// Where a bank lies in the machine's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bank<'a> {
    /// Its group.
    pub group: &'a BankGroup,
    /// Its index in the group.
    pub index: u16,
    /// Byte offset in the concatenation of all banks, in order of ids.
    pub offset: usize,
}

impl Target {
    /// Operations per cycle at full use: 2·PP·ICP·OCP.
    pub fn peak_ops_per_cycle(&self) -> u32 {
        2 * u32::from(self.pixel_parallel)
            * u32::from(self.input_channel_parallel)
            * u32::from(self.output_channel_parallel)
    }

    /// Bytes of all banks together: what a machine needs.
    pub fn bank_bytes(&self) -> usize {
        self.banks.iter().map(|g| usize::from(g.count) * g.bank_bytes()).sum()
    }

    /// The bank with this id.
    pub fn bank(&self, id: u32) -> Option<Bank<'_>> {
        let mut offset = 0;
        for group in &self.banks {
            let index = id.wrapping_sub(group.first.into());
            if index < u32::from(group.count) {
                return Some(Bank { group, index: index as u16, offset: offset + index as usize * group.bank_bytes() });
            }
            offset += usize::from(group.count) * group.bank_bytes();
        }
        None
    }

    /// The first group of this kind and the byte offset of its first bank.
    pub fn group(&self, kind: BankKind) -> Option<(&BankGroup, usize)> {
        let mut offset = 0;
        for group in &self.banks {
            if group.kind == kind {
                return Some((group, offset));
            }
            offset += usize::from(group.count) * group.bank_bytes();
        }
        None
    }

    /// The feature-map groups, in order of ids.
    pub fn feature_groups(&self) -> impl Iterator<Item = &BankGroup> {
        self.banks.iter().filter(|g| g.kind == BankKind::Feature)
    }
}
