//! Starting and ending the machine at the other end: QEMU, or a serial port.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::client::{Client, Info};
use crate::image::BoardImage;
use crate::session::{BoardSpec, Difference, Limits, LinkError, SampleResult, SelfTested, SerialPort};
use shiftwise_core::link::Report;
use shiftwise_core::model::TensorId;
use shiftwise_core::monitor::Sketch;

/// Virtual nanoseconds per instruction with `-icount shift=0`.
const NANOSECONDS_PER_INSTRUCTION: u64 = 1;

/// A board in service.
#[derive(Debug)]
pub struct Board {
    client: Client<Port>,
    info: Info,
    emulator: Option<Emulator>,
}

/// Where requests go.
#[derive(Debug)]
enum Port {
    Pipe(ChildStdin),
    Serial(File),
}

impl Write for Port {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Pipe(pipe) => pipe.write(bytes),
            Self::Serial(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Pipe(pipe) => pipe.flush(),
            Self::Serial(file) => file.flush(),
        }
    }
}

impl Board {
    /// Starts the board and greets it.
    ///
    /// An emulator gets `deployable` put into its memory before it starts, which is faster than its serial port (pass
    /// an empty slice to have [`Self::load`] send every byte). `firmware` is only read for emulators.
    pub fn start(spec: &BoardSpec, firmware: &Path, deployable: &[u8], limits: Limits) -> Result<Self, LinkError> {
        let (mut client, mut emulator) = match spec {
            BoardSpec::Qemu(board) => {
                let mut emulator = Emulator::boot(board, firmware, deployable)?;
                let (Some(input), Some(output)) = (emulator.child.stdin.take(), emulator.child.stdout.take()) else {
                    return Err(LinkError::Closed(String::new()));
                };
                (Client::new(Port::Pipe(input), output, limits), Some(emulator))
            }
            BoardSpec::Serial(port) => {
                let (reader, writer) = open(port)?;
                (Client::new(Port::Serial(writer), reader, limits), None)
            }
        };
        match client.hello() {
            Ok(info) => Ok(Self { client, info, emulator }),
            Err(error) => Err(explain(error, emulator.as_mut())),
        }
    }

    /// What the board says of itself.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Makes the board run this deployable from now on.
    pub fn load(&mut self, deployable: &[u8]) -> Result<(), LinkError> {
        self.client.load(deployable).map_err(|error| explain(error, self.emulator.as_mut()))
    }

    /// Runs one sample: one byte vector per network input.
    pub fn sample(&mut self, inputs: &[Vec<u8>], report: Report) -> Result<SampleResult, LinkError> {
        let mut result = self.client.sample(inputs, report).map_err(|error| explain(error, self.emulator.as_mut()))?;
        if self.emulator.is_some() && self.info.hz > 0 {
            let per_tick = 1_000_000_000 / u64::from(self.info.hz) / NANOSECONDS_PER_INSTRUCTION;
            result.steps.iter_mut().for_each(|ticks| *ticks *= per_tick);
        }
        Ok(result)
    }

    /// As [`Client::first_difference`].
    pub fn first_difference(
        &mut self,
        inputs: &[Vec<u8>],
        wanted: &[(TensorId, Vec<u8>)],
    ) -> Result<Option<Difference>, LinkError> {
        self.client.first_difference(inputs, wanted).map_err(|error| explain(error, self.emulator.as_mut()))
    }

    /// As [`Client::self_test`].
    pub fn self_test(&mut self) -> Result<SelfTested, LinkError> {
        self.client.self_test().map_err(|error| explain(error, self.emulator.as_mut()))
    }

    /// As [`Client::sketches`].
    pub fn sketches(&mut self) -> Result<Vec<(TensorId, Sketch)>, LinkError> {
        self.client.sketches().map_err(|error| explain(error, self.emulator.as_mut()))
    }

    /// As [`Client::forget`].
    pub fn forget(&mut self) -> Result<(), LinkError> {
        self.client.forget().map_err(|error| explain(error, self.emulator.as_mut()))
    }

    /// Ends the session and returns an emulator's log; a board behind a serial port logs to a [`SerialLog`].
    pub fn finish(mut self) -> Result<Vec<String>, LinkError> {
        self.client.exit().map_err(|error| explain(error, self.emulator.as_mut()))?;
        match self.emulator.as_mut() {
            Some(emulator) => emulator.finish(),
            None => Ok(Vec::new()),
        }
    }
}

/// Bytes of a log that are kept.
const MOST_LOG: usize = 1 << 20;

/// The log of a board behind a serial port: defmt frames on a port of their own.
#[derive(Debug)]
pub struct SerialLog {
    elf: Vec<u8>,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl SerialLog {
    /// Listens from now on. `firmware` is the ELF file of the image that the board runs, which has the log's texts.
    ///
    /// Errors: [`LinkError::Io`] for a port that cannot be opened, or a file that has no such texts.
    pub fn open(port: &SerialPort, firmware: &Path) -> Result<Self, LinkError> {
        let elf = std::fs::read(firmware).map_err(|e| io(format!("reading {}", firmware.display()), e))?;
        decode_log(&elf, &[])?;
        let (mut reader, _) = open(port)?;
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let stream = Arc::clone(&bytes);
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                match stream.lock() {
                    Ok(mut all) if all.len() < MOST_LOG => all.extend(buffer.iter().take(n)),
                    _ => break,
                }
            }
        });
        Ok(Self { elf, bytes })
    }

    /// What the board has logged since.
    pub fn lines(&self) -> Result<Vec<String>, LinkError> {
        // What the board sent last is still on its way.
        std::thread::sleep(Duration::from_millis(100));
        decode_log(&self.elf, &self.bytes.lock().map(|bytes| bytes.clone()).unwrap_or_default())
    }
}

/// The reading and the writing half of a port.
fn open(port: &SerialPort) -> Result<(File, File), LinkError> {
    let open = || {
        // Frames would be written over its contents.
        if std::fs::metadata(&port.path)?.is_file() {
            return Err(std::io::Error::other("a file, not a port"));
        }
        let file = File::options().read(true).write(true).open(&port.path)?;
        set_up(&file, port.baud)?;
        Ok((file.try_clone()?, file))
    };
    open().map_err(|source| io(format!("opening {}", port.path.display()), source))
}

/// Raw bytes at this rate, if the file is a terminal.
#[cfg(unix)]
fn set_up(file: &File, baud: u32) -> std::io::Result<()> {
    use rustix::termios::{OptionalActions, isatty, tcgetattr, tcsetattr};
    if isatty(file) {
        let mut settings = tcgetattr(file)?;
        settings.make_raw();
        settings.set_speed(baud)?;
        tcsetattr(file, OptionalActions::Flush, &settings)?;
    }
    Ok(())
}

/// The system's own settings are used.
#[cfg(not(unix))]
fn set_up(_: &File, _: u32) -> std::io::Result<()> {
    Ok(())
}

/// Boots an image that needs no host, waits until it ends with success, and returns its log.
///
/// Errors: the emulator cannot be started, or ends with a failure or not within `limit`; then with the log so far.
pub fn boot_to_end(board: &BoardImage, firmware: &Path, limit: Duration) -> Result<Vec<String>, LinkError> {
    let mut emulator = Emulator::boot(board, firmware, &[])?;
    let status = emulator.wait(limit);
    let log = emulator.log()?;
    match status {
        Some(status) if status.success() => Ok(log),
        Some(status) => Err(LinkError::Closed(format!(": the emulator ended with {status}\n  {}", log.join("\n  ")))),
        None => Err(LinkError::Silent(format!(": the emulator does not end\n  {}", log.join("\n  ")))),
    }
}

fn io(what: impl Into<String>, source: std::io::Error) -> LinkError {
    LinkError::Io { what: what.into(), source }
}

/// Adds the emulator's own words to an error that has none.
fn explain(error: LinkError, emulator: Option<&mut Emulator>) -> LinkError {
    let words = |emulator: &mut Emulator| {
        let mut lines = emulator.log().unwrap_or_default();
        lines.extend(emulator.complaints.lock().map(|text| text.trim().to_string()).ok());
        lines.retain(|line| !line.is_empty());
        lines.iter().map(|line| format!("\n  {line}")).collect::<String>()
    };
    match (error, emulator) {
        (LinkError::Silent(text), Some(emulator)) if text.is_empty() => LinkError::Silent(words(emulator)),
        (LinkError::Closed(_), Some(emulator)) => {
            // The process is ending: its last words are on their way.
            emulator.wait(Duration::from_secs(1));
            LinkError::Closed(words(emulator))
        }
        (error, _) => error,
    }
}

/// A QEMU process and the directory that it works in.
#[derive(Debug)]
struct Emulator {
    child: Child,
    directory: PathBuf,
    complaints: Arc<Mutex<String>>,
}

/// Names in that directory. The boards' data files know the image's and the log's.
const IMAGE: &str = "image.elf";
const LOG: &str = "log.defmt";
const DEPLOYABLE: &str = "model.swm";

impl Emulator {
    fn boot(board: &BoardImage, firmware: &Path, deployable: &[u8]) -> Result<Self, LinkError> {
        // A directory of its own, of a name that nobody can foresee: paths with commas, which QEMU's options cannot
        // hold, never reach it.
        let directory = tempfile::Builder::new().prefix("shiftwise-").tempdir();
        let directory = directory.map_err(|e| io("making a directory for the emulator", e))?.keep();
        let prepare = || {
            std::fs::copy(firmware, directory.join(IMAGE))?;
            std::fs::write(directory.join(DEPLOYABLE), deployable)
        };
        let child = prepare()
            .map_err(|e| io(format!("preparing {} with {}", directory.display(), firmware.display()), e))
            .and_then(|()| Self::start(board, &directory, !deployable.is_empty()));
        let mut child = child.inspect_err(|_| remove(&directory))?;
        let complaints = Arc::new(Mutex::new(String::new()));
        if let Some(mut stderr) = child.stderr.take() {
            let text = Arc::clone(&complaints);
            std::thread::spawn(move || {
                let mut buffer = [0; 512];
                while let Ok(n @ 1..) = stderr.read(&mut buffer) {
                    if let Ok(mut text) = text.lock()
                        && text.len() < 4096
                    {
                        text.push_str(&String::from_utf8_lossy(buffer.get(..n).unwrap_or(&[])));
                    }
                }
            });
        }
        let mut emulator = Self { child, directory, complaints };
        emulator.await_first_words();
        Ok(emulator)
    }

    /// Waits until the firmware has logged something: what is sent before its port is on is lost, as on hardware.
    ///
    /// An image that logs nothing is given a second.
    fn await_first_words(&mut self) {
        let log = self.directory.join(LOG);
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until && std::fs::metadata(&log).map_or(0, |file| file.len()) == 0 {
            if self.wait(Duration::ZERO).is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn start(board: &BoardImage, directory: &Path, load: bool) -> Result<Child, LinkError> {
        let emulator = &board.emulator;
        let mut command = Command::new(&emulator.program);
        command.args(["-display", "none", "-monitor", "none", "-icount", "shift=0"]);
        command.args(&emulator.arguments);
        if load {
            let place = format!("loader,file={DEPLOYABLE},addr={:#x},force-raw=on", board.firmware.store.start);
            command.args(["-device", &place]);
        }
        command.current_dir(directory).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                LinkError::NoEmulator { program: emulator.program.clone(), package: emulator.package.clone() }
            }
            _ => io(format!("starting {}", emulator.program), error),
        })
    }

    /// Whether the process has ended by itself within the time.
    fn wait(&mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        let until = Instant::now() + limit;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
                _ => return None,
            }
        }
    }

    fn finish(&mut self) -> Result<Vec<String>, LinkError> {
        match self.wait(Duration::from_secs(10)) {
            Some(status) if status.success() => self.log(),
            Some(status) => Err(LinkError::Closed(format!(": the emulator ended with {status}"))),
            None => Err(LinkError::Silent(": the emulator does not end".into())),
        }
    }

    /// The firmware's log so far.
    fn log(&self) -> Result<Vec<String>, LinkError> {
        let read = |name: &str| {
            let path = self.directory.join(name);
            std::fs::read(&path).map_err(|e| io(format!("reading {}", path.display()), e))
        };
        decode_log(&read(IMAGE)?, &read(LOG)?)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // Errors mean that the process has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        remove(&self.directory);
    }
}

/// Removes an emulator's directory. Left-overs in the directory for temporary files do no harm.
fn remove(directory: &Path) {
    let _ = std::fs::remove_dir_all(directory);
}

/// The lines of a defmt stream, by the string table in the image's ELF file. Damaged frames are skipped.
fn decode_log(elf: &[u8], stream: &[u8]) -> Result<Vec<String>, LinkError> {
    let broken = |e: &dyn std::fmt::Display| io("decoding the firmware's log", std::io::Error::other(e.to_string()));
    let table = defmt_decoder::Table::parse(elf).map_err(|e| broken(&e))?;
    let table = table.ok_or_else(|| broken(&"the image has no texts of a log: is it the ELF file of the firmware?"))?;
    let mut decoder = table.new_stream_decoder();
    decoder.received(stream);
    let mut lines = Vec::new();
    loop {
        match decoder.decode() {
            Ok(frame) => lines.push(frame.display(false).to_string()),
            Err(defmt_decoder::DecodeError::UnexpectedEof) => return Ok(lines),
            Err(defmt_decoder::DecodeError::Malformed) if table.encoding().can_recover() => {}
            Err(error) => return Err(broken(&error)),
        }
    }
}
