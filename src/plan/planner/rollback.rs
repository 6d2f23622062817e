//! The plan of a rollback: a run is taken back in the order in which it would be made, behind the same gates.
//!
//! What comes back is what the run has changed: its plan says which files that are, its journal which steps began, and the look
//! at the backups what others have changed since.

mod node;
mod outlook;
mod state;

use std::collections::BTreeSet;

use super::direct::NodeWork;
use super::{Draft, backup, preflight};
use crate::facts::backup::Backups;
use crate::facts::{BastionCopy, Facts, NodeFacts, Observation};
use crate::finding::Finding;
use crate::inventory::{Inventory, NodeName, Role};
use crate::pki::Authority;
use crate::plan::{
    Action, Gate, Health, LeftOut, Majority, NotHandled, Plan, Policy, Restoration, Stage, StageName, Step,
    StepId, is_control_plane_or_etcd,
};
use node::{NodeUndo, touched};
use outlook::Outage;

/// A run that is to be taken back, as its plan and its journal tell it.
#[derive(Debug, Clone)]
pub struct UndoneRun {
    /// Its name.
    pub name: String,
    /// What was planned.
    pub plan: Plan,
    /// The steps that began, in any attempt.
    pub began: BTreeSet<StepId>,
    /// The steps that did what they say, in any attempt.
    pub done: BTreeSet<StepId>,
    /// Whether a later run has taken it back to the end.
    pub is_taken_back: bool,
    /// Later runs that changed something, newest first, each unless it is taken back.
    pub later: Vec<String>,
}

impl UndoneRun {
    /// Returns the steps that began and can change something.
    fn effects(&self) -> impl Iterator<Item = &Step> {
        self.plan.steps().filter(|step| step.action.changes_something() && self.began.contains(&step.id))
    }

    /// Returns the nodes that the run has changed, as far as it knows.
    fn changed_nodes(&self) -> BTreeSet<&NodeName> {
        let own = self.effects().filter_map(|step| step.node.as_ref());
        let others = self.plan.steps().filter(|step| step.action == Action::Backup);
        let others = others.filter(|step| self.is_rancher_rotated() && self.began.contains(&step.id));
        own.chain(others.filter_map(|step| step.node.as_ref())).collect()
    }

    /// Returns whether it has begun to lay files aside on a node.
    fn has_laid_aside(&self, node: &NodeName) -> bool {
        let mut steps = self.plan.steps().filter(|step| step.node.as_ref() == Some(node));
        steps.any(|step| matches!(step.action, Action::LayAside { .. }) && self.began.contains(&step.id))
    }

    /// Returns whether somebody else has made certificates in it: what they wrote is theirs.
    fn is_rancher_rotated(&self) -> bool {
        self.effects().any(|step| step.action.is_rotation_by_others())
    }

    /// Returns whether it has kept what there was of a file of the bastion before rke wrote to it.
    fn has_kept(&self, path: &String) -> bool {
        self.plan.steps().any(|step| {
            matches!(&step.action, Action::KeepBastionFiles { paths } if paths.contains(path))
                && self.done.contains(&step.id)
        })
    }

    /// Returns whether rke has made certificates in it, run from here: what it wrote on the bastion was kept before.
    pub(super) fn is_rke_rotated(&self) -> bool {
        self.effects().any(|step| matches!(step.action, Action::RotateByRke { .. }))
    }
}

/// What becomes of objections to a rollback that its operator may know better about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objections {
    /// They forbid it.
    Respected,
    /// They are named, and it goes on (`--force`).
    Overruled,
}

/// What becomes of the files that Rancher, rke or the operator wrote when they rotated in the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RancherFiles {
    /// They stay.
    Left,
    /// Those of the backup come back (`--restore-rancher-files`).
    Restored,
}

/// What a rollback is planned from, beside inventory, facts and policy.
#[derive(Debug, Clone, Copy)]
pub struct Undoing<'a> {
    /// The run that is taken back.
    pub run: &'a UndoneRun,
    /// What it has saved on the nodes, beside what is there now.
    pub backups: &'a Backups,
    /// What it has kept of the bastion's files.
    pub bastion: &'a [BastionCopy],
    /// What becomes of objections.
    pub objections: Objections,
    /// What becomes of the files that others have rotated.
    pub rancher_files: RancherFiles,
}

/// Plans the way back from a run: pure, and the same plan whenever the same things are known.
pub fn rollback(inventory: &Inventory, facts: &Facts, policy: &Policy, undoing: &Undoing<'_>) -> Plan {
    let mut draft = Draft::new(inventory, facts, policy);
    // rke believes its state file, which comes back with the files of the nodes.
    let rancher_files =
        if undoing.run.is_rke_rotated() { RancherFiles::Restored } else { undoing.rancher_files };
    let undoing = &Undoing { rancher_files, ..*undoing };
    draft.refuse_nodes();
    draft.refuse_another_authority(undoing);
    let nodes = draft.undo_nodes(undoing);
    draft.lay_out_rollback(undoing, &nodes);
    let mut plan = draft.finish();
    plan.undoes = Some(undoing.run.name.clone());
    plan
}

impl<'a> Draft<'a> {
    /// Blocks on what no work can be done with on the nodes that are there.
    fn refuse_nodes(&mut self) {
        self.refuse_split_selection();
        self.refuse_busy_rancher();
        for (node, seen) in self.scope() {
            let found = crate::plan::blockers::on_node(seen, self.policy.procedure, self.facts.observed_at);
            self.blockers.extend(found.into_iter().map(|finding| finding.on(&node.name)));
        }
        for (node, seen) in self.facts.seen().filter(|(node, _)| node.has(Role::ControlPlane)) {
            let found = crate::plan::blockers::of_lock(seen, self.policy);
            self.blockers.extend(found.map(|finding| finding.on(&node.name)));
        }
    }

    /// Files of another CA belong to another cluster.
    fn refuse_another_authority(&mut self, undoing: &Undoing<'_>) {
        let now = self.facts.kube_ca().map(|authority| &authority.sha256);
        if now.is_some() && now == undoing.run.plan.kube_ca.as_ref() {
            return;
        }
        let message = match now {
            Some(_) => format!("run {} is of another CA than the cluster has now", undoing.run.name),
            None => "no node shows an `ssl/kube-ca.pem`: there is no cluster to work on".to_owned(),
        };
        self.blockers.push(
            Finding::error("run-of-another-ca", message)
                .hint("nothing of it fits any more: the backups on the nodes can be looked at by hand"),
        );
    }

    /// Decides what comes back on each node.
    fn undo_nodes(&mut self, undoing: &Undoing<'_>) -> Vec<NodeUndo<'a>> {
        let mut undone = Vec::new();
        let changed = undoing.run.changed_nodes();
        for node in self.facts.nodes.iter().filter(|node| changed.contains(&node.name)) {
            if !self.is_selected(&node.name) {
                continue;
            }
            let found = undoing.backups.get(&node.name);
            match (&node.result, found) {
                (Ok(seen), Some(Ok(backup))) => {
                    let undo = NodeUndo::of(self, undoing, (node, seen), backup);
                    self.object_to(undoing, &undo);
                    if !undo.is_empty() {
                        undone.push(undo);
                    }
                }
                (Err(unseen), _) | (_, Some(Err(unseen))) => self.refuse_unseen(undoing, node, &unseen.error),
                (Ok(_), None) => self.refuse_unseen(undoing, node, "its backup was not looked at"),
            }
        }
        let gone = changed.iter().filter(|name| self.facts.node(name).is_none());
        let gone: Vec<Finding> = gone
            .map(|name| {
                let message = format!("the run has changed {name}, which is not in the cluster.yml any more");
                Finding::warning("node-gone", message)
            })
            .collect();
        self.findings.extend(gone);
        undone
    }

    /// A node of the control plane that cannot be looked at may be in any state: `--force` does not overrule that, for it may be at
    /// work all the same. Where it is known to be down (`--without-majority`), it follows later, as a worker does.
    fn refuse_unseen(&mut self, undoing: &Undoing<'_>, node: &NodeFacts, error: &str) {
        if is_control_plane_or_etcd(&node.roles) && self.policy.majority == Majority::Needed {
            let message = format!("the run has changed this node, and it cannot be looked at: {error}");
            self.blockers.push(
                Finding::error("control-plane-unreachable", message)
                    .on(&node.name)
                    .hint("bring it back; if it is down for good, `--without-majority` takes the others back without it"),
            );
        } else {
            self.not_handled.push(NotHandled {
                node: node.name.clone(),
                reason: format!("{error}; it keeps what the run gave it"),
                hint: format!("certroll rollback {}", undoing.run.name),
                left_out: LeftOut::ForNow,
            });
        }
    }

    /// Names what speaks against the rollback of a node: blockers, unless they are overruled.
    fn object_to(&mut self, undoing: &Undoing<'_>, undo: &NodeUndo<'_>) {
        let name = &undo.work.node.name;
        let mut objections = Vec::new();
        if undo.lacks_backup {
            let message = "the run has changed this node, and its backup is not there";
            objections.push(
                Finding::error("backup-missing", message)
                    .hint("`--force` leaves the node as it is and takes the others back"),
            );
        }
        if !undo.changed.is_empty() {
            let message = format!("changed by others since the run: {}", undo.changed.join(", "));
            let hint = match undoing.run.later.as_slice() {
                [] => "look at what was done there; `--force` puts them back as they were before the run"
                    .to_owned(),
                later => format!(
                    "`certroll rollback` takes the later run back first ({}); `--force` puts them back as they were before this run",
                    later.join(", ")
                ),
            };
            objections.push(Finding::error("changed-since", message).hint(hint));
        }
        if !undo.expired.is_empty() {
            let message = format!("would come back, and has expired: {}", undo.expired.join(", "));
            objections.push(
                Finding::error("backup-expired", message)
                    .hint("go forward instead (`certroll plan`); with `--force` they come back, and components that use them will not be healthy"),
            );
        }
        if !undo.foreign.is_empty() {
            let message =
                format!("would come back, and is not signed by kube-ca: {}", undo.foreign.join(", "));
            objections.push(
                Finding::error("backup-of-another-ca", message).hint("`--force` puts it back all the same"),
            );
        }
        let objections = objections.into_iter().map(|objection| objection.on(name));
        match undoing.objections {
            Objections::Respected => self.blockers.extend(objections),
            Objections::Overruled => {
                let overruled = objections.map(|objection| {
                    let message = format!("{}: overruled by --force", objection.message);
                    Finding::warning(&objection.code, message).on(name)
                });
                self.findings.extend(overruled);
            }
        }
        if !undo.untold.is_empty() {
            let message = format!(
                "the run ended before it looked at what rke wrote, so whether others have changed it since cannot be told: {}",
                undo.untold.join(", ")
            );
            self.findings.push(Finding::warning("changes-not-told", message).on(name));
        }
        if !undo.halves.is_empty() {
            let message = format!(
                "half of the kubelet's own serving pair was kept, and stays where it is: {}",
                undo.halves.join(", ")
            );
            self.findings.push(Finding::info("half-pair-kept", message).on(name));
        }
        if !undo.strange.is_empty() {
            let message =
                format!("added by others since the run, and left alone: {}", undo.strange.join(", "));
            self.findings.push(Finding::info("added-by-others", message).on(name));
        }
    }

    /// Lays the stages out.
    fn lay_out_rollback(&mut self, undoing: &Undoing<'_>, nodes: &[NodeUndo<'a>]) {
        self.name_what_stays(undoing, nodes);
        self.name_acls_that_cannot_be_told(undoing, nodes);
        let seen: Vec<(&'a NodeFacts, &'a Observation)> =
            nodes.iter().map(|undo| (undo.work.node, undo.work.seen)).collect();
        let outage = self.outage(undoing, nodes);
        let mut state = self.state_to_restore(undoing, outage.health_of_api());
        if undoing.run.is_taken_back && nodes.is_empty() {
            state.clear();
        }
        self.stages.push(preflight(&seen));
        if !seen.is_empty() {
            self.stages.push(backup(&seen));
        }
        self.add_clearing(undoing, nodes);
        let work: Vec<NodeWork<'a>> = nodes.iter().map(|undo| undo.work.clone()).collect();
        // Files that nothing has loaded need no quorum.
        if work.iter().any(|work| work.changes_etcd() || !work.containers.is_empty()) {
            self.add_etcd(&work);
        }
        self.add_control_plane(&work);
        self.add_workers(&work);
        for stage in &mut self.stages {
            put_back(stage, nodes, outage);
        }
        if outage == Outage::Etcd {
            self.blockers.retain(|blocker| blocker.code != "etcd-without-quorum");
        }
        self.add_stage(StageName::State, "put back what rke keeps", 1, state);
        self.add_look_at_restored(nodes, outage);
        let asks = self.stages.iter().flat_map(|stage| &stage.steps).any(|step| match &step.action {
            Action::Restore { gate, .. } => *gate != Gate::Open,
            action => matches!(action, Action::RestoreClusterState { .. }),
        });
        if asks {
            self.refuse_unusable_signer(Authority::KubeCa);
        }
    }

    /// Adds the steps that remove the keys which the run has laid aside on nodes that it did not come to; on the others the last look
    /// does. A later plan would take them for those of a run that goes on.
    fn add_clearing(&mut self, undoing: &Undoing<'_>, nodes: &[NodeUndo<'a>]) {
        let run = &undoing.run.name;
        let is_undone = |name: &NodeName| nodes.iter().any(|undo| undo.work.node.name == *name);
        let mut steps = Vec::new();
        let facts = self.facts;
        for node in &facts.nodes {
            if !self.is_selected(&node.name) {
                continue;
            }
            match &node.result {
                Ok(seen) if seen.unfinished_runs.contains(run) && !is_undone(&node.name) => {
                    let action = Action::ClearStaging { run: run.clone() };
                    steps.push((Some(node.name.clone()), action, "nothing uses them".to_owned()));
                }
                // Where more of the node has to be undone, that is said already.
                Err(unseen)
                    if undoing.run.has_laid_aside(&node.name)
                        && !undoing.run.changed_nodes().contains(&node.name) =>
                {
                    self.not_handled.push(NotHandled {
                        node: node.name.clone(),
                        reason: format!("{}; keys that the run laid aside may lie there", unseen.error),
                        hint: format!("certroll rollback {run}"),
                        left_out: LeftOut::ForNow,
                    });
                }
                _ => {}
            }
        }
        let title = "remove what the run has laid aside where it switched nothing";
        self.add_stage(StageName::Staging, title, usize::MAX, steps);
    }

    fn add_look_at_restored(&mut self, nodes: &[NodeUndo<'a>], outage: Outage) {
        let steps = nodes.iter().map(|undo| {
            let mut containers = undo.work.containers.clone();
            containers.extend(undo.work.restarts_etcd.then(|| "etcd".to_owned()));
            let wanted = [&undo.etcd, &undo.rest].into_iter().filter(|wanted| !wanted.is_empty());
            let action = Action::VerifyRestored {
                wanted: wanted.cloned().collect(),
                health: outage.health_of(undo, &containers),
                containers,
                timeout: self.policy.verify_timeout(),
            };
            (Some(undo.work.node.name.clone()), action, "proves that it worked".to_owned())
        });
        let steps = steps.collect();
        let title = "files as they were saved, each served as it lies on disk, components healthy";
        self.add_stage(StageName::Verify, title, usize::MAX, steps);
    }

    /// Says where ACLs come back with the archive, and nobody can tell whether they have.
    fn name_acls_that_cannot_be_told(&mut self, undoing: &Undoing<'_>, nodes: &[NodeUndo<'_>]) {
        let cannot = |name: &&NodeName| {
            let backup = undoing.backups.get(name).and_then(|found| found.as_ref().ok());
            backup.is_some_and(|backup| backup.has_archive && !backup.compares_acls)
        };
        let names = nodes.iter().map(|undo| &undo.work.node.name).filter(cannot);
        let names: Vec<&str> = names.map(NodeName::as_str).collect();
        if !names.is_empty() {
            let message = format!(
                "ACLs are not compared on {}, which had no `getfacl` at the backup or has none now: the archive brings them back where the node's tar can",
                names.join(", ")
            );
            self.findings.push(Finding::info("acls-not-compared", message));
        }
    }

    /// Says what the rollback does not undo.
    fn name_what_stays(&mut self, undoing: &Undoing<'_>, nodes: &[NodeUndo<'_>]) {
        if !undoing.run.is_rancher_rotated() {
            return;
        }
        if undoing.run.is_rke_rotated() {
            self.findings.push(
                Finding::warning(
                    "rke-state-in-api-stays",
                    "kube-system/full-cluster-state stays as rke left it: rke 1.0 and later have written the new certificates there",
                )
                .hint("rke reads it only where cluster.rkestate is lost: keep that one safe"),
            );
            return;
        }
        let rancher = self.is_rancher_launched;
        let finding = match undoing.rancher_files {
            RancherFiles::Left => Finding::info(
                "rancher-files-stay",
                "whoever rotated in this run keeps the new certificates: they stay on the nodes, and only what certroll itself added goes",
            )
            .hint("`--restore-rancher-files` brings the files back too"),
            RancherFiles::Restored if rancher => Finding::warning(
                "rancher-reverts-rollback",
                "Rancher keeps the new certificates in its own state, and writes them back at the next reconcile of the cluster, within minutes on workers",
            )
            .hint("it can keep a cluster alive until then; there is no way to take a rotation back in Rancher but to rotate again"),
            RancherFiles::Restored => Finding::warning(
                "rke-reverts-rollback",
                "whoever rotated keeps the new certificates in its own state: the next `rke up` writes them back",
            ),
        };
        self.findings.push(finding);
        if undoing.rancher_files == RancherFiles::Restored && nodes.is_empty() {
            self.findings
                .push(Finding::info("nothing-differs", "no file differs from those that were saved"));
        }
    }
}

/// Turns the switches of a stage into what brings the old files back.
fn put_back(stage: &mut Stage, nodes: &[NodeUndo<'_>], outage: Outage) {
    let is_etcd = matches!(stage.name, StageName::EtcdQuorum | StageName::Etcd);
    let mut has_any = false;
    for step in &mut stage.steps {
        let Action::Switch { containers, gate, timeout, .. } = &step.action else { continue };
        let undo = nodes.iter().find(|undo| Some(&undo.work.node.name) == step.node.as_ref());
        let Some(undo) = undo else { continue };
        let wanted = if is_etcd { &undo.etcd } else { &undo.rest };
        let gates = if is_etcd { outage.health_of_etcd() } else { outage.health_of_api() };
        has_any = true;
        step.reason = touched(wanted);
        step.action = Action::Restore {
            wanted: wanted.clone(),
            containers: containers.clone(),
            // Others are asked unless they cannot answer any more; the node's own health is another matter.
            gate: if gates == Health::Awaited { gate.clone() } else { Gate::Open },
            health: outage.health_of(undo, containers),
            timeout: *timeout,
        };
    }
    if has_any {
        stage.title = stage.title.replace("switch ", "put back the files of ");
    }
}

impl Restoration {
    /// Returns an empty one of a run.
    fn of_run(run: &str) -> Self {
        Self { run: run.to_owned(), ..Self::default() }
    }
}
