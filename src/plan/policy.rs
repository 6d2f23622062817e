use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Procedure, Via};
use crate::inventory::{MaxUnavailable, NodeName};
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
    pub selected: Option<Vec<NodeName>>,
    /// Rancher, as far as it is known.
    pub rancher: Option<RancherTarget>,
    /// How long the operator or Rancher may take.
    pub wait: Duration,
    /// The run whose lock may be broken.
    pub break_lock: Option<String>,
    /// The time of day.
    pub now: Timestamp,
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
    /// Whether the cluster has the action `rotateCertificates`.
    pub can_rotate: bool,
    /// The state of the cluster in Rancher's words.
    pub state: String,
    /// The states of the nodes that Rancher knows, by the names and addresses that it has for them.
    pub nodes: Vec<RancherNodeState>,
    /// How often a worker's agent asks for its plan.
    pub agent_check_interval: Duration,
}

/// What Rancher says of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RancherNodeState {
    /// Host name and addresses, in lower case.
    pub names: Vec<String>,
    /// `active`, `unavailable`, ...
    pub state: String,
}

/// Returns whether a state of a node in Rancher's words says that it is connected and ready. A node that the operator has
/// cordoned or drained is as well as an active one: Rancher shows that word instead (rancher/norman `nodes` formatter).
pub fn is_active(state: &str) -> bool {
    matches!(state, "active" | "cordoned" | "draining" | "drained")
}
