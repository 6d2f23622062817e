//! The transport is how certroll reaches nodes: SSH connections, direct or through jump hosts, with host keys verified.
//!
//! The face makes a [`Transport`] from [`Settings`]; `gather`, `execute` and `kube` connect to nodes through it and work with
//! the [`Session`]s. Nobody above knows which SSH library lies beneath.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Clock;
use crate::inventory::{Bastion, Node, Secret};

mod agent;
mod authentication;
mod backoff;
mod connector;
mod credentials;
mod deadline;
mod dial;
mod error;
mod fan_out;
mod hop;
mod host_certificates;
mod host_keys;
mod jump;
mod keys;
mod known_hosts;
mod login;
mod manners;
mod origin;
mod pace;
mod question;
mod reach;
mod root;
mod route;
mod session;
mod shared_password;
mod ssh_config;

pub use backoff::Backoff;
pub use error::{
    ChangedHost, HostKey, KeyError, Phase, Refusal, RefusedCertificate, TransportError, UnknownHost,
};
pub use fan_out::FanOut;
pub use host_certificates::CertificateFlaw;
pub use jump::{Jump, ParseJumpError};
pub use known_hosts::{Place, places_of};
pub use origin::Origin;
pub use question::{AskSecret, Echo, PasswordPurpose, Question};
pub use reach::{Reach, Remark, Remarks, reach, remarks};
pub use root::{Approach, Next};
pub use session::{Ended, Feed, Full, Session, Sink, Stream, TcpChannel};
pub use ssh_config::{ConfigChoice, ConfigProblem, Place as ConfigPlace, SshConfig, SshConfigError};

use connector::{Connector, Position};
use hop::{Hop, Passage};
use login::Login;
use route::{Planner, Route};
use ssh_config::Here;

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

/// An option that was given on the command line, so that the ssh_config has no say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TypedOption {
    /// `--connect-timeout`
    ConnectTimeout,
    /// `--host-keys`
    HostKeys,
    /// `--known-hosts`
    KnownHosts,
}

/// Whether passwords and questions of hosts are answered at the login (`--ask-password`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PasswordUse {
    /// Only keys prove who the user is.
    #[default]
    Never,
    /// The operator is asked for the password once a host wants it, and answers what else hosts ask.
    Asked,
}

/// Who hears what hosts say before the login, a warning to intruders for one; the words are the host's, and may be anything.
pub type HearBanner = Arc<dyn Fn(&Endpoint, &str) + Send + Sync>;

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
    /// Tells whether certificates of hosts are valid.
    pub clock: Clock,
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
    /// How long the agent may take for one signature, while the time of the connection stands still: a person may have to touch a
    /// key or to confirm.
    pub signature_timeout: Duration,
    /// What is done where a host wants more than keys.
    pub passwords: PasswordUse,
    /// The jump hosts in the order in which they are passed, instead of `bastion_host` (`--jump`); an empty list means none.
    pub jumps: Option<Vec<Jump>>,
    /// The password for sudo (`--become-password-file`); where there is none, the operator is asked once a node wants it.
    pub sudo_password: Option<Secret>,
    /// Who hears the banners of hosts.
    pub banners: Option<HearBanner>,
    /// Who knows what only the operator knows.
    pub ask: Arc<dyn AskSecret>,
    /// What OpenSSH's configuration says of hosts; it outranks what is a default here.
    pub ssh_config: SshConfig,
    /// The options that were given and that the ssh_config would outrank otherwise.
    pub typed: BTreeSet<TypedOption>,
    /// The environment, for `${NAME}` in the ssh_config.
    pub variable: fn(&str) -> Option<String>,
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
            clock: Clock::System,
            home,
            agent_socket: None,
            login_name: "root".to_owned(),
            user: None,
            key_path: None,
            agent: AgentUse::default(),
            signature_timeout: Duration::from_secs(60),
            passwords: PasswordUse::default(),
            jumps: None,
            sudo_password: None,
            banners: None,
            ask,
            ssh_config: SshConfig::default(),
            typed: BTreeSet::new(),
            variable: |_| None,
        }
    }

    /// Reads OpenSSH's configuration for the home folder and the user that are set here.
    pub fn read_ssh_config(&mut self, choice: &ConfigChoice) -> Result<(), SshConfigError> {
        let home = self.home.to_string_lossy();
        let here = Here { home: &home, user: &self.login_name, variable: self.variable };
        self.ssh_config = SshConfig::read(choice, here)?;
        Ok(())
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

/// The way to one node: the last of the hosts that are passed, and the login.
struct Way {
    last: Option<Arc<Hop>>,
    login: Arc<Login>,
}

impl Way {
    /// Connects to the jump hosts, where there are some.
    async fn enter(&self, connector: &Connector) -> Result<Option<Passage>, TransportError> {
        match &self.last {
            Some(hop) => hop.enter(connector).await.map(Some),
            None => Ok(None),
        }
    }

    /// Connects to the node and logs in. A jump host without room for another connection is waited for as long as a command may
    /// take, for it is others' commands that take the room.
    async fn connect(
        &self,
        connector: &Connector,
        mut passage: Option<Passage>,
    ) -> Result<Session, TransportError> {
        let began = Instant::now();
        loop {
            match (connector.connect(&self.login, passage, Position::Node).await, &self.last) {
                (Err(TransportError::NoRoom { .. }), Some(hop))
                    if began.elapsed() < connector.settings.command_timeout =>
                {
                    hop.wait_for_room().await;
                    passage = self.enter(connector).await?;
                }
                (result, _) => return result,
            }
        }
    }
}

/// The way to all nodes of a cluster: known host keys, keys that were decrypted once, and shared connections to jump hosts.
#[derive(Debug)]
pub struct Transport {
    connector: Connector,
    bastion: Option<Bastion>,
    /// The jump hosts that some node is behind; each is there once for each way to it.
    hops: Mutex<Vec<Arc<Hop>>>,
}

impl Transport {
    /// Reads the known_hosts files; the jump hosts are `--jump`, else the inventory's bastion, else a node's `ProxyJump`.
    pub fn new(settings: Settings, bastion: Option<&Bastion>) -> Result<Self, TransportError> {
        let connector = Connector::new(settings)?;
        Ok(Self { connector, bastion: bastion.cloned(), hops: Mutex::default() })
    }

    /// Connects to a node and logs in; through the jump hosts where there are some, over connections that nodes share.
    ///
    /// What may pass in a moment is tried again, as the settings say.
    pub async fn connect(&self, node: &Node) -> Result<Session, TransportError> {
        let (way, connector) = (self.way_to(node)?, &self.connector);
        let mut pauses = connector.settings.reconnect.pauses();
        loop {
            // Who connects to the jump hosts has tried again already.
            let passage = way.enter(connector).await?;
            match way.connect(connector, passage).await {
                Ok(session) => return Ok(session),
                Err(error) => connector::pause(&mut pauses, error).await?,
            }
        }
    }

    /// Returns the way to a node.
    fn way_to(&self, node: &Node) -> Result<Way, TransportError> {
        let settings = &self.connector.settings;
        let Route { hops, login, .. } = Planner { settings, bastion: self.bastion.as_ref() }.route(node)?;
        Ok(Way { last: self.hop(hops), login })
    }

    /// Closes the shared connections to jump hosts, the farthest first.
    pub async fn close(&self) {
        let hops = std::mem::take(&mut *self.hops.lock().unwrap_or_else(PoisonError::into_inner));
        for hop in hops.iter().rev() {
            hop.close().await;
        }
    }

    /// Returns the last of some jump hosts, which is the same one for all who take this way.
    fn hop(&self, way: Vec<Arc<Login>>) -> Option<Arc<Hop>> {
        let mut hops = self.hops.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last: Option<Arc<Hop>> = None;
        for login in way {
            let known = hops.iter().find(|hop| hop.is(&login, last.as_ref())).cloned();
            last = Some(known.unwrap_or_else(|| {
                let hop = Arc::new(Hop::new(login, last.take()));
                hops.push(Arc::clone(&hop));
                hop
            }));
        }
        last
    }
}
