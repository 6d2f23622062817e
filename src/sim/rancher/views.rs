//! What the simulated Rancher tells of cluster and nodes, in the words of Rancher v2.2.8.

use serde_json::{Map, Value, json};

use super::{CLUSTER_ID, Condition, RancherFailure, Rotation};
use crate::inventory::{Inventory, Role};
use crate::sim::authority::Validity;
use crate::sim::container::digest;
use crate::sim::machine::SimNode;

/// What does not change while Rancher runs.
#[derive(Debug)]
pub(super) struct View {
    url: String,
    name: String,
    kubernetes_version: String,
    ca: String,
}

/// Which part of which collection is asked for.
#[derive(Debug)]
pub(super) struct Collection<'a> {
    pub(super) kind: &'a str,
    pub(super) plural: &'a str,
    pub(super) limit: usize,
    pub(super) marker: usize,
}

impl View {
    pub(super) fn new(url: String, inventory: &Inventory, ca: String) -> Self {
        let kubernetes_version = inventory.kubernetes_version.clone().unwrap_or_default();
        Self { url, name: inventory.cluster_name.clone(), kubernetes_version, ca }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn ca(&self) -> &str {
        &self.ca
    }

    pub(super) fn setting(&self, name: &str, value: &str) -> Value {
        json!({
            "type": "setting", "baseType": "setting", "id": name, "name": name, "value": value, "customized": false, "default": "",
            "links": { "self": format!("{}/v3/settings/{name}", self.url) },
        })
    }

    pub(super) fn collection(&self, asked: &Collection<'_>, items: Vec<Value>) -> Value {
        let total = items.len();
        let (limit, marker, plural) = (asked.limit.max(1), asked.marker, asked.plural);
        let mut pagination = Map::new();
        pagination.insert("limit".to_owned(), json!(limit));
        pagination.insert("total".to_owned(), json!(total));
        let next = marker.saturating_add(limit);
        if next < total {
            let link = format!("{}/v3/{plural}?clusterId={CLUSTER_ID}&limit={limit}&marker={next}", self.url);
            pagination.insert("next".to_owned(), json!(link));
            pagination.insert("partial".to_owned(), json!(true));
        }
        json!({
            "type": "collection", "resourceType": asked.kind, "links": { "self": format!("{}/v3/{plural}", self.url) },
            "actions": {}, "pagination": pagination, "data": items.into_iter().skip(marker).take(limit).collect::<Vec<_>>(),
        })
    }

    pub(super) fn cluster(&self, rotation: &Rotation) -> Value {
        rotation.world().settle();
        let status = rotation.status();
        let api =
            rotation.world().with_role(Role::ControlPlane).any(|node| rotation.world().api_is_healthy(node));
        let updated = status.updated.as_str();
        let (state, transitioning) = match status.updated {
            Condition::Unknown => ("updating", "yes"),
            Condition::False => ("updating", "error"),
            Condition::True if !api => ("unavailable", "yes"),
            Condition::True => ("active", "no"),
        };
        let message = if state == "unavailable" {
            "Cluster health check failed: Failed to communicate with API server"
        } else {
            &status.message
        };
        let mut engine = json!({
            "addonJobTimeout": 30, "kubernetesVersion": self.kubernetes_version, "ignoreDockerVersion": true,
            "network": { "plugin": "canal", "type": "/v3/schemas/networkConfig" },
            "services": { "type": "/v3/schemas/rkeConfigServices" }, "type": "/v3/schemas/rancherKubernetesEngineConfig",
        });
        if let (Some((services, with_authorities)), Value::Object(engine)) = (&status.flag, &mut engine) {
            let flag = json!({ "caCertificates": with_authorities, "services": services, "type": "/v3/schemas/rotateCertificates" });
            engine.insert("rotateCertificates".to_owned(), flag);
        }
        let own = format!("{}/v3/clusters/{CLUSTER_ID}", self.url);
        let stuck = rotation.options().failure == Some(RancherFailure::NeverBegins) && status.flag.is_some();
        json!({
            "type": "cluster", "baseType": "cluster", "id": CLUSTER_ID, "name": self.name, "driver": "rancherKubernetesEngine",
            "internal": false,
            "actions": {
                "backupEtcd": format!("{own}?action=backupEtcd"),
                "exportYaml": format!("{own}?action=exportYaml"),
                "generateKubeconfig": format!("{own}?action=generateKubeconfig"),
                "rotateCertificates": format!("{own}?action=rotateCertificates"),
            },
            "links": { "self": own, "nodes": format!("{own}/nodes"), "update": own, "remove": own },
            "appliedSpec": { "displayName": self.name, "rancherKubernetesEngineConfig": self.applied(rotation), "type": "/v3/schemas/clusterSpec" },
            "rancherKubernetesEngineConfig": engine,
            "conditions": [
                { "type": "Pending", "status": "True" },
                { "type": "Provisioned", "status": "True" },
                { "type": "Waiting", "status": "True" },
                { "type": "Updated", "status": updated, "message": status.message, "lastUpdateTime": status.changed_at.to_string() },
                { "type": "Ready", "status": if api { "True" } else { "False" } },
            ],
            "certificatesExpiration": expirations(rotation),
            "state": if stuck { "provisioning" } else { state },
            "transitioning": if stuck { "error" } else { transitioning },
            "transitioningMessage": message,
            "uuid": "fdeaab4d-3501-4e26-bc6b-abbf80ec7d56",
        })
    }

    fn applied(&self, rotation: &Rotation) -> Value {
        let node = |node: &std::sync::Arc<SimNode>| {
            let roles: Vec<&str> = node.roles.iter().map(|role| role.as_str()).collect();
            json!({
                "address": node.internal_address, "hostnameOverride": node.name.as_str(), "nodeId": id(node), "port": "22",
                "role": roles, "sshAgentAuth": false, "type": "/v3/schemas/rkeConfigNode", "user": "root",
            })
        };
        let nodes: Vec<Value> = rotation.world().nodes.iter().map(node).collect();
        json!({ "kubernetesVersion": self.kubernetes_version, "nodes": nodes, "type": "/v3/schemas/rancherKubernetesEngineConfig" })
    }

    pub(super) fn nodes(&self, rotation: &Rotation) -> Vec<Value> {
        rotation.world().settle();
        rotation.world().nodes.iter().map(|node| self.node(rotation, node)).collect()
    }

    fn node(&self, rotation: &Rotation, node: &SimNode) -> Value {
        let ready = rotation.world().node_is_ready(node);
        let message = if ready { "" } else { "Kubelet stopped posting node status." };
        let kubelet = self.kubernetes_version.split("-rancher").next().unwrap_or_default();
        let own = format!("{}/v3/nodes/{}", self.url, id(node));
        // In this fleet's own time: whoever waits for an agent waits as long as it really takes here.
        let seconds = rotation.agent_check_interval().as_secs() + 1;
        json!({
            "type": "node", "baseType": "node", "id": id(node), "clusterId": CLUSTER_ID, "name": "", "nodeName": node.name.as_str(),
            "hostname": node.name.as_str(), "requestedHostname": node.name.as_str(), "imported": true, "unschedulable": false,
            "ipAddress": node.internal_address, "externalIpAddress": node.internal_address, "sshUser": "root",
            "controlPlane": node.has(Role::ControlPlane), "etcd": node.has(Role::Etcd), "worker": node.has(Role::Worker),
            "state": if ready { "active" } else { "unavailable" },
            "transitioning": if ready { "no" } else { "error" },
            "transitioningMessage": message,
            "conditions": [
                { "type": "Initialized", "status": "True" },
                { "type": "Registered", "status": "True", "message": "registered with kubernetes" },
                { "type": "Provisioned", "status": "True" },
                { "type": "Ready", "status": if ready { "True" } else { "Unknown" }, "message": if ready { "kubelet is posting ready status" } else { message } },
            ],
            "customConfig": { "address": node.internal_address, "internalAddress": node.internal_address, "type": "/v3/schemas/customConfig" },
            "nodeTemplateId": null, "nodePoolId": "", "nodePlan": { "agentCheckInterval": seconds, "version": 0, "type": "/v3/schemas/nodePlan" },
            "info": {
                "kubernetes": { "kubeletVersion": kubelet, "kubeProxyVersion": kubelet },
                "os": { "dockerVersion": "18.9.9", "kernelVersion": "4.15.0-1054", "operatingSystem": "Ubuntu 18.04.3 LTS" },
            },
            "links": { "self": own, "update": own, "remove": own },
        })
    }
}

fn id(node: &SimNode) -> String {
    let hash: String = digest(node.name.as_str()).chars().take(12).collect();
    format!("{CLUSTER_ID}:m-{hash}")
}

/// Returns what Rancher from 2.2.5 on tells of certificates: from its own state, not from the nodes.
fn expirations(rotation: &Rotation) -> Value {
    let mut expirations = Map::new();
    let stored = crate::sim::clock::lock(&rotation.stored);
    for (name, pair) in stored.iter().flatten() {
        let hidden = ["token", "header", "admin"].iter().any(|part| name.contains(part));
        if let Some(validity) = Validity::of(pair.certificate.as_bytes()).filter(|_| !hidden) {
            let expiration = json!({ "expirationDate": validity.not_after.to_string(), "type": "/v3/schemas/certExpiration" });
            expirations.insert(name.clone(), expiration);
        }
    }
    Value::Object(expirations)
}
