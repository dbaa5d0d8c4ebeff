//! A board with a DPU behind registers as a host sees it: link, session, driver, and the register model at the end.

use std::cell::RefCell;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use embedded_io_adapters::std::FromStd;
use shiftwise_board::{Client, Fault, Limits, LinkError, Report, Reported};
use shiftwise_compile::{self as compile, DpuOptions};
use shiftwise_core::model::{Deployable, Step, TensorId};
use shiftwise_core::run::Memory;
use shiftwise_core::target::Target;
use shiftwise_firmware::mmio::{Config, MmioDpu, VITIS, VIVADO};
use shiftwise_firmware::session::{Board, Session, Space};
use shiftwise_tests::graphs::{random_graph, random_inputs};
use shiftwise_tests::small;

use super::model::{Map, Model, Shared, Trouble};
use super::{LIMITS, Rig, jobs, one_job, plain, random, target};

const STORE: usize = 512 << 10;
const ARENA: usize = 256 << 10;

/// The host's end: the board sees the end of the stream when it is dropped, also by a panic.
struct HostEnd(UnixStream);

impl Write for HostEnd {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
impl Drop for HostEnd {
    fn drop(&mut self) {
        // The other side may have hung up already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Says that it has the DPU with this fingerprint.
struct Beside(u64);

impl Board for Beside {
    fn name(&self) -> &str {
        "beside a DPU"
    }
    fn hz(&self) -> u32 {
        0
    }
    fn ticks(&mut self) -> u64 {
        0
    }
    fn accepts(&self, fingerprint: u64) -> bool {
        [0, self.0].contains(&fingerprint)
    }
}

/// Serves a host on a board that has `model`'s DPU and takes it for one with the fingerprint `own`; `banks` bytes are
/// for a DPU in software. Returns what the host returns, and the model.
fn serve<T: Send>(
    model: Model,
    own: u64,
    banks: usize,
    host: impl FnOnce(&mut Client<HostEnd>) -> T + Send,
) -> (T, Model) {
    let (mut store, mut arena) = (vec![0; STORE + 4096], vec![0xA5; ARENA]);
    let mut banks = vec![0; banks];
    let start = store.as_ptr().align_offset(4096);
    let store = &mut store[start..start + STORE];
    // Where a line does not begin: regions must look for one.
    let skew = arena.as_ptr().align_offset(64) + 16;
    let arena = &mut arena[skew..];
    let layout = if model.map == Map::Vivado { &VIVADO } else { &VITIS };
    let model = Rc::new(RefCell::new(model));
    model.borrow_mut().map(store, 0x10_0000_0000);
    model.borrow_mut().map(arena, 0x20_0000_0010);
    let shared = || Shared(Rc::clone(&model));
    let config = Config { limit_us: 20_000, ..Config::new(layout) };
    let dpu = MmioDpu::new(shared(), shared(), shared(), config).unwrap();
    let (host_end, board_end) = UnixStream::pair().unwrap();
    let result = std::thread::scope(|scope| {
        let host = scope.spawn(|| {
            let reader = host_end.try_clone().unwrap();
            let limits = Limits { answer: Duration::from_secs(5), step: Duration::from_secs(20), attempts: 2 };
            let mut client = Client::new(HostEnd(host_end), reader, limits);
            let result = host(&mut client);
            client.exit().unwrap();
            result
        });
        let link = (FromStd::new(board_end.try_clone().unwrap()), FromStd::new(board_end));
        let memory = Space { store, arena, banks: &mut banks, sketches: &mut [] };
        Session::new(link, dpu, Beside(own), memory).serve().unwrap();
        host.join().unwrap()
    });
    (result, Rc::into_inner(model).unwrap().into_inner())
}

fn reported(file: &[u8], target: &Target, inputs: &[Vec<u8>]) -> Vec<(TensorId, Reported)> {
    plain(file, target, inputs).0.into_iter().map(|(id, bytes)| (id, Reported::Bytes(bytes))).collect()
}

fn words(result: Result<impl std::fmt::Debug, LinkError>) -> (Fault, String) {
    match result {
        Err(LinkError::Refused { fault, text }) => (fault, text),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn every_tensor_of_a_host_is_the_machines() {
    let target = target("B512");
    for (map, seeds) in [(Map::Vivado, 1..6), (Map::Vitis, 6..11)] {
        let files: Vec<_> = seeds.map(|seed| random(seed, &target)).collect();
        // A deployable for the processor alone finds the board as well.
        let small = small::deployable().unwrap();
        let ((), model) = serve(Model::new(map, 0, &target), target.fingerprint, 1 << 20, |host| {
            for (file, inputs) in &files {
                host.load(file).unwrap();
                for _ in 0..2 {
                    let result = host.sample(inputs, Report::Bytes).unwrap();
                    assert_eq!(result.tensors, reported(file, &target, inputs));
                }
            }
            host.load(&small).unwrap();
            host.sample(&[small::sample(1)], Report::None).unwrap();
        });
        let wanted: usize = files.iter().map(|(file, _)| 2 * jobs(file)).sum();
        assert!(wanted > 0);
        // By this DPU and not in software, which the host offers as well.
        assert_eq!(model.finished as usize, wanted);
        assert_eq!(model.violations, [""; 0]);
    }
}

#[test]
fn a_self_test_runs_on_the_dpu() {
    let target = target("B512");
    let graph = (1..).map(|seed| random_graph(seed, LIMITS)).find(|graph| {
        let file = compile::dpu(graph, &target, &DpuOptions::default()).unwrap().to_bytes(&[]).unwrap();
        jobs(&file) > 0
    });
    let graph = graph.unwrap();
    let program = compile::dpu(&graph, &target, &DpuOptions::default()).unwrap();
    let bare = program.to_bytes(&[]).unwrap();
    let inputs = random_inputs(&graph, 3);
    let mut rig = Rig::new(&bare, &target, Map::Vivado, 0);
    rig.run(&inputs).unwrap();
    // Outputs of a network may be its inputs.
    let [workspace, inner, outer] = &mut rig.regions;
    let memory = Memory { constants: &[], workspace, inputs: inner, outputs: outer };
    let model = Deployable::parse(&bare).unwrap();
    let outputs = model.outputs().flat_map(|(_, tensor)| memory.tensor(&tensor).unwrap().to_vec()).collect();
    let vector = [inputs.concat(), outputs].concat();
    let file = program.to_bytes(&[vector]).unwrap();
    let mut model = Model::new(Map::Vivado, 0, &target);
    model.troubles.push_back(Trouble::Hangs);
    let ((first, second), model) = serve(model, target.fingerprint, 0, |host| {
        host.load(&file).unwrap();
        (words(host.self_test()), host.self_test().unwrap())
    });
    assert!(matches!(first.0, Fault::Dpu(_)) && first.1.starts_with("timeout; "), "{first:?}");
    assert_eq!((second.samples, second.wrong), (1, None));
    assert_eq!(model.finished as usize, jobs(&file));
    assert_eq!(model.violations, [""; 0]);
}

#[test]
fn a_dpu_that_hangs_is_the_hosts_error_and_the_next_run_is_right() {
    let target = target("B512");
    let (file, inputs) = one_job(&target);
    let step = Deployable::parse(&file).unwrap().steps().position(|step| matches!(step, Step::Dpu(_))).unwrap();
    let wanted = reported(&file, &target, &inputs);
    for map in [Map::Vivado, Map::Vitis] {
        for (trouble, says) in [
            (Trouble::Hangs, "timeout; ended/begun: LOAD "),
            (Trouble::Mute, "timeout; "),
            (Trouble::Noise, "timeout; "),
            (Trouble::Early, "done too early; "),
        ] {
            let mut model = Model::new(map, 0, &target);
            model.troubles.extend([Trouble::Takes(1000), trouble]);
            let ((), model) = serve(model, target.fingerprint, 0, |host| {
                host.load(&file).unwrap();
                assert_eq!(host.sample(&inputs, Report::Bytes).unwrap().tensors, wanted);
                let error = host.sample(&inputs, Report::Bytes).unwrap_err();
                let line = error.to_string();
                assert!(line.contains("step") && line.contains(says), "{line}");
                let (fault, text) = words(Err::<(), _>(error));
                assert_eq!(fault, Fault::Dpu(step as u16));
                assert!(text.starts_with(says), "{trouble:?}: {text}");
                for _ in 0..2 {
                    assert_eq!(host.sample(&inputs, Report::Bytes).unwrap().tensors, wanted, "after {trouble:?}");
                }
            });
            assert!(model.resets > 0);
            assert_eq!(model.violations, [""; 0], "{map:?} {trouble:?}");
        }
    }
}

/// A core that hung and that nothing resets is not touched again, whatever the host asks for.
#[test]
fn a_dpu_that_cannot_be_reset_stays_an_error() {
    let target = target("B512");
    let (file, inputs) = one_job(&target);
    let mut model = Model::new(Map::Vitis, 0, &target);
    model.platform_reset = false;
    model.troubles.push_back(Trouble::Hangs);
    let ((), model) = serve(model, target.fingerprint, 0, |host| {
        host.load(&file).unwrap();
        assert!(words(host.sample(&inputs, Report::None)).1.starts_with("timeout; "));
        for _ in 0..2 {
            assert_eq!(words(host.sample(&inputs, Report::None)).1, "hung, and the platform cannot reset it");
            host.load(&file).unwrap();
        }
    });
    assert_eq!((model.finished, model.violations), (0, vec![]));
}

#[test]
fn code_for_another_dpu_does_not_run() {
    let (own, other) = (target("B512"), target("B1152"));
    let (file, inputs) = one_job(&other);
    // Refused as it is loaded, if the board cannot be that DPU in software.
    let (fault, model) = serve(Model::new(Map::Vivado, 0, &own), own.fingerprint, 0, |host| words(host.load(&file)).0);
    assert_eq!((fault, model.accesses), (Fault::Target { fingerprint: other.fingerprint }, vec![]));
    let (tensors, model) = serve(Model::new(Map::Vivado, 0, &own), own.fingerprint, other.bank_bytes(), |host| {
        host.load(&file).unwrap();
        host.sample(&inputs, Report::Bytes).unwrap().tensors
    });
    assert_eq!((tensors, model.accesses), (reported(&file, &other, &inputs), vec![]));
    // The board is wrong about its DPU: the DPU's own word counts, and nothing is started.
    let (answers, model) = serve(Model::new(Map::Vivado, 0, &own), other.fingerprint, 0, |host| {
        host.load(&file).unwrap();
        [(); 2].map(|()| words(host.sample(&inputs, Report::None)).1)
    });
    let says = format!("this DPU is {:#018x}, the code is for {:#018x}", own.fingerprint, other.fingerprint);
    assert_eq!(answers, [says.clone(), says]);
    assert_eq!((model.finished, model.violations), (0, vec![]));
}

/// No DPU in the programmable logic, or no clock: nothing hangs, and the host is told.
#[test]
fn a_dpu_that_is_not_there_is_the_hosts_error() {
    let target = target("B512");
    let (file, inputs) = one_job(&target);
    let mut model = Model::new(Map::Vivado, 0, &target);
    model.absent = true;
    let (text, _) = serve(model, target.fingerprint, 0, |host| {
        host.load(&file).unwrap();
        words(host.sample(&inputs, Report::None)).1
    });
    assert!(text.contains("no DPU there, or no clock"), "{text}");
}
