//! An excerpt is the line of a file that an error is about, made fit for a terminal.
//!
//! `Source` makes it, `Problem` draws it. Tabs become spaces, control characters become visible, long lines are cut around the
//! place, and a line that may hold a secret is withheld.

use unicode_width::UnicodeWidthChar;

use super::source::Place;
use crate::escape;

/// Columns of a line that are shown.
const LONGEST: usize = 100;
/// Columns that are kept before the place where a line is cut.
const LEAD: usize = 40;
/// Spaces that stand for a tab.
const TAB: &str = "    ";
/// Characters of base64 in a row that are taken for key material.
const KEY_MATERIAL: usize = 40;

/// What is shown of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Excerpt {
    /// The line, and where in it the place is.
    Line {
        /// The text, without tabs and control characters.
        text: String,
        /// The columns before the place.
        offset: usize,
        /// The columns that the place covers, at least 1.
        width: usize,
    },
    /// The line may hold a secret.
    Withheld,
}

impl Excerpt {
    /// Returns what may be shown of the line of a place.
    pub(super) fn new(lines: &[&str], place: Place) -> Option<Self> {
        let index = place.line.checked_sub(1)?;
        let line = lines.get(index)?;
        if may_hold_secret(lines, index) {
            return Some(Self::Withheld);
        }
        let mut before = String::new();
        let mut covered = String::new();
        let mut after = String::new();
        let from = place.column.saturating_sub(1);
        // What stands farther behind the place is cut anyway.
        for (position, character) in line.chars().take(from + place.width + LONGEST).enumerate() {
            let part = match position {
                position if position < from => &mut before,
                position if position < from + place.width => &mut covered,
                _ => &mut after,
            };
            push_visible(part, character);
        }
        Some(Self::cut(&before, &covered, &after))
    }

    /// Returns the excerpt of a line that is given in three parts, cut to what fits.
    fn cut(before: &str, covered: &str, after: &str) -> Self {
        let whole = columns(before) + columns(covered) + columns(after);
        let start = if whole > LONGEST { columns(before).saturating_sub(LEAD) } else { 0 };
        let mut text = String::new();
        if start > 0 {
            text.push_str("...");
        }
        text.extend(before.chars().skip_while(skipper(start)));
        let offset = columns(&text);
        text.push_str(covered);
        text.push_str(after);
        if columns(&text) > LONGEST {
            text = text.chars().take_while(taker(LONGEST)).collect();
            text.push_str("...");
        }
        let width = columns(covered).min(LONGEST.saturating_sub(offset)).max(1);
        Self::Line { text: text.trim_end().to_owned(), offset, width }
    }
}

/// Returns a test that holds for the first characters that fill a number of columns.
fn taker(limit: usize) -> impl FnMut(&char) -> bool {
    let mut seen = 0;
    move |character| {
        seen += character.width().unwrap_or(0);
        seen <= limit
    }
}

/// Returns a test that holds for the characters to be left out at the beginning.
fn skipper(count: usize) -> impl FnMut(&char) -> bool {
    let mut seen = 0;
    move |character| {
        seen += character.width().unwrap_or(0);
        seen <= count
    }
}

/// Returns the columns that a text takes on a terminal.
fn columns(text: &str) -> usize {
    text.chars().map(|character| character.width().unwrap_or(0)).sum()
}

/// Appends a character in a form that keeps the columns of a terminal in step.
fn push_visible(text: &mut String, character: char) {
    match character {
        '\t' => text.push_str(TAB),
        other => text.push(visible(other)),
    }
}

/// Returns a character that a terminal shows and does not act upon: what steers it is replaced, in one column.
pub(super) fn visible(character: char) -> char {
    if escape::is_unsafe(character) { '\u{fffd}' } else { character }
}

/// Returns whether a line may hold a secret: in doubt it does, for errors are pasted into tickets.
fn may_hold_secret(lines: &[&str], index: usize) -> bool {
    let Some(line) = lines.get(index) else { return false };
    looks_like_key_material(line) || in_private_key(lines, index) || under_secret_key(lines, index)
}

/// Returns whether a line has a long run of base64.
fn looks_like_key_material(line: &str) -> bool {
    line.split(|character: char| !(character.is_ascii_alphanumeric() || matches!(character, '+' | '/' | '=')))
        .any(|run| run.len() >= KEY_MATERIAL && !run.starts_with('/'))
}

/// Returns whether a line is part of a PEM private key, however badly it is indented.
fn in_private_key(lines: &[&str], index: usize) -> bool {
    let above = lines.iter().take(index + 1).rev();
    for (distance, line) in above.enumerate() {
        if line.contains("PRIVATE KEY-----") {
            return distance == 0 || !line.contains("-----END");
        }
    }
    false
}

/// Returns whether a line, or a line that it is indented beneath, has a key whose value is secret.
fn under_secret_key(lines: &[&str], index: usize) -> bool {
    let mut deepest = usize::MAX;
    for line in lines.iter().take(index + 1).rev() {
        let indent = line.len() - line.trim_start().len();
        if line.trim().is_empty() || indent >= deepest {
            continue;
        }
        // The keys after a dash stand as deep as the keys on the lines that follow.
        let content = line.trim_start_matches([' ', '\t', '-']);
        if line.len() - content.len() < deepest && names_secret(content) {
            return true;
        }
        deepest = indent;
    }
    false
}

/// Returns whether a line has a key whose value is secret (`ssh_key`, `password`, `secret_key`, ...).
fn names_secret(line: &str) -> bool {
    line.split(':').rev().skip(1).any(|part| {
        let key = part.trim_end().trim_end_matches(['"', '\'']);
        let start = key.rfind(|character: char| {
            !(character.is_ascii_alphanumeric() || character == '_' || character == '-')
        });
        let word = start.map_or(key, |start| key.get(start + 1..).unwrap_or(key)).to_ascii_lowercase();
        let word = word.trim_start_matches('-');
        word == "key"
            || word.ends_with("_key")
            || ["sshkey", "password", "passwd", "secret", "token"].iter().any(|secret| word.contains(secret))
    })
}
