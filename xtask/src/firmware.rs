//! Firmware images: build, measure, try.

use std::error::Error;
use std::time::Duration;

use shiftwise_board::image;
use shiftwise_board::image::{BoardImage, Image};
use shiftwise_board::{BoardSpec, Report, Reported, boot_to_end, run_on_board};
use shiftwise_core::model::Deployable;

/// `build`, `size`, `check`, `run` or `examples`, then options.
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
        ("run", [file]) => run(one()?, file),
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

/// Random layers through the board's kernels and those that define them.
fn check(board: &BoardImage) -> Result<(), Box<dyn Error>> {
    let built = image::build_check(board)?;
    for line in boot_to_end(board, &built.elf, Duration::from_secs(600))? {
        println!("{line}");
    }
    Ok(())
}

fn print_sizes(board: &BoardImage, image: &Image) {
    let what = if image.elf.ends_with("with-dpu") { " with the DPU's driver" } else { "" };
    println!("board {}{what} ({}), built by {}", board.name, board.firmware.target, image.toolchain);
    println!("{} bytes of code and constants, {} of data, {} zeroed", image.code, image.data, image.zeroed);
}

fn run(board: &'static BoardImage, path: &str) -> Result<(), Box<dyn Error>> {
    let file = std::fs::read(path).map_err(|e| format!("{path}: {e}"))?;
    let model = Deployable::parse(&file)?;
    let sizes = |tensors: &mut dyn Iterator<Item = u32>| tensors.map(|n| n as usize).collect::<Vec<_>>();
    let inputs = sizes(&mut model.inputs().map(|(_, t)| t.bytes()));
    let outputs = sizes(&mut model.outputs().map(|(_, t)| t.bytes()));
    let each = (inputs.iter().sum::<usize>() + outputs.iter().sum::<usize>()).max(1);
    // A sample of the self-test, or zeros where there is none, and the outputs that it should give.
    let take = |bytes: &mut &[u8], sizes: &[usize]| -> Vec<Vec<u8>> {
        let part = |n: &usize| {
            let (part, rest) = bytes.split_at_checked(*n)?;
            *bytes = rest;
            Some(part.to_vec())
        };
        sizes.iter().map_while(part).collect()
    };
    let tests: Vec<_> = model
        .self_test()
        .chunks_exact(each)
        .map(|mut sample| (take(&mut sample, &inputs), take(&mut sample, &outputs)))
        .collect();
    let samples: Vec<_> = match tests.as_slice() {
        [] => vec![inputs.iter().map(|n| vec![0; *n]).collect()],
        tests => tests.iter().map(|(inputs, _)| inputs.clone()).collect(),
    };
    let session = run_on_board(&BoardSpec::Qemu(board), &image::find(board)?, &file, samples, Report::Outputs)?;
    session.log.iter().for_each(|line| println!("{line}"));
    let mut wrong = 0;
    for (n, result) in session.samples.iter().enumerate() {
        println!("sample {n}: {} instructions, per step {:?}", result.steps.iter().sum::<u64>(), result.steps);
        let given = model.outputs().filter_map(|(id, _)| result.bytes(id));
        if let Some((_, wanted)) = tests.get(n)
            && !wanted.iter().map(Vec::as_slice).eq(given)
        {
            println!("sample {n}: the outputs differ from the self-test's");
            wrong += 1;
        }
        for (id, reported) in &result.tensors {
            if let (Some(tensor), Reported::Bytes(bytes)) = (model.tensor(*id), reported) {
                println!("  {} {} bytes, CRC-32 {:08x}", tensor.name, bytes.len(), shiftwise_core::model::crc32(bytes));
            }
        }
    }
    match (wrong, tests.len()) {
        (0, 0) => println!("the deployable holds no self-test; ran one sample of zeros"),
        (0, n) => println!("self-test passed: {n} samples"),
        (wrong, n) => return Err(format!("self-test failed: {wrong} of {n} samples").into()),
    }
    Ok(())
}
