//! The fleet's clock: the instant that the options give, plus the time that has passed since.
//!
//! The fleet makes one and every node reads it, each with its own skew; the effects of a run are dated with it as well.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::boundary::{Boundaries, Turn};
use crate::inventory::NodeName;

/// A clock that begins at a chosen instant and a factor for every simulated duration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    base: Timestamp,
    begun: Instant,
    pace: f64,
}

impl Clock {
    /// Returns a clock that shows `base` now.
    pub(crate) fn new(base: Timestamp, pace: f64) -> Self {
        Self { base, begun: Instant::now(), pace: pace.clamp(0.0, 1.0) }
    }

    /// Returns the current instant.
    pub(crate) fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.begun.elapsed()).unwrap_or_default();
        self.base.saturating_add(passed).unwrap_or(self.base)
    }

    /// Returns whether time runs faster here than in a real cluster.
    pub(crate) fn is_fast(&self) -> bool {
        self.pace < 1.0
    }

    /// Returns how long something takes here that takes `seconds` in a real cluster.
    pub(crate) fn scaled(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64((seconds * self.pace).max(0.0))
    }
}

/// One change of a simulated node, in the order in which changes happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// When it happened.
    pub at: Timestamp,
    /// The node that it happened on.
    pub node: NodeName,
    /// What happened, for people: `create /etc/kubernetes/.tmp/kube-admin.pem`, `restart container etcd`.
    pub description: String,
    /// What of the cluster served then, where this could have changed it: while a container was down, or after a change of a
    /// certificate or key in place.
    pub serving: Option<Serving>,
}

/// How much of a cluster serves at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serving {
    /// The etcd members that run and whose pair their peers accept.
    pub etcd_members: usize,
    /// The API servers that answer well.
    pub api_servers: usize,
}

/// The changes of all nodes, in order.
#[derive(Debug)]
pub(crate) struct EffectLog {
    clock: Clock,
    effects: Mutex<Vec<Effect>>,
    pub(crate) boundaries: Boundaries,
}

impl EffectLog {
    /// Returns an empty log.
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, effects: Mutex::default(), boundaries: Boundaries::default() }
    }

    /// Asks whether a change happens that is about to.
    pub(crate) fn announce(&self) -> Turn {
        self.boundaries.announce()
    }

    /// Notes a change.
    pub(crate) fn push(&self, node: &NodeName, description: String) {
        self.push_serving(node, description, None);
    }

    /// Notes a change with what served while it happened.
    pub(crate) fn push_serving(&self, node: &NodeName, description: String, serving: Option<Serving>) {
        let effect = Effect { at: self.clock.now(), node: node.clone(), description, serving };
        lock(&self.effects).push(effect);
        self.boundaries.happened();
    }

    /// Returns how many changes there have been.
    pub(crate) fn count(&self) -> usize {
        lock(&self.effects).len()
    }

    /// Notes what served after the changes of a node from a number on that a filter picks; it is found out only where there are some.
    pub(crate) fn judge(
        &self,
        node: &NodeName,
        (since, picks): (usize, impl Fn(&str) -> bool),
        serving: impl FnOnce() -> Serving,
    ) {
        let wanted =
            |effect: &Effect| effect.node == *node && effect.serving.is_none() && picks(&effect.description);
        if !lock(&self.effects).iter().skip(since).any(wanted) {
            return;
        }
        let serving = serving();
        for effect in lock(&self.effects).iter_mut().skip(since).filter(|effect| wanted(effect)) {
            effect.serving = Some(serving);
        }
    }

    /// Returns every change so far.
    pub(crate) fn all(&self) -> Vec<Effect> {
        lock(&self.effects).clone()
    }

    /// Forgets what has happened: the layout of the files is where a fleet begins.
    pub(crate) fn clear(&self) {
        lock(&self.effects).clear();
        self.boundaries.clear();
    }
}

/// Locks a mutex; a panic elsewhere does not make a simulated node unusable.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
