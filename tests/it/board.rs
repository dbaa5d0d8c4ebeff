//! `shiftwise run` against a board behind a serial port: a session of the firmware at the other end of a terminal of this
//! machine, and an emulated board whose two ports are terminals.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use embedded_io_adapters::std::FromStd;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use shiftwise_board::image;
use shiftwise_core::exec::{ExecError, Machine};
use shiftwise_core::model::{Deployable, DpuJob, Place, Step, crc32};
use shiftwise_core::monitor::Sketch;
use shiftwise_core::run::{Dpu, Memory};
use shiftwise_firmware::session::{Board, Session, Space};
use shiftwise_tests::command::{Folder, Ran};

/// A board beside a DPU, with a counter of 1 MHz.
struct Beside {
    fingerprint: u64,
    ticks: u64,
}

impl Board for Beside {
    fn name(&self) -> &str {
        "host"
    }
    fn hz(&self) -> u32 {
        1_000_000
    }
    fn ticks(&mut self) -> u64 {
        self.ticks += 250;
        self.ticks
    }
    fn accepts(&self, fingerprint: u64) -> bool {
        [0, self.fingerprint].contains(&fingerprint)
    }
}

/// A DPU that computes right, or but for one byte of the first tensor that it computes: 40 more in byte 5.
struct Faulty<'t> {
    machine: Machine<'t>,
    faulty: bool,
    /// Where that tensor lies.
    place: Option<Place>,
}

impl Dpu for Faulty<'_> {
    type Error = ExecError;

    fn load(&mut self, deployable: &Deployable<'_>) {
        let first = |step| match step {
            Step::Dpu(job) => job.outputs.iter().next(),
            Step::Cpu(_) => None,
        };
        let tensor = deployable.steps().find_map(first).and_then(|id| deployable.tensor(id));
        self.place = tensor.filter(|_| self.faulty).map(|tensor| tensor.place);
    }

    fn run(&mut self, job: &DpuJob<'_>, code: &[u8], memory: &mut Memory<'_>) -> Result<(), ExecError> {
        self.machine.run(job, code, memory)?;
        if let Some(place) = self.place {
            let byte = memory.write(place.region, place.offset as usize + 5, 1).unwrap();
            byte[0] = byte[0].wrapping_add(40);
        }
        Ok(())
    }
}

/// A board at a terminal, whose path this is. It serves one host; the file keeps the terminal open.
fn board(faulty: bool) -> (String, File) {
    let own = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&own).unwrap();
    unlockpt(&own).unwrap();
    let path = ptsname(&own, Vec::new()).unwrap().into_string().unwrap();
    let own = File::from(own);
    let held = File::options().read(true).write(true).open(&path).unwrap();
    std::thread::spawn(move || {
        let (mut store, mut arena, mut sketches) = (vec![0; 1 << 20], vec![0; 1 << 20], [Sketch::new(); 64]);
        let target = shiftwise_targets::find("B512").unwrap();
        let mut banks = vec![0; target.bank_bytes()];
        let machine = Machine::new(&target, &mut banks).unwrap();
        let memory = Space { store: &mut store, arena: &mut arena, banks: &mut [], sketches: &mut sketches };
        let beside = Beside { fingerprint: target.fingerprint, ticks: 0 };
        let link = (FromStd::new(own.try_clone().unwrap()), FromStd::new(own));
        // Ends with the host's last request, or with the terminal at the end of the test.
        let _ = Session::new(link, Faulty { machine, faulty, place: None }, beside, memory).serve();
    });
    (path, held)
}

const EVAL: &str = "--data digits.npz:x_eval";

/// The digits network for the processor and for a DPU, with a self-test of two samples.
fn compiled(name: &str) -> Folder {
    let folder = Folder::new(name);
    for command in [
        "quantize digits_lenet.h5 --calib digits.npz:x_cal --output-dir q",
        "compile q/quantized.h5 --target cpu -o cpu.swm --self-test digits.npz:x_cal --self-test-samples 2",
        "compile q/quantized.h5 --target B512 -o dpu.swm",
        "compile q/quantized.h5 --target cpu -o plain.swm",
    ] {
        let ran = folder.run(command);
        assert_eq!(ran.code, Some(0), "{command}: {ran:?}");
    }
    folder
}

/// Runs a command against a new board.
fn run(folder: &Folder, options: &str, faulty: bool) -> Ran {
    let (path, _held) = board(faulty);
    folder.run(&format!("run {options} --board serial:{path}"))
}

#[test]
fn a_board_at_a_serial_port_runs_checks_and_tests_itself() {
    let folder = compiled("serial");
    let ran = run(&folder, &format!("cpu.swm {EVAL} --samples 3 --check --self-test --drift --output-dir out"), false);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for says in [
        "self-test: 2 samples right",
        "check: every tensor of 3 samples is this machine's",
        "compared with the self-test",
        "as expected",
        "3 samples on serial:",
        // Eight steps of 250 ticks of a microsecond.
        "2 000 ticks (2.000 ms) for the first",
        "sample 2, output 0: largest at ",
    ] {
        assert!(ran.out.contains(says), "{says}: {ran:?}");
    }
    let simulated = folder.run(&format!("simulate cpu.swm {EVAL} --samples 3 --output-dir sim"));
    assert_eq!(simulated.code, Some(0), "{simulated:?}");
    assert!(folder.read("out/output_0.npy") == folder.read("sim/output_0.npy"));

    let json = run(&folder, &format!("cpu.swm {EVAL} --check --self-test --drift --json"), false).json();
    assert_eq!(json["self_test"], serde_json::json!({ "samples": 2, "first_wrong": null }));
    assert_eq!(json["check"], serde_json::json!({ "samples": 1, "first_difference": null }));
    assert!(json["drift"].as_array().unwrap().iter().all(|t| t["drift"] == "inside" && t["runs"] == 1), "{json}");
    assert_eq!((json["unit"].as_str(), json["per_step"][0].as_array().unwrap().len()), (Some("ticks"), 8));

    // Not asked for, not done.
    let plain = run(&folder, &format!("cpu.swm {EVAL}"), false);
    assert!(plain.code == Some(0) && !plain.out.contains("self-test") && !plain.out.contains("check:"), "{plain:?}");
    let alone = run(&folder, "cpu.swm --self-test", false);
    assert!(alone.code == Some(0) && alone.out == "self-test: 2 samples right\n", "{alone:?}");
}

#[test]
fn the_first_wrong_value_is_named() {
    let folder = compiled("wrong");
    let right = run(&folder, &format!("dpu.swm {EVAL} --check"), false);
    assert!(right.code == Some(0) && right.out.contains("every tensor of 1 samples is this machine's"), "{right:?}");
    let ran = run(&folder, &format!("dpu.swm {EVAL} --check"), true);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let json = run(&folder, &format!("dpu.swm {EVAL} --samples 2 --check --json"), true);
    assert_eq!(json.code, Some(1));
    let first = json.json()["check"]["first_difference"].clone();
    let number = |key: &str| first[key].as_str().unwrap().parse::<i64>().unwrap();
    assert_eq!((number("computed") - number("expected")).rem_euclid(256), 40, "{first}");
    assert_eq!((&first["sample"], &first["differing"]), (&0.into(), &1.into()), "{first}");
    let file = folder.read("dpu.swm");
    let model = Deployable::parse(&file).unwrap();
    let tensor = model.tensors().find(|(_, t)| t.name == first["tensor"].as_str().unwrap()).unwrap().1;
    assert_eq!(first["layer"], tensor.origin);
    // Element 5 of the tensor, along each of its dimensions.
    let at = first["index"].as_array().unwrap().iter().map(|i| i.as_u64().unwrap() as u32);
    let at = at.zip(tensor.shape.dims()).fold(0, |at, (i, size)| at * size + i);
    assert_eq!(at, 5);
    let line = format!(
        "check: first difference: sample 0, layer {}, tensor {}, at {}: expected {}, computed {}; 1 of {} values differ\n",
        tensor.origin,
        tensor.name,
        first["index"].to_string().replace(',', ", "),
        number("expected"),
        number("computed"),
        tensor.shape.elements().unwrap(),
    );
    assert!(ran.out.contains(&line), "{line}: {ran:?}");

    // A wrong expectation in the file itself.
    let mut file = folder.read("cpu.swm");
    let vectors = Deployable::parse(&file).unwrap().self_test();
    let end = vectors.as_ptr().addr() - file.as_ptr().addr() + vectors.len();
    file[end - 1] ^= 1;
    let body = file.len() - 4;
    let crc = crc32(&file[..body]);
    file[body..].copy_from_slice(&crc.to_le_bytes());
    folder.write("wrong.swm", &file);
    let ran = run(&folder, "wrong.swm --self-test", false);
    assert!(ran.code == Some(1) && ran.out.contains("self-test: sample 1, output 0, byte 39: expected"), "{ran:?}");
}

/// Data that is four times as large as in calibration shows.
#[test]
fn drift_is_told() {
    let folder = compiled("drift");
    for (options, says) in
        [("", "as expected"), ("--scale 4", "too large: values are cut off"), ("--scale 1/100", "smaller")]
    {
        let ran = run(&folder, &format!("cpu.swm {EVAL} --drift {options}"), false);
        let row = ran.out.lines().find(|line| line.contains("quant_image")).unwrap_or_else(|| panic!("{ran:?}"));
        assert!(ran.code == Some(0) && row.contains(says), "{options}: {row}");
    }
    let ran = run(&folder, &format!("plain.swm {EVAL} --drift"), false);
    assert!(ran.err.contains("holds no self-test: compared with what positions alone tell"), "{ran:?}");
}

#[test]
fn boards_that_are_not_there_are_errors() {
    let folder = compiled("absent");
    let data = folder.read("digits.npz");
    for (command, code, says) in [
        ("--board mps2-an386 --data digits.npz:x_eval", "Quantizer_TF2_Invalid_Target", "qemu:mps2-an386, "),
        ("--board qemu:mps3 --data digits.npz:x_eval", "Quantizer_TF2_Invalid_Target", "known boards: cortex-r5f, "),
        ("--board serial: --data digits.npz:x_eval", "Quantizer_TF2_Invalid_Target", "serial:PATH[@BAUD]"),
        ("--board serial:tty7 --data digits.npz:x_eval", "Shiftwise_Run_Failed", "opening tty7: No such file"),
        // Nothing is written over a file.
        ("--board serial:digits.npz --data digits.npz:x_eval", "Shiftwise_Run_Failed", "a file, not a port"),
        ("--board serial:/dev/null --data digits.npz:x_eval", "Shiftwise_Run_Failed", "the board closed the link"),
        ("--board serial:/dev/null --self-test", "Shiftwise_Invalid_Option", "plain.swm holds no self-test"),
        ("--board serial:/dev/null", "Shiftwise_Invalid_Option", "--data"),
        ("--board serial:/dev/null --self-test --check", "Shiftwise_Invalid_Option", "--data"),
        ("--board serial:/dev/null --self-test --drift", "Shiftwise_Invalid_Option", "--data"),
        ("--board serial:/dev/null --data digits.npz:x_eval --log tty8", "Shiftwise_Invalid_Option", "--firmware"),
        (
            "--board serial:/dev/null --data digits.npz:x_eval --log tty8 --firmware plain.swm",
            "Shiftwise_Run_Failed",
            "decoding the firmware's log",
        ),
        (
            "--board qemu:mps2-an386 --data digits.npz:x_eval --log tty8 --firmware plain.swm",
            "Shiftwise_Invalid_Option",
            "-v shows an emulator's log",
        ),
    ] {
        let ran = folder.run(&format!("run plain.swm {command}"));
        let prefix = format!("error[{code}]: ");
        assert!(ran.code == Some(2) && ran.err.contains(&prefix) && ran.err.contains(says), "{command}: {ran:?}");
        assert!(ran.err.lines().any(|line| line.starts_with("hint: ")), "{command}: {ran:?}");
    }
    assert!(folder.read("digits.npz") == data);
}

/// Ended with its owner.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// As with hardware: a board that runs already, its link and its log on two ports.
#[test]
fn the_log_of_a_second_port_is_shown() {
    if std::env::var_os("SHIFTWISE_QEMU").is_none() {
        println!("set SHIFTWISE_QEMU=1 to run this");
        return;
    }
    let elf = image::build(image::board("mps2-an386").unwrap()).unwrap().elf;
    let mut qemu = Command::new("qemu-system-arm");
    qemu.args(["-machine", "mps2-an386", "-display", "none", "-monitor", "none", "-serial", "pty", "-serial", "pty"]);
    qemu.args(["-semihosting-config", "enable=on,target=native", "-kernel"]).arg(&elf);
    let mut emulator = Emulator(qemu.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let output = BufReader::new(emulator.0.stdout.take().unwrap());
    // "char device redirected to /dev/pts/3 (label serial0)"
    let port = |line: String| line.split(' ').find(|word| word.starts_with("/dev/")).map(str::to_owned);
    let ports: Vec<String> = output.lines().map_while(Result::ok).filter_map(port).take(2).collect();
    let [link, log] = &ports[..] else { panic!("{ports:?}") };
    let folder = compiled("log");
    let elf = elf.display();
    let ran = folder.run(&format!("run cpu.swm {EVAL} --check --board serial:{link} --log {log} --firmware {elf}"));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    // What the emulator sends last may be lost: its terminals close with it.
    for says in ["board: INFO a host says hello", "board: INFO a deployable of "] {
        assert!(ran.err.contains(says), "{says}: {ran:?}");
    }
    assert!(!ran.err.contains("WARN"), "{ran:?}");
}
