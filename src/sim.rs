//! A simulated fleet and a simulated Rancher, in this process: real SSH, real TLS and real certificates, on nodes made of memory.
//!
//! `certroll demo` and the tests start a [`Fleet`]; they reach it as they would reach a real one, over the network. It imports the
//! inventory alone: a simulated node reads what comes over the wire and lays its files out by itself, or a fault would cancel out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::task::JoinHandle;

use crate::inventory::{Inventory, NodeName};

mod api;
mod authority;
mod boundary;
mod clock;
mod container;
mod docker;
mod etcd;
mod fault;
mod files;
mod folder;
mod launch;
mod layout;
mod life;
mod machine;
mod ports;
mod programs;
mod rancher;
mod reach;
mod shell;
mod sshd;
mod state;
mod store;
mod template;
mod tls;
mod view;

use clock::lock;
use machine::World;

pub use boundary::{Boundary, Side};
pub use clock::{Effect, Serving};
pub use fault::Fault;
pub use launch::Pairs;
pub use layout::Layout;
pub use machine::Privilege;
pub use rancher::{
    ClusterKind, NodeSource, OtherCluster, RancherFailure, RancherOptions, ServerCertificate, TokenRights,
};
pub use state::{RkeFiles, StateObject};
pub use store::StoredKind;
pub use view::{ContainerView, FileView, NodeView};

/// Why a fleet could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// A certificate could not be made.
    #[error("cannot make a certificate for the simulated cluster")]
    Certificate(#[from] rcgen::Error),
    /// An address of the loopback network could not be used.
    #[error(
        "cannot listen on {address}: the simulation needs the addresses of 127.0.0.0/8, as Linux has them"
    )]
    Listen {
        /// The address.
        address: String,
        /// The cause.
        source: std::io::Error,
    },
    /// A file of the fleet's folder could not be written.
    #[error("cannot write `{}`: give the simulation a folder that can be written to", path.display())]
    Folder {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// RKE's state could not be written down.
    #[error("cannot write the state of the simulated cluster")]
    State(#[from] serde_json::Error),
    /// A simulated file could not be laid out.
    #[error("cannot lay out `{path}` on a simulated node: {error}")]
    File {
        /// The path.
        path: String,
        /// The cause.
        error: String,
    },
    /// The TLS server of the simulated Rancher could not be set up.
    #[error("cannot set up the simulated Rancher's TLS")]
    Tls(#[from] rustls::Error),
    /// The host keys or the user's key could not be written down.
    #[error("cannot write an SSH key")]
    Key(#[from] russh::keys::ssh_key::Error),
    /// The simulation contradicts itself.
    #[error("the simulation failed: {0}")]
    Internal(&'static str),
}

/// What a fleet is made from.
#[derive(Debug, Clone)]
pub struct FleetOptions<'a> {
    /// Names, roles, internal addresses, prefix and versions.
    pub inventory: &'a Inventory,
    /// What the cluster looks like when it begins.
    pub layout: Layout,
    /// What the user of each node may do; nodes that are not named have a user of the docker group.
    pub users: BTreeMap<NodeName, Privilege>,
    /// The time that the fleet begins at.
    pub now: Timestamp,
    /// Rancher, where it launched the cluster.
    pub rancher: Option<RancherOptions>,
    /// In what kind of object the cluster keeps its full state, where rke 0.2 or later laid it out.
    pub state_object: StateObject,
    /// Whether the files of the `rke` command lie beside the cluster.yml.
    pub rke_files: RkeFiles,
    /// The factor for every simulated duration: 1 is real time, 0.02 makes a rotation take a few seconds.
    pub pace: f64,
    /// The certificates that begin with a key on the curve P-256, by the names of their files; RKE itself makes RSA keys.
    pub elliptic: Vec<String>,
    /// The certificates of a fleet of the same inventory and layout, to begin with the same ones; none to make new ones.
    pub pairs: Option<Pairs>,
}

impl<'a> FleetOptions<'a> {
    /// The pace at which a rotation through Rancher takes 2 to 4 seconds.
    pub const DEMO_PACE: f64 = 0.02;

    /// Returns options for a cluster without Rancher, at the pace of a demonstration.
    pub fn new(inventory: &'a Inventory, layout: Layout, now: Timestamp) -> Self {
        Self {
            inventory,
            layout,
            users: BTreeMap::new(),
            now,
            rancher: None,
            state_object: StateObject::default(),
            rke_files: RkeFiles::default(),
            pace: Self::DEMO_PACE,
            elliptic: Vec::new(),
            pairs: None,
        }
    }
}

/// Where the fleet has written what its user needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetPaths {
    /// The inventory of the simulated nodes.
    pub cluster_yml: PathBuf,
    /// `cluster.rkestate` beside it, where it was asked for and rke 0.2 or later laid the cluster out.
    pub rkestate: Option<PathBuf>,
    /// `kube_config_cluster.yml` beside it, where it was asked for.
    pub kube_config: Option<PathBuf>,
    /// The private key that logs in everywhere.
    pub ssh_key: PathBuf,
    /// The host keys of all nodes.
    pub known_hosts: PathBuf,
    /// The certificate authority of the simulated Rancher.
    pub rancher_ca: Option<PathBuf>,
    /// The token for the simulated Rancher.
    pub rancher_token: Option<PathBuf>,
}

/// One run of the `rke` command.
#[derive(Debug, Clone, Default)]
pub struct RkeRun {
    /// The one service that it rotates; none for all.
    pub service: Option<String>,
    /// The nodes that it cannot reach and goes on without.
    pub skipped: Vec<NodeName>,
    /// Whether it ends when the certificates are on the nodes, before anything restarts: somebody has killed it.
    pub breaks_off: bool,
}

/// A simulated cluster that listens; everything ends when it is dropped.
#[derive(Debug)]
pub struct Fleet {
    world: Arc<World>,
    paths: FleetPaths,
    pairs: Pairs,
    doors: Arc<Vec<SocketAddr>>,
    tasks: Vec<JoinHandle<()>>,
    rotation: Arc<rancher::Rotation>,
    server: Option<rancher::Server>,
}

impl Fleet {
    /// Starts the nodes, and Rancher where the options ask for it; writes inventory, keys and token into the folder.
    pub async fn start(options: FleetOptions<'_>, folder: &Path) -> Result<Self, SimError> {
        launch::start(options, folder).await
    }

    /// Returns the paths of what was written.
    pub fn paths(&self) -> &FleetPaths {
        &self.paths
    }

    /// Returns the certificates with which it began, so that another fleet can begin with them.
    pub fn pairs(&self) -> Pairs {
        self.pairs.clone()
    }

    /// Returns the URL of the simulated Rancher.
    pub fn rancher_url(&self) -> Option<String> {
        self.server.as_ref().map(rancher::Server::url)
    }

    /// Returns the token that the simulated Rancher takes.
    pub fn rancher_token(&self) -> Option<&str> {
        self.server.as_ref().map(rancher::Server::token)
    }

    /// Returns the id by which Rancher knows the cluster.
    pub fn rancher_cluster(&self) -> Option<&str> {
        self.server.as_ref().map(|_| rancher::CLUSTER_ID)
    }

    /// Returns a node; `None` where no node has that name.
    pub fn node(&self, name: &NodeName) -> Option<NodeView> {
        let node = Arc::clone(self.world.node(name)?);
        Some(NodeView { world: Arc::clone(&self.world), node })
    }

    /// Returns every node, in the order of the inventory.
    pub fn nodes(&self) -> Vec<NodeView> {
        let view = |node: &Arc<machine::SimNode>| NodeView {
            world: Arc::clone(&self.world),
            node: Arc::clone(node),
        };
        self.world.nodes.iter().map(view).collect()
    }

    /// Returns where a node's sshd listens.
    pub fn address(&self, name: &NodeName) -> Option<SocketAddr> {
        let index = self.world.nodes.iter().position(|node| node.name == *name)?;
        self.doors.get(index).copied()
    }

    /// Returns every change since the start, in order.
    pub fn effects(&self) -> Vec<Effect> {
        self.world.log.all()
    }

    /// Returns every command line that a node was given, in order: what stands in argument lists there.
    pub fn command_lines(&self) -> Vec<(NodeName, String)> {
        lock(&self.world.lines).clone()
    }

    /// Returns an object of `kube-system` that the cluster stores, as its API gives it.
    pub fn stored(&self, kind: StoredKind, name: &str) -> Option<serde_json::Value> {
        lock(&self.world.store).get(kind, name)
    }

    /// Returns the names of the stored objects of a kind, sorted.
    pub fn stored_names(&self, kind: StoredKind) -> Vec<String> {
        let (objects, _) = lock(&self.world.store).list(kind);
        let name = |object: &serde_json::Value| object.pointer("/metadata/name")?.as_str().map(str::to_owned);
        objects.iter().filter_map(name).collect()
    }

    /// Returns how many etcd members and API servers serve now.
    pub fn serving(&self) -> Serving {
        self.world.settle();
        self.world.serving()
    }

    /// Makes something go wrong on a node. Returns whether there is such a node.
    pub fn inject(&self, name: &NodeName, fault: Fault) -> bool {
        let Some(node) = self.world.node(name) else { return false };
        self.world.inject(node, fault);
        true
    }

    /// Lets something go wrong on a node when command lines that hold these texts have arrived there, in this order: the last of
    /// them finds the fault in place. Rancher's action `rotateCertificates` counts as a line of every node. Returns whether there
    /// is such a node.
    pub fn arm(&self, name: &NodeName, texts: &[&str], fault: Fault) -> bool {
        let Some(node) = self.world.node(name) else { return false };
        node.reach.arm(texts, fault);
        true
    }

    /// Returns whether something that was asked for has not gone wrong yet on a node: it waits for a command line.
    pub fn is_pending(&self, name: &NodeName) -> bool {
        self.world.node(name).is_some_and(|node| fault::is_pending(node))
    }

    /// Takes every fault of a node back, and those that wait. Returns whether there is such a node.
    pub fn mend(&self, name: &NodeName) -> bool {
        let Some(node) = self.world.node(name) else { return false };
        self.world.mend(node);
        true
    }

    /// Stops the world at a boundary, once: the call is made while nothing else can have an effect, and no script has a client
    /// from then on.
    pub fn stop_at(&self, boundary: Boundary, call: impl FnOnce() + Send + 'static) {
        // What waits lies in the world itself.
        let world = Arc::downgrade(&self.world);
        let stop = move || {
            for node in world.upgrade().iter().flat_map(|world| &world.nodes) {
                node.reach.for_each_life(life::Life::desert);
            }
            call();
        };
        self.world.log.boundaries.stop_at(boundary, Box::new(stop));
    }

    /// Waits until no client is connected, and no script runs that one has left behind.
    pub async fn rest(&self) {
        self.world.activity.rest().await;
    }

    /// Does on the nodes what Rancher does when an operator rotates the certificates in its UI.
    pub async fn operator_rotates(&self) -> Result<(), SimError> {
        self.rotation.rotate_all().await
    }

    /// Does on the nodes what the `rke` command does, and tells what it logs: level and message.
    pub async fn rke_rotates(
        &self,
        run: &RkeRun,
        mut say: impl FnMut(&str, String) + Send,
    ) -> Result<(), SimError> {
        let names = self.world.nodes.iter().map(|node| node.name.clone());
        let addresses = names.zip(self.doors.iter().map(SocketAddr::ip)).collect();
        self.rotation.rotate_as_rke(run, &addresses, &mut say).await
    }

    /// Ends everything; dropping the fleet does the same.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
