//! Pages that are made from tables in the code: THE list of them, their check, and their renewal.

use std::error::Error;

use crate::setup;
use crate::step::Step;

/// A page and what makes it.
struct Page {
    /// Where it is; a folder counts as one.
    path: &'static str,
    maker: Maker,
}

/// What makes a page.
enum Maker {
    /// A test that compares it, and rewrites it where `UPDATE_EXPECT` is set: quick, done by `cargo xtask docs`.
    Test(&'static str),
    /// A program of the tests with its arguments. It measures, on emulators or with reference data, for minutes: run by
    /// hand when what it measures has changed.
    Measurement(&'static str),
}

const PAGES: &[Page] = &[
    Page { path: "core/ISA.md", maker: Maker::Test("the_reference_page_is_current") },
    Page { path: "host/quant/SETTINGS.md", maker: Maker::Test("the_page_of_settings_is_current") },
    Page { path: "host/quant/SCHEMES.md", maker: Maker::Test("the_page_of_schemes_is_current") },
    Page { path: "docs/SUPPORTED.md", maker: Maker::Test("the_page_of_supported_layers_is_current") },
    Page { path: "docs/schema", maker: Maker::Test("every_report_has_its_schema_in_the_repository") },
    Page { path: "tests/GOLDEN.md", maker: Maker::Measurement("golden > tests/GOLDEN.md") },
    Page { path: "tests/zoo/CYCLES.md", maker: Maker::Measurement("calibrate -- --write") },
    Page { path: "firmware/MEASURED.md", maker: Maker::Measurement("instructions -- --write") },
    Page { path: "firmware/MEMORY.md", maker: Maker::Measurement("memory -- --write") },
];

/// Checks the pages that tests make, or with `check` false rewrites them, and says how to make the others.
pub(crate) fn main(check: bool) -> Result<(), Box<dyn Error>> {
    let mut tests = Vec::new();
    for page in PAGES {
        match page.maker {
            Maker::Test(name) => tests.push(name),
            Maker::Measurement(program) => {
                println!("{}: measured by\n  cargo run --release -p shiftwise-tests --bin {program}", page.path);
            }
        }
    }
    step(&tests, check).run()?;
    Ok(())
}

fn step(tests: &[&'static str], check: bool) -> Step {
    let step = if setup::works("cargo", &["nextest", "--version"]) {
        let filter: Vec<String> = tests.iter().map(|name| format!("test({name})")).collect();
        Step::new("generated pages", &["cargo", "nextest", "run", "--workspace", "-E"]).word(filter.join(" or "))
    } else {
        let step = Step::new("generated pages", &["cargo", "test", "--workspace", "--lib", "--tests", "--"]);
        tests.iter().fold(step, |step, name| step.word((*name).to_owned()))
    };
    if check { step } else { step.with("UPDATE_EXPECT", "1") }
}
