use jiff::Timestamp;
use serde::Serialize;

use super::{StoredRun, duration, newest_first, outcome, procedure, step_outcome};
use crate::event::{Outcome, RunState, StepState};
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
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<Vec<StepEntry<'a>>>,
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
}

/// Returns the runs for scripts, the newest first, without their steps.
pub fn document(runs: &[StoredRun]) -> RunsDocument<'_> {
    let runs = newest_first(runs);
    RunsDocument {
        version: DOCUMENT_VERSION,
        runs: runs.into_iter().map(|(run, path)| run_entry(run, path)).collect(),
    }
}

/// Returns one run for scripts: the same document with a single run, which has its `steps`.
pub fn document_of_one((run, path): &StoredRun) -> RunsDocument<'_> {
    let steps = run.steps.iter().map(step_entry).collect();
    RunsDocument {
        version: DOCUMENT_VERSION,
        runs: vec![RunEntry { steps: Some(steps), ..run_entry(run, path) }],
    }
}

fn run_entry<'a>(run: &'a RunState, path: &'a str) -> RunEntry<'a> {
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
        outcome: outcome(run),
        exit_status: run.exit_status,
        done,
        failed,
        not_run,
        steps: None,
    }
}

fn step_entry(step: &StepState) -> StepEntry<'_> {
    let (word, _, message) = step_outcome(step);
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
    }
}

fn milliseconds(start: Option<Timestamp>, end: Option<Timestamp>) -> Option<u64> {
    duration(start, end).and_then(|time| u64::try_from(time.as_millis()).ok())
}
