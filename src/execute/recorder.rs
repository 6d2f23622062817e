use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Clock;
use crate::event::{Event, EventKind, RunState};
use crate::journal::{History, Journal, JournalError};

/// Numbers events, keeps them in the journal, and tells whoever listens; in this order.
pub struct Recorder<'a> {
    clock: Clock,
    began: Instant,
    inner: Mutex<Inner<'a>>,
}

struct Inner<'a> {
    journal: Journal,
    state: RunState,
    sequence: u64,
    listen: &'a mut (dyn FnMut(&Event) + Send),
}

impl<'a> Recorder<'a> {
    /// Returns a recorder for a journal: it goes on where the journal ends, and its clock begins anew.
    pub fn new(journal: Journal, clock: Clock, listen: &'a mut (dyn FnMut(&Event) + Send)) -> Self {
        let History { state, sequence } = journal.history().clone();
        let inner = Inner { journal, state, sequence, listen };
        Self { clock, began: Instant::now(), inner: Mutex::new(inner) }
    }

    /// Records what happened, or is about to.
    pub fn record(&self, kind: EventKind) -> Result<(), JournalError> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        inner.sequence += 1;
        let elapsed_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let event = Event { sequence: inner.sequence, at: self.clock.now(), elapsed_ms, kind };
        inner.journal.append(&event)?;
        inner.state.apply(&event);
        (inner.listen)(&event);
        Ok(())
    }

    /// Returns how long the attempt has gone on.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Returns what the events amount to so far.
    pub fn state(&self) -> RunState {
        self.lock().state.clone()
    }

    /// A listener that panicked must not hide the journal from the others.
    fn lock(&self) -> MutexGuard<'_, Inner<'a>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
