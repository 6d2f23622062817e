//! A node made of a folder: its scripts run in a real shell, its docker writes down what it is told.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::time::{Duration, SystemTime};

use certroll::command::Command;
use certroll::plan::{Ownership, RUN_VARIABLE};

/// The run whose scripts are run.
pub(super) const RUN: &str = "20261122-010203-7f3a";

/// What lies at a path: kind, mode, owner and group, when it was written, what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    attributes: String,
    written_at: Option<SystemTime>,
    content: Vec<u8>,
}

/// Everything beneath the node's root, by path.
pub(super) type Tree = BTreeMap<String, Entry>;

pub(super) struct Node {
    folder: tempfile::TempDir,
}

impl Node {
    pub(super) fn new() -> Self {
        let node = Self { folder: tempfile::tempdir().unwrap() };
        for folder in ["bin", "etc/kubernetes/ssl", "var/lib/kubelet/pki"] {
            std::fs::create_dir_all(node.folder.path().join(folder)).unwrap();
        }
        let docker = node.folder.path().join("bin/docker");
        std::fs::write(&docker, "#!/bin/sh\necho \"$*\" >>\"${0%/*}/../told\"\n").unwrap();
        std::fs::set_permissions(&docker, std::fs::Permissions::from_mode(0o755)).unwrap();
        node
    }

    /// Returns the full path of something on the node.
    pub(super) fn path(&self, path: &str) -> String {
        self.folder.path().join(path.trim_start_matches('/')).to_str().unwrap().to_owned()
    }

    pub(super) fn directory(&self) -> String {
        self.path("etc/kubernetes")
    }

    /// Lays a file out that was written an hour ago; its mode is none that a script would choose.
    pub(super) fn write(&self, path: &str, content: &str) {
        let path = PathBuf::from(self.path(path));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let file = std::fs::File::options().append(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    }

    pub(super) fn remove(&self, path: &str) {
        std::fs::remove_file(self.path(path)).unwrap();
    }

    pub(super) fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.path(path)).ok()
    }

    /// Returns whose the files of the node are.
    pub(super) fn owner(&self, mode: u32) -> Ownership {
        let metadata = self.folder.path().metadata().unwrap();
        Ownership { user_id: metadata.uid(), group_id: metadata.gid(), mode }
    }

    /// Runs a script as a step of a run does, and returns its status with what it printed.
    pub(super) fn run(&self, run: &str, command: &Command) -> (Option<i32>, String) {
        let script = format!("{RUN_VARIABLE}={run}\n{}", command.script);
        let mut child = Process::new("/bin/sh")
            .args(["-c", &script])
            .env("PATH", format!("{}:/usr/bin:/bin", self.path("bin")))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = command.stdin.as_ref().map(|stdin| stdin.to_vec()).unwrap_or_default();
        // A script that reads nothing may be gone already.
        let _ = child.stdin.take().unwrap().write_all(&stdin);
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Runs a script that must end well.
    pub(super) fn run_well(&self, run: &str, command: &Command) -> String {
        let (status, said) = self.run(run, command);
        assert_eq!(status, Some(0), "{said}\n{}", command.script);
        said
    }

    /// Returns what docker was told since it was asked for last.
    pub(super) fn told(&self) -> Vec<String> {
        let told = self.read("told").unwrap_or_default();
        if !told.is_empty() {
            self.remove("told");
        }
        told.lines().map(str::to_owned).collect()
    }

    /// Returns what lies on the node.
    pub(super) fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        for root in ["etc", "var"] {
            self.walk(&self.folder.path().join(root), &mut tree);
        }
        tree
    }

    fn walk(&self, path: &Path, tree: &mut Tree) {
        let metadata = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(self.folder.path()).unwrap().to_str().unwrap().to_owned();
        let kind = if metadata.is_dir() { "folder" } else { "file" };
        let attributes = format!("{kind} {:o} {}:{}", metadata.mode(), metadata.uid(), metadata.gid());
        // When a folder of its own was written last matters to nobody; of what a run writes down of itself neither.
        let is_own = metadata.is_dir() || name.contains("/.certroll/");
        let written_at = (!is_own).then(|| metadata.modified().unwrap());
        let content = if metadata.is_dir() {
            Vec::new()
        } else if name.ends_with("/written") {
            last_lines(&std::fs::read_to_string(path).unwrap())
        } else {
            std::fs::read(path).unwrap()
        };
        tree.insert(name, Entry { attributes, written_at, content });
        if metadata.is_dir() {
            for entry in std::fs::read_dir(path).unwrap() {
                self.walk(&entry.unwrap().path(), tree);
            }
        }
    }
}

/// Returns what a list of written files says: the last line of a path counts.
fn last_lines(text: &str) -> Vec<u8> {
    let lines = text.lines().map(|line| (line.splitn(3, ' ').nth(2).unwrap_or_default(), line));
    let last: BTreeMap<&str, &str> = lines.collect();
    last.into_values().collect::<Vec<_>>().join("\n").into_bytes()
}

/// Names the paths in which two trees differ.
pub(super) fn difference(before: &Tree, after: &Tree) -> Vec<String> {
    let gone = before.keys().filter(|path| !after.contains_key(*path)).map(|path| format!("- {path}"));
    let new = after.iter().filter_map(|(path, entry)| match before.get(path) {
        None => Some(format!("+ {path}")),
        Some(old) if old != entry => Some(format!("~ {path}")),
        Some(_) => None,
    });
    gone.chain(new).collect()
}
