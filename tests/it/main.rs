//! The tests of certroll, in one binary.

mod golden;
mod inventory;
mod journal;
mod planner;
mod rehearsal;
mod report;
mod sim;
mod transport;
