//! A source is the text of a configuration file together with the name that people know it by.
//!
//! `Inventory::parse` makes it; places in it are turned into excerpts for problems and into `file:line:column` for findings.

use super::excerpt::Excerpt;

/// Where a value stands in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The line, counted from 1.
    pub(super) line: usize,
    /// The column in characters, counted from 1.
    pub(super) column: usize,
    /// The width in characters of what stands there, on its first line.
    pub(super) width: usize,
}

impl Place {
    /// The beginning of a file.
    pub(super) const START: Self = Self { line: 1, column: 1, width: 1 };
}

/// The text of a file and its name.
#[derive(Debug)]
pub(super) struct Source<'a> {
    name: &'a str,
    lines: Vec<&'a str>,
}

impl<'a> Source<'a> {
    /// Returns the source of a text.
    pub(super) fn new(name: &'a str, text: &'a str) -> Self {
        // A byte order mark is no character of the first line.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { name, lines: text.lines().collect() }
    }

    /// Returns the name of the file.
    pub(super) fn name(&self) -> &'a str {
        self.name
    }

    /// Returns `file:line:column`.
    pub(super) fn locate(&self, place: Place) -> String {
        format!("{}:{}:{}", self.name, place.line, place.column)
    }

    /// Returns what may be shown of the line of a place; `None` where the file has no such line.
    pub(super) fn excerpt(&self, place: Place) -> Option<Excerpt> {
        Excerpt::new(&self.lines, place)
    }
}

/// Returns a value of the file as it stands in a message: in backticks, on one line, and cut where it is long.
pub(super) fn quoted(value: &str) -> String {
    const LONGEST: usize = 60;
    let visible: String = value.chars().take(LONGEST).map(super::excerpt::visible).collect();
    let rest = if value.chars().nth(LONGEST).is_some() { "..." } else { "" };
    format!("`{visible}{rest}`")
}
