//! The public key infrastructure of an RKE cluster, as data: which services there are and whose certificates they hold.

mod service;

pub use service::Service;
