//! Numbers and JSON spelled as Python and NumPy spell them.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::Formatter;

/// A scientific spelling by Rust (`-1.25e-5`: the shortest digits that read back) as Python spells it, with an exponent unless `plain`.
fn respell(scientific: &str, plain: bool) -> String {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |m| ("-", m));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    let (count, point) = (digits.len() as i32, exponent + 1);
    if !plain {
        let (first, rest) = digits.split_at(digits.len().min(1));
        let dot = if rest.is_empty() { "" } else { "." };
        let e = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{first}{dot}{rest}e{e}{:02}", exponent.abs());
    }
    let zeros = |n: i32| "0".repeat(n.max(0) as usize);
    if point <= 0 {
        format!("{sign}0.{}{digits}", zeros(-point))
    } else if point >= count {
        format!("{sign}{digits}{}.0", zeros(point - count))
    } else {
        let (whole, fraction) = digits.split_at(point as usize);
        format!("{sign}{whole}.{fraction}")
    }
}

/// Rust's shortest spelling with the last digit chosen as Python does: where two decimals are equally near, the even one.
fn shortest(v: f64, rust: String, reads_back: impl Fn(&str) -> bool) -> String {
    let digits = rust.split('e').next().unwrap_or_default().chars().filter(char::is_ascii_digit).count();
    let even = format!("{v:.*e}", digits.saturating_sub(1));
    if reads_back(&even) { even } else { rust }
}

/// The shortest decimal that reads back as the same f32, as NumPy prints it.
pub fn repr32(v: f32) -> String {
    match v {
        _ if v.is_nan() => "nan".into(),
        _ if v.is_infinite() => if v > 0.0 { "inf" } else { "-inf" }.into(),
        // NumPy compares as f64, so 0.0001 (a little less in f32) is written 1e-04.
        _ => respell(&shortest(v.into(), format!("{v:e}"), |s| s.parse() == Ok(v)), plain(v.into())),
    }
}

/// The shortest decimal that reads back as the same f64, as Python prints it. JSON has no infinities.
fn repr64(v: f64) -> String {
    respell(&shortest(v, format!("{v:e}"), |s| s.parse() == Ok(v)), plain(v))
}

/// Whether Python writes a number without exponent.
fn plain(v: f64) -> bool {
    v == 0.0 || (1e-4..1e16).contains(&v.abs())
}

/// `json.dumps(value)`: blanks behind commas and colons, ASCII only.
struct Dumps;

impl Formatter for Dumps {
    fn begin_array_value<W: ?Sized + Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        w.write_all(if first { b"" } else { b", " })
    }
    fn begin_object_key<W: ?Sized + Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        w.write_all(if first { b"" } else { b", " })
    }
    fn begin_object_value<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        w.write_all(b": ")
    }
    fn write_f64<W: ?Sized + Write>(&mut self, w: &mut W, value: f64) -> io::Result<()> {
        w.write_all(repr64(value).as_bytes())
    }
    fn write_number_str<W: ?Sized + Write>(&mut self, w: &mut W, text: &str) -> io::Result<()> {
        // How numbers arrive when a dependency has switched serde_json to keeping their text.
        match text.parse() {
            Ok(v) if text.contains(['.', 'e', 'E']) => self.write_f64(w, v),
            _ => w.write_all(text.as_bytes()),
        }
    }
    fn write_string_fragment<W: ?Sized + Write>(&mut self, w: &mut W, text: &str) -> io::Result<()> {
        let mut units = [0u16; 2];
        for c in text.chars() {
            if c.is_ascii() {
                w.write_all(&[c as u8])?;
            } else {
                for unit in c.encode_utf16(&mut units) {
                    write!(w, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

/// `json.dumps(value)`.
pub fn dumps(value: &Value) -> String {
    let mut bytes = Vec::new();
    let mut out = serde_json::Serializer::with_formatter(&mut bytes, Dumps);
    // Writing a value whose keys are strings into memory has no way to fail.
    match value.serialize(&mut out) {
        Ok(()) => String::from_utf8(bytes).unwrap_or_default(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn f32_as_numpy_prints_it() {
        let table = [
            (0.015_625, "0.015625"),
            (1e-5, "1e-05"),
            (0.0001, "1e-04"),
            (0.000_100_01, "0.00010001"),
            (9.999e-5, "9.999e-05"),
            (-0.0, "-0.0"),
            (0.0, "0.0"),
            (1.0, "1.0"),
            (-0.281_311_5, "-0.2813115"),
            (16_777_216.0, "16777216.0"),
            (1.628_906_3, "1.6289062"),
            (-2.566_406_3, "-2.5664062"),
            (7.472_656_3, "7.4726562"),
            (1.234_568e15, "1234568000000000.0"),
            (1e16, "1e+16"),
            (3.402_823_5e38, "3.4028235e+38"),
            (1e-45, "1e-45"),
            (f32::NAN, "nan"),
            (f32::NEG_INFINITY, "-inf"),
        ];
        for (v, want) in table {
            assert_eq!(repr32(v), want);
        }
    }

    #[test]
    fn json_as_python_dumps_it() {
        let value = json!({"a": [1, 2.0, 1e-5, null, true], "ü😀": {"x": "\"\n"}, "e": [], "o": {}});
        let want = r#"{"a": [1, 2.0, 1e-05, null, true], "\u00fc\ud83d\ude00": {"x": "\"\n"}, "e": [], "o": {}}"#;
        assert_eq!(dumps(&value), want);
    }
}
