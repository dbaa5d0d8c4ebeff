//! The vendor's training, case by case.

use shiftwise_tests::shared::golden_cases;
use shiftwise_tests::training::check;

#[test]
fn every_golden_case_of_training_gives_the_vendors_variables_after_each_step() {
    let mut wrong = Vec::new();
    for case in golden_cases() {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        match check(&case) {
            None => {}
            Some(Ok(found)) if found.differences.is_empty() => {}
            Some(Ok(found)) => {
                let all = &found.differences;
                wrong.push(format!("{name} ({:.1e}): {}", found.largest, all[..all.len().min(8)].join("\n    ")));
            }
            Some(Err(e)) => wrong.push(format!("{name}: {e}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
