//! A deadline is until when a connection must be made; it moves while the operator or the agent is at it.
//!
//! The connector makes one for each attempt, and every step of the attempt is measured by it; a command has one, too, which stands still
//! while its output is waited with.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{Endpoint, Phase, TransportError};

/// Stands for no end at all, where a limit is longer than a clock can tell.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// The end of the time for one connection in the making, or for one command.
pub(super) struct Deadline {
    at: Endpoint,
    limit: Duration,
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    ends: Instant,
    /// Whether somebody else than the host is at it.
    stands_still: bool,
}

impl Deadline {
    /// Returns a deadline that begins to run.
    pub(super) fn start(at: &Endpoint, limit: Duration) -> Self {
        let state = State { ends: Instant::now() + limit.min(FOR_EVER), stands_still: false };
        Self { at: at.clone(), limit, state: watch::Sender::new(state) }
    }

    /// Returns how much time the host has taken so far.
    pub(super) fn spent(&self) -> Duration {
        self.limit.saturating_sub(self.state.borrow().ends.saturating_duration_since(Instant::now()))
    }

    /// Does what a host has a part in, as long as there is time.
    pub(super) async fn within<T>(
        &self,
        phase: Phase,
        work: impl Future<Output = T>,
    ) -> Result<T, TransportError> {
        let mut work = pin!(work);
        let mut changes = self.state.subscribe();
        loop {
            let State { ends, stands_still } = *changes.borrow_and_update();
            tokio::select! {
                result = &mut work => return Ok(result),
                () = sleep_until(ends), if !stands_still => {
                    return Err(TransportError::TimedOut { at: self.at.clone(), phase, limit: self.limit });
                }
                Ok(()) = changes.changed() => {}
            }
        }
    }

    /// Does what a person or the agent takes as long for as it takes: the host is not to blame.
    pub(super) async fn beside<T>(&self, work: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        self.state.send_modify(|state| state.stands_still = true);
        let result = work.await;
        self.state.send_modify(|state| {
            state.stands_still = false;
            state.ends += begun.elapsed();
        });
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deadline_may_be_for_ever() {
        let deadline = Deadline::start(&Endpoint::new("gate", 22), Duration::MAX);
        let work = deadline.beside(std::future::ready(5));
        assert_eq!(deadline.within(Phase::Channel, work).await.unwrap(), 5);
    }

    #[tokio::test]
    async fn time_stands_still_while_somebody_is_asked() {
        let deadline = Deadline::start(&Endpoint::new("gate", 22), Duration::from_millis(300));
        let asking = deadline.beside(tokio::time::sleep(Duration::from_millis(400)));
        deadline.within(Phase::Authentication, asking).await.unwrap();
        assert!(deadline.spent() < Duration::from_millis(300), "asking is not the host's time");
        let silence = deadline.within(Phase::Authentication, std::future::pending::<()>()).await;
        assert!(matches!(silence, Err(TransportError::TimedOut { .. })));
    }
}
