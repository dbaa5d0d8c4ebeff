//! Random numbers by place: what is drawn depends on the seed and on what it is drawn for, never on what was drawn before.

/// A source of random numbers: SplitMix64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Random(u64);

impl Random {
    /// The source of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The source for one of many places; nothing is drawn from this one.
    pub fn stream(self, place: u64) -> Self {
        let mut own = Self(self.0 ^ place.wrapping_add(1).wrapping_mul(0xD6E8_FEB8_6659_FD93));
        Self(own.next_u64())
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from 0 to 1, without 1.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number below `count`, or 0. What is off from evenness is less than `count` / 2^64.
    pub fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.next_u64()) * count as u128) >> 64) as usize
    }

    /// The numbers below `count` in random order (Fisher and Yates).
    pub fn order(mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        (1..count).rev().for_each(|i| order.swap(i, self.below(i + 1)));
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_has_every_number_once_and_streams_differ() {
        let random = Random::new(7);
        let mut order = random.stream(1).order(1000);
        assert_ne!(order, random.stream(2).order(1000));
        assert_eq!(order, random.stream(1).order(1000));
        order.sort_unstable();
        assert!(order.into_iter().eq(0..1000));
    }

    #[test]
    fn numbers_are_spread_evenly() {
        let mut random = Random::new(0);
        let mut bins = [0usize; 10];
        (0..10_000).for_each(|_| bins[(random.unit() * 10.0) as usize] += 1);
        assert!(bins.iter().all(|n| (900..1100).contains(n)), "{bins:?}");
    }
}
