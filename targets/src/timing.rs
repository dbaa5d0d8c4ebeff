//! Constants of the cycle model: one file per DPU family in `timing/`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shiftwise_core::target::Target;

use crate::Error;

/// The cost table of a DPU family, by name of the simulator's constants, and how far to trust it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// Half the width of the band around a time that holds nine of ten networks which the constants were not fitted to.
    pub error_band_percent: f64,
    /// Constants that differ from the simulator's defaults.
    pub costs: BTreeMap<String, f64>,
}

/// A cost table from its description. `file` is for messages.
///
/// Errors: [`Error::Toml`]; [`Error::Invalid`] for a constant that is negative or no number.
pub fn parse(file: &str, text: &str) -> Result<Timing, Error> {
    let timing: Timing =
        toml::from_str(text).map_err(|source| Error::Toml { file: file.into(), source: Box::new(source) })?;
    match timing.costs.iter().find(|(_, v)| !v.is_finite() || **v < 0.0) {
        Some((name, value)) => {
            Err(Error::Invalid { file: file.into(), fault: format!("cost {name} is {value}; it must not be negative") })
        }
        None => Ok(timing),
    }
}

/// The cost table of a target's family; `None` if nobody measured one.
pub fn of(target: &Target) -> Option<Timing> {
    let family = target.name.split('_').next()?;
    let (name, text) = super::TIMING_FILES.iter().find(|(name, _)| *name == family)?;
    // The shipped files are checked by a test, so that none is dropped here.
    parse(name, text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_file_is_valid_and_found() {
        for (name, text) in crate::TIMING_FILES {
            parse(name, text).unwrap_or_else(|e| panic!("{e}: {:?}", std::error::Error::source(&e)));
        }
        assert!(of(&crate::find("B512").unwrap()).unwrap().error_band_percent > 0.0);
        assert!(parse("t", "error_band_percent = 1.0\n[costs]\nlatency = -1.0").is_err());
    }
}
