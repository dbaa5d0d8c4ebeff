//! Firmware images: which boards there are, where an image is, and how one is built.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

pub use crate::image_error::ImageError;
use crate::prebuilt;
use crate::toolchain::{Toolchain, linker};
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, SectionKind};
use shiftwise_targets::{Emulator, Firmware};

/// A board that images exist for and that an emulator stands for.
#[derive(Debug, PartialEq, Eq)]
pub struct BoardImage {
    /// Its name.
    pub name: String,
    /// How the image is built, and what it does with the memory.
    pub firmware: Firmware,
    /// The emulator.
    pub emulator: Emulator,
}

/// All boards, by name: those of the data files that have firmware and an emulator.
pub fn boards() -> &'static [BoardImage] {
    static BOARDS: LazyLock<Vec<BoardImage>> = LazyLock::new(|| {
        let image = |board: shiftwise_targets::Board| {
            Some(BoardImage { name: board.name, firmware: board.firmware?, emulator: board.emulator? })
        };
        shiftwise_targets::boards().into_iter().filter_map(image).collect()
    });
    &BOARDS
}

/// Names of all boards, for people.
pub fn names() -> String {
    boards().iter().map(|board| board.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// The board with this name.
pub fn board(name: &str) -> Result<&'static BoardImage, ImageError> {
    let unknown = || ImageError::UnknownBoard { name: name.into(), known: names() };
    boards().iter().find(|board| board.name == name).ok_or_else(unknown)
}

/// An image and its sizes.
#[derive(Clone, Debug)]
pub struct Image {
    /// The ELF file.
    pub elf: PathBuf,
    /// Which compiler made it.
    pub toolchain: &'static str,
    /// Bytes of code and constants in flash.
    pub code: u64,
    /// Bytes of initialised data.
    pub data: u64,
    /// Bytes of zeroed memory.
    pub zeroed: u64,
    /// Names of functions that panic, of the language's own: none means that nothing in the image can.
    pub panics: Vec<String>,
}

/// The board's image: `SHIFTWISE_FIRMWARE_DIR/NAME.elf` if that variable is set, else the one that this binary carries, else
/// built from the sources of the checkout that the program lies in or is started in.
pub fn find(board: &BoardImage) -> Result<PathBuf, ImageError> {
    match std::env::var_os("SHIFTWISE_FIRMWARE_DIR") {
        Some(directory) => {
            let elf = Path::new(&directory).join(&board.name).with_extension("elf");
            if elf.is_file() { Ok(elf) } else { Err(ImageError::NotInDirectory(elf)) }
        }
        None => prebuilt::find(&board.name).unwrap_or_else(|| Ok(build(board)?.elf)),
    }
}

/// The name of the compiler that [`build`] would use for this board; an error if it or its linker is missing.
pub fn compiler(board: &BoardImage) -> Result<&'static str, ImageError> {
    let target = &board.firmware.target;
    let toolchain = Toolchain::of(target)?;
    if toolchain == Toolchain::Debian {
        linker(target)?;
    }
    Ok(toolchain.name())
}

/// Builds the board's image from the checkout's sources; a finished one is only checked for changes.
pub fn build(board: &BoardImage) -> Result<Image, ImageError> {
    build_binary(board, "shiftwise-firmware", "image")
}

/// Builds the board's image with the driver of its DPU; `None` if the board's data file has no DPU.
pub fn build_with_dpu(board: &BoardImage) -> Result<Option<Image>, ImageError> {
    board.firmware.dpu.as_ref().map(|_| build_binary(board, "with-dpu", "dpu")).transpose()
}

/// Builds the image that compares the board's kernels with those that define them, and ends.
pub fn build_check(board: &BoardImage) -> Result<Image, ImageError> {
    build_binary(board, "kernel-check", "image")
}

/// How the static library for users of C is built.
#[derive(Clone, Copy, Debug)]
pub struct CLibrary<'a> {
    /// Small before fast.
    pub small: bool,
    /// Features: which layers are built in beside those that are always there.
    pub layers: &'a [&'a str],
}

impl CLibrary<'_> {
    /// All layers, fast.
    pub const WHOLE: Self = Self { small: false, layers: &["depthwise", "extra", "floats"] };
}

/// Builds the static library for users of C, for a processor without an operating system. The next build with other
/// layers overwrites it.
pub fn build_c_library(target: &str, library: CLibrary<'_>) -> Result<PathBuf, ImageError> {
    let layers = library.layers.join(",");
    let arguments = ["--package", "shiftwise-c", "--lib", "--no-default-features", "--features", &layers];
    let profile = if library.small { "firmware-small" } else { "firmware" };
    Ok(compile(target, profile, &[], &arguments)?.0.join("libshiftwise.a"))
}

/// Builds the examples for users of Rust, for a board's processor.
pub fn build_examples(board: &BoardImage) -> Result<(), ImageError> {
    compile(&board.firmware.target, "firmware", &[], &["--package", "shiftwise-examples", "--lib"]).map(|_| ())
}

fn build_binary(board: &BoardImage, name: &str, feature: &str) -> Result<Image, ImageError> {
    let arguments = ["--package", "shiftwise-firmware", "--features", feature, "--bin", name];
    let (directory, toolchain) =
        compile(&board.firmware.target, "firmware", &[("SHIFTWISE_BOARD", &board.name)], &arguments)?;
    measure(directory.join(name), toolchain)
}

/// Compiles a part of the checkout's sources; returns the directory of the results and the compiler's name.
fn compile(
    target: &str,
    profile: &str,
    variables: &[(&str, &str)],
    arguments: &[&str],
) -> Result<(PathBuf, &'static str), ImageError> {
    let toolchain = Toolchain::of(target)?;
    let (mut command, directory) = toolchain.cargo("build", target, "core")?;
    command.envs(variables.iter().copied()).args(arguments).args(["--profile", profile]);
    if std::env::var_os("DEFMT_LOG").is_none() {
        // Without a level defmt keeps errors only.
        command.env("DEFMT_LOG", "info");
    }
    if toolchain == Toolchain::Debian {
        // Separated by 0x1F, so that a path with spaces stays one argument.
        let flags = format!("-C\u{1f}linker={}\u{1f}-C\u{1f}linker-flavor=ld.lld", linker(target)?);
        command.env("CARGO_ENCODED_RUSTFLAGS", flags);
    }
    finish(command)?;
    Ok((directory.join(target).join(profile), toolchain.name()))
}

/// Checks, without building it, that a library of the workspace compiles for a target that has a standard library, without
/// its default features: for `wasm32-unknown-unknown` that it runs in a browser as far as a compiler can tell.
///
/// Errors: no compiler that has the target's standard library or its sources; whatever the compiler finds.
pub fn check_library(package: &str, target: &str) -> Result<&'static str, ImageError> {
    let toolchain = Toolchain::of(target)?;
    let (mut command, _) = toolchain.cargo("check", target, "std,panic_abort")?;
    command.args(["--package", package, "--lib", "--no-default-features"]);
    finish(command)?;
    Ok(toolchain.name())
}

fn finish(mut command: Command) -> Result<(), ImageError> {
    let status = command.status().map_err(|e| ImageError::Build(format!("cargo: {e}")))?;
    if status.success() { Ok(()) } else { Err(ImageError::Build(status.to_string())) }
}

/// Sizes of a finished image, and what in it can panic.
pub fn measure(elf: PathBuf, toolchain: &'static str) -> Result<Image, ImageError> {
    let bad = |why: String| ImageError::Read { path: elf.clone(), why };
    let bytes = std::fs::read(&elf).map_err(|e| bad(e.to_string()))?;
    let file = object::File::parse(&*bytes).map_err(|e| bad(e.to_string()))?;
    let (mut code, mut data, mut zeroed) = (0, 0, 0);
    for section in file.sections() {
        let loaded = matches!(section.flags(), SectionFlags::Elf { sh_flags } if sh_flags & 2 != 0);
        match section.kind() {
            _ if !loaded => {}
            SectionKind::Data => data += section.size(),
            SectionKind::UninitializedData => zeroed += section.size(),
            _ => code += section.size(),
        }
    }
    let mut panics: Vec<String> = file
        .symbols()
        .filter_map(|symbol| symbol.name().ok())
        .filter(|name| name.starts_with("_") && name.contains("core9panicking"))
        .map(str::to_string)
        .collect();
    panics.sort();
    panics.dedup();
    Ok(Image { elf, toolchain, code, data, zeroed, panics })
}
