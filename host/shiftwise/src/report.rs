//! One page about a network on a target: where its layers run, how long they take, where accuracy goes.
//!
//! The page is a single file that loads nothing, follows the reader's light or dark colours, and prints. Everything on it
//! is in the JSON of the same reports.

use std::fmt::Write as _;

use serde::Serialize;

use serde_json::Value;
use shiftwise_graph::error::Error;

use crate::analyze::Analysis;
use crate::device::Device;
use crate::estimate::{Estimate, Estimated};
use crate::inspect::Inspection;
use crate::text;

mod accuracy;
mod roofline;
mod timeline;
mod times;

pub use roofline::Roof;
pub use timeline::{Lane, Piece};

/// What the page tells.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Report {
    /// The page's file.
    pub output: std::path::PathBuf,
    /// Where layers run.
    pub inspection: Inspection,
    /// How long they take; `None` without a target.
    #[serde(flatten)]
    pub timing: Option<Timing>,
    /// Where accuracy goes; `None` without data.
    pub analysis: Option<Analysis>,
    /// Version, options and inputs that all of it was made of.
    pub provenance: Value,
}

/// What a target makes of the network.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Timing {
    /// What `estimate` reports.
    pub estimate: Estimate,
    /// What bounds the speed of layers.
    pub roof: Roof,
    /// What the engines do when.
    pub timeline: Vec<Lane>,
    /// What lies in the workspace when.
    pub workspace: Vec<Piece>,
}

impl Timing {
    /// Of an estimated network on its device.
    ///
    /// Errors: those of the device's description.
    pub fn of(estimated: &Estimated, device: &Device) -> Result<Self, Error> {
        Ok(Self {
            estimate: estimated.report(device),
            roof: Roof::of(device)?,
            timeline: timeline::lanes(&estimated.times.trace),
            workspace: timeline::pieces(&estimated.program),
        })
    }
}

const STYLE: &str = include_str!("report/page.css");
const SCRIPT: &str = include_str!("report/page.js");

/// A name inside of an element or of an attribute.
fn escaped(name: &str) -> String {
    markup(&text::name(name))
}

/// Text of which nothing is an element.
fn markup(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A cell with what it is sorted by.
fn number(value: f64, shown: &str) -> String {
    format!("<td data-value=\"{value}\">{shown}</td>")
}

fn cell(text: &str) -> String {
    format!("<td>{}</td>", escaped(text))
}

/// A table that the page's script sorts.
fn table(head: &[&str], rows: &[String]) -> String {
    let head: String = head.iter().map(|h| format!("<th>{h}</th>")).collect();
    let rows: String = rows.iter().map(|row| format!("<tr>{row}</tr>\n")).collect();
    format!("<div class=\"wide\"><table><thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table></div>\n")
}

impl Report {
    /// The page.
    pub fn html(&self) -> String {
        let model = escaped(&self.inspection.model);
        let target = self.inspection.target.as_deref().unwrap_or("any DPU");
        let mut out = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width, initial-scale=1\"><link rel=\"icon\" href=\"data:,\">\n<title>{model}</title>\n\
             <style>\n{STYLE}</style></head>\n<body>\n<h1>{model} on {}</h1>\n",
            escaped(target)
        );
        self.summary(&mut out);
        if let Some(timing) = &self.timing {
            times::times(&timing.estimate, &mut out);
        }
        if let Some(analysis) = &self.analysis {
            accuracy::accuracy(analysis, &mut out);
        }
        self.placement(&mut out);
        if let Some(timing) = &self.timing {
            timeline::timeline(&timing.timeline, &mut out);
            roofline::roofline(&timing.estimate, timing.roof, &mut out);
            timeline::memory(&timing.workspace, &mut out);
        }
        self.origin(&mut out);
        let _ = write!(
            out,
            "<p><small>shiftwise {}; times on the CPU are estimates.</small></p>\n<script>\n{SCRIPT}</script>\n</body></html>\n",
            env!("CARGO_PKG_VERSION")
        );
        out
    }

    /// The numbers that matter most.
    fn summary(&self, out: &mut String) {
        let mut facts: Vec<(&str, String)> = Vec::new();
        if let Some(e) = self.timing.as_ref().map(|t| &t.estimate) {
            facts.push(("a frame from end to end", format!("{:.1} µs", e.end_to_end_us)));
            facts.push(("on the DPU", format!("{:.1} µs", e.dpu_latency_us)));
            facts.push(("on the CPU", format!("~{:.0} µs", e.cpu_us)));
            facts.push(("frames per second, one after the other", format!("{:.1}", e.fps_end_to_end)));
            facts.push(("pieces on the DPU", e.subgraphs.to_string()));
            facts.push(("of the array's peak", format!("{:.0} %", 100.0 * e.utilization)));
            facts.push(("multiply-accumulates", text::count(e.macs)));
        }
        let on_cpu = self.inspection.layers.iter().filter(|l| l.device.contains(crate::inspect::CPU)).count();
        facts.push(("layers", self.inspection.layers.len().to_string()));
        facts.push(("layers on the CPU", on_cpu.to_string()));
        for output in self.analysis.iter().flat_map(|a| &a.outputs) {
            facts.push(("signal to noise at an output", decibels(output.sqnr_db)));
        }
        out.push_str("<dl>\n");
        for (name, value) in facts {
            let _ = writeln!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>");
        }
        out.push_str("</dl>\n");
    }

    /// Reasons, and the picture.
    fn placement(&self, out: &mut String) {
        out.push_str("<h2>Where layers run</h2>\n");
        let cpu = self.inspection.layers.iter().filter(|l| l.device.contains(crate::inspect::CPU));
        let row = |l: &crate::inspect::LayerVerdict| {
            let us: f64 = l.fallbacks.iter().map(|f| f.cpu_us).sum();
            let why = markup(&text::clean(&l.notes.join(" ")));
            let price = number(us, &format!("{us:.0}"));
            format!("{}{}{}{price}<td class=\"why\">{why}</td>", cell(&l.layer), cell(&l.class), cell(&l.device))
        };
        let rows: Vec<String> = cpu.map(row).collect();
        match rows.is_empty() {
            true => out.push_str("<p>The DPU does every layer.</p>\n"),
            false => out.push_str(&table(&["layer", "type", "on", "µs", "why"], &rows)),
        }
        let _ = write!(out, "<h2>The network</h2>\n<div class=\"wide tall\">{}</div>\n", self.inspection.svg());
    }

    /// What the page was made of.
    fn origin(&self, out: &mut String) {
        let field = |value: &Value, key: &str| match &value[key] {
            Value::String(text) => markup(&text::clean(text)),
            other => markup(&other.to_string()),
        };
        let row = |input: &Value| {
            let parts = ["role", "path", "bytes", "sha256"].map(|key| format!("<td>{}</td>", field(input, key)));
            parts.concat()
        };
        let rows: Vec<String> = self.provenance["inputs"].as_array().into_iter().flatten().map(row).collect();
        out.push_str("<h2>Made of</h2>\n");
        out.push_str(&table(&["input", "file", "bytes", "SHA-256"], &rows));
        let options = self.provenance["options"].as_object().filter(|o| !o.is_empty());
        if let Some(options) = options {
            let said = |(key, value): (&String, &Value)| format!("{key} = {value}");
            let all: Vec<String> = options.iter().map(said).collect();
            let _ = writeln!(out, "<p><small>{}</small></p>", markup(&text::clean(&all.join("; "))));
        }
    }
}

fn decibels(value: Option<f64>) -> String {
    value.map_or_else(|| "exact".into(), |v| format!("{v:.1} dB"))
}
