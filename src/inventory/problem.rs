//! A problem is one reason why a configuration file is refused, with its place in the file and the way out.
//!
//! Reading a `cluster.yml` makes problems; the face shows them.

use std::fmt;

use super::excerpt::Excerpt;
use super::source::{Place, Source};
use crate::finding::Finding;

/// Problems that are drawn; a file with more of them has one cause that repeats.
pub(super) const SHOWN: usize = 10;

/// One reason why a file is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    message: String,
    source: String,
    place: Place,
    label: Option<String>,
    hint: Option<String>,
    excerpt: Option<Excerpt>,
}

impl Problem {
    /// Returns a problem at a place.
    pub(super) fn new(source: &Source<'_>, place: Place, message: impl Into<String>) -> Self {
        Self { excerpt: source.excerpt(place), ..Self::without_excerpt(source.name(), place, message) }
    }

    /// Returns a problem that is drawn without its line, for one that comes after many others.
    pub(super) fn without_excerpt(name: &str, place: Place, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            source: name.to_owned(),
            place,
            label: None,
            hint: None,
            excerpt: None,
        }
    }

    /// Returns the same problem with words that stand behind the carets.
    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Returns the same problem with a way out.
    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Returns what is wrong: a lower-case sentence without a full stop.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the line, counted from 1.
    pub fn line(&self) -> usize {
        self.place.line
    }

    /// Returns the column in characters, counted from 1.
    pub fn column(&self) -> usize {
        self.place.column
    }

    /// Returns how many characters of the line the problem covers.
    pub fn width(&self) -> usize {
        self.place.width
    }

    /// Returns the way out.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Writes the line of the problem with carets beneath it.
    fn draw(&self, formatter: &mut fmt::Formatter<'_>, excerpt: &Excerpt) -> fmt::Result {
        let number = self.place.line.to_string();
        let gutter = " ".repeat(number.len());
        let label = self.label.as_deref().map(|label| format!(" {label}")).unwrap_or_default();
        match excerpt {
            Excerpt::Line { text, offset, width } => {
                let space = " ".repeat(*offset);
                let carets = "^".repeat(*width);
                write!(formatter, "\n{number} | {text}\n{gutter} | {space}{carets}{label}")
            }
            Excerpt::Withheld => {
                write!(formatter, "\n{number} | (not shown: it may hold a secret)")?;
                match &self.label {
                    Some(label) => write!(formatter, "\n{gutter} | {label}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}\n  {}:{}:{}", self.message, self.source, self.place.line, self.place.column)?;
        if let Some(excerpt) = &self.excerpt {
            self.draw(formatter, excerpt)?;
        }
        match &self.hint {
            Some(hint) => write!(formatter, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Why a `cluster.yml` cannot be used: at least one problem.
///
/// It displays every problem as a block of lines. The word `error: ` is left to the one who shows it, but for the blocks
/// after the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidInventory {
    problems: Vec<Problem>,
    findings: Vec<Finding>,
}

impl InvalidInventory {
    /// Returns the findings of a file without problems, or else its refusal.
    pub(super) fn unless_none(problems: Vec<Problem>, findings: Vec<Finding>) -> Result<Vec<Finding>, Self> {
        if problems.is_empty() { Ok(findings) } else { Err(Self { problems, findings }) }
    }

    /// Returns the problems in the order of the checks; there is at least one.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }

    /// Returns what else was noticed before the file was refused.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }
}

impl From<Problem> for InvalidInventory {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem], findings: Vec::new() }
    }
}

impl fmt::Display for InvalidInventory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().take(SHOWN).enumerate() {
            let separator = if index == 0 { "" } else { "\n\nerror: " };
            write!(formatter, "{separator}{problem}")?;
        }
        match self.problems.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            1 => write!(formatter, "\n\nand 1 more problem"),
            more => write!(formatter, "\n\nand {more} more problems"),
        }
    }
}

impl std::error::Error for InvalidInventory {}
