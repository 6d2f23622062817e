//! A configuration file is a text that the operator names, and that is read whole or not at all.
//!
//! The face reads it here and hands its text to `Inventory::parse`.

#![expect(
    clippy::disallowed_methods,
    reason = "this module owns the reading of files that the operator names"
)]

use std::fs::{File, FileType};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The name that stands for standard input.
pub(super) const STANDARD_INPUT: &str = "-";

/// Why a file that the operator named is not read.
#[derive(Debug, Error)]
pub enum ConfigFileError {
    /// There is no such file.
    #[error("`{}` does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The system refuses it.
    #[error("`{}` cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is a folder, a pipe, a socket or a device.
    #[error("`{}` is {kind}, not a file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// It is too large for what it is said to be.
    #[error("`{}` is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The largest size that is read.
        limit: u64,
    },
    /// It has bytes that are no text.
    #[error("`{}` is not UTF-8 text: line {line} has a byte that cannot be read", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
}

impl ConfigFileError {
    /// Returns the way out.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "name the file with `--config FILE`",
            Self::Unreadable { .. } => "check its owner and mode, or run as a user who may read it",
            Self::NotAFile { kind: "a folder", .. } => "name the file in it, such as `cluster.yml`",
            Self::NotAFile { .. } => "name a file, or `-` to read standard input",
            Self::TooLarge { .. } => "name a `cluster.yml` of RKE",
            Self::NotText { .. } => "save it as UTF-8",
        }
    }
}

/// Reads the text of a file, or of standard input for `-`, up to a size in bytes.
///
/// A pipe or a device is refused before it is opened, for that could wait for ever.
pub fn read_config(path: &Path, limit: u64) -> Result<String, ConfigFileError> {
    let bytes = read_named(path, limit)?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        let line = valid.filter(|byte| **byte == b'\n').count() + 1;
        ConfigFileError::NotText { path: path.to_owned(), line }
    })
}

/// Reads a file, or standard input for `-`, as bytes, up to a size.
pub(super) fn read_named(path: &Path, limit: u64) -> Result<Vec<u8>, ConfigFileError> {
    if path == Path::new(STANDARD_INPUT) {
        read_bounded(io::stdin().lock(), path, limit)
    } else {
        read_file(path, limit)
    }
}

/// Reads a file as bytes, up to a size.
pub(super) fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, ConfigFileError> {
    let metadata = std::fs::metadata(path).map_err(|error| refusal(path, error))?;
    if let Some(kind) = special_kind(metadata.file_type()) {
        return Err(ConfigFileError::NotAFile { path: path.to_owned(), kind });
    }
    if metadata.len() > limit {
        return Err(ConfigFileError::TooLarge { path: path.to_owned(), limit });
    }
    let file = File::open(path).map_err(|error| refusal(path, error))?;
    read_to_limit(file, path, limit, Vec::with_capacity(metadata.len() as usize + 1))
}

/// Reads to the end, and refuses what has no end: a size is only what the file had when it was looked at.
fn read_bounded(reader: impl Read, path: &Path, limit: u64) -> Result<Vec<u8>, ConfigFileError> {
    read_to_limit(reader, path, limit, Vec::new())
}

/// Reads into a buffer, which has the size of the file where that is known: one that grows leaves copies of keys behind.
fn read_to_limit(
    reader: impl Read,
    path: &Path,
    limit: u64,
    mut bytes: Vec<u8>,
) -> Result<Vec<u8>, ConfigFileError> {
    let size =
        reader.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| refusal(path, error))?;
    if size as u64 > limit {
        return Err(ConfigFileError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

/// Returns what a file is that is not a regular one.
fn special_kind(kind: FileType) -> Option<&'static str> {
    match kind {
        kind if kind.is_file() => None,
        kind if kind.is_dir() => Some("a folder"),
        kind if kind.is_fifo() => Some("a pipe"),
        kind if kind.is_socket() => Some("a socket"),
        _ => Some("a device"),
    }
}

fn refusal(path: &Path, source: io::Error) -> ConfigFileError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => ConfigFileError::Missing { path },
        _ => ConfigFileError::Unreadable { path, source },
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixListener;

    use super::*;

    const LARGEST: u64 = 4096;

    fn file(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cluster.yml");
        std::fs::write(&path, content).unwrap();
        (folder, path)
    }

    fn kind_of(path: &Path) -> &'static str {
        match read_config(path, LARGEST).unwrap_err() {
            ConfigFileError::NotAFile { kind, .. } => kind,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_file_is_read_whole() {
        let (_folder, path) = file("nodes: []\n# ü\n".as_bytes());
        assert_eq!(read_config(&path, LARGEST).unwrap(), "nodes: []\n# ü\n");
    }

    #[test]
    fn a_file_of_the_largest_size_is_read_and_one_byte_more_is_not() {
        let (_folder, path) = file(b"12345678");
        assert!(read_config(&path, 8).is_ok());
        assert!(matches!(read_config(&path, 7), Err(ConfigFileError::TooLarge { limit: 7, .. })));
    }

    #[test]
    fn a_stream_without_end_is_refused() {
        let refused = read_bounded(io::repeat(b'x'), Path::new("-"), 1000);
        assert!(matches!(refused, Err(ConfigFileError::TooLarge { limit: 1000, .. })));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_with_their_line() {
        let (_folder, path) = file(b"nodes:\n- address: a\n  user: \xff\xfe\n");
        let refused = read_config(&path, LARGEST).unwrap_err();
        assert!(matches!(refused, ConfigFileError::NotText { line: 3, .. }), "{refused}");
    }

    #[test]
    fn a_missing_file_is_refused_with_its_name() {
        let refused = read_config(Path::new("no/such/cluster.yml"), LARGEST).unwrap_err();
        assert_eq!(refused.to_string(), "`no/such/cluster.yml` does not exist");
        assert_eq!(refused.hint(), "name the file with `--config FILE`");
    }

    #[test]
    fn a_path_through_a_file_is_unreadable() {
        let (_folder, path) = file(b"");
        let refused = read_config(&path.join("cluster.yml"), LARGEST).unwrap_err();
        assert!(matches!(refused, ConfigFileError::Unreadable { .. }), "{refused}");
    }

    #[test]
    fn what_is_not_a_file_is_refused_without_opening_it() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(kind_of(folder.path()), "a folder");
        let socket = folder.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        assert_eq!(kind_of(&socket), "a socket");
        assert_eq!(kind_of(Path::new("/dev/zero")), "a device");
        // Nobody writes to it and nobody closes it: reading would never end.
        let (reader, _writer) = io::pipe().unwrap();
        assert_eq!(kind_of(Path::new(&format!("/proc/self/fd/{}", reader.as_raw_fd()))), "a pipe");
    }
}
