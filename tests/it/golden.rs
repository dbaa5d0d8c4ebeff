//! The vendor's results, case by case.

use shiftwise_quant::strategy::{BUILT_IN, Strategy};
use shiftwise_tests::golden::{EXPLAINED, Outcome, beyond_the_vendor, check, check_file};
use shiftwise_tests::shared::{golden_cases, shared};

/// Cases that must be quantized here; what a version refuses may shrink, never grow.
const SUPPORTED: usize = 199;

#[test]
fn every_supported_reference_case_gives_the_vendors_numbers() {
    let cases = golden_cases();
    let (mut same, mut wrong) = (0, Vec::new());
    for case in &cases {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let explained = EXPLAINED.iter().any(|(case, _)| *case == name);
        match check(case) {
            Some(Outcome::Same { .. }) if explained => {
                wrong.push(format!("{name} is the same now: take it off the list"))
            }
            Some(Outcome::Same { .. }) => same += 1,
            Some(Outcome::Differs(all)) if !explained => {
                wrong.push(format!("{name}: {}", all[..all.len().min(3)].join("; ")))
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases.is_empty() || same >= SUPPORTED, "only {same} cases are the same");
}

/// The vendor's own quantized models compute the vendor's dump and outputs here.
#[test]
fn the_vendors_quantized_files_give_the_vendors_numbers() {
    let cases = golden_cases();
    let outcomes: Vec<_> = cases.iter().filter_map(|case| Some((case, check_file(case)?))).collect();
    // The file of a custom layer that still calibrates has positions of another sample; layers that are trained with their
    // normalization still calibrate too, and are missing from the vendor's dump.
    let apart = ["cust_strategy", "o_train_with_bn_optA"];
    let wrong = |case: &std::path::Path, o: &Outcome| {
        matches!(o, Outcome::Differs(_)) && !apart.iter().any(|name| case.ends_with(name))
    };
    let wrong: Vec<_> = outcomes.iter().filter(|(case, o)| wrong(case, o)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let same = outcomes.iter().filter(|(_, o)| matches!(o, Outcome::Same { .. })).count();
    assert!(cases.is_empty() || same >= 205, "only {same} files give the same");
}

/// The case that the issue of this project names: the vendor's tool on a real trained network.
#[test]
fn the_real_resnet8_is_the_same_in_every_value() {
    let Some(case) = golden_cases().into_iter().find(|c| c.ends_with("real_resnet8_fashion")) else { return };
    match check(&case) {
        Some(Outcome::Same { positions, values, edge: 0, exact_differs }) => {
            assert_eq!(positions, 35);
            assert!(values > 100_000);
            assert_eq!(exact_differs, Some(0));
        }
        other => panic!("{other:?}"),
    }
}

/// Models on which the vendor's tool stops or reorders layers: they are quantized here, and both arithmetics agree.
#[test]
fn models_that_the_vendors_tool_cannot_quantize_work_here() {
    let names = [
        "real_lenet5_mnist",
        "pof2s_sequential_v0",
        "pof2s_sequential_v1",
        "pof2s_sequential_noinput_v0",
        "pof2s_bn_no_center_v0",
        "pof2s_dw_multiplier_bn_v0",
        "pof2s_dw_multiplier_v0",
    ];
    for case in golden_cases().into_iter().filter(|c| names.iter().any(|n| c.ends_with(n))) {
        let differing = beyond_the_vendor(&case).unwrap_or_else(|e| panic!("{}: {e}", case.display()));
        assert_eq!(differing, 0, "{}", case.display());
    }
}

/// Every built-in strategy as the vendor's `dump_quantize_strategy` prints it, at every verbosity.
#[test]
fn strategies_are_printed_as_the_vendor_prints_them() {
    let Some(shared) = shared() else { return };
    let mut compared = 0;
    for names in BUILT_IN.iter().map(|base| base.names) {
        for (name, verbose) in names.iter().flat_map(|name| [0, 1, 2].map(|verbose| (name, verbose))) {
            let path = shared.join(format!("golden/strategies/{name}_verbose{verbose}.json"));
            // Of aliases there is only the shortest form.
            let Ok(theirs) = std::fs::read_to_string(path) else { continue };
            assert_eq!(Strategy::built_in(name).unwrap().dump(verbose), theirs.trim_end(), "{name} {verbose}");
            compared += 1;
        }
    }
    assert!(compared >= 17, "{compared}");
}
