//! How many cases a property test tries.

/// What `PROPTEST_CASES` says, or `default`.
pub fn cases(default: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// How many of `cases` may be rejected: one in eight, and what a short run may meet by chance.
pub fn rejects(cases: u32) -> u32 {
    cases / 8 + 64
}
