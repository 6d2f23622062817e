//! A fold groups nodes that printed the same, so that it is shown once (`exec --fold`).

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use sha2::{Digest as _, Sha256};

use super::lines::{Escaping, text};
use super::{Kept, node_set};
use crate::report::style::{Style, Tone};

/// How many bytes are kept of the output of all nodes together.
const ALL_KEPT_BYTES: usize = 64 << 20;

/// How many bytes may still be kept.
#[derive(Debug)]
pub struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(ALL_KEPT_BYTES)
    }
}

/// What one stream of nodes held, each text once.
#[derive(Debug, Default)]
pub struct Fold {
    /// By the SHA-256 of all that they printed, also of what is not kept.
    groups: HashMap<[u8; 32], Group>,
}

/// Nodes that printed the same.
#[derive(Debug)]
struct Group {
    text: Vec<u8>,
    /// How many bytes of it are not kept.
    cut: u64,
    /// The places of the nodes.
    places: Vec<usize>,
}

impl Group {
    fn is_silent(&self) -> bool {
        self.text.is_empty() && self.cut == 0
    }
}

impl Fold {
    /// Adds stdout of the node at a place in the order of nodes.
    pub fn add_stdout(&mut self, place: usize, kept: &mut Kept, room: &mut Room) {
        let hash = std::mem::take(&mut kept.stdout_hash);
        let group =
            Group { text: std::mem::take(&mut kept.stdout), cut: kept.stdout_cut, places: vec![place] };
        self.add(hash, group, room);
    }

    /// Adds stderr of the node at a place, if it wrote any.
    pub fn add_stderr(&mut self, place: usize, kept: &mut Kept, room: &mut Room) {
        let hash = std::mem::take(&mut kept.stderr_hash);
        let group =
            Group { text: std::mem::take(&mut kept.stderr), cut: kept.stderr_cut, places: vec![place] };
        if !group.is_silent() {
            self.add(hash, group, room);
        }
    }

    fn add(&mut self, hash: Sha256, mut group: Group, room: &mut Room) {
        match self.groups.entry(hash.finalize().into()) {
            Entry::Occupied(mut same) => same.get_mut().places.append(&mut group.places),
            Entry::Vacant(new) => {
                let surplus = group.text.len().saturating_sub(room.0);
                group.text.truncate(room.0);
                group.text.shrink_to_fit();
                group.cut += surplus as u64;
                room.0 -= group.text.len();
                new.insert(group);
            }
        }
    }

    /// Returns the groups, the largest first: what differs stands at the end. Nothing where nobody printed anything.
    pub fn shown(self, names: &[&str], style: Style, escaping: Escaping) -> Vec<u8> {
        let mut groups: Vec<Group> = self.groups.into_values().collect();
        for group in &mut groups {
            group.places.sort_unstable();
        }
        groups.sort_by_key(|group| (std::cmp::Reverse(group.places.len()), group.places.first().copied()));
        let mut shown = Vec::new();
        if groups.iter().all(Group::is_silent) {
            return shown;
        }
        for group in groups {
            let nothing = if group.is_silent() { ": no output" } else { "" };
            let Group { text: printed, cut, places } = group;
            let nodes = node_set(places.iter().filter_map(|place| names.get(*place).copied()));
            let head = format!("--- {nodes} ({}){nothing}", count(places.len()));
            shown.extend_from_slice(style.paint(Tone::Strong, &head).as_bytes());
            shown.push(b'\n');
            for line in printed.split_inclusive(|byte| *byte == b'\n') {
                shown.extend_from_slice(&text(line.strip_suffix(b"\n").unwrap_or(line), escaping));
                shown.push(b'\n');
            }
            if cut > 0 {
                let tail = format!("--- {nodes}: {cut} bytes more were not kept");
                shown.extend_from_slice(style.paint(Tone::Warning, &tail).as_bytes());
                shown.push(b'\n');
            }
        }
        shown
    }
}

fn count(nodes: usize) -> String {
    if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(printed: &[&str]) -> String {
        let names: Vec<String> = (1..=printed.len()).map(|number| format!("w-{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut fold = Fold::default();
        for (place, text) in printed.iter().enumerate().rev() {
            let mut kept = Kept::default();
            kept.stdout(text.as_bytes());
            fold.add_stdout(place, &mut kept, &mut Room::default());
        }
        String::from_utf8(fold.shown(&names, Style::PLAIN, Escaping::Harmless)).unwrap()
    }

    #[test]
    fn the_odd_one_stands_at_the_end() {
        assert_eq!(
            fold(&["a\n", "b", "a\n", "a\n", ""]),
            "--- w-[1,3-4] (3 nodes)\na\n--- w-2 (1 node)\nb\n--- w-5 (1 node): no output\n"
        );
    }

    #[test]
    fn nothing_is_said_of_nothing() {
        assert_eq!(fold(&["", ""]), "");
    }

    #[test]
    fn what_is_not_kept_is_counted() {
        let mut kept = Kept::default();
        kept.stdout(&vec![b'x'; super::super::KEPT_BYTES]);
        kept.stdout(b"more");
        kept.stderr(b"and more");
        assert_eq!((kept.stdout_cut, kept.stderr_cut), (4, 8));
        let mut fold = Fold::default();
        fold.add_stdout(0, &mut kept, &mut Room::default());
        let shown = String::from_utf8(fold.shown(&["w-1"], Style::PLAIN, Escaping::Raw)).unwrap();
        assert!(
            shown.ends_with("x\n--- w-1: 4 bytes more were not kept\n"),
            "{}",
            &shown[shown.len() - 80..]
        );
    }

    #[test]
    fn what_differs_only_in_what_is_not_kept_is_not_the_same() {
        let mut fold = Fold::default();
        for (place, tail) in ["a", "b", "a"].iter().enumerate() {
            let mut kept = Kept::default();
            kept.stdout(&vec![b'x'; super::super::KEPT_BYTES]);
            kept.stdout(tail.as_bytes());
            fold.add_stdout(place, &mut kept, &mut Room::default());
        }
        let shown =
            String::from_utf8(fold.shown(&["w-1", "w-2", "w-3"], Style::PLAIN, Escaping::Raw)).unwrap();
        let heads: Vec<&str> = shown.lines().filter(|line| line.starts_with("---")).collect();
        assert_eq!(
            heads,
            [
                "--- w-[1,3] (2 nodes)",
                "--- w-[1,3]: 1 bytes more were not kept",
                "--- w-2 (1 node)",
                "--- w-2: 1 bytes more were not kept"
            ]
        );
    }

    #[test]
    fn all_nodes_share_the_room() {
        let (mut fold, mut room) = (Fold::default(), Room(5));
        for (place, text) in ["abc\n", "defg", "abc\n", "hi"].iter().enumerate() {
            let mut kept = Kept::default();
            kept.stdout(text.as_bytes());
            fold.add_stdout(place, &mut kept, &mut room);
        }
        let names = ["w-1", "w-2", "w-3", "w-4"];
        assert_eq!(
            String::from_utf8(fold.shown(&names, Style::PLAIN, Escaping::Raw)).unwrap(),
            "--- w-[1,3] (2 nodes)\nabc\n--- w-2 (1 node)\nd\n--- w-2: 3 bytes more were not kept\n\
             --- w-4 (1 node)\n--- w-4: 2 bytes more were not kept\n"
        );
    }
}
