//! The door: hands the arguments to the program and returns its exit code.

use std::process::ExitCode;

/// Memory that many threads took and gave back returns to the system; with the allocator of the C
/// library each thread keeps what it once had.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ballast_app::main(std::env::args_os())
}
