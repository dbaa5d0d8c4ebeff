//! Deployables from outside: whatever the bytes, reading and running them returns and does not panic.

use std::sync::LazyLock;

use proptest::prelude::*;
use shiftwise_compile::{self as compile, CpuOptions};
use shiftwise_core::model::{Deployable, Region, TensorDesc, TensorId, crc32};
use shiftwise_core::run::{Memory, NoDpu, Observer, run};
use shiftwise_integer::lower::lower;
use shiftwise_quant::pipeline::{PtqOptions, ptq};
use shiftwise_quant::strategy::Strategy;
use shiftwise_tests::cases::cases;
use shiftwise_tests::networks::{random_network_of_functions, random_samples};
use shiftwise_tests::small;

#[derive(Default)]
struct Tensors(Vec<(String, Vec<u8>)>);

impl Observer for Tensors {
    fn tensor(&mut self, _: TensorId, tensor: &TensorDesc<'_>, bytes: &[u8]) {
        self.0.push((tensor.name.into(), bytes.to_vec()));
    }
}

/// Runs a deployable on input bytes; `None` if it needs more memory or work than a test should spend.
fn run_all(file: &[u8], input: &[u8]) -> Option<Tensors> {
    let model = Deployable::parse(file).ok()?;
    let sizes = [Region::Workspace, Region::Inputs, Region::Outputs].map(|r| model.region_bytes(r));
    if sizes.iter().any(|n| *n > 1 << 16) {
        return None;
    }
    let [mut workspace, mut inputs, mut outputs] = sizes.map(|n| vec![0; n]);
    inputs.iter_mut().zip(input).for_each(|(to, from)| *to = *from);
    let mut memory =
        Memory { constants: model.constants(), workspace: &mut workspace, inputs: &mut inputs, outputs: &mut outputs };
    let mut seen = Tensors::default();
    run(&model, &mut NoDpu, &mut memory, &mut seen).ok()?;
    Some(seen)
}

fn with_crc(mut file: Vec<u8>) -> Vec<u8> {
    let body = file.len().saturating_sub(4);
    let crc = crc32(&file[..body]);
    file[body..].copy_from_slice(&crc.to_le_bytes());
    file
}

#[test]
fn the_small_network_has_values_in_every_tensor() {
    let file = small::deployable().unwrap();
    let seen = run_all(&file, &small::sample(0)).unwrap();
    assert_eq!(seen.0.len(), usize::from(small::TENSORS));
    for (name, bytes) in &seen.0 {
        let mut values = bytes.clone();
        values.sort();
        values.dedup();
        assert!(values.len() > 2, "{name} {bytes:?}");
    }
    let floats = seen.0.last().unwrap().1.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
    assert!((floats.sum::<f32>() - 1.0).abs() < 1e-5);
}

/// The small network, and random ones with layers in floats.
static FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let compiled = |seed| {
        let graph = random_network_of_functions(seed, 6);
        let mut strategy = Strategy::built_in("pof2s").unwrap();
        let names: Vec<&str> = graph.ids().skip(1).step_by(3).map(|id| graph.node(id).name.as_str()).collect();
        strategy.set("ignore_layers", serde_json::json!(names)).unwrap();
        let options = PtqOptions::new(strategy);
        let q = ptq(graph.clone(), &random_samples(&graph, seed, 2), &options, |_, _| {}).unwrap().quantized;
        compile::cpu(&lower(&q).unwrap(), &CpuOptions::default()).ok()?.to_bytes(&[]).ok()
    };
    (0..200).filter_map(compiled).chain([small::deployable().unwrap()]).collect()
});

#[test]
fn the_files_hold_every_step_in_floats() {
    let text: String = FILES
        .iter()
        .flat_map(|f| Deployable::parse(f).unwrap().steps().map(|s| format!("{s:?}")).collect::<Vec<_>>())
        .collect();
    for step in ["Map", "Zip", "FloatConvOp", "FloatPoolOp", "CopyOp", "ResizeOp", "RowsOp", "Reduce", "ProductOp"] {
        assert!(text.contains(step), "{step}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(3000)))]

    /// The checksum is made good again, so that the damage reaches every check behind it, and the runner.
    #[test]
    fn forged_deployables_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..6),
        cut in prop::option::weighted(0.1, any::<prop::sample::Index>()),
        which: prop::sample::Index,
    ) {
        let mut file = which.get(&FILES).clone();
        // Constants may hold anything: aim at the records before them.
        let records = (file.len() - Deployable::parse(&file).unwrap().constants().len() - 4).max(1);
        for (at, value, kind) in edits {
            let byte = &mut file[at.index(records)];
            *byte = match kind {
                0 => value,
                1 => byte.wrapping_add(1),
                2 => byte.wrapping_sub(1),
                _ => [0, 1, 127, 128, 255][usize::from(value) % 5],
            };
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()).max(8));
            let length = (file.len() as u32).to_le_bytes();
            if let Some(field) = file.get_mut(16..20) {
                field.copy_from_slice(&length);
            }
        }
        let _ = run_all(&with_crc(file), &small::sample(1));
    }

    #[test]
    fn noise_is_no_deployable(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Deployable::parse(&bytes).is_err());
    }
}
