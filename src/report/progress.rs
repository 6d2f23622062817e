//! Progress is the picture of something under way that is redrawn in place on a terminal.
//!
//! The face feeds it with events and with the time; it draws to stderr alone. This is the one file that knows the library of
//! the bars: the picture itself is made of plain rows, cut to the terminal's width.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use console::{Term, truncate_str};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;

use super::lines::{elapsed, time};
use crate::escape::{guarded, shown};
use crate::event::{Event, EventKind, Outcome, RunState, StageOutline, StepState};
use crate::inventory::NodeName;
use crate::plan::StepId;

/// How many rows of single nodes are shown; more would push the stages off a terminal of 24 rows.
const DETAIL_ROWS: usize = 8;

/// How many cells the bar of a stage has.
const BAR_CELLS: usize = 20;

/// The pictures of the spinner.
const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

/// Draws a run: a row a stage, and under the one that runs the nodes that it waits for.
#[derive(Debug)]
pub struct Bars {
    canvas: Canvas,
    state: RunState,
    /// The step that waits for the operator, what is to be done, and until when.
    waiting: Option<(StepId, Vec<String>, Timestamp)>,
    now: Option<Timestamp>,
    turn: usize,
}

impl Bars {
    /// Returns bars on stderr.
    pub fn on_stderr() -> Self {
        Self::on(Canvas::on_stderr())
    }

    fn on(canvas: Canvas) -> Self {
        Self { canvas, state: RunState::default(), waiting: None, now: None, turn: 0 }
    }

    /// Takes an event in and redraws.
    pub fn apply(&mut self, event: &Event) {
        self.take(event);
        self.draw();
    }

    fn take(&mut self, event: &Event) {
        self.state.apply(event);
        match &event.kind {
            EventKind::WaitingForOperator { step, instructions, until } => {
                self.waiting = Some((step.clone(), instructions.clone(), *until));
            }
            EventKind::StepFinished { step, .. }
                if self.waiting.as_ref().is_some_and(|(waiting, ..)| waiting == step) =>
            {
                self.waiting = None;
            }
            _ => {}
        }
        self.now = self.now.max(Some(event.at));
    }

    /// Redraws for a time of day; the face calls it some times a second.
    pub fn tick(&mut self, now: Timestamp) {
        self.turn = self.turn.wrapping_add(1);
        self.now = self.now.max(Some(now));
        self.draw();
    }

    /// Writes a message above the bars.
    pub fn println(&self, message: &str) {
        self.canvas.bar.println(guarded(message).as_ref());
    }

    /// Takes the bars away while something else uses the terminal.
    pub fn suspend<R>(&self, work: impl FnOnce() -> R) -> R {
        self.canvas.bar.suspend(work)
    }

    /// Draws for the last time and leaves the picture where it is.
    pub fn finish(self) {
        let rows = self.rows();
        self.canvas.leave(&rows);
    }

    fn draw(&self) {
        self.canvas.draw(&self.rows());
    }

    /// Returns the picture.
    fn rows(&self) -> Vec<String> {
        let started_at = self.state.attempts.last().map(|attempt| attempt.started_at);
        let Some((started_at, now)) = started_at.zip(self.now) else { return Vec::new() };
        let mut rows = Vec::new();
        let mut pending = Vec::new();
        let width =
            self.state.stages.iter().map(|stage| stage.stage.as_str().len()).max().unwrap_or_default();
        for stage in &self.state.stages {
            let tally = Tally::of(&self.state, stage, now);
            if tally.phase == Phase::Pending {
                pending.push(format!("· {}  ", stage.stage));
                continue;
            }
            rows.push(format!(
                "  {} {:<width$}  {}",
                self.symbol(tally.phase),
                stage.stage.as_str(),
                tally.text()
            ));
            if tally.phase == Phase::Running {
                rows.extend(self.details(stage, now).into_iter().map(|row| format!("      {row}")));
            }
        }
        rows.push(format!("  {}{} since start", pending.concat(), elapsed(between(started_at, now))));
        rows
    }

    /// Returns the sign in front of a stage.
    fn symbol(&self, phase: Phase) -> char {
        match phase {
            Phase::Pending | Phase::NotRun => '·',
            Phase::Running => SPINNER.get(self.turn % SPINNER.len()).copied().unwrap_or('*'),
            Phase::Done => '✓',
            Phase::Failed => '✗',
        }
    }

    /// Returns rows for what failed, and for what is busy longest.
    fn details(&self, stage: &StageOutline, now: Timestamp) -> Vec<String> {
        let mut worth_showing: Vec<&StepState> =
            self.state.steps_of(stage.stage).filter(|step| is_busy(step) || has_failed(step)).collect();
        worth_showing.sort_by_key(|step| (!has_failed(step), step.started_at));
        let mut rows: Vec<String> = worth_showing.iter().flat_map(|step| self.detail(step, now)).collect();
        if rows.len() > DETAIL_ROWS {
            let hidden = rows.len() - (DETAIL_ROWS - 1);
            rows.truncate(DETAIL_ROWS - 1);
            rows.push(format!("and {hidden} more"));
        }
        rows
    }

    /// Returns the rows of a step: what it does, for how long; or what the operator is asked to do.
    fn detail(&self, step: &StepState, now: Timestamp) -> Vec<String> {
        let node = step.node.as_ref().map_or("cluster", NodeName::as_str);
        if let Some(Outcome::Failed { error, .. }) = &step.outcome {
            return vec![format!("{node}  failed: {error}")];
        }
        let since = step.message_since.or(step.started_at);
        let busy = since.map(|since| elapsed(between(since, now))).unwrap_or_default();
        let message = if step.message.is_empty() { "working" } else { &step.message };
        let mut rows = vec![format!("{node}  {message}, {busy}")];
        if let Some((_, instructions, until)) =
            self.waiting.as_ref().filter(|(waiting, ..)| *waiting == step.step)
        {
            rows.push(format!("waiting for you until {}:", time(*until)));
            rows.extend(instructions.iter().map(|instruction| format!("- {instruction}")));
        }
        rows
    }
}

/// How far a stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Pending,
    Running,
    Done,
    Failed,
    NotRun,
}

/// The numbers of a stage.
struct Tally {
    phase: Phase,
    steps: usize,
    done: usize,
    failed: usize,
    took: Duration,
}

impl Tally {
    fn of(state: &RunState, outline: &StageOutline, now: Timestamp) -> Self {
        let steps: Vec<&StepState> = state.steps_of(outline.stage).collect();
        let count = |wanted: fn(&StepState) -> bool| steps.iter().filter(|step| wanted(step)).count();
        let (done, failed) = (count(is_done), count(has_failed));
        let ended = count(|step| step.outcome.is_some());
        let started_at = steps.iter().filter_map(|step| step.started_at).min();
        let phase = match (started_at, ended == steps.len()) {
            (None, true) if done + failed == 0 => Phase::NotRun,
            (None, false) => Phase::Pending,
            (Some(_), false) if state.outcome.is_none() => Phase::Running,
            _ if done == steps.len() => Phase::Done,
            _ => Phase::Failed,
        };
        let last = steps.iter().filter_map(|step| step.finished_at).max();
        let end = if phase == Phase::Running { now } else { last.unwrap_or(now) };
        let took = started_at.map(|start| between(start, end)).unwrap_or_default();
        Self { phase, steps: steps.len(), done, failed, took }
    }

    fn text(&self) -> String {
        if self.phase == Phase::NotRun {
            return "not run".to_owned();
        }
        let digits = self.steps.to_string().len();
        let mut text = format!("{:>digits$}/{}  {}", self.done, self.steps, elapsed(self.took));
        if self.failed > 0 {
            let _ = write!(text, "  {} failed", self.failed);
        }
        if self.phase == Phase::Running && self.steps > 1 {
            let filled = BAR_CELLS * self.done / self.steps;
            return format!("{}{}  {text}", "━".repeat(filled), "─".repeat(BAR_CELLS - filled));
        }
        text
    }
}

fn is_done(step: &StepState) -> bool {
    matches!(step.outcome, Some(Outcome::Done { .. } | Outcome::Unneeded { .. }))
}

fn has_failed(step: &StepState) -> bool {
    matches!(step.outcome, Some(Outcome::Failed { .. }))
}

fn is_busy(step: &StepState) -> bool {
    step.started_at.is_some() && step.outcome.is_none()
}

/// Returns how long it is from one time to another; nothing where the clock went back.
fn between(start: Timestamp, end: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(start)).unwrap_or_default()
}

/// Draws how many nodes have been looked at.
#[derive(Debug)]
pub struct Looking {
    canvas: Canvas,
    doing: &'static str,
}

impl Looking {
    /// Returns a bar on stderr.
    pub fn on_stderr() -> Self {
        Self::doing("looking")
    }

    /// Returns a bar on stderr for something else that is done on every node.
    pub fn doing(doing: &'static str) -> Self {
        Self { canvas: Canvas::on_stderr(), doing }
    }

    /// Shows that so many nodes of all have been looked at, and which one was the last.
    pub fn seen(&self, done: usize, total: usize, name: &NodeName) {
        let filled = BAR_CELLS * done.min(total) / total.max(1);
        let bar = format!("{}{}", "━".repeat(filled), "─".repeat(BAR_CELLS - filled));
        self.canvas.draw(&[format!("  {}  {bar}  {done}/{total} nodes  {name}", self.doing)]);
    }

    /// Writes a message above the bar.
    pub fn println(&self, message: &str) {
        self.canvas.bar.println(guarded(message).as_ref());
    }

    /// Takes the bar away while something else uses the terminal.
    pub fn suspend<R>(&self, work: impl FnOnce() -> R) -> R {
        self.canvas.bar.suspend(work)
    }

    /// Takes the bar away.
    pub fn finish(self) {
        self.clear();
    }

    /// Takes the bar away for others that hold it, too.
    pub fn clear(&self) {
        self.canvas.bar.finish_and_clear();
    }
}

/// Rows that are redrawn in place: one bar whose message is the whole picture, so that no half of it is ever seen.
#[derive(Debug)]
struct Canvas {
    bar: ProgressBar,
    width: Width,
}

/// Where the width of the rows comes from.
#[derive(Debug)]
enum Width {
    /// The terminal, which a person may resize at any time.
    Of(Term),
    /// A number of columns.
    #[cfg(test)]
    Columns(usize),
}

/// The rows on the terminal, for whoever asks something there.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Whether the terminal belongs to somebody else; then nothing is drawn, and nobody waits to draw.
static ASIDE: AtomicBool = AtomicBool::new(false);

/// Takes away what is drawn while a question stands on the terminal.
pub fn aside<R>(question: impl FnOnce() -> R) -> R {
    ASIDE.store(true, Ordering::Release);
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let answer = match shown {
        Some(bar) => bar.suspend(question),
        None => question(),
    };
    ASIDE.store(false, Ordering::Release);
    answer
}

impl Drop for Canvas {
    fn drop(&mut self) {
        if matches!(self.width, Width::Of(_)) {
            *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

impl Canvas {
    fn on_stderr() -> Self {
        let canvas = Self::new(ProgressDrawTarget::stderr(), Width::Of(Term::stderr()));
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(canvas.bar.clone());
        canvas
    }

    fn new(target: ProgressDrawTarget, width: Width) -> Self {
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        Self { bar, width }
    }

    fn draw(&self, rows: &[String]) {
        if !ASIDE.load(Ordering::Acquire) {
            self.bar.set_message(self.picture(rows));
        }
    }

    fn leave(&self, rows: &[String]) {
        self.bar.abandon_with_message(self.picture(rows));
    }

    /// Returns rows that do not wrap and hold nothing that moves the cursor.
    fn picture(&self, rows: &[String]) -> String {
        let width = match &self.width {
            Width::Of(terminal) => usize::from(terminal.size().1),
            #[cfg(test)]
            Width::Columns(columns) => *columns,
        };
        let row = |row: &String| truncate_str(&shown(row), width.saturating_sub(1), "…").into_owned();
        rows.iter().map(row).collect::<Vec<_>>().join("\n")
    }
}

/// Returns the columns of the terminal behind stdout, where there is one.
pub fn terminal_width() -> Option<u16> {
    Term::stdout().size_checked().map(|(_, columns)| columns)
}

#[cfg(test)]
mod tests {
    use indicatif::InMemoryTerm;

    use super::*;
    use crate::event::StepOutline;
    use crate::plan::StageName;
    use crate::report::sample::{at, event, failed_run, operator_run, progress};

    fn bars(terminal: &InMemoryTerm, columns: u16) -> Bars {
        // The library leaves out redraws that come too fast, so the tests take their events in first and draw once.
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        Bars::on(Canvas::new(target, Width::Columns(usize::from(columns))))
    }

    #[test]
    fn stages_and_the_nodes_that_are_waited_for_are_drawn() {
        let terminal = InMemoryTerm::new(24, 80);
        let mut bars = bars(&terminal, 80);
        for event in failed_run().iter().filter(|event| event.elapsed_ms <= 60_000) {
            bars.take(event);
        }
        bars.tick(at(98_000));
        insta::assert_snapshot!(terminal.contents());
    }

    #[test]
    fn the_last_picture_stays() {
        let terminal = InMemoryTerm::new(24, 80);
        let mut bars = bars(&terminal, 80);
        for event in &failed_run() {
            bars.take(event);
        }
        bars.finish();
        insta::assert_snapshot!(terminal.contents());
    }

    #[test]
    fn the_operator_sees_what_to_do() {
        let terminal = InMemoryTerm::new(24, 80);
        let mut bars = bars(&terminal, 80);
        for event in &operator_run() {
            bars.take(event);
        }
        bars.tick(at(5_000));
        insta::assert_snapshot!(terminal.contents());
    }

    #[test]
    fn five_hundred_nodes_fit_a_small_terminal() {
        let terminal = InMemoryTerm::new(24, 60);
        let mut bars = bars(&terminal, 60);
        let step = |number: usize| StepOutline {
            step: StepId(format!("workers/w-{number}/1")),
            node: Some(NodeName::new(format!("w-{number}"))),
        };
        let steps: Vec<StepOutline> = (1..=500).map(step).collect();
        let outline = StageOutline { stage: StageName::Workers, title: String::new(), steps: steps.clone() };
        let started = EventKind::RunStarted {
            run: "20261121-190502-7f3a".to_owned(),
            cluster: "prod".to_owned(),
            owner: "ops@bastion".to_owned(),
            pid: Some(4711),
            stages: vec![outline],
        };
        bars.take(&event(1, 0, started));
        for (number, StepOutline { step, node }) in (1_u64..).zip(steps) {
            let stage = StageName::Workers;
            let begun = EventKind::StepStarted { stage, step: step.clone(), node: node.clone() };
            bars.take(&event(number * 2, number * 100, begun));
            if number <= 440 {
                let outcome = Outcome::Done { message: "restarted".to_owned() };
                let ended = EventKind::StepFinished { stage, step, node, outcome };
                bars.take(&event(number * 2 + 1, number * 100 + 50, ended));
            }
        }
        bars.tick(at(90_000));
        insta::assert_snapshot!(terminal.contents());
    }

    #[test]
    fn what_a_node_says_cannot_move_the_cursor_or_wrap() {
        let terminal = InMemoryTerm::new(24, 60);
        let mut bars = bars(&terminal, 60);
        for event in failed_run().iter().filter(|event| event.elapsed_ms <= 60_000) {
            bars.take(event);
        }
        bars.apply(&progress(99, &format!("\u{1b}[2J{}", "x".repeat(200))));
        let contents = terminal.contents();
        assert!(contents.contains(r"\u{1b}[2Jxxx"), "{contents}");
        assert!(contents.lines().all(|line| line.chars().count() < 60), "{contents}");
        assert!(contents.contains('…'), "{contents}");
    }

    #[test]
    fn looking_counts_the_nodes() {
        let terminal = InMemoryTerm::new(24, 80);
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let looking = Looking { canvas: Canvas::new(target, Width::Columns(80)), doing: "looking" };
        looking.seen(3, 8, &NodeName::new("w-1"));
        assert_eq!(terminal.contents(), "  looking  ━━━━━━━─────────────  3/8 nodes  w-1");
        looking.finish();
        assert_eq!(terminal.contents(), "");
    }
}
