//! What is done on one node: which files it gets, and which components are restarted for them.

use super::Draft;
use crate::facts::{File, NodeFacts, Observation, certificate_file_name, key_file_name};
use crate::inventory::Role;
use crate::pki::{KUBE_ADMIN, Location, Service, expected_names};
use crate::plan::policy::Direct;
use crate::plan::{CertificateSource, Half, KeySource, NewCertificate, NewFile, Ownership};

/// The components of a node in the order in which they are restarted: an API server is healthy before those that ask it.
pub(in crate::plan::planner) const COMPONENTS: [Service; 5] = [
    Service::KubeApiserver,
    Service::KubeControllerManager,
    Service::KubeScheduler,
    Service::Kubelet,
    Service::KubeProxy,
];

/// What is done on one node.
#[derive(Clone)]
pub(in crate::plan::planner) struct NodeWork<'a> {
    pub(in crate::plan::planner) node: &'a NodeFacts,
    pub(in crate::plan::planner) seen: &'a Observation,
    /// The pairs of etcd members, on a member's own node.
    pub(in crate::plan::planner) etcd_files: Vec<NewFile>,
    /// Whether its own pair is among them.
    pub(in crate::plan::planner) restarts_etcd: bool,
    /// All other files.
    pub(in crate::plan::planner) files: Vec<NewFile>,
    /// Whether the kubelet is to make a new serving pair.
    pub(in crate::plan::planner) renews_serving: bool,
    /// Its present one, which is moved away for that.
    pub(in crate::plan::planner) retired: Vec<String>,
    /// The components that are restarted beside etcd.
    pub(in crate::plan::planner) containers: Vec<String>,
}

impl NodeWork<'_> {
    pub(in crate::plan::planner) fn is_empty(&self) -> bool {
        !self.changes_etcd() && !self.changes_components()
    }

    pub(in crate::plan::planner) fn changes_etcd(&self) -> bool {
        !self.etcd_files.is_empty() || self.restarts_etcd
    }

    pub(super) fn has_files(&self) -> bool {
        !self.etcd_files.is_empty() || !self.files.is_empty()
    }

    pub(in crate::plan::planner) fn changes_components(&self) -> bool {
        !self.files.is_empty() || !self.retired.is_empty() || !self.containers.is_empty()
    }

    /// Returns why the node's components are restarted.
    pub(super) fn reason(&self) -> String {
        if self.files.is_empty() && self.retired.is_empty() {
            return "they started before their certificates were written".to_owned();
        }
        let mut names: Vec<&str> = self.files.iter().map(|file| file.certificate.as_str()).collect();
        names.dedup();
        match (names.as_slice(), self.retired.is_empty()) {
            ([], _) => "the kubelet makes a new serving pair at its start".to_owned(),
            (names, true) => format!("new {}", names.join(", ")),
            (names, false) => {
                format!("new {}, and a new serving pair of the kubelet's own", names.join(", "))
            }
        }
    }
}

/// Decides what is done on a node.
pub(super) fn node_work<'a>(
    draft: &Draft<'a>,
    direct: &Direct,
    certificates: &[NewCertificate],
    (node, seen): (&'a NodeFacts, &'a Observation),
) -> NodeWork<'a> {
    let is_member = node.has(Role::Etcd);
    let mut work = NodeWork {
        node,
        seen,
        etcd_files: Vec::new(),
        restarts_etcd: false,
        files: Vec::new(),
        renews_serving: draft.renews_kubelet_serving(direct, seen),
        retired: Vec::new(),
        containers: Vec::new(),
    };
    let own_pair = draft
        .inventory
        .node(&node.name)
        .map(|node| format!("kube-etcd-{}", node.file_name_address()))
        .unwrap_or_default();
    for certificate in certificates {
        let files = node_files(draft, certificate, node, seen);
        let in_use = files.iter().any(|file| file.path.starts_with("ssl/"));
        if is_member && certificate.name.starts_with("kube-etcd-") {
            work.restarts_etcd |= in_use && certificate.name == own_pair;
            work.etcd_files.extend(files);
        } else {
            work.files.extend(files);
        }
    }
    work.restarts_etcd |= is_member && draft.selects(Service::Etcd) && runs_on_an_old_pair(seen, &own_pair);
    if work.renews_serving {
        let pair = ["kubelet.crt", "kubelet.key"].map(|name| seen.file(Location::KubeletPki, name));
        work.retired = pair.into_iter().flatten().map(|file| file.path.clone()).collect();
    }
    work.containers = containers(draft, &work);
    work
}

/// Returns whether an etcd from before 3.2, which loads its pair once, at its start, started before that was written (§3.2).
fn runs_on_an_old_pair(seen: &Observation, own_pair: &str) -> bool {
    let Some(container) = seen.container("etcd") else { return false };
    let tag = container.image.rsplit(':').next().unwrap_or_default();
    let loads_once = ["v3.0.", "v3.1.", "3.0.", "3.1."].iter().any(|old| tag.starts_with(old));
    let written = seen.certificate_file(Location::Ssl, own_pair).map(|file| file.modified_at);
    loads_once && container.started_at.is_some_and(|started| written.is_some_and(|written| written > started))
}

/// Returns the components that use what is new on a node, or started before what they use was written.
fn containers(draft: &Draft<'_>, work: &NodeWork<'_>) -> Vec<String> {
    let gets =
        |name: &str| work.files.iter().any(|file| file.certificate == name && file.path.starts_with("ssl/"));
    let needs_restart = |service: &Service| {
        let Some(container) = work.seen.container(service.as_str()) else { return false };
        let own_serving = *service == Service::Kubelet
            && (work.renews_serving
                || work.files.iter().any(|file| file.certificate.starts_with("kube-kubelet-")));
        own_serving
            || crate::facts::certificates_of_container(service.as_str()).iter().any(|name| gets(name))
            || (draft.selects(*service) && work.seen.is_stale(container))
    };
    COMPONENTS.into_iter().filter(needs_restart).map(|service| service.as_str().to_owned()).collect()
}

/// Returns the files of a certificate that a node gets: in `ssl` where it belongs there or lies there, and in the legacy
/// bundle where it lies there.
fn node_files(
    draft: &Draft<'_>,
    certificate: &NewCertificate,
    node: &NodeFacts,
    seen: &Observation,
) -> Vec<NewFile> {
    let name = certificate.name.as_str();
    let expected = expected_names(&node.roles, draft.inventory).iter().any(|expected| expected == name);
    let is_there = |location| seen.certificate_file(location, name).is_some();
    let mut files = Vec::new();
    for location in [Location::Ssl, Location::Tmp] {
        let belongs = location == Location::Ssl && expected && name != KUBE_ADMIN;
        if !(belongs || is_there(location))
            || has_it(certificate, seen, location)
            || is_for_another_key(draft, certificate, seen, location)
        {
            continue;
        }
        files.push(file(draft, seen, (name, location, Half::Certificate)));
        if !certificate.keeps_key() {
            files.push(file(draft, seen, (name, location, Half::Key)));
        }
    }
    files
}

/// Returns whether a node has a pair already that other nodes get from where it lies.
fn has_it(certificate: &NewCertificate, seen: &Observation, location: Location) -> bool {
    let CertificateSource::Node { sha256, .. } = &certificate.source else { return false };
    let same = seen.certificate(location, &certificate.name).is_some_and(|present| present.sha256 == *sha256);
    same && seen.key_matches(location, &certificate.name) != Some(false)
        && seen.file(location, &key_file_name(location, &certificate.name)).is_some()
}

/// Returns whether a copy in the legacy bundle has another key than the one that is kept: a new certificate would not match it.
fn is_for_another_key(
    draft: &Draft<'_>,
    certificate: &NewCertificate,
    seen: &Observation,
    location: Location,
) -> bool {
    let CertificateSource::Made { key: KeySource::Kept { sha256 }, .. } = &certificate.source else {
        return false;
    };
    let in_use = |(_, seen): (_, &Observation)| {
        seen.certificate(Location::Ssl, &certificate.name).filter(|found| found.sha256 == *sha256).cloned()
    };
    let Some(kept) = draft.facts.seen().find_map(in_use) else { return false };
    let copy = seen.certificate(Location::Tmp, &certificate.name);
    location == Location::Tmp && copy.is_none_or(|copy| !copy.has_same_key_as(&kept))
}

/// Returns one file, with owner and mode for the case that none is there.
fn file(draft: &Draft<'_>, seen: &Observation, (name, location, half): (&str, Location, Half)) -> NewFile {
    let file_name = match half {
        Half::Certificate => certificate_file_name(location, name),
        Half::Key => key_file_name(location, name),
    };
    let folder = if location == Location::Ssl { "ssl" } else { ".tmp" };
    let present = seen.file(location, &file_name).or_else(|| neighbour(seen, location, name));
    let owner = draft.inventory.etcd_owner.filter(|_| name.starts_with("kube-etcd-"));
    let otherwise = match (present, owner) {
        (Some(File { user_id, group_id, mode, .. }), _) => {
            Ownership { user_id: *user_id, group_id: *group_id, mode: *mode }
        }
        (None, Some((user_id, group_id))) => Ownership { user_id, group_id, ..Ownership::ROOT },
        (None, None) => Ownership::ROOT,
    };
    NewFile { certificate: name.to_owned(), half, path: format!("{folder}/{file_name}"), otherwise }
}

/// Returns a file of the same kind, whose owner and mode a missing one gets: that of another etcd member.
fn neighbour<'a>(seen: &'a Observation, location: Location, name: &str) -> Option<&'a File> {
    let is_kind = |file: &&File| file.location == location && file.file_name.starts_with("kube-etcd-");
    if name.starts_with("kube-etcd-") { seen.files.iter().find(is_kind) } else { None }
}
