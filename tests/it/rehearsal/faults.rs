//! What goes wrong in the middle: it is named, the lock is given back, and what did not run says why.

use certroll::sim::{Fault, Layout, RancherFailure, RancherOptions};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use super::{Ended, KUBERNETES, LIMIT, Rehearsal, name, of_kind, rancher, rehearse};

/// Returns what came of the steps of a stage, as `node: outcome, text`.
fn outcomes(events: &[Value], stage: &str) -> Vec<String> {
    let mut outcomes: Vec<String> = of_kind(events, "step_finished")
        .into_iter()
        .filter(|event| event["stage"] == stage)
        .map(|event| {
            let outcome = &event["outcome"];
            let text = ["error", "reason"].iter().find_map(|field| outcome[field].as_str());
            let node = event["node"].as_str().unwrap_or("-");
            format!("{node}: {} {}", outcome["outcome"].as_str().unwrap(), text.unwrap_or_default())
        })
        .map(|line| line.trim_end().to_owned())
        .collect();
    outcomes.sort();
    outcomes
}

/// An apply that waits for the operator.
pub(super) struct Waiting {
    pub(super) child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    pub(super) stdout: String,
}

impl Waiting {
    /// Starts an apply, and returns it when it asks the operator to rotate.
    pub(super) async fn start(lab: &Rehearsal, words: &[&str]) -> Self {
        let words = [&["apply", "--via", "manual", "--yes", "-o", "json"], words].concat();
        let mut child = lab.program(&words).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut waiting = Self { child, lines, stdout: String::new() };
        tokio::time::timeout(LIMIT, waiting.read_until(r#""kind":"waiting_for_operator""#)).await.unwrap();
        assert!(waiting.stdout.contains("waiting_for_operator"), "{}", waiting.stdout);
        waiting
    }

    /// Reads on until a line holds a text, or to the end.
    pub(super) async fn read_until(&mut self, text: &str) {
        while let Some(line) = self.lines.next_line().await.unwrap() {
            self.stdout.push_str(&line);
            self.stdout.push('\n');
            if line.contains(text) {
                return;
            }
        }
    }

    /// Waits until it has ended.
    pub(super) async fn end(mut self) -> Ended {
        tokio::time::timeout(LIMIT, self.read_until("\0")).await.unwrap();
        let output = tokio::time::timeout(LIMIT, self.child.wait_with_output()).await.unwrap().unwrap();
        Ended { stdout: self.stdout, ..Ended::of(output) }
    }
}

/// Sends a signal to a process of this test.
pub(super) async fn signal(child: &Child, name: &str) {
    let process = child.id().unwrap().to_string();
    let status =
        tokio::process::Command::new("/bin/sh").args(["-c", &format!("kill -{name} {process}")]).status();
    assert!(status.await.unwrap().success());
}

#[test]
fn a_worker_that_cannot_be_reached_is_named_and_the_rest_is_done() {
    rehearse(async {
        let lab = Rehearsal::with_rancher(Layout::LegacyExpired, rancher(&["w-1"])).await;
        lab.fleet.inject(&name("w-2"), Fault::Unreachable);
        lab.with_token(&["apply", "--via", "rancher", "--yes"])
            .await
            .expect(1)
            .shows("w-2")
            .shows("certroll plan restart -n w-2");
        assert_eq!(lab.locks(KUBERNETES), Vec::<String>::new());
        let effects = lab.effects();
        assert!(effects.contains(&"w-1: restart container kube-proxy".to_owned()), "{effects:#?}");
        assert!(!effects.iter().any(|effect| effect.starts_with("w-2: create")), "{effects:#?}");
        lab.fleet.mend(&name("w-2"));
    });
}

#[test]
fn a_backup_that_fails_ends_the_run_before_anything_is_changed() {
    rehearse(async {
        let lab = Rehearsal::start(Layout::LegacyExpired).await;
        let broken = Fault::CommandFails {
            pattern: "backup.tar.new".to_owned(),
            status: 2,
            stderr: "tar: Write error: No space left on device".to_owned(),
        };
        lab.fleet.inject(&name("cp-2"), broken);
        let before = lab.files("cp-1", KUBERNETES);
        let ended = lab.certroll(&["apply", "repair", "--yes", "-o", "json"]).await.expect(1);
        let events = ended.events();
        let backups = outcomes(&events, "backup");
        let failed =
            "cp-2: failed the command ended with status 2: tar: Write error: No space left on device";
        assert!(backups.iter().any(|line| line == failed), "{backups:?}");
        // The others have begun by then, or never do.
        assert_eq!(backups.iter().filter(|line| line.contains("failed ")).count(), 1, "{backups:?}");
        let reason = "not_run a step on another node or of an earlier stage failed";
        assert_eq!(
            outcomes(&events, "repair"),
            ["cp-1", "cp-2", "etcd-1"].map(|node| format!("{node}: {reason}"))
        );
        let last = events.last().unwrap();
        assert_eq!((&last["outcome"], &last["exit_status"]), (&"failed".into(), &1.into()));
        assert_eq!(lab.locks(KUBERNETES), Vec::<String>::new());
        assert_eq!(lab.files("cp-1", KUBERNETES), before);
        let runs = lab.certroll(&["runs", "-o", "json"]).await.expect(0).json();
        assert_eq!(runs["runs"][0]["outcome"], "failed");

        lab.fleet.mend(&name("cp-2"));
        // Another policy, hence another plan: two runs of one plan in the same second would have the same name.
        lab.certroll(&["apply", "repair", "--yes", "--max-unavailable", "1"]).await.expect(0);
        lab.fleet.inject(&name("cp-2"), Fault::ReadOnly);
        lab.certroll(&["plan", "--via", "manual"]).await.expect(4).shows("cannot be written to");
    });
}

#[test]
fn one_interruption_lets_steps_end_and_gives_the_lock_back() {
    rehearse(async {
        let lab = Rehearsal::start(Layout::LegacyExpired).await;
        let run = Waiting::start(&lab, &[]).await;
        signal(&run.child, "INT").await;
        let ended = run.end().await.expect(130).says("running steps end");
        let events = ended.events();
        assert_eq!(outcomes(&events, "rotate"), ["-: failed the operator stopped the run"]);
        for line in outcomes(&events, "verify") {
            assert!(line.ends_with("not_run the operator stopped the run"), "{line}");
        }
        assert_eq!(events.last().unwrap()["outcome"], "cancelled");
        assert_eq!(lab.locks(KUBERNETES), Vec::<String>::new());
    });
}

#[test]
fn a_killed_run_leaves_its_lock_and_its_journal_and_the_next_goes_on() {
    rehearse(async {
        let lab = Rehearsal::start(Layout::LegacyExpired).await;
        let mut killed = Waiting::start(&lab, &[]).await;
        killed.child.kill().await.unwrap();
        let first: Value = serde_json::from_str(killed.stdout.lines().next().unwrap()).unwrap();
        let run = first["run"].as_str().unwrap();
        assert_eq!(lab.locks(KUBERNETES), ["cp-1", "cp-2"]);
        lab.certroll(&["runs"]).await.expect(0).shows(run).shows("interrupted");
        let refused = lab.certroll(&["apply", "--via", "manual", "--yes"]).await;
        refused.expect(4).shows(&format!("--break-lock {run}"));
        for node in ["cp-1", "cp-2"] {
            super::lock::end_lease(&lab, node).await;
        }
        let next = Waiting::start(&lab, &["--break-lock", run]).await;
        lab.fleet.operator_rotates().await.unwrap();
        next.end().await.expect(0);
        assert_eq!(lab.locks(KUBERNETES), Vec::<String>::new());
        lab.certroll(&["check"]).await.expect(0);
    });
}

#[test]
fn a_rancher_that_never_begins_is_left_after_the_wait() {
    rehearse(async {
        let failing = RancherOptions { failure: Some(RancherFailure::NeverBegins), ..rancher(&[]) };
        let lab = Rehearsal::with_rancher(Layout::LegacyExpired, failing).await;
        let words = ["apply", "--via", "rancher", "--yes", "--wait", "3s"];
        lab.with_token(&words)
            .await
            .expect(1)
            .shows("Rancher is not done after 3 s; its last word: ")
            .shows("not run")
            .shows("a step on another node or of an earlier stage failed");
        assert_eq!(lab.locks(KUBERNETES), Vec::<String>::new());
    });
}

#[test]
fn a_missing_container_is_a_failure_with_its_name() {
    rehearse(async {
        let lab = Rehearsal::start(Layout::Healthy).await;
        lab.fleet.inject(&name("w-1"), Fault::ContainerMissing { container: "kube-proxy".to_owned() });
        lab.certroll(&["check"]).await.expect(3).shows("kube-proxy");
        let ended = lab.certroll(&["apply", "restart", "--yes", "-o", "json"]).await.expect(1);
        let events = ended.events();
        let failed = outcomes(&events, "workers");
        assert!(
            failed.len() == 1 && failed[0].starts_with("w-1: failed") && failed[0].contains("kube-proxy"),
            "{failed:?}"
        );
        assert_eq!(lab.locks(KUBERNETES), Vec::<String>::new());
    });
}
