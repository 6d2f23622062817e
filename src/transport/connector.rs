//! The connector makes one SSH connection: it dials, exchanges keys, verifies the host and logs in, each in time.
//!
//! The transport has one; nodes and jump hosts are connected to in the same way.

use std::borrow::Cow;
use std::fmt::Display;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use russh::client::{self, DisconnectReason};
use russh::keys::PublicKeyOrCertificate;
use russh::{Names, Preferred, cipher, compression, kex, mac};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};

use super::agent::Agents;
use super::authentication::Authentication;
use super::credentials::Credentials;
use super::deadline::Deadline;
use super::dial;
use super::hop::{Passage, Passing};
use super::host_keys::{HostKeys, KnownKeys};
use super::keys::KeyRing;
use super::login::Login;
use super::question::{PasswordPurpose, Questions};
use super::root::RootOfAll;
use super::shared_password::SharedPassword;
use super::{Endpoint, HearBanner, PasswordUse, Phase, Session, Settings, TransportError};
use crate::clock::Clock;

/// The key exchanges, the cheap modern one first: four fifths of the CPU of a connection is its key exchange. The others are for
/// servers that were hardened or that are as old as OpenSSH 6.7; the last four announce extensions.
const KEY_EXCHANGES: &[kex::Name] = &[
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::MLKEM768X25519_SHA256,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
    kex::DH_G16_SHA512,
    kex::DH_G18_SHA512,
    kex::DH_GEX_SHA256,
    kex::DH_G14_SHA256,
    kex::DH_G14_SHA1,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
];

const CIPHERS: &[cipher::Name] = &[
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_128_CTR,
    cipher::AES_192_CTR,
    cipher::AES_256_CTR,
];

const MACS: &[mac::Name] = &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM, mac::HMAC_SHA256, mac::HMAC_SHA512];

/// How much a node may send that we have not taken yet: all of it may pile up in the connection of the jump host before the node.
const NODE_WINDOW: u32 = 256 << 10;

/// How many packets of one connection wait for their reader. When they are as many, the library stops the whole connection: for a node,
/// whose command alone is slowed down then, that is meant, and some MiB are kept at most.
const NODE_PACKETS: usize = 32;

/// The same for one connection through a jump host, which must never stop: all nodes behind it would stand still because the output of
/// one is not read (`exec -- journalctl | less`). The library renews the window before anybody has read, so the jump host's own window
/// is no bound; the node's is, which is not renewed while the node's connection stands still. So there is room for all of that, in
/// packets of 32 bytes. The queue grows as it is filled.
const JUMP_PACKETS: usize = NODE_WINDOW as usize / 32;

/// What a host is on the way of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    /// One that is passed, whatever it runs.
    Jump,
    /// The end of the way: a node of a cluster, on which commands are run.
    Node,
}

/// Makes connections under one set of settings.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) settings: Settings,
    host_keys: KnownKeys,
    keys: KeyRing,
    root: RootOfAll,
    agents: Agents,
    questions: Questions,
    /// The passwords of the logins; what is typed for one kind of hosts is shown to no other.
    of_nodes: SharedPassword,
    of_jump_hosts: SharedPassword,
}

impl Connector {
    /// Reads the known_hosts files.
    pub(super) fn new(settings: Settings) -> Result<Self, TransportError> {
        let host_keys = KnownKeys::default();
        // What all hosts share is better missed now than at each of them.
        host_keys.of(&settings.known_hosts)?;
        let questions = Questions::new(Arc::clone(&settings.ask));
        let keys = KeyRing::new(questions.clone());
        let agents = Agents::new(settings.signature_timeout);
        let root = RootOfAll::new(settings.sudo_password.clone(), questions.clone());
        let password = |purpose| SharedPassword::new(purpose, None, questions.clone());
        let of_nodes = password(PasswordPurpose::Nodes);
        let of_jump_hosts = password(PasswordPurpose::JumpHosts);
        Ok(Self { settings, host_keys, keys, root, agents, questions, of_nodes, of_jump_hosts })
    }

    /// Connects and logs in, through a jump host or straight.
    pub(super) async fn connect(
        &self,
        login: &Arc<Login>,
        through: Option<Passage>,
        position: Position,
    ) -> Result<Session, TransportError> {
        // Before the clock starts: a passphrase may have to be typed.
        let passwords = self.settings.passwords;
        let agent = self.agents.of(login.agent_socket.as_deref());
        let credentials = Credentials::gather(login, passwords, &self.keys, &agent).await?;
        let deadline = Deadline::start(&login.at, login.connect_timeout);
        let attempt = Attempt { connector: self, login, position, deadline: &deadline };
        let fate = Fate::default();
        let mut handle = match through {
            None => attempt.exchange_keys(attempt.dial().await?, &fate).await?,
            Some(passage) => attempt.exchange_keys(attempt.dial_through(passage).await?, &fate).await?,
        };
        let (agent, questions) = (&agent, &self.questions);
        let password = match (passwords, position) {
            (PasswordUse::Never, _) => None,
            (PasswordUse::Asked, Position::Jump) => Some(&self.of_jump_hosts),
            (PasswordUse::Asked, Position::Node) => Some(&self.of_nodes),
        };
        let authentication =
            Authentication { login, password, agent, questions, deadline: &deadline, fate: &fate };
        // On the heap: whoever connects need not carry all of a login's state.
        let logging_in = Box::pin(authentication.log_in(&mut handle, credentials));
        deadline.within(Phase::Authentication, logging_in).await??;
        let session = Session::new(handle, login, &self.settings, fate, self.root.of(login));
        Ok(session.made_in(deadline.spent()))
    }

    fn configuration(login: &Login, host_keys: &HostKeys, position: Position) -> client::Config {
        let (keepalive, missed) = (login.keepalive, login.missed_keepalives);
        let default = client::Config::default();
        let (window_size, channel_buffer_size) = match position {
            Position::Jump => (default.window_size, JUMP_PACKETS),
            Position::Node => (NODE_WINDOW, NODE_PACKETS),
        };
        client::Config {
            preferred: Preferred {
                kex: Cow::Borrowed(KEY_EXCHANGES),
                key: Cow::Owned(host_keys.preferred(&login.known_as)),
                host_key_certificates: Cow::Owned(host_keys.preferred_certificates(&login.known_as)),
                cipher: Cow::Borrowed(CIPHERS),
                mac: Cow::Borrowed(MACS),
                compression: Cow::Borrowed(&[compression::NONE]),
            },
            window_size,
            channel_buffer_size,
            keepalive_interval: Some(keepalive),
            keepalive_max: missed as usize,
            // Keepalives do not end a task that hangs in a key exchange or in a write; answers to them keep a silent command alive.
            inactivity_timeout: Some(
                login.connect_timeout.max(keepalive.saturating_mul(missed.saturating_add(2))),
            ),
            ..default
        }
    }
}

/// Waits before a connection is tried again; returns the error where it is not worth it or all attempts are used up.
pub(super) async fn pause(
    pauses: &mut (impl Iterator<Item = Duration> + Send),
    error: TransportError,
) -> Result<(), TransportError> {
    if !error.is_transient() || is_time_used_up(&error) {
        return Err(error);
    }
    let Some(pause) = pauses.next() else { return Err(error) };
    tokio::time::sleep(pause).await;
    Ok(())
}

/// Returns whether a host had all of its time already: to wait for a dead node three times as long helps nobody.
pub(super) fn is_time_used_up(error: &TransportError) -> bool {
    match error {
        TransportError::TimedOut { .. } => true,
        TransportError::Jump { cause, .. } => is_time_used_up(cause),
        _ => false,
    }
}

/// One connection in the making, with the time that it has left.
struct Attempt<'a> {
    connector: &'a Connector,
    login: &'a Arc<Login>,
    position: Position,
    deadline: &'a Deadline,
}

impl Attempt<'_> {
    async fn within<T>(&self, phase: Phase, work: impl Future<Output = T>) -> Result<T, TransportError> {
        self.deadline.within(phase, work).await
    }

    /// Connects to the address of the host that answers first.
    async fn dial(&self) -> Result<TcpStream, TransportError> {
        let at = &self.login.at;
        let addresses = match at.host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, at.port)],
            Err(_) => self.look_up().await?,
        };
        let dialled = self.within(Phase::Connect, dial::first_to_answer(addresses)).await?;
        let stream = dialled.map_err(|error| dial_error(at, &error))?;
        // Small packets go back and forth: waiting to fill them costs 40 ms a time.
        stream.set_nodelay(true).map_err(|error| dial_error(at, &error))?;
        Ok(stream)
    }

    /// Looks up the addresses of a name.
    async fn look_up(&self) -> Result<Vec<SocketAddr>, TransportError> {
        let at = &self.login.at;
        let failed = |reason: String| TransportError::NameLookup { at: at.clone(), reason };
        let found = self.within(Phase::NameLookup, lookup_host((at.host.as_str(), at.port))).await?;
        let addresses = dial::in_turn(found.map_err(|error| failed(error.to_string()))?, self.login.family);
        if addresses.is_empty() {
            return Err(failed("it has no address of the kind that is wanted".to_owned()));
        }
        Ok(addresses)
    }

    async fn dial_through(&self, passage: Passage) -> Result<Passing, TransportError> {
        let at = &self.login.at;
        let session = &passage.session;
        let opened = self.within(Phase::Connect, session.open_tcp(&at.host, at.port)).await;
        // The jump host's own time may be shorter, and its end says no more of the jump host than the end of the node's.
        let opened = match opened {
            Ok(Err(TransportError::TimedOut { phase: Phase::Channel, limit, .. })) => {
                Err(TransportError::TimedOut { at: at.clone(), phase: Phase::Connect, limit })
            }
            opened => opened,
        };
        // Either the node is down, or the jump host is: only then do the next ones need another connection to it.
        match opened.inspect_err(|_| session.doubt(self.login.keepalive))? {
            Ok(channel) => Ok(passage.carry(channel)),
            Err(TransportError::ForwardRefused { at: jump, .. }) => Err(TransportError::Unreachable {
                at: at.clone(),
                reason: format!("jump host {jump} cannot connect to it"),
            }),
            Err(error @ TransportError::NoRoom { .. }) => Err(error),
            Err(cause) => {
                Err(TransportError::Jump { at: session.endpoint().clone(), cause: Arc::new(cause) })
            }
        }
    }

    async fn exchange_keys<S>(&self, stream: S, fate: &Fate) -> Result<client::Handle<Peer>, TransportError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let host_keys = self.connector.host_keys.of(&self.login.known_hosts)?;
        let at = &self.login.at;
        let configuration = Arc::new(Connector::configuration(self.login, &host_keys, self.position));
        let peer = Peer {
            login: Arc::clone(self.login),
            position: self.position,
            host_keys,
            clock: self.connector.settings.clock,
            banners: self.connector.settings.banners.clone(),
            fate: fate.clone(),
        };
        // On the heap: the protocol's state is large, and many connections are made at once.
        let connecting = Box::pin(client::connect_stream(configuration, stream, peer));
        self.within(Phase::KeyExchange, connecting).await?.map_err(|error| match error {
            PeerError::Host(error) => *error,
            PeerError::Protocol(error) => handshake_error(at, error),
        })
    }
}

fn dial_error(at: &Endpoint, error: &io::Error) -> TransportError {
    let at = at.clone();
    match error.kind() {
        io::ErrorKind::ConnectionRefused => TransportError::Refused { at },
        _ => TransportError::Unreachable { at, reason: error.to_string() },
    }
}

fn handshake_error(at: &Endpoint, error: russh::Error) -> TransportError {
    let at = at.clone();
    match error {
        russh::Error::IO(_)
        | russh::Error::HUP
        | russh::Error::Disconnect
        | russh::Error::SendError
        | russh::Error::InactivityTimeout => TransportError::ConnectionLost {
            at,
            reason: format!(
                "it hung up during the handshake ({error}); sshd does so when too many log in at once (`MaxStartups`)"
            ),
        },
        russh::Error::NoCommonAlgo { kind, ours, theirs } => {
            let (ours, theirs) = (ours.join(", "), theirs.join(", "));
            let reason = format!("no common algorithm ({kind:?}): here {ours}; there {theirs}");
            TransportError::Handshake { at, reason }
        }
        error => TransportError::Handshake { at, reason: error.to_string() },
    }
}

/// Why a connection ended, once it has; written by its own task.
#[derive(Debug, Clone, Default)]
pub(super) struct Fate(Arc<OnceLock<String>>);

impl Fate {
    /// Returns what is known of the end.
    pub(super) fn reason(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// The host at the other end, as the protocol's task sees it.
pub(super) struct Peer {
    login: Arc<Login>,
    position: Position,
    host_keys: Arc<HostKeys>,
    clock: Clock,
    banners: Option<HearBanner>,
    fate: Fate,
}

/// Why the protocol's task gave up.
#[derive(Debug)]
pub(super) enum PeerError {
    /// Something about the host itself.
    Host(Box<TransportError>),
    Protocol(russh::Error),
}

impl From<russh::Error> for PeerError {
    fn from(error: russh::Error) -> Self {
        Self::Protocol(error)
    }
}

impl Display for PeerError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host(error) => error.fmt(formatter),
            Self::Protocol(error) => error.fmt(formatter),
        }
    }
}

/// Returns whether a host's identification is that of an SSH server for Windows: Microsoft's OpenSSH, or Bitvise's.
fn is_windows(identification: &[u8]) -> bool {
    let text = String::from_utf8_lossy(identification).to_lowercase();
    ["_for_windows", "winsshd"].iter().any(|name| text.contains(name))
}

impl client::Handler for Peer {
    type Error = PeerError;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, PeerError> {
        let verdict = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => self.host_keys.check(&self.login, key),
            PublicKeyOrCertificate::Certificate(certificate) => {
                self.host_keys.check_certificate(&self.login, certificate, self.clock.now())
            }
        };
        verdict.map(|()| true).map_err(|error| PeerError::Host(Box::new(error)))
    }

    async fn auth_banner(&mut self, banner: &str, _: &mut client::Session) -> Result<(), PeerError> {
        if let Some(hear) = &self.banners {
            hear(&self.login.at, banner);
        }
        Ok(())
    }

    async fn kex_done(
        &mut self,
        _: Option<&[u8]>,
        _: &Names,
        session: &mut client::Session,
    ) -> Result<(), PeerError> {
        // Before the login, which may well differ there: it need not succeed for the node to be recognised.
        if self.position == Position::Node && is_windows(session.remote_sshid()) {
            let identification = String::from_utf8_lossy(session.remote_sshid()).trim().to_owned();
            let error = TransportError::Windows { at: self.login.at.clone(), identification };
            return Err(PeerError::Host(Box::new(error)));
        }
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<PeerError>) -> Result<(), PeerError> {
        let reason = match reason {
            DisconnectReason::ReceivedDisconnect(said) if said.message.is_empty() => {
                "it closed the connection".to_owned()
            }
            DisconnectReason::ReceivedDisconnect(said) => said.message,
            DisconnectReason::Error(PeerError::Protocol(russh::Error::IO(error)))
                if error.kind() == io::ErrorKind::UnexpectedEof =>
            {
                "it hung up".to_owned()
            }
            DisconnectReason::Error(error) => error.to_string(),
        };
        // The first reason is the true one.
        let _ = self.fate.0.set(reason);
        Ok(())
    }
}
