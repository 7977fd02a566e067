//! The door: hands the arguments to the program and returns its exit code.

fn main() -> std::process::ExitCode {
    ballast_app::main(std::env::args_os())
}
