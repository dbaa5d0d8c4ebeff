//! Layers given by a formula, and attention, become float steps of the deployable: on the CPU alone and beside a DPU.

use shiftwise_tests::command::Folder;

use crate::keras::file;

#[test]
fn what_is_made_of_functions_is_proved_on_every_target() {
    let data = file("expected.npz");
    let runs = [
        ("custom_keras2.h5", "--custom-layer Blend=ratio*x0*scale+(1-ratio)*x1", vec!["custom_x0"], ["cpu", "B1152"]),
        ("attention_keras3.keras", "", vec!["a=attention_x0", "b=attention_x1"], ["cpu", "B1152"]),
    ];
    for (model, more, inputs, targets) in runs {
        let folder = Folder::new(&format!("formulas-{model}"));
        let given = |option: &str| {
            let one = |input: &&str| match input.split_once('=') {
                Some((name, key)) => format!("{option} {name}={}:{key} ", data.display()),
                None => format!("{option} {}:{input} ", data.display()),
            };
            inputs.iter().map(one).collect::<String>()
        };
        let path = file(model);
        for target in targets {
            let (calib, run) = (given("--calib"), given("--data"));
            let ran = folder.run(&format!(
                "verify {} {more} {calib} {run} --samples 2 --target {target} -o proof.json --json",
                path.display()
            ));
            assert_eq!(ran.code, Some(0), "{model} {target}: {ran:?}");
            let check = &ran.json()["checks"][0];
            assert!(check["mismatches"] == 0 && check["tensors"].as_u64() > Some(3), "{model} {target}: {check}");
        }
    }
}
