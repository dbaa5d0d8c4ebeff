//! Lines that an application takes over: how it prepares and quantizes an input for one network.
//!
//! All of it is f32, as here: samples are prepared as [`crate::dataset`] does, x' = (x − mean) · scale, and rounded as
//! `shiftwise_core::fix::round_f32` does, so that an application gets the integers that were verified, to the last tie.

use serde::Serialize;
use shiftwise_core::arith::Round;
use shiftwise_quant::metadata::Preprocessing;

use super::Port;

/// Columns that lines of numbers are broken at.
const WIDTH: usize = 72;

/// How an application makes an input of samples `x`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Snippet {
    /// The input's name.
    pub input: String,
    /// `C`, `Rust` or `Python`.
    pub language: &'static str,
    /// From floats `x` to integers `q`.
    pub code: String,
}

/// What one language calls things.
struct Language {
    name: &'static str,
    write: fn(&Step) -> String,
}

const LANGUAGES: [Language; 3] = [
    Language { name: "C", write: c },
    Language { name: "Rust", write: rust },
    Language { name: "Python", write: python },
];

/// What becomes of a value.
struct Step {
    mean: Vec<f32>,
    scale: Option<f32>,
    factor: f64,
    round: Round,
    low: i64,
    high: i64,
    /// Width of a type that holds the integers, and its sign.
    holds: (u8, bool),
    elements: usize,
}

/// The lines for all inputs that are integers with a position.
pub(super) fn all(inputs: &[Port], preprocessing: Option<&Preprocessing>) -> Vec<Snippet> {
    let of = |port: &Port| {
        let (bits, signed) = port.grid;
        let width = [8, 16].into_iter().find(|width| bits <= *width)?;
        let (low, high) = match signed {
            true => (-(1 << (bits.max(1) - 1)), (1 << (bits.max(1) - 1)) - 1),
            false => (0, (1 << bits) - 1),
        };
        let step = Step {
            mean: preprocessing.map(|p| p.mean.clone()).unwrap_or_default(),
            scale: preprocessing.and_then(|p| p.scale),
            factor: port.factor?,
            round: port.round,
            low,
            high,
            holds: (width, signed),
            elements: port.shape.iter().product(),
        };
        let input = port.name.clone();
        let one = move |language: Language| Snippet {
            input: input.clone(),
            language: language.name,
            code: (language.write)(&step),
        };
        Some(LANGUAGES.into_iter().map(one))
    };
    inputs.iter().filter_map(of).flatten().collect()
}

/// Numbers with commas between them, on lines of their own if they are many.
fn list(values: &[f32], suffix: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    for (i, value) in values.iter().enumerate() {
        let text = format!("{value:?}{suffix}{}", if i + 1 < values.len() { ", " } else { "" });
        if column + text.len() > WIDTH / 2 && column > 0 {
            out.push_str("\n    ");
            column = 0;
        }
        column += text.len();
        out.push_str(&text);
    }
    out
}

/// The prepared value of `x`, given how one element of the mean is written; one that needs no parentheses before a product.
fn prepared(step: &Step, x: &str, mean: &str, suffix: &str) -> String {
    let shifted = if step.mean.is_empty() { x.to_owned() } else { format!("({x} - {mean})") };
    match step.scale {
        Some(scale) => format!("{shifted} * {scale:?}{suffix}"),
        None => shifted,
    }
}

fn c(step: &Step) -> String {
    let (width, signed) = step.holds;
    let kind = format!("{}int{width}_t", if signed { "" } else { "u" });
    let (table, mean) = match &step.mean[..] {
        [] => (String::new(), String::new()),
        [one] => (String::new(), format!("{one:?}f")),
        many => {
            let n = many.len();
            (format!("static const float m[{n}] = {{{}}};\n", list(many, "f")), format!("m[i % {n}]"))
        }
    };
    let value = prepared(step, "x[i]", &mean, "f");
    let rounded = match step.round {
        Round::HalfToEven => "rintf(v)",
        Round::HalfUp => "floorf(v + 0.5f)",
        Round::HalfAwayFromZero => "roundf(v)",
        Round::Floor => "floorf(v)",
    };
    let (n, factor, low, high) = (step.elements, step.factor, step.low, step.high);
    format!(
        "{table}for (int i = 0; i < {n}; i++) {{\n    float v = {value} * {factor:?}f;\n    \
         q[i] = ({kind})fminf(fmaxf({rounded}, {low}), {high});\n}}"
    )
}

fn rust(step: &Step) -> String {
    let (width, signed) = step.holds;
    let kind = format!("{}{width}", if signed { "i" } else { "u" });
    let (table, index, mean) = match &step.mean[..] {
        [] => (String::new(), false, String::new()),
        [one] => (String::new(), false, format!("{one:?}")),
        many => (format!("let m = [{}];\n", list(many, "_f32")), true, format!("m[i % {}]", many.len())),
    };
    let value = prepared(step, "x", &mean, "");
    let values = if index { "x.iter().enumerate().map(|(i, &x)|\n   " } else { "x.iter().map(|&x|" };
    let rounded = match step.round {
        Round::HalfToEven => "v.round_ties_even()",
        Round::HalfUp => "(v + 0.5).floor()",
        Round::HalfAwayFromZero => "v.round()",
        Round::Floor => "v.floor()",
    };
    let (factor, low, high) = (step.factor, step.low, step.high);
    format!(
        "{table}let v = {values} {value} * {factor:?});\n\
         let q: Vec<{kind}> = v.map(|v| {rounded}.clamp({low}.0, {high}.0) as {kind})\n    .collect();"
    )
}

fn python(step: &Step) -> String {
    let (width, signed) = step.holds;
    let kind = format!("np.{}int{width}", if signed { "" } else { "u" });
    let (table, mean) = match &step.mean[..] {
        [] => (String::new(), String::new()),
        [one] => (String::new(), format!("{one:?}")),
        many => (format!("m = np.array([{}], np.float32)\n", list(many, "")), "m".to_owned()),
    };
    let value = prepared(step, "x", &mean, "");
    let rounded = match step.round {
        Round::HalfToEven => "np.rint(v)",
        Round::HalfUp => "np.floor(v + 0.5)",
        // The largest f32 below one half: with one half itself, it would become 1.
        Round::HalfAwayFromZero => "np.trunc(v + np.copysign(np.float32(0.49999997), v))",
        Round::Floor => "np.floor(v)",
    };
    let (factor, low, high) = (step.factor, step.low, step.high);
    format!(
        "{table}v = {value} * {factor:?}  # x: float32\nv = {rounded}\n\
         q = np.clip(v, {low}, {high}).astype({kind})"
    )
}

#[cfg(test)]
mod tests;
