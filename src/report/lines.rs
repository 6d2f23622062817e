//! A line is one event in words, for a log or a terminal that cannot redraw.
//!
//! The face writes one for each event when stderr is no terminal; the other reports share its way to write times and
//! text that came from elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::escape::shown;
use crate::event::{Event, EventKind, Outcome, RunOutcome};
use crate::inventory::NodeName;
use crate::plan::{StageName, StepId};

/// Writes a line for each event, and leaves out progress that says nothing new.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    last: BTreeMap<StepId, Said>,
}

/// What a step said last, but for its numbers: since when, and when a line told it.
#[derive(Debug, Clone)]
struct Said {
    gist: String,
    since: Timestamp,
    told: Timestamp,
}

/// How often a wait that says nothing new is told again, so that a log shows that it goes on.
const REMINDER: SignedDuration = SignedDuration::from_secs(30);

impl Lines {
    /// Returns the line of an event, without its end; `None` for progress that repeats what was said last of its step, until half a
    /// minute has gone.
    ///
    /// Numbers do not make a message new: `waiting for healthz, 38 s` follows `36 s` every few seconds.
    pub fn line(&mut self, event: &Event) -> Option<String> {
        if let EventKind::StepProgress { step, message, .. } = &event.kind {
            // What rke prints is told as it is: its lines differ by addresses.
            let is_kept = |character: &char| !character.is_ascii_digit() || message.starts_with("rke: ");
            let gist: String = message.chars().filter(is_kept).collect();
            match self.last.get_mut(step).filter(|said| said.gist == gist) {
                Some(said) if event.at.duration_since(said.told) < REMINDER => return None,
                Some(said) => {
                    said.told = event.at;
                    let waited = Duration::try_from(event.at.duration_since(said.since)).unwrap_or_default();
                    return Some(format!("{}, {}", line(event)?, elapsed(waited)));
                }
                None => {
                    let said = Said { gist, since: event.at, told: event.at };
                    self.last.insert(step.clone(), said);
                }
            }
        }
        line(event)
    }
}

/// Returns the line of an event, without its end: time, stage, node, and what happened.
///
/// `None` for the end of a stage, which the ends of its steps have told already.
pub fn line(event: &Event) -> Option<String> {
    let (place, what) = match &event.kind {
        EventKind::RunStarted { run, cluster, owner, stages, .. } => {
            let steps: usize = stages.iter().map(|stage| stage.steps.len()).sum();
            let what = format!("run {run} of {cluster} began: {steps} steps, for {owner}");
            (Place::default(), what)
        }
        EventKind::RunResumed { run, cluster, attempt, owner, stages, .. } => {
            let steps: usize = stages.iter().map(|stage| stage.steps.len()).sum();
            let what =
                format!("run {run} of {cluster} goes on, attempt {attempt}: {steps} steps, for {owner}");
            (Place::default(), what)
        }
        EventKind::CertificatesIssued { certificates } => {
            (Place::default(), format!("{} new certificates made; none is in use yet", certificates.len()))
        }
        EventKind::LockTaken { nodes } => (Place::default(), format!("lock taken on {}", names(nodes))),
        EventKind::LockLost { reason } => {
            (Place::default(), format!("the lock was lost, no more steps begin: {reason}"))
        }
        EventKind::LockReleased { nodes } => {
            let places = if nodes.is_empty() { "no node".to_owned() } else { names(nodes) };
            (Place::default(), format!("lock given back on {places}"))
        }
        EventKind::StageStarted { stage } => (Place { stage: Some(*stage), node: None }, "began".to_owned()),
        EventKind::StepStarted { stage, step, node } => {
            (Place::of(*stage, node.as_ref()), format!("{step} began"))
        }
        EventKind::StepProgress { stage, node, message, .. } => {
            (Place::of(*stage, node.as_ref()), message.clone())
        }
        EventKind::StepRetried { stage, node, attempt, attempts, error, pause_ms, .. } => {
            let pause = elapsed(Duration::from_millis(*pause_ms));
            let what = format!("{error}; try {attempt} of {attempts} follows in {pause}");
            (Place::of(*stage, node.as_ref()), what)
        }
        EventKind::DeadlineMissed { stage, deadline_seconds, needed_seconds } => {
            let [deadline, needed] =
                [deadline_seconds, needed_seconds].map(|seconds| elapsed(Duration::from_secs(*seconds)));
            let what =
                format!("not begun: it may take {needed}, and the deadline is {deadline} from the start");
            (Place { stage: Some(*stage), node: None }, what)
        }
        EventKind::WaitingForOperator { instructions, until, .. } => {
            let what = format!("waiting for you until {}: {}", time(*until), instructions.join("; "));
            (Place::default(), what)
        }
        EventKind::StepFinished { stage, node, outcome, .. } => {
            (Place::of(*stage, node.as_ref()), describe(outcome))
        }
        EventKind::StageFinished { .. } => return None,
        EventKind::RunFinished { run, outcome, done, failed, not_run, .. } => {
            let took = elapsed(Duration::from_millis(event.elapsed_ms));
            let word = outcome_word(*outcome);
            let what = format!(
                "run {run} {word} after {took}: {done} steps done, {failed} failed, {not_run} not run"
            );
            (Place::default(), what)
        }
    };
    let stage = place.stage.map_or("", StageName::as_str);
    let node = place.node.map_or("-", NodeName::as_str);
    let text = match (place.stage, place.node) {
        (None, None) => what,
        _ => format!("{stage:<13}  {node:<12}  {what}"),
    };
    Some(format!("{}  {}", time(event.at), shown(&text)))
}

/// Where something happened.
#[derive(Default)]
struct Place<'a> {
    stage: Option<StageName>,
    node: Option<&'a NodeName>,
}

impl<'a> Place<'a> {
    fn of(stage: StageName, node: Option<&'a NodeName>) -> Self {
        Self { stage: Some(stage), node }
    }
}

/// Returns how a step ended, in words.
fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done { message } => format!("done: {message}"),
        Outcome::Unneeded { message } => format!("nothing to do: {message}"),
        Outcome::Failed { error, hint: None } => format!("failed: {error}"),
        Outcome::Failed { error, hint: Some(hint) } => format!("failed: {error} (hint: {hint})"),
        Outcome::NotRun { reason } => format!("not run: {reason}"),
    }
}

/// Returns how a run ended, in a word.
pub(super) fn outcome_word(outcome: RunOutcome) -> &'static str {
    match outcome {
        RunOutcome::Done => "done",
        RunOutcome::Failed => "failed",
        RunOutcome::Cancelled => "cancelled",
    }
}

/// Returns the names of nodes with spaces between.
pub(super) fn names<'a>(nodes: impl IntoIterator<Item = &'a NodeName>) -> String {
    nodes.into_iter().map(NodeName::as_str).collect::<Vec<_>>().join(" ")
}

/// Returns the time of day.
pub(super) fn time(at: jiff::Timestamp) -> String {
    at.strftime("%H:%M:%S UTC").to_string()
}

/// Returns a length of time as people say it: `1.4 s`, `38 s`, `4 min 12 s`, `1 h 3 min`.
pub(super) fn elapsed(duration: Duration) -> String {
    match duration.as_secs() {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        seconds @ 10..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{event, failed_run, progress};

    #[test]
    fn every_event_is_one_line() {
        let mut lines = Lines::default();
        let text: Vec<String> = failed_run().iter().filter_map(|event| lines.line(event)).collect();
        insta::assert_snapshot!(text.join("\n"));
    }

    #[test]
    fn progress_that_says_the_same_again_is_left_out() {
        let mut lines = Lines::default();
        assert!(lines.line(&progress(1, "waiting for healthz, 2 s")).is_some());
        assert!(lines.line(&progress(2, "waiting for healthz, 14 s")).is_none());
        assert!(lines.line(&progress(3, "is healthy")).is_some());
    }

    #[test]
    fn a_wait_is_told_again_with_its_length() {
        let mut lines = Lines::default();
        let mut at = |seconds: u64| {
            let mut event = progress(1, "kubelet: waiting for healthz");
            event.at = crate::report::sample::at(seconds * 1000);
            lines.line(&event)
        };
        assert!(at(0).is_some());
        assert_eq!(at(29), None);
        assert!(at(38).unwrap().ends_with("kubelet: waiting for healthz, 38 s"));
        assert_eq!(at(40), None);
    }

    #[test]
    fn nothing_in_a_line_moves_the_cursor() {
        let line = line(&progress(1, "a\u{1b}[2Jb\nc\u{202e}d")).unwrap();
        assert!(line.ends_with(r"a\u{1b}[2Jb\nc\u{202e}d"), "{line}");
    }

    #[test]
    fn the_end_of_a_stage_needs_no_line() {
        assert_eq!(line(&event(1, 0, EventKind::StageFinished { stage: StageName::Backup })), None);
    }

    #[test]
    fn lengths_of_time_read_well() {
        let texts = [1400, 38_000, 252_000, 3_780_000]
            .map(|milliseconds| elapsed(Duration::from_millis(milliseconds)));
        assert_eq!(texts, ["1.4 s", "38 s", "4 min 12 s", "1 h 3 min"]);
    }
}
