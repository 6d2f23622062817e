//! A component is asked whether it takes a client: etcd on its client port, kube-apiserver and kubelet by their answer to a stranger.

use std::time::Duration;

use serde::Deserialize;

use super::KubeError;
use super::http::{Excess, PAGE_LIMIT};
use super::identity::{Identity, Server};
use super::request::{Dial, Question, Target, ask, unexpected};

/// The time that one question may take, in all. etcd and kube-apiserver answer within milliseconds, or after an election.
const TIMEOUT: Duration = Duration::from_secs(10);

/// etcd's port for clients.
const ETCD_PORT: u16 = 2379;

/// Returns whether an etcd member is healthy, asked at its client port with an identity.
///
/// A member that does not take the client certificate is [`KubeError::ClientRefused`], within [`KubeError::Failed`].
pub async fn etcd_health(session: &impl Dial, identity: &Identity, host: &str) -> Result<bool, KubeError> {
    let target = Target { host, port: ETCD_PORT, server: Server::Verified, timeout: TIMEOUT };
    let question = Question::get("/health", Excess::Cut(PAGE_LIMIT));
    let asked = question.asked(&target);
    let reply = ask(session, identity, target, question).await?;
    match (reply.status, serde_json::from_slice::<EtcdHealth>(&reply.body)) {
        (200, Ok(page)) => Ok(page.health.is_true()),
        // etcd 3.3 and later say it with the status too.
        (503, Ok(_)) => Ok(false),
        _ => Err(unexpected(asked, &reply)),
    }
}

/// etcd's page: `{"health":"true"}`; without quotes before etcd 3.3.
#[derive(Deserialize)]
struct EtcdHealth {
    health: Truth,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Truth {
    Plain(bool),
    Quoted(String),
}

impl Truth {
    fn is_true(&self) -> bool {
        match self {
            Self::Plain(value) => *value,
            Self::Quoted(value) => value == "true",
        }
    }
}

/// Returns whether a TLS server knows whoever asks: kube-apiserver and kubelet say 401 to those that they do not know.
///
/// The server itself is not verified (kubelet signs its certificate itself): what it says proves something of the pair that
/// asks, not of the server. A certificate that is refused in the handshake is not known either.
pub async fn is_authenticated(
    session: &impl Dial,
    identity: &Identity,
    host: &str,
    port: u16,
    path: &str,
) -> Result<bool, KubeError> {
    let target = Target { host, port, server: Server::Any, timeout: TIMEOUT };
    let question = Question::get(path, Excess::Cut(PAGE_LIMIT));
    let asked = question.asked(&target);
    match ask(session, identity, target, question).await {
        Ok(reply) => match reply.status {
            401 => Ok(false),
            200..=299 | 403 | 404 => Ok(true),
            _ => Err(unexpected(asked, &reply)),
        },
        Err(KubeError::Failed { source, .. }) if matches!(*source, KubeError::ClientRefused(_)) => Ok(false),
        Err(error) => Err(error),
    }
}
