//! The door between files and those who read and write them.
//!
//! # Invariants
//! - Readers see the world through [`Files`] only: one file, an archive or a folder, on a disk or in memory.
//! - Readers take hostile input: every count is charged to the budget of the files before memory is taken; so is JSON.
//! - All writing goes through [`Set`] and its functions: nobody sees half a file.
//!
//! API boundary: no; the crate `shiftwise` is.

pub mod json;
mod options;
mod source;
mod write;

pub use options::LoadOptions;
pub use source::Files;
pub use write::*;
