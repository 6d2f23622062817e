//! A command is a POSIX shell script for one node, with what it reads on stdin.
//!
//! `plan` makes commands from actions, `gather` makes the probe, `transport` runs them with the [`Access`] that a node allows.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use zeroize::Zeroizing;

mod access;
mod root;

pub use access::{Access, DEFAULT_DOCKER_SOCKET, with_password};
pub use root::{BecomeRoot, Body, Missing, Password, Refused, Search, WaysToRoot};

/// A POSIX shell script to be run on a node, with its standard input.
///
/// The script uses only what every node has: sh, coreutils or busybox, tar and docker. Values are put into it with [`quote`].
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    /// The script, as given to `sh -c`.
    pub script: String,
    /// What the script reads; never shown, wiped after use.
    pub stdin: Option<Zeroizing<Vec<u8>>>,
    /// How long it may take; `None` for the default of the settings.
    pub timeout: Option<Duration>,
}

impl Command {
    /// Returns a command that reads nothing.
    pub fn new(script: impl Into<String>) -> Self {
        Self { script: script.into(), stdin: None, timeout: None }
    }

    /// Returns the same command with a standard input.
    pub fn with_stdin(mut self, stdin: Zeroizing<Vec<u8>>) -> Self {
        self.stdin = Some(stdin);
        self
    }

    /// Returns the same command with a time limit of its own.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Command")
            .field("script", &self.script)
            .field("stdin", &self.stdin.as_ref().map(|stdin| format!("{} bytes", stdin.len())))
            .finish_non_exhaustive()
    }
}

/// What a command answered.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// The exit status; `None` when a signal ended it or the connection was cut before it was told.
    pub status: Option<u32>,
    /// What it wrote to stdout; it may hold keys, so `Debug` shows its length alone, and it is wiped after use.
    pub stdout: Zeroizing<Vec<u8>>,
    /// What it wrote to stderr.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Returns whether the command ended with status 0.
    pub fn succeeded(&self) -> bool {
        self.status == Some(0)
    }

    /// Returns stderr as text, trimmed.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim().to_owned()
    }

    /// Returns stdout as text.
    pub fn stdout_text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Output")
            .field("status", &self.status)
            .field("stdout", &format!("{} bytes", self.stdout.len()))
            .field("stderr", &self.stderr_text())
            .finish()
    }
}

/// Returns the command of a script that waits until what was written below folders, words of that script, has reached their disks.
///
/// Those file systems alone are waited for: a bare `sync`, which is what a node without `-f` gets (coreutils before 8.24, busybox
/// before 1.27), waits for every disk of the node, a dead network mount among them.
pub fn settle(folders: &str) -> String {
    format!("{{ sync -f {folders} 2>/dev/null || sync; }}")
}

/// Returns the same command for the folders of files: each may be a mount of its own.
pub fn settle_around<'a>(paths: impl IntoIterator<Item = &'a str>) -> String {
    let folder = |path: &'a str| path.rsplit_once('/').map_or(".", |(folder, _)| folder);
    let folders: BTreeSet<&str> = paths.into_iter().map(folder).collect();
    settle(&folders.into_iter().map(quote).collect::<Vec<String>>().join(" "))
}

/// Returns a text as one word of a POSIX shell.
pub fn quote(text: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "_-./:=@%+,".contains(character);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_survives_every_shell_character() {
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote("/etc/kubernetes/ssl"), "/etc/kubernetes/ssl");
        assert_eq!(quote("$(reboot)"), "'$(reboot)'");
    }
}
