//! The integer form, evaluated.
