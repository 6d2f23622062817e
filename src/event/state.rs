use jiff::Timestamp;

use super::{Event, EventKind, IssuedCertificate, Outcome, RunOutcome, StageOutline};
use crate::inventory::NodeName;
use crate::plan::{Procedure, StageName, StepId};

/// What the events of a run amount to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunState {
    /// The run's name.
    pub run: String,
    /// The cluster's name.
    pub cluster: String,
    /// Who ran it last, and where.
    pub owner: String,
    /// What it was to achieve, where its plan was read too.
    pub procedure: Option<Procedure>,
    /// The run that it takes back, where its plan was read too.
    pub undoes: Option<String>,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When the last event happened.
    pub last_at: Option<Timestamp>,
    /// The goes at it, the first one first; all that follows tells of the last one.
    pub attempts: Vec<Attempt>,
    /// The certificates that its attempts made, the latest last.
    pub issued: Vec<IssuedCertificate>,
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

/// One process's go at a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Counts from 1.
    pub number: u32,
    /// Who made it, and where.
    pub owner: String,
    /// The process.
    pub pid: Option<u32>,
    /// When it began.
    pub started_at: Timestamp,
    /// When its last event happened.
    pub last_at: Timestamp,
    /// How it ended; `None` while it goes on, or when it was killed.
    pub outcome: Option<RunOutcome>,
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
    /// Since when it says so; numbers in it do not make it new.
    pub message_since: Option<Timestamp>,
    /// How often it was tried again after a fault on the way.
    pub retries: u32,
    /// The first attempt in which it began.
    pub begun_in: Option<u32>,
    /// The last attempt in which it ended well.
    pub well_in: Option<u32>,
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
            EventKind::RunStarted { run, cluster, owner, pid, stages } => {
                run.clone_into(&mut self.run);
                cluster.clone_into(&mut self.cluster);
                self.started_at = Some(event.at);
                self.steps = stages.iter().flat_map(pending_steps).collect();
                stages.clone_into(&mut self.stages);
                self.begin_attempt(1, owner, *pid, event.at);
            }
            EventKind::RunResumed { run, cluster, attempt, owner, pid, stages } => {
                run.clone_into(&mut self.run);
                cluster.clone_into(&mut self.cluster);
                self.started_at = self.started_at.or(Some(event.at));
                let earlier = std::mem::take(&mut self.steps);
                self.steps = stages.iter().flat_map(pending_steps).collect();
                for step in &mut self.steps {
                    if let Some(same) = earlier.iter().find(|same| same.step == step.step) {
                        (step.begun_in, step.well_in) = (same.begun_in, same.well_in);
                    }
                }
                stages.clone_into(&mut self.stages);
                self.begin_attempt(*attempt, owner, Some(*pid), event.at);
            }
            EventKind::CertificatesIssued { certificates } => self.issued.extend_from_slice(certificates),
            EventKind::StepStarted { step, .. } => {
                let attempt = self.attempt();
                self.with_step(step, |state| {
                    state.started_at = Some(event.at);
                    state.begun_in = state.begun_in.or(Some(attempt));
                });
            }
            EventKind::StepProgress { step, message, .. } => {
                self.with_step(step, |state| state.says(message, event.at));
            }
            EventKind::StepRetried { step, attempt, attempts, error, .. } => self.with_step(step, |state| {
                state.retries += 1;
                state.says(&format!("{error}; try {attempt} of {attempts} follows"), event.at);
            }),
            EventKind::StepFinished { step, outcome, .. } => {
                let attempt = self.attempt();
                self.with_step(step, |state| {
                    state.finished_at = Some(event.at);
                    state.outcome = Some(outcome.clone());
                    if state.is_well() {
                        state.well_in = Some(attempt);
                    }
                });
            }
            EventKind::RunFinished { outcome, exit_status, .. } => {
                self.outcome = Some(*outcome);
                self.exit_status = Some(*exit_status);
            }
            EventKind::LockTaken { nodes } => nodes.clone_into(&mut self.locked),
            EventKind::LockReleased { nodes } => self.locked.retain(|node| !nodes.contains(node)),
            EventKind::StageStarted { .. }
            | EventKind::StageFinished { .. }
            | EventKind::DeadlineMissed { .. }
            | EventKind::WaitingForOperator { .. }
            | EventKind::LockLost { .. } => {}
        }
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.last_at = event.at;
            attempt.outcome = self.outcome;
        }
    }

    /// Begins an attempt: nothing of it has happened yet.
    fn begin_attempt(&mut self, number: u32, owner: &str, pid: Option<u32>, at: Timestamp) {
        owner.clone_into(&mut self.owner);
        self.outcome = None;
        self.exit_status = None;
        self.locked.clear();
        let owner = owner.to_owned();
        self.attempts.push(Attempt { number, owner, pid, started_at: at, last_at: at, outcome: None });
    }

    /// Returns the number of the last attempt; 0 before the first.
    pub fn attempt(&self) -> u32 {
        self.attempts.last().map_or(0, |attempt| attempt.number)
    }

    /// Returns whether the run needs nothing more.
    pub fn ended_well(&self) -> bool {
        self.outcome == Some(RunOutcome::Done)
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
        (done, failed, self.steps.len() - done - failed - self.running())
    }

    /// Returns how many steps began and have no end: they run, or were cut off.
    pub fn running(&self) -> usize {
        self.steps.iter().filter(|step| step.is_running()).count()
    }

    /// Changes the state of a step, if the run has it.
    fn with_step(&mut self, id: &StepId, change: impl FnOnce(&mut StepState)) {
        if let Some(state) = self.steps.iter_mut().find(|state| state.step == *id) {
            change(state);
        }
    }
}

impl StepState {
    /// Returns whether it ended well.
    pub fn is_well(&self) -> bool {
        matches!(self.outcome, Some(Outcome::Done { .. } | Outcome::Unneeded { .. }))
    }

    /// Returns whether what it does stands: it ended well, if only in an earlier attempt, and this one has not come to it since.
    pub fn stands(&self) -> bool {
        self.is_well() || (self.started_at.is_none() && self.well_in.is_some())
    }

    /// Returns whether it began and has no end: it runs, or was cut off.
    pub fn is_running(&self) -> bool {
        self.started_at.is_some() && self.outcome.is_none()
    }

    /// Takes in what the step says; it has said so since the first time that it said the same but for numbers.
    fn says(&mut self, message: &str, at: Timestamp) {
        let is_same = gist(&self.message).eq(gist(message));
        if !is_same || self.message_since.is_none() {
            self.message_since = Some(at);
        }
        message.clone_into(&mut self.message);
    }
}

/// Returns what a message says but for its numbers.
fn gist(message: &str) -> impl Iterator<Item = char> + '_ {
    message.chars().filter(|character| !character.is_ascii_digit())
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
        message_since: None,
        retries: 0,
        begun_in: None,
        well_in: None,
        outcome: None,
    };
    stage.steps.iter().map(pending).collect()
}
