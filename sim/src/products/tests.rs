//! Whatever this machine uses, against the plain loops.

use proptest::prelude::*;
use shiftwise_core::exec::Segment;

use super::*;

/// Noise, of which one byte in four is −128: the product of two of them is the largest.
fn bytes(n: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        if state & 3 == 0 { 128 } else { (state >> 8) as u8 }
    };
    (0..n).map(|_| next()).collect()
}

proptest! {
    #[test]
    fn vectors_give_the_sums_of_the_definition(
        lanes in 1usize..=MAX_LANES,
        columns in 1usize..=COLUMNS,
        lens in prop::collection::vec(0u32..150, 0..7),
        seed in any::<u32>(),
        starts in prop::collection::vec(0u32..1000, 28),
        first in 0usize..50,
        gap in 0usize..20,
    ) {
        let banks = bytes(20_000, seed);
        let weight_bytes = lens.iter().sum::<u32>() as usize;
        let pitch = (weight_bytes + gap).min(200);
        prop_assume!(first + (lanes - 1) * pitch + weight_bytes <= banks.len());
        let segments: Vec<Segment> = (0..columns)
            .flat_map(|c| {
                let mut weight = 0;
                let starts = starts[c * 7..].to_vec();
                lens.iter().zip(starts).map(move |(len, input)| {
                    weight += len;
                    Segment { input, weight: weight - len, len: *len }
                })
            })
            .collect();
        let tile = Tile { banks: &banks, segments: &segments, columns, weights: [first, pitch], weight_bytes };
        let [mut ours, mut plain] = [[[0; MAX_LANES]; COLUMNS]; 2];
        HostProducts::detect().sums(&tile, lanes, &mut ours);
        Plain.sums(&tile, lanes, &mut plain);
        for column in 0..columns {
            prop_assert_eq!(&ours[column][..lanes], &plain[column][..lanes]);
        }
    }
}
