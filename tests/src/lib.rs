//! Cases and backends.
pub mod small;
