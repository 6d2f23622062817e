//! Fields are the entries of one mapping, read with the types that RKE gives them.
//!
//! Reading follows yaml.v2: null is the same as an absent key, a text field takes a number as it was written, a truth value is
//! any of YAML 1.1's words. An empty text counts as absent, as it does everywhere in RKE.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::notes::{Noted, Notes};
use super::schema::Level;
use super::source::{Place, quoted};
use super::tree::{Entry, Located, Value};

/// Entries that are looked at for a misspelled key: no mapping that RKE knows has as many.
const COMPARED: usize = 64;

/// A text with its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'t> {
    /// The text; not empty where it was read by [`Fields::text`].
    pub(super) value: &'t str,
    /// Where it stands.
    pub(super) place: Place,
}

/// What a value has to be.
#[derive(Debug, Clone, Copy)]
enum Kind<'k> {
    Mapping,
    List,
    Nodes,
    Text,
    Flag,
    Number(&'k str),
}

impl Kind<'_> {
    /// Returns the words for it.
    fn words(&self) -> &str {
        match self {
            Self::Mapping => "a mapping",
            Self::List | Self::Nodes => "a list",
            Self::Text => "a text",
            Self::Flag => "`true` or `false`",
            Self::Number(words) => words,
        }
    }

    /// Returns the way to correct the value of a key.
    fn hint(&self, key: &str, value: &Value) -> String {
        match (self, value) {
            (Self::Mapping, _) => "put `key: value` lines there, without a dash".to_owned(),
            (Self::Nodes, _) => "begin each node with `- address:`".to_owned(),
            (Self::List, Value::Scalar(value)) => format!("write `{key}: [{}]`", listed(value)),
            _ => format!("correct `{key}`, or remove it"),
        }
    }
}

/// The entries of a mapping.
#[derive(Debug, Clone)]
pub(super) struct Fields<'t> {
    entries: Vec<&'t Entry>,
    place: Place,
    name: String,
}

impl<'t> Fields<'t> {
    /// Returns the entries of a mapping that messages call by a name; `None` for null.
    pub(super) fn of(located: &'t Located, name: &str, notes: &mut Notes<'_>) -> Result<Option<Self>, Noted> {
        match &located.value {
            Value::Null => Ok(None),
            Value::Mapping(entries) => {
                let place = entries.first().map_or(located.place, |entry| entry.place);
                Ok(Some(Self { entries: entries.iter().collect(), place, name: name.to_owned() }))
            }
            value @ (Value::Scalar(_) | Value::List(_)) => {
                let kind = Kind::Mapping;
                let message = format!("{name} is not {}", kind.words());
                Err(notes.refuse(located.place, message, |problem| {
                    problem.label(format!("{} is expected", kind.words())).with_hint(kind.hint(name, value))
                }))
            }
        }
    }

    /// Returns no entries, at a place.
    pub(super) fn empty(place: Place, name: &str) -> Self {
        Self { entries: Vec::new(), place, name: name.to_owned() }
    }

    /// Returns these entries and, behind them, those of another mapping.
    pub(super) fn or(mut self, other: &Self) -> Self {
        self.entries.extend(&other.entries);
        self
    }

    /// Returns where the mapping begins.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Returns what messages call the mapping.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the entry of a key, unless it is null.
    pub(super) fn entry(&self, key: &str) -> Option<&'t Entry> {
        self.entries
            .iter()
            .find(|entry| entry.key == key && !matches!(entry.value.value, Value::Null))
            .copied()
    }

    /// Returns where to point for a key: at its value, or at the beginning of the mapping where it is absent.
    pub(super) fn place_of(&self, key: &str) -> Place {
        self.entry(key).map_or(self.place, |entry| entry.value.place)
    }

    /// Returns the first entry that RKE does not read and that was probably meant to be a key.
    pub(super) fn misspelled(&self, key: &str, level: &Level) -> Option<&'t Entry> {
        let unknown =
            |entry: &&&Entry| level.shape(&entry.key).is_none() && level.meant(&entry.key) == Some(key);
        self.entries.iter().take(COMPARED).find(unknown).copied()
    }

    /// Returns a text; `None` where it is absent or empty.
    pub(super) fn text(&self, key: &str, notes: &mut Notes<'_>) -> Result<Option<Text<'t>>, Noted> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        match &entry.value.value {
            Value::Scalar(value) if value.is_empty() => Ok(None),
            Value::Scalar(value) => Ok(Some(Text { value, place: entry.value.place })),
            _ => Err(self.mistyped(entry, Kind::Text, notes)),
        }
    }

    /// Returns an owned text; `None` where it is absent, empty, or noted as a problem.
    pub(super) fn string(&self, key: &str, notes: &mut Notes<'_>) -> Option<String> {
        self.text(key, notes).ok().flatten().map(|text| text.value.to_owned())
    }

    /// Returns a truth value, false where it is absent.
    pub(super) fn flag(&self, key: &str, notes: &mut Notes<'_>) -> bool {
        let Some(entry) = self.entry(key) else { return false };
        let truth = match &entry.value.value {
            Value::Scalar(word) => truth(word),
            _ => None,
        };
        truth.unwrap_or_else(|| {
            self.mistyped(entry, Kind::Flag, notes);
            false
        })
    }

    /// Returns a number; `None` where it is absent or noted as a problem.
    pub(super) fn number<N: FromStr>(&self, key: &str, expected: &str, notes: &mut Notes<'_>) -> Option<N> {
        let text = self.text(key, notes).ok().flatten()?;
        let number = text.value.parse().ok();
        if number.is_none() {
            self.entry(key).map(|entry| self.mistyped(entry, Kind::Number(expected), notes));
        }
        number
    }

    /// Returns the texts of a list; empty where it is absent. Null in a list is an empty text, as it is for yaml.v2.
    pub(super) fn texts(&self, key: &str, notes: &mut Notes<'_>) -> Result<Vec<Text<'t>>, Noted> {
        let Some(entry) = self.entry(key) else { return Ok(Vec::new()) };
        let Value::List(items) = &entry.value.value else {
            return Err(self.mistyped(entry, Kind::List, notes));
        };
        items.iter().map(|item| self.item(key, item, notes)).collect()
    }

    /// Returns one text of a list.
    fn item(&self, key: &str, item: &'t Located, notes: &mut Notes<'_>) -> Result<Text<'t>, Noted> {
        match &item.value {
            Value::Null => Ok(Text { value: "", place: item.place }),
            Value::Scalar(value) => Ok(Text { value, place: item.place }),
            Value::List(_) | Value::Mapping(_) => {
                let message = format!("an item of `{key}` of {} is not a text", self.name);
                Err(notes.refuse(item.place, message, |problem| {
                    problem.label("a text is expected").with_hint("write one text an item")
                }))
            }
        }
    }

    /// Returns the texts of a list that are not empty, owned; none where they are noted as a problem.
    pub(super) fn strings(&self, key: &str, notes: &mut Notes<'_>) -> Vec<String> {
        let texts = self.texts(key, notes).unwrap_or_default();
        texts.iter().filter(|text| !text.value.is_empty()).map(|text| text.value.to_owned()).collect()
    }

    /// Returns a mapping of texts; empty ones are left out.
    pub(super) fn text_map(&self, key: &str, notes: &mut Notes<'_>) -> BTreeMap<String, String> {
        let fields = self.fields(key, notes);
        let mut texts = BTreeMap::new();
        for entry in &fields.entries {
            if let Some(text) = fields.string(&entry.key, notes) {
                texts.insert(entry.key.clone(), text);
            }
        }
        texts
    }

    /// Returns the entries of a mapping; no entries where it is absent or noted as a problem.
    pub(super) fn fields(&self, key: &str, notes: &mut Notes<'_>) -> Self {
        let name = format!("`{key}`");
        let absent = Self::empty(self.place_of(key), &name);
        let Some(entry) = self.entry(key) else { return absent };
        match Self::of(&entry.value, &name, notes) {
            Ok(Some(fields)) => fields,
            Ok(None) | Err(Noted) => absent,
        }
    }

    /// Returns the nodes of a list; none where it is absent.
    pub(super) fn nodes(&self, key: &str, notes: &mut Notes<'_>) -> Result<&'t [Located], Noted> {
        let Some(entry) = self.entry(key) else { return Ok(&[]) };
        match &entry.value.value {
            Value::List(items) => Ok(items),
            _ => Err(self.mistyped(entry, Kind::Nodes, notes)),
        }
    }

    /// Notes that a value is not what its key wants.
    fn mistyped(&self, entry: &Entry, kind: Kind<'_>, notes: &mut Notes<'_>) -> Noted {
        let message = format!("`{}` of {} is not {}", entry.key, self.name, kind.words());
        notes.refuse(entry.value.place, message, |problem| {
            let hint = kind.hint(&entry.key, &entry.value.value);
            problem.label(format!("{} is expected", kind.words())).with_hint(hint)
        })
    }
}

/// Returns a scalar that was meant to be a list, as the items of one.
fn listed(value: &str) -> String {
    let words: Vec<_> = value.split([',', ' ']).filter(|word| !word.is_empty()).collect();
    quoted(&words.join(", ")).trim_matches('`').to_owned()
}

/// Returns the truth value of a word of YAML 1.1, as yaml.v2 knows them.
fn truth(word: &str) -> Option<bool> {
    match word {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" | "" => {
            Some(false)
        }
        _ => None,
    }
}
