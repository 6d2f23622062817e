//! A cluster that has no cluster.yml: imported from Rancher with the keys of its machines, and looked at.

use std::process::Stdio;

use certroll::sim::{Layout, NodeSource, RancherOptions};

use super::{Ended, Rehearsal, rehearse};

#[test]
fn what_is_imported_from_rancher_can_be_looked_at() {
    rehearse(async {
        let machines = RancherOptions { nodes: NodeSource::NodeDriver, ..RancherOptions::default() };
        let lab = Rehearsal::with_rancher(Layout::Healthy, machines).await;
        let imported = lab.path("imported.yml");
        let words = ["import", "rancher", "--rancher-cluster", "c-sim01", "--save", "imported.yml"];
        lab.with_token(&words).await.expect(0);
        let mut check = tokio::process::Command::new(env!("CARGO_BIN_EXE_certroll"));
        check.args(["check", "--read-keys", "-o", "json", "--config"]).arg(&imported);
        check.arg("--known-hosts").arg(&lab.fleet.paths().known_hosts);
        check.env_clear().env("HOME", lab.folder.path()).env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        lab.reach_rancher(&mut check);
        check.args(["--rancher-cluster", "c-sim01"]);
        let seen = Ended::of(check.output().await.unwrap()).expect(0).json();
        let nodes = seen["nodes"].as_array().unwrap();
        assert_eq!(nodes.len(), 6);
        for node in nodes {
            assert_eq!((&node["reachable"], &node["ready"]), (&true.into(), &true.into()), "{node}");
            assert_eq!(node["rancher_state"], "active", "{node}");
        }
    });
}
