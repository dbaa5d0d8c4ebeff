//! Prints the table of reference cases: `cargo run --release -p shiftwise-tests --bin golden`. Names of cases behind that
//! print only these, with all differences.

use shiftwise_tests::golden::{check, check_file, table};
use shiftwise_tests::shared::golden_cases;

fn main() {
    let names: Vec<String> = std::env::args().skip(1).collect();
    if names.is_empty() {
        print!("{}", table(&golden_cases()));
        return;
    }
    for case in golden_cases() {
        let name = case.file_name().unwrap_or_default().to_string_lossy();
        if names.iter().any(|wanted| name.starts_with(wanted.as_str())) {
            println!("{name}\n  quantized here: {:?}\n  the vendor's file: {:?}", check(&case), check_file(&case));
        }
    }
}
