//! What travels with a quantized network beside its numbers: how data was prepared, what it looked like, remarks.
//!
//! Kept as one JSON text in `quantized.h5` (attribute `shiftwise_metadata` of the file), in the deployable and in the
//! proof. [`Metadata::VERSION`] counts changes that an older reader would misunderstand; new keys are no such change.

use serde::{Deserialize, Serialize};

/// What travels with a quantized network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Metadata {
    /// [`Metadata::VERSION`] of the writer.
    pub version: u32,
    /// How the calibration data was brought to the network's inputs; absent if it was taken as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preprocessing: Option<Preprocessing>,
    /// What the calibration data looked like at the inputs, after preparation, in the network's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputStatistics>,
    /// Remarks of whoever made the network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How data is brought to a network's input: images are turned, scaled and their colours ordered, then of every value the
/// mean is subtracted and the scale multiplied: x' = (x − mean) · scale.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Preprocessing {
    /// Subtracted: one value, or one for each channel; nothing if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mean: Vec<f32>,
    /// Multiplied after that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f32>,
    /// Height and width to which images are scaled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<[usize; 2]>,
    /// How they are scaled: `pil` or `tf`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize_filter: Option<String>,
    /// Whether images are turned as their Exif data asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exif: Option<bool>,
    /// Order of an image's colours in the channels: `rgb` or `bgr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel_order: Option<String>,
}

/// What data looked like at one input. Lists have a value for each channel, the last axis; one value if it has more than
/// [`InputStatistics::MOST_CHANNELS`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct InputStatistics {
    /// The input's name.
    pub name: String,
    /// Samples seen.
    pub samples: u64,
    /// Smallest values.
    pub min: Vec<f32>,
    /// Largest values.
    pub max: Vec<f32>,
    /// Means.
    pub mean: Vec<f32>,
    /// Standard deviations, of all values and not of a sample of them.
    pub deviation: Vec<f32>,
}

impl InputStatistics {
    /// Inputs with more channels than this are described as a whole.
    pub const MOST_CHANNELS: usize = 16;

    /// Whether every value was 0.
    pub fn is_zero(&self) -> bool {
        self.samples > 0 && self.min.iter().chain(&self.max).all(|x| *x == 0.0)
    }
}

impl Default for Metadata {
    fn default() -> Self {
        Self { version: Self::VERSION, preprocessing: None, inputs: Vec::new(), notes: Vec::new() }
    }
}

impl Metadata {
    /// The version that is written.
    pub const VERSION: u32 = 1;
    /// Most bytes of a text that is read.
    pub const MOST_BYTES: usize = 1 << 20;

    /// Whether there is nothing to keep.
    pub fn is_empty(&self) -> bool {
        *self == Self { version: self.version, ..Self::default() }
    }

    /// The JSON text; empty if there is nothing to keep.
    pub fn to_text(&self) -> String {
        if self.is_empty() { String::new() } else { serde_json::to_string(self).unwrap_or_default() }
    }

    /// What a text says; an empty one says nothing.
    ///
    /// Errors: a clause for a message: no JSON of this form, a version that is newer than this reader, numbers that are
    /// not finite, a scale of 0.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        if text.len() > Self::MOST_BYTES {
            return Err(format!("has metadata of {} bytes, up to {} are read", text.len(), Self::MOST_BYTES));
        }
        let own: Self = serde_json::from_str(text).map_err(|e| format!("has metadata that can't be read: {e}"))?;
        if own.version > Self::VERSION {
            return Err(format!("has metadata of version {}, this reader knows {}", own.version, Self::VERSION));
        }
        own.preprocessing.iter().try_for_each(Preprocessing::check)?;
        let lists = own.inputs.iter().flat_map(|i| [&i.min, &i.max, &i.mean, &i.deviation]);
        if !lists.flatten().all(|x| x.is_finite()) {
            return Err("has metadata with numbers that are not finite".into());
        }
        Ok(own)
    }
}

impl Preprocessing {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Errors: a clause: a mean or scale that is not finite, a scale of 0.
    pub fn check(&self) -> Result<(), String> {
        match self.scale {
            Some(0.0) => return Err("has a scale of 0, which makes every value 0".into()),
            Some(scale) if !scale.is_finite() => return Err("has a scale that is not finite".into()),
            _ => {}
        }
        match self.mean.iter().all(|m| m.is_finite()) {
            true => Ok(()),
            false => Err("has a mean that is not finite".into()),
        }
    }

    /// Each setting that is given, as a command would spell it: its name and its value.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let list = |values: &[f32]| values.iter().map(f32::to_string).collect::<Vec<_>>().join(",");
        let all = [
            ("mean", (!self.mean.is_empty()).then(|| list(&self.mean))),
            ("scale", self.scale.map(|s| s.to_string())),
            ("resize", self.resize.map(|[h, w]| format!("{h}x{w}"))),
            ("resize-filter", self.resize_filter.clone()),
            ("exif", self.exif.map(|e| e.to_string())),
            ("channel-order", self.channel_order.clone()),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// These settings, and those of `other` where one is not given here.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        Self {
            mean: if self.mean.is_empty() { other.mean.clone() } else { self.mean },
            scale: self.scale.or(other.scale),
            resize: self.resize.or(other.resize),
            resize_filter: self.resize_filter.or_else(|| other.resize_filter.clone()),
            exif: self.exif.or(other.exif),
            channel_order: self.channel_order.or_else(|| other.channel_order.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_comes_back_and_nothing_is_an_empty_text() {
        assert_eq!(Metadata::default().to_text(), "");
        assert_eq!(Metadata::parse(""), Ok(Metadata::default()));
        let own = Metadata {
            preprocessing: Some(Preprocessing {
                mean: vec![123.675, 116.28, 103.53],
                scale: Some(1.0 / 58.0),
                resize: Some([224, 160]),
                channel_order: Some("bgr".into()),
                ..Preprocessing::default()
            }),
            inputs: vec![InputStatistics { name: "x".into(), samples: 3, min: vec![-1.5], ..Default::default() }],
            notes: vec!["first".into()],
            ..Metadata::default()
        };
        assert_eq!(Metadata::parse(&own.to_text()), Ok(own));
    }

    #[test]
    fn text_that_would_be_misunderstood_is_refused() {
        for (text, part) in [
            ("{", "can't be read"),
            (r#"{"version":2}"#, "version 2"),
            (r#"{"version":1,"preprocessing":{"scale":0}}"#, "scale of 0"),
            (r#"{"version":1,"preprocessing":{"scale":1e999}}"#, ""),
            (
                r#"{"version":1,"inputs":[{"name":"x","samples":1,"min":["a"],"max":[],"mean":[],"deviation":[]}]}"#,
                "read",
            ),
        ] {
            let why = Metadata::parse(text).unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
        }
        // A later version may say more.
        assert_eq!(Metadata::parse(r#"{"version":1,"colour":"red"}"#), Ok(Metadata::default()));
    }

    #[test]
    fn what_is_given_goes_before_what_is_stored() {
        let stored = Preprocessing { mean: vec![1.0], scale: Some(2.0), exif: Some(true), ..Default::default() };
        let given = Preprocessing { scale: Some(3.0), ..Default::default() };
        let both = given.or(&stored);
        assert_eq!(both.settings(), [("mean", "1".into()), ("scale", "3".into()), ("exif", "true".to_string())]);
    }
}
