//! What `exec` shows: the lines of each node as they come, or groups of nodes that printed the same, or a JSON line a node; and how
//! it ended.
//!
//! The face tells it what came from the nodes and writes what it returns.

mod fold;
mod lines;
mod node_set;
mod summary;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

pub use fold::{Fold, Room};
pub use lines::{Escaping, LineWriter, Prefix};
pub use node_set::node_set;
pub use summary::{line_of, summary};

use super::DOCUMENT_VERSION;

/// How many bytes of a node's output are kept where it is not shown as it comes (`--fold`, `-o json`); the rest is counted.
pub const KEPT_BYTES: usize = 1 << 20;

/// How the command ended on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It ran; status 0 is well.
    Exited(u32),
    /// A signal ended it, or nothing was told of its end.
    Killed(Option<String>),
    /// It ran longer than it may.
    TimedOut(Cause),
    /// There was no way to root, or it was not started, or the connection was lost meanwhile.
    Failed(Cause),
    /// No login on the node.
    Unreachable(Cause),
    /// It is a worker that runs Windows, where nothing is run; says how that is known.
    LeftAlone(String),
    /// The operator ended it; it may still run there.
    Cut,
    /// The operator ended all before its turn came.
    NotRun,
}

/// Why something could not be done, and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// What happened, with the address.
    pub error: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Ending {
    /// Returns whether the command ran and all is well.
    pub fn is_done(&self) -> bool {
        *self == Self::Exited(0)
    }

    /// Returns whether nothing went wrong: what is left alone is no fault.
    pub fn is_well(&self) -> bool {
        self.is_done() || matches!(self, Self::LeftAlone(_))
    }

    /// Returns the exit status, if one was told.
    pub fn status(&self) -> Option<u32> {
        match self {
            Self::Exited(status) => Some(*status),
            _ => None,
        }
    }

    /// Returns what kept the command from telling a status.
    pub fn error(&self) -> Option<String> {
        Some(match self {
            Self::Exited(_) => return None,
            Self::Killed(Some(signal)) => format!("ended by signal {signal}"),
            Self::Killed(None) => "ended without an exit status".to_owned(),
            Self::TimedOut(cause) | Self::Failed(cause) | Self::Unreachable(cause) => cause.error.clone(),
            Self::LeftAlone(evidence) => format!("it runs Windows ({evidence})"),
            Self::Cut => "cut off by the operator; it may still run there".to_owned(),
            Self::NotRun => "not run: cancelled by the operator".to_owned(),
        })
    }

    /// Returns the way out, if one is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::TimedOut(cause) | Self::Failed(cause) | Self::Unreachable(cause) => cause.hint.as_deref(),
            _ => None,
        }
    }

    /// Returns the word of its kind.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Exited(0) => "done",
            Self::Exited(_) | Self::Killed(_) | Self::Failed(_) => "failed",
            Self::TimedOut(_) => "timed out",
            Self::Unreachable(_) => "unreachable",
            Self::LeftAlone(_) => "left alone",
            Self::Cut => "cut off",
            Self::NotRun => "not run",
        }
    }
}

/// One line of `exec -o json`.
#[derive(Debug, Serialize)]
pub struct Document<'a> {
    version: u32,
    node: &'a str,
    status: Option<u32>,
    stdout: std::borrow::Cow<'a, str>,
    stderr: std::borrow::Cow<'a, str>,
    error: Option<String>,
    /// How many bytes were printed beyond those that are kept.
    cut_bytes: u64,
}

/// What is kept of a node's output.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// The beginning of stdout.
    pub stdout: Vec<u8>,
    /// The beginning of stderr.
    pub stderr: Vec<u8>,
    /// How many bytes of stdout came behind.
    pub stdout_cut: u64,
    /// How many bytes of stderr came behind.
    pub stderr_cut: u64,
    /// Of all of stdout: two texts may differ only in what is not kept.
    stdout_hash: Sha256,
    /// Of all of stderr.
    stderr_hash: Sha256,
}

impl Kept {
    /// Keeps what there is room for of a piece of stdout.
    pub fn stdout(&mut self, bytes: &[u8]) {
        self.stdout_hash.update(bytes);
        let room = self.room();
        self.stdout_cut += keep(&mut self.stdout, bytes, room);
    }

    /// Keeps what there is room for of a piece of stderr.
    pub fn stderr(&mut self, bytes: &[u8]) {
        self.stderr_hash.update(bytes);
        let room = self.room();
        self.stderr_cut += keep(&mut self.stderr, bytes, room);
    }

    fn room(&self) -> usize {
        KEPT_BYTES.saturating_sub(self.stdout.len() + self.stderr.len())
    }
}

/// Appends what there is room for, and returns how much was left out.
fn keep(kept: &mut Vec<u8>, bytes: &[u8], room: usize) -> u64 {
    let (head, rest) = bytes.split_at(bytes.len().min(room));
    kept.extend_from_slice(head);
    rest.len() as u64
}

/// Returns the JSON line of a node.
pub fn document<'a>(node: &'a str, kept: &'a Kept, ending: &Ending) -> Document<'a> {
    Document {
        version: DOCUMENT_VERSION,
        node,
        status: ending.status(),
        stdout: String::from_utf8_lossy(&kept.stdout),
        stderr: String::from_utf8_lossy(&kept.stderr),
        error: ending.error(),
        cut_bytes: kept.stdout_cut + kept.stderr_cut,
    }
}
