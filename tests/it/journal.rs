//! The journal: what is written is read back, a torn last line is not, and nobody else may read it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a file that is not as it should be fails its test"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use certroll::event::{Event, EventKind, Outcome, RunOutcome, StageOutline};
use certroll::inventory::MaxUnavailable;
use certroll::journal::{ClusterFolder, Journal, JournalError, find_run, read_runs, run_name};
use certroll::plan::{Plan, Policy, Procedure, Renewal, basis, moved, plan};
use jiff::{SignedDuration, Timestamp};

use crate::golden::Golden;

const START: &str = "2026-11-21T19:05:02Z";

fn repair_plan(golden: &Golden) -> Plan {
    let policy = Policy {
        procedure: Procedure::Repair,
        via: None,
        services: Vec::new(),
        renew_within: SignedDuration::from_hours(24 * 90),
        renewal: Renewal::WhereNeeded,
        max_unavailable_worker: MaxUnavailable::DEFAULT,
        selected: None,
        rancher: None,
        wait: Duration::from_secs(60),
        health_timeout: certroll::plan::HEALTH_TIMEOUT,
        direct: None,
        rke: None,
        break_lock: None,
        majority: certroll::plan::Majority::Needed,
        now: golden.now,
    };
    plan(&golden.inventory, &golden.facts(), &policy)
}

fn bundleless() -> Golden {
    Golden::read("rke-v0.1.17").without(&["n1", "n2", "n3"], |path| path.starts_with(".tmp/"))
}

fn event(sequence: u64, kind: EventKind) -> Event {
    let at: Timestamp = START.parse().unwrap();
    Event {
        sequence,
        at: at + SignedDuration::from_secs(sequence.cast_signed()),
        elapsed_ms: sequence * 1000,
        kind,
    }
}

/// Writes a run whose first step ended well and whose second had just begun.
fn write_run(folder: &ClusterFolder, plan: &Plan) -> String {
    let name = run_name(START.parse().unwrap(), plan);
    let mut journal = Journal::create(&folder.run(&name), plan).unwrap();
    let steps: Vec<_> = plan.steps().take(2).collect();
    let stage = plan.stages[0].name;
    let started = EventKind::RunStarted {
        run: name.clone(),
        cluster: plan.cluster.clone(),
        owner: "anna@bastion".to_owned(),
        pid: Some(4711),
        stages: StageOutline::of(plan),
    };
    let begin = |index: usize| EventKind::StepStarted {
        stage,
        step: steps[index].id.clone(),
        node: steps[index].node.clone(),
    };
    let end = EventKind::StepFinished {
        stage,
        step: steps[0].id.clone(),
        node: steps[0].node.clone(),
        outcome: Outcome::Done { message: "as it was".to_owned() },
    };
    for (index, kind) in [started, begin(0), end, begin(1)].into_iter().enumerate() {
        journal.append(&event(index as u64 + 1, kind)).unwrap();
    }
    name
}

#[test]
fn a_run_is_read_back_up_to_its_torn_last_line() {
    let state = tempfile::tempdir().unwrap();
    let plan = repair_plan(&bundleless());
    let folder = ClusterFolder::new(state.path(), &plan.cluster, plan.kube_ca.as_ref().unwrap());
    let name = write_run(&folder, &plan);
    let path = folder.run(&name).join("journal.jsonl");
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"version\":1,\"seq").unwrap();

    let folders = ClusterFolder::of_cluster(state.path(), &plan.cluster);
    let run = find_run(read_runs(&folders).0, &plan.id).unwrap();
    assert_eq!(run.plan, plan);
    assert_eq!(run.state.run, name);
    assert_eq!(run.state.outcome, None::<RunOutcome>, "a run that was killed has no end");
    assert_eq!(run.state.counts().0, 1);
    assert!(run.state.steps[1].started_at.is_some() && run.state.steps[1].outcome.is_none());
}

#[test]
fn a_journal_goes_on_behind_its_last_whole_line_and_for_one_process_alone() {
    let state = tempfile::tempdir().unwrap();
    let plan = repair_plan(&bundleless());
    let folder = ClusterFolder::new(state.path(), &plan.cluster, plan.kube_ca.as_ref().unwrap());
    let name = write_run(&folder, &plan);
    let run = folder.run(&name);
    let path = run.join("journal.jsonl");
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"version\":1,\"seq").unwrap();

    let mut journal = Journal::open(&run).unwrap();
    assert_eq!((journal.history().sequence, journal.history().state.attempt()), (4, 1));
    assert!(read_runs(std::slice::from_ref(&folder)).0[0].is_alive);
    match Journal::open(&run) {
        Err(JournalError::Alive { owner, pid, .. }) => {
            assert_eq!((owner.as_str(), pid), ("anna@bastion", Some(4711)));
        }
        other => assert!(other.is_err(), "two processes have it"),
    }
    let resumed = EventKind::RunResumed {
        run: name,
        cluster: plan.cluster.clone(),
        attempt: 2,
        owner: "bert@bastion".to_owned(),
        pid: 4712,
        stages: StageOutline::of(&plan),
    };
    journal.append(&event(5, resumed)).unwrap();
    drop(journal);

    let read = read_runs(std::slice::from_ref(&folder)).0.remove(0);
    assert!(!read.is_alive);
    assert_eq!((read.state.attempts.len(), read.state.owner.as_str()), (2, "bert@bastion"));
    assert_eq!(read.state.steps[0].well_in, Some(1), "what the first attempt did is known");
    assert!(read.state.steps.iter().all(|step| step.outcome.is_none()), "every step has its turn again");
    assert_eq!(read.plan, plan);
}

#[test]
fn nobody_else_reads_a_run() {
    let state = tempfile::tempdir().unwrap();
    let plan = repair_plan(&bundleless());
    let folder =
        ClusterFolder::new(&state.path().join("certroll"), &plan.cluster, plan.kube_ca.as_ref().unwrap());
    let run = folder.run(&write_run(&folder, &plan));
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state.path().join("certroll")), 0o700);
    assert_eq!(mode(&run), 0o700);
    assert_eq!(mode(&run.join("plan.json")), 0o600);
    assert_eq!(mode(&run.join("journal.jsonl")), 0o600);
}

#[test]
fn a_part_of_a_name_must_mean_one_run() {
    let state = tempfile::tempdir().unwrap();
    let plan = repair_plan(&bundleless());
    let folder = ClusterFolder::new(state.path(), &plan.cluster, plan.kube_ca.as_ref().unwrap());
    write_run(&folder, &plan);
    let other = Plan { id: "0000".to_owned(), ..plan };
    write_run(&folder, &other);
    let runs = || read_runs(std::slice::from_ref(&folder)).0;
    assert_eq!(runs().len(), 2);
    assert!(matches!(find_run(runs(), "20261121"), Err(JournalError::Ambiguous { .. })));
    assert!(matches!(find_run(runs(), "1999"), Err(JournalError::NoSuchRun(_))));
    assert_eq!(find_run(runs(), "0000").unwrap().plan.id, "0000");
}

#[test]
fn runs_of_one_second_sort_as_they_began() {
    let state = tempfile::tempdir().unwrap();
    let plan = repair_plan(&bundleless());
    let folder = ClusterFolder::new(state.path(), &plan.cluster, plan.kube_ca.as_ref().unwrap());
    let ids = ["ffff", "8000", "8000", "0000"];
    let names = ids.map(|id| {
        let plan = Plan { id: id.to_owned(), ..plan.clone() };
        folder.begin(START.parse().unwrap(), &plan).unwrap().0
    });
    assert!(names.is_sorted(), "{names:?}");
    assert_eq!(folder.runs().first(), names.last());
}

#[test]
fn runs_that_begin_at_once_get_a_name_each() {
    let state = tempfile::tempdir().unwrap();
    let plan = repair_plan(&bundleless());
    let folder = ClusterFolder::new(state.path(), &plan.cluster, plan.kube_ca.as_ref().unwrap());
    let start = std::sync::Barrier::new(8);
    let names: BTreeSet<String> = std::thread::scope(|scope| {
        let begin = || {
            start.wait();
            folder.begin(START.parse().unwrap(), &plan).unwrap().0
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(begin)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(names.len(), 8, "{names:?}");
}

#[test]
fn what_moved_is_named_and_time_alone_moves_nothing() {
    let golden = bundleless();
    let then = basis(&golden.inventory, &golden.facts());
    let later = bundleless().days_later(3);
    assert_eq!(moved(&then, &basis(&later.inventory, &later.facts())), Vec::<String>::new());
    let changed = bundleless().without(&["n2"], |path| path == "ssl/kube-proxy.pem");
    assert_eq!(
        moved(&then, &basis(&changed.inventory, &changed.facts())),
        ["node n2 /etc/kubernetes/ssl/kube-proxy.pem"]
    );
}
