//! Why there is no image of the firmware.

use std::path::PathBuf;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// No board has this name.
    #[error("there is no firmware for board {name:?}; known boards: {known}")]
    UnknownBoard {
        /// The name.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// The directory that the user named does not hold the image.
    #[error("SHIFTWISE_FIRMWARE_DIR holds no {0}")]
    NotInDirectory(PathBuf),
    /// Neither an image nor its sources are here.
    #[error(
        "this program carries no image of the firmware, and is neither in a checkout of the sources nor started in one: \
         take a release, which has the images, or build one in a checkout with `cargo xtask firmware build` and set \
         SHIFTWISE_FIRMWARE_DIR to the directory that holds NAME.elf"
    )]
    NoSources,
    /// No compiler for the board.
    #[error(
        "no compiler for {0}; install one:\n  rustup target add {0}\nor, on Debian:\n  \
         apt-get install rustc-web cargo-web rust-web-src lld"
    )]
    NoToolchain(String),
    /// The compiler failed, and has said why.
    #[error("building the firmware failed ({0})")]
    Build(String),
    /// The image cannot be read back.
    #[error("reading {path}: {why}")]
    Read {
        /// The image.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}
