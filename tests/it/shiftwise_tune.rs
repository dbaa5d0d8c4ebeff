//! `tune`: a search of what a strategy leaves open.

use std::collections::BTreeMap;

use serde_json::Value;
use shiftwise_tests::command::{Folder, Ran};

const SEARCH: &str =
    "tune digits_lenet.h5 --calib digits.npz:x_cal --data digits.npz:x_eval --labels digits.npz:y_eval";
const FOUR_BITS: &str = "--set weight_bit=4 --target B512 --trials 9";

fn run(folder: &Folder, arguments: &str, code: i32) -> Ran {
    let ran = folder.run(arguments);
    assert_eq!(ran.code, Some(code), "{arguments}: {ran:?}");
    ran
}

/// The results of a search, by name.
fn results(folder: &Folder, dir: &str) -> BTreeMap<String, Vec<u8>> {
    let names = ["strategy.json", "quantized.h5", "trials.jsonl", "pareto.svg"];
    names.map(|name| (name.to_owned(), folder.read(&format!("{dir}/{name}")))).into()
}

fn right(trial: &Value) -> u64 {
    trial["right"].as_u64().unwrap()
}

/// Every trial's lines, and the chosen one.
fn trials(report: &Value) -> (&[Value], &Value) {
    let all = report["trials"].as_array().unwrap();
    (all, &all[report["chosen"].as_u64().unwrap() as usize])
}

#[test]
fn a_search_wins_accuracy_that_four_bits_lose_and_its_strategy_gives_the_same_bytes() {
    let folder = Folder::new("tune-four-bits");
    let ran = folder.run(&format!("{SEARCH} {FOUR_BITS} --json"));
    let report = ran.json();
    let (all, chosen) = trials(&report);
    assert!(right(chosen) > right(&all[0]), "{report}");
    assert_eq!(ran.code, Some(i32::from(report["kept"] == false)));
    // What is set stays as it is.
    for trial in all {
        for key in ["weight_bit", "layer_config"] {
            assert!(trial["settings"].get(key).is_none(), "{trial}");
        }
    }
    let quantize = "quantize digits_lenet.h5 --calib digits.npz:x_cal --strategy-file tune_results/strategy.json -q";
    run(&folder, quantize, 0);
    assert!(folder.read("quantize_results/quantized.h5") == folder.read("tune_results/quantized.h5"));
    // The count is that of another command.
    let evaluate = "evaluate quantize_results/quantized.h5 --data digits.npz:x_eval --labels digits.npz:y_eval --json";
    let top1 = run(&folder, evaluate, 0).json()["model"]["top1"].as_f64().unwrap();
    assert_eq!((top1 * 450.0).round() as u64, right(chosen));
}

#[test]
fn a_search_is_the_same_for_any_number_of_threads_and_goes_on_where_it_was_killed() {
    let folder = Folder::new("tune-again");
    folder.run(&format!("{SEARCH} {FOUR_BITS} --threads 1 --output-dir one -q"));
    folder.run(&format!("{SEARCH} {FOUR_BITS} --threads 3 --output-dir three -q"));
    let expected = results(&folder, "one");
    assert!(expected == results(&folder, "three"));
    // Killed while it wrote its fourth trial.
    let text = String::from_utf8(expected["trials.jsonl"].clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    folder.write("killed/trials.jsonl", format!("{}\n{}", lines[..4].join("\n"), &lines[4][..20]).as_bytes());
    let ran = folder.run(&format!("{SEARCH} {FOUR_BITS} --output-dir killed"));
    assert!(ran.err.contains("3 trials of"), "{}", ran.err);
    assert!(expected == results(&folder, "killed"));
    // Another search's trials are not taken for its own, and what is no trials is not overwritten.
    let ran = folder.run(&format!("{SEARCH} --trials 1 --output-dir killed"));
    assert!(ran.err.contains("begins anew"), "{}", ran.err);
    folder.write("mine/trials.jsonl", b"what I have tried so far");
    run(&folder, &format!("{SEARCH} --trials 1 --output-dir mine"), 2);
    assert_eq!(folder.read("mine/trials.jsonl"), b"what I have tried so far");
}

#[test]
fn at_equal_accuracy_the_choice_is_never_slower_than_the_strategy_as_it_was_given() {
    let folder = Folder::new("tune-slower");
    for on in ["--target B512", "--board mps2-an386", ""] {
        let report = folder.run(&format!("{SEARCH} --trials 6 {on} --json")).json();
        let (all, chosen) = trials(&report);
        let price = |trial: &Value| trial["price"].as_u64().unwrap();
        assert!(report["kept"] == true && price(chosen) > 0, "{on}: {report}");
        assert!(right(chosen) != right(&all[0]) || price(chosen) <= price(&all[0]), "{on}: {report}");
        // Nothing is both cheaper and more accurate than a point of the front.
        for point in report["pareto"].as_array().unwrap() {
            let point = &all[point.as_u64().unwrap() as usize];
            let beaten = |t: &Value| price(t) <= price(point) && right(t) > right(point);
            assert!(!all.iter().any(beaten), "{on}: {report}");
        }
    }
}

#[test]
fn without_labels_the_float_network_is_right_and_an_impossible_limit_is_exit_code_one() {
    let folder = Folder::new("tune-agreement");
    let search = "tune digits_resnet.h5 --calib digits.npz:x_cal --data digits.npz:x_eval --trials 3";
    let report = run(&folder, &format!("{search} --max-drop 5% --json"), 0).json();
    assert_eq!((&report["measure"], &report["float_right"]), (&"agreement".into(), &450.into()), "{report}");
    let ran = run(&folder, &format!("{search} --max-drop=-1%"), 1);
    assert!(ran.out.contains("exceeded by every trial"), "{}", ran.out);
    assert!(!folder.read("tune_results/quantized.h5").is_empty());
}

#[test]
fn layers_that_lose_most_get_more_bits_where_nothing_else_keeps_the_drop() {
    let folder = Folder::new("tune-layers");
    let keys = "--set weight_bit=2 --set include_fast_ft=false --max-drop 1%";
    let report = folder.run(&format!("{SEARCH} {keys} --json")).json();
    let (all, chosen) = trials(&report);
    let layers = |t: &Value| t["changes"].as_array().unwrap().iter().filter(|c| c["layer"].is_string()).count();
    assert!(all.iter().any(|t| layers(t) > 0), "{report}");
    // As few as it takes: with one less of them the drop is not kept, or the search has not ended.
    if report["kept"] == true && report["ended"] == "exhausted" {
        let settings = |t: &Value| t["settings"]["ignore_layers"].as_array().map_or(0, Vec::len);
        let worse = all.iter().filter(|t| settings(t) + 1 == settings(chosen));
        let lost = |t: &Value| report["float_right"].as_u64().unwrap().saturating_sub(right(t)) as f64 > 4.5;
        assert!(worse.clone().all(lost) && layers(chosen) > 0, "{report}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let folder = Folder::new("tune-refused");
    run(&folder, &format!("{SEARCH} --budget soon"), 2);
    run(&folder, &format!("{SEARCH} --target no-such-dpu"), 2);
    let few = "tune digits_lenet.h5 --calib digits.npz:x_cal --data digits.npz:x_cal --labels digits.npz:y_eval";
    assert!(run(&folder, few, 2).err.contains("one label per sample"));
    run(&folder, &format!("{SEARCH} --strategy bfp"), 2);
    assert!(!folder.tree().keys().any(|name| name.contains("tune_results")));
}
