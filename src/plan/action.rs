use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::certificate::{Gate, NewFile};
use super::restore::{self, Restoration};
use super::{Retry, RkeState};
use super::{backup, switch};
use crate::command::{Command, quote, settle, settle_around};
use crate::facts::Observation;
use crate::inventory::NodeName;
use crate::pki::{Fingerprint, Service};

/// The shell variable that holds the run's name in every script, because a plan does not know its run yet.
pub const RUN_VARIABLE: &str = "RUN";

/// What a step does: a closed set, so that the review can show every command beforehand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Action {
    /// Looks at the node again, and compares with what the plan was made from.
    Preflight,
    /// Saves `/etc/kubernetes` without `.certroll` into the run's folder, and compares the copy with the original.
    Backup,
    /// Adds files to the legacy bundle that are copies of files of the same node.
    CopyFiles {
        /// Whether the folder has to be made first.
        folder: TmpFolder,
        /// The copies.
        copies: Vec<FileCopy>,
    },
    /// Adds files to the legacy bundle that are copies of files of a control plane node.
    BringFiles {
        /// Whether the folder has to be made first.
        folder: TmpFolder,
        /// The node that has them.
        from: NodeName,
        /// The copies: sources on that node, destinations on this one.
        copies: Vec<FileCopy>,
    },
    /// Adds the kube-admin pair, the same one on all nodes.
    AddKubeAdmin {
        /// Whether the folder has to be made first.
        folder: TmpFolder,
        /// Where the pair comes from.
        source: KubeAdminSource,
    },
    /// Calls Rancher's action `rotateCertificates` and waits until Rancher calls it done.
    RotateByRancher {
        /// Rancher's address.
        url: String,
        /// The cluster's id in Rancher.
        cluster_id: String,
        /// The one service that is rotated; `None` for all.
        service: Option<Service>,
        /// How long it may take.
        timeout: Duration,
    },
    /// Keeps copies of files of the bastion that somebody else is about to write to.
    KeepBastionFiles {
        /// Their paths; one that is not there needs no copy.
        paths: Vec<String>,
    },
    /// Has the `rke` command of the bastion rotate.
    RotateByRke {
        /// The program's full path.
        program: String,
        /// Its version.
        version: String,
        /// Its arguments.
        arguments: Vec<String>,
        /// The folder that it runs in: the cluster.yml's.
        folder: String,
        /// The files that it writes there.
        files: Vec<String>,
        /// What was seen of its state when this was planned.
        state: RkeState,
        /// How long it may take.
        timeout: Duration,
    },
    /// Asks the operator to rotate, and waits until the nodes show it.
    RotateByOperator {
        /// What the operator is to do.
        instructions: Vec<String>,
        /// How long it may take.
        timeout: Duration,
        /// The certificates that must change, by node.
        before: Vec<CertificateBefore>,
    },
    /// Waits until the node's certificates have changed and its ports serve those on disk.
    Confirm {
        /// The certificates that must change.
        before: Vec<CertificateBefore>,
        /// How long it may take.
        timeout: Duration,
    },
    /// Restarts containers one after the other, each waited for until it is healthy.
    Restart {
        /// The containers, in order.
        containers: Vec<String>,
        /// Which of them are restarted.
        guard: Guard,
        /// How long each may take to become healthy.
        timeout: Duration,
    },
    /// Lays new files aside on the node, and compares what lies there with what was sent; none is in use yet.
    LayAside {
        /// The files.
        files: Vec<NewFile>,
    },
    /// Puts files that were laid aside into place, and restarts the components that use them, one after the other.
    Switch {
        /// The files.
        files: Vec<NewFile>,
        /// Full paths of files that are moved away, so that the kubelet makes new ones.
        retired: Vec<String>,
        /// The containers, in order; each is waited for until it is healthy.
        containers: Vec<String>,
        /// What must be well before.
        gate: Gate,
        /// How long the gate may take to open, and each component to become healthy.
        timeout: Duration,
    },
    /// Writes new certificates into what rke keeps in the API: `kube-system/full-cluster-state`, or the secrets of rke 0.1.
    UpdateClusterState {
        /// The nodes whose API servers are asked, until one answers.
        nodes: Vec<NodeName>,
        /// The certificates.
        names: Vec<String>,
    },
    /// Writes new certificates into rke's state file on the bastion.
    UpdateStateFile {
        /// Its path.
        path: String,
        /// The certificates.
        names: Vec<String>,
    },
    /// Writes the new kube-admin pair into the kubeconfig file on the bastion, which is made where it is missing.
    UpdateKubeConfig {
        /// Its path.
        path: String,
        /// The API server that a new file names.
        server: String,
    },
    /// Puts files of a backup back, and restarts the components that use them, one after the other.
    Restore {
        /// What comes back, and what goes.
        wanted: Restoration,
        /// The containers, in order.
        containers: Vec<String>,
        /// What must be well before.
        gate: Gate,
        /// Whether each component must be healthy after its restart.
        health: Health,
        /// How long the gate may take to open, and each component to become healthy.
        timeout: Duration,
    },
    /// Writes the certificates that a run has replaced back into what rke keeps in the API.
    RestoreClusterState {
        /// The nodes whose API servers are asked, until one answers.
        nodes: Vec<NodeName>,
        /// The run.
        run: String,
        /// Where the run has kept what it replaced.
        kept: Vec<KeptState>,
        /// The certificates.
        names: Vec<String>,
    },
    /// Puts a file of the bastion back that a run has replaced.
    RestoreBastionFile {
        /// Its path.
        path: String,
        /// Where the run has kept it; `None` where there was none, and the file of the run is moved away.
        copy: Option<String>,
    },
    /// Looks at a node to which files have come back: they are what was saved, what is served lies on disk, no component runs on
    /// others.
    VerifyRestored {
        /// What has come back, and what has gone.
        wanted: Vec<Restoration>,
        /// The containers that must not be stale.
        containers: Vec<String>,
        /// Whether they must be healthy.
        health: Health,
        /// How long it may take until everything is well.
        timeout: Duration,
    },
    /// Shows the new pairs to the components that must take them, asks the API whether the node is ready, and removes what was
    /// laid aside.
    Prove {
        /// The certificates.
        names: Vec<String>,
        /// How long it may take.
        timeout: Duration,
    },
    /// Removes what a run has laid aside on the node and never switched: it holds private keys.
    ClearStaging {
        /// The run.
        run: String,
    },
    /// Restarts the Rancher agent of the node.
    RestartAgent {
        /// Its container.
        container: String,
    },
    /// Looks at the node against the goal: certificates valid, served as they are on disk, components healthy.
    Verify {
        /// The certificates that must have changed.
        before: Vec<CertificateBefore>,
        /// How long it may take until everything is well.
        timeout: Duration,
    },
}

/// Whether a component must be well after its restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// The run stops where it is not.
    Awaited,
    /// It cannot be: certificates that have expired come back because the operator insists.
    NotAwaited,
}

/// An object of the API that a run has kept on a node before it wrote to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptState {
    /// The node.
    pub node: NodeName,
    /// The file's name in the folder of the run.
    pub file_name: String,
}

/// Whether `.tmp` has to be made before files are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TmpFolder {
    /// It is there.
    Present,
    /// It is made, 0700 and root's.
    Made,
}

/// A file that is added; a file that is there is never overwritten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCopy {
    /// The full path of the source.
    pub source: String,
    /// The full path of the new file.
    pub destination: String,
    /// Why it is added.
    pub reason: String,
}

/// Where the kube-admin pair comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum KubeAdminSource {
    /// A node has it already.
    Node {
        /// That node.
        node: NodeName,
        /// The folder that holds the pair.
        directory: String,
    },
    /// It is made, once for all nodes, with the CA's key of a control plane node.
    Made {
        /// The node whose `ssl` holds kube-ca's certificate and key.
        signer: NodeName,
        /// The folder that holds them.
        directory: String,
    },
}

/// A certificate as it was when the plan was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateBefore {
    /// The node.
    pub node: NodeName,
    /// The certificate's name (`kube-apiserver`), which lies in `ssl`.
    pub name: String,
    /// What it was.
    pub sha256: Fingerprint,
}

/// What is only known when the step's turn comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Guard {
    /// The containers are restarted in any case.
    Always,
    /// Each container is restarted if it started before its certificate was written, does not run, or is not healthy.
    IfNeeded {
        /// How long whoever rotated is given to do it first: the node's Rancher agent, or rke.
        patience: Duration,
        /// The certificates that must have changed by then.
        before: Vec<CertificateBefore>,
    },
}

impl Action {
    /// Returns whether the action can change anything.
    pub fn changes_something(&self) -> bool {
        !matches!(
            self,
            Self::Preflight
                | Self::Backup
                | Self::KeepBastionFiles { .. }
                | Self::LayAside { .. }
                | Self::Confirm { .. }
                | Self::Verify { .. }
                | Self::VerifyRestored { .. }
                | Self::Prove { .. }
        )
    }

    /// Returns whether somebody else makes certificates: they may change every node.
    pub fn is_rotation_by_others(&self) -> bool {
        matches!(
            self,
            Self::RotateByRancher { .. } | Self::RotateByRke { .. } | Self::RotateByOperator { .. }
        )
    }

    /// Returns how often a step of this action is tried: all of them recognise what they have done already.
    pub fn retry(&self) -> Retry {
        match self {
            // The first two persist by themselves for as long as they may wait; the rest asks nobody.
            Self::RotateByRancher { .. }
            | Self::RotateByRke { .. }
            | Self::RotateByOperator { .. }
            | Self::KeepBastionFiles { .. }
            | Self::UpdateStateFile { .. }
            | Self::UpdateKubeConfig { .. }
            | Self::RestoreBastionFile { .. } => Retry::NEVER,
            _ => Retry::ON_NODES,
        }
    }

    /// Returns the commands that run on the step's node, in order.
    ///
    /// What comes from another node or is made reaches the script over its stdin, which is not part of a plan. Scripts
    /// expect the run's name in the variable `RUN`.
    pub fn commands(&self, node: &Observation) -> Vec<Command> {
        let directory = node.kubernetes_directory.as_str();
        match self {
            Self::Preflight
            | Self::Confirm { .. }
            | Self::RotateByRancher { .. }
            | Self::RotateByRke { .. }
            | Self::RotateByOperator { .. }
            | Self::KeepBastionFiles { .. }
            | Self::UpdateClusterState { .. }
            | Self::UpdateStateFile { .. }
            | Self::UpdateKubeConfig { .. }
            | Self::RestoreClusterState { .. }
            | Self::RestoreBastionFile { .. } => Vec::new(),
            Self::Verify { .. } => vec![restore::record(directory)],
            Self::VerifyRestored { .. } => vec![restore::record_and_clear(directory)],
            Self::Restore { wanted, containers, .. } => {
                let files = restore::restore(directory, wanted);
                std::iter::once(files).chain(containers.iter().map(|container| restart(container))).collect()
            }
            Self::LayAside { .. } => vec![switch::lay_aside(directory)],
            Self::Switch { files, retired, containers, .. } => {
                let files = switch::switch(directory, files, retired);
                std::iter::once(files).chain(containers.iter().map(|container| restart(container))).collect()
            }
            Self::Prove { .. } => vec![switch::clear_staging(directory)],
            Self::ClearStaging { run } => vec![switch::clear_staging_of(directory, run)],
            Self::Backup => vec![backup::backup(directory)],
            Self::CopyFiles { folder, copies } => vec![copy_files(directory, *folder, copies)],
            Self::BringFiles { folder, copies, .. } => {
                let destinations: Vec<&str> = copies.iter().map(|copy| copy.destination.as_str()).collect();
                vec![receive_files(directory, *folder, &destinations)]
            }
            Self::AddKubeAdmin { folder, .. } => {
                let destinations = kube_admin_paths(directory);
                vec![receive_files(directory, *folder, &[destinations[0].as_str(), destinations[1].as_str()])]
            }
            Self::Restart { containers, .. } => {
                containers.iter().map(|container| restart(container)).collect()
            }
            Self::RestartAgent { container } => vec![restart(container)],
        }
    }
}

/// Returns where the kube-admin pair lies in the legacy bundle: certificate and key.
pub fn kube_admin_paths(directory: &str) -> [String; 2] {
    [format!("{directory}/.tmp/kube-admin.pem"), format!("{directory}/.tmp/kube-admin-key.pem")]
}

/// docker waits 5 s for a container to stop before it kills it, as rke does (`docker/docker.go` `RestartContainer`).
const STOP_SECONDS: u32 = 5;

/// The beginning of every script that adds files: nobody else may read them, and `.tmp` is made where it is missing.
///
/// What is added is written down before it is there: a rollback tells by it what the run has left.
fn prologue(directory: &str, folder: TmpFolder) -> String {
    let make = match folder {
        TmpFolder::Present => String::new(),
        TmpFolder::Made => format!("mkdir -p {0}/.tmp\nchmod 700 {0}/.tmp\n", quote(directory)),
    };
    format!(
        "set -eu\numask 077\n{make}\
         directory={}\n\
         mkdir -p \"$directory/.certroll/$RUN\"\n\
         note() {{ echo \"$(cksum <\"$1\") ${{2#\"$directory\"/}}\" >>\"$directory/.certroll/$RUN/written\"; }}\n",
        quote(directory)
    )
}

/// Copies files beside their destination, then links them into place when all have reached the disk: a link never replaces a file
/// that is there.
fn copy_files(directory: &str, folder: TmpFolder, copies: &[FileCopy]) -> Command {
    let mut script = prologue(directory, folder);
    script.push_str(
        "clean() { rm -f \"$directory\"/ssl/*.certroll \"$directory\"/.tmp/*.certroll; }\n\
         trap clean EXIT\n\
         trap 'exit 1' HUP INT TERM\n\
         clean\n\
         prepare() {\n  \
         if [ -e \"$2\" ]; then echo \"kept $2\"; return 0; fi\n  \
         cp -p \"$1\" \"$2.certroll\"\n  \
         cmp \"$1\" \"$2.certroll\"\n\
         }\n\
         add() {\n  \
         [ -e \"$1.certroll\" ] || return 0\n  \
         note \"$1.certroll\" \"$1\"\n  \
         ln \"$1.certroll\" \"$1\"\n  \
         rm -f \"$1.certroll\"\n  \
         echo \"added $1\"\n\
         }\n",
    );
    for copy in copies {
        let _ = writeln!(script, "prepare {} {}", quote(&copy.source), quote(&copy.destination));
    }
    let settled = settle_around(copies.iter().map(|copy| copy.destination.as_str()));
    let _ = writeln!(script, "{settled}");
    for copy in copies {
        let _ = writeln!(script, "add {}", quote(&copy.destination));
    }
    script.push_str(&settled);
    Command::new(script)
}

/// Takes a tar archive from stdin, whose members are named after the destinations, and links each file into place. Whatever
/// happens, no copy of a key stays behind.
fn receive_files(directory: &str, folder: TmpFolder, destinations: &[&str]) -> Command {
    let mut script = prologue(directory, folder);
    let directory = quote(directory);
    let _ = write!(
        script,
        "mkdir -p {directory}/.certroll\n\
         chmod 700 {directory}/.certroll\n\
         staging={directory}/.certroll/$RUN/staging\n\
         trap 'rm -rf \"$staging\"' EXIT\n\
         rm -rf \"$staging\"\n\
         mkdir -p \"$staging\"\n\
         tar -C \"$staging\" -xf -\n\
         {settle}\n\
         lone() {{\n  \
         if [ -e \"$1\" ] && [ ! -e \"$2\" ] && [ -e {directory}/.certroll/$RUN/written ]; then\n    \
         case $(cat {directory}/.certroll/$RUN/written) in\n    \
         *\"$(cksum <\"$1\") ${{1#\"$directory\"/}}\"*) rm -f \"$1\" ;;\n    \
         esac\n  \
         fi\n\
         }}\n\
         add() {{\n  \
         if [ -e \"$2\" ]; then echo \"kept $2\"; return 0; fi\n  \
         chmod 600 \"$staging/$1\"\n  \
         note \"$staging/$1\" \"$2\"\n  \
         ln \"$staging/$1\" \"$2\"\n  \
         echo \"added $2\"\n\
         }}\n",
        settle = settle("\"$staging\"")
    );
    // Half of a pair that this run was cut off from: the pair that comes now may be another one.
    for certificate in destinations {
        let key = certificate.strip_suffix(".pem").map(|stem| format!("{stem}-key.pem"));
        if let Some(key) = key.filter(|key| destinations.contains(&key.as_str())) {
            let (certificate, key) = (quote(certificate), quote(&key));
            let _ = writeln!(script, "lone {certificate} {key}\nlone {key} {certificate}");
        }
    }
    for destination in destinations {
        let name = destination.rsplit('/').next().unwrap_or_default();
        let _ = writeln!(script, "add {} {}", quote(name), quote(destination));
    }
    script.push_str(&settle_around(destinations.iter().copied()));
    Command::new(script)
}

/// Returns the command that restarts a container.
pub fn restart(container: &str) -> Command {
    Command::new(format!("docker restart -t {STOP_SECONDS} {}", quote(container)))
        .with_timeout(Duration::from_secs(90))
}
