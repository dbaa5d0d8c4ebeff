//! One command of the repository's chores, said before it runs and timed.

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// One command of the repository's checks, run in the workspace's root.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    environment: Vec<(&'static str, String)>,
    words: Vec<String>,
}

impl Step {
    /// A program and its arguments.
    pub(crate) fn new(name: &'static str, words: &[&'static str]) -> Self {
        Self { name, environment: Vec::new(), words: words.iter().map(|w| (*w).to_owned()).collect() }
    }

    /// A program that is found at run time, and its arguments.
    pub(crate) fn program(name: &'static str, program: String, words: &[&str]) -> Self {
        let words = std::iter::once(program).chain(words.iter().map(|w| (*w).to_owned())).collect();
        Self { name, environment: Vec::new(), words }
    }

    /// One more argument.
    pub(crate) fn word(mut self, word: String) -> Self {
        self.words.push(word);
        self
    }

    pub(crate) fn with(mut self, variable: &'static str, value: &'static str) -> Self {
        self.environment.push((variable, value.to_owned()));
        self
    }

    pub(crate) fn with_path(mut self, variable: &'static str, value: &Path) -> Self {
        self.environment.push((variable, value.to_string_lossy().into_owned()));
        self
    }

    /// The line for a shell.
    fn line(&self) -> String {
        let quoted = |text: &str| if text.contains([' ', '(']) { format!("'{text}'") } else { text.to_string() };
        let variables = self.environment.iter().map(|(variable, value)| format!("{variable}={}", quoted(value)));
        variables.chain(self.words.iter().map(|word| quoted(word))).collect::<Vec<_>>().join(" ")
    }

    /// Runs it and says how long it took. An error tells what to run again.
    pub(crate) fn run(&self) -> Result<Duration, Box<dyn Error>> {
        println!("\n== {}\n$ {}", self.name, self.line());
        let start = Instant::now();
        let [program, arguments @ ..] = self.words.as_slice() else { return Ok(Duration::ZERO) };
        let root = root();
        let program = if program.contains('/') { root.join(program) } else { program.as_str().into() };
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .envs(self.environment.iter().map(|(variable, value)| (*variable, value)))
            .current_dir(root);
        let status = command.status().map_err(|e| format!("{}: {e}", program.display()))?;
        let taken = start.elapsed();
        if !status.success() {
            return Err(format!("\n{} failed ({status}); run it again with\n  {}", self.name, self.line()).into());
        }
        println!("== {}: {:.1} s", self.name, taken.as_secs_f64());
        Ok(taken)
    }
}

/// The workspace's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}
