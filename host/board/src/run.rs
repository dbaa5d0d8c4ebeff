//! A whole session with a board.

use std::path::Path;

use crate::client::Info;
use crate::machine::Board;
use crate::session::{BoardSpec, Limits, LinkError, SampleResult};
use shiftwise_core::link::Report;

/// All results of a session with a board.
#[derive(Clone, Debug)]
pub struct Session {
    /// Who ran it.
    pub info: Info,
    /// One entry per sample.
    pub samples: Vec<SampleResult>,
    /// The firmware's log, one line per entry; empty for a board that logs elsewhere.
    pub log: Vec<String>,
}

impl Session {
    /// The most bytes of stack that were in use on the board, and the bytes set aside for it; `None` if its log does not
    /// tell.
    pub fn stack(&self) -> Option<(u64, u64)> {
        let line = self.log.iter().find_map(|line| line.split_once("stack: "))?.1;
        let mut numbers = line.split(' ').filter_map(|word| word.parse().ok());
        Some((numbers.next()?, numbers.next()?))
    }
}

/// Boots the board, runs every sample and ends the session.
///
/// `firmware` is the image's ELF file, from which the log is decoded; see [`crate::image::find`]. A sample is one byte vector
/// per network input.
pub fn run_on_board(
    spec: &BoardSpec,
    firmware: &Path,
    deployable: &[u8],
    samples: impl IntoIterator<Item = Vec<Vec<u8>>>,
    report: Report,
) -> Result<Session, LinkError> {
    let mut board = Board::start(spec, firmware, deployable, Limits::default())?;
    board.load(deployable)?;
    let samples = samples.into_iter().map(|inputs| board.sample(&inputs, report)).collect::<Result<_, _>>()?;
    let info = board.info().clone();
    let log = board.finish()?;
    Ok(Session { info, samples, log })
}
