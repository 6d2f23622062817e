//! The report of backups: which runs have folders on which nodes, how large they are, and what becomes of them.
//!
//! `certroll rollback --list` and `--keep` show it.

use serde::Serialize;

use super::DOCUMENT_VERSION;
use super::columns::{Cell, Columns};
use super::names::folded;
use super::style::{Style, Tone};
use crate::facts::backup::Backups;
use crate::inventory::NodeName;
use crate::plan::{Fate, RunBackups};

/// Backups for scripts.
#[derive(Debug, Serialize)]
pub struct BackupsDocument<'a> {
    version: u32,
    backups: Vec<RunEntry<'a>>,
    unseen: Vec<UnseenEntry<'a>>,
}

#[derive(Debug, Serialize)]
struct RunEntry<'a> {
    run: &'a str,
    bytes: u64,
    /// `goes`, or why it stays.
    fate: &'static str,
    nodes: Vec<NodeEntry<'a>>,
}

#[derive(Debug, Serialize)]
struct NodeEntry<'a> {
    node: &'a NodeName,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct UnseenEntry<'a> {
    node: &'a NodeName,
    error: &'a str,
}

/// Whether something is about to go, or backups are listed alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// They are listed.
    Listing,
    /// Those that go are about to be removed.
    Pruning,
}

/// Returns the backups for scripts.
pub fn document<'a>(runs: &'a [RunBackups], backups: &'a Backups, purpose: Purpose) -> BackupsDocument<'a> {
    let entry = |run: &'a RunBackups| RunEntry {
        run: &run.run,
        bytes: total(run),
        fate: word(run.fate, purpose).0,
        nodes: run.places.iter().map(|(node, bytes)| NodeEntry { node, bytes: *bytes }).collect(),
    };
    let unseen = backups.iter().filter_map(|(node, found)| {
        let error = &found.as_ref().err()?.error;
        Some(UnseenEntry { node, error })
    });
    BackupsDocument {
        version: DOCUMENT_VERSION,
        backups: runs.iter().map(entry).collect(),
        unseen: unseen.collect(),
    }
}

/// Returns the backups for people, the newest run first.
pub fn text(runs: &[RunBackups], backups: &Backups, purpose: Purpose, style: Style) -> String {
    let mut text = String::new();
    if runs.is_empty() {
        text.push_str("No node has a backup of a run.\n");
    } else {
        let mut columns = Columns::headed(&["RUN", "NODES", "SIZE", ""]);
        for run in runs {
            let nodes: Vec<&NodeName> = run.places.iter().map(|(node, _)| node).collect();
            let (said, tone) = word(run.fate, purpose);
            columns.push(vec![
                Cell::new(&run.run).tone(Tone::Strong),
                Cell::new(folded(&nodes, backups.len(), style)),
                Cell::new(size(total(run))),
                Cell::new(said).tone(tone),
            ]);
        }
        text.push_str(&columns.render(style));
    }
    let unseen: Vec<&NodeName> =
        backups.iter().filter(|(_, found)| found.is_err()).map(|(node, _)| node).collect();
    if !unseen.is_empty() {
        let names = folded(&unseen, backups.len(), style);
        text.push_str(&style.paint(Tone::Warning, &format!("\nNot looked at: {names}\n")));
    }
    text
}

fn word(fate: Fate, purpose: Purpose) -> (&'static str, Tone) {
    match (fate, purpose) {
        (Fate::Goes, Purpose::Pruning) => ("goes", Tone::Bad),
        (Fate::Newest, Purpose::Pruning) => ("stays: among the newest", Tone::Good),
        (Fate::Unfinished, _) => ("stays: the run has not come to its end", Tone::Warning),
        (Fate::Goes | Fate::Newest, Purpose::Listing) => ("", Tone::Faint),
    }
}

fn total(run: &RunBackups) -> u64 {
    run.places.iter().map(|(_, bytes)| bytes).fold(0, |sum, bytes| sum.saturating_add(*bytes))
}

/// Returns a size in the unit that fits.
fn size(bytes: u64) -> String {
    let mebibyte = 1 << 20;
    if bytes < mebibyte {
        format!("{} KiB", bytes.div_ceil(1 << 10))
    } else {
        format!("{}.{} MiB", bytes / mebibyte, bytes % mebibyte * 10 / mebibyte)
    }
}
