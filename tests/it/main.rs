//! The tests of certroll, in one binary.

mod cli;
mod floors;
mod golden;
mod inventory;
mod planner;
mod readme;
mod report;
mod sim;
mod transport;
