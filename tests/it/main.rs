//! The tests of certroll, in one binary.

mod acl;
mod cli;
mod direct;
mod floors;
mod fuzz;
mod golden;
mod hostile;
mod import;
mod inventory;
mod journal;
mod matrix;
mod pki;
mod planner;
mod preflight;
mod readme;
mod rehearsal;
mod report;
mod roots;
mod sim;
mod sshd;
mod survive;
mod transport;
mod twice;
