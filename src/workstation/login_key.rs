//! A login key is a private key that somebody else has made for the nodes and that is kept on the bastion.

#![expect(clippy::disallowed_methods, reason = "this module owns the writing of login keys")]

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use zeroize::Zeroizing;

use super::WorkstationError;

/// Keeps a key in a file of its own (0600), in a folder that only its owner can enter (0700) and that is made where it is missing.
///
/// One that is there already stays; another one there is an error, and so is a folder that is there and open to others.
pub fn write_key(path: &Path, key: &str) -> Result<(), WorkstationError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    private_folder(folder)?;
    let unwritten = |source| WorkstationError::Unwritten { path: path.to_owned(), source };
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => file.write_all(key.as_bytes()).and_then(|()| file.sync_all()).map_err(unwritten),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let own = fs::read(path).map(Zeroizing::new).map_err(unwritten)?;
            if *own == key.as_bytes() {
                fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(unwritten)
            } else {
                Err(WorkstationError::OtherKey { path: path.to_owned() })
            }
        }
        Err(error) => Err(unwritten(error)),
    }
}

/// Makes a folder, or makes sure that one that is there is closed to all but its owner.
///
/// It is not closed here: others may have their work in it.
fn private_folder(folder: &Path) -> Result<(), WorkstationError> {
    let unusable = |source| WorkstationError::Folder { folder: folder.to_owned(), source };
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let metadata = fs::symlink_metadata(folder).map_err(unusable)?;
            if !metadata.is_dir() {
                return Err(unusable(io::Error::new(io::ErrorKind::NotADirectory, "it is not a folder")));
            }
            if metadata.permissions().mode() & 0o077 != 0 {
                return Err(WorkstationError::OpenFolder { folder: folder.to_owned() });
            }
            Ok(())
        }
        Err(error) => Err(unusable(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_key_is_for_its_owner_alone_and_another_one_stays() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("prod-keys/w-1");
        write_key(&path, "a key").unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        write_key(&path, "a key").unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let error = write_key(&path, "another").unwrap_err();
        assert!(matches!(error, WorkstationError::OtherKey { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"a key");
        fs::write(home.path().join("file"), "").unwrap();
        assert!(matches!(
            write_key(&home.path().join("file/w-1"), "a"),
            Err(WorkstationError::Folder { .. })
        ));
    }

    #[test]
    fn a_folder_of_somebody_else_is_left_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        for open in [0o755, 0o750, 0o701] {
            fs::set_permissions(home.path(), Permissions::from_mode(open)).unwrap();
            let error = write_key(&home.path().join("w-1"), "a key").unwrap_err();
            assert!(matches!(error, WorkstationError::OpenFolder { .. }), "{open:o}: {error}");
            assert_eq!(mode(home.path()), open);
            assert!(!home.path().join("w-1").exists());
        }
        fs::set_permissions(home.path(), Permissions::from_mode(0o700)).unwrap();
        write_key(&home.path().join("w-1"), "a key").unwrap();
    }
}
