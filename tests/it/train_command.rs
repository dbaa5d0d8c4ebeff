//! Training from the command line: what is trained deploys, compiles and verifies; the same bytes whatever the machine
//! does; what can't be trained is refused with a reason.

use shiftwise_tests::command::Folder;

/// A few steps on the small digits network.
const STEPS: &str =
    "--data digits.npz:x_eval --labels digits.npz:y_eval --epochs 1 --batch-size 16 --steps-per-epoch 3";

#[test]
fn what_is_trained_deploys_compiles_and_verifies() {
    let folder = Folder::new("train-verify");
    for (strategy, more) in
        [("pof2s", ""), ("pof2s", "--train-with-bn"), ("pof2s_tqt", "--init-quant --calib digits.npz:x_cal")]
    {
        let ran =
            folder.run(&format!("train digits_resnet.h5 {STEPS} --strategy {strategy} {more} --output-dir t --json"));
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(ran.json()["steps"], 3);
        assert_eq!(ran.json()["history"]["step_losses"].as_array().unwrap().len(), 3);
        let ran = folder.run("deploy t/qat.h5 --output-dir d --data digits.npz:x_eval --json");
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let ran = folder.run("compile d/quantized.h5 --target B512 -o net.swm");
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let ran = folder.run("verify d/quantized.h5 --data digits.npz:x_eval --target B512 --samples 2 -o proof.json");
        assert!(ran.code == Some(0) && ran.out.contains(" 0 mismatches"), "{strategy} {more}: {ran:?}");
    }
}

/// Numbers that are no power-of-two steps have no place on a DPU, but train and deploy all the same.
#[test]
fn float_scales_and_blocks_train_with_their_normalizations_and_deploy() {
    let folder = Folder::new("train-others");
    for (strategy, class) in [("fs", "FSQuantizer"), ("fsx", "FSQuantizer"), ("bfp", "BFPQuantizer")] {
        let methods = if strategy == "bfp" { "" } else { "--set activation_method=0 --set input_method=0" };
        for more in ["", "--train-with-bn"] {
            let line = format!("train digits_resnet.h5 {STEPS} --strategy {strategy} {methods} {more} --output-dir t");
            let ran = folder.run(&line);
            assert_eq!(ran.code, Some(0), "{strategy} {more}: {ran:?}");
            let ran = folder.run("deploy t/qat.h5 --output-dir d");
            assert_eq!(ran.code, Some(0), "{strategy} {more}: {ran:?}");
            let ran = folder.run(
                "evaluate d/quantized.h5 --data digits.npz:x_eval --labels digits.npz:y_eval --numerics vendor --json",
            );
            assert_eq!(ran.code, Some(0), "{strategy} {more}: {ran:?}");
            let file = folder.read("d/quantized.h5");
            assert!(file.windows(class.len()).any(|bytes| bytes == class.as_bytes()), "{strategy} {more}");
        }
    }
}

/// Normalizations that are kept apart for training are folded last, so that what is calibrated compiles.
#[test]
fn calibration_with_normalizations_apart_compiles_and_verifies() {
    let folder = Folder::new("calibrate-norms");
    let ran = folder.run("quantize digits_resnet.h5 --calib digits.npz:x_cal --set train_with_bn=true --output-dir q");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = folder.run("verify q/quantized.h5 --data digits.npz:x_eval --target B512 --samples 2 -o proof.json");
    assert!(ran.code == Some(0) && ran.out.contains(" 0 mismatches"), "{ran:?}");
}

#[test]
fn training_gives_the_same_bytes_for_any_number_of_threads() {
    let folder = Folder::new("train-threads");
    let bytes: Vec<Vec<u8>> = [1, 2, 7]
        .into_iter()
        .map(|threads| {
            let more = format!(
                "--strategy pof2s_tqt --train-with-bn --augment crop:1 --threads {threads} --output-dir t{threads}"
            );
            let ran = folder.run(&format!("train digits_resnet.h5 {STEPS} {more}"));
            assert_eq!(ran.code, Some(0), "{ran:?}");
            folder.read(&format!("t{threads}/qat.h5"))
        })
        .collect();
    assert!(bytes[0] == bytes[1] && bytes[1] == bytes[2]);
}

/// Every kind of quantizer, with what they keep of a step.
const KINDS: [&str; 7] = [
    "--strategy none",
    "--strategy pof2s",
    "--strategy pof2s --train-with-bn",
    "--strategy pof2s_tqt --train-with-bn --bn-correction textbook",
    "--strategy fsx --set activation_method=0 --set input_method=0",
    "--strategy fsx --set activation_method=0 --set input_method=0 --train-with-bn",
    "--strategy bfp",
];

#[test]
fn training_gives_the_same_bytes_on_every_path_of_the_kernels() {
    let folder = Folder::new("train-paths");
    for kind in [KINDS[0], KINDS[2]] {
        let of = |path: &str| {
            let line = format!("train digits_resnet.h5 {STEPS} {kind} --output-dir {path}");
            let ran = folder.run_in(&line.split_whitespace().collect::<Vec<_>>(), &[("SHIFTWISE_SIMD", path)]);
            assert_eq!(ran.code, Some(0), "{ran:?}");
            let file = if kind == KINDS[0] { "model.h5" } else { "qat.h5" };
            folder.read(&format!("{path}/{file}"))
        };
        let bytes = ["scalar", "avx2", "avx512"].map(of);
        assert!(bytes[0] == bytes[1] && bytes[1] == bytes[2], "{kind}");
    }
}

#[test]
fn what_is_computed_twice_to_save_memory_gives_the_same_bytes() {
    let folder = Folder::new("train-memory");
    for kind in KINDS {
        let of = |memory: &str| {
            let line = format!("train digits_resnet.h5 {STEPS} {kind} {memory} --output-dir t");
            let ran = folder.run(&line);
            assert_eq!(ran.code, Some(0), "{ran:?}");
            let file = if kind == KINDS[0] { "model.h5" } else { "qat.h5" };
            (folder.read(&format!("t/{file}")), folder.read("t/history.json"), ran)
        };
        let all = of("");
        let (file, history, ran) = of("--memory 10kB");
        assert!(ran.err.contains("is too small") && ran.out.contains("computed twice"), "{ran:?}");
        assert!(!ran.out.contains("; 0 layers"), "{ran:?}");
        assert!(file == all.0 && history == all.1, "{kind}");
        let (file, _, ran) = of("--memory 1GB");
        assert!(file == all.0 && ran.out.contains("; 0 layers are computed twice"), "{ran:?}");
    }
}

#[test]
fn a_trained_network_trains_on_and_validation_keeps_the_best() {
    let folder = Folder::new("train-on");
    let held = "--validation digits.npz:x_eval --validation-labels digits.npz:y_eval";
    let ran = folder.run(&format!("train digits_lenet.h5 {STEPS} --loss distill {held} --output-dir t --json"));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.json()["history"]["best_epoch"], 1);
    let ran = folder.run(&format!("train t/best.h5 {STEPS} --optimizer sgd --lr 0.01 --output-dir u"));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = folder.run(&format!("train digits_lenet.h5 {STEPS} --strategy none --output-dir f"));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = folder.run("evaluate f/model.h5 --data digits.npz:x_eval --labels digits.npz:y_eval");
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

#[test]
fn a_run_that_can_not_be_is_refused_with_its_reason() {
    let folder = Folder::new("train-refused");
    let refused = |arguments: &str, why: &str| {
        let ran = folder.run(&format!("train digits_lenet.h5 {arguments}"));
        assert!(ran.code == Some(2) && ran.err.contains(why), "{arguments}: {ran:?}");
    };
    refused("--data digits.npz:x_eval", "needs --labels DATA");
    refused("--data digits.npz:x_cal --labels digits.npz:y_eval", "one label per sample");
    refused(&format!("{STEPS} --loss mad"), "sparse_categorical_crossentropy");
    refused(&format!("{STEPS} --optimizer adam --momentum 0.9"), "no effect on adam");
    refused(&format!("{STEPS} --optimizer sgd --lr 1e30"), "is not finite");
    refused(&format!("{STEPS} --init-quant"), "pass --calib");
    refused(&format!("{STEPS} --memory 5"), "kB, MB or GB");
}

#[test]
fn a_run_that_is_resumed_knows_its_options_and_ends_with_the_same_bytes() {
    for strategy in ["pof2s", "none"] {
        let folder = Folder::new(&format!("train-again-{strategy}"));
        let run = format!(
            "train digits_resnet.h5 --strategy {strategy} --data digits.npz:x_cal --loss distill --epochs 2 --batch-size 50 \
             --checkpoint-every 1 --schedule step:1:0.5 --augment flip,crop:1 --output-dir t"
        );
        let first = folder.run(&run);
        assert_eq!(first.code, Some(0), "{first:?}");
        let before = folder.tree();
        let again = folder.run(&format!("{run} --resume"));
        assert!(again.code == Some(0) && again.out.contains("going on behind step 4"), "{again:?}");
        assert!(before == folder.tree(), "{strategy}: files differ");
        let other = folder.run(&format!("{run} --resume --lr 0.5"));
        assert!(other.code == Some(2) && other.err.contains("other options"), "{other:?}");
    }
}
