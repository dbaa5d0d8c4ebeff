//! Whether the library compiles for a browser.

use std::error::Error;

use shiftwise_board::image;

const TARGET: &str = "wasm32-unknown-unknown";

/// Checks the library without boards; where no compiler has the target, that is said and nothing is checked.
pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    match image::check_library("shiftwise", TARGET) {
        Ok(compiler) => println!("the library compiles for {TARGET}, by {compiler}"),
        Err(missing @ image::ImageError::NoToolchain(_)) => println!("not checked: {missing}"),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
