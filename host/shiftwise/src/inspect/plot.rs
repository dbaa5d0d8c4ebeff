//! An inspection as a picture: a graph in SVG, with hints as text and as tooltips.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::layout::{Layout, Size, lay_out};
use super::text;
use super::verdict::{CPU, Inspection, LayerVerdict};

/// Height of a line of text, and blanks around the text of a box.
const LINE: f64 = 16.0;
const INSET: f64 = 8.0;
/// Width of a character, estimated from above for sans-serif letters of 12 points.
const CHARACTER: f64 = 7.2;
const BOLD: f64 = 8.0;
const ROW_GAP: f64 = 26.0;
const MARGIN: f64 = 20.0;
/// Space above the drawing for its title and legend.
const HEAD: f64 = 58.0;
/// Characters of a hint's line, and lines of a hint; the tooltip has all of it.
const HINT: usize = 46;
const HINT_LINES: usize = 3;

const DPU_FILL: &str = "lightskyblue";
const CPU_FILL: &str = "firebrick";
const MIXED_FILL: &str = "orange";

/// The lines of a layer's box.
fn lines(layer: &LayerVerdict) -> Vec<String> {
    let act = layer.activation.as_deref().filter(|a| *a != "linear");
    let kind = act.map_or_else(|| layer.class.clone(), |act| format!("{} · {act}", layer.class));
    let mut lines = vec![layer.layer.clone(), format!("{kind} · {}", layer.device)];
    if layer.device.contains(CPU) {
        let us: f64 = layer.fallbacks.iter().map(|f| f.cpu_us).sum();
        // The reason itself; the vendor's sentence around it is in the tooltip.
        match (layer.fallbacks.first(), layer.notes.first()) {
            (Some(fallback), _) => lines.extend(hint(&format!("{} (~{us:.0} µs)", fallback.reason))),
            (None, Some(note)) => lines.extend(hint(note)),
            (None, None) => {}
        }
    }
    lines
}

/// A note in a few short lines.
fn hint(note: &str) -> Vec<String> {
    let mut lines = text::wrap(note, HINT);
    if lines.len() > HINT_LINES {
        lines.truncate(HINT_LINES);
        if let Some(last) = lines.last_mut() {
            last.push('…');
        }
    }
    lines
}

fn escaped(text: &str) -> String {
    let text = crate::text::name(text);
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Colours of a box and of its text.
fn colours(device: &str) -> (&'static str, &'static str) {
    match device {
        CPU => (CPU_FILL, "white"),
        device if device.contains(CPU) => (MIXED_FILL, "black"),
        _ => (DPU_FILL, "black"),
    }
}

/// An edge as a path: straight through the rows that it passes, curved between rows.
fn path(corners: &[(f64, f64)]) -> String {
    let mut d = String::new();
    for (i, (x, y)) in corners.iter().enumerate() {
        let _ = match i.checked_sub(1).map(|before| corners[before]) {
            None => write!(d, "M{x:.1},{y:.1}"),
            Some((from, _)) if (from - x).abs() < 0.5 => write!(d, " L{x:.1},{y:.1}"),
            Some((from, top)) => {
                let middle = (top + y) / 2.0;
                write!(d, " C{from:.1},{middle:.1} {x:.1},{middle:.1} {x:.1},{y:.1}")
            }
        };
    }
    d
}

/// The picture.
pub(super) fn svg(inspection: &Inspection) -> String {
    let layers = &inspection.layers;
    let boxes: Vec<Vec<String>> = layers.iter().map(lines).collect();
    let size = |lines: &Vec<String>| Size {
        // The first line is bold, which is wider.
        width: lines
            .iter()
            .enumerate()
            .map(|(i, l)| l.chars().count() as f64 * if i == 0 { BOLD } else { CHARACTER })
            .fold(0.0, f64::max)
            + 2.0 * INSET,
        height: lines.len() as f64 * LINE + 2.0 * INSET,
    };
    let sizes: Vec<Size> = boxes.iter().map(size).collect();
    let places: HashMap<&str, usize> = layers.iter().enumerate().map(|(i, l)| (l.layer.as_str(), i)).collect();
    let reads = |(to, layer): (usize, &LayerVerdict)| -> Vec<(usize, usize)> {
        layer.inputs.iter().filter_map(|from| Some((*places.get(from.as_str())?, to))).collect()
    };
    let edges: Vec<(usize, usize)> = layers.iter().enumerate().flat_map(reads).collect();
    let layout = lay_out(&sizes, &edges, ROW_GAP);
    let head = head(inspection);
    let least = head.iter().map(|l| l.chars().count()).max().unwrap_or(0) as f64 * CHARACTER;
    let (width, height) = (layout.width.max(least) + 2.0 * MARGIN, layout.height + HEAD + 2.0 * MARGIN);
    let mut out = String::new();
    let _ = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} \
         {height:.0}\" font-family=\"Helvetica,Arial,sans-serif\" font-size=\"12\">"
    );
    let _ = writeln!(out, "<title>{}</title>", escaped(&head[0]));
    out.push_str(
        "<defs><marker id=\"arrow\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" \
                  orient=\"auto\"><path d=\"M0,0 L8,4 L0,8 z\"/></marker></defs>\n",
    );
    let _ = writeln!(out, "<rect width=\"{width:.0}\" height=\"{height:.0}\" fill=\"white\"/>");
    let bold = ["font-weight=\"bold\" font-size=\"14\"", ""];
    for (i, (line, style)) in head.iter().zip(bold).enumerate() {
        let y = MARGIN + 14.0 + 20.0 * i as f64;
        let _ = writeln!(out, "<text x=\"{MARGIN}\" y=\"{y:.1}\" {style}>{}</text>", escaped(line));
    }
    let _ = writeln!(out, "<g transform=\"translate({:.1},{:.1})\">", (width - layout.width) / 2.0, MARGIN + HEAD);
    draw_edges(&layout, &mut out);
    for ((layer, lines), (size, (x, y))) in layers.iter().zip(&boxes).zip(sizes.iter().zip(&layout.boxes)) {
        draw_box(layer, lines, (x - size.width / 2.0, *y, size), &mut out);
    }
    out.push_str("</g>\n</svg>\n");
    out
}

/// A number of pieces of a network.
fn pieces(count: usize) -> String {
    format!("{count} {}", if count == 1 { "piece" } else { "pieces" })
}

/// Title and summary.
fn head(inspection: &Inspection) -> [String; 2] {
    let on = |cpu: bool| inspection.layers.iter().filter(|l| l.device.contains(CPU) == cpu).count();
    let target = inspection.target.as_deref().unwrap_or("no target");
    let cost = inspection.cost.map_or_else(String::new, |c| {
        format!("; {} on the DPU, {:.0} µs DPU + {:.0} µs CPU", pieces(c.subgraphs), c.dpu_us, c.cpu_us)
    });
    [
        format!("{} on {target}", inspection.model),
        format!("{} layers on the DPU (blue), {} on the CPU or on both (red, orange){cost}", on(false), on(true)),
    ]
}

fn draw_edges(layout: &Layout, out: &mut String) {
    out.push_str("<g fill=\"none\" stroke=\"dimgray\" marker-end=\"url(#arrow)\">\n");
    for corners in &layout.edges {
        let _ = writeln!(out, "<path d=\"{}\" marker-end=\"url(#arrow)\"/>", path(corners));
    }
    out.push_str("</g>\n");
}

fn draw_box(layer: &LayerVerdict, lines: &[String], (x, y, size): (f64, f64, &Size), out: &mut String) {
    let (fill, ink) = colours(&layer.device);
    let notes = text::notes(layer);
    let tip = if notes.is_empty() { layer.layer.clone() } else { notes };
    let (width, height) = (size.width, size.height);
    let _ = writeln!(
        out,
        "<g fill=\"{ink}\"><title>{}</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"6\" \
         fill=\"{fill}\" stroke=\"black\"/>",
        escaped(&tip)
    );
    for (i, line) in lines.iter().enumerate() {
        let (cx, cy) = (x + width / 2.0, y + INSET + LINE * i as f64 + 12.0);
        let style = if i == 0 { " font-weight=\"bold\"" } else { "" };
        let _ =
            writeln!(out, "<text x=\"{cx:.1}\" y=\"{cy:.1}\" text-anchor=\"middle\"{style}>{}</text>", escaped(line));
    }
    out.push_str("</g>\n");
}
