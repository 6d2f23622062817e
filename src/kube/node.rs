//! A node's status is what the API server knows of it: its addresses, and whether its kubelet reports.

use serde::Deserialize;

/// What the API server knows of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its name in Kubernetes; RKE's `hostname_override`.
    pub name: String,
    /// Its addresses and host names.
    pub addresses: Vec<String>,
    /// Whether it is ready; a kubelet that has stopped reporting is not. `None` where nothing was said yet.
    pub ready: Option<bool>,
    /// What the condition says.
    pub message: String,
}

/// One page of a list of nodes.
#[derive(Deserialize)]
pub(super) struct NodeList {
    #[serde(default)]
    metadata: ListMetadata,
    items: Option<Vec<Node>>,
}

impl NodeList {
    /// Returns the token that the next page is asked with; `None` on the last page.
    pub(super) fn next(&self) -> Option<String> {
        self.metadata.next.clone().filter(|token| !token.is_empty())
    }

    /// Returns the nodes.
    pub(super) fn into_nodes(self) -> impl Iterator<Item = NodeStatus> {
        self.items.into_iter().flatten().map(Node::into_status)
    }
}

#[derive(Deserialize, Default)]
struct ListMetadata {
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Node {
    metadata: Metadata,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Deserialize, Default)]
struct Status {
    addresses: Option<Vec<Address>>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Deserialize)]
struct Address {
    address: String,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    #[serde(default)]
    message: String,
}

impl Node {
    fn into_status(self) -> NodeStatus {
        let conditions = self.status.conditions.into_iter().flatten();
        let ready = conditions.into_iter().find(|condition| condition.kind == "Ready");
        let addresses = self.status.addresses.into_iter().flatten().map(|address| address.address);
        NodeStatus {
            name: self.metadata.name,
            addresses: addresses.collect(),
            ready: ready.as_ref().map(|condition| condition.status == "True"),
            message: ready.map(|condition| condition.message).unwrap_or_default(),
        }
    }
}
