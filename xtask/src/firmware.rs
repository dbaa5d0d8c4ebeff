//! Firmware images: build, measure, check.

use std::error::Error;

use shiftwise_board::image;
use shiftwise_board::image::{BoardImage, Image};

use crate::step::Step;

/// `build`, `size`, `check` or `examples`, then options.
pub(crate) fn main(words: &[&str]) -> Result<(), Box<dyn Error>> {
    let [chore, options @ ..] = words else { return Err(crate::USAGE.into()) };
    let (board, files) = match options {
        ["--board", name, files @ ..] => (Some(image::board(name)?), files),
        files => (None, files),
    };
    let chosen = || image::boards().iter().filter(|b| board.is_none_or(|board| board == *b));
    let one = || board.map_or_else(|| image::board("mps2-an386"), Ok);
    match (*chore, files) {
        ("build", []) => chosen().try_for_each(|board| {
            for built in images(board)? {
                println!("{}", built.elf.display());
                print_sizes(board, &built);
            }
            Ok(())
        }),
        ("size", []) => size(&chosen().collect::<Vec<_>>()),
        ("check", []) => check(one()?),
        ("examples", []) => Ok(image::build_examples(one()?)?),
        _ => Err(crate::USAGE.into()),
    }
}

/// The board's image, and the one for its DPU if it may have one.
fn images(board: &BoardImage) -> Result<Vec<Image>, Box<dyn Error>> {
    let with_dpu = image::build_with_dpu(board)?;
    Ok([image::build(board)?].into_iter().chain(with_dpu).collect())
}

/// Sizes of images; an error if one of them can panic.
fn size(boards: &[&BoardImage]) -> Result<(), Box<dyn Error>> {
    let mut sound = true;
    for board in boards {
        for built in images(board)? {
            print_sizes(board, &built);
            for name in &built.panics {
                println!("  can panic: {name}");
            }
            sound &= built.panics.is_empty();
        }
    }
    if sound { Ok(()) } else { Err("an image must not be able to panic".into()) }
}

/// Random layers through the board's kernels and those that define them. Talking to boards takes more crates than all other
/// chores: a program of its own does it.
fn check(board: &BoardImage) -> Result<(), Box<dyn Error>> {
    let run = ["cargo", "run", "--quiet", "--package", "shiftwise-board", "--example", "kernel-check", "--"];
    Step::new("kernels", &run).word(board.name.clone()).run().map(|_| ())
}

fn print_sizes(board: &BoardImage, image: &Image) {
    let what = if image.elf.ends_with("with-dpu") { " with the DPU's driver" } else { "" };
    println!("board {}{what} ({}), built by {}", board.name, board.firmware.target, image.toolchain);
    println!("{} bytes of code and constants, {} of data, {} zeroed", image.code, image.data, image.zeroed);
}
