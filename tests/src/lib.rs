//! Cases, backends and oracles shared by the integration tests.

pub mod agreement;
#[cfg(feature = "cli")]
pub mod c_program;
pub mod cases;
pub mod command;
pub mod finetune;
pub mod fuzz;
pub mod golden;
pub mod graphs;
pub mod models;
pub mod networks;
pub mod odd;
pub mod reference;
pub mod scaled;
pub mod shared;
pub mod shuffle;
pub mod small;
pub mod training;
pub mod xmodel;
pub mod zoo;
