//! Time by layer.

use super::{cell, number, table};
use crate::estimate::{Estimate, LayerTime};
use crate::text;

/// A row for each layer that something executes.
pub(super) fn times(estimate: &Estimate, out: &mut String) {
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
}
