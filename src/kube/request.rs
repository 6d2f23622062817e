//! A request with an identity goes over a connection of its own and ends with it.

use std::error::Error as _;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::{Method, Request};
use rustls::AlertDescription;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

use super::certificate::connect_with;
use super::http::{Excess, Reply, exchange, headed};
use super::identity::{Identity, Server};
use super::{KubeError, within};
use crate::transport::{Session, TcpChannel};

/// How much of a body is quoted where it is no Status object, in characters.
const QUOTE_LIMIT: usize = 300;

/// Whoever can make a stream to a port of the cluster.
pub trait Dial: Sync {
    /// The stream.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Connects to a port of a host, as the node sees it.
    fn dial(&self, host: &str, port: u16) -> impl Future<Output = Result<Self::Stream, KubeError>> + Send;
}

impl Dial for Session {
    type Stream = TcpChannel;

    async fn dial(&self, host: &str, port: u16) -> Result<TcpChannel, KubeError> {
        Ok(self.open_tcp(host, port).await?)
    }
}

/// Where a request goes, and how long it may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) server: Server,
    pub(super) timeout: Duration,
}

/// What is asked.
pub(super) struct Question<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    /// JSON.
    pub(super) body: Zeroizing<Vec<u8>>,
    pub(super) excess: Excess,
}

impl<'a> Question<'a> {
    pub(super) fn get(path: &'a str, excess: Excess) -> Self {
        Self { method: Method::GET, path, body: Zeroizing::default(), excess }
    }

    /// Returns method and URL as errors name them; what follows `?` tells nothing.
    pub(super) fn asked(&self, target: &Target<'_>) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        format!("{} {}{path}", self.method, url(target))
    }
}

/// Returns the beginning of a URL; an IPv6 address stands in brackets there.
fn url(target: &Target<'_>) -> String {
    format!("https://{}", authority(target))
}

fn authority(target: &Target<'_>) -> String {
    let Target { host, port, .. } = target;
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Asks, and returns whatever answer comes.
pub(super) async fn ask(
    dial: &impl Dial,
    identity: &Identity,
    target: Target<'_>,
    question: Question<'_>,
) -> Result<Reply, KubeError> {
    let asked = question.asked(&target);
    // A handshake and an exchange take 16 KiB of state: not in the frame of everybody who asks.
    let reply = Box::pin(within(target.timeout, send(dial, identity, target, question))).await;
    reply.map_err(|error| KubeError::Failed { asked, source: Box::new(refusal(error)) })
}

async fn send(
    dial: &impl Dial,
    identity: &Identity,
    target: Target<'_>,
    question: Question<'_>,
) -> Result<Reply, KubeError> {
    let Question { method, path, body, excess } = question;
    let request = Request::builder().method(method).uri(path).header(ACCEPT, "application/json");
    let request = headed(request, &authority(&target)).header(CONTENT_TYPE, "application/json");
    // The body is wiped when the connection lets go of it.
    let request = request.body(Full::new(Bytes::from_owner(body)))?;
    let stream = dial.dial(target.host, target.port).await?;
    let stream = connect_with(stream, target.host, identity.config(target.server)).await?;
    exchange(stream, request, excess).await
}

/// Tells a client certificate that was refused from other failures: a server of TLS 1.3 says so after the handshake.
fn refusal(error: KubeError) -> KubeError {
    match alert(&error) {
        Some(alert) => KubeError::ClientRefused(format!("{alert:?}")),
        None => error,
    }
}

/// Returns the alert about a certificate that a connection ended with.
fn alert(error: &KubeError) -> Option<AlertDescription> {
    use AlertDescription::{
        AccessDenied, BadCertificate, CertificateExpired, CertificateRequired, CertificateRevoked,
        CertificateUnknown, UnknownCA, UnsupportedCertificate,
    };
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::AlertReceived(
            alert @ (AccessDenied
            | BadCertificate
            | CertificateExpired
            | CertificateRequired
            | CertificateRevoked
            | CertificateUnknown
            | UnknownCA
            | UnsupportedCertificate),
        )) = tls
        {
            return Some(*alert);
        }
        cause = error.source();
    }
    None
}

/// Returns the error that an answer is which was not hoped for.
pub(super) fn unexpected(asked: String, reply: &Reply) -> KubeError {
    KubeError::Status { asked, status: reply.status, message: message_of(&reply.body) }
}

/// Returns the message of a Status object, else the beginning of the body in one line.
pub(super) fn message_of(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Status {
        message: String,
    }
    let message = serde_json::from_slice::<Status>(body).map(|status| status.message);
    let text = message.unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned());
    let folded = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let quote: String = folded.chars().take(QUOTE_LIMIT).collect();
    if quote.is_empty() { "it says no more".to_owned() } else { quote }
}
