use certroll::event::{Event, EventKind, Outcome, RunOutcome, RunState, StageOutline, StepOutline};
use certroll::inventory::NodeName;
use certroll::plan::{StageName, StepId};
use certroll::report::runs::{Life, StoredRun, document, document_of_one, text, text_of_one};
use certroll::report::style::{Detail, Style};
use jiff::SignedDuration;

use super::cluster::time;

/// Events of a run, by seconds since its start.
fn run(name: &str, start: &str, events: Vec<(i64, EventKind)>) -> StoredRun {
    let started = EventKind::RunStarted {
        run: name.to_owned(),
        cluster: "prod".to_owned(),
        owner: "anna@bastion".to_owned(),
        pid: Some(4711),
        stages: vec![
            outline(StageName::Preflight, &["cp-1", "w-1"]),
            outline(StageName::Workers, &["w-1"]),
            outline(StageName::Verify, &["w-1"]),
        ],
    };
    let events: Vec<Event> = std::iter::once((0, started))
        .chain(events)
        .zip(1..)
        .map(|((seconds, kind), sequence)| Event {
            sequence,
            at: time(start) + SignedDuration::from_secs(seconds),
            elapsed_ms: 0,
            kind,
        })
        .collect();
    (RunState::of(&events), format!("/home/anna/.local/state/certroll/prod-adcd1a93e5f7/{name}"), Life::Over)
}

fn outline(stage: StageName, nodes: &[&str]) -> StageOutline {
    let steps =
        nodes.iter().map(|node| StepOutline { step: step(stage, node), node: Some(NodeName::new(*node)) });
    StageOutline { stage, title: stage.to_string(), steps: steps.collect() }
}

fn step(stage: StageName, node: &str) -> StepId {
    StepId(format!("{stage}/{node}/1"))
}

fn started(stage: StageName, node: &str) -> EventKind {
    EventKind::StepStarted { stage, step: step(stage, node), node: Some(NodeName::new(node)) }
}

fn finished(stage: StageName, node: &str, outcome: Outcome) -> EventKind {
    EventKind::StepFinished { stage, step: step(stage, node), node: Some(NodeName::new(node)), outcome }
}

fn done(message: &str) -> Outcome {
    Outcome::Done { message: message.to_owned() }
}

fn failed_run() -> StoredRun {
    let error = "kube-proxy is not healthy 120 s after its restart: HTTP 503\u{1b}[31m".to_owned();
    let hint = Some("put w-1 right, then `certroll apply --resume 7f3a`".to_owned());
    run(
        "20271124-193500-7f3a",
        "2027-11-24T19:35:00Z",
        vec![
            (0, started(StageName::Preflight, "cp-1")),
            (1, finished(StageName::Preflight, "cp-1", done("nothing has moved"))),
            (0, started(StageName::Preflight, "w-1")),
            (
                2,
                finished(
                    StageName::Preflight,
                    "w-1",
                    Outcome::Unneeded { message: "it was looked at".to_owned() },
                ),
            ),
            (3, started(StageName::Workers, "w-1")),
            (125, finished(StageName::Workers, "w-1", Outcome::Failed { error, hint })),
            (
                125,
                finished(
                    StageName::Verify,
                    "w-1",
                    Outcome::NotRun { reason: "a step of an earlier stage failed".to_owned() },
                ),
            ),
            (
                126,
                EventKind::RunFinished {
                    run: "7f3a".to_owned(),
                    outcome: RunOutcome::Failed,
                    done: 2,
                    failed: 1,
                    not_run: 1,
                    exit_status: 1,
                },
            ),
        ],
    )
}

fn interrupted_run() -> StoredRun {
    run("20271120-080000-aa01", "2027-11-20T08:00:00Z", vec![(5, started(StageName::Preflight, "cp-1"))])
}

#[test]
fn runs_are_listed_newest_first() {
    let runs = [interrupted_run(), failed_run()];
    insta::assert_snapshot!(text(&runs, Style::PLAIN));
    let value = serde_json::to_value(document(&runs)).unwrap();
    assert_eq!(value["runs"][0]["outcome"], "failed");
    assert_eq!(value["runs"][1]["outcome"], "interrupted");
    assert!(value["runs"][0].get("steps").is_none());
    assert_eq!(text(&[], Style::PLAIN), "No run of this cluster is recorded.\n");
}

#[test]
fn one_run_is_shown_step_by_step() {
    let run = failed_run();
    insta::assert_snapshot!(text_of_one(&run, Style::PLAIN));
    insta::assert_snapshot!("run_json", serde_json::to_string_pretty(&document_of_one(&run)).unwrap());
    let quiet = text_of_one(&run, Style { detail: Detail::Quiet, ..Style::PLAIN });
    assert!(quiet.contains("workers/w-1/1") && !quiet.contains("preflight/w-1/1"), "{quiet}");
    assert!(text_of_one(&interrupted_run(), Style::PLAIN).contains("interrupted"));
}

#[test]
fn a_run_that_a_process_is_at_is_at_work_and_not_interrupted() {
    let (state, path, _) = interrupted_run();
    let run = (state, path, Life::Running);
    let shown = text_of_one(&run, Style::PLAIN);
    assert!(shown.contains("1 at work, 3 to come") && shown.contains("  at work"), "{shown}");
    assert!(!shown.contains("interrupted") && !shown.contains("not run"), "{shown}");
    let value = serde_json::to_value(document_of_one(&run)).unwrap();
    let outcomes = value["runs"][0]["steps"].as_array().unwrap();
    let outcomes: Vec<_> = outcomes.iter().map(|step| step["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["at_work", "waiting", "waiting", "waiting"]);
}
