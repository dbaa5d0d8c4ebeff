//! JSON from files: as much of it as the file's budget pays for.

use serde_json::Value;

use shiftwise_graph::budget::{Budget, Exceeded};

/// Memory of a value in a list: the value, the text of a number, and the copies that a model's layers keep.
const VALUE: u64 = 256;

/// Memory of a value's key, with its place in the map.
const KEY: u64 = 192;

/// Memory of a byte of text, with the copies.
const TEXT: u64 = 3;

/// A value from its text.
///
/// Errors: not JSON, or more values than the budget pays for: a byte of text may be a value of a hundred.
pub fn parse(text: &[u8], budget: &Budget) -> Result<Value, String> {
    charge(text, budget).map_err(|e| format!("holds too many values: {e}"))?;
    serde_json::from_slice(text).map_err(|e| format!("is not whole JSON: {e}"))
}

/// Charges for what the text would make, without making it. Each value but the first stands behind a comma, a bracket or
/// a colon.
fn charge(text: &[u8], budget: &Budget) -> Result<(), Exceeded> {
    let (mut values, mut keys, mut quoted) = (1u64, 0u64, false);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' if quoted => {
                bytes.next();
            }
            b',' | b'[' | b'{' if !quoted => values += 1,
            b':' if !quoted => keys += 1,
            _ => {}
        }
    }
    budget.bytes(text.len() as u64 * TEXT)?;
    budget.bytes(values.saturating_mul(VALUE).saturating_add(keys.saturating_mul(KEY)))?;
    budget.work(text.len() as u64 + values + keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_paid_for_before_they_are_made() {
        let long = [b"[".as_slice(), "0,".repeat(4 << 20).as_bytes(), b"0]"].concat();
        assert!(parse(&long, &Budget::for_file(64 << 10)).unwrap_err().contains("too many values"));
        // Text is no value, whatever stands in it.
        let text = format!("[\"{}\\\",\"]", ",".repeat(4 << 20));
        assert!(parse(text.as_bytes(), &Budget::for_file(64 << 10)).is_ok());
        assert!(parse(b"{\"a\": [1, 2]", &Budget::for_file(0)).unwrap_err().contains("not whole JSON"));
    }
}
