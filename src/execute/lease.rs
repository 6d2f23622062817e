//! The lease of a run on its lock: renewed on every node that holds it for as long as the run goes on.
//!
//! A run that cannot show any more that it is alive may lose its lock to another one, so it begins nothing new then.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};

use super::lock::{LockError, renew};
use super::{Execution, chain};
use crate::event::EventKind;
use crate::facts::LEASE;
use crate::inventory::NodeName;

/// How often a lease is renewed, and how long it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTimes {
    /// How often it is renewed on each node: three may be missed before it ends.
    pub renewed_every: Duration,
    /// How long it lasts; the nodes judge a lease of others by [`LEASE`].
    pub lasts: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self { renewed_every: Duration::from_secs(20), lasts: LEASE }
    }
}

/// What is known of the lease on one node.
#[derive(Debug, Clone)]
struct Renewal {
    /// When it was renewed last.
    at: Instant,
    /// The same by the time of day, which goes on while a laptop sleeps.
    on: Timestamp,
    /// Why it could not be renewed since.
    error: Option<String>,
}

/// The lease of a run.
#[derive(Debug)]
pub(super) struct Lease {
    times: LeaseTimes,
    renewals: Mutex<BTreeMap<NodeName, Renewal>>,
    lost: OnceLock<String>,
}

impl Lease {
    /// Returns the lease of a lock that was taken just now.
    pub(super) fn new(times: LeaseTimes, nodes: &[NodeName], now: Timestamp) -> Self {
        let renewal = Renewal { at: Instant::now(), on: now, error: None };
        let renewals = nodes.iter().map(|node| (node.clone(), renewal.clone())).collect();
        Self { times, renewals: Mutex::new(renewals), lost: OnceLock::new() }
    }

    /// Returns why the lease is lost, if it is.
    pub(super) fn lost(&self) -> Option<&str> {
        self.lost.get().map(String::as_str)
    }

    /// Returns the nodes on which it was not renewed for a time, with the last error of one of them.
    fn overdue(&self, limit: Duration, now: (Instant, Timestamp)) -> (Vec<NodeName>, Option<String>) {
        let renewals = self.renewals();
        let mut overdue = renewals.iter().filter(|(_, renewal)| renewal.age(now) > limit);
        let names = overdue.clone().map(|(node, _)| node.clone()).collect();
        (names, overdue.find_map(|(_, renewal)| renewal.error.clone()))
    }

    /// Says why the lease has ended by itself: it was not renewed on most of its nodes for as long as it lasts.
    ///
    /// Another run needs the lock of every node that it reaches, so one on which the lease lives is enough to keep it out; most of
    /// them gone means that nobody can tell any more which those are.
    fn ended(&self, now: (Instant, Timestamp)) -> Option<String> {
        let (overdue, error) = self.overdue(self.times.lasts, now);
        if overdue.is_empty() || overdue.len() * 2 <= self.renewals().len() {
            return None;
        }
        let nodes: Vec<&str> = overdue.iter().map(NodeName::as_str).collect();
        let cause = error.map(|error| format!(": {error}")).unwrap_or_default();
        Some(format!(
            "the lease could not be renewed on {} for {} s{cause}",
            nodes.join(", "),
            self.times.lasts.as_secs()
        ))
    }

    fn note(&self, node: &NodeName, result: Result<(), String>, now: (Instant, Timestamp)) {
        if let Some(renewal) = self.renewals().get_mut(node) {
            match result {
                Ok(()) => *renewal = Renewal { at: now.0, on: now.1, error: None },
                Err(error) => renewal.error = Some(error),
            }
        }
    }

    fn renewals(&self) -> MutexGuard<'_, BTreeMap<NodeName, Renewal>> {
        self.renewals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Renewal {
    fn age(&self, (at, on): (Instant, Timestamp)) -> Duration {
        let by_day = Duration::try_from(on.duration_since(self.on)).unwrap_or_default();
        at.saturating_duration_since(self.at).max(by_day)
    }
}

impl Execution<'_> {
    /// Renews the lease on all nodes of the lock; goes on until it is dropped.
    pub(super) async fn keep_lease(&self) -> std::convert::Infallible {
        let nodes = &self.run.plan.lock_nodes;
        futures::future::join_all(nodes.iter().map(|node| self.keep_lease_on(node))).await;
        std::future::pending().await
    }

    async fn keep_lease_on(&self, node: &NodeName) {
        while self.lease.lost().is_none() {
            sleep(self.lease.times.renewed_every).await;
            self.renew_lease(node).await;
        }
    }

    /// Makes sure that the lock is still this run's, before a step begins; returns why it is not.
    ///
    /// A process that was stopped, or a laptop that slept, finds out here and not after its next step.
    pub(super) async fn lost_lease(&self) -> Option<&str> {
        let (overdue, _) = self.lease.overdue(self.lease.times.lasts / 2, self.moment());
        let wakes_up = overdue.len() * 2 > self.run.plan.lock_nodes.len();
        if self.lease.lost().is_none() && wakes_up {
            futures::future::join_all(overdue.iter().map(|node| self.renew_lease(node))).await;
        }
        self.lease.lost()
    }

    fn moment(&self) -> (Instant, Timestamp) {
        (Instant::now(), self.run.clock.now())
    }

    /// Renews the lease on one node, over its kept connection.
    async fn renew_lease(&self, node: &NodeName) {
        let limit = self.lease.times.renewed_every;
        let result = match timeout(limit, self.renew_on(node)).await {
            Ok(Err(LockError::Held { lock, .. })) => {
                self.lose(format!("on {node}, {lock}"));
                return;
            }
            Ok(result) => result.map_err(|error| chain(&error)),
            Err(_) => Err(format!("{node} did not answer within {} s", limit.as_secs())),
        };
        let moment = self.moment();
        self.lease.note(node, result, moment);
        if let Some(reason) = self.lease.ended(moment) {
            self.lose(reason);
        }
    }

    async fn renew_on(&self, node: &NodeName) -> Result<(), LockError> {
        let refused = |said| LockError::Refused { node: node.clone(), said };
        let peer = self.peer(node).await.map_err(|error| refused(error.error))?;
        renew(&peer.session, peer.node, peer.planned, &self.run.holder).await
    }

    /// Notes that the lock is not this run's any more; running steps end, no more begin.
    fn lose(&self, reason: String) {
        if self.lease.lost.set(reason.clone()).is_ok() {
            // A journal that cannot be written shows at the next lifecycle event.
            let _ = self.recorder.record(EventKind::LockLost { reason });
            self.run.operator.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan as _;

    use super::*;

    fn nodes(count: usize) -> Vec<NodeName> {
        (1..=count).map(|number| NodeName::new(format!("cp-{number}"))).collect()
    }

    fn after(start: Instant, seconds: u64) -> (Instant, Timestamp) {
        (start + Duration::from_secs(seconds), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_lease_ends_when_most_nodes_have_not_seen_it_renewed_for_ninety_seconds() {
        let start = Instant::now();
        let nodes = nodes(3);
        let lease = Lease::new(LeaseTimes::default(), &nodes, Timestamp::UNIX_EPOCH);
        lease.note(&nodes[0], Err("no route".to_owned()), after(start, 20));
        lease.note(&nodes[1], Ok(()), after(start, 60));
        lease.note(&nodes[2], Ok(()), after(start, 80));
        assert_eq!(lease.ended(after(start, 120)), None, "one of three");
        lease.note(&nodes[1], Err("timed out".to_owned()), after(start, 140));
        assert_eq!(lease.ended(after(start, 149)), None);
        assert_eq!(
            lease.ended(after(start, 152)).as_deref(),
            Some("the lease could not be renewed on cp-1, cp-2 for 90 s: no route")
        );
        lease.note(&nodes[0], Ok(()), after(start, 153));
        assert_eq!(lease.ended(after(start, 154)), None, "a node that came back counts again");
    }

    #[test]
    fn one_of_two_nodes_keeps_the_lease_and_none_of_one_does_not() {
        let start = Instant::now();
        let two = Lease::new(LeaseTimes::default(), &nodes(2), Timestamp::UNIX_EPOCH);
        two.note(&nodes(2)[0], Ok(()), after(start, 80));
        assert_eq!(two.ended(after(start, 100)), None);
        let one = Lease::new(LeaseTimes::default(), &nodes(1), Timestamp::UNIX_EPOCH);
        assert!(one.ended(after(start, 92)).is_some());
        let none = Lease::new(LeaseTimes::default(), &[], Timestamp::UNIX_EPOCH);
        assert_eq!(none.ended(after(start, 1000)), None, "no control plane, no lock, no lease");
    }

    #[test]
    fn a_laptop_that_slept_is_noticed_by_the_time_of_day() {
        let start = Instant::now();
        let lease = Lease::new(LeaseTimes::default(), &nodes(1), Timestamp::UNIX_EPOCH);
        let awake = (start, Timestamp::UNIX_EPOCH + 10.minutes());
        assert_eq!(lease.overdue(Duration::from_secs(45), awake).0, nodes(1));
    }
}
