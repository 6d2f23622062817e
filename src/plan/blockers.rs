use jiff::{SignedDuration, Timestamp};

use super::policy::{Policy, RancherTarget, RotationOffer};
use super::{Action, CertificateSource, NewCertificate, Plan, Procedure, is_control_plane_or_etcd};
use crate::facts::{Content, File, Lease, Observation};
use crate::finding::Finding;
use crate::inventory::{Inventory, Node};
use crate::pki::{Certificate, Class, KUBE_CA, Location};

/// Returns the finding about a lock that another run holds, unless it may be broken: by name, and only when its lease has ended.
pub(super) fn of_lock(observation: &Observation, policy: &Policy) -> Option<Finding> {
    let lock = observation.lock.as_ref()?;
    let is_named = policy.break_lock.as_ref() == Some(&lock.holder.run);
    match lock.lease() {
        Lease::Stale if is_named => None,
        _ => Some(Finding::error("locked", lock.to_string()).hint(lock.hint())),
    }
}

/// The code of a finding about a clock that disagrees with certificates.
pub(super) const CLOCK_OUTSIDE: &str = "clock-outside-validity";

/// What a run may need beside copies of files: folders, the record of what was written, and what other programs write meanwhile.
const SPARE_KIBIBYTES: u64 = 1024;

/// The same in inodes.
const SPARE_INODES: u64 = 16;

/// Returns what forbids work on a node, as it was seen at a time.
pub fn on_node(observation: &Observation, procedure: Procedure, now: Timestamp) -> Vec<Finding> {
    let mut blockers = Vec::new();
    if let Some(error) = &observation.docker_error {
        blockers.push(
            Finding::error("docker-unavailable", format!("docker does not answer: {error}"))
                .hint("look at `systemctl status docker` on the node, and whether its disk is full"),
        );
    }
    let writers =
        observation.containers.iter().filter(|container| container.is_writer() && container.is_running());
    let writers: Vec<String> = writers.map(|container| format!("`{}`", container.name)).collect();
    if !writers.is_empty() {
        let message = format!("another program is writing certificates here: {} runs", writers.join(", "));
        blockers.push(
            Finding::error("certificate-writer", message)
                .hint("rke or Rancher's agent is at work: wait until that container has ended (`docker ps`), then plan again"),
        );
    }
    blockers.extend(of_clock(observation, now, |file| file.class() == Class::Ca));
    let writes_files = procedure != Procedure::Restart;
    if writes_files && observation.kubernetes_directory.is_empty() {
        blockers.push(
            Finding::error("directory-missing", "no `/etc/kubernetes` of RKE's was found")
                .hint("set `prefix_path` in the cluster.yml if RKE keeps it elsewhere"),
        );
    } else if writes_files {
        blockers.extend(of_places(observation));
        blockers.extend(of_labels(observation));
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

/// Returns what is wrong with the places that files are written to: backup and staging need room for two copies of all that is there.
fn of_places(observation: &Observation) -> Vec<Finding> {
    let size = |beneath: &str| -> (u64, u64) {
        let files = observation.files.iter().filter(|file| file.path.starts_with(beneath));
        files.fold((0, 0), |(bytes, count): (u64, u64), file| (bytes.saturating_add(file.size), count + 1))
    };
    let directory = &observation.kubernetes_directory;
    let (staged_bytes, count) = size(&format!("{directory}/"));
    let used = observation.used_kibibytes.unwrap_or_default();
    let mut blockers = Vec::new();
    if !observation.is_writable {
        blockers.push(read_only(directory));
    }
    let needs = Needs {
        kibibytes: used
            .saturating_add(staged_bytes.div_ceil(1024))
            .saturating_mul(2)
            .saturating_add(SPARE_KIBIBYTES),
        inodes: 2 * count + SPARE_INODES,
        what: "backup and staging",
    };
    blockers.extend(needs.lacking(directory, (observation.free_kibibytes, observation.free_inodes)));
    let is_full = !blockers.is_empty();
    for folder in &observation.folders {
        if !folder.is_writable && observation.is_writable {
            blockers.push(read_only(&folder.path));
        }
        let (bytes, count) = size(&format!("{}/", folder.path));
        let needs = Needs {
            kibibytes: bytes.div_ceil(1024).saturating_mul(2).saturating_add(SPARE_KIBIBYTES / 16),
            inodes: 2 * count + SPARE_INODES,
            what: "new files",
        };
        // On the same file system it would be said twice.
        if !is_full {
            blockers.extend(needs.lacking(&folder.path, (folder.free_kibibytes, folder.free_inodes)));
        }
    }
    blockers
}

/// What has to fit into a file system.
struct Needs {
    kibibytes: u64,
    inodes: u64,
    what: &'static str,
}

impl Needs {
    /// Returns what a file system lacks, as far as it tells what it has.
    fn lacking(&self, path: &str, (kibibytes, inodes): (Option<u64>, Option<u64>)) -> Vec<Finding> {
        let mut findings = Vec::new();
        let what = self.what;
        if let Some(free) = kibibytes.filter(|free| *free < self.kibibytes) {
            let message = format!("{free} KiB are free at `{path}`, {what} need {} KiB", self.kibibytes);
            findings.push(
                Finding::error("disk-full", message)
                    .hint("make room; `certroll rollback --keep N` removes the backups of old runs"),
            );
        }
        if let Some(free) = inodes.filter(|free| *free < self.inodes) {
            let message = format!("{free} inodes are free at `{path}`, {what} need {}", self.inodes);
            findings.push(
                Finding::error("inodes-used-up", message)
                    .hint("`df -i` shows it: remove many small files there, such as old logs of containers"),
            );
        }
        findings
    }
}

fn read_only(path: &str) -> Finding {
    Finding::error("read-only", format!("`{path}` cannot be written to")).hint(
        "a file system that became read-only by itself has errors (`dmesg`); else `mount -o remount,rw` it, or `lsattr` the folder",
    )
}

/// Returns what is wrong where SELinux is enforcing: a new file inherits the label of its folder, and a component whose container may
/// not read that label does not come back.
fn of_labels(observation: &Observation) -> Option<Finding> {
    let labels = observation.labels.as_ref()?;
    let directory = &observation.kubernetes_directory;
    let message = if labels.file != labels.ssl {
        format!(
            "SELinux is enforcing, and `{directory}/ssl` is labelled {}, the files in it {}: new ones would get the folder's label",
            labels.ssl, labels.file
        )
    } else if labels.ssl != labels.directory {
        format!(
            "SELinux is enforcing, and `{directory}` is labelled {}, its folder `ssl` {}: what is made beside `ssl` would get the former",
            labels.directory, labels.ssl
        )
    } else {
        return None;
    };
    let hint = format!(
        "give all the label that the components can read: `chcon -R --reference={directory}/ssl/kube-ca.pem {directory}`"
    );
    Some(Finding::error("selinux-labels-differ", message).hint(hint))
}

/// Returns the finding about a node whose clock takes certificates that are valid now for expired or not yet valid.
pub(super) fn of_clock(
    observation: &Observation,
    now: Timestamp,
    counts: impl Fn(&File) -> bool,
) -> Option<Finding> {
    // A node may say anything.
    let clock = now.saturating_add(SignedDuration::from_secs(observation.clock_skew_seconds)).unwrap_or(now);
    let is_valid = |certificate: &Certificate, at| certificate.not_before <= at && at < certificate.not_after;
    let mut refused = observation.files.iter().filter_map(|file| match &file.content {
        Content::Certificate(Ok(certificate))
            if file.location == Location::Ssl
                && counts(file)
                && is_valid(certificate, now)
                && !is_valid(certificate, clock) =>
        {
            Some((file.certificate_name().unwrap_or_default(), certificate))
        }
        _ => None,
    });
    let (name, certificate) = refused.next()?;
    let others = match refused.count() {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    let message = format!(
        "the clock says {}, which is outside the validity of {name}{others} ({} to {})",
        clock.strftime("%F %T"),
        certificate.not_before.strftime("%F %T"),
        certificate.not_after.strftime("%F %T")
    );
    Some(Finding::error(CLOCK_OUTSIDE, message).hint("set the node's clock (NTP), then plan again"))
}

/// Returns the finding about a node whose clock takes what a plan leaves in use for expired or not yet valid, or what it makes.
pub fn of_clock_in(plan: &Plan, observation: &Observation, now: Timestamp) -> Option<Finding> {
    // What comes back is judged by the rollback's planner.
    if plan.procedure == Procedure::Rollback {
        return None;
    }
    let confirmed = plan.steps().filter_map(|step| match &step.action {
        Action::Confirm { before, .. } => Some(before),
        _ => None,
    });
    let by_others: Vec<&str> = confirmed.flatten().map(|before| before.name.as_str()).collect();
    let is_renewed = |name: &str| {
        by_others.contains(&name) || plan.certificates.iter().any(|certificate| certificate.name == name)
    };
    let stays = |name: &str| !is_renewed(name);
    let in_use = of_clock(observation, now, |file| {
        file.class() == Class::Leaf && file.certificate_name().is_some_and(stays)
    });
    in_use.or_else(|| {
        let begin = observation.certificate(Location::Ssl, KUBE_CA)?.not_before;
        of_new(observation, now, (begin, first_end(&plan.certificates)?))
    })
}

/// Returns when the first of the certificates ends that a run makes.
pub(super) fn first_end(certificates: &[NewCertificate]) -> Option<Timestamp> {
    let ends = certificates.iter().filter_map(|certificate| match &certificate.source {
        CertificateSource::Made { not_after, .. } => Some(*not_after),
        CertificateSource::Node { .. } => None,
    });
    ends.min()
}

/// Returns the finding about a node that would refuse new certificates: its clock lies outside the time for which they are made.
pub(super) fn of_new(
    observation: &Observation,
    now: Timestamp,
    (begin, end): (Timestamp, Timestamp),
) -> Option<Finding> {
    let clock = now.saturating_add(SignedDuration::from_secs(observation.clock_skew_seconds)).unwrap_or(now);
    if (begin..end).contains(&clock) {
        return None;
    }
    let message = format!(
        "the clock says {}, new certificates are valid from {} to {}",
        clock.strftime("%F %T"),
        begin.strftime("%F"),
        end.strftime("%F")
    );
    Some(Finding::error(CLOCK_OUTSIDE, message).hint("set the node's clock (NTP), then plan again"))
}

/// Returns what forbids a rotation by Rancher.
pub(super) fn of_rancher(rancher: &RancherTarget, inventory: &Inventory, policy: &Policy) -> Vec<Finding> {
    let mut blockers: Vec<Finding> = of_other_cluster(rancher, &inventory.nodes).into_iter().collect();
    if let RotationOffer::Missing { reason, way_out } = &rancher.rotation {
        let message = format!(
            "Rancher {} has no action `rotateCertificates` for this cluster: {reason}",
            rancher.version
        );
        blockers.push(Finding::error("rancher-cannot-rotate", message).hint(way_out));
    }
    let ignores_services =
        ["v2.0.", "v2.1.", "2.0.", "2.1."].iter().any(|old| rancher.version.starts_with(old));
    if ignores_services && !policy.services.is_empty() {
        let message = format!(
            "Rancher {} reads no `services` and rotates all of them: `--service` would do more than it says",
            rancher.version
        );
        blockers.push(
            Finding::error("rancher-rotates-all", message)
                .hint("drop `--service`, or renew these alone with `--via direct`"),
        );
    }
    blockers
}

/// Returns the finding about a cluster of Rancher's that is not that of these nodes: a rotation would restart another one.
///
/// Workers do not tell: Rancher may have lost one, or never have had it.
pub fn of_other_cluster<'a>(
    rancher: &RancherTarget,
    nodes: impl IntoIterator<Item = &'a Node>,
) -> Option<Finding> {
    let is_stranger = |node: &&Node| is_control_plane_or_etcd(&node.roles) && rancher.node(node).is_none();
    let strangers: Vec<&str> = nodes.into_iter().filter(is_stranger).map(|node| node.name.as_str()).collect();
    if strangers.is_empty() {
        return None;
    }
    let message = format!(
        "cluster `{}` of {} is another one: Rancher knows no {} in it",
        rancher.cluster_id,
        rancher.url,
        strangers.join(", ")
    );
    Some(Finding::error("rancher-other-cluster", message).hint(
        "name the right one with `--rancher-cluster`; where it is the right one, give these nodes in the cluster.yml a name or an \
         address that Rancher shows for them",
    ))
}
