//! The patience with Rancher: what it says is waited for while it restarts, is busy, or tries again, and has an end.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::rotate::in_words;
use super::rotated::{Look, Shown};
use super::step::Turn;
use super::tries::Tries;
use super::{Execution, StepError, chain};
use crate::plan::CertificateBefore;
use crate::rancher::{Client, Cluster, RancherError, Rotation, rotation_state};

/// How often Rancher is asked how far it is.
pub(super) const RANCHER_INTERVAL: Duration = Duration::from_secs(1);

/// How long a pause between two questions gets that Rancher does not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long nodes may take at most to show what Rancher says that it has done: it has written to them by then.
const NODES_AFTER_WORD: Duration = Duration::from_secs(60);

/// How long they may take at least, however short the wait: one look at all of them takes seconds.
const NODES_AT_LEAST: Duration = Duration::from_secs(5);

/// A wait for Rancher.
#[derive(Clone, Copy)]
pub(super) struct Waiting<'a> {
    pub(super) turn: Turn<'a>,
    pub(super) client: &'a Client,
    pub(super) cluster_id: &'a str,
    /// The certificates that are to change.
    pub(super) before: &'a [CertificateBefore],
    pub(super) timeout: Duration,
    pub(super) deadline: Instant,
}

impl Waiting<'_> {
    /// Returns how long nodes may take to show what Rancher takes for done.
    fn patience_with_nodes(&self) -> Duration {
        (self.timeout / 20).clamp(NODES_AT_LEAST, NODES_AFTER_WORD)
    }
}

/// What a wait for Rancher ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// The rotation is finished.
    Finished,
    /// No rotation is asked for, and Rancher is not on its way with the cluster.
    Unchanging,
}

/// The pauses between questions that Rancher does not answer.
#[derive(Debug)]
pub(super) struct Pauses {
    next: Duration,
    since: Option<Timestamp>,
    said: String,
}

impl Pauses {
    pub(super) fn new() -> Self {
        Self { next: RANCHER_INTERVAL, since: None, said: String::new() }
    }

    /// Returns how long to wait after an error: what the server asks for, and longer from time to time.
    fn after(&mut self, error: &RancherError) -> Duration {
        let pause = self.next;
        self.next = (self.next * 2).min(LONGEST_PAUSE);
        match error {
            RancherError::Unavailable { retry_after: Some(asked), .. } => pause.max(*asked),
            _ => pause,
        }
    }
}

impl Execution<'_> {
    /// Waits until Rancher says that it is done, and nodes show it.
    pub(super) async fn wait_for_rancher(
        &self,
        waiting: &Waiting<'_>,
        until: Until,
    ) -> Result<(), StepError> {
        let Waiting { turn, client, cluster_id, timeout, deadline, .. } = *waiting;
        let mut tries = Tries::new(timeout);
        let mut last = String::new();
        let mut settled_since: Option<Instant> = None;
        loop {
            let cluster = self.persist(turn, deadline, || client.cluster(cluster_id)).await?;
            let message = match rotation_state(&cluster) {
                Rotation::Finished => return Ok(()),
                Rotation::Idle if until == Until::Unchanging && !cluster.is_being_changed() => return Ok(()),
                Rotation::Running { message } => {
                    tries.goes_on();
                    format!("Rancher: {}", or_waits(&message))
                }
                Rotation::Failing { message } => {
                    self.hear_of_failure(waiting, &mut tries, &cluster).await?;
                    format!("Rancher failed and tries again: {message}")
                }
                Rotation::Idle => state_of(&cluster),
            };
            if message != last {
                self.progress(turn, message.clone());
                last = message;
            }
            // Where it has done nothing a cluster whose certificates have expired stays unavailable, and is never called active.
            let is_settled = cluster.rotation_flag.is_none() && !cluster.is_being_changed();
            settled_since = settled_since.filter(|_| is_settled).or(is_settled.then(Instant::now));
            if settled_since.is_some_and(|since| since.elapsed() >= waiting.patience_with_nodes()) {
                let look = self.look_for_new(waiting.before).await;
                if let Shown::Old(old) = look.shown() {
                    return Err(not_seen(&look, &old));
                }
                settled_since = None;
            }
            if Instant::now() >= deadline {
                let what = format!("Rancher is not done after {}; its last word: {last}", in_words(timeout));
                let what =
                    format!("{what}; on the nodes {}", self.look_for_new(waiting.before).await.counts());
                return Err(StepError::new(what).hint(GOES_ON_TRYING));
            }
            if let Some(reason) = self.why_waits_end() {
                return Err(StepError::new(format!("{reason}; Rancher goes on by itself")));
            }
            self.run.operator.wait_unless_cancelled(RANCHER_INTERVAL).await;
        }
    }

    /// Looks at the nodes when Rancher has failed once more; a rotation that fails in the same way again and again is given up.
    async fn hear_of_failure(
        &self,
        waiting: &Waiting<'_>,
        tries: &mut Tries,
        cluster: &Cluster,
    ) -> Result<(), StepError> {
        let is_first = tries.is_empty();
        let times = match tries.fails(cluster, Instant::now()) {
            Some(times) if times > 1 || is_first => times,
            _ => return Ok(()),
        };
        let message = &cluster.transitioning_message;
        let on_nodes = self.look_for_new(waiting.before).await.counts();
        if Tries::are_endless(times) {
            let what = format!(
                "Rancher fails in the same way again and again, {times} times by now: {message}; on the nodes {on_nodes}"
            );
            return Err(StepError::new(what).hint(way_out(message)));
        }
        self.progress(waiting.turn, format!("Rancher failed {times}x: {message}; on the nodes {on_nodes}"));
        Ok(())
    }

    /// Waits until the nodes show what Rancher says that it has done: its word alone is not enough.
    pub(super) async fn see_on_nodes(&self, waiting: &Waiting<'_>) -> Result<Look, StepError> {
        let began = Instant::now();
        let patience = waiting.patience_with_nodes();
        loop {
            let look = self.look_for_new(waiting.before).await;
            let Shown::Old(old) = look.shown() else { return Ok(look) };
            if began.elapsed() >= patience {
                return Err(not_seen(&look, &old));
            }
            if let Some(reason) = self.why_waits_end() {
                return Err(StepError::new(reason));
            }
            self.progress(waiting.turn, format!("Rancher says that it is done; waiting for nodes: {old}"));
            self.run.operator.wait_unless_cancelled(RANCHER_INTERVAL.max(patience / 10)).await;
        }
    }

    /// Asks Rancher until it answers: it restarts at times, and is busy at others.
    pub(super) async fn persist<T, F>(
        &self,
        turn: Turn<'_>,
        deadline: Instant,
        ask: impl Fn() -> F,
    ) -> Result<T, StepError>
    where
        F: Future<Output = Result<T, RancherError>>,
    {
        let mut pauses = Pauses::new();
        loop {
            match ask().await {
                Ok(answer) => {
                    if let Some(since) = pauses.since {
                        let waited = self.run.clock.now().duration_since(since).as_secs();
                        self.progress(turn, format!("Rancher answers again, after {waited} s"));
                    }
                    return Ok(answer);
                }
                Err(error) => self.wait_out(turn, deadline, (&error, &mut pauses)).await?,
            }
        }
    }

    /// Waits after an error that may pass; any other one, and the end of all patience, is the step's.
    pub(super) async fn wait_out(
        &self,
        turn: Turn<'_>,
        deadline: Instant,
        (error, pauses): (&RancherError, &mut Pauses),
    ) -> Result<(), StepError> {
        if !error.is_transient() {
            return Err(in_the_middle(error));
        }
        let since = *pauses.since.get_or_insert_with(|| self.run.clock.now());
        let waits = format!("Rancher since {}: {}", since.strftime("%T UTC"), chain(error));
        if let Some(reason) = self.why_waits_end() {
            return Err(StepError::new(format!("{reason} while it waited for {waits}")));
        }
        let now = Instant::now();
        if now >= deadline {
            return Err(StepError {
                hint: error.hint(),
                ..StepError::new(format!("waited in vain for {waits}"))
            });
        }
        if pauses.said != waits {
            self.progress(turn, format!("waiting for {waits}"));
            pauses.said = waits;
        }
        let pause = pauses.after(error).min(deadline - now);
        self.run.operator.wait_unless_cancelled(pause).await;
        Ok(())
    }
}

/// Returns an error of Rancher's as that of a step.
pub(super) fn step_error(error: &RancherError) -> StepError {
    StepError { hint: error.hint(), ..StepError::new(chain(error)) }
}

/// Returns an error that ends a step which Rancher may have begun to carry out.
fn in_the_middle(error: &RancherError) -> StepError {
    let hint = match error {
        RancherError::Unauthorized(_) => {
            "the token has expired meanwhile, or was deleted: make a new one in Rancher under API & Keys"
                .to_owned()
        }
        error => error.hint().unwrap_or_else(|| "put that right".to_owned()),
    };
    step_error(error).hint(format!(
        "{hint}; `certroll apply --resume` goes on, and asks once more only where a rotation has not been made"
    ))
}

const GOES_ON_TRYING: &str = "Rancher goes on trying by itself; `certroll check` shows what the nodes have. Put right what it complains of, \
    then `certroll apply --resume`, which waits for it again; `--wait` of a new plan waits longer";

const LEFT_OUT: &str = "Rancher leaves nodes out without a word whose agent it does not reach, and Rancher 2.0 and 2.1 take it for done with \
    a cluster whose state they cannot read: look at these nodes' cattle-node-agent, then `certroll apply --resume` asks Rancher once more";

/// Returns the error of a rotation that Rancher takes for done and that nodes do not show.
fn not_seen(look: &Look, old: &str) -> StepError {
    StepError::new(format!("Rancher takes the rotation for done, but {}: {old}", look.counts()))
        .hint(LEFT_OUT)
}

/// Returns what to do about a rotation that fails without an end.
fn way_out(message: &str) -> String {
    let cause = if message.contains("CA Certificate or Key is empty") {
        "the first node that answers has no complete bundle in `.tmp`, which `certroll plan repair` shows and completes"
    } else if message.contains("can't find old certificates") {
        "Rancher has lost the state of the cluster, and finds none on the nodes: `certroll plan repair` completes what it looks for"
    } else {
        "put right what it complains of"
    };
    format!(
        "{cause}; then `certroll apply --resume` waits for Rancher's next try, which comes within 10 min and restarts components each time. \
         To end the tries, an administrator removes `rotateCertificates` from the cluster's `rancherKubernetesEngineConfig` (View in API, \
         Edit); then `--via direct --accept-rancher-revert` does without Rancher"
    )
}

/// Returns the state of a cluster that no rotation is asked of, with what Rancher says of it.
fn state_of(cluster: &Cluster) -> String {
    let state = format!("Rancher: the cluster is {}", cluster.state);
    match cluster.transitioning_message.as_str() {
        "" => state,
        message => format!("{state}: {message}"),
    }
}

/// Returns what Rancher says, or that it says nothing yet.
fn or_waits(message: &str) -> &str {
    if message.is_empty() { "the rotation is asked for, and has not begun" } else { message }
}
