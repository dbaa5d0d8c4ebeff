//! What a machine needs besides Rust: an emulator and a compiler for the boards.

use std::error::Error;
use std::process::{Command, Stdio};

use shiftwise_board::image;
use shiftwise_board::image::BoardImage;

/// Installs what is missing, and nothing else.
pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    for board in image::boards() {
        emulator(board)?;
        println!("{}: built by {}", board.name, compiler(board)?);
    }
    c_compiler()
}

/// The compiler and C library that the example in C is built with.
fn c_compiler() -> Result<(), Box<dyn Error>> {
    let program = "arm-none-eabi-gcc";
    if !works(program, &["--version"]) {
        apt(&["gcc-arm-none-eabi", "libnewlib-arm-none-eabi"])
            .map_err(|why| format!("{program} is missing ({why}); install the GNU compiler for bare Arm"))?;
    }
    println!("the example in C: built by {program}");
    Ok(())
}

/// Adds a component of the Rust toolchain where a command that it brings is missing.
pub(crate) fn component(command: &str, component: &str) -> Result<(), Box<dyn Error>> {
    if works("cargo", &[command, "--version"]) || run("rustup", &["component", "add", component]) {
        return Ok(());
    }
    Err(format!("`cargo {command}` is missing; install it: `rustup component add {component}`").into())
}

fn emulator(board: &BoardImage) -> Result<(), Box<dyn Error>> {
    let (program, package) = (board.emulator.program.as_str(), board.emulator.package.as_str());
    if works(program, &["--version"]) {
        return Ok(());
    }
    apt(&[package]).map_err(|why| format!("{program} is missing ({why}); install QEMU's package with it"))?;
    if works(program, &["--version"]) {
        return Ok(());
    }
    Err(format!("{program} was installed but does not start").into())
}

/// A compiler for the board's target: the default toolchain's if it has or can get the target, else Debian's.
fn compiler(board: &BoardImage) -> Result<&'static str, Box<dyn Error>> {
    let found = || image::compiler(board);
    if let Ok(name) = found() {
        return Ok(name);
    }
    if run("rustup", &["target", "add", &board.firmware.target])
        && let Ok(name) = found()
    {
        return Ok(name);
    }
    apt(&["rustc-web", "cargo-web", "rust-web-src"]).map_err(|why| format!("{why}; {}", hint(board)))?;
    if let Ok(name) = found() {
        return Ok(name);
    }
    // Debian's compiler comes without a linker for bare metal.
    apt(&["lld"]).map_err(|why| format!("{why}; {}", hint(board)))?;
    Ok(found()?)
}

fn hint(board: &BoardImage) -> String {
    format!("no compiler for {0}: install one with `rustup target add {0}`", board.firmware.target)
}

/// Installs Debian packages, as root or with sudo.
fn apt(packages: &[&str]) -> Result<(), String> {
    if !works("apt-get", &["--version"]) {
        return Err("there is no apt-get to install packages with".into());
    }
    let mut prefix = Vec::new();
    if !is_root() {
        if !works("sudo", &["--version"]) {
            return Err(format!("installing {} needs root, and there is no sudo", packages.join(" ")));
        }
        prefix.push("sudo");
    }
    // Old package lists name files that are gone.
    let update = ["apt-get", "update", "-qq"].as_slice();
    let install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends"];
    let install: Vec<&str> = install.iter().chain(packages).copied().collect();
    for words in [update, &install] {
        let words: Vec<&str> = prefix.iter().chain(words).copied().collect();
        if let [program, arguments @ ..] = words.as_slice()
            && !run(program, arguments)
        {
            return Err(format!("`{}` failed", words.join(" ")));
        }
    }
    Ok(())
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").stderr(Stdio::null()).output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// Whether a program is there and agrees to this question.
pub(crate) fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs a command that changes the machine, and says so first.
fn run(program: &str, arguments: &[&str]) -> bool {
    println!("+ {program} {}", arguments.join(" "));
    let mut command = Command::new(program);
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            println!("  {program}: {error}");
            false
        }
    }
}
