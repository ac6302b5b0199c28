//! pushrelay: see [`pushrelay::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    pushrelay::cli::main()
}
