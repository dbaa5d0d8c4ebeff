//! An image that runs random layers through the board's kernels and through those that define them, and ends with a
//! status: `cargo xtask firmware check`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
#[path = "../board/mod.rs"]
#[allow(dead_code, unused_imports, reason = "this image has no link")]
mod board;

/// Layers that are tried.
#[cfg(target_os = "none")]
const LAYERS: u64 = 3000;

#[cfg(target_os = "none")]
fn serve() -> ! {
    use shiftwise_firmware::kernels::check::check;

    let Some(parts) = board::take() else { board::exit(false) };
    for seed in 0..LAYERS {
        if let Err(difference) = check(seed, parts.memory.arena) {
            defmt::error!("layer {=u64}: {}", seed, difference);
            board::exit(false);
        }
    }
    defmt::info!("{=u64} layers are equal on {=str}", LAYERS, board::NAME);
    board::exit(true)
}

#[cfg(not(target_os = "none"))]
fn main() {
    println!("This is an image for a board: `cargo xtask firmware check` builds and runs it.");
}
