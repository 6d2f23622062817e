use std::time::Duration;

use certroll::facts::{Facts, Health, Served, Thresholds, assess};
use certroll::finding::Finding;
use certroll::inventory::Inventory;
use certroll::pki::{Location, Service};
use certroll::report::check::{Check, CheckStatus, check_status, document, text};
use certroll::report::style::{Detail, Style};
use jiff::SignedDuration;

use super::cluster::{IN_TIME, Machine, THREE_DAYS_LATE, control_planes, facts, inventory, time, workers};

/// A look at a cluster, with what was noticed.
struct Look {
    inventory: Inventory,
    facts: Facts,
    findings: Vec<Finding>,
    thresholds: Thresholds,
}

impl Look {
    fn at(machines: &[Machine], now: &str) -> Self {
        Self::with(machines, now, |_| {})
    }

    fn with(machines: &[Machine], now: &str, change: impl FnOnce(&mut Facts)) -> Self {
        let inventory = inventory(machines);
        let mut facts = facts(machines, time(now));
        change(&mut facts);
        let thresholds = Thresholds { now: time(now), expiring_within: SignedDuration::from_hours(30 * 24) };
        let findings = assess(&inventory, &facts, &thresholds);
        Self { inventory, facts, findings, thresholds }
    }

    fn check(&self) -> Check<'_> {
        Check {
            inventory: &self.inventory,
            facts: &self.facts,
            findings: &self.findings,
            thresholds: self.thresholds,
            status: self.status(),
            elapsed: Duration::from_millis(1234),
        }
    }

    fn status(&self) -> CheckStatus {
        check_status(&self.facts, &self.findings, &self.thresholds)
    }
}

/// Returns a cluster with a bit of everything.
fn troubled() -> Look {
    let [first, second, third] = control_planes();
    let mut machines = vec![
        first.with_bundle_without(&["kube-admin"]),
        second.with_bundle_without(&["kube-apiserver-requestheader-ca", "kube-apiserver-proxy-client"]),
        third.with_container("kube-apiserver", "restarting", "2027-11-24T19:00:00Z"),
    ];
    let mut workers = workers(4);
    workers[0] = workers[0].clone().with_container("kubelet", "running", "2025-01-01T00:00:00Z");
    workers[1] = workers[1].clone().without_file("kube-node.pem");
    workers[3] = workers[3].clone().unreachable("10.77.1.4:22 refused the connection");
    machines.extend(workers);
    Look::with(&machines, THREE_DAYS_LATE, |facts| {
        let second = facts.nodes[1].result.as_mut().unwrap();
        let other = second.certificate(Location::Ssl, "kube-proxy").unwrap().clone();
        second.served = vec![
            Served {
                service: Service::Etcd,
                port: 2379,
                certificate: Ok(other.clone()),
                matches_disk: Some(false),
            },
            Served {
                service: Service::KubeApiserver,
                port: 6443,
                certificate: Err("no answer within 5 s".to_owned()),
                matches_disk: None,
            },
        ];
        second.health.push(Health {
            service: Service::Kubelet,
            healthy: None,
            detail: "forwarding is off".to_owned(),
        });
        let first = facts.nodes[0].result.as_mut().unwrap();
        first.served = vec![Served {
            service: Service::Etcd,
            port: 2379,
            certificate: Ok(other),
            matches_disk: Some(true),
        }];
        first.health.push(Health {
            service: Service::KubeProxy,
            healthy: Some(false),
            detail: "\u{1b}[31mHTTP 503\n".to_owned(),
        });
    })
}

#[test]
fn a_troubled_cluster_is_shown_worst_first() {
    let look = troubled();
    assert_eq!(look.status(), CheckStatus::Unseen);
    insta::assert_snapshot!(text(&look.check(), Style::PLAIN));
    let narrow = Style { width: Some(100), ..Style::PLAIN };
    let narrow = text(&look.check(), narrow);
    assert!(narrow.lines().all(|line| line.chars().count() <= 100), "{narrow}");
    insta::assert_snapshot!("troubled_at_100_columns", narrow);
}

#[test]
fn scripts_get_every_certificate_and_those_that_are_missing() {
    let look = troubled();
    let value = serde_json::to_value(document(&look.check())).unwrap();
    let second_worker = &value["nodes"][4];
    insta::assert_snapshot!("worker_json", serde_json::to_string_pretty(second_worker).unwrap());
    assert_eq!(value["version"], 1);
    assert_eq!(value["observed_at"], THREE_DAYS_LATE);
    let names = |node: usize, field: &str| -> Vec<String> {
        value["nodes"][node][field]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| {
                entry[if field == "certificates" { "name" } else { "service" }].as_str().unwrap().to_owned()
            })
            .collect()
    };
    assert_eq!(names(0, "health"), ["etcd", "kube-proxy"], "unknown health is not told as unhealthy");
    assert_eq!(names(1, "health"), ["etcd"]);
    assert_eq!(value["nodes"][0]["legacy_bundle"], "incomplete");
    assert_eq!(value["nodes"][2]["legacy_bundle"], "absent");
    let unseen = &value["nodes"][6];
    assert_eq!((&unseen["reachable"], &unseen["access"]), (&false.into(), &serde_json::Value::Null));
    assert_eq!(value["nodes"][1]["served"][1]["error"], "no answer within 5 s");
}

#[test]
fn a_healthy_cluster_says_when_its_first_certificate_ends() {
    let machines: Vec<_> = control_planes().into_iter().chain(workers(2)).collect();
    let look = Look::at(&machines, IN_TIME);
    assert_eq!(look.status(), CheckStatus::Fine);
    insta::assert_snapshot!(text(&look.check(), Style::PLAIN));
}

#[test]
fn five_hundred_nodes_fit_a_screen() {
    let mut machines: Vec<_> = control_planes().into_iter().chain(workers(500)).collect();
    machines[20] = machines[20].clone().with_container("kubelet", "exited", "2026-11-22T08:00:00Z");
    for machine in machines.iter_mut().skip(100).take(40) {
        *machine = machine.clone().without_file("kube-proxy.pem");
    }
    let look = Look::at(&machines, IN_TIME);
    assert_eq!(look.status(), CheckStatus::Worrying);
    insta::assert_snapshot!(text(&look.check(), Style { width: Some(100), ..Style::PLAIN }));
    let verbose = text(&look.check(), Style { detail: Detail::Verbose, ..Style::PLAIN });
    assert!((1..=500).all(|number| verbose.contains(&format!("w-{number} "))));
}

#[test]
fn every_certificate_is_listed_on_demand() {
    let machines = [control_planes()[0].clone()];
    let look = Look::at(&machines, THREE_DAYS_LATE);
    insta::assert_snapshot!(text(&look.check(), Style { detail: Detail::Verbose, ..Style::PLAIN }));
}

#[test]
fn an_expiring_certificate_is_worth_a_status_though_it_is_a_warning() {
    let machines: Vec<_> = control_planes().into_iter().chain(workers(1)).collect();
    let look = Look::at(&machines, "2027-11-01T00:00:00Z");
    assert_eq!(look.status(), CheckStatus::Worrying);
    assert_eq!(look.status().exit_status(), 3);
    let quiet = text(&look.check(), Style { detail: Detail::Quiet, ..Style::PLAIN });
    insta::assert_snapshot!(quiet);
}
