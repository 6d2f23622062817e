//! Asks Rancher's `/ping` from a node, over the node's connection: what its agent would see.

use reqwest::Url;
use tokio::time::timeout;

use super::PORT_TIMEOUT;
use crate::facts::{Agent, Observation, Ping};
use crate::kube::{Answer, Scheme, get, get_with_certificate};
use crate::pki::Certificate;
use crate::transport::{Session, TransportError};

/// Asks Rancher where the node has an agent that goes there directly; what a proxy would answer cannot be told from here.
pub(super) async fn ask_rancher(session: &Session, observation: &mut Observation) {
    let Some(agent) = observation.agent.as_mut().filter(|agent| !agent.uses_proxy) else { return };
    let late = |_| {
        let error = format!("no answer within {} s", PORT_TIMEOUT.as_secs());
        Some(Ping { certificate: None, answer: Err(error) })
    };
    agent.ping = timeout(PORT_TIMEOUT, ping(session, agent)).await.unwrap_or_else(late);
}

/// Returns what Rancher answered; `None` where nothing can be told, as where the node's sshd forwards no connections.
async fn ping(session: &Session, agent: &Agent) -> Option<Ping> {
    let url = Url::parse(agent.server.as_deref()?).ok()?;
    let (host, port) = (url.host_str()?.trim_matches(['[', ']']), url.port_or_known_default()?);
    let stream = match session.open_tcp(host, port).await {
        Ok(stream) => stream,
        Err(TransportError::ForwardingProhibited { .. }) => return None,
        Err(error) => {
            let error = match error {
                TransportError::ForwardRefused { .. } => "the node cannot connect to it".to_owned(),
                error => error.to_string(),
            };
            return Some(Ping { certificate: None, answer: Err(error) });
        }
    };
    let path = format!("{}/ping", url.path().trim_end_matches('/'));
    let (served, answer) = if url.scheme() == "http" {
        (None, Box::pin(get(stream, Scheme::Http, host, &path, PORT_TIMEOUT)).await)
    } else {
        Box::pin(get_with_certificate(stream, host, &path, PORT_TIMEOUT)).await
    };
    let certificate = served.and_then(|served| Certificate::from_der(&served.der).ok());
    let answer = answer.map_err(|error| error.to_string()).and_then(|answer| is_pong(&answer));
    Some(Ping { certificate, answer })
}

/// Rancher answers `pong`; a balancer in its place answers something else.
fn is_pong(answer: &Answer) -> Result<(), String> {
    match answer.status {
        200 if answer.body.trim() == "pong" => Ok(()),
        200 => Err("something else than Rancher answers there".to_owned()),
        status => Err(format!("it answers with status {status}")),
    }
}
