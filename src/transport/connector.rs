//! The connector makes one SSH connection: it dials, exchanges keys, verifies the host and logs in, each in time.
//!
//! The transport has one; nodes and jump hosts are connected to in the same way.

use std::borrow::Cow;
use std::fmt::Display;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use russh::client::{self, DisconnectReason};
use russh::keys::{Algorithm, PublicKeyOrCertificate};
use russh::{Preferred, cipher, compression, kex, mac};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use super::authentication::Credentials;
use super::host_keys::HostKeys;
use super::keys::KeyRing;
use super::login::Login;
use super::{Endpoint, Phase, Session, Settings, TransportError};

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

/// How many signs of life may be missed before a connection is dead.
const MISSED_KEEPALIVES: u32 = 3;

/// Makes connections under one set of settings.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) settings: Settings,
    host_keys: Arc<HostKeys>,
    keys: KeyRing,
}

impl Connector {
    /// Reads the known_hosts files.
    pub(super) fn new(settings: Settings) -> Result<Self, TransportError> {
        let host_keys = Arc::new(HostKeys::read(&settings.known_hosts, settings.host_keys)?);
        let keys = KeyRing::new(Arc::clone(&settings.ask));
        Ok(Self { settings, host_keys, keys })
    }

    /// Connects and logs in, through another session or straight.
    pub(super) async fn connect(
        &self,
        login: &Login,
        through: Option<&Session>,
    ) -> Result<Session, TransportError> {
        // Before the clock starts: a passphrase may have to be typed.
        let credentials = Credentials::gather(login, &self.settings, &self.keys).await?;
        let attempt =
            Attempt { connector: self, login, deadline: Instant::now() + self.settings.connect_timeout };
        let fate = Fate::default();
        let mut handle = match through {
            None => attempt.exchange_keys(attempt.dial().await?, &fate).await?,
            Some(session) => attempt.exchange_keys(attempt.dial_through(session).await?, &fate).await?,
        };
        attempt.within(Phase::Authentication, credentials.offer(&mut handle, login, &fate)).await??;
        Ok(Session::new(handle, login, &self.settings, fate))
    }

    fn configuration(&self, host_keys: Vec<Algorithm>) -> client::Config {
        let keepalive = self.settings.keepalive;
        client::Config {
            preferred: Preferred {
                kex: Cow::Borrowed(KEY_EXCHANGES),
                key: Cow::Owned(host_keys),
                host_key_certificates: Cow::Borrowed(&[]),
                cipher: Cow::Borrowed(CIPHERS),
                mac: Cow::Borrowed(MACS),
                compression: Cow::Borrowed(&[compression::NONE]),
            },
            keepalive_interval: Some(keepalive),
            keepalive_max: MISSED_KEEPALIVES as usize,
            // Keepalives do not end a task that hangs in a key exchange or in a write; answers to them keep a silent command alive.
            inactivity_timeout: Some(
                self.settings.connect_timeout.max(keepalive.saturating_mul(MISSED_KEEPALIVES + 2)),
            ),
            ..client::Config::default()
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
fn is_time_used_up(error: &TransportError) -> bool {
    match error {
        TransportError::TimedOut { .. } => true,
        TransportError::Jump { cause, .. } => is_time_used_up(cause),
        _ => false,
    }
}

/// One connection in the making, with the time that it has left.
struct Attempt<'a> {
    connector: &'a Connector,
    login: &'a Login,
    deadline: Instant,
}

impl Attempt<'_> {
    async fn within<T>(&self, phase: Phase, work: impl Future<Output = T>) -> Result<T, TransportError> {
        let limit = self.connector.settings.connect_timeout;
        let at = || self.login.at.clone();
        timeout_at(self.deadline, work).await.map_err(|_| TransportError::TimedOut { at: at(), phase, limit })
    }

    /// Connects to the first address of the host that answers.
    async fn dial(&self) -> Result<TcpStream, TransportError> {
        let at = &self.login.at;
        let lookup_failed =
            |reason: &dyn Display| TransportError::NameLookup { at: at.clone(), reason: reason.to_string() };
        let addresses = self
            .within(Phase::NameLookup, lookup_host((at.host.as_str(), at.port)))
            .await?
            .map_err(|error| lookup_failed(&error))?;
        let mut last = lookup_failed(&"it has no address");
        for address in addresses {
            match self.within(Phase::Connect, TcpStream::connect(address)).await? {
                Ok(stream) => {
                    // Small packets go back and forth: waiting to fill them costs 40 ms a time.
                    stream.set_nodelay(true).map_err(|error| dial_error(at, &error))?;
                    return Ok(stream);
                }
                Err(error) => last = dial_error(at, &error),
            }
        }
        Err(last)
    }

    async fn dial_through(&self, session: &Session) -> Result<super::TcpChannel, TransportError> {
        let at = &self.login.at;
        let opened = self.within(Phase::Connect, session.open_tcp(&at.host, at.port)).await;
        // Either the node is down, or the jump host is: only then do the next ones need another connection to it.
        match opened.inspect_err(|_| session.doubt(self.connector.settings.keepalive))? {
            Ok(channel) => Ok(channel),
            Err(TransportError::ForwardRefused { at: jump, .. }) => Err(TransportError::Unreachable {
                at: at.clone(),
                reason: format!("jump host {jump} cannot connect to it"),
            }),
            Err(cause) => {
                Err(TransportError::Jump { at: session.endpoint().clone(), cause: Arc::new(cause) })
            }
        }
    }

    async fn exchange_keys<S>(&self, stream: S, fate: &Fate) -> Result<client::Handle<Peer>, TransportError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let host_keys = &self.connector.host_keys;
        let at = &self.login.at;
        let configuration = Arc::new(self.connector.configuration(host_keys.preferred(at)));
        let peer = Peer { login: self.login.clone(), host_keys: Arc::clone(host_keys), fate: fate.clone() };
        // On the heap: the protocol's state is large, and many connections are made at once.
        let connecting = Box::pin(client::connect_stream(configuration, stream, peer));
        self.within(Phase::KeyExchange, connecting).await?.map_err(|error| match error {
            PeerError::HostKey(error) => *error,
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
    login: Login,
    host_keys: Arc<HostKeys>,
    fate: Fate,
}

/// Why the protocol's task gave up.
#[derive(Debug)]
pub(super) enum PeerError {
    HostKey(Box<TransportError>),
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
            Self::HostKey(error) => error.fmt(formatter),
            Self::Protocol(error) => error.fmt(formatter),
        }
    }
}

impl client::Handler for Peer {
    type Error = PeerError;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, PeerError> {
        match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                let verdict = self.host_keys.check(&self.login, key);
                verdict.map(|()| true).map_err(|error| PeerError::HostKey(Box::new(error)))
            }
            // None was asked for.
            PublicKeyOrCertificate::Certificate(_) => Ok(false),
        }
    }

    async fn disconnected(&mut self, reason: DisconnectReason<PeerError>) -> Result<(), PeerError> {
        let reason = match reason {
            DisconnectReason::ReceivedDisconnect(said) => said.message,
            DisconnectReason::Error(error) => error.to_string(),
        };
        // The first reason is the true one.
        let _ = self.fate.0.set(reason);
        Ok(())
    }
}
