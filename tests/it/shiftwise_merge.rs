//! `--shard K/N` and `merge`: the same bytes as one run.

use shiftwise_tests::command::{Folder, Ran};

fn run(folder: &Folder, arguments: &str, code: i32) -> Ran {
    let ran = folder.run(arguments);
    assert_eq!(ran.code, Some(code), "{arguments}: {ran:?}");
    ran
}

/// Runs every shard of a command, the last one first, and merges the parts in yet another order.
fn merged(folder: &Folder, command: &str, shards: usize, options: &str, code: i32) -> Ran {
    let name = command.split_whitespace().next().unwrap();
    for k in (1..=shards).rev() {
        run(folder, &format!("{command} --shard {k}/{shards} --threads {k} -q"), 0);
    }
    let mut parts: Vec<String> = (1..=shards).map(|k| format!("{name}-{k}-of-{shards}.part")).collect();
    parts.rotate_left(1);
    run(folder, &format!("merge {} {options}", parts.join(" ")), code)
}

#[test]
fn the_merged_counts_of_an_evaluation_are_those_of_one_run() {
    let folder = Folder::new("merge-evaluate");
    run(&folder, "quantize digits_resnet.h5 --calib digits.npz:x_cal --output-dir q -q", 0);
    let command = "evaluate q/quantized.h5 --data digits.npz:x_eval --labels digits.npz:y_eval --top 3 \
                   --baseline digits_resnet.h5 --max-drop=50%";
    for options in ["--json", ""] {
        let one = run(&folder, &format!("{command} {options}"), 0);
        for shards in [1, 3, 8] {
            assert_eq!(merged(&folder, command, shards, options, 0).out, one.out);
        }
    }
    // A drop that is too large is one for the merged run too.
    let command = command.replace("50%", "-99%");
    assert_eq!(merged(&folder, &command, 2, "", 1).out, run(&folder, &command, 1).out);
}

#[test]
fn a_calibration_in_shards_gives_the_same_files_as_one_run() {
    let folder = Folder::new("merge-quantize");
    for (n, settings) in [
        "--calib-batch-size 7",
        "--calib-batch-size 16 --calib-steps 5 --strategy pof2s_tqt",
        "--calib-batch-size 20 --set activation_method=0 --set fold_dead_channels=true",
        "--calib-batch-size 25 --set include_fast_ft=true --set fast_ft_algorithm=reconstruct",
    ]
    .iter()
    .enumerate()
    {
        let command = |dir: &str| {
            format!("quantize digits_lenet.h5 --calib digits.npz:x_cal --scale 0.0625 {settings} --output-dir {dir}")
        };
        let dir = format!("q{n}");
        let one = run(&folder, &command(&dir), 0);
        let files = |folder: &Folder| {
            folder.tree().into_iter().filter(|(name, _)| name.starts_with(&format!("{dir}/"))).collect::<Vec<_>>()
        };
        let expected = files(&folder);
        assert_eq!(expected.len(), 3);
        std::fs::remove_dir_all(folder.path.join(&dir)).unwrap();
        for shards in [2, 4] {
            assert_eq!(merged(&folder, &command(&dir), shards, "", 0).out, one.out, "{settings}");
            assert!(files(&folder) == expected, "{settings}");
        }
    }
}

#[test]
fn a_search_goes_on_from_the_trials_of_all_shards_to_the_result_of_one_run() {
    let folder = Folder::new("merge-tune");
    let command = "tune digits_lenet.h5 --calib digits.npz:x_cal --data digits.npz:x_eval --labels digits.npz:y_eval \
                   --set weight_bit=3 --trials 12 --max-drop 3%";
    let ran = folder.run(&format!("{command} -q"));
    let names = ["strategy.json", "quantized.h5", "trials.jsonl", "pareto.svg", "provenance.json"];
    let files = || names.map(|name| folder.read(&format!("tune_results/{name}")));
    let expected = files();
    std::fs::remove_dir_all(folder.path.join("tune_results")).unwrap();
    assert_eq!(merged(&folder, command, 3, "-q", ran.code.unwrap()).out, ran.out);
    assert!(files() == expected);
}

#[test]
fn parts_that_do_not_make_a_whole_are_refused() {
    let folder = Folder::new("merge-refused");
    let evaluate = "evaluate digits_lenet.h5 --data digits.npz:x_eval --labels digits.npz:y_eval";
    for k in 1..=3 {
        run(&folder, &format!("{evaluate} --shard {k}/3"), 0);
    }
    let refused = |arguments: &str, why: &str| {
        let ran = run(&folder, arguments, 2);
        assert!(ran.err.contains(why), "{arguments}: {}", ran.err);
    };
    refused("merge evaluate-1-of-3.part evaluate-3-of-3.part", "missing: 2/3");
    refused("merge evaluate-1-of-3.part evaluate-1-of-3.part evaluate-2-of-3.part evaluate-3-of-3.part", "twice");
    run(&folder, &format!("{evaluate} --top 2 --shard 2/3 --part other.part"), 0);
    refused("merge evaluate-1-of-3.part other.part evaluate-3-of-3.part", "different runs");
    folder.write("damaged.part", &folder.read("evaluate-2-of-3.part")[..40]);
    refused("merge evaluate-1-of-3.part damaged.part evaluate-3-of-3.part", "no part");
    let text = String::from_utf8(folder.read("evaluate-2-of-3.part")).unwrap();
    folder.write("forged.part", text.replace("\"evaluate\"", "\"man\"").as_bytes());
    refused("merge forged.part", "missing");
    folder.write("later.part", text.replace("\"shiftwise_part\":1", "\"shiftwise_part\":2").as_bytes());
    refused("merge later.part", "version 2");
    // Another model under the same name.
    std::fs::copy(folder.path.join("digits_resnet.h5"), folder.path.join("digits_lenet.h5")).unwrap();
    refused("merge evaluate-1-of-3.part evaluate-2-of-3.part evaluate-3-of-3.part", "other models");
}

#[test]
fn what_cannot_be_shared_says_why() {
    let folder = Folder::new("merge-cannot");
    let quantize = "quantize digits_lenet.h5 --calib digits.npz:x_cal";
    let refused = |arguments: &str, why: &str| {
        let ran = run(&folder, arguments, 2);
        assert!(ran.err.contains(why), "{arguments}: {}", ran.err);
    };
    refused(&format!("{quantize} --strategy fs --shard 1/2"), "grow from batch to batch");
    refused(&format!("{quantize} --shard 1/5"), "5 shards of 4 calibration batches");
    refused(&format!("{quantize} --shard 3/2"), "1/8");
    refused(&format!("{quantize} --part x"), "--shard");
}

#[test]
fn dumps_and_proofs_in_shards_have_the_bytes_of_one_run() {
    let folder = Folder::new("merge-dump");
    run(&folder, "quantize digits_resnet.h5 --calib digits.npz:x_cal --output-dir q -q", 0);
    for options in ["--numerics vendor", "--dump-float"] {
        let command = |dir: &str| {
            format!("dump q/quantized.h5 --data digits.npz:x_eval --samples 7 {options} --output-dir {dir}")
        };
        run(&folder, &command("one"), 0);
        merged(&folder, &command("many"), 3, "", 0);
        let of = |dir: &str| {
            let dir = format!("{dir}/");
            let files =
                folder.tree().into_iter().filter_map(|(name, b)| Some((name.strip_prefix(&dir)?.to_owned(), b)));
            files.collect::<Vec<_>>()
        };
        assert!(of("one").len() > 10 && of("one") == of("many"), "{options}");
    }
    let verify = "verify q/quantized.h5 --data digits.npz:x_eval --samples 5 --target B512";
    let one = run(&folder, verify, 0);
    let proof = folder.read("proof.json");
    std::fs::remove_file(folder.path.join("proof.json")).unwrap();
    for shards in [1, 2, 5] {
        assert_eq!(merged(&folder, verify, shards, "", 0).out, one.out);
        assert!(folder.read("proof.json") == proof);
    }
    let info = run(&folder, "info verify-1-of-2.part --json", 0).json();
    assert_eq!((&info["content"]["part"]["shard"], &info["content"]["part"]["of"]), (&1.into(), &2.into()), "{info}");
}
