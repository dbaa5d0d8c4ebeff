//! Why a layer loses accuracy: THE table of causes.

/// What is known of a layer.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Share of its values that the grid does not reach.
    pub(super) saturated: f64,
    /// Bits of the grid above the largest magnitude that was seen.
    pub(super) unused_bits: f64,
    /// Largest magnitude of a channel of its result over the median of all.
    pub(super) channel_ratio: f64,
    /// The same of its kernel's output channels.
    pub(super) weight_ratio: f64,
    /// Largest magnitude over the root of the mean square.
    pub(super) peak: f64,
    /// Channels that are zero for every sample, and all.
    pub(super) dead: (usize, usize),
    /// Signal to noise of the layer alone.
    pub(super) alone_db: f64,
    /// Samples that were calibrated with.
    pub(super) samples: usize,
}

/// Why a layer loses accuracy.
pub(super) struct Cause {
    /// A stable name.
    pub(super) name: &'static str,
    /// What is seen of it, as a sentence; `None` where it isn't.
    pub(super) find: fn(&Facts) -> Option<String>,
    /// Names of remedies, the most likely first.
    pub(super) remedies: &'static [&'static str],
}

/// A row per cause, the most telling first.
pub(super) const CAUSES: &[Cause] = &[
    Cause {
        name: "clipped",
        find: |f| {
            (f.saturated > 1e-3).then(|| format!("{:.2} % of its values are beyond the range", 100.0 * f.saturated))
        },
        remedies: &["whole_range", "finer_layer"],
    },
    Cause {
        name: "unequal_weights",
        find: |f| {
            (f.weight_ratio > 8.0)
                .then(|| format!("one channel's weights are {:.0} times as large as the median's", f.weight_ratio))
        },
        remedies: &["equalize", "finer_layer"],
    },
    Cause {
        name: "outlier_channels",
        find: |f| {
            (f.channel_ratio > 8.0)
                .then(|| format!("one channel is {:.0} times as large as the median channel", f.channel_ratio))
        },
        remedies: &["equalize", "finer_layer"],
    },
    Cause {
        name: "long_tail",
        find: |f| {
            (f.peak > 20.0).then(|| format!("its largest value is {:.0} times the root of the mean square", f.peak))
        },
        remedies: &["least_error", "finer_layer"],
    },
    Cause {
        name: "unused_range",
        find: |f| {
            (f.unused_bits >= 1.0).then(|| format!("the upper {:.0} bits of its range are never used", f.unused_bits))
        },
        remedies: &["least_error"],
    },
    Cause {
        name: "few_samples",
        find: |f| (f.samples < 16).then(|| format!("it was calibrated on {} samples", f.samples)),
        remedies: &[],
    },
    Cause {
        name: "dead_channels",
        find: |f| {
            let (dead, all) = f.dead;
            (dead > 0 && dead * 4 >= all).then(|| format!("{dead} of {all} channels are zero for every sample"))
        },
        remedies: &[],
    },
    Cause {
        name: "coarse",
        find: |f| (f.alone_db < 25.0).then(|| format!("8 bits give it {:.1} dB on its own", f.alone_db)),
        remedies: &["whole_weights", "finer_layer", "float_layer"],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_remedy_of_a_cause_is_one_of_the_table() {
        for name in CAUSES.iter().flat_map(|cause| cause.remedies) {
            assert!(crate::remedies::remedy(name).is_some(), "{name}");
        }
    }
}
