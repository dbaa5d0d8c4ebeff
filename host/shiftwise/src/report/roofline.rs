//! Multiply-accumulates in a cycle over those for a byte, both logarithmic, under what the DPU and its memory allow:
//! layers under the slope wait for memory, those under the flat part for the array.

use std::fmt::Write as _;

use serde::Serialize;

use super::escaped;
use crate::device::Device;
use crate::estimate::{Estimate, LayerTime};

/// What bounds a layer's speed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Roof {
    /// Multiply-accumulates in a cycle that the array can do.
    pub macs_per_cycle: f64,
    /// Bytes in a cycle that the data ports bring, by the cycle model.
    pub bytes_per_cycle: f64,
}

/// Data ports of a DPU core. DOC
const PORTS: f64 = 2.0;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 280.0;
const MARGIN: f64 = 46.0;

impl Roof {
    /// Of a device.
    ///
    /// Errors: those of the device's description.
    pub fn of(device: &Device) -> Result<Self, shiftwise_graph::error::Error> {
        let macs_per_cycle = f64::from(device.target.peak_ops_per_cycle()) / 2.0;
        Ok(Self { macs_per_cycle, bytes_per_cycle: PORTS * device.costs()?.port_bytes })
    }
}

/// A logarithmic axis in powers of two.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn new(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for v in values.map(f64::log2) {
            (low, high) = (low.min(v.floor()), high.max(v.ceil()));
        }
        Self { low, high: high.max(low + 1.0), from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value.log2() - self.low) / (self.high - self.low);
        self.from + share * (self.to - self.from)
    }

    /// Powers of two, at most seven.
    fn ticks(&self) -> impl Iterator<Item = f64> {
        let step = ((self.high - self.low) / 6.0).ceil().max(1.0);
        (0..7).map(move |i| self.low + step * f64::from(i)).filter(|t| *t <= self.high).map(f64::exp2)
    }
}

/// A tick's value: a power of two.
fn power(value: f64) -> String {
    if value >= 1.0 { format!("{value:.0}") } else { format!("1/{:.0}", 1.0 / value) }
}

/// The picture; nothing without layers on the DPU.
pub(super) fn roofline(estimate: &Estimate, roof: Roof, out: &mut String) {
    let point = |l: &LayerTime| {
        let d = l.dpu.as_ref().filter(|d| d.cycles > 0 && d.bytes > 0 && l.macs > 0)?;
        Some((l.macs as f64 / d.bytes as f64, l.macs as f64 / d.cycles as f64, d.cycles, l.layer.clone()))
    };
    let points: Vec<(f64, f64, u64, String)> = estimate.layers.iter().filter_map(point).collect();
    if points.is_empty() {
        return;
    }
    let ridge = roof.macs_per_cycle / roof.bytes_per_cycle;
    let xs = points.iter().map(|p| p.0).chain([ridge / 2.0, ridge * 4.0]);
    let ys = points.iter().map(|p| p.1).chain([roof.macs_per_cycle]);
    let (x, y) = (Axis::new(xs, MARGIN, WIDTH - 20.0), Axis::new(ys, HEIGHT - MARGIN, 20.0));
    let (left, right) = (x.low.exp2(), x.high.exp2());
    // The slope leaves the picture at its left edge or at its foot.
    let start = left.max(y.low.exp2() / roof.bytes_per_cycle);
    let _ = writeln!(
        out,
        "<h2>Work for a byte, work in a cycle</h2>\n<div class=\"wide\"><svg class=\"fit\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         role=\"img\" aria-label=\"roofline\">\n<path class=\"axis\" d=\"M{MARGIN},10 V{foot} H{}\"/>\n<path class=\"roof\" \
         d=\"M{:.1},{:.1} L{:.1},{:.1} H{:.1}\"><title>{:.0} MACs a cycle, {:.0} bytes a cycle</title></path>",
        WIDTH - 10.0,
        x.at(start),
        y.at(start * roof.bytes_per_cycle),
        x.at(ridge),
        y.at(roof.macs_per_cycle),
        x.at(right),
        roof.macs_per_cycle,
        roof.bytes_per_cycle,
        foot = HEIGHT - MARGIN,
    );
    let most = points.iter().map(|p| p.2).max().unwrap_or(1) as f64;
    for (intensity, speed, cycles, layer) in points {
        let r = 3.0 + 9.0 * (cycles as f64 / most).sqrt();
        let _ = writeln!(
            out,
            "<circle class=\"bar\" fill-opacity=\"0.6\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{r:.1}\"><title>{}: {intensity:.1} MACs \
             a byte, {speed:.1} a cycle</title></circle>",
            x.at(intensity),
            y.at(speed),
            escaped(&layer)
        );
    }
    for t in x.ticks() {
        let (at, foot, tick) = (x.at(t), HEIGHT - 28.0, power(t));
        let _ = writeln!(out, "<text x=\"{at:.0}\" y=\"{foot:.0}\" text-anchor=\"middle\">{tick}</text>");
    }
    for t in y.ticks() {
        let (at, tick) = (y.at(t) + 4.0, power(t));
        let _ = writeln!(out, "<text x=\"{:.0}\" y=\"{at:.0}\" text-anchor=\"end\">{tick}</text>", MARGIN - 6.0);
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">MACs for a byte of memory; upwards: MACs in a cycle; circles: \
         cycles of a layer</text></svg></div>",
        WIDTH / 2.0,
        HEIGHT - 8.0
    );
}
