//! TOML to [`Target`] and [`Board`], and the checks that a description is consistent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shiftwise_core::target::{BankGroup, BankKind, Target};

use crate::Error;

/// A board: what runs the firmware, and the DPU beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// Name on the command line.
    pub name: String,
    /// Name for people.
    pub title: String,
    /// Processor, such as `cortex-m4f`.
    pub cpu: String,
    /// Target of its DPU; none if everything runs on the CPU.
    #[serde(default)]
    pub dpu: Option<String>,
    /// DPU cores.
    #[serde(default)]
    pub cores: u32,
    /// Clock of the DPU's general logic, MHz.
    #[serde(default)]
    pub clock_mhz: u32,
    /// Bandwidth that all cores share, 10^6 bytes per second; 0 if unknown.
    #[serde(default)]
    pub ddr_mb_per_s: u32,
    /// Memory for a bare-metal image. One for which there is firmware, or whose processor is described, has `FLASH` for
    /// code and constants, and `RAM` for its data and stack.
    #[serde(default)]
    pub memory: Vec<MemoryRange>,
    /// How fast its processor is; none if nobody has said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor: Option<Processor>,
    /// How firmware is built for it, and what it does with the memory; none if there is no firmware.
    #[serde(default)]
    pub firmware: Option<Firmware>,
    /// The emulator that stands for it; none if there is only hardware.
    #[serde(default)]
    pub emulator: Option<Emulator>,
}

impl Board {
    /// The memory of this name.
    pub fn memory(&self, name: &str) -> Option<&MemoryRange> {
        self.memory.iter().find(|m| m.name == name)
    }

    /// The processor whose counted instructions are this board's.
    pub fn counted_on(&self) -> &str {
        self.processor.as_ref().and_then(|p| p.counted_on.as_deref()).unwrap_or(&self.cpu)
    }
}

/// A range of a board's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MemoryRange {
    /// Name in the linker script: `FLASH`, `RAM`.
    pub name: String,
    /// First address.
    pub start: u64,
    /// Size in bytes.
    pub bytes: u64,
}

/// Addresses of one use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// Size in bytes.
    pub bytes: u64,
}

impl Range {
    /// The address behind it, if there is one.
    fn end(self) -> Option<u64> {
        self.start.checked_add(self.bytes)
    }

    fn is_inside(self, memory: &MemoryRange) -> bool {
        self.start >= memory.start && self.end().is_some_and(|end| end <= memory.start.saturating_add(memory.bytes))
    }
}

/// What makes a time of counted instructions, and of a deployable a program of one's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Processor {
    /// Its clock, MHz.
    pub clock_mhz: u32,
    /// Clock cycles of an instruction, on average over the kernels, waiting for flash included.
    pub cycles_per_instruction: f64,
    /// Half width of the band around times found with it, percent.
    pub band_percent: u32,
    /// The processor whose counted instructions stand for its own, such as `cortex-m4f` for one that runs the same code;
    /// none if its own were counted, or nobody's stand for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_on: Option<String>,
    /// Bytes of code and constants of the runtime with all its layers, in a program of one's own.
    pub runtime_code: u64,
    /// Bytes of stack that the runtime needs.
    pub runtime_stack: u64,
}

/// How firmware is built for a board, and what it does with the memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Firmware {
    /// The Rust compiler's target.
    pub target: String,
    /// Rate of the counter behind step times.
    pub ticks_per_second: u32,
    /// Bytes kept for the stack, at the end of `RAM`.
    pub stack: u64,
    /// Keeps the deployable.
    pub store: Range,
    /// Is cut into workspace, inputs and outputs.
    pub arena: Range,
    /// On-chip banks of a DPU in software.
    pub banks: Range,
    /// The image as it was measured; none if that was never done.
    #[serde(default)]
    pub image: Option<Measured>,
    /// The DPU that an image built for one drives; none if there is no such image.
    #[serde(default)]
    pub dpu: Option<DpuPort>,
}

/// Where firmware finds a DPU, and how it sees memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DpuPort {
    /// Its target.
    pub target: String,
    /// How it was integrated, which tells what its registers are.
    pub layout: RegisterLayout,
    /// Its registers, outside of all memory.
    pub registers: Range,
    /// Which of the cores that the registers serve.
    pub core: u8,
    /// Whether it reads and writes through the processor's caches. If not, firmware maintains them.
    pub coherent: bool,
}

/// Register maps of a DPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum RegisterLayout {
    /// The IP as Vivado integrates it.
    Vivado,
    /// The kernel as Vitis integrates it.
    Vitis,
}

/// Sizes of a board's image, measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Bytes of code and constants, in `FLASH`.
    pub code: u64,
    /// Bytes of data, in `RAM`.
    pub data: u64,
    /// The most bytes of stack that were in use, in `RAM`.
    pub stack: u64,
}

/// An emulator's command line.
///
/// It is started in a directory that holds `image.elf`. Its standard input and output are the link; it writes the log to
/// `log.defmt` in this directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Emulator {
    /// The program.
    pub program: String,
    /// Debian's package of it.
    pub package: String,
    /// What makes it this board.
    pub arguments: Vec<String>,
}

fn toml<'a, T: Deserialize<'a>>(file: &str, text: &'a str) -> Result<T, Error> {
    toml::from_str(text).map_err(|source| Error::Toml { file: file.into(), source: Box::new(source) })
}

/// What is public about a target that nothing is compiled for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// The vendor's name.
    pub name: String,
    /// Its family, such as `DPUCVDX8G`.
    pub family: String,
    /// Version of the family's instruction set.
    pub isa_version: u8,
    /// What is missing before programs could be compiled for it and simulated.
    pub missing: String,
    /// Whether the vendor has given it up.
    pub expired: bool,
    /// Samples at once.
    pub batch: u32,
    /// 64-bit identification, if it has one.
    #[serde(default)]
    pub fingerprint: Option<u64>,
    /// Sizes of the compute array.
    pub parallelism: Parallelism,
    /// On-chip memory, in order of bank ids.
    #[serde(default)]
    pub banks: Vec<DescribedBanks>,
    /// Engines with their limits, in the vendor's terms.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(with = "BTreeMap<String, serde_json::Value>"))]
    pub engines: BTreeMap<String, toml::Value>,
}

/// Sizes of a compute array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Parallelism {
    /// Pixels per cycle.
    pub pixel: u32,
    /// Input channels per cycle.
    pub input_channel: u32,
    /// Output channels per cycle.
    pub output_channel: u32,
    /// Operations per cycle and sample.
    pub peak_ops_per_cycle: u32,
}

/// Banks of one kind of a described target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DescribedBanks {
    /// The vendor's name.
    pub name: String,
    /// The vendor's kind: `virtual` for feature maps that wrap around, `param`, `special`.
    pub kind: String,
    /// Id of its first bank.
    pub first: u32,
    /// Number of banks.
    pub count: u32,
    /// Addresses per bank.
    pub depth: u32,
    /// Bytes per address, at 8 bits a word.
    pub width: u32,
    /// Bits of a word, if not 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub word_bits: Option<u32>,
}

/// Bounds of numbers in descriptions: far beyond any device, and so small that nothing computed of them overflows or
/// takes a machine's memory.
const MOST_PARALLEL: u16 = 256;
const MOST_CLOCK_MHZ: u32 = 10_000;
const MOST_CORES: u32 = 16;
const MOST_BANK_BYTES: u128 = 256 << 20;
/// Of what is described only, nothing is allocated; some use a card's whole memory.
const MOST_DESCRIBED_BYTES: u128 = 1 << 40;

/// Type codes of families, bits 63..56 of a fingerprint. DOC
const FAMILIES: &[(&str, u64)] = &[
    ("DPUCZDX8G", 1),
    ("DPUCAHX8H", 2),
    ("DPUCAHX8L", 3),
    ("DPUCZDI4G", 4),
    ("DPUCVDX8H", 5),
    ("DPUCVDX8G", 6),
    ("DPUCADF8H", 7),
    ("IPU_PHX", 8),
    ("DPUCV2DX8G", 9),
];

/// A description of either kind: one with `missing` is a description only. `file` is for messages.
///
/// Errors: [`Error::Toml`], [`Error::Invalid`].
pub(crate) fn entry(file: &str, text: &str) -> Result<crate::Entry, Error> {
    let table: toml::Table = toml(file, text)?;
    if table.contains_key("missing") {
        description(file, text).map(|d| crate::Entry::Description(Box::new(d)))
    } else {
        target(file, text).map(|t| crate::Entry::Target(Box::new(t)))
    }
}

/// A description of a target that nothing is compiled for. `file` is for messages.
///
/// Errors: [`Error::Toml`], [`Error::Invalid`].
pub fn description(file: &str, text: &str) -> Result<Description, Error> {
    let d: Description = toml(file, text)?;
    match description_fault(&d) {
        Some(fault) => Err(Error::Invalid { file: file.into(), fault }),
        None => Ok(d),
    }
}

/// The first contradiction in a description, if any.
fn description_fault(d: &Description) -> Option<String> {
    let p = &d.parallelism;
    if [p.pixel, p.input_channel, p.output_channel, p.peak_ops_per_cycle, d.batch].contains(&0) {
        return Some("batch and parallelism must not be 0".into());
    }
    if d.name.is_empty() || d.missing.is_empty() {
        return Some("`name` and `missing` must not be empty".into());
    }
    let code = FAMILIES.iter().find(|(family, _)| *family == d.family).map(|(_, code)| *code);
    if let Some(f) = d.fingerprint
        && (code.is_some_and(|code| f >> 56 != code) || (f >> 48 & 0xFF) != u64::from(d.isa_version))
    {
        return Some(format!("fingerprint {f:#018x} is not of type {}, ISA {}", d.family, d.isa_version));
    }
    let mut next = 0u32;
    for b in &d.banks {
        if b.first < next || b.count == 0 || b.depth == 0 || b.width == 0 {
            return Some(format!("bank group {}: it overlaps another or has an empty dimension", b.name));
        }
        let bits =
            [b.count, b.depth, b.width, b.word_bits.unwrap_or(8)].iter().map(|n| u128::from(*n)).product::<u128>();
        if bits > 8 * MOST_DESCRIBED_BYTES {
            return Some(format!("bank group {}: more than {MOST_DESCRIBED_BYTES} bytes", b.name));
        }
        next = match b.first.checked_add(b.count) {
            Some(next) => next,
            None => return Some(format!("bank group {}: its ids are out of range", b.name)),
        };
    }
    None
}

/// A target from its description. `file` is for messages.
///
/// Errors: [`Error::Toml`], [`Error::Invalid`].
pub fn target(file: &str, text: &str) -> Result<Target, Error> {
    let target: Target = toml(file, text)?;
    match target_fault(&target) {
        Some(fault) => Err(Error::Invalid { file: file.into(), fault }),
        None => Ok(target),
    }
}

/// A board from its description. `file` is for messages.
///
/// Errors: [`Error::Toml`], [`Error::Invalid`].
pub fn board(file: &str, text: &str) -> Result<Board, Error> {
    let board: Board = toml(file, text)?;
    let fault = match &board.dpu {
        Some(name) if !crate::is_target(name) => Some(format!("its DPU `{name}` is unknown")),
        Some(_) if board.cores == 0 || board.clock_mhz == 0 => Some("a DPU needs `cores` and `clock_mhz`".into()),
        _ if board.cores > MOST_CORES || board.clock_mhz > MOST_CLOCK_MHZ => {
            Some(format!("at most {MOST_CORES} `cores` and {MOST_CLOCK_MHZ} `clock_mhz` are possible"))
        }
        None if board.cores != 0 || board.clock_mhz != 0 => Some("`cores` and `clock_mhz` without a `dpu`".into()),
        _ => memory_fault(&board.memory).or_else(|| firmware_fault(&board)).or_else(|| processor_fault(&board)),
    };
    match fault {
        Some(fault) => Err(Error::Invalid { file: file.into(), fault }),
        None => Ok(board),
    }
}

fn memory_fault(memory: &[MemoryRange]) -> Option<String> {
    let end = |m: &MemoryRange| m.start.checked_add(m.bytes);
    for (i, a) in memory.iter().enumerate() {
        if a.bytes == 0 || end(a).is_none() {
            return Some(format!("memory `{}` is empty or wraps", a.name));
        }
        if let Some(b) = memory[..i].iter().find(|b| end(b) > Some(a.start) && end(a) > Some(b.start)) {
            return Some(format!("memory `{}` and `{}` overlap", b.name, a.name));
        }
    }
    None
}

fn processor_fault(board: &Board) -> Option<String> {
    let p = board.processor.as_ref()?;
    if p.clock_mhz == 0 || p.clock_mhz > MOST_CLOCK_MHZ {
        return Some(format!(
            "its processor's `clock_mhz` is {}, between 1 and {MOST_CLOCK_MHZ} are possible",
            p.clock_mhz
        ));
    }
    if !(0.1..=100.0).contains(&p.cycles_per_instruction) {
        let cycles = p.cycles_per_instruction;
        return Some(format!("its processor's `cycles_per_instruction` is {cycles}, between 0.1 and 100 are possible"));
    }
    let missing = ["FLASH", "RAM"].into_iter().find(|name| board.memory(name).is_none())?;
    Some(format!("its processor needs memory `{missing}`"))
}

/// Alignment of memory that a DPU in software, or a faster kernel, works in.
const FIRMWARE_ALIGN: u64 = 4096;

fn firmware_fault(board: &Board) -> Option<String> {
    let firmware = board.firmware.as_ref()?;
    let (Some(_), Some(ram)) = (board.memory("FLASH"), board.memory("RAM")) else {
        return Some("firmware needs memory `FLASH` and `RAM`".into());
    };
    if firmware.ticks_per_second == 0 || firmware.stack == 0 || firmware.stack % 16 != 0 || firmware.stack > ram.bytes {
        return Some("firmware needs a counter, and a stack of whole 16 bytes in `RAM`".into());
    }
    let uses = [("store", firmware.store), ("arena", firmware.arena), ("banks", firmware.banks)];
    for (i, (name, a)) in uses.iter().enumerate() {
        let home = board.memory.iter().find(|m| a.is_inside(m));
        match home {
            None => return Some(format!("`{name}` lies in no memory")),
            Some(m) if ["FLASH", "RAM"].contains(&m.name.as_str()) => {
                return Some(format!("`{name}` lies in `{}`, which the linker fills", m.name));
            }
            Some(_) if a.bytes == 0 || a.start % FIRMWARE_ALIGN != 0 => {
                return Some(format!("`{name}` is empty or starts at no multiple of {FIRMWARE_ALIGN}"));
            }
            Some(_) => {}
        }
        if let Some((other, _)) = uses.iter().take(i).find(|(_, b)| b.end() > Some(a.start) && a.end() > Some(b.start))
        {
            return Some(format!("`{other}` and `{name}` overlap"));
        }
    }
    firmware.dpu.as_ref().and_then(|dpu| dpu_fault(dpu, &board.memory))
}

fn dpu_fault(dpu: &DpuPort, memory: &[MemoryRange]) -> Option<String> {
    let (start, end) = (dpu.registers.start, dpu.registers.end());
    if crate::named(&dpu.target).is_err() {
        return Some(format!("nothing is compiled for its DPU `{}`", dpu.target));
    }
    if dpu.registers.bytes == 0 || start == 0 || start % 4 != 0 || end.is_none() {
        return Some("the DPU's registers are none, or not at a multiple of 4".into());
    }
    let inside = memory.iter().find(|m| end > Some(m.start) && m.start.saturating_add(m.bytes) > start)?;
    Some(format!("the DPU's registers overlap memory `{}`", inside.name))
}

/// The first contradiction in a target, if any.
fn target_fault(t: &Target) -> Option<String> {
    let (pp, icp, ocp) = (t.pixel_parallel, t.input_channel_parallel, t.output_channel_parallel);
    if [pp, icp, ocp, t.alu_pixel_parallel, t.elew_pixel_parallel].contains(&0) || t.clock_mhz == 0 {
        return Some("parallelism and clock must not be 0".into());
    }
    if [pp, icp, ocp].iter().any(|n| *n > MOST_PARALLEL) || t.clock_mhz > MOST_CLOCK_MHZ {
        return Some(format!("parallelism is at most {MOST_PARALLEL} each, the clock {MOST_CLOCK_MHZ} MHz"));
    }
    if t.alu_pixel_parallel > pp || t.elew_pixel_parallel > pp {
        return Some("the ALU and element-wise engines cannot have more rows than `pixel_parallel`".into());
    }
    if (t.fingerprint >> 48 & 0xFF) != 1 || (t.fingerprint >> 56) != 1 {
        return Some(format!("fingerprint {:#018x} is not of type DPUCZDX8G, ISA 1", t.fingerprint));
    }
    let mut next = 0;
    for g in &t.banks {
        if g.first != next || g.count == 0 || g.depth == 0 || g.width != icp {
            return Some(format!(
                "bank group {}: expected first = {next}, width = {icp}, and no empty dimension",
                g.name
            ));
        }
        let want = match g.kind {
            BankKind::Feature => pp,
            BankKind::ConvWeights => ocp,
            BankKind::DepthwiseWeights | BankKind::Bias => 1,
        };
        if g.count != want {
            return Some(format!("bank group {} must have {want} banks", g.name));
        }
        next = match next.checked_add(g.count) {
            Some(next) => next,
            None => return Some(format!("bank group {}: its ids are out of range", g.name)),
        };
    }
    for kind in [BankKind::Feature, BankKind::ConvWeights, BankKind::DepthwiseWeights, BankKind::Bias] {
        let groups = t.banks.iter().filter(|g| g.kind == kind).count();
        if groups == 0 || (groups > 1 && kind != BankKind::Feature) {
            return Some(format!("there must be one bank group of kind {kind:?} (or more, for features)"));
        }
    }
    let bytes = |g: &BankGroup| u128::from(g.count) * u128::from(g.depth) * u128::from(g.width);
    if t.banks.iter().map(bytes).sum::<u128>() > MOST_BANK_BYTES {
        return Some(format!("the banks have more than {MOST_BANK_BYTES} bytes"));
    }
    let l = &t.limits;
    let limits = [
        ("conv_kernel", l.conv_kernel),
        ("conv_stride", l.conv_stride),
        ("conv_stride_out", l.conv_stride_out),
        ("channels", l.channels),
        ("conv_weight_depth", l.conv_weight_depth),
        ("alu_kernel", l.alu_kernel),
        ("alu_stride", l.alu_stride),
        ("alu_stride_out", l.alu_stride_out),
        ("alu_pad_before", l.alu_pad_before),
        ("alu_pad_after", l.alu_pad_after),
        ("elew_operands", l.elew_operands),
        ("shift_cut", l.shift_cut),
    ];
    limits.iter().find(|(_, l)| l.min > l.max).map(|(name, l)| format!("limit {name} is empty: {l}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: (&str, &str), want: &str) {
        let good = include_str!("../dpu/DPUCZDX8G_ISA1_B512.toml");
        assert!(good.contains(change.0));
        let message = match target("t", &good.replacen(change.0, change.1, 1)) {
            Err(Error::Invalid { fault, .. }) => fault,
            other => panic!("{other:?}"),
        };
        assert!(message.contains(want), "{message}");
    }

    #[test]
    fn contradictions_are_named() {
        check(("first = 4", "first = 5"), "VB1");
        check(("count = 8", "count = 7"), "CONVW must have 8");
        check(("alu_pixel_parallel = 2", "alu_pixel_parallel = 5"), "more rows");
        check(("[1, 16]", "[16, 1]"), "conv_kernel");
        check(("0x0101", "0x0201"), "fingerprint");
        check(("count = 8", "count = 65535"), "CONVW must have 8");
        check(("depth = 2048", "depth = 4294967295"), "bytes");
        check(("clock_mhz = 300", "clock_mhz = 4294967295"), "MHz");
    }

    #[test]
    fn contradictions_in_descriptions_are_named() {
        let good = include_str!("../dpu/DPUCVDX8G_ISA3_C32B6.toml");
        assert!(description("t", good).is_ok());
        for (change, want) in [
            (("0x0603", "0x0602"), "ISA 3"),
            (("0x0603", "0x0503"), "DPUCVDX8G"),
            (("first = 8", "first = 7"), "VB1"),
            (("batch = 6", "batch = 0"), "batch"),
            (("depth = 8192\nwidth = 16", "depth = 4294967295\nwidth = 4294967295"), "bytes"),
        ] {
            assert!(good.contains(change.0));
            match description("t", &good.replacen(change.0, change.1, 1)) {
                Err(Error::Invalid { fault, .. }) => assert!(fault.contains(want), "{fault}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn contradictions_in_boards_are_named() {
        let good = include_str!("../boards/mps2-an386.toml");
        assert!(board("b", good).is_ok());
        for (change, want) in [
            (("name = \"RAM\"", "name = \"SRAM\""), "needs memory"),
            (("stack = 0x0001_0000", "stack = 0x0001_0004"), "stack"),
            (("stack = 0x0001_0000", "stack = 0x0200_0000"), "stack"),
            (("{ start = 0x2180_0000", "{ start = 0x2170_0000"), "`store` and `arena` overlap"),
            (("{ start = 0x21E0_0000", "{ start = 0x21F0_0000"), "`banks` lies in no memory"),
            (("{ start = 0x2100_0000", "{ start = 0x2000_0000"), "lies in no memory"),
            (("{ start = 0x2180_0000", "{ start = 0x2180_0010"), "`arena` is empty or starts"),
            (("start = 0x2100_0000\nbytes", "start = 0x2000_1000\nbytes"), "overlap"),
        ] {
            assert!(good.contains(change.0), "{change:?}");
            match board("b", &good.replacen(change.0, change.1, 1)) {
                Err(Error::Invalid { fault, .. }) => assert!(fault.contains(want), "{fault}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn contradictions_in_a_boards_processor_are_named() {
        let good = include_str!("../boards/nrf52840-dk.toml");
        let processor = board("b", good).unwrap().processor.unwrap();
        assert_eq!((processor.clock_mhz, processor.counted_on), (64, None));
        for (from, to, named) in [
            ("clock_mhz = 64", "clock_mhz = 0", "`clock_mhz` is 0"),
            ("cycles_per_instruction = 1.5", "cycles_per_instruction = -1.5", "`cycles_per_instruction` is -1.5"),
            ("cycles_per_instruction = 1.5", "cycles_per_instruction = nan", "`cycles_per_instruction` is NaN"),
            ("name = \"RAM\"", "name = \"DTCM\"", "needs memory `RAM`"),
            ("band_percent = 40", "band = 40", "unknown field `band`"),
        ] {
            let why = board("b", &good.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(why.contains(named), "{why}");
        }
    }

    #[test]
    fn contradictions_in_a_boards_dpu_are_named() {
        let good = include_str!("../boards/xlnx-zcu102.toml");
        let dpu = board("b", good).unwrap().firmware.unwrap().dpu.unwrap();
        assert!(crate::find(&dpu.target).is_ok());
        for (change, want) in [
            (("DPUCZDX8G_ISA1_B4096", "DPUCVDX8G_ISA3_C32B6"), "nothing is compiled"),
            (("{ start = 0x8F00_0000, bytes = 0x1000", "{ start = 0x8F00_0000, bytes = 0"), "registers are none"),
            (("{ start = 0x8F00_0000", "{ start = 0x8F00_0002"), "registers are none"),
            (("{ start = 0x8F00_0000", "{ start = 0x10FF_F004"), "overlap memory `DDR`"),
        ] {
            assert!(good.contains(change.0), "{change:?}");
            match board("b", &good.replacen(change.0, change.1, 1)) {
                Err(Error::Invalid { fault, .. }) => assert!(fault.contains(want), "{fault}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn unknown_keys_and_dangling_references_are_errors() {
        assert!(matches!(target("t", "nmae = 1"), Err(Error::Toml { .. })));
        let board_text = "name = 'x'\ntitle = 'X'\ncpu = 'c'\ndpu = 'B9999'\ncores = 1\nclock_mhz = 1\n";
        assert!(board("b", board_text).unwrap_err().to_string().contains("B9999"));
    }
}
