//! The planner against clusters as the real rke left them: what is planned, and what forbids it.
#![expect(clippy::unwrap_used, reason = "a case that is not as it should be fails its test")]

use std::fmt::Write as _;
use std::time::Duration;

use certroll::facts::{Facts, NodeFacts, Unseen};
use certroll::inventory::{MaxUnavailable, NodeName, Role};
use certroll::plan::{Action, LeftOut, Plan, Policy, Procedure, Renewal, Via, basis, check, moved, plan};
use jiff::SignedDuration;

use crate::golden::Golden;

const LEGACY: &str = "rke-v0.1.17";
const MODERN: &str = "rke-v0.2.8";

fn policy(golden: &Golden, procedure: Procedure) -> Policy {
    Policy {
        procedure,
        via: Some(Via::Manual),
        services: Vec::new(),
        renew_within: SignedDuration::from_hours(24 * 90),
        renewal: Renewal::WhereNeeded,
        max_unavailable_worker: MaxUnavailable::DEFAULT,
        selected: None,
        rancher: None,
        wait: Duration::from_secs(3600),
        health_timeout: certroll::plan::HEALTH_TIMEOUT,
        direct: None,
        rke: None,
        break_lock: None,
        majority: certroll::plan::Majority::Needed,
        now: golden.now,
    }
}

/// Makes a plan, and holds it against the checker.
fn planned(golden: &Golden, facts: &Facts, policy: &Policy) -> Plan {
    let made = plan(&golden.inventory, facts, policy);
    assert_eq!(check(&made, facts), [], "the checker finds nothing in any plan that the planner makes");
    assert_eq!(made, plan(&golden.inventory, facts, policy), "planning twice gives the same plan");
    made
}

fn repair(golden: &Golden) -> Plan {
    planned(golden, &golden.facts(), &policy(golden, Procedure::Repair))
}

/// Tells a plan in short lines.
fn outline(plan: &Plan) -> String {
    let mut text = String::new();
    for stage in &plan.stages {
        let _ = writeln!(text, "{} (at most {})", stage.name, stage.max_unavailable);
        for step in &stage.steps {
            let node = step.node.as_ref().map_or("-", NodeName::as_str);
            let _ = writeln!(text, "  {node}: {}", action(&step.action));
        }
    }
    for (word, findings) in [("blocker", &plan.blockers), ("finding", &plan.findings)] {
        for finding in findings {
            let node = finding.node.as_ref().map(|node| format!("{node}: ")).unwrap_or_default();
            let _ = writeln!(text, "{word} {} {node}{}", finding.code, finding.message);
        }
    }
    text
}

fn action(action: &Action) -> String {
    match action {
        Action::CopyFiles { folder, copies } => {
            let copies: Vec<String> =
                copies.iter().map(|copy| format!("{} < {}", copy.destination, copy.source)).collect();
            format!("copy ({folder:?})\n    {}", copies.join("\n    ").replace("/etc/kubernetes/", ""))
        }
        Action::BringFiles { from, copies, .. } => {
            let names: Vec<&str> =
                copies.iter().map(|copy| copy.destination.rsplit('/').next().unwrap()).collect();
            format!("bring from {from}: {}", names.join(" "))
        }
        Action::AddKubeAdmin { source, .. } => format!("add kube-admin: {source:?}"),
        Action::Confirm { before, .. } => format!("confirm {} certificates", before.len()),
        Action::Verify { before, .. } => format!("verify {} certificates", before.len()),
        Action::RotateByOperator { before, .. } => format!("operator rotates {} certificates", before.len()),
        Action::Restart { containers, guard, .. } => {
            format!("restart {} {guard:?}", containers.join(" ")).chars().take(80).collect()
        }
        other => format!("{other:?}"),
    }
}

fn is_copy_of_the_authority(path: &str) -> bool {
    path.starts_with(".tmp/") && (path.contains("requestheader") || path.contains("proxy-client"))
}

const CONTROL_PLANE: [&str; 3] = ["n1", "n2", "n3"];

#[test]
fn a_legacy_bundle_that_is_whole_needs_nothing() {
    let golden = Golden::read(LEGACY);
    let plan = repair(&golden);
    assert!(!plan.has_work(), "{}", outline(&plan));
    assert_eq!(plan.blockers, []);
}

#[test]
fn the_four_written_copies_complete_a_bundle_from_before_rke_0_1_9() {
    let golden = Golden::read(LEGACY).without(&CONTROL_PLANE, is_copy_of_the_authority);
    insta::assert_snapshot!(outline(&repair(&golden)));
}

#[test]
fn a_missing_folder_is_filled_from_ssl_with_one_kube_admin_pair() {
    let golden = Golden::read(LEGACY).without(&CONTROL_PLANE, |path| path.starts_with(".tmp/"));
    insta::assert_snapshot!(outline(&repair(&golden)));
}

#[test]
fn a_pair_that_one_node_has_is_brought_from_there() {
    let golden = Golden::read(LEGACY).without(&["n2", "n3"], |path| path.starts_with(".tmp/"));
    let plan = repair(&golden);
    let admins: Vec<String> =
        plan.steps().map(|step| action(&step.action)).filter(|text| text.contains("kube-admin:")).collect();
    assert_eq!(admins.len(), 2, "{}", outline(&plan));
    assert!(admins.iter().all(|text| text.contains("Node { node: NodeName(\"n1\")")), "{admins:?}");
}

#[test]
fn a_healthy_newer_cluster_gets_no_bundle() {
    let golden = Golden::read(MODERN);
    let plan = repair(&golden);
    assert!(!plan.has_work());
    assert_eq!(
        plan.findings.iter().map(|finding| finding.code.as_str()).collect::<Vec<_>>(),
        ["bundle-not-needed"]
    );
    let rotate = planned(&golden, &golden.facts(), &policy(&golden, Procedure::Rotate));
    assert!(!rotate.has_work(), "{}", outline(&rotate));
}

#[test]
fn an_expired_newer_cluster_gets_its_bundle_by_name_alone() {
    let golden = Golden::read(MODERN).days_later(3651);
    let plan = repair(&golden);
    assert!(plan.has_work(), "{}", outline(&plan));
    let rotate = plan_of(&golden, Procedure::Rotate);
    assert!(
        rotate.stage(certroll::plan::StageName::Repair).is_none(),
        "rotate repairs only where the layout is old"
    );
}

fn plan_of(golden: &Golden, procedure: Procedure) -> Plan {
    planned(golden, &golden.facts(), &policy(golden, procedure))
}

#[test]
fn an_expired_legacy_cluster_is_repaired_rotated_and_its_workers_restarted() {
    let golden = Golden::read(LEGACY).without(&CONTROL_PLANE, is_copy_of_the_authority).days_later(368);
    insta::assert_snapshot!(outline(&plan_of(&golden, Procedure::Rotate)));
}

#[test]
fn another_authority_in_any_bundle_forbids_everything() {
    let golden = Golden::read(LEGACY).with_file(
        "n2",
        ".tmp/kube-ca.pem",
        ("n1", "ssl/kube-apiserver-requestheader-ca.pem"),
    );
    let plan = repair(&golden);
    let codes: Vec<&str> = plan.blockers.iter().map(|finding| finding.code.as_str()).collect();
    assert!(codes.contains(&"ca-differs"), "{codes:?}");
    assert!(codes.contains(&"bundle-pair-mismatched"), "{codes:?}");
}

#[test]
fn half_a_kube_admin_pair_is_not_completed_with_another_half() {
    let golden = Golden::read(LEGACY).without(&["n1"], |path| path == ".tmp/kube-admin-key.pem");
    let codes: Vec<String> = repair(&golden).blockers.into_iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["bundle-pair-incomplete"]);
}

#[test]
fn a_copy_one_folder_too_deep_does_not_count() {
    let golden = Golden::read(LEGACY).without(&["n1"], |path| path.starts_with(".tmp/")).with_file(
        "n1",
        ".tmp/ssl/kube-ca.pem",
        ("n1", "ssl/kube-ca.pem"),
    );
    let facts = golden.facts();
    let node = facts.nodes.first().unwrap();
    let bundle = certroll::facts::bundle_of(&golden.inventory, node, node.observation().unwrap());
    assert_eq!(bundle.map(certroll::facts::Bundle::as_str), Some("nested"));
    assert!(repair(&golden).has_work());
}

/// An etcd member that is nothing else has no key of the CA, and no pair of the API server (domain: hole 2).
#[test]
fn an_etcd_node_is_given_what_its_ssl_never_holds() {
    let mut golden = Golden::read(LEGACY).without(&["n3"], |path| {
        path.starts_with(".tmp/")
            || ["ca-key", "apiserver", "controller-manager", "scheduler"]
                .iter()
                .any(|part| path.contains(part))
    });
    golden.inventory.nodes.get_mut(2).unwrap().roles = vec![Role::Etcd];
    let plan = repair(&golden);
    assert_eq!(plan.blockers, [], "{}", outline(&plan));
    assert!(
        plan.findings.iter().any(|finding| finding.code == "gains-ca-key"),
        "the plan names who gains the CA's key"
    );
    insta::assert_snapshot!(outline(&plan));
}

#[test]
fn a_bundle_file_that_holds_nothing_is_a_blocker() {
    let golden = Golden::read(LEGACY);
    let mut facts = golden.facts();
    let Ok(seen) = &mut facts.nodes[0].result else { panic!("n1 was seen") };
    let file =
        seen.files.iter_mut().find(|file| file.path.ends_with("/.tmp/kube-scheduler-key.pem")).unwrap();
    file.size = 0;
    let plan = planned(&golden, &facts, &policy(&golden, Procedure::Repair));
    let codes: Vec<&str> = plan.blockers.iter().map(|finding| finding.code.as_str()).collect();
    assert_eq!(codes, ["bundle-file-unreadable"]);
}

/// rke gives up on a bundle without a kubecfg file; a cluster's nodes hold the same ones.
#[test]
fn a_kubecfg_file_comes_from_the_node_that_has_it() {
    let golden = Golden::read(LEGACY)
        .without(&["n1"], |path| path.ends_with("kubecfg-kube-scheduler.yaml"))
        .without(&["n2"], |path| path == ".tmp/kubecfg-kube-scheduler.yaml");
    let plan = repair(&golden);
    assert_eq!(plan.blockers, [], "{}", outline(&plan));
    let brought = plan.steps().any(|step| {
        matches!(&step.action, Action::BringFiles { copies, .. } if copies.iter().any(|copy| copy.destination.ends_with("/.tmp/kubecfg-kube-scheduler.yaml")))
            && step.node.as_ref().is_some_and(|node| node.as_str() == "n1")
    });
    assert!(brought, "{}", outline(&plan));
}

/// An agent that cannot connect restarts for ever, under a new name each time.
#[test]
fn a_new_pod_of_the_rancher_agent_moves_nothing() {
    let golden = Golden::read(LEGACY).days_later(368);
    let with_agent = |name: &str| {
        let mut facts = golden.facts();
        let Ok(seen) = &mut facts.nodes[3].result else { panic!("n4 was seen") };
        let mut agent = seen.container("kubelet").unwrap().clone();
        agent.name = format!("k8s_agent_cattle-node-agent-{name}");
        seen.containers.push(agent);
        basis(&golden.inventory, &facts)
    };
    assert_eq!(
        moved(&with_agent("abcde_cattle-system_1_0"), &with_agent("abcde_cattle-system_1_7")),
        [""; 0]
    );
}

#[test]
fn workers_that_a_selection_leaves_out_are_named_where_something_is_rotated() {
    let golden = Golden::read(MODERN);
    let mut policy = policy(&golden, Procedure::Rotate);
    policy.selected = Some(["n1", "n2", "n3"].map(NodeName::new).into());
    let healthy = planned(&golden, &golden.facts(), &policy);
    let left_out = |plan: &Plan| -> Vec<String> {
        let found = plan.findings.iter().filter(|finding| finding.code == "worker-left-out");
        found.filter_map(|finding| finding.node.as_ref()).map(ToString::to_string).collect()
    };
    assert_eq!(left_out(&healthy), [""; 0]);
    policy.renewal = Renewal::All;
    let forced = planned(&golden, &golden.facts(), &policy);
    assert_eq!(left_out(&forced), ["n4", "n5"], "a rotation gives them files that they do not use");
    assert_eq!(forced.not_handled, [], "who says `-n` has asked for it: that is no failure");
}

/// `repair` plans nothing where `-n` says no, and the checker has nothing to say.
#[test]
fn a_selection_of_workers_is_refused_without_a_defect() {
    let golden = Golden::read(LEGACY).without(&CONTROL_PLANE, is_copy_of_the_authority).days_later(368);
    let mut policy = policy(&golden, Procedure::Rotate);
    policy.selected = Some([NodeName::new("n4")].into());
    let plan = planned(&golden, &golden.facts(), &policy);
    assert!(plan.blockers.iter().any(|finding| finding.code == "selection-splits-cluster"));
}

fn unreachable(node: &NodeFacts) -> NodeFacts {
    let unseen = Unseen::fault(false, "10.77.0.14:22 refused the connection".to_owned(), None);
    NodeFacts { result: Err(unseen), ..node.clone() }
}

#[test]
fn a_worker_that_is_away_is_named_and_the_rest_is_done() {
    let golden = Golden::read(LEGACY).days_later(368);
    let mut facts = golden.facts();
    facts.nodes[3] = unreachable(&facts.nodes[3]);
    let plan = planned(&golden, &facts, &policy(&golden, Procedure::Rotate));
    assert_eq!(plan.blockers, []);
    assert_eq!(plan.not_handled.iter().map(|node| node.node.as_str()).collect::<Vec<_>>(), ["n4"]);
    assert!(plan.steps().all(|step| step.node.as_ref().is_none_or(|node| node.as_str() != "n4")));
}

#[test]
fn a_worker_that_runs_windows_is_named_and_is_no_failure() {
    let golden = Golden::read(LEGACY).days_later(368);
    let mut facts = golden.facts();
    facts.nodes[3].result = Err(Unseen::windows("its SSH server is `SSH-2.0-OpenSSH_for_Windows_8.1`"));
    let plan = planned(&golden, &facts, &policy(&golden, Procedure::Rotate));
    assert_eq!(plan.blockers, []);
    assert!(!plan.misses_nodes(), "nothing is to be done later");
    let [left_out] = plan.not_handled.as_slice() else { panic!("{:?}", plan.not_handled) };
    assert_eq!((left_out.node.as_str(), left_out.left_out), ("n4", LeftOut::ForGood));
    assert!(left_out.reason.contains("runs Windows"), "{}", left_out.reason);
    assert!(plan.steps().all(|step| step.node.as_ref().is_none_or(|node| node.as_str() != "n4")));
}

#[test]
fn a_control_plane_node_that_is_away_forbids_a_rotation() {
    let golden = Golden::read(LEGACY).days_later(368);
    let mut facts = golden.facts();
    facts.nodes[0] = unreachable(&facts.nodes[0]);
    let plan = planned(&golden, &facts, &policy(&golden, Procedure::Rotate));
    assert_eq!(
        plan.blockers.iter().map(|finding| finding.code.as_str()).collect::<Vec<_>>(),
        ["control-plane-unreachable"]
    );
}

#[test]
fn a_selection_that_splits_the_control_plane_is_refused() {
    let golden = Golden::read(LEGACY).days_later(368);
    let mut policy = policy(&golden, Procedure::Rotate);
    policy.selected = Some(["n1", "n4"].map(NodeName::new).into());
    let plan = planned(&golden, &golden.facts(), &policy);
    assert!(plan.blockers.iter().any(|finding| finding.code == "selection-splits-cluster"));
}

#[test]
fn a_plan_survives_its_file() {
    let golden = Golden::read(LEGACY).without(&CONTROL_PLANE, is_copy_of_the_authority).days_later(368);
    let plan = plan_of(&golden, Procedure::Rotate);
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    assert!(!text.contains("PRIVATE KEY"));
}

/// Nothing is restarted onto a certificate that has ended (design: "Nothing is restarted onto files that are expired").
#[test]
fn a_restart_onto_an_expired_certificate_is_refused() {
    let golden = Golden::read(LEGACY).days_later(368);
    let mut policy = policy(&golden, Procedure::Restart);
    policy.renewal = Renewal::All;
    let plan = planned(&golden, &golden.facts(), &policy);
    let blocked: Vec<&str> = plan.blockers.iter().map(|finding| finding.code.as_str()).collect();
    assert_eq!(blocked, ["certificate-unusable"; 5]);
}
