//! What people write.

use shiftwise_compile::{self as compile, DpuOptions};
use shiftwise_core::isa::described::InstructionSet;
use shiftwise_core::isa::{Line, codec};
use shiftwise_core::target::{IsaVersion, Target};
use shiftwise_graph::ops::CustomLayers;
use shiftwise_quant::strategy::Strategy;
use shiftwise_sim::{Costs, SimDpu};
use shiftwise_targets::parse;

use crate::odd::{Choices, odd_graph};

/// A strategy file, as one that replaces and as one that changes parts.
pub(super) fn strategy(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) else { return };
    for name in ["pof2s", "8bit"] {
        let Ok(built_in) = Strategy::built_in(name) else { continue };
        for change in [Strategy::replace, Strategy::update] {
            let mut changed = built_in.clone();
            if change(&mut changed, &value).is_ok() {
                let _ = (changed.check(), changed.dump(2), changed.changes(&built_in), changed.input_quantizer());
                let _ =
                    (changed.keys().len(), changed.layer_entry("Conv2D", false), changed.layer_list("ignore_layers"));
            }
        }
    }
}

/// A data file of any kind; a DPU that is accepted is also used.
pub(super) fn toml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = parse::board("fuzzed.toml", text);
    let _ = parse::description("fuzzed.toml", text);
    let _ = shiftwise_targets::timing::parse("fuzzed.toml", text);
    if let Ok(target) = parse::target("fuzzed.toml", text) {
        use_target(&target);
    }
}

fn use_target(target: &Target) {
    // Larger ones are legitimate, and take longer than a fuzzer should.
    if target.bank_bytes() > 16 << 20 {
        return;
    }
    let graph = odd_graph(&mut Choices::new(&[0, 5, 3, 1, 0, 0, 1, 3, 0, 1, 0, 1, 1, 1]));
    let _ = compile::placement(&graph, target);
    let _ = compile::dpu(&graph, target, &DpuOptions::default());
    let _ = SimDpu::new(target.clone(), target.clock_mhz, Costs::default());
}

/// Lines of a listing in every instruction set: what is taken encodes, decodes and is printed as it was taken.
pub(super) fn listing(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for line in text.lines().take(100) {
        for version in IsaVersion::ALL {
            let Ok(line) = line.parse::<Line>() else { break };
            let Ok(words) = codec::encode(*version, &line) else { continue };
            let code: Vec<u8> = words.bytes().collect();
            let (back, _) = codec::decode(*version, &code).expect("what was encoded decodes");
            assert_eq!(back, line, "{version:?}");
            assert_eq!(line.to_string().parse::<Line>().as_ref(), Ok(&line));
        }
        for set in InstructionSet::all_names().filter_map(InstructionSet::named) {
            if let Ok(item) = set.parse(line) {
                let code: Vec<u8> = item.bytes().collect();
                let (back, _) = set.decode(&code).expect("what was encoded decodes");
                assert_eq!(back.to_string(), item.to_string(), "{}", set.name);
            }
        }
    }
}

/// A formula of a custom layer.
pub(super) fn formula(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = CustomLayers::default().add_formula(text);
    }
}
