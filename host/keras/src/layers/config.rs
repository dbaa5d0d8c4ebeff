//! The settings of one layer in a file.

use serde_json::{Map, Value};

use shiftwise_graph::ops::{MAX_SIDE, Padding};

/// Settings of one layer in a Keras config.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a>(pub &'a Map<String, Value>);

impl<'a> Config<'a> {
    /// The value of a key, unless absent or null.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    /// A whole number from 0.
    pub fn usize(&self, key: &str) -> Result<usize, String> {
        let value = self.get(key).ok_or_else(|| format!("`{key}` is missing"))?;
        // Bounded so that products of a few sizes stay within 64 bits.
        let sane = value.as_u64().filter(|v| *v <= 1 << 24).map(|v| v as usize);
        sane.ok_or_else(|| format!("`{key}` is {value}, a whole number of at most {} is expected", 1 << 24))
    }

    /// [`Config::usize`]; `default` if absent.
    pub fn usize_or(&self, key: &str, default: usize) -> Result<usize, String> {
        self.get(key).map_or(Ok(default), |_| self.usize(key))
    }

    /// One or two whole numbers from 1 to [`MAX_SIDE`]; `default` if absent.
    pub fn pair(&self, key: &str, default: [usize; 2]) -> Result<[usize; 2], String> {
        self.get(key).map_or(Ok(default), |value| {
            two(value, 1)
                .ok_or_else(|| format!("`{key}` is {value}, one or two whole numbers from 1 to 65535 are expected"))
        })
    }

    /// A flag; old writers put 0 or 1.
    pub fn bool_or(&self, key: &str, default: bool) -> Result<bool, String> {
        self.get(key).map_or(Ok(default), |v| {
            let number = v.as_u64().filter(|n| *n < 2).map(|n| n == 1);
            v.as_bool().or(number).ok_or_else(|| format!("`{key}` is {v}, true or false is expected"))
        })
    }

    /// A number that is finite as f32, in which all is computed.
    pub fn f32_or(&self, key: &str, default: f32) -> Result<f32, String> {
        self.get(key).map_or(Ok(default), |v| {
            single(v)
                .ok_or_else(|| format!("`{key}` is {v:.60}, a number within the range of 32-bit floats is expected"))
        })
    }

    /// A number that is finite as f64.
    pub fn f64_or(&self, key: &str, default: f64) -> Result<f64, String> {
        self.get(key)
            .map_or(Ok(default), |v| v.as_f64().ok_or_else(|| format!("`{key}` is {v:.60}, a number is expected")))
    }

    /// A word.
    pub fn str_or(&self, key: &str, default: &'a str) -> Result<&'a str, String> {
        self.get(key).map_or(Ok(default), |v| v.as_str().ok_or_else(|| format!("`{key}` is {v}, a word is expected")))
    }

    /// Fails unless channels come last.
    pub fn channels_last(&self) -> Result<(), String> {
        match self.str_or("data_format", "channels_last")? {
            "channels_last" => Ok(()),
            other => Err(format!("data_format is `{other}`, only `channels_last` is supported")),
        }
    }

    /// How a window is padded.
    pub fn padding(&self) -> Result<Padding, String> {
        let name = self.str_or("padding", "valid")?;
        let known = Padding::from_name(name);
        known.ok_or_else(|| format!("the padding `{name}` is not supported; supported are `valid` and `same`"))
    }

    /// `axis` as one number, alone or in a list of one.
    pub fn axis(&self) -> Option<&'a Value> {
        self.get("axis").map(|value| value.as_array().filter(|a| a.len() == 1).map_or(value, |a| &a[0]))
    }

    /// A list of numbers of any nesting, or one number.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f32>>, String> {
        fn collect(value: &Value, into: &mut Vec<f32>) -> Option<()> {
            match value {
                Value::Array(a) => a.iter().try_for_each(|v| collect(v, into)),
                v => {
                    into.push(single(v)?);
                    Some(())
                }
            }
        }
        let Some(value) = self.get(key) else { return Ok(None) };
        let mut all = Vec::new();
        collect(value, &mut all).ok_or_else(|| format!("its {key} is {value}, numbers are expected"))?;
        Ok(Some(all))
    }
}

/// A whole number from `least` to [`MAX_SIDE`].
pub(super) fn side(value: &Value, least: usize) -> Option<usize> {
    value.as_u64().and_then(|v| usize::try_from(v).ok()).filter(|v| (least..=MAX_SIDE).contains(v))
}

/// One whole number from `least` to [`MAX_SIDE`] for both dimensions, or one for each.
pub(super) fn two(value: &Value, least: usize) -> Option<[usize; 2]> {
    match value {
        Value::Array(a) if a.len() == 2 => side(&a[0], least).zip(side(&a[1], least)).map(|(a, b)| [a, b]),
        one => side(one, least).map(|v| [v, v]),
    }
}

/// A JSON number as f32; `None` for anything else and for what is beyond its range.
pub(crate) fn single(value: &Value) -> Option<f32> {
    value.as_f64().map(|v| v as f32).filter(|v| v.is_finite())
}
