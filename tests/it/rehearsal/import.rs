//! Imports, and states of rke beside the nodes: what was imported leads to the fleet, what differs is named.

use std::path::Path;
use std::process::Stdio;

use certroll::sim::{Layout, RkeFiles};
use serde_json::Value;

use super::direct::{BRISK, SMALL};
use super::{Ended, LIMIT, Rehearsal, rehearse};

/// Starts a cluster that the `rke` command built.
async fn built_by_rke(layout: Layout) -> Rehearsal {
    Rehearsal::of(SMALL, layout, |options| {
        options.rke_files = RkeFiles::Beside;
        options.pace = BRISK;
    })
    .await
}

/// Runs the program without any option that leads to the fleet.
async fn alone(lab: &Rehearsal, words: &[&str]) -> Ended {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_certroll"));
    command.args(words).env_clear().env("HOME", lab.folder.path()).env("USER", "operator");
    command.current_dir(lab.folder.path()).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = tokio::time::timeout(LIMIT, command.output()).await;
    Ended::of(output.unwrap_or_else(|_| panic!("{words:?} does not end")).unwrap())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn findings<'a>(document: &'a Value, code: &str) -> Vec<(&'a str, &'a str)> {
    let of_code = |finding: &&Value| finding["code"] == code;
    let shown = |finding: &'a Value| {
        (finding["node"].as_str().unwrap_or_default(), finding["message"].as_str().unwrap())
    };
    document["findings"].as_array().unwrap().iter().filter(of_code).map(shown).collect()
}

#[test]
fn a_state_of_rke_becomes_a_cluster_yml_that_leads_to_the_nodes() {
    rehearse(async {
        let lab = built_by_rke(Layout::Healthy).await;
        let paths = lab.fleet.paths();
        let state = text(paths.rkestate.as_ref().unwrap());
        alone(&lab, &["import", "rkestate", state, "--save", "new.yml"])
            .await
            .expect(0)
            .says("small: 3 nodes (1 controlplane, 1 etcd, 2 worker) in `new.yml`");
        let yaml = std::fs::read_to_string(lab.path("new.yml")).unwrap();
        assert!(!yaml.contains("PRIVATE KEY"), "{yaml}");
        alone(&lab, &["nodes", "-c", "new.yml"]).await.expect(0).shows("cp-1");
        let known_hosts = text(&paths.known_hosts);
        let check = ["check", "-c", "new.yml", "--known-hosts", known_hosts, "-o", "json"];
        let document = alone(&lab, &check).await.expect(0).json();
        assert_eq!(document["nodes"].as_array().unwrap().len(), 3);
        assert_eq!(document["cluster"], "small");

        let refused = alone(&lab, &["import", "rkestate", state, "--save", "new.yml"]).await.expect(4);
        refused.says("`new.yml` is there already; nothing was written").says("--force");
        std::fs::write(lab.path("new.yml"), "mine").unwrap();
        alone(&lab, &["import", "rkestate", state, "--save", "new.yml", "--force"]).await.expect(0);
        assert_eq!(std::fs::read_to_string(lab.path("new.yml")).unwrap(), yaml);
        let kept = std::fs::read_dir(lab.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let kept = kept.filter(|path| text(path).contains("new.yml.before-import-")).collect::<Vec<_>>();
        assert_eq!(std::fs::read_to_string(&kept[0]).unwrap(), "mine");
        lab.is_untouched();
    });
}

#[test]
fn a_state_is_checked_without_a_network() {
    rehearse(async {
        let lab = built_by_rke(Layout::Expired028).await;
        let state = lab.fleet.paths().rkestate.clone().unwrap();
        let document = alone(&lab, &["check", "--state", text(&state), "-o", "json"]).await.expect(3).json();
        assert_eq!(document["nodes"], serde_json::json!([]));
        let certificates = document["state"]["certificates"].as_array().unwrap();
        assert!(certificates.iter().all(|entry| entry["key_matches"] == true), "{certificates:#?}");
        let expired = findings(&document, "certificate-expired");
        assert_eq!(expired.len(), 1, "{expired:?}");
        assert!(expired[0].1.contains("kube-apiserver"), "{expired:?}");
        let shown = alone(&lab, &["check", "--state", text(&state)]).await.expect(3);
        shown.shows("expired 3 days ago").shows("matches");

        // The key of another certificate, and a leaf of another CA.
        let mut value: Value = serde_json::from_str(&std::fs::read_to_string(&state).unwrap()).unwrap();
        let bundle = &mut value["currentState"]["certificatesBundle"];
        bundle["kube-proxy"]["keyPEM"] = bundle["kube-node"]["keyPEM"].clone();
        let stranger = rcgen::generate_simple_self_signed(vec!["stranger".to_owned()]).unwrap();
        bundle["kube-scheduler"]["certificatePEM"] = stranger.cert.pem().into();
        bundle["kube-scheduler"]["keyPEM"] = "".into();
        std::fs::write(lab.path("other.rkestate"), value.to_string()).unwrap();
        let ended = alone(&lab, &["check", "--state", "other.rkestate", "-o", "json"]).await.expect(3);
        assert!(!ended.stdout.contains("PRIVATE KEY"));
        let document = ended.json();
        let invalid = findings(&document, "certificate-invalid");
        let says = |part: &str| invalid.iter().any(|(_, message)| message.contains(part));
        assert!(says("`kube-proxy` of the state (`currentState`) cannot be used"), "{invalid:?}");
        assert!(says("the kube-ca of the state did not sign it"), "{invalid:?}");
        let halves = findings(&document, "state-halves-differ");
        assert!(halves[0].1.contains("kube-proxy, kube-scheduler"), "{halves:?}");
        lab.is_untouched();
    });
}

#[test]
fn what_differs_between_state_and_nodes_is_named() {
    rehearse(async {
        let lab = built_by_rke(Layout::ExpiringSoon).await;
        let state = lab.fleet.paths().rkestate.clone().unwrap();
        let before = lab.path("before.rkestate");
        std::fs::copy(&state, &before).unwrap();
        let check = ["check", "--state", text(&before), "-o", "json"];
        let document = lab.certroll(&check).await.expect(3).json();
        assert_eq!(findings(&document, "state-differs"), []);

        lab.certroll(&["apply", "--via", "direct", "--yes"]).await.expect(0);
        let ended = lab.certroll(&check).await.expect(3);
        let document = ended.json();
        let differing = findings(&document, "state-differs");
        let of = |node: &str, part: &str| {
            differing.iter().any(|(on, message)| *on == node && message.contains(part))
        };
        assert!(of("w-1", "`ssl/kube-node.pem` is not the state's"), "{differing:?}");
        assert!(of("cp-1", "`ssl/kube-apiserver.pem` is not the state's"), "{differing:?}");
        assert!(of("cp-1", "; port 6443 serves that on disk"), "{differing:?}");
        assert!(!of("cp-1", "kube-ca.pem"), "{differing:?}");
        // The state that certroll wrote agrees.
        let document = lab.certroll(&["check", "--state", text(&state), "-o", "json"]).await.expect(0).json();
        assert_eq!(findings(&document, "state-differs"), []);
        assert_eq!(findings(&document, "state-halves-differ"), []);
    });
}
