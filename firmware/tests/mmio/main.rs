//! The driver of a DPU behind registers, against a model of those registers that executes the code.

mod model;
mod session;

use std::cell::RefCell;
use std::rc::Rc;

use model::{Access, Call, Map, Model, Shared, Trouble};
use shiftwise_compile::{self as compile, DpuOptions};
use shiftwise_core::exec::Machine;
use shiftwise_core::model::{Deployable, Region, Step, TensorDesc, TensorId};
use shiftwise_core::run::{Dpu, Memory, Observer, RunError, run};
use shiftwise_core::target::Target;
use shiftwise_firmware::mmio::{Config, Counters, MmioDpu, MmioError, VITIS, VIVADO};
use shiftwise_tests::graphs::{Limits, random_graph, random_inputs};
use shiftwise_tests::models;

#[derive(Default, PartialEq, Debug)]
struct All(Vec<(TensorId, Vec<u8>)>);

impl Observer for All {
    fn tensor(&mut self, id: TensorId, _: &TensorDesc<'_>, bytes: &[u8]) {
        self.0.push((id, bytes.to_vec()));
    }
}

/// A board with a DPU: memory at addresses that need all 40 bits, and the driver.
struct Rig {
    /// The file, from an address that suits code.
    store: Vec<u8>,
    start: usize,
    regions: [Vec<u8>; 3],
    model: Rc<RefCell<Model>>,
    dpu: MmioDpu<Shared, Shared, Shared>,
}

/// Where the DPU sees the file, workspace, inputs and outputs.
const BUS: [u64; 4] = [0xF0_1000_0000, 0x08_0000_0040, 0x6_FFFF_FFC0, 0x12_3456_7880];

impl Rig {
    fn new(file: &[u8], target: &Target, map: Map, core: u8) -> Self {
        let deployable = Deployable::parse(file).unwrap();
        let regions = [Region::Workspace, Region::Inputs, Region::Outputs];
        let regions = regions.map(|region| vec![0xC3; deployable.region_bytes(region)]);
        let mut store = vec![0; file.len() + 4096];
        let start = store.as_ptr().align_offset(4096);
        store[start..start + file.len()].copy_from_slice(file);
        store.truncate(start + file.len());
        let mut model = Model::new(map, core.into(), target);
        let shared = [&store[start..]].into_iter().chain(regions.iter().map(|r| &r[..]));
        shared.zip(BUS).for_each(|(bytes, bus)| model.map(bytes, bus));
        let model = Rc::new(RefCell::new(model));
        let layout = if map == Map::Vivado { &VIVADO } else { &VITIS };
        let config = Config { core, limit_us: 20_000, ..Config::new(layout) };
        let shared = || Shared(Rc::clone(&model));
        let dpu = MmioDpu::new(shared(), shared(), shared(), config).unwrap();
        Self { store, start, regions, model, dpu }
    }

    fn file(&self) -> &[u8] {
        &self.store[self.start..]
    }

    fn load(&mut self) {
        self.dpu.load(&Deployable::parse(&self.store[self.start..]).unwrap());
    }

    fn run(&mut self, inputs: &[Vec<u8>]) -> Result<All, RunError<MmioError>> {
        let deployable = Deployable::parse(&self.store[self.start..]).unwrap();
        let mut all = All::default();
        let [workspace, input, output] = &mut self.regions;
        let mut memory = Memory { constants: deployable.constants(), workspace, inputs: input, outputs: output };
        for ((_, tensor), bytes) in deployable.inputs().zip(inputs) {
            memory.tensor_mut(&tensor).unwrap().copy_from_slice(bytes);
        }
        run(&deployable, &mut self.dpu, &mut memory, &mut all)?;
        Ok(all)
    }

    fn violations(&self) -> Vec<String> {
        self.model.borrow().violations.clone()
    }
}

/// Every tensor as the machine computes it in plain memory.
fn plain(file: &[u8], target: &Target, inputs: &[Vec<u8>]) -> All {
    let deployable = Deployable::parse(file).unwrap();
    let regions = [Region::Workspace, Region::Inputs, Region::Outputs];
    let [mut workspace, mut input, mut output] = regions.map(|region| vec![0; deployable.region_bytes(region)]);
    let mut memory = Memory {
        constants: deployable.constants(),
        workspace: &mut workspace,
        inputs: &mut input,
        outputs: &mut output,
    };
    for ((_, tensor), bytes) in deployable.inputs().zip(inputs) {
        memory.tensor_mut(&tensor).unwrap().copy_from_slice(bytes);
    }
    let mut banks = vec![0; target.bank_bytes()];
    let mut all = All::default();
    run(&deployable, &mut Machine::new(target, &mut banks).unwrap(), &mut memory, &mut all).unwrap();
    all
}

const LIMITS: Limits = Limits { ops: 6, side: 12, channels: 20, cpu_only: false, extreme: false };

fn random(seed: u64, target: &Target) -> (Vec<u8>, Vec<Vec<u8>>) {
    let graph = random_graph(seed, LIMITS);
    let file = compile::dpu(&graph, target, &DpuOptions::default()).unwrap().to_bytes(&[]).unwrap();
    (file, random_inputs(&graph, seed))
}

fn jobs(file: &[u8]) -> usize {
    Deployable::parse(file).unwrap().steps().filter(|step| matches!(step, Step::Dpu(_))).count()
}

/// A network that has DPU code in just one job, for tests that count accesses.
fn one_job(target: &Target) -> (Vec<u8>, Vec<Vec<u8>>) {
    (1..).map(|seed| random(seed, target)).find(|(file, _)| jobs(file) == 1).unwrap()
}

fn target(name: &str) -> Target {
    shiftwise_targets::find(name).unwrap()
}

#[test]
fn random_networks_give_the_machines_bytes() {
    let mut with_code = 0;
    for name in ["B512", "B4096"] {
        let target = target(name);
        for seed in 1..25 {
            let (file, inputs) = random(seed, &target);
            let wanted = plain(&file, &target, &inputs);
            with_code += usize::from(jobs(&file) > 0);
            for (map, core) in [(Map::Vivado, 0), (Map::Vivado, 3), (Map::Vitis, 0)] {
                let mut rig = Rig::new(&file, &target, map, core);
                // With and without being told that the deployable is new.
                for load in [false, true, false] {
                    if load {
                        rig.load();
                    }
                    assert_eq!(rig.run(&inputs).unwrap(), wanted, "{name} {map:?} core {core} seed {seed}");
                }
                assert_eq!(rig.violations(), [""; 0], "{name} {map:?} core {core} seed {seed}");
                assert_eq!(rig.model.borrow().finished as usize, 3 * jobs(&file));
            }
        }
    }
    assert!(with_code > 40, "{with_code} of 48 networks have DPU code");
}

/// The repository's LeNet-5 and ResNet-8, and where the reference data is present its models.
#[test]
fn real_models_give_the_machines_bytes() {
    for model in models::all().into_iter().filter(|m| m.name.contains("lenet") || m.name.contains("resnet")) {
        let (graph, samples) = model.quantized(1).unwrap();
        let engine = shiftwise_integer::engine::Engine::new(&graph);
        let inputs: Vec<Vec<u8>> = engine.sample(&samples, 0).unwrap().iter().map(|v| v.to_bytes()).collect();
        for name in ["B512", "B4096"] {
            let target = target(name);
            let file = compile::dpu(&graph, &target, &DpuOptions::default()).unwrap().to_bytes(&[]).unwrap();
            assert!(jobs(&file) > 0);
            let wanted = plain(&file, &target, &inputs);
            for map in [Map::Vivado, Map::Vitis] {
                let mut rig = Rig::new(&file, &target, map, 0);
                rig.load();
                assert_eq!(rig.run(&inputs).unwrap(), wanted, "{} on {name} {map:?}", model.name);
                assert_eq!(rig.violations(), [""; 0]);
            }
        }
    }
}

/// The accesses of the first job after power-on, one by one. The number of looks at the status follows from 1 ms of work
/// and a look every 20 µs.
#[test]
fn every_access_of_a_job() {
    use Access::{Read, Write};
    let target = target("B512");
    let (file, inputs) = one_job(&target);
    let deployable = Deployable::parse(&file).unwrap();
    let Some(Step::Dpu(job)) = deployable.steps().find(|s| matches!(s, Step::Dpu(_))) else { panic!("no job") };
    let place = |bytes: &[u8]| (bytes.as_ptr().addr() - file.as_ptr().addr()) as u64;
    let code = BUS[0] + place(deployable.job_code(&job));
    let mut bases = [BUS[0] + place(deployable.constants()), BUS[1], BUS[2], BUS[3]];
    let regions = [Region::Constants, Region::Workspace, Region::Inputs, Region::Outputs];
    for (base, region) in bases.iter_mut().zip(regions) {
        if deployable.region_bytes(region) == 0 {
            *base = 0;
        }
    }
    let bases = |first: u32| -> Vec<Access> {
        let pair =
            |(i, base): (u32, u64)| [Write(first + 8 * i, base as u32), Write(first + 8 * i + 4, (base >> 32) as u32)];
        (0..).zip(bases).flat_map(pair).collect()
    };
    let accesses = |map, core| {
        let mut rig = Rig::new(&file, &target, map, core);
        rig.run(&inputs).unwrap();
        let model = rig.model.borrow();
        let counts: Vec<u32> = rig.dpu.counters().started.into_iter().collect();
        (model.accesses.clone(), counts, rig.dpu.counters().cycles)
    };

    let core = 0x200; // Core 2 of the Vivado map.
    let (found, n, cycles) = accesses(Map::Vivado, 2);
    let mut wanted = vec![
        Read(0x004, 0xF),
        Write(0x004, 0b1011),
        Write(core + 0x200, 0x0707_0F0F),
        Write(core + 0x220, 0),
        Write(0x60C, 0b100),
        Read(0x60C, 0b100),
        Write(0x60C, 0),
        Read(0x004, 0b1011),
        Write(0x004, 0xF),
        Write(core + 0x20C, (code >> 12) as u32),
    ];
    wanted.extend(bases(core + 0x224));
    wanted.extend([Read(core + 0x20C, (code >> 12) as u32), Read(0x608, 0b1011), Write(core + 0x220, 1)]);
    wanted.extend([Read(0x608, 0b1011); 50]);
    wanted.push(Read(0x608, 0xF));
    for (engine, (start, end)) in [(0x280, 0x270), (0x27C, 0x26C), (0x278, 0x268), (0x274, 0x264)].iter().enumerate() {
        wanted.extend([Read(core + start, n[engine]), Read(core + end, n[engine])]);
    }
    wanted.extend([Read(core + 0x290, cycles as u32), Read(core + 0x294, 1)]);
    wanted.extend([Write(0x60C, 0b100), Write(core + 0x220, 0), Read(0x60C, 0b100), Write(0x60C, 0)]);
    assert_eq!(found, wanted);
    assert!(n.iter().take(3).all(|n| *n > 0), "{n:?}");

    let (found, n, cycles) = accesses(Map::Vitis, 0);
    let mut wanted = vec![Write(0x40, 1), Write(0x44, 1), Write(0x48, 0x0707_0F0F)];
    wanted.extend([Write(0x50, code as u32), Write(0x54, (code >> 32) as u32)]);
    wanted.extend(bases(0x60));
    wanted.extend([Read(0x50, code as u32), Read(0x00, 0b100), Write(0x00, 1)]);
    wanted.extend([Read(0x00, 0b001); 50]);
    wanted.push(Read(0x00, 0b110));
    for (engine, (start, end)) in [(0x180, 0x184), (0x190, 0x194), (0x188, 0x18C), (0x198, 0x19C)].iter().enumerate() {
        wanted.extend([Read(*start, n[engine]), Read(*end, n[engine])]);
    }
    wanted.extend([Read(0x1A0, cycles as u32), Read(0x1A4, 1), Write(0x40, 1)]);
    assert_eq!(found, wanted);
}

/// Code and constants once after `load`, else before each job; the rest before and after each job. That none is missing
/// shows in the bytes, since the model's memory and the processor's are not the same.
#[test]
fn caches_are_maintained_as_needed_and_no_more() {
    let target = target("B512");
    let (file, inputs) = one_job(&target);
    let mut rig = Rig::new(&file, &target, Map::Vivado, 0);
    let deployable = Deployable::parse(&file).unwrap();
    let Some(Step::Dpu(job)) = deployable.steps().find(|s| matches!(s, Step::Dpu(_))) else { panic!("no job") };
    let own = rig.file().len();
    assert_eq!(own, file.len());
    let place = |bytes: &[u8]| (BUS[0] + (bytes.as_ptr().addr() - file.as_ptr().addr()) as u64, bytes.len());
    let clean = |bytes: &[u8]| {
        let (bus, len) = place(bytes);
        Call::Clean(bus, len)
    };
    let sizes = [Region::Workspace, Region::Inputs, Region::Outputs].map(|r| deployable.region_bytes(r));
    let data = |call: fn(u64, usize) -> Call| {
        let all = BUS.into_iter().skip(1).zip(sizes).filter(|(_, size)| *size > 0);
        all.map(move |(bus, size)| call(bus, size)).collect::<Vec<_>>()
    };
    let calls = |rig: &mut Rig| std::mem::take(&mut rig.model.borrow_mut().calls);

    rig.run(&inputs).unwrap();
    let before = vec![clean(deployable.job_code(&job)), clean(deployable.constants())];
    let whole = [before, data(Call::Clean), data(Call::Invalidate)].concat();
    assert_eq!(calls(&mut rig), whole);
    rig.run(&inputs).unwrap();
    assert_eq!(calls(&mut rig), whole);

    rig.load();
    assert_eq!(calls(&mut rig), [clean(deployable.code()), clean(deployable.constants())]);
    for _ in 0..2 {
        rig.run(&inputs).unwrap();
        assert_eq!(calls(&mut rig), [data(Call::Clean), data(Call::Invalidate)].concat());
    }
}

fn error(result: Result<All, RunError<MmioError>>) -> MmioError {
    match result {
        Err(RunError::Dpu { error, .. }) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_dpu_that_fails_is_an_error_and_the_next_run_is_right() {
    let target = target("B512");
    for seed in [2, 5, 9] {
        let (file, inputs) = random(seed, &target);
        if jobs(&file) == 0 {
            continue;
        }
        let wanted = plain(&file, &target, &inputs);
        for map in [Map::Vivado, Map::Vitis] {
            for trouble in [
                Trouble::Hangs,
                Trouble::Mute,
                Trouble::Early,
                Trouble::Noise,
                // Ends after the time limit: by then it must have been stopped.
                Trouble::Takes(25_000),
            ] {
                let mut rig = Rig::new(&file, &target, map, 0);
                rig.load();
                assert_eq!(rig.run(&inputs).unwrap(), wanted);
                rig.model.borrow_mut().troubles.push_back(trouble);
                let error = error(rig.run(&inputs));
                match trouble {
                    Trouble::Early => assert!(matches!(error, MmioError::Unfinished(_)), "{error:?}"),
                    _ => assert!(matches!(error, MmioError::Timeout(_)), "{trouble:?}: {error:?}"),
                }
                let resets = rig.model.borrow().resets;
                assert!(resets > 0);
                rig.model.borrow_mut().pass(100_000_000);
                for _ in 0..2 {
                    assert_eq!(rig.run(&inputs).unwrap(), wanted, "{map:?} after {trouble:?}");
                }
                assert_eq!(rig.violations(), [""; 0], "{map:?} {trouble:?}");
            }
        }
    }
}

#[test]
fn a_slow_dpu_is_waited_for() {
    let target = target("B512");
    let (file, inputs) = one_job(&target);
    let wanted = plain(&file, &target, &inputs);
    let mut rig = Rig::new(&file, &target, Map::Vivado, 1);
    rig.model.borrow_mut().troubles.extend([Trouble::Takes(0), Trouble::Takes(19_990), Trouble::Takes(1)]);
    for _ in 0..3 {
        assert_eq!(rig.run(&inputs).unwrap(), wanted);
    }
    assert_eq!(rig.violations(), [""; 0]);
}

/// A timeout says how far each engine came.
#[test]
fn a_timeout_tells_where_it_hangs() {
    let target = target("B512");
    let (file, inputs) = one_job(&target);
    let mut rig = Rig::new(&file, &target, Map::Vivado, 0);
    rig.model.borrow_mut().troubles.push_back(Trouble::Hangs);
    let error = error(rig.run(&inputs));
    let MmioError::Timeout(Counters { started, ended, .. }) = error else { panic!("{error:?}") };
    assert_eq!((started[1], ended[1]), (1, 0));
    assert!(ended[2] < started[2]);
    let text = error.to_string();
    assert!(text.starts_with("timeout; ended/begun: LOAD ") && text.contains(" SAVE 0/1"), "{text}");
    // What a session keeps of a device's words.
    assert!(text.len() <= 128, "{text}");
}

/// Nothing is started where nobody answers, or where a core that hung could not be stopped.
#[test]
fn no_dpu_and_no_reset_are_errors() {
    let target = target("B512");
    let (file, inputs) = one_job(&target);
    let mut rig = Rig::new(&file, &target, Map::Vivado, 0);
    rig.model.borrow_mut().absent = true;
    assert!(matches!(error(rig.run(&inputs)), MmioError::NoAnswer { offset: 0x20C, read: u32::MAX, .. }));
    rig.model.borrow_mut().absent = false;
    assert!(rig.run(&inputs).is_ok());
    assert_eq!(rig.violations(), [""; 0]);

    let mut rig = Rig::new(&file, &target, Map::Vitis, 0);
    rig.model.borrow_mut().platform_reset = false;
    assert!(rig.run(&inputs).is_ok(), "a kernel that was never started needs no reset");
    rig.model.borrow_mut().troubles.push_back(Trouble::Hangs);
    assert!(matches!(error(rig.run(&inputs)), MmioError::Timeout(_)));
    let before = rig.model.borrow().accesses.len();
    assert_eq!(error(rig.run(&inputs)), MmioError::NeedsReset);
    assert_eq!(rig.model.borrow().accesses.len(), before, "a register was touched");
    rig.model.borrow_mut().platform_reset = true;
    assert_eq!(rig.run(&inputs).unwrap(), plain(&file, &target, &inputs));
    assert_eq!(rig.violations(), [""; 0]);
}

#[test]
fn addresses_are_checked_before_anything_is_written() {
    let target = target("B512");
    let (file, inputs) = one_job(&target);
    let at = |bus: [u64; 4]| {
        let mut rig = Rig::new(&file, &target, Map::Vivado, 0);
        let mut model = Model::new(Map::Vivado, 0, &target);
        let shared = [&rig.store[rig.start..]].into_iter().chain(rig.regions.iter().map(|r| &r[..]));
        shared.zip(bus).for_each(|(bytes, bus)| model.map(bytes, bus));
        *rig.model.borrow_mut() = model;
        let error = error(rig.run(&inputs));
        assert_eq!(rig.model.borrow().accesses, []);
        error
    };
    assert!(matches!(at([BUS[0] + 64, BUS[1], BUS[2], BUS[3]]), MmioError::Alignment(_)));
    let high = (1 << 40) - 4;
    assert_eq!(at([BUS[0], BUS[1], high, BUS[3]]), MmioError::Unreachable(Some(Region::Inputs)));
    assert_eq!(at([1 << 40, BUS[1], BUS[2], BUS[3]]), MmioError::Unreachable(None));

    let shared = Shared(Rc::new(RefCell::new(Model::new(Map::Vitis, 0, &target))));
    let config = Config { core: 1, ..Config::new(&VITIS) };
    let dpu = MmioDpu::new(shared.clone(), shared.clone(), shared, config);
    assert_eq!(dpu.err(), Some(MmioError::Core(1)));
}

#[test]
fn the_fingerprint_is_read() {
    let target = target("B1152");
    let shared = Shared(Rc::new(RefCell::new(Model::new(Map::Vivado, 0, &target))));
    let mut dpu = MmioDpu::new(shared.clone(), shared.clone(), shared, Config::new(&VIVADO)).unwrap();
    assert_eq!(dpu.fingerprint(), Some(target.fingerprint));
}
