//! Connections to an SSH server in this process: what is accepted, what is refused, and what the refusals say.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

pub(crate) mod agent;
mod agents;
mod configured;
mod faults;
mod host_keys;
mod jumps;
mod login;
pub(crate) mod operator;
mod proofs;
mod proxy;
mod server;
mod session;
mod windows;
