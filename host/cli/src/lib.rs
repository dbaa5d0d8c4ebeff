//! The `shiftwise` command, for the program and for the Python package.

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
mod shell;
mod simulate;
mod strategy;
mod target_args;
mod targets;
mod train;

pub use command::run;
