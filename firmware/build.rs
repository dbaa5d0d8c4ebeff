//! Picks the kernels for the processor; makes a board's memory map, constants and linker arguments from its data file.

use std::error::Error;
use std::fmt::Write;
use std::path::PathBuf;
use std::{env, fs};

use shiftwise_targets::{Board, Firmware, RegisterLayout, boards, find, find_board};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=link");
    println!("cargo::rerun-if-env-changed=SHIFTWISE_BOARD");
    let known: Vec<String> = boards().into_iter().filter(|b| b.firmware.is_some()).map(|b| b.name).collect();
    let names: Vec<String> = known.iter().map(|name| format!("{name:?}")).collect();
    println!("cargo::rustc-check-cfg=cfg(board, values({}))", names.join(", "));
    // Arm's DSP extension, which the stable compiler has no `target_feature` for.
    println!("cargo::rustc-check-cfg=cfg(dsp)");
    let target = env::var("TARGET")?;
    if ["thumbv7em-", "armv7r-"].iter().any(|family| target.starts_with(family)) {
        println!("cargo::rustc-cfg=dsp");
    }
    // A build for the host is for the library's tests, and one without images must leave the user's linker alone.
    if env::var("CARGO_CFG_TARGET_OS")? != "none" || env::var_os("CARGO_FEATURE_IMAGE").is_none() {
        return Ok(());
    }
    let asked = env::var("SHIFTWISE_BOARD").unwrap_or_else(|_| "mps2-an386".into());
    let board = find_board(&asked)?;
    let Some(firmware) = &board.firmware else {
        return Err(format!("there is no firmware for board {asked}; there is for {}", known.join(", ")).into());
    };
    if target != firmware.target {
        return Err(format!("board {asked} is built for {}, not for {target}", firmware.target).into());
    }
    println!("cargo::rustc-cfg=board={:?}", board.name);

    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("memory.x"), memory(&board, firmware)?)?;
    let mut text = constants(&board, firmware);
    if env::var_os("CARGO_FEATURE_DPU").is_some() {
        text += &dpu(firmware)?.ok_or_else(|| format!("board {asked} has no DPU in its data file"))?;
    }
    fs::write(out.join("board.rs"), text)?;
    println!("cargo::rustc-link-search={}", out.display());
    println!("cargo::rustc-link-search={}/link", env::var("CARGO_MANIFEST_DIR")?);
    // Cortex-M starts by the script of its run-time crate.
    let script = if target.starts_with("thumb") { "-Tlink.x" } else { "-Tstart.x" };
    for argument in ["--nmagic", script, "-Tdefmt.x"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    Ok(())
}

/// What the linker may fill, and where the stack ends.
fn memory(board: &Board, firmware: &Firmware) -> Result<String, std::fmt::Error> {
    let mut text = String::from("MEMORY\n{\n");
    for name in ["FLASH", "RAM"] {
        if let Some(memory) = board.memory(name) {
            writeln!(text, "  {name} : ORIGIN = {:#x}, LENGTH = {:#x}", memory.start, memory.bytes)?;
        }
    }
    writeln!(text, "}}\n_stack_end = ORIGIN(RAM) + LENGTH(RAM) - {:#x};", firmware.stack)?;
    writeln!(text, "ASSERT(__sheap <= _stack_end, \"the data leaves no room for the stack\");")?;
    Ok(text)
}

fn range(r: shiftwise_targets::Range) -> String {
    format!("{:#x}..{:#x}", r.start, r.start + r.bytes)
}

/// What the image knows of its DPU.
fn dpu(firmware: &Firmware) -> Result<Option<String>, Box<dyn Error>> {
    let Some(dpu) = &firmware.dpu else { return Ok(None) };
    let layout = match dpu.layout {
        RegisterLayout::Vivado => "VIVADO",
        RegisterLayout::Vitis => "VITIS",
    };
    Ok(Some(format!(
        "const DPU_FINGERPRINT: u64 = {:#018x};\n\
         const DPU_LAYOUT: &shiftwise_firmware::mmio::Layout = &shiftwise_firmware::mmio::{layout};\n\
         const DPU_REGISTERS: core::ops::Range<usize> = {};\n\
         const DPU_CORE: u8 = {};\n\
         const DPU_COHERENT: bool = {};\n",
        find(&dpu.target)?.fingerprint,
        range(dpu.registers),
        dpu.core,
        dpu.coherent,
    )))
}

/// What the image knows of its board.
fn constants(board: &Board, firmware: &Firmware) -> String {
    format!(
        "pub(crate) const NAME: &str = {:?};\n\
         const TICKS_PER_SECOND: u32 = {};\n\
         const STORE: core::ops::Range<usize> = {};\n\
         const ARENA: core::ops::Range<usize> = {};\n\
         const BANKS: core::ops::Range<usize> = {};\n",
        board.name,
        firmware.ticks_per_second,
        range(firmware.store),
        range(firmware.arena),
        range(firmware.banks),
    )
}
