//! The image of a board, whose own DPU, if it has one, is left alone.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod board;
#[cfg(target_os = "none")]
mod serve;
#[cfg(target_os = "none")]
use serve::serve;

#[cfg(not(target_os = "none"))]
fn main() {
    println!("This is an image for a board: `cargo xtask firmware build` makes it, `shiftwise run --board` uses it.");
}
