use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::agent::{agent_findings, left_to_agent};
use super::sans::san_findings;
use super::standing::standing_finding;
use super::{
    Bundle, Cause, Container, Content, Facts, File, Health, NodeFacts, Observation, Served, bundle_of,
    certificate_file_name,
};
use crate::finding::{Finding, Severity};
use crate::inventory::{Inventory, Role};
use crate::pki::{Certificate, Class, KUBE_CA, Location, Service, expected_names};

/// From when on things are worth a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// The time of day.
    pub now: Timestamp,
    /// A certificate that ends within this time is expiring.
    pub expiring_within: SignedDuration,
}

impl Thresholds {
    /// Returns how a certificate stands that nothing is wrong with but its end.
    pub(super) fn status_of_end(&self, end: Timestamp) -> CertificateStatus {
        if end <= self.now {
            CertificateStatus::Expired
        } else if end <= self.now + self.expiring_within {
            CertificateStatus::Expiring
        } else {
            CertificateStatus::Ok
        }
    }
}

/// How a certificate's file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertificateStatus {
    /// It is valid, and for long enough.
    Ok,
    /// It ends soon, or its CA does.
    Expiring,
    /// It has ended, or its CA has.
    Expired,
    /// It cannot be used: unreadable, not its key's, or not its CA's.
    Invalid,
    /// It is not there.
    Missing,
}

impl CertificateStatus {
    /// Returns the word that people and JSON see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
            Self::Invalid => "invalid",
            Self::Missing => "missing",
        }
    }
}

/// A clock that is off by more makes new certificates "not yet valid" on that node (rancher/rke#1376).
const CLOCK_SKEW_LIMIT_SECONDS: i64 = 60;

/// Returns when a certificate stops working: at its own end, or at its CA's, whichever comes first.
pub fn effective_not_after(certificate: &Certificate, authority: Option<&Certificate>) -> Timestamp {
    authority.map_or(certificate.not_after, |authority| certificate.not_after.min(authority.not_after))
}

/// Returns the CA that a certificate of a name says it is signed by: that of its own folder, else that of `ssl`.
fn authority_of<'a>(observation: &'a Observation, file: &File, name: &str) -> Option<&'a Certificate> {
    let authority = match (file.location, name) {
        (Location::KubeletPki, _) | (_, "kube-etcd-client" | "kube-etcd-client-ca") => return None,
        (_, "kube-apiserver-proxy-client") => "kube-apiserver-requestheader-ca",
        _ => KUBE_CA,
    };
    let own = observation.certificate(file.location, authority);
    let found = own.or_else(|| observation.certificate(Location::Ssl, authority))?;
    let Content::Certificate(Ok(certificate)) = &file.content else { return None };
    (found.subject == certificate.issuer && found.sha256 != certificate.sha256).then_some(found)
}

/// Returns how the certificate in a file stands.
pub fn certificate_status(
    observation: &Observation,
    file: &File,
    thresholds: &Thresholds,
) -> (CertificateStatus, Option<Timestamp>) {
    let Content::Certificate(Ok(certificate)) = &file.content else {
        return (CertificateStatus::Invalid, None);
    };
    let name = file.certificate_name().unwrap_or_default();
    let authority =
        authority_of(observation, file, name).filter(|authority| authority.sha256 != certificate.sha256);
    let end = effective_not_after(certificate, authority);
    let is_broken = observation.key_matches(file.location, name) == Some(false)
        || authority.is_some_and(|authority| !certificate.is_signed_by(authority));
    let status = if is_broken { CertificateStatus::Invalid } else { thresholds.status_of_end(end) };
    (status, Some(end))
}

/// Returns what is worth knowing about a cluster, worst first.
pub fn assess(inventory: &Inventory, facts: &Facts, thresholds: &Thresholds) -> Vec<Finding> {
    let mut findings = Vec::new();
    for node in &facts.nodes {
        match &node.result {
            Ok(observation) => findings.extend(assess_node(inventory, node, observation, thresholds)),
            Err(unseen) if unseen.cause == Cause::Windows => {
                let finding =
                    Finding::info("windows-node", format!("left alone: {}", unseen.error)).on(&node.name);
                findings.push(Finding { hint: unseen.hint.clone(), ..finding });
            }
            Err(unseen) => {
                let word = if unseen.reachable { "not looked at" } else { "unreachable" };
                let finding =
                    Finding::error("node-unreachable", format!("{word}: {}", unseen.error)).on(&node.name);
                findings.push(Finding { hint: unseen.hint.clone(), ..finding });
            }
        }
    }
    findings.extend(differing_authorities(facts));
    if facts.is_rancher_launched() {
        findings.push(Finding::info(
            "rancher-launched",
            "Rancher's agents are on the nodes: Rancher keeps this cluster's certificates in its own state",
        ));
    }
    findings.sort_by_key(|left| left.severity);
    findings
}

/// Returns the errors about CAs that are not one.
///
/// rke signs with what it finds in `.tmp`: a kube-ca there that is another one splits the cluster.
pub fn differing_authorities(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(reference) = facts.kube_ca() else { return findings };
    for (node, observation) in facts.seen() {
        for location in [Location::Ssl, Location::Tmp, Location::NestedTmp] {
            let Some(authority) = observation.certificate(location, KUBE_CA) else { continue };
            if authority.sha256 != reference.sha256 {
                let path =
                    observation.certificate_file(location, KUBE_CA).map_or("", |file| file.path.as_str());
                let message = format!(
                    "`{path}` is another CA ({}) than the kube-ca of the other nodes ({})",
                    authority.sha256.short(),
                    reference.sha256.short()
                );
                findings.push(Finding::error("ca-differs", message).on(&node.name).hint(
                    "find out which CA the running components trust, and put that file right by hand before anything is rotated",
                ));
            }
        }
    }
    findings
}

/// Returns what is worth knowing about one node.
fn assess_node(
    inventory: &Inventory,
    node: &NodeFacts,
    observation: &Observation,
    thresholds: &Thresholds,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(certificate_findings(inventory, node, observation, thresholds));
    findings.extend(san_findings(inventory, node, observation));
    findings.extend(container_findings(inventory, node, observation, thresholds.now));
    findings.extend(served_findings(inventory, observation));
    findings.extend(health_findings(observation));
    findings.extend(bundle_findings(inventory, node, observation));
    findings.extend(machine_findings(observation));
    findings.extend(agent_findings(observation, thresholds));
    findings.extend(standing_finding(node, observation));
    findings.into_iter().map(|finding| finding.on(&node.name)).collect()
}

/// Returns the findings about the files of certificates.
fn certificate_findings(
    inventory: &Inventory,
    node: &NodeFacts,
    observation: &Observation,
    thresholds: &Thresholds,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if observation.kubernetes_directory.is_empty() {
        return vec![
            Finding::error("directory-missing", "no `/etc/kubernetes` of RKE's was found").hint(
                "set `prefix_path` in the cluster.yml if RKE keeps it elsewhere; is this node part of the cluster?",
            ),
        ];
    }
    // Many certificates end on the same day: one finding a status and day, not one a file.
    let mut ends: BTreeMap<(CertificateStatus, String), Vec<String>> = BTreeMap::new();
    for file in observation.files.iter().filter(|file| matches!(file.content, Content::Certificate(_))) {
        let name = file.certificate_name().unwrap_or_default();
        let (status, end) = certificate_status(observation, file, thresholds);
        match (file.class(), status) {
            (Class::Legacy | Class::KubeletServing, CertificateStatus::Invalid) => {
                findings.push(invalid(Severity::Warning, observation, file));
            }
            (_, CertificateStatus::Ok) | (Class::Legacy | Class::Informational, _) => {}
            (Class::KubeletServing, _) => findings.push(kubelet_serving(end, thresholds.now)),
            (_, CertificateStatus::Invalid) => findings.push(invalid(Severity::Error, observation, file)),
            (_, status) => {
                let day = end.map(|end| end.strftime("%Y-%m-%d").to_string()).unwrap_or_default();
                ends.entry((status, day)).or_default().push(name.to_owned());
            }
        }
    }
    for ((status, day), names) in ends {
        let (severity, code, verb) = match status {
            CertificateStatus::Expired => (Severity::Error, "certificate-expired", "expired"),
            _ => (Severity::Warning, "certificate-expiring", "will expire"),
        };
        findings.push(Finding::new(severity, code, format!("{} {verb} on {day}", certificates(&names))));
    }
    for name in expected_names(&node.roles, inventory) {
        if observation.certificate_file(Location::Ssl, &name).is_none() {
            let file_name = certificate_file_name(Location::Ssl, &name);
            findings.push(Finding::error("certificate-missing", format!("`ssl/{file_name}` is missing")));
        }
    }
    findings
}

/// Returns a count of certificates with their names.
fn certificates(names: &[String]) -> String {
    match names {
        [name] => format!("the certificate of {name}"),
        names => format!("{} certificates ({})", names.len(), names.join(", ")),
    }
}

/// Returns the finding about a certificate that cannot be used.
fn invalid(severity: Severity, observation: &Observation, file: &File) -> Finding {
    let name = file.certificate_name().unwrap_or_default();
    let cause = match &file.content {
        Content::Certificate(Err(error)) => error.to_string(),
        _ if observation.key_matches(file.location, name) == Some(false) => {
            "it does not belong to the private key beside it".to_owned()
        }
        _ => "it names the cluster's CA as its issuer, but that CA's key did not sign it".to_owned(),
    };
    Finding::new(severity, "certificate-invalid", format!("`{}` cannot be used: {cause}", file.path))
}

/// Returns the finding about the kubelet's own serving certificate.
fn kubelet_serving(end: Option<Timestamp>, now: Timestamp) -> Finding {
    let days = end.map_or(0, |end| end.duration_since(now).as_hours() / 24);
    let message = if days < 0 {
        format!(
            "the kubelet's own serving certificate expired {} days ago; a rotation by Rancher or rke does not renew it",
            -days
        )
    } else {
        format!(
            "the kubelet's own serving certificate expires in {days} days; a rotation by Rancher or rke does not renew it"
        )
    };
    let severity = if days < 0 { Severity::Warning } else { Severity::Info };
    Finding::new(severity, "kubelet-serving-certificate", message)
        .hint("`certroll plan --via direct --kubelet-serving` has the kubelet make a new one")
}

/// Returns the containers that a node of these roles runs.
pub fn expected_containers(inventory: &Inventory, node: &NodeFacts) -> Vec<&'static str> {
    let mut names = vec!["kubelet", "kube-proxy"];
    if node.has(Role::ControlPlane) {
        names.extend(["kube-apiserver", "kube-controller-manager", "kube-scheduler"]);
    }
    if node.has(Role::Etcd) && inventory.external_etcd_urls.is_empty() {
        names.push("etcd");
    }
    names
}

/// Returns the findings about containers.
fn container_findings(
    inventory: &Inventory,
    node: &NodeFacts,
    observation: &Observation,
    now: Timestamp,
) -> Vec<Finding> {
    if let Some(error) = &observation.docker_error {
        return vec![
            Finding::error("docker-unavailable", format!("docker does not answer: {error}"))
                .hint("look at `systemctl status docker` on the node"),
        ];
    }
    let mut findings = Vec::new();
    let mut down: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in expected_containers(inventory, node) {
        match observation.container(name) {
            None => {
                findings.push(Finding::error("container-missing", format!("there is no container `{name}`")));
            }
            Some(container) if !container.is_running() => {
                down.entry(&container.state).or_default().push(name);
            }
            Some(_) => {}
        }
    }
    for (state, names) in down {
        let verb = if names.len() == 1 { "is" } else { "are" };
        findings
            .push(Finding::error("container-not-running", format!("{} {verb} {state}", names.join(", "))));
    }
    let names = stale_containers(observation).map(|container| container.name.as_str());
    let (pending, stale): (Vec<&str>, Vec<&str>) =
        names.partition(|name| left_to_agent(node, observation, name, now).is_some());
    if let Some(left) = pending.iter().filter_map(|name| left_to_agent(node, observation, name, now)).max() {
        let message = format!(
            "{} will be restarted by Rancher's agent: their certificates are new, and it has {} s left to do it",
            pending.join(" and "),
            left.as_secs()
        );
        findings.push(
            Finding::info("container-pending", message)
                .hint("look again then; `certroll plan restart` shows what it did not do"),
        );
    }
    if !stale.is_empty() {
        let rest = match stale.len() {
            1 => "started before its certificate was written: it still uses the old one",
            _ => "started before their certificates were written: they still use the old ones",
        };
        let message = format!("{} {rest}", stale.join(" and "));
        let own = stale.iter().all(|name| ["kubelet", "kube-proxy"].contains(name));
        let hint = if own {
            "`certroll plan restart` shows the restarts that mend it"
        } else {
            "`docker restart` them, one control plane node at a time"
        };
        findings.push(Finding::error("container-stale", message).hint(hint));
    }
    for writer in
        observation.containers.iter().filter(|container| container.is_writer() && container.is_running())
    {
        let message = format!("`{}` of rke or of Rancher's agent is at work on this node", writer.name);
        findings.push(Finding::warning("certificate-writer", message));
    }
    findings
}

/// Returns the running containers that still use an old certificate.
pub fn stale_containers(observation: &Observation) -> impl Iterator<Item = &Container> {
    observation
        .containers
        .iter()
        .filter(|container| container.is_running() && observation.is_stale(container))
}

/// Returns the findings about what is served.
///
/// A kubelet may have been told to serve another file than the one that it made for itself.
fn served_findings(inventory: &Inventory, observation: &Observation) -> Vec<Finding> {
    let severity = |served: &Served| match served.service {
        Service::Kubelet if !inventory.generate_serving_certificate => Severity::Warning,
        _ => Severity::Error,
    };
    let differing = observation.served.iter().filter(|served| served.matches_disk == Some(false));
    differing
        .map(|served| {
            let message = format!(
                "{} on port {} serves another certificate than the one on disk",
                served.service, served.port
            );
            Finding::new(severity(served), "served-certificate-differs", message)
        })
        .collect()
}

/// Returns the findings about components that are not well.
fn health_findings(observation: &Observation) -> Vec<Finding> {
    // A container that does not run has its own finding.
    let runs =
        |health: &&Health| observation.container(health.service.as_str()).is_none_or(Container::is_running);
    let judged = observation.health.iter().filter(runs).filter_map(|health| match health.healthy {
        Some(true) => None,
        Some(false) => {
            let message = format!("{} is not healthy: {}", health.service, health.detail);
            Some(Finding::error("component-unhealthy", message))
        }
        None => {
            let message = format!("whether {} is healthy is unknown: {}", health.service, health.detail);
            Some(Finding::warning("component-health-unknown", message))
        }
    });
    judged.collect()
}

/// Returns the findings about the legacy bundle.
fn bundle_findings(inventory: &Inventory, node: &NodeFacts, observation: &Observation) -> Vec<Finding> {
    let mut findings = Vec::new();
    if matches!(bundle_of(inventory, node, observation), Some(Bundle::Incomplete | Bundle::Nested)) {
        let names = super::bundle_names(inventory).into_iter();
        let missing: Vec<String> = names
            .filter(|file| observation.file(Location::Tmp, &file.file_name).is_none())
            .map(|file| file.file_name)
            .collect();
        let what = match missing.as_slice() {
            [first, _, _, ..] => format!("{first} and {} more", missing.len() - 1),
            few => few.join(" and "),
        };
        let message =
            format!("`.tmp` lacks {what}: Rancher 2.2 will loop with \"CA Certificate or Key is empty\"");
        findings.push(
            Finding::warning("legacy-bundle-incomplete", message)
                .hint("`certroll plan repair` shows what it takes to complete it"),
        );
    }
    let requestheader = observation.certificate(Location::Ssl, "kube-apiserver-requestheader-ca");
    let kube_ca = observation.certificate(Location::Ssl, KUBE_CA);
    if let (Some(requestheader), Some(kube_ca)) = (requestheader, kube_ca)
        && requestheader.sha256 == kube_ca.sha256
    {
        findings.push(Finding::info(
            "requestheader-ca-is-kube-ca",
            "the requestheader CA is kube-ca itself, as the written procedure leaves it",
        ));
    }
    findings
}

/// Returns the finding about a clock that is off.
pub fn clock_skew(observation: &Observation) -> Option<Finding> {
    let skew = observation.clock_skew_seconds;
    if skew.abs() <= CLOCK_SKEW_LIMIT_SECONDS {
        return None;
    }
    let direction = if skew > 0 { "ahead of" } else { "behind" };
    let message = format!("the clock is {} s {direction} this machine's", skew.abs());
    let finding = Finding::warning("clock-skew", message);
    Some(finding.hint("new certificates may be \"not yet valid\" there: look at NTP"))
}

/// Returns the findings about the machine itself.
fn machine_findings(observation: &Observation) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(clock_skew(observation));
    if !observation.kubernetes_directory.is_empty() && !observation.is_writable {
        let message = format!("`{}` cannot be written to", observation.kubernetes_directory);
        findings.push(Finding::error("read-only", message));
    }
    if let Some(finding) = backups(observation) {
        findings.push(finding);
    }
    if let Some(lock) = &observation.lock {
        let finding = Finding::info("locked", lock.to_string());
        // A live one needs nothing; what a stale one needs is a decision.
        findings.push(if lock.is_alive() { finding } else { finding.hint(lock.hint()) });
    }
    findings
}

/// Returns the finding about the backups of runs; they are never removed by surprise.
fn backups(observation: &Observation) -> Option<Finding> {
    let runs = match observation.backups.len() {
        0 => return None,
        1 => "the backup of 1 run lies".to_owned(),
        count => format!("the backups of {count} runs lie"),
    };
    let directory = &observation.kubernetes_directory;
    let kibibytes = observation.backups.iter().fold(0_u64, |sum, saved| sum.saturating_add(saved.kibibytes));
    let message = format!("{runs} in `{directory}/.certroll`, {kibibytes} KiB");
    Some(
        Finding::info("backups", message)
            .hint("`certroll rollback --keep N` keeps those of the newest N runs"),
    )
}

/// Returns why a component has to be restarted; `None` where it is well and up to date.
pub fn restart_reason(observation: &Observation, container: &str) -> Option<String> {
    let Some(found) = observation.container(container) else { return Some("is missing".to_owned()) };
    if !found.is_running() {
        return Some(format!("is {}", found.state));
    }
    if observation.is_stale(found) {
        return Some("started before its certificate was written".to_owned());
    }
    let service = container.parse().ok()?;
    let health = observation.health_of(service)?;
    (health.healthy == Some(false)).then(|| format!("is not healthy: {}", health.detail))
}
