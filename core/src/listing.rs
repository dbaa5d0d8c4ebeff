//! A deployable's DPU code as text, with the layers it came from.

use core::fmt::{self, Write};

use crate::isa::codec::program;
use crate::isa::layout::IsaVersion;
use crate::model::{Deployable, LayerSpan, Step};

/// A name of any origin in a comment, which it can't end: control characters are replaced.
#[derive(Clone, Copy, Debug)]
pub struct OneLine<'a>(pub &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| f.write_char(if c.is_control() { '\u{fffd}' } else { c }))
    }
}

/// Writes one line per instruction, as the assembler reads it. Comments (`;`) name jobs and layers.
///
/// Code that does not decode ends its job with a comment that says why.
pub fn write(model: &Deployable<'_>, isa: IsaVersion, out: &mut impl Write) -> fmt::Result {
    for (number, step) in (0u16..).zip(model.steps()) {
        let Step::Dpu(job) = step else { continue };
        writeln!(out, "; step {number}: {} ({} bytes)", OneLine(job.name), job.bytes)?;
        let spans = || model.layers().filter(|l| l.step == number);
        let mut boundary = spans().map(|l| l.first).min();
        for (index, (offset, line)) in (0u32..).zip(program(isa, model.job_code(&job))) {
            if boundary == Some(index) {
                for LayerSpan { layer, count, macs, .. } in spans().filter(|l| l.first == index) {
                    let layer = OneLine(layer);
                    writeln!(out, "; layer {layer}: {count} instructions from {index}, {macs} MAC")?;
                }
                boundary = spans().map(|l| l.first).filter(|first| *first > index).min();
            }
            match line {
                Ok(line) => writeln!(out, "{line}")?,
                Err(error) => writeln!(out, "; byte {offset}: {error}")?,
            }
        }
    }
    Ok(())
}
