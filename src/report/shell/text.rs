//! Text of a shell script: comments, words that a person reads, here-documents.

use crate::escape::shown;

/// Returns a text as lines of a comment.
pub(super) fn comment(text: &str) -> String {
    format!("# {}\n", shown(text))
}

/// Returns a text as a comment that gives each sentence a line.
pub(super) fn sentences(text: &str) -> String {
    text.split_inclusive(". ").map(|sentence| comment(sentence.trim_end())).collect()
}

/// Returns a text for people as one word in double quotes; nothing in it is expanded.
pub(super) fn double_quoted(text: &str) -> String {
    format!("\"{}\"", inside_double_quotes(&shown(text)))
}

/// Returns a text as it stands between double quotes.
pub(super) fn inside_double_quotes(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, character| {
        if "\\\"$`".contains(character) {
            escaped.push('\\');
        }
        escaped.push(character);
        escaped
    })
}

/// One line of a script, or a part of it that must stay as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// A line that is indented like those around it.
    Code(String),
    /// The lines of a here-document.
    Document(String),
}

impl Line {
    /// Returns a line of code.
    pub(super) fn code(text: impl Into<String>) -> Self {
        Self::Code(text.into())
    }
}

/// Returns lines one below the other.
pub(super) fn render(lines: &[Line], indentation: usize) -> String {
    lines.iter().fold(String::new(), |mut text, line| {
        match line {
            Line::Code(code) => {
                text.push_str(&" ".repeat(indentation));
                text.push_str(code);
            }
            Line::Document(document) => text.push_str(document),
        }
        text.push('\n');
        text
    })
}

/// Returns a script as a here-document, and the word that ends it: one that is no line of the script.
pub(super) fn document(script: &str, word: &str) -> (String, Line) {
    let mut end = word.to_owned();
    while script.lines().any(|line| line == end) {
        end.push('_');
    }
    let document = Line::Document(format!("{script}\n{end}"));
    (end, document)
}
