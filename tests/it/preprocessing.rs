//! How data is prepared is said once, to `quantize`; every later command does the same, and says so.

use shiftwise_tests::command::Folder;

const QUANTIZE: &str =
    "quantize digits_lenet.h5 --calib digits.npz:x_cal --mean 0.25 --scale 1/2 --output-dir q --set include_cle=false";

fn top1(folder: &Folder, arguments: &str) -> (f64, String) {
    let command =
        format!("evaluate q/quantized.h5 --data digits.npz:x_eval --labels digits.npz:y_eval --json {arguments}");
    let ran = folder.run(&command);
    (ran.json()["model"]["top1"].as_f64().unwrap(), ran.err)
}

#[test]
fn what_quantize_was_told_is_used_by_every_later_command() {
    let folder = Folder::new("preprocessing");
    assert_eq!(folder.run(QUANTIZE).code, Some(0));
    let (stored, said) = top1(&folder, "");
    assert!(said.contains("--mean 0.25 --scale 0.5"), "{said}");
    let (retyped, said) = top1(&folder, "--mean 0.25 --scale 0.5");
    assert_eq!((stored, said.as_str()), (retyped, ""));
    let (raw, said) = top1(&folder, "--raw");
    assert!(raw != stored && !said.contains("--scale"), "{raw} {stored} {said}");
    let (_, said) = top1(&folder, "--scale 2");
    assert!(said.contains("warning: --scale 2 is used, but the model was calibrated with --scale 0.5"), "{said}");

    // The deployable and the proof carry it too: the same data gives the same tensors without retyping anything.
    assert_eq!(folder.run("dump q/quantized.h5 --data digits.npz:x_eval --output-dir dump").code, Some(0));
    assert_eq!(folder.run("compile q/quantized.h5 --target B512 -o m.swm").code, Some(0));
    let ran = folder.run("simulate m.swm --data digits.npz:x_eval --golden dump");
    assert!(ran.code == Some(0) && ran.err.contains("--mean 0.25 --scale 0.5"), "{ran:?}");
    let proof = folder.run("verify q/quantized.h5 --data digits.npz:x_eval --target B512 --json").json();
    assert_eq!(proof["metadata"]["preprocessing"]["scale"], 0.5);
    assert_eq!(proof["metadata"]["inputs"][0]["samples"], 100);
}

#[test]
fn data_that_calibration_would_not_know_is_doubted() {
    let folder = Folder::new("doubts");
    assert_eq!(folder.run("quantize digits_lenet.h5 --calib digits.npz:x_cal --output-dir q").code, Some(0));
    for (arguments, doubt) in [
        ("", ""),
        ("--scale 100", "is a scale missing?"),
        ("--scale 1/100", "scaled already, or twice?"),
        ("--mean 1", "is a mean subtracted that should not be?"),
    ] {
        let (_, said) = top1(&folder, arguments);
        let warned = said.contains("warning: input `image`");
        assert!(warned != doubt.is_empty() && said.contains(doubt), "{arguments}: {said}");
    }
    let ran = folder.run("quantize digits_lenet.h5 --calib digits.npz:x_cal --scale 0");
    assert!(ran.code == Some(2) && ran.err.contains("makes every value 0"), "{ran:?}");
}
