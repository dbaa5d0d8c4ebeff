//! Noise by layer, with histograms.

use std::fmt::Write as _;

use super::{cell, decibels, escaped, number, table};
use crate::analyze::{Analysis, LayerAnalysis};

/// A row for each quantized layer.
pub(super) fn accuracy(analysis: &Analysis, out: &mut String) {
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
