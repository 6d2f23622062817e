//! Facts are what was seen on the nodes of a cluster: always a moment old, and an unreachable node is a fact too.
//!
//! `gather` collects them; the planner decides by them; `report` shows them. Nothing here looks at anything.

mod agent;
mod assess;
pub mod backup;
mod bastion;
mod bundle;
mod lock;
pub mod probe;
mod rke;
mod sans;
mod saved_state;
mod standing;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::command::Access;
use crate::inventory::{NodeName, Role};
use crate::pki::{Certificate, CertificateError, Class, Location, PublicPrefix, Service, class};

pub use agent::{AGENT_CHECK_INTERVAL, Agent, PATIENCE_INTERVALS, Ping, left_to_agent};
pub use assess::{
    CertificateStatus, Thresholds, assess, certificate_status, clock_skew, differing_authorities,
    effective_not_after, expected_containers, restart_reason, stale_containers,
};
pub use bastion::{BastionCopy, BastionFiles, KubeConfigSummary, StateSummary};
pub use bundle::{Bundle, BundleFile, bundle_names, bundle_of};
pub use lock::{LEASE, Lease, Lock, LockHolder};
pub use rke::{RkeLine, RkeProgram, RkeRotation, RkeVersion, hint_of_rke};
pub use saved_state::{assess_saved_state, saved_status, state_drift};
pub use standing::{Readiness, Standing, is_active};

/// What was seen of a whole cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// When the looking began.
    pub observed_at: Timestamp,
    /// The nodes, in the order of the inventory.
    pub nodes: Vec<NodeFacts>,
}

impl Facts {
    /// Returns the facts of a node.
    pub fn node(&self, name: &NodeName) -> Option<&NodeFacts> {
        self.nodes.iter().find(|node| node.name == *name)
    }

    /// Returns the nodes that were seen, with what was seen.
    pub fn seen(&self) -> impl Iterator<Item = (&NodeFacts, &Observation)> {
        self.nodes.iter().filter_map(|node| node.observation().map(|observation| (node, observation)))
    }

    /// Returns the kube-ca of the first node that shows one.
    pub fn kube_ca(&self) -> Option<&Certificate> {
        self.seen().find_map(|(_, observation)| observation.certificate(Location::Ssl, crate::pki::KUBE_CA))
    }

    /// Returns whether Rancher's agents are on the nodes: Rancher launched the cluster and keeps its state (domain of §4.4).
    pub fn is_rancher_launched(&self) -> bool {
        self.seen().any(|(_, observation)| observation.containers.iter().any(Container::is_rancher_agent))
    }
}

/// What was seen of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// The node.
    pub name: NodeName,
    /// The address that SSH connects to.
    pub address: String,
    /// Its roles.
    pub roles: Vec<Role>,
    /// What was seen, or why nothing was.
    pub result: Result<Observation, Unseen>,
    /// What others say of it.
    pub standing: Standing,
}

impl NodeFacts {
    /// Returns what was seen, if anything was.
    pub fn observation(&self) -> Option<&Observation> {
        self.result.as_ref().ok()
    }

    /// Returns whether the node holds a role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Returns whether the node was to be seen, and was not: one that runs Windows is no fault.
    pub fn is_missed(&self) -> bool {
        self.result.as_ref().is_err_and(|unseen| unseen.cause == Cause::Fault)
    }

    /// Returns whether the node is a worker and nothing else: Rancher's rotation reaches it last, through its agent.
    pub fn is_worker_only(&self) -> bool {
        self.roles == [Role::Worker]
    }
}

/// Why nothing was seen of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unseen {
    /// Whether a session could be had at all.
    pub reachable: bool,
    /// The cause: a lower-case fragment.
    pub error: String,
    /// The way out.
    pub hint: Option<String>,
    /// Whether something is wrong with it.
    #[serde(default)]
    pub cause: Cause,
}

/// What it means that nothing was seen of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Something is wrong, and may be put right.
    #[default]
    Fault,
    /// It is a worker that runs Windows: nothing is wrong, and there is nothing to look at.
    Windows,
}

impl Unseen {
    /// Returns that something went wrong.
    pub fn fault(reachable: bool, error: String, hint: Option<String>) -> Self {
        Self { reachable, error, hint, cause: Cause::Fault }
    }

    /// Returns that a worker is left alone, for it runs Windows; `evidence` says how that is known.
    pub fn windows(evidence: &str) -> Self {
        let hint = "its certificates are renewed by what made it a node: Rancher, or rke with `--via rke`";
        Self {
            reachable: true,
            error: format!("it runs Windows ({evidence}), where certroll changes nothing"),
            hint: Some(hint.to_owned()),
            cause: Cause::Windows,
        }
    }
}

/// What was seen on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// How a command becomes root there.
    pub access: Access,
    /// The node's clock minus ours, in seconds.
    pub clock_skew_seconds: i64,
    /// `<prefix>/etc/kubernetes`; empty where none was found.
    pub kubernetes_directory: String,
    /// Whether `.tmp` is there.
    pub has_tmp: bool,
    /// Free space of the file system that holds `/etc/kubernetes`, in KiB.
    pub free_kibibytes: Option<u64>,
    /// Space that `/etc/kubernetes` takes (without `.certroll`), in KiB.
    pub used_kibibytes: Option<u64>,
    /// Free inodes of that file system; `None` where it counts none.
    pub free_inodes: Option<u64>,
    /// Whether a file can be made in `/etc/kubernetes`.
    pub is_writable: bool,
    /// `ssl` and `.tmp`, where they are there: they may be mounts of their own.
    pub folders: Vec<Folder>,
    /// The labels that count where SELinux is enforcing; `None` where it is not.
    pub labels: Option<Labels>,
    /// RKE's and Rancher's containers.
    pub containers: Vec<Container>,
    /// What docker said when it did not answer.
    pub docker_error: Option<String>,
    /// The files of the PKI folders.
    pub files: Vec<File>,
    /// What the TLS ports served.
    pub served: Vec<Served>,
    /// How the components answered.
    pub health: Vec<Health>,
    /// The runs whose backups lie here.
    pub backups: Vec<SavedRun>,
    /// The runs that have laid new files aside and not come to their end.
    pub unfinished_runs: Vec<String>,
    /// The key that kube-apiserver checks service account tokens with (`--service-account-key-file`), as its container names it.
    pub service_account_key_file: Option<String>,
    /// Rancher's agent, where there is one.
    pub agent: Option<Agent>,
    /// The lock of a run, and how long ago it was renewed.
    pub lock: Option<Lock>,
}

impl Observation {
    /// Returns a file of a folder by its name with its ending (`kube-ca-key.pem`).
    pub fn file(&self, location: Location, file_name: &str) -> Option<&File> {
        self.files.iter().find(|file| file.location == location && file.file_name == file_name)
    }

    /// Returns the certificate of a name (`kube-node`), where it could be read.
    pub fn certificate(&self, location: Location, name: &str) -> Option<&Certificate> {
        match self.certificate_file(location, name).map(|file| &file.content) {
            Some(Content::Certificate(Ok(certificate))) => Some(certificate),
            _ => None,
        }
    }

    /// Returns the file of a certificate of a name.
    pub fn certificate_file(&self, location: Location, name: &str) -> Option<&File> {
        self.file(location, &certificate_file_name(location, name))
    }

    /// Returns whether the private key beside a certificate is its own; `None` where there is no telling.
    pub fn key_matches(&self, location: Location, name: &str) -> Option<bool> {
        let certificate = self.certificate(location, name)?;
        match &self.file(location, &key_file_name(location, name))?.content {
            Content::Key(prefix) => certificate.matches_key(prefix),
            _ => None,
        }
    }

    /// Returns the container of a name.
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// Returns the Rancher agent that runs as a pod's container, if there is one: the newest that is there.
    pub fn rancher_agent(&self) -> Option<&Container> {
        let agents = self.containers.iter().filter(|container| container.name.starts_with(CATTLE_NODE_AGENT));
        agents.max_by_key(|container| (container.is_running(), container.started_at))
    }

    /// Returns whether a component's container started before a certificate or key that it loads was written
    /// (rancher/rancher#21709).
    pub fn is_stale(&self, container: &Container) -> bool {
        let Some(started_at) = container.started_at else { return false };
        let names = certificates_of_container(&container.name).iter().flat_map(|name| {
            [certificate_file_name(Location::Ssl, name), key_file_name(Location::Ssl, name)]
        });
        names.filter_map(|name| self.file(Location::Ssl, &name)).any(|file| file.modified_at > started_at)
    }

    /// Returns how a component answered.
    pub fn health_of(&self, service: Service) -> Option<&Health> {
        self.health.iter().find(|health| health.service == service)
    }

    /// Returns the path of `.tmp`.
    pub fn tmp_directory(&self) -> String {
        format!("{}/.tmp", self.kubernetes_directory)
    }
}

/// A folder of certificates, as the place that files are written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// Where it is.
    pub path: String,
    /// Whether a file can be made in it.
    pub is_writable: bool,
    /// Free space of its file system, in KiB.
    pub free_kibibytes: Option<u64>,
    /// Free inodes of its file system; `None` where it counts none.
    pub free_inodes: Option<u64>,
}

/// What SELinux has labelled folders and files with, without the user and the role that no rule looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// The label of `/etc/kubernetes`, which `.tmp` and `.certroll` inherit.
    pub directory: String,
    /// The label of `ssl`, which new files in it inherit.
    pub ssl: String,
    /// The label of `ssl/kube-ca.pem`, which the components can read.
    pub file: String,
}

/// A run's backup on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedRun {
    /// The run.
    pub run: String,
    /// How long its archive is, in KiB.
    pub kibibytes: u64,
}

/// The beginning of the name of the Rancher agent's container.
pub const CATTLE_NODE_AGENT: &str = "k8s_agent_cattle-node-agent";

/// Returns the certificates that a component loads once, at its start, its own first. etcd is not here: it reads its files at
/// each handshake (§3.2). An API server shows kube-node to etcd (§2.1).
pub fn certificates_of_container(container: &str) -> &'static [&'static str] {
    match container {
        "kubelet" => &["kube-node"],
        "kube-proxy" => &["kube-proxy"],
        "kube-apiserver" => &["kube-apiserver", "kube-node", "kube-apiserver-proxy-client"],
        "kube-controller-manager" => &["kube-controller-manager"],
        "kube-scheduler" => &["kube-scheduler"],
        _ => &[],
    }
}

/// Returns the name of a certificate's file.
pub fn certificate_file_name(location: Location, name: &str) -> String {
    let ending = if location == Location::KubeletPki { "crt" } else { "pem" };
    format!("{name}.{ending}")
}

/// Returns the name of a key's file.
pub fn key_file_name(location: Location, name: &str) -> String {
    if location == Location::KubeletPki { format!("{name}.key") } else { format!("{name}-key.pem") }
}

/// The containers with which rke and Rancher's agents write on a node. `cert-fetcher` only reads, for an rke that is at work.
const CERTIFICATE_WRITERS: [&str; 9] = [
    "share-mnt",
    "cert-deployer",
    "cert-fetcher",
    "file-deployer",
    "cluster-state-deployer",
    "etcd-fix-perm",
    "etcd-restore",
    "kube-cleaner",
    "rke-bundle-cert",
];

/// One container of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its name, without a leading slash.
    pub name: String,
    /// The image as the container's configuration names it.
    pub image: String,
    /// docker's word: `running`, `exited`, `restarting`, `created`, ...
    pub state: String,
    /// When it was started last; `None` if never.
    pub started_at: Option<Timestamp>,
    /// How often docker restarted it by itself.
    pub restart_count: u64,
}

impl Container {
    /// Returns whether it runs.
    pub fn is_running(&self) -> bool {
        self.state == "running"
    }

    /// Returns whether it is one of those that write certificates or the components' files, and end by themselves
    /// (rancher/rke v0.2.8 `pki/constants.go`, `pki/deploy.go`, `cluster/file-deployer.go`; rancher/rancher v2.2 `agent/main.go`).
    pub fn is_writer(&self) -> bool {
        CERTIFICATE_WRITERS.contains(&self.name.as_str())
    }

    /// Returns whether it belongs to Rancher's agents.
    pub fn is_rancher_agent(&self) -> bool {
        self.name == "share-mnt" || self.name.starts_with(CATTLE_NODE_AGENT)
    }
}

/// A file of a PKI folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The folder that it lies in.
    pub location: Location,
    /// The full path on the node.
    pub path: String,
    /// The last part of the path.
    pub file_name: String,
    /// The permission bits.
    pub mode: u32,
    /// The owner's number.
    pub user_id: u32,
    /// The group's number.
    pub group_id: u32,
    /// The size in bytes.
    pub size: u64,
    /// When it was written last, by the node's clock.
    pub modified_at: Timestamp,
    /// How many certificates it holds: one, as RKE writes it, or a chain that somebody put there.
    pub certificates: usize,
    /// What it holds.
    pub content: Content,
}

impl File {
    /// Returns the name without its ending (`kube-node` of `kube-node.pem`), for certificates.
    pub fn certificate_name(&self) -> Option<&str> {
        match self.content {
            Content::Certificate(_) => self.file_name.rsplit_once('.').map(|(name, _)| name),
            _ => None,
        }
    }

    /// Returns the class of a certificate's file.
    pub fn class(&self) -> Class {
        class(self.location, self.certificate_name().unwrap_or_default())
    }
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A certificate, or why it is none.
    Certificate(Result<Certificate, CertificateError>),
    /// A private key, of which no private part was read.
    Key(PublicPrefix),
    /// Something else, such as a kubecfg file.
    Other,
}

/// What a TLS port of a node served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The component behind the port.
    pub service: Service,
    /// The port.
    pub port: u16,
    /// The certificate, or why there was none.
    pub certificate: Result<Certificate, String>,
    /// Whether it is the one on disk; `None` where either is unknown.
    pub matches_disk: Option<bool>,
}

/// How a component answered when it was asked for its health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The component.
    pub service: Service,
    /// Whether it is well; `None` where it could not be asked.
    pub healthy: Option<bool>,
    /// What was asked and what came back.
    pub detail: String,
}
