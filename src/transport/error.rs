//! A transport error is why a node could not be reached, or why a connection to it did not do what it was asked.
//!
//! Every step of a connection makes them; `gather` and `execute` put the node's name before them, and the face shows the hint.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{HashAlg, PublicKey};

use super::Endpoint;
use super::host_certificates::CertificateFlaw;
use super::known_hosts::Place;
use super::question::PasswordPurpose;

mod hint;
mod key;

pub use key::KeyError;

/// Why a connection, a command or a channel failed; every message names address and port.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// A known_hosts file cannot be read or written.
    #[error("cannot use the known_hosts file `{}`: {reason}", path.display())]
    KnownHosts {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        reason: String,
    },
    /// The name has no address.
    #[error("cannot look up the address of {at}: {reason}")]
    NameLookup {
        /// Who was to be reached.
        at: Endpoint,
        /// What the resolver says.
        reason: String,
    },
    /// Nothing listens there.
    #[error("{at} refused the connection")]
    Refused {
        /// Who was to be reached.
        at: Endpoint,
    },
    /// There is no way there.
    #[error("{at} cannot be reached: {reason}")]
    Unreachable {
        /// Who was to be reached.
        at: Endpoint,
        /// What the operating system or the jump host says.
        reason: String,
    },
    /// Nothing came back in time.
    #[error("{at} did not answer within {limit:?} ({phase})")]
    TimedOut {
        /// Who was to be reached.
        at: Endpoint,
        /// What was waited for.
        phase: Phase,
        /// The time that it had.
        limit: Duration,
    },
    /// The two sides do not understand each other.
    #[error("the SSH handshake with {at} failed: {reason}")]
    Handshake {
        /// Who was to be reached.
        at: Endpoint,
        /// What went wrong.
        reason: String,
    },
    /// No known_hosts file names the host.
    #[error("the host key of {} is not known: {}", .0.at, .0.key)]
    HostKeyUnknown(Box<UnknownHost>),
    /// The host shows another key than known_hosts says: it was reinstalled, or somebody listens in.
    #[error(
        "the host key of {} has changed: it shows {}, but {} names another key ({})",
        .0.at, .0.key, .0.place, .0.known_as
    )]
    HostKeyChanged(Box<ChangedHost>),
    /// The host shows a key that is marked `@revoked`.
    #[error("the host key of {at} is revoked by {place}: {key}")]
    HostKeyRevoked {
        /// Who was to be reached.
        at: Endpoint,
        /// The key that it shows.
        key: HostKey,
        /// Where it is revoked.
        place: Place,
    },
    /// The host shows a certificate of an authority that known_hosts names, but it cannot be believed, and its key is not known by
    /// itself.
    #[error(
        "the host certificate of {} is not accepted: {} (its authority is named by {}; its key is {})",
        .0.unknown.at, .0.flaw, .0.place, .0.unknown.key
    )]
    HostCertificateRefused(Box<RefusedCertificate>),
    /// There is no key to log in with.
    #[error("no key to log in to {at} as `{user}`: {}", join(reasons))]
    NoKey {
        /// Who was to be reached.
        at: Endpoint,
        /// The user.
        user: String,
        /// Why each key could not be used.
        reasons: Vec<KeyError>,
    },
    /// The host accepts none of the keys.
    #[error("{at} does not let `{user}` in: {}", refusal.said)]
    AuthenticationRefused {
        /// Who was to be reached.
        at: Endpoint,
        /// The user.
        user: String,
        /// What was offered and what the host said.
        refusal: Refusal,
    },
    /// The agent did not sign in time.
    #[error("the SSH agent did not sign with {key} for {at} within {limit:?}")]
    AgentSilent {
        /// Who was to be reached.
        at: Endpoint,
        /// The key, for people.
        key: String,
        /// The time that it had.
        limit: Duration,
    },
    /// A jump host on the way failed.
    #[error("jump host {at}: {cause}")]
    Jump {
        /// The jump host.
        at: Endpoint,
        /// How it failed.
        cause: Arc<TransportError>,
    },
    /// Jump hosts are reached through each other (`ProxyJump` in the ssh_config).
    #[error("the jump host {user}@{at} would be reached through itself")]
    JumpLoop {
        /// The host that comes a second time.
        at: Endpoint,
        /// The user there.
        user: String,
    },
    /// The host forwards no connections (`AllowTcpForwarding no`, `PermitOpen`, `restrict` in `authorized_keys`).
    #[error("{at} does not allow forwarding to {target}")]
    ForwardingProhibited {
        /// The host that was asked.
        at: Endpoint,
        /// Where it was to connect.
        target: Endpoint,
    },
    /// The host could not connect to the target: nothing listens there.
    #[error("{at} cannot connect to {target}")]
    ForwardRefused {
        /// The host that was asked.
        at: Endpoint,
        /// Where it was to connect.
        target: Endpoint,
    },
    /// The node runs Windows, where nothing of what is done to nodes has a meaning.
    #[error("{at} runs Windows: its SSH server is `{identification}`")]
    Windows {
        /// The node.
        at: Endpoint,
        /// How its SSH server names itself.
        identification: String,
    },
    /// A host wants a password, and another one has not accepted the one that is there.
    #[error(
        "{}{at} wants a password, and {by} has not accepted the one that was given: it is not tried here",
        if *purpose == PasswordPurpose::Sudo { "sudo on " } else { "" }
    )]
    PasswordNotTried {
        /// What the password opens.
        purpose: PasswordPurpose,
        /// The host that wants it.
        at: Endpoint,
        /// The host that has refused it, or never judged it.
        by: Endpoint,
    },
    /// sudo wants a password for a command, and no host has taken one yet.
    #[error("sudo on {at} wants a password, and none is known to be right")]
    NoPassword {
        /// The host that wants it.
        at: Endpoint,
    },
    /// The host carries as many connections as it can: another may be opened when one of them ends.
    #[error("{at} has no room for a connection to {target}")]
    NoRoom {
        /// The host that was asked.
        at: Endpoint,
        /// Where it was to connect.
        target: Endpoint,
    },
    /// The host opens no channel or starts no command.
    #[error("{at} refused {what}: {reason}")]
    ChannelRefused {
        /// The host that was asked.
        at: Endpoint,
        /// What it was asked for.
        what: &'static str,
        /// What it says.
        reason: String,
    },
    /// The connection ended.
    #[error("the connection to {at} was lost: {reason}")]
    ConnectionLost {
        /// The other side.
        at: Endpoint,
        /// What is known of the end.
        reason: String,
    },
    /// The connection ended while a command ran: what it did is done, and what it would have answered is not known.
    #[error(
        "the connection to {at} was lost before a command answered, which may have run all the same: {reason}"
    )]
    AnswerLost {
        /// Where it ran.
        at: Endpoint,
        /// What is known of the end of the connection.
        reason: String,
    },
    /// A command ran longer than it may; it may still be running on the host.
    #[error("a command on {at} did not end within {limit:?}")]
    CommandTimedOut {
        /// Where it runs.
        at: Endpoint,
        /// The time that it had.
        limit: Duration,
    },
    /// A command wrote more than is kept in memory.
    #[error("a command on {at} wrote more than {}", size(*limit))]
    OutputTooLarge {
        /// Where it runs.
        at: Endpoint,
        /// How many bytes it may write.
        limit: usize,
    },
    /// A command that needs a terminal was to read more than is kept in memory for it.
    #[error("a command on {at}, which needs a terminal, was given more than {} to read", size(*limit))]
    InputTooLarge {
        /// Where it was to run.
        at: Endpoint,
        /// How many bytes it may read.
        limit: usize,
    },
}

impl TransportError {
    /// Returns whether the fault lies between here and the host and may pass by itself, so that the same may be tried again.
    ///
    /// A host key or a login that was refused stays refused, and a command that ran out of time may still be running.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::ForwardRefused { .. }
            | Self::NoRoom { .. }
            | Self::ConnectionLost { .. }
            | Self::AnswerLost { .. } => true,
            // What the two C libraries say while no name server answers; a name that does not exist reads otherwise.
            Self::NameLookup { reason, .. } => {
                ["Temporary failure", "Try again"].iter().any(|passing| reason.contains(passing))
            }
            Self::Jump { cause, .. } => cause.is_transient(),
            Self::KnownHosts { .. }
            | Self::JumpLoop { .. }
            | Self::Handshake { .. }
            | Self::PasswordNotTried { .. }
            | Self::NoPassword { .. }
            | Self::Windows { .. }
            | Self::HostKeyUnknown(_)
            | Self::HostKeyChanged(_)
            | Self::HostKeyRevoked { .. }
            | Self::HostCertificateRefused(_)
            | Self::NoKey { .. }
            | Self::AuthenticationRefused { .. }
            | Self::AgentSilent { .. }
            | Self::ForwardingProhibited { .. }
            | Self::ChannelRefused { .. }
            | Self::CommandTimedOut { .. }
            | Self::OutputTooLarge { .. }
            | Self::InputTooLarge { .. } => false,
        }
    }
}

impl TransportError {
    /// Returns whether a host hung up before the login, as it does when too many log in at once.
    pub(super) fn is_turned_away(&self) -> bool {
        matches!(self, Self::ConnectionLost { .. })
    }
}

/// What was waited for when time was up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The address of a name.
    NameLookup,
    /// The TCP connection.
    Connect,
    /// Versions, algorithms, keys.
    KeyExchange,
    /// The login.
    Authentication,
    /// A channel for a command or a forwarded connection.
    Channel,
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::NameLookup => "name look-up",
            Self::Connect => "TCP connection",
            Self::KeyExchange => "key exchange",
            Self::Authentication => "authentication",
            Self::Channel => "opening a channel",
        })
    }
}

/// A host key as people compare it: its kind and its fingerprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    /// `ssh-ed25519`, `ecdsa-sha2-nistp256`, `ssh-rsa`, ...
    pub algorithm: String,
    /// `SHA256:` and base64, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
}

impl HostKey {
    pub(super) fn of(key: &PublicKey) -> Self {
        Self {
            algorithm: key.algorithm().to_string(),
            fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
        }
    }
}

impl fmt::Display for HostKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.algorithm, self.fingerprint)
    }
}

/// A host that no known_hosts file names.
#[derive(Debug, Clone)]
pub struct UnknownHost {
    /// Who was to be reached.
    pub at: Endpoint,
    /// The name that known_hosts would have it under: the same, or a `HostKeyAlias`.
    pub listed_as: Endpoint,
    /// The user that would log in.
    pub user: String,
    /// The key that it shows.
    pub key: HostKey,
    /// The known_hosts file that new keys go to.
    pub file: PathBuf,
    /// A `@cert-authority` line that covers the host.
    pub authority: Option<Place>,
    /// The authority that has signed the certificate that it shows, which is another one.
    pub signed_by: Option<HostKey>,
}

/// A host whose certificate cannot be believed.
#[derive(Debug, Clone)]
pub struct RefusedCertificate {
    /// The host, whose key is not known by itself.
    pub unknown: UnknownHost,
    /// Who has signed it.
    pub authority: HostKey,
    /// Where known_hosts names the authority.
    pub place: Place,
    /// What is wrong with it.
    pub flaw: CertificateFlaw,
}

/// A host that shows another key than known_hosts names.
#[derive(Debug, Clone)]
pub struct ChangedHost {
    /// Who was to be reached.
    pub at: Endpoint,
    /// The name that known_hosts has it under: the same, or a `HostKeyAlias`.
    pub listed_as: Endpoint,
    /// The key that it shows.
    pub key: HostKey,
    /// The kind of the key that is known.
    pub known_as: String,
    /// Where the known key stands.
    pub place: Place,
}

/// What was offered to a host, and why it was not enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub(super) said: String,
    pub(super) way_out: WayOut,
}

/// What may help against a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WayOut {
    /// A key that the host knows.
    AnotherKey,
    /// The same, or a password.
    AnotherKeyOrPassword,
    /// Fewer keys, the right one among them.
    OfferFewer,
    /// A password, or answers to the host's questions.
    AskPassword,
    /// The right password.
    CheckPassword,
    /// A person at a terminal.
    AnswerOnTerminal,
}

/// Returns a limit of bytes as people say it.
fn size(bytes: usize) -> String {
    if bytes >= 1 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{bytes} bytes") }
}

fn join(reasons: &[KeyError]) -> String {
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
