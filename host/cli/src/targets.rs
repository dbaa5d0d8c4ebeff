//! `shiftwise targets`.

use shiftwise::targets::{self, OneTarget};
use shiftwise_core::target::Target;
use shiftwise_graph::error::Error;
use shiftwise_targets::{Board, Description};

use crate::outcome::Outcome;
use crate::screen::{Screen, bytes};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A target's name, fingerprint or arch.json, or a board's name
    name: Option<String>,
    /// Also DPUs that are only described: nothing is compiled for them
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

fn describe(d: &Description, screen: &Screen) {
    let fingerprint = d.fingerprint.map_or_else(|| "no fingerprint".into(), |f| format!("fingerprint {f:#018x}"));
    screen.say(format!("{}  {fingerprint}", d.name));
    screen.say(format!("  description only: {}", d.missing));
    if let Some(isa) = targets::instruction_set(d) {
        screen.say(format!("  its code is listed as {isa} (`shiftwise disasm --isa {isa}`)"));
    }
    let p = &d.parallelism;
    screen.say(format!(
        "  {} samples at once; pixel × input channel × output channel parallelism {} × {} × {}: {} operations a cycle each",
        d.batch, p.pixel, p.input_channel, p.output_channel, p.peak_ops_per_cycle
    ));
    for b in &d.banks {
        let bits = b.word_bits.unwrap_or(8);
        let size = u64::from(b.count) * u64::from(b.depth) * u64::from(b.width) * u64::from(bits) / 8;
        screen.say(format!(
            "  {} ({}): {} banks of {} × {} × {bits} bits, {}",
            b.name,
            b.kind,
            b.count,
            b.depth,
            b.width,
            bytes(size)
        ));
    }
}

fn describe_target(t: &Target, screen: &Screen) {
    screen.say(format!("{}  fingerprint {:#018x}", t.name, t.fingerprint));
    screen.say(format!(
        "  pixel × input channel × output channel parallelism {} × {} × {}: {} operations a cycle",
        t.pixel_parallel,
        t.input_channel_parallel,
        t.output_channel_parallel,
        t.peak_ops_per_cycle()
    ));
    for g in &t.banks {
        let size = g.bank_bytes() * usize::from(g.count);
        let (kind, count, depth, width) = (g.kind, g.count, g.depth, g.width);
        screen.say(format!("  {kind:?}: {count} banks of {depth} × {width} bytes, {}", bytes(size as u64)));
    }
    screen.say(format!("  {}", targets::USES));
}

fn describe_board(b: &Board, screen: &Screen) {
    let dpu = b.dpu.as_deref().unwrap_or("none");
    screen.say(format!("{} ({}): {}, DPU {dpu}", b.name, b.title, b.cpu));
    if b.dpu.is_some() {
        screen.say(format!("  {} cores at {} MHz", b.cores, b.clock_mhz));
    }
    if let Some(p) = &b.processor {
        let (cycles, band) = (p.cycles_per_instruction, p.band_percent);
        screen.say(format!("  {} MHz, about {cycles} cycles an instruction (INF, ± {band} % on times)", p.clock_mhz));
        if b.counted_on() != b.cpu {
            screen.say(format!("  instructions as counted on {}", b.counted_on()));
        }
    }
    for m in &b.memory {
        screen.say(format!("  {} {:#x} {}", m.name, m.start, bytes(m.bytes)));
    }
}

/// Tables: what programs are compiled for, on what, and with `all` what is only described.
fn tables(boards: &[Board], all: bool, screen: &Screen) {
    let row = |name: &str, fingerprint: Option<u64>, peak: u32| {
        vec![name.to_owned(), fingerprint.map_or_else(String::new, |f| format!("{f:#018x}")), peak.to_string()]
    };
    let header = |what| [what, "fingerprint", "operations/cycle"];
    let executed = shiftwise_targets::targets();
    let rows: Vec<_> = executed.iter().map(|t| row(&t.name, Some(t.fingerprint), t.peak_ops_per_cycle())).collect();
    screen.answer(&header("target"), 2, &rows);
    let row = |b: &Board| {
        let clock = match &b.processor {
            _ if b.clock_mhz > 0 => format!("{} × {} MHz", b.cores, b.clock_mhz),
            Some(p) => format!("{} MHz", p.clock_mhz),
            None => String::new(),
        };
        vec![b.name.clone(), b.cpu.clone(), b.dpu.clone().unwrap_or_else(|| "cpu only".into()), clock]
    };
    screen.say("");
    screen.answer(&["board", "processor", "target", "cores"], 3, &boards.iter().map(row).collect::<Vec<_>>());
    screen.say("");
    let described = shiftwise_targets::descriptions();
    if !all {
        screen.say(format!("{} DPUs more are only described: --all lists them", described.len()));
        return;
    }
    let row = |d: &Description| {
        let fingerprint = d.fingerprint.map_or_else(String::new, |f| format!("{f:#018x}"));
        vec![d.name.clone(), fingerprint, d.parallelism.peak_ops_per_cycle.to_string()]
    };
    screen.answer(&header("only described"), 2, &described.iter().map(row).collect::<Vec<_>>());
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let Some(name) = &args.name else {
        let list = targets::list();
        tables(&list.boards, args.all, screen);
        return Outcome::done(list);
    };
    let one = targets::one(name)?;
    match &one {
        OneTarget::Description(d) => describe(d, screen),
        OneTarget::Target(t) => describe_target(t, screen),
        OneTarget::Board(b) => describe_board(b, screen),
    }
    Outcome::done(one)
}
