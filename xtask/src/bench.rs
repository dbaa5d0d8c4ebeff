//! Paired comparisons with other engines, written to `BENCHMARKS.md`.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::step::{Step, root};

/// A comparison: a script of `benches/` that prints one table, its arguments, and what it needs of Python beyond NumPy.
struct Comparison {
    title: &'static str,
    script: &'static str,
    arguments: &'static [&'static str],
    needs: &'static [&'static str],
}

const COMPARISONS: &[Comparison] = &[
    Comparison {
        title: "Kernels",
        script: "compare.py",
        arguments: &["--rounds", "5"],
        needs: &["tensorflow", "onnxruntime", "onnx"],
    },
    Comparison { title: "Gradients", script: "gradients.py", arguments: &[], needs: &["tensorflow"] },
    Comparison {
        title: "Networks",
        script: "networks.py",
        arguments: &[
            "tests/zoo/mobilenet_v2_1_0_224.json=224x224x3",
            "tests/zoo/resnet50_keras.json=224x224x3",
            "tests/zoo/efficientnet_edgetpu_s.json=224x224x3",
        ],
        needs: &[],
    },
    Comparison {
        title: "Quantizing",
        script: "quantize.py",
        arguments: &["tests/zoo/mobilenet_v2_1_0_224.json", "224x224x3"],
        needs: &[],
    },
];

/// `[MODEL=HxWxC…]`: builds what is measured, runs every comparison whose peer is installed, and writes the page. Networks
/// that are named replace those of the repository.
pub(crate) fn main(models: &[&str]) -> Result<(), Box<dyn Error>> {
    let build = ["cargo", "build", "--release", "-p", "shiftwise-cli", "-p", "shiftwise-benches"];
    Step::new("what is measured", &build).run()?;
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    let mut page = format!(
        "# Benchmarks\n\nMade by `cargo xtask bench`, which says what each column is in `benches/README.md`. One thread; the least \
         CPU time of alternating rounds in one run counts, so compare columns of one table only.\n\n{}\n",
        machine()
    );
    for comparison in COMPARISONS {
        let Comparison { title, script, arguments, needs } = comparison;
        write!(page, "\n## {title}\n\n")?;
        if let Some(missing) = needs.iter().find(|module| !has(&python, module)) {
            println!("{script}: left out, {python} has no {missing}");
            writeln!(page, "Left out: {missing} was not installed.")?;
            continue;
        }
        let networks = *script == "networks.py" && !models.is_empty();
        let arguments = if networks { models } else { arguments };
        println!("\n== {title}: {python} benches/{script} {}", arguments.join(" "));
        let mut run = Command::new(&python);
        run.arg(Path::new("benches").join(script)).args(arguments).current_dir(root());
        let output = run.stderr(std::process::Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(format!("benches/{script} failed ({})", output.status).into());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        print!("{text}");
        writeln!(page, "{}", spaced(&text))?;
    }
    fs::write(root().join("BENCHMARKS.md"), page.trim_end().to_owned() + "\n")?;
    println!("\nBENCHMARKS.md is written");
    Ok(())
}

/// A table needs an empty line above it.
fn spaced(text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in text.trim_end().lines() {
        if line.starts_with('|') && lines.last().is_some_and(|last| !last.is_empty() && !last.starts_with('|')) {
            lines.push("");
        }
        lines.push(line);
    }
    lines.join("\n")
}

/// Whether Python finds a module.
fn has(python: &str, module: &str) -> bool {
    let test = format!("import importlib.util as i, sys; sys.exit(i.find_spec('{module}') is None)");
    Command::new(python).args(["-c", &test]).status().is_ok_and(|status| status.success())
}

/// The machine, the instructions that the kernels use on it, and the day.
fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        info.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(": ")).map(|(_, value)| value)
    };
    let flags: Vec<&str> = field("flags").unwrap_or_default().split(' ').collect();
    let has: Vec<&str> =
        ["avx2", "avx_vnni", "avx512f", "avx512_vnni"].into_iter().filter(|f| flags.contains(f)).collect();
    let family = [field("cpu family"), field("model\t")].map(|value| value.unwrap_or("?"));
    let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output().map(|out| out.stdout).unwrap_or_default();
    format!(
        "{} (family {}, model {}), {}; {}",
        field("model name").unwrap_or("an unknown processor"),
        family[0],
        family[1],
        has.join(", "),
        String::from_utf8_lossy(&date).trim()
    )
}
