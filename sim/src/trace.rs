//! Events for a timeline viewer: the Chrome trace format, which Perfetto reads too.

use serde::Serialize;
use shiftwise_core::isa::Engine;
use shiftwise_core::model::LayerSpan;

use crate::JobRun;
use crate::report::runs;

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    ph: &'static str,
    /// Microseconds.
    ts: f64,
    dur: f64,
    pid: u32,
    tid: u32,
    args: Args<'a>,
}

#[derive(Serialize)]
struct Args<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_cycle: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cycles: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

const NO_ARGS: Args<'static> =
    Args { name: None, index: None, layer: None, start_cycle: None, cycles: None, bytes: None };

#[derive(Serialize)]
struct Trace<'a> {
    #[serde(rename = "displayTimeUnit")]
    unit: &'static str,
    #[serde(rename = "traceEvents")]
    events: Vec<Row<'a>>,
}

/// One row per engine, and one for layers.
const ROWS: usize = Engine::ALL.len() + 1;

/// The jobs one after the other; one row of the viewer per engine, and one for layers.
pub(crate) fn chrome<'m>(
    clock_mhz: u32,
    jobs: &[JobRun],
    spans: impl Fn(usize, &JobRun) -> Vec<LayerSpan<'m>>,
) -> String {
    let layers: Vec<_> = jobs.iter().enumerate().map(|(number, job)| runs(spans(number, job))).collect();
    let time = |cycle: u64| cycle as f64 / f64::from(clock_mhz.max(1));
    let metadata = |name, tid, value| Row {
        name,
        ph: "M",
        ts: 0.0,
        dur: 0.0,
        pid: 0,
        tid,
        args: Args { name: Some(value), ..NO_ARGS },
    };
    let rows = || Engine::ALL.iter().map(|e| e.name()).chain(["layers"]);
    let mut events: Vec<Row<'_>> = vec![metadata("process_name", 0, "DPU")];
    events.extend((0u32..).zip(rows()).map(|(tid, name)| metadata("thread_name", tid, name)));
    // Slices of one row must not overlap. Transfers do, and layers that begin before the last one ends: each engine has a
    // second row for those, and what does not fit there either is shown from when the earlier one ends.
    let mut lanes = [[0u64; 2]; ROWS];
    let mut second = [false; ROWS];
    let mut slot = |row: usize, start: u64, end: u64| -> (u32, u64) {
        let [a, b] = lanes[row];
        let lane = usize::from(a > start && b < a);
        second[row] |= lane == 1;
        let start = start.max(lanes[row][lane]).min(end);
        lanes[row][lane] = end;
        ((row + lane * ROWS) as u32, start)
    };
    let mut origin = 0;
    for (job, layers) in jobs.iter().zip(&layers) {
        for e in &job.events {
            let layer = layers.iter().find(|(l, _)| e.index.wrapping_sub(l.first) < l.count).map(|(_, n)| n.as_str());
            let (tid, start) = slot(e.kind.engine() as usize, origin + e.start, origin + e.end);
            events.push(Row {
                name: e.kind.mnemonic(),
                ph: "X",
                ts: time(start),
                dur: time(origin + e.end - start),
                pid: 0,
                tid,
                args: Args {
                    index: Some(e.index),
                    layer,
                    start_cycle: Some(origin + e.start),
                    cycles: Some(e.end - e.start),
                    bytes: Some(e.bytes_in + e.bytes_out).filter(|b| *b > 0),
                    ..NO_ARGS
                },
            });
        }
        for (layer, name) in layers {
            let own = crate::report::span(&job.events, layer);
            if let (Some(start), Some(end)) = (own.iter().map(|e| e.start).min(), own.iter().map(|e| e.end).max()) {
                let (cycles, start_cycle) = (Some(end - start), Some(origin + start));
                let (tid, start) = slot(ROWS - 1, origin + start, origin + end);
                events.push(Row {
                    name,
                    ph: "X",
                    ts: time(start),
                    dur: time(origin + end - start),
                    pid: 0,
                    tid,
                    args: Args { cycles, start_cycle, ..NO_ARGS },
                });
            }
        }
        origin += job.cycles;
    }
    let more = rows().enumerate().filter(|(row, _)| second[*row]);
    events.extend(more.map(|(row, name)| metadata("thread_name", (row + ROWS) as u32, name)));
    // Plain data with string keys: serialising cannot fail.
    serde_json::to_string(&Trace { unit: "ns", events }).unwrap_or_default()
}
