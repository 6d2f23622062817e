//! A Rancher node is what Rancher knows of one machine of a cluster.

use std::time::Duration;

use serde::Deserialize;

use super::Transitioning;
use super::answer::one_line;
use crate::inventory::Role;

/// What Rancher knows of one machine of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RancherNode {
    /// The id (`c-x7k2p:m-0123456789ab`).
    pub id: String,
    /// The name in Kubernetes; before it has one, the host name that it registered with; else the id.
    pub name: String,
    /// Every address that Rancher knows, without repetition.
    pub addresses: Vec<String>,
    /// The roles, in the order of [`Role::ALL`].
    pub roles: Vec<Role>,
    /// The state that people see (`active`, `unavailable`, `registering`, `cordoned`, `drained`).
    pub state: String,
    /// Whether that state is to change.
    pub transitioning: Transitioning,
    /// What Rancher says meanwhile, on one line and at most some hundred characters of it.
    pub transitioning_message: String,
    /// How often the node's agent asks for its configuration (`nodePlan.agentCheckInterval`); 120 s unless something is new.
    pub agent_check_interval: Option<Duration>,
}

/// The fields of a node that are read, as the API has them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeBody {
    id: String,
    node_name: Option<String>,
    hostname: Option<String>,
    requested_hostname: Option<String>,
    ip_address: Option<String>,
    external_ip_address: Option<String>,
    custom_config: Option<CustomConfig>,
    control_plane: Option<bool>,
    etcd: Option<bool>,
    worker: Option<bool>,
    state: Option<String>,
    transitioning: Option<Transitioning>,
    transitioning_message: Option<String>,
    node_plan: Option<NodePlan>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CustomConfig {
    address: Option<String>,
    internal_address: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodePlan {
    agent_check_interval: Option<u64>,
}

impl From<NodeBody> for RancherNode {
    fn from(body: NodeBody) -> Self {
        let name = [body.node_name, body.hostname, body.requested_hostname]
            .into_iter()
            .flatten()
            .find(|name| !name.is_empty())
            .unwrap_or_else(|| body.id.clone());
        let (address, internal_address) =
            body.custom_config.map_or((None, None), |config| (config.address, config.internal_address));
        let mut addresses = Vec::new();
        for address in
            [address, body.ip_address, internal_address, body.external_ip_address].into_iter().flatten()
        {
            if !address.is_empty() && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let held =
            [(Role::ControlPlane, body.control_plane), (Role::Etcd, body.etcd), (Role::Worker, body.worker)];
        Self {
            id: body.id,
            name,
            addresses,
            roles: held.into_iter().filter(|(_, held)| *held == Some(true)).map(|(role, _)| role).collect(),
            state: body.state.unwrap_or_default(),
            transitioning: body.transitioning.unwrap_or(Transitioning::No),
            transitioning_message: one_line(&body.transitioning_message.unwrap_or_default()),
            agent_check_interval: body
                .node_plan
                .and_then(|plan| plan.agent_check_interval)
                .filter(|seconds| *seconds > 0)
                .map(Duration::from_secs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rancher::answer::{Page, parse};

    #[test]
    fn real_nodes_are_read() {
        let page: Page<NodeBody> =
            parse("the list of nodes", include_str!("../../tests/cases/rancher/nodes.json")).unwrap();
        let nodes: Vec<RancherNode> = page.data.into_iter().map(RancherNode::from).collect();
        let seen: Vec<_> = nodes
            .iter()
            .map(|node| (node.name.as_str(), node.addresses.join(" "), node.roles.clone()))
            .collect();
        let control_plane = vec![Role::ControlPlane, Role::Etcd];
        assert_eq!(
            seen,
            [
                ("n5", "10.77.0.15".to_owned(), vec![Role::Worker]),
                ("n2", "10.77.0.12".to_owned(), control_plane.clone()),
                ("n1", "10.77.0.11".to_owned(), control_plane),
                ("n4", "10.77.0.14".to_owned(), vec![Role::Worker]),
            ]
        );
        assert_eq!(nodes[0].id, "c-xx8vz:m-8eb6d8747175");
        assert_eq!((nodes[0].state.as_str(), nodes[0].transitioning), ("registering", Transitioning::Yes));
        assert_eq!(nodes[0].transitioning_message, "waiting to register with Kubernetes");
        assert_eq!(nodes[0].agent_check_interval, None);
    }

    #[test]
    fn a_settled_node_has_its_kubernetes_name_and_its_interval() {
        let body = r#"{"id":"c-1:m-2","nodeName":"w-1","hostname":"w-1.example","requestedHostname":"w1",
            "ipAddress":"10.0.0.2","externalIpAddress":"203.0.113.2","customConfig":{"address":"203.0.113.2","internalAddress":"10.0.0.2"},
            "worker":true,"state":"active","transitioning":"no","transitioningMessage":"",
            "nodePlan":{"agentCheckInterval":120,"version":3}}"#;
        let node = RancherNode::from(parse::<NodeBody>("the node", body).unwrap());
        assert_eq!(node.name, "w-1");
        assert_eq!(node.addresses, ["203.0.113.2", "10.0.0.2"]);
        assert_eq!(node.roles, [Role::Worker]);
        assert_eq!(node.agent_check_interval, Some(Duration::from_secs(120)));
    }
}
