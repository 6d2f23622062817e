//! A request asks a component of a node over a stream to its port: a TLS handshake, a page, an object of the Kubernetes API.
//!
//! `gather` and `execute` make the streams (channels of an SSH session). Probes ([`served_certificate`], [`get`]) send nothing secret
//! and trust nothing that comes back. Requests with an [`Identity`] prove who asks with a client certificate, and trust a server
//! that the cluster's CA has signed.

mod api;
mod certificate;
mod component;
mod health;
mod http;
mod identity;
mod node;
mod object;
mod remote;
mod request;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use api::ApiServer;
pub use certificate::{ServedCertificate, served_certificate};
pub use component::{etcd_health, is_authenticated};
pub use health::{Endpoint, Health, Protocol, health, health_endpoints};
pub use http::{Answer, Scheme, get, get_with_certificate};
pub use identity::Identity;
pub use node::NodeStatus;
pub use object::{CertificateSecret, ClusterStateObject, StateHolder};
pub use remote::{Remote, RemoteError, RemoteIdentity, RemoteNode};
pub use request::Dial;

use crate::transport::TransportError;

/// Why a port gave no certificate or no answer, or not the one that was needed; the cause beneath it is its source.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// The time ran out.
    #[error("no answer within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    /// The name to ask for cannot stand in a handshake.
    #[error("`{name}` is neither a host name nor an address")]
    ServerName {
        /// The name.
        name: String,
        /// What is wrong with it.
        source: rustls_pki_types::InvalidDnsNameError,
    },
    /// The handshake failed before a certificate was seen: no TLS on that port, or none that both sides know.
    #[error("the TLS handshake failed")]
    Handshake(#[source] std::io::Error),
    /// TLS itself could not be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// The request cannot be written.
    #[error("the request is not valid")]
    Request(#[from] hyper::http::Error),
    /// The connection broke, or what came back is not HTTP.
    #[error("the answer could not be read")]
    Http(#[from] hyper::Error),
    /// The body is larger than it can be.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The largest size that is read, in bytes.
        limit: usize,
    },
    /// The session opened no channel to the port.
    #[error("the port could not be reached")]
    Unreachable(#[from] TransportError),
    /// A certificate, its key or the CA cannot be used to ask.
    #[error("the client certificate cannot be used: {0}")]
    Identity(String),
    /// The server refuses the client certificate in the handshake, as etcd does with one that has expired or is of another CA.
    #[error(
        "the server does not take this client certificate ({0}); check its end and that kube-ca signed it"
    )]
    ClientRefused(String),
    /// A request got no answer.
    #[error("`{asked}` failed")]
    Failed {
        /// Method and URL.
        asked: String,
        /// Why.
        source: Box<KubeError>,
    },
    /// A request got another answer than it needs.
    #[error("`{asked}` was answered with HTTP {status}: {message}")]
    Status {
        /// Method and URL.
        asked: String,
        /// The status code.
        status: u16,
        /// The message of the API's Status object, else the beginning of the body.
        message: String,
    },
    /// The object has changed since it was read.
    #[error("`{asked}` came too late: the object has changed since it was read; read it again")]
    Conflict {
        /// Method and URL.
        asked: String,
    },
    /// The answer is not what was asked for.
    #[error("`{asked}` was answered with something else: {reason}")]
    Malformed {
        /// Method and URL.
        asked: String,
        /// What is wrong with it, without quoting it.
        reason: String,
    },
    /// The name cannot be one of an object.
    #[error("`{0}` cannot be the name of an object in Kubernetes")]
    ObjectName(String),
}

/// Gives a probe its time limit.
async fn within<T>(
    timeout: Duration,
    probe: impl Future<Output = Result<T, KubeError>>,
) -> Result<T, KubeError> {
    tokio::time::timeout(timeout, probe).await.unwrap_or(Err(KubeError::Timeout(timeout)))
}
