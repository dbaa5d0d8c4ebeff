//! The `shiftwise` command.

mod averages;
mod backend;
mod boards;
mod command;
mod compile;
mod cost;
mod data;
mod dump;
mod estimate;
mod evaluate;
mod footprint;
mod machine_code;
mod proof;
mod quantize;
mod screen;
mod simulate;
mod strategy;
mod targets;

fn main() -> std::process::ExitCode {
    command::main()
}
