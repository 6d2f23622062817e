//! What the bastion keeps of a cluster beside its cluster.yml: rke's state and the administrator's kubeconfig.
//!
//! `workstation` reads it, the planner decides by it; nothing here is secret.

use std::path::PathBuf;

use crate::pki::{Certificate, Fingerprint};

/// The files of the bastion that hold certificates of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BastionFiles {
    /// rke's state, where it is there.
    pub state: Option<StateSummary>,
    /// Where the administrator's kubeconfig lies or would lie; `None` where the cluster.yml comes from standard input.
    pub kube_config_path: Option<PathBuf>,
    /// The administrator's kubeconfig, where it is there.
    pub kube_config: Option<KubeConfigSummary>,
}

/// What is in a `.rkestate` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateSummary {
    /// The file.
    pub path: PathBuf,
    /// Its kube-ca: the state of another cluster has another one.
    pub authority: Option<Fingerprint>,
    /// The names of its certificates, each once.
    pub names: Vec<String>,
}

/// What is in a `kube_config_<file>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeConfigSummary {
    /// The file.
    pub path: PathBuf,
    /// The CA that it verifies the API server against.
    pub authority: Option<Fingerprint>,
    /// The certificate that it embeds.
    pub admin: Option<Certificate>,
}

/// A file of the bastion beside the copy of it that a run has kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BastionCopy {
    /// The file.
    pub path: String,
    /// Where the run has kept what it replaced; `None` where it has not.
    pub copy: Option<String>,
    /// Whether the file is there.
    pub is_present: bool,
    /// Whether the file holds what the copy holds.
    pub is_same: bool,
}
