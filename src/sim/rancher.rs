//! The simulated Rancher: its API, the RKE v0.2.8 that it embeds, and the agents by which workers fetch what it has for them.
//!
//! The fleet starts it; it acts on nodes as the real one does, which is not always well: see [`RancherOptions`].

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::authority::{self, Pair, Validity};
use super::boundary::Turn;
use super::clock::lock;
use super::container::Component;
use super::files::Links;
use super::layout::{self, Bundle, Catalogue, LEAF_DAYS, SERVICE_ACCOUNT, days};
use super::machine::{SimNode, World};
use super::{Fault, SimError};
use crate::inventory::{NodeName, Role};

mod server;
mod views;

pub(crate) use server::{Server, make_authority, serve};

/// The id of the simulated cluster in Rancher.
pub(crate) const CLUSTER_ID: &str = "c-sim01";

/// What faults that wait for command lines see of Rancher's action: the rotation has been asked for.
const ASKED: &str = "rotateCertificates";

/// How the simulated Rancher behaves.
#[derive(Debug, Clone)]
pub struct RancherOptions {
    /// Its version (`v2.2.8`).
    pub version: String,
    /// How often the agents of worker nodes ask, in the fleet's time; Rancher's default is 120 s.
    pub agent_check_interval: Duration,
    /// Workers that get the new files and are not restarted: their `share-mnt` container writes them first, and the agent then sees
    /// no difference (rancher#21709).
    pub stale_workers: Vec<NodeName>,
    /// What goes wrong with rotations.
    pub failure: Option<RancherFailure>,
}

impl Default for RancherOptions {
    fn default() -> Self {
        let agent_check_interval = Duration::from_secs(120);
        Self { version: "v2.2.8".to_owned(), agent_check_interval, stale_workers: Vec::new(), failure: None }
    }
}

/// What goes wrong with rotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RancherFailure {
    /// It fails before any node is touched and is tried again for ever, with the flag set (rancher#23423).
    EndlessRetry,
    /// It never begins: the flag is set, and nothing happens.
    NeverBegins,
    /// The connection is cut when the action is called for the first time, before Rancher has heard of it.
    CallLost,
    /// The action is called, and the connection is cut before the answer to the first call.
    AnswerLost,
    /// Of the answer to the first call half arrives.
    AnswerHalved,
}

/// What is rotated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Services {
    All,
    /// One service by RKE's name; a name that RKE does not know rotates nothing and restarts all the same.
    One(String),
}

impl Services {
    fn include(&self, leaf: &str) -> bool {
        let Self::One(service) = self else { return true };
        match service.as_str() {
            "kubelet" => leaf == "kube-node" || leaf.starts_with("kube-kubelet-"),
            "etcd" => leaf.starts_with("kube-etcd-"),
            "kube-apiserver" | "kube-controller-manager" | "kube-scheduler" | "kube-proxy" => leaf == service,
            _ => false,
        }
    }

    fn restart_etcd(&self) -> bool {
        matches!(self, Self::All) || *self == Self::One("etcd".to_owned())
    }
}

/// Rancher's word for a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    True,
    False,
    Unknown,
}

impl Condition {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// What Rancher knows of the cluster's rotation.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    /// `rotateCertificates` of the cluster's specification: services as one string, and whether authorities are included.
    pub(crate) flag: Option<(String, bool)>,
    pub(crate) updated: Condition,
    pub(crate) message: String,
    pub(crate) changed_at: Timestamp,
}

/// The embedded RKE with its stored state, and the agents of the nodes.
#[derive(Debug)]
pub(crate) struct Rotation {
    world: Arc<World>,
    catalogue: Catalogue,
    /// The pairs that Rancher has stored; none where rke 0.1 laid the cluster out.
    stored: Mutex<Option<Bundle>>,
    options: RancherOptions,
    status: Mutex<Status>,
    asked: Notify,
    agents: Mutex<JoinSet<()>>,
}

impl Rotation {
    pub(crate) fn new(
        world: Arc<World>,
        catalogue: Catalogue,
        stored: Option<Bundle>,
        options: Option<RancherOptions>,
    ) -> Self {
        let changed_at = world.clock.now();
        let status = Status { flag: None, updated: Condition::True, message: String::new(), changed_at };
        Self {
            world,
            catalogue,
            stored: Mutex::new(stored),
            options: options.unwrap_or_default(),
            status: Mutex::new(status),
            asked: Notify::new(),
            agents: Mutex::default(),
        }
    }

    pub(crate) fn world(&self) -> &Arc<World> {
        &self.world
    }

    pub(crate) fn options(&self) -> &RancherOptions {
        &self.options
    }

    pub(crate) fn status(&self) -> Status {
        lock(&self.status).clone()
    }

    /// Sets the flag, as the API's action does; the provisioner sees it.
    pub(crate) fn ask(&self, services: String, with_authorities: bool) {
        if self.world.log.announce() == Turn::Ends {
            return;
        }
        self.world.log.push(&NodeName::new("rancher"), "set the flag rotateCertificates".to_owned());
        lock(&self.status).flag = Some((services, with_authorities));
        for node in &self.world.nodes {
            for fault in node.reach.arrive(ASKED) {
                self.world.inject(node, fault);
            }
        }
        self.asked.notify_one();
    }

    fn tell(&self, updated: Condition, message: &str) {
        let mut status = lock(&self.status);
        status.updated = updated;
        message.clone_into(&mut status.message);
        status.changed_at = self.world.clock.now();
    }

    async fn pause(&self, seconds: f64) {
        tokio::time::sleep(self.world.clock.scaled(seconds)).await;
    }

    /// Acts on the flag for ever: tries a rotation until it succeeds, then takes the flag back.
    pub(crate) async fn provision(self: Arc<Self>) {
        loop {
            self.asked.notified().await;
            // The real backoff: 30 s, doubled up to 10 minutes.
            let mut backoff = 30.0_f64;
            while let Some((services, with_authorities)) = self.status().flag {
                if self.options.failure == Some(RancherFailure::NeverBegins) {
                    break;
                }
                self.pause(2.0).await;
                if with_authorities {
                    self.tell(Condition::False, "rotating CA certificates is not simulated");
                    break;
                }
                self.tell(Condition::Unknown, "");
                let services = if services.is_empty() { Services::All } else { Services::One(services) };
                match self.rotate(services).await {
                    Ok(()) => {
                        lock(&self.status).flag = None;
                        self.tell(Condition::True, "");
                    }
                    Err(error) => {
                        let message = match error {
                            SimError::Internal(message) => message.to_owned(),
                            error => error.to_string(),
                        };
                        self.tell(Condition::False, &message);
                        self.pause(backoff).await;
                        backoff = (backoff * 2.0).min(600.0);
                    }
                }
            }
        }
    }

    /// Rotates as the embedded RKE does: control plane and etcd nodes first, then the agents of the workers by themselves.
    pub(crate) async fn rotate(&self, services: Services) -> Result<(), SimError> {
        self.tell(Condition::Unknown, "Initiating Kubernetes cluster");
        self.pause(5.0).await;
        if self.options.failure == Some(RancherFailure::EndlessRetry) {
            return Err(SimError::Internal("Failed to rotate certificates: can't find old certificates"));
        }
        let mut bundle = match lock(&self.stored).clone() {
            Some(bundle) => bundle,
            None => self.fetch_legacy().ok_or(SimError::Internal("CA Certificate or Key is empty"))?,
        };
        self.tell(Condition::Unknown, "[certificates] Generating kubernetes certificates");
        bundle = self.renew(bundle, &services).await?;
        self.tell(Condition::Unknown, "[certificates] Deploying kubernetes certificates to Cluster nodes");
        let nodes: Vec<Arc<SimNode>> = self
            .world
            .nodes
            .iter()
            .filter(|node| !node.is_worker_only() && is_connected(node))
            .cloned()
            .collect();
        for node in &nodes {
            layout::deploy(
                node,
                &format!("{}/ssl", node.kubernetes_folder()),
                &bundle,
                &layout::names_for(node, &bundle),
                node.now(&self.world.clock),
            )?;
        }
        self.pause(15.0).await;
        self.adopt_service_account_key();
        self.restart(&nodes, &services).await;
        *lock(&self.stored) = Some(bundle.clone());
        self.send_agents(&bundle);
        Ok(())
    }

    async fn restart(&self, nodes: &[Arc<SimNode>], services: &Services) {
        let mut stages = Vec::new();
        if services.restart_etcd() {
            stages.push(("[etcd] Restarting up etcd plane..", vec![Component::Etcd], 10.0));
        }
        let control_plane = vec![Component::ApiServer, Component::ControllerManager, Component::Scheduler];
        stages.push(("[controlplane] Restarting the Controller Plane..", control_plane, 20.0));
        stages.push((
            "[worker] Restarting Worker Plane..",
            vec![Component::Kubelet, Component::Proxy, Component::NginxProxy],
            10.0,
        ));
        for (message, components, seconds) in stages {
            self.tell(Condition::Unknown, message);
            for node in nodes {
                for component in &components {
                    // A container that is not there is skipped without a word, as RKE does.
                    restart(&self.world, node, *component);
                }
            }
            self.pause(seconds).await;
        }
    }

    /// Reads the bundle in `.tmp` of the first node that has a complete one (RKE v0.2.8 `pki.FetchCertificatesFromHost`).
    fn fetch_legacy(&self) -> Option<Bundle> {
        let etcd = self.world.with_role(Role::Etcd);
        let others = self.world.with_role(Role::ControlPlane).filter(|node| !node.has(Role::Etcd));
        etcd.chain(others).filter(|node| is_connected(node)).find_map(|node| self.read_bundle(node))
    }

    fn read_bundle(&self, node: &SimNode) -> Option<Bundle> {
        let folder = format!("{}/.tmp", node.kubernetes_folder());
        let read = |file: &str| {
            let text =
                node.read(&format!("{folder}/{file}")).and_then(|bytes| String::from_utf8(bytes).ok())?;
            Some(format!("{}\n", text.trim_end()))
        };
        let mut bundle = Bundle::new();
        let leaves = self.catalogue.leaves();
        let names = leaves.iter().map(|(name, _)| name.as_str());
        for name in names.chain(["kube-ca", "kube-apiserver-requestheader-ca", "kube-apiserver-proxy-client"])
        {
            match (read(&format!("{name}.pem")), read(&format!("{name}-key.pem"))) {
                (Some(certificate), Some(key)) => {
                    bundle.insert(name.to_owned(), Pair { certificate, key });
                }
                // etcd's pairs may be missing; one other that is makes RKE give the whole bundle up.
                _ if name.starts_with("kube-etcd-") || name.starts_with("kube-kubelet-") => {}
                _ => return None,
            }
        }
        Some(bundle)
    }

    /// Makes new leaves with new keys; authorities and the service account key stay.
    async fn renew(&self, mut bundle: Bundle, services: &Services) -> Result<Bundle, SimError> {
        let mut wanted: Vec<_> = self.catalogue.leaves();
        wanted.retain(|(name, _)| services.include(name));
        let with_proxy_client = services.include("kube-apiserver-proxy-client");
        let now = self.world.clock.now();
        let world = Arc::clone(&self.world);
        let made = move || -> Result<Bundle, SimError> {
            let ca =
                bundle.get("kube-ca").cloned().ok_or(SimError::Internal("CA Certificate or Key is empty"))?;
            let not_after = days(now, LEAF_DAYS);
            let validity = |authority: &Pair| {
                let not_before = Validity::of(authority.certificate.as_bytes())
                    .map_or(now, |validity| validity.not_before);
                Validity { not_before, not_after }
            };
            if !bundle.contains_key(SERVICE_ACCOUNT) {
                let key = bundle.get("kube-apiserver").map(|pair| pair.key.clone()).unwrap_or_default();
                let pair = authority::make_leaf(&ca, &layout::token_subject(), key, validity(&ca))?;
                bundle.insert(SERVICE_ACCOUNT.to_owned(), pair);
            }
            let mut keys = world.keys.take(wanted.len() + 1)?.into_iter();
            for ((name, subject), key) in wanted.into_iter().zip(&mut keys) {
                bundle.insert(name, authority::make_leaf(&ca, &subject, key, validity(&ca))?);
            }
            let header_ca = bundle.get("kube-apiserver-requestheader-ca").cloned();
            if let (Some(header_ca), Some(key), true) = (header_ca, keys.next(), with_proxy_client) {
                let pair =
                    authority::make_leaf(&header_ca, &layout::proxy_client(), key, validity(&header_ca))?;
                bundle.insert("kube-apiserver-proxy-client".to_owned(), pair);
            }
            Ok(bundle)
        };
        tokio::task::spawn_blocking(made)
            .await
            .map_err(|_| SimError::Internal("making certificates was cut short"))?
    }

    /// Redeploys a control plane from before rke 0.2 so that it uses the service account's own key file (RKE `IsLegacyKubeAPI`).
    fn adopt_service_account_key(&self) {
        for node in self.world.with_role(Role::ControlPlane).filter(|node| is_connected(node)) {
            for component in [Component::ApiServer, Component::ControllerManager] {
                if let Some(container) = lock(&node.machine).container_mut(component.name()) {
                    for argument in container
                        .arguments
                        .iter_mut()
                        .filter(|argument| argument.starts_with("--service-account-"))
                    {
                        *argument = argument
                            .replace("/kube-apiserver-key.pem", "/kube-service-account-token-key.pem");
                    }
                }
            }
        }
    }

    /// Returns how often the agents ask, at the pace of this fleet.
    pub(crate) fn agent_check_interval(&self) -> Duration {
        self.world.clock.scaled(self.options.agent_check_interval.as_secs_f64())
    }

    /// Lets the agent of every worker fetch the new files at its next check, and restart what it then finds changed.
    fn send_agents(&self, bundle: &Bundle) {
        let workers: Vec<_> = self.world.nodes.iter().filter(|node| node.is_worker_only()).cloned().collect();
        let interval = self.agent_check_interval();
        let count = u32::try_from(workers.len()).unwrap_or(1).max(1);
        let mut agents = lock(&self.agents);
        for (index, node) in (1_u32..).zip(workers) {
            let stale = self.options.stale_workers.contains(&node.name);
            let (world, bundle) = (Arc::clone(&self.world), bundle.clone());
            agents.spawn(async move {
                tokio::time::sleep(interval * index / count).await;
                while !is_connected(&node) {
                    tokio::time::sleep(interval.max(Duration::from_millis(1))).await;
                }
                fetch(&world, &node, &bundle, if stale { Race::Lost } else { Race::Won });
            });
        }
    }
}

/// Whether the agent sees that its node's files have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Race {
    Won,
    /// `share-mnt` has written them before.
    Lost,
}

fn fetch(world: &World, node: &SimNode, bundle: &Bundle, race: Race) {
    let folder = format!("{}/ssl", node.kubernetes_folder());
    let names = layout::names_for(node, bundle);
    // `Bundle.Changed` says no as soon as one file cannot be read.
    let exists = |name: &String| {
        lock(&node.machine)
            .files
            .metadata(super::files::Owner::ROOT, &format!("{folder}/{name}.pem"), Links::Follow)
            .is_ok()
    };
    let complete = names.iter().all(exists);
    let written = layout::deploy(node, &folder, bundle, &names, node.now(&world.clock));
    if race == Race::Lost || !complete || written.is_err() {
        return;
    }
    for component in [Component::Kubelet, Component::Proxy, Component::NginxProxy] {
        restart(world, node, component);
    }
}

/// Restarts a container, if it exists.
fn restart(world: &World, node: &SimNode, component: Component) {
    if lock(&node.machine).container(component.name()).is_some() {
        // Rancher does what it does, whether or not somebody watches.
        world.log.announce();
        world.start(node, component.name(), "restart");
    }
}

/// Returns whether Rancher's agent on a node has its connection.
fn is_connected(node: &SimNode) -> bool {
    !lock(&node.faults).contains(&Fault::AgentDisconnected)
}
