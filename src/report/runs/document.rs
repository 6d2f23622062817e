use jiff::Timestamp;
use serde::Serialize;

use super::{Life, StoredRun, attempt_outcome, duration, newest_first, outcome, procedure, step_outcome};
use crate::event::{Attempt, Outcome, RunState, StepState};
use crate::inventory::NodeName;
use crate::plan::{Procedure, StageName, StepId};
use crate::report::DOCUMENT_VERSION;

/// Runs for scripts.
#[derive(Debug, Serialize)]
pub struct RunsDocument<'a> {
    version: u32,
    runs: Vec<RunEntry<'a>>,
}

#[derive(Debug, Serialize)]
struct RunEntry<'a> {
    run: &'a str,
    cluster: &'a str,
    path: &'a str,
    owner: &'a str,
    procedure: Option<Procedure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    undoes: Option<&'a str>,
    started_at: Option<Timestamp>,
    last_at: Option<Timestamp>,
    duration_ms: Option<u64>,
    outcome: &'static str,
    exit_status: Option<u8>,
    done: usize,
    failed: usize,
    not_run: usize,
    without_end: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<Vec<AttemptEntry<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<Vec<StepEntry<'a>>>,
}

#[derive(Debug, Serialize)]
struct AttemptEntry<'a> {
    attempt: u32,
    owner: &'a str,
    pid: Option<u32>,
    started_at: Timestamp,
    last_at: Timestamp,
    duration_ms: Option<u64>,
    outcome: &'static str,
}

#[derive(Debug, Serialize)]
struct StepEntry<'a> {
    id: &'a StepId,
    stage: StageName,
    node: Option<&'a NodeName>,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    duration_ms: Option<u64>,
    outcome: String,
    message: &'a str,
    hint: Option<&'a str>,
    retries: u32,
}

/// Returns the runs for scripts, the newest first, without their steps.
pub fn document(runs: &[StoredRun]) -> RunsDocument<'_> {
    let runs = newest_first(runs);
    RunsDocument { version: DOCUMENT_VERSION, runs: runs.into_iter().map(run_entry).collect() }
}

/// Returns one run for scripts: the same document with a single run, which has its `steps`.
pub fn document_of_one(stored: &StoredRun) -> RunsDocument<'_> {
    let (run, _, life) = stored;
    let steps = run.steps.iter().map(|step| step_entry(step, *life)).collect();
    let attempts = run.attempts.iter().map(|attempt| attempt_entry(run, attempt, *life)).collect();
    RunsDocument {
        version: DOCUMENT_VERSION,
        runs: vec![RunEntry { steps: Some(steps), attempts: Some(attempts), ..run_entry(stored) }],
    }
}

fn run_entry((run, path, life): &StoredRun) -> RunEntry<'_> {
    let (done, failed, not_run) = run.counts();
    RunEntry {
        run: &run.run,
        cluster: &run.cluster,
        path,
        owner: &run.owner,
        procedure: procedure(run),
        undoes: run.undoes.as_deref(),
        started_at: run.started_at,
        last_at: run.last_at,
        duration_ms: milliseconds(run.started_at, run.last_at),
        outcome: outcome(run, *life),
        exit_status: run.exit_status,
        done,
        failed,
        not_run,
        without_end: run.running(),
        attempts: None,
        steps: None,
    }
}

fn attempt_entry<'a>(run: &RunState, attempt: &'a Attempt, life: Life) -> AttemptEntry<'a> {
    AttemptEntry {
        attempt: attempt.number,
        owner: &attempt.owner,
        pid: attempt.pid,
        started_at: attempt.started_at,
        last_at: attempt.last_at,
        duration_ms: milliseconds(Some(attempt.started_at), Some(attempt.last_at)),
        outcome: attempt_outcome(run, attempt, life),
    }
}

fn step_entry(step: &StepState, life: Life) -> StepEntry<'_> {
    let (word, _, message) = step_outcome(step, life);
    let hint = match &step.outcome {
        Some(Outcome::Failed { hint, .. }) => hint.as_deref(),
        _ => None,
    };
    StepEntry {
        id: &step.step,
        stage: step.stage,
        node: step.node.as_ref(),
        started_at: step.started_at,
        finished_at: step.finished_at,
        duration_ms: milliseconds(step.started_at, step.finished_at),
        outcome: match &step.outcome {
            Some(Outcome::Unneeded { .. }) => "unneeded".to_owned(),
            _ => word.replace(' ', "_"),
        },
        message,
        hint,
        retries: step.retries,
    }
}

fn milliseconds(start: Option<Timestamp>, end: Option<Timestamp>) -> Option<u64> {
    duration(start, end).and_then(|time| u64::try_from(time.as_millis()).ok())
}
