//! Faults: what can be made to go wrong on a simulated node.

/// Something that is wrong with a node until it is taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The node refuses connections; open ones are cut.
    Unreachable,
    /// The node takes connections and commands, and never answers.
    Hang,
    /// The node shows a host key that nobody knows.
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
    /// Nothing more can be written.
    DiskFull,
    /// Nothing can be changed.
    ReadOnly,
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
    /// The node's clock is wrong by that much.
    ClockSkew {
        /// How far it runs ahead; negative where it is late.
        seconds: i64,
    },
    /// Rancher's agent on the node has lost its connection: the node does not fetch what Rancher has for it.
    AgentDisconnected,
}
