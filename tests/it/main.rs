//! Integration tests, one binary.

mod averages;
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
mod golden;
mod images;
mod keras;
mod own;
mod props;
mod qemu;
mod quantized;
mod resident;
mod tidy;
mod xmodel;
mod zoo;
