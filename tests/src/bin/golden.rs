//! Prints the table of reference cases: `cargo run --release -p shiftwise-tests --bin golden`.

fn main() {
    print!("{}", shiftwise_tests::golden::table(&shiftwise_tests::shared::golden_cases()));
}
