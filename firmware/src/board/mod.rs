//! Start-up and registers: the only code of this crate that is `unsafe`.

pub(crate) mod log;
pub(crate) mod mps2_an386;
