//! A draft is a cluster.yml that is yet to be written: what an import has found out about a cluster.
//!
//! It is read from the configuration that rke and Rancher keep (camelCase, in JSON) or from rke's own YAML, and holds what certroll
//! needs of it. Keys, passwords and tokens are left out; that they were there is remembered.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_saphyr::{DuplicateKeyPolicy, Options};
use zeroize::Zeroize as _;

use super::Role;

/// Why a draft is not read or not written; what it was to be read from is never quoted, for it may be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    /// It is not the configuration of a cluster.
    #[error("the cluster's configuration in it cannot be read: line {line}, column {column}")]
    Configuration {
        /// The line, counted from 1.
        line: u64,
        /// The column, counted from 1.
        column: u64,
    },
    /// It cannot be put into YAML.
    #[error("the cluster.yml cannot be written: {0}")]
    Yaml(String),
}

/// What is known of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all(deserialize = "camelCase"))]
pub struct Draft {
    /// `cluster_name`.
    #[serde(alias = "cluster_name", deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
    /// `kubernetes_version`.
    #[serde(
        alias = "kubernetes_version",
        deserialize_with = "text",
        skip_serializing_if = "Option::is_none"
    )]
    pub kubernetes_version: Option<String>,
    /// `prefix_path`.
    #[serde(alias = "prefix_path", deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub prefix_path: Option<String>,
    /// `ssh_key_path` of all nodes.
    #[serde(alias = "ssh_key_path", deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub ssh_key_path: Option<String>,
    /// `ssh_cert_path` of all nodes.
    #[serde(alias = "ssh_cert_path", deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub ssh_cert_path: Option<String>,
    /// `ssh_agent_auth` of all nodes.
    #[serde(alias = "ssh_agent_auth", deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub ssh_agent_auth: bool,
    /// `ignore_docker_version`, which rke heeds.
    #[serde(
        alias = "ignore_docker_version",
        deserialize_with = "or_default",
        skip_serializing_if = "is_false"
    )]
    pub ignore_docker_version: bool,
    /// `nodes`.
    #[serde(deserialize_with = "or_default")]
    pub nodes: Vec<DraftMachine>,
    /// `bastion_host`.
    #[serde(
        alias = "bastion_host",
        deserialize_with = "or_default",
        skip_serializing_if = "Option::is_none"
    )]
    pub bastion_host: Option<DraftMachine>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    authentication: Authentication,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    services: Services,
    #[serde(alias = "upgrade_strategy", deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    upgrade_strategy: UpgradeStrategy,
}

/// A node or the bastion; keys of the bastion are a part of those of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all(deserialize = "camelCase"))]
pub struct DraftMachine {
    /// `address`.
    #[serde(deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// `internal_address`.
    #[serde(alias = "internal_address", deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub internal_address: Option<String>,
    /// `port`.
    #[serde(deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// `user`.
    #[serde(deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// `role`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub role: Vec<String>,
    /// `hostname_override`.
    #[serde(alias = "hostname_override", deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub hostname_override: Option<String>,
    /// `docker_socket`.
    #[serde(alias = "docker_socket", deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub docker_socket: Option<String>,
    /// `ssh_key_path`.
    #[serde(alias = "ssh_key_path", deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub ssh_key_path: Option<String>,
    /// `ssh_cert_path`.
    #[serde(alias = "ssh_cert_path", deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    pub ssh_cert_path: Option<String>,
    /// `labels`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Whether a private key was in the configuration itself (`ssh_key`).
    #[serde(rename(deserialize = "sshKey"), alias = "ssh_key", deserialize_with = "given", skip_serializing)]
    pub had_inline_key: bool,
}

impl DraftMachine {
    /// Returns the name that certroll will show.
    pub fn name(&self) -> &str {
        self.hostname_override.as_deref().or(self.address.as_deref()).unwrap_or_default()
    }

    /// Sets the roles.
    pub fn set_roles(&mut self, roles: &[Role]) {
        self.role = roles.iter().map(|role| role.as_str().to_owned()).collect();
    }

    /// Returns whether a name or an address is one of this machine's.
    pub fn is_known_as(&self, name: &str) -> bool {
        [&self.hostname_override, &self.address, &self.internal_address]
            .into_iter()
            .flatten()
            .any(|own| own.eq_ignore_ascii_case(name))
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Authentication {
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    sans: Vec<String>,
}

/// The services, as far as they shape certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Services {
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    etcd: Etcd,
    #[serde(
        rename(serialize = "kube-api", deserialize = "kubeApi"),
        alias = "kube-api",
        alias = "kube_api",
        deserialize_with = "or_default",
        skip_serializing_if = "is_empty"
    )]
    kube_api: KubeApi,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_empty")]
    kubelet: Kubelet,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all(deserialize = "camelCase"))]
struct Etcd {
    #[serde(alias = "external_urls", deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    external_urls: Vec<String>,
    #[serde(alias = "ca_cert", deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    ca_cert: Option<String>,
    #[serde(deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    cert: Option<String>,
    /// The key itself is never taken over; RKE and certroll refuse a file without one.
    #[serde(deserialize_with = "withheld", skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    #[serde(deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    gid: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all(deserialize = "camelCase"))]
struct KubeApi {
    #[serde(
        alias = "service_cluster_ip_range",
        deserialize_with = "text",
        skip_serializing_if = "Option::is_none"
    )]
    service_cluster_ip_range: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all(deserialize = "camelCase"))]
struct Kubelet {
    #[serde(alias = "cluster_domain", deserialize_with = "text", skip_serializing_if = "Option::is_none")]
    cluster_domain: Option<String>,
    #[serde(
        alias = "generate_serving_certificate",
        deserialize_with = "or_default",
        skip_serializing_if = "is_false"
    )]
    generate_serving_certificate: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all(deserialize = "camelCase"))]
struct UpgradeStrategy {
    #[serde(
        alias = "max_unavailable_worker",
        deserialize_with = "text",
        skip_serializing_if = "Option::is_none"
    )]
    max_unavailable_worker: Option<String>,
}

impl Draft {
    /// Reads the configuration that rke keeps in its state, or Rancher in a cluster (`rancherKubernetesEngineConfig`): JSON.
    pub fn from_json(configuration: &str) -> Result<Self, DraftError> {
        let draft: Self = serde_json::from_str(configuration).map_err(|error| DraftError::Configuration {
            line: error.line() as u64,
            column: error.column() as u64,
        })?;
        Ok(draft.without_needless())
    }

    /// Reads a configuration in rke's own YAML, such as the `cluster-state` of rke v0.1.x.
    pub fn from_yaml(text: &str) -> Result<Self, DraftError> {
        let draft: Self = serde_saphyr::from_str_with_options(text, options()).map_err(|error| {
            let (line, column) =
                error.location().map_or((0, 0), |location| (location.line(), location.column()));
            DraftError::Configuration { line, column }
        })?;
        Ok(draft.without_needless())
    }

    /// Leaves out what says nothing.
    fn without_needless(mut self) -> Self {
        self.bastion_host = self.bastion_host.filter(|bastion| bastion.address.is_some());
        if self.services.etcd.external_urls.is_empty() {
            self.services.etcd =
                Etcd { uid: self.services.etcd.uid, gid: self.services.etcd.gid, ..Etcd::default() };
        }
        // Rancher and rke write zeros for what is not set.
        for number in [&mut self.services.etcd.uid, &mut self.services.etcd.gid] {
            number.take_if(|number| *number == "0");
        }
        for node in &mut self.nodes {
            node.internal_address.take_if(|internal| Some(&*internal) == node.address.as_ref());
            node.ssh_key_path.take_if(|path| Some(&*path) == self.ssh_key_path.as_ref());
        }
        self
    }

    /// Returns whether the key of an external etcd was in the configuration.
    pub fn withholds_etcd_key(&self) -> bool {
        self.services.etcd.key.is_some()
    }

    /// Returns the nodes whose private key was in the configuration itself.
    pub fn inline_keys(&self) -> impl Iterator<Item = &DraftMachine> {
        self.nodes.iter().chain(&self.bastion_host).filter(|machine| machine.had_inline_key)
    }

    /// Returns the cluster.yml, beneath comment lines. Every text is in quotes, for YAML has many words that are not texts.
    pub fn to_yaml(&self, comments: &[String]) -> Result<String, DraftError> {
        let options = serde_saphyr::ser_options! { quote_all: true, compact_list_indent: true };
        let body = serde_saphyr::to_string_with_options(self, options)
            .map_err(|error| DraftError::Yaml(error.to_string()))?;
        let comments =
            comments.iter().flat_map(|comment| comment.lines()).fold(String::new(), |text, line| {
                let line: String = line.chars().filter(|letter| !letter.is_control()).collect();
                text + "# " + line.trim_end() + "\n"
            });
        Ok(comments + &body)
    }
}

/// Returns how rke's YAML is read: snippets are off, for an error must not quote a key.
fn options() -> Options {
    serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        with_snippet: false,
    }
}

/// Reads a text or a number; nothing and an empty text are the same.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Scalar {
        Number(u64),
        Text(String),
    }
    Ok(match Option::<Scalar>::deserialize(deserializer)? {
        Some(Scalar::Number(number)) => Some(number.to_string()),
        Some(Scalar::Text(text)) if !text.is_empty() => Some(text),
        Some(Scalar::Text(_)) | None => None,
    })
}

/// Reads a value that may be `null`, as Go writes what is empty.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads whether a secret is there, and wipes it.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let mut secret = Option::<String>::deserialize(deserializer)?;
    let is_given = secret.as_ref().is_some_and(|secret| !secret.is_empty());
    secret.zeroize();
    Ok(is_given)
}

/// Reads a secret and puts a remark in its place.
fn withheld<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(given(deserializer)?.then(|| "(left out by certroll import)".to_owned()))
}

fn is_empty<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Inventory, NodeName};

    fn configuration() -> String {
        let file = include_str!("../../tests/cases/golden/rke-v0.2.8/cluster.rkestate");
        let state: serde_json::Value = serde_json::from_str(file).unwrap();
        state["currentState"]["rkeConfig"].to_string()
    }

    #[test]
    fn what_rke_keeps_is_what_the_cluster_yml_says() {
        let yaml = Draft::from_json(&configuration()).unwrap().to_yaml(&["a\nb".to_owned()]).unwrap();
        assert!(yaml.starts_with("# a\n# b\n"), "{yaml}");
        let own = Inventory::parse(&yaml, "draft").unwrap();
        assert_eq!(own.findings, []);
        let golden = include_str!("../../tests/cases/golden/rke-v0.2.8/cluster.yml");
        let golden = Inventory::parse(golden, "golden").unwrap().inventory;
        let mut inventory = own.inventory;
        inventory.system_images.clone_from(&golden.system_images);
        // A state has RKE's defaults filled in.
        for (node, golden) in inventory.nodes.iter_mut().zip(&golden.nodes) {
            node.ssh.port_origin = golden.ssh.port_origin;
        }
        assert_eq!(inventory, golden);
    }

    #[test]
    fn secrets_are_left_out_and_everything_else_survives() {
        let text = r#"{"clusterName":"yes","kubernetesVersion":"v1.15.3-rancher1-1","sshAgentAuth":true,"prefixPath":"/opt/rke",
            "nodes":[{"address":"10.0.0.1","internalAddress":"192.168.0.1","port":2222,"role":["etcd","controlplane"],"user":"0123",
                "hostnameOverride":"on","sshKey":"SECRET","sshCertPath":"~/c: 'd'","labels":{"a/b":"1e3"}}],
            "bastionHost":{"address":"203.0.113.1","port":"22","user":"~","sshKey":"SECRET","sshKeyPath":"k"},
            "authentication":{"strategy":"x509","sans":["api.example.net","10.0.0.9"]},
            "services":{"etcd":{"externalUrls":null,"uid":1001,"gid":0,"key":"SECRET"},
                "kubeApi":{"serviceClusterIpRange":"10.99.0.0/16"},
                "kubelet":{"clusterDomain":"c.local","generateServingCertificate":true}},
            "upgradeStrategy":{"maxUnavailableWorker":"3"},"privateRegistries":[{"password":"SECRET"}],"cloudProvider":null}"#;
        let draft = Draft::from_json(text).unwrap();
        assert_eq!(draft.inline_keys().map(DraftMachine::name).collect::<Vec<_>>(), ["on", "203.0.113.1"]);
        let yaml = draft.to_yaml(&[]).unwrap();
        assert!(!yaml.contains("SECRET"), "{yaml}");
        assert_eq!(Draft::from_yaml(&yaml).unwrap().to_yaml(&[]).unwrap(), yaml);
        let parsed = Inventory::parse(&yaml, "draft").unwrap();
        let inventory = parsed.inventory;
        assert_eq!(inventory.cluster_name, "yes");
        let node = inventory.node(&NodeName::new("on")).unwrap();
        assert_eq!((node.user.as_str(), node.port, node.labels["a/b"].as_str()), ("0123", 2222, "1e3"));
        assert_eq!(node.ssh.certificate_path.as_deref(), Some("~/c: 'd'"));
        let bastion = inventory.bastion.as_ref().unwrap();
        assert_eq!((bastion.user.as_str(), bastion.ssh.key_path.as_deref()), ("~", Some("k")));
        assert_eq!(inventory.authentication_sans, ["api.example.net", "10.0.0.9"]);
        assert_eq!(inventory.service_cluster_ip_ranges, ["10.99.0.0/16"]);
        assert!(inventory.generate_serving_certificate);
        insta::assert_snapshot!(yaml);
    }

    #[test]
    fn the_state_of_rke_0_1_is_read_as_its_yaml() {
        let golden = include_str!("../../tests/cases/golden/rke-v0.1.17/cluster.yml");
        let draft = Draft::from_yaml(golden).unwrap();
        assert_eq!(draft.nodes.len(), 5);
        let inventory = Inventory::parse(&draft.to_yaml(&[]).unwrap(), "draft").unwrap().inventory;
        assert_eq!(inventory.nodes, Inventory::parse(golden, "golden").unwrap().inventory.nodes);
    }

    #[test]
    fn what_is_no_configuration_is_refused_without_being_quoted() {
        let error = Draft::from_json(r#"{"nodes": "SECRET"}"#).unwrap_err();
        assert_eq!(error, DraftError::Configuration { line: 1, column: 18 });
        assert!(!error.to_string().contains("SECRET"));
    }
}
