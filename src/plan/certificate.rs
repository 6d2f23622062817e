use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::inventory::NodeName;
use crate::pki::{Authority, Fingerprint, KeyAlgorithm, Leaf};

/// A certificate that a run puts onto nodes, into the state of rke, or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewCertificate {
    /// Its name (`kube-node`).
    pub name: String,
    /// Where it comes from.
    pub source: CertificateSource,
    /// When those end that it takes the place of, by node: a resume sees the new ones there already.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub replaces: BTreeMap<NodeName, Timestamp>,
}

/// Where a new certificate and its key come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CertificateSource {
    /// The run makes it with the CA's key.
    Made {
        /// What it says.
        leaf: Leaf,
        /// Whose key it is for.
        key: KeySource,
        /// Until when it is valid.
        not_after: Timestamp,
    },
    /// A node has a good pair already, and all nodes share one.
    Node {
        /// That node.
        node: NodeName,
        /// The folder that holds the pair.
        directory: String,
        /// The certificate.
        sha256: Fingerprint,
    },
}

/// Where the key of a CA is read, for the time that it takes to sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaKey {
    /// Which CA.
    pub authority: Authority,
    /// The control plane node.
    pub node: NodeName,
    /// The folder that holds its certificate and its key.
    pub directory: String,
    /// The CA's certificate, which must be the same when the run reads it.
    pub sha256: Fingerprint,
}

/// Whose key a made certificate is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum KeySource {
    /// A new one.
    Made {
        /// Its kind, which is that of the present key.
        algorithm: KeyAlgorithm,
    },
    /// The one that the present certificate has. Its private half stays where it is, and is not read.
    ///
    /// On clusters from before rke 0.2 kube-apiserver's key signs the service account tokens: with a new one all of them would
    /// stop being valid.
    Kept {
        /// The present certificate.
        sha256: Fingerprint,
    },
}

impl NewCertificate {
    /// Returns whether the private key stays as it is.
    pub fn keeps_key(&self) -> bool {
        matches!(self.source, CertificateSource::Made { key: KeySource::Kept { .. }, .. })
    }

    /// Returns what the run makes of it, if it makes it.
    pub fn leaf(&self) -> Option<&Leaf> {
        match &self.source {
            CertificateSource::Made { leaf, .. } => Some(leaf),
            CertificateSource::Node { .. } => None,
        }
    }
}

/// A file of a new certificate on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewFile {
    /// The certificate's name.
    pub certificate: String,
    /// Which half of the pair.
    pub half: Half,
    /// The path below the node's Kubernetes directory (`ssl/kube-node.pem`).
    pub path: String,
    /// Owner and mode, where no file is there yet; one that is there keeps its own.
    pub otherwise: Ownership,
}

impl NewFile {
    /// Returns what a path below the Kubernetes directory says of its file: the certificate's name and the half.
    pub fn at(path: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or(path);
        let stem = name.strip_suffix(".pem").unwrap_or(name);
        let (certificate, half) = match stem.strip_suffix("-key") {
            Some(certificate) => (certificate, Half::Key),
            None => (stem, Half::Certificate),
        };
        Self { certificate: certificate.to_owned(), half, path: path.to_owned(), otherwise: Ownership::ROOT }
    }
}

/// Which half of a pair a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Half {
    /// The certificate.
    Certificate,
    /// The private key.
    Key,
}

/// Who owns a file, and who may do what with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ownership {
    /// The owner's number.
    pub user_id: u32,
    /// The group's number.
    pub group_id: u32,
    /// The permission bits.
    pub mode: u32,
}

impl Ownership {
    /// Root alone.
    pub const ROOT: Self = Self { user_id: 0, group_id: 0, mode: 0o600 };
}

/// What must be well before a step takes a component away; it is asked right before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Gate {
    /// Nothing depends on it.
    Open,
    /// Each of these etcd members says that it is healthy, and all name the same members.
    Etcd {
        /// The nodes.
        members: Vec<NodeName>,
    },
    /// None of these etcd members says that it is healthy: there is no quorum to lose.
    NoQuorum {
        /// The nodes.
        members: Vec<NodeName>,
    },
    /// Each of these API servers answers.
    ApiServers {
        /// The nodes.
        nodes: Vec<NodeName>,
    },
}
