//! The files of ssh_config are the operator's, the system's, and those that they include.
//!
//! `SshConfig::read` reads them once for all hosts; who may own and write them is checked as OpenSSH does (`readconf.c`).
#![expect(clippy::disallowed_methods, reason = "this module owns the files of ssh_config")]

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::directive::{ConfigFile, Directive, Kind};
use super::parse::parse;
use super::tokens::{Here, TokenError};
use super::{ConfigProblem, Place, SshConfigError};

/// How deep files may include others: `READCONF_MAX_DEPTH` of OpenSSH.
const DEEPEST: usize = 16;
/// How many files are read at most: a file that includes itself twice would be read 65,536 times before it is too deep.
const MOST_FILES: usize = 1000;
/// The largest file that is read, in bytes.
const LARGEST: u64 = 4 << 20;

/// Where the system keeps its files.
const SYSTEM_FOLDER: &str = "/etc/ssh";
const SYSTEM_FILE: &str = "/etc/ssh/ssh_config";

/// Whose settings a file holds, which decides where relative paths and `~` lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Operator,
    System,
}

/// Whether others than root and the operator may own a file or write to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    Checked,
    /// The operator has named the file.
    Given,
}

/// Reads files, and those that they include.
pub(super) struct Reader<'a> {
    here: Here<'a>,
    read: usize,
    problems: Vec<ConfigProblem>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(here: Here<'a>) -> Self {
        Self { here, read: 0, problems: Vec::new() }
    }

    /// Reads the operator's file and the system's; either may be missing.
    pub(super) fn usual(mut self) -> Result<Vec<Arc<ConfigFile>>, SshConfigError> {
        let own = Path::new(self.here.home).join(".ssh/config");
        let mut files = Vec::new();
        if !self.here.home.is_empty() {
            // OpenSSH passes over a file of its user that cannot be opened.
            files.extend(self.file(&own, Owner::Operator, Trust::Checked, 0)?.ok());
        }
        files.extend(self.file(Path::new(SYSTEM_FILE), Owner::System, Trust::Given, 0)?.ok());
        self.finish(files)
    }

    /// Reads a file that was named instead, which has to be there.
    pub(super) fn named(mut self, path: &Path) -> Result<Vec<Arc<ConfigFile>>, SshConfigError> {
        let file = self.file(path, Owner::Operator, Trust::Given, 0)?;
        let file = file.map_err(|error| SshConfigError::Unreadable {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        self.finish(vec![file])
    }

    fn finish(self, files: Vec<Arc<ConfigFile>>) -> Result<Vec<Arc<ConfigFile>>, SshConfigError> {
        if self.problems.is_empty() { Ok(files) } else { Err(SshConfigError::Malformed(self.problems)) }
    }

    /// Reads one file; the inner error is that of opening it.
    fn file(
        &mut self,
        path: &Path,
        owner: Owner,
        trust: Trust,
        depth: usize,
    ) -> Result<io::Result<Arc<ConfigFile>>, SshConfigError> {
        let text = match self.text(path, trust)? {
            Ok(text) => text,
            Err(error) => return Ok(Err(error)),
        };
        let name: Arc<Path> = shortened(path, self.here.home).into();
        let (mut directives, problems) = parse(&text);
        let place = |line| Place { file: Arc::clone(&name), line };
        self.problems.extend(
            problems
                .into_iter()
                .map(|problem| ConfigProblem { place: place(problem.line), message: problem.message }),
        );
        for Directive { line, kind } in &mut directives {
            if let Kind::Include { left_out, files } = kind {
                for pattern in std::mem::take(left_out) {
                    match self.anchored(&pattern, owner) {
                        Ok(path) => files.extend(self.included(&path, owner, &place(*line), depth + 1)?),
                        Err(error) if owner == Owner::System && pattern.starts_with('~') => {
                            self.problem(&place(*line), format!("`Include {pattern}`: {error}"));
                        }
                        Err(_) => left_out.push(pattern),
                    }
                }
            }
        }
        Ok(Ok(Arc::new(ConfigFile { name, directives })))
    }

    fn text(&mut self, path: &Path, trust: Trust) -> Result<io::Result<String>, SshConfigError> {
        let unreadable = |reason: String| SshConfigError::Unreadable { path: path.to_owned(), reason };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) => return Ok(Err(error)),
        };
        let metadata = file.metadata().map_err(|error| unreadable(error.to_string()))?;
        if trust == Trust::Checked && !is_trusted(metadata.uid(), metadata.mode()) {
            return Err(SshConfigError::Untrusted { path: path.to_owned() });
        }
        self.read += 1;
        if self.read > MOST_FILES {
            return Err(SshConfigError::TooMany { path: path.to_owned(), limit: MOST_FILES });
        }
        if metadata.is_dir() {
            // It opens, and has no lines.
            return Ok(Ok(String::new()));
        }
        let mut bytes = Vec::new();
        let size = file.take(LARGEST + 1).read_to_end(&mut bytes);
        if size.map_err(|error| unreadable(error.to_string()))? as u64 > LARGEST {
            return Err(unreadable(format!("it is larger than {LARGEST} bytes")));
        }
        // Names of hosts and users are what matters; what is no text fits none of them.
        Ok(Ok(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Reads the files that fit a pattern, in the order of their names.
    fn included(
        &mut self,
        pattern: &str,
        owner: Owner,
        place: &Place,
        depth: usize,
    ) -> Result<Vec<Arc<ConfigFile>>, SshConfigError> {
        let mut files = Vec::new();
        let paths = found(pattern).unwrap_or_else(|message| {
            self.problem(place, format!("`Include {pattern}`: {message}"));
            Vec::new()
        });
        for path in paths {
            if depth > DEEPEST {
                return Err(SshConfigError::TooDeep { place: place.clone(), limit: DEEPEST });
            }
            match self.file(&path, owner, Trust::Checked, depth)? {
                Ok(file) => files.push(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.problem(place, format!("`{}` cannot be read: {error}", path.display())),
            }
        }
        Ok(files)
    }

    /// Returns a pattern as a path from the root. The system's files have no home to begin at.
    fn anchored(&self, pattern: &str, owner: Owner) -> Result<String, TokenError> {
        let pattern = self.here.text(pattern)?;
        match (owner, pattern.chars().next()) {
            (_, Some('/')) => Ok(pattern),
            (Owner::System, Some('~')) => Err(TokenError::OtherHome(String::new())),
            (Owner::System, _) => Ok(format!("{SYSTEM_FOLDER}/{pattern}")),
            (Owner::Operator, Some('~')) => self.here.in_home(&pattern),
            (Owner::Operator, _) => self.here.in_home(&format!("~/.ssh/{pattern}")),
        }
    }

    fn problem(&mut self, place: &Place, message: String) {
        self.problems.push(ConfigProblem { place: place.clone(), message });
    }
}

/// Returns whether a file belongs to root or to who runs this, and nobody else may write to it.
fn is_trusted(owner: u32, mode: u32) -> bool {
    (owner == 0 || owner == rustix::process::getuid().as_raw()) && mode & 0o022 == 0
}

/// Returns the paths that fit a pattern, in order.
fn found(pattern: &str) -> Result<Vec<PathBuf>, String> {
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    // Two stars mean folders of any depth to that library, and what one means to the shell.
    let mut single = pattern.to_owned();
    while single.contains("**") {
        single = single.replace("**", "*");
    }
    let paths = glob::glob_with(&single, options).map_err(|error| error.msg.to_owned())?;
    // Folders that may not be looked into have nothing that fits, as for OpenSSH.
    Ok(paths.filter_map(Result::ok).collect())
}

/// Returns a path as people write it.
fn shortened(path: &Path, home: &str) -> PathBuf {
    match path.strip_prefix(home) {
        Ok(rest) if !home.is_empty() => Path::new("~").join(rest),
        _ => path.to_owned(),
    }
}
