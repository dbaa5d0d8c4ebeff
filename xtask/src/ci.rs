//! Everything that must hold before a change is merged, in the order in which mistakes are cheapest to find.

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::{demo, setup};

/// One command of the repository's checks, run in the workspace's root.
#[derive(Debug)]
pub(crate) struct Step {
    name: &'static str,
    environment: Vec<(&'static str, &'static str)>,
    words: Vec<&'static str>,
}

impl Step {
    /// A program and its arguments.
    pub(crate) fn new(name: &'static str, words: &[&'static str]) -> Self {
        Self { name, environment: Vec::new(), words: words.to_vec() }
    }

    fn with(mut self, variable: &'static str, value: &'static str) -> Self {
        self.environment.push((variable, value));
        self
    }

    /// The line for a shell.
    fn line(&self) -> String {
        let quoted = |text: &str| if text.contains(' ') { format!("'{text}'") } else { text.to_string() };
        let variables = self.environment.iter().map(|(variable, value)| format!("{variable}={}", quoted(value)));
        variables.chain(self.words.iter().map(|word| quoted(word))).collect::<Vec<_>>().join(" ")
    }

    /// Runs it and says how long it took. An error tells what to run again.
    pub(crate) fn run(&self) -> Result<Duration, Box<dyn Error>> {
        println!("\n== {}\n$ {}", self.name, self.line());
        let start = Instant::now();
        let [program, arguments @ ..] = self.words.as_slice() else { return Ok(Duration::ZERO) };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
        let program = if program.contains('/') { root.join(program) } else { program.into() };
        let mut command = Command::new(&program);
        command.args(arguments).envs(self.environment.iter().copied()).current_dir(root);
        let status = command.status().map_err(|e| format!("{}: {e}", program.display()))?;
        let taken = start.elapsed();
        if !status.success() {
            return Err(format!("\n{} failed ({status}); run it again with\n  {}", self.name, self.line()).into());
        }
        println!("== {}: {:.1} s", self.name, taken.as_secs_f64());
        Ok(taken)
    }
}

/// Runs all checks; stops at the first that fails.
pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    setup::main()?;
    setup::component("fmt", "rustfmt")?;
    setup::component("clippy", "clippy")?;
    let mut times = vec![("setup", start.elapsed())];
    for step in steps() {
        times.push((step.name, step.run()?));
    }
    println!("\nall checks passed");
    times.push(("together", start.elapsed()));
    for (name, time) in times {
        println!("{:>8.1} s  {name}", time.as_secs_f64());
    }
    Ok(())
}

fn steps() -> Vec<Step> {
    let clippy = ["cargo", "clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    let tests: &[&str] = if setup::works("cargo", &["nextest", "--version"]) {
        &["cargo", "nextest", "run", "--workspace", "--no-fail-fast"]
    } else {
        &["cargo", "test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"]
    };
    let variants = ["cargo", "test", "--package", "shiftwise-tests", "--test", "it", "smaller_libraries"];
    let mut steps = vec![
        Step::new("format", &["cargo", "fmt", "--all", "--check"]),
        Step::new("lints", &clippy),
        Step::new("tests", tests).with("SHIFTWISE_QEMU", "1"),
        Step::new("smaller C libraries", &variants).with("SHIFTWISE_QEMU", "1").with("SHIFTWISE_C_VARIANTS", "1"),
        Step::new("core without layers", &["cargo", "test", "--package", "shiftwise-core", "--no-default-features"]),
        Step::new("documents", &["cargo", "doc", "--workspace", "--no-deps"]).with("RUSTDOCFLAGS", "--deny warnings"),
        Step::new("examples in documents", &["cargo", "test", "--workspace", "--doc"]),
        Step::new("firmware", &["cargo", "xtask", "firmware", "size"]),
        Step::new("examples for a Cortex-M4", &["cargo", "xtask", "firmware", "examples"]),
    ];
    if setup::works("c++", &["--version"]) {
        steps.push(Step::new("fuzzing", &["cargo", "xtask", "fuzz", "--seconds", "2"]));
    } else {
        println!("no C++ compiler for LLVM's fuzzer: the targets run on their corpus in the tests only");
    }
    if setup::works("cargo", &["deny", "--version"]) {
        steps.push(Step::new("supply chain", &["cargo", "deny", "check", "bans", "licenses", "sources"]));
    } else {
        println!("cargo-deny is not installed: licences and sources of dependencies are not checked");
    }
    steps.extend(demo::steps());
    steps
}
