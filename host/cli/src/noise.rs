//! Noise in words.

use shiftwise::analyze::Analysis;

/// Decibels in few characters.
pub(crate) fn db(value: Option<f64>) -> String {
    value.map_or_else(|| "exact".into(), |v| format!("{v:.1}"))
}

/// The outputs in words.
pub(crate) fn summary(analysis: &Analysis) -> String {
    let told = |value: Option<f64>| value.map_or_else(|| "exact".into(), |v| format!("{v:.1} dB"));
    let outputs: Vec<String> = analysis.outputs.iter().map(|o| format!("{} {}", o.layer, told(o.sqnr_db))).collect();
    format!("signal to noise at the outputs on {} samples: {}", analysis.samples, outputs.join(", "))
}
