//! The `fanfare` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    fanfare_gateway::cli::main()
}
