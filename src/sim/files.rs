//! The file system of a simulated node: files, folders and links in memory, with owners, modes and times that are enforced.
//!
//! The layout fills it, programs of the simulated shell change it, and services read their certificates from it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::clock::{Clock, EffectLog};
use super::life::Life;
use crate::inventory::NodeName;

mod change;

pub(crate) use change::{Attributes, WriteMode};

/// Why an operation failed, in the words of `strerror`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Errno {
    NotFound,
    Exists,
    Denied,
    NotPermitted,
    IsDirectory,
    NotDirectory,
    NotEmpty,
    ReadOnly,
    NoSpace,
    Loop,
    Invalid,
    /// The node's power has gone in the middle of it.
    Io,
    /// Nobody reads any more.
    Pipe,
}

impl fmt::Display for Errno {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NotFound => "No such file or directory",
            Self::Exists => "File exists",
            Self::Denied => "Permission denied",
            Self::NotPermitted => "Operation not permitted",
            Self::IsDirectory => "Is a directory",
            Self::NotDirectory => "Not a directory",
            Self::NotEmpty => "Directory not empty",
            Self::ReadOnly => "Read-only file system",
            Self::NoSpace => "No space left on device",
            Self::Loop => "Too many levels of symbolic links",
            Self::Invalid => "Invalid argument",
            Self::Io => "Input/output error",
            Self::Pipe => "Broken pipe",
        })
    }
}

/// On whose behalf an operation is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Owner {
    /// The user who may do everything.
    pub(crate) const ROOT: Self = Self { uid: 0, gid: 0 };

    pub(crate) fn is_root(self) -> bool {
        self.uid == 0
    }
}

/// The number of a file; several names may lead to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileId(u64);

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File(Vec<u8>),
    Directory(BTreeMap<String, FileId>),
    Link(String),
}

#[derive(Debug, Clone)]
struct Inode {
    kind: Kind,
    mode: u32,
    owner: Owner,
    modified: Timestamp,
    links: u32,
}

/// The kind of a file without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    File,
    Directory,
    Link,
}

/// What `stat` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) id: FileId,
    pub(crate) kind: Type,
    pub(crate) mode: u32,
    pub(crate) owner: Owner,
    pub(crate) size: u64,
    pub(crate) modified: Timestamp,
    pub(crate) links: u32,
}

impl Metadata {
    pub(crate) fn is_directory(&self) -> bool {
        self.kind == Type::Directory
    }
}

/// What is asked of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Permission {
    Read = 4,
    Write = 2,
    Search = 1,
}

/// Whether a link at the end of a path is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    Follow,
    Keep,
}

/// Whether the file system takes changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Medium {
    Writable,
    Full,
    ReadOnly,
}

const ROOT_DIRECTORY: FileId = FileId(1);
const MAXIMUM_LINKS: u32 = 16;

/// The files of one node.
#[derive(Debug)]
pub(crate) struct Files {
    inodes: BTreeMap<FileId, Inode>,
    next: u64,
    node: NodeName,
    clock: Clock,
    log: Arc<EffectLog>,
    pub(crate) medium: Medium,
    /// The folder beneath which there is no space left.
    pub(crate) full_folder: Option<String>,
    /// What the script that changes something lives on; none where the node itself does, or Rancher.
    pub(crate) life: Option<Arc<Life>>,
}

impl Files {
    /// Returns a file system with an empty root folder.
    pub(crate) fn new(node: NodeName, clock: Clock, log: Arc<EffectLog>) -> Self {
        let root = Inode {
            kind: Kind::Directory(BTreeMap::new()),
            mode: 0o755,
            owner: Owner::ROOT,
            modified: clock.now(),
            links: 2,
        };
        let inodes = BTreeMap::from([(ROOT_DIRECTORY, root)]);
        Self { inodes, next: 2, node, clock, log, medium: Medium::Writable, full_folder: None, life: None }
    }

    fn inode(&self, id: FileId) -> Result<&Inode, Errno> {
        self.inodes.get(&id).ok_or(Errno::NotFound)
    }

    fn inode_mut(&mut self, id: FileId) -> Result<&mut Inode, Errno> {
        self.inodes.get_mut(&id).ok_or(Errno::NotFound)
    }

    fn entries(&self, id: FileId) -> Result<&BTreeMap<String, FileId>, Errno> {
        match &self.inode(id)?.kind {
            Kind::Directory(entries) => Ok(entries),
            Kind::File(_) | Kind::Link(_) => Err(Errno::NotDirectory),
        }
    }

    fn allowed(&self, who: Owner, id: FileId, permission: Permission) -> Result<(), Errno> {
        let inode = self.inode(id)?;
        if who.is_root() {
            return Ok(());
        }
        let shift = if who.uid == inode.owner.uid {
            6
        } else if who.gid == inode.owner.gid {
            3
        } else {
            0
        };
        if (inode.mode >> shift) & permission as u32 == 0 { Err(Errno::Denied) } else { Ok(()) }
    }

    /// Returns the file that a path leads to.
    pub(crate) fn resolve(&self, who: Owner, path: &str, links: Links) -> Result<FileId, Errno> {
        self.walk(who, path, links, 0)
    }

    fn walk(&self, who: Owner, path: &str, links: Links, depth: u32) -> Result<FileId, Errno> {
        if depth > MAXIMUM_LINKS {
            return Err(Errno::Loop);
        }
        let parts: Vec<&str> = parts(path);
        let mut current = ROOT_DIRECTORY;
        for (index, part) in parts.iter().enumerate() {
            let entries = self.entries(current)?;
            self.allowed(who, current, Permission::Search)?;
            let next = *entries.get(*part).ok_or(Errno::NotFound)?;
            let last = index + 1 == parts.len();
            current = match &self.inode(next)?.kind {
                Kind::Link(target) if !last || links == Links::Follow => {
                    let folder = parts.get(..index).unwrap_or_default().join("/");
                    let target = join(&format!("/{folder}"), target);
                    self.walk(who, &target, Links::Follow, depth + 1)?
                }
                _ => next,
            };
        }
        Ok(current)
    }

    /// Returns the folder of a path and the name in it.
    fn parent(&self, who: Owner, path: &str) -> Result<(FileId, String), Errno> {
        let parts = parts(path);
        let (name, folder) = parts.split_last().ok_or(Errno::Exists)?;
        let folder = self.walk(who, &folder.join("/"), Links::Follow, 0)?;
        self.entries(folder)?;
        self.allowed(who, folder, Permission::Search)?;
        Ok((folder, (*name).to_owned()))
    }

    /// Returns what `stat` tells of a path.
    pub(crate) fn metadata(&self, who: Owner, path: &str, links: Links) -> Result<Metadata, Errno> {
        let id = self.resolve(who, path, links)?;
        if path.ends_with('/') {
            self.entries(id)?;
        }
        let inode = self.inode(id)?;
        let (kind, size) = match &inode.kind {
            Kind::File(content) => (Type::File, content.len() as u64),
            Kind::Directory(_) => (Type::Directory, 4096),
            Kind::Link(target) => (Type::Link, target.len() as u64),
        };
        let Inode { mode, owner, modified, links, .. } = *inode;
        Ok(Metadata { id, kind, mode, owner, size, modified, links })
    }

    /// Returns whether a user may do something with a path; on a read-only file system nobody may write (`faccessat`, EROFS).
    pub(crate) fn may(&self, who: Owner, path: &str, permission: Permission) -> bool {
        if matches!(permission, Permission::Write) && self.medium == Medium::ReadOnly {
            return false;
        }
        self.resolve(who, path, Links::Follow).and_then(|id| self.allowed(who, id, permission)).is_ok()
    }

    /// Returns the content of a file.
    pub(crate) fn read(&self, who: Owner, path: &str) -> Result<Vec<u8>, Errno> {
        let id = self.resolve(who, path, Links::Follow)?;
        match &self.inode(id)?.kind {
            Kind::File(content) => self.allowed(who, id, Permission::Read).map(|()| content.clone()),
            Kind::Directory(_) => Err(Errno::IsDirectory),
            Kind::Link(_) => Err(Errno::Loop),
        }
    }

    /// Returns where a link leads.
    pub(crate) fn read_link(&self, who: Owner, path: &str) -> Result<String, Errno> {
        match &self.inode(self.resolve(who, path, Links::Keep)?)?.kind {
            Kind::Link(target) => Ok(target.clone()),
            Kind::File(_) | Kind::Directory(_) => Err(Errno::Invalid),
        }
    }

    /// Returns the names in a folder, sorted.
    pub(crate) fn list(&self, who: Owner, path: &str) -> Result<Vec<String>, Errno> {
        let id = self.resolve(who, path, Links::Follow)?;
        let entries = self.entries(id)?;
        self.allowed(who, id, Permission::Read)?;
        Ok(entries.keys().cloned().collect())
    }

    /// Returns every path below a folder, the folder first, without following links.
    pub(crate) fn tree(&self, who: Owner, path: &str) -> Vec<String> {
        let mut found = vec![path.to_owned()];
        let is_directory =
            self.metadata(who, path, Links::Keep).is_ok_and(|metadata| metadata.is_directory());
        if is_directory {
            for name in self.list(who, path).unwrap_or_default() {
                found.extend(self.tree(who, &child(path, &name)));
            }
        }
        found
    }
}

/// Returns the parts of a path, with `.` and `..` resolved.
fn parts(path: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts
}

/// Returns a path as seen from a folder.
pub(crate) fn join(folder: &str, path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { child(folder, path) }
}

/// Returns the path of a name in a folder.
pub(crate) fn child(folder: &str, name: &str) -> String {
    format!("{}/{name}", folder.trim_end_matches('/'))
}

/// Returns an absolute path without `.`, `..` and doubled slashes.
pub(crate) fn normal(path: &str) -> String {
    format!("/{}", parts(path).join("/"))
}
