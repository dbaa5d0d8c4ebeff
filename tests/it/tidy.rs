//! Rules of the architecture that the compiler does not check, read off manifests and sources.

use std::path::{Path, PathBuf};

use shiftwise_quant::passes;
use shiftwise_quant::strategy::Strategy;

/// Crates from the ground up: each imports from those before it only.
const FLOORS: [&[&str]; 9] = [
    &["core", "host/tensor"],
    &["host/graph", "sim", "targets"],
    &["host/quant", "host/board", "host/files", "firmware"],
    &["host/integer", "host/train", "host/keras", "host/operators"],
    &["host/compile", "host/onnx", "host/tensorflow", "host/xmodel"],
    &["host/formats"],
    &["host/shiftwise"],
    &["host/cli"],
    &["host/py"],
];

/// Crates outside the product.
const AROUND: [&str; 5] = ["benches", "firmware/c", "firmware/examples/rust", "tests", "xtask"];

fn crates() -> impl Iterator<Item = &'static str> {
    FLOORS.into_iter().flatten().copied().chain(AROUND)
}

/// The package of a crate's folder.
fn package(folder: &str) -> String {
    let name = folder.rsplit('/').next().unwrap_or(folder);
    if name == "shiftwise" { name.to_owned() } else { format!("shiftwise-{name}") }
}

/// The only files with `unsafe` code.
const UNSAFE: &[&str] = &[
    "firmware/c/src/lib.rs",
    "firmware/src/board/cortex_r5f.rs",
    "firmware/src/board/dpu.rs",
    "firmware/src/board/log.rs",
    "firmware/src/board/memory.rs",
    "firmware/src/board/mmio.rs",
    "firmware/src/board/mps2_an386.rs",
    "firmware/src/board/riscv32_virt.rs",
    "firmware/src/board/semihost.rs",
    "firmware/src/board/xlnx_zcu102.rs",
    "firmware/src/kernels/dsp.rs",
    "firmware/src/kernels/dsp/loops.rs",
    "firmware/src/kernels/neon.rs",
    "firmware/src/kernels/riscv.rs",
    "firmware/src/mmio/mapped.rs",
    "host/tensor/src/kernel/avx2.rs",
    "host/tensor/src/kernel/avx512.rs",
    "host/tensor/src/kernel/avx512/depthwise.rs",
    "host/tensor/src/kernel/avx512/sink.rs",
    "host/tensor/src/kernel/backward/depthwise.rs",
    "host/tensor/src/kernel/backward/weights.rs",
    "host/tensor/src/kernel/conv.rs",
    "host/tensor/src/kernel/depthwise.rs",
    "host/tensor/src/kernel/lanes.rs",
    "sim/src/products.rs",
    "sim/src/products/avx2.rs",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}

/// Files below a folder of the workspace with one of these extensions: names relative to the workspace, and text.
fn files(folder: &str, extensions: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    found.retain(|path| path.extension().is_some_and(|e| extensions.iter().any(|wanted| e == *wanted)));
    found.sort();
    let name = |path: &Path| path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
    let all: Vec<_> = found.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect();
    assert!(!all.is_empty(), "nothing in {folder}");
    all
}

fn sources(name: &str) -> Vec<(String, String)> {
    files(&format!("{name}/src"), &["rs"])
}

/// Names in the sections of a manifest that end so, such as `dependencies]`; those for tests left out.
fn dependencies(name: &str) -> Vec<String> {
    let text = read(&format!("{name}/Cargo.toml"));
    let mut inside = false;
    let mut names = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]") && !line.contains("dev-dependencies");
        } else if inside && let Some((key, _)) = line.split_once('=') {
            names.push(key.trim().trim_end_matches(".workspace").to_string());
        }
    }
    names
}

/// The code of a line: without its comment.
fn code(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

#[test]
fn the_core_depends_on_little() {
    let allowed = ["serde", "postcard", "heapless", "libm", "crc", "defmt"];
    let found = dependencies("core");
    assert!(found.iter().any(|name| name == "postcard"), "{found:?}");
    for name in found {
        assert!(allowed.contains(&name.as_str()), "core depends on {name}");
    }
}

#[test]
fn dependencies_point_towards_the_core() {
    for (floor, folder) in FLOORS.iter().enumerate().flat_map(|(floor, all)| all.iter().map(move |f| (floor, *f))) {
        let below: Vec<String> = FLOORS[..floor].iter().copied().flatten().map(|f| package(f)).collect();
        for name in dependencies(folder).into_iter().filter(|name| name.starts_with("shiftwise")) {
            assert!(below.contains(&name), "{folder} depends on {name}, which is on no floor below");
        }
    }
    assert!(dependencies("host/cli").contains(&"shiftwise".to_owned()), "a name is read off no manifest");
    let chores = dependencies("xtask");
    assert!(!chores.iter().any(|name| name == "shiftwise" || name == "shiftwise-compile"), "{chores:?}");
}

#[test]
fn unsafe_code_stays_in_few_files() {
    let mut found = Vec::new();
    for (path, text) in crates().flat_map(sources) {
        let words = |line: &str| code(line).split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == "unsafe");
        if text.lines().any(words) {
            found.push(path);
        }
    }
    found.sort();
    assert_eq!(found, UNSAFE);
}

#[test]
fn files_are_short_and_finished() {
    for (path, text) in crates().flat_map(sources) {
        let lines = text.lines().count();
        assert!(lines <= 800, "{path} has {lines} lines");
        for mark in ["todo!", "unimplemented!", "FIXME"] {
            assert!(!text.contains(mark), "{path} has {mark}");
        }
    }
    let lines = read("ARCHITECTURE.md").lines().count();
    assert!(lines < 200, "ARCHITECTURE.md has {lines} lines");
}

#[test]
fn core_and_firmware_never_unwrap() {
    // Modules for tests are a file's last part, or files of their own.
    let tests = [
        "core/src/exec/tests.rs",
        "core/src/exec/tests/older.rs",
        "core/src/link/tests.rs",
        "core/src/model/format_page.rs",
    ];
    for (path, text) in ["core", "firmware", "firmware/c"].iter().flat_map(|name| sources(name)) {
        if tests.contains(&path.as_str()) {
            continue;
        }
        let shipped = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(&text);
        for line in shipped.lines().map(code) {
            assert!(!line.contains(".unwrap()") && !line.contains(".expect("), "{path}: {line}");
        }
    }
}

#[test]
fn passes_are_named_by_the_strategy() {
    for (path, text) in files("host/quant/strategies", &["json"]) {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(&text);
        assert!(parsed.is_ok_and(|value| value.is_object()), "{path}");
    }
    let strategy = Strategy::built_in("pof2s").unwrap();
    let keys = strategy.keys();
    let tables = [passes::OPTIMIZE, passes::DPU_VERSION].into_iter().flatten().map(|pass| pass.name);
    for name in tables.chain(passes::adjust_pos::RULES.iter().map(|rule| rule.name)) {
        assert!(keys.contains(&name), "{name} is no key of the strategy");
    }
}

#[test]
fn no_text_names_a_machine() {
    // In parts, so that this file does not name them.
    let paths = [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat()];
    let mut all: Vec<_> = crates().flat_map(|name| files(name, &["rs", "toml", "md", "json", "py", "x"])).collect();
    all.extend(files(".cargo", &["toml"]));
    for name in ["README.md", "ARCHITECTURE.md", "DIVERGENCES.md", "CHANGELOG.md", "Cargo.toml", ".ci/run"] {
        all.push((name.into(), read(name)));
    }
    for (path, text) in all {
        for machine in &paths {
            assert!(!text.contains(machine.as_str()), "{path} names {machine}");
        }
    }
}
