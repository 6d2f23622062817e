use std::time::Duration;

use certroll::facts::{BastionFiles, Facts, Health};
use certroll::inventory::{Inventory, NodeName, Role};
use certroll::pki::Service;
use certroll::plan::{
    AfterDirect, CustomCertificates, Direct, KubeletServing, Plan, Policy, Procedure, RancherNodeState,
    RancherTarget, Renewal, RotationOffer, Via, check, plan,
};
use certroll::report::review::{Review, document, markdown, text};
use certroll::report::style::{Detail, Style};
use jiff::SignedDuration;

use super::cluster::{IN_TIME, Machine, THREE_DAYS_LATE, control_planes, facts, inventory, time, workers};

/// A plan with what it was made from.
struct Planned {
    inventory: Inventory,
    facts: Facts,
    plan: Plan,
}

impl Planned {
    fn new(machines: &[Machine], policy: &Policy) -> Self {
        let inventory = inventory(machines);
        let facts = facts(machines, policy.now - SignedDuration::from_secs(51));
        let plan = plan(&inventory, &facts, policy);
        assert_eq!(check(&plan, &facts), [], "the checker agrees with the planner");
        Self { inventory, facts, plan }
    }

    fn review(&self) -> Review<'_> {
        Review { plan: &self.plan, facts: &self.facts, next: Some("`certroll apply --plan prod.plan`") }
    }

    fn text(&self) -> String {
        text(&self.review(), Style::PLAIN)
    }
}

fn policy(procedure: Procedure, via: Option<Via>, now: &str) -> Policy {
    Policy {
        procedure,
        via,
        services: Vec::new(),
        renew_within: SignedDuration::from_hours(90 * 24),
        renewal: Renewal::WhereNeeded,
        max_unavailable_worker: certroll::inventory::MaxUnavailable::DEFAULT,
        selected: None,
        rancher: (via == Some(Via::Rancher)).then(rancher),
        wait: Duration::from_secs(1200),
        health_timeout: certroll::plan::HEALTH_TIMEOUT,
        direct: None,
        rke: None,
        break_lock: None,
        majority: certroll::plan::Majority::Needed,
        now: time(now),
    }
}

fn rancher() -> RancherTarget {
    let known =
        |name: &str, state: &str| RancherNodeState { names: vec![name.to_owned()], state: state.to_owned() };
    let mut nodes = vec![known("w-1", "unavailable")];
    nodes.extend(["cp-1", "cp-2", "cp-3", "etcd-1"].map(|name| known(name, "active")));
    RancherTarget {
        url: "https://rancher.example.net".to_owned(),
        version: "v2.2.8".to_owned(),
        cluster_id: "c-x7k2p".to_owned(),
        rotation: RotationOffer::Offered,
        state: "active".to_owned(),
        work: certroll::plan::RancherWork::None,
        nodes,
        agent_check_interval: Duration::from_secs(120),
    }
}

const REQUESTHEADER: [&str; 3] =
    ["kube-admin", "kube-apiserver-requestheader-ca", "kube-apiserver-proxy-client"];

/// Returns a cluster whose legacy bundles are in three different states, launched by Rancher.
fn legacy_cluster() -> Vec<Machine> {
    let [first, second, third] = control_planes().map(|machine| {
        REQUESTHEADER[1..].iter().fold(machine, |machine, name| {
            machine
                .without_file(&format!("{name}.pem"))
                .without_file(&format!("{name}-key.pem"))
                .without_file(&format!("kubecfg-{name}.yaml"))
        })
    });
    let mut machines =
        vec![first.with_bundle_without(&REQUESTHEADER), second.with_bundle_without(&REQUESTHEADER), third];
    let agent = |number| format!("k8s_agent_cattle-node-agent-{number}_cattle-system");
    machines.extend(
        workers(4).into_iter().enumerate().map(|(number, machine)| {
            machine.with_container(&agent(number), "running", "2026-11-22T08:00:00Z")
        }),
    );
    let last = machines.len() - 1;
    machines[last] = machines[last].clone().unreachable("10.77.1.4:22 refused the connection");
    machines
}

#[test]
fn a_rotation_via_rancher_is_shown_stage_by_stage() {
    let planned =
        Planned::new(&legacy_cluster(), &policy(Procedure::Rotate, Some(Via::Rancher), THREE_DAYS_LATE));
    insta::assert_snapshot!(planned.text());
    insta::assert_snapshot!(
        "rotation_at_100_columns",
        text(&planned.review(), Style { width: Some(100), ..Style::PLAIN })
    );
    insta::assert_snapshot!("rotation_markdown", markdown(&planned.review()));
}

#[test]
fn every_command_is_shown_on_demand_and_to_scripts() {
    let machines = [control_planes()[0].clone().with_bundle_without(&["kube-apiserver-proxy-client"])];
    let planned = Planned::new(&machines, &policy(Procedure::Rotate, Some(Via::Rancher), THREE_DAYS_LATE));
    insta::assert_snapshot!(text(&planned.review(), Style { detail: Detail::Verbose, ..Style::PLAIN }));
    let value = serde_json::to_value(document(&planned.review())).unwrap();
    let call = value["stages"]
        .as_array()
        .unwrap()
        .iter()
        .find(|stage| stage["name"] == "rotate")
        .map(|stage| &stage["steps"][0])
        .unwrap();
    assert_eq!(call["action"]["kind"], "rotate_by_rancher");
    assert_eq!(call["node"], serde_json::Value::Null);
    assert_eq!(
        call["commands"][0],
        r#"POST https://rancher.example.net/v3/clusters/c-x7k2p?action=rotateCertificates {"caCertificates":false,"services":""}"#
    );
    for key in [
        "version",
        "id",
        "cluster",
        "procedure",
        "via",
        "services",
        "created_at",
        "fingerprint",
        "stages",
        "blockers",
        "findings",
    ] {
        assert!(value.get(key).is_some(), "{key} is promised");
    }
}

#[test]
fn a_rotation_by_hand_says_what_the_operator_does() {
    let planned =
        Planned::new(&control_planes(), &policy(Procedure::Rotate, Some(Via::Manual), THREE_DAYS_LATE));
    insta::assert_snapshot!(planned.text());
}

/// A day on which the certificates end within 90 days.
const SOON: &str = "2027-10-01T12:00:00Z";

fn direct_policy() -> Policy {
    let bastion = BastionFiles {
        kube_config_path: Some("/srv/prod/kube_config_cluster.yml".into()),
        ..BastionFiles::default()
    };
    let direct = Direct {
        validity: SignedDuration::from_hours(3650 * 24),
        kubelet_serving: KubeletServing::Kept,
        custom: CustomCertificates::Refused,
        after: AfterDirect::Nothing,
        bastion,
    };
    Policy { direct: Some(direct), ..policy(Procedure::Rotate, Some(Via::Direct), SOON) }
}

/// Returns a plan of `--via direct` for a cluster whose components are well or not.
fn direct(machines: &[Machine], well: bool) -> Planned {
    let policy = direct_policy();
    let inventory = inventory(machines);
    let mut facts = facts(machines, policy.now - SignedDuration::from_secs(51));
    for node in &mut facts.nodes {
        let services = [(Role::ControlPlane, Service::KubeApiserver), (Role::Etcd, Service::Etcd)];
        let services = services.into_iter().filter(|(role, _)| node.has(*role));
        let health = services
            .map(|(_, service)| Health { service, healthy: Some(well), detail: "asked".to_owned() })
            .collect();
        node.result.as_mut().unwrap().health = health;
    }
    let plan = plan(&inventory, &facts, &policy);
    assert_eq!(check(&plan, &facts), [], "the checker agrees with the planner");
    Planned { inventory, facts, plan }
}

#[test]
fn a_rotation_with_the_own_ca_shows_certificates_switches_and_gates() {
    let machines: Vec<_> = control_planes().into_iter().chain(workers(4)).collect();
    let planned = direct(&machines, true);
    insta::assert_snapshot!(planned.text());
    let narrow = Style { width: Some(100), ..Style::PLAIN };
    insta::assert_snapshot!("direct_at_100_columns", text(&planned.review(), narrow));
    insta::assert_snapshot!(
        "direct_in_quiet",
        text(&planned.review(), Style { detail: Detail::Quiet, ..narrow })
    );
    let markdown = markdown(&planned.review());
    let (before, rest) = markdown.split_once("### backup").unwrap();
    let (_, way_back) = rest.split_once("## How").unwrap();
    insta::assert_snapshot!("direct_markdown", format!("{before}[...]\n\n## How{way_back}"));
}

#[test]
fn a_rotation_with_the_own_ca_tells_scripts_what_is_made() {
    let machines: Vec<_> = control_planes().into_iter().chain(workers(1)).collect();
    let value = serde_json::to_value(document(&direct(&machines, true).review())).unwrap();
    let certificates = value["certificates"].as_array().unwrap();
    let found = |name: &str| certificates.iter().find(|found| found["name"] == name).unwrap();
    insta::assert_json_snapshot!([found("kube-node"), found("kube-apiserver"), &value["ca_keys"][0]]);
    assert!(!value.to_string().contains("PRIVATE KEY"));
}

#[test]
fn a_rotation_without_a_quorum_says_that_the_api_is_away() {
    insta::assert_snapshot!(direct(&control_planes(), false).text());
}

#[test]
fn a_rotation_of_a_single_node_shows_every_command() {
    let planned = direct(&control_planes()[..1], true);
    insta::assert_snapshot!(text(&planned.review(), Style { detail: Detail::Verbose, ..Style::PLAIN }));
}

#[test]
fn blockers_stand_in_front() {
    let [first, second, third] = control_planes();
    let machines = [first, second, third.unreachable("no route to host")];
    let planned = Planned::new(&machines, &policy(Procedure::Rotate, Some(Via::Manual), THREE_DAYS_LATE));
    insta::assert_snapshot!(planned.text());
    assert!(!markdown(&planned.review()).contains("Next:"));
}

#[test]
fn a_node_that_gains_the_key_of_the_ca_is_named_where_it_happens() {
    let [first, second, _] = control_planes();
    let machines = [first, second, Machine::etcd("etcd-1", "10.77.0.13")];
    let planned = Planned::new(&machines, &policy(Procedure::Rotate, Some(Via::Rancher), THREE_DAYS_LATE));
    insta::assert_snapshot!(planned.text());
    assert!(
        markdown(&planned.review())
            .contains("- [ ] The nodes that gain the private key of kube-ca may hold it.")
    );
}

#[test]
fn restarts_of_many_workers_are_folded() {
    let mut machines: Vec<_> = control_planes().into_iter().chain(workers(40)).collect();
    for machine in machines.iter_mut().skip(10) {
        *machine = machine.clone().with_container("kubelet", "running", "2025-01-01T00:00:00Z");
    }
    let planned = Planned::new(&machines, &policy(Procedure::Restart, None, IN_TIME));
    insta::assert_snapshot!(planned.text());
    insta::assert_snapshot!(
        "restart_markdown_way_back",
        markdown(&planned.review()).split("## How").nth(1).unwrap()
    );
}

#[test]
fn nothing_to_do_is_said_for_each_procedure() {
    let machines: Vec<_> = control_planes().into_iter().chain(workers(2)).collect();
    let screens: Vec<String> = [(Procedure::Rotate, Some(Via::Manual)), (Procedure::Restart, None)]
        .map(|(procedure, via)| Planned::new(&machines, &policy(procedure, via, IN_TIME)).text())
        .into();
    insta::assert_snapshot!(screens.join("\n--------\n\n"));
}

#[test]
fn words_of_nodes_cannot_reach_the_terminal() {
    let mut planned =
        Planned::new(&control_planes(), &policy(Procedure::Rotate, Some(Via::Manual), THREE_DAYS_LATE));
    planned.plan.stages[0].title = "\u{1b}]0;owned\u{7}".to_owned();
    planned.plan.not_handled.push(certroll::plan::NotHandled {
        node: NodeName::new("w-9\r"),
        reason: "said \u{1b}[2J".to_owned(),
        hint: "certroll plan restart".to_owned(),
        left_out: certroll::plan::LeftOut::ForNow,
    });
    for style in [Style::PLAIN, Style { detail: Detail::Verbose, ..Style::PLAIN }] {
        let text = text(&planned.review(), style) + &markdown(&planned.review());
        assert!(text.chars().all(|character| character == '\n' || !character.is_control()));
    }
    assert_eq!(planned.inventory.cluster_name, "prod");
}
