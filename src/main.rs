//! The `certroll` command; everything is in the library.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

fn main() -> std::process::ExitCode {
    forbid_core_dumps();
    certroll::cli::main()
}

/// Keeps the memory of this process, which holds private keys, out of files and from debuggers of the same user.
fn forbid_core_dumps() {
    // To lower a limit is always allowed. Where a sandbox forbids the second, the first still holds.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}
