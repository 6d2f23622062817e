//! The RKE inside Rancher: it makes new leaves and switches control plane and etcd nodes to them, as its version does.
//!
//! The provisioner calls it; agents do the rest. Read in rancher/rke v0.1.18 (`cmd/cert.go`, `pki/rotate.go`), v0.2.0 to v0.2.8 and
//! v0.3.0 (`cmd/common.go`, `cluster/certificates.go`, `pki/deploy.go`), v1.1.0 (`pki/util.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use super::super::SimError;
use super::super::authority::{self, Pair, Validity};
use super::super::clock::lock;
use super::super::container::Component;
use super::super::layout::{self, Bundle, LEAF_DAYS, SERVICE_ACCOUNT, days};
use super::super::machine::SimNode;
use super::super::store::StoredKind;
use super::agents::{is_connected, restart};
use super::release::Engine;
use super::{RancherFailure, Rotation};
use crate::inventory::Role;

const HEADER_CA: &str = "kube-apiserver-requestheader-ca";
const PROXY_CLIENT: &str = "kube-apiserver-proxy-client";

/// What is rotated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Services {
    All,
    /// One service by RKE's name; a name that RKE does not know rotates nothing and restarts all the same.
    One(String),
}

impl Services {
    fn include(&self, leaf: &str) -> bool {
        let Self::One(service) = self else { return true };
        match service.as_str() {
            "kubelet" => leaf == "kube-node" || leaf.starts_with("kube-kubelet-"),
            "etcd" => leaf.starts_with("kube-etcd-"),
            "kube-apiserver" | "kube-controller-manager" | "kube-scheduler" | "kube-proxy" => leaf == service,
            _ => false,
        }
    }

    pub(super) fn restart_etcd(&self) -> bool {
        *self == Self::All || *self == Self::One("etcd".to_owned())
    }
}

impl Rotation {
    /// Rotates as the embedded RKE does: control plane and etcd nodes first, then the agents of the workers by themselves.
    pub(super) async fn rotate(&self, services: Services) -> Result<(), SimError> {
        self.tell("Initiating Kubernetes cluster");
        self.pause(5.0).await;
        self.fail_where_it_should()?;
        let engine = self.release().engine();
        let Some(bundle) = self.find_bundle(engine)? else {
            self.tell("This is a newely built cluster, can't rotate certificates");
            return Ok(());
        };
        self.tell("[certificates] Generating kubernetes certificates");
        let bundle = self.renew(bundle, &services).await?;
        self.tell("[certificates] Deploying kubernetes certificates to Cluster nodes");
        let nodes: Vec<Arc<SimNode>> = self
            .world
            .nodes
            .iter()
            .filter(|node| !node.is_worker_only() && is_connected(node))
            .cloned()
            .collect();
        for node in &nodes {
            let (folder, now) = (node.kubernetes_folder(), node.now(&self.world.clock));
            let ssl = format!("{folder}/ssl");
            layout::deploy(node, &ssl, &bundle, &layout::names_for(node, &bundle), now)?;
            if engine == Engine::V01 {
                let all: Vec<String> = bundle.keys().cloned().collect();
                layout::deploy(node, &format!("{folder}/.tmp"), &bundle, &all, now)?;
            }
        }
        self.pause(15.0).await;
        if engine != Engine::V01 {
            self.adopt_service_account_key();
        }
        self.restart(&nodes, &services).await;
        if engine == Engine::V01 {
            self.save_secrets(&bundle);
        }
        let is_kept_here = engine != Engine::V01 || lock(&self.stored).is_some();
        if is_kept_here {
            *lock(&self.stored) = Some(bundle.clone());
        }
        self.send_agents(&bundle);
        Ok(())
    }

    fn fail_where_it_should(&self) -> Result<(), SimError> {
        match self.options.failure {
            Some(RancherFailure::EndlessRetry) => {
                Err(SimError::Internal("Failed to rotate certificates: can't find old certificates"))
            }
            Some(RancherFailure::TriesFail(tries)) if self.status().failed_tries < tries => {
                Err(SimError::Internal(
                    "Cluster must have at least one etcd plane host: failed to connect to the following etcd host(s) [10.0.0.1]",
                ))
            }
            _ => Ok(()),
        }
    }

    /// Returns the pairs that the cluster has now; `None` where RKE takes the cluster for a new one, and calls that success.
    pub(super) fn find_bundle(&self, engine: Engine) -> Result<Option<Bundle>, SimError> {
        if let Some(bundle) = lock(&self.stored).clone() {
            return Ok(Some(bundle));
        }
        let api = self
            .world
            .with_role(Role::ControlPlane)
            .any(|node| is_connected(node) && self.world.api_is_healthy(node));
        // From rke 0.2 on a legacy cluster is read through its API, too, if that answers: the secrets that rke 0.1 wrote.
        if let Some(bundle) = api.then(|| self.read_secrets()).flatten() {
            return Ok(Some(bundle));
        }
        match engine {
            // Without an API its state would be in `.tmp/cluster-state.yml`, which Rancher 2.0 never wrote.
            Engine::V01 => Ok(None),
            Engine::V020 => {
                Err(SimError::Internal("Failed to rotate certificates: can't find old certificates"))
            }
            Engine::V023 | Engine::V03 | Engine::V11 => self
                .fetch_legacy(engine)
                .map(Some)
                .ok_or(SimError::Internal("CA Certificate or Key is empty")),
        }
    }

    /// Reads the secrets `kube-system/kube-*`; requestheader and proxy-client pairs and those of etcd may be missing.
    fn read_secrets(&self) -> Option<Bundle> {
        let store = lock(&self.world.store);
        let read = |name: &str| -> Option<Pair> {
            let secret = store.get(StoredKind::Secret, name)?;
            let data = decoded(&secret);
            Some(Pair { certificate: data.get("Certificate")?.clone(), key: data.get("Key")?.clone() })
        };
        self.collect(read, Lacks::LatePairs)
    }

    /// Writes the new pairs into the secrets that there are.
    fn save_secrets(&self, bundle: &Bundle) {
        let mut store = lock(&self.world.store);
        for (name, pair) in bundle {
            let Some(secret) = store.get(StoredKind::Secret, name) else { continue };
            let mut data = decoded(&secret);
            data.insert("Certificate".to_owned(), pair.certificate.clone());
            data.insert("Key".to_owned(), pair.key.clone());
            let created = secret.pointer("/metadata/creationTimestamp").and_then(Value::as_str);
            let created: Option<Timestamp> = created.and_then(|text| text.parse().ok());
            let created = created.unwrap_or_else(|| self.world.clock.now());
            store.begin((StoredKind::Secret, name), &data, created);
        }
    }

    /// Reads the bundle in `.tmp` of the first node that has a complete one (RKE v0.2.8 `pki.FetchCertificatesFromHost`).
    fn fetch_legacy(&self, engine: Engine) -> Option<Bundle> {
        let etcd = self.world.with_role(Role::Etcd);
        let others = self.world.with_role(Role::ControlPlane).filter(|node| !node.has(Role::Etcd));
        etcd.chain(others).filter(|node| is_connected(node)).find_map(|node| self.read_bundle(node, engine))
    }

    fn read_bundle(&self, node: &SimNode, engine: Engine) -> Option<Bundle> {
        let folder = format!("{}/.tmp", node.kubernetes_folder());
        let read = |file: &str| {
            let text =
                node.read(&format!("{folder}/{file}")).and_then(|bytes| String::from_utf8(bytes).ok())?;
            Some(format!("{}\n", text.trim_end()))
        };
        // From v1.1.0 on the key is looked for in `<name>.pem` (rancher/rke 5e5ccacb), where none is.
        if engine == Engine::V11 {
            return None;
        }
        let pair = |name: &str| {
            Some(Pair { certificate: read(&format!("{name}.pem"))?, key: read(&format!("{name}-key.pem"))? })
        };
        self.collect(pair, if engine == Engine::V03 { Lacks::LatePairs } else { Lacks::Nothing })
    }

    /// Returns the pairs of the cluster from where they are kept; none at all where one is missing that may not be.
    fn collect(&self, read: impl Fn(&str) -> Option<Pair>, lacks: Lacks) -> Option<Bundle> {
        let mut bundle = Bundle::new();
        let leaves = self.catalogue.leaves();
        let names = leaves.iter().map(|(name, _)| name.as_str());
        for name in names.chain(["kube-ca", HEADER_CA, PROXY_CLIENT]) {
            let is_late = matches!(name, HEADER_CA | PROXY_CLIENT);
            match read(name) {
                Some(pair) => {
                    bundle.insert(name.to_owned(), pair);
                }
                None if name.starts_with("kube-etcd-") || name.starts_with("kube-kubelet-") => {}
                None if is_late && lacks == Lacks::LatePairs => {}
                None => return None,
            }
        }
        Some(bundle)
    }

    /// Makes new leaves with new keys; authorities and the service account key stay.
    pub(super) async fn renew(&self, mut bundle: Bundle, services: &Services) -> Result<Bundle, SimError> {
        let engine = self.release().engine();
        let mut wanted: Vec<_> = self.catalogue.leaves();
        wanted.retain(|(name, _)| services.include(name));
        let with_proxy_client = services.include(PROXY_CLIENT);
        let now = self.world.clock.now();
        let world = Arc::clone(&self.world);
        let made = move || -> Result<Bundle, SimError> {
            let ca =
                bundle.get("kube-ca").cloned().ok_or(SimError::Internal("CA Certificate or Key is empty"))?;
            let not_after = days(now, LEAF_DAYS);
            let validity = |authority: &Pair| {
                let not_before = Validity::of(authority.certificate.as_bytes())
                    .map_or(now, |validity| validity.not_before);
                Validity { not_before, not_after }
            };
            if engine != Engine::V01 && !bundle.contains_key(SERVICE_ACCOUNT) {
                let key = bundle.get("kube-apiserver").map(|pair| pair.key.clone()).unwrap_or_default();
                let pair = authority::make_leaf(&ca, &layout::token_subject(), key, validity(&ca))?;
                bundle.insert(SERVICE_ACCOUNT.to_owned(), pair);
            }
            let mut keys = world.keys.take(wanted.len() + 2)?.into_iter();
            for ((name, subject), mut key) in wanted.into_iter().zip(&mut keys) {
                // It is the service account's key as well, where rke 0.1 laid the cluster out.
                if let (Engine::V01, "kube-apiserver", Some(pair)) =
                    (engine, name.as_str(), bundle.get(&name))
                {
                    key.clone_from(&pair.key);
                }
                bundle.insert(name, authority::make_leaf(&ca, &subject, key, validity(&ca))?);
            }
            if with_proxy_client && !bundle.contains_key(HEADER_CA) {
                let lifetime = Validity { not_before: now, not_after };
                let key = keys.next().ok_or(SimError::Internal("a key is missing"))?;
                bundle.insert(HEADER_CA.to_owned(), authority::make_authority(HEADER_CA, key, lifetime)?);
            }
            let header_ca = bundle.get(HEADER_CA).cloned();
            if let (Some(header_ca), Some(key), true) = (header_ca, keys.next(), with_proxy_client) {
                let pair =
                    authority::make_leaf(&header_ca, &layout::proxy_client(), key, validity(&header_ca))?;
                bundle.insert(PROXY_CLIENT.to_owned(), pair);
            }
            Ok(bundle)
        };
        tokio::task::spawn_blocking(made)
            .await
            .map_err(|_| SimError::Internal("making certificates was cut short"))?
    }

    async fn restart(&self, nodes: &[Arc<SimNode>], services: &Services) {
        let mut stages = Vec::new();
        // v0.1.18 leaves etcd running: it reads its files anew for each handshake.
        if services.restart_etcd() && self.release().engine() != Engine::V01 {
            stages.push(("[etcd] Restarting up etcd plane..", vec![Component::Etcd], 10.0));
        }
        let control_plane = vec![Component::ApiServer, Component::ControllerManager, Component::Scheduler];
        stages.push(("[controlplane] Restarting the Controller Plane..", control_plane, 20.0));
        stages.push((
            "[worker] Restarting Worker Plane..",
            vec![Component::Kubelet, Component::Proxy, Component::NginxProxy],
            10.0,
        ));
        for (message, components, seconds) in stages {
            self.tell(message);
            for node in nodes {
                for component in &components {
                    // A container that is not there is skipped without a word, as RKE does.
                    restart(&self.world, node, *component);
                }
            }
            self.pause(seconds).await;
        }
    }

    /// Redeploys a control plane from before rke 0.2 so that it uses the service account's own key file (RKE `IsLegacyKubeAPI`).
    pub(super) fn adopt_service_account_key(&self) {
        for node in self.world.with_role(Role::ControlPlane).filter(|node| is_connected(node)) {
            for component in [Component::ApiServer, Component::ControllerManager] {
                if let Some(container) = lock(&node.machine).container_mut(component.name()) {
                    for argument in container
                        .arguments
                        .iter_mut()
                        .filter(|argument| argument.starts_with("--service-account-"))
                    {
                        *argument = argument
                            .replace("/kube-apiserver-key.pem", "/kube-service-account-token-key.pem");
                    }
                }
            }
        }
    }
}

/// What a place may lack without being given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lacks {
    Nothing,
    LatePairs,
}

/// Returns the values of a secret.
fn decoded(secret: &Value) -> BTreeMap<String, String> {
    let data = secret.get("data").and_then(Value::as_object);
    let value = |(key, value): (&String, &Value)| {
        let bytes = STANDARD.decode(value.as_str()?).ok()?;
        Some((key.clone(), String::from_utf8(bytes).ok()?))
    };
    data.into_iter().flatten().filter_map(value).collect()
}
