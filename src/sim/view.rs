//! Views: what tests and the demo may know of a node from outside, without touching it.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::clock::lock;
use super::container::State;
use super::files::{Links, Owner, Type};
use super::machine::{SimNode, World};
use crate::inventory::NodeName;

/// A simulated node as it is now.
#[derive(Debug, Clone)]
pub struct NodeView {
    pub(super) world: std::sync::Arc<World>,
    pub(super) node: std::sync::Arc<SimNode>,
}

/// A file of a simulated node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileView {
    /// Its absolute path.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// The hexadecimal SHA-256 of its content.
    pub sha256: String,
}

/// A container of a simulated node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerView {
    /// Its name.
    pub name: String,
    /// Docker's word for what it does: `running`, `restarting`, `exited`, `created`.
    pub state: String,
    /// When it last started.
    pub started_at: Option<Timestamp>,
    /// Whether the certificates and keys that it read when it started are those that lie on the disk now.
    pub holds_disk: bool,
}

impl NodeView {
    /// Returns its name.
    pub fn name(&self) -> &NodeName {
        &self.node.name
    }

    /// Returns the content of a file, as root sees it.
    pub fn file(&self, path: &str) -> Option<Vec<u8>> {
        self.node.read(path)
    }

    /// Returns every file of the node, in the order of their paths.
    pub fn files(&self) -> Vec<FileView> {
        let machine = lock(&self.node.machine);
        let mut views = Vec::new();
        for path in machine.files.tree(Owner::ROOT, "/") {
            let Ok(metadata) = machine.files.metadata(Owner::ROOT, &path, Links::Keep) else { continue };
            if metadata.kind != Type::File {
                continue;
            }
            let content = machine.files.read(Owner::ROOT, &path).unwrap_or_default();
            let sha256 =
                Sha256::digest(&content).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
            let Owner { uid, gid } = metadata.owner;
            views.push(FileView { path, mode: metadata.mode, uid, gid, sha256 });
        }
        views
    }

    /// Returns the containers of the node.
    pub fn containers(&self) -> Vec<ContainerView> {
        self.world.settle();
        let view = |container: &super::container::Container| ContainerView {
            name: container.name.clone(),
            state: container.state.as_str().to_owned(),
            started_at: container.started_at,
            holds_disk: false,
        };
        let containers = lock(&self.node.machine).containers.clone();
        let holds_disk = |container: &super::container::Container| {
            container.loaded == self.node.component_files(container.component).into_iter().collect()
        };
        containers
            .iter()
            .map(|container| ContainerView { holds_disk: holds_disk(container), ..view(container) })
            .collect()
    }

    /// Returns whether a container runs.
    pub fn is_running(&self, name: &str) -> bool {
        self.world.settle();
        lock(&self.node.machine).container(name).is_some_and(|container| container.state == State::Running)
    }

    /// Returns whether Kubernetes would call the node ready.
    pub fn is_ready(&self) -> bool {
        self.world.settle();
        self.world.node_is_ready(&self.node)
    }

    /// Returns whether etcd on this node serves: it runs, and its peers accept its certificate.
    pub fn etcd_serves(&self) -> bool {
        self.world.etcd_serves(&self.node)
    }
}
