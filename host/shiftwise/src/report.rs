//! One page about a network on a target: where its layers run, how long they take, where accuracy goes.
//!
//! The page is a single file that loads nothing, follows the reader's light or dark colours, and prints. Everything on it
//! is in the JSON of the same reports.

use std::fmt::Write as _;

use serde::Serialize;

use crate::analyze::{Analysis, LayerAnalysis};
use crate::estimate::{Estimate, LayerTime};
use crate::inspect::Inspection;
use crate::text;

/// What the page tells.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Report {
    /// The page's file.
    pub output: std::path::PathBuf,
    /// Where layers run.
    pub inspection: Inspection,
    /// How long they take; `None` without a target.
    pub estimate: Option<Estimate>,
    /// Where accuracy goes; `None` without data.
    pub analysis: Option<Analysis>,
}

const STYLE: &str = include_str!("report/page.css");
const SCRIPT: &str = include_str!("report/page.js");

/// Text inside of an element or of an attribute.
fn escaped(name: &str) -> String {
    text::name(name).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
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
        if let Some(estimate) = &self.estimate {
            times(estimate, &mut out);
        }
        self.placement(&mut out);
        if let Some(analysis) = &self.analysis {
            accuracy(analysis, &mut out);
        }
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
        if let Some(e) = &self.estimate {
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
            let why = escaped(&l.notes.join(" "));
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
}

fn decibels(value: Option<f64>) -> String {
    value.map_or_else(|| "exact".into(), |v| format!("{v:.1} dB"))
}

/// Time by layer, and the roofline.
fn times(estimate: &Estimate, out: &mut String) {
    let us = |l: &LayerTime| l.dpu.as_ref().map_or(0.0, |d| d.cycles as f64 / f64::from(estimate.clock_mhz.max(1)));
    let total: f64 = estimate.layers.iter().map(|l| us(l) + l.cpu_us.unwrap_or(0.0)).sum();
    let row = |(i, l): (usize, &LayerTime)| {
        let own = us(l) + l.cpu_us.unwrap_or(0.0);
        let share = if total > 0.0 { 100.0 * own / total } else { 0.0 };
        let width = share.max(0.0) * 0.6;
        let bar = format!(
            "<td data-value=\"{share}\">{share:.1} % <svg width=\"60\" height=\"9\" aria-hidden=\"true\"><rect class=\"bar\" \
             width=\"{width:.1}\" height=\"9\"/></svg></td>"
        );
        let on = if l.cpu_us.is_some() { "<td class=\"cpu\">CPU</td>" } else { "<td>DPU</td>" };
        let rest = l.dpu.as_ref().map_or_else(
            || "<td></td><td></td><td></td><td></td>".to_owned(),
            |d| {
                format!(
                    "{}{}{}{}",
                    number(d.cycles as f64, &text::count(d.cycles)),
                    number(d.bytes as f64, &text::bytes(d.bytes)),
                    cell(d.bound.name()),
                    number(d.utilization, &format!("{:.0} %", 100.0 * d.utilization))
                )
            },
        );
        let name = if l.layer.is_empty() { &l.op } else { &l.layer };
        let macs = number(l.macs as f64, &text::count(l.macs));
        format!(
            "{}{}{on}{bar}{}{macs}{rest}",
            cell(name),
            number(i as f64, &(i + 1).to_string()),
            number(own, &format!("{own:.1}"))
        )
    };
    let rows: Vec<String> = estimate.layers.iter().enumerate().map(row).collect();
    out.push_str("<h2>Time by layer</h2>\n");
    out.push_str(&table(&["layer", "#", "on", "share", "µs", "MACs", "cycles", "bytes", "bound", "of peak"], &rows));
    roofline(estimate, out);
}

/// Multiply-accumulates in a cycle over those for a byte, both logarithmic: layers to the left wait for memory.
fn roofline(estimate: &Estimate, out: &mut String) {
    let point = |l: &LayerTime| {
        let d = l.dpu.as_ref().filter(|d| d.cycles > 0 && d.bytes > 0 && l.macs > 0)?;
        Some((l.macs as f64 / d.bytes as f64, l.macs as f64 / d.cycles as f64, d.cycles, l.layer.clone()))
    };
    let points: Vec<(f64, f64, u64, String)> = estimate.layers.iter().filter_map(point).collect();
    let (width, height, margin) = (640.0, 260.0, 42.0);
    let span = |values: Vec<f64>| {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min).log2().floor();
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max).log2().ceil();
        if low < high { (low, high) } else { (low - 1.0, low + 1.0) }
    };
    if points.is_empty() {
        return;
    }
    let (x, y) = (span(points.iter().map(|p| p.0).collect()), span(points.iter().map(|p| p.1).collect()));
    let most = points.iter().map(|p| p.2).max().unwrap_or(1) as f64;
    let _ = write!(
        out,
        "<h2>Work for a byte, work in a cycle</h2>\n<div class=\"wide\"><svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         role=\"img\" aria-label=\"roofline\">\n<path class=\"axis\" d=\"M{margin},10 V{} H{}\"/>\n",
        height - margin,
        width - 10.0
    );
    for (intensity, speed, cycles, layer) in points {
        let cx = margin + (intensity.log2() - x.0) / (x.1 - x.0) * (width - margin - 20.0);
        let cy = height - margin - (speed.log2() - y.0) / (y.1 - y.0) * (height - margin - 20.0);
        let r = 3.0 + 9.0 * (cycles as f64 / most).sqrt();
        let _ = writeln!(
            out,
            "<circle class=\"bar\" fill-opacity=\"0.6\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"{r:.1}\"><title>{}: {intensity:.1} MACs a \
             byte, {speed:.1} a cycle</title></circle>",
            escaped(&layer)
        );
    }
    let ticks = |(low, high): (f64, f64)| [low, (low + high) / 2.0, high];
    for t in ticks(x) {
        let at = margin + (t - x.0) / (x.1 - x.0) * (width - margin - 20.0);
        let _ = writeln!(
            out,
            "<text x=\"{at:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{:.3}</text>",
            height - 26.0,
            t.exp2()
        );
    }
    for t in ticks(y) {
        let at = height - margin - (t - y.0) / (y.1 - y.0) * (height - margin - 20.0);
        let _ =
            writeln!(out, "<text x=\"{:.0}\" y=\"{at:.0}\" text-anchor=\"end\">{:.0}</text>", margin - 5.0, t.exp2());
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">MACs for a byte of memory (circles: cycles)</text></svg></div>",
        width / 2.0,
        height - 8.0
    );
}

/// Noise by layer, with histograms.
fn accuracy(analysis: &Analysis, out: &mut String) {
    let row = |(i, l): (usize, &LayerAnalysis)| {
        let db = |v: Option<f64>| number(v.unwrap_or(1e9), &decibels(v));
        let why = l.causes.first().map_or_else(String::new, |c| {
            let remedy = c.remedy.as_ref().map_or_else(String::new, |r| format!("; {r}"));
            let gain = c.gain_db.map_or_else(String::new, |g| format!(": {g:+.1} dB"));
            format!("{}{remedy}{gain}", c.cause)
        });
        format!(
            "{}{}{}{}{}<td>{}</td><td class=\"why\">{}</td>",
            cell(&l.layer),
            number(i as f64, &(i + 1).to_string()),
            db(l.alone_sqnr_db),
            db(l.sqnr_db),
            number(l.saturated, &format!("{:.2} %", 100.0 * l.saturated)),
            histogram(&l.histogram),
            escaped(&why)
        )
    };
    let rows: Vec<String> = analysis.layers.iter().enumerate().map(row).collect();
    let _ = writeln!(out, "<h2>Accuracy, on {} samples</h2>", analysis.samples);
    out.push_str(&table(&["layer", "#", "alone", "up to here", "clipped", "values over the range", "why"], &rows));
}

/// Bars in a cell; logarithmic, so that tails are seen.
fn histogram(bars: &[u64]) -> String {
    let most = bars.iter().copied().max().unwrap_or(0);
    if most == 0 {
        return String::new();
    }
    let scale = (most as f64 + 1.0).ln();
    let bar = |(i, n): (usize, &u64)| {
        let height = 18.0 * (*n as f64 + 1.0).ln() / scale;
        format!("<rect class=\"bar\" x=\"{}\" y=\"{:.1}\" width=\"3\" height=\"{height:.1}\"/>", 4 * i, 18.0 - height)
    };
    let all: String = bars.iter().enumerate().map(bar).collect();
    format!("<svg width=\"{}\" height=\"18\" aria-hidden=\"true\">{all}</svg>", 4 * bars.len())
}
