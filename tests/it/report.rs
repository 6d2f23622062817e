//! What people and scripts read of inventories, facts, plans and runs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by them")]

mod check;
mod cluster;
mod nodes;
mod review;
mod runs;
mod state;
