//! Help that a person finds their way in: commands by what they are for, and examples of each.

use std::fmt::Write as _;

use clap::Command;

/// Commands by what they are for, in the order of a network's way to a board.
const GROUPS: &[(&str, &[&str])] = &[
    ("From floats to integers", &["quantize", "train", "deploy", "tune", "convert", "strategy"]),
    ("Why, where, how much", &["inspect", "analyze", "estimate", "evaluate", "predict", "report", "diff"]),
    ("To a device", &["compile", "simulate", "run", "targets", "disasm", "asm"]),
    ("Proof", &["verify", "dump", "compare", "merge"]),
    ("Files and shells", &["info", "export", "completions", "man"]),
];

/// Command lines that show what a command is mostly used for.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "quantize",
        &[
            "quantize model.h5 --calib calib.npz:x --scale 1/255",
            "quantize model.onnx --calib images/ --resize 224x224 --mean 127.5 --scale 1/127.5",
            "quantize model.h5 --calib calib.npz:x --set include_fast_ft=true --set fast_ft_algorithm=reconstruct",
        ],
    ),
    (
        "train",
        &[
            "train model.h5 --data train.npz:x --labels train.npz:y --epochs 2 --lr 1e-4",
            "train model.h5 --data train.npz:x --loss distill --strategy pof2s_tqt --init-quant --calib train.npz:x",
        ],
    ),
    ("deploy", &["deploy train_results/qat.h5"]),
    (
        "analyze",
        &[
            "analyze model.h5 --calib calib.npz:x --scale 1/255 --emit strategy.json",
            "analyze model.h5 --calib calib.npz:x --data test.npz:x --labels test.npz:y --html analysis.html",
        ],
    ),
    (
        "tune",
        &[
            "tune model.h5 --calib calib.npz:x --data test.npz:x --labels test.npz:y --max-drop 0.5% --board kv260",
            "tune model.h5 --calib calib.npz:x --data test.npz:x --trials 20",
        ],
    ),
    ("merge", &["merge part1 part2"]),
    (
        "evaluate",
        &[
            "evaluate quantize_results/quantized.h5 --data test.npz:x --labels test.npz:y --baseline model.h5 --max-drop 0.5%",
        ],
    ),
    ("predict", &["predict model.swm --data test.npz:x -o predictions.npy"]),
    ("convert", &["convert model.h5 --to bfloat16"]),
    ("export", &["export quantize_results/quantized.h5 --format onnx --onnx-form qdq"]),
    ("dump", &["dump quantize_results/quantized.h5 --data test.npz:x"]),
    ("compare", &["compare dump_results other_dump"]),
    (
        "inspect",
        &["inspect model.h5 --target B4096 --plot model.svg", "inspect model.h5 --target B4096 --fix fixed.h5"],
    ),
    ("report", &["report model.h5 --board kv260 --calib calib.npz:x -o report.html"]),
    ("diff", &["diff before/quantized.h5 after/quantized.h5"]),
    (
        "compile",
        &[
            "compile quantize_results/quantized.h5 --board kv260 -o model.swm",
            "compile quantize_results/quantized.h5 --target cpu --board nrf52840-dk -o model.swm",
        ],
    ),
    ("estimate", &["estimate model.h5 --board zcu104", "estimate model.json --board stm32f4-discovery --clock 100MHz"]),
    ("simulate", &["simulate model.swm --data test.npz:x --golden dump_results --trace trace.json"]),
    ("verify", &["verify quantize_results/quantized.h5 --data test.npz:x --board kv260"]),
    (
        "run",
        &[
            "run model.swm --board qemu:mps2-an386 --data test.npz:x",
            "run model.swm --board serial:/dev/ttyUSB0 --self-test",
        ],
    ),
    ("info", &["info model.swm"]),
    ("targets", &["targets", "targets kv260"]),
    ("strategy", &["strategy dump pof2s -o strategy.json", "strategy check strategy.json"]),
    ("disasm", &["disasm model.swm"]),
    ("asm", &["asm listing.txt -o code.bin"]),
    ("completions", &["completions bash"]),
    ("man", &["man man1"]),
];

/// Between the description and the options.
const TEMPLATE: &str = "{about}\n\n{usage-heading} {usage}\n{after-help}\n\nOptions:\n{options}\n";

/// The commands under their headings, with what each is for.
fn groups(command: &Command) -> String {
    let widest = command.get_subcommands().map(|c| c.get_name().len()).max().unwrap_or(0);
    let mut text = String::new();
    for (heading, names) in GROUPS {
        let _ = write!(text, "\n{heading}:\n");
        for own in names.iter().filter_map(|name| command.find_subcommand(name)) {
            let about = own.get_about().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {:widest$}  {about}", own.get_name());
        }
    }
    text.push_str("\n`shiftwise COMMAND --help` has a command's options and examples.");
    text
}

/// The command line with its help.
pub(crate) fn with_help(mut command: Command) -> Command {
    for (name, lines) in EXAMPLES {
        let examples: String = lines.iter().map(|line| format!("\n  shiftwise {line}")).collect();
        command = command.mut_subcommand(name, |own| own.after_help(format!("Examples:{examples}")));
    }
    let groups = groups(&command);
    command.help_template(TEMPLATE).after_help(groups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Cli;
    use clap::CommandFactory as _;

    #[test]
    fn every_command_stands_in_one_group_and_every_example_is_understood() {
        let command = with_help(Cli::command());
        let grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        for own in command.get_subcommands().filter(|own| own.get_name() != "help") {
            let name = own.get_name();
            assert_eq!(grouped.iter().filter(|group| **group == name).count(), 1, "{name}");
            assert!(EXAMPLES.iter().any(|(of, _)| *of == name), "{name} has no example");
        }
        for (name, lines) in EXAMPLES {
            for line in *lines {
                let words = ["shiftwise"].into_iter().chain(line.split(' '));
                let parsed = command.clone().try_get_matches_from(words);
                let matches = parsed.unwrap_or_else(|e| panic!("{line}: {e}"));
                assert_eq!(matches.subcommand_name(), Some(*name), "{line}");
            }
        }
    }
}
