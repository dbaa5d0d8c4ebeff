//! Block floating point as ONNX' standard operators.

use shiftwise_core::arith::Round;
use shiftwise_graph::dtype::Dtype;
use shiftwise_graph::ops::tfop::Reduction;
use shiftwise_operators::{Operators, rounded};
use shiftwise_quant::scheme::block::{Block, Format};

use crate::writer::{Writer, int};

/// Reciprocal of ln 2, as the quantizer has it.
const PER_LN2: f32 = std::f32::consts::LOG2_E;

/// Values along the last axis that share an exponent, and those of them that may have one of their own.
#[derive(Clone, Copy)]
struct Tiles {
    block: usize,
    pair: Option<usize>,
}

impl Writer {
    /// A value behind a quantizer of blocks.
    pub(super) fn in_blocks(
        &mut self,
        own: &Block,
        scope: &str,
        shape: &[usize],
        value: String,
    ) -> Result<String, String> {
        let p = &own.params;
        let (tiles, round) = match p.data_format {
            Format::Fp32 => return Ok(value),
            Format::Bf16 => return Ok(self.halved(Dtype::BFloat16, scope, value)),
            Format::Bfp => {
                let round = Round::from_id(p.round_mode).unwrap_or(Round::HalfUp);
                (Tiles { block: p.tile_size as usize, pair: None }, round)
            }
            Format::Msfp => (Tiles { block: 12, pair: Some(2) }, Round::HalfAwayFromZero),
        };
        let rank = shape.len() as i64 + 1;
        let axis = if p.channel_axis < 0 { p.channel_axis + rank } else { p.channel_axis };
        let last = shape.last().copied().filter(|_| axis == rank - 1);
        let row = last.ok_or("blocks along another axis than the last are not written as ONNX")?;
        // Zeros behind a row change no exponent.
        let whole = row.next_multiple_of(tiles.block);
        let mut padded = shape.to_vec();
        *padded.last_mut().unwrap_or(&mut 0) = whole;
        let mut x = value.clone();
        if whole != row {
            let mut pads = vec![0; 2 * rank as usize];
            *pads.last_mut().unwrap_or(&mut 0) = (whole - row) as i64;
            let pads = self.integers(&format!("{scope}/paddings"), &pads);
            x = self.node("Pad", &format!("{scope}/Pad"), &[&x, &pads], Vec::new());
        }
        let inner = tiles.pair.map_or_else(|| vec![tiles.block], |pair| vec![tiles.block / pair, pair]);
        x = self.reshaped(&format!("{scope}/tiles"), &x, &inner);
        x = self.tiled(scope, x, tiles, (i32::from(p.bit_width) - 9, round));
        x = self.reshaped(&format!("{scope}/rows"), &x, &padded);
        if whole != row {
            x = self.sliced(&format!("{scope}/strided_slice"), &x, (&[0], &[row as i64]), &[rank - 1], &[1]);
        }
        Ok(x)
    }

    /// Tiles on their grids. What is not finite stays as it is and has no part in an exponent.
    fn tiled(&mut self, scope: &str, x: String, tiles: Tiles, (mantissa, round): (i32, Round)) -> String {
        let named = |part: &str| format!("{scope}/{part}");
        let size = self.node("Abs", &named("Abs"), &[&x], Vec::new());
        let largest = self.float(&named("largest"), f32::MAX);
        let finite = self.node("LessOrEqual", &named("finite"), &[&size, &largest], Vec::new());
        let nothing = self.float(&named("nothing"), 0.0);
        let size = self.node("Where", &named("sizes"), &[&finite, &size, &nothing], Vec::new());
        let clean = self.node("Where", &named("values"), &[&finite, &x, &nothing], Vec::new());
        let axes: &[i64] = if tiles.pair.is_some() { &[1, 2] } else { &[1] };
        let shared = self.exponent(&named("block"), &size, axes);
        let own = match tiles.pair {
            None => shared.clone(),
            Some(_) => {
                let pair = self.exponent(&named("pair"), &size, &[2]);
                let one = self.float(&named("one"), 1.0);
                let least = self.node("Sub", &named("least"), &[&shared, &one], Vec::new());
                self.node("Max", &named("Maximum"), &[&pair, &least], Vec::new())
            }
        };
        let step = self.power(&named("step"), &own, (1 - mantissa) as f32);
        let top = self.power(&named("top"), &shared, 1.0);
        let limit = self.node("Sub", &named("limit"), &[&top, &step], Vec::new());
        let low = self.node("Neg", &named("low"), &[&limit], Vec::new());
        let mut y = self.node("Div", &named("truediv"), &[&clean, &step], Vec::new());
        y = rounded(self, scope, y, round);
        y = self.node("Mul", &named("mul"), &[&y, &step], Vec::new());
        y = self.node("Min", &named("Minimum"), &[&y, &limit], Vec::new());
        y = self.node("Max", &named("clip_by_value"), &[&y, &low], Vec::new());
        self.node("Where", &named("SelectV2"), &[&finite, &y, &x], Vec::new())
    }

    /// The exponent of the largest magnitude along axes: floor(ln(v + 2^−23) / ln 2).
    fn exponent(&mut self, scope: &str, sizes: &str, axes: &[i64]) -> String {
        let most = self.reduced(Reduction::Max, scope, Some("Max"), sizes, axes, true);
        let epsilon = self.float(&format!("{scope}/epsilon"), f32::EPSILON);
        let sum = self.node("Add", &format!("{scope}/add"), &[&most, &epsilon], Vec::new());
        // In 64 bits, so that the one rounding to 32 gives the logarithm that is nearest.
        let wide = self.node("Cast", &format!("{scope}/wide"), &[&sum], vec![int("to", 11)]);
        let wide = self.node("Log", &format!("{scope}/Log"), &[&wide], Vec::new());
        let log = self.node("Cast", &format!("{scope}/Cast"), &[&wide], vec![int("to", 1)]);
        let per_ln2 = self.float(&format!("{scope}/per_ln2"), PER_LN2);
        let e = self.node("Mul", &format!("{scope}/mul"), &[&log, &per_ln2], Vec::new());
        self.node("Floor", &format!("{scope}/Floor"), &[&e], Vec::new())
    }

    /// 2^(e + more).
    fn power(&mut self, scope: &str, e: &str, more: f32) -> String {
        let more = self.float(&format!("{scope}/more"), more);
        let e = self.node("Add", &format!("{scope}/add"), &[e, &more], Vec::new());
        let two = self.float(&format!("{scope}/two"), 2.0);
        self.node("Pow", &format!("{scope}/pow"), &[&two, &e], Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::PER_LN2;

    #[test]
    fn the_reciprocal_is_the_quantizers() {
        assert_eq!(PER_LN2.to_bits(), 0x3FB8_AA3B);
    }
}
