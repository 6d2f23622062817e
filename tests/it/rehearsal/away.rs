//! Nodes that are away when a run goes on or a saved plan is carried out: workers wait for their turn, the others are needed.

use certroll::sim::{Fault, Layout};

use super::direct::{BRISK, SMALL, TRIO, certificates, restarts, staging_is_gone};
use super::resume::{Live, cut, is};
use super::{Ended, KUBERNETES, Rehearsal, name, of_kind, rancher, rehearse};

const APPLY: [&str; 5] = ["apply", "--via", "direct", "--force", "--yes"];
const RESUME: [&str; 3] = ["apply", "--resume", "--yes"];

/// Leaves a run that stopped at a worker, which has been put right since.
async fn stopped_at(worker: &str, cluster: &str) -> Rehearsal {
    let lab = Rehearsal::of(cluster, Layout::Healthy, |options| options.pace = BRISK).await;
    let fault = Fault::CommandFails {
        pattern: "prepare()".to_owned(),
        status: 1,
        stderr: "mv: Input/output error".to_owned(),
    };
    lab.fleet.inject(&name(worker), fault);
    lab.certroll(&APPLY).await.expect(1);
    lab.fleet.mend(&name(worker));
    lab
}

/// Expects that every node but those of a list has the new certificates, and that these have theirs of before.
fn all_but(lab: &Rehearsal, old: &str, left: &[&str]) {
    for node in &lab.inventory.nodes {
        let serial = &certificates(lab, node.name.as_str())["kube-node"].serial;
        assert_eq!(*serial == old, left.contains(&node.name.as_str()), "{}", node.name);
    }
}

#[test]
fn a_worker_that_is_away_keeps_no_resume_from_the_rest() {
    rehearse(async {
        let lab = stopped_at("w-1", SMALL).await;
        let old = certificates(&lab, "w-2")["kube-node"].serial.clone();
        all_but(&lab, &old, &["w-1", "w-2"]);
        lab.fleet.inject(&name("w-2"), Fault::Unreachable);

        lab.certroll(&RESUME)
            .await
            .expect(1)
            .says("warning: node w-2 cannot be looked at: ")
            .says("its steps are not run, and it stays as it is")
            .shows("not run")
            .shows("the node cannot be looked at: ")
            .shows("when w-2 can be reached");
        all_but(&lab, &old, &["w-2"]);

        lab.fleet.mend(&name("w-2"));
        let before = restarts(&lab).len();
        lab.certroll(&RESUME).await.expect(0);
        assert_eq!(restarts(&lab)[before..], ["w-2 kubelet", "w-2 kube-proxy"]);
        all_but(&lab, &old, &[]);
        staging_is_gone(&lab);
        lab.certroll(&["check"]).await.expect(0);
    });
}

/// What an earlier attempt did is not told as left to do; what is missing is the check of it.
#[test]
fn a_worker_that_had_its_turn_before_it_went_away_lacks_its_check_alone() {
    rehearse(async {
        let lab = stopped_at("w-2", SMALL).await;
        let old = certificates(&lab, "w-2")["kube-node"].serial.clone();
        all_but(&lab, &old, &["w-2"]);
        lab.fleet.inject(&name("w-1"), Fault::Unreachable);
        let ended = lab.certroll(&RESUME).await.expect(1);
        assert!(!ended.stderr.contains("stays as it is"), "{}", ended.stderr);
        ended
            .says("all that changes it was done by an earlier attempt, and only the check of it is left out")
            .shows("Every node has its new certificates")
            .shows("when w-1 can be reached");
        all_but(&lab, &old, &[]);

        lab.fleet.mend(&name("w-1"));
        let before = restarts(&lab).len();
        lab.certroll(&RESUME).await.expect(0);
        assert_eq!(restarts(&lab).len(), before);
        staging_is_gone(&lab);
    });
}

/// Expects a refusal that says what is so: the node cannot be looked at, and nobody has changed anything.
fn names_the_node(ended: Ended, node: &str) {
    let ended =
        ended.expect(4).says("cannot be looked at: ").says(&format!("{node} (")).says("--without-majority");
    for word in ["changed by others", "moved on", "stale"] {
        assert!(!ended.stderr.contains(word), "{}", ended.stderr);
    }
}

#[test]
fn a_member_that_is_away_is_named_and_its_rest_can_be_done_without_it() {
    rehearse(async {
        let lab = stopped_at("w-1", TRIO).await;
        let old = certificates(&lab, "w-2")["kube-node"].serial.clone();
        lab.fleet.inject(&name("cp-3"), Fault::Unreachable);
        let effects = lab.effects();
        names_the_node(lab.certroll(&RESUME).await, "cp-3");
        assert_eq!(lab.effects(), effects, "a refusal changes nothing");

        // Its turn has been: workers need the others alone.
        let ended =
            lab.certroll(&[&RESUME[..], &["--without-majority", "-o", "json"]].concat()).await.expect(1);
        let events = ended.events();
        let run = events[0]["run"].as_str().unwrap();
        let ended = ended.says(&format!("the lock of run {run} may still lie on cp-3"));
        ended.says(&format!("`--break-lock {run}`"));
        assert_eq!(of_kind(&events, "lock_taken")[0]["nodes"], serde_json::json!(["cp-1", "cp-2"]));
        all_but(&lab, &old, &[]);
        lab.fleet.mend(&name("cp-3"));
        lab.certroll(&RESUME).await.expect(0);
        assert_eq!(lab.locks(KUBERNETES), Vec::<String>::new());
        lab.certroll(&["check"]).await.expect(0);
    });
}

#[test]
fn a_saved_plan_is_carried_out_without_a_worker_that_is_away() {
    rehearse(async {
        let lab = Rehearsal::of(TRIO, Layout::Healthy, |options| options.pace = BRISK).await;
        let old = certificates(&lab, "w-1")["kube-node"].serial.clone();
        let saved = lab.path("night.plan");
        let saved = saved.to_str().unwrap();
        lab.certroll(&["plan", "--via", "direct", "--force", "--save", saved]).await.expect(0);
        let apply = ["apply", "--plan", saved, "--yes"];
        lab.fleet.inject(&name("cp-2"), Fault::Unreachable);
        names_the_node(lab.certroll(&apply).await, "cp-2");
        lab.is_untouched();
        assert!(!lab.state().exists(), "a refusal is no run");
        lab.fleet.mend(&name("cp-2"));

        lab.fleet.inject(&name("w-1"), Fault::Unreachable);
        lab.certroll(&apply).await.expect(1).says("warning: node w-1 cannot be looked at: ");
        all_but(&lab, &old, &["w-1"]);
        lab.fleet.mend(&name("w-1"));
        lab.certroll(&RESUME).await.expect(0);
        all_but(&lab, &old, &[]);
        staging_is_gone(&lab);
    });
}

/// Leaves an expired cluster of Rancher's, which is rotated as fast as it can be.
async fn expired() -> Rehearsal {
    Rehearsal::of(TRIO, Layout::Expired028, |fleet| {
        fleet.rancher = Some(rancher(&[]));
        fleet.pace = BRISK;
    })
    .await
}

/// Returns how often Rancher was asked to rotate.
fn calls(lab: &Rehearsal) -> usize {
    lab.effects().iter().filter(|effect| effect.contains("rotateCertificates")).count()
}

#[test]
fn a_rotation_by_rancher_is_not_asked_for_again_for_a_node_that_is_away() {
    rehearse(async {
        let lab = expired().await;
        lab.with_token(&["apply", "--via", "rancher", "--yes"]).await.expect(0);
        cut(&lab, |event| is(event, "step_started", "rotate/cluster/1"), None).await;
        lab.fleet.inject(&name("cp-3"), Fault::Unreachable);
        let resume = [&RESUME[..], &["--without-majority"]].concat();
        lab.with_token(&resume).await.expect(1).says("Rancher has rotated: every certificate is another one");
        assert_eq!(calls(&lab), 1);
        lab.fleet.mend(&name("cp-3"));
        lab.with_token(&RESUME).await.expect(0);
        assert_eq!(calls(&lab), 1);
        lab.certroll(&["check"]).await.expect(0);
    });
}

#[test]
fn a_node_that_one_look_misses_is_looked_at_again_before_rancher_is_asked_again() {
    rehearse(async {
        let lab = expired().await;
        lab.with_token(&["apply", "--via", "rancher", "--yes"]).await.expect(0);
        cut(&lab, |event| is(event, "step_started", "rotate/cluster/1"), None).await;
        let mut command = lab.program(&[&RESUME[..], &["-o", "json"]].concat());
        lab.reach_rancher(&mut command);
        let mut live = Live::start(command);
        live.until(|event| is(event, "step_finished", "backup/cp-3/1")).await;
        lab.fleet.inject(&name("cp-3"), Fault::Unreachable);
        live.until(|event| {
            let message = event["message"].as_str().unwrap_or_default();
            message.starts_with("looking again") || is(event, "step_finished", "rotate/cluster/1")
        })
        .await;
        lab.fleet.mend(&name("cp-3"));
        live.end().await.expect(0);
        assert_eq!(calls(&lab), 1);
        lab.certroll(&["check"]).await.expect(0);
    });
}

#[test]
fn an_operator_who_has_rotated_is_not_asked_again_for_a_node_that_is_away() {
    rehearse(async {
        let lab = Rehearsal::of(TRIO, Layout::Expired028, |options| options.pace = BRISK).await;
        lab.certroll(&["apply", "--via", "manual", "--yes", "--wait", "1s"]).await.expect(1);
        lab.fleet.operator_rotates().await.unwrap();
        lab.fleet.inject(&name("cp-3"), Fault::Unreachable);
        let resume = [&RESUME[..], &["--without-majority", "-o", "json"]].concat();
        let events = lab.certroll(&resume).await.expect(1).events();
        assert_eq!(of_kind(&events, "waiting_for_operator").len(), 0);
        let rotated = events.iter().find(|event| is(event, "step_finished", "rotate/cluster/1")).unwrap();
        assert_eq!(rotated["outcome"]["outcome"], "done", "{rotated}");
        lab.fleet.mend(&name("cp-3"));
        lab.certroll(&RESUME).await.expect(0);
        lab.certroll(&["check"]).await.expect(0);
    });
}
