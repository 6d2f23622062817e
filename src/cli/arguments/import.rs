//! What `certroll import` takes.
#![expect(clippy::doc_markdown, reason = "these comments are the help, which people read as it is")]

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::RancherOptions;

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ImportArguments {
    #[command(subcommand)]
    pub(in crate::cli) source: ImportSource,
}

#[derive(Debug, Clone, Subcommand)]
pub(in crate::cli) enum ImportSource {
    /// From Rancher's API: a cluster that Rancher launched, with the keys of the machines that Rancher made
    Rancher(ImportRancher),
    /// From rke's state: a cluster.rkestate, a saved full-cluster-state, or the cluster-state.yml of rke v0.1.x
    Rkestate(ImportRkestate),
    /// From a live cluster's API, with a kubeconfig; users, ports and keys come from the state that rke keeps there
    Kubeconfig(ImportKubeconfig),
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ImportRancher {
    #[command(flatten)]
    pub(in crate::cli) output: ImportOutput,
    /// Where the keys of machines that Rancher made are put (0700, files 0600) [default: CLUSTER-keys, beside the file of --save]
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) keys: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) rancher: RancherOptions,
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ImportRkestate {
    /// The file; `-` for stdin
    #[arg(value_name = "FILE")]
    pub(in crate::cli) file: PathBuf,
    #[command(flatten)]
    pub(in crate::cli) output: ImportOutput,
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ImportKubeconfig {
    /// The kubeconfig, such as rke's kube_config_cluster.yml
    #[arg(value_name = "FILE")]
    pub(in crate::cli) file: PathBuf,
    /// The context, instead of the current one
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) context: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) output: ImportOutput,
}

/// Where an import writes. What the source does not know of users and keys comes from --ssh-user, --ssh-key and --ssh-agent.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ImportOutput {
    /// Write the cluster.yml to this file, instead of stdout; a file that is there is left alone
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) save: Option<PathBuf>,
    /// Replace the file of --save where it is there; the old one is kept beside it
    #[arg(long, requires = "save")]
    pub(in crate::cli) force: bool,
}
