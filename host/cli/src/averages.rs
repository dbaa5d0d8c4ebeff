//! What commands say of averages that the DPU computes otherwise than the vendor's simulation.

use shiftwise_integer::averages::Difference;

use crate::screen::Screen;

/// One warning for each.
pub(crate) fn tell(differences: &[Difference], screen: &Screen) {
    differences.iter().for_each(|d| screen.note(format!("warning: {d}")));
}
