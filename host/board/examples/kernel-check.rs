//! Compares the kernels of a board's firmware with those that define them: builds the image that does so, boots it on the
//! board's emulator and prints what it says.
//!
//! `cargo run -p shiftwise-board --example kernel-check -- mps2-an386`

use std::time::Duration;

use shiftwise_board::{boot_to_end, image};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = std::env::args().nth(1).ok_or("the name of a board is expected")?;
    let board = image::board(&name)?;
    let built = image::build_check(board)?;
    for line in boot_to_end(board, &built.elf, Duration::from_secs(600))? {
        println!("{line}");
    }
    Ok(())
}
