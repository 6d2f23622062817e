//! Wrapping breaks a text at its blanks, so that it fits into some columns of a terminal.
//!
//! Columns and paragraphs of text reports are made with it.

use unicode_width::UnicodeWidthStr as _;

/// Returns how many columns a text takes.
pub(super) fn width_of(text: &str) -> usize {
    text.width()
}

/// Returns how many columns the longest word of a text takes: narrower it cannot become.
pub(super) fn narrowest(text: &str) -> usize {
    text.split(' ').map(width_of).max().unwrap_or_default()
}

/// Returns a text in lines of at most so many columns; a word that is longer stays whole, so that it can be copied.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    if width_of(text) <= width {
        return vec![text.to_owned()];
    }
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && width_of(&line) + 1 + width_of(word) > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// Returns a paragraph whose lines after the first are indented.
pub(super) fn paragraph(text: &str, width: Option<u16>, indent: usize) -> String {
    let Some(width) = width else { return text.to_owned() };
    let width = usize::from(width).saturating_sub(indent).max(narrowest(text));
    wrap(text, width).join(&format!("\n{}", " ".repeat(indent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_blanks_and_count_wide_characters_twice() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("証明書 の 期限", 7), ["証明書", "の 期限"]);
        assert_eq!(wrap("a /path/that/is/long b", 5), ["a", "/path/that/is/long", "b"]);
        assert_eq!(wrap("", 5), [""]);
    }
}
