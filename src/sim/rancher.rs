//! The simulated Rancher: its API, the RKE that it embeds, and the agents by which workers fetch what it has for them.
//!
//! The fleet starts it; it acts on nodes as the real one does, which is not always well: see [`RancherOptions`]. It is written from
//! the sources of Rancher and RKE and from answers of the real server, apart from the client that asks it, so that both can be wrong
//! separately.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::SimError;
use super::boundary::Turn;
use super::clock::lock;
use super::layout::{Bundle, Catalogue};
use super::machine::World;
use crate::inventory::NodeName;

mod agents;
mod api;
mod cluster;
mod engine;
mod machines;
mod node;
mod norman;
mod options;
mod release;
mod rke;
mod server;

use engine::Services;
pub use options::{
    ClusterKind, NodeSource, OtherCluster, RancherFailure, RancherOptions, ServerCertificate, TokenRights,
};
use release::{Release, RotateAction};
pub(crate) use server::{Beginning, Server, make_authority, serve};

/// The id of the simulated cluster in Rancher.
pub(crate) const CLUSTER_ID: &str = "c-sim01";

/// What faults that wait for command lines see of Rancher's action: the rotation has been asked for.
const ASKED: &str = "rotateCertificates";

/// The backoff between tries (`clusterprovisioner`: `flowcontrol.NewBackOff`): 30 s, doubled up to 10 minutes.
const FIRST_BACKOFF: f64 = 30.0;
const LAST_BACKOFF: f64 = 600.0;

/// Rancher's word for a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// `rotateCertificates` of the cluster's specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flag {
    /// One service, or all where it is empty.
    pub(crate) service: String,
    pub(crate) with_authorities: bool,
}

/// What Rancher knows of the cluster's rotation.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    pub(crate) flag: Option<Flag>,
    /// The condition `Updated`; there is none before the first update.
    pub(crate) updated: Option<Truth>,
    pub(crate) message: String,
    pub(crate) changed_at: Timestamp,
    /// How many tries have failed since the flag was set.
    pub(crate) failed_tries: u8,
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
        let status =
            Status { flag: None, updated: None, message: String::new(), changed_at, failed_tries: 0 };
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

    pub(crate) fn release(&self) -> Release {
        Release::of(&self.options.version)
    }

    pub(crate) fn status(&self) -> Status {
        lock(&self.status).clone()
    }

    /// Sets the flag, as the API's action does; the provisioner sees it.
    pub(crate) fn ask(&self, flag: Flag) {
        if self.world.log.announce() == Turn::Ends {
            return;
        }
        self.world.log.push(&NodeName::new("rancher"), "set the flag rotateCertificates".to_owned());
        lock(&self.status).flag = Some(flag);
        for node in &self.world.nodes {
            for fault in node.reach.arrive(ASKED) {
                self.world.inject(node, fault);
            }
        }
        self.asked.notify_one();
    }

    /// Writes what RKE says into the message of the condition; once it is False it stays so until a try succeeds (norman
    /// `condition.go` `doInternal`).
    fn tell(&self, message: &str) {
        let mut status = lock(&self.status);
        if status.updated != Some(Truth::False) {
            status.updated = Some(Truth::Unknown);
        }
        message.clone_into(&mut status.message);
        status.changed_at = self.world.clock.now();
    }

    fn conclude(&self, updated: Truth, message: &str) {
        let mut status = lock(&self.status);
        match updated {
            Truth::True => (status.flag, status.failed_tries) = (None, 0),
            Truth::False | Truth::Unknown => status.failed_tries = status.failed_tries.saturating_add(1),
        }
        status.updated = Some(updated);
        message.clone_into(&mut status.message);
        status.changed_at = self.world.clock.now();
    }

    /// Waits as long as something takes that takes these seconds in a real cluster.
    pub(crate) async fn pause(&self, seconds: f64) {
        tokio::time::sleep(self.world.clock.scaled(seconds)).await;
    }

    /// Acts on the flag for ever: tries a rotation until it succeeds, then takes the flag back.
    pub(crate) async fn provision(self: Arc<Self>) {
        loop {
            let mut backoff = FIRST_BACKOFF;
            while let Some(flag) = self.status().flag {
                if self.options.failure == Some(RancherFailure::NeverBegins) {
                    break;
                }
                self.pause(2.0).await;
                self.tell("");
                match self.attempt(flag).await {
                    Ok(()) => self.conclude(Truth::True, ""),
                    Err(error) => {
                        let message = match error {
                            SimError::Internal(message) => message.to_owned(),
                            error => error.to_string(),
                        };
                        self.conclude(Truth::False, &message);
                        self.pause(backoff).await;
                        backoff = (backoff * 2.0).min(LAST_BACKOFF);
                    }
                }
            }
            self.asked.notified().await;
        }
    }

    async fn attempt(&self, flag: Flag) -> Result<(), SimError> {
        if flag.with_authorities {
            return Err(SimError::Internal("rotating CA certificates is not simulated"));
        }
        let services = if flag.service.is_empty() { Services::All } else { Services::One(flag.service) };
        self.rotate(services).await
    }

    /// Rotates everything, as after a click in Rancher's UI.
    pub(crate) async fn rotate_all(&self) -> Result<(), SimError> {
        let done = self.rotate(Services::All).await;
        match &done {
            Ok(()) => self.conclude(Truth::True, ""),
            Err(error) => self.conclude(Truth::False, &error.to_string()),
        }
        done
    }

    /// Returns how often the agents ask, at the pace of this fleet.
    pub(crate) fn agent_check_interval(&self) -> Duration {
        self.world.clock.scaled(self.options.agent_check_interval.as_secs_f64())
    }
}
