//! The PKI is RKE's: certificates, keys, and the catalogue of files that RKE keeps on nodes.
//!
//! `facts` reads what lies on nodes with it, `plan` decides by it, `execute` signs with it. It does no I/O.

mod algorithm;
mod catalogue;
mod certificate;
mod issue;
mod key;
mod leaf;
mod pem;
mod service;

pub use algorithm::{KeyAlgorithm, new_key};
pub use catalogue::{
    Class, KUBE_ADMIN, KUBE_CA, Location, REQUESTHEADER_COPIES, class, expected_names, services_of,
};
pub use certificate::{Certificate, CertificateError, Fingerprint};
pub use issue::{IssueError, KeyPair, Signer, SubjectKey};
pub use key::{KeyKind, PublicPrefix};
pub use leaf::{Authority, Leaf, SanDrift, Usage, leaf, san_drift};
pub use pem::KeyError;
pub use service::Service;
