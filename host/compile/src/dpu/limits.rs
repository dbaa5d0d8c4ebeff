//! THE constraint table: what a DPU can do, one row per number.
//!
//! Partition asks it where a layer goes, error texts and reports quote it. A row names a number of a layer, the limit on
//! a target, and what a user can change.

use std::ops::RangeInclusive;

use shiftwise_core::shift;
use shiftwise_core::target::{Limit, Target};

use crate::dpu::tile::Unit;

/// The numbers of a layer that limits are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Taps, vertical and horizontal.
    pub kernel: [u32; 2],
    /// Strides.
    pub stride: [u32; 2],
    /// Dilations.
    pub dilation: [u32; 2],
    /// Padding above and left.
    pub pad_before: [u32; 2],
    /// Padding below and right.
    pub pad_after: [u32; 2],
    /// Input channels.
    pub channels_in: u32,
    /// Output channels.
    pub channels_out: u32,
    /// Number of operands.
    pub operands: u32,
    /// Right shift of the accumulator.
    pub shift_cut: i32,
    /// Left shift of the bias.
    pub shift_bias: i32,
    /// Largest left shift of an operand.
    pub shift_read: u32,
    /// Right shift of a sum.
    pub shift_write: i32,
    /// Factor of an average.
    pub factor: u32,
    /// Output position of a ReLU6, 0 without.
    pub relu6_pos: i8,
    /// Input position of a hard sigmoid, 0 without.
    pub sigmoid_in: i8,
    /// Output position of a hard sigmoid whose inputs reach its upper end, 7 without.
    pub sigmoid_out: i32,
}

impl Default for Facts {
    /// Nothing, which breaks no limit of the values: sizes have to be given.
    fn default() -> Self {
        Self {
            kernel: [0; 2],
            stride: [0; 2],
            dilation: [0; 2],
            pad_before: [0; 2],
            pad_after: [0; 2],
            channels_in: 0,
            channels_out: 0,
            operands: 0,
            shift_cut: 0,
            shift_bias: 0,
            shift_read: 0,
            shift_write: 0,
            factor: 0,
            relu6_pos: 0,
            sigmoid_in: 0,
            sigmoid_out: 7,
        }
    }
}

/// One limit.
pub(crate) struct Rule {
    /// What the number is, as a noun.
    pub what: &'static str,
    /// Engines that it is a limit of.
    pub units: &'static [Unit],
    /// The layer's number.
    pub value: fn(&Facts, &Target) -> i64,
    /// Smallest and largest legal value.
    pub limit: fn(&Facts, &Target) -> (i64, i64),
    /// What to change.
    pub remedy: &'static str,
}

/// A number outside its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Violation {
    /// What the number is.
    pub what: &'static str,
    /// Its value.
    pub value: i64,
    /// Smallest legal value.
    pub min: i64,
    /// Largest legal value.
    pub max: i64,
    /// What to change.
    pub remedy: &'static str,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} is outside {}..={}; {}", self.what, self.value, self.min, self.max, self.remedy)
    }
}

const CONV: &[Unit] = &[Unit::Conv];
const ALU: &[Unit] = &[Unit::Depthwise, Unit::Pool];
const WINDOWS: &[Unit] = &[Unit::Conv, Unit::Depthwise, Unit::Pool];
const WEIGHTS: &[Unit] = &[Unit::Conv, Unit::Depthwise];
const ELEW: &[Unit] = &[Unit::Elew];

const SMALLER: &str = "use a smaller kernel, or two layers";
const STRIDE: &str = "use a smaller stride, or two layers";
const PADDING: &str = "pad in a layer of its own";
const NARROWER: &str = "use fewer channels, or split the layer";
const POSITIONS: &str = "let the quantizer adjust positions to the target";

fn of(l: Limit) -> (i64, i64) {
    (l.min.into(), l.max.into())
}

fn range(r: &RangeInclusive<i32>) -> (i64, i64) {
    ((*r.start()).into(), (*r.end()).into())
}

/// Taps cover at least one pixel of the map for every output: padding is smaller than the window.
fn window_pad(f: &Facts, axis: usize) -> (i64, i64) {
    (0, i64::from((f.kernel[axis].max(1) - 1) * f.dilation[axis]))
}

/// All rows. The limits of engines are DOC; those of fields follow from the layout (DOC) and the meaning that
/// [`shiftwise_core::isa`] gives them.
#[rustfmt::skip]
pub(crate) const RULES: &[Rule] = &[
    Rule { what: "kernel height", units: CONV, value: |f, _| f.kernel[0].into(), limit: |_, t| of(t.limits.conv_kernel), remedy: SMALLER },
    Rule { what: "kernel width", units: CONV, value: |f, _| f.kernel[1].into(), limit: |_, t| of(t.limits.conv_kernel), remedy: SMALLER },
    Rule { what: "vertical stride", units: CONV, value: |f, _| f.stride[0].into(), limit: |_, t| of(t.limits.conv_stride), remedy: STRIDE },
    Rule { what: "horizontal stride", units: CONV, value: |f, _| f.stride[1].into(), limit: |_, t| of(t.limits.conv_stride), remedy: STRIDE },
    Rule { what: "number of input channels", units: CONV, value: |f, _| f.channels_in.into(), limit: |_, t| of(t.limits.channels), remedy: NARROWER },
    Rule { what: "number of output channels", units: CONV, value: |f, _| f.channels_out.into(), limit: |_, t| of(t.limits.channels), remedy: NARROWER },
    Rule { what: "dilation times input channels", units: CONV, value: |f, _| i64::from(f.dilation[1]) * i64::from(f.channels_in), limit: |_, t| of(t.limits.channels), remedy: NARROWER },
    Rule { what: "kernel height × width × input channel groups", units: CONV, value: weight_depth, limit: |_, t| of(t.limits.conv_weight_depth), remedy: "use a smaller kernel or fewer channels" },
    Rule { what: "kernel height", units: ALU, value: |f, _| f.kernel[0].into(), limit: |_, t| of(t.limits.alu_kernel), remedy: SMALLER },
    Rule { what: "kernel width", units: ALU, value: |f, _| f.kernel[1].into(), limit: |_, t| of(t.limits.alu_kernel), remedy: SMALLER },
    Rule { what: "vertical stride", units: ALU, value: |f, _| f.stride[0].into(), limit: |_, t| of(t.limits.alu_stride), remedy: STRIDE },
    Rule { what: "horizontal stride", units: ALU, value: |f, _| f.stride[1].into(), limit: |_, t| of(t.limits.alu_stride), remedy: STRIDE },
    Rule { what: "padding above", units: ALU, value: |f, _| f.pad_before[0].into(), limit: |_, t| of(t.limits.alu_pad_before), remedy: PADDING },
    Rule { what: "padding on the left", units: ALU, value: |f, _| f.pad_before[1].into(), limit: |_, t| of(t.limits.alu_pad_before), remedy: PADDING },
    Rule { what: "padding below", units: ALU, value: |f, _| f.pad_after[0].into(), limit: |_, t| of(t.limits.alu_pad_after), remedy: PADDING },
    Rule { what: "padding on the right", units: ALU, value: |f, _| f.pad_after[1].into(), limit: |_, t| of(t.limits.alu_pad_after), remedy: PADDING },
    Rule { what: "padding above", units: WINDOWS, value: |f, _| f.pad_before[0].into(), limit: |f, _| window_pad(f, 0), remedy: PADDING },
    Rule { what: "padding on the left", units: WINDOWS, value: |f, _| f.pad_before[1].into(), limit: |f, _| window_pad(f, 1), remedy: PADDING },
    Rule { what: "padding below", units: WINDOWS, value: |f, _| f.pad_after[0].into(), limit: |f, _| window_pad(f, 0), remedy: PADDING },
    Rule { what: "padding on the right", units: WINDOWS, value: |f, _| f.pad_after[1].into(), limit: |f, _| window_pad(f, 1), remedy: PADDING },
    Rule { what: "dilation times channels", units: WEIGHTS, value: |f, _| i64::from(f.dilation[1]) * i64::from(f.channels_in.max(f.channels_out)), limit: |_, _| (1, 1 << 16), remedy: NARROWER },
    Rule { what: "vertical stride of a dilated kernel", units: WEIGHTS, value: |f, _| if f.dilation[0] > 1 { f.stride[0].into() } else { 1 }, limit: |_, _| (1, 1), remedy: "use stride or dilation, not both" },
    Rule { what: "horizontal stride of a dilated kernel", units: WEIGHTS, value: |f, _| if f.dilation[1] > 1 { f.stride[1].into() } else { 1 }, limit: |_, _| (1, 1), remedy: "use stride or dilation, not both" },
    Rule { what: "shift_cut", units: WEIGHTS, value: |f, _| f.shift_cut.into(), limit: |_, t| of(t.limits.shift_cut), remedy: POSITIONS },
    Rule { what: "shift_bias", units: WEIGHTS, value: |f, _| f.shift_bias.into(), limit: |_, _| range(&shift::BIAS), remedy: POSITIONS },
    Rule { what: "right shift", units: &[Unit::Pool], value: |f, _| f.shift_cut.into(), limit: |_, _| (0, 63), remedy: POSITIONS },
    Rule { what: "factor of the average", units: &[Unit::Pool], value: |f, _| f.factor.into(), limit: |_, _| (0, 255), remedy: "use another window" },
    Rule { what: "number of operands", units: ELEW, value: |f, _| f.operands.into(), limit: |_, t| of(t.limits.elew_operands), remedy: "add in several layers" },
    Rule { what: "shift_read", units: ELEW, value: |f, _| f.shift_read.into(), limit: |_, _| range(&shift::READ), remedy: POSITIONS },
    Rule { what: "shift_write", units: ELEW, value: |f, _| f.shift_write.into(), limit: |_, _| range(&shift::WRITE), remedy: POSITIONS },
    Rule { what: "input position of a hard sigmoid", units: &[Unit::Pool], value: |f, _| f.sigmoid_in.into(), limit: |_, _| range(&shift::SIGMOID_POSITIONS), remedy: POSITIONS },
    Rule { what: "output position of a hard sigmoid", units: &[Unit::Pool], value: |f, _| f.sigmoid_out.into(), limit: |_, _| (7, 127), remedy: POSITIONS },
    Rule { what: "output position of ReLU6", units: &[Unit::Conv, Unit::Depthwise, Unit::Pool, Unit::Elew], value: |f, _| f.relu6_pos.into(), limit: |_, _| (-1, 127), remedy: POSITIONS },
];

fn weight_depth(f: &Facts, t: &Target) -> i64 {
    let groups = i64::from(f.channels_in.div_ceil(u32::from(t.input_channel_parallel).max(1)));
    i64::from(f.kernel[0]) * i64::from(f.kernel[1]) * groups
}

/// The first limit that a layer on this engine breaks.
pub(crate) fn check(unit: Unit, facts: &Facts, target: &Target) -> Result<(), Violation> {
    for rule in RULES.iter().filter(|r| r.units.contains(&unit)) {
        let value = (rule.value)(facts, target);
        let (min, max) = (rule.limit)(facts, target);
        if !(min..=max).contains(&value) {
            return Err(Violation { what: rule.what, value, min, max, remedy: rule.remedy });
        }
    }
    Ok(())
}

/// A row of the table for people, as it is on one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// What the number is.
    pub what: &'static str,
    /// The engine.
    pub engine: &'static str,
    /// Smallest and largest legal value; `None` where the layer decides.
    pub limit: Option<(i64, i64)>,
    /// What to change.
    pub remedy: &'static str,
}

/// What the numbers of the table are called, a name for each row.
pub fn names() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|rule| rule.what)
}

/// The table on a target: a row per number and engine, in the order in which they are checked.
pub fn rows(target: &Target) -> Vec<Row> {
    const LAYERS: [u32; 2] = [3, 5];
    let row = |rule: &Rule, unit: &Unit| {
        // A limit that differs between two layers is none of the target's.
        let [a, b] =
            LAYERS.map(|n| (rule.limit)(&Facts { kernel: [n; 2], dilation: [1; 2], ..Facts::default() }, target));
        let engine = match unit {
            Unit::Conv => "CONV",
            Unit::Depthwise => "ALU, depthwise",
            Unit::Pool => "ALU, pooling",
            Unit::Elew => "ELEW",
        };
        Row { what: rule.what, engine, limit: (a == b).then_some(a), remedy: rule.remedy }
    };
    RULES.iter().flat_map(|rule| rule.units.iter().map(move |unit| row(rule, unit))).collect()
}
