//! Tokens, time and reports on small programs whose every token is written here.

use std::sync::LazyLock;

use proptest::prelude::*;
use shiftwise_core::exec::Machine;
use shiftwise_core::fix::FixPos;
use shiftwise_core::isa::codec::encode;
use shiftwise_core::isa::{Conv, ConvInit, End, Engine, EngineSet, Inst, Kind, Line, Load, Save, Tokens};
use shiftwise_core::model::*;
use shiftwise_core::run::{Dpu, Memory};
use shiftwise_core::shape::Shape;
use shiftwise_core::target::Target;

use super::blob;
use crate::timing::Times;
use crate::{Costs, CycleReport, Error, JobRun, Prepared, SimDpu, SimError, explain, frame, time};

const COLUMNS: u32 = 5;
const CHANNELS: u32 = 16;
const ROW: u32 = COLUMNS * CHANNELS;

fn target() -> Target {
    static TARGET: LazyLock<Target> = LazyLock::new(|| shiftwise_targets::find("B4096").unwrap());
    TARGET.clone()
}

fn line(waits: &str, signals: &str, inst: impl Into<Inst>) -> Line {
    let set = |letters: &str| {
        let engine = |c| match c {
            'L' => Engine::Load,
            'S' => Engine::Save,
            'C' => Engine::Conv,
            _ => Engine::Misc,
        };
        EngineSet::of(&letters.chars().map(engine).collect::<Vec<_>>())
    };
    Line { tokens: Tokens { waits: set(waits), signals: set(signals) }, inst: inst.into() }
}

/// A 1 × 1 convolution of 16 channels over `8·tiles` rows. All tiles use the same input and output banks, so every tile
/// must wait until the one before has been computed (inputs) and saved (outputs).
fn program(tiles: u32) -> Vec<Line> {
    let mut out = Vec::new();
    for lane in 0..CHANNELS {
        let load = Load { bank_id: 16 + lane, channel: CHANNELS, ddr_addr: lane * CHANNELS, ..Load::default() };
        out.push(line("L", "L", load));
    }
    out.push(line("L", "L", Load { bank_id: 33, channel: CHANNELS, ddr_addr: CHANNELS * CHANNELS, ..Load::default() }));
    out.push(line("C", "C", ConvInit { shift_cut: 7, shift_bias: 3, valid_pixel_parallel: 8, ..ConvInit::default() }));
    for tile in 0..tiles {
        let (first, last) = (tile == 0, tile + 1 == tiles);
        for r in 0..8 {
            let load = Load {
                bank_id: r,
                jump_read: CHANNELS,
                length: COLUMNS,
                channel: CHANNELS,
                reg_id: 2,
                ddr_addr: (8 * tile + r) * ROW,
                ..Load::default()
            };
            // The first row of a later tile overwrites what the previous CONV read.
            let waits = if r == 0 && !first { "LC" } else { "L" };
            out.push(line(waits, if r == 7 { "LC" } else { "L" }, load));
        }
        let conv = Conv { length: COLUMNS, bank_id_out: 8, ..Conv::default() };
        let waits = if first { "CL" } else { "CLS" };
        out.push(line(waits, if last { "CS" } else { "CSL" }, conv));
        for r in 0..8 {
            let save = Save {
                bank_id: 8 + r,
                jump_write: CHANNELS,
                length: COLUMNS,
                channel: CHANNELS,
                reg_id: 3,
                ddr_addr: (8 * tile + r) * ROW,
                hp_id: r % 2,
                ..Save::default()
            };
            // Pairs: the second may run beside the first.
            let (waits, signals) = match (r, last) {
                (0, _) => ("SC", ""),
                (7, false) => ("", "SC"),
                (7, true) => ("", "S"),
                (r, _) if r % 2 == 0 => ("S", ""),
                _ => ("", "S"),
            };
            out.push(line(waits, signals, save));
        }
    }
    out.push(line("S", "S", End {}));
    out
}

fn assemble(program: &[Line]) -> Vec<u8> {
    let isa = target().isa;
    let words = |l: &Line| encode(isa, l).unwrap().bytes().collect::<Vec<_>>();
    program.iter().flat_map(words).collect()
}

fn noise(n: u32, seed: u32) -> Vec<u8> {
    (0..n).map(|i| ((i ^ seed).wrapping_mul(2654435761) >> 23) as u8).collect()
}

const JOB: DpuJob<'static> = DpuJob { name: "job", offset: 0, bytes: 0, outputs: TensorList(&[]) };

/// Runs on a device; the result is the output region.
fn on<D: Dpu>(dpu: &mut D, program: &[Line], tiles: u32) -> Result<Vec<u8>, D::Error> {
    let constants = noise(CHANNELS * CHANNELS + CHANNELS, 1);
    let mut inputs = noise(8 * tiles * ROW, 7);
    let mut outputs = vec![0; inputs.len()];
    let mut memory = Memory { constants: &constants, workspace: &mut [], inputs: &mut inputs, outputs: &mut outputs };
    dpu.run(&JOB, &assemble(program), &mut memory)?;
    Ok(outputs)
}

fn simulate(program: &[Line], tiles: u32, costs: Costs) -> Result<(Vec<u8>, JobRun), SimError> {
    let mut sim = SimDpu::new(target(), 300, costs).unwrap();
    let bytes = on(&mut sim, program, tiles)?;
    Ok((bytes, sim.jobs()[0].clone()))
}

fn in_order(program: &[Line], tiles: u32) -> Vec<u8> {
    let target = target();
    let mut banks = vec![0; target.bank_bytes()];
    on(&mut Machine::new(&target, &mut banks).unwrap(), program, tiles).unwrap()
}

proptest! {
    #[test]
    fn costs_never_change_bytes(tiles in 1u32..5, seed in any::<u64>()) {
        let program = program(tiles);
        let (bytes, _) = simulate(&program, tiles, Costs::shuffled(seed)).unwrap();
        prop_assert_eq!(bytes, in_order(&program, tiles));
    }

    #[test]
    fn a_slow_machine_gives_the_same_bytes(
        compute in 0f64..9000.0, transfer in 0f64..500.0, latency in 0f64..500.0, port_bytes in 0.01f64..64.0,
    ) {
        let program = program(3);
        let costs = Costs { compute, transfer, latency, port_bytes, ..Costs::default() };
        prop_assert_eq!(simulate(&program, 3, costs).unwrap().0, in_order(&program, 3));
    }
}

/// Drops one engine from a mask on both sides, so that tokens still balance, and says whether some seed notices.
fn noticed(mut program: Vec<Line>, from: Engine, to: Engine) -> bool {
    let without = |set: EngineSet, gone: Engine| EngineSet::from_bits(set.bits() & !(1 << gone as u8));
    for l in &mut program {
        if l.inst.engine() == from {
            l.tokens.signals = without(l.tokens.signals, to);
        }
        if l.inst.engine() == to {
            l.tokens.waits = without(l.tokens.waits, from);
        }
    }
    let want = in_order(&program, 3);
    (1..40).any(|seed| simulate(&program, 3, Costs::shuffled(seed)).map_or(true, |(bytes, _)| bytes != want))
}

#[test]
fn a_forgotten_token_shows_as_different_bytes() {
    for (from, to) in [
        (Engine::Load, Engine::Conv),
        (Engine::Conv, Engine::Load),
        (Engine::Conv, Engine::Save),
        (Engine::Save, Engine::Conv),
    ] {
        assert!(noticed(program(3), from, to), "{from:?} to {to:?}");
    }
}

#[test]
fn deadlock_names_who_waits_for_whom() {
    let mut p = program(1);
    let conv = p.iter().position(|l| l.inst.kind() == Kind::Conv).unwrap();
    p[conv].tokens.waits = p[conv].tokens.waits.with(Engine::Misc);
    let error = simulate(&p, 1, Costs::default()).unwrap_err();
    assert_eq!(error.to_string(), "deadlock: instruction 27 SAVE waits for CONV, instruction 26 CONV waits for MISC");
}

#[test]
fn leftover_tokens_and_an_early_end_are_errors() {
    let mut p = program(1);
    p[0].tokens.signals = p[0].tokens.signals.with(Engine::Misc);
    let error = simulate(&p, 1, Costs::default()).unwrap_err();
    assert_eq!(error, SimError::Leftover { from: Engine::Load, to: Engine::Misc, count: 1, expected: 0 });

    let p = [line("L", "L", Load { channel: 16, ..Load::default() }), line("S", "S", End {})];
    let error = simulate(&p, 1, Costs::default()).unwrap_err();
    assert_eq!(error, SimError::EarlyEnd { index: 0, kind: Kind::Load });
}

#[test]
fn faults_name_the_instruction() {
    let p = [line("S", "S", Save { bank_id: 16, reg_id: 3, ..Save::default() }), line("S", "S", End {})];
    let error = simulate(&p, 1, Costs::default()).unwrap_err().to_string();
    assert_eq!(error, "instruction 0 SAVE at byte 0: bank 16 does not exist or is of the wrong kind");
    let error = simulate(&[], 1, Costs::default()).unwrap_err().to_string();
    assert!(error.contains("no END"), "{error}");
}

#[test]
fn time_follows_the_cost_table() {
    let costs = Costs {
        compute: 10.0,
        transfer: 5.0,
        latency: 7.0,
        init: 2.0,
        segment: 3.0,
        port_bytes: 8.0,
        fetch_word: 0.0,
        ..Costs::default()
    };
    let p = program(1);
    let (_, job) = simulate(&p, 1, costs).unwrap();
    let of = |kind| job.events.iter().filter(move |e| e.kind == kind).collect::<Vec<_>>();
    // 16 bytes over two ports of 8 bytes: one cycle, plus 5; usable 7 later, while the next one runs.
    let loads = of(Kind::Load);
    assert_eq!((loads[0].start, loads[0].end, loads[1].start), (0, 13, 6));
    // 17 parameter LOADs, then 8 rows of 80 bytes: 40 bytes per port take 5 cycles.
    assert_eq!(loads.last().unwrap().end, 17 * 6 + 8 * 10 + 7);
    let conv = of(Kind::Conv)[0];
    assert_eq!((conv.start, conv.end), (189, 189 + u64::from(COLUMNS) + 10));
    // A pair of SAVEs starts together on two ports: 80 bytes at 8 bytes per cycle, plus 5, usable 7 later.
    let saves = of(Kind::Save);
    assert_eq!((saves[0].start, saves[1].start, saves[0].end, saves[1].end), (204, 204, 226, 226));
    assert_eq!((saves[2].start, saves[7].end), (219, 204 + 4 * 15 + 7));
    assert_eq!(job.cycles, 204 + 4 * 15 + 7);
}

#[test]
fn an_array_takes_longer_by_the_cycles_that_it_shares_with_the_other() {
    let ends = |contention: f64, other: u64| {
        let costs = Costs { contention, ..Costs::default() };
        Times { free: 110, end: 110 }.beside(&costs, 100, other).end
    };
    assert_eq!(ends(0.0, 104), 110);
    // Busy until 104: four of its ten cycles are shared. Busy for long: all ten are.
    assert_eq!((ends(1.0, 104), ends(1.0, 500), ends(0.5, 104)), (114, 120, 112));
    // The other was done before.
    assert_eq!(ends(1.0, 90), 110);
}

#[test]
fn a_frame_is_counted_whatever_it_costs() {
    let bytes = deployable(2);
    let model = Deployable::parse(&bytes).unwrap();
    let mut sim = SimDpu::new(target(), 300, Costs::default()).unwrap();
    let totals = Prepared::new(&model, &mut sim).unwrap().totals();
    let map = u64::from(2 * 8 * ROW);
    let constants = u64::from(CHANNELS * CHANNELS + CHANNELS);
    assert_eq!((totals.jobs, totals.computations, totals.misc_steps), (1, 2, 0));
    assert_eq!(totals.conv_steps, 2 * u64::from(COLUMNS));
    assert_eq!((totals.bytes_constants, totals.bytes_in, totals.bytes_out), (constants, constants + map, map));
}

#[test]
fn tiles_overlap_but_less_than_all_at_once() {
    let serial = |job: &JobRun| job.events.iter().map(|e| e.end - e.start).sum::<u64>();
    let (_, job) = simulate(&program(4), 4, Costs::default()).unwrap();
    assert!(job.cycles < serial(&job), "{} of {}", job.cycles, serial(&job));
}

fn deployable(tiles: u32) -> Vec<u8> {
    let program = program(tiles);
    let bytes = 8 * tiles * ROW;
    let tensor = |name, region, role| TensorDesc {
        name,
        origin: "conv",
        shape: Shape::new(&[8 * tiles, COLUMNS, CHANNELS]).unwrap(),
        dtype: DType::I8,
        pos: FixPos(0),
        place: Place { region, offset: 0 },
        role,
    };
    let tensors = [tensor("in", Region::Inputs, Role::Input(0)), tensor("out", Region::Outputs, Role::Output(0))];
    let half = program.len() as u32 / 2;
    let span = |layer, first, count| LayerSpan { layer, step: 0, first, count, macs: 1000, output: TensorId(1) };
    let layers = [span("first", 0, half), span("second", half, program.len() as u32 - half)];
    let facts = Facts {
        name: "net",
        target: "DPUCZDX8G_ISA1_B4096",
        tool: "test",
        workspace_bytes: 0,
        input_bytes: bytes,
        output_bytes: bytes,
        self_test_samples: 0,
    };
    let constants = noise(CHANNELS * CHANNELS + CHANNELS, 1);
    blob::write(target().fingerprint, &facts, &tensors, &layers, &constants, &assemble(&program))
}

#[test]
fn a_frame_reports_cycles_layers_and_a_trace() {
    let bytes = deployable(2);
    let model = Deployable::parse(&bytes).unwrap();
    let mut sim = SimDpu::new(target(), 300, Costs::default()).unwrap();
    let outputs = frame(&model, &mut sim, &noise(16 * ROW, 7), &mut ()).unwrap();
    assert_eq!(outputs, in_order(&program(2), 2));

    let report = sim.report(&model);
    assert_eq!(report.cycles, sim.jobs()[0].cycles);
    assert_eq!(report.layers.iter().map(|l| l.cycles).sum::<u64>(), report.cycles);
    assert_eq!(report.layers.iter().map(|l| l.bytes_in).sum::<u64>(), report.bytes_in);
    assert_eq!(report.bytes_out, u64::from(16 * ROW));
    assert!(report.engines.load <= report.cycles && report.engines.save <= report.cycles);
    assert_eq!(report.engines.conv, report.layers.iter().map(|l| l.engines.conv).sum::<u64>());
    let text = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<CycleReport>(&text).unwrap(), report);

    let trace: serde_json::Value = serde_json::from_str(&sim.chrome_trace(&model)).unwrap();
    let rows = trace["traceEvents"].as_array().unwrap();
    let complete = rows.iter().filter(|r| r["ph"] == "X");
    assert_eq!(complete.clone().count(), program(2).len() + 2);
    assert!(complete.clone().all(|r| r["dur"].as_f64().unwrap() >= 0.0));
    // Slices of a row follow each other: viewers drop what overlaps.
    for tid in 0..10 {
        let mut until = 0.0;
        for row in complete.clone().filter(|r| r["tid"] == tid) {
            let (start, length) = (row["ts"].as_f64().unwrap(), row["dur"].as_f64().unwrap());
            assert!(start >= until - 1e-9, "row {tid}: {start} before {until}");
            until = start + length;
        }
    }
    let layers = complete.filter(|r| r["tid"] == 4 || r["tid"] == 9);
    assert_eq!(layers.map(|r| &r["name"]).collect::<Vec<_>>(), ["first", "second"]);

    let executed = sim.jobs().to_vec();
    sim.clear();
    time(&model, &mut sim).unwrap();
    assert_eq!(sim.jobs(), executed, "time without values is the same time");

    // One frame after the other on one core; three cores don't disturb each other until the memory is too slow for them.
    let frame = report.cycles as f64;
    let prepared = Prepared::new(&model, &mut sim).unwrap();
    for cores in [1, 3] {
        let cycles = prepared.cycles(&Costs::default(), 300, cores, 0).unwrap();
        assert!(
            (cycles - frame).abs() < 2.0,
            "{cycles} on {cores}, {frame} alone: only the rounding to cycles differs"
        );
    }
    let bytes = (report.bytes_in + report.bytes_out) as f64;
    let shared = prepared.cycles(&Costs::default(), 300, 3, 600).unwrap();
    assert!(shared > frame && (shared / (3.0 * bytes / 2.0) - 1.0).abs() < 0.1, "{shared}");
}

#[test]
fn another_target_or_input_size_is_refused() {
    let bytes = deployable(1);
    let model = Deployable::parse(&bytes).unwrap();
    let mut small = SimDpu::new(shiftwise_targets::find("B512").unwrap(), 300, Costs::default()).unwrap();
    let error = frame(&model, &mut small, &[], &mut ()).unwrap_err();
    assert!(matches!(error, Error::Fingerprint { .. }), "{error}");
    assert!(error.to_string().contains("B4096") && error.to_string().contains("B512"));
    let mut sim = SimDpu::new(target(), 300, Costs::default()).unwrap();
    let error = frame(&model, &mut sim, &[0; 3], &mut ()).unwrap_err();
    assert_eq!(error.to_string(), "the input has 3 bytes, the deployable takes 640");
}

#[test]
fn the_listing_names_layers_and_parses_back() {
    let bytes = deployable(1);
    let model = Deployable::parse(&bytes).unwrap();
    let mut text = String::new();
    shiftwise_core::listing::write(&model, target().isa, &mut text).unwrap();
    assert!(text.starts_with("; step 0: job ("), "{text}");
    assert!(text.contains("\n; layer second: "));
    let lines = text.lines().filter(|l| !l.starts_with(';'));
    let parsed: Vec<Line> = lines.map(|l| l.parse().unwrap()).collect();
    assert_eq!(parsed, program(1));
}

#[test]
fn a_value_is_explained_by_its_instructions_and_accumulator() {
    let bytes = deployable(2);
    let model = Deployable::parse(&bytes).unwrap();
    let input = noise(16 * ROW, 7);
    let constants = noise(CHANNELS * CHANNELS + CHANNELS, 1);
    let outputs = in_order(&program(2), 2);
    for index in [0, 17, 8 * ROW + 5, 16 * ROW - 1] {
        let why = explain(&model, &target(), &input, TensorId(1), index).unwrap().unwrap();
        let (pixel, channel) = ((index / CHANNELS * CHANNELS) as usize, index % CHANNELS);
        let lanes = 0..CHANNELS as usize;
        let byte = |bytes: &[u8], at: usize| i64::from(bytes[at] as i8);
        let weight = |c: usize| byte(&constants, (channel * CHANNELS) as usize + c);
        let sum: i64 = lanes.map(|c| byte(&input, pixel + c) * weight(c)).sum();
        let bias = byte(&constants, (CHANNELS * CHANNELS + channel) as usize);
        assert_eq!(why.accumulator, Some((2 * sum + (bias << 3), 8)), "{index}");
        assert_eq!(why.value, outputs[index as usize] as i8);
        let (_, writer) = why.writer.unwrap();
        assert_eq!((writer.inst.kind(), why.save.1.inst.kind()), (Kind::Conv, Kind::Save));
        assert_eq!(program(2)[why.save.0 as usize], why.save.1);
    }
    assert_eq!(explain(&model, &target(), &input, TensorId(0), 0).unwrap(), None, "an input has no history");
    assert_eq!(explain(&model, &target(), &input, TensorId(1), 1 << 20).unwrap(), None);
}
