//! The fast kernels in plain Rust give the bytes of those that define them. Those with vector instructions are checked
//! the same way on their boards, by the image `kernel-check`.

use proptest::prelude::*;
use shiftwise_firmware::kernels::check::{MEMORY, check};

#[test]
fn the_first_layers_are_equal() {
    let mut memory = vec![0; MEMORY];
    for seed in 0..20_000 {
        assert_eq!(check(seed, &mut memory), Ok(()), "seed {seed}");
    }
}

proptest! {
    #[test]
    fn any_layer_is_equal(seed: u64) {
        prop_assert_eq!(check(seed, &mut vec![0; MEMORY]), Ok(()));
    }
}
