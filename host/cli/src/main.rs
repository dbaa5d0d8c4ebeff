//! The `shiftwise` command.

mod analyze;
mod averages;
mod boards;
mod command;
mod compile;
mod convert;
mod data;
mod deploy;
mod diff;
mod dump;
mod estimate;
mod evaluate;
mod export;
mod footprint;
mod help;
mod hint;
mod info;
mod inspect;
mod layer_table;
mod machine_code;
mod outcome;
mod predict;
mod proof;
mod quantize;
mod report;
mod screen;
mod shards;
mod shell;
mod simulate;
mod strategy;
mod target_args;
mod targets;
mod train;
mod tune;

fn main() -> std::process::ExitCode {
    command::main()
}
