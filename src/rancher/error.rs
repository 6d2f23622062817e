//! A Rancher error is a reason why Rancher did not do what was asked, with the way out.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use jiff::Timestamp;
use rustls::CertificateError;

use super::cluster::Launcher;
use crate::pki::Service;

/// Why an RKE rotation is not offered for a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoRotation {
    /// The server is older than 2.0.14 or 2.1.9.
    OldServer(String),
    /// Rancher did not launch the cluster with RKE.
    NotRke(Launcher),
    /// Nothing stands against it but the rights of the token.
    NotPermitted,
}

impl NoRotation {
    /// Returns what to do instead.
    pub fn way_out(&self) -> &'static str {
        match self {
            Self::OldServer(_) => {
                "upgrade Rancher to 2.0.14, 2.1.9 or later first; where that must wait, `--via direct --accept-rancher-revert` \
                 renews them without Rancher, whose agents may then put old ones back"
            }
            Self::NotRke(Launcher::Rke2) => {
                "on each server node, one after the other: `rke2 certificate rotate`"
            }
            Self::NotRke(Launcher::K3s) => {
                "on each server node, one after the other: `k3s certificate rotate`"
            }
            Self::NotRke(Launcher::RkeCommand) => {
                "renew them with `--via direct` or `--via rke`, as rke built it"
            }
            Self::NotRke(Launcher::Other(_)) => {
                "its certificates are renewed with the tool that built it: `rke2 certificate rotate`, `k3s certificate rotate`, \
                 `kubeadm certs renew`, or by the cloud that hosts it"
            }
            Self::NotPermitted => NEEDS_RIGHTS,
        }
    }
}

const NEEDS_RIGHTS: &str =
    "use a token of an administrator or of an owner of the cluster, without a cluster scope";

impl fmt::Display for NoRotation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OldServer(version) => {
                write!(
                    formatter,
                    "Rancher {version} cannot rotate certificates, which 2.0.14 and 2.1.9 brought"
                )
            }
            Self::NotRke(launcher) => {
                write!(formatter, "Rancher did not launch it with RKE, it is {launcher}")
            }
            Self::NotPermitted => formatter.write_str("the user of the token may not change it"),
        }
    }
}

/// Why Rancher did not do what was asked; the cause beneath it is its source.
#[derive(Debug, thiserror::Error)]
pub enum RancherError {
    /// The address is none that a token is sent to.
    #[error("`{url}` is not the address of a Rancher server: {reason}")]
    Address {
        /// The address, or its host where the rest is better not repeated.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The token cannot stand in a request.
    #[error("Rancher's token is empty, or holds characters that no token has")]
    Token,
    /// The certificate authority that was given is none.
    #[error("the certificate authority of Rancher cannot be used: {0}")]
    CertificateAuthority(String),
    /// The text that was given is no checksum.
    #[error("`{0}` is not a SHA-256 checksum of 64 hexadecimal digits")]
    NotAChecksum(String),
    /// The server's certificate authority is not the one that was expected.
    #[error("the certificate authority of `{origin}` has the checksum {found}, not {expected}")]
    ChecksumMismatch {
        /// The server.
        origin: String,
        /// What was given.
        expected: String,
        /// What the server's own is.
        found: String,
    },
    /// The server has no certificate authority of its own whose checksum could be compared.
    #[error("`{0}` names no certificate authority of its own")]
    NoOwnAuthority(String),
    /// No authority that is trusted has signed the server's certificate.
    #[error("the certificate of `{origin}` is signed by an authority that is not trusted here")]
    UnknownAuthority {
        /// The server.
        origin: String,
        /// What is wrong with the certificate.
        source: reqwest::Error,
    },
    /// The server's certificate is over, whoever signed it.
    #[error("the certificate of `{origin}` itself, Rancher's own, {}", ended(.not_after.as_ref()))]
    Expired {
        /// The server.
        origin: String,
        /// Until when it was valid.
        not_after: Option<Timestamp>,
        /// What is wrong with the certificate.
        source: reqwest::Error,
    },
    /// The server's certificate is wrong in another way.
    #[error("the certificate of `{origin}` is not trusted")]
    Untrusted {
        /// The server.
        origin: String,
        /// What is wrong with the certificate.
        source: reqwest::Error,
    },
    /// No connection, or one that broke or took too long.
    #[error("Rancher at `{origin}` does not answer")]
    Unreachable {
        /// The server.
        origin: String,
        /// What happened.
        source: reqwest::Error,
    },
    /// The HTTP client cannot be set up.
    #[error("the client for Rancher cannot be set up")]
    Client(#[source] reqwest::Error),
    /// The server sends elsewhere, where the token must not go.
    #[error("Rancher redirects to `{0}`, and its token is not sent there")]
    Redirected(String),
    /// HTTP 401.
    #[error("Rancher does not accept the token: {0}")]
    Unauthorized(String),
    /// HTTP 403.
    #[error("the user of the token may not do this: {0}")]
    Forbidden(String),
    /// HTTP 404.
    #[error("Rancher does not have it: {0}")]
    NotFound(String),
    /// HTTP 409: somebody else changed the same thing.
    #[error("somebody else changed it at the same time: {0}")]
    Conflict(String),
    /// Another status from 400 to 499.
    #[error("Rancher refuses the request (HTTP {status}): {message}")]
    Refused {
        /// The status code.
        status: u16,
        /// What the server says.
        message: String,
    },
    /// HTTP 429, or a status from 500 up.
    #[error("Rancher cannot answer now (HTTP {status}): {message}")]
    Unavailable {
        /// The status code.
        status: u16,
        /// What the server says.
        message: String,
        /// How long it wants not to be asked again (`Retry-After`).
        retry_after: Option<Duration>,
    },
    /// The answer is not what Rancher's API gives.
    #[error("{what} that Rancher gave cannot be read: {reason}")]
    Malformed {
        /// What was being read.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No cluster has that name or id.
    #[error("Rancher has no cluster `{wanted}`; it has {}", list(.candidates))]
    NoCluster {
        /// The name or id that was asked for.
        wanted: String,
        /// Names and ids of the clusters that the token can see.
        candidates: Vec<String>,
    },
    /// Several clusters have that name.
    #[error("Rancher has several clusters `{wanted}`: {}", list(.candidates))]
    AmbiguousCluster {
        /// The name that was asked for.
        wanted: String,
        /// Names and ids of the clusters that have it.
        candidates: Vec<String>,
    },
    /// The cluster offers no rotation.
    #[error("the certificates of cluster `{cluster}` cannot be rotated: {reason}")]
    NoRotation {
        /// The name of the cluster.
        cluster: String,
        /// Why not.
        reason: NoRotation,
    },
    /// The server would rotate all services where one was asked for.
    #[error("Rancher {version} rotates all services at once, not {service} alone")]
    AllServicesOnly {
        /// The version of the server.
        version: String,
        /// The service that was asked for.
        service: Service,
    },
}

impl RancherError {
    /// Returns whether the same request may succeed a little later.
    ///
    /// A call that changes something may have been taken all the same: look before it is made again.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Unavailable { .. } | Self::Conflict(_))
    }

    /// Returns what to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Address { .. } => "give the address as `--rancher-url https://rancher.example.net`",
            Self::Token => {
                "a token looks like `token-abcde:...`; it is read from `RANCHER_TOKEN` or `--rancher-token-file`"
            }
            Self::CertificateAuthority(_) => "`--rancher-ca` takes a PEM file",
            Self::NotAChecksum(_) => {
                "it is the `--ca-checksum` in the command that Rancher shows for new nodes"
            }
            Self::ChecksumMismatch { .. } => {
                "the checksum is out of date, or somebody stands between here and Rancher: ask those who run it"
            }
            Self::NoOwnAuthority(_) => {
                "leave `--rancher-ca-checksum` out: its certificate comes from an authority that the system may know"
            }
            Self::UnknownAuthority { .. } => {
                "where the certificate is Rancher's own, give its authority with `--rancher-ca FILE` or `--rancher-ca-checksum SHA256`"
            }
            Self::Expired { .. } => {
                "whoever runs Rancher renews it first: its agents do not connect either, and workers would get nothing new. One of \
                 Rancher's own making: rancher/rancher#31404; one that was given to it: the secret `tls-rancher-ingress` in \
                 `cattle-system`, or the files that its container mounts. Until then `--via direct --accept-rancher-revert` does without Rancher"
            }
            Self::Untrusted { origin, .. } => {
                return Some(format!(
                    "the address must be a name that the certificate holds, and this machine's clock right: `curl -v {origin}/ping` tells more"
                ));
            }
            Self::Unreachable { origin, .. } => {
                return Some(format!(
                    "try the address from this machine: `curl -k {origin}/ping` answers `pong`"
                ));
            }
            Self::Redirected(to) => return Some(format!("if that is Rancher, say so: `--rancher-url {to}`")),
            Self::Unauthorized(_) => {
                "the token is wrong, expired, or of another server; a new one is made in Rancher under API & Keys"
            }
            Self::Forbidden(_) => NEEDS_RIGHTS,
            Self::NotFound(_) => {
                "it was removed from Rancher, or the user of the token does not see it: look at it in Rancher, with that user"
            }
            Self::Conflict(_) => {
                "somebody edits the cluster in Rancher at this moment: try again when they are done"
            }
            Self::Refused { .. } => {
                "this Rancher wants to be asked otherwise than certroll asks: rotate in its UI, and let certroll do the rest, `--via manual`"
            }
            Self::Unavailable { .. } => {
                "Rancher's own log tells more (`docker logs` of its container, or of its pods in `cattle-system`); try again when \
                 `curl -k <address>/ping` answers `pong`"
            }
            Self::Malformed { .. } => {
                "is it Rancher itself that answers, and no login page in front of it? `curl -k <address>/v3/settings/cacerts` answers with JSON"
            }
            Self::NoCluster { .. } => {
                "name the cluster as Rancher does: `--rancher-cluster` takes a name or an id such as `c-x7k2p`"
            }
            Self::AmbiguousCluster { .. } => "give the id to `--rancher-cluster`",
            Self::NoRotation { reason, .. } => reason.way_out(),
            Self::AllServicesOnly { .. } => "leave `--service` out, or use `--via direct`",
            Self::Client(_) => return None,
        };
        Some(hint.to_owned())
    }

    /// Returns the error for an answer that is not what was asked for.
    pub(super) fn malformed(what: &str, reason: impl fmt::Display) -> Self {
        Self::Malformed { what: what.to_owned(), reason: reason.to_string() }
    }

    /// Returns the error for a request that got no answer.
    pub(super) fn unanswered(origin: &str, error: reqwest::Error) -> Self {
        let source = error.without_url();
        let origin = origin.to_owned();
        if source.is_builder() {
            return Self::Client(source);
        }
        match distrust(&source).cloned() {
            // Every Rancher calls its authority `cattle-ca`: one of that name that did not sign it is none that is trusted either.
            Some(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                Self::UnknownAuthority { origin, source }
            }
            Some(CertificateError::ExpiredContext { not_after, .. }) => {
                let seconds = i64::try_from(not_after.as_secs()).unwrap_or(i64::MAX);
                Self::Expired { origin, not_after: Timestamp::from_second(seconds).ok(), source }
            }
            Some(CertificateError::Expired) => Self::Expired { origin, not_after: None, source },
            Some(_) => Self::Untrusted { origin, source },
            None => Self::Unreachable { origin, source },
        }
    }

    /// Returns the error for an answer with a status that is not a success.
    pub(super) fn refused(status: u16, message: String, retry_after: Option<Duration>) -> Self {
        match status {
            // Rancher 2.0 to 2.2 say 401 to a good token, too, whose user may not do this (their `ActionHandler`).
            401 if message.starts_with("can not ") => Self::Forbidden(message),
            401 => Self::Unauthorized(message),
            403 => Self::Forbidden(message),
            404 => Self::NotFound(message),
            409 => Self::Conflict(message),
            429 | 500.. => Self::Unavailable { status, message, retry_after },
            _ => Self::Refused { status, message },
        }
    }
}

/// Returns what is wrong with the certificate that a connection failed on, if that is why.
fn distrust(error: &reqwest::Error) -> Option<&CertificateError> {
    let mut next: Option<&(dyn Error + 'static)> = error.source();
    while let Some(cause) = next {
        // An `io::Error` names the source of what it wraps as its own source, and would hide what it wraps.
        let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = cause.downcast_ref().or_else(|| wrapped.and_then(|wrapped| wrapped.downcast_ref()));
        if let Some(rustls::Error::InvalidCertificate(what)) = tls {
            return Some(what);
        }
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => cause.source(),
        };
    }
    None
}

/// Says when a certificate ended.
fn ended(not_after: Option<&Timestamp>) -> String {
    match not_after {
        Some(not_after) => format!("expired on {}", not_after.strftime("%F at %T UTC")),
        None => "has expired".to_owned(),
    }
}

fn list(candidates: &[String]) -> String {
    if candidates.is_empty() { "none that the token can see".to_owned() } else { candidates.join(", ") }
}
