//! A JSON text is a document that is kept as its bytes: a string in it is replaced in its place, and nothing else moves.
//!
//! `FullState` and the objects of the API are held in it: fields that certroll does not know, their order, and numbers of any
//! size survive. What it holds may be secret and is wiped.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// Why a text is not JSON; the text itself is never quoted, for it may be secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It has bytes that are no text.
    #[error("it is not UTF-8 text")]
    NotText,
    /// It ends too early.
    #[error("it ends in the middle, in line {line}")]
    Torn {
        /// The last line, counted from 1.
        line: usize,
    },
    /// It is something else, or has a mistake.
    #[error("it is not valid JSON: line {line}, column {column}")]
    Invalid {
        /// The line, counted from 1.
        line: usize,
        /// The column, counted from 1.
        column: usize,
    },
    /// It is a list, a string or a number.
    #[error("it is JSON, but not an object")]
    NotAnObject,
}

/// A JSON object as the text that it came in.
pub struct JsonText(Zeroizing<String>);

impl JsonText {
    /// Takes a text that is one JSON object.
    pub fn parse(text: &[u8]) -> Result<Self, JsonError> {
        let text = std::str::from_utf8(text).map_err(|_| JsonError::NotText)?;
        let whole: &RawValue = serde_json::from_str(text).map_err(|error| match error.classify() {
            serde_json::error::Category::Eof => JsonError::Torn { line: error.line() },
            _ => JsonError::Invalid { line: error.line(), column: error.column() },
        })?;
        if !whole.get().starts_with('{') {
            return Err(JsonError::NotAnObject);
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the names in an object, in their order; none where the path leads to no object.
    pub fn names(&self, path: &[&str]) -> Vec<String> {
        self.raw(path).and_then(members).into_iter().flatten().map(|(name, _)| name).collect()
    }

    /// Returns a string; `None` where the path leads to none.
    pub fn string(&self, path: &[&str]) -> Option<Zeroizing<String>> {
        self.raw(path).and_then(|raw| serde_json::from_str(raw).ok()).map(Zeroizing::new)
    }

    /// Returns the JSON of a value as it is written; of two members of one name the last counts, as in Go.
    pub fn raw(&self, path: &[&str]) -> Option<&str> {
        path.iter().try_fold(self.0.as_str(), |object, name| {
            members(object)?.into_iter().rfind(|(own, _)| own == name).map(|(_, raw)| raw)
        })
    }

    /// Puts another string in the place of one, and returns whether anything changed; no string there: nothing changes.
    pub fn replace_string(&mut self, path: &[&str], value: &str) -> bool {
        let Some(old) = self.string(path) else { return false };
        let Some(raw) = self.raw(path).filter(|_| *old != value) else { return false };
        let start = raw.as_ptr().addr() - self.0.as_ptr().addr();
        let end = start + raw.len();
        let (Some(before), Some(after)) = (self.0.get(..start), self.0.get(end..)) else { return false };
        self.0 = written(|write| {
            write(before);
            write_string(value, write);
            write(after);
        });
        true
    }

    /// Returns the text with two spaces a level, as Go's `MarshalIndent` writes it; a line end behind it stays.
    pub fn to_indented(&self) -> Zeroizing<String> {
        let end = if self.0.ends_with('\n') { "\n" } else { "" };
        written(|write| {
            write_laid_out(&self.0, Layout::Indented, write);
            write(end);
        })
    }

    /// Returns the text without any white space between values.
    pub fn to_compact(&self) -> Zeroizing<String> {
        written(|write| write_laid_out(&self.0, Layout::Compact, write))
    }
}

impl std::fmt::Debug for JsonText {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "JsonText({} bytes)", self.0.len())
    }
}

/// The members of an object, each with its value as it is written.
struct Members<'a>(Vec<(String, &'a str)>);

fn members(object: &str) -> Option<Vec<(String, &str)>> {
    serde_json::from_str::<Members<'_>>(object).ok().map(|members| members.0)
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    members.push((name, value.get()));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

/// Returns what is written, in memory that is taken once: a buffer that grows leaves copies behind.
fn written(write: impl Fn(&mut dyn FnMut(&str))) -> Zeroizing<String> {
    let mut length = 0;
    write(&mut |part| length += part.len());
    let mut text = Zeroizing::new(String::with_capacity(length));
    write(&mut |part| text.push_str(part));
    text
}

/// Writes a string as Go's `encoding/json` does, which escapes what HTML and JavaScript could trip over.
fn write_string(value: &str, write: &mut dyn FnMut(&str)) {
    write("\"");
    let mut rest = value;
    while let Some(at) = rest.find(is_escaped) {
        let (plain, escaped) = rest.split_at(at);
        write(plain);
        let Some(letter) = escaped.chars().next() else { break };
        match letter {
            '"' => write("\\\""),
            '\\' => write("\\\\"),
            '\n' => write("\\n"),
            '\r' => write("\\r"),
            '\t' => write("\\t"),
            letter => write(&format!("\\u{:04x}", u32::from(letter))),
        }
        rest = escaped.get(letter.len_utf8()..).unwrap_or_default();
    }
    write(rest);
    write("\"");
}

fn is_escaped(letter: char) -> bool {
    matches!(letter, '\0'..='\x1f' | '"' | '\\' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}')
}

/// How a text is laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    Compact,
    Indented,
}

/// Writes a valid JSON text with other white space; names, strings and numbers stay as they are written.
fn write_laid_out(text: &str, layout: Layout, write: &mut dyn FnMut(&str)) {
    let mut depth = 0_usize;
    let mut rest = text.trim_start();
    let new_line = |depth: usize, write: &mut dyn FnMut(&str)| {
        if layout == Layout::Indented {
            write("\n");
            (0..depth).for_each(|_| write("  "));
        }
    };
    while let Some(first) = rest.chars().next() {
        let length = if first == '"' { string_length(rest) } else { token_length(rest) };
        let (token, behind) = rest.split_at(length);
        let behind = behind.trim_start();
        match first {
            '{' | '[' if behind.starts_with(['}', ']']) => {
                write(token);
                depth += 1;
            }
            '{' | '[' => {
                write(token);
                depth += 1;
                new_line(depth, write);
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                write(token);
            }
            ',' => {
                write(token);
                new_line(depth, write);
            }
            ':' => write(if layout == Layout::Indented { ": " } else { ":" }),
            _ => write(token),
        }
        if behind.starts_with(['}', ']']) && !matches!(first, '{' | '[') {
            new_line(depth.saturating_sub(1), write);
        }
        rest = behind;
    }
}

/// Returns the length of the string that a text begins with, quotes included.
fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Returns the length of the bracket, comma, colon, number or word that a text begins with.
fn token_length(text: &str) -> usize {
    let ends = |letter: char| letter.is_ascii_whitespace() || "{}[],:\"".contains(letter);
    match text.find(ends) {
        Some(0) => 1,
        Some(at) => at,
        None => text.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str) -> JsonText {
        JsonText::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_string_is_replaced_in_its_place_and_nothing_else_moves() {
        let mut json =
            text("{ \"a\":1e400,\n\t\"b\" : {\"c\" :\"old\" , \"d\":[ 0.10, {} ]}, \"e\":\"\\u00fc\" }\n");
        assert!(json.replace_string(&["b", "c"], "new\n\"<&>\" \u{2028}\x01"));
        assert_eq!(
            json.as_str(),
            "{ \"a\":1e400,\n\t\"b\" : {\"c\" :\"new\\n\\\"\\u003c\\u0026\\u003e\\\" \\u2028\\u0001\" , \
             \"d\":[ 0.10, {} ]}, \"e\":\"\\u00fc\" }\n"
        );
        assert_eq!(*json.string(&["b", "c"]).unwrap(), "new\n\"<&>\" \u{2028}\x01");
        assert_eq!(*json.string(&["e"]).unwrap(), "ü");
    }

    #[test]
    fn nothing_changes_where_there_is_no_string_or_the_same() {
        let mut json = text(r#"{"a":1,"b":{"c":"same","c2":null}}"#);
        for path in [&["a"][..], &["b"], &["b", "x"], &["a", "x"], &["b", "c2"], &["x"]] {
            assert!(!json.replace_string(path, "new"), "{path:?}");
        }
        assert!(!json.replace_string(&["b", "c"], "same"));
        assert_eq!(json.as_str(), r#"{"a":1,"b":{"c":"same","c2":null}}"#);
    }

    #[test]
    fn of_two_members_of_one_name_the_last_counts() {
        let mut json = text(r#"{"a":"1","a":"2"}"#);
        assert_eq!(*json.string(&["a"]).unwrap(), "2");
        assert!(json.replace_string(&["a"], "3"));
        assert_eq!(json.as_str(), r#"{"a":"1","a":"3"}"#);
    }

    #[test]
    fn layouts_change_white_space_alone() {
        let json = text(r#" {"a":[1,-2.50,true,null,"x: {y}, \"z\""],"b":{},"c":[],"d":{"e":[[]]}} "#);
        let indented = "{\n  \"a\": [\n    1,\n    -2.50,\n    true,\n    null,\n    \"x: {y}, \\\"z\\\"\"\n  ],\n  \
                        \"b\": {},\n  \"c\": [],\n  \"d\": {\n    \"e\": [\n      []\n    ]\n  }\n}";
        assert_eq!(*json.to_indented(), indented);
        let back = text(indented);
        assert_eq!(*back.to_compact(), json.as_str().trim());
        assert_eq!(*back.to_indented(), indented);
    }

    #[test]
    fn what_is_no_object_is_refused_without_being_quoted() {
        let refusal = |json: &str| JsonText::parse(json.as_bytes()).unwrap_err().to_string();
        assert_eq!(refusal("{\"a\": \"secret"), "it ends in the middle, in line 1");
        assert_eq!(refusal("{\"a\":\n secret}"), "it is not valid JSON: line 2, column 2");
        assert_eq!(refusal("\"secret\""), "it is JSON, but not an object");
        assert_eq!(refusal("{} secret"), "it is not valid JSON: line 1, column 4");
        assert_eq!(refusal(""), "it ends in the middle, in line 1");
        assert_eq!(JsonText::parse(b"{\"\xff\":1}").unwrap_err(), JsonError::NotText);
    }
}
