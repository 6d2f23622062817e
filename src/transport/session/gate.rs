//! The gate counts the commands that run over one connection, and learns how many the host allows (`MaxSessions`).
//!
//! A session passes it before it opens a channel. Hosts do not tell their limit: it shows when one more is refused.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How many commands run over a connection, and how many may.
#[derive(Debug, Default)]
pub(super) struct Gate {
    count: Mutex<Count>,
    left: Notify,
}

#[derive(Debug, Default)]
struct Count {
    open: usize,
    /// How many have entered so far.
    entered: u64,
    /// How many the host allows, once it has refused one.
    limit: Option<usize>,
    /// When a command was last given up: the host may count it until its process has ended.
    abandoned: Option<Instant>,
}

/// What follows from a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is room when another one ends.
    OneTooMany,
    /// One that was given up may not have ended yet.
    StillEnding,
    /// The host does not want.
    Final,
}

impl Gate {
    /// Waits until there is room, and takes it.
    pub(super) async fn enter(self: &Arc<Self>) -> Slot {
        loop {
            let left = self.left.notified();
            if let Some(entry) = self.take() {
                return Slot { gate: Arc::clone(self), entry };
            }
            left.await;
        }
    }

    fn take(&self) -> Option<Entry> {
        let mut count = self.count();
        if count.limit.is_some_and(|limit| count.open >= limit) {
            return None;
        }
        let others = count.open;
        count.open += 1;
        count.entered += 1;
        Some(Entry { others, number: count.entered })
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        // Numbers are never half written.
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How it was when a command entered.
#[derive(Debug, Clone, Copy)]
struct Entry {
    others: usize,
    number: u64,
}

/// The room that one command takes; it is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    gate: Arc<Gate>,
    entry: Entry,
}

impl Slot {
    /// Notes that the host refused this one, gives the room back, and returns what is worth waiting for.
    ///
    /// Where no other has been open meanwhile and none was given up within `patience`, the host refuses for another reason.
    pub(super) fn was_refused(self, patience: Duration) -> Refusal {
        let mut count = self.gate.count();
        let others = count.open.saturating_sub(1);
        let is_ending = count.abandoned.is_some_and(|moment| moment.elapsed() < patience);
        if others > 0 {
            count.limit = Some(others);
            Refusal::OneTooMany
        } else if is_ending {
            Refusal::StillEnding
        } else if self.entry.others > 0 || count.entered > self.entry.number {
            // They have ended since the host refused: there is room now.
            Refusal::OneTooMany
        } else {
            Refusal::Final
        }
    }

    /// Gives the room of a command back that was given up, and that the host may still be busy with.
    pub(super) fn abandon(self) {
        self.gate.count().abandoned = Some(Instant::now());
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.gate.count().open -= 1;
        self.gate.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn a_command_that_was_given_up_is_waited_for() {
        let gate = Arc::new(Gate::default());
        gate.enter().await.abandon();
        assert_eq!(gate.enter().await.was_refused(PATIENCE), Refusal::StillEnding);
        assert_eq!(gate.enter().await.was_refused(Duration::ZERO), Refusal::Final);
    }

    #[tokio::test]
    async fn a_limit_is_learned_from_the_first_refusal() {
        let gate = Arc::new(Gate::default());
        let (first, second, third) = (gate.enter().await, gate.enter().await, gate.enter().await);
        assert_eq!(third.was_refused(PATIENCE), Refusal::OneTooMany);
        let mut waiting = Box::pin(gate.enter());
        assert!((&mut waiting).now_or_never().is_none(), "there is room for two alone");
        drop(first);
        let _fourth = waiting.now_or_never().unwrap();
        assert!(gate.enter().now_or_never().is_none());
        drop(second);
    }

    #[tokio::test]
    async fn a_refusal_that_is_heard_when_all_others_have_ended_is_none_for_good() {
        let gate = Arc::new(Gate::default());
        let (first, second) = (gate.enter().await, gate.enter().await);
        drop(first);
        assert_eq!(second.was_refused(Duration::ZERO), Refusal::OneTooMany);
        let (first, second) = (gate.enter().await, gate.enter().await);
        drop(second);
        assert_eq!(first.was_refused(Duration::ZERO), Refusal::OneTooMany);
        assert_eq!(gate.enter().await.was_refused(Duration::ZERO), Refusal::Final, "it is alone this time");
    }

    #[tokio::test]
    async fn a_refusal_of_the_only_one_is_not_a_limit() {
        let gate = Arc::new(Gate::default());
        assert_eq!(gate.enter().await.was_refused(PATIENCE), Refusal::Final);
        let _both = (gate.enter().await, gate.enter().await);
    }
}
