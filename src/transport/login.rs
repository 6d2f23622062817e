//! A login is where one hop is entered, as whom, with which keys, and how its host proves itself.
//!
//! `route` makes it from options, the inventory and the ssh_config; the connector carries it out.

use std::path::PathBuf;
use std::time::Duration;

use crate::inventory::Secret;

use super::origin::Origin;
use super::ssh_config::AddressFamily;
use super::{AgentUse, Endpoint, HostKeyPolicy};

/// One hop: an address, a user, and what proves that it is them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Login {
    /// Where the connection goes to.
    pub(super) at: Endpoint,
    /// The name under which known_hosts has the host's key: the same, or `HostKeyAlias` as if at port 22.
    pub(super) known_as: Endpoint,
    /// The kind of addresses that a name may lead to.
    pub(super) family: AddressFamily,
    pub(super) user: String,
    /// The private keys in the order in which they are tried.
    pub(super) keys: Vec<KeySource>,
    /// The OpenSSH certificates, each of which belongs to one of the keys.
    pub(super) certificates: Vec<CertificateSource>,
    pub(super) agent: AgentUse,
    /// The agent's socket.
    pub(super) agent_socket: Option<PathBuf>,
    /// Which of the agent's keys are offered.
    pub(super) agent_keys: AgentKeys,
    /// The known_hosts files; keys are appended to the first.
    pub(super) known_hosts: Vec<PathBuf>,
    pub(super) host_keys: HostKeyPolicy,
    /// The limit of TCP connection, key exchange and authentication together.
    pub(super) connect_timeout: Duration,
    /// How long the connection may be silent before a sign of life is asked for.
    pub(super) keepalive: Duration,
    /// How many signs of life may be missed.
    pub(super) missed_keepalives: u32,
    /// Who decided.
    pub(super) origins: Origins,
}

/// Who decided on the parts of a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origins {
    pub(super) host: Origin,
    pub(super) port: Origin,
    pub(super) user: Origin,
    pub(super) keys: Origin,
    pub(super) certificates: Origin,
    pub(super) agent: Origin,
    pub(super) agent_keys: Origin,
    pub(super) known_as: Origin,
    pub(super) known_hosts: Origin,
    pub(super) host_keys: Origin,
    pub(super) connect_timeout: Origin,
    pub(super) keepalive: Origin,
}

/// Which keys of the agent are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum AgentKeys {
    /// Every one, those that are named first.
    #[default]
    All,
    /// Those that are named alone (`IdentitiesOnly`).
    Named,
}

/// Where a private key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KeySource {
    /// `ssh_key` of the inventory.
    Inline(Secret),
    /// A file, and who named it.
    File { path: PathBuf, origin: String },
    /// A file that nobody named: it may be missing.
    DefaultFile(PathBuf),
}

/// Where an OpenSSH certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CertificateSource {
    /// `ssh_cert` of the inventory.
    Inline(String),
    /// `ssh_cert_path` of the inventory, or a `CertificateFile`.
    File(PathBuf),
}
