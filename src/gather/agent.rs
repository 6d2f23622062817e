//! Asks Rancher's `/ping` from a node, over the node's connection: what its agent would see.

use reqwest::Url;

use super::PORT_TIMEOUT;
use crate::facts::{Agent, Observation, Ping};
use crate::kube::{self, Scheme, served_certificate};
use crate::pki::Certificate;
use crate::transport::{Session, TcpChannel, TransportError};

/// Asks Rancher where the node has an agent that goes there directly; what a proxy would answer cannot be told from here.
pub(super) async fn ask_rancher(session: &Session, observation: &mut Observation) {
    let Some(agent) = observation.agent.as_mut().filter(|agent| !agent.uses_proxy) else { return };
    agent.ping = ping(session, agent).await;
}

/// Returns what Rancher answered; `None` where nothing can be told, as where the node's sshd forwards no connections.
async fn ping(session: &Session, agent: &Agent) -> Option<Ping> {
    let url = Url::parse(agent.server.as_deref()?).ok()?;
    let door =
        Door { session, host: url.host_str()?.trim_matches(['[', ']']), port: url.port_or_known_default()? };
    let is_plain = url.scheme() == "http";
    let certificate = if is_plain {
        None
    } else {
        match door.certificate().await {
            Ok(certificate) => Some(certificate),
            Err(Silence::Forbidden) => return None,
            Err(Silence::Failed(error)) => return Some(Ping { certificate: None, answer: Err(error) }),
        }
    };
    let path = format!("{}/ping", url.path().trim_end_matches('/'));
    let scheme = if is_plain { Scheme::Http } else { Scheme::Https { server_name: door.host.to_owned() } };
    match door.page(scheme, &path).await {
        Err(Silence::Forbidden) => None,
        Err(Silence::Failed(error)) => Some(Ping { certificate, answer: Err(error) }),
        Ok(200) => Some(Ping { certificate, answer: Ok(()) }),
        Ok(status) => Some(Ping { certificate, answer: Err(format!("it answers with status {status}")) }),
    }
}

/// Why nothing was answered.
enum Silence {
    /// The node's sshd forwards no connections.
    Forbidden,
    /// The node cannot reach it, or it does not answer.
    Failed(String),
}

impl Silence {
    fn of(error: &impl std::error::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Rancher's address as a node reaches it.
struct Door<'a> {
    session: &'a Session,
    host: &'a str,
    port: u16,
}

impl Door<'_> {
    async fn open(&self) -> Result<TcpChannel, Silence> {
        match tokio::time::timeout(PORT_TIMEOUT, self.session.open_tcp(self.host, self.port)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(TransportError::ForwardingProhibited { .. })) => Err(Silence::Forbidden),
            Ok(Err(TransportError::ForwardRefused { .. })) => {
                Err(Silence::Failed("the node cannot connect to it".to_owned()))
            }
            Ok(Err(error)) => Err(Silence::of(&error)),
            Err(_) => Err(Silence::Failed(format!("no connection within {} s", PORT_TIMEOUT.as_secs()))),
        }
    }

    /// Returns the certificate that is served there.
    async fn certificate(&self) -> Result<Certificate, Silence> {
        let served = served_certificate(self.open().await?, self.host, PORT_TIMEOUT).await;
        Certificate::from_der(&served.map_err(|error| Silence::of(&error))?.der)
            .map_err(|error| Silence::of(&error))
    }

    /// Returns the status that a page is answered with.
    async fn page(&self, scheme: Scheme, path: &str) -> Result<u16, Silence> {
        let stream = self.open().await?;
        let answer = Box::pin(kube::get(stream, scheme, self.host, path, PORT_TIMEOUT)).await;
        answer.map(|answer| answer.status).map_err(|error| Silence::of(&error))
    }
}
