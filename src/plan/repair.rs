use std::collections::BTreeMap;

use super::action::{Action, FileCopy, KubeAdminSource, TmpFolder};
use crate::facts::{
    BundleFile, Content, Facts, NodeFacts, Observation, bundle_names, certificate_file_name, key_file_name,
};
use crate::finding::Finding;
use crate::inventory::{Inventory, NodeName, Role};
use crate::pki::{KUBE_ADMIN, KUBE_CA, Location, REQUESTHEADER_COPIES};

/// What it takes to complete the legacy bundles.
#[derive(Debug, Default)]
pub(super) struct Repair {
    /// The actions, by node, with their reasons.
    pub(super) steps: Vec<(NodeName, Action, String)>,
    /// What forbids it.
    pub(super) blockers: Vec<Finding>,
    /// What a reviewer should know.
    pub(super) findings: Vec<Finding>,
}

/// Returns whether the cluster was laid out by an rke before 0.2: no service account pair of its own on a control plane node.
pub(super) fn is_legacy_layout(facts: &Facts) -> bool {
    let mut control_plane = facts.seen().filter(|(node, _)| node.has(Role::ControlPlane)).peekable();
    control_plane.peek().is_some()
        && control_plane
            .all(|(_, seen)| seen.certificate_file(Location::Ssl, "kube-service-account-token").is_none())
}

/// Returns whether kube-apiserver's own key checks service account tokens: so it is where an rke before 0.2 started an API server
/// (RKE `cluster/certificates.go` `IsLegacyKubeAPI`), and where no container tells, by the layout.
pub(super) fn signs_tokens_with_its_own_key(facts: &Facts) -> bool {
    let control_plane = facts.seen().filter(|(node, _)| node.has(Role::ControlPlane));
    let files: Vec<&str> =
        control_plane.filter_map(|(_, seen)| seen.service_account_key_file.as_deref()).collect();
    if files.is_empty() {
        return is_legacy_layout(facts);
    }
    files.iter().any(|file| file.ends_with("/kube-apiserver-key.pem"))
}

/// Returns whether any node has a legacy bundle, whole or not.
pub(super) fn has_any_bundle(facts: &Facts) -> bool {
    facts.seen().any(|(_, observation)| observation.has_tmp)
}

/// Plans how every control plane and etcd node gets a complete legacy bundle.
pub(super) fn repair(inventory: &Inventory, facts: &Facts) -> Repair {
    let names = bundle_names(inventory);
    let mut repair = Repair::default();
    for (node, observation) in facts.seen().filter(|(node, _)| super::is_control_plane_or_etcd(&node.roles)) {
        if !observation.kubernetes_directory.is_empty() {
            repair.repair_node(facts, node, observation, &names);
        }
    }
    repair
}

/// A pair's source: which node, and the folder on it.
#[derive(Debug, Clone, Copy)]
struct Source<'a> {
    node: &'a NodeFacts,
    seen: &'a Observation,
    location: Location,
}

impl Source<'_> {
    /// Returns the path of a file of the source, if it is there.
    fn path(&self, file_name: &str) -> Option<&str> {
        self.seen.file(self.location, file_name).map(|file| file.path.as_str())
    }
}

impl Repair {
    /// Plans one node.
    fn repair_node(&mut self, facts: &Facts, node: &NodeFacts, seen: &Observation, names: &[BundleFile]) {
        self.unreadable_files(node, seen, names);
        self.mismatched_pairs(node, seen, names);
        let missing: Vec<&BundleFile> =
            names.iter().filter(|file| seen.file(Location::Tmp, &file.file_name).is_none()).collect();
        let folder = if seen.has_tmp { TmpFolder::Present } else { TmpFolder::Made };
        let mut copies: Vec<FileCopy> = Vec::new();
        let mut brought: BTreeMap<NodeName, Vec<FileCopy>> = BTreeMap::new();
        for file in missing.iter().filter(|file| file.name != KUBE_ADMIN) {
            let Some((source, file_name, reason)) = self.find_source(facts, node, seen, file) else {
                continue;
            };
            let Some(path) = source.path(&file_name) else { continue };
            let copy = FileCopy {
                source: path.to_owned(),
                destination: format!("{}/{}", seen.tmp_directory(), file.file_name),
                reason,
            };
            if source.node.name == node.name {
                copies.push(copy);
            } else {
                brought.entry(source.node.name.clone()).or_default().push(copy);
            }
        }
        self.name_key_gained(node, seen, &brought);
        if !copies.is_empty() {
            let reason = match folder {
                TmpFolder::Present => "files are missing in `.tmp`".to_owned(),
                TmpFolder::Made => "copy of ssl: the folder `.tmp` is missing".to_owned(),
            };
            self.steps.push((node.name.clone(), Action::CopyFiles { folder, copies }, reason));
        }
        for (from, copies) in brought {
            let reason = format!("`ssl` of this node never holds them; {from} does");
            self.steps.push((node.name.clone(), Action::BringFiles { folder, from, copies }, reason));
        }
        self.add_kube_admin(facts, node, folder, &missing);
    }

    /// Blocks on files of the bundle that are there and hold nothing of use: rke would take them as they are.
    fn unreadable_files(&mut self, node: &NodeFacts, seen: &Observation, names: &[BundleFile]) {
        let present = names.iter().filter_map(|file| seen.file(Location::Tmp, &file.file_name));
        for file in present {
            let cause = match &file.content {
                Content::Key(_) if file.size == 0 => "it is empty".to_owned(),
                Content::Certificate(Err(error)) => error.to_string(),
                _ => continue,
            };
            self.blockers.push(
                Finding::error("bundle-file-unreadable", format!("`{}` cannot be used: {cause}", file.path))
                    .on(&node.name)
                    .hint("move it out of `.tmp`; certroll then adds one that can be used"),
            );
        }
    }

    /// Blocks on pairs of the bundle that do not belong together: rke would take them as they are.
    fn mismatched_pairs(&mut self, node: &NodeFacts, seen: &Observation, names: &[BundleFile]) {
        let mut checked: Vec<&str> = names.iter().map(|file| file.name.as_str()).collect();
        checked.dedup();
        for name in checked {
            if seen.key_matches(Location::Tmp, name) == Some(false) {
                let message = format!(
                    "`.tmp/{name}.pem` does not belong to `.tmp/{name}-key.pem`: rke would use the pair as it is"
                );
                self.blockers.push(Finding::error("bundle-pair-mismatched", message).on(&node.name).hint(
                    format!(
                        "move both files of {name} out of `.tmp`; certroll then adds a pair that matches"
                    ),
                ));
            }
        }
    }

    /// Finds where a missing file comes from: the source, the file's name there, and why.
    ///
    /// The written procedure copies kube-ca and kube-apiserver to the requestheader and proxy-client names where the folder
    /// exists without them; everything else comes from `ssl` of this node, or of a control plane node (domain: holes 2 and 3).
    fn find_source<'a>(
        &mut self,
        facts: &'a Facts,
        node: &'a NodeFacts,
        seen: &'a Observation,
        file: &BundleFile,
    ) -> Option<(Source<'a>, String, String)> {
        let original =
            REQUESTHEADER_COPIES.iter().find(|(copy, _)| *copy == file.name).map(|(_, original)| *original);
        let same = |source: Source<'a>| {
            let place = describe(&source, node);
            (source, file.file_name.clone(), format!("copy of {place}/{}", file.file_name))
        };
        let sources = candidates(facts, node, seen);
        match original {
            None => {
                let found = sources.into_iter().find(|source| {
                    provides(source, &file.name, seen, &file.name) && source.path(&file.file_name).is_some()
                });
                if found.is_none() {
                    self.report_missing(node, file);
                }
                found.map(same)
            }
            Some(original) => {
                let as_it_is = sources.iter().copied().find(|source| {
                    source.location == Location::Ssl && provides(source, &file.name, seen, &file.name)
                });
                if !seen.has_tmp
                    && let Some(source) = as_it_is
                {
                    return Some(same(source));
                }
                let own_tmp = Source { node, seen, location: Location::Tmp };
                let found = std::iter::once(own_tmp)
                    .chain(sources)
                    .find(|source| provides(source, original, seen, &file.name));
                let Some(source) = found else {
                    self.report_missing(node, file);
                    return None;
                };
                let file_name = file.file_name.replacen(&file.name, original, 1);
                let reason = format!("copy of {}/{file_name}: it is missing", describe(&source, node));
                Some((source, file_name, reason))
            }
        }
    }

    /// Says that a file cannot be had. etcd pairs may be missing: rke makes new ones (v0.2.8 `pki/deploy.go`).
    fn report_missing(&mut self, node: &NodeFacts, file: &BundleFile) {
        let message = format!("no node holds a matching pair of {} for `.tmp/{}`", file.name, file.file_name);
        if file.name.starts_with("kube-etcd-") {
            self.findings.push(Finding::warning("bundle-source-missing", message).on(&node.name));
        } else {
            self.blockers.push(
                Finding::error("bundle-source-missing", message)
                    .on(&node.name)
                    .hint("bring the pair back from a backup (`/opt/rke/etcd-snapshots/pki.bundle.tar.gz`?)"),
            );
        }
    }

    /// Names a node that gets the CA's key and had none.
    fn name_key_gained(
        &mut self,
        node: &NodeFacts,
        seen: &Observation,
        brought: &BTreeMap<NodeName, Vec<FileCopy>>,
    ) {
        let key = key_file_name(Location::Tmp, KUBE_CA);
        let gains = brought.values().flatten().any(|copy| copy.destination.ends_with(&format!("/{key}")));
        if gains && seen.file(Location::Ssl, &key).is_none() {
            self.findings.push(
                Finding::warning("gains-ca-key", "gains the private key of kube-ca, which it does not hold now")
                    .on(&node.name)
                    .hint("rke reads the bundle of whichever of these nodes answers first; remove `.tmp` after the rotation if that is too many"),
            );
        }
    }

    /// Plans the kube-admin pair.
    fn add_kube_admin(
        &mut self,
        facts: &Facts,
        node: &NodeFacts,
        folder: TmpFolder,
        missing: &[&BundleFile],
    ) {
        match missing.iter().filter(|file| file.name == KUBE_ADMIN).count() {
            0 => {}
            1 => self.blockers.push(
                Finding::error("bundle-pair-incomplete", "`.tmp` holds one half of the kube-admin pair")
                    .on(&node.name)
                    .hint("move that file out of `.tmp`; certroll then adds a whole pair"),
            ),
            _ => match kube_admin_source(facts) {
                Some(source) => {
                    let reason = match &source {
                        KubeAdminSource::Node { node, .. } => {
                            format!("copy of the pair on {node}: rke 0.2 asks for it")
                        }
                        KubeAdminSource::Made { signer, .. } => {
                            format!(
                                "made from kube-ca-key of {signer}, valid for 30 days: rke 0.2 asks for it"
                            )
                        }
                    };
                    self.steps.push((node.name.clone(), Action::AddKubeAdmin { folder, source }, reason));
                }
                None => self.blockers.push(
                    Finding::error(
                        "ca-key-missing",
                        "no node holds a kube-ca-key.pem that belongs to kube-ca.pem",
                    )
                    .on(&node.name)
                    .hint("look for it on the control plane nodes; without it nothing can be signed"),
                ),
            },
        }
    }
}

/// Returns where the files of a pair may come from, best first: `ssl` of the node itself, then of control plane nodes, then
/// their bundles.
fn candidates<'a>(facts: &'a Facts, node: &'a NodeFacts, seen: &'a Observation) -> Vec<Source<'a>> {
    let own = Source { node, seen, location: Location::Ssl };
    let others = |location| {
        facts
            .seen()
            .filter(|(other, _)| other.has(Role::ControlPlane) && other.name != node.name)
            .map(move |(node, seen)| Source { node, seen, location })
    };
    std::iter::once(own).chain(others(Location::Ssl)).chain(others(Location::Tmp)).collect()
}

/// Returns whether a source holds the whole pair of a name, belonging together, and in accord with the half that the
/// destination may have already under its own name.
fn provides(source: &Source<'_>, name: &str, destination: &Observation, destination_name: &str) -> bool {
    let Some(certificate) = source.seen.certificate(source.location, name) else { return false };
    let has_key = source.seen.file(source.location, &key_file_name(source.location, name)).is_some();
    if !has_key || source.seen.key_matches(source.location, name) == Some(false) {
        return false;
    }
    let present_certificate = destination.certificate(Location::Tmp, destination_name);
    let present_key = destination.file(Location::Tmp, &key_file_name(Location::Tmp, destination_name));
    let agrees_with_key = match present_key.map(|file| &file.content) {
        Some(Content::Key(prefix)) => certificate.matches_key(prefix) == Some(true),
        _ => true,
    };
    agrees_with_key && present_certificate.is_none_or(|present| present.sha256 == certificate.sha256)
}

/// Returns a source in words, seen from a node.
fn describe(source: &Source<'_>, node: &NodeFacts) -> String {
    let folder = if source.location == Location::Ssl { "ssl" } else { ".tmp" };
    if source.node.name == node.name {
        folder.to_owned()
    } else {
        format!("{folder} of {}", source.node.name)
    }
}

/// Returns where the kube-admin pair comes from: a node that has one of this CA, else the key of kube-ca.
fn kube_admin_source(facts: &Facts) -> Option<KubeAdminSource> {
    let authority = facts.kube_ca()?;
    let present = facts.seen().find(|(_, seen)| {
        seen.certificate(Location::Tmp, KUBE_ADMIN)
            .is_some_and(|certificate| certificate.is_signed_by(authority))
            && seen.key_matches(Location::Tmp, KUBE_ADMIN) == Some(true)
    });
    if let Some((node, seen)) = present {
        return Some(KubeAdminSource::Node { node: node.name.clone(), directory: seen.tmp_directory() });
    }
    let holds = |seen: &Observation, location| {
        seen.certificate(location, KUBE_CA).is_some()
            && seen.file(location, &certificate_file_name(location, KUBE_CA)).is_some()
            && seen.file(location, &key_file_name(location, KUBE_CA)).is_some()
            && seen.key_matches(location, KUBE_CA) != Some(false)
    };
    let signer = |location, folder: &str| {
        let found =
            facts.seen().find(|(node, seen)| node.has(Role::ControlPlane) && holds(seen, location))?;
        let directory = format!("{}/{folder}", found.1.kubernetes_directory);
        Some(KubeAdminSource::Made { signer: found.0.name.clone(), directory })
    };
    signer(Location::Ssl, "ssl").or_else(|| signer(Location::Tmp, ".tmp"))
}
