use jiff::Timestamp;

use super::{Event, EventKind, Outcome, RunOutcome, StageOutline};
use crate::inventory::NodeName;
use crate::plan::{StageName, StepId};

/// What the events of a run amount to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunState {
    /// The run's name.
    pub run: String,
    /// The cluster's name.
    pub cluster: String,
    /// Who ran it, and where.
    pub owner: String,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When the last event happened.
    pub last_at: Option<Timestamp>,
    /// Its stages.
    pub stages: Vec<StageOutline>,
    /// Its steps, in the order of the plan.
    pub steps: Vec<StepState>,
    /// The nodes that hold its lock.
    pub locked: Vec<NodeName>,
    /// How it ended; `None` while it runs, or when it was killed.
    pub outcome: Option<RunOutcome>,
    /// The exit status that it ended with.
    pub exit_status: Option<u8>,
}

/// What happened to a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepState {
    /// The step.
    pub step: StepId,
    /// Its stage.
    pub stage: StageName,
    /// Its node.
    pub node: Option<NodeName>,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// What it does or waits for, in its own words.
    pub message: String,
    /// How it ended.
    pub outcome: Option<Outcome>,
}

impl RunState {
    /// Returns what a sequence of events amounts to.
    pub fn of<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        events.into_iter().fold(Self::default(), |mut state, event| {
            state.apply(event);
            state
        })
    }

    /// Takes one more event in.
    pub fn apply(&mut self, event: &Event) {
        self.last_at = Some(event.at);
        match &event.kind {
            EventKind::RunStarted { run, cluster, owner, stages } => {
                run.clone_into(&mut self.run);
                cluster.clone_into(&mut self.cluster);
                owner.clone_into(&mut self.owner);
                self.started_at = Some(event.at);
                self.steps = stages.iter().flat_map(pending_steps).collect();
                stages.clone_into(&mut self.stages);
            }
            EventKind::StepStarted { step, .. } => {
                self.with_step(step, |state| state.started_at = Some(event.at));
            }
            EventKind::StepProgress { step, message, .. } => {
                self.with_step(step, |state| message.clone_into(&mut state.message));
            }
            EventKind::StepFinished { step, outcome, .. } => self.with_step(step, |state| {
                state.finished_at = Some(event.at);
                state.outcome = Some(outcome.clone());
            }),
            EventKind::RunFinished { outcome, exit_status, .. } => {
                self.outcome = Some(*outcome);
                self.exit_status = Some(*exit_status);
            }
            EventKind::LockTaken { nodes } => nodes.clone_into(&mut self.locked),
            EventKind::LockReleased { nodes } => self.locked.retain(|node| !nodes.contains(node)),
            EventKind::StageStarted { .. }
            | EventKind::StageFinished { .. }
            | EventKind::WaitingForOperator { .. }
            | EventKind::LockLost { .. } => {}
        }
    }

    /// Returns the steps of a stage.
    pub fn steps_of(&self, stage: StageName) -> impl Iterator<Item = &StepState> {
        self.steps.iter().filter(move |step| step.stage == stage)
    }

    /// Returns whether a step of a stage has begun.
    pub fn has_begun(&self, stage: StageName) -> bool {
        self.steps_of(stage).any(|step| step.started_at.is_some())
    }

    /// Returns how many steps ended well, failed, and were not run.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count = |wanted: fn(&Outcome) -> bool| {
            self.steps.iter().filter(|step| step.outcome.as_ref().is_some_and(wanted)).count()
        };
        let done = count(|outcome| matches!(outcome, Outcome::Done { .. } | Outcome::Unneeded { .. }));
        let failed = count(|outcome| matches!(outcome, Outcome::Failed { .. }));
        (done, failed, self.steps.len() - done - failed)
    }

    /// Changes the state of a step, if the run has it.
    fn with_step(&mut self, id: &StepId, change: impl FnOnce(&mut StepState)) {
        if let Some(state) = self.steps.iter_mut().find(|state| state.step == *id) {
            change(state);
        }
    }
}

/// Returns the steps of a stage, none of them begun.
fn pending_steps(stage: &StageOutline) -> Vec<StepState> {
    let pending = |step: &super::StepOutline| StepState {
        step: step.step.clone(),
        stage: stage.stage,
        node: step.node.clone(),
        started_at: None,
        finished_at: None,
        message: String::new(),
        outcome: None,
    };
    stage.steps.iter().map(pending).collect()
}
