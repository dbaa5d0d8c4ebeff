//! Layers with their times and memory, as `compile` and `estimate` print them.

use shiftwise::device::Device;
use shiftwise::estimate::{Times, cycles_of};
use shiftwise_compile::{Engine, Program};
use shiftwise_sim::CycleReport;

use crate::screen::{Screen, bytes, count};

/// Layers with their cycles, bytes and bounds.
pub(crate) fn table(program: &Program, report: &CycleReport, screen: &Screen) {
    let header =
        ["layer", "op", "on", "bound", "MACs", "cycles", "peak", "weights", "maps in", "maps out", "instructions"];
    let rows: Vec<Vec<String>> = program
        .layers
        .iter()
        .filter(|l| l.engine != Engine::View)
        .map(|l| {
            let on = match l.engine {
                Engine::Conv => "CONV",
                Engine::Misc => "MISC",
                Engine::Cpu => "CPU",
                Engine::View => "",
            };
            let mut row = vec![l.layer.clone(), l.op.clone(), on.into()];
            match (cycles_of(l, report), l.cpu_us) {
                (Some(c), _) => row.extend([
                    c.bound.name().into(),
                    count(l.macs),
                    count(c.cycles),
                    format!("{:.0} %", 100.0 * c.utilization),
                    bytes(c.bytes_constants),
                    bytes(c.bytes_in - c.bytes_constants),
                    bytes(c.bytes_out),
                    c.instructions.to_string(),
                ]),
                (None, us) => row.extend([
                    String::new(),
                    count(l.macs),
                    us.map_or_else(|| "-".into(), |us| format!("~{us:.0} µs")),
                    "-".into(),
                    bytes(l.constant_bytes),
                    "-".into(),
                    "-".into(),
                    "-".into(),
                ]),
            }
            row
        })
        .collect();
    screen.table(&header, 4, &rows);
}

/// Why layers are on the CPU and what that costs.
pub(crate) fn fallbacks(program: &Program, screen: &Screen) {
    let mut any = false;
    for l in &program.layers {
        if let (Some(why), Some(us)) = (&l.reason, l.cpu_us) {
            if !any {
                screen.say("");
            }
            any = true;
            // What belongs to no layer of the user's is called by its op.
            let name = if l.layer.is_empty() { &l.op } else { &l.layer };
            screen.say(format!("on the CPU, about {us:.0} µs: {name}: {why}"));
        }
    }
}

/// The memory map in words.
pub(crate) fn memory(program: &Program) -> String {
    let m = &program.memory;
    format!(
        "RAM {}: workspace {}, inputs {}, outputs {}; constants {}, code {}",
        bytes(m.ram_bytes()),
        bytes(m.workspace_bytes.into()),
        bytes(m.input_bytes.into()),
        bytes(m.output_bytes.into()),
        bytes(program.constants.len() as u64),
        bytes(program.code.len() as u64),
    )
}

/// Cycles and frames per second in words.
pub(crate) fn say(program: &Program, times: &Times, device: &Device, screen: &Screen) {
    let r = &times.report;
    let cpu: f64 = program.layers.iter().filter_map(|l| l.cpu_us).sum();
    let whole = r.latency_us + cpu;
    if cpu > 0.0 && whole > 0.0 {
        screen.say(format!(
            "a frame takes {whole:.1} µs from end to end, {:.1} on the DPU and about {cpu:.0} on the CPU: {:.1} frames per \
             second one after the other, {:.1} with both at work",
            r.latency_us,
            1e6 / whole,
            times.speed.fps_one_core_busy.min(1e6 / cpu)
        ));
    }
    screen.say(format!(
        "{} cycles, {:.1} µs at {} MHz, {:.0} % of the array's peak; {} loaded, {} saved",
        count(r.cycles),
        r.latency_us,
        r.clock_mhz,
        100.0 * r.utilization,
        bytes(r.bytes_in),
        bytes(r.bytes_out),
    ));
    let e = &r.engines;
    let busy = [("load", e.load), ("save", e.save), ("conv", e.conv), ("misc", e.misc)];
    let share = |cycles: u64| 100.0 * cycles as f64 / r.cycles.max(1) as f64;
    let busy: Vec<String> = busy.iter().map(|(name, c)| format!("{name} {:.0} %", share(*c))).collect();
    screen.say(format!("engines busy: {}", busy.join(", ")));
    let cores = match device.cores {
        1 => String::new(),
        n => format!(", {:.1} on {n} cores that share the memory", times.speed.fps_all_cores),
    };
    screen.say(format!("DPU alone: {:.1} frames per second on one busy core{cores}", times.speed.fps_one_core_busy));
    screen.say(match times.speed.error_band_percent {
        Some(band) => format!("cycle model: 9 of 10 networks it was not fitted to were within {band:.0} %"),
        None => "cycle model: no measurement calibrates it for this DPU".into(),
    });
}
