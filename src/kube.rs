//! A probe of a component is a TLS handshake with one of its ports, or a GET of its health page, over a stream to that port.
//!
//! `gather` and `execute` make the streams (channels of an SSH session); `facts` and the run read the certificates and the
//! [`Health`] that come of it. Nothing secret is sent on these streams, and nothing that comes back is trusted with anything.

mod certificate;
mod health;
mod http;

use std::time::Duration;

pub use certificate::{ServedCertificate, served_certificate};
pub use health::{Endpoint, Health, Protocol, health, health_endpoints};
pub use http::{Answer, Scheme, get};

/// Why a port gave no certificate or no answer; the cause beneath it is its source.
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
}

/// Gives a probe its time limit.
async fn within<T>(
    timeout: Duration,
    probe: impl Future<Output = Result<T, KubeError>>,
) -> Result<T, KubeError> {
    tokio::time::timeout(timeout, probe).await.unwrap_or(Err(KubeError::Timeout(timeout)))
}
