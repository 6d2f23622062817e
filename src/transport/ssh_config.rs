//! The ssh_config is what the operator's and the system's OpenSSH configuration say of hosts.
//!
//! The face reads it once; logins are made from it. `ssh_config(5)` has the format, and what is not understood is named rather than
//! guessed. Commands that it names (`ProxyCommand`, `Match exec`) are never run.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod directive;
mod files;
mod lookup;
mod parse;
mod patterns;
mod tokens;
mod words;

pub(super) use directive::{AddressFamily, Strictness, Switch};
pub(super) use lookup::{Found, HostConfig, Query, lowercase_name};
pub(super) use tokens::{Here, TokenError, Tokens};

use directive::ConfigFile;

/// A line of a configuration file, shown as `~/.ssh/config:12`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The file, as people write it.
    pub file: Arc<Path>,
    /// The line, counted from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.file.display(), self.line)
    }
}

/// A line that cannot be understood and that OpenSSH would refuse, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Where it stands.
    pub place: Place,
    /// What is wrong.
    pub message: String,
}

/// Why an ssh_config cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SshConfigError {
    /// Lines of it are wrong.
    #[error("the ssh_config is not valid: {}", listed(.0))]
    Malformed(Vec<ConfigProblem>),
    /// The file that was named cannot be read.
    #[error("cannot read the ssh_config `{}`: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        reason: String,
    },
    /// Others could put what they like into it.
    #[error("the ssh_config `{}` belongs to somebody else, or others may write to it", path.display())]
    Untrusted {
        /// The file.
        path: PathBuf,
    },
    /// Files include each other.
    #[error("{place}: files are included more than {limit} deep")]
    TooDeep {
        /// The line that includes one too many.
        place: Place,
        /// How deep they may be.
        limit: usize,
    },
    /// There is no end of files.
    #[error("more than {limit} files are included, the last one is `{}`", path.display())]
    TooMany {
        /// The file that is one too many.
        path: PathBuf,
        /// How many are read.
        limit: usize,
    },
}

/// How many problems one error shows.
const SHOWN_PROBLEMS: usize = 10;

fn listed(problems: &[ConfigProblem]) -> String {
    let shown = problems.iter().take(SHOWN_PROBLEMS);
    let mut lines: Vec<String> =
        shown.map(|problem| format!("{}: {}", problem.place, problem.message)).collect();
    if let Some(more) = problems.len().checked_sub(SHOWN_PROBLEMS).filter(|more| *more > 0) {
        lines.push(format!("and {more} more"));
    }
    lines.join("\n  ")
}

impl SshConfigError {
    /// Returns what to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "`ssh -G HOST` says the same; `--ssh-config none` does without it",
            Self::Unreadable { .. } => {
                "check its name, owner and mode, or give `--ssh-config none` to do without one"
            }
            Self::Untrusted { .. } => "`ssh` refuses it, too: give it to yourself and `chmod go-w` it",
            Self::TooDeep { .. } | Self::TooMany { .. } => "does a file include itself?",
        }
    }
}

/// Which ssh_config is read (`--ssh-config`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ConfigChoice {
    /// `~/.ssh/config`, then `/etc/ssh/ssh_config`.
    #[default]
    Usual,
    /// This file alone.
    File(PathBuf),
    /// None.
    Nothing,
}

/// The files, read and understood; empty where nothing is configured.
#[derive(Debug, Clone, Default)]
pub struct SshConfig {
    files: Vec<Arc<ConfigFile>>,
}

impl SshConfig {
    /// Reads the files, with those that they include.
    pub(super) fn read(choice: &ConfigChoice, here: Here<'_>) -> Result<Self, SshConfigError> {
        let reader = files::Reader::new(here);
        let files = match choice {
            ConfigChoice::Usual => reader.usual()?,
            ConfigChoice::File(path) => reader.named(path)?,
            ConfigChoice::Nothing => Vec::new(),
        };
        Ok(Self { files })
    }

    /// Reads a text as if it were a file; what it includes is not read.
    pub fn parse(name: &Path, text: &str) -> Result<Self, SshConfigError> {
        let (directives, problems) = parse::parse(text);
        let place = |line| Place { file: name.into(), line };
        if !problems.is_empty() {
            let problems = problems.into_iter();
            let problems = problems
                .map(|problem| ConfigProblem { place: place(problem.line), message: problem.message });
            return Err(SshConfigError::Malformed(problems.collect()));
        }
        Ok(Self { files: lookup::without_includes(name, directives) })
    }

    /// Returns what is configured for a host.
    pub(super) fn look_up(&self, query: &Query<'_>) -> HostConfig {
        lookup::look_up(&self.files, query)
    }
}

#[cfg(test)]
mod tests;
