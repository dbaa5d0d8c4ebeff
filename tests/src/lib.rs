//! Cases and backends.
