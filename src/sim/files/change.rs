//! Changes of a simulated file system; each is noted as an effect.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::sim::boundary::Turn;

use super::{Errno, FileId, Files, Inode, Kind, Links, Medium, Owner, Permission, normal};

/// How a file is opened for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteMode {
    /// `>`: an existing file is emptied.
    Truncate,
    /// `>>`.
    Append,
    /// `>` under `set -C`: an existing file is an error.
    Exclusive,
}

/// What a copy carries over from its original.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) owner: Owner,
    pub(crate) modified: Timestamp,
}

impl Files {
    fn note(&self, verb: &str, path: &str) {
        self.log.push(&self.node, format!("{verb} {}", normal(path)));
    }

    /// Asks whether a change happens that would be the next effect.
    fn announce(&self) -> Result<(), Errno> {
        let Some(life) = &self.life else {
            // What the node does by itself does not depend on a client.
            self.log.announce();
            return Ok(());
        };
        if life.has_ended() {
            return Err(Errno::Io);
        }
        life.change();
        match self.log.announce() {
            Turn::Happens => Ok(()),
            Turn::Ends => {
                life.end();
                Err(Errno::Io)
            }
        }
    }

    fn changeable(&self) -> Result<(), Errno> {
        if self.medium == Medium::ReadOnly { Err(Errno::ReadOnly) } else { Ok(()) }
    }

    fn growable(&self) -> Result<(), Errno> {
        self.changeable()?;
        if self.medium == Medium::Full { Err(Errno::NoSpace) } else { Ok(()) }
    }

    fn has_space_at(&self, path: &str) -> Result<(), Errno> {
        let path = normal(path);
        let full = |folder: &String| {
            let mut names = path.split('/');
            let folder = normal(folder);
            let is_below = folder
                .split('/')
                .all(|wanted| names.next().is_some_and(|name| wanted == "*" || wanted == name));
            is_below && names.next().is_some()
        };
        if self.full_folder.as_ref().is_some_and(full) { Err(Errno::NoSpace) } else { Ok(()) }
    }

    fn folder_for_change(&self, who: Owner, path: &str) -> Result<(FileId, String), Errno> {
        let (folder, name) = self.parent(who, path)?;
        self.changeable()?;
        self.allowed(who, folder, Permission::Write)?;
        Ok((folder, name))
    }

    fn entries_mut(&mut self, id: FileId) -> Result<&mut BTreeMap<String, FileId>, Errno> {
        let now = self.clock.now();
        let inode = self.inode_mut(id)?;
        inode.modified = now;
        match &mut inode.kind {
            Kind::Directory(entries) => Ok(entries),
            Kind::File(_) | Kind::Link(_) => Err(Errno::NotDirectory),
        }
    }

    fn add(&mut self, who: Owner, path: &str, kind: Kind, mode: u32) -> Result<FileId, Errno> {
        let (folder, name) = self.folder_for_change(who, path)?;
        if self.entries(folder)?.contains_key(&name) {
            return Err(Errno::Exists);
        }
        self.growable()?;
        self.has_space_at(path)?;
        self.announce()?;
        let id = FileId(self.next);
        self.next += 1;
        let inode = Inode { kind, mode, owner: who, modified: self.clock.now(), links: 1 };
        self.inodes.insert(id, inode);
        self.entries_mut(folder)?.insert(name, id);
        Ok(id)
    }

    /// Opens a file for writing, and makes it where it does not exist.
    pub(crate) fn open(
        &mut self,
        who: Owner,
        path: &str,
        how: WriteMode,
        mode: u32,
    ) -> Result<FileId, Errno> {
        let id = match self.resolve(who, path, Links::Follow) {
            Err(Errno::NotFound) => {
                let id = self.add(who, path, Kind::File(Vec::new()), mode)?;
                self.note("create", path);
                return Ok(id);
            }
            found => found?,
        };
        if matches!(self.inode(id)?.kind, Kind::Directory(_)) {
            return Err(Errno::IsDirectory);
        }
        if how == WriteMode::Exclusive {
            return Err(Errno::Exists);
        }
        self.changeable()?;
        self.has_space_at(path)?;
        self.allowed(who, id, Permission::Write)?;
        self.announce()?;
        if how == WriteMode::Truncate {
            let now = self.clock.now();
            let inode = self.inode_mut(id)?;
            inode.kind = Kind::File(Vec::new());
            inode.modified = now;
        }
        self.note("change", path);
        Ok(id)
    }

    /// Writes at the end of an opened file.
    pub(crate) fn append(&mut self, id: FileId, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.growable()?;
        let now = self.clock.now();
        let inode = self.inode_mut(id)?;
        inode.modified = now;
        match &mut inode.kind {
            Kind::File(content) => content.extend_from_slice(bytes),
            Kind::Directory(_) | Kind::Link(_) => return Err(Errno::IsDirectory),
        }
        Ok(())
    }

    /// Makes a folder.
    pub(crate) fn make_directory(&mut self, who: Owner, path: &str, mode: u32) -> Result<(), Errno> {
        match self.resolve(who, path, Links::Keep) {
            Err(Errno::NotFound) => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(Errno::Exists),
        }
        self.add(who, path, Kind::Directory(BTreeMap::new()), mode)?;
        self.note("make folder", path);
        Ok(())
    }

    /// Makes a symbolic link.
    pub(crate) fn symbolic_link(&mut self, who: Owner, target: &str, path: &str) -> Result<(), Errno> {
        self.add(who, path, Kind::Link(target.to_owned()), 0o777)?;
        self.note("link", path);
        Ok(())
    }

    /// Gives a file a second name.
    pub(crate) fn hard_link(&mut self, who: Owner, target: &str, path: &str) -> Result<(), Errno> {
        let id = self.resolve(who, target, Links::Keep)?;
        if matches!(self.inode(id)?.kind, Kind::Directory(_)) {
            return Err(Errno::NotPermitted);
        }
        let (folder, name) = self.folder_for_change(who, path)?;
        if self.entries(folder)?.contains_key(&name) {
            return Err(Errno::Exists);
        }
        self.announce()?;
        self.entries_mut(folder)?.insert(name, id);
        self.inode_mut(id)?.links += 1;
        self.note("link", path);
        Ok(())
    }

    fn release(&mut self, id: FileId) {
        let gone = self.inodes.get_mut(&id).is_some_and(|inode| {
            inode.links = inode.links.saturating_sub(1);
            inode.links == 0
        });
        if gone {
            self.inodes.remove(&id);
        }
    }

    /// Removes a name; the file goes with its last one.
    pub(crate) fn remove(&mut self, who: Owner, path: &str) -> Result<(), Errno> {
        let id = self.resolve(who, path, Links::Keep)?;
        if matches!(self.inode(id)?.kind, Kind::Directory(_)) {
            return Err(Errno::IsDirectory);
        }
        let (folder, name) = self.folder_for_change(who, path)?;
        self.announce()?;
        self.entries_mut(folder)?.remove(&name);
        self.release(id);
        self.note("remove", path);
        Ok(())
    }

    /// Removes an empty folder.
    pub(crate) fn remove_directory(&mut self, who: Owner, path: &str) -> Result<(), Errno> {
        let id = self.resolve(who, path, Links::Keep)?;
        if !self.entries(id)?.is_empty() {
            return Err(Errno::NotEmpty);
        }
        let (folder, name) = self.folder_for_change(who, path)?;
        self.announce()?;
        self.entries_mut(folder)?.remove(&name);
        self.inodes.remove(&id);
        self.note("remove folder", path);
        Ok(())
    }

    /// Renames a file or folder; an existing file of the new name is replaced in the same instant.
    pub(crate) fn rename(&mut self, who: Owner, from: &str, to: &str) -> Result<(), Errno> {
        let id = self.resolve(who, from, Links::Keep)?;
        let (old_folder, old_name) = self.folder_for_change(who, from)?;
        let (new_folder, new_name) = self.folder_for_change(who, to)?;
        if normal(to).starts_with(&format!("{}/", normal(from))) {
            return Err(Errno::Invalid);
        }
        self.has_space_at(to)?;
        let replaced = self.entries(new_folder)?.get(&new_name).copied();
        if replaced == Some(id) {
            return Ok(());
        }
        if let Some(replaced) = replaced {
            let moves_folder = matches!(self.inode(id)?.kind, Kind::Directory(_));
            match (&self.inode(replaced)?.kind, moves_folder) {
                (Kind::Directory(entries), true) if !entries.is_empty() => return Err(Errno::NotEmpty),
                (Kind::Directory(_), false) => return Err(Errno::IsDirectory),
                (Kind::File(_) | Kind::Link(_), true) => return Err(Errno::NotDirectory),
                _ => {}
            }
        }
        self.announce()?;
        if let Some(replaced) = replaced {
            self.release(replaced);
        }
        self.entries_mut(old_folder)?.remove(&old_name);
        self.entries_mut(new_folder)?.insert(new_name, id);
        self.log.push(&self.node, format!("move {} to {}", normal(from), normal(to)));
        Ok(())
    }

    fn owned(&mut self, who: Owner, path: &str) -> Result<&mut Inode, Errno> {
        let id = self.resolve(who, path, Links::Follow)?;
        self.changeable()?;
        let inode = self.inode_mut(id)?;
        if who.is_root() || who.uid == inode.owner.uid { Ok(inode) } else { Err(Errno::NotPermitted) }
    }

    /// Changes a mode.
    pub(crate) fn set_mode(&mut self, who: Owner, path: &str, mode: u32) -> Result<(), Errno> {
        if self.owned(who, path)?.mode != mode {
            self.announce()?;
            self.owned(who, path)?.mode = mode;
            self.note(&format!("set mode {mode:o} of"), path);
        }
        Ok(())
    }

    /// Changes the owner; only root may.
    pub(crate) fn set_owner(&mut self, who: Owner, path: &str, owner: Owner) -> Result<(), Errno> {
        let inode = self.owned(who, path)?;
        if inode.owner == owner {
            return Ok(());
        }
        if !who.is_root() {
            return Err(Errno::NotPermitted);
        }
        self.announce()?;
        self.owned(who, path)?.owner = owner;
        self.note(&format!("set owner {}:{} of", owner.uid, owner.gid), path);
        Ok(())
    }

    /// Changes the time of the last modification.
    pub(crate) fn set_modified(&mut self, who: Owner, path: &str, modified: Timestamp) -> Result<(), Errno> {
        self.owned(who, path)?.modified = modified;
        Ok(())
    }

    /// Makes the second half of a file zeros; nothing but its content changes, and nobody made it.
    pub(crate) fn damage(&mut self, path: &str) {
        let Ok(id) = self.resolve(Owner::ROOT, path, Links::Follow) else { return };
        if let Some(Inode { kind: Kind::File(content), .. }) = self.inodes.get_mut(&id) {
            let half = content.len() / 2;
            content.iter_mut().skip(half).for_each(|byte| *byte = 0);
        }
    }

    /// Writes a whole file with its attributes, and the folders above it, on behalf of root.
    pub(crate) fn install(&mut self, path: &str, content: &[u8], with: Attributes) -> Result<(), Errno> {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.make_directories(folder)?;
        }
        let id = self.open(Owner::ROOT, path, WriteMode::Truncate, with.mode)?;
        self.append(id, content)?;
        let inode = self.inode_mut(id)?;
        inode.mode = with.mode;
        inode.owner = with.owner;
        inode.modified = with.modified;
        Ok(())
    }

    /// Makes a folder and those above it where they are missing, on behalf of root.
    pub(crate) fn make_directories(&mut self, path: &str) -> Result<(), Errno> {
        let mut folder = String::new();
        for part in super::parts(path) {
            folder = format!("{folder}/{part}");
            match self.make_directory(Owner::ROOT, &folder, 0o755) {
                Ok(()) | Err(Errno::Exists) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
