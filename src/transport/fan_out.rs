//! The fan-out works on many nodes at once, as many as its pace allows.
//!
//! `gather` and `exec` make one for their nodes. It holds no more than what is under way: items are taken when there is room for
//! them, and results are handed on as they come.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::Notify;

use super::connector::pause;
use super::pace::{Pace, Start};
use super::{Backoff, Session, Transport, TransportError};
use crate::inventory::Node;

/// How often a login is tried at a host that is known to turn some away for being too many.
const ATTEMPTS_IN_A_CROWD: usize = 20;

/// A login that takes less is never slow: that is a quarter of the time that one has by default.
const TOLERATED: Duration = Duration::from_millis(2500);

/// The work on many nodes over connections of one transport.
#[derive(Debug)]
pub struct FanOut {
    transport: Arc<Transport>,
    pace: Mutex<Pace>,
    /// Told when the limit rises.
    risen: Notify,
}

impl FanOut {
    /// Returns a fan-out with at most so many connections at a time.
    pub fn new(transport: Arc<Transport>, parallel: usize) -> Self {
        Self { transport, pace: Mutex::new(Pace::new(parallel, TOLERATED)), risen: Notify::new() }
    }

    /// Works on every item, and hands each result on as it comes.
    ///
    /// Each work holds at most one connection, from [`FanOut::connect`]. When the future is dropped, what is under way is dropped.
    pub async fn each<I, W: Future>(
        &self,
        items: impl IntoIterator<Item = I>,
        mut work: impl FnMut(I) -> W,
        mut done: impl FnMut(W::Output),
    ) {
        let mut items = items.into_iter().fuse();
        let mut running = FuturesUnordered::new();
        loop {
            let risen = self.risen.notified();
            let limit = self.pace().limit();
            while running.len() < limit
                && let Some(item) = items.next()
            {
                running.push(work(item));
            }
            tokio::select! {
                result = running.next() => match result {
                    Some(result) => done(result),
                    None => return,
                },
                () = risen => {}
            }
        }
    }

    /// Connects to a node as [`Transport::connect`] does, and lets the pace know how it went.
    pub async fn connect(&self, node: &Node) -> Result<Session, TransportError> {
        let (way, connector) = (self.transport.way_to(node)?, &self.transport.connector);
        let settings = &connector.settings;
        let mut pauses = settings.reconnect.pauses();
        // Pauses that do not grow: the crowd becomes smaller.
        let again = Backoff { attempts: 2, ..settings.reconnect };
        let mut crowd_pauses = (1..ATTEMPTS_IN_A_CROWD).flat_map(|_| again.pauses());
        let mut was_turned_away = false;
        loop {
            // Who connects to the jump hosts has tried again already.
            let passage = way.enter(connector).await?;
            let start = self.pace().begin();
            let error = match way.connect(connector, passage).await {
                Ok(session) => {
                    self.note(start, session.login_took(), was_turned_away);
                    return Ok(session);
                }
                Err(error) => error,
            };
            let is_turned_away = error.is_turned_away();
            if is_turned_away {
                was_turned_away = true;
                self.pace().turned_away(start);
            }
            let waited = if is_turned_away && self.pace().is_crowded() {
                pause(&mut crowd_pauses, error).await
            } else {
                pause(&mut pauses, error).await
            };
            if let Err(error) = waited {
                if was_turned_away {
                    self.pace().never_let_in();
                    self.risen.notify_one();
                }
                return Err(error);
            }
        }
    }

    /// Notes a login that succeeded.
    fn note(&self, start: Start, took: Duration, was_turned_away: bool) {
        let has_risen = {
            let mut pace = self.pace();
            let before = pace.limit();
            if was_turned_away {
                pace.let_in_later();
            }
            pace.answered(start, took);
            pace.limit() > before
        };
        if has_risen {
            self.risen.notify_one();
        }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        // Every change of it is whole.
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
