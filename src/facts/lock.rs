//! The lock of a cluster as a node shows it: who wrote it, and how long ago its lease was renewed.
//!
//! The probe and the script that takes locks report it; the planner and `execute` decide by it whether it may be broken.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long a lease lasts after it was taken or renewed. A run renews it every 20 s: a bastion that is cut off for less than a
/// minute loses nothing, and a dead one does not hold up a maintenance window.
pub const LEASE: Duration = Duration::from_secs(90);

/// Who holds the lock of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// The run that took it.
    pub run: String,
    /// User and host of the bastion.
    pub owner: String,
    /// The process on the bastion.
    pub pid: u32,
    /// Since when.
    pub since: String,
}

impl fmt::Display for LockHolder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "run {} of {} (process {})", self.run, self.owner, self.pid)
    }
}

/// A lock that lies on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// Who wrote it.
    pub holder: LockHolder,
    /// Seconds since it was renewed, on the node's own clock; below zero where that clock went back.
    pub age_seconds: i64,
}

/// Whether whoever holds a lock still shows signs of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// It was renewed lately: nobody may break it.
    Alive {
        /// When it ends unless it is renewed.
        ends_in: Duration,
    },
    /// Nobody has renewed it in time: it may be broken by name.
    Stale,
}

impl Lock {
    /// Reads the text of a lock's file, and the node's time and the file's in seconds (`1774000030 1774000000`).
    ///
    /// What cannot be read still is a lock. One whose age cannot be told counts as renewed just now: better to wait than to break it.
    pub fn read(text: &str, times: &str) -> Self {
        let holder = serde_json::from_str(text.trim()).unwrap_or_else(|_| LockHolder {
            run: "unknown".to_owned(),
            owner: super::probe::first_words(text),
            pid: 0,
            since: "unknown".to_owned(),
        });
        let mut words = times.split_whitespace().map(str::parse::<i64>);
        let age_seconds = match (words.next(), words.next()) {
            (Some(Ok(now)), Some(Ok(renewed))) => now.saturating_sub(renewed),
            _ => 0,
        };
        Self { holder, age_seconds }
    }

    /// Returns whether its lease lasts. A time far in the future is no renewal either: the node's clock went back since.
    pub fn lease(&self) -> Lease {
        let age = Duration::from_secs(self.age_seconds.unsigned_abs());
        if age > LEASE {
            return Lease::Stale;
        }
        let ends_in = if self.age_seconds < 0 { LEASE } else { LEASE.saturating_sub(age) };
        Lease::Alive { ends_in }
    }

    /// Returns whether its lease lasts.
    pub fn is_alive(&self) -> bool {
        matches!(self.lease(), Lease::Alive { .. })
    }

    /// Returns the way out for another run.
    pub fn hint(&self) -> String {
        let run = &self.holder.run;
        match self.lease() {
            Lease::Alive { ends_in } => format!(
                "wait for it; a live lease cannot be broken: if that process is dead, this one ends in {} s, and then `--break-lock {run}` takes it away",
                ends_in.as_secs()
            ),
            Lease::Stale => format!(
                "its lease has ended: `certroll apply --resume {run}` on its own host goes on with it; if it is certainly dead, `--break-lock {run}` takes it away"
            ),
        }
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let age = ago(self.age_seconds);
        write!(formatter, "{} holds the lock since {}, renewed {age}: ", self.holder, self.holder.since)?;
        formatter.write_str(match self.lease() {
            Lease::Alive { .. } => "alive",
            Lease::Stale => "stale",
        })
    }
}

/// Returns how long ago something was, in one unit.
fn ago(seconds: i64) -> String {
    match seconds {
        ..=-1 => format!("{} s ahead of the node's clock", seconds.unsigned_abs()),
        0..=119 => format!("{seconds} s ago"),
        120..=7199 => format!("{} min ago", seconds / 60),
        7200..=172_799 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"run":"r","owner":"eve@elsewhere","pid":4711,"since":"2026-11-20T10:10:10Z"}"#;

    fn lock(times: &str) -> Lock {
        Lock::read(TEXT, times)
    }

    #[test]
    fn a_lease_lasts_ninety_seconds_by_the_clock_of_its_node() {
        assert_eq!(lock("1000 1000").lease(), Lease::Alive { ends_in: LEASE });
        assert_eq!(lock("1090 1000").lease(), Lease::Alive { ends_in: Duration::ZERO });
        assert_eq!(lock("1091 1000").lease(), Lease::Stale);
        assert_eq!(
            lock("1000 1060").lease(),
            Lease::Alive { ends_in: LEASE },
            "the clock was set back a little"
        );
        assert_eq!(lock("1000 4600").lease(), Lease::Stale, "no renewal comes from the future");
    }

    #[test]
    fn a_lock_says_who_holds_it_and_how_it_is_broken() {
        let alive = lock("1030 1000");
        assert_eq!(
            alive.to_string(),
            "run r of eve@elsewhere (process 4711) holds the lock since 2026-11-20T10:10:10Z, renewed 30 s ago: alive"
        );
        assert!(alive.hint().contains("ends in 60 s"), "{}", alive.hint());
        let stale = lock("9000 1000");
        assert!(stale.to_string().ends_with("renewed 2 h ago: stale"), "{stale}");
        assert!(stale.hint().contains("`--break-lock r`"), "{}", stale.hint());
    }

    #[test]
    fn what_cannot_be_read_is_a_lock_all_the_same() {
        let lock = Lock::read("\u{1}garbage\n", "");
        assert_eq!((lock.holder.run.as_str(), lock.age_seconds), ("unknown", 0));
        assert!(lock.is_alive());
    }
}
