//! Noise by layer, with histograms.

use std::fmt::Write as _;

use super::{cell, decibels, escaped, number, table};
use crate::analyze::answers::{Answers, Labelled};
use crate::analyze::{Analysis, Gain, LayerAnalysis};

/// Classes at most of which the page has the whole confusion matrix.
const MATRIX: usize = 40;

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
            "{}{}{}{}{}{}<td>{}</td><td class=\"why\">{}</td>",
            cell(&l.layer),
            number(i as f64, &(i + 1).to_string()),
            db(l.alone_sqnr_db),
            l.at_outputs_db.map_or_else(|| cell(""), |at| number(at, &decibels(Some(at)))),
            db(l.sqnr_db),
            number(l.saturated, &format!("{:.2} %", 100.0 * l.saturated)),
            histogram(&l.histogram),
            escaped(&why)
        )
    };
    let rows: Vec<String> = analysis.layers.iter().enumerate().map(row).collect();
    let _ = writeln!(out, "<h2>Accuracy, on {} samples</h2>", analysis.samples);
    out.push_str(&table(
        &["layer", "#", "alone", "at the outputs", "up to here", "clipped", "values over the range", "why"],
        &rows,
    ));
    if !analysis.remedies.is_empty() {
        let rows: Vec<String> = analysis.remedies.iter().map(remedy).collect();
        out.push_str("<h2>What helps</h2>\n");
        out.push_str(&table(&["remedy", "at the outputs", "layer", "the layer on"], &rows));
    }
    if let Some(own) = &analysis.answers {
        answers(own, out);
    }
}

fn remedy(gain: &Gain) -> String {
    let layer = gain.layer.as_deref().unwrap_or("all");
    let decibels = number(gain.gain_db, &format!("{:+.1} dB", gain.gain_db));
    format!("{}{decibels}{}{}", cell(&gain.what), cell(layer), cell(if gain.on_dpu { "DPU" } else { "CPU" }))
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// What becomes of the answers.
fn answers(own: &Answers, out: &mut String) {
    let _ = writeln!(out, "<h2>Answers, on {} samples</h2>\n<dl>", own.samples);
    let mut facts = vec![
        ("agree with the float network", percent(own.agreement)),
        ("divergence (KL), nats", format!("{:.4}", own.kl)),
    ];
    if let Some(labelled) = &own.labelled {
        facts.push(("right in floats", percent(labelled.float_top1)));
        facts.push(("right quantized", percent(labelled.quantized_top1)));
    }
    for (name, value) in facts {
        let _ = writeln!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    out.push_str("</dl>\n");
    if !own.changes.is_empty() {
        let row = |c: &crate::analyze::answers::Change| {
            let label = c.label.map_or_else(String::new, |label| label.to_string());
            let cells = [label, c.float.to_string(), c.quantized.to_string()].map(|text| cell(&text));
            format!("{}{}", cells.concat(), number(c.samples as f64, &c.samples.to_string()))
        };
        let rows: Vec<String> = own.changes.iter().map(row).collect();
        out.push_str("<h2>Answers that change</h2>\n");
        out.push_str(&table(&["label", "in floats", "quantized", "samples"], &rows));
    }
    if let Some(labelled) = own.labelled.as_ref().filter(|l| (1..=MATRIX).contains(&l.confusion.len())) {
        confusion(labelled, out);
    }
}

/// Labels downwards, answers to the right; darker where more samples are.
fn confusion(labelled: &Labelled, out: &mut String) {
    out.push_str("<h2>Labels and answers of the quantized network</h2>\n");
    let row = |(label, answers): (usize, &Vec<usize>)| {
        let all = answers.iter().sum::<usize>().max(1);
        let shade = |(answer, n): (usize, &usize)| {
            let colour = if answer == label { "var(--bar)" } else { "var(--bad)" };
            let part = 70 * n / all + usize::from(*n > 0) * 8;
            let shown = if *n > 0 { n.to_string() } else { String::new() };
            format!(
                "<td data-value=\"{n}\" style=\"background: color-mix(in srgb, {colour} {part}%, transparent)\">{shown}</td>"
            )
        };
        let cells: String = answers.iter().enumerate().map(shade).collect();
        format!("{}{cells}", number(label as f64, &label.to_string()))
    };
    let rows: Vec<String> = labelled.confusion.iter().enumerate().map(row).collect();
    let names: Vec<String> = (0..labelled.confusion.len()).map(|n| n.to_string()).collect();
    let head: Vec<&str> = std::iter::once("label").chain(names.iter().map(String::as_str)).collect();
    out.push_str(&table(&head, &rows));
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
