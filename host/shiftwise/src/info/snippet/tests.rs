//! The lines are compiled and run, and compared with the quantization that everything here uses.

use std::path::{Path, PathBuf};
use std::process::Command;

use shiftwise_core::fix::{FixPos, FixSpec, quantize};

use super::*;

/// Samples of three channels: ties, both signs, beyond the grid.
const X: [f32; 12] = [0.0, 0.5, -0.5, 1.5, -1.5, 0.49999997, -0.0078125, 2.5, 1e30, -1e30, 0.3, 63.75];

/// Grids with the preparation before them.
fn cases() -> Vec<(Port, Preprocessing)> {
    let mut all = Vec::new();
    let rounds = [Round::HalfToEven, Round::HalfUp, Round::HalfAwayFromZero, Round::Floor];
    for (round, (bits, signed)) in rounds.into_iter().zip([(8, true), (4, true), (8, false), (16, true)]) {
        for position in [-2, 0, 6] {
            for (mean, scale) in [(vec![], None), (vec![0.25], None), (vec![0.5, 0.1, -1.0], Some(1.0 / 3.0))] {
                let port = Port::float("x", vec![2, 2, 3]).fixed(position, (bits, signed), round);
                all.push((port, Preprocessing { mean, scale, ..Preprocessing::default() }));
            }
        }
    }
    all
}

/// What is expected: a line of integers for each case.
fn expected() -> Vec<String> {
    let line = |(port, own): &(Port, Preprocessing)| {
        let one = |(i, x): (usize, &f32)| {
            let mean = own.mean.get(i % own.mean.len().max(1)).copied().unwrap_or(0.0);
            let x = (x - mean) * own.scale.unwrap_or(1.0);
            let spec = FixSpec { pos: FixPos(port.position.unwrap()), bits: port.grid.0, signed: port.grid.1 };
            quantize(x, spec, port.round).to_string()
        };
        X.iter().enumerate().map(one).collect::<Vec<_>>().join(" ")
    };
    cases().iter().map(line).collect()
}

fn codes(language: &str) -> Vec<String> {
    let code = |(port, own): &(Port, Preprocessing)| {
        let all = all(std::slice::from_ref(port), Some(own));
        all.into_iter().find(|snippet| snippet.language == language).unwrap().code
    };
    cases().iter().map(code).collect()
}

/// A file that goes away with its folder.
fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("shiftwise-snippet-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn out(command: &mut Command) -> Vec<String> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| line.trim().to_owned()).collect()
}

/// Whether a program is there.
fn there(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

fn compiled(folder: &Path, compiler: &str, file: &str, text: &str, arguments: &[&str]) -> Vec<String> {
    std::fs::write(folder.join(file), text).unwrap();
    out(Command::new(compiler).args(["-o", "program", file]).args(arguments).current_dir(folder));
    let lines = out(&mut Command::new(folder.join("program")));
    std::fs::remove_dir_all(folder).unwrap();
    lines
}

#[test]
fn the_lines_in_rust_quantize_as_we_do() {
    let x: Vec<String> = X.iter().map(|x| format!("{x:?}")).collect();
    let mut text = format!("fn main() {{ let x = [{}_f32];\n", x.join("_f32, "));
    for code in codes("Rust") {
        text +=
            &format!("{{ {code}\nprintln!(\"{{}}\", q.iter().map(|q| format!(\"{{q}} \")).collect::<String>()); }}\n");
    }
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let lines = compiled(&folder("rust"), &compiler, "m.rs", &(text + "}"), &["--edition", "2024", "-D", "warnings"]);
    assert_eq!(lines, expected());
}

#[test]
fn the_lines_in_c_quantize_as_we_do() {
    if !there("cc", &["--version"]) {
        eprintln!("no C compiler here");
        return;
    }
    let x: Vec<String> = X.iter().map(|x| format!("{x:?}f")).collect();
    let mut text = format!(
        "#include <math.h>\n#include <stdint.h>\n#include <stdio.h>\nint main(void) {{\nconst float x[] = {{{}}};\n",
        x.join(", ")
    );
    for code in codes("C") {
        text += &format!(
            "{{ int32_t q[12]; {code}\nfor (int i = 0; i < 12; i++) {{ printf(\"%d \", q[i]); }}\nprintf(\"\\n\"); }}\n"
        );
    }
    let lines = compiled(&folder("c"), "cc", "m.c", &(text + "}"), &["-Wall", "-Werror", "-lm"]);
    assert_eq!(lines, expected());
}

#[test]
fn the_lines_in_python_quantize_as_we_do() {
    if !there("python3", &["-c", "import numpy"]) {
        eprintln!("no NumPy here");
        return;
    }
    let x: Vec<String> = X.iter().map(|x| format!("{x:?}")).collect();
    let mut text = format!("import numpy as np\nx = np.array([{}], np.float32).reshape(2, 2, 3)\n", x.join(", "));
    for code in codes("Python") {
        text += &format!("{code}\nprint(*q.ravel())\n");
    }
    assert_eq!(out(Command::new("python3").args(["-c", &text])), expected());
}

#[test]
fn no_line_is_wider_than_a_terminal() {
    let many: Vec<f32> = (0..40).map(|k| 1.0 / (k as f32 + 3.0)).collect();
    let own = Preprocessing { mean: many, scale: Some(1.0 / 255.0), ..Preprocessing::default() };
    let port = Port::float("x", vec![224, 224, 40]).fixed(-12, (16, true), Round::HalfAwayFromZero);
    for snippet in all(&[port], Some(&own)) {
        assert!(snippet.code.lines().all(|line| line.len() <= 80), "{}", snippet.code);
    }
}
