//! What holds of the placement and the program of any network.

use std::collections::BTreeSet;

use proptest::prelude::*;
use shiftwise_core::model::{CpuOp, Deployable, Region, Step};
use shiftwise_core::target::Target;

use crate::arbitrary::{cases, network};
use crate::dpu::codegen::bank_layout::Spot;
use crate::dpu::concat::Slice;
use crate::dpu::hazard::BANK_GRAIN;
use crate::dpu::pad;
use crate::dpu::resident::Residence;
use crate::placed::Placed;
use crate::program::{Buffer, Engine, Program, ProgramStep};
use crate::reason::Reason;
use crate::{CpuOptions, DpuOptions, Placement, compile, cpu, dpu, place};
use shiftwise_core::fix::FixPos;
use shiftwise_core::shape::Window;
use shiftwise_integer::graph::{IntAct, IntConv, IntGraph, IntOp, IntOpKind, IntTensor, Kind, TensorIx, image};

fn target(name: &str) -> Target {
    shiftwise_targets::find(name).unwrap()
}

fn any_target() -> impl Strategy<Value = Target> {
    prop_oneof![Just("B512"), Just("B1152"), Just("B4096")].prop_map(target)
}

fn options() -> impl Strategy<Value = DpuOptions> {
    any::<[bool; 2]>().prop_map(|[observe, gather_weights]| DpuOptions {
        observe,
        gather_weights,
        ..DpuOptions::default()
    })
}

fn outputs(placement: &Placement<'_>, which: impl Fn(&Placed) -> bool) -> BTreeSet<usize> {
    let both = placement.graph().ops.iter().zip(placement.ops());
    both.filter(|(_, placed)| which(placed)).map(|(op, _)| op.output.0).collect()
}

/// Addresses of every bank of a group that a map in the banks takes, and the group's first bank.
fn held(placement: &Placement<'_>, residence: &Residence, t: TensorIx) -> Option<(u32, [u32; 2])> {
    let spot = residence.spot(t)?;
    let [h, w, c] = image(&placement.graph().tensors[t.0].shape).map(|d| d as u32);
    let size = [h, w, c.div_ceil(placement.machine.lanes)];
    let addresses = Spot::addresses(&placement.machine, size, spot.pack).next_multiple_of(BANK_GRAIN);
    Some((spot.bank, [spot.at, spot.at + addresses]))
}

fn meet(a: [u64; 2], b: [u64; 2]) -> bool {
    a[0] < b[1] && b[0] < a[1]
}

/// A tensor, the ops from which and to which it lives, and where: group and addresses.
type Life = (TensorIx, usize, usize, (u32, [u32; 2]));

/// Two buffers that are needed at the same op and share bytes.
fn clash(buffers: &[Buffer], over: impl Fn(&Buffer, &Buffer) -> bool) -> Option<[&Buffer; 2]> {
    let bytes = |b: &Buffer| [u64::from(b.place.offset), u64::from(b.place.offset) + b.bytes];
    let together = |a: &Buffer, b: &Buffer| match (a.ops, b.ops) {
        (Some(a), Some(b)) => a.0 <= b.1 && b.0 <= a.1,
        _ => true,
    };
    let pairs = buffers.iter().enumerate().flat_map(|(i, a)| buffers[..i].iter().map(move |b| [a, b]));
    let mut bad = pairs
        .filter(|[a, b]| a.place.region == b.place.region && meet(bytes(a), bytes(b)) && together(a, b) && !over(a, b));
    bad.next()
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn a_program_runs_each_op_where_its_placement_says(g in network(), t in any_target(), o in options()) {
        let placement = place(&g, &t, &o).unwrap();
        let program = compile(&placement).unwrap();
        let on_dpu = outputs(&placement, |p| matches!(p, Placed::Dpu { .. } | Placed::Fused { .. }));
        let spans: BTreeSet<usize> = program.spans.iter().map(|s| usize::from(s.output.0)).collect();
        prop_assert_eq!(&spans, &on_dpu);
        let jobs = program.steps.iter().filter(|s| matches!(s, ProgramStep::Dpu { .. })).count();
        prop_assert_eq!(jobs, placement.jobs().len());
        let rows: Vec<(String, Reason)> =
            program.layers.iter().filter_map(|row| Some((row.layer.clone(), row.reason.clone()?))).collect();
        let fallbacks: Vec<(String, Reason)> =
            placement.fallbacks().map(|(op, why)| (op.layer.clone(), why.clone())).collect();
        prop_assert_eq!(rows, fallbacks);
        for row in &program.layers {
            prop_assert_eq!(row.engine == Engine::Cpu, row.reason.is_some(), "{}", row.layer);
        }
    }

    #[test]
    fn strict_refuses_with_the_first_reason_of_the_placement_or_not_at_all(g in network(), t in any_target()) {
        let o = DpuOptions { strict: true, ..DpuOptions::default() };
        let placement = place(&g, &t, &o).unwrap();
        let refused = dpu(&g, &t, &o).err().map(|e| e.to_string());
        let first = placement.fallbacks().next();
        let text = first.map(|(op, why)| format!("layer `{}` does not run on {}: {why}", op.layer, t.name));
        prop_assert_eq!(refused, text);
        let verdict = placement.verdicts().find(|v| v.on_cpu);
        prop_assert_eq!(verdict.and_then(|v| v.code), first.map(|(_, why)| why.code()));
    }

    #[test]
    fn jobs_are_the_runs_of_ops_on_the_dpu(g in network(), t in any_target(), o in options()) {
        let placement = place(&g, &t, &o).unwrap();
        let mut last = 0;
        for job in placement.jobs() {
            prop_assert!(job.start >= last && job.end > job.start);
            prop_assert!(placement.ops()[job.start].begins());
            last = job.end;
        }
        for (i, placed) in placement.ops().iter().enumerate() {
            let inside = placement.jobs().iter().any(|job| job.contains(&i));
            match placed {
                Placed::Dpu { .. } | Placed::Fused { .. } => prop_assert!(inside),
                Placed::Cpu(_) => prop_assert!(!inside),
                Placed::View => {}
            }
        }
    }

    #[test]
    fn fused_ops_follow_each_other_and_read_the_one_before(g in network(), t in any_target(), o in options()) {
        let placement = place(&g, &t, &o).unwrap();
        let ops = &placement.graph().ops;
        let mut fused = BTreeSet::new();
        for (first, placed) in placement.ops().iter().enumerate() {
            let Placed::Dpu { fused: Some(f), .. } = placed else { continue };
            prop_assert!((2..=3).contains(&f.ops));
            prop_assert!(placement.jobs().iter().any(|job| job.contains(&first) && first + f.ops <= job.end));
            for i in first + 1..first + f.ops {
                let behind = matches!(placement.ops()[i], Placed::Fused { .. });
                prop_assert!(behind);
                prop_assert!(ops[i].inputs.contains(&ops[i - 1].output));
                fused.insert(i);
            }
        }
        let all = placement.ops().iter().enumerate().filter(|(_, p)| matches!(p, Placed::Fused { .. }));
        prop_assert_eq!(all.map(|(i, _)| i).collect::<BTreeSet<_>>(), fused);
    }

    #[test]
    fn maps_in_the_banks_and_tiles_beside_them_do_not_overlap(g in network(), t in any_target(), observe: bool) {
        let placement = place(&g, &t, &DpuOptions { observe, ..DpuOptions::default() }).unwrap();
        let banks: Vec<u32> = t.feature_groups().take(2).map(|group| group.first.into()).collect();
        for job in placement.jobs() {
            // A map stays from the op that makes it to the last that reads it there.
            let mut lives: Vec<Life> = Vec::new();
            for i in job.clone() {
                let Some(residence) = placement.residences.get(&i) else { continue };
                let count = match &placement.ops()[i] {
                    Placed::Dpu { fused, .. } => fused.map_or(1, |f| f.ops),
                    Placed::Fused { .. } | Placed::Cpu(_) | Placed::View => 1,
                };
                let output = placement.graph().ops[i + count - 1].output;
                for t in residence.held() {
                    let life = lives.iter_mut().find(|l| l.0 == t);
                    prop_assert!(life.is_some(), "a map is read in the banks that was not left there");
                    let place = held(&placement, residence, t);
                    let life = life.unwrap();
                    prop_assert_eq!(Some(life.3), place, "a map is read where it does not lie");
                    life.2 = i;
                }
                if let Some(spot) = residence.stays() {
                    let [h, w, c] = image(&placement.graph().tensors[output.0].shape).map(|d| d as u32);
                    let size = [h, w, c.div_ceil(placement.machine.lanes)];
                    let addresses = Spot::addresses(&placement.machine, size, spot.pack)
                        .next_multiple_of(BANK_GRAIN);
                    prop_assert!(spot.at + addresses <= placement.machine.depth);
                    lives.push((output, i, i, (spot.bank, [spot.at, spot.at + addresses])));
                }
            }
            let wide = |a: [u32; 2]| a.map(u64::from);
            for (k, a) in lives.iter().enumerate() {
                for b in &lives[..k] {
                    let together = a.1 <= b.2 && b.1 <= a.2 && a.3.0 == b.3.0;
                    prop_assert!(!together || !meet(wide(a.3.1), wide(b.3.1)), "{:?} and {:?}", a, b);
                }
                for i in a.1..=a.2 {
                    let Some(residence) = placement.residences.get(&i) else { continue };
                    for (group, bank) in banks.iter().enumerate() {
                        let room = residence.rooms[group];
                        let apart = *bank != a.3.0 || !meet(wide(room), wide(a.3.1));
                        prop_assert!(apart, "op {} works where {:?} lies", i, a);
                    }
                }
            }
        }
    }

    #[test]
    fn parts_of_a_concatenation_lie_in_it_and_beside_each_other(g in network(), t in any_target(), o in options()) {
        let placement = place(&g, &t, &o).unwrap();
        let graph = placement.graph();
        let dims = |t: TensorIx| image(&graph.tensors[t.0].shape).map(|d| d as u64);
        let mut parts: Vec<(TensorIx, Slice)> = Vec::new();
        for t in (0..graph.tensors.len()).map(TensorIx) {
            if placement.joins.home(t).is_some() {
                prop_assert!(!graph.inputs.contains(&t) && !graph.outputs.contains(&t) && !o.observe);
            }
            parts.extend(placement.joins.slices(t).iter().map(|s| (t, *s)));
        }
        let range = |(t, s): &(TensorIx, Slice), axis: usize| {
            [u64::from(s.at[axis]), u64::from(s.at[axis]) + dims(*t)[axis]]
        };
        for (i, a) in parts.iter().enumerate() {
            prop_assert!((0..3).all(|axis| range(a, axis)[1] <= dims(a.1.of)[axis]));
            for b in parts[..i].iter().filter(|b| b.1.of == a.1.of) {
                prop_assert!((0..3).any(|axis| !meet(range(a, axis), range(b, axis))), "{:?} and {:?}", a, b);
            }
        }
    }

    #[test]
    fn a_network_with_read_through_paddings_is_verified_and_makes_the_same_tensors(g in network(), seen: bool) {
        let Some(folded) = pad::padding(&g, |_| true, seen) else { return Ok(()) };
        prop_assert!(folded.verify().is_ok());
        let names = |g: &IntGraph| g.outputs.iter().map(|t| g.tensors[t.0].name.clone()).collect::<Vec<_>>();
        prop_assert_eq!(names(&folded), names(&g));
        let made: BTreeSet<_> = folded.tensors.iter().map(|t| &t.name).collect();
        let gone = g.ops.iter().filter(|op| !made.contains(&g.tensors[op.output.0].name));
        let only_pads = gone.clone().all(|op| !seen && matches!(op.kind, IntOpKind::Pad { .. }));
        prop_assert!(only_pads);
    }

    #[test]
    fn no_two_tensors_that_are_needed_together_share_memory_beside_a_dpu(g in network(), t in any_target(), o in options()) {
        let program = dpu(&g, &t, &o).unwrap();
        prop_assert!(clash(&program.buffers, |_, _| false).is_none());
        prop_assert!(inside(&program).is_ok(), "{:?}", inside(&program));
    }

    #[test]
    fn on_the_cpu_a_tensor_shares_memory_with_the_one_it_is_made_of_or_with_none_of_its_time(g in network(), separate_io: bool) {
        let program = cpu(&g, &CpuOptions { separate_io }).unwrap();
        // A window walks down its input, and its output may follow behind.
        let follows = |a: &Buffer, b: &Buffer| {
            let (Some(a), Some(b)) = (a.ops, b.ops) else { return false };
            a.1 == b.0 || b.1 == a.0
        };
        prop_assert!(clash(&program.buffers, follows).is_none());
        prop_assert!(inside(&program).is_ok(), "{:?}", inside(&program));
    }

    #[test]
    fn a_written_program_is_read_as_it_was_made(g in network(), t in any_target(), o in options()) {
        for program in [cpu(&g, &CpuOptions::default()).unwrap(), dpu(&g, &t, &o).unwrap()] {
            let bytes = program.to_bytes(&[]).unwrap();
            let model = Deployable::parse(&bytes).unwrap();
            prop_assert_eq!(program.check(&model), Ok(()));
            prop_assert!(dimensions(&model).is_ok(), "{:?}", dimensions(&model));
        }
    }
}

/// Every tensor lies in its region.
fn inside(program: &Program) -> Result<(), String> {
    let size = |region: Region| match region {
        Region::Workspace => Some(program.memory.workspace_bytes),
        Region::Inputs => Some(program.memory.input_bytes),
        Region::Outputs => Some(program.memory.output_bytes),
        Region::Constants => None,
    };
    let end = |t: &crate::program::ProgramTensor| {
        u64::from(t.place.offset) + u64::from(t.shape.elements().unwrap_or(0)) * u64::from(t.dtype.bytes())
    };
    match program.tensors.iter().find(|t| size(t.place.region).is_none_or(|size| end(t) > size.into())) {
        Some(t) => Err(format!("{} leaves its region", t.name)),
        None => Ok(()),
    }
}

/// The dimensions that CPU steps carry are those of their tensors.
fn dimensions(model: &Deployable<'_>) -> Result<(), String> {
    let elements = |t| model.tensor(t).and_then(|t| t.shape.elements()).map(u64::from);
    let volume = |dims: &[u16]| dims.iter().map(|d| u64::from(*d)).product::<u64>();
    for step in model.steps() {
        let Step::Cpu(op) = step else { continue };
        let sizes = match op {
            CpuOp::Conv(c) | CpuOp::Depthwise(c) | CpuOp::ConvTranspose(c) => {
                vec![(c.input, volume(&c.in_dims)), (c.output, volume(&c.out_dims))]
            }
            CpuOp::Pool(p) => {
                let out = [p.out_dims[0], p.out_dims[1], p.in_dims[2]];
                vec![(p.input, volume(&p.in_dims)), (p.output, volume(&out))]
            }
            CpuOp::UpSample(u) => {
                let out = volume(&u.in_dims) * volume(&u.factor);
                vec![(u.input, volume(&u.in_dims)), (u.output, out)]
            }
            CpuOp::Pad(p) => {
                let side = |axis: usize| p.in_dims[axis] + p.before[axis] + p.after[axis];
                vec![(p.input, volume(&p.in_dims)), (p.output, volume(&[side(0), side(1), p.in_dims[2]]))]
            }
            CpuOp::Requantize { input, output, .. }
            | CpuOp::View { input, output }
            | CpuOp::HardSigmoid { input, output, .. }
            | CpuOp::Quantize { input, output }
            | CpuOp::Dequantize { input, output } => vec![(input, elements(output).unwrap_or(0))],
            _ => Vec::new(),
        };
        if let Some((t, size)) = sizes.into_iter().find(|(t, size)| elements(*t) != Some(*size)) {
            return Err(format!("tensor {} has other than {size} elements", t.0));
        }
    }
    Ok(())
}

#[test]
fn no_two_reasons_share_a_code_and_none_is_empty() {
    let unique: BTreeSet<_> = Reason::CODES.iter().collect();
    assert_eq!(unique.len(), Reason::CODES.len());
    assert!(Reason::CODES.iter().all(|code| !code.is_empty()));
}

#[test]
fn a_reason_is_written_as_its_sentence() {
    let reason = Reason::Pitch { bytes: 70_000 };
    assert_eq!(serde_json::to_value(&reason).unwrap(), serde_json::json!(reason.to_string()));
}

#[test]
fn a_part_whose_pixels_would_be_too_far_apart_has_a_place_of_its_own() {
    // Every second pixel of a part of 40016 channels: twice as many bytes from pixel to pixel, and a transfer has 16 bits.
    let tensor = |name: &str, shape: [usize; 3]| IntTensor {
        name: name.into(),
        shape: shape.to_vec(),
        kind: Kind::Fixed(FixPos(4)),
    };
    let upconv = IntConv {
        window: Window { kernel: [2, 2], stride: [2, 2], ..Window::POINT },
        input: [2, 2, 4],
        output: [4, 4, 16],
        kernel: vec![1; 2 * 2 * 4 * 16],
        bias: None,
        groups: 1,
        shift_cut: 5,
        shift_bias: 0,
        act: IntAct::None,
    };
    let op = |kind, inputs: &[usize], output, layer: &str| IntOp {
        kind,
        inputs: inputs.iter().map(|t| TensorIx(*t)).collect(),
        output: TensorIx(output),
        layer: layer.into(),
    };
    let graph = IntGraph {
        name: "far apart".into(),
        tensors: vec![
            tensor("x", [2, 2, 4]),
            tensor("many", [4, 4, 40000]),
            tensor("upconv", [4, 4, 16]),
            tensor("concat", [4, 4, 40016]),
        ],
        ops: vec![
            op(IntOpKind::ConvTranspose(upconv), &[0], 2, "upconv"),
            op(IntOpKind::Concat { axis: 2, shifts: vec![0, 0] }, &[2, 1], 3, "concat"),
        ],
        inputs: vec![TensorIx(0), TensorIx(1)],
        outputs: vec![TensorIx(3)],
    };
    graph.verify().unwrap();
    for observe in [true, false] {
        let t = target("B4096");
        let program = dpu(&graph, &t, &DpuOptions { observe, ..DpuOptions::default() }).unwrap();
        let made: BTreeSet<u16> = program.spans.iter().filter(|s| s.count > 0).map(|s| s.output.0).collect();
        assert_eq!(made, BTreeSet::from([2, 3]), "both layers have instructions");
    }
}
