//! A question is what only the operator can answer: the passphrase of a key, a password, the code that a host asks for.
//!
//! The key ring and the login ask [`Questions`], one at a time for all hosts; the face answers them through [`AskSecret`].

use std::fmt;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::Endpoint;
use crate::inventory::Secret;

/// Something that only the operator knows; shown as the prompt before the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// The passphrase of an encrypted private key.
    Passphrase {
        /// The key, for people.
        key: String,
    },
    /// A password, the same for all hosts that want one for this.
    Password {
        /// What it opens.
        purpose: PasswordPurpose,
        /// Who wants it first.
        at: Endpoint,
        /// The user whose password it is.
        user: String,
        /// Who has refused the answer before, or never judged it.
        refused_by: Option<Endpoint>,
    },
    /// What a host wants to know at the login, in its own words: a code that holds once, a second factor.
    HostPrompt {
        /// Who asks.
        at: Endpoint,
        /// The user that logs in.
        user: String,
        /// The words of the host.
        text: String,
        /// Whether the answer may be seen.
        echo: Echo,
    },
}

/// What a password opens; one that is typed for one of these is shown to no host for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordPurpose {
    /// The way to root on nodes.
    Sudo,
    /// The logins of the nodes.
    Nodes,
    /// The logins of the hosts that are passed on the way.
    JumpHosts,
}

/// Whether an answer is shown while it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// It is no secret.
    Shown,
    /// It is one.
    Hidden,
}

impl Question {
    /// Returns whether the answer may be seen while it is typed.
    pub fn echo(&self) -> Echo {
        match self {
            Self::Passphrase { .. } | Self::Password { .. } => Echo::Hidden,
            Self::HostPrompt { echo, .. } => *echo,
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passphrase { key } => write!(formatter, "Passphrase of {key}:"),
            Self::Password { purpose, at, user, refused_by } => {
                if let Some(refused_by) = refused_by {
                    write!(formatter, "{refused_by} has not accepted that one. ")?;
                }
                match purpose {
                    PasswordPurpose::Sudo => {
                        write!(
                            formatter,
                            "Password for sudo of {user}@{at}, and of all others whose sudo asks:"
                        )
                    }
                    PasswordPurpose::Nodes => {
                        write!(formatter, "Password of {user}@{at}, and of all other nodes that ask for one:")
                    }
                    PasswordPurpose::JumpHosts => write!(
                        formatter,
                        "Password of {user}@{at}, and of all other jump hosts that ask for one:"
                    ),
                }
            }
            Self::HostPrompt { at, user, text, .. } => write!(formatter, "{user}@{at} asks: {}", text.trim()),
        }
    }
}

/// Who is asked for secrets; the face answers.
pub trait AskSecret: Send + Sync {
    /// Returns the answer to a question, or nothing when nobody can answer.
    ///
    /// It may block. A passphrase is asked for once a key for all hosts, and again after a wrong answer.
    fn ask(&self, question: &Question) -> Option<Secret>;
}

/// The way to the operator, who is asked one question at a time.
#[derive(Clone)]
pub(super) struct Questions {
    ask: Arc<dyn AskSecret>,
    turn: Arc<Mutex<()>>,
}

impl Questions {
    pub(super) fn new(ask: Arc<dyn AskSecret>) -> Self {
        Self { ask, turn: Arc::default() }
    }

    /// Asks when all others have been answered.
    pub(super) async fn ask(&self, question: Question) -> Option<Secret> {
        let _turn = self.turn.lock().await;
        let ask = Arc::clone(&self.ask);
        // A person takes long. One who is interrupted has not answered.
        tokio::task::spawn_blocking(move || ask.ask(&question)).await.ok().flatten()
    }
}

impl fmt::Debug for Questions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Questions").finish_non_exhaustive()
    }
}
