//! The agent is the SSH agent of the operator, which signs without giving its keys away.
//!
//! `authentication` asks it for the keys to offer and for signatures.

use std::path::Path;
use std::time::Duration;

use russh::keys::agent::client::AgentClient;
use russh::keys::agent::{AgentIdentity, AgentSessionBinding};
use russh::keys::{PrivateKey, PublicKey};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::KeyError;

/// How long an agent may take to list its keys, which needs nobody's consent.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to the agent.
pub(super) struct Agent {
    pub(super) client: AgentClient<UnixStream>,
}

impl Agent {
    pub(super) async fn connect(socket: &Path) -> Result<Self, KeyError> {
        let client = AgentClient::connect_uds(socket)
            .await
            .map_err(|error| KeyError::Agent { reason: format!("`{}`: {error}", socket.display()) })?;
        Ok(Self { client })
    }

    /// Tells the agent for which server it signs, so that keys with destination constraints can be used.
    pub(super) async fn bind(&mut self, binding: &AgentSessionBinding) {
        // An agent before OpenSSH 8.9 does not know the question; it has no such keys either.
        let _ = timeout(LIST_TIMEOUT, self.client.bind_session(binding, false)).await;
    }

    /// Returns the keys that the agent holds, those of a wanted key first.
    pub(super) async fn identities(&mut self, wanted: &[PublicKey]) -> Result<Vec<AgentIdentity>, KeyError> {
        let mut identities = timeout(LIST_TIMEOUT, self.client.request_identities())
            .await
            .map_err(|_| KeyError::Agent { reason: "it does not answer".to_owned() })?
            .map_err(|error| KeyError::Agent { reason: error.to_string() })?;
        identities.sort_by_key(|identity| !wanted.iter().any(|key| holds(identity, key)));
        Ok(identities)
    }
}

/// Returns whether an identity is a key or a certificate of that key.
fn holds(identity: &AgentIdentity, key: &PublicKey) -> bool {
    match identity {
        AgentIdentity::PublicKey { key: held, .. } => held.key_data() == key.key_data(),
        AgentIdentity::Certificate { certificate, .. } => certificate.public_key() == key.key_data(),
    }
}

/// Returns whether an identity adds nothing to a key that is at hand.
pub(super) fn is_same_key(identity: &AgentIdentity, key: &PrivateKey) -> bool {
    matches!(identity, AgentIdentity::PublicKey { key: held, .. } if held.key_data() == key.public_key().key_data())
}
