//! The `fanfare` program.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Chosen by measurement (ADR 0025): a node's allocations are small, and freed on another core than their own.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    fanfare_gateway::cli::main()
}
