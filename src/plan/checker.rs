mod direct;

use std::collections::{BTreeSet, HashSet};

use super::{Action, Plan, Stage, StageName, Via, is_control_plane_or_etcd};
use crate::facts::Facts;
use crate::finding::Finding;
use crate::inventory::NodeName;

/// Gives a second opinion on a plan, without the planner's own code: an error forbids carrying the plan out.
///
/// It holds the plan against the rules that keep a cluster alive: no file of a node is replaced that is not laid aside there, none
/// is added or replaced without a backup, rke writes to none on the bastion that is not kept, nothing is planned on a node that was not seen, control plane nodes are restarted
/// one at a time, and etcd keeps its quorum.
pub fn check(plan: &Plan, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(check_order(plan));
    findings.extend(check_nodes(plan, facts));
    findings.extend(check_files(plan, facts));
    findings.extend(check_bastion_files(plan));
    findings.extend(plan.stages.iter().flat_map(|stage| check_batch(stage, facts)));
    findings.extend(direct::check(plan, facts));
    findings
}

/// Returns an error of the checker.
fn violation(message: String) -> Finding {
    Finding::error("plan-violates-rule", message)
        .hint("this is a defect of certroll: please report it with the plan")
}

/// Stages come in their fixed order, each once, and step names are unique.
fn check_order(plan: &Plan) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !plan.stages.is_sorted_by(|left, right| place_in(plan, left.name) < place_in(plan, right.name)) {
        findings.push(violation("the stages are not in order".to_owned()));
    }
    let mut seen = BTreeSet::new();
    for step in plan.steps() {
        if !seen.insert(&step.id) {
            findings.push(violation(format!("two steps are named {}", step.id)));
        }
    }
    findings
}

/// The stages of a rotation that certroll carries out by itself: Rancher, where it rotates too, does so at the end.
const DIRECT_ORDER: [StageName; 13] = [
    StageName::Preflight,
    StageName::Backup,
    StageName::Repair,
    StageName::Staging,
    StageName::EtcdQuorum,
    StageName::Etcd,
    StageName::ControlPlane,
    StageName::Workers,
    StageName::State,
    StageName::Rotate,
    StageName::Confirm,
    StageName::Agents,
    StageName::Verify,
];

/// Returns the place of a stage in the order of a plan.
fn place_in(plan: &Plan, name: StageName) -> usize {
    match plan.via {
        Some(Via::Direct) => DIRECT_ORDER.iter().position(|other| *other == name).unwrap_or(usize::MAX),
        _ => name as usize,
    }
}

/// Every step's node was seen.
fn check_nodes(plan: &Plan, facts: &Facts) -> Vec<Finding> {
    let seen: HashSet<&NodeName> = facts.seen().map(|(node, _)| &node.name).collect();
    let unseen = plan.steps().filter(|step| step.node.as_ref().is_some_and(|name| !seen.contains(name)));
    unseen.map(|step| violation(format!("step {} is on a node that was not seen", step.id))).collect()
}

/// Files are added to `.tmp` alone, never over a file that is there, from sources that exist, after a backup.
fn check_files(plan: &Plan, facts: &Facts) -> Vec<Finding> {
    let backed_up: BTreeSet<&NodeName> =
        plan.stage(StageName::Backup).map(Stage::nodes).into_iter().flatten().collect();
    let mut findings = Vec::new();
    for step in plan.steps() {
        let Some(node) = &step.node else { continue };
        let (source_node, copies) = match &step.action {
            Action::CopyFiles { copies, .. } => (node, copies.as_slice()),
            Action::BringFiles { from, copies, .. } => (from, copies.as_slice()),
            Action::AddKubeAdmin { .. } => (node, [].as_slice()),
            _ => continue,
        };
        if !backed_up.contains(node) {
            findings.push(violation(format!("step {} adds files without a backup", step.id)));
        }
        for copy in copies {
            if !is_in_bundle(facts, node, &copy.destination) || has_file(facts, node, &copy.destination) {
                findings.push(violation(format!("step {} would write to {}", step.id, copy.destination)));
            }
            if !has_file(facts, source_node, &copy.source) {
                findings
                    .push(violation(format!("step {} copies {}, which is not there", step.id, copy.source)));
            }
        }
    }
    findings
}

/// What rke writes on the bastion is kept before: its state holds the only copy of keys.
fn check_bastion_files(plan: &Plan) -> Vec<Finding> {
    let mut kept: BTreeSet<&String> = BTreeSet::new();
    let mut findings = Vec::new();
    for step in plan.steps() {
        match &step.action {
            Action::KeepBastionFiles { paths } => kept.extend(paths),
            Action::RotateByRke { files, .. } => {
                let lost = files.iter().filter(|path| !kept.contains(path));
                findings.extend(lost.map(|path| {
                    violation(format!("step {} has rke write to {path}, which is not kept", step.id))
                }));
            }
            _ => {}
        }
    }
    findings
}

/// Returns whether a path is that of a file right in a node's `.tmp`.
fn is_in_bundle(facts: &Facts, node: &NodeName, path: &str) -> bool {
    let Some(seen) = facts.node(node).and_then(|node| node.observation()) else { return false };
    let name = path.strip_prefix(&seen.tmp_directory()).and_then(|rest| rest.strip_prefix('/'));
    name.is_some_and(|name| !name.is_empty() && name != ".." && !name.contains('/'))
}

/// Returns whether a path was seen on a node.
fn has_file(facts: &Facts, node: &NodeName, path: &str) -> bool {
    let seen = facts.node(node).and_then(|node| node.observation());
    seen.is_some_and(|seen| seen.files.iter().any(|file| file.path == path))
}

/// Restarts on etcd and control plane nodes go one node at a time.
fn check_batch(stage: &Stage, facts: &Facts) -> Vec<Finding> {
    if stage.max_unavailable == 1 {
        return Vec::new();
    }
    let group = facts.nodes.iter().filter(|node| is_control_plane_or_etcd(&node.roles));
    let group: HashSet<&NodeName> = group.map(|node| &node.name).collect();
    let restarts = stage.steps.iter().filter(|step| matches!(step.action, Action::Restart { .. }));
    restarts
        .filter(|step| step.node.as_ref().is_some_and(|name| group.contains(name)))
        .map(|step| {
            violation(format!(
                "step {} would restart control plane nodes {} at a time",
                step.id, stage.max_unavailable
            ))
        })
        .collect()
}
