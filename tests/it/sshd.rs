//! The real program against the real sshd, in the configurations that people have, and against hosts that are none.
//!
//! Each test starts sshds of its own (`/usr/sbin/sshd -D -e`) on addresses of loopback and ports of their own, without a container; what they
//! need lies in a folder that goes with them. Where there is no sshd, the tests say so past the capture of their output.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on panics"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "the operator's files are written, and programs started, by the test"
)]

mod accounts;
mod authorities;
mod bastion;
mod certificates;
mod daemon;
mod exec;
mod faults;
mod hosts;
mod keys;
mod login;
mod names;
mod operator;
mod processes;
mod proofs;
mod root;
mod servers;
mod thousand;
mod typed;
