//! What comes back on one node, what goes, and what others have changed there since.

use std::collections::BTreeSet;

use super::super::direct::{COMPONENTS, NodeWork};
use super::{Draft, Objections, RancherFiles, Undoing, UndoneRun};
use crate::facts::backup::{Attributes, NodeBackup};
use crate::facts::{NodeFacts, Observation, certificates_of_container};
use crate::inventory::{NodeName, Role};
use crate::pki::{Certificate, Class, Location, Service, class};
use crate::plan::{Action, NewFile, Ownership, Restoration, Saved, kube_admin_paths};

/// The folders of RKE's certificates: what somebody else's rotation writes lies in them.
const FOLDERS: [&str; 2] = ["ssl/", ".tmp/"];

/// What is undone on a node.
pub(super) struct NodeUndo<'a> {
    /// The node, and what is restarted there in which stage.
    pub(super) work: NodeWork<'a>,
    /// The files of etcd's own certificates, on a member's node.
    pub(super) etcd: Restoration,
    /// All other files.
    pub(super) rest: Restoration,
    /// Paths that hold neither what the run left nor what it found.
    pub(super) changed: Vec<String>,
    /// Paths that rke wrote to, and perhaps others after it: the run has no trace of them.
    pub(super) untold: Vec<String>,
    /// Leaves that would come back and have expired, in words.
    pub(super) expired: Vec<String>,
    /// The names of those leaves in `ssl`; the kubelet's own serving pair is `kubelet`.
    pub(super) expired_names: Vec<String>,
    /// Leaves that would come back, and that kube-ca did not sign.
    pub(super) foreign: Vec<String>,
    /// Files that neither the backup nor the run knows.
    pub(super) strange: Vec<String>,
    /// Files that were moved away without the other half of their pair.
    pub(super) halves: Vec<String>,
    /// Whether the run has changed the node and no backup is there.
    pub(super) lacks_backup: bool,
}

impl<'a> NodeUndo<'a> {
    pub(super) fn of(
        draft: &Draft<'a>,
        undoing: &Undoing<'_>,
        (node, seen): (&'a NodeFacts, &'a Observation),
        backup: &NodeBackup,
    ) -> Self {
        let run = undoing.run;
        let mut undo = Self {
            work: NodeWork::nothing(node, seen),
            etcd: Restoration::of_run(&run.name),
            rest: Restoration::of_run(&run.name),
            changed: Vec::new(),
            untold: Vec::new(),
            expired: Vec::new(),
            expired_names: Vec::new(),
            foreign: Vec::new(),
            strange: Vec::new(),
            halves: Vec::new(),
            lacks_backup: !backup.has_archive && changes_files(undoing, &node.name),
        };
        // Without an archive every file would look like one that the run has added, kube-ca too.
        if !backup.has_archive {
            return undo;
        }
        for path in candidates(undoing, (&node.name, seen), backup) {
            undo.compare(&path, backup);
        }
        undo.tell_traceless(run, backup);
        undo.find_strange(backup);
        undo.add_folders(backup);
        undo.add_retired(draft, run, backup);
        undo.judge(draft, backup);
        undo.decide_restarts(draft);
        if undoing.objections == Objections::Respected && !undo.changed.is_empty() {
            // What is blocked need not be said to be done.
            undo.changed.sort();
        }
        undo
    }

    pub(super) fn is_empty(&self) -> bool {
        self.etcd.is_empty() && self.rest.is_empty()
    }

    /// Returns whether a container of the node uses a leaf that comes back expired.
    pub(super) fn uses_expired(&self, container: &str) -> bool {
        self.expired_names.iter().any(|name| match container {
            "etcd" => self.work.node.has(Role::Etcd) && name.starts_with("kube-etcd-"),
            "kubelet" if name == "kubelet" || name.starts_with("kube-kubelet-") => true,
            _ => certificates_of_container(container).contains(&name.as_str()),
        })
    }

    /// Compares what is in a place with what was saved, and with what the run left.
    fn compare(&mut self, path: &str, backup: &NodeBackup) {
        let is_saved = backup.saved.contains_key(path);
        let is_present = backup.present.contains_key(path);
        if backup.is_as_saved(path) || (!is_saved && !is_present) {
            return;
        }
        if !backup.is_as_left(path) {
            self.changed.push(path.to_owned());
        }
        let wanted = if is_etcd_file(path) && self.work.node.has(Role::Etcd) {
            &mut self.etcd
        } else {
            &mut self.rest
        };
        match backup.saved.get(path) {
            Some(saved) => {
                let certificate = saved.certificate.as_ref().map(|found| found.sha256.clone());
                let owner = ownership(saved.attributes);
                wanted.files.push(Saved { path: path.to_owned(), owner, certificate });
            }
            None => wanted.removed.push(path.to_owned()),
        }
    }

    /// Tells what rke wrote from what others have changed: the last look of a run is what leaves traces of rke's files, and a run that
    /// broke off has not come to it.
    fn tell_traceless(&mut self, run: &UndoneRun, backup: &NodeBackup) {
        if run.is_rke_rotated() && !backup.written.keys().any(|path| path.starts_with("ssl/")) {
            let changed = std::mem::take(&mut self.changed);
            (self.changed, self.untold) =
                changed.into_iter().partition(|path| backup.written.contains_key(path));
        }
    }

    /// Finds files in RKE's folders that nobody of this run knows.
    fn find_strange(&mut self, backup: &NodeBackup) {
        let known = |path: &&String| {
            backup.saved.contains_key(*path)
                || backup.written.contains_key(*path)
                || self.rest.removed.contains(path)
                || self.etcd.removed.contains(path)
        };
        let in_folders = |path: &&String| FOLDERS.iter().any(|folder| path.starts_with(folder));
        let strange = backup.present.keys().filter(in_folders).filter(|path| !known(path));
        self.strange = strange.cloned().collect();
    }

    /// Adds the folders that have to be made, and those that the run made.
    fn add_folders(&mut self, backup: &NodeBackup) {
        for wanted in [&mut self.etcd, &mut self.rest] {
            let mut made: BTreeSet<&str> = BTreeSet::new();
            for file in &wanted.files {
                made.extend(parents(&file.path));
            }
            wanted.folders = made
                .into_iter()
                .filter_map(|path| {
                    let owner = ownership(*backup.folders.get(path)?);
                    Some(Saved { path: path.to_owned(), owner, certificate: None })
                })
                .collect();
            let mut emptied: BTreeSet<&str> = BTreeSet::new();
            for path in &wanted.removed {
                emptied.extend(parents(path).filter(|folder| !backup.folders.contains_key(*folder)));
            }
            // The deepest first: a folder is empty when those in it are gone.
            wanted.emptied = emptied.into_iter().rev().map(str::to_owned).collect();
        }
    }

    /// Adds the serving pair that the kubelet was to make anew.
    fn add_retired(&mut self, draft: &Draft<'_>, run: &UndoneRun, backup: &NodeBackup) {
        let own = run.effects().filter(|step| step.node.as_ref() == Some(&self.work.node.name));
        let paths = own.flat_map(|step| match &step.action {
            Action::Switch { retired, .. } => retired.clone(),
            Action::Restore { wanted, .. } => wanted.retired.clone(),
            _ => Vec::new(),
        });
        let name_of = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
        let is_kept = |path: &String| backup.retired.iter().any(|file| file.name == name_of(path));
        let paths: Vec<String> = paths.collect();
        // Half a pair beside the other half of a newer one, and the kubelet would not start.
        if !paths.iter().all(is_kept) {
            self.halves = paths.into_iter().filter(is_kept).collect();
            return;
        }
        let in_use = self.work.seen.certificate(Location::KubeletPki, "kubelet");
        let old = backup.retired.iter().find_map(|file| file.certificate.as_ref());
        if paths.is_empty() || old.is_some_and(|old| in_use.is_some_and(|used| used.sha256 == old.sha256)) {
            return;
        }
        if let Some(old) = old.filter(|old| old.not_after <= draft.policy.now) {
            self.expired.push(expired("the kubelet's serving pair", old));
            self.expired_names.push("kubelet".to_owned());
        }
        self.rest.retired = paths;
    }

    /// Judges the leaves that would come back.
    fn judge(&mut self, draft: &Draft<'_>, backup: &NodeBackup) {
        let authority = draft.facts.kube_ca();
        for file in self.etcd.files.iter().chain(&self.rest.files) {
            let Some(name) = file.path.strip_prefix("ssl/").and_then(|name| name.strip_suffix(".pem")) else {
                continue;
            };
            let certificate = backup.saved.get(&file.path).and_then(|saved| saved.certificate.as_ref());
            let Some(certificate) = certificate.filter(|_| class(Location::Ssl, name) == Class::Leaf) else {
                continue;
            };
            if certificate.not_after <= draft.policy.now {
                self.expired.push(expired(name, certificate));
                self.expired_names.push(name.to_owned());
            }
            // The proxy client is of the requestheader CA, which a rotation does not change.
            let is_foreign = name != "kube-apiserver-proxy-client"
                && authority.is_some_and(|authority| !certificate.is_signed_by(authority));
            if is_foreign {
                self.foreign.push(name.to_owned());
            }
        }
    }

    /// Decides which components are restarted: those that use what comes back or goes.
    fn decide_restarts(&mut self, draft: &Draft<'_>) {
        let node = draft.inventory.node(&self.work.node.name);
        let own_pair = node.map(|node| format!("kube-etcd-{}", node.file_name_address())).unwrap_or_default();
        self.work.etcd_files = files_of(&self.etcd);
        self.work.files = files_of(&self.rest);
        self.work.retired.clone_from(&self.rest.retired);
        let in_use = |files: &[NewFile], name: &str| {
            files.iter().any(|file| file.certificate == name && file.path.starts_with("ssl/"))
        };
        self.work.restarts_etcd =
            self.work.seen.container("etcd").is_some() && in_use(&self.work.etcd_files, &own_pair);
        let needs_restart = |service: &Service| {
            let own_serving = *service == Service::Kubelet
                && (!self.rest.retired.is_empty()
                    || self.work.files.iter().any(|file| file.certificate.starts_with("kube-kubelet-")));
            let names = certificates_of_container(service.as_str());
            self.work.seen.container(service.as_str()).is_some()
                && (own_serving || names.iter().any(|name| in_use(&self.work.files, name)))
        };
        let containers = COMPONENTS.into_iter().filter(needs_restart);
        self.work.containers = containers.map(|service| service.as_str().to_owned()).collect();
    }
}

/// Returns whether a run has changed files of a node that come back.
fn changes_files(undoing: &Undoing<'_>, node: &NodeName) -> bool {
    let run = undoing.run;
    let by_others = run.is_rancher_rotated() && undoing.rancher_files == RancherFiles::Restored;
    by_others
        || run.effects().filter(|step| step.node.as_ref() == Some(node)).any(|step| {
            matches!(
                step.action,
                Action::CopyFiles { .. }
                    | Action::BringFiles { .. }
                    | Action::AddKubeAdmin { .. }
                    | Action::Switch { .. }
                    | Action::Restore { .. }
            )
        })
}

/// Returns the paths that the run may have changed on a node.
fn candidates(
    undoing: &Undoing<'_>,
    (node, seen): (&NodeName, &Observation),
    backup: &NodeBackup,
) -> BTreeSet<String> {
    let directory = &seen.kubernetes_directory;
    let below = |path: &str| path.strip_prefix(directory.as_str())?.strip_prefix('/').map(str::to_owned);
    let mut added: BTreeSet<String> = BTreeSet::new();
    let mut replaced: BTreeSet<String> = BTreeSet::new();
    for step in undoing.run.effects().filter(|step| step.node.as_ref() == Some(node)) {
        match &step.action {
            Action::CopyFiles { copies, .. } | Action::BringFiles { copies, .. } => {
                added.extend(copies.iter().filter_map(|copy| below(&copy.destination)));
            }
            Action::AddKubeAdmin { .. } => {
                added.extend(kube_admin_paths(directory).iter().filter_map(|path| below(path)));
            }
            Action::Switch { files, .. } => replaced.extend(files.iter().map(|file| file.path.clone())),
            Action::Restore { wanted, .. } => {
                replaced.extend(wanted.files.iter().map(|file| file.path.clone()));
                replaced.extend(wanted.removed.iter().cloned());
            }
            _ => {}
        }
    }
    if undoing.run.is_rancher_rotated() {
        // Whoever rotated after certroll has written over what it switched.
        replaced.clear();
        if undoing.rancher_files == RancherFiles::Restored {
            let known = backup.saved.keys().chain(backup.written.keys());
            let in_folders = known.filter(|path| FOLDERS.iter().any(|folder| path.starts_with(folder)));
            replaced.extend(in_folders.cloned());
        }
    }
    added.into_iter().chain(replaced).collect()
}

/// Returns the folders above a path, the highest first.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').filter_map(|(at, _)| path.get(..at))
}

fn is_etcd_file(path: &str) -> bool {
    path.starts_with("ssl/kube-etcd-")
}

fn ownership(attributes: Attributes) -> Ownership {
    let Attributes { mode, user_id, group_id } = attributes;
    Ownership { user_id, group_id, mode }
}

fn expired(name: &str, certificate: &Certificate) -> String {
    format!("{name} ({})", certificate.not_after.strftime("%F"))
}

/// Returns the files that are touched, as those of certificates.
fn files_of(wanted: &Restoration) -> Vec<NewFile> {
    let paths = wanted.files.iter().map(|file| file.path.as_str());
    paths.chain(wanted.removed.iter().map(String::as_str)).map(NewFile::at).collect()
}

/// Says in a few words what comes back and what goes.
pub(super) fn touched(wanted: &Restoration) -> String {
    let files = files_of(wanted);
    let mut names: Vec<&str> = files.iter().map(|file| file.certificate.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut parts = Vec::new();
    if !names.is_empty() {
        parts.push(names.join(", "));
    }
    if !wanted.retired.is_empty() {
        parts.push("the kubelet's own serving pair".to_owned());
    }
    format!("as before the run: {}", parts.join(", and "))
}

impl<'a> NodeWork<'a> {
    /// Returns no work on a node.
    fn nothing(node: &'a NodeFacts, seen: &'a Observation) -> Self {
        Self {
            node,
            seen,
            etcd_files: Vec::new(),
            restarts_etcd: false,
            files: Vec::new(),
            renews_serving: false,
            retired: Vec::new(),
            containers: Vec::new(),
        }
    }
}
