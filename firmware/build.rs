//! Picks the kernels for the processor, and the board's memory map and the linker scripts of an image.

use std::path::Path;
use std::{env, fs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=boards");
    println!("cargo:rerun-if-env-changed=SHIFTWISE_BOARD");
    // Arm's DSP extension, which the stable compiler has no `target_feature` for.
    println!("cargo:rustc-check-cfg=cfg(dsp)");
    let target = env::var("TARGET")?;
    if ["thumbv7em-", "armv7r-"].iter().any(|family| target.starts_with(family)) {
        println!("cargo:rustc-cfg=dsp");
    }
    // A build for the host is for the library's tests.
    if env::var("CARGO_CFG_TARGET_OS")? != "none" {
        return Ok(());
    }
    let board = env::var("SHIFTWISE_BOARD").unwrap_or_else(|_| "mps2-an386".into());
    let map = Path::new("boards").join(&board).with_extension("x");
    if !map.is_file() {
        let mut known = Vec::new();
        for entry in fs::read_dir("boards")? {
            known.extend(entry?.path().file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
        known.sort();
        return Err(format!("SHIFTWISE_BOARD={board} is not a known board; known: {}", known.join(", ")).into());
    }
    let out = env::var("OUT_DIR")?;
    fs::copy(&map, Path::new(&out).join("memory.x"))?;
    println!("cargo:rustc-link-search={out}");
    for argument in ["--nmagic", "-Tlink.x", "-Tdefmt.x"] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    Ok(())
}
