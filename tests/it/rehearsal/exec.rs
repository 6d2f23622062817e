//! Commands on many nodes: what is shown of them, in each form, and how they end.

use std::process::Stdio;

use certroll::sim::{Fault, Layout};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use super::{Ended, LIMIT, Rehearsal, name, rehearse};

const FILTERS: [(&str, &str); 4] = [
    // Which of the two it is depends on what was still under way.
    (r"Connection reset by peer \(os error 104\)", "it hung up"),
    (r"127\.\d+\.\d+\.\d+:\d+", "127.7.0.1:22"),
    (r"port \d+", "port 22"),
    (r"in \d+(\.\d+)? s", "in 0.3 s"),
];

/// What a command on a node says and how it ends, which differs from node to node.
const DIFFERENT: &str = "case $(hostname) in w-1) echo odd; echo 'not mine' >&2; exit 3;; w-2) exit 7;; *) echo even; echo same;; esac";

fn shown(ended: &Ended) -> String {
    format!("exit status {}\n--- stdout\n{}--- stderr\n{}", ended.status, ended.stdout, ended.stderr)
}

/// Runs `exec` on one node after another, or the nodes' lines would come in any order.
async fn exec(lab: &Rehearsal, words: &[&str]) -> Ended {
    // Options first: what stands behind `--` is the command.
    let output =
        tokio::time::timeout(LIMIT, lab.program(&["exec", "--parallel", "1"]).args(words).output()).await;
    Ended::of(output.unwrap_or_else(|_| panic!("{words:?} does not end")).unwrap())
}

#[test]
fn lines_come_behind_the_names_of_their_nodes() {
    rehearse(async {
        let lab = Rehearsal::start(Layout::Healthy).await;
        lab.fleet.inject(&name("w-3"), Fault::Unreachable);
        let lines = exec(&lab, &["--", DIFFERENT]).await.expect(1);
        let quiet = exec(&lab, &["-q", "-n", "w-1,cp-1", "--", DIFFERENT]).await.expect(1);
        let well =
            exec(&lab, &["-n", "role=etcd", "--", "hostname", "|", "tr", "a-z", "A-Z"]).await.expect(0);
        let shown = [lines, quiet, well].iter().map(shown).collect::<Vec<String>>().join("\n");
        insta::with_settings!({ filters => FILTERS.to_vec() }, { insta::assert_snapshot!(shown) });
        lab.is_untouched();
    });
}

#[test]
fn nodes_that_print_the_same_are_folded() {
    rehearse(async {
        let lab = Rehearsal::start(Layout::Healthy).await;
        lab.fleet.inject(&name("w-3"), Fault::Unreachable);
        let folded = exec(&lab, &["--fold", "--", DIFFERENT]).await.expect(1);
        insta::with_settings!({ filters => FILTERS.to_vec() }, { insta::assert_snapshot!(shown(&folded)) });
    });
}

#[test]
fn a_program_reads_a_line_of_json_a_node() {
    rehearse(async {
        let lab = Rehearsal::start(Layout::Healthy).await;
        lab.fleet.inject(&name("w-3"), Fault::Unreachable);
        lab.fleet.inject(&name("cp-2"), Fault::DropConnection { pattern: "hostname".to_owned() });
        let ended = exec(&lab, &["-o", "json", "--", DIFFERENT]).await.expect(1);
        insta::with_settings!({ filters => FILTERS.to_vec() }, { insta::assert_snapshot!(shown(&ended)) });
        for line in ended.stdout.lines() {
            let node: Value = serde_json::from_str(line).unwrap();
            assert!(node["status"].is_null() == node["error"].is_string(), "{node}");
        }
    });
}

#[test]
fn a_command_runs_as_root_in_whatever_way_its_node_has() {
    rehearse(async {
        let lab = Rehearsal::start(Layout::Healthy).await;
        let command = ["--as-root", "--fold", "--", "id -u; exit 5"];
        let ended = exec(&lab, &command).await.expect(1);
        insta::with_settings!({ filters => FILTERS.to_vec() }, { insta::assert_snapshot!(shown(&ended)) });
    });
}

#[test]
fn what_is_piped_in_reaches_every_node() {
    rehearse(async {
        let lab = Rehearsal::start(Layout::Healthy).await;
        let mut child = lab
            .program(&["exec", "--as-root", "--fold", "--parallel", "2"])
            .args(["--", "cat"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"one\ntwo\n").await.unwrap();
        drop(stdin);
        let ended = Ended::of(child.wait_with_output().await.unwrap()).expect(0);
        assert_eq!(ended.stdout, "--- cp-[1-2],etcd-1,w-[1-3] (6 nodes)\none\ntwo\n");
    });
}
