//! The numbers of windows and weights that limits speak of.

use shiftwise_core::fix::FixPos;
use shiftwise_core::shape::Window;

use crate::dpu::context::relu6;
use crate::dpu::limits::Facts;
use shiftwise_integer::graph::IntConv;

pub(crate) fn window_facts(w: &Window, channels: u32) -> Facts {
    Facts {
        kernel: w.kernel.map(u32::from),
        stride: w.stride.map(u32::from),
        dilation: w.dilation.map(u32::from),
        pad_before: w.pad_before.map(u32::from),
        pad_after: w.pad_after.map(u32::from),
        channels_in: channels,
        channels_out: channels,
        ..Facts::default()
    }
}

pub(crate) fn weight_facts(w: &Window, channels: u32, c: &IntConv, pos: FixPos) -> Facts {
    Facts {
        shift_cut: c.shift_cut,
        shift_bias: if c.bias.is_some() { c.shift_bias } else { 0 },
        relu6_pos: relu6(c.act, pos),
        ..window_facts(w, channels)
    }
}
