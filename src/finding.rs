//! A finding is one thing that certroll noticed and that a person should know.
//!
//! The inventory, the facts and the planner make findings; `report` shows them, and `check` derives its exit status
//! from the worst of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::inventory::NodeName;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something does not work or will not work: `check` ends with status 3.
    Error,
    /// Something will hurt later, or was not what it should be.
    Warning,
    /// Good to know.
    Info,
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        })
    }
}

/// One thing that was noticed, with the way out where there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// A stable kebab-case name of the kind of finding (`certificate-expired`), for scripts.
    pub code: String,
    /// The node that it is about; `None` for the cluster or the file.
    pub node: Option<NodeName>,
    /// What was seen: a lower-case sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Finding {
    /// Returns a finding about the whole cluster.
    pub fn new(severity: Severity, code: &str, message: impl Into<String>) -> Self {
        Self { severity, code: code.to_owned(), node: None, message: message.into(), hint: None }
    }

    /// Returns an error about the whole cluster.
    pub fn error(code: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message)
    }

    /// Returns a warning about the whole cluster.
    pub fn warning(code: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message)
    }

    /// Returns a piece of information about the whole cluster.
    pub fn info(code: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Info, code, message)
    }

    /// Returns the same finding, about one node.
    pub fn on(mut self, node: &NodeName) -> Self {
        self.node = Some(node.clone());
        self
    }

    /// Returns the same finding with a way out.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
