//! What to compile for, as commands take it.

use shiftwise::device::{Device, find_board};
use shiftwise_graph::error::Error;
use shiftwise_targets::Board;

/// What to compile for.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(crate) struct TargetArgs {
    /// DPU: a name, a fingerprint, an arch.json, a board that has one; or `cpu`
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Board: its DPU, or its CPU where it has none or with --target cpu
    #[arg(long, value_name = "BOARD")]
    board: Option<String>,
}

impl TargetArgs {
    /// The DPU; `None` for the CPU.
    pub(crate) fn device(&self) -> Result<Option<Device>, Error> {
        match (self.target.as_deref(), self.board.as_deref()) {
            (Some("cpu"), _) => Ok(None),
            (Some(_), Some(_)) => {
                Err(Error::Options("a board has its own DPU: only --target cpu goes with --board".into()))
            }
            (Some(name), None) => Device::named(name).map(Some),
            (None, Some(board)) => Device::of_board(board),
            (None, None) => Err(Error::Options("--target or --board is needed".into())),
        }
    }

    /// The board, if one was named.
    pub(crate) fn board(&self) -> Result<Option<Board>, Error> {
        self.board.as_deref().map(find_board).transpose()
    }
}
