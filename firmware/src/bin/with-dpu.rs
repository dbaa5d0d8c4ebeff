//! The image of a board that drives the DPU of the board's data file.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
#[path = "../board/mod.rs"]
mod board;
#[cfg(target_os = "none")]
#[path = "../serve.rs"]
mod serve;
#[cfg(target_os = "none")]
use serve::serve;

#[cfg(not(target_os = "none"))]
fn main() {
    println!("This is an image for a board: `cargo xtask firmware build` makes it.");
}
