//! `shiftwise targets`.

use serde_json::json;
use shiftwise::Error;

use super::Outcome;
use super::screen::{Screen, bytes};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A target's name, fingerprint or arch.json, or a board's name
    name: Option<String>,
}

/// The target of a name, fingerprint or `arch.json`.
pub(super) fn find(name: &str) -> Result<shiftwise_core::target::Target, Error> {
    shiftwise_targets::find(name).map_err(|e| Error::Target(e.to_string()))
}

pub(super) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    match &args.name {
        Some(name) => match (find(name), shiftwise_targets::find_board(name)) {
            (Ok(t), _) => {
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
            (Err(e), Err(_)) => Err(e),
        },
        None => {
            let targets = shiftwise_targets::targets();
            let boards = shiftwise_targets::boards();
            let rows: Vec<Vec<String>> = targets
                .iter()
                .map(|t| {
                    vec![t.name.to_string(), format!("{:#018x}", t.fingerprint), t.peak_ops_per_cycle().to_string()]
                })
                .collect();
            screen.table(&["target", "fingerprint", "operations/cycle"], 2, &rows);
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
            let names = |t: &shiftwise_core::target::Target| json!({ "name": t.name.as_str(), "fingerprint": format!("{:#018x}", t.fingerprint) });
            let targets: Vec<_> = targets.iter().map(names).collect();
            Outcome::done(json!({ "targets": targets, "boards": to_json(&boards)? }))
        }
    }
}

fn to_json(value: &impl serde::Serialize) -> Result<serde_json::Value, Error> {
    serde_json::to_value(value).map_err(|e| Error::Run(e.to_string()))
}
