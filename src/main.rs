//! The program: [`pushrelay::cli`] has all of it.

use std::process::ExitCode;

/// Chosen by measurement: see `docs/lab/2026-11-22-performance-experiments.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    pushrelay::cli::main()
}
