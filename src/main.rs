//! pushrelay: see [`pushrelay::cli`].

use std::process::ExitCode;

/// Measured, not assumed: see `docs/benchmarks.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    pushrelay::cli::main()
}
