use super::Procedure;
use super::policy::{Policy, RancherTarget};
use crate::facts::{Lease, Observation};
use crate::finding::Finding;

/// Returns the finding about a lock that another run holds, unless it may be broken: by name, and only when its lease has ended.
pub(super) fn of_lock(observation: &Observation, policy: &Policy) -> Option<Finding> {
    let lock = observation.lock.as_ref()?;
    let is_named = policy.break_lock.as_ref() == Some(&lock.holder.run);
    match lock.lease() {
        Lease::Stale if is_named => None,
        _ => Some(Finding::error("locked", lock.to_string()).hint(lock.hint())),
    }
}

/// Returns what forbids work on a node.
pub fn on_node(observation: &Observation, procedure: Procedure) -> Vec<Finding> {
    let mut blockers = Vec::new();
    if let Some(error) = &observation.docker_error {
        blockers.push(Finding::error("docker-unavailable", format!("docker does not answer: {error}")));
    }
    let needs_space = procedure != Procedure::Restart;
    if needs_space && observation.kubernetes_directory.is_empty() {
        blockers.push(
            Finding::error("directory-missing", "no `/etc/kubernetes` of RKE's was found")
                .hint("set `prefix_path` in the cluster.yml if RKE keeps it elsewhere"),
        );
    } else if needs_space && !observation.is_writable {
        blockers.push(Finding::error(
            "read-only",
            format!("`{}` cannot be written to", observation.kubernetes_directory),
        ));
    }
    // The backup, and the copy that it is compared with.
    let needed = observation.used_kibibytes.unwrap_or_default().saturating_mul(2).saturating_add(1024);
    if needs_space && observation.free_kibibytes.is_some_and(|free| free < needed) {
        let free = observation.free_kibibytes.unwrap_or_default();
        let message = format!(
            "{free} KiB are free at `{}`, the backup needs {needed} KiB",
            observation.kubernetes_directory
        );
        blockers.push(
            Finding::error("disk-full", message).hint("make room, or remove old backups under `.certroll`"),
        );
    }
    if let Some(unknown) = observation.health.iter().find(|health| health.healthy.is_none()) {
        let message = format!("whether {} is healthy cannot be known: {}", unknown.service, unknown.detail);
        blockers.push(
            Finding::error("health-unknown", message)
                .hint("a restart could not be seen to succeed: allow TCP forwarding for this login (`AllowTcpForwarding`)"),
        );
    }
    blockers
}

/// Returns what forbids a rotation by Rancher.
pub(super) fn of_rancher(rancher: &RancherTarget, policy: &Policy) -> Vec<Finding> {
    let mut blockers = Vec::new();
    if !rancher.can_rotate {
        let message =
            format!("Rancher {} has no action `rotateCertificates` for this cluster", rancher.version);
        blockers.push(
            Finding::error("rancher-cannot-rotate", message)
                .hint("2.0.13 / 2.1.8 and earlier have none: upgrade Rancher to 2.0.14 / 2.1.9 or later first; RKE2 and k3s clusters have tools of their own"),
        );
    }
    let ignores_services =
        ["v2.0.", "v2.1.", "2.0.", "2.1."].iter().any(|old| rancher.version.starts_with(old));
    if ignores_services && !policy.services.is_empty() {
        let message = format!(
            "Rancher {} rotates all services or none: `--service` is of no use there",
            rancher.version
        );
        blockers.push(Finding::error("rancher-rotates-all", message).hint("drop `--service`"));
    }
    blockers
}
