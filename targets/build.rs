//! Collects the data files: a new target or board is a file, not code.
//!
//! Files of targets come with the two facts by which they are looked up, so that only the one asked for is parsed.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files: Vec<PathBuf> = fs::read_dir(folder)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.retain(|f| f.extension().is_some_and(|e| e == "toml"));
    files.sort();
    Ok(files)
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The value of a top-level key; the parser checks later that it is what it seems to be.
fn key<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let head = text.lines().take_while(|l| !l.starts_with('['));
    head.filter_map(|l| l.split_once('=')).find(|(k, _)| k.trim() == name).map(|(_, v)| v.trim())
}

fn targets(folder: &Path) -> io::Result<String> {
    let mut text = String::from("static DPU_FILES: &[DpuFile] = &[\n");
    for file in files(folder)? {
        let own = fs::read_to_string(&file)?;
        let digits = key(&own, "fingerprint").unwrap_or("0x0").replace('_', "");
        let fingerprint = u64::from_str_radix(digits.trim_start_matches("0x"), 16).unwrap_or(0);
        let (name, path) = (stem(&file), file.display().to_string());
        let described = key(&own, "missing").is_some();
        let _ = writeln!(
            text,
            "    DpuFile {{ name: {name:?}, fingerprint: {fingerprint:#x}, described: {described}, text: include_str!({path:?}) }},"
        );
    }
    Ok(text + "];\n")
}

/// A table of names and texts.
fn texts(table: &str, folder: &Path) -> io::Result<String> {
    let mut text = format!("static {table}: &[(&str, &str)] = &[\n");
    for file in files(folder)? {
        let _ = writeln!(text, "    ({:?}, include_str!({:?})),", stem(&file), file.display().to_string());
    }
    Ok(text + "];\n")
}

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let boards = texts("BOARD_FILES", &root.join("boards"))?;
    let timing = texts("TIMING_FILES", &root.join("timing"))?;
    fs::write(out.join("files.rs"), targets(&root.join("dpu"))? + &boards + &timing)
}
