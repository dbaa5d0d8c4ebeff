//! What the user sees: answers on stdout, progress and errors on stderr.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use shiftwise::text;
pub(crate) use shiftwise::text::{bytes, count};
use shiftwise_graph::error::Error;

use crate::hint::hint;

/// What the options of every command stand under in a command's help.
pub(crate) const EVERY: &str = "Options of every command";

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Print one JSON document on stdout and nothing else there
    #[arg(long, global = true, help_heading = EVERY)]
    json: bool,
    /// No tables, no progress and no notes
    #[arg(short, long, global = true, help_heading = EVERY)]
    quiet: bool,
    /// Explain more; twice for most
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = EVERY)]
    verbose: u8,
}

/// Why the answer did not reach its reader, if so.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// A line of the answer as it is. What can't be written is remembered for [`delivered`], and nothing follows it.
fn print(line: &str) {
    if LOST.get().is_some() {
        return;
    }
    let mut out = io::stdout().lock();
    if let Err(e) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        // The first reason is the one to report.
        let _ = LOST.set(e);
    }
}

/// Fails if a part of the answer was lost, on a full disk for example. Nobody misses what a closed pipe did not take.
pub(crate) fn delivered() -> Result<(), Error> {
    match LOST.get() {
        Some(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            let source = e.raw_os_error().map_or_else(|| e.kind().into(), io::Error::from_raw_os_error);
            Err(Error::io(Path::new("standard output"))(source))
        }
        _ => Ok(()),
    }
}

/// A JSON document on stdout, unaltered.
pub(crate) fn document(value: &Value) {
    print(&format!("{value:#}"));
}

/// A sentence on stderr. Unlike `eprintln!`, a closed pipe doesn't panic.
pub(crate) fn complain(sentence: impl AsRef<str>) {
    complain_of("", &text::sentence(sentence.as_ref()));
}

/// Lines on stderr behind a mark of our own.
fn complain_of(mark: &str, lines: &str) {
    let _ = writeln!(io::stderr(), "{mark}{lines}");
}

/// A usage error: the sentence with its code, what the argument parser adds to it in lines of its own, and what to do.
pub(crate) fn usage(code: &str, sentence: &str, more: &str, hint: &str) {
    complain_of(&format!("error[{code}]: "), &text::sentence(sentence));
    if !more.is_empty() {
        complain_of("", &text::lines(more));
    }
    complain_of("hint: ", hint);
}

/// Where a command writes to.
#[derive(Debug)]
pub(crate) struct Screen {
    options: Options,
    terminal: bool,
    colour: bool,
}

impl Screen {
    pub(crate) fn new(options: &Options) -> Self {
        let terminal = io::stderr().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none();
        Self { options: options.clone(), terminal, colour }
    }

    /// One that says nothing.
    pub(crate) fn silent(&self) -> Self {
        let options = Options { quiet: true, json: true, verbose: 0 };
        Self { options, terminal: false, colour: false }
    }

    /// This one, explaining at least as much as `verbose` says.
    pub(crate) fn explaining(&self, verbose: u8) -> Self {
        let options = Options { verbose: self.options.verbose.max(verbose), ..self.options.clone() };
        Self { options, ..*self }
    }

    /// Whether more is to be explained.
    pub(crate) fn verbose(&self) -> bool {
        self.options.verbose > 0
    }

    /// One line of the answer.
    pub(crate) fn say(&self, line: impl AsRef<str>) {
        if !self.options.json {
            print(&text::sentence(line.as_ref()));
        }
    }

    /// A line that explains the answer while it is being found.
    pub(crate) fn tell(&self, line: impl AsRef<str>) {
        if !self.options.quiet {
            self.say(line);
        }
    }

    /// A part of the answer that has lines of its own, in which names are clean already.
    pub(crate) fn lines(&self, lines: impl AsRef<str>) {
        if !self.options.json {
            print(&text::lines(lines.as_ref()));
        }
    }

    /// An answer that another program reads: our own text, unaltered.
    pub(crate) fn script(&self, text: &str) {
        if !self.options.json {
            print(text);
        }
    }

    /// A remark beside the answer.
    pub(crate) fn note(&self, line: impl AsRef<str>) {
        if !self.options.quiet {
            complain(line);
        }
    }

    /// A remark for `-v`.
    pub(crate) fn detail(&self, line: impl AsRef<str>) {
        if self.options.verbose > 0 {
            complain(line);
        }
    }

    /// The answer as JSON, if asked for.
    pub(crate) fn json(&self, value: &Value) {
        if self.options.json {
            document(value);
        }
    }

    /// An error: the sentence with its code, then what to do.
    pub(crate) fn error(&self, error: &Error) {
        let (on, off) = if self.colour { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        let mark = format!("{on}error[{}]{off}: ", error.code());
        complain_of(&mark, &text::sentence(&error.to_string()));
        complain_of("hint: ", hint(error));
    }

    /// A table that explains the answer; columns after the first `left` are aligned right.
    pub(crate) fn table(&self, header: &[&str], left: usize, rows: &[Vec<String>]) {
        if !self.options.quiet {
            self.answer(header, left, rows);
        }
    }

    /// A table that is the answer, as [`Screen::table`].
    pub(crate) fn answer(&self, header: &[&str], left: usize, rows: &[Vec<String>]) {
        if self.options.json {
            return;
        }
        // What doesn't fit a terminal is left out from the right: a number that is broken over lines can't be read.
        let mut columns = header.len();
        loop {
            let (table, room) = drawn(header, left, rows, columns);
            let fits = room.is_none_or(|room| table.lines().all(|line| line.chars().count() <= room));
            if fits || columns <= left + 1 {
                print(&table);
                break;
            }
            columns -= 1;
        }
        if columns < header.len() {
            self.note(format!("not shown for want of room: {}", header[columns..].join(", ")));
        }
    }

    /// Progress of `total` units called `unit`: a bar on a terminal, else a line every few seconds.
    pub(crate) fn progress(&self, what: &str, unit: &str, total: usize) -> Progress {
        let mode = if self.options.quiet {
            Mode::Silent
        } else if self.terminal {
            let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
            let style = format!("{what} {{bar:30}} {{pos}}/{{len}} {unit} {{per_sec}} {{eta}} left");
            // A malformed template is a bug of this line; the default style then still shows progress.
            bar.set_style(ProgressStyle::with_template(&style).unwrap_or_else(|_| ProgressStyle::default_bar()));
            Mode::Bar(bar)
        } else {
            Mode::Lines { start: Instant::now(), last: Instant::now() }
        };
        Progress { what: what.into(), unit: unit.into(), total, mode }
    }
}

/// The first `columns` of a table, and how wide the terminal is, if there is one.
fn drawn(header: &[&str], left: usize, rows: &[Vec<String>], columns: usize) -> (String, Option<usize>) {
    let mut table = Table::new();
    let rows = rows.iter().map(|row| row.iter().take(columns).map(|cell| text::name(cell)).collect::<Vec<_>>());
    table.load_style(presets::NOTHING).set_header(&header[..columns]).add_rows(rows);
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let room = table.width().map(usize::from);
    (table.set_content_arrangement(ContentArrangement::Disabled).trim_fmt(), room)
}

enum Mode {
    Silent,
    Bar(ProgressBar),
    Lines { start: Instant, last: Instant },
}

/// A running count.
pub(crate) struct Progress {
    what: String,
    unit: String,
    total: usize,
    mode: Mode,
}

impl Progress {
    /// `done` of the total are done.
    pub(crate) fn set(&mut self, done: usize) {
        match &mut self.mode {
            Mode::Silent => {}
            Mode::Bar(bar) => {
                bar.set_position(done as u64);
                if done >= self.total {
                    bar.finish_and_clear();
                }
            }
            Mode::Lines { start, last } => {
                if last.elapsed() > Duration::from_secs(3) {
                    *last = Instant::now();
                    let rate = done as f64 / start.elapsed().as_secs_f64();
                    let left = self.total.saturating_sub(done) as f64 / rate.max(1e-9);
                    complain(format!("{} {done}/{} {} {rate:.1}/s {left:.0} s left", self.what, self.total, self.unit));
                }
            }
        }
    }
}
