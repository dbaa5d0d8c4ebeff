//! Why a layer is on the CPU, in the words of the vendor's limits.

use shiftwise_compile::Reason;
use shiftwise_compile::limits::Violation;
use shiftwise_core::shape::Window;
use shiftwise_integer::graph::{IntOp, IntOpKind};

/// The window of an op that has one.
fn window(op: &IntOp) -> Option<&Window> {
    match &op.kind {
        IntOpKind::Conv(c) | IntOpKind::Depthwise(c) | IntOpKind::ConvTranspose(c) => Some(&c.window),
        IntOpKind::MaxPool { window, .. } | IntOpKind::AveragePool { window, .. } => Some(window),
        _ => None,
    }
}

/// What the vendor calls a pair of numbers of a window.
struct Pair {
    /// As an argument of a convolution.
    name: &'static str,
    /// As one of a pooling layer.
    pooling: &'static str,
    /// The numbers, vertical and horizontal.
    of: fn(&Window) -> [u16; 2],
}

const KERNEL: Pair = Pair { name: "kernel_size", pooling: "pool_size", of: |w| w.kernel };
const STRIDES: Pair = Pair { name: "strides", pooling: "strides", of: |w| w.stride };

impl Pair {
    fn beyond(&self, op: &IntOp, v: &Violation) -> String {
        let pooled = matches!(op.kind, IntOpKind::MaxPool { .. } | IntOpKind::AveragePool { .. });
        let name = if pooled { self.pooling } else { self.name };
        let [a, b] = window(op).map_or([v.value, v.value], |w| (self.of)(w).map(i64::from));
        format!("{name}(({a}, {b})) exceed limit {min}-{max};{min}-{max}", min = v.min, max = v.max)
    }
}

/// A limit in the vendor's words.
type Words = fn(&IntOp, &Violation) -> String;

/// A row per number that the vendor has limits for, by its name in the compiler's table of limits.
const WORDS: &[(&str, Words)] = &[
    ("kernel height", |op, v| KERNEL.beyond(op, v)),
    ("kernel width", |op, v| KERNEL.beyond(op, v)),
    ("vertical stride", |op, v| STRIDES.beyond(op, v)),
    ("horizontal stride", |op, v| STRIDES.beyond(op, v)),
    ("number of output channels", |_, v| {
        format!("output_channel({}) exceed limit {}(=256 * output_channel_parallel))", v.value, v.max)
    }),
    ("dilation times input channels", |op, v| {
        let [a, b] = window(op).map_or([0, 0], |w| w.dilation);
        format!("dilation_rate(({a}, {b})) exceed limit 1-{max};1-{max}(=256*input_channel_parallel)", max = v.max)
    }),
    ("kernel height × width × input channel groups", |_, v| {
        format!("in_size({}) exceed limit {}(=bank_depth))", v.value, v.max)
    }),
];

/// The note of an op that the target leaves to the CPU; `class` is the layer's.
pub(super) fn note(class: &str, op: &IntOp, reason: &Reason) -> String {
    if let Reason::Limit { violation } = reason {
        return match WORDS.iter().find(|(what, _)| *what == violation.what) {
            Some((_, words)) => words(op, violation),
            None => {
                let Violation { what, value, min, max, .. } = violation;
                format!("{what}({value}) exceed limit {min}-{max}")
            }
        };
    }
    format!(
        "`{class}` is not supported by target, or `{class}` instance does not meet the conditions supported by the \
         target: {reason}."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_with_words_is_one_of_the_compilers_table() {
        let known: Vec<&str> = shiftwise_compile::limits::names().collect();
        for (what, _) in WORDS {
            assert!(known.contains(what), "{what}");
        }
    }
}
