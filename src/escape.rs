//! Escaping keeps what nodes say from moving the cursor, colouring the screen or turning the direction of text.
//!
//! Every text report passes words of nodes, files and servers through it; one list says what acts on a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

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

/// Returns a whole output as it may reach a terminal: lines, tabs and the colours of a style stay, all else that acts is escaped.
///
/// Reports have escaped their parts already. This is the last gate: a part that was forgotten harms nobody.
pub fn guarded(output: &str) -> Cow<'_, str> {
    if !output.contains(|letter| is_unsafe(letter) && letter != '\n') {
        return Cow::Borrowed(output);
    }
    let mut escaped = String::with_capacity(output.len() + 8);
    let mut rest = output;
    while let Some(letter) = rest.chars().next() {
        let length = color_length(rest).unwrap_or(letter.len_utf8());
        let (token, behind) = rest.split_at(length);
        if length > letter.len_utf8() || matches!(letter, '\n' | '\t') || !is_unsafe(letter) {
            escaped.push_str(token);
        } else {
            escaped.extend(letter.escape_default());
        }
        rest = behind;
    }
    Cow::Owned(escaped)
}

/// Returns the length of the colour that a text begins with: `ESC [`, digits and semicolons, `m`.
fn color_length(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let end = parameters.find(|letter: char| !letter.is_ascii_digit() && letter != ';')?;
    parameters.get(end..)?.starts_with('m').then_some(end + 3)
}

/// Returns a JSON text in which strings hold nothing that acts on a terminal; the values are the same.
///
/// JSON itself asks this of the controls of ASCII alone. Outside of strings it has none of these characters but the line end.
pub fn json(text: String) -> String {
    let acts = |letter: char| is_unsafe(letter) && letter != '\n';
    if !text.contains(acts) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        if acts(letter) {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(letter);
        }
    }
    escaped
}

/// Returns whether a character acts on the terminal instead of being shown, or hides: controls, marks that reorder text, and
/// letters without any shape, with which one name can pass for another.
pub fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_or_hides_is_spelt_out() {
        for (text, escaped) in [
            ("node-1 is ready: ü 字 🙂", "node-1 is ready: ü 字 🙂"),
            ("\u{1b}[2J\u{7}\r\n\t", "\\u{1b}[2J\\u{7}\\r\\n\\t"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("\u{202e}gnp\u{2066}\u{61c}", "\\u{202e}gnp\\u{2066}\\u{61c}"),
            ("w\u{200b}-1\u{ad}\u{2060}\u{e0041}", "w\\u{200b}-1\\u{ad}\\u{2060}\\u{e0041}"),
        ] {
            assert_eq!(shown(text), escaped);
        }
    }

    #[test]
    fn the_last_gate_lets_lines_and_colours_pass() {
        for (output, guarded_output) in [
            ("a\tb\n\u{1b}[1;31mred\u{1b}[0m\n", "a\tb\n\u{1b}[1;31mred\u{1b}[0m\n"),
            ("\u{1b}[2J\u{1b}]0;x\u{7}", "\\u{1b}[2J\\u{1b}]0;x\\u{7}"),
            ("\u{1b}[31", "\\u{1b}[31"),
            ("100 %\r\u{9b}1m\u{202e}", "100 %\\r\\u{9b}1m\\u{202e}"),
        ] {
            assert_eq!(guarded(output), guarded_output);
        }
    }

    #[test]
    fn json_keeps_its_values_and_shows_no_control() {
        let values = ["\u{9b}2J", "\u{7f}", "\u{202e}", "\u{e0041}", "\u{1b}[2J\n", "ü 🙂"];
        let text = json(serde_json::to_string_pretty(&values).unwrap());
        assert!(!text.contains(|letter| is_unsafe(letter) && letter != '\n'), "{text}");
        assert!(text.contains("ü 🙂"));
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), values);
    }
}
