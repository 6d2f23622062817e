//! The planner of `--via direct`, against clusters as the real rke left them: what is made, in which order it is switched, and what
//! forbids it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a case that is not as it should be fails its test"
)]

mod order;
mod rancher;
mod rollback;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use certroll::facts::{BastionFiles, Content, Facts, Health, NodeFacts, Observation};
use certroll::finding::Finding;
use certroll::inventory::{Inventory, MaxUnavailable, NodeName, Role};
use certroll::pki::{KeyKind, Location, PublicPrefix, Service};
use certroll::plan::{
    Action, AfterDirect, CertificateSource, CustomCertificates, Direct, Gate, KeySource, KubeletServing,
    Plan, Policy, Procedure, Renewal, StageName, Via, check, plan,
};
use jiff::SignedDuration;

use crate::golden::Golden;

const LEGACY: &str = "rke-v0.1.17";
const MODERN: &str = "rke-v0.2.8";

fn direct() -> Direct {
    Direct {
        validity: SignedDuration::from_hours(24 * 3650),
        kubelet_serving: KubeletServing::Kept,
        custom: CustomCertificates::Refused,
        after: AfterDirect::Nothing,
        bastion: BastionFiles::default(),
    }
}

fn policy(golden: &Golden) -> Policy {
    Policy {
        procedure: Procedure::Rotate,
        via: Some(Via::Direct),
        services: Vec::new(),
        renew_within: SignedDuration::from_hours(24 * 90),
        renewal: Renewal::WhereNeeded,
        max_unavailable_worker: MaxUnavailable::DEFAULT,
        selected: None,
        rancher: None,
        wait: Duration::from_mins(20),
        health_timeout: certroll::plan::HEALTH_TIMEOUT,
        direct: Some(direct()),
        rke: None,
        break_lock: None,
        majority: certroll::plan::Majority::Needed,
        now: golden.now,
    }
}

/// Makes a plan, and holds it against the checker.
fn planned(inventory: &Inventory, facts: &Facts, policy: &Policy) -> Plan {
    let made = plan(inventory, facts, policy);
    assert_eq!(check(&made, facts), [], "the checker finds nothing in any plan that the planner makes");
    assert_eq!(made, plan(inventory, facts, policy), "planning twice gives the same plan");
    made
}

/// Says of each component whether it is well.
fn with_health(mut facts: Facts, well: impl Fn(&NodeFacts, Service) -> bool) -> Facts {
    for node in &mut facts.nodes {
        let mut services = vec![Service::Kubelet, Service::KubeProxy];
        if node.has(Role::ControlPlane) {
            services.extend([Service::KubeApiserver, Service::KubeControllerManager, Service::KubeScheduler]);
        }
        if node.has(Role::Etcd) {
            services.push(Service::Etcd);
        }
        let health = services.iter().map(|service| Health {
            service: *service,
            healthy: Some(well(node, *service)),
            detail: "asked".to_owned(),
        });
        let health = health.collect();
        if let Ok(seen) = &mut node.result {
            seen.health = health;
        }
    }
    facts
}

fn healthy(golden: &Golden) -> Facts {
    with_health(golden.facts(), |_, _| true)
}

/// Certificates have expired: etcd has no quorum, no API server answers; kubelet and kube-proxy go on saying that they are well.
fn expired(golden: &Golden) -> Facts {
    with_health(golden.facts(), |_, service| matches!(service, Service::Kubelet | Service::KubeProxy))
}

fn change<'a>(facts: &'a mut Facts, node: &str) -> &'a mut Observation {
    let found = facts.nodes.iter_mut().find(|found| found.name.as_str() == node).unwrap();
    found.result.as_mut().unwrap()
}

/// Tells a plan in short lines.
fn outline(plan: &Plan) -> String {
    let mut text = String::new();
    for ca_key in &plan.ca_keys {
        let _ = writeln!(text, "{} signs, its key is read from {}", ca_key.authority.name(), ca_key.node);
    }
    for certificate in &plan.certificates {
        let source = match &certificate.source {
            CertificateSource::Made { leaf, key, not_after } => {
                let key = match key {
                    KeySource::Made { algorithm } => format!("new {algorithm} key"),
                    KeySource::Kept { .. } => "keeps its key".to_owned(),
                };
                format!("{key}, until {}, {} names", not_after.strftime("%F"), leaf.sans.len())
            }
            CertificateSource::Node { node, .. } => format!("copy of the pair on {node}"),
        };
        let _ = writeln!(text, "{}: {source}", certificate.name);
    }
    for stage in &plan.stages {
        let _ = writeln!(text, "{} (at most {}): {}", stage.name, stage.max_unavailable, stage.title);
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
        Action::LayAside { files } => {
            let names: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
            format!("lay aside {}", names.join(" "))
        }
        Action::Switch { files, retired, containers, gate, .. } => {
            let gate = match gate {
                Gate::Open => String::new(),
                Gate::Etcd { members } => format!(" while etcd is well on {members:?}"),
                Gate::NoQuorum { .. } => " while no member is healthy".to_owned(),
                Gate::ApiServers { nodes } => format!(" while API servers answer on {nodes:?}"),
            };
            format!("switch {} files, retire {}, restart {containers:?}{gate}", files.len(), retired.len())
                .replace("NodeName", "")
        }
        Action::UpdateClusterState { names, .. } => format!("write {} names into the API", names.len()),
        Action::Verify { before, .. } => format!("verify {} certificates", before.len()),
        Action::Prove { names, .. } => format!("prove {} pairs", names.len()),
        Action::Restart { containers, .. } => format!("restart {} if needed", containers.join(" ")),
        other => format!("{other:?}"),
    }
}

fn codes(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.code.as_str()).collect()
}

#[test]
fn a_healthy_cluster_has_nothing_to_do() {
    let golden = Golden::read(MODERN);
    let plan = planned(&golden.inventory, &healthy(&golden), &policy(&golden));
    assert!(!plan.has_work(), "{}", outline(&plan));
    assert_eq!(plan.certificates, []);
}

#[test]
fn a_forced_rotation_goes_one_member_and_one_api_server_at_a_time() {
    let golden = Golden::read(MODERN);
    let policy = Policy { renewal: Renewal::All, ..policy(&golden) };
    insta::assert_snapshot!(outline(&planned(&golden.inventory, &healthy(&golden), &policy)));
}

/// Every leaf past its date, and the service account tokens signed with kube-apiserver's own key.
#[test]
fn an_expired_legacy_cluster_gets_its_quorum_back_first() {
    let golden = Golden::read(LEGACY).days_later(368);
    insta::assert_snapshot!(outline(&planned(&golden.inventory, &expired(&golden), &policy(&golden))));
}

#[test]
fn one_service_restarts_its_own_component_alone() {
    let golden = Golden::read(MODERN);
    let policy = Policy { renewal: Renewal::All, services: vec![Service::KubeScheduler], ..policy(&golden) };
    let plan = planned(&golden.inventory, &healthy(&golden), &policy);
    let names: Vec<&str> = plan.certificates.iter().map(|certificate| certificate.name.as_str()).collect();
    assert_eq!(names, ["kube-scheduler"]);
    let restarted: BTreeSet<String> = plan
        .steps()
        .filter_map(|step| match &step.action {
            Action::Switch { containers, .. } => Some(containers.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(restarted, BTreeSet::from(["kube-scheduler".to_owned()]), "{}", outline(&plan));
}

/// API servers show kube-node to etcd: they load it once, at their start.
#[test]
fn a_new_kubelet_certificate_restarts_the_api_servers_too() {
    let golden = Golden::read(MODERN);
    let policy = Policy { renewal: Renewal::All, services: vec![Service::Kubelet], ..policy(&golden) };
    let plan = planned(&golden.inventory, &healthy(&golden), &policy);
    let control_plane = plan.stage(StageName::ControlPlane).unwrap();
    for step in &control_plane.steps {
        let Action::Switch { containers, .. } = &step.action else { panic!("{step:?}") };
        assert_eq!(containers.as_slice(), ["kube-apiserver", "kubelet"]);
    }
}

/// After a run that stopped half way, or a worker that was away, the good pair is spread: a new one would restart everything.
#[test]
fn a_node_that_lacks_a_pair_gets_the_one_that_the_others_have() {
    let golden = Golden::read(MODERN).without(&["n4"], |path| path.contains("kube-node"));
    let plan = planned(&golden.inventory, &healthy(&golden), &policy(&golden));
    let node = plan.certificates.iter().find(|certificate| certificate.name == "kube-node").unwrap();
    assert!(
        matches!(&node.source, CertificateSource::Node { node, .. } if node.as_str() == "n1"),
        "{node:?}"
    );
    let switched: Vec<&NodeName> = plan
        .steps()
        .filter(|step| matches!(step.action, Action::Switch { .. }))
        .filter_map(|step| step.node.as_ref())
        .collect();
    assert_eq!(switched, [&NodeName::new("n4")], "{}", outline(&plan));
}

/// The nodes have their new pairs, and rke's state may not: the pairs are read back, and nothing is restarted again.
#[test]
fn a_run_that_broke_off_has_its_state_written() {
    let golden = Golden::read(MODERN);
    let mut facts = healthy(&golden);
    change(&mut facts, "n3").unfinished_runs.push("20261121-190502-7f3a".to_owned());
    let plan = planned(&golden.inventory, &facts, &policy(&golden));
    let stages: Vec<StageName> = plan.stages.iter().map(|stage| stage.name).collect();
    assert_eq!(stages, [StageName::Preflight, StageName::State, StageName::Verify], "{}", outline(&plan));
    let made: Vec<&str> =
        plan.certificates.iter().filter(|new| new.leaf().is_some()).map(|new| new.name.as_str()).collect();
    assert_eq!(made, ["kube-admin"], "no node holds it");
    assert!(codes(&plan.findings).contains(&"unfinished-run"));
}

/// `--service` on an expired cluster would switch files and then find that nothing can come back.
#[test]
fn a_service_alone_is_refused_where_others_have_expired() {
    let golden = Golden::read(LEGACY).days_later(368);
    let policy = Policy { services: vec![Service::KubeApiserver], ..policy(&golden) };
    let plan = planned(&golden.inventory, &expired(&golden), &policy);
    assert!(codes(&plan.blockers).contains(&"service-leaves-expired"), "{}", outline(&plan));
}

#[test]
fn requestheader_authorities_that_differ_forbid_the_plan() {
    let golden = Golden::read(MODERN).with_file(
        "n2",
        "ssl/kube-apiserver-requestheader-ca.pem",
        ("n2", "ssl/kube-scheduler.pem"),
    );
    let policy = Policy { renewal: Renewal::All, ..policy(&golden) };
    let plan = planned(&golden.inventory, &healthy(&golden), &policy);
    let differs = plan.blockers.iter().find(|blocker| blocker.code == "ca-differs");
    let differs = differs.unwrap_or_else(|| panic!("{}", outline(&plan)));
    assert_eq!(differs.node.as_ref().unwrap().as_str(), "n2");
}

/// An API server whose container checks tokens with its own key keeps that key, whatever files lie beside it.
#[test]
fn the_key_that_checks_tokens_is_told_by_the_container() {
    let golden = Golden::read(MODERN);
    let keeps = |file: &str| {
        let mut facts = healthy(&golden);
        for node in ["n1", "n2", "n3"] {
            change(&mut facts, node).service_account_key_file = Some(format!("/etc/kubernetes/ssl/{file}"));
        }
        let policy = Policy { renewal: Renewal::All, ..policy(&golden) };
        let plan = planned(&golden.inventory, &facts, &policy);
        let found = plan.certificates.iter().find(|new| new.name == "kube-apiserver").unwrap();
        found.keeps_key()
    };
    assert!(keeps("kube-apiserver-key.pem"));
    assert!(!keeps("kube-service-account-token-key.pem"));
}

/// A component that started before its files were written is restarted, although nothing is due any more.
#[test]
fn a_switch_without_its_restart_is_made_good() {
    let golden = Golden::read(MODERN);
    let mut facts = healthy(&golden);
    for file in &mut change(&mut facts, "n2").files {
        if file.file_name.starts_with("kube-scheduler") {
            file.modified_at = "2026-11-21T19:50:00Z".parse().unwrap();
        }
    }
    let plan = planned(&golden.inventory, &facts, &policy(&golden));
    let switches: Vec<String> = plan
        .steps()
        .filter(|step| matches!(step.action, Action::Switch { .. }))
        .map(|step| action(&step.action))
        .collect();
    assert_eq!(switches, ["switch 0 files, retire 0, restart [\"kube-scheduler\"]"]);
}

#[test]
fn the_kubelets_own_serving_pair_is_renewed_where_it_is_asked_for() {
    let golden = Golden::read(MODERN).days_later(360);
    let mut policy = policy(&golden);
    assert!(!planned(&golden.inventory, &healthy(&golden), &policy).has_work());
    policy.direct.as_mut().unwrap().kubelet_serving = KubeletServing::Renewed;
    let plan = planned(&golden.inventory, &healthy(&golden), &policy);
    let switches: Vec<String> = plan
        .steps()
        .filter(|step| matches!(step.action, Action::Switch { .. }))
        .map(|step| action(&step.action))
        .collect();
    assert_eq!(switches.len(), 5, "{}", outline(&plan));
    assert!(switches.iter().all(|text| text.contains("retire 1, restart [\"kubelet\"]")), "{switches:?}");
}

/// A way to make a node's files unfit.
type Spoil = fn(&mut Observation);

/// What must forbid the plan, and whose fault it is.
#[test]
fn a_ca_that_cannot_sign_forbids_everything() {
    let cases: [(&str, Spoil); 7] = [
        ("ca-key-unusable", |seen| {
            seen.files.retain(|file| file.path != "/etc/kubernetes/ssl/kube-ca-key.pem");
        }),
        ("ca-key-unusable", |seen| key_of_ca(seen, KeyKind::Encrypted)),
        ("ca-key-unusable", |seen| key_of_ca(seen, KeyKind::NotAKey)),
        ("ca-key-unusable", |seen| key_of_ca(seen, KeyKind::Pkcs1)),
        ("ca-key-unusable", |seen| {
            let other =
                seen.file(Location::Ssl, "kube-apiserver-requestheader-ca-key.pem").unwrap().content.clone();
            file(seen, "kube-ca-key.pem").content = other;
        }),
        ("ca-unreadable", |seen| {
            file(seen, "kube-ca.pem").content =
                Content::Certificate(Err(certroll::pki::CertificateError::NotPem));
        }),
        ("ca-unreadable", |seen| file(seen, "kube-ca.pem").certificates = 2),
    ];
    let golden = Golden::read(LEGACY).days_later(368);
    for (number, (code, spoil)) in cases.into_iter().enumerate() {
        let mut facts = expired(&golden);
        spoil(change(&mut facts, "n2"));
        let plan = planned(&golden.inventory, &facts, &policy(&golden));
        let found = plan.blockers.iter().find(|blocker| blocker.code == code);
        let found = found.unwrap_or_else(|| panic!("case {number}: {}", outline(&plan)));
        assert_eq!(found.node.as_ref().map(NodeName::as_str), Some("n2"), "case {number}");
        assert!(found.hint.is_some(), "case {number}");
    }
}

fn file<'a>(seen: &'a mut Observation, name: &str) -> &'a mut certroll::facts::File {
    seen.files.iter_mut().find(|file| file.location == Location::Ssl && file.file_name == name).unwrap()
}

fn key_of_ca(seen: &mut Observation, kind: KeyKind) {
    file(seen, "kube-ca-key.pem").content = Content::Key(PublicPrefix::Unknown { kind });
}

#[test]
fn an_authority_that_ends_soon_forbids_everything() {
    let golden = Golden::read(MODERN).days_later(3600);
    let plan = planned(&golden.inventory, &healthy(&golden), &policy(&golden));
    assert!(codes(&plan.blockers).contains(&"ca-expiring"), "{}", outline(&plan));
}

#[test]
fn a_certificate_that_outlives_its_authority_is_cut() {
    let golden = Golden::read(MODERN).days_later(400);
    let policy = Policy { renewal: Renewal::All, ..policy(&golden) };
    let facts = healthy(&golden);
    let plan = planned(&golden.inventory, &facts, &policy);
    let end = facts.kube_ca().unwrap().not_after;
    for certificate in &plan.certificates {
        let CertificateSource::Made { not_after, .. } = &certificate.source else { continue };
        assert!(*not_after <= end, "{}", certificate.name);
    }
    assert!(codes(&plan.findings).contains(&"validity-cut-by-ca"), "{}", outline(&plan));
}

#[test]
fn a_certificate_of_another_authority_is_left_alone_unless_told() {
    let golden = Golden::read(MODERN).with_file(
        "n3",
        "ssl/kube-scheduler.pem",
        ("n3", "ssl/kube-apiserver-requestheader-ca.pem"),
    );
    let mut policy = Policy { renewal: Renewal::All, ..policy(&golden) };
    let refused = planned(&golden.inventory, &healthy(&golden), &policy);
    assert_eq!(codes(&refused.blockers), ["custom-certificate"]);
    policy.direct.as_mut().unwrap().custom = CustomCertificates::Replaced;
    assert_eq!(planned(&golden.inventory, &healthy(&golden), &policy).blockers, []);
}

#[test]
fn a_clock_outside_the_new_validity_forbids_the_plan() {
    let golden = Golden::read(MODERN);
    let mut facts = healthy(&golden);
    change(&mut facts, "n5").clock_skew_seconds = -3600 * 24 * 400;
    let policy = Policy { renewal: Renewal::All, ..policy(&golden) };
    let plan = planned(&golden.inventory, &facts, &policy);
    let blocker = plan.blockers.iter().find(|blocker| blocker.code == "clock-outside-validity").unwrap();
    assert_eq!(blocker.node.as_ref().unwrap().as_str(), "n5");
}

/// One of three members is down, and nothing in the plan would bring it back: a restart of another would stop etcd.
#[test]
fn a_member_that_is_down_forbids_to_restart_another() {
    let golden = Golden::read(MODERN);
    let mut facts =
        with_health(golden.facts(), |node, service| service != Service::Etcd || node.name.as_str() != "n3");
    for file in &mut change(&mut facts, "n1").files {
        if file.file_name.starts_with("kube-etcd-10-77-0-11") {
            file.content = Content::Certificate(Err(certroll::pki::CertificateError::Empty));
        }
    }
    let plan = planned(&golden.inventory, &facts, &policy(&golden));
    assert!(codes(&plan.blockers).contains(&"etcd-member-down"), "{}", outline(&plan));
}

#[test]
fn neither_authorities_nor_the_service_account_pair_are_ever_touched() {
    for golden in [Golden::read(MODERN), Golden::read(LEGACY)] {
        let policy = Policy { renewal: Renewal::All, ..policy(&golden) };
        let plan = planned(&golden.inventory, &healthy(&golden), &policy);
        let paths: BTreeSet<&str> = plan
            .steps()
            .filter_map(|step| match &step.action {
                Action::LayAside { files } | Action::Switch { files, .. } => Some(files),
                _ => None,
            })
            .flatten()
            .map(|file| file.path.as_str())
            .collect();
        assert!(paths.contains("ssl/kube-apiserver.pem"));
        for never in ["kube-ca", "requestheader-ca", "service-account"] {
            assert!(!paths.iter().any(|path| path.contains(never)), "{never}: {paths:?}");
        }
    }
    let golden = Golden::read(LEGACY);
    let plan =
        planned(&golden.inventory, &healthy(&golden), &Policy { renewal: Renewal::All, ..policy(&golden) });
    let text = format!("{:?}", plan.stages);
    assert!(!text.contains("kube-apiserver-key.pem"), "on clusters from before rke 0.2 it signs tokens");
}
