//! An event is one thing that happened in a run: the product of `execute`, and everything that a display needs.
//!
//! The journal keeps events, [`RunState`] is their fold, and whoever draws only reads. Lifecycle events are never lost;
//! [`EventKind::StepProgress`] may be.

mod state;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::inventory::NodeName;
use crate::pki::Fingerprint;
use crate::plan::{Plan, StageName, StepId};

pub use state::{Attempt, RunState, StepState};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts from 1 within a run.
    pub sequence: u64,
    /// When.
    pub at: Timestamp,
    /// Milliseconds since the attempt began.
    pub elapsed_ms: u64,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// A run began; all its stages and steps are named, so that a display can draw the whole picture.
    RunStarted {
        /// The run.
        run: String,
        /// The cluster.
        cluster: String,
        /// The bastion's user and host.
        owner: String,
        /// The process.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<u32>,
        /// The stages with their steps.
        stages: Vec<StageOutline>,
    },
    /// A run that stopped goes on: a later attempt at it began, and every step has its turn again.
    RunResumed {
        /// The run.
        run: String,
        /// The cluster.
        cluster: String,
        /// Counts from 2 within a run.
        attempt: u32,
        /// The bastion's user and host.
        owner: String,
        /// The process.
        pid: u32,
        /// The stages with their steps.
        stages: Vec<StageOutline>,
    },
    /// New certificates were made. None is in use yet, and no private key is told.
    CertificatesIssued {
        /// What was made.
        certificates: Vec<IssuedCertificate>,
    },
    /// The lock was taken.
    LockTaken {
        /// The nodes that hold it.
        nodes: Vec<NodeName>,
    },
    /// The lock is not this run's any more: running steps end, no more begin.
    LockLost {
        /// Who has it, or why its lease has ended.
        reason: String,
    },
    /// The lock was given back.
    LockReleased {
        /// The nodes that held it.
        nodes: Vec<NodeName>,
    },
    /// A stage began.
    StageStarted {
        /// The stage.
        stage: StageName,
    },
    /// A step is about to have its effect.
    StepStarted {
        /// Its stage.
        stage: StageName,
        /// The step.
        step: StepId,
        /// Its node.
        node: Option<NodeName>,
    },
    /// A step says what it does now or waits for.
    StepProgress {
        /// Its stage.
        stage: StageName,
        /// The step.
        step: StepId,
        /// Its node.
        node: Option<NodeName>,
        /// What it does: a lower-case fragment.
        message: String,
    },
    /// A step met a fault on the way to its node that may pass, and is tried again after a pause.
    StepRetried {
        /// Its stage.
        stage: StageName,
        /// The step.
        step: StepId,
        /// Its node.
        node: Option<NodeName>,
        /// Which try comes next; the first one is 1.
        attempt: u32,
        /// How many tries there are at most.
        attempts: u32,
        /// What went wrong: a lower-case fragment.
        error: String,
        /// How long the pause is, in milliseconds.
        pause_ms: u64,
    },
    /// A stage would not end before the deadline: neither it nor anything after it begins.
    DeadlineMissed {
        /// The stage.
        stage: StageName,
        /// The deadline, in seconds from the start of the attempt.
        deadline_seconds: u64,
        /// How long the stage may take, in seconds.
        needed_seconds: u64,
    },
    /// The operator is asked to rotate.
    WaitingForOperator {
        /// The step.
        step: StepId,
        /// What is to be done.
        instructions: Vec<String>,
        /// Until when certroll waits.
        until: Timestamp,
    },
    /// A step ended.
    StepFinished {
        /// Its stage.
        stage: StageName,
        /// The step.
        step: StepId,
        /// Its node.
        node: Option<NodeName>,
        /// How.
        outcome: Outcome,
    },
    /// A stage ended.
    StageFinished {
        /// The stage.
        stage: StageName,
    },
    /// The run ended; nothing follows.
    RunFinished {
        /// The run.
        run: String,
        /// `done`, `failed` or `cancelled`.
        outcome: RunOutcome,
        /// How many steps ended well.
        done: usize,
        /// How many failed.
        failed: usize,
        /// How many were not run.
        not_run: usize,
        /// The exit status.
        exit_status: u8,
    },
}

/// A certificate that a run made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedCertificate {
    /// Its name (`kube-node`).
    pub name: String,
    /// What it is.
    pub sha256: Fingerprint,
    /// Until when it is valid.
    pub not_after: Timestamp,
}

/// A stage as the first event names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageOutline {
    /// The stage.
    pub stage: StageName,
    /// What it does.
    pub title: String,
    /// Its steps.
    pub steps: Vec<StepOutline>,
}

/// A step as the first event names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepOutline {
    /// The step.
    pub step: StepId,
    /// Its node.
    pub node: Option<NodeName>,
}

impl StageOutline {
    /// Returns the outline of every stage of a plan.
    pub fn of(plan: &Plan) -> Vec<Self> {
        let outline = |stage: &crate::plan::Stage| Self {
            stage: stage.name,
            title: stage.title.clone(),
            steps: stage
                .steps
                .iter()
                .map(|step| StepOutline { step: step.id.clone(), node: step.node.clone() })
                .collect(),
        };
        plan.stages.iter().map(outline).collect()
    }
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It ended well.
    Done {
        /// What it did: a lower-case fragment.
        message: String,
    },
    /// There was nothing to do.
    Unneeded {
        /// Why.
        message: String,
    },
    /// It failed.
    Failed {
        /// The cause: a lower-case fragment.
        error: String,
        /// The way out.
        hint: Option<String>,
    },
    /// It never began.
    NotRun {
        /// Why.
        reason: String,
    },
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// Everything is done.
    Done,
    /// Something failed.
    Failed,
    /// The operator stopped it.
    Cancelled,
}
