//! Every byte of every output for the repository's own models, as SHA-256 of each file and answer: what a change of the
//! code's shape must not change. `UPDATE_EXPECT=1` rewrites the list; its difference then says which outputs changed.

use std::fmt::Write as _;
use std::path::Path;

use sha2::{Digest, Sha256};
use shiftwise_tests::command::Folder;

/// A model with its inputs: calibration data and data to run on.
const MODELS: [(&str, &str, &str); 2] = [
    ("digits_lenet.h5", "digits.npz:x_cal", "digits.npz:x_eval"),
    ("digits_resnet.h5", "digits.npz:x_cal", "digits.npz:x_eval"),
];

/// Commands in their order; `{m}`, `{cal}`, `{data}` stand for a row of [`MODELS`].
const COMMANDS: &[&str] = &[
    "quantize {m} --calib {cal} --output-dir q",
    "quantize {m} --calib {cal} --output-dir q4 --set weight_bit=4 --set bias_bit=16 --set include_cle=false",
    "evaluate q/quantized.h5 --data {data} --labels digits.npz:y_eval --baseline {m} --top 3",
    "dump q/quantized.h5 --data {data} --samples 2 --output-dir dump --dump-float",
    "dump q/quantized.h5 --data {data} --samples 2 --output-dir vendor --numerics vendor",
    "compare dump vendor",
    "compile q/quantized.h5 --target DPUCZDX8G_ISA1_B512 -o b512.swm --listing b512.txt --self-test {cal}",
    "compile q/quantized.h5 --target DPUCZDX8G_ISA1_B4096 -o b4096.swm",
    "compile q/quantized.h5 --board kv260 -o kv260.swm --fast",
    "compile q/quantized.h5 --target cpu -o cpu.swm",
    "compile q/quantized.h5 --target cpu --board mps2-an386 -o mcu.swm",
    "simulate b512.swm --data {data} --samples 2 --golden dump --output-dir sim --trace trace.json",
    "simulate cpu.swm --data {data} --samples 2 --output-dir sim_cpu",
    "disasm b4096.swm",
    "estimate {m} --board kv260",
    "estimate q/quantized.h5 --target DPUCZDX8G_ISA1_B512",
    "verify {m} --calib {cal} --data {data} --samples 3 --target B1152 -o proof.json",
    "strategy dump pof2s --verbose 2",
    "targets",
];

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(12).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
fn no_output_of_our_own_models_has_changed() {
    let mut text = String::new();
    for (model, cal, data) in MODELS {
        let folder = Folder::new(&format!("snapshot-{model}"));
        for command in COMMANDS {
            let command = command.replace("{m}", model).replace("{cal}", cal).replace("{data}", data);
            let ran = folder.run(&format!("{command} --json"));
            assert!(matches!(ran.code, Some(0 | 1)), "{command}: {ran:?}");
            let _ = writeln!(text, "{} exit {} {command}", sha256(ran.out.as_bytes()), ran.code.unwrap_or(-1));
        }
        for (name, bytes) in folder.tree() {
            let _ = writeln!(text, "{} {model} {name}", sha256(&bytes));
        }
    }
    let snap = Path::new(env!("CARGO_MANIFEST_DIR")).join("snap/outputs.txt");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&snap, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&snap).unwrap();
    let changed: Vec<_> = text.lines().filter(|line| !kept.lines().any(|k| k == *line)).collect();
    let gone = kept.lines().filter(|line| !text.lines().any(|t| t == *line)).count();
    assert!(changed.is_empty() && gone == 0, "{gone} lines are gone, and these are new:\n{}", changed.join("\n"));
}
