//! Faults: what can be made to go wrong on a simulated node.

use std::sync::Arc;

use super::clock::lock;
use super::files::Medium;
use super::machine::{SimNode, World};

/// How long a node takes to come back from a reboot, in the fleet's seconds.
const REBOOT_SECONDS: f64 = 40.0;

/// Something that is wrong with a node until it is taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The node refuses connections; open ones are cut.
    Unreachable,
    /// The node takes connections, and never answers; those that are open say nothing more.
    Hang,
    /// The node shows a host key that nobody knows; open connections are cut.
    WrongHostKey,
    /// A command whose line holds the pattern does not run: it fails with this status and this text on stderr.
    CommandFails {
        /// Part of the command line.
        pattern: String,
        /// The exit status.
        status: i32,
        /// What appears on stderr.
        stderr: String,
    },
    /// The connection is cut when a command whose line holds the pattern is asked for; the command does not run.
    DropConnection {
        /// Part of the command line.
        pattern: String,
    },
    /// Once, the connection is cut while a command whose line holds the pattern writes: when half of what it reads has arrived, or
    /// right before its first change where it reads nothing. The command goes on to its end.
    DropWhileWriting {
        /// Part of the command line.
        pattern: String,
    },
    /// Once, a command whose line holds the pattern runs to its end, and the connection is cut before its answer arrives.
    LostAnswer {
        /// Part of the command line.
        pattern: String,
    },
    /// Once, of what a command prints whose line holds the pattern the first half arrives, with the status that it had.
    ShortRead {
        /// Part of the command line.
        pattern: String,
    },
    /// The user may become root no longer: neither through `sudo` nor through docker.
    PermissionDenied,
    /// Nothing more can be written.
    DiskFull,
    /// Nothing can be changed.
    ReadOnly,
    /// The second half of a file is zeros from now on, as after a loss of power; its time stays. Taking the fault back does not
    /// mend the file.
    CorruptFile {
        /// The file's absolute path.
        path: String,
    },
    /// A container runs and never answers on its port.
    NeverHealthy {
        /// The container's name.
        container: String,
    },
    /// A container that is restarted runs from then on and never answers on its port.
    UnhealthyAfterRestart {
        /// The container's name.
        container: String,
    },
    /// A container that is restarted ends again at once, and docker starts it for ever.
    DiesAfterRestart {
        /// The container's name.
        container: String,
    },
    /// Nothing can be written beneath a folder, as where a small file system of its own is full.
    NoSpaceBeneath {
        /// The folder's absolute path; `*` is any one name in it.
        folder: String,
    },
    /// A container does not exist; taking the fault back does not bring it back.
    ContainerMissing {
        /// The container's name.
        container: String,
    },
    /// Docker's daemon does not answer; what runs in containers goes on.
    DockerGone,
    /// The node reboots: connections are cut and scripts end, it refuses connections for a while, and its containers start anew.
    Reboot,
    /// The node's clock is wrong by that much.
    ClockSkew {
        /// How far it runs ahead; negative where it is late.
        seconds: i64,
    },
    /// Rancher's agent on the node has lost its connection: the node does not fetch what Rancher has for it.
    AgentDisconnected,
}

impl World {
    /// Makes something go wrong on a node.
    pub(crate) fn inject(self: &Arc<Self>, node: &Arc<SimNode>, fault: Fault) {
        {
            let mut machine = lock(&node.machine);
            match &fault {
                Fault::DiskFull => machine.files.medium = Medium::Full,
                Fault::ReadOnly => machine.files.medium = Medium::ReadOnly,
                Fault::NoSpaceBeneath { folder } => machine.files.full_folder = Some(folder.clone()),
                Fault::CorruptFile { path } => machine.files.damage(path),
                Fault::ContainerMissing { container } => {
                    machine.containers.retain(|candidate| candidate.name != *container);
                }
                _ => {}
            }
        }
        match fault {
            Fault::Unreachable => {
                node.reach.open.send_replace(false);
            }
            Fault::WrongHostKey => node.reach.severed.notify_waiters(),
            Fault::Hang => node.reach.frozen.notify_waiters(),
            // It passes by itself.
            Fault::Reboot => return self.reboot(node),
            _ => {}
        }
        lock(&node.faults).push(fault);
    }

    /// Takes every fault of a node back.
    pub(crate) fn mend(&self, node: &SimNode) {
        node.reach.disarm();
        let faults = std::mem::take(&mut *lock(&node.faults));
        {
            let mut machine = lock(&node.machine);
            machine.files.medium = Medium::Writable;
            machine.files.full_folder = None;
        }
        for fault in faults {
            if let Fault::DiesAfterRestart { container } = fault {
                self.revive(node, &container);
            }
        }
        node.reach.open.send_replace(true);
    }

    fn reboot(self: &Arc<Self>, node: &Arc<SimNode>) {
        node.reach.for_each_life(super::life::Life::end);
        node.reach.open.send_replace(false);
        let (world, node) = (Arc::clone(self), Arc::clone(node));
        tokio::spawn(async move {
            tokio::time::sleep(world.clock.scaled(REBOOT_SECONDS)).await;
            let names: Vec<String> =
                lock(&node.machine).containers.iter().map(|container| container.name.clone()).collect();
            for name in names {
                world.revive(&node, &name);
            }
            node.reach.open.send_replace(true);
        });
    }
}

/// Returns whether something is to go wrong on a node that has not done so yet.
pub(crate) fn is_pending(node: &SimNode) -> bool {
    let is_once = |fault: &Fault| {
        matches!(fault, Fault::DropWhileWriting { .. } | Fault::LostAnswer { .. } | Fault::ShortRead { .. })
    };
    node.reach.is_armed() || lock(&node.faults).iter().any(is_once)
}

/// Returns the first fault of a node that a filter picks, and takes it away: it was to happen once.
pub(crate) fn take_once(node: &SimNode, picks: impl Fn(&Fault) -> bool) -> Option<Fault> {
    let mut faults = lock(&node.faults);
    let place = faults.iter().position(picks)?;
    Some(faults.remove(place))
}
