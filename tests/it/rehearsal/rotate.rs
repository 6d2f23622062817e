//! The whole procedure, from an expired cluster of the legacy layout to a healthy one.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use certroll::sim::Layout;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{Ended, KUBERNETES, LIMIT, Rehearsal, name, of_kind, rancher, rehearse, texts};

/// What the written procedure adds to `.tmp`, and what each file is a copy of.
const COPIES: [(&str, &str); 4] = [
    ("kube-apiserver-requestheader-ca.pem", "kube-ca.pem"),
    ("kube-apiserver-requestheader-ca-key.pem", "kube-ca-key.pem"),
    ("kube-apiserver-proxy-client.pem", "kube-apiserver.pem"),
    ("kube-apiserver-proxy-client-key.pem", "kube-apiserver-key.pem"),
];

pub(super) const GROUP: [&str; 3] = ["cp-1", "cp-2", "etcd-1"];

#[test]
fn rancher_renews_an_expired_cluster_and_certroll_does_what_rancher_leaves_out() {
    rehearse(async {
        let lab = Rehearsal::with_rancher(Layout::LegacyExpired, rancher(&["w-1", "w-3"])).await;
        lab.certroll(&["check"]).await.expect(3);
        lab.with_token(&["plan", "--via", "rancher", "--detailed-exitcode"]).await.expect(3);
        lab.is_untouched();
        let before: BTreeMap<_, _> = GROUP.map(|node| (node, lab.files(node, KUBERNETES))).into();

        let applied = lab.with_token(&["apply", "--via", "rancher", "--yes", "-o", "json"]).await.expect(0);

        let events = applied.events();
        let restarted = of_kind(&events, "step_progress")
            .into_iter()
            .filter_map(|event| {
                let container = event["message"].as_str()?.strip_prefix("restarting ")?;
                Some(format!("{} {container}", event["node"].as_str()?))
            })
            .collect::<Vec<_>>();
        assert_eq!(restarted, ["w-1 kubelet", "w-1 kube-proxy", "w-3 kubelet", "w-3 kube-proxy"]);
        let of_stale = |effect: &String| {
            effect.contains("restart container kube")
                && (effect.starts_with("w-1") || effect.starts_with("w-3"))
        };
        assert_eq!(
            lab.effects().into_iter().filter(of_stale).collect::<Vec<_>>(),
            [
                "w-1: restart container kubelet",
                "w-1: restart container kube-proxy",
                "w-3: restart container kubelet",
                "w-3: restart container kube-proxy"
            ]
        );

        has_repaired(&lab, &before);
        has_cleaned_up(&lab, &events).await;
        let check = lab.certroll(&["check", "-o", "json"]).await.expect(0).json();
        let errors = |finding: &&Value| finding["severity"] == "error";
        assert_eq!(check["findings"].as_array().unwrap().iter().find(errors), None);
        has_nothing_more_to_do(&lab).await;
    });
}

/// Expects the four copies in every bundle, and that nothing that was there has changed before Rancher did it.
pub(super) fn has_repaired(lab: &Rehearsal, before: &BTreeMap<&str, BTreeMap<String, super::Trace>>) {
    for node in GROUP {
        let saved = lab.saved(node);
        let present = |path: &&String| !path.starts_with(".certroll");
        assert_eq!(saved.keys().filter(present).count(), before[node].len(), "{node}: the backup is whole");
        let tmp = lab.files(node, &format!("{KUBERNETES}/.tmp"));
        for (copy, original) in COPIES {
            let original = &before[node][&format!(".tmp/{original}")];
            assert_eq!(&tmp[copy], original, "{node}: {copy}");
        }
        for (path, trace) in &before[node] {
            if let Some(file) = path.strip_prefix(".tmp/") {
                assert_eq!(&tmp[file], trace, "{node}: {path}");
            }
        }
        let added = tmp.len() - before[node].keys().filter(|path| path.starts_with(".tmp/")).count();
        assert_eq!(added, COPIES.len(), "{node}");
    }
}

/// Expects private backups, no lock, and a private journal of one run.
async fn has_cleaned_up(lab: &Rehearsal, events: &[Value]) {
    assert_eq!(lab.locks(KUBERNETES), Vec::<String>::new());
    let run = events[0]["run"].as_str().unwrap();
    let script = format!(
        "cd {KUBERNETES}/.certroll && stat -c '%a %u %n' . {run} && cd {run} && stat -c '%a %u %n' *"
    );
    for node in ["cp-1", "w-1"] {
        let found = lab.root(node, &script).await;
        let files = "600 0 backup.index\n600 0 backup.sum\n600 0 backup.tar\n600 0 written\n";
        assert_eq!(found, format!("700 0 .\n700 0 {run}\n{files}"), "{node}");
    }
    let last = events.last().unwrap();
    assert_eq!(
        (&last["kind"], &last["outcome"], &last["exit_status"]),
        (&json!("run_finished"), &json!("done"), &json!(0))
    );
    for (path, _) in texts(&lab.state()) {
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700), "{}", path.display());
    }
}

/// Expects that the same command again finds nothing to do, and leaves no trace anywhere.
async fn has_nothing_more_to_do(lab: &Rehearsal) {
    let effects = lab.effects();
    lab.with_token(&["plan", "--via", "rancher", "--detailed-exitcode"]).await.expect(0);
    lab.with_token(&["apply", "--via", "rancher", "--yes"]).await.expect(0).says("Nothing to do");
    assert_eq!(lab.effects(), effects);
    let runs = lab.certroll(&["runs", "-o", "json"]).await.expect(0).json();
    assert_eq!(runs["runs"].as_array().unwrap().len(), 1);
}

#[test]
fn the_operator_rotates_while_certroll_waits() {
    rehearse(async {
        let lab = Rehearsal::start(Layout::LegacyExpired).await;
        let mut command = lab.program(&["apply", "rotate", "--via", "manual", "--yes", "-o", "json"]);
        let mut child = command.stdin(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut stdout = String::new();
        let read = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.contains(r#""kind":"waiting_for_operator""#) {
                    lab.fleet.operator_rotates().await.unwrap();
                }
                stdout.push_str(&line);
                stdout.push('\n');
            }
        };
        tokio::time::timeout(LIMIT, read).await.unwrap();
        let output = child.wait_with_output().await.unwrap();
        let ended = Ended { stdout, ..Ended::of(output) }.expect(0);

        let events = ended.events();
        let sequences: Vec<u64> = events.iter().map(|event| event["sequence"].as_u64().unwrap()).collect();
        assert_eq!(sequences, (1..=events.len() as u64).collect::<Vec<_>>());
        assert_eq!(of_kind(&events, "waiting_for_operator").len(), 1);
        let mut last = events.last().unwrap().as_object().unwrap().clone();
        let done = last["done"].as_u64().unwrap();
        assert!(done > 20 && last["run"].as_str().unwrap().len() == "20261121-190502-7f3a".len(), "{last:?}");
        last.retain(|field, _| {
            ["kind", "outcome", "failed", "not_run", "exit_status"].contains(&field.as_str())
        });
        let expected =
            json!({"kind": "run_finished", "outcome": "done", "failed": 0, "not_run": 0, "exit_status": 0});
        assert_eq!(Value::Object(last), expected);
        lab.certroll(&["check"]).await.expect(0);
        assert!(lab.fleet.node(&name("cp-1")).unwrap().is_ready());
    });
}
