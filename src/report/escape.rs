//! Escaping keeps what nodes say from moving the cursor, colouring the screen or turning the direction of text.
//!
//! Every text report passes words of nodes, files and servers through it.

use std::borrow::Cow;

/// Returns a text as it may be shown in one line: control characters are written as escapes (`\n`, `\u{1b}`).
pub fn shown(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_unsafe(character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// Returns the lines of a text, each as it may be shown.
pub fn shown_lines(text: &str) -> impl Iterator<Item = Cow<'_, str>> {
    text.lines().map(shown)
}

/// Returns whether a character acts on the terminal instead of being shown: controls, and marks that reorder text.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}
