//! Coverage-guided fuzzing of every reader, on the stable compiler: `fuzz/` with the instrumentation of LLVM's fuzzer.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What LLVM's fuzzer needs in every crate: counters per edge, a table of them, and what comparisons compare.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                     -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";
/// Flags need a target, so that build scripts and macros are built without them.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// `[--seconds N] [TARGET…]`: runs targets for so long each, all if none is named. 0 seconds replay the corpus only.
pub(crate) fn main(words: &[&str]) -> Result<(), Box<dyn Error>> {
    let (seconds, names) = match words {
        ["--seconds", seconds, names @ ..] => (seconds.parse()?, names),
        names => (60u32, names),
    };
    let known = targets()?;
    if let Some(unknown) = names.iter().find(|name| !known.iter().any(|k| k == *name)) {
        return Err(format!("there is no target `{unknown}`; there are {}", known.join(", ")).into());
    }
    let program = build()?;
    let mut found = String::new();
    let mut runs = 0;
    for target in known.iter().filter(|t| names.is_empty() || names.contains(&t.as_str())) {
        match run(&program, target, seconds)? {
            Ok(count) => {
                runs += count;
                println!("{target:>14}: {count} runs");
            }
            Err(log) => {
                println!("{target:>14}: found something");
                writeln!(found, "\n{target}:\n{log}")?;
            }
        }
    }
    println!("{runs} runs together");
    if found.is_empty() { Ok(()) } else { Err(format!("a fuzzer found something\n{found}").into()) }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// The targets: each has a corpus (a test compares).
fn targets() -> Result<Vec<String>, Box<dyn Error>> {
    let entries = std::fs::read_dir(folder().join("corpus"))?.collect::<Result<Vec<_>, _>>()?;
    let mut names: Vec<String> = entries.iter().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// The one program that all targets are in.
fn build() -> Result<PathBuf, Box<dyn Error>> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--target", TARGET, "--target-dir", "target"]);
    let status = cargo.env("RUSTFLAGS", FLAGS).current_dir(folder()).status()?;
    if !status.success() {
        return Err("the fuzzer was not built; LLVM's fuzzer needs a C++ compiler".into());
    }
    Ok(folder().join("target").join(TARGET).join("debug/fuzz"))
}

/// Runs one target; the number of runs, or the end of what the fuzzer said where it found something.
///
/// Files that it finds new ways with stay in `fuzz/target/corpus` and serve the next run; the corpus of the repository is
/// only read. What it finds wrong is left in `fuzz/artifacts`.
fn run(program: &Path, target: &str, seconds: u32) -> Result<Result<u64, String>, Box<dyn Error>> {
    let (grown, artifacts) = (folder().join("target/corpus").join(target), folder().join("artifacts").join(target));
    let scratch = folder().join("target/scratch").join(target);
    for path in [&grown, &artifacts, &scratch] {
        std::fs::create_dir_all(path)?;
    }
    let limits =
        ["-rss_limit_mb=2048", "-malloc_limit_mb=2048", "-timeout=5", "-max_len=100000", "-print_final_stats=1"];
    let time = if seconds == 0 { "-runs=0".to_owned() } else { format!("-max_total_time={seconds}") };
    let output = Command::new(program)
        .args(limits)
        .arg(time)
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args([&grown, &folder().join("corpus").join(target)])
        .env("FUZZ_TARGET", target)
        // Files of readers that take paths; the program's own end does not take them away.
        .env("TMPDIR", &scratch)
        .env("RAYON_NUM_THREADS", "1")
        .stdin(Stdio::null())
        .output()?;
    std::fs::remove_dir_all(&scratch)?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let lines: Vec<&str> = said.lines().collect();
        return Ok(Err(lines[lines.len().saturating_sub(40)..].join("\n")));
    }
    let count = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok());
    Ok(Ok(count.unwrap_or(0)))
}
