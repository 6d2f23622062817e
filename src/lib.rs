//! certroll renews the certificates of RKE Kubernetes clusters over SSH.
//!
//! The modules stand on floors, and a module imports only from floors beneath its own (`tests/it/floors.rs` holds the table).

pub mod cli;
pub mod clock;
pub mod command;
pub mod escape;
pub mod event;
pub mod execute;
pub mod facts;
pub mod finding;
pub mod gather;
pub mod inventory;
pub mod journal;
pub mod kube;
pub mod pki;
pub mod plan;
pub mod rancher;
pub mod report;
pub mod sim;
pub mod transport;
pub mod workstation;
