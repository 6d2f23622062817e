//! Which backups go when only the newest are to stay: pure, and never the newest nor one that a run may still need.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::command::{Command, quote, settle};
use crate::facts::backup::{Backups, RunFolder};
use crate::inventory::NodeName;

/// The nodes that have a folder, with its size in bytes.
type Places = Vec<(NodeName, u64)>;

/// The folders of a run on the nodes where the same becomes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunBackups {
    /// The run.
    pub run: String,
    /// The nodes that have a folder of it, with its size in bytes.
    pub places: Places,
    /// What becomes of it there.
    pub fate: Fate,
}

/// What becomes of the folders of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// They are removed.
    Goes,
    /// Too few newer ones with a backup are on the node.
    Newest,
    /// The run has not come to its end: a resume or a rollback may need them.
    Unfinished,
}

/// Decides which runs' folders go, newest run first.
///
/// Each node counts for itself, and only what has a backup in it: a run that was made of one node, or whose backup failed,
/// makes nobody else's backup old.
pub fn prune(backups: &Backups, keep: usize, unfinished: &BTreeSet<String>) -> Vec<RunBackups> {
    let mut places: BTreeMap<(Reverse<&str>, Fate), Places> = BTreeMap::new();
    for (node, found) in backups {
        let runs = found.as_ref().map(|found| found.runs.as_slice()).unwrap_or_default();
        let mut folders: Vec<&RunFolder> = runs.iter().filter(|folder| is_run(&folder.run)).collect();
        // A run's name begins with its start: the order of names is that of time.
        folders.sort_by_key(|folder| Reverse(&folder.run));
        let mut newer = 0;
        for folder in folders {
            let fate = match (newer < keep.max(1), unfinished.contains(&folder.run)) {
                (true, _) => Fate::Newest,
                (false, true) => Fate::Unfinished,
                (false, false) => Fate::Goes,
            };
            newer += usize::from(folder.has_backup);
            places.entry((Reverse(&folder.run), fate)).or_default().push((node.clone(), folder.bytes));
        }
    }
    let runs = places.into_iter();
    runs.map(|((Reverse(run), fate), places)| RunBackups { run: run.to_owned(), places, fate }).collect()
}

/// Returns the command that removes the folders of some runs from a node, and nothing else.
pub fn prune_command(directory: &str, runs: &[&str]) -> Command {
    let folders = runs.iter().filter(|run| is_run(run)).map(|run| quote(run));
    let folders: Vec<String> = folders.collect();
    Command::new(format!(
        "set -eu\ncd {}/.certroll\nrm -rf -- {}\n{}",
        quote(directory),
        folders.join(" "),
        settle(".")
    ))
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
    use crate::facts::backup::NodeBackup;

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

    fn fates(keep: usize, unfinished: &[&str]) -> Vec<(String, usize, Fate)> {
        let backups = backups(&[("cp-1", &[OLD, NEW, "lost+found"]), ("w-1", &[MIDDLE, OLD, ".."])]);
        let unfinished = unfinished.iter().map(|run| (*run).to_owned()).collect();
        let runs = prune(&backups, keep, &unfinished).into_iter();
        runs.map(|run| (run.run, run.places.len(), run.fate)).collect()
    }

    #[test]
    fn all_but_the_newest_of_each_node_go() {
        let expected = [(NEW, 1, Fate::Newest), (MIDDLE, 1, Fate::Newest), (OLD, 2, Fate::Goes)]
            .map(|(run, nodes, fate)| (run.to_owned(), nodes, fate));
        assert_eq!(fates(1, &[]), expected);
        assert_eq!(fates(0, &[]), expected, "the newest stays in any case");
        assert!(fates(3, &[]).iter().all(|(.., fate)| *fate == Fate::Newest));
    }

    #[test]
    fn what_an_unfinished_run_may_need_stays() {
        assert_eq!(fates(1, &[OLD]).last(), Some(&(OLD.to_owned(), 2, Fate::Unfinished)));
    }

    #[test]
    fn a_folder_without_a_backup_makes_no_backup_old() {
        let mut backups = backups(&[("cp-1", &[OLD, MIDDLE, NEW])]);
        let found = backups.get_mut(&NodeName::new("cp-1")).unwrap().as_mut().unwrap();
        found.runs[2].has_backup = false;
        let fates = prune(&backups, 1, &BTreeSet::new()).into_iter().map(|run| (run.run, run.fate));
        let expected = [(NEW, Fate::Newest), (MIDDLE, Fate::Newest), (OLD, Fate::Goes)];
        assert_eq!(fates.collect::<Vec<_>>(), expected.map(|(run, fate)| (run.to_owned(), fate)));
    }

    #[test]
    fn the_command_names_runs_and_nothing_else() {
        let command = prune_command("/etc/kubernetes", &[OLD, "..", "lock", "a b-c"]);
        assert!(command.script.contains(&format!("rm -rf -- {OLD}\n")), "{}", command.script);
    }
}
