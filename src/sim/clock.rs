//! The fleet's clock: the instant that the options give, plus the time that has passed since.
//!
//! The fleet makes one and every node reads it, each with its own skew; the effects of a run are dated with it as well.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

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
    /// What happened, for people: `create /etc/kubernetes/.tmp/kube-admin.pem`.
    pub description: String,
}

/// The changes of all nodes, in order.
#[derive(Debug)]
pub(crate) struct EffectLog {
    clock: Clock,
    effects: Mutex<Vec<Effect>>,
}

impl EffectLog {
    /// Returns an empty log.
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, effects: Mutex::default() }
    }

    /// Notes a change.
    pub(crate) fn push(&self, node: &NodeName, description: String) {
        let effect = Effect { at: self.clock.now(), node: node.clone(), description };
        lock(&self.effects).push(effect);
    }

    /// Returns every change so far.
    pub(crate) fn all(&self) -> Vec<Effect> {
        lock(&self.effects).clone()
    }

    /// Forgets what has happened: the layout of the files is where a fleet begins.
    pub(crate) fn clear(&self) {
        lock(&self.effects).clear();
    }
}

/// Locks a mutex; a panic elsewhere does not make a simulated node unusable.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
