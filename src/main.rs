//! The `certroll` command; everything is in the library.

fn main() -> std::process::ExitCode {
    certroll::cli::main()
}
