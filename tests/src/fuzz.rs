//! Everything that reads bytes from outside, each as a function of bytes: it returns, whatever the bytes are.
//!
//! `fuzz/` calls these functions with bytes that a coverage-guided fuzzer makes, the ordinary tests with the corpus
//! (`fuzz/corpus/TARGET`, made by `cargo run -p shiftwise-tests --bin fuzz_corpus`) and with damaged copies of it. Where a
//! checksum or an archive stands between the bytes and what reads them, a target of its own puts it around them.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

mod data;
mod models;
mod networks;
mod programs;
mod texts;

pub use data::{members, pictures_with_checksums};
pub use models::{archive, saved_model_bytes};
pub use networks::{compare_graph, compare_network};
pub use programs::with_checksum;

/// A reader, and how bytes get to it.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is its corpus' folder.
    pub name: &'static str,
    /// What the bytes are.
    pub bytes: &'static str,
    /// Reads the bytes, and uses what they hold.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "h5", bytes: "an .h5 model", run: models::file },
    Target { name: "keras", bytes: "a .keras archive", run: models::file },
    Target { name: "keras_members", bytes: "the members of a .keras archive", run: models::archived },
    Target { name: "json", bytes: "a model's architecture", run: models::architecture },
    Target { name: "onnx", bytes: "an ONNX model", run: models::onnx },
    Target { name: "xmodel", bytes: "a vendor's graph file", run: models::xmodel },
    Target { name: "tflite", bytes: "a TensorFlow Lite model", run: models::lite },
    Target { name: "saved_model", bytes: "the files of a SavedModel", run: models::saved_model },
    Target { name: "graph_def", bytes: "a TensorFlow graph", run: models::file },
    Target { name: "npy", bytes: "a .npy array", run: data::array },
    Target { name: "npz", bytes: "a .npz archive", run: data::arrays },
    Target { name: "npz_members", bytes: "the members of a .npz archive", run: data::archived },
    Target { name: "images", bytes: "a picture", run: data::picture },
    Target { name: "strategy", bytes: "a strategy's JSON", run: texts::strategy },
    Target { name: "toml", bytes: "a DPU, a board or a cycle model", run: texts::toml },
    Target { name: "listing", bytes: "a listing of instructions", run: texts::listing },
    Target { name: "formula", bytes: "a custom layer's formula", run: texts::formula },
    Target { name: "code", bytes: "instructions", run: programs::code },
    Target { name: "deployable", bytes: "a .swm, its checksum made good", run: programs::deployable },
    Target { name: "link", bytes: "a serial line's bytes", run: programs::link },
    Target { name: "graph", bytes: "decisions: an odd integer graph, on all engines", run: networks::integer },
    Target {
        name: "network",
        bytes: "decisions: an odd float network, quantized, on all engines",
        run: networks::float,
    },
];

/// A file of these bytes in a folder of this process; readers that take paths read it.
fn file(name: &str, bytes: &[u8]) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("shiftwise-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for temporary files");
        folder
    });
    // Tests run at the same time in one process.
    let thread = format!("{:?}", std::thread::current().id()).replace(['(', ')'], "-");
    let path = folder.join(thread).join(name);
    std::fs::create_dir_all(path.parent().unwrap_or(folder)).expect("a folder");
    std::fs::write(&path, bytes).expect("a file");
    path
}

/// The folder of a target's corpus.
pub fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target)
}
