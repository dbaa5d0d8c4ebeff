//! What is learned of a tensor's values before a grid is chosen: their extrema, or how they are distributed.
//!
//! Results never depend on the number of threads: extrema have no order, and counts are whole numbers.

pub mod divergence;
pub mod extrema;
pub mod histogram;
pub mod range_error;
