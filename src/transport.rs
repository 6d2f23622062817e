//! The transport is how certroll reaches nodes: SSH connections, direct or through jump hosts, with host keys verified.
//!
//! The face makes a [`Transport`] from [`Settings`]; `gather`, `execute` and `kube` connect to nodes through it and work with
//! the [`Session`]s. Nobody above knows which SSH library lies beneath.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::inventory::{Bastion, Node, Secret};

mod agent;
mod authentication;
mod backoff;
mod connector;
mod error;
mod host_keys;
mod jump;
mod keys;
mod known_hosts;
mod login;
mod session;
#[allow(dead_code, unused_imports, reason = "what asks it follows")]
mod ssh_config;

pub use backoff::Backoff;
pub use error::{ChangedHost, HostKey, KeyError, Phase, Refusal, TransportError, UnknownHost};
pub use jump::{Jump, ParseJumpError};
pub use known_hosts::{Place, places_of};
pub use session::{Session, TcpChannel};
pub use ssh_config::{ConfigChoice, ConfigProblem, Place as ConfigPlace, SshConfig, SshConfigError};

use connector::Connector;
use jump::JumpChain;
use login::Login;

/// An address and the port of its sshd, shown as `node-1:22` or `[2001:db8::1]:22`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// A name or an IP address without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl Endpoint {
    /// Returns the endpoint of an address, which may stand in brackets, and a port.
    pub fn new(host: &str, port: u16) -> Self {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        Self { host: bare.to_owned(), port }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

/// What is done with a host key that known_hosts does not confirm (`--host-keys`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostKeyPolicy {
    /// Only keys that known_hosts names are accepted.
    #[default]
    Strict,
    /// Keys of hosts that were never seen are accepted and appended to the first known_hosts file; changed keys are refused.
    AcceptNew,
    /// Every key is accepted except a revoked one; the face warns at every run.
    Off,
}

/// When the SSH agent is asked for keys (`--ssh-agent`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AgentUse {
    /// For the nodes and the bastion whose `ssh_agent_auth` says so.
    #[default]
    AsConfigured,
    /// For every host.
    Always,
}

/// Who is asked for the passphrase of an encrypted key; the face answers.
pub trait AskSecret: Send + Sync {
    /// Returns the passphrase of a key that is named for people, or nothing when nobody can answer.
    ///
    /// It may block; it is called once a key for all nodes, and again after a wrong answer.
    fn passphrase(&self, key: &str) -> Option<Secret>;
}

/// Everything that the command line and the environment say about connections.
#[derive(Clone)]
pub struct Settings {
    /// The limit of TCP connection, key exchange and authentication together, for each hop.
    pub connect_timeout: Duration,
    /// How often a connection is tried that is refused or dropped before the login, and the pauses in between.
    ///
    /// Hosts that say nothing until time is up, host keys and refused logins are not tried again.
    pub reconnect: Backoff,
    /// The limit of a command that names none of its own.
    pub command_timeout: Duration,
    /// How long a connection may be silent before the other side is asked for a sign of life; after three missed ones, so four of
    /// these intervals, it is dead.
    pub keepalive: Duration,
    /// How many bytes a command may write to stdout and stderr together.
    pub max_output: usize,
    /// The known_hosts files; keys are appended to the first. A file that does not exist is empty.
    pub known_hosts: Vec<PathBuf>,
    /// What is done with host keys that are not known.
    pub host_keys: HostKeyPolicy,
    /// The folder that `~/` stands for.
    pub home: PathBuf,
    /// The socket of the SSH agent (`SSH_AUTH_SOCK`).
    pub agent_socket: Option<PathBuf>,
    /// The user of this machine: the user of a jump host for which nothing else names one.
    pub login_name: String,
    /// The user on every node, instead of the inventory's (`--ssh-user`).
    pub user: Option<String>,
    /// The private key for every node, instead of the inventory's (`--ssh-key`).
    pub key_path: Option<PathBuf>,
    /// When the agent is asked.
    pub agent: AgentUse,
    /// The jump hosts in the order in which they are passed, instead of `bastion_host` (`--jump`); an empty list means none.
    pub jumps: Option<Vec<Jump>>,
    /// Who knows passphrases.
    pub ask: Arc<dyn AskSecret>,
}

impl Settings {
    /// Returns the settings that hold where nobody says otherwise.
    pub fn new(home: impl Into<PathBuf>, ask: Arc<dyn AskSecret>) -> Self {
        let home = home.into();
        Self {
            connect_timeout: Duration::from_secs(10),
            // Long enough for an sshd that is restarted, and for one that turns away every second login of a crowd (`MaxStartups`).
            reconnect: Backoff { attempts: 3, pause: Duration::from_millis(400) },
            command_timeout: Duration::from_secs(60),
            // A dead connection is to be noticed before the command that waits on it is out of time: only then is it known that the
            // answer is lost and that the same may be tried again over another connection.
            keepalive: Duration::from_secs(10),
            // A node's whole answer to the probe is some hundred KiB; what 64 nodes may send at once has to fit into memory.
            max_output: 8 << 20,
            known_hosts: vec![home.join(".ssh/known_hosts"), PathBuf::from("/etc/ssh/ssh_known_hosts")],
            host_keys: HostKeyPolicy::default(),
            home,
            agent_socket: None,
            login_name: "root".to_owned(),
            user: None,
            key_path: None,
            agent: AgentUse::default(),
            jumps: None,
            ask,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Settings")
            .field("known_hosts", &self.known_hosts)
            .field("host_keys", &self.host_keys)
            .field("user", &self.user)
            .field("key_path", &self.key_path)
            .field("agent", &self.agent)
            .field("jumps", &self.jumps)
            .finish_non_exhaustive()
    }
}

/// The way to all nodes of a cluster: known host keys, keys that were decrypted once, and the shared connection to the bastion.
#[derive(Debug)]
pub struct Transport {
    connector: Connector,
    jumps: JumpChain,
}

impl Transport {
    /// Reads the known_hosts files and works out the jump hosts: `--jump`, else the inventory's bastion, else none.
    pub fn new(settings: Settings, bastion: Option<&Bastion>) -> Result<Self, TransportError> {
        let jumps = JumpChain::new(login::jump_logins(&settings, bastion));
        Ok(Self { connector: Connector::new(settings)?, jumps })
    }

    /// Connects to a node and logs in; through the jump hosts where there are some, over one connection that all nodes share.
    ///
    /// What may pass in a moment is tried again, as the settings say.
    pub async fn connect(&self, node: &Node) -> Result<Session, TransportError> {
        let login = Login::for_node(node, &self.connector.settings);
        let mut pauses = self.connector.settings.reconnect.pauses();
        loop {
            // Who connects to the jump hosts has tried again already.
            let through = self.jumps.session(&self.connector).await?;
            match self.connector.connect(&login, through.as_ref()).await {
                Ok(session) => return Ok(session),
                Err(error) => connector::pause(&mut pauses, error).await?,
            }
        }
    }

    /// Closes the shared connection to the jump hosts.
    pub async fn close(&self) {
        self.jumps.close().await;
    }
}
