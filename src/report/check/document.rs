use jiff::Timestamp;
use serde::Serialize;

use super::state::{StateCheck, StateEntry};
use super::{Check, certificate_files, row};
use crate::facts::{
    CertificateStatus, Container, Content, File, Health, NodeFacts, Observation, Served, bundle_of,
    certificate_file_name, certificate_status, left_to_agent,
};
use crate::finding::Finding;
use crate::inventory::Role;
use crate::pki::{Certificate, Class, Fingerprint, Location, SavedCertificate, Service, class, services_of};
use crate::report::DOCUMENT_VERSION;

/// A look at a cluster for scripts.
#[derive(Debug, Serialize)]
pub struct CheckDocument<'a> {
    version: u32,
    cluster: &'a str,
    observed_at: Timestamp,
    nodes: Vec<NodeEntry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<StateEntry<'a>>,
    findings: &'a [Finding],
}

impl<'a> CheckDocument<'a> {
    /// Returns the document of a saved state that no node was looked at with.
    pub(super) fn of_state(check: &StateCheck<'a>) -> Self {
        Self {
            version: DOCUMENT_VERSION,
            cluster: check.cluster,
            observed_at: check.thresholds.now,
            nodes: Vec::new(),
            state: Some(StateEntry::of(check)),
            findings: check.findings,
        }
    }

    /// Returns the same document with a saved state.
    pub fn with_state(self, check: &StateCheck<'a>) -> Self {
        Self { state: Some(StateEntry::of(check)), ..self }
    }
}

#[derive(Debug, Serialize)]
struct NodeEntry<'a> {
    name: &'a str,
    address: &'a str,
    roles: &'a [Role],
    reachable: bool,
    error: Option<&'a str>,
    access: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operating_system: Option<&'static str>,
    clock_skew_seconds: Option<i64>,
    kubernetes_directory: Option<&'a str>,
    containers: Vec<ContainerEntry<'a>>,
    certificates: Vec<CertificateEntry<'a>>,
    served: Vec<ServedEntry<'a>>,
    health: Vec<HealthEntry<'a>>,
    legacy_bundle: Option<&'static str>,
    rancher_state: Option<&'a str>,
    ready: Option<bool>,
}

#[derive(Debug, Serialize)]
struct ContainerEntry<'a> {
    name: &'a str,
    image: &'a str,
    state: &'a str,
    started_at: Option<Timestamp>,
    stale: bool,
    pending: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct CertificateEntry<'a> {
    name: String,
    path: String,
    class: &'static str,
    services: Vec<Service>,
    subject: Option<&'a str>,
    issuer: Option<&'a str>,
    serial: Option<&'a str>,
    sha256: Option<&'a Fingerprint>,
    not_before: Option<Timestamp>,
    not_after: Option<Timestamp>,
    effective_not_after: Option<Timestamp>,
    sans: Option<&'a [String]>,
    key_matches: Option<bool>,
    status: &'static str,
}

#[derive(Debug, Serialize)]
struct ServedEntry<'a> {
    service: Service,
    port: u16,
    sha256: Option<&'a Fingerprint>,
    not_after: Option<Timestamp>,
    matches_disk: Option<bool>,
    error: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct HealthEntry<'a> {
    service: Service,
    healthy: bool,
    detail: &'a str,
}

/// Returns a look for scripts. Components whose health is unknown are named by the findings alone.
pub fn document<'a>(check: &Check<'a>) -> CheckDocument<'a> {
    CheckDocument {
        version: DOCUMENT_VERSION,
        cluster: &check.inventory.cluster_name,
        observed_at: check.facts.observed_at,
        nodes: check.facts.nodes.iter().map(|node| node_entry(check, node)).collect(),
        state: None,
        findings: check.findings,
    }
}

fn node_entry<'a>(check: &Check<'a>, node: &'a NodeFacts) -> NodeEntry<'a> {
    let unseen = node.result.as_ref().err();
    let observation = node.observation();
    let directory = observation.map(|observation| observation.kubernetes_directory.as_str());
    NodeEntry {
        name: node.name.as_str(),
        address: &node.address,
        roles: &node.roles,
        reachable: unseen.is_none_or(|unseen| unseen.reachable),
        error: unseen.filter(|_| node.is_missed()).map(|unseen| unseen.error.as_str()),
        operating_system: unseen.filter(|_| !node.is_missed()).map(|_| "windows"),
        access: observation.map(|observation| observation.access.as_str()),
        clock_skew_seconds: observation.map(|observation| observation.clock_skew_seconds),
        kubernetes_directory: directory.filter(|directory| !directory.is_empty()),
        containers: observation
            .map(|observation| container_entries(check, node, observation))
            .unwrap_or_default(),
        certificates: observation
            .map(|observation| certificate_entries(check, node, observation))
            .unwrap_or_default(),
        served: observation
            .map(|observation| observation.served.iter().map(served_entry).collect())
            .unwrap_or_default(),
        health: observation
            .map(|observation| observation.health.iter().filter_map(health_entry).collect())
            .unwrap_or_default(),
        legacy_bundle: observation
            .and_then(|observation| bundle_of(check.inventory, node, observation))
            .map(crate::facts::Bundle::as_str),
        rancher_state: node.standing.rancher.as_deref(),
        ready: node.standing.ready.as_ref().map(|word| word.ready),
    }
}

fn container_entries<'a>(
    check: &Check<'_>,
    node: &NodeFacts,
    observation: &'a Observation,
) -> Vec<ContainerEntry<'a>> {
    let entry = |container: &'a Container| {
        let Container { name, image, state, started_at, .. } = container;
        let is_old = container.is_running() && observation.is_stale(container);
        // Rancher's agent still has time to restart it.
        let pending = is_old && left_to_agent(node, observation, name, check.thresholds.now).is_some();
        ContainerEntry { name, image, state, started_at: *started_at, stale: is_old && !pending, pending }
    };
    observation.containers.iter().map(entry).collect()
}

fn certificate_entries<'a>(
    check: &Check<'a>,
    node: &'a NodeFacts,
    observation: &'a Observation,
) -> Vec<CertificateEntry<'a>> {
    let present = certificate_files(observation).map(|file| certificate_entry(check, observation, file));
    let directory = match observation.kubernetes_directory.as_str() {
        "" => format!("{}/etc/kubernetes", check.inventory.prefix_path.trim_end_matches('/')),
        directory => directory.to_owned(),
    };
    let missing = row::missing_names(check, node, observation).into_iter().map(|name| CertificateEntry {
        path: format!("{directory}/ssl/{}", certificate_file_name(Location::Ssl, &name)),
        ..blank_entry(name, Location::Ssl, CertificateStatus::Missing)
    });
    present.chain(missing).collect()
}

fn certificate_entry<'a>(
    check: &Check<'a>,
    observation: &'a Observation,
    file: &'a File,
) -> CertificateEntry<'a> {
    let name = file.certificate_name().unwrap_or_default();
    let (status, effective_not_after) = certificate_status(observation, file, &check.thresholds);
    let blank =
        CertificateEntry { path: file.path.clone(), ..blank_entry(name.to_owned(), file.location, status) };
    let Content::Certificate(Ok(certificate)) = &file.content else { return blank };
    let key_matches = observation.key_matches(file.location, name);
    CertificateEntry { effective_not_after, key_matches, ..filled(blank, certificate) }
}

/// Returns an entry with what a certificate says of itself.
fn filled<'a>(blank: CertificateEntry<'a>, certificate: &'a Certificate) -> CertificateEntry<'a> {
    let Certificate { subject, issuer, serial, sha256, not_before, not_after, sans, .. } = certificate;
    CertificateEntry {
        subject: Some(subject),
        issuer: Some(issuer),
        serial: Some(serial),
        sha256: Some(sha256),
        not_before: Some(*not_before),
        not_after: Some(*not_after),
        sans: Some(sans),
        ..blank
    }
}

/// Returns the entry of a certificate of a saved state.
pub(super) fn saved_entry(
    saved: &SavedCertificate,
    (status, effective_not_after): (CertificateStatus, Option<Timestamp>),
) -> CertificateEntry<'_> {
    let blank = CertificateEntry {
        path: saved.path(),
        effective_not_after,
        key_matches: saved.key_matches,
        ..blank_entry(saved.name.clone(), Location::Ssl, status)
    };
    match &saved.certificate {
        Ok(certificate) => filled(blank, certificate),
        Err(_) => blank,
    }
}

/// Returns the entry of a certificate of which nothing is known but its name and its state.
fn blank_entry<'a>(name: String, location: Location, status: CertificateStatus) -> CertificateEntry<'a> {
    let class = class(location, &name);
    CertificateEntry {
        services: if class == Class::KubeletServing { Vec::new() } else { services_of(&name) },
        name,
        path: String::new(),
        class: class.as_str(),
        subject: None,
        issuer: None,
        serial: None,
        sha256: None,
        not_before: None,
        not_after: None,
        effective_not_after: None,
        sans: None,
        key_matches: None,
        status: status.as_str(),
    }
}

fn served_entry(served: &Served) -> ServedEntry<'_> {
    let certificate = served.certificate.as_ref();
    ServedEntry {
        service: served.service,
        port: served.port,
        sha256: certificate.ok().map(|certificate| &certificate.sha256),
        not_after: certificate.ok().map(|certificate| certificate.not_after),
        matches_disk: served.matches_disk,
        error: certificate.err().map(String::as_str),
    }
}

fn health_entry(health: &Health) -> Option<HealthEntry<'_>> {
    Some(HealthEntry { service: health.service, healthy: health.healthy?, detail: &health.detail })
}
