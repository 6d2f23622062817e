//! A Rancher client asks one Rancher server about a cluster, and to rotate its certificates, over the API v3.
//!
//! `cli` makes it from `--rancher-url` and its companions; `gather` looks at clusters and nodes through it, `execute` starts
//! rotations and waits for them. The token goes to the origin of that address alone: links that the server gives are re-based
//! onto it, and redirects are refused. Verification of certificates is never switched off for a request with a token.

mod answer;
mod client;
mod cluster;
mod error;
mod node;
mod origin;
#[cfg(test)]
mod tests;
mod trust;
mod version;

#[doc(hidden)]
pub use answer::read_in_every_way;
pub use client::{Client, LaunchedCluster, LaunchedMachine, Settings};
pub use cluster::{Cluster, Launcher, Rotation, RotationFlag, Transitioning, rotation_state};
pub use error::{NoRotation, RancherError};
pub use node::RancherNode;
pub use trust::{OwnAuthority, Trust, first_look};
pub use version::ServerVersion;
