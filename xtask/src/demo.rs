//! The README's demonstration: one network through quantizer, compiler, simulator and an emulated board.

use std::error::Error;

use crate::setup;
use crate::step::Step;

/// The command line, as the README has it.
const VERIFY: &[&str] = &[
    "verify",
    "tests/data/digits_resnet.h5",
    "--calib",
    "tests/data/digits.npz:x_cal",
    "--data",
    "tests/data/digits.npz:x_eval",
    "--target",
    "DPUCZDX8G_ISA1_B4096",
    "--board",
    "qemu:mps2-an386",
];

/// Sets up, builds and verifies.
pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    setup::main()?;
    steps().iter().try_for_each(|step| step.run().map(|_| ()))
}

/// The build and the run.
pub(crate) fn steps() -> [Step; 2] {
    [
        Step::new("release build", &["cargo", "build", "--release", "--package", "shiftwise-cli"]),
        Step::new("verify the digits network", &[&["target/release/shiftwise"], VERIFY].concat()),
    ]
}
