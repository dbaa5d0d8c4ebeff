//! Repository chores: `cargo xtask CHORE`.

mod bench;
mod browser;
mod ci;
mod demo;
mod docs;
mod firmware;
mod fuzz;
mod python;
mod release;
mod setup;
mod step;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask CHORE

  setup                             install what is missing: an emulator, a compiler for the boards
  demo                              set up, build, and verify the digits network on an emulated board
  ci                                set up and run every check
  docs [--check]                    rewrite the pages that are made from tables in the code, or only compare them
  bench [MODEL=HxWxC...]            compare speed with what is installed of other engines, write BENCHMARKS.md
  python [--keras] [PYTHON]         build the native module, check the Python package's types and run its tests
  release                           pack the program, linked statically, with the images of all boards in it
  browser                           check that the library compiles for a browser, without files and boards
  fuzz [--seconds N] [TARGET...]    fuzz every reader, or these, for so long each [default: 60]; 0 replays the corpus
  firmware build [--board NAME]     build the images of a board, or of all
  firmware size [--board NAME]      build it and print its sizes; an error if it can panic
  firmware check [--board NAME]     compare its kernels with those that define them, on the emulated board
  firmware examples [--board NAME]  build the examples for its processor
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["setup"] => setup::main(),
        ["demo"] => demo::main(),
        ["ci"] => ci::main(),
        ["docs"] => docs::main(false),
        ["docs", "--check"] => docs::main(true),
        ["firmware", rest @ ..] => firmware::main(rest),
        ["bench", models @ ..] => bench::main(models),
        ["python", rest @ ..] => python::main(rest),
        ["release"] => release::main(),
        ["browser"] => browser::main(),
        ["fuzz", rest @ ..] => fuzz::main(rest),
        _ => Err(USAGE.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
