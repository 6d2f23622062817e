//! Reach: how a simulated node is reached, by whom just now, and what is to go wrong when a certain command arrives.
//!
//! Each node has one; `sshd` serves by it, faults and boundaries cut it.

use std::sync::{Arc, Mutex, Weak};

use tokio::sync::{Notify, watch};

use super::Fault;
use super::clock::lock;
use super::life::Life;

/// A fault that waits for command lines.
#[derive(Debug)]
struct Armed {
    /// What the next lines have to hold, the next one last.
    texts: Vec<String>,
    fault: Fault,
}

/// The doors of one node.
#[derive(Debug)]
pub(crate) struct Reach {
    /// Whether its sshd listens.
    pub(crate) open: watch::Sender<bool>,
    /// Tells open connections to end.
    pub(crate) severed: Notify,
    /// Tells open connections to say and hear nothing more.
    pub(crate) frozen: Notify,
    lives: Mutex<Vec<Weak<Life>>>,
    armed: Mutex<Vec<Armed>>,
}

impl Default for Reach {
    fn default() -> Self {
        Self {
            open: watch::Sender::new(true),
            severed: Notify::new(),
            frozen: Notify::new(),
            lives: Mutex::default(),
            armed: Mutex::default(),
        }
    }
}

impl Reach {
    /// Returns the life of a script that starts.
    pub(crate) fn begin(&self) -> Arc<Life> {
        let life = Arc::new(Life::default());
        let mut lives = lock(&self.lives);
        lives.retain(|life| life.strong_count() > 0);
        lives.push(Arc::downgrade(&life));
        life
    }

    /// Does something with the life of every script that runs.
    pub(crate) fn for_each_life(&self, action: impl Fn(&Life)) {
        for life in lock(&self.lives).iter().filter_map(Weak::upgrade) {
            action(&life);
        }
    }

    /// Lets a fault wait until lines that hold these texts have arrived, in this order.
    pub(crate) fn arm(&self, texts: &[&str], fault: Fault) {
        let texts = texts.iter().rev().map(|text| (*text).to_owned()).collect();
        lock(&self.armed).push(Armed { texts, fault });
    }

    /// Returns the faults that begin with a command line.
    pub(crate) fn arrive(&self, line: &str) -> Vec<Fault> {
        let mut armed = lock(&self.armed);
        for waiting in armed.iter_mut() {
            if waiting.texts.last().is_some_and(|text| line.contains(text)) {
                waiting.texts.pop();
            }
        }
        armed.extract_if(.., |waiting| waiting.texts.is_empty()).map(|begun| begun.fault).collect()
    }

    /// Returns whether a fault waits.
    pub(crate) fn is_armed(&self) -> bool {
        !lock(&self.armed).is_empty()
    }

    /// Forgets the faults that wait.
    pub(crate) fn disarm(&self) {
        lock(&self.armed).clear();
    }
}

/// Counts what goes on in a fleet on behalf of clients.
#[derive(Debug, Clone)]
pub(crate) struct Activity(watch::Sender<usize>);

impl Default for Activity {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Activity {
    /// Counts one more, until the guard is dropped.
    pub(crate) fn begin(&self) -> Busy {
        self.0.send_modify(|count| *count += 1);
        Busy(self.0.clone())
    }

    /// Waits until nothing goes on.
    pub(crate) async fn rest(&self) {
        // The sender is here: it cannot be gone.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

/// Something that goes on.
#[derive(Debug)]
pub(crate) struct Busy(watch::Sender<usize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}
