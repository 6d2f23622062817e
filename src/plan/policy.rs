use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Procedure, Via};
use crate::facts::{BastionFiles, RkeProgram};
use crate::inventory::{MaxUnavailable, Node, NodeName};
use crate::pki::Service;

/// What the operator wants, and the time: all that shapes a plan beside inventory and facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What is to be achieved.
    pub procedure: Procedure,
    /// Who makes the new certificates; `rotate` needs it.
    pub via: Option<Via>,
    /// The services that were selected; empty for all.
    pub services: Vec<Service>,
    /// Certificates that end within this time are renewed.
    pub renew_within: SignedDuration,
    /// Whether certificates that are good for long are renewed too.
    pub renewal: Renewal,
    /// How many workers may be unavailable at a time.
    pub max_unavailable_worker: MaxUnavailable,
    /// The nodes that were selected with `-n`; `None` for all.
    pub selected: Option<BTreeSet<NodeName>>,
    /// Rancher, as far as it is known.
    pub rancher: Option<RancherTarget>,
    /// How long the operator or Rancher may take.
    pub wait: Duration,
    /// How long a component may take until it answers again after its restart; looks at whole nodes may take longer in proportion.
    pub health_timeout: Duration,
    /// What `--via direct` is told beside the rest; `None` for every other way.
    pub direct: Option<Direct>,
    /// The `rke` command and what it works with; `None` for every other way.
    pub rke: Option<Rke>,
    /// The run whose lock may be broken.
    pub break_lock: Option<String>,
    /// Whether most of the control plane must be there.
    pub majority: Majority,
    /// The time of day.
    pub now: Timestamp,
}

impl Policy {
    /// Returns how long a node may take until everything on it is well again, and every new pair is taken: nodes are Ready some 15 s
    /// after their kubelet came back (§0.1), which is more than one component needs.
    pub(super) fn verify_timeout(&self) -> Duration {
        self.health_timeout * 3 / 2
    }

    /// Returns how long etcd and control plane nodes may take to show and serve what somebody else says to have rotated: their components
    /// are restarted one after the other.
    pub(super) fn confirm_timeout(&self) -> Duration {
        self.health_timeout * 5 / 2
    }
}

/// Whether a run needs the lock on most controlplane nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Majority {
    /// A run on the others could be at work at the same time.
    #[default]
    Needed,
    /// They are down, and the operator knows that no other run is at work (`--without-majority`).
    Waived,
}

/// What the operator wants of `--via direct`, and what lies on the bastion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Direct {
    /// How long new certificates are valid; never beyond their CA.
    pub validity: SignedDuration,
    /// What becomes of the kubelet's own serving certificate.
    pub kubelet_serving: KubeletServing,
    /// What becomes of certificates that RKE did not make.
    pub custom: CustomCertificates,
    /// What becomes of Rancher's own copy, on a cluster that Rancher launched.
    pub after: AfterDirect,
    /// rke's files beside the cluster.yml.
    pub bastion: BastionFiles,
}

/// The `rke` command of the bastion, and what it works with (`--via rke`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rke {
    /// The program.
    pub program: RkeProgram,
    /// The full path of the cluster.yml; `None` where it comes from standard input.
    pub config: Option<PathBuf>,
    /// rke's files beside it.
    pub bastion: BastionFiles,
    /// The paths of the files that it writes there, whether or not they are there.
    pub files: Vec<PathBuf>,
    /// Whether keys of the agent are to be used though the cluster.yml does not say so (`--ssh-agent`).
    pub agent: RkeAgent,
    /// Options that change how certroll logs in, and that rke does not hear of.
    pub own_login: Vec<String>,
}

/// Whether rke is told to use the agent of `SSH_AUTH_SOCK`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RkeAgent {
    /// The cluster.yml says what it uses.
    AsConfigured,
    /// It is.
    Asked,
}

/// What a plan was made with of rke's state beside the cluster.yml.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RkeState {
    /// It is there.
    Present,
    /// It is not there, and rke makes it.
    Absent,
    /// This version of rke has none.
    Unread,
}

/// What becomes of the kubelet's own serving certificate, where RKE makes none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KubeletServing {
    /// It stays.
    Kept,
    /// The kubelet makes a new one where it is due (`--kubelet-serving`).
    Renewed,
}

/// What becomes of certificates under RKE's names that another CA has issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CustomCertificates {
    /// They forbid the plan.
    Refused,
    /// They are replaced (`--replace-custom`).
    Replaced,
}

/// What becomes of Rancher's own copy of the certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterDirect {
    /// A cluster that Rancher launched is refused.
    Nothing,
    /// Rancher rotates at the end of the same plan (`--then rancher`).
    Rancher,
    /// It is known that Rancher may put the old ones back (`--accept-rancher-revert`).
    RevertAccepted,
}

/// Which of the selected certificates are renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Those that need it.
    WhereNeeded,
    /// All of them (`--force`).
    All,
}

/// What Rancher says of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RancherTarget {
    /// Its address.
    pub url: String,
    /// Its version (`v2.2.8`).
    pub version: String,
    /// The cluster's id.
    pub cluster_id: String,
    /// Whether it can rotate the cluster's certificates.
    pub rotation: RotationOffer,
    /// The state of the cluster in Rancher's words.
    pub state: String,
    /// What it is doing with the cluster.
    pub work: RancherWork,
    /// The states of the nodes that Rancher knows, by the names and addresses that it has for them.
    pub nodes: Vec<RancherNodeState>,
    /// How often a worker's agent asks for its plan.
    pub agent_check_interval: Duration,
}

impl RancherTarget {
    /// Returns what Rancher says of a node, if it knows it.
    pub fn node(&self, node: &Node) -> Option<&RancherNodeState> {
        self.nodes.iter().find(|candidate| candidate.names.iter().any(|name| node.is_known_as(name)))
    }
}

/// Whether Rancher offers to rotate the certificates of a cluster (its action `rotateCertificates`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RotationOffer {
    /// It does.
    Offered,
    /// It does not.
    Missing {
        /// Why not: a lower-case fragment.
        reason: String,
        /// What to do instead.
        way_out: String,
    },
}

/// What Rancher is in the middle of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RancherWork {
    /// Nothing that is known of.
    None,
    /// It rotates certificates.
    Rotating {
        /// What it says meanwhile.
        message: String,
    },
    /// It has a new CA to make, or makes it.
    RotatingAuthority {
        /// What it says meanwhile.
        message: String,
    },
    /// It has a rotation to do, fails, and tries again without an end (rancher/rancher#23423).
    RotationFails {
        /// What it says of it.
        message: String,
    },
    /// It changes something else of the cluster.
    Provisioning {
        /// What it says meanwhile.
        message: String,
    },
}

/// What Rancher says of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RancherNodeState {
    /// Host name and addresses, in lower case.
    pub names: Vec<String>,
    /// `active`, `unavailable`, ...
    pub state: String,
}
