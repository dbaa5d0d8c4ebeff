//! Takes in the images that a released binary carries: those in the directory `SHIFTWISE_IMAGES`, if it is set.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=SHIFTWISE_IMAGES");
    println!("cargo::rerun-if-changed=build.rs");
    let mut images: Vec<PathBuf> = Vec::new();
    if let Some(directory) = env::var_os("SHIFTWISE_IMAGES") {
        println!("cargo::rerun-if-changed={}", Path::new(&directory).display());
        for entry in fs::read_dir(&directory)? {
            images.push(entry?.path());
        }
        images.retain(|path| path.extension().is_some_and(|ext| ext == "elf"));
        images.sort();
    }
    let mut text = "&[\n".to_owned();
    for path in &images {
        let name = path.file_stem().and_then(|stem| stem.to_str()).ok_or("an image's name is no text")?;
        writeln!(text, "    ({name:?}, include_bytes!({:?})),", fs::canonicalize(path)?)?;
    }
    text.push(']');
    fs::write(Path::new(&env::var("OUT_DIR")?).join("prebuilt.rs"), text)?;
    Ok(())
}
