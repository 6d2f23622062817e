use std::fmt::{self, Write as _};

use crate::finding::Finding;

/// Why a command ends early: the exit status, the cause for people, and the way out.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: u8,
    pub(super) error: anyhow::Error,
    pub(super) hints: Vec<String>,
}

/// Something failed.
pub(super) const FAILED: u8 = 1;
/// Usage, or a file that is not valid.
pub(super) const USAGE: u8 = 2;
/// Something is wrong with the cluster, or there is something to do.
pub(super) const WORRYING: u8 = 3;
/// Refused, and nothing was changed.
pub(super) const REFUSED: u8 = 4;
/// Cancelled by the operator.
pub(super) const CANCELLED: u8 = 130;

impl Failure {
    pub(super) fn new(status: u8, error: impl Into<anyhow::Error>) -> Self {
        Self { status, error: error.into(), hints: Vec::new() }
    }

    pub(super) fn message(status: u8, message: impl fmt::Display) -> Self {
        Self { status, error: anyhow::anyhow!("{message}"), hints: Vec::new() }
    }

    pub(super) fn usage(message: impl fmt::Display) -> Self {
        Self::message(USAGE, message)
    }

    pub(super) fn hint(mut self, hint: impl Into<Option<String>>) -> Self {
        self.hints.extend(hint.into());
        self
    }

    /// Returns the failure of a command that a plan's blockers forbid.
    pub(super) fn blocked(blockers: &[Finding]) -> Self {
        let what = if blockers.len() == 1 {
            "a blocker forbids".to_owned()
        } else {
            format!("{} blockers forbid", blockers.len())
        };
        Self::message(REFUSED, format!("{what} this plan; nothing was changed"))
    }

    /// Returns the error with its causes, in one line.
    pub(super) fn cause(&self) -> String {
        format!("{:#}", self.error)
    }

    /// Returns the text for stderr: the error with its causes, then the hints.
    pub(super) fn text(&self) -> String {
        let mut text = format!("error: {}", self.error);
        for cause in self.error.chain().skip(1) {
            let _ = write!(text, "\n  cause: {cause}");
        }
        for hint in &self.hints {
            let _ = write!(text, "\nhint: {hint}");
        }
        text
    }
}
