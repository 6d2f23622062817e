//! A replacement puts a new text in the place of a file: whole or not at all, and never without a backup.

#![expect(clippy::disallowed_methods, reason = "this module owns the replacing of files of the bastion")]

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};

use super::WorkstationError;
use crate::facts::BastionCopy;

/// Where the old text of a file is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupPath(PathBuf);

impl BackupPath {
    /// Returns the path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

/// Replaces a file, or makes it where it is missing; returns where the old one is kept.
///
/// A symbolic link stays, and its target is replaced. The backup lies beside it as `<file>.<suffix>`; one that is there is the one:
/// the suffix is a run's name, and what lies in its place by now is what that run wrote. Both are readable for their owner
/// alone, and the owner stays where the system lets us.
pub fn replace_file(
    path: &Path,
    text: &str,
    backup_suffix: &str,
) -> Result<Option<BackupPath>, WorkstationError> {
    let (target, old) = resolve(path)?;
    let backup = match &old {
        Some(old) => Some(back_up(&target, old, backup_suffix)?),
        None => None,
    };
    let folder = folder_of(&target);
    let mut file = tempfile::Builder::new()
        .prefix(".certroll-")
        .tempfile_in(folder)
        .map_err(|source| WorkstationError::Folder { folder: folder.to_owned(), source })?;
    let unwritten = |source| WorkstationError::Unwritten { path: target.clone(), source };
    fill(file.as_file_mut(), text.as_bytes(), old.as_ref()).map_err(unwritten)?;
    let persisted = match old {
        Some(_) => file.persist(&target),
        // Whoever made it in the meantime has no backup.
        None => file.persist_noclobber(&target),
    };
    persisted.map_err(|error| unwritten(error.error))?;
    // The name must survive a loss of power too; a file system that cannot promise it has done what it can.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(backup)
}

/// Keeps a copy of a file beside it, before somebody else writes to it; `None` where it is not there.
pub fn keep(path: &Path, backup_suffix: &str) -> Result<Option<BackupPath>, WorkstationError> {
    let (target, old) = resolve(path)?;
    old.map(|old| back_up(&target, &old, backup_suffix)).transpose()
}

/// Returns the copy that a run has kept beside a file, if there is one: the first, for later ones hold what it wrote itself.
fn copy_of(path: &Path, run: &str) -> Result<Option<BackupPath>, WorkstationError> {
    let (target, _) = resolve(path)?;
    let copy = backup_name(&target, run);
    Ok(copy.is_file().then_some(BackupPath(copy)))
}

/// Says of a file what a run has kept of it.
pub fn bastion_copy(path: &str, run: &str) -> Result<BastionCopy, WorkstationError> {
    let copy = copy_of(path.as_ref(), run)?;
    let present = bytes(path.as_ref())?;
    let kept = copy.as_ref().map(|copy| bytes(copy.as_path())).transpose()?.flatten();
    Ok(BastionCopy {
        path: path.to_owned(),
        copy: copy.map(|copy| copy.as_path().display().to_string()),
        is_present: present.is_some(),
        is_same: kept.is_some() && kept == present,
    })
}

/// Puts a copy back into the place of a file, which is kept as a backup first; `None` where it holds the same already.
pub fn put_back(
    path: &Path,
    copy: &Path,
    backup_suffix: &str,
) -> Result<Option<Option<BackupPath>>, WorkstationError> {
    let unwritten = |source| WorkstationError::Unwritten { path: path.to_owned(), source };
    let content = bytes(copy)?.ok_or_else(|| unwritten(io::ErrorKind::NotFound.into()))?;
    if bytes(path)?.is_some_and(|present| present == content) {
        return Ok(None);
    }
    let text =
        std::str::from_utf8(&content).map_err(|_| WorkstationError::NotText { path: copy.to_owned() })?;
    replace_file(path, text, backup_suffix).map(Some)
}

/// Moves a file away to where its backup would lie, and returns that; `None` where it is not there.
pub fn set_aside(path: &Path, backup_suffix: &str) -> Result<Option<BackupPath>, WorkstationError> {
    let (target, old) = resolve(path)?;
    let Some(old) = old else { return Ok(None) };
    let backup = back_up(&target, &old, backup_suffix)?;
    fs::remove_file(&target).map_err(|source| WorkstationError::Unwritten { path: target, source })?;
    Ok(Some(backup))
}

/// Returns what a file holds, wiped after use; `None` where it is not there.
fn bytes(path: &Path) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, WorkstationError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(zeroize::Zeroizing::new(content))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(WorkstationError::Unwritten { path: path.to_owned(), source }),
    }
}

fn backup_name(target: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(target);
    name.push(format!(".{suffix}"));
    name.into()
}

/// Returns the file itself where a path is a link, and what is known of it if it is there.
fn resolve(path: &Path) -> Result<(PathBuf, Option<Metadata>), WorkstationError> {
    let unwritten = |source| WorkstationError::Unwritten { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((path.to_owned(), None)),
        Err(error) => return Err(unwritten(error)),
    }
    let target = fs::canonicalize(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => WorkstationError::DanglingLink { path: path.to_owned() },
        _ => unwritten(error),
    })?;
    let metadata = fs::metadata(&target).map_err(unwritten)?;
    if !metadata.is_file() {
        return Err(unwritten(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file")));
    }
    Ok((target, Some(metadata)))
}

/// Copies a file, unless its copy is there: whole or not at all.
fn back_up(target: &Path, old: &Metadata, suffix: &str) -> Result<BackupPath, WorkstationError> {
    let path = backup_name(target, suffix);
    let unwritten = |path: &Path, source| WorkstationError::Unwritten { path: path.to_owned(), source };
    let content = zeroize::Zeroizing::new(fs::read(target).map_err(|error| unwritten(target, error))?);
    let folder = folder_of(target);
    // Half a backup would look like a whole one.
    let mut file = tempfile::Builder::new()
        .prefix(".certroll-")
        .tempfile_in(folder)
        .map_err(|source| WorkstationError::Folder { folder: folder.to_owned(), source })?;
    fill(file.as_file_mut(), &content, Some(old)).map_err(|error| unwritten(&path, error))?;
    match file.persist_noclobber(&path) {
        Ok(_) => {}
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(unwritten(&path, error.error)),
    }
    Ok(BackupPath(path))
}

/// Writes a new file, gives it the owner of the old one, and waits until the disk has it. Private keys are in these files: temporary
/// ones are 0600, whatever the mode was (rke before 1.0 wrote 0640).
fn fill(file: &mut File, content: &[u8], old: Option<&Metadata>) -> io::Result<()> {
    file.write_all(content)?;
    if let Some(old) = old {
        // Only root may give a file away; the file of whoever runs this is just as good for them.
        let _ = fchown(&*file, Some(old.uid()), Some(old.gid()));
    }
    file.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_file_is_replaced_and_the_first_backup_of_a_run_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        fs::write(&path, "one").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let first = replace_file(&path, "two", "run").unwrap().unwrap();
        let second = replace_file(&path, "three", "run").unwrap().unwrap();
        let next = replace_file(&path, "four", "next").unwrap().unwrap();
        assert_eq!(names(folder.path()), ["state", "state.next", "state.run"]);
        assert_eq!(first, second);
        assert_eq!([text(first.as_path()), text(next.as_path()), text(&path)], ["one", "three", "four"]);
        for file in [first.as_path(), next.as_path(), &path] {
            assert_eq!(mode(file), 0o600, "{}", file.display());
        }
    }

    #[test]
    fn a_file_that_is_missing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        assert_eq!(replace_file(&path, "one", "run").unwrap(), None);
        assert_eq!(
            (names(folder.path()), text(&path), mode(&path)),
            (vec!["state".to_owned()], "one".to_owned(), 0o600)
        );
    }

    #[test]
    fn a_link_stays_and_its_target_is_replaced() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (link, target) = (folder.path().join("state"), elsewhere.path().join("real"));
        fs::write(&target, "one").unwrap();
        symlink(&target, &link).unwrap();
        let backup = replace_file(&link, "two", "run").unwrap().unwrap();
        assert_eq!(backup.as_path().file_name().unwrap(), "real.run");
        assert_eq!(fs::read_link(&link).unwrap(), target);
        assert_eq!((text(&target), text(backup.as_path())), ("two".to_owned(), "one".to_owned()));
        assert_eq!(names(folder.path()), ["state"]);

        fs::remove_file(&target).unwrap();
        let error = replace_file(&link, "three", "run").unwrap_err();
        assert!(matches!(error, WorkstationError::DanglingLink { .. }), "{error}");
        assert!(!target.exists());
    }

    #[test]
    fn what_is_not_a_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        fs::create_dir(&path).unwrap();
        let error = replace_file(&path, "one", "run").unwrap_err();
        assert_eq!(error.to_string(), format!("`{}` cannot be written", path.display()));
        assert_eq!(names(folder.path()), ["state"]);
    }

    #[test]
    fn a_folder_that_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gone/state");
        let error = replace_file(&path, "one", "run").unwrap_err();
        let gone = folder.path().join("gone");
        assert_eq!(error.to_string(), format!("no file can be made in the folder `{}`", gone.display()));
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_leaves_the_file_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        fs::write(&path, "one").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o500)).unwrap();
        let is_root = File::create(folder.path().join("probe")).is_ok();
        let outcome = replace_file(&path, "two", "run");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        if is_root {
            eprintln!("skipped: root may write to every folder");
            return;
        }
        assert!(matches!(outcome, Err(WorkstationError::Folder { .. })), "{outcome:?}");
        assert_eq!((names(folder.path()), text(&path)), (vec!["state".to_owned()], "one".to_owned()));
    }

    #[test]
    fn the_owner_of_a_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        fs::write(&path, "one").unwrap();
        if std::os::unix::fs::chown(&path, Some(12345), Some(12346)).is_err() {
            eprintln!("skipped: only root may give a file away");
            return;
        }
        let backup = replace_file(&path, "two", "run").unwrap().unwrap();
        for file in [backup.as_path(), &path] {
            let metadata = fs::metadata(file).unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (12345, 12346));
        }
    }
}
