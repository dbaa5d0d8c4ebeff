//! From a float network to integers that a DPU computes bit for bit: what every command does, as functions that return
//! typed reports.
//!
//! A command line, a Python package or a page in a browser parses arguments, calls these functions, prints, and says what
//! to do about an error; the JSON of a command is its report, serialized.
//!
//! ```
//! use shiftwise::{dataset, device::Device, verify::verify};
//! use shiftwise_graph::eval::Samples as _;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data");
//! let model = shiftwise_formats::load(format!("{folder}/digits_lenet.h5").as_ref(), &Default::default())?;
//! let input = model.node(model.inputs[0]);
//! let data = |key| {
//!     let spec = dataset::DataSpec::parse(&format!("{folder}/digits.npz:{key}"));
//!     dataset::Inputs::open(&[(None, spec)], &[(&input.name, &input.shape)])
//! };
//! let (calibration, samples) = (data("x_cal")?, data("x_eval")?);
//!
//! let strategy = shiftwise_quant::strategy::Strategy::built_in("pof2s")?;
//! let options = shiftwise_quant::pipeline::PtqOptions::new(strategy);
//! let quantized = shiftwise_quant::pipeline::ptq(model.clone(), &calibration, &options, |_, _| {})?.quantized;
//!
//! let dpu = Device::named("B512")?;
//! let graph = shiftwise_integer::lower::lower(&quantized)?;
//! let program = shiftwise::build::program(&graph, Some(&dpu), false, false)?;
//! assert!(!program.to_bytes(&[])?.is_empty());
//!
//! let proof = verify(&quantized, &dpu, samples.batch(0, 2)?)?;
//! assert!(proof.holds, "{}", proof.verdict);
//! # Ok(())
//! # }
//! ```
//!
//! Invariants
//! - Nothing is printed, no flag of a command line is named, and no argument parser is known.
//! - Files are read by [`dataset`], [`dump`], [`training::checkpoint`] and [`provenance`], and written only into a set or folder that the caller
//!   names.
//! - The result of a function doesn't depend on the number of threads.
//! - Boards are behind the feature `board`.
//!
//! API boundary: yes. What other crates of the workspace offer may change with any version.
//!
//! - [`dataset`]: samples and labels out of arrays and images; [`provenance`]: where a result came from
//! - [`device`]: what a network is compiled for; [`build`]: its program and memory; [`estimate`]: its time
//! - [`convert`]: float models in other types
//! - [`training`]: a network over labelled data; [`deployment`]: what it is at inference
//! - [`run`], [`cost`], [`outputs`]: a deployable's frames on this machine, their bounds and their results
//! - [`vendor_program`]: the same of a program that the vendor compiled; [`vendor_file`]: our programs in its format
//! - [`verify`]: the proof; [`golden`], [`dump`]: every tensor, in the vendor's layout; [`evaluate`]: accuracy; [`predict`]: outputs
//! - [`part`]: runs that several processes share
//! - [`report`]: a page of all that
//! - [`analyze`]: where quantization hurts, why, and what helps
//! - [`tune`]: what a strategy leaves open, searched for accuracy and time
//! - [`diff`]: what differs between two models, strategies or programs
//! - [`inspect`]: where each layer would run, why, at what price, and what would change it
//! - [`info`]: what any file is, and how an application feeds it
//! - [`averages`]: where the DPU computes otherwise than the vendor's simulation
//! - [`listing`]: machine code as text and back; [`text`]: text of unknown origin for people

pub mod analyze;
pub mod averages;
#[cfg(feature = "board")]
pub mod board_run;
pub mod build;
pub mod convert;
pub mod cost;
pub mod dataset;
pub mod deployment;
pub mod device;
pub mod diff;
pub mod dump;
pub mod estimate;
pub mod evaluate;
pub mod export;
pub mod golden;
pub mod info;
pub mod inspect;
pub mod listing;
pub mod memory;
pub mod outputs;
pub mod part;
pub mod predict;
pub mod provenance;
mod remedies;
pub mod report;
pub mod reports;
pub mod run;
pub mod simulate;
pub mod speed;
pub mod targets;
pub mod text;
pub mod training;
pub mod tune;
pub mod vendor_file;
pub mod vendor_program;
pub mod vendor_simulation;
pub mod verify;

pub use shiftwise_graph::error::Error;
