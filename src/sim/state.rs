//! What RKE keeps of a cluster's certificates outside of the nodes: the full state, the secrets of rke 0.1, and the kubeconfig.
//!
//! The layout stores them in the cluster, and the folder gets them as files beside the cluster.yml. Shapes: RKE `cluster/state.go`,
//! `pki/pki.go` (`CertificatePKI`), `pki/kubeconfig.go`, and v0.1.17 `cluster/certificates.go` `saveCertToKubernetes`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Value, json};

use super::authority::Pair;
use super::layout::{self, Bundle, SERVICE_ACCOUNT};
use super::machine::World;
use crate::inventory::{Inventory, Role};

/// The object in which RKE stores the full state.
pub(crate) const FULL_STATE: &str = "full-cluster-state";

/// The kubeconfig beside a `cluster.yml`.
pub(crate) const KUBE_CONFIG: &str = "kube_config_cluster.yml";

/// In what kind of object RKE stores the full state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StateObject {
    /// A `ConfigMap`: rke 0.2 to 1.5.
    #[default]
    ConfigMap,
    /// A Secret: rke 1.4.19, 1.5.10, 1.6 and later.
    Secret,
}

/// Whether the files that the `rke` command leaves lie beside the cluster.yml.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RkeFiles {
    /// There are none: Rancher launched the cluster, or they are lost.
    #[default]
    Absent,
    /// `kube_config_cluster.yml`, and `cluster.rkestate` from rke 0.2 on.
    Beside,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FullState<'a> {
    desired_state: &'a State,
    current_state: &'a State,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct State {
    rke_config: RkeConfig,
    certificates_bundle: BTreeMap<String, Entry>,
}

/// A pair with all that RKE notes of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(rename = "certificatePEM")]
    certificate: String,
    #[serde(rename = "keyPEM")]
    key: String,
    config: String,
    name: String,
    common_name: String,
    ou_name: &'static str,
    env_name: String,
    path: String,
    key_env_name: String,
    key_path: String,
    config_env_name: String,
    config_path: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RkeConfig {
    nodes: Vec<ConfigNode>,
    services: Value,
    network: Value,
    authentication: Value,
    ssh_key_path: String,
    ssh_agent_auth: bool,
    authorization: Value,
    ignore_docker_version: bool,
    kubernetes_version: String,
    cluster_name: String,
    prefix_path: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConfigNode {
    address: String,
    port: String,
    internal_address: String,
    role: Vec<&'static str>,
    hostname_override: String,
    user: String,
    docker_socket: String,
    ssh_key_path: String,
}

/// What the state is told from.
pub(crate) struct Source<'a> {
    pub(crate) inventory: &'a Inventory,
    pub(crate) world: &'a World,
    pub(crate) bundle: &'a Bundle,
    /// The ports of the nodes' sshd, in the order of the inventory.
    pub(crate) ports: Vec<u16>,
    pub(crate) ssh_key: String,
}

impl Source<'_> {
    /// Returns the full state as one line, as it is stored in the cluster.
    pub(crate) fn compact(&self) -> Result<String, serde_json::Error> {
        let state = self.state();
        serde_json::to_string(&FullState { desired_state: &state, current_state: &state })
    }

    /// Returns the full state as `cluster.rkestate` holds it.
    pub(crate) fn pretty(&self) -> Result<String, serde_json::Error> {
        let state = self.state();
        serde_json::to_string_pretty(&FullState { desired_state: &state, current_state: &state })
    }

    /// Returns the values of the secret that rke 0.1 keeps of every pair.
    pub(crate) fn secrets(&self) -> Vec<(String, BTreeMap<String, String>)> {
        let secret = |(name, entry): (String, Entry)| {
            let mut data = vec![
                ("Certificate", entry.certificate),
                ("EnvName", entry.env_name),
                ("Path", entry.path),
                ("Key", entry.key),
                ("KeyEnvName", entry.key_env_name),
                ("KeyPath", entry.key_path),
            ];
            if !entry.config.is_empty() {
                data.extend([
                    ("Config", entry.config),
                    ("ConfigEnvName", entry.config_env_name),
                    ("ConfigPath", entry.config_path),
                ]);
            }
            (name, data.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
        };
        self.entries().into_iter().map(secret).collect()
    }

    /// Returns the kubeconfig with the pair of kube-admin in it.
    pub(crate) fn kube_config(&self) -> Option<String> {
        let (ca, admin) = (self.bundle.get("kube-ca")?, self.bundle.get("kube-admin")?);
        let node = self.world.with_role(Role::ControlPlane).next()?;
        let cluster = &self.inventory.cluster_name;
        let data = |text: &str| STANDARD.encode(text);
        Some(format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n    api-version: v1\n    certificate-authority-data: {}\n    \
             server: \"https://{}:6443\"\n  name: \"{cluster}\"\ncontexts:\n- context:\n    cluster: \"{cluster}\"\n    \
             user: \"kube-admin-{cluster}\"\n  name: \"{cluster}\"\ncurrent-context: \"{cluster}\"\nusers:\n\
             - name: \"kube-admin-{cluster}\"\n  user:\n    client-certificate-data: {}\n    client-key-data: {}",
            data(&ca.certificate),
            node.address,
            data(&admin.certificate),
            data(&admin.key),
        ))
    }

    fn entries(&self) -> BTreeMap<String, Entry> {
        self.bundle.iter().map(|(name, pair)| (name.clone(), self.entry(name, pair))).collect()
    }

    fn entry(&self, name: &str, pair: &Pair) -> Entry {
        let variable = name.replace('-', "_").to_uppercase();
        let folder = "/etc/kubernetes/ssl";
        let (common_name, ou_name) = match name {
            "kube-admin" => (name.to_owned(), "system:masters"),
            "kube-node" => ("system:node".to_owned(), "system:nodes"),
            SERVICE_ACCOUNT => (name.to_owned(), ""),
            name => (format!("system:{name}"), ""),
        };
        let without = matches!(name, "kube-ca" | "kube-apiserver" | SERVICE_ACCOUNT)
            || name.starts_with("kube-etcd")
            || name.starts_with("kube-kubelet");
        let (config, config_env_name, config_path) = match name {
            _ if without => Default::default(),
            "kube-admin" => (
                self.kube_config().unwrap_or_default(),
                format!("KUBECFG_{variable}"),
                format!("./{KUBE_CONFIG}"),
            ),
            name => (
                layout::kubeconfig(name).trim_end().to_owned(),
                format!("KUBECFG_{variable}"),
                format!("{folder}/kubecfg-{name}.yaml"),
            ),
        };
        Entry {
            certificate: pair.certificate.clone(),
            key: pair.key.clone(),
            config,
            name: name.to_owned(),
            common_name,
            ou_name,
            path: format!("{folder}/{name}.pem"),
            key_path: format!("{folder}/{name}-key.pem"),
            key_env_name: format!("{variable}_KEY"),
            env_name: variable,
            config_env_name,
            config_path,
        }
    }

    fn state(&self) -> State {
        let inventory = self.inventory;
        let nodes = inventory.nodes.iter().zip(&self.world.nodes).zip(&self.ports);
        let nodes = nodes.map(|((node, simulated), port)| ConfigNode {
            address: simulated.address.clone(),
            port: port.to_string(),
            internal_address: simulated.internal_address.clone(),
            role: node.roles.iter().map(|role| role.as_str()).collect(),
            hostname_override: node.name.to_string(),
            user: simulated.login.name.clone(),
            docker_socket: node.docker_socket.clone(),
            ssh_key_path: self.ssh_key.clone(),
        });
        let ranges = inventory.service_cluster_ip_ranges.join(",");
        let rke_config = RkeConfig {
            nodes: nodes.collect(),
            services: json!({
                "etcd": {},
                "kubeApi": { "serviceClusterIpRange": ranges },
                "kubeController": { "serviceClusterIpRange": ranges },
                "scheduler": {},
                "kubelet": {
                    "clusterDomain": inventory.cluster_domain,
                    "generateServingCertificate": inventory.generate_serving_certificate,
                },
                "kubeproxy": {},
            }),
            network: json!({ "plugin": "canal" }),
            authentication: json!({ "strategy": "x509", "sans": inventory.authentication_sans }),
            ssh_key_path: self.ssh_key.clone(),
            ssh_agent_auth: false,
            authorization: json!({ "mode": "rbac" }),
            ignore_docker_version: true,
            kubernetes_version: self.world.kubernetes_version.clone(),
            cluster_name: inventory.cluster_name.clone(),
            prefix_path: inventory.prefix_path.clone(),
        };
        State { rke_config, certificates_bundle: self.entries() }
    }
}
