//! A report is what people and scripts read of an inventory, of facts, of a plan or of a run.
//!
//! The face asks for one and writes it where it belongs. Everything here is a value made of values: the time, the width of
//! the terminal and whether it has colours are parameters, and nothing is printed; `progress` alone draws.

pub mod backups;
pub mod check;
mod columns;
pub mod duration;
pub mod exec;
pub mod findings;
pub mod lines;
pub mod names;
pub mod nodes;
pub mod progress;
pub mod review;
pub mod runs;
#[cfg(test)]
mod sample;
pub mod shell;
pub mod style;
pub mod summary;
mod wrap;

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;

pub use style::{Color, Detail, Style};

/// The version of the JSON documents: fields are added, never renamed.
pub const DOCUMENT_VERSION: u32 = 1;

/// Returns a document as JSON that people can read too.
pub fn json(document: &impl Serialize) -> String {
    crate::escape::json(serde_json::to_string_pretty(document).unwrap_or_default())
}

/// Returns a document as one line of JSON.
pub fn json_line(document: &impl Serialize) -> String {
    crate::escape::json(serde_json::to_string(document).unwrap_or_default())
}

/// Returns what the operator is asked to do, and how long certroll waits for it.
pub fn instructions(lines: &[String], until: Timestamp, terminal: AnswerBy) -> String {
    let mut text = String::from("\nNow have the certificates rotated:\n");
    for line in lines {
        let _ = writeln!(text, "  - {line}");
    }
    let _ = write!(
        text,
        "certroll looks every 5 s until {} and goes on by itself when the nodes show new certificates.",
        until.strftime("%H:%M UTC")
    );
    if terminal == AnswerBy::Enter {
        text.push_str(" Enter looks at once.");
    }
    text.push('\n');
    text
}

/// How the operator can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerBy {
    /// There is a terminal.
    Enter,
    /// There is none: the nodes alone tell.
    NodesAlone,
}
