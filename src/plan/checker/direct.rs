//! The second opinion on a rotation that certroll carries out by itself: what is written, and what is taken away when.

use std::collections::BTreeSet;

use super::violation;
use crate::facts::Facts;
use crate::finding::Finding;
use crate::inventory::{NodeName, Role};
use crate::pki::{Class, Location, Service, class};
use crate::plan::{Action, Gate, Half, Health, NewFile, Plan, Restoration, Stage, StageName, Step};

/// Checks all rules of switches.
pub(super) fn check(plan: &Plan, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for step in plan.steps() {
        let retired = match &step.action {
            Action::Switch { files, retired, .. } => {
                findings.extend(check_files(plan, step, files));
                retired
            }
            Action::Restore { wanted, .. } => {
                findings.extend(check_restored(step, wanted));
                &wanted.retired
            }
            _ => continue,
        };
        let serving = retired.iter().find(|path| !path.contains("/var/lib/kubelet/pki/kubelet."));
        findings.extend(serving.map(|path| violation(format!("step {} would remove {path}", step.id))));
        let is_backed_up = plan
            .stage(StageName::Backup)
            .is_some_and(|backup| backup.steps.iter().any(|saved| saved.node == step.node));
        if !is_backed_up {
            findings.push(violation(format!("step {} changes files without a backup", step.id)));
        }
    }
    findings.extend(check_etcd(plan, facts));
    findings.extend(check_api_servers(plan, facts));
    findings
}

/// Files that are switched were laid aside on the same node; no CA, no service account pair, and no key that is kept is among
/// them.
fn check_files(plan: &Plan, step: &Step, files: &[NewFile]) -> Vec<Finding> {
    let staged: BTreeSet<&str> = plan
        .stage(StageName::Staging)
        .into_iter()
        .flat_map(|stage| &stage.steps)
        .filter(|staged| staged.node == step.node)
        .filter_map(|staged| match &staged.action {
            Action::LayAside { files } => Some(files),
            _ => None,
        })
        .flatten()
        .map(|file| file.path.as_str())
        .collect();
    let mut findings = Vec::new();
    for file in files {
        if !staged.contains(file.path.as_str()) {
            findings
                .push(violation(format!("step {} switches {}, which is not laid aside", step.id, file.path)));
        }
        let name = match file.half {
            Half::Certificate => format!("{}.pem", file.certificate),
            Half::Key => format!("{}-key.pem", file.certificate),
        };
        let in_place = [format!("ssl/{name}"), format!(".tmp/{name}")].contains(&file.path);
        if !in_place || class(Location::Ssl, &file.certificate) != Class::Leaf {
            findings.push(violation(format!("step {} would write to {}", step.id, file.path)));
        }
        let is_kept = plan
            .certificates
            .iter()
            .any(|certificate| certificate.name == file.certificate && certificate.keeps_key());
        if is_kept && file.half == Half::Key {
            findings
                .push(violation(format!("step {} would replace a key that is kept: {}", step.id, file.path)));
        }
    }
    findings
}

/// What comes back or goes lies below the Kubernetes directory, and not among certroll's own files; no CA goes.
fn check_restored(step: &Step, wanted: &Restoration) -> Vec<Finding> {
    let paths = wanted.files.iter().map(|file| &file.path).chain(&wanted.removed).chain(&wanted.emptied);
    let outside = paths.filter(|path| {
        let leaves = path.starts_with('/') || path.split('/').any(|part| part == ".." || part.is_empty());
        leaves || path.starts_with(".certroll")
    });
    let authorities = wanted.removed.iter().filter(|path| {
        let name = path.strip_prefix("ssl/").and_then(|name| name.strip_suffix(".pem")).unwrap_or_default();
        class(Location::Ssl, name.trim_end_matches("-key")) == Class::Ca
    });
    let wrong = outside.chain(authorities);
    wrong.map(|path| violation(format!("step {} would write to {path}", step.id))).collect()
}

/// Returns the nodes of a stage whose container of a name is restarted, in order.
fn restarting<'a>(stage: &'a Stage, container: &str) -> Vec<&'a NodeName> {
    let restarts = |step: &&Step| matches!(&step.action, Action::Switch { containers, .. } | Action::Restore { containers, .. } if containers.iter().any(|name| name == container));
    stage.steps.iter().filter(restarts).filter_map(|step| step.node.as_ref()).collect()
}

/// Returns the nodes of a role on which a component was well.
fn well(facts: &Facts, role: Role, service: Service) -> BTreeSet<&NodeName> {
    facts
        .seen()
        .filter(|(node, seen)| {
            node.has(role) && seen.health_of(service).is_some_and(|health| health.healthy == Some(true))
        })
        .map(|(node, _)| &node.name)
        .collect()
}

/// No stage takes two members at once that a quorum needs.
fn check_etcd(plan: &Plan, facts: &Facts) -> Vec<Finding> {
    let mut well = well(facts, Role::Etcd, Service::Etcd);
    let members = facts.nodes.iter().filter(|node| node.has(Role::Etcd)).count();
    let mut findings = Vec::new();
    for stage in &plan.stages {
        let nodes = restarting(stage, "etcd");
        let at_once = stage.max_unavailable.min(nodes.len());
        if at_once > 1 {
            let lost = nodes.iter().filter(|node| well.contains(**node)).count();
            if lost > 0 || well.len() > members / 2 {
                findings.push(violation(format!(
                    "stage {} would restart {at_once} etcd members at once",
                    stage.name
                )));
            }
        }
        if stage.name == StageName::Etcd {
            findings.extend(check_gates(stage, "etcd", &mut well));
        }
        well.extend(nodes);
    }
    findings
}

/// Each step of a stage that takes a component away asks all others before that are well by then.
fn check_gates<'a>(stage: &'a Stage, container: &str, well: &mut BTreeSet<&'a NodeName>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut restarts, mut waived) = (0, 0);
    for step in &stage.steps {
        let (Some(node), Action::Switch { containers, gate, .. } | Action::Restore { containers, gate, .. }) =
            (&step.node, &step.action)
        else {
            continue;
        };
        if !containers.iter().any(|name| name == container) {
            continue;
        }
        restarts += 1;
        if matches!(&step.action, Action::Restore { health: Health::NotAwaited, gate: Gate::Open, .. }) {
            waived += 1;
            continue;
        }
        let asked = match gate {
            Gate::Etcd { members } => members.as_slice(),
            Gate::ApiServers { nodes } => nodes.as_slice(),
            Gate::Open | Gate::NoQuorum { .. } => [].as_slice(),
        };
        let missing = well.iter().filter(|other| **other != node && !asked.contains(other)).count();
        if missing > 0 {
            findings.push(violation(format!(
                "step {} does not ask {missing} nodes with {container} first",
                step.id
            )));
        }
        well.insert(node);
    }
    // Where none can become healthy, none is asked; where one can, its gate stays.
    if waived > 0 && waived < restarts {
        findings.push(violation(format!(
            "stage {} asks nobody before {waived} of its {restarts} restarts of {container}",
            stage.name
        )));
    }
    findings
}

/// No stage takes two API servers at once.
fn check_api_servers(plan: &Plan, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut serving = well(facts, Role::ControlPlane, Service::KubeApiserver);
    if well(facts, Role::Etcd, Service::Etcd).len()
        <= facts.nodes.iter().filter(|node| node.has(Role::Etcd)).count() / 2
    {
        // Without etcd no API server is well, whatever it answers.
        serving.clear();
    }
    for stage in plan.stages.iter().filter(|stage| stage.name == StageName::ControlPlane) {
        findings.extend(check_gates(stage, "kube-apiserver", &mut serving));
    }
    let control_plane = facts.nodes.iter().filter(|node| node.has(Role::ControlPlane)).count();
    let at_once = |stage: &&Stage| {
        control_plane > 1 && stage.max_unavailable > 1 && !restarting(stage, "kube-apiserver").is_empty()
    };
    let stages = plan.stages.iter().filter(at_once);
    findings.extend(
        stages.map(|stage| {
            violation(format!("stage {} would restart several API servers at once", stage.name))
        }),
    );
    findings
}
