//! The backup facts of a node are how its files compare with those that a run has saved there, and what that run left.
//!
//! `gather` runs the look and has its answer read here; the planner of a rollback decides by them. The look changes nothing on
//! the node, and no private key is in its answer.

use std::collections::BTreeMap;

use super::Unseen;
use super::probe::{Frame, frames};
use crate::command::{Command, quote};
use crate::inventory::NodeName;
use crate::pki::Certificate;

/// The script of the look. `M` marker, `D` directory, `U` the run, or nothing where only sizes are asked for.
const BODY: &str = include_str!("backup/body.sh");

/// What was seen of a run's backups on the nodes that were asked, or why nothing was.
pub type Backups = BTreeMap<NodeName, Result<NodeBackup, Unseen>>;

/// A look at what a run has saved on a node.
#[derive(Debug, Clone, Copy)]
pub struct BackupLook<'a> {
    /// The node's Kubernetes directory.
    pub directory: &'a str,
    /// The run; `None` where only the folders of all runs are listed.
    pub run: Option<&'a str>,
    /// A word that cannot appear in a file by accident.
    pub marker: &'a str,
}

impl BackupLook<'_> {
    /// Returns the command, which changes nothing.
    pub fn command(&self) -> Command {
        Command::new(format!(
            "M={} D={} U={}\n{BODY}",
            quote(self.marker),
            quote(self.directory),
            quote(self.run.unwrap_or_default())
        ))
    }

    /// Reads what the command printed; `None` where the answer breaks off.
    pub fn read(&self, output: &str) -> Option<NodeBackup> {
        let frames = frames(output, self.marker);
        frames.iter().any(|frame| frame.kind == "end").then(|| NodeBackup::of(&frames))
    }
}

/// What a run has saved on a node, beside what is there now. Paths are relative to the Kubernetes directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeBackup {
    /// Whether the archive is there.
    pub has_archive: bool,
    /// Whether ACLs were saved, and can be compared.
    pub compares_acls: bool,
    /// The files that were saved.
    pub saved: BTreeMap<String, SavedFile>,
    /// The folders that were saved.
    pub folders: BTreeMap<String, Attributes>,
    /// The files that are there now.
    pub present: BTreeMap<String, PresentFile>,
    /// What the run left, as it said itself; the newest last.
    pub written: BTreeMap<String, Vec<Trace>>,
    /// The files that were moved away so that their owner makes new ones.
    pub retired: Vec<RetiredFile>,
    /// The objects of the API that the run has kept here before it wrote to them.
    pub objects: Vec<KeptObject>,
    /// The folders of all runs on the node.
    pub runs: Vec<RunFolder>,
}

/// A file that was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedFile {
    /// Owner and mode as they were.
    pub attributes: Attributes,
    /// Whether the same bytes are there now, with the same ACL where the node can tell.
    pub is_same: bool,
    /// The certificate, where it is one that is not there now.
    pub certificate: Option<Certificate>,
}

/// A file that is there now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresentFile {
    /// Owner and mode.
    pub attributes: Attributes,
    /// What it holds; `None` where it could not be read.
    pub sum: Option<Sum>,
}

/// Owner and mode of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// The permission bits.
    pub mode: u32,
    /// The owner's number.
    pub user_id: u32,
    /// The group's number.
    pub group_id: u32,
}

/// The POSIX checksum of a content, and its length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    /// The checksum.
    pub checksum: u32,
    /// The length.
    pub bytes: u64,
}

/// What a run left in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// A file with this content.
    File(Sum),
    /// Nothing: it has removed the file.
    Nothing,
}

/// A file that was moved away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetiredFile {
    /// Its name (`kubelet.crt`).
    pub name: String,
    /// The certificate, where it is one.
    pub certificate: Option<Certificate>,
}

/// An object of the API as it was before the run wrote to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeptObject {
    /// The file's name (`full-cluster-state.json`, `secret-kube-node.json`).
    pub file_name: String,
    /// When it was kept, in seconds since 1970, by the node's clock.
    pub kept_at: i64,
}

/// The folder of a run on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder {
    /// The run.
    pub run: String,
    /// Whether a backup is in it.
    pub has_backup: bool,
    /// How much it takes.
    pub bytes: u64,
}

impl NodeBackup {
    fn of(frames: &[Frame<'_>]) -> Self {
        let mut found = Self::default();
        for frame in frames {
            let argument = frame.argument.trim();
            match frame.kind {
                "run" => found.runs.extend(run_folder(frame)),
                "archive" => found.has_archive = true,
                "acls" => found.compares_acls = true,
                "index" => found.read_index(frame.text),
                "disk" => found.present = frame.text.lines().filter_map(present).collect(),
                "retired" if plain(argument).is_some() => {
                    let certificate = Certificate::from_pem(frame.text.as_bytes()).ok();
                    found.retired.push(RetiredFile { name: argument.to_owned(), certificate });
                }
                "object" => found.objects.extend(kept_object(argument)),
                _ => {}
            }
        }
        // What is compared stands in the index, which comes first.
        for frame in frames {
            match frame.kind {
                "same" => found.with_saved(frame, |saved, _| saved.is_same = true),
                "other" => {
                    found.with_saved(frame, |saved, text| {
                        saved.certificate = Certificate::from_pem(text.as_bytes()).ok();
                    });
                }
                "sums" => {
                    for (path, sum) in frame.text.lines().filter_map(summed) {
                        if let (Some(present), Trace::File(sum)) = (found.present.get_mut(&path), sum) {
                            present.sum = Some(sum);
                        }
                    }
                }
                "written" => {
                    for (path, trace) in frame.text.lines().filter_map(summed) {
                        found.written.entry(path).or_default().push(trace);
                    }
                }
                _ => {}
            }
        }
        found
    }

    fn read_index(&mut self, text: &str) {
        for line in text.lines() {
            let Some((kind, rest)) = line.split_once(' ') else { continue };
            let Some((attributes, path)) = attributed(rest) else { continue };
            if kind == "d" {
                self.folders.insert(path, attributes);
            } else {
                let saved = SavedFile { attributes, is_same: false, certificate: None };
                self.saved.insert(path, saved);
            }
        }
    }

    fn with_saved(&mut self, frame: &Frame<'_>, change: impl FnOnce(&mut SavedFile, &str)) {
        if let Some(saved) = self.saved.get_mut(frame.argument.trim()) {
            change(saved, frame.text);
        }
    }

    /// Returns whether what is in a place now is what the run left there at some time.
    pub fn is_as_left(&self, path: &str) -> bool {
        let traces = self.written.get(path).map(Vec::as_slice).unwrap_or_default();
        match self.present.get(path) {
            Some(PresentFile { sum: Some(sum), .. }) => traces.contains(&Trace::File(*sum)),
            Some(PresentFile { sum: None, .. }) => false,
            None => traces.last() == Some(&Trace::Nothing),
        }
    }

    /// Returns whether a file that was saved is there as it was: content, owner and mode.
    pub fn is_as_saved(&self, path: &str) -> bool {
        let saved = self.saved.get(path).filter(|saved| saved.is_same);
        saved.is_some_and(|saved| {
            self.present.get(path).is_some_and(|present| present.attributes == saved.attributes)
        })
    }
}

/// Returns a relative path that is made of plain characters; the look prints no other.
fn plain(path: &str) -> Option<&str> {
    let path = path.strip_prefix("./").unwrap_or(path);
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._/@+=,:-".contains(letter);
    let is_usable = !path.is_empty()
        && !path.starts_with(['/', '-'])
        && !path.contains("..")
        && path.chars().all(is_plain);
    is_usable.then_some(path)
}

/// Reads `<mode> <uid> <gid> <path>`.
fn attributed(line: &str) -> Option<(Attributes, String)> {
    let mut words = line.splitn(4, ' ');
    let mode = u32::from_str_radix(words.next()?, 8).ok()?;
    let user_id = words.next()?.parse().ok()?;
    let group_id = words.next()?.parse().ok()?;
    let path = plain(words.next()?)?.to_owned();
    Some((Attributes { mode, user_id, group_id }, path))
}

fn present(line: &str) -> Option<(String, PresentFile)> {
    let (attributes, path) = attributed(line)?;
    Some((path, PresentFile { attributes, sum: None }))
}

/// Reads `<checksum> <bytes> <path>`, or `- - <path>` where the file was removed.
fn summed(line: &str) -> Option<(String, Trace)> {
    let mut words = line.splitn(3, ' ');
    let (checksum, bytes) = (words.next()?, words.next()?);
    let path = plain(words.next()?)?.to_owned();
    if (checksum, bytes) == ("-", "-") {
        return Some((path, Trace::Nothing));
    }
    let sum = Sum { checksum: checksum.parse().ok()?, bytes: bytes.parse().ok()? };
    Some((path, Trace::File(sum)))
}

fn run_folder(frame: &Frame<'_>) -> Option<RunFolder> {
    let run = plain(frame.argument.trim()).filter(|run| !run.contains('/'))?;
    let has_backup = frame.text.lines().any(|line| line == "backup");
    let sizes = frame.text.lines().filter_map(|line| line.parse::<u64>().ok());
    Some(RunFolder { run: run.to_owned(), has_backup, bytes: sizes.fold(0, u64::saturating_add) })
}

fn kept_object(argument: &str) -> Option<KeptObject> {
    let (kept_at, file_name) = argument.split_once(' ')?;
    let file_name = plain(file_name).filter(|name| !name.contains('/'))?;
    Some(KeptObject { file_name: file_name.to_owned(), kept_at: kept_at.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = include_str!("../../tests/cases/golden/rke-v0.2.8/n1/ssl/kube-node.pem");

    const LOOK: BackupLook<'_> =
        BackupLook { directory: "/etc/kubernetes", run: Some("20261122-010203-abcd"), marker: "mark" };

    fn read(frames: &str) -> NodeBackup {
        LOOK.read(&format!("motd\n{}\nmark end\n", frames.replace('@', "\nmark "))).unwrap()
    }

    #[test]
    fn files_are_compared_with_what_was_saved_and_what_was_left() {
        let found = read(&format!(
            "@archive\n@disk\n600 0 0 ./ssl/a.pem\n600 0 7 ./ssl/b.pem\n600 0 0 ./ssl/new.pem\n\
             @sums\n1 10 ./ssl/a.pem\n2 20 ./ssl/b.pem\n3 30 ./ssl/new.pem\n\
             @written\n2 21 ssl/b.pem\n3 30 ssl/new.pem\n- - ssl/gone.pem\n\
             @index\nd 755 0 0 .\nd 700 0 0 ./ssl\nf 600 0 0 ./ssl/a.pem\nf 600 0 0 ./ssl/b.pem\nf 640 0 0 ./ssl/gone.pem\n\
             @same ssl/a.pem\n@other ssl/b.pem\n{PEM}\n@other ssl/gone.pem"
        ));
        assert!(found.has_archive && found.is_as_saved("ssl/a.pem") && !found.is_as_saved("ssl/b.pem"));
        assert!(!found.is_as_left("ssl/b.pem"), "somebody has changed it since");
        assert!(found.is_as_left("ssl/new.pem") && found.is_as_left("ssl/gone.pem"));
        assert_eq!(found.saved["ssl/b.pem"].certificate.as_ref().unwrap().common_name(), Some("system:node"));
        assert_eq!(found.folders["ssl"].mode, 0o700);
        assert_eq!(found.saved["ssl/gone.pem"].attributes.mode, 0o640);
    }

    #[test]
    fn a_hostile_answer_names_no_path_that_leaves_the_directory() {
        let found = read(
            "@archive\n@index\nf 600 0 0 ./../../shadow\nf 600 0 0 /etc/shadow\nf x y z\nf 600 0 0 ./a b\nf 600 0 0 -rf\n\
             @written\n1 2 $(reboot)\n9999999999999999 1 ssl/a\n\
             @run ../..\n5\n@run \u{1b}[31m\n@object 1 ../x\n@object x y\n@retired /etc/passwd\n@same nothing",
        );
        assert_eq!(found, NodeBackup { has_archive: true, ..NodeBackup::default() });
        assert!(LOOK.read("\nmark archive\n").is_none(), "an answer that breaks off is none");
    }

    #[test]
    fn folders_of_runs_have_their_sizes() {
        let found = read("@run 20261122-010203-abcd\nbackup\n1000\n24\n@run 20261121-000000-0000\n7");
        let runs: Vec<_> = found.runs.iter().map(|run| (run.has_backup, run.bytes)).collect();
        assert_eq!(runs, [(true, 1024), (false, 7)]);
    }
}
