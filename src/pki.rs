//! The PKI is RKE's: certificates, keys, and the catalogue of files that RKE keeps on nodes.
//!
//! `facts` reads what lies on nodes with it, `plan` decides by it, `execute` signs with it. It does no I/O.

mod algorithm;
mod catalogue;
mod certificate;
mod issue;
mod json_text;
mod key;
mod kube_access;
mod kube_config;
mod leaf;
mod pem;
mod saved_state;
mod service;
mod state;

pub use algorithm::{KeyAlgorithm, new_key};
pub use catalogue::{
    Class, KUBE_ADMIN, KUBE_CA, Location, REQUESTHEADER_COPIES, class, expected_names, services_of,
};
#[cfg(test)]
pub(crate) use certificate::PublicKeyPlace;
pub use certificate::{Certificate, CertificateError, Fingerprint};
pub use issue::{IssueError, KeyPair, Signer, SubjectKey};
pub use json_text::{JsonError, JsonText};
pub use key::{KeyKind, PublicPrefix};
pub use kube_access::{Access, AccessError, Credentials, Material};
pub use kube_config::{ClusterAddress, KubeConfig, KubeConfigError, admin_kube_config};
pub use leaf::{Authority, Leaf, SanDrift, Usage, leaf, san_drift};
pub use pem::KeyError;
pub use saved_state::{SavedCertificate, SavedState, SavedStateError, legacy_configuration};
pub use service::Service;
pub use state::{FullState, StateCertificate, StateError, StateKind};
