//! Collects the data files: a new target or board is a file, not code.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn table(name: &str, folder: &Path) -> io::Result<String> {
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files: Vec<PathBuf> = fs::read_dir(folder)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.retain(|f| f.extension().is_some_and(|e| e == "toml"));
    files.sort();
    let mut text = format!("static {name}: &[(&str, &str)] = &[\n");
    for file in files {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let _ = writeln!(text, "    ({stem:?}, include_str!({:?})),", file.display().to_string());
    }
    text.push_str("];\n");
    Ok(text)
}

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let tables = [("DPU_FILES", "dpu"), ("BOARD_FILES", "boards"), ("TIMING_FILES", "timing")];
    let text = tables.iter().map(|(name, folder)| table(name, &root.join(folder))).collect::<io::Result<String>>()?;
    fs::write(out.join("files.rs"), text)
}
