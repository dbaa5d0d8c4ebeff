//! The Python package: its native module in the tests' profile, its types, its tests.

use std::error::Error;
use std::path::{Path, PathBuf};

use crate::setup;
use crate::step::{Step, root};

/// Builds the module beside the Python files and runs the package's checks with an interpreter.
///
/// `--keras` runs the tests of Keras, too, with both of its generations, where TensorFlow is installed; they take minutes.
/// What an interpreter has no packages for is skipped, with its reason, and counted.
pub(crate) fn main(arguments: &[&str]) -> Result<(), Box<dyn Error>> {
    let keras = arguments.contains(&"--keras");
    let named = arguments.iter().find(|own| !own.starts_with("--"));
    if let Some(unknown) = arguments.iter().find(|own| own.starts_with("--") && **own != "--keras") {
        return Err(format!("{unknown}: --keras is the only option").into());
    }
    build()?;
    let interpreter = match named {
        Some(own) => PathBuf::from(own),
        None => environment()?,
    };
    let run = |name, words: &[&'static str]| {
        let first = interpreter.to_string_lossy().into_owned();
        let step = Step::program(name, first, words);
        step.with_path("SHIFTWISE_BIN", &root().join("target/debug/shiftwise"))
            .with_path("PYTHONPATH", &root().join("host/py/python"))
            .with("PYTHONDONTWRITEBYTECODE", "1")
    };
    run("types", &["-m", "mypy", "--config-file", "pyproject.toml", "host/py/python/shiftwise"]).run()?;
    run("stubs", &["-m", "mypy.stubtest", "shiftwise._native"]).run()?;
    let tests = ["-m", "pytest", "-c", "pyproject.toml", "host/py/tests"];
    if keras {
        run("Python tests with Keras 3", &tests).run()?;
        let words = ["test_keras.py", "test_programs.py", "test_document.py"].map(|own| format!("host/py/tests/{own}"));
        let second = run("Python tests with Keras 2", &tests[..4]).with("TF_USE_LEGACY_KERAS", "1");
        words.into_iter().fold(second, Step::word).run()?;
    } else {
        run("Python tests", &tests).with("SHIFTWISE_KERAS", "0").run()?;
    }
    Ok(())
}

/// Builds the native module and the program as the workspace's tests are built, so that they share all dependencies.
fn build() -> Result<(), Box<dyn Error>> {
    let module = ["cargo", "build", "--workspace", "--lib", "--profile", "test", "--features"];
    Step::new("native module", &module).word("shiftwise-py/extension-module".into()).run()?;
    let program = ["cargo", "build", "--workspace", "--bin", "shiftwise", "--profile", "test"];
    Step::new("program", &program).run()?;
    let (prefix, suffix, own) = match std::env::consts::OS {
        "windows" => ("", "dll", "_native.pyd"),
        "macos" => ("lib", "dylib", "_native.abi3.so"),
        _ => ("lib", "so", "_native.abi3.so"),
    };
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let built = target.join(format!("debug/{prefix}shiftwise_py.{suffix}"));
    let place = root().join("host/py/python/shiftwise").join(own);
    std::fs::copy(&built, &place).map_err(|e| format!("{}: {e}", built.display()))?;
    Ok(())
}

/// A virtual environment with numpy, pytest and mypy alone, made once under `target`.
fn environment() -> Result<PathBuf, Box<dyn Error>> {
    let folder = root().join("target/python");
    let interpreter = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    if !interpreter.exists() {
        let system = ["python3", "python"].into_iter().find(|own| setup::works(own, &["--version"]));
        let system = system.ok_or("there is no Python: install one, or name an interpreter")?;
        Step::program("environment", system.to_owned(), &["-m", "venv"]).word(text(&folder)).run()?;
        let install = ["-m", "pip", "install", "--quiet", "numpy", "pytest", "mypy"];
        Step::program("packages", text(&interpreter), &install).run()?;
    }
    Ok(interpreter)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
