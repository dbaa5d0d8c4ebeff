//! The command line: arguments in, library calls, tables and JSON out.
//!
//! Exit codes: 0 done; 1 the command ran and the answer is no; 2 bad usage or bad input.

use std::ffi::OsString;

use clap::builder::RangedU64ValueParser;
use clap::error::ContextValue;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use serde_json::Value;
use shiftwise::reports::{Failure, FailureText};
use shiftwise::text;
use shiftwise_graph::error::Error;

use crate::given;
use crate::hint::hint;
use crate::outcome::{Outcome, to_json};
use crate::screen::Screen;
use crate::{
    analyze, boards, compile, convert, data, deploy, diff, dump, estimate, evaluate, export, help, info, inspect,
    machine_code, predict, proof, quantize, report, screen, shards, shell, simulate, strategy, targets, train, tune,
};

/// From a float network to numbers you can trust on a DPU, with proof.
#[derive(Debug, Parser)]
#[command(name = "shiftwise", version = env!("SHIFTWISE_VERSION"), about, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    screen: screen::Options,
    /// Threads to use [default: all cores]; never changes a byte of any output
    #[arg(long, global = true, value_name = "N", value_parser = threads(), help_heading = screen::EVERY)]
    threads: Option<usize>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Quantize a float model with calibration data
    Quantize(quantize::Args),
    /// Train a network with its quantizers, or a float one without
    Train(Box<train::Args>),
    /// Turn a trained network into what runs: normalizations folded, positions adjusted
    Deploy(deploy::Args),
    /// Say where quantization hurts, why, and what helps by how much
    Analyze(analyze::Args),
    /// Search what the strategy leaves open for accuracy and time
    Tune(tune::Args),
    /// Accuracy of a float or quantized model on labelled data
    Evaluate(evaluate::Args),
    /// Join the parts of a run that several processes have shared: the same bytes as one run
    Merge(shards::Args),
    /// Outputs of a float, quantized or compiled model for every sample
    Predict(predict::Args),
    /// Convert a float model to float16, bfloat16, float32 or float64
    Convert(convert::Args),
    /// Write a model in another format: ONNX, or the vendor's quantized model
    Export(export::Args),
    /// Write every tensor of a quantized model as integers, in the vendor's folder layout
    Dump(dump::Args),
    /// Compare two dump folders
    Compare(dump::CompareArgs),
    /// Say where each layer of a model would run, why, and at what price
    Inspect(inspect::Args),
    /// Write a page about a model on a target: placement, time, accuracy
    Report(report::Args),
    /// Say what differs between two quantized models, strategies or compiled models
    Diff(diff::Args),
    /// Compile a quantized model for a DPU or a board
    Compile(compile::Args),
    /// Say how fast a network will be on a DPU, without data or training
    Estimate(estimate::Args),
    /// Run a compiled model instruction by instruction, with cycles
    Simulate(simulate::Args),
    /// Prove that quantizer, simulator and firmware compute the same bits
    Verify(proof::Args),
    /// Run a compiled model on a board
    Run(boards::Args),
    /// Say what a file is, and how an application feeds it
    Info(info::Args),
    /// List DPU targets and boards, or show one
    Targets(targets::Args),
    /// Print or check quantize strategies
    Strategy(strategy::Args),
    /// List the instructions of a compiled model
    Disasm(machine_code::Args),
    /// Turn a listing back into code
    Asm(machine_code::AsmArgs),
    /// Print what a shell reads to complete commands and options
    Completions(shell::Args),
    /// Write a manual page for every command
    Man(shell::ManArgs),
}

impl Command {
    /// How a command that takes data prepares it.
    fn preprocess(&self) -> Option<&data::Preprocess> {
        match self {
            Self::Quantize(args) => Some(&args.preprocess),
            Self::Train(args) => Some(&args.preprocess),
            Self::Deploy(args) => Some(&args.preprocess),
            Self::Analyze(args) => Some(&args.preprocess),
            Self::Tune(args) => Some(&args.preprocess),
            Self::Report(args) => Some(&args.preprocess),
            Self::Diff(args) => Some(&args.preprocess),
            Self::Evaluate(args) => Some(&args.preprocess),
            Self::Predict(args) => Some(&args.preprocess),
            Self::Dump(args) => Some(&args.preprocess),
            Self::Compile(args) => Some(&args.preprocess),
            Self::Simulate(args) => Some(&args.preprocess),
            Self::Verify(args) => Some(&args.preprocess),
            Self::Run(args) => Some(&args.preprocess),
            _ => None,
        }
    }
}

/// Threads: more than these only take memory, and the time to start them.
fn threads() -> RangedU64ValueParser<usize> {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    RangedU64ValueParser::new().range(1..=cores.saturating_mul(16).max(1024))
}

/// What the argument parser says, with the arguments in it made presentable before their line breaks are taken for its
/// own.
fn rendered(e: &clap::Error) -> String {
    let mut said = e.render().to_string();
    for (_, value) in e.context() {
        let arguments = match value {
            ContextValue::String(one) => std::slice::from_ref(one),
            ContextValue::Strings(many) => many,
            _ => &[],
        };
        for argument in arguments.iter().filter(|a| !a.is_empty()) {
            said = said.replace(argument.as_str(), &text::name(argument));
        }
    }
    said
}

/// What the argument parser has to say: help and version are answers, everything else is bad usage.
fn usage(e: &clap::Error, arguments: &[OsString]) -> u8 {
    let said = rendered(e);
    let (true, Some(problem)) = (e.use_stderr(), said.strip_prefix("error: ")) else {
        // Help that nobody gets to see is none, unless its reader has seen enough.
        let lost = e.print().is_err_and(|e| e.kind() != std::io::ErrorKind::BrokenPipe);
        return if e.use_stderr() || lost { 2 } else { 0 };
    };
    const CODE: &str = "Shiftwise_Invalid_Option";
    const HINT: &str = "`--help` behind the command explains its options";
    let problem = problem.replace("\nFor more information, try '--help'.\n", "");
    // The first paragraph is the sentence, at times with a list below it; tips and the usage follow.
    let (sentence, rest) = problem.trim_end().split_once("\n\n").unwrap_or((problem.trim_end(), ""));
    let message = sentence.split_whitespace().collect::<Vec<_>>().join(" ");
    screen::usage(CODE, &message, rest, HINT);
    // The arguments that would say so were not understood.
    if arguments.iter().any(|a| a == "--json") {
        screen::document(&failure(CODE, message, HINT));
    }
    2
}

/// Parses the arguments, of which the first is the program's name, and runs the command. Returns the exit code.
pub fn run(arguments: Vec<OsString>) -> u8 {
    given::keep(&arguments);
    let understood = help::with_help(Cli::command()).try_get_matches_from(&arguments);
    let cli = match understood.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(e) => {
            return usage(&e, &arguments);
        }
    };
    let screen = Screen::new(&cli.screen);
    if let Some(threads) = cli.threads
        && let Err(e) = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()
    {
        return fail(&screen, &Error::Options(format!("--threads {threads}: {e}")));
    }
    match shiftwise_tensor::kernel::choice() {
        Ok(choice) => choice.note.iter().for_each(|note| screen.note(note)),
        Err(unknown) => return fail(&screen, &Error::Options(unknown.clone())),
    }
    let result = match &cli.command {
        Command::Quantize(args) => quantize::run(args, &screen),
        Command::Train(args) => train::run(args, &screen),
        Command::Deploy(args) => deploy::run(args, &screen),
        Command::Analyze(args) => analyze::run(args, &screen),
        Command::Tune(args) => tune::run(args, &screen),
        Command::Report(args) => report::run(args, &screen),
        Command::Diff(args) => diff::run(args, &screen),
        Command::Evaluate(args) => evaluate::run(args, &screen),
        Command::Merge(args) => merge(args, &screen),
        Command::Predict(args) => predict::run(args, &screen),
        Command::Convert(args) => convert::run(args, &screen),
        Command::Export(args) => export::run(args, &screen),
        Command::Dump(args) => dump::run(args, &screen),
        Command::Compare(args) => dump::compare(args, &screen),
        Command::Inspect(args) => inspect::run(args, &screen),
        Command::Compile(args) => compile::run(args, &screen),
        Command::Estimate(args) => estimate::run(args, &screen),
        Command::Simulate(args) => simulate::run(args, &screen),
        Command::Verify(args) => proof::run(args, &screen),
        Command::Run(args) => boards::run(args, &screen),
        Command::Info(args) => info::run(args, &screen),
        Command::Targets(args) => targets::run(args, &screen),
        Command::Strategy(args) => strategy::run(args, &screen),
        Command::Disasm(args) => machine_code::run(args, &screen),
        Command::Asm(args) => machine_code::assemble(args, &screen),
        Command::Completions(args) => shell::completions(args, help::with_help(Cli::command()), &screen),
        Command::Man(args) => shell::man(args, help::with_help(Cli::command()), &screen),
    };
    if let Some(preprocess) = cli.command.preprocess() {
        preprocess.tell(&screen);
    }
    match result {
        Ok(outcome) => {
            screen.json(&outcome.json);
            match screen::delivered() {
                Ok(()) => u8::from(!outcome.yes),
                Err(e) => fail(&screen, &e),
            }
        }
        Err(e) => fail(&screen, &e),
    }
}

/// Repeats the run that was shared, with the answers of its parts in place of the work.
fn merge(args: &shards::Args, screen: &Screen) -> Result<Outcome, Error> {
    let whole = args.whole()?;
    let said = std::iter::once("shiftwise").chain(whole.arguments.iter().map(String::as_str));
    let cli = Cli::try_parse_from(said)
        .map_err(|e| Error::Options(format!("the parts' arguments are not understood: {}", e.kind())))?;
    let outcome = match &cli.command {
        Command::Quantize(args) => quantize::merge(args, &whole, screen),
        Command::Evaluate(args) => evaluate::merge(args, &whole, screen),
        Command::Dump(args) => dump::merge(args, &whole, screen),
        Command::Tune(args) => tune::merge(args, &whole, screen),
        Command::Verify(args) => proof::merge(args, &whole, screen),
        _ => Err(Error::Options(format!("`{}` is no command that is shared", whole.arguments.join(" ")))),
    };
    if let Some(preprocess) = cli.command.preprocess() {
        preprocess.tell(screen);
    }
    outcome
}

/// The JSON of an error.
fn failure(code: &str, message: String, hint: &str) -> Value {
    let error = FailureText { code: code.to_owned(), message, hint: hint.to_owned() };
    to_json(Failure { error }).unwrap_or_default()
}

fn fail(screen: &Screen, error: &Error) -> u8 {
    screen.error(error);
    screen.json(&failure(error.code(), error.to_string(), hint(error)));
    2
}
