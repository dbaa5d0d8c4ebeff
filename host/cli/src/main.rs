//! The program `shiftwise`.

fn main() -> std::process::ExitCode {
    shiftwise_cli::run(std::env::args_os().collect()).into()
}
