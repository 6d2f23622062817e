//! The inventory is what a `cluster.yml` says of a cluster: nodes, how they are reached, and what shapes their certificates.
//!
//! `Inventory::parse` makes it from text, with RKE's defaults and RKE's validation; everybody above reads it.

mod cluster;
mod draft;
mod excerpt;
mod fields;
mod keys;
mod machine;
mod notes;
mod problem;
mod schema;
mod source;
mod spelling;
mod tree;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use self::draft::{Draft, DraftError, DraftMachine};
pub use self::problem::{InvalidInventory, Problem};

use crate::finding::Finding;

/// The name of a node: RKE's `hostname_override`, in lower case, or its address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeName(String);

impl NodeName {
    /// Returns the name as given.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

/// What a node does in its cluster (RKE `services/services.go`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs kube-apiserver, kube-controller-manager and kube-scheduler.
    ControlPlane,
    /// Is a member of the etcd cluster.
    Etcd,
    /// Runs workloads.
    Worker,
}

impl Role {
    /// Every role, in the order in which they are shown.
    pub const ALL: [Self; 3] = [Self::ControlPlane, Self::Etcd, Self::Worker];

    /// Returns the word that RKE uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ControlPlane => "controlplane",
            Self::Etcd => "etcd",
            Self::Worker => "worker",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// A private key or another text that must not be shown; it is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text into custody.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Returns the text; the caller must not show or store it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

/// Who says a value that RKE has a default for: the ssh_config may replace a default, and nothing that was written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ValueOrigin {
    /// The file gives it.
    #[default]
    File,
    /// RKE fills it in.
    Default,
}

/// How to log in over SSH, with RKE's defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SshCredentials {
    /// A private key in the file itself (`ssh_key`).
    pub key: Option<Secret>,
    /// The path of a private key, `~/` not yet expanded (`ssh_key_path`).
    pub key_path: Option<String>,
    /// An OpenSSH certificate in the file itself (`ssh_cert`).
    pub certificate: Option<String>,
    /// The path of an OpenSSH certificate (`ssh_cert_path`).
    pub certificate_path: Option<String>,
    /// Whether the agent of `SSH_AUTH_SOCK` is used (`ssh_agent_auth`).
    pub agent: bool,
    /// Who says `key_path`.
    pub key_path_origin: ValueOrigin,
    /// Who says the port of the machine.
    pub port_origin: ValueOrigin,
}

/// One machine of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The name that certroll shows and Kubernetes knows.
    pub name: NodeName,
    /// The address that SSH connects to.
    pub address: String,
    /// The address that components use among themselves; `address` where the file gives none.
    pub internal_address: String,
    /// The port of sshd.
    pub port: u16,
    /// The user that logs in.
    pub user: String,
    /// The roles without repetition, in the order of [`Role::ALL`].
    pub roles: Vec<Role>,
    /// The path of docker's socket on the node.
    pub docker_socket: String,
    /// How to authenticate.
    pub ssh: SshCredentials,
    /// Kubernetes labels.
    pub labels: BTreeMap<String, String>,
}

impl Node {
    /// Returns whether the node holds a role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Returns the label by which the node says that it runs Windows. Only workers can.
    ///
    /// Rancher and kubelets set these labels; rke asks docker (v1.2.0 `hosts/hosts.go` `IsWindows`).
    pub fn windows_label(&self) -> Option<&'static str> {
        let is_windows = |label: &&str| {
            self.labels.get(*label).is_some_and(|value| value.trim().eq_ignore_ascii_case("windows"))
        };
        if self.roles != [Role::Worker] {
            return None;
        }
        ["kubernetes.io/os", "beta.kubernetes.io/os", "cattle.io/os"].into_iter().find(is_windows)
    }

    /// Returns whether a name that somebody else has for a machine is one of this node's: its name or an address.
    pub fn is_known_as(&self, name: &str) -> bool {
        [self.name.as_str(), &self.address, &self.internal_address]
            .iter()
            .any(|own| own.eq_ignore_ascii_case(name))
    }

    /// Returns the address part of this node's file names (`kube-etcd-10-0-0-1`): RKE `pki/util.go` `GetCrtNameForHost`.
    pub fn file_name_address(&self) -> String {
        let address = if self.internal_address.is_empty() { &self.address } else { &self.internal_address };
        address.replace('.', "-").to_lowercase()
    }
}

/// The machine through which all nodes are reached (`bastion_host`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bastion {
    /// The address that SSH connects to.
    pub address: String,
    /// The port of sshd.
    pub port: u16,
    /// The user that logs in.
    pub user: String,
    /// How to authenticate.
    pub ssh: SshCredentials,
}

/// How many nodes of a kind may be unavailable at a time (RKE `upgrade_strategy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaxUnavailable {
    /// That many nodes.
    Count(u32),
    /// That share of all nodes of the kind, in percent.
    Percent(u32),
}

impl MaxUnavailable {
    /// RKE's default for workers (`cluster/defaults.go`).
    pub const DEFAULT: Self = Self::Percent(10);

    /// Returns the number for a count of nodes, rounded down as RKE does, but at least 1.
    pub fn of(self, nodes: usize) -> usize {
        match self {
            Self::Count(count) => count as usize,
            Self::Percent(percent) => nodes.saturating_mul(percent as usize) / 100,
        }
        .max(1)
    }
}

impl fmt::Display for MaxUnavailable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(formatter, "{count}"),
            Self::Percent(percent) => write!(formatter, "{percent}%"),
        }
    }
}

/// What a `cluster.yml` says, with RKE's defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// `cluster_name`, or `local`.
    pub cluster_name: String,
    /// `kubernetes_version` (`v1.11.6-rancher1-1`), where the file gives one.
    pub kubernetes_version: Option<String>,
    /// `prefix_path` as the file gives it; `/` means that the node's operating system decides (RKE `hosts/hosts.go`).
    pub prefix_path: String,
    /// The nodes in the order of the file.
    pub nodes: Vec<Node>,
    /// `bastion_host`.
    pub bastion: Option<Bastion>,
    /// `authentication.sans`.
    pub authentication_sans: Vec<String>,
    /// `services.kube-api.service_cluster_ip_range`, split at commas.
    pub service_cluster_ip_ranges: Vec<String>,
    /// `services.kubelet.cluster_domain`.
    pub cluster_domain: String,
    /// `services.kubelet.generate_serving_certificate`.
    pub generate_serving_certificate: bool,
    /// `ignore_docker_version`.
    pub ignore_docker_version: bool,
    /// `services.etcd.external_urls`; empty when the cluster runs its own etcd.
    pub external_etcd_urls: Vec<String>,
    /// `services.etcd.uid` and `gid`, where the file sets them.
    pub etcd_owner: Option<(u32, u32)>,
    /// `upgrade_strategy.max_unavailable_worker`.
    pub max_unavailable_worker: MaxUnavailable,
    /// `system_images` that are set, by RKE's name.
    pub system_images: BTreeMap<String, String>,
}

/// An inventory, and what was noticed while it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The inventory.
    pub inventory: Inventory,
    /// What a person should know of the file: keys that RKE does not read, an even number of etcd members.
    pub findings: Vec<Finding>,
}

impl Inventory {
    /// The largest text that is read, in bytes: a file of 5,000 nodes has a tenth of it.
    pub const LARGEST_TEXT: u64 = 4 * 1024 * 1024;

    /// Reads the text of a `cluster.yml`, as RKE or Rancher's "Edit as YAML" write it.
    ///
    /// `source` is the name of the file in messages. The error holds every problem that was found, each with its line.
    pub fn parse(text: &str, source: &str) -> Result<Parsed, InvalidInventory> {
        cluster::parse(text, source)
    }

    /// Returns the nodes that hold a role, in the order of the file.
    pub fn with_role(&self, role: Role) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |node| node.has(role))
    }

    /// Returns the node of a name.
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == *name)
    }
}
