//! The written procedure, version by version: each row of the README's table, typed as it stands there.

use certroll::sim::{Layout, RancherOptions};
use serde_json::Value;

use super::{Rehearsal, rancher, rehearse};

/// What the table of the README says in one row.
struct Row {
    title: &'static str,
    /// The command lines of the last column, without the name of the program and the file, which the rehearsal has its own of.
    commands: Vec<Vec<String>>,
}

impl Row {
    fn of(title: &'static str) -> Self {
        let rows = rows();
        let (_, cells) = rows.iter().find(|(found, _)| found == title).unwrap();
        let last = cells.last().unwrap();
        let lines = last.split('`').skip(1).step_by(2).filter_map(|code| code.strip_prefix("certroll "));
        let words =
            |line: &str| line.replace("-c prod.yml", "").split_whitespace().map(str::to_owned).collect();
        let commands: Vec<Vec<String>> = lines.map(words).collect();
        assert!(!commands.is_empty(), "no command in the row `{title}`");
        Self { title, commands }
    }

    /// Types the commands one after the other; each ends well, and so does a check that follows.
    async fn carry_out(&self, lab: &Rehearsal) {
        for command in &self.commands {
            let mut words: Vec<&str> = command.iter().map(String::as_str).collect();
            words.push("--yes");
            lab.with_token(&words).await.expect(0);
        }
        let check = lab.certroll(&["check", "-o", "json"]).await.expect(0).json();
        let is_error = |finding: &&Value| finding["severity"] == "error";
        assert_eq!(check["findings"].as_array().unwrap().iter().find(is_error), None, "{}", self.title);
    }
}

/// Returns the rows of the table: the first cell of each, and all of them.
fn rows() -> Vec<(String, Vec<String>)> {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let section = readme.split("## The written procedure, version by version").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let table = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let row = |line: &str| {
        let cells: Vec<String> =
            line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
        (cells[0].clone(), cells)
    };
    table.map(row).collect()
}

/// Makes a test of each row that is rehearsed, and the list of them.
macro_rules! rehearsed {
    ($($test:ident: $title:literal => $rehearsal:ident;)+) => {
        const REHEARSED: &[&str] = &[$($title),+];
        $(#[test]
        fn $test() {
            rehearse($rehearsal(Row::of($title)));
        })+
    };
}

rehearsed! {
    all_services: "Rancher 2.2 and later, all services" => all;
    one_service: "Rancher 2.2 and later, one service" => one;
    the_api_of_2_1: "Rancher 2.0.14, 2.1.9 and later, by API" => bodyless;
    expired_after_an_upgrade: "expired, then upgraded from 2.0.13, 2.1.8 or earlier" => three_steps;
    expired_and_not_upgraded: "expired, and still 2.0.13, 2.1.8 or earlier" => not_upgraded;
}

#[test]
fn every_row_is_rehearsed() {
    let titles: Vec<String> = rows().into_iter().map(|(title, _)| title).collect();
    assert_eq!(titles, REHEARSED);
}

fn of_version(version: &str, stale: &[&str]) -> RancherOptions {
    RancherOptions { version: version.to_owned(), ..rancher(stale) }
}

/// Returns the digest of a certificate on a node.
fn certificate(lab: &Rehearsal, node: &str, name: &str) -> String {
    let files = lab.files(node, "/etc/kubernetes/ssl");
    files[&format!("{name}.pem")].3.clone()
}

/// Expects that certroll restarted the kubelets that Rancher's agents had left alone, once each.
fn restarted_once(lab: &Rehearsal, nodes: &[&str]) {
    for node in nodes {
        let restart = format!("{node}: restart container kubelet");
        let restarts = lab.effects().into_iter().filter(|effect| *effect == restart).count();
        assert_eq!(restarts, 1, "{node}");
    }
}

async fn all(row: Row) {
    let lab = Rehearsal::with_rancher(Layout::ExpiringSoon, of_version("v2.2.8", &["w-1", "w-3"])).await;
    let before = certificate(&lab, "etcd-1", "kube-etcd-10-0-0-3");
    row.carry_out(&lab).await;
    assert_ne!(certificate(&lab, "etcd-1", "kube-etcd-10-0-0-3"), before);
    restarted_once(&lab, &["w-1", "w-2", "w-3"]);
}

async fn one(row: Row) {
    let lab = Rehearsal::with_rancher(Layout::Healthy, of_version("v2.2.8", &["w-2"])).await;
    let names = ["kube-apiserver", "kube-node"];
    let before = names.map(|name| certificate(&lab, "cp-1", name));
    row.carry_out(&lab).await;
    let after = names.map(|name| certificate(&lab, "cp-1", name));
    assert_eq!((after[0] == before[0], after[1] == before[1]), (true, false), "the kubelet's alone is new");
    restarted_once(&lab, &["w-1", "w-2", "w-3"]);
}

async fn bodyless(row: Row) {
    for version in ["v2.1.9", "v2.0.14"] {
        let lab = Rehearsal::with_rancher(Layout::LegacyExpiring, of_version(version, &["w-1"])).await;
        let key = |lab: &Rehearsal| lab.file("cp-1", "/etc/kubernetes/ssl/kube-apiserver-key.pem").unwrap();
        let (before, token_key) = (certificate(&lab, "cp-1", "kube-apiserver"), key(&lab));
        row.carry_out(&lab).await;
        assert_ne!(certificate(&lab, "cp-1", "kube-apiserver"), before, "{version}");
        assert_eq!(key(&lab), token_key, "{version}: it signs the tokens of service accounts");
        restarted_once(&lab, &["w-1"]);
    }
}

async fn three_steps(row: Row) {
    let lab = Rehearsal::with_rancher(Layout::LegacyExpired, of_version("v2.2.8", &["w-1", "w-2"])).await;
    lab.certroll(&["check"]).await.expect(3);
    row.carry_out(&lab).await;
    restarted_once(&lab, &["w-1", "w-2", "w-3"]);
}

async fn not_upgraded(row: Row) {
    let lab = Rehearsal::with_rancher(Layout::LegacyExpired, of_version("v2.1.8", &[])).await;
    lab.with_token(&["plan", "--via", "rancher"]).await.expect(4).shows("2.1.9");
    lab.is_untouched();
    row.carry_out(&lab).await;
}
