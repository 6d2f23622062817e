//! A Rancher error is a reason why Rancher did not do what was asked, with the way out.

use std::error::Error;
use std::fmt;
use std::io;

use crate::pki::Service;

/// Why an RKE rotation is not offered for a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoRotation {
    /// The server is older than 2.0.14 or 2.1.9.
    OldServer(String),
    /// The cluster was not launched with RKE; its driver, where Rancher names one.
    NotRke(Option<String>),
    /// Nothing stands against it but the rights of the token.
    NotPermitted,
}

impl fmt::Display for NoRotation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OldServer(version) => write!(formatter, "Rancher {version} cannot rotate certificates"),
            Self::NotRke(Some(driver)) => {
                write!(
                    formatter,
                    "it is not a cluster that Rancher launched with RKE, its driver is `{driver}`"
                )
            }
            Self::NotRke(None) => formatter.write_str("it is not a cluster that Rancher launched with RKE"),
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
    /// The server's certificate is not trusted.
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
            Self::Untrusted { .. } => {
                "where the certificate is Rancher's own, give its authority with `--rancher-ca FILE` or `--rancher-ca-checksum SHA256`"
            }
            Self::Unreachable { .. } => {
                "try the address from this machine: `curl -k <address>/ping` answers `pong`"
            }
            Self::Redirected(to) => return Some(format!("if that is Rancher, say so: `--rancher-url {to}`")),
            Self::Unauthorized(_) => {
                "the token is wrong, expired, or of another server; a new one is made in Rancher under API & Keys"
            }
            Self::Forbidden(_) | Self::NoRotation { reason: NoRotation::NotPermitted, .. } => {
                "use a token of an administrator or of an owner of the cluster, without a cluster scope"
            }
            Self::NoCluster { .. } => "`--rancher-cluster` takes a name or an id such as `c-x7k2p`",
            Self::AmbiguousCluster { .. } => "give the id to `--rancher-cluster`",
            Self::NoRotation { reason: NoRotation::OldServer(_), .. } => {
                "upgrade Rancher to 2.0.14 or 2.1.9 first, or use `--via direct`"
            }
            Self::NoRotation { reason: NoRotation::NotRke(_), .. } => {
                "RKE2 and K3s rotate certificates by themselves: `rke2 certificate rotate`, `k3s certificate rotate`"
            }
            Self::AllServicesOnly { .. } => "leave `--service` out, or use `--via direct`",
            Self::Client(_)
            | Self::NotFound(_)
            | Self::Conflict(_)
            | Self::Refused { .. }
            | Self::Unavailable { .. }
            | Self::Malformed { .. } => return None,
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
            Self::Client(source)
        } else if is_distrust(&source) {
            Self::Untrusted { origin, source }
        } else {
            Self::Unreachable { origin, source }
        }
    }

    /// Returns the error for an answer with a status that is not a success.
    pub(super) fn refused(status: u16, message: String) -> Self {
        match status {
            401 => Self::Unauthorized(message),
            403 => Self::Forbidden(message),
            404 => Self::NotFound(message),
            409 => Self::Conflict(message),
            429 | 500.. => Self::Unavailable { status, message },
            _ => Self::Refused { status, message },
        }
    }
}

/// Returns whether a certificate is what a connection failed on.
fn is_distrust(error: &reqwest::Error) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = error.source();
    while let Some(cause) = next {
        // An `io::Error` names the source of what it wraps as its own source, and would hide what it wraps.
        let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = cause.downcast_ref().or_else(|| wrapped.and_then(|wrapped| wrapped.downcast_ref()));
        if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => cause.source(),
        };
    }
    false
}

fn list(candidates: &[String]) -> String {
    if candidates.is_empty() { "none that the token can see".to_owned() } else { candidates.join(", ") }
}
