//! The workstation is the machine on which certroll runs: its files and its programs.
//!
//! What touches them is here, so that everything above works on text; the face calls it first, to read the cluster.yml.

pub mod config_file;

mod cluster_files;
mod login_key;
mod replace;
mod rke;
mod spool;

use std::io;
use std::path::PathBuf;

pub use cluster_files::{KubeConfigFile, StateFile, bastion_files, read_saved_state, read_secret, rke_files};
pub use login_key::write_key;
pub use replace::{BackupPath, bastion_copy, keep, put_back, replace_file, set_aside};
pub use rke::{RkeCall, RkeEnd, find_rke, run_rke, version_of};
pub use spool::{Spool, SpoolReader};

use config_file::ConfigFileError;

use crate::pki::{KubeConfigError, SavedStateError, StateError};

/// Why a file of the bastion is not read or not replaced; what it holds is never quoted.
#[derive(Debug, thiserror::Error)]
pub enum WorkstationError {
    /// It is there and cannot be read.
    #[error(transparent)]
    Unreadable(ConfigFileError),
    /// It is not a state of rke.
    #[error("`{}` is not a state of rke: {cause}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: StateError,
    },
    /// It is no state of rke in any form.
    #[error("`{}` holds no state of rke: {cause}", path.display())]
    SavedState {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: SavedStateError,
    },
    /// It is not a kubeconfig, or not one whose pair can be replaced.
    #[error("`{}` cannot be used: {cause}", path.display())]
    KubeConfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: KubeConfigError,
    },
    /// It has bytes that are no text.
    #[error("`{}` is not UTF-8 text", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// It is a link to a file that is not there.
    #[error("`{}` is a symbolic link to a file that does not exist", path.display())]
    DanglingLink {
        /// The link.
        path: PathBuf,
    },
    /// No file can be made beside it.
    #[error("no file can be made in the folder `{}`", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Keys would lie in it, and others than its owner can enter it.
    #[error("the folder `{}` is there already and open to others than its owner, so no key is put into it", folder.display())]
    OpenFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// Another key is there already.
    #[error("`{}` holds another key already", path.display())]
    OtherKey {
        /// The file.
        path: PathBuf,
    },
    /// It could not be written; what was there is there still.
    #[error("`{}` cannot be written", path.display())]
    Unwritten {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl WorkstationError {
    /// Returns the way out.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreadable(ConfigFileError::Unreadable { .. }) => {
                "check its owner and mode, or run as a user who may read it"
            }
            Self::Unreadable(ConfigFileError::Missing { .. }) => "check the name; `-` reads standard input",
            Self::SavedState { cause: SavedStateError::ConfigurationAlone, .. } => {
                "the certificates of rke v0.1.x are in Secrets: `kubectl -n kube-system get secrets -o yaml` prints them; `certroll import rkestate` reads the configuration"
            }
            Self::SavedState { cause: SavedStateError::ClusterFile, .. } => {
                "`--state` wants a state: a `cluster.rkestate`, or what `kubectl -n kube-system get configmap full-cluster-state -o yaml` prints; a cluster.yml is given with `-c`"
            }
            Self::SavedState { .. } => {
                "name a `cluster.rkestate`, or what `kubectl -n kube-system get configmap full-cluster-state -o yaml` prints (a Secret since rke 1.4.19, 1.5.10 and 1.6)"
            }
            Self::Unreadable(_) | Self::DanglingLink { .. } => {
                "put the file of this cluster there, or move this one away"
            }
            Self::State { .. } => "restore it from a backup, or move it away: `rke` then begins without it",
            Self::KubeConfig { .. } | Self::NotText { .. } => {
                "restore it from a backup, or move it away: a new one is then made"
            }
            Self::Folder { .. } => "check owner and mode of the folder, or run as a user who may write to it",
            Self::OpenFolder { .. } => {
                "name a new folder with --keys, which is then made for you alone, or close this one (`chmod 700`)"
            }
            Self::OtherKey { .. } => "move it away, or name another folder with --keys",
            Self::Unwritten { .. } => "check the free space of the disk, and owner and mode of the file",
        }
    }
}
