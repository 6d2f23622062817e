//! Asks the API which nodes are ready, with the pair that every API server's own node holds.

use std::error::Error;
use std::fmt::Display;

use super::Gatherer;
use crate::command::{Command, quote};
use crate::facts::{Facts, Observation, Readiness};
use crate::inventory::{Node, Role};
use crate::kube::{ApiServer, Identity, NodeStatus};
use crate::pki::{KUBE_CA, Location};
use crate::transport::Session;

impl Gatherer {
    /// Writes into the facts which nodes the API calls ready; says why where no API server could be asked.
    ///
    /// The private key of kube-node is read from a controlplane node, and kept in memory alone.
    pub async fn ask_for_readiness(&self, facts: &mut Facts) -> Result<(), String> {
        let mut last = "no API server was seen".to_owned();
        let mut found = None;
        for (seen, observation) in facts.seen().filter(|(seen, _)| seen.has(Role::ControlPlane)) {
            let Some(node) = self.inventory.node(&seen.name) else { continue };
            match self.nodes_over(node, observation).await {
                Ok(nodes) => {
                    found = Some(nodes);
                    break;
                }
                Err(error) => last = format!("the API server of {}: {error}", node.name),
            }
        }
        let nodes = found.ok_or(last)?;
        for facts in &mut facts.nodes {
            let node = self.inventory.node(&facts.name);
            let status = node.and_then(|node| status_of(&nodes, node));
            facts.standing.ready = status.and_then(readiness);
        }
        Ok(())
    }

    async fn nodes_over(&self, node: &Node, observation: &Observation) -> Result<Vec<NodeStatus>, String> {
        let session = self.connect(node).await.map_err(|error| error.to_string())?;
        let nodes = api_nodes(&session, node, observation).await;
        session.close().await;
        nodes
    }
}

/// Asks the API server of a node for all nodes, as the kube-node of that node: RKE lets that group read them
/// (rancher/rke `templates/authz.go`, binding `system:node`).
pub(crate) async fn api_nodes(
    session: &Session,
    node: &Node,
    observation: &Observation,
) -> Result<Vec<NodeStatus>, String> {
    let failed = |error: &dyn Display| error.to_string();
    let asked = |error: &dyn Error| match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    let authority = observation.certificate(Location::Ssl, KUBE_CA).ok_or("kube-ca was not seen there")?;
    let directory = &observation.kubernetes_directory;
    let [certificate, key] =
        ["kube-node.pem", "kube-node-key.pem"].map(|file| quote(&format!("{directory}/ssl/{file}")));
    let command = Command::new(format!("cat {certificate} {key}"));
    let output = session
        .run(&command, &observation.access, &node.docker_socket)
        .await
        .map_err(|error| failed(&error))?;
    if !output.succeeded() {
        return Err(output.stderr_text());
    }
    let pair = std::str::from_utf8(&output.stdout).map_err(|_| "the pair of kube-node is not PEM")?;
    let identity = Identity::new(pair, pair, authority).map_err(|error| failed(&error))?;
    ApiServer::new(session, &identity).nodes().await.map_err(|error| asked(&error))
}

/// Returns what the API says of a node, if it knows it.
pub(crate) fn status_of<'a>(nodes: &'a [NodeStatus], node: &Node) -> Option<&'a NodeStatus> {
    nodes
        .iter()
        .find(|found| std::iter::once(&found.name).chain(&found.addresses).any(|name| node.is_known_as(name)))
}

/// Returns whether a node is ready; `None` where nothing was said yet.
pub(crate) fn readiness(status: &NodeStatus) -> Option<Readiness> {
    status.ready.map(|ready| Readiness { ready, message: status.message.clone() })
}
