//! Dumps against the vendor's.

use std::collections::BTreeSet;
use std::path::Path;

use shiftwise::dump;
use shiftwise::dump::{Dump, Values};
use shiftwise_formats::{LoadOptions, Model, open_bytes};
use shiftwise_tests::shared::golden_cases;

use crate::quantized::vendor_file;

#[test]
fn weights_are_the_vendors_integers() {
    let (mut checked, cases) = (0, golden_cases());
    for case in &cases {
        let Some(bytes) = vendor_file(case) else { continue };
        let opened = open_bytes(Path::new("quantized.h5"), bytes, &LoadOptions::default());
        let (Ok(Model::Quantized(quantized)), Ok(vendor)) = (opened, dump::read(&case.join("dump"))) else { continue };
        let vendor = Dump { weights: vendor.weights, activations: Vec::new() };
        // The vendor's dump lacks layers that are trained with their normalization.
        if vendor.weights.is_empty() || case.ends_with("o_train_with_bn_optA") {
            continue;
        }
        let shown = Dump { weights: dump::weights(&quantized, true), activations: Vec::new() };
        let same = dump::compare(&shown, &vendor);
        assert!(same.is_equal() && same.only_first.is_empty(), "{case:?}\n{same}");
        let floats = |name: &String| name.ends_with("_float");
        assert!(same.only_second.iter().all(floats), "{case:?}\n{same}");
        // Without the vendor's gaps there are only more of them.
        let all = Dump { weights: dump::weights(&quantized, false), activations: Vec::new() };
        assert!(dump::compare(&all, &vendor).is_equal(), "{case:?}");
        checked += 1;
    }
    assert!(cases.is_empty() || checked >= 80, "{checked}");
}

/// Names and contents of a folder's files.
fn files(dir: &Path) -> BTreeSet<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|e| (e.file_name().to_string_lossy().into_owned(), std::fs::read(e.path()).unwrap())).collect()
}

#[test]
fn the_vendors_dumps_come_back_byte_for_byte() {
    let cases = golden_cases();
    let wanted = ["dump_float_optC", "pof2s_softmax_dense_v0", "pof2s_tanh_act_v0", "pof2s_names_slash_v0"];
    let mut floats = 0;
    for case in cases.iter().filter(|c| wanted.iter().any(|w| c.ends_with(w))) {
        let vendor = dump::read(&case.join("dump")).unwrap();
        let dir = std::env::temp_dir().join(format!("shiftwise-vendor-dump-{}", std::process::id()));
        dump::write(&dir, &vendor, true).unwrap();
        for folder in [dump::WEIGHTS, dump::ACTIVATIONS] {
            assert!(files(&dir.join(folder)) == files(&case.join("dump").join(folder)), "{case:?} {folder}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
        floats += vendor.activations.iter().filter(|t| matches!(t.values, Values::Float(_))).count();
    }
    assert!(cases.is_empty() || floats >= 5, "{floats}");
}
