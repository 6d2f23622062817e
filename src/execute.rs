//! The executor carries a plan out: stage after stage, node beside node, each step journalled before it has an effect.
//!
//! It is told what to do by the plan alone, looks again through `gather`, and tells what happens as events. It does not know
//! who draws them.

mod earlier;
mod files;
mod issuance;
mod lease;
mod lock;
mod patience;
mod prove;
mod prune;
mod recognition;
mod recorder;
mod restart;
mod restore;
mod rke;
mod rotate;
mod rotated;
mod state;
mod step;
mod switch;
mod tries;
mod verify;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::{Notify, OnceCell};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::event::{EventKind, Outcome, RunOutcome, RunState, StageOutline};
use crate::facts::{Facts, LockHolder};
use crate::gather::Gatherer;
use crate::inventory::NodeName;
use crate::journal::{Journal, JournalError};
use crate::kube::{ApiServer, Health};
use crate::pki::KeyPair;
use crate::plan::{Plan, Stage, StageName, Step, stage_seconds};
use crate::rancher;
use crate::transport::{Backoff, TransportError};
use earlier::Earlier;
use issuance::Issuance;
use lease::Lease;
use prove::NodeList;
use step::Peers;

pub use earlier::trail;
pub use lease::LeaseTimes;
pub use lock::{Claim, LockError, release as release_lock, take as take_lock};
pub use prune::prune_backups;
pub use recorder::Recorder;

/// What the operator can say while a run goes on; the face hears it.
#[derive(Debug, Default)]
pub struct Operator {
    cancelled: AtomicBool,
    cancellation: Notify,
    look_now: Notify,
}

impl Operator {
    /// Finishes running steps and starts no more (the first Ctrl-C).
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Says that the rotation was made by hand: it is looked for at once.
    pub fn look_now(&self) {
        self.look_now.notify_waiters();
    }

    /// Returns whether the run is to end.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// Has whoever waits look at once whether the run still goes on.
    fn wake(&self) {
        self.cancellation.notify_waiters();
        self.look_now.notify_waiters();
    }

    /// Waits for a time, or until the operator says something.
    async fn wait(&self, time: std::time::Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.look_now.notified() => {}
        }
    }

    /// Waits for a time, or until the run is to end.
    async fn wait_unless_cancelled(&self, time: std::time::Duration) {
        if self.is_cancelled() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.cancellation.notified() => {}
        }
    }
}

/// All that a run needs beside its plan.
pub struct Run {
    /// Who holds the lock: this run.
    pub holder: LockHolder,
    /// What is carried out.
    pub plan: Plan,
    /// What the plan was made from; of a run that goes on, what was seen before this attempt.
    pub facts: Facts,
    /// Looks at nodes, and connects to them.
    pub gatherer: Gatherer,
    /// Rancher, where it is known.
    pub rancher: Option<Rancher>,
    /// The time.
    pub clock: Clock,
    /// How many connections may be open at a time.
    pub parallel: usize,
    /// What the operator says.
    pub operator: Arc<Operator>,
    /// How the lock is kept.
    pub lease: LeaseTimes,
}

/// Rancher, and the cluster in it.
pub struct Rancher {
    /// Who asks.
    pub client: rancher::Client,
    /// The cluster's id.
    pub cluster_id: String,
}

/// A run that goes on.
struct Execution<'a> {
    run: &'a Run,
    recorder: &'a Recorder<'a>,
    /// What earlier attempts at this run did.
    earlier: Earlier,
    /// The kube-admin pair that this run made: one for all nodes.
    kube_admin: OnceCell<KeyPair>,
    /// When somebody else had made the last certificates: from then on the agents of the nodes have their time.
    rotated_at: Mutex<Option<Instant>>,
    /// The certificates that this run makes.
    issuance: Issuance,
    /// The connections to nodes that are asked while another one has its turn.
    peers: Peers,
    /// What the API said last about the nodes.
    node_list: NodeList,
    /// Whether the lock is still this run's.
    lease: Lease,
    /// Why nothing begins any more that would not end before the deadline; set once a stage does not fit.
    late: OnceLock<String>,
    /// Set when a step has failed: what has not begun does not begin any more.
    failed: AtomicBool,
}

/// Why a step failed, for people.
#[derive(Debug, Clone)]
pub(crate) struct StepError {
    /// The cause: a lower-case fragment.
    pub(crate) error: String,
    /// The way out.
    pub(crate) hint: Option<String>,
    /// Whether it may pass by itself.
    pub(crate) fault: Fault,
}

/// Whether what went wrong may pass by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It lay between here and the node.
    Passing,
    /// It stays until somebody puts it right.
    Lasting,
}

impl StepError {
    pub(crate) fn new(error: impl Into<String>) -> Self {
        Self { error: error.into(), hint: None, fault: Fault::Lasting }
    }

    /// Returns an error of a connection.
    pub(crate) fn of_transport(error: &TransportError) -> Self {
        let fault = if error.is_transient() { Fault::Passing } else { Fault::Lasting };
        Self { error: error.to_string(), hint: error.hint(), fault }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Carries a plan out and returns what came of it; every event is in the journal before `listen` hears of it.
///
/// A journal that holds an earlier attempt is gone on with: the same plan once more, from fresh facts. Each step recognises what it has
/// done already, and does the rest.
///
/// The lock must be held; it is given back at the end, whatever came of the run. An error means that the journal cannot be
/// written any more, and that nothing was begun after that. Dropping the future cuts running steps off, and the lock stays.
pub async fn execute(
    run: &Run,
    journal: Journal,
    listen: &mut (dyn FnMut(&crate::event::Event) + Send),
) -> Result<RunState, JournalError> {
    let earlier = Earlier::new(journal.history().state.clone());
    let recorder = Recorder::new(journal, run.clock, listen);
    let execution = Execution {
        run,
        recorder: &recorder,
        issuance: Issuance::begin(&run.plan, |name| !earlier.is_surely_in_use(&run.facts, name)),
        earlier,
        kube_admin: OnceCell::new(),
        rotated_at: Mutex::new(None),
        peers: Peers::default(),
        node_list: NodeList::default(),
        lease: Lease::new(run.lease, &run.plan.lock_nodes, run.clock.now()),
        late: OnceLock::new(),
        failed: AtomicBool::new(false),
    };
    recorder.record(execution.beginning())?;
    recorder.record(EventKind::LockTaken { nodes: run.plan.lock_nodes.clone() })?;
    let result = tokio::select! {
        result = execution.run_stages() => result,
        never = execution.keep_lease() => match never {},
    };
    execution.peers.close().await;
    let kept = lock::release(&run.gatherer, &run.facts, &run.plan.lock_nodes, &run.holder).await;
    result?;
    let nodes = run.plan.lock_nodes.iter().filter(|node| !kept.contains(node)).cloned().collect();
    recorder.record(EventKind::LockReleased { nodes })?;
    execution.finish()
}

impl Execution<'_> {
    /// Returns the event that begins this attempt.
    fn beginning(&self) -> EventKind {
        let Run { holder, plan, .. } = self.run;
        let (run, cluster, owner) = (holder.run.clone(), plan.cluster.clone(), holder.owner.clone());
        let stages = StageOutline::of(plan);
        match self.earlier.attempts() {
            0 => EventKind::RunStarted { run, cluster, owner, pid: Some(holder.pid), stages },
            attempts => {
                EventKind::RunResumed { run, cluster, attempt: attempts + 1, owner, pid: holder.pid, stages }
            }
        }
    }

    /// Runs the stages, one after the other.
    async fn run_stages(&self) -> Result<(), JournalError> {
        for stage in &self.run.plan.stages {
            self.run_stage(stage).await?;
        }
        Ok(())
    }

    /// Does what a step says; where the way to its node fails, again, as often as the plan says.
    async fn try_step(
        &self,
        stage: &Stage,
        step: &Step,
        seat: &mut step::Seat,
    ) -> Result<Result<Outcome, StepError>, JournalError> {
        let attempts = step.retry.attempts;
        let mut pauses = Backoff { attempts, pause: step.retry.pause }.pauses();
        let mut number = 1;
        loop {
            let turn = step::Turn { stage: stage.name, step, number };
            let error = match self.perform(turn, seat).await {
                Err(error) if error.fault == Fault::Passing && self.why_waits_end().is_none() => error,
                result => return Ok(result),
            };
            let Some(pause) = pauses.next() else { return Ok(Err(error)) };
            number += 1;
            self.recorder.record(EventKind::StepRetried {
                stage: stage.name,
                step: step.id.clone(),
                node: step.node.clone(),
                attempt: number,
                attempts,
                error: error.error.clone(),
                pause_ms: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            })?;
            self.run.operator.wait_unless_cancelled(pause).await;
            if self.why_waits_end().is_some() {
                return Ok(Err(error));
            }
        }
    }

    /// Says why a stage does not begin any more: it would not end before the deadline.
    fn misses_deadline(&self, stage: &Stage) -> Result<(), JournalError> {
        let Some(deadline) = self.run.plan.deadline.filter(|_| !self.is_stopping()) else { return Ok(()) };
        let (_, needed_seconds) = stage_seconds(stage);
        if self.recorder.elapsed() + Duration::from_secs(needed_seconds) <= deadline {
            return Ok(());
        }
        let deadline_seconds = deadline.as_secs();
        let reason = format!(
            "the deadline of {}: stage {} may take {}, and would not end before it",
            rotate::in_words(deadline),
            stage.name,
            rotate::in_words(Duration::from_secs(needed_seconds))
        );
        let _ = self.late.set(reason);
        self.recorder.record(EventKind::DeadlineMissed {
            stage: stage.name,
            deadline_seconds,
            needed_seconds,
        })
    }

    /// Runs a stage: the steps of a node one after the other, as many nodes side by side as the plan says.
    async fn run_stage(&self, stage: &Stage) -> Result<(), JournalError> {
        self.misses_deadline(stage)?;
        let begins = !self.is_stopping();
        if begins {
            self.recorder.record(EventKind::StageStarted { stage: stage.name })?;
        }
        let mut chains: Vec<(Option<&NodeName>, Vec<&Step>)> = Vec::new();
        let mut places: HashMap<Option<&NodeName>, usize> = HashMap::new();
        for step in &stage.steps {
            let place = *places.entry(step.node.as_ref()).or_insert_with(|| {
                chains.push((step.node.as_ref(), Vec::new()));
                chains.len() - 1
            });
            if let Some((_, steps)) = chains.get_mut(place) {
                steps.push(step);
            }
        }
        let width = match stage.name {
            // These wait for each other: a quorum comes back when all of them have had their turn.
            StageName::EtcdQuorum => stage.max_unavailable,
            _ => stage.max_unavailable.min(self.run.parallel).max(1),
        };
        let mut running = futures::stream::iter(chains)
            .map(|(node, steps)| self.run_chain(stage, node, steps))
            .buffer_unordered(width);
        while let Some(result) = running.next().await {
            result?;
        }
        if begins {
            self.recorder.record(EventKind::StageFinished { stage: stage.name })?;
        }
        Ok(())
    }

    /// Runs the steps of one node.
    async fn run_chain(
        &self,
        stage: &Stage,
        node: Option<&NodeName>,
        steps: Vec<&Step>,
    ) -> Result<(), JournalError> {
        let mut seat = step::Seat::default();
        let mut own_failure = node.and_then(|node| self.why_away(node));
        for planned in steps {
            let finished = |outcome| EventKind::StepFinished {
                stage: stage.name,
                step: planned.id.clone(),
                node: node.cloned(),
                outcome,
            };
            let lost = self.lost_lease().await.map(lock_lost);
            if let Some(reason) = own_failure.clone().or(lost).or_else(|| self.why_not_run()) {
                self.recorder.record(finished(Outcome::NotRun { reason }))?;
                continue;
            }
            self.recorder.record(EventKind::StepStarted {
                stage: stage.name,
                step: planned.id.clone(),
                node: node.cloned(),
            })?;
            let outcome = match self.try_step(stage, planned, &mut seat).await? {
                Ok(outcome) => outcome,
                Err(StepError { error, hint, .. }) => {
                    self.failed.store(true, Ordering::SeqCst);
                    own_failure = Some("an earlier step of this node failed".to_owned());
                    Outcome::Failed { error, hint }
                }
            };
            self.recorder.record(finished(outcome))?;
        }
        seat.close().await;
        Ok(())
    }

    /// Returns why nothing is done on a node: it could not be looked at before this attempt.
    fn why_away(&self, node: &NodeName) -> Option<String> {
        let unseen = self.run.facts.node(node)?.result.as_ref().err()?;
        Some(format!("the node cannot be looked at: {}", unseen.error))
    }

    /// Returns why a step does not begin any more.
    fn why_not_run(&self) -> Option<String> {
        if let Some(reason) = self.why_waits_end() {
            return Some(reason);
        }
        if let Some(reason) = self.late.get() {
            return Some(reason.clone());
        }
        let failed = self.failed.load(Ordering::SeqCst);
        failed.then(|| "a step on another node or of an earlier stage failed".to_owned())
    }

    /// Returns why a step does not wait any longer for what others do.
    fn why_waits_end(&self) -> Option<String> {
        if self.run.operator.is_cancelled() {
            return Some("the operator stopped the run".to_owned());
        }
        self.lease.lost().map(lock_lost)
    }

    fn is_stopping(&self) -> bool {
        self.why_not_run().is_some()
    }

    /// Records the end of the run.
    fn finish(self) -> Result<RunState, JournalError> {
        let (done, failed, not_run) = self.recorder.state().counts();
        let unhandled = self.run.plan.misses_nodes();
        let (outcome, exit_status) = match (failed, not_run, unhandled) {
            (0, 0, false) => (RunOutcome::Done, 0),
            (0, 0, true) => (RunOutcome::Done, 1),
            (_, _, _) if self.run.operator.is_cancelled() => (RunOutcome::Cancelled, 130),
            _ => (RunOutcome::Failed, 1),
        };
        let run = self.run.holder.run.clone();
        self.recorder.record(EventKind::RunFinished { run, outcome, done, failed, not_run, exit_status })?;
        Ok(self.recorder.state())
    }
}

/// Returns why a step ends or does not begin that has lost the lock.
fn lock_lost(reason: &str) -> String {
    format!("the lock was lost: {reason}")
}

/// Says what is wrong with an API server, asked by an administrator.
async fn answers_well(api: &ApiServer<'_>) -> Result<(), String> {
    match api.healthz().await {
        Ok(Health::Healthy) => Ok(()),
        Ok(Health::Answers) => {
            Err("GET https://127.0.0.1:6443/healthz: an administrator is refused".to_owned())
        }
        Ok(Health::Unhealthy(said)) => Err(format!("GET https://127.0.0.1:6443/healthz: {said}")),
        Err(error) => Err(chain(&error)),
    }
}

/// Returns an error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
