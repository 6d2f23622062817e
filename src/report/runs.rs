//! The report of runs: which there were and how they ended, or every step of one.
//!
//! `certroll runs` shows it, from what the journals of the state folder amount to.

mod document;
mod outlook;

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;

use super::columns::{Cell, Columns};
use super::duration::{count, moment, took};
use super::findings::hint;
use super::style::{Detail, Style, Tone};
use crate::escape::shown;
use crate::event::{Attempt, Outcome, RunOutcome, RunState, StepState};
use crate::plan::{Procedure, StageName};

pub use document::{RunsDocument, document, document_of_one};
pub use outlook::outlook;

/// A run, the path of its folder, and whether a process is at it.
pub type StoredRun = (RunState, String, Life);

/// Whether a process is at a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// One has its journal open.
    Running,
    /// None has.
    Over,
}

/// Returns the runs for people, the newest first.
pub fn text(runs: &[StoredRun], style: Style) -> String {
    if runs.is_empty() {
        return "No run of this cluster is recorded.\n".to_owned();
    }
    let headings: &[&'static str] = if style.is_verbose() { &HEADINGS_WITH_FOLDER } else { &HEADINGS };
    let mut columns = Columns::headed(headings);
    for (run, path, life) in newest_first(runs) {
        let mut cells = vec![
            Cell::new(&run.run).tone(Tone::Strong),
            run.started_at.map_or_else(Cell::nothing, |start| Cell::new(moment(start))),
            procedure(run).map_or_else(Cell::nothing, |procedure| Cell::new(procedure.to_string())),
            Cell::new(outcome(run, *life)).tone(outcome_tone(run, *life)),
            duration(run.started_at, run.last_at).map_or_else(Cell::nothing, |time| Cell::new(took(time))),
            Cell::new(counts(run, *life)),
            Cell::new(&run.owner),
        ];
        if style.is_verbose() {
            cells.push(Cell::new(path));
        }
        columns.push(cells);
    }
    columns.render(style)
}

const HEADINGS: [&str; 7] = ["RUN", "STARTED", "PROCEDURE", "OUTCOME", "TOOK", "STEPS", "BY"];
const HEADINGS_WITH_FOLDER: [&str; 8] =
    ["RUN", "STARTED", "PROCEDURE", "OUTCOME", "TOOK", "STEPS", "BY", "FOLDER"];

/// Returns one run for people, with every step; the quiet read of those alone that did not end well.
pub fn text_of_one((run, path, life): &StoredRun, style: Style) -> String {
    let mut text = format!(
        "{}   {}   {}   {}",
        style.paint(Tone::Strong, &format!("Run {}", shown(&run.run))),
        shown(&run.cluster),
        style.paint(outcome_tone(run, *life), outcome(run, *life)),
        counts(run, *life)
    );
    if let Some(start) = run.started_at {
        let _ = write!(text, "\nstarted {} by {}", moment(start), shown(&run.owner));
        if let Some(time) = duration(run.started_at, run.last_at) {
            let _ = write!(text, ", took {}", took(time));
        }
    }
    for attempt in run.attempts.iter().filter(|_| run.attempts.len() > 1) {
        let _ = write!(text, "\nattempt {} by {}", attempt.number, shown(&attempt.owner));
        if let Some(pid) = attempt.pid {
            let _ = write!(text, ", process {pid}");
        }
        let _ = write!(text, ": {}, {}", moment(attempt.started_at), attempt_outcome(run, attempt, *life));
        if let Some(time) = duration(Some(attempt.started_at), Some(attempt.last_at)) {
            let _ = write!(text, " after {}", took(time));
        }
    }
    if let Some(undone) = &run.undoes {
        let _ = write!(text, "\ntakes back run {}", shown(undone));
    }
    let _ = writeln!(text, "\nrecorded in {}\n", shown(path));
    let mut columns = Columns::headed(&["STAGE", "NODE", "STEP", "TOOK", "OUTCOME", ""]);
    for step in &run.steps {
        if style.detail > Detail::Quiet || !is_well(step) {
            columns.push(step_cells(step, *life));
        }
    }
    text.push_str(&columns.render(style));
    let hints = failure_hints(run);
    if !hints.is_empty() {
        text.push('\n');
    }
    for line in hints {
        text.push_str(&hint(line, style));
    }
    if !run.ended_well() && *life == Life::Over {
        let name = shown(&run.run);
        let way_on = format!(
            "`certroll apply --resume {name}` goes on with it; `certroll rollback {name}` takes it back"
        );
        text.push('\n');
        text.push_str(&hint(&way_on, style));
    }
    text
}

fn step_cells(step: &StepState, life: Life) -> Vec<Cell> {
    let (word, tone, said) = step_outcome(step, life);
    vec![
        Cell::new(step.stage.as_str()),
        step.node.as_ref().map_or_else(Cell::nothing, |node| Cell::new(node.as_str()).tone(Tone::Strong)),
        Cell::new(&step.step.0),
        duration(step.started_at, step.finished_at).map_or_else(Cell::nothing, |time| Cell::new(took(time))),
        Cell::new(word).tone(tone),
        Cell::new(said),
    ]
}

/// Returns how a step ended: a word, its meaning, and what the step said. While a process is at the run, one without an end is at work.
fn step_outcome(step: &StepState, life: Life) -> (&'static str, Tone, &str) {
    match &step.outcome {
        Some(Outcome::Done { message }) => ("done", Tone::Good, message),
        Some(Outcome::Unneeded { message }) => ("not needed", Tone::Faint, message),
        Some(Outcome::Failed { error, .. }) => ("failed", Tone::Bad, error),
        Some(Outcome::NotRun { reason }) => ("not run", Tone::Warning, reason),
        None if step.started_at.is_some() && life == Life::Running => {
            ("at work", Tone::Warning, &step.message)
        }
        None if step.started_at.is_some() => ("interrupted", Tone::Bad, &step.message),
        None if life == Life::Running => ("waiting", Tone::Faint, ""),
        None => ("not run", Tone::Warning, "the run ended before its turn"),
    }
}

fn is_well(step: &StepState) -> bool {
    matches!(step.outcome, Some(Outcome::Done { .. } | Outcome::Unneeded { .. }))
}

/// Returns the ways out of what failed, each once.
fn failure_hints(run: &RunState) -> Vec<&str> {
    let mut hints: Vec<&str> = Vec::new();
    for step in &run.steps {
        if let Some(Outcome::Failed { hint: Some(hint), .. }) = &step.outcome
            && !hints.contains(&hint.as_str())
        {
            hints.push(hint);
        }
    }
    hints
}

/// Returns the runs with the newest first; those that never began come last.
fn newest_first(runs: &[StoredRun]) -> Vec<&StoredRun> {
    let mut sorted: Vec<&StoredRun> = runs.iter().collect();
    sorted.sort_by(|(left, ..), (right, ..)| {
        (Reverse(left.started_at), Reverse(&left.run)).cmp(&(Reverse(right.started_at), Reverse(&right.run)))
    });
    sorted
}

/// Returns what a run was to achieve; where its plan was not read, as far as its stages tell.
fn procedure(run: &RunState) -> Option<Procedure> {
    if run.procedure.is_some() {
        return run.procedure;
    }
    let has = |name| run.stages.iter().any(|stage| stage.stage == name);
    if has(StageName::Rotate) || has(StageName::Staging) || has(StageName::Etcd) || has(StageName::State) {
        Some(Procedure::Rotate)
    } else if has(StageName::Repair) {
        Some(Procedure::Repair)
    } else if has(StageName::ControlPlane) || has(StageName::Workers) {
        Some(Procedure::Restart)
    } else {
        None
    }
}

/// Returns how a run ended; one without an end was interrupted, or is at work.
fn outcome(run: &RunState, life: Life) -> &'static str {
    outcome_word(run.outcome, life)
}

/// Returns how an attempt ended; only the last one may be at work.
fn attempt_outcome(run: &RunState, attempt: &Attempt, life: Life) -> &'static str {
    let is_last = run.attempts.last().is_some_and(|last| last.number == attempt.number);
    outcome_word(attempt.outcome, if is_last { life } else { Life::Over })
}

fn outcome_word(outcome: Option<RunOutcome>, life: Life) -> &'static str {
    match outcome {
        None if life == Life::Running => "running",
        Some(RunOutcome::Done) => "done",
        Some(RunOutcome::Failed) => "failed",
        Some(RunOutcome::Cancelled) => "cancelled",
        None => "interrupted",
    }
}

fn outcome_tone(run: &RunState, life: Life) -> Tone {
    match run.outcome {
        None if life == Life::Running => Tone::Warning,
        Some(RunOutcome::Done) => Tone::Good,
        Some(RunOutcome::Failed) | None => Tone::Bad,
        Some(RunOutcome::Cancelled) => Tone::Warning,
    }
}

/// Returns how the steps of a run ended, in words.
fn counts(run: &RunState, life: Life) -> String {
    let (done, failed, not_run) = run.counts();
    let total = count(i64::try_from(run.steps.len()).unwrap_or(i64::MAX), "step");
    let mut text = format!("{done} of {total} done");
    let (open, left) =
        if life == Life::Running { ("at work", "to come") } else { ("without an end", "not run") };
    for (number, word) in [(failed, "failed"), (run.running(), open), (not_run, left)] {
        if number > 0 {
            let _ = write!(text, ", {number} {word}");
        }
    }
    text
}

/// Returns the time between two moments, where both are known.
fn duration(start: Option<Timestamp>, end: Option<Timestamp>) -> Option<Duration> {
    Duration::try_from(end?.duration_since(start?)).ok()
}
