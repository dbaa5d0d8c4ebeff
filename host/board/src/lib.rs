//! Boards: running a deployable on a machine at the other end of a serial link.
//!
//! [`Board::start`] boots an emulator (or opens a port), [`Board::load`] sends a deployable, [`Board::sample`] runs it
//! once and returns what the board reported; [`run_on_board`] does all three. Damaged and lost frames are repeated; a
//! board that stays silent is an error, never a hang.
//!
//! Without the feature `machine`, which is on by default, there are only the firmware's images.

pub mod image;
mod image_error;
mod prebuilt;
mod toolchain;

#[cfg(feature = "machine")]
mod client;
#[cfg(feature = "machine")]
mod machine;
#[cfg(feature = "machine")]
mod run;
#[cfg(feature = "machine")]
mod session;

#[cfg(feature = "machine")]
pub use client::{Client, Info};
#[cfg(feature = "machine")]
pub use machine::{Board, SerialLog, boot_to_end};
#[cfg(feature = "machine")]
pub use run::{Session, run_on_board};
#[cfg(feature = "machine")]
pub use session::{BoardSpec, Difference, Limits, LinkError, Reported, SampleResult, SelfTested, SerialPort};
#[cfg(feature = "machine")]
pub use shiftwise_core::link::{Fault, Report, Wrong};
