//! Checks the keys of a file against the schema.
//!
//! RKE ignores what it does not know without a word, so that a slip of the pen is lost: here it becomes a finding. A key that
//! stands twice in one mapping refuses the file, for of two users or addresses nobody can say which one is meant.

use std::collections::HashMap;

use super::notes::Notes;
use super::schema::{Level, Shape};
use super::source::{Place, quoted};
use super::tree::{Entry, Located, Value};
use crate::finding::Finding;

/// Unknown keys that are listed one by one. A file with more of them is no cluster.yml, and the list would hide all else.
const LISTED: usize = 100;

/// Checks a mapping and all that is known beneath it.
pub(super) fn check(located: &Located, level: &'static Level, notes: &mut Notes<'_>) {
    let mut check = Check { notes, unknown: 0 };
    check.mapping(located, level);
    if let Some(more) = check.unknown.checked_sub(LISTED).filter(|more| *more > 0) {
        let message = format!("{more} more keys are unknown and not listed");
        notes.find(Finding::warning("unknown-key", message).hint("is this file a cluster.yml of RKE?"));
    }
}

struct Check<'n, 'a> {
    notes: &'n mut Notes<'a>,
    unknown: usize,
}

impl Check<'_, '_> {
    fn mapping(&mut self, located: &Located, level: &'static Level) {
        let Value::Mapping(entries) = &located.value else { return };
        let mut first = HashMap::new();
        for entry in entries {
            let Some(shape) = level.shape(&entry.key) else {
                self.unknown(entry, level);
                continue;
            };
            if let Some(earlier) = first.insert(&entry.key, entry.place) {
                self.repeated(entry, earlier);
            }
            match shape {
                Shape::Free => {}
                Shape::Mapping(level) => self.mapping(&entry.value, level),
                Shape::List(level) => self.items(&entry.value, level),
            }
        }
    }

    fn items(&mut self, located: &Located, level: &'static Level) {
        let Value::List(items) = &located.value else { return };
        for item in items {
            self.mapping(item, level);
        }
    }

    fn unknown(&mut self, entry: &Entry, level: &Level) {
        self.unknown += 1;
        if self.unknown > LISTED {
            return;
        }
        let (key, noun, place) = (quoted(&entry.key), level.noun, self.notes.locate(entry.place));
        let message = format!("{key} is not a key of {noun}: it is ignored, as RKE does ({place})");
        let hint = match level.meant(&entry.key) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "remove it if nothing else reads it".to_owned(),
        };
        self.notes.find(Finding::warning("unknown-key", message).hint(hint));
    }

    fn repeated(&mut self, entry: &Entry, earlier: Place) {
        self.notes.refuse(
            entry.place,
            format!("the key {} stands here twice", quoted(&entry.key)),
            |problem| problem.label(format!("also in line {}", earlier.line)).with_hint("keep one of them"),
        );
    }
}
