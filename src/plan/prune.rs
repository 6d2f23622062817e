//! Which backups go when only the newest are to stay: pure, and never the newest nor one that a run may still need.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::{Command, quote};
use crate::facts::backup::Backups;
use crate::inventory::NodeName;

/// The folders of a run on the nodes, and what becomes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunBackups {
    /// The run.
    pub run: String,
    /// The nodes that have a folder of it, with its size in bytes.
    pub places: Vec<(NodeName, u64)>,
    /// What becomes of it.
    pub fate: Fate,
}

/// What becomes of the folders of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// They are removed.
    Goes,
    /// It is among the newest.
    Newest,
    /// The run has not come to its end: a resume or a rollback may need them.
    Unfinished,
}

/// Decides which runs' folders go, newest run first.
pub fn prune(backups: &Backups, keep: usize, unfinished: &BTreeSet<String>) -> Vec<RunBackups> {
    let mut places: BTreeMap<&str, Vec<(NodeName, u64)>> = BTreeMap::new();
    for (node, found) in backups {
        let runs = found.as_ref().map(|found| found.runs.as_slice()).unwrap_or_default();
        for folder in runs.iter().filter(|folder| is_run(&folder.run)) {
            places.entry(&folder.run).or_default().push((node.clone(), folder.bytes));
        }
    }
    // A run's name begins with its start: the order of names is that of time.
    let newest_first = places.into_iter().rev().enumerate();
    newest_first
        .map(|(place, (run, places))| {
            let fate = match (place < keep.max(1), unfinished.contains(run)) {
                (true, _) => Fate::Newest,
                (false, true) => Fate::Unfinished,
                (false, false) => Fate::Goes,
            };
            RunBackups { run: run.to_owned(), places, fate }
        })
        .collect()
}

/// Returns the command that removes the folders of some runs from a node, and nothing else.
pub fn prune_command(directory: &str, runs: &[&str]) -> Command {
    let folders = runs.iter().filter(|run| is_run(run)).map(|run| quote(run));
    let folders: Vec<String> = folders.collect();
    Command::new(format!("set -eu\ncd {}/.certroll\nrm -rf -- {}\nsync", quote(directory), folders.join(" ")))
}

/// Returns whether a name is that of a run: `20261121-190502-7f3a`.
fn is_run(name: &str) -> bool {
    let parts: Vec<&str> = name.split('-').collect();
    let is_number =
        |part: &&str, length| part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit());
    matches!(parts.as_slice(), [day, time, id]
        if is_number(day, 8) && is_number(time, 6) && id.len() == 4 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::backup::{NodeBackup, RunFolder};

    fn backups(nodes: &[(&str, &[&str])]) -> Backups {
        let folder = |run: &&str| RunFolder { run: (*run).to_owned(), has_backup: true, bytes: 10 };
        let node = |(name, runs): &(&str, &[&str])| {
            let found = NodeBackup { runs: runs.iter().map(folder).collect(), ..NodeBackup::default() };
            (NodeName::new(*name), Ok(found))
        };
        nodes.iter().map(node).collect()
    }

    const OLD: &str = "20261101-000000-aaaa";
    const MIDDLE: &str = "20261110-000000-bbbb";
    const NEW: &str = "20261120-000000-cccc";

    fn fates(keep: usize, unfinished: &[&str]) -> Vec<(String, Fate)> {
        let backups = backups(&[("cp-1", &[OLD, NEW, "lost+found"]), ("w-1", &[MIDDLE, OLD, ".."])]);
        let unfinished = unfinished.iter().map(|run| (*run).to_owned()).collect();
        prune(&backups, keep, &unfinished).into_iter().map(|run| (run.run, run.fate)).collect()
    }

    #[test]
    fn all_but_the_newest_go() {
        let expected = [(NEW, Fate::Newest), (MIDDLE, Fate::Goes), (OLD, Fate::Goes)]
            .map(|(run, fate)| (run.to_owned(), fate));
        assert_eq!(fates(1, &[]), expected);
        assert_eq!(fates(0, &[]), expected, "the newest stays in any case");
        assert!(fates(3, &[]).iter().all(|(_, fate)| *fate == Fate::Newest));
    }

    #[test]
    fn what_an_unfinished_run_may_need_stays() {
        assert_eq!(fates(1, &[OLD]).last(), Some(&(OLD.to_owned(), Fate::Unfinished)));
    }

    #[test]
    fn the_command_names_runs_and_nothing_else() {
        let command = prune_command("/etc/kubernetes", &[OLD, "..", "lock", "a b-c"]);
        assert!(command.script.contains(&format!("rm -rf -- {OLD}\n")), "{}", command.script);
    }
}
