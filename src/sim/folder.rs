//! The folder on this machine that a fleet writes what its user needs into: inventory, key, host keys, Rancher's CA and token.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::SimError;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrecy {
    Private,
    Public,
}

/// Writes a file into the folder and returns its path.
pub(crate) fn write(folder: &Path, name: &str, content: &str, secrecy: Secrecy) -> Result<PathBuf, SimError> {
    let path = folder.join(name);
    let failed = |source| SimError::Folder { path: path.clone(), source };
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(if secrecy == Secrecy::Private { 0o600 } else { 0o644 });
    }
    let mut file = options.open(&path).map_err(failed)?;
    file.write_all(content.as_bytes()).map_err(failed)?;
    Ok(path)
}

/// Makes the folder where it is missing.
pub(crate) fn make(folder: &Path) -> Result<(), SimError> {
    std::fs::create_dir_all(folder).map_err(|source| SimError::Folder { path: folder.to_owned(), source })
}
