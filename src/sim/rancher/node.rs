//! Nodes as Rancher's API tells of them.

use serde_json::{Value, json};

use super::super::container::digest;
use super::super::machine::SimNode;
use super::cluster::add;
use super::norman::{Condition, Kind, summary};
use super::server::Site;
use super::{CLUSTER_ID, NodeSource, Rotation, TokenRights};
use crate::inventory::Role;

/// Nodes in collections.
pub(super) const KIND: Kind = Kind {
    id: "node",
    plural: "nodes",
    text_fields: &[
        "description",
        "externalIpAddress",
        "hostname",
        "ipAddress",
        "name",
        "nodeName",
        "podCidr",
        "providerId",
        "sshUser",
        "state",
        "transitioning",
        "transitioningMessage",
        "uuid",
    ],
    other_fields: &[
        "clusterId",
        "controlPlane",
        "created",
        "creatorId",
        "etcd",
        "id",
        "imported",
        "namespaceId",
        "nodePoolId",
        "nodeTemplateId",
        "removed",
        "requestedHostname",
        "unschedulable",
        "worker",
    ],
};

/// Returns a node.
pub(super) fn node(site: &Site, rotation: &Rotation, node: &SimNode) -> Value {
    let mut conditions: Vec<Condition> = ["Initialized", "Provisioned"].map(Condition::fulfilled).into();
    let registered = Condition::fulfilled("Registered");
    conditions.push(Condition { message: "registered with kubernetes".to_owned(), ..registered });
    let ready = Condition::fulfilled("Ready");
    conditions.push(if rotation.world().node_is_ready(node) {
        Condition { message: "kubelet is posting ready status".to_owned(), reason: "KubeletReady", ..ready }
    } else {
        let message = "Kubelet stopped posting node status.".to_owned();
        Condition { status: "Unknown", message, reason: "NodeStatusUnknown", ..ready }
    });
    let summary = summary(&conditions);
    let own = format!("{}/v3/nodes/{}", site.url, id(node));
    let kubelet = site.kubernetes_version.split("-rancher").next().unwrap_or_default();
    let created = rotation.world().clock.now();
    let mut actions = json!({});
    if node.has(Role::Worker) && summary.state == "active" {
        add(
            &mut actions,
            json!({ "cordon": format!("{own}?action=cordon"), "drain": format!("{own}?action=drain") }),
        );
    }
    let mut fields = json!({
        "type": "node", "baseType": "node", "id": id(node), "clusterId": CLUSTER_ID, "name": "", "nodeName": node.name.as_str(),
        "hostname": node.name.as_str(), "requestedHostname": node.name.as_str(), "unschedulable": false,
        "ipAddress": node.internal_address, "externalIpAddress": node.address, "sshUser": user(rotation, node),
        "annotations": { "rke.cattle.io/external-ip": node.address, "rke.cattle.io/internal-ip": node.internal_address },
        "labels": { "kubernetes.io/hostname": node.name.as_str() },
        "controlPlane": node.has(Role::ControlPlane), "etcd": node.has(Role::Etcd), "worker": node.has(Role::Worker),
        "state": summary.state, "transitioning": summary.transitioning, "transitioningMessage": summary.message,
        "conditions": conditions.iter().map(Condition::json).collect::<Vec<_>>(),
        "created": created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(), "createdTS": created.as_millisecond(),
        "creatorId": null, "namespaceId": null, "uuid": digest(&id(node)).chars().take(32).collect::<String>(),
        "info": {
            "cpu": { "count": 2 }, "memory": { "memTotalKiB": 4_039_116 },
            "kubernetes": { "kubeletVersion": kubelet, "kubeProxyVersion": kubelet },
            "os": { "dockerVersion": "18.9.9", "kernelVersion": "4.15.0-1054", "operatingSystem": "Ubuntu 18.04.3 LTS" },
        },
        "links": links(rotation, &own), "actions": actions,
    });
    add(&mut fields, origin(rotation, node));
    if rotation.release().shows_node_plans() || rotation.world().clock.is_fast() {
        // Releases before 2.4 have no such field. A fleet whose time runs faster shows it all the same: whoever waits for an agent
        // waits as long as it really takes here.
        let seconds = rotation.agent_check_interval().as_secs() + 1;
        let plan = json!({ "agentCheckInterval": seconds, "version": 0, "type": "/v3/schemas/nodePlan" });
        add(&mut fields, json!({ "nodePlan": plan }));
    }
    fields
}

fn links(rotation: &Rotation, own: &str) -> Value {
    let mut links = json!({ "self": own });
    if rotation.options().token == TokenRights::Owner {
        add(&mut links, json!({ "update": own, "remove": own }));
        if rotation.options().nodes == NodeSource::NodeDriver {
            add(&mut links, json!({ "nodeConfig": format!("{own}/nodeconfig") }));
        }
    }
    links
}

fn origin(rotation: &Rotation, node: &SimNode) -> Value {
    match rotation.options().nodes {
        NodeSource::Custom => json!({
            "imported": true, "nodePoolId": "", "nodeTemplateId": null,
            "customConfig": { "address": node.address, "internalAddress": node.internal_address, "type": "/v3/schemas/customConfig" },
        }),
        NodeSource::NodeDriver => json!({
            "imported": false, "nodePoolId": format!("{CLUSTER_ID}:np-5lxcv"), "nodeTemplateId": "user-q5qrk:nt-7gw4h",
        }),
    }
}

/// Returns the id of a node.
pub(super) fn id(node: &SimNode) -> String {
    let hash: String = digest(node.name.as_str()).chars().take(12).collect();
    format!("{CLUSTER_ID}:m-{hash}")
}

/// Returns the SSH user: Rancher knows that of the hosts that it made, and takes `root` for that of others.
pub(super) fn user<'a>(rotation: &Rotation, node: &'a SimNode) -> &'a str {
    match rotation.options().nodes {
        NodeSource::Custom => "root",
        NodeSource::NodeDriver => &node.login.name,
    }
}
