//! A cluster is what Rancher knows of a Kubernetes cluster, and how far its rotation is.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use super::NoRotation;
use super::RancherError;
use super::ServerVersion;
use super::answer::{one_line, parse};

/// Whether an object of Rancher is on its way from one state to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transitioning {
    /// It is where it should be.
    No,
    /// It is on its way.
    Yes,
    /// It is stuck on its way; Rancher tries again, and again.
    Error,
}

impl fmt::Display for Transitioning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::No => "no",
            Self::Yes => "yes",
            Self::Error => "error",
        })
    }
}

/// That a rotation was asked for and has not been finished (`rancherKubernetesEngineConfig.rotateCertificates`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationFlag {
    /// The services, as Rancher names them; empty for all.
    pub services: Vec<String>,
    /// Whether the certificate authority is renewed, too.
    pub certificate_authority: bool,
}

/// What launched a cluster that Rancher did not launch with RKE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Launcher {
    /// RKE2, alone or through Rancher's provisioning.
    Rke2,
    /// K3s, alone or through Rancher's provisioning.
    K3s,
    /// The `rke` command; the cluster was imported afterwards.
    RkeCommand,
    /// Something else, in Rancher's words, where it has any.
    Other(Option<String>),
}

impl fmt::Display for Launcher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rke2 => formatter.write_str("an RKE2 cluster"),
            Self::K3s => formatter.write_str("a K3s cluster"),
            Self::RkeCommand => {
                formatter.write_str("a cluster that the `rke` command built and that was imported")
            }
            Self::Other(Some(name)) => write!(formatter, "a cluster of kind `{name}`"),
            Self::Other(None) => formatter.write_str("an imported cluster"),
        }
    }
}

/// What Rancher knows of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The id (`c-x7k2p`).
    pub id: String,
    /// The name that people see.
    pub name: String,
    /// The state that people see (`active`, `provisioning`, `updating`, `unavailable`).
    pub state: String,
    /// Whether that state is to change.
    pub transitioning: Transitioning,
    /// What Rancher says meanwhile, on one line and at most some hundred characters of it.
    pub transitioning_message: String,
    /// The rotation that was asked for, until it is finished.
    pub rotation_flag: Option<RotationFlag>,
    /// Whether the condition `Updated` is true; `None` where the cluster does not have it yet.
    pub updated: Option<bool>,
    /// When that condition has changed last, in Rancher's words: each try of a rotation that fails changes it.
    pub updated_at: Option<String>,
    /// The Kubernetes version (`v1.15.3-rancher1-1`).
    pub kubernetes_version: Option<String>,
    /// What launched the cluster (`rancherKubernetesEngine`, `k3s`, `imported`).
    pub driver: Option<String>,
    /// What Rancher found the cluster to be, from 2.4 on (`rke`, `k3s`, `rke2`, `eks`); an imported one has it too.
    pub provider: Option<String>,
    /// Whether Rancher launched it with RKE.
    pub launched_by_rke: bool,
    /// The link of the action that rotates certificates.
    pub(super) rotate_link: Option<String>,
}

impl Cluster {
    /// Reads the body of `GET /v3/clusters/<id>`.
    pub fn parse(body: &str) -> Result<Self, RancherError> {
        parse::<ClusterBody>("the cluster", body).map(Self::from)
    }

    /// Returns whether the cluster offers the action that rotates certificates.
    pub fn can_rotate(&self) -> bool {
        self.rotate_link.is_some()
    }

    /// Returns whether Rancher is on the way with the cluster itself: it makes it, or changes its configuration. One that is stuck
    /// (`error`) or whose nodes are away is not on its way.
    pub fn is_being_changed(&self) -> bool {
        matches!(self.state.as_str(), "provisioning" | "updating" | "upgrading")
            && self.transitioning == Transitioning::Yes
    }

    /// Returns why the cluster does not offer the action; the server's version helps where it is known.
    pub fn why_no_rotation(&self, server: Option<&ServerVersion>) -> NoRotation {
        match server.filter(|version| version.can_rotate() == Some(false)) {
            _ if !self.launched_by_rke => NoRotation::NotRke(self.launcher()),
            Some(version) => NoRotation::OldServer(version.to_string()),
            None => NoRotation::NotPermitted,
        }
    }

    /// Returns what launched the cluster, of one that Rancher did not launch with RKE.
    fn launcher(&self) -> Launcher {
        let words = || [&self.provider, &self.driver].into_iter().flatten().map(|word| word.to_lowercase());
        let is_any = |known: &[&str]| words().any(|word| known.contains(&word.as_str()));
        if is_any(&["rke2", "rke2.windows"]) {
            Launcher::Rke2
        } else if is_any(&["k3s", "k3os"]) {
            Launcher::K3s
        } else if is_any(&["rke", "rke.windows"]) {
            Launcher::RkeCommand
        } else {
            let named = words().find(|word| word != "imported" && word != "import");
            Launcher::Other(named)
        }
    }

    /// Returns name and id, for lists to choose from.
    pub(super) fn label(&self) -> String {
        if self.name == self.id { self.id.clone() } else { format!("{} ({})", self.name, self.id) }
    }
}

/// How far a rotation is, as Rancher sees it.
///
/// Workers that Rancher does not reach through docker renew theirs up to some minutes after `Finished` (rancher#19661): what
/// lies on the nodes decides, not this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rotation {
    /// It was asked for and is under way.
    Running {
        /// What Rancher says meanwhile.
        message: String,
    },
    /// It was asked for and fails; Rancher tries again every 30 s to 10 min without an end (rancher#23423).
    Failing {
        /// What Rancher says of it.
        message: String,
    },
    /// None is asked for (any more), and the cluster is up to date and active.
    Finished,
    /// None is asked for, and the cluster is on its way elsewhere or not well: not finished yet, if there was one.
    Idle,
}

/// Returns how far the rotation of a cluster is.
pub fn rotation_state(cluster: &Cluster) -> Rotation {
    let message = || cluster.transitioning_message.clone();
    match (&cluster.rotation_flag, cluster.transitioning) {
        (Some(_), Transitioning::Error) => Rotation::Failing { message: message() },
        (Some(_), _) => Rotation::Running { message: message() },
        // A cluster that was never changed since it was made has no condition `Updated`.
        (None, _) if cluster.updated != Some(false) && cluster.state == "active" => Rotation::Finished,
        (None, _) => Rotation::Idle,
    }
}

/// The fields of a cluster that are read, as the API has them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClusterBody {
    id: String,
    name: Option<String>,
    state: Option<String>,
    transitioning: Option<Transitioning>,
    transitioning_message: Option<String>,
    driver: Option<String>,
    provider: Option<String>,
    #[serde(default)]
    actions: Option<Actions>,
    conditions: Option<Vec<Condition>>,
    rancher_kubernetes_engine_config: Option<EngineConfig>,
    version: Option<KubernetesVersion>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Actions {
    rotate_certificates: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: Option<String>,
    #[serde(rename = "lastUpdateTime")]
    last_update_time: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EngineConfig {
    kubernetes_version: Option<String>,
    rotate_certificates: Option<Flag>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Flag {
    ca_certificates: Option<bool>,
    services: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KubernetesVersion {
    git_version: Option<String>,
}

impl From<Flag> for RotationFlag {
    fn from(flag: Flag) -> Self {
        // One text in 2.2 and later, although the type behind it is a list; an empty text means all.
        let services = match flag.services {
            Some(Value::String(service)) => vec![service],
            Some(Value::Array(services)) => {
                services.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            _ => Vec::new(),
        };
        Self {
            services: services.into_iter().filter(|service| !service.is_empty()).collect(),
            certificate_authority: flag.ca_certificates.unwrap_or(false),
        }
    }
}

impl From<ClusterBody> for Cluster {
    fn from(body: ClusterBody) -> Self {
        let launched_by_rke = body.rancher_kubernetes_engine_config.is_some();
        let (wanted_version, flag) = body
            .rancher_kubernetes_engine_config
            .map_or((None, None), |config| (config.kubernetes_version, config.rotate_certificates));
        let condition =
            body.conditions.unwrap_or_default().into_iter().find(|condition| condition.kind == "Updated");
        let updated = condition.as_ref().map(|condition| condition.status.as_deref() == Some("True"));
        Self {
            name: filled(body.name).unwrap_or_else(|| body.id.clone()),
            id: body.id,
            state: body.state.unwrap_or_default(),
            transitioning: body.transitioning.unwrap_or(Transitioning::No),
            transitioning_message: one_line(&body.transitioning_message.unwrap_or_default()),
            rotation_flag: flag.map(RotationFlag::from),
            updated,
            updated_at: filled(condition.and_then(|condition| condition.last_update_time)),
            kubernetes_version: filled(wanted_version)
                .or_else(|| filled(body.version.and_then(|version| version.git_version))),
            driver: filled(body.driver),
            provider: filled(body.provider),
            launched_by_rke,
            rotate_link: filled(body.actions.and_then(|actions| actions.rotate_certificates)),
        }
    }
}

fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PROVISIONED: &str = include_str!("../../tests/cases/rancher/cluster-provisioned.json");

    fn cluster(body: &Value) -> Cluster {
        Cluster::parse(&body.to_string()).unwrap()
    }

    #[test]
    fn a_real_cluster_is_read() {
        let cluster = Cluster::parse(PROVISIONED).unwrap();
        assert_eq!((cluster.id.as_str(), cluster.name.as_str()), ("c-xx8vz", "judge"));
        assert_eq!(cluster.label(), "judge (c-xx8vz)");
        assert_eq!(cluster.state, "provisioning");
        assert_eq!(cluster.transitioning, Transitioning::Error);
        assert_eq!(cluster.transitioning_message.chars().count(), 301);
        assert!(!cluster.transitioning_message.contains('\n'));
        assert_eq!(cluster.kubernetes_version.as_deref(), Some("v1.15.3-rancher1-1"));
        assert_eq!(cluster.driver.as_deref(), Some("rancherKubernetesEngine"));
        assert_eq!((cluster.updated, &cluster.rotation_flag), (None, &None));
        assert!(cluster.can_rotate() && cluster.launched_by_rke);
        assert_eq!(rotation_state(&cluster), Rotation::Idle);
    }

    #[test]
    fn a_flag_that_is_never_acted_upon_is_a_failing_rotation() {
        let mut moments = 0;
        for line in include_str!("../../tests/cases/rancher/stuck-timeline.jsonl").lines() {
            let moment: Value = serde_json::from_str(line).unwrap();
            let cluster = cluster(&json!({
                "id": "c-xx8vz",
                "state": moment["state"],
                "transitioning": moment["transitioning"],
                "transitioningMessage": moment["transitioningMessage"],
                "rancherKubernetesEngineConfig": { "rotateCertificates": moment["rotateCertificates"] },
            }));
            let Rotation::Failing { message } = rotation_state(&cluster) else { panic!("{cluster:?}") };
            assert!(message.starts_with("exit status 1, [unable to recognize"), "{message}");
            moments += 1;
        }
        assert_eq!(moments, 3);
    }

    #[test]
    fn a_rotation_runs_until_the_flag_is_gone_and_the_cluster_is_active_again() {
        let at = |flag: Value, updated: &str, state: &str| {
            rotation_state(&cluster(&json!({
                "id": "c-1", "state": state, "transitioning": "yes", "transitioningMessage": "[certificates] Deploying",
                "conditions": [{ "type": "Ready", "status": "True" }, { "type": "Updated", "status": updated }],
                "rancherKubernetesEngineConfig": { "rotateCertificates": flag },
            })))
        };
        let flag = json!({ "caCertificates": false, "services": "" });
        let running = Rotation::Running { message: "[certificates] Deploying".to_owned() };
        assert_eq!(at(flag.clone(), "True", "active"), running, "asked for, not begun");
        assert_eq!(at(flag, "Unknown", "updating"), running);
        assert_eq!(at(Value::Null, "Unknown", "updating"), Rotation::Idle);
        assert_eq!(at(Value::Null, "True", "unavailable"), Rotation::Idle);
        assert_eq!(at(Value::Null, "True", "active"), Rotation::Finished);
        let never_changed = cluster(&json!({ "id": "c-1", "state": "active", "conditions": [] }));
        assert_eq!(rotation_state(&never_changed), Rotation::Finished);
    }

    #[test]
    fn a_cluster_that_is_stuck_or_active_is_not_being_changed() {
        let at = |state: &str, transitioning: &str| {
            cluster(&json!({ "id": "c-1", "state": state, "transitioning": transitioning }))
                .is_being_changed()
        };
        assert!(at("updating", "yes") && at("provisioning", "yes"));
        assert!(!at("provisioning", "error") && !at("active", "no") && !at("unavailable", "no"));
    }

    #[test]
    fn flags_of_every_version_are_read() {
        let flag = |flag: Value| {
            cluster(&json!({ "id": "c-1", "rancherKubernetesEngineConfig": { "rotateCertificates": flag } }))
                .rotation_flag
                .map(|flag| (flag.services.join(" "), flag.certificate_authority))
        };
        assert_eq!(flag(Value::Null), None);
        assert_eq!(flag(json!({})), Some((String::new(), false)));
        assert_eq!(flag(json!({ "services": "", "caCertificates": true })), Some((String::new(), true)));
        assert_eq!(flag(json!({ "services": "etcd" })), Some(("etcd".to_owned(), false)));
        assert_eq!(
            flag(json!({ "services": ["etcd", "kubelet"] })),
            Some(("etcd kubelet".to_owned(), false))
        );
    }

    #[test]
    fn a_missing_action_is_explained() {
        let rke = cluster(&json!({ "id": "c-1", "rancherKubernetesEngineConfig": {}, "actions": {} }));
        assert!(!rke.can_rotate());
        let version = |text| Some(ServerVersion::new(text));
        let why = |cluster: &Cluster, text| cluster.why_no_rotation(version(text).as_ref());
        assert_eq!(why(&rke, "v2.1.8"), NoRotation::OldServer("v2.1.8".to_owned()));
        assert_eq!(why(&rke, "v2.2.8"), NoRotation::NotPermitted);
        assert_eq!(rke.why_no_rotation(None), NoRotation::NotPermitted);
        let k3s =
            cluster(&json!({ "id": "local", "driver": "k3s", "version": { "gitVersion": "v1.20.4+k3s1" } }));
        assert_eq!(why(&k3s, "v2.5.7"), NoRotation::NotRke(Launcher::K3s));
        assert_eq!(k3s.kubernetes_version.as_deref(), Some("v1.20.4+k3s1"));
        assert_eq!(k3s.label(), "local");
    }

    #[test]
    fn another_tool_is_named_for_what_another_tool_launched() {
        for (driver, provider, reason, tool) in [
            (
                "imported",
                "rke2",
                "Rancher did not launch it with RKE, it is an RKE2 cluster",
                "rke2 certificate",
            ),
            (
                "k3s",
                "k3s",
                "Rancher did not launch it with RKE, it is a K3s cluster",
                "k3s certificate rotate",
            ),
            (
                "imported",
                "rke",
                "Rancher did not launch it with RKE, it is a cluster that the `rke` command built and that was imported",
                "--via rke",
            ),
            (
                "imported",
                "",
                "Rancher did not launch it with RKE, it is an imported cluster",
                "kubeadm certs renew",
            ),
            ("EKS", "eks", "Rancher did not launch it with RKE, it is a cluster of kind `eks`", "cloud"),
        ] {
            let found = cluster(&json!({ "id": "c-1", "driver": driver, "provider": provider }));
            let why = found.why_no_rotation(Some(&ServerVersion::new("v2.6.3")));
            assert_eq!(why.to_string(), reason);
            assert!(why.way_out().contains(tool), "{}", why.way_out());
        }
    }
}
