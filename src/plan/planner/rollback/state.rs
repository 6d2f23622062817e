//! What rke keeps of the cluster, in the API and on the bastion, comes back from the copies that the run made of it.

use std::collections::BTreeMap;

use super::super::PlannedStep;
use super::{Draft, RancherFiles, Undoing};
use crate::facts::BastionCopy;
use crate::finding::Finding;
use crate::inventory::{NodeName, Role};
use crate::plan::{Action, Health, KeptState};

impl Draft<'_> {
    /// Returns the steps that put back what rke keeps, and says where no copy is left.
    pub(super) fn state_to_restore(&mut self, undoing: &Undoing<'_>, health: Health) -> Vec<PlannedStep> {
        let run = undoing.run;
        if run.is_rancher_rotated() && undoing.rancher_files == RancherFiles::Left {
            return Vec::new();
        }
        let mut steps: Vec<PlannedStep> = Vec::new();
        for step in run.effects() {
            let is_done = run.done.contains(&step.id);
            match &step.action {
                Action::UpdateClusterState { nodes, names }
                | Action::RestoreClusterState { nodes, names, .. } => {
                    let kept = kept(undoing, nodes, names);
                    if kept.is_empty() {
                        continue;
                    }
                    if health == Health::NotAwaited {
                        let message = "what rke keeps in the API stays as the run wrote it: no API server answers on certificates that have expired";
                        self.findings.push(Finding::warning("api-state-stays", message));
                        continue;
                    }
                    let nodes: Vec<NodeName> = self
                        .facts
                        .seen()
                        .filter(|(node, _)| node.has(Role::ControlPlane))
                        .map(|(node, _)| node.name.clone())
                        .collect();
                    let action = Action::RestoreClusterState {
                        nodes,
                        run: run.name.clone(),
                        kept,
                        names: names.clone(),
                    };
                    steps.push((None, action, "the next `rke up` would put the others back".to_owned()));
                }
                Action::RotateByRke { files, .. } => {
                    for path in files {
                        // What was not there when copies were kept is rke's, however it ended.
                        let is_there =
                            undoing.bastion.iter().any(|copy| copy.path == *path && copy.is_present);
                        let is_of_run = is_done || (is_there && run.has_kept(path));
                        self.restore_bastion_file(undoing, path, is_of_run, &mut steps);
                    }
                }
                Action::UpdateStateFile { path, .. }
                | Action::UpdateKubeConfig { path, .. }
                | Action::RestoreBastionFile { path, .. } => {
                    self.restore_bastion_file(undoing, path, is_done, &mut steps);
                }
                _ => {}
            }
        }
        steps
    }

    /// Adds the step that puts a file of the bastion back, where the run has changed it.
    fn restore_bastion_file(
        &mut self,
        undoing: &Undoing<'_>,
        path: &str,
        is_done: bool,
        steps: &mut Vec<PlannedStep>,
    ) {
        match undoing.bastion.iter().find(|copy| copy.path == *path) {
            Some(BastionCopy { is_same: true, .. }) | None => {}
            Some(BastionCopy { copy: Some(copy), .. }) => {
                let action = Action::RestoreBastionFile { path: path.to_owned(), copy: Some(copy.clone()) };
                steps.push((None, action, "as before the run".to_owned()));
            }
            Some(BastionCopy { copy: None, is_present: true, .. }) if is_done => {
                let action = Action::RestoreBastionFile { path: path.to_owned(), copy: None };
                steps.push((None, action, "the run made it".to_owned()));
            }
            Some(BastionCopy { is_present: false, .. }) if is_done => {
                let message = format!("`{path}` is gone, and so is the copy that the run made of it");
                self.findings.push(Finding::warning("copy-missing", message));
            }
            Some(_) => {}
        }
    }
}

/// Returns where the run has kept each object that it wrote to: the first copy, for a later one may hold what it wrote itself.
///
/// Only nodes that the step may have kept it on are believed, and only about objects that it may have written: whoever is root on
/// a worker must not choose what goes into the API.
fn kept(undoing: &Undoing<'_>, nodes: &[NodeName], names: &[String]) -> Vec<KeptState> {
    let is_of_step = |file_name: &str| {
        let secret = file_name.strip_prefix("secret-").and_then(|name| name.strip_suffix(".json"));
        file_name == "full-cluster-state.json"
            || secret.is_some_and(|secret| names.iter().any(|name| name == secret))
    };
    let mut first: BTreeMap<&str, (i64, &NodeName)> = BTreeMap::new();
    for (node, backup) in undoing.backups.iter().filter(|(node, _)| nodes.contains(node)) {
        let objects = backup.as_ref().map(|backup| backup.objects.as_slice()).unwrap_or_default();
        for object in objects.iter().filter(|object| is_of_step(&object.file_name)) {
            let place = first.entry(&object.file_name).or_insert((object.kept_at, node));
            if object.kept_at < place.0 {
                *place = (object.kept_at, node);
            }
        }
    }
    let state = |(file_name, (_, node)): (&str, (i64, &NodeName))| KeptState {
        node: node.clone(),
        file_name: file_name.to_owned(),
    };
    first.into_iter().map(state).collect()
}
