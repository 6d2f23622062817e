//! The proof of a rotation: every new pair is shown to the components that must take it, and the API calls the node ready.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::step::{Peer, Place, poll_interval};
use super::{Execution, StepError};
use crate::event::Outcome;
use crate::gather::{api_nodes, status_of};
use crate::inventory::{Node, Role};
use crate::kube::{ApiServer, NodeStatus, etcd_health, is_authenticated};

/// How old the API's word about the nodes may be: all nodes are proved at once, and one list tells of all.
const LIST_AGE: Duration = Duration::from_secs(2);

/// What the API said last about the nodes, or why it said nothing, and when.
pub(super) type NodeList = Mutex<Option<(Instant, Result<Vec<NodeStatus>, String>)>>;

/// The pairs that are shown to an API server: those of the clients that RKE has.
const API_CLIENTS: [&str; 5] =
    ["kube-admin", "kube-controller-manager", "kube-node", "kube-proxy", "kube-scheduler"];

impl Execution<'_> {
    /// Proves the new pairs on a node, and removes what was laid aside there.
    pub(super) async fn prove(
        &self,
        place: &Place<'_>,
        names: &[String],
        timeout: Duration,
    ) -> Result<Outcome, StepError> {
        let began = Instant::now();
        let shown = loop {
            let proofs = match self.live_session(place).await {
                Ok(session) => self.proofs(&Place { session: &session, ..*place }, names).await,
                Err(error) => Err(error.error),
            };
            let reason = match proofs {
                Ok(shown) => break shown,
                Err(reason) => reason,
            };
            if began.elapsed() >= timeout || self.run.operator.is_cancelled() {
                let check =
                    format!("`certroll check -n {}` shows all that is known of the node", place.node.name);
                return Err(
                    StepError::new(format!("{reason}, after {} s", began.elapsed().as_secs())).hint(check)
                );
            }
            self.progress(place.turn, format!("waiting: {reason}"));
            self.run.operator.wait_unless_cancelled(poll_interval(timeout)).await;
        };
        let session = self.live_session(place).await?;
        self.run_commands(&Place { session: &session, ..*place }, None).await?;
        let shown = match shown {
            0 => String::new(),
            1 => "1 new pair taken, ".to_owned(),
            count => format!("{count} new pairs taken, "),
        };
        Ok(Outcome::Done { message: format!("{shown}the node is ready") })
    }

    /// Shows each pair once, and returns how many were shown.
    async fn proofs(&self, place: &Place<'_>, names: &[String]) -> Result<usize, String> {
        let mut shown = 0;
        for (name, service, port) in audiences(place.node, names) {
            let issued = self.issued().await.map_err(|error| error.error)?;
            let Some(identity) = issued.identity_of(name) else { continue };
            let identity = identity.map_err(|error| format!("{name}: {}", super::chain(&error)))?;
            let taken = match service {
                Audience::Etcd => etcd_health(place.session, &identity, &place.node.internal_address).await,
                Audience::ApiServer => {
                    is_authenticated(place.session, &identity, "127.0.0.1", port, "/version").await
                }
                Audience::Kubelet => {
                    is_authenticated(place.session, &identity, "127.0.0.1", port, "/healthz").await
                }
            };
            match taken {
                Ok(true) => shown += 1,
                Ok(false) => {
                    return Err(format!("{} does not take the new pair of {name}", service.as_str()));
                }
                Err(error) => {
                    return Err(format!(
                        "{} and the new pair of {name}: {}",
                        service.as_str(),
                        super::chain(&error)
                    ));
                }
            }
        }
        self.is_ready(place.node).await?;
        Ok(shown)
    }

    /// Returns whether the API calls a node ready.
    async fn is_ready(&self, node: &Node) -> Result<(), String> {
        match self.api_status(node).await? {
            None => Err("the API does not know the node".to_owned()),
            Some(found) if found.ready == Some(true) => Ok(()),
            Some(found) => Err(format!("the API does not call the node ready: {}", found.message)),
        }
    }

    /// Returns what the API says of a node; `None` where it does not know it.
    pub(super) async fn api_status(&self, node: &Node) -> Result<Option<NodeStatus>, String> {
        let mut known = self.node_list.lock().await;
        let fresh = known.as_ref().is_some_and(|(asked, _)| asked.elapsed() < LIST_AGE);
        if !fresh {
            let began = Instant::now();
            let answer = self.ask_for_nodes().await;
            // A failure may take longer than it is believed, and all nodes wait for it, one after the other.
            let asked = if answer.is_ok() { began } else { Instant::now() };
            *known = Some((asked, answer));
        }
        match known.as_ref() {
            Some((_, Ok(nodes))) => Ok(status_of(nodes, node).cloned()),
            Some((_, Err(error))) => Err(error.clone()),
            None => Ok(None),
        }
    }

    /// Asks one API server after the other for all nodes.
    async fn ask_for_nodes(&self) -> Result<Vec<NodeStatus>, String> {
        let mut last = "no API server was seen".to_owned();
        for (node, _) in self.run.facts.seen().filter(|(node, _)| node.has(Role::ControlPlane)) {
            let asked = match self.peer(&node.name).await {
                Ok(peer) => self.nodes_over(&peer).await,
                Err(error) => Err(error.error),
            };
            match asked {
                Ok(nodes) => return Ok(nodes),
                Err(error) => last = format!("the API server of {}: {error}", node.name),
            }
        }
        Err(last)
    }

    /// Asks as the administrator of this run, where there is one, else as the node that the API server runs on.
    async fn nodes_over(&self, peer: &Peer<'_>) -> Result<Vec<NodeStatus>, String> {
        match self.issuance.so_far() {
            Some(issued) => {
                let api = ApiServer::new(&peer.session, &issued.identity);
                api.nodes().await.map_err(|error| super::chain(&error))
            }
            None => api_nodes(&peer.session, peer.node, peer.planned).await,
        }
    }
}

/// Who must take a pair.
#[derive(Debug, Clone, Copy)]
enum Audience {
    Etcd,
    ApiServer,
    Kubelet,
}

impl Audience {
    fn as_str(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::Kubelet => "the kubelet",
        }
    }
}

/// Returns which of the new pairs are shown to whom on a node: API servers show kube-node to etcd, and kube-apiserver to
/// kubelets (§2.1).
fn audiences<'a>(node: &Node, names: &'a [String]) -> Vec<(&'a str, Audience, u16)> {
    let own_etcd = format!("kube-etcd-{}", node.file_name_address());
    let mut audiences = Vec::new();
    for name in names {
        if node.has(Role::Etcd) && (name == "kube-node" || *name == own_etcd) {
            audiences.push((name.as_str(), Audience::Etcd, 2379));
        }
        if node.has(Role::ControlPlane) && API_CLIENTS.contains(&name.as_str()) {
            audiences.push((name.as_str(), Audience::ApiServer, 6443));
        }
        if name == "kube-apiserver" {
            audiences.push((name.as_str(), Audience::Kubelet, 10250));
        }
    }
    audiences
}
