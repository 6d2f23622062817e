//! Runs that stop and go on: killed, interrupted, failed and put right; what stands is recognised, the rest is done.

use std::collections::BTreeMap;

use certroll::sim::{Fault, Layout};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use super::direct::{
    ALL, MEMBERS, SMALL, TRIO, after_etcd, certificates, kept_serving, restarts, staging_is_gone,
};
use super::{Ended, KUBERNETES, LIMIT, Rehearsal, name, of_kind, rancher, rehearse};

const APPLY: [&str; 7] = ["apply", "--via", "direct", "--force", "--yes", "-o", "json"];
const RESUME: [&str; 5] = ["apply", "--resume", "--yes", "-o", "json"];

/// A run of the program whose events are read as they come.
pub(super) struct Live {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    stdout: String,
}

impl Live {
    pub(super) fn start(mut command: tokio::process::Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, stdout: String::new() }
    }

    /// Reads on until an event that is looked for.
    pub(super) async fn until(&mut self, wanted: impl Fn(&Value) -> bool) {
        let read = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                self.stdout.push_str(&line);
                self.stdout.push('\n');
                if wanted(&serde_json::from_str(&line).unwrap()) {
                    return true;
                }
            }
            false
        };
        let found = tokio::time::timeout(LIMIT, read).await.unwrap();
        assert!(found, "the event never came\n{}", self.stdout);
    }

    /// Sends a signal.
    async fn signal(&self, name: &str) {
        let line = format!("kill -{name} {}", self.child.id().unwrap());
        let status = tokio::process::Command::new("/bin/sh").args(["-c", &line]).status();
        assert!(status.await.unwrap().success());
    }

    /// Waits until it has ended.
    pub(super) async fn end(mut self) -> Ended {
        let rest = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                self.stdout.push_str(&line);
                self.stdout.push('\n');
            }
        };
        tokio::time::timeout(LIMIT, rest).await.unwrap();
        let output = tokio::time::timeout(LIMIT, self.child.wait_with_output()).await.unwrap().unwrap();
        Ended { stdout: self.stdout, ..Ended::of(output) }
    }

    /// Kills it at once, as a loss of power does.
    async fn kill(mut self) -> String {
        self.child.kill().await.unwrap();
        let first: Value = serde_json::from_str(self.stdout.lines().next().unwrap()).unwrap();
        first["run"].as_str().unwrap().to_owned()
    }
}

/// Returns whether an event is of a kind and about a step.
pub(super) fn is(event: &Value, kind: &str, step: &str) -> bool {
    event["kind"] == kind && event["step"] == step
}

/// Returns the serial numbers of shared certificates, by node.
fn shared(lab: &Rehearsal, node: &str) -> BTreeMap<String, String> {
    certificates(lab, node).into_iter().map(|(name, certificate)| (name, certificate.serial)).collect()
}

/// Expects the state that an undisturbed rotation of the trio ends in.
async fn is_whole(lab: &Rehearsal, old: &BTreeMap<String, String>) {
    staging_is_gone(lab);
    assert_eq!(lab.locks(KUBERNETES), Vec::<String>::new());
    let never = ["kube-ca", "kube-apiserver-requestheader-ca", "kube-service-account-token"];
    let first = shared(lab, "cp-1");
    for (name, serial) in &first {
        assert_eq!(never.contains(&name.as_str()), old[name] == *serial, "{name}");
    }
    for node in ALL {
        for (name, serial) in shared(lab, node) {
            assert_eq!(first[&name], serial, "{node}: {name}");
        }
    }
    lab.certroll(&["check"]).await.expect(0);
    lab.certroll(&["plan", "--via", "direct", "--detailed-exitcode"]).await.expect(0);
}

#[test]
fn a_run_that_is_killed_in_the_middle_of_the_switches_goes_on_and_restarts_nothing_twice() {
    rehearse(async {
        let lab = Rehearsal::of(TRIO, Layout::Healthy, |_| {}).await;
        let old = shared(&lab, "cp-1");
        let mut live = Live::start(lab.program(&APPLY));
        live.until(|event| {
            is(event, "step_progress", "control-plane/cp-2/1")
                && event["message"].as_str().unwrap().contains("restarting kube-scheduler")
        })
        .await;
        let run = live.kill().await;
        assert_eq!(lab.locks(KUBERNETES), MEMBERS);
        lab.certroll(&["apply", "--resume", &run]).await.expect(4).shows(&run).says("no terminal to ask on");

        let ended = lab.certroll(&RESUME).await.expect(0);

        let events = ended.events();
        assert_eq!((&events[0]["kind"], &events[0]["attempt"]), (&"run_resumed".into(), &2.into()));
        assert!(
            events[0]["sequence"].as_u64().unwrap() > 20 && events[0]["elapsed_ms"].as_u64().unwrap() < 5000
        );
        let etcd = MEMBERS.map(|node| format!("{node} etcd")).to_vec();
        let expected: Vec<String> = [etcd, after_etcd()].concat();
        let twice: Vec<String> = restarts(&lab);
        // The one that was asked for when the process died may have been asked for once more.
        let mut once = twice.clone();
        once.dedup();
        assert_eq!(once, expected);
        kept_serving(&lab, 2, 2);
        is_whole(&lab, &old).await;
        lab.certroll(&["apply", "--resume"]).await.expect(0).says("Nothing to resume");
        lab.certroll(&["apply", "--resume", &run]).await.expect(0).says("has ended well");
    });
}

#[test]
fn keys_that_no_node_uses_are_made_anew_and_those_in_use_are_spread() {
    rehearse(async {
        for step in
            ["staging/w-2/1", "etcd/cp-1/1", "control-plane/cp-1/1", "state/cluster/1", "verify/cp-1/1"]
        {
            let lab = Rehearsal::of(TRIO, Layout::Healthy, |options| options.pace = 0.002).await;
            let old = shared(&lab, "cp-1");
            let mut live = Live::start(lab.program(&APPLY));
            live.until(|event| is(event, "step_started", step)).await;
            live.kill().await;
            lab.certroll(&RESUME).await.expect(0);
            is_whole(&lab, &old).await;
        }
    });
}

#[test]
fn two_interruptions_cut_a_run_off_and_it_goes_on() {
    rehearse(async {
        let lab = Rehearsal::of(TRIO, Layout::Healthy, |_| {}).await;
        let old = shared(&lab, "cp-1");
        let mut live = Live::start(lab.program(&APPLY));
        live.until(|event| is(event, "step_started", "etcd/cp-2/1")).await;
        live.signal("INT").await;
        live.signal("INT").await;
        let ended = live.end().await.expect(130);
        let run = ended.events()[0]["run"].as_str().unwrap().to_owned();
        if ended.stderr.contains("cut off") {
            ended.says(&format!("certroll apply --resume {run}"));
        }
        lab.certroll(&RESUME).await.expect(0);
        is_whole(&lab, &old).await;
    });
}

#[test]
fn a_run_that_lives_is_not_resumed() {
    rehearse(async {
        let lab = Rehearsal::start(Layout::LegacyExpired).await;
        let mut live = Live::start(lab.program(&["apply", "--via", "manual", "--yes", "-o", "json"]));
        live.until(|event| event["kind"] == "waiting_for_operator").await;
        let pid = live.child.id().unwrap().to_string();
        lab.certroll(&["runs"]).await.expect(0).shows("running");
        lab.certroll(&RESUME).await.expect(4).says("is still going on").says("operator@bastion").says(&pid);
        live.kill().await;
        let mut next = Live::start(lab.program(&RESUME));
        next.until(|event| event["kind"] == "waiting_for_operator").await;
        lab.fleet.operator_rotates().await.unwrap();
        next.end().await.expect(0);
        assert_eq!(lab.locks(KUBERNETES), Vec::<String>::new());
        lab.certroll(&["check"]).await.expect(0);
    });
}

#[test]
fn a_cluster_that_has_moved_on_is_named_and_nothing_is_changed() {
    rehearse(async {
        let lab = Rehearsal::of(SMALL, Layout::Healthy, |options| options.pace = 0.002).await;
        let mut live = Live::start(lab.program(&APPLY));
        live.until(|event| is(event, "step_started", "workers/w-1/1")).await;
        live.kill().await;
        lab.root("cp-1", &format!("cd {KUBERNETES}/ssl && cp kube-proxy.pem kube-scheduler.pem")).await;
        let effects = lab.effects();
        lab.certroll(&RESUME)
            .await
            .expect(4)
            .says("moved on")
            .says(&format!("node cp-1 {KUBERNETES}/ssl/kube-scheduler.pem"));
        assert_eq!(lab.effects(), effects);
    });
}

#[test]
fn a_step_that_failed_and_was_put_right_is_done_and_the_rest_follows() {
    rehearse(async {
        let lab = Rehearsal::of(TRIO, Layout::Healthy, |_| {}).await;
        let old = shared(&lab, "cp-1");
        lab.fleet.inject(&name("cp-2"), Fault::UnhealthyAfterRestart { container: "etcd".to_owned() });
        let words = [&APPLY[..], &["--health-timeout", "2s"]].concat();
        lab.certroll(&words).await.expect(1);
        lab.fleet.mend(&name("cp-2"));
        lab.certroll(&RESUME).await.expect(0);
        is_whole(&lab, &old).await;
        let runs = lab.certroll(&["runs", "-o", "json"]).await.expect(0).json();
        assert_eq!(runs["runs"].as_array().unwrap().len(), 1);
    });
}

#[test]
fn a_rotation_by_rancher_is_asked_for_once() {
    rehearse(async {
        for wanted in ["step_started", "step_finished"] {
            let lab = Rehearsal::with_rancher(Layout::LegacyExpired, rancher(&["w-1"])).await;
            let mut command = lab.program(&["apply", "--via", "rancher", "--yes", "-o", "json"]);
            lab.reach_rancher(&mut command);
            let mut live = Live::start(command);
            live.until(|event| match wanted {
                "step_started" => {
                    event["kind"] == "step_progress"
                        && event["message"].as_str().unwrap().starts_with("Rancher: ")
                }
                kind => is(event, kind, "rotate/cluster/1"),
            })
            .await;
            live.kill().await;
            lab.with_token(&RESUME).await.expect(0);
            let calls: Vec<String> =
                lab.effects().into_iter().filter(|effect| effect.contains("rotateCertificates")).collect();
            assert!(calls.len() <= 1, "{calls:#?}");
            lab.certroll(&["check"]).await.expect(0);
            assert_eq!(lab.locks(KUBERNETES), Vec::<String>::new());
        }
    });
}

#[test]
fn options_that_shape_a_plan_belong_to_no_resume() {
    rehearse(async {
        let lab = Rehearsal::of(SMALL, Layout::Healthy, |_| {}).await;
        for words in [["--via", "direct"], ["--service", "etcd"], ["--wait", "3s"], ["-n", "w-1"]] {
            lab.certroll(&[&RESUME[..], &words].concat()).await.expect(2).says("cannot be used with");
        }
        lab.certroll(&["apply", "--resume", "7f3a", "--yes"]).await.expect(2).says("certroll runs");
        lab.is_untouched();
    });
}

#[test]
fn a_lost_answer_adds_no_file_of_the_bundle_twice() {
    rehearse(async {
        let bundles = async |patterns: &[&str]| {
            let lab = Rehearsal::start(Layout::LegacyExpired).await;
            for node in ["cp-1", "cp-2", "etcd-1"] {
                for pattern in patterns {
                    lab.fleet.inject(&name(node), Fault::LostAnswer { pattern: (*pattern).to_owned() });
                }
            }
            let ended = lab.certroll(&["apply", "repair", "--yes", "-o", "json"]).await.expect(0);
            let retried = of_kind(&ended.events(), "step_retried").len();
            let files = ["cp-1", "cp-2", "etcd-1"]
                .map(|node| lab.files(node, KUBERNETES).into_iter().map(|(path, trace)| (path, trace.0)));
            (retried, files.map(Iterator::collect::<BTreeMap<_, _>>))
        };
        let (undisturbed, disturbed) = (bundles(&[]).await, bundles(&["add()"]).await);
        assert_eq!((undisturbed.0, disturbed.0), (0, 3));
        assert_eq!(undisturbed.1, disturbed.1);
    });
}

#[test]
fn no_stage_begins_that_would_not_end_before_the_deadline() {
    rehearse(async {
        let lab = Rehearsal::of(SMALL, Layout::Healthy, |options| options.pace = 0.002).await;
        let words = [&APPLY[..], &["--deadline", "10s"]].concat();
        let events = lab.certroll(&words).await.expect(1).events();
        let missed = of_kind(&events, "deadline_missed");
        assert_eq!((missed.len(), &missed[0]["deadline_seconds"]), (1, &10.into()));
        assert_eq!(restarts(&lab), Vec::<String>::new());
        let run = events[0]["run"].as_str().unwrap();
        lab.certroll(&["runs", run])
            .await
            .expect(0)
            .shows("the deadline of 10 s")
            .shows(&format!("certroll apply --resume {run}"));
        lab.certroll(&[&RESUME[..], &["--deadline", "1h"]].concat()).await.expect(0);
        lab.certroll(&["runs", run]).await.expect(0).shows("attempt 2");
        assert_eq!(restarts(&lab).len(), 10);
    });
}

#[test]
fn an_answer_that_is_lost_repeats_its_step_and_no_effect() {
    rehearse(async {
        let lab = Rehearsal::of(TRIO, Layout::Healthy, |_| {}).await;
        let old = shared(&lab, "cp-1");
        let patterns = [
            "backup.tar.new",
            "rm -rf /etc/kubernetes/.certroll/*/staged",
            "prepare()",
            "docker restart -t 5 etcd",
            "docker restart -t 5 kube-apiserver",
            "docker restart -t 5 kube-proxy",
        ];
        for pattern in patterns {
            lab.fleet.inject(&name("cp-2"), Fault::LostAnswer { pattern: pattern.to_owned() });
        }
        let ended = lab.certroll(&APPLY).await.expect(0);
        let events = ended.events();
        let retried = of_kind(&events, "step_retried");
        assert_eq!(retried.len(), patterns.len(), "{retried:#?}");
        assert!(
            retried.iter().all(|event| event["node"] == "cp-2" && event["attempts"] == 4),
            "{retried:#?}"
        );
        let etcd = MEMBERS.map(|node| format!("{node} etcd")).to_vec();
        assert_eq!(restarts(&lab), [etcd, after_etcd()].concat(), "each component once");
        kept_serving(&lab, 2, 2);
        is_whole(&lab, &old).await;
    });
}

/// Cuts the journal of the newest run off behind the first event that is looked for, as if it had been killed then; `more` events
/// follow after it, made from it.
pub(super) async fn cut(lab: &Rehearsal, wanted: impl Fn(&Value) -> bool, more: Option<Value>) {
    let runs = lab.certroll(&["runs", "-o", "json"]).await.expect(0).json();
    let path = std::path::Path::new(runs["runs"][0]["path"].as_str().unwrap()).join("journal.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = events.iter().position(wanted).unwrap();
    let mut kept: Vec<Value> = events.into_iter().take(last + 1).collect();
    if let Some(more) = more {
        let mut event = more;
        for key in ["version", "at", "elapsed_ms"] {
            event[key] = kept[last][key].clone();
        }
        event["sequence"] = (kept[last]["sequence"].as_u64().unwrap() + 1).into();
        kept.push(event);
    }
    let lines: Vec<String> = kept.iter().map(|event| format!("{event}\n")).collect();
    std::fs::write(&path, lines.concat()).unwrap();
}

#[test]
fn rancher_is_called_by_a_resume_where_it_was_not_and_the_cluster_is_not_well() {
    rehearse(async {
        let lab = Rehearsal::with_rancher(Layout::LegacyExpired, rancher(&[])).await;
        let apply = ["apply", "--via", "rancher", "--yes", "--deadline", "1s"];
        lab.with_token(&apply).await.expect(1);
        let begun = json!({
            "kind": "step_started", "stage": "rotate", "step": "rotate/cluster/1", "node": null
        });
        cut(&lab, |event| event["kind"] == "lock_taken", Some(begun)).await;
        lab.with_token(&[&RESUME[..], &["--deadline", "2h"]].concat()).await.expect(0);
        lab.certroll(&["check"]).await.expect(0);
    });
}

#[test]
fn what_rancher_rotated_after_certroll_is_proved_and_nothing_is_made_again() {
    rehearse(async {
        let lab = Rehearsal::of(SMALL, Layout::Healthy, |options| {
            options.rancher = Some(rancher(&[]));
            options.pace = 0.002;
        })
        .await;
        lab.with_token(&[&APPLY[..], &["--then", "rancher"]].concat()).await.expect(0);
        let last = certificates(&lab, "cp-1");
        cut(&lab, |event| is(event, "step_finished", "rotate/cluster/1"), None).await;
        let events = lab.with_token(&RESUME).await.expect(0).events();
        assert_eq!(of_kind(&events, "certificates_issued").len(), 0);
        assert_eq!(certificates(&lab, "cp-1")["kube-node"].serial, last["kube-node"].serial);
    });
}

#[test]
fn half_of_a_kube_admin_pair_that_the_run_added_makes_way_for_a_whole_one() {
    rehearse(async {
        for halves in [&["cp-1", "cp-2", "etcd-1"][..], &["cp-1"]] {
            let lab = Rehearsal::start(Layout::LegacyTmpMissing).await;
            lab.certroll(&["apply", "repair", "--yes"]).await.expect(0);
            let key = format!("{KUBERNETES}/.tmp/kube-admin-key.pem");
            cut(&lab, |event| event["kind"] == "certificates_issued", None).await;
            for node in halves {
                lab.root(node, &format!("rm {key}")).await;
            }
            lab.certroll(&RESUME).await.expect(0);
            let mut pairs = Vec::new();
            for node in ["cp-1", "cp-2", "etcd-1"] {
                pairs.push(lab.root(node, &format!("cd {KUBERNETES}/.tmp && cat kube-admin*")).await);
            }
            pairs.dedup();
            assert_eq!(pairs.len(), 1, "one pair for all");
            assert!(pairs[0].contains("PRIVATE KEY") && pairs[0].contains("BEGIN CERTIFICATE"));
        }
    });
}

#[test]
fn a_run_that_was_taken_back_is_not_resumed() {
    rehearse(async {
        let lab = Rehearsal::of(SMALL, Layout::Healthy, |options| options.pace = 0.002).await;
        let fault = Fault::CommandFails {
            pattern: "docker restart -t 5 kube-proxy".to_owned(),
            status: 1,
            stderr: "Error response from daemon: no such thing".to_owned(),
        };
        lab.fleet.inject(&name("w-1"), fault);
        let events = lab.certroll(&APPLY).await.expect(1).events();
        let run = events[0]["run"].as_str().unwrap().to_owned();
        lab.fleet.mend(&name("w-1"));
        lab.certroll(&["rollback", &run, "--yes"]).await.expect(0);
        let effects = lab.effects();
        lab.certroll(&["apply", "--resume", &run, "--yes"]).await.expect(4).says("was taken back by run");
        lab.certroll(&RESUME).await.expect(0).says("Nothing to resume");
        assert_eq!(lab.effects(), effects);
    });
}
