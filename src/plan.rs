//! A plan is an immutable list of stages that says exactly what will be done to which node, and why.
//!
//! The planner makes it from inventory, facts and policy, without network, clock or chance; `report` shows it, a person
//! reviews it, `execute` carries it out. It holds no secret and leaves no choice: what can only be known later is a [`Guard`].

mod action;
mod away;
mod backup;
mod basis;
mod blockers;
mod certificate;
mod checker;
mod estimate;
mod instructions;
mod planner;
mod policy;
mod prune;
mod repair;
mod restore;
mod switch;
mod trail;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::finding::Finding;
use crate::inventory::{NodeName, Role};
use crate::pki::{Fingerprint, Service};

pub use action::{
    Action, CertificateBefore, FileCopy, Guard, Health, KeptState, KubeAdminSource, RUN_VARIABLE, TmpFolder,
    kube_admin_paths, restart as restart_command,
};
pub use away::{Away, away, without_away};
pub use basis::{basis, is_as_planned, moved, moved_from, moved_on_node, moved_since};
pub use blockers::{
    of_clock_in as clock_blocker, of_other_cluster as other_cluster_blocker, on_node as node_blockers,
};
pub use certificate::{CaKey, CertificateSource, Gate, Half, KeySource, NewCertificate, NewFile, Ownership};
pub use checker::check;
pub use estimate::stage_seconds;
pub use planner::{Objections, RancherFiles, Undoing, UndoneRun, plan, rollback};
pub use policy::{
    AfterDirect, CustomCertificates, Direct, KubeletServing, Majority, Policy, RancherNodeState,
    RancherTarget, RancherWork, Renewal, Rke, RkeAgent, RkeState, RotationOffer,
};
pub use prune::{Fate, RunBackups, prune, prune_command};
pub use restore::{Restoration, Saved, not_restored};
pub use trail::{Rotated, Trail};

/// The version of the saved form.
pub const PLAN_VERSION: u32 = 1;

/// What a plan is to achieve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Procedure {
    /// The whole procedure: repair, rotate, restart.
    Rotate,
    /// The legacy bundle alone.
    Repair,
    /// kubelet and kube-proxy alone, where they need it.
    Restart,
    /// The way back from a run.
    Rollback,
}

impl fmt::Display for Procedure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Rotate => "rotate",
            Self::Repair => "repair",
            Self::Restart => "restart",
            Self::Rollback => "rollback",
        })
    }
}

/// Who makes the new certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// Rancher, through its API.
    Rancher,
    /// certroll, with the key of the cluster's own CA.
    Direct,
    /// The `rke` command on the bastion.
    Rke,
    /// The operator, by hand.
    Manual,
}

impl fmt::Display for Via {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Rancher => "rancher",
            Self::Direct => "direct",
            Self::Rke => "rke",
            Self::Manual => "manual",
        })
    }
}

/// What will be done, and what speaks against it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`PLAN_VERSION`].
    pub version: u32,
    /// Four hex digits that name the plan and end the name of its run.
    pub id: String,
    /// The cluster's name.
    pub cluster: String,
    /// What it is to achieve.
    pub procedure: Procedure,
    /// The run that it takes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<String>,
    /// Who makes the new certificates; `None` where none are made.
    pub via: Option<Via>,
    /// The services that were selected; empty for all.
    pub services: Vec<Service>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When the facts that it was made from were seen.
    pub observed_at: Timestamp,
    /// The cluster's CA; it names the state folder.
    pub kube_ca: Option<Fingerprint>,
    /// The hash of everything in `basis`.
    pub fingerprint: Fingerprint,
    /// What the plan was made from: a hash for the inventory, the policy, and each node.
    pub basis: BTreeMap<String, String>,
    /// The certificates that the run makes or spreads; empty where somebody else makes them.
    #[serde(default)]
    pub certificates: Vec<NewCertificate>,
    /// Where the CAs' keys are read that sign them.
    #[serde(default)]
    pub ca_keys: Vec<CaKey>,
    /// What is done, in order; a stage begins when the one before has ended well.
    pub stages: Vec<Stage>,
    /// What forbids carrying it out.
    pub blockers: Vec<Finding>,
    /// What a reviewer should know.
    pub findings: Vec<Finding>,
    /// The nodes that get less than the plan's goal, and why.
    pub not_handled: Vec<NotHandled>,
    /// The nodes on which the run takes its lock.
    pub lock_nodes: Vec<NodeName>,
    /// Whether these must be most of the controlplane nodes.
    #[serde(default)]
    pub majority: Majority,
    /// How long it will take, at least and at most.
    pub expected_seconds: (u64, u64),
    /// When an attempt is to have ended, counted from its start: no stage begins that would not fit before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Duration>,
}

impl Plan {
    /// Returns whether there is anything to do: a step that can change something.
    pub fn has_work(&self) -> bool {
        self.steps().any(|step| step.action.changes_something())
    }

    /// Returns whether nodes are left out that are to be handled later: a failure.
    pub fn misses_nodes(&self) -> bool {
        self.not_handled.iter().any(|left_out| left_out.left_out == LeftOut::ForNow)
    }

    /// Returns every step, in order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.stages.iter().flat_map(|stage| &stage.steps)
    }

    /// Returns the stage of a name.
    pub fn stage(&self, name: StageName) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.name == name)
    }
}

/// A node that the plan leaves out, in whole or in part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotHandled {
    /// The node.
    pub node: NodeName,
    /// Why, and what that means for it.
    pub reason: String,
    /// The command that handles it later, or what handles it else.
    pub hint: String,
    /// Whether that is a failure.
    #[serde(default, skip_serializing_if = "LeftOut::is_for_now")]
    pub left_out: LeftOut,
}

/// What it means that a node is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftOut {
    /// It should have been handled, and is to be handled later: a failure.
    #[default]
    ForNow,
    /// It is none that this program handles.
    ForGood,
}

impl LeftOut {
    // serde passes a reference.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
    fn is_for_now(&self) -> bool {
        *self == Self::ForNow
    }
}

/// The stages, in the order in which they are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageName {
    /// Looks again; changes nothing.
    Preflight,
    /// Saves `/etc/kubernetes` of every node that is changed.
    Backup,
    /// Completes the legacy bundle.
    Repair,
    /// Makes certificates, and lays them aside on every node.
    Staging,
    /// Switches as many etcd members at once as it takes to get a quorum back.
    EtcdQuorum,
    /// Switches etcd members, one at a time.
    Etcd,
    /// Has the certificates made.
    Rotate,
    /// Waits until etcd and control plane nodes have and serve them.
    Confirm,
    /// Restarts the components of etcd and control plane nodes, where they need it.
    ControlPlane,
    /// Restarts kubelet and kube-proxy of workers, where they need it.
    Workers,
    /// Writes new certificates into what rke keeps of the cluster.
    State,
    /// Restarts kubelet and kube-proxy where Rancher has rotated after certroll, and they need it.
    Agents,
    /// Looks at every node once more, against the goal.
    Verify,
}

impl StageName {
    /// Returns the word that people see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Backup => "backup",
            Self::Repair => "repair",
            Self::Staging => "staging",
            Self::EtcdQuorum => "etcd quorum",
            Self::Etcd => "etcd",
            Self::Rotate => "rotate",
            Self::Confirm => "confirm",
            Self::ControlPlane => "control plane",
            Self::Workers => "workers",
            Self::State => "state",
            Self::Agents => "agents",
            Self::Verify => "verify",
        }
    }
}

impl fmt::Display for StageName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// Steps that may run side by side, up to a number of nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Which one it is.
    pub name: StageName,
    /// What it does, in a few words.
    pub title: String,
    /// How many nodes are worked on at a time; steps of one node never overlap.
    pub max_unavailable: usize,
    /// The steps; those of one node are run in this order.
    pub steps: Vec<Step>,
}

impl Stage {
    /// Returns the nodes of the stage, each once, in order.
    pub fn nodes(&self) -> Vec<&NodeName> {
        let mut known = HashSet::new();
        let nodes = self.steps.iter().filter_map(|step| step.node.as_ref());
        nodes.filter(|node| known.insert(*node)).collect()
    }
}

/// The name of a step within its plan (`repair/cp-1/1`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(pub String);

impl fmt::Display for StepId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

/// One action on one node, or on none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its name.
    pub id: StepId,
    /// The node that it is about; `None` for Rancher and the operator.
    pub node: Option<NodeName>,
    /// What is done.
    pub action: Action,
    /// Why.
    pub reason: String,
    /// How often it is tried.
    #[serde(default)]
    pub retry: Retry,
}

/// How often a step is tried where the connection to its node is refused, drops, or loses an answer. What fails on the node itself is not
/// tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// How many tries there are at most.
    pub attempts: u32,
    /// The pause after the first; it doubles each time, and gets a random part.
    pub pause: Duration,
}

impl Retry {
    /// No second try: the action waits by itself, or asks nobody.
    pub const NEVER: Self = Self { attempts: 1, pause: Duration::ZERO };

    /// A node that reboots is back within a minute or two, and connections are tried for some time themselves.
    pub const ON_NODES: Self = Self { attempts: 4, pause: Duration::from_secs(2) };
}

impl Default for Retry {
    fn default() -> Self {
        Self::NEVER
    }
}

/// How long a component may take until it answers again after its restart, where the operator says nothing else. RKE waits 10 times 5 s for kubelet and kube-proxy
/// (`services/healthcheck.go`); on busy hosts that is short.
pub const HEALTH_TIMEOUT: Duration = Duration::from_mins(2);

/// Returns whether a set of roles makes a node of the control plane or of etcd.
pub fn is_control_plane_or_etcd(roles: &[Role]) -> bool {
    roles.contains(&Role::ControlPlane) || roles.contains(&Role::Etcd)
}
