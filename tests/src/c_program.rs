//! Programs in C around the static library, for an emulated Cortex-M4F.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use shiftwise_board::image::{CLibrary, build_c_library, measure};

const TARGET: &str = "thumbv7em-none-eabihf";
const CPU: [&str; 4] = ["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"];

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware/examples/c")
}

/// Builds the library into `folder`, under a name of its own.
pub fn library(folder: &Path, library: CLibrary<'_>) -> Result<PathBuf, Box<dyn Error>> {
    let built = build_c_library(TARGET, library)?;
    let CLibrary { small, layers } = library;
    let own = folder.join(format!("lib{}{}.a", layers.concat(), if small { "small" } else { "fast" }));
    std::fs::copy(built, &own)?;
    Ok(own)
}

/// Links `main` of the example's folder around a deployable; returns the image in `folder`.
pub fn link(folder: &Path, main: &str, library: &Path, file: &[u8]) -> Result<PathBuf, Box<dyn Error>> {
    let (example, model, elf) = (example(), folder.join("model.swm"), folder.join("example.elf"));
    std::fs::write(&model, file)?;
    let mut gcc = Command::new("arm-none-eabi-gcc");
    gcc.args(CPU).args(["-std=c11", "-Os", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-nostartfiles"]);
    gcc.arg(format!("-DMODEL=\"{}\"", model.display())).arg("-DARENA_BYTES=65536");
    gcc.args([example.join("start.c"), example.join(main)]).arg(library);
    gcc.arg("-T")
        .arg(example.join("link.ld"))
        .args(["-Wl,--gc-sections", "-Wl,--no-warn-rwx-segments,-z,noexecstack", "-o"])
        .arg(&elf);
    if gcc.status()?.success() { Ok(elf) } else { Err("the C program does not link".into()) }
}

/// Runs an image to its end: whether it ended well, and what it printed.
pub fn boot(elf: &Path) -> Result<(bool, String), Box<dyn Error>> {
    let mut qemu = Command::new("qemu-system-arm");
    qemu.args(["-M", "mps2-an386", "-nographic", "-monitor", "none", "-serial", "none"]);
    qemu.args(["-semihosting-config", "enable=on,target=native", "-kernel"]).arg(elf);
    let output = qemu.output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

/// Bytes of code and constants that the library adds to the least program, and the ways to panic that are in it.
pub fn least(folder: &Path, library: &Path) -> Result<(u64, Vec<String>), Box<dyn Error>> {
    let image = measure(link(folder, "least.c", library, &[])?, "")?;
    let nothing = measure(link(folder, "nothing.c", library, &[])?, "")?;
    Ok((image.code - nothing.code, image.panics))
}
