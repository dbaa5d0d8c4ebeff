//! `shiftwise targets`.

use serde_json::json;
use shiftwise_core::isa::described::InstructionSet;
use shiftwise_graph::error::Error;
use shiftwise_targets::{Description, Entry};

use crate::outcome::{Outcome, to_json};
use crate::screen::{Screen, bytes};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A target's name, fingerprint or arch.json, or a board's name
    name: Option<String>,
}

/// What is missing before a described target could be simulated.
pub(crate) fn missing(name: &str) -> String {
    match shiftwise_targets::find_entry(name) {
        Ok(Entry::Description(d)) => d.missing,
        _ => "nothing more is known about it".into(),
    }
}

/// What can be done with an executed target.
const USES: &str = "compile, simulate";

/// The instruction set of a description that is listed, if any.
fn listed(d: &Description) -> Option<&'static str> {
    d.fingerprint.and_then(InstructionSet::of_fingerprint).map(|set| set.name)
}

fn describe(d: &Description, screen: &Screen) -> Result<Outcome, Error> {
    let fingerprint = d.fingerprint.map_or_else(|| "no fingerprint".into(), |f| format!("fingerprint {f:#018x}"));
    screen.say(format!("{}  {fingerprint}", d.name));
    screen.say(format!("  description only: {}", d.missing));
    if let Some(isa) = listed(d) {
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
    Outcome::done(json!({ "description": to_json(d)? }))
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    match &args.name {
        Some(name) => match (shiftwise_targets::find_entry(name), shiftwise_targets::find_board(name)) {
            (Ok(Entry::Description(d)), _) => describe(&d, screen),
            (Ok(Entry::Target(t)), _) => {
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
                    screen.say(format!(
                        "  {:?}: {} banks of {} × {} bytes, {}",
                        g.kind,
                        g.count,
                        g.depth,
                        g.width,
                        bytes(size as u64)
                    ));
                }
                screen.say(format!("  {USES}"));
                Outcome::done(json!({ "target": to_json(&t)? }))
            }
            (Err(_), Ok(b)) => {
                let dpu = b.dpu.as_deref().unwrap_or("none");
                screen.say(format!("{} ({}): {}, DPU {dpu}", b.name, b.title, b.cpu));
                if b.dpu.is_some() {
                    screen.say(format!("  {} cores at {} MHz", b.cores, b.clock_mhz));
                }
                for m in &b.memory {
                    screen.say(format!("  {} {:#x} {}", m.name, m.start, bytes(m.bytes)));
                }
                Outcome::done(json!({ "board": to_json(&b)? }))
            }
            (Err(e), Err(_)) => Err(Error::Target(e.to_string())),
        },
        None => {
            let targets = shiftwise_targets::targets();
            let boards = shiftwise_targets::boards();
            let descriptions = shiftwise_targets::descriptions();
            let row = |name: &str, fingerprint: Option<u64>, uses: String, peak: u32| {
                let fingerprint = fingerprint.map_or_else(String::new, |f| format!("{f:#018x}"));
                vec![name.to_owned(), fingerprint, uses, peak.to_string()]
            };
            let executed =
                targets.iter().map(|t| row(&t.name, Some(t.fingerprint), USES.into(), t.peak_ops_per_cycle()));
            let described = descriptions.iter().map(|d| {
                let uses = format!("description only: {}", d.missing);
                row(&d.name, d.fingerprint, uses, d.parallelism.peak_ops_per_cycle)
            });
            let rows: Vec<Vec<String>> = executed.chain(described).collect();
            screen.table(&["target", "fingerprint", "use", "operations/cycle"], 3, &rows);
            let rows: Vec<Vec<String>> = boards
                .iter()
                .map(|b| {
                    let clock =
                        if b.clock_mhz > 0 { format!("{} × {} MHz", b.cores, b.clock_mhz) } else { String::new() };
                    vec![b.name.clone(), b.cpu.clone(), b.dpu.clone().unwrap_or_else(|| "cpu only".into()), clock]
                })
                .collect();
            screen.say("");
            screen.table(&["board", "processor", "target", "cores"], 3, &rows);
            let names = |t: &shiftwise_core::target::Target| json!({ "name": t.name.as_str(), "fingerprint": format!("{:#018x}", t.fingerprint), "use": USES });
            let described = |d: &Description| {
                let fingerprint = d.fingerprint.map(|f| format!("{f:#018x}"));
                json!({ "name": d.name, "fingerprint": fingerprint, "missing": d.missing, "isa": listed(d) })
            };
            let targets: Vec<_> = targets.iter().map(names).collect();
            let descriptions: Vec<_> = descriptions.iter().map(described).collect();
            Outcome::done(json!({ "targets": targets, "descriptions": descriptions, "boards": to_json(&boards)? }))
        }
    }
}
