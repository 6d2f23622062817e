//! Certificates that certroll makes, held against those that the real rke made, against RKE's sources, and against the
//! programs that must accept them.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a case that is not as it should be fails its test, and one that cannot be tried says so"
)]

mod authority;
mod drift;
mod probe;
mod programs;
mod refusals;
mod rke;
mod tags;
