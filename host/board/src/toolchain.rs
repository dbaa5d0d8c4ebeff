//! Compilers for other machines: which there is, and how it is called.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::image_error::ImageError;

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";

/// A compiler for a board's target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// The default compiler, which has the target installed.
    Installed,
    /// Debian's packages, which build `core` from its sources.
    Debian,
}

impl Toolchain {
    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Installed => "the installed toolchain",
            Self::Debian => "Debian's rustc-web, core from source",
        }
    }

    /// The compiler for a target. Errors: there is none.
    pub(crate) fn of(target: &str) -> Result<Self, ImageError> {
        let library = output("rustc", &["--print", "target-libdir", "--target", target]);
        if library.is_some_and(|path| Path::new(&path).is_dir()) {
            return Ok(Self::Installed);
        }
        let sources = output(DEBIAN_RUSTC, &["--print", "sysroot"]).map(|s| Path::new(&s).join("lib/rustlib/src/rust"));
        if Path::new(DEBIAN_CARGO).is_file() && sources.is_some_and(|s| s.join("library/core").is_dir()) {
            return Ok(Self::Debian);
        }
        Err(ImageError::NoToolchain(target.into()))
    }

    /// A cargo command for a target, in the checkout's sources, and the directory of its results. Where the target's
    /// libraries have to be built from source, those are `libraries`.
    pub(crate) fn cargo(self, word: &str, target: &str, libraries: &str) -> Result<(Command, PathBuf), ImageError> {
        let root = sources().ok_or(ImageError::NoSources)?;
        let mut command = Command::new(match self {
            Self::Installed => "cargo",
            Self::Debian => DEBIAN_CARGO,
        });
        // This may run inside another cargo, whose choices are for the host.
        for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC", "RUSTC_WRAPPER", "CARGO_BUILD_TARGET"] {
            command.env_remove(variable);
        }
        // Two compilers must not share a directory: each would undo the other's work.
        let directory = root.join("target/firmware").join(match self {
            Self::Installed => "installed",
            Self::Debian => "debian",
        });
        command.current_dir(&root).args([word, "--quiet", "--target", target, "--target-dir"]).arg(&directory);
        if self == Self::Debian {
            command.arg(format!("-Zbuild-std={libraries}")).env("RUSTC_BOOTSTRAP", "1").env("RUSTC", DEBIAN_RUSTC);
        }
        Ok((command, directory))
    }
}

/// The checkout that this program lies in, else the one that it is started in, else that of the cargo that started it.
///
/// Not the one that it was built from: that may be anywhere by now, and somebody else's.
fn sources() -> Option<PathBuf> {
    let program = std::env::current_exe().and_then(std::fs::canonicalize).ok();
    let places = [program, std::env::current_dir().ok(), std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from)];
    let own = |root: &&Path| {
        let manifest = std::fs::read_to_string(root.join("firmware/Cargo.toml")).unwrap_or_default();
        manifest.contains("name = \"shiftwise-firmware\"")
    };
    places.iter().flatten().find_map(|place| place.ancestors().find(own).map(Path::to_path_buf))
}

/// First line of a program's output; `None` if it is missing or fails.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_string())
}

/// A linker for bare metal: the one inside a Rust toolchain, else LLVM's.
pub(crate) fn linker(target: &str) -> Result<String, ImageError> {
    for rustc in ["rustc", DEBIAN_RUSTC] {
        let (Some(sysroot), Some(host)) =
            (output(rustc, &["--print", "sysroot"]), output(rustc, &["--print", "host-tuple"]))
        else {
            continue;
        };
        let lld = Path::new(&sysroot).join("lib/rustlib").join(host).join("bin/rust-lld");
        if lld.is_file() {
            return Ok(lld.display().to_string());
        }
    }
    match output("ld.lld", &["--version"]) {
        Some(_) => Ok("ld.lld".into()),
        None => Err(ImageError::NoToolchain(target.into())),
    }
}
