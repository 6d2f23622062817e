//! Connections to an SSH server in this process: what is accepted, what is refused, and what the refusals say.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod faults;
mod host_keys;
mod jumps;
mod login;
mod operator;
mod proxy;
mod server;
mod session;
