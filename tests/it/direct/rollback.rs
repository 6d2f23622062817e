//! The planner of a rollback: what comes back, in which order, and what forbids it.

use std::collections::BTreeSet;

use certroll::facts::backup::{
    Attributes, Backups, KeptObject, NodeBackup, PresentFile, SavedFile, Sum, Trace,
};
use certroll::facts::{Content, Facts, Observation, Unseen};
use certroll::inventory::NodeName;
use certroll::pki::{Fingerprint, Location};
use certroll::plan::{
    Action, Gate, Health, Majority, Objections, Plan, Policy, Procedure, RancherFiles, Renewal, Undoing,
    UndoneRun, check, rollback,
};

use super::{MODERN, healthy, planned, policy};
use crate::golden::Golden;

/// A rotation of everything that came to its end, on the cluster that rke 0.2.8 left, and what lies there since.
struct Case {
    golden: Golden,
    facts: Facts,
    run: UndoneRun,
    backups: Backups,
    policy: Policy,
}

impl Case {
    fn new() -> Self {
        let golden = Golden::read(MODERN);
        let facts = healthy(&golden);
        let everything = Policy { renewal: Renewal::All, ..policy(&golden) };
        let plan = planned(&golden.inventory, &facts, &everything);
        let steps: BTreeSet<_> = plan.steps().map(|step| step.id.clone()).collect();
        let backups =
            facts.seen().map(|(node, seen)| (node.name.clone(), Ok(backup(&plan, &node.name, seen))));
        let backups = backups.collect();
        let run = UndoneRun {
            name: "20261121-190502-7f3a".to_owned(),
            is_taken_back: false,
            plan,
            began: steps.clone(),
            done: steps,
            later: Vec::new(),
        };
        let policy = Policy { procedure: Procedure::Rollback, via: None, direct: None, ..everything };
        Self { golden, facts, run, backups, policy }
    }

    fn plan(&self, objections: Objections) -> Plan {
        let undoing = Undoing {
            run: &self.run,
            backups: &self.backups,
            bastion: &[],
            objections,
            rancher_files: RancherFiles::Left,
        };
        let made = rollback(&self.golden.inventory, &self.facts, &self.policy, &undoing);
        assert_eq!(check(&made, &self.facts), [], "the checker finds nothing");
        assert_eq!(made, rollback(&self.golden.inventory, &self.facts, &self.policy, &undoing));
        made
    }

    fn backup(&mut self, node: &str) -> &mut NodeBackup {
        self.backups.get_mut(&NodeName::new(node)).unwrap().as_mut().unwrap()
    }

    fn unreach(&mut self, node: &str) {
        let unseen = Unseen::fault(false, "no answer".to_owned(), None);
        self.backups.insert(NodeName::new(node), Err(unseen.clone()));
        let found = self.facts.nodes.iter_mut().find(|found| found.name.as_str() == node).unwrap();
        found.result = Err(unseen);
    }

    /// Returns a node that only works.
    fn worker(&self) -> String {
        self.facts.nodes.iter().find(|node| node.is_worker_only()).unwrap().name.to_string()
    }

    fn member(&self) -> String {
        self.facts.nodes.iter().find(|node| !node.is_worker_only()).unwrap().name.to_string()
    }
}

/// Returns what a node holds after a run that has switched its files: all of them were saved, and each is what the run left.
fn backup(plan: &Plan, name: &NodeName, seen: &Observation) -> NodeBackup {
    let attributes = Attributes { mode: 0o600, user_id: 0, group_id: 0 };
    let switched: BTreeSet<String> = plan
        .steps()
        .filter(|step| step.node.as_ref() == Some(name))
        .filter_map(|step| match &step.action {
            Action::Switch { files, .. } => Some(files.iter().map(|file| file.path.clone())),
            _ => None,
        })
        .flatten()
        .collect();
    let mut found = NodeBackup { has_archive: true, ..NodeBackup::default() };
    found.folders.insert("ssl".to_owned(), Attributes { mode: 0o755, ..attributes });
    for file in seen.files.iter().filter(|file| file.location == Location::Ssl) {
        let path = format!("ssl/{}", file.file_name);
        let is_same = !switched.contains(&path);
        let certificate = match &file.content {
            Content::Certificate(Ok(certificate)) if !is_same => Some(certificate.clone()),
            _ => None,
        };
        let sum = Sum { checksum: 7, bytes: file.size };
        found.saved.insert(path.clone(), SavedFile { attributes, is_same, certificate });
        found.present.insert(path.clone(), PresentFile { attributes, sum: Some(sum) });
        found.written.entry(path).or_default().push(Trace::File(sum));
    }
    found
}

/// Returns a plan's steps that put something in place: stage, node, containers and gate.
fn turns(plan: &Plan) -> Vec<(String, Option<NodeName>, Vec<String>, Gate)> {
    let turn = |(stage, step): (&str, &certroll::plan::Step)| match &step.action {
        Action::Switch { containers, gate, .. } | Action::Restore { containers, gate, .. } => {
            Some((stage.to_owned(), step.node.clone(), containers.clone(), gate.clone()))
        }
        _ => None,
    };
    let steps =
        plan.stages.iter().flat_map(|stage| stage.steps.iter().map(|step| (stage.name.as_str(), step)));
    steps.filter_map(turn).collect()
}

fn codes(findings: &[certroll::finding::Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.code.as_str()).collect()
}

#[test]
fn the_way_back_is_that_of_the_run_behind_the_same_gates() {
    let case = Case::new();
    let plan = case.plan(Objections::Respected);
    assert_eq!(codes(&plan.blockers), [""; 0]);
    assert_eq!(turns(&plan), turns(&case.run.plan));
    assert_eq!(plan.undoes.as_deref(), Some("20261121-190502-7f3a"));
    assert_eq!(plan.ca_keys.len(), 1, "the gates ask as an administrator");
    let switched = case.run.plan.steps().filter_map(|step| match &step.action {
        Action::Switch { files, .. } => Some(files.len()),
        _ => None,
    });
    let restored = plan.steps().filter_map(|step| match &step.action {
        Action::Restore { wanted, .. } => Some(wanted.count()),
        _ => None,
    });
    assert_eq!(switched.sum::<usize>(), restored.sum::<usize>());
}

#[test]
fn what_the_run_did_not_begin_is_not_taken_back() {
    let mut case = Case::new();
    let worker = NodeName::new(case.worker());
    case.run.began.retain(|step| !step.0.contains(worker.as_str()));
    let plan = case.plan(Objections::Respected);
    assert!(plan.steps().all(|step| step.node.as_ref() != Some(&worker)));
    case.run.began.clear();
    assert!(!case.plan(Objections::Respected).has_work());
}

#[test]
fn objections_forbid_it_unless_they_are_overruled() {
    let case = |change: fn(&mut NodeBackup)| {
        let mut case = Case::new();
        let worker = case.worker();
        change(case.backup(&worker));
        case
    };
    let others = |backup: &mut NodeBackup| {
        backup.present.get_mut("ssl/kube-node.pem").unwrap().sum = Some(Sum { checksum: 1, bytes: 1 });
    };
    let lost = |backup: &mut NodeBackup| *backup = NodeBackup::default();
    for (case, code) in [(case(others), "changed-since"), (case(lost), "backup-missing")] {
        assert_eq!(codes(&case.plan(Objections::Respected).blockers), [code]);
        let forced = case.plan(Objections::Overruled);
        assert_eq!(codes(&forced.blockers), [""; 0]);
        assert!(codes(&forced.findings).contains(&code), "it is named all the same");
        let gates: Vec<Gate> = turns(&forced).into_iter().map(|(.., gate)| gate).collect();
        assert!(gates.iter().any(|gate| *gate != Gate::Open), "the cluster stays as safe as before");
    }
}

#[test]
fn leaves_that_have_expired_come_back_only_by_force_and_then_nothing_waits_for_health() {
    let mut case = Case::new();
    case.policy.now += jiff::SignedDuration::from_hours(24 * 365 * 30);
    let plan = case.plan(Objections::Respected);
    assert!(codes(&plan.blockers).contains(&"backup-expired"), "{:?}", plan.blockers);
    let forced = case.plan(Objections::Overruled);
    assert!(!codes(&forced.blockers).contains(&"backup-expired"));
    for step in forced.steps() {
        if let Action::Restore { gate, health, .. } = &step.action {
            assert_eq!((gate, *health), (&Gate::Open, Health::NotAwaited));
        }
    }
}

#[test]
fn one_expired_leaf_of_a_worker_leaves_all_gates_in_place() {
    let mut case = Case::new();
    let worker = case.worker();
    case.policy.now += jiff::SignedDuration::from_hours(24 * 365 * 30);
    let nodes: Vec<String> = case.backups.keys().map(ToString::to_string).collect();
    for node in nodes {
        for (path, saved) in &mut case.backup(&node).saved {
            if node != worker || path != "ssl/kube-proxy.pem" {
                saved.certificate = None;
            }
        }
    }
    let forced = case.plan(Objections::Overruled);
    assert_eq!(turns(&forced), turns(&case.run.plan), "behind the same gates");
    for step in forced.steps() {
        if let Action::Restore { containers, health, .. } = &step.action {
            let is_of_worker = step.node.as_ref().is_some_and(|node| node.as_str() == worker);
            let expected = if is_of_worker { Health::NotAwaited } else { Health::Awaited };
            assert_eq!(*health, expected, "{:?} {containers:?}", step.node);
        }
    }
}

#[test]
fn a_control_plane_node_that_is_not_seen_forbids_it_and_a_worker_follows_later() {
    let mut case = Case::new();
    let worker = case.worker();
    case.unreach(&worker);
    let plan = case.plan(Objections::Respected);
    assert_eq!(codes(&plan.blockers), [""; 0]);
    assert_eq!(plan.not_handled.len(), 1);
    assert_eq!(plan.not_handled[0].hint, "certroll rollback 20261121-190502-7f3a");

    let mut case = Case::new();
    let member = case.member();
    case.unreach(&member);
    for objections in [Objections::Respected, Objections::Overruled] {
        assert!(codes(&case.plan(objections).blockers).contains(&"control-plane-unreachable"));
    }
    case.policy.majority = Majority::Waived;
    assert!(!codes(&case.plan(Objections::Respected).blockers).contains(&"control-plane-unreachable"));
}

#[test]
fn a_run_of_another_ca_is_refused_whatever_is_said() {
    let mut case = Case::new();
    case.run.plan.kube_ca = Some(Fingerprint::of(b"another"));
    for objections in [Objections::Respected, Objections::Overruled] {
        assert_eq!(codes(&case.plan(objections).blockers), ["run-of-another-ca"]);
    }
}

#[test]
fn later_runs_are_named_where_they_have_changed_the_same_files() {
    let mut case = Case::new();
    let worker = case.worker();
    case.backup(&worker).present.get_mut("ssl/kube-node.pem").unwrap().sum = None;
    case.run.later = vec!["20261122-010203-abcd".to_owned()];
    let plan = case.plan(Objections::Respected);
    assert!(plan.blockers[0].hint.as_ref().unwrap().contains("20261122-010203-abcd"));
}

#[test]
fn only_nodes_that_kept_what_the_api_held_are_believed_and_only_about_the_runs_own_certificates() {
    let mut case = Case::new();
    let keep = |file_name: &str, kept_at| KeptObject { file_name: file_name.to_owned(), kept_at };
    let (member, worker) = (case.member(), case.worker());
    let names = ["full-cluster-state.json", "secret-kube-node.json", "secret-kube-ca.json"];
    case.backup(&member).objects = names.map(|name| keep(name, 20)).into();
    case.backup(&worker).objects = names.map(|name| keep(name, 10)).into();
    let plan = case.plan(Objections::Respected);
    let kept: Vec<(String, &str)> = plan
        .steps()
        .filter_map(|step| match &step.action {
            Action::RestoreClusterState { kept, .. } => Some(kept),
            _ => None,
        })
        .flatten()
        .map(|kept| (kept.node.to_string(), kept.file_name.as_str()))
        .collect();
    assert_eq!(kept, [(member.clone(), names[0]), (member, names[1])]);
}
