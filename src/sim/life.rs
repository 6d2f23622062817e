//! A life: how long a running script has a client that listens, and a node that is under power.
//!
//! `sshd` makes one for each command, the shell and the files ask it, and what cuts connections or power ends it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::clock::lock;

/// What a running script lives on.
#[derive(Debug, Default)]
pub(crate) struct Life {
    deserted: AtomicBool,
    ended: AtomicBool,
    /// The connection that is cut right before the first change.
    dropped: Mutex<Option<Arc<Notify>>>,
}

impl Life {
    /// Takes the client away: what reads from it is at its end, and what writes to it gets `SIGPIPE`.
    pub(crate) fn desert(&self) {
        self.deserted.store(true, Ordering::SeqCst);
    }

    /// Lets the connection be cut right before the first change.
    pub(crate) fn drop_at_change(&self, connection: &Arc<Notify>) {
        *lock(&self.dropped) = Some(Arc::clone(connection));
    }

    /// Says that the script changes something.
    pub(crate) fn change(&self) {
        if let Some(connection) = lock(&self.dropped).take() {
            self.desert();
            connection.notify_one();
        }
    }

    /// Takes the power away: the script ends where it stands, without its traps.
    pub(crate) fn end(&self) {
        self.desert();
        self.ended.store(true, Ordering::SeqCst);
    }

    /// Returns whether nobody hears what the script says.
    pub(crate) fn is_deserted(&self) -> bool {
        self.deserted.load(Ordering::SeqCst)
    }

    /// Returns whether the script is to end at once.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}
