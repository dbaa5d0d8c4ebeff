//! Everything that must hold before a change is merged, in the order in which mistakes are cheapest to find.

use std::error::Error;
use std::time::Instant;

use crate::step::Step;
use crate::{demo, setup, step};

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
    // Of the whole workspace, so that dependencies have the features that they were built with.
    let variants = ["cargo", "test", "--workspace", "--test", "it", "smaller_libraries"];
    let mut steps = vec![
        Step::new("format", &["cargo", "fmt", "--all", "--check"]),
        Step::new("lints", &clippy),
        // Once for all tests, each of which would otherwise ask cargo for it. With the features of the whole workspace, so
        // that its crates are those that the tests were built with.
        Step::new("program", &["cargo", "build", "--workspace", "--bin", "shiftwise", "--profile", "test"]),
        with_program(Step::new("tests", tests).with("SHIFTWISE_QEMU", "1")),
        Step::new("smaller C libraries", &variants).with("SHIFTWISE_QEMU", "1").with("SHIFTWISE_C_VARIANTS", "1"),
        Step::new("core without layers", &["cargo", "test", "--package", "shiftwise-core", "--no-default-features"]),
        Step::new("documents", &["cargo", "doc", "--workspace", "--no-deps"]).with("RUSTDOCFLAGS", "--deny warnings"),
        Step::new("examples in documents", &["cargo", "test", "--workspace", "--doc"]),
        Step::new("browser", &["cargo", "xtask", "browser"]),
        Step::new("firmware", &["cargo", "xtask", "firmware", "size"]),
        Step::new("examples for a Cortex-M4", &["cargo", "xtask", "firmware", "examples"]),
    ];
    if setup::works("python3", &["-c", "import ensurepip, venv"]) {
        steps.push(Step::new("Python package", &["cargo", "xtask", "python"]));
    } else {
        println!("no Python that makes environments: the Python package is not tested");
    }
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

/// Tells the tests where the program is. A target folder of the user's own may be anywhere: then they ask cargo.
fn with_program(step: Step) -> Step {
    let program = step::root().join("target/debug/shiftwise");
    match std::env::var_os("CARGO_TARGET_DIR") {
        None => step.with_path("SHIFTWISE_BIN", &program),
        Some(_) => step,
    }
}
