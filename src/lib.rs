//! certroll renews the certificates of RKE Kubernetes clusters over SSH.
//!
//! The modules stand on floors, and a module imports only from floors beneath its own (`tests/it/floors.rs` holds the table).

pub mod command;
pub mod finding;
pub mod inventory;
pub mod workstation;
