//! Cases and backends.

pub mod shared;
