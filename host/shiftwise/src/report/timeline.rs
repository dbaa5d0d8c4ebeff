//! What each engine of the DPU does when, and what lies in memory while.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;
use shiftwise_compile::Program;
use shiftwise_core::model::Region;

use super::escaped;
use crate::text;

/// What one engine does.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Lane {
    /// The engine, or `layers`.
    pub engine: String,
    /// When it is busy: first and last microsecond, and the layer; gaps too short to be seen are closed.
    pub spans: Vec<(f64, f64, String)>,
}

/// Tensors that share a piece of the workspace.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Piece {
    /// Their names.
    pub tensors: Vec<String>,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
    /// The first and the last operation that need it.
    pub needed: (usize, usize),
}

/// Gaps below this share of the whole time are closed.
const SEEN: f64 = 1.0 / 2000.0;

/// The lanes of a trace in Chrome's format; none of a text that is no trace.
pub(super) fn lanes(trace: &str) -> Vec<Lane> {
    let trace: Value = serde_json::from_str(trace).unwrap_or_default();
    let events: &[Value] = trace["traceEvents"].as_array().map_or(&[], Vec::as_slice);
    let number = |e: &Value, key: &str| e[key].as_f64().unwrap_or(0.0);
    let mut names: BTreeMap<u64, String> = BTreeMap::new();
    let mut spans: BTreeMap<u64, Vec<(f64, f64, String)>> = BTreeMap::new();
    let total = events.iter().map(|e| number(e, "ts") + number(e, "dur")).fold(0.0, f64::max);
    for e in events {
        let lane = e["tid"].as_u64().unwrap_or(0);
        match (e["ph"].as_str(), e["name"].as_str()) {
            (Some("M"), Some("thread_name")) => {
                names.insert(lane, e["args"]["name"].as_str().unwrap_or("").to_owned());
            }
            (Some("X"), Some(name)) => {
                let layer = e["args"]["layer"].as_str().unwrap_or(name).to_owned();
                let (start, end) = (number(e, "ts"), number(e, "ts") + number(e, "dur"));
                let own = spans.entry(lane).or_default();
                match own.last_mut().filter(|last| last.2 == layer && start - last.1 < total * SEEN) {
                    Some(last) => last.1 = last.1.max(end),
                    None => own.push((start, end, layer)),
                }
            }
            _ => {}
        }
    }
    // The second row of an engine has the same name; both are one lane here.
    let mut all: Vec<Lane> = Vec::new();
    for (id, engine) in names {
        let own = spans.remove(&id).unwrap_or_default();
        match all.iter_mut().find(|lane| lane.engine == engine) {
            Some(lane) => lane.spans.extend(own),
            None => all.push(Lane { engine, spans: own }),
        }
    }
    all.retain(|lane| !lane.spans.is_empty());
    all
}

/// The pieces of a program's workspace.
pub(super) fn pieces(program: &Program) -> Vec<Piece> {
    let own = program.buffers.iter().filter(|b| b.place.region == Region::Workspace);
    let piece = |b: &shiftwise_compile::program::Buffer| {
        let (tensors, offset) = (b.tensors.clone(), u64::from(b.place.offset));
        b.ops.map(|needed| Piece { tensors, offset, bytes: b.bytes, needed })
    };
    own.filter_map(piece).collect()
}

const WIDTH: f64 = 1000.0;
const LABEL: f64 = 70.0;
const ROW: f64 = 22.0;

/// Lanes over time.
pub(super) fn timeline(lanes: &[Lane], out: &mut String) {
    let total = lanes.iter().flat_map(|l| &l.spans).map(|s| s.1).fold(0.0, f64::max);
    if total <= 0.0 {
        return;
    }
    let height = ROW * (lanes.len() as f64 + 1.0);
    let at = |us: f64| LABEL + us / total * (WIDTH - LABEL - 10.0);
    let _ = writeln!(
        out,
        "<h2>Timeline of the DPU</h2>\n<div class=\"wide\"><svg class=\"fit\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"timeline\">"
    );
    for (i, lane) in lanes.iter().enumerate() {
        let y = ROW * i as f64 + 3.0;
        let _ = writeln!(out, "<text x=\"6\" y=\"{:.0}\">{}</text>", y + 12.0, escaped(&lane.engine));
        for (n, (start, end, layer)) in lane.spans.iter().enumerate() {
            // Layers beside each other are told apart.
            let shade = if n % 2 == 0 { 0.9 } else { 0.55 };
            let width = (at(*end) - at(*start)).max(0.5);
            let _ = writeln!(
                out,
                "<rect class=\"bar\" fill-opacity=\"{shade}\" x=\"{:.1}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"16\">\
                 <title>{}: {start:.1} to {end:.1} µs</title></rect>",
                at(*start),
                escaped(layer)
            );
        }
    }
    for i in 0..=5 {
        let us = total * f64::from(i) / 5.0;
        let (x, y) = (at(us), height - 6.0);
        let anchor = if i == 5 { "end" } else { "middle" };
        let _ = writeln!(out, "<text x=\"{x:.0}\" y=\"{y:.0}\" text-anchor=\"{anchor}\">{us:.0} µs</text>");
    }
    out.push_str("</svg></div>\n");
}

/// Addresses of the workspace over operations.
pub(super) fn memory(pieces: &[Piece], out: &mut String) {
    let bytes = pieces.iter().map(|p| p.offset + p.bytes).max().unwrap_or(0);
    let last = pieces.iter().map(|p| p.needed.1).max().unwrap_or(0);
    if bytes == 0 {
        return;
    }
    let height = 240.0;
    let x = |op: usize| LABEL + op as f64 / (last + 1) as f64 * (WIDTH - LABEL - 10.0);
    let y = |byte: u64| height - 24.0 - byte as f64 / bytes as f64 * (height - 36.0);
    let _ = writeln!(
        out,
        "<h2>Workspace</h2>\n<div class=\"wide\"><svg class=\"fit\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"memory map\">\n<text x=\"6\" y=\"{:.0}\">{}</text><text x=\"6\" y=\"{:.0}\">0</text>",
        y(bytes) + 10.0,
        text::bytes(bytes),
        y(0)
    );
    for p in pieces {
        let (left, right, top) = (x(p.needed.0), x(p.needed.1 + 1), y(p.offset + p.bytes));
        let _ = writeln!(
            out,
            "<rect class=\"bar\" fill-opacity=\"0.55\" stroke=\"currentColor\" stroke-width=\"0.6\" x=\"{left:.1}\" \
             y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{}: {} at {}</title></rect>",
            right - left,
            y(p.offset) - top,
            escaped(&text::list(&p.tensors)),
            text::bytes(p.bytes),
            p.offset
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">operations of the network, from the first to the last</text>\
         </svg></div>",
        WIDTH / 2.0,
        height - 6.0
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_one_layer_are_joined_across_gaps_that_nobody_sees() {
        let event = |tid: u32, layer: &str, ts: f64, dur: f64| serde_json::json!({ "ph": "X", "name": "CONV", "tid": tid, "ts": ts, "dur": dur, "args": { "layer": layer } });
        let name = |tid: u32, name: &str| serde_json::json!({ "ph": "M", "name": "thread_name", "tid": tid, "args": { "name": name } });
        let events = [
            name(0, "LOAD"),
            name(1, "CONV"),
            name(5, "LOAD"),
            event(0, "a", 0.0, 10.0),
            event(0, "a", 10.01, 9.99),
            event(0, "a", 50.0, 10.0),
            event(0, "b", 60.0, 40.0),
            event(5, "a", 5.0, 1.0),
        ];
        let lanes = lanes(&serde_json::json!({ "traceEvents": events }).to_string());
        let [load] = &lanes[..] else { panic!("{lanes:?}") };
        let shown: Vec<_> = load.spans.iter().map(|(a, b, l)| (*a, *b, l.as_str())).collect();
        assert_eq!(shown, [(0.0, 20.0, "a"), (50.0, 60.0, "a"), (60.0, 100.0, "b"), (5.0, 6.0, "a")]);
        assert!(super::lanes("no trace").is_empty());
    }
}
