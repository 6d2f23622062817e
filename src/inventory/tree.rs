//! A tree is a YAML document of which every scalar is kept as it was written and every value knows its place.
//!
//! RKE reads its files with yaml.v2, which hands a plain `22`, `1.10` or `yes` to a text field letter by letter. A tree can do
//! the same, for it resolves no scalar. `tree::read` makes it, `Fields` reads it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Error, Location, MessageFormatter, Options, Spanned, UserMessageFormatter};

use super::problem::{InvalidInventory, Problem};
use super::source::{Place, Source};

/// Values in a file. 5,000 nodes have half of it; more would cost seconds before the file is refused.
const MAX_VALUES: usize = 200_000;
/// Levels of nesting. RKE's own go to 8, admission configurations a little deeper.
const MAX_DEPTH: usize = 40;

/// A value with its place.
#[derive(Debug)]
pub(super) struct Located {
    /// The value.
    pub(super) value: Value,
    /// Where it stands; where an alias or a merge brings it in, the place of that.
    pub(super) place: Place,
}

/// A YAML value.
#[derive(Debug)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar as it was written, without its quotes.
    Scalar(String),
    /// A list.
    List(Vec<Located>),
    /// A mapping in the order of the file; keys may repeat.
    Mapping(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug)]
pub(super) struct Entry {
    /// The key as text; empty where it is null, a list or a mapping.
    pub(super) key: String,
    /// Where the key stands.
    pub(super) place: Place,
    /// The value.
    pub(super) value: Located,
}

/// Reads the documents of a text.
pub(super) fn read(text: &str, source: &Source<'_>) -> Result<Vec<Located>, InvalidInventory> {
    let documents: Vec<Spanned<Raw>> =
        serde_saphyr::from_multiple_with_options(text, options()).map_err(|error| refusal(&error, source))?;
    Ok(documents.into_iter().map(|document| located(document, text)).collect())
}

/// Returns how YAML is read: as yaml.v2 does, but with limits.
fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: MAX_VALUES,
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_documents: 16,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_VALUES },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        ignore_binary_tag_for_string: true,
        with_snippet: false,
    }
}

/// Returns the problem that an error of the YAML parser stands for.
fn refusal(error: &Error, source: &Source<'_>) -> Problem {
    let place = error.location().map_or(Place::START, |location| place_of(location, 1));
    let detail = UserMessageFormatter.format_message(error).into_owned();
    let too_much = ["too complex", "recursion limit"].iter().any(|part| detail.contains(part));
    if too_much || matches!(error, Error::Budget { .. }) {
        return Problem::new(source, place, "the file is too large or too deeply nested for a cluster.yml")
            .label(format!("more than {MAX_VALUES} values, or {MAX_DEPTH} levels"))
            .with_hint("name a `cluster.yml` of RKE, and write its nodes out without aliases of aliases");
    }
    // A second line would break the shape of the message.
    let detail = detail.lines().next().unwrap_or_default();
    Problem::new(source, place, format!("the file is not valid YAML: {detail}")).with_hint(advice(detail))
}

/// Returns the way out of a mistake in YAML.
fn advice(detail: &str) -> &'static str {
    let advice = [
        ("tab", "indent with spaces"),
        (
            "mapping values are not allowed",
            "check the indentation, and put a value that contains `: ` into quotes",
        ),
        ("unexpected character", "put the value into quotes"),
        ("unknown value", "define the anchor (`&name`) above the place where it is used (`*name`)"),
    ];
    let known = advice.iter().find(|(part, _)| detail.contains(part)).map(|(_, advice)| *advice);
    known.unwrap_or("check indentation, quotes and brackets of this line and of the one above")
}

/// A value as the YAML parser hands it over.
#[derive(Debug)]
enum Raw {
    Null,
    /// A plain scalar that the parser resolved to a number or a truth value: its text is taken from the file.
    Resolved,
    Text(String),
    List(Vec<Spanned<Raw>>),
    Mapping(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Raw, E> {
        Ok(Raw::Resolved)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Resolved)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Resolved)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Resolved)
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Raw, E> {
        Ok(Raw::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Raw, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = sequence.next_element()? {
            values.push(value);
        }
        Ok(Raw::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut mapping: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = mapping.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Mapping(entries))
    }
}

/// Returns a value with the text that it has in the file.
fn located(raw: Spanned<Raw>, text: &str) -> Located {
    let width = match raw.value {
        Raw::Null | Raw::Mapping(_) | Raw::List(_) => 1,
        Raw::Resolved | Raw::Text(_) => {
            slice(raw.referenced, text).lines().next().unwrap_or_default().trim_end().chars().count()
        }
    };
    let place = place_of(raw.referenced, width);
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Resolved => Value::Scalar(slice(raw.defined, text).trim_matches(['"', '\'']).to_owned()),
        Raw::Text(text) => Value::Scalar(text),
        Raw::List(values) => Value::List(values.into_iter().map(|value| located(value, text)).collect()),
        Raw::Mapping(entries) => {
            Value::Mapping(entries.into_iter().map(|entry| entry_of(entry, text)).collect())
        }
    };
    Located { value, place }
}

fn entry_of((key, value): (Spanned<Raw>, Spanned<Raw>), text: &str) -> Entry {
    let key = located(key, text);
    let name = match key.value {
        Value::Scalar(name) => name,
        Value::Null | Value::List(_) | Value::Mapping(_) => String::new(),
    };
    Entry { key: name, place: key.place, value: located(value, text) }
}

/// Returns the text of a location.
fn slice(location: Location, text: &str) -> &str {
    let span = location.span();
    let offset = span.byte_offset().and_then(|offset| usize::try_from(offset).ok());
    let length = span.byte_len().and_then(|length| usize::try_from(length).ok());
    match (offset, length) {
        (Some(offset), Some(length)) => text.get(offset..offset.saturating_add(length)).unwrap_or_default(),
        _ => "",
    }
}

fn place_of(location: Location, width: usize) -> Place {
    let line = usize::try_from(location.line()).unwrap_or(1).max(1);
    let column = usize::try_from(location.column()).unwrap_or(1).max(1);
    Place { line, column, width: width.max(1) }
}
