//! Integration tests, one binary.

mod beyond;
mod board;
mod c_library;
mod chain;
mod cli;
mod compile;
mod damage;
mod dataset;
mod deployable;
mod dump;
mod estimate;
mod format;
mod generations;
mod golden;
mod keras;
mod own;
mod props;
mod qemu;
mod quantized;
mod resident;
mod tidy;
mod xmodel;
mod zoo;
