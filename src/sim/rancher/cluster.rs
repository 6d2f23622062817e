//! Clusters as Rancher's API tells of them: the simulated one with its rotation, and others that are only names.
//!
//! The API asks for them. Fields are those of the real server v2.2.8; what later releases added and the
//! rotation does not touch is left out.

use serde_json::{Map, Value, json};

use super::super::authority::Validity;
use super::super::clock::lock;
use super::super::machine::SimNode;
use super::norman::{Condition, Kind, summary};
use super::server::Site;
use super::{
    CLUSTER_ID, ClusterKind, OtherCluster, RancherFailure, RotateAction, Rotation, Status, TokenRights,
};
use crate::inventory::Role;

/// Clusters in collections.
pub(super) const KIND: Kind = Kind {
    id: "cluster",
    plural: "clusters",
    text_fields: &[
        "agentImage",
        "apiEndpoint",
        "appliedPodSecurityPolicyTemplateId",
        "authImage",
        "caCert",
        "description",
        "desiredAgentImage",
        "desiredAuthImage",
        "dockerRootDir",
        "driver",
        "state",
        "transitioning",
        "transitioningMessage",
        "uuid",
    ],
    other_fields: &[
        "appliedEnableNetworkPolicy",
        "created",
        "creatorId",
        "defaultClusterRoleForProjectMembers",
        "defaultPodSecurityPolicyTemplateId",
        "enableClusterAlerting",
        "enableClusterMonitoring",
        "enableNetworkPolicy",
        "id",
        "internal",
        "name",
        "removed",
    ],
};

/// The message of an agent that cannot be deployed; the real one is four times as long.
const NOT_DEPLOYED: &str = "exit status 1, [unable to recognize \"./management-state/tmp/yaml-2019779396\": no matches for kind \
    \"Deployment\" in version \"extensions/v1beta1\", unable to recognize \"./management-state/tmp/yaml-2019779396\": no matches for \
    kind \"DaemonSet\" in version \"extensions/v1beta1\"]\nError from server (Forbidden): error when retrieving current configuration";

/// Returns the simulated cluster.
pub(super) fn cluster(site: &Site, rotation: &Rotation) -> Value {
    rotation.world().settle();
    let status = rotation.status();
    let conditions = conditions(rotation, &status);
    let summary = summary(&conditions);
    let mut engine = engine(site);
    if let (Some(flag), Value::Object(engine)) = (&status.flag, &mut engine) {
        let flag = match rotation.release().action() {
            RotateAction::OneService => json!({
                "caCertificates": flag.with_authorities, "services": flag.service, "type": "/v3/schemas/rotateCertificates",
            }),
            RotateAction::Absent | RotateAction::Bodyless => {
                json!({ "type": "/v3/schemas/rotateCertificates" })
            }
        };
        engine.insert("rotateCertificates".to_owned(), flag);
    }
    let mut applied = self::engine(site);
    if let Value::Object(applied) = &mut applied {
        let nodes = rotation.world().nodes.iter().zip(&site.ports);
        let mut nodes: Vec<Value> = nodes.map(|(node, port)| applied_node(rotation, node, *port)).collect();
        nodes.sort_by_key(|node| node.get("nodeId").and_then(Value::as_str).map(str::to_owned));
        applied.insert("nodes".to_owned(), Value::from(nodes));
    }
    let mut cluster = common(site, (CLUSTER_ID, &site.cluster_name), rotation);
    let more = json!({
        "driver": "rancherKubernetesEngine",
        "apiEndpoint": api_endpoint(rotation),
        "appliedSpec": {
            "displayName": site.cluster_name, "description": "", "dockerRootDir": "/var/lib/docker", "internal": false,
            "desiredAgentImage": "", "desiredAuthImage": "", "enableNetworkPolicy": false, "enableClusterAlerting": false,
            "enableClusterMonitoring": false, "defaultClusterRoleForProjectMembers": null, "defaultPodSecurityPolicyTemplateId": null,
            "localClusterAuthEndpoint": { "enabled": false, "type": "/v3/schemas/localClusterAuthEndpoint" },
            "rancherKubernetesEngineConfig": applied, "type": "/v3/schemas/clusterSpec",
        },
        "rancherKubernetesEngineConfig": engine,
        "caCert": null,
        "conditions": conditions.iter().map(Condition::json).collect::<Vec<_>>(),
        "state": summary.state, "transitioning": summary.transitioning, "transitioningMessage": summary.message,
    });
    add(&mut cluster, more);
    if rotation.release().shows_expirations() {
        add(&mut cluster, json!({ "certificatesExpiration": expirations(rotation) }));
    }
    cluster
}

/// Returns a cluster that is only a name here.
pub(super) fn other(site: &Site, rotation: &Rotation, other: &OtherCluster) -> Value {
    let mut cluster = common(site, (&id(other), &other.name), rotation);
    let (driver, config) = match other.kind {
        ClusterKind::Rke => {
            ("rancherKubernetesEngine", Some(("rancherKubernetesEngineConfig", engine(site))))
        }
        ClusterKind::Rke2 => (
            "rke2",
            Some((
                "rke2Config",
                json!({ "kubernetesVersion": "v1.24.9+rke2r2", "type": "/v3/schemas/rke2Config" }),
            )),
        ),
        ClusterKind::K3s => (
            "k3s",
            Some((
                "k3sConfig",
                json!({ "kubernetesVersion": "v1.24.9+k3s2", "type": "/v3/schemas/k3sConfig" }),
            )),
        ),
        ClusterKind::Imported => (
            "imported",
            Some(("importedConfig", json!({ "kubeConfig": "", "type": "/v3/schemas/importedConfig" }))),
        ),
        ClusterKind::Local => ("local", None),
    };
    add(
        &mut cluster,
        json!({
            "driver": driver, "internal": other.kind == ClusterKind::Local,
            "conditions": [{ "type": "Ready", "status": "True" }],
            "state": "active", "transitioning": "no", "transitioningMessage": "",
        }),
    );
    if let (Some((name, config)), Value::Object(cluster)) = (config, &mut cluster) {
        cluster.insert(name.to_owned(), config);
    }
    if other.kind != ClusterKind::Rke
        && let Some(Value::Object(actions)) = cluster.get_mut("actions")
    {
        for action in ["rotateCertificates", "backupEtcd", "restoreFromEtcdBackup"] {
            actions.remove(action);
        }
    }
    cluster
}

/// Returns the id of another cluster: those that Rancher provisions through its own API of 2.6 have ids of three parts.
pub(super) fn id(other: &OtherCluster) -> String {
    let hash = super::super::container::digest(&other.name);
    let part = |length| hash.chars().take(length).collect::<String>();
    match other.kind {
        ClusterKind::Local => "local".to_owned(),
        ClusterKind::Rke2 => format!("c-m-{}", part(8)),
        ClusterKind::Rke | ClusterKind::K3s | ClusterKind::Imported => format!("c-{}", part(5)),
    }
}

/// Returns what every cluster tells.
fn common(site: &Site, (id, name): (&str, &str), rotation: &Rotation) -> Value {
    let url = &site.url;
    let own = format!("{url}/v3/clusters/{id}");
    let mut actions: Vec<&str> = vec!["exportYaml", "generateKubeconfig", "importYaml"];
    if rotation.release().action() != RotateAction::Absent {
        actions.push("rotateCertificates");
        if rotation.release().action() == RotateAction::OneService {
            actions.extend(["backupEtcd", "restoreFromEtcdBackup"]);
        }
    }
    if rotation.options().token == TokenRights::Owner {
        actions.push("enableMonitoring");
    }
    let actions =
        actions.into_iter().map(|action| (action.to_owned(), Value::from(format!("{own}?action={action}"))));
    let mut links = json!({
        "self": own, "nodes": format!("{own}/nodes"), "nodePools": format!("{own}/nodepools"), "projects": format!("{own}/projects"),
        "clusterRegistrationTokens": format!("{own}/clusterregistrationtokens"), "namespaces": format!("{own}/namespaces"),
        "subscribe": format!("{own}/subscribe"), "shell": format!("{}?shell=true", own.replacen("http", "ws", 1)),
    });
    if rotation.options().token == TokenRights::Owner {
        add(&mut links, json!({ "update": own, "remove": own }));
    }
    let none = json!({ "cpu": "0", "memory": "0", "pods": "0" });
    let created = rotation.world().clock.now();
    json!({
        "type": "cluster", "baseType": "cluster", "id": id, "name": name, "description": "", "internal": false,
        "actions": actions.collect::<Map<_, _>>(), "links": links,
        "agentImage": "", "authImage": "", "desiredAgentImage": "", "desiredAuthImage": "",
        "allocatable": none, "capacity": none, "limits": none, "requested": none,
        "annotations": { "provisioner.cattle.io/ke-driver-update": "updated" }, "labels": { "cattle.io/creator": "norman" },
        "appliedEnableNetworkPolicy": false, "appliedPodSecurityPolicyTemplateId": "", "defaultClusterRoleForProjectMembers": null,
        "defaultPodSecurityPolicyTemplateId": null, "dockerRootDir": "/var/lib/docker", "enableClusterAlerting": false,
        "enableClusterMonitoring": false, "enableNetworkPolicy": false, "creatorId": "user-q5qrk",
        "created": created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(), "createdTS": created.as_millisecond(),
        "localClusterAuthEndpoint": { "enabled": false, "type": "/v3/schemas/localClusterAuthEndpoint" },
        "capabilities": { "nodePoolScalingSupported": false, "nodePortRange": "30000-32767", "type": "/v3/schemas/capabilities" },
        "componentStatuses": null,
        "uuid": "fdeaab4d-3501-4e26-bc6b-abbf80ec7d56",
    })
}

fn conditions(rotation: &Rotation, status: &Status) -> Vec<Condition> {
    let mut conditions: Vec<Condition> =
        ["Pending", "Provisioned", "Waiting", "NoDiskPressure", "NoMemoryPressure"]
            .map(Condition::fulfilled)
            .into();
    let deployed = Condition::fulfilled("AgentDeployed");
    if rotation.options().failure == Some(RancherFailure::NeverBegins) && status.flag.is_some() {
        let message = NOT_DEPLOYED.to_owned();
        conditions.push(Condition { status: "False", reason: "Error", message, ..deployed });
    } else {
        conditions.push(deployed);
    }
    let ready = Condition::fulfilled("Ready");
    let is_healthy = |node: &std::sync::Arc<SimNode>| rotation.world().api_is_healthy(node);
    if rotation.world().with_role(Role::ControlPlane).any(is_healthy) {
        conditions.push(ready);
    } else {
        let message = "Cluster health check failed: Failed to communicate with API server".to_owned();
        conditions.push(Condition {
            status: "False",
            reason: "ComponentStatsFetchingFailure",
            message,
            ..ready
        });
    }
    if let Some(updated) = status.updated {
        conditions.push(Condition {
            kind: "Updated",
            status: updated.as_str(),
            message: status.message.clone(),
            reason: if updated == super::Truth::False { "Error" } else { "" },
            changed: Some(status.changed_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        });
    }
    conditions
}

/// Returns the configuration of RKE, without nodes.
fn engine(site: &Site) -> Value {
    let mut engine = json!({
        "addonJobTimeout": 30, "kubernetesVersion": site.kubernetes_version, "ignoreDockerVersion": true, "sshAgentAuth": false,
        "authentication": { "strategy": "x509", "type": "/v3/schemas/authnConfig" },
        "authorization": { "type": "/v3/schemas/authzConfig" },
        "bastionHost": { "sshAgentAuth": false, "type": "/v3/schemas/bastionHost" },
        "cloudProvider": { "type": "/v3/schemas/cloudProvider" },
        "ingress": { "provider": "nginx", "type": "/v3/schemas/ingressConfig" },
        "network": { "plugin": "canal", "type": "/v3/schemas/networkConfig" },
        "restore": { "restore": false, "type": "/v3/schemas/restoreConfig" },
        "services": {
            "etcd": {
                "backupConfig": { "enabled": true, "intervalHours": 12, "retention": 6, "s3BackupConfig": null, "type": "/v3/schemas/backupConfig" },
                "creation": "12h", "retention": "72h", "snapshot": false, "type": "/v3/schemas/etcdService",
            },
            "kubeApi": {
                "alwaysPullImages": false, "podSecurityPolicy": false, "serviceClusterIpRange": site.service_range,
                "serviceNodePortRange": "30000-32767", "type": "/v3/schemas/kubeAPIService",
            },
            "kubeController": { "type": "/v3/schemas/kubeControllerService" },
            "kubelet": { "clusterDomain": site.cluster_domain, "failSwapOn": false, "type": "/v3/schemas/kubeletService" },
            "kubeproxy": { "type": "/v3/schemas/kubeproxyService" },
            "scheduler": { "type": "/v3/schemas/schedulerService" },
            "type": "/v3/schemas/rkeConfigServices",
        },
        "type": "/v3/schemas/rancherKubernetesEngineConfig",
    });
    if site.prefix_path != "/" {
        add(&mut engine, json!({ "prefixPath": site.prefix_path }));
    }
    engine
}

fn applied_node(rotation: &Rotation, node: &SimNode, port: u16) -> Value {
    let roles: Vec<&str> = node.roles.iter().map(|role| role.as_str()).collect();
    json!({
        "address": node.address, "internalAddress": node.internal_address, "hostnameOverride": node.name.as_str(),
        // 22 in the real one, which knows no other; here it is where the node listens.
        "nodeId": super::node::id(node), "port": port.to_string(), "role": roles, "sshAgentAuth": false,
        "type": "/v3/schemas/rkeConfigNode", "user": super::node::user(rotation, node),
    })
}

fn api_endpoint(rotation: &Rotation) -> String {
    let first = rotation.world().with_role(Role::ControlPlane).next();
    first.map(|node| format!("https://{}:6443", node.address)).unwrap_or_default()
}

/// Returns what Rancher from 2.2.5 on tells of certificates: from its own state, not from the nodes.
fn expirations(rotation: &Rotation) -> Value {
    let mut expirations = Map::new();
    let stored = lock(&rotation.stored);
    for (name, pair) in stored.iter().flatten() {
        let hidden = ["token", "header", "admin"].iter().any(|part| name.contains(part));
        if let Some(validity) = Validity::of(pair.certificate.as_bytes()).filter(|_| !hidden) {
            let date = validity.not_after.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let expiration = json!({ "expirationDate": date, "type": "/v3/schemas/certExpiration" });
            expirations.insert(name.clone(), expiration);
        }
    }
    Value::Object(expirations)
}

/// Adds fields to an object.
pub(super) fn add(object: &mut Value, fields: Value) {
    if let (Value::Object(object), Value::Object(fields)) = (object, fields) {
        object.extend(fields);
    }
}
