//! An archive with the program for machines without anything installed: linked statically, with the images of all boards.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use shiftwise_board::image;

use crate::step::{self, Step};

/// Files of the repository that go along.
const PAPERS: [&str; 3] = ["README.md", "LICENSE-APACHE", "LICENSE-MIT"];

/// Builds images and program, and packs them into `target/release-archive`.
pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let root = step::root();
    let images = root.join("target/release-images");
    collect(&images)?;
    let host = output("rustc", &["--print", "host-tuple"])?;
    // Flags hold for the named target only: build scripts and macros stay as they are. A folder of its own, since with other
    // flags everything is built anew.
    let words = ["cargo", "build", "--release", "--package", "shiftwise-cli", "--config", "profile.release.strip=true"];
    Step::new("static program", &words)
        .word(format!("--config=target.{host}.rustflags=[\"-Ctarget-feature=+crt-static\"]"))
        .word(format!("--target={host}"))
        .word("--target-dir=target/release-build".into())
        .with_path("SHIFTWISE_IMAGES", &images)
        .run()?;
    let program = root.join("target/release-build").join(&host).join("release/shiftwise");
    let name = format!("shiftwise-{}-{host}", env!("CARGO_PKG_VERSION"));
    let archive = pack(&root, &program, &name)?;
    println!("{}: program of {} bytes", archive.display(), fs::metadata(&program)?.len());
    Ok(())
}

/// The image of each board, by its name.
fn collect(directory: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(directory)?;
    for board in image::boards() {
        println!("image for {}", board.name);
        fs::copy(image::build(board)?.elf, directory.join(&board.name).with_extension("elf"))?;
    }
    Ok(())
}

/// The archive, and its checksum beside it.
fn pack(root: &Path, program: &Path, name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let all = root.join("target/release-archive");
    let folder = all.join(name);
    fs::create_dir_all(&folder)?;
    fs::copy(program, folder.join("shiftwise"))?;
    for paper in PAPERS.iter().filter(|paper| root.join(paper).is_file()) {
        fs::copy(root.join(paper), folder.join(paper))?;
    }
    let archive = all.join(format!("{name}.tar.gz"));
    let packed = Command::new("tar").current_dir(&all).arg("-czf").args([&archive, Path::new(name)]).status()?;
    if !packed.success() {
        return Err("tar could not pack the program".into());
    }
    let file = archive.file_name().ok_or("an archive has a name")?;
    let sum = Command::new("sha256sum").current_dir(&all).arg(file).output()?;
    fs::write(all.join("SHA256SUMS"), sum.stdout)?;
    Ok(archive)
}

/// The first line that a program prints.
fn output(program: &str, words: &[&str]) -> Result<String, Box<dyn Error>> {
    let said = Command::new(program).args(words).output()?;
    let first = String::from_utf8(said.stdout)?.lines().next().map(str::to_owned);
    first.ok_or_else(|| format!("{program} says nothing").into())
}
