//! The memory report of `shiftwise compile --target cpu`: who lives when, and whether a board has enough.

use shiftwise::build::OnCpu;
use shiftwise::estimate::CpuTime;
use shiftwise_compile::{Engine, Program};
use shiftwise_targets::Board;

use crate::screen::{Screen, bytes, count};

/// Layers with what they compute, the memory in use while they run, and where their result lies until when.
pub(crate) fn table(program: &Program, layers: &OnCpu, screen: &Screen) {
    let memory = &layers.memory;
    let known = layers.instructions.iter().any(Option::is_some);
    let peak = layers.peak().map_or(0, |m| m.bytes);
    let place = |output: &str| {
        let buffer = program.buffers.iter().find(|b| b.tensors.iter().any(|t| t == output))?;
        let last = buffer.ops.and_then(|(_, last)| program.layers.get(last))?;
        let (start, end) = (u64::from(buffer.place.offset), u64::from(buffer.place.offset) + buffer.bytes);
        Some((format!("{start}..{end}"), last.layer.clone()))
    };
    let rows: Vec<Vec<String>> = program
        .layers
        .iter()
        .zip(memory)
        .enumerate()
        .filter(|(_, (l, _))| l.engine != Engine::View)
        .map(|(index, (l, m))| {
            let (result, until) = place(&l.output).unwrap_or_default();
            let mark = if m.bytes == peak { " (peak)" } else { "" };
            let used = format!("{}{mark}", count(m.bytes));
            let mut row = vec![l.layer.clone(), l.op.clone(), count(l.macs)];
            if known {
                row.push(layers.instructions.get(index).copied().flatten().map_or_else(|| "-".into(), count));
            }
            row.extend([bytes(l.constant_bytes), used, result, until]);
            row
        })
        .collect();
    let mut header = vec!["layer", "op", "MACs"];
    header.extend(known.then_some("instructions"));
    header.extend(["weights", "RAM in use", "result at", "needed until"]);
    screen.table(&header, 2, &rows);
}

/// The peak, the time at a clock (the board's own if none is given), and the board's memory.
pub(crate) fn say(layers: &OnCpu, board: Option<&Board>, clock_mhz: Option<u32>, screen: &Screen) {
    if let Some(peak) = layers.peak() {
        screen.say(format!("most RAM in use: {} in layer {}", bytes(peak.bytes), peak.layer));
    }
    if let Some(instructions) = layers.instructions() {
        let rest = layers.instructions.iter().filter(|n| n.is_none()).count();
        let rest = if rest > 0 { format!(", {rest} layers not measured") } else { String::new() };
        screen.say(format!("about {} instructions{rest}", count(instructions)));
        if let Some(t) = board.and_then(|board| CpuTime::of(instructions, board, clock_mhz)) {
            screen.say(format!(
                "about {:.1} ms a frame, {:.1} frames a second at {} MHz, ± {} % (INF: {} cycles an instruction)",
                t.latency_ms, t.fps, t.clock_mhz, t.error_band_percent, t.cycles_per_instruction
            ));
        }
    } else if let Some(board) = board {
        screen.say(format!("no instructions were counted for these layers on {}: no time is told", board.cpu));
    }
    match (board, &layers.footprint) {
        (Some(board), Some(footprint)) => {
            for n in &footprint.needs {
                let verdict = if n.needed <= n.given { "" } else { ": too little" };
                screen.say(format!("  {}: {} of {}{verdict}", n.name, bytes(n.needed), bytes(n.given)));
            }
            let features = match footprint.features.as_slice() {
                [] => "none".to_string(),
                features => features.join(", "),
            };
            screen.say(format!("  layer features that an image of your own needs of shiftwise-firmware: {features}"));
            let verdict = if footprint.fits() { "fits" } else { "does NOT fit" };
            screen.say(format!(
                "{verdict} {}: {} of flash, {} of RAM",
                board.name,
                bytes(footprint.flash),
                bytes(footprint.ram)
            ));
        }
        (Some(board), None) => screen.say(format!(
            "there is no firmware for {}, and its processor is not described: no report of its memory",
            board.name
        )),
        (None, _) => {}
    }
}
