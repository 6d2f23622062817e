//! The agent is the SSH agent of the operator, which signs without giving its keys away.
//!
//! The connector has one for all logins: it lists the keys once, and asks for one signature at a time, for behind each may be a
//! person who is to touch a key or to confirm.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use russh::keys::agent::client::AgentClient;
use russh::keys::agent::{AgentIdentity, AgentSessionBinding};
use russh::keys::{HashAlg, PublicKey};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::KeyError;

/// How long an agent may take to list its keys, which needs nobody's consent.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);

/// The agents, by their sockets: `ssh_config` may name another for some hosts.
#[derive(Debug)]
pub(super) struct Agents {
    signature_timeout: Duration,
    by_socket: std::sync::Mutex<HashMap<Option<PathBuf>, Arc<Agent>>>,
}

impl Agents {
    pub(super) fn new(signature_timeout: Duration) -> Self {
        Self { signature_timeout, by_socket: std::sync::Mutex::default() }
    }

    /// Returns the agent behind a socket.
    pub(super) fn of(&self, socket: Option<&Path>) -> Arc<Agent> {
        let mut agents = self.by_socket.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = socket.map(Path::to_owned);
        let new = || Arc::new(Agent::new(socket.clone(), self.signature_timeout));
        Arc::clone(agents.entry(socket.clone()).or_insert_with(new))
    }
}

/// An agent, and what is known of it.
#[derive(Debug)]
pub(super) struct Agent {
    socket: Option<PathBuf>,
    /// How long it may take to sign: a person may have to touch a key or to confirm.
    signature_timeout: Duration,
    held: Mutex<Option<Result<Arc<[AgentIdentity]>, KeyError>>>,
    /// Held by who waits for a signature.
    turn: Mutex<()>,
    /// How many signatures did not come in time.
    silences: AtomicU64,
}

/// Why an agent did not sign.
#[derive(Debug)]
pub(super) enum SignatureError {
    /// It will not, or cannot.
    Refused(String),
    /// It did not answer in time.
    Silent(Duration),
}

impl Agent {
    fn new(socket: Option<PathBuf>, signature_timeout: Duration) -> Self {
        let (held, turn) = (Mutex::default(), Mutex::default());
        Self { socket, signature_timeout, held, turn, silences: AtomicU64::new(0) }
    }

    /// Returns the keys that it holds, asked for once for all hosts.
    pub(super) async fn identities(&self) -> Result<Arc<[AgentIdentity]>, KeyError> {
        let mut held = self.held.lock().await;
        match &*held {
            Some(known) => known.clone(),
            None => held.insert(self.list().await).clone(),
        }
    }

    /// Forgets the keys that it held: no host was content with them, and others may be there by now.
    pub(super) async fn forget(&self) {
        *self.held.lock().await = None;
    }

    async fn list(&self) -> Result<Arc<[AgentIdentity]>, KeyError> {
        let failed = |reason: String| KeyError::Agent { reason };
        let Some(socket) = &self.socket else { return Err(failed("`SSH_AUTH_SOCK` is not set".to_owned())) };
        let listing =
            async { connect(socket).await?.request_identities().await.map_err(|error| error.to_string()) };
        let identities = timeout(LIST_TIMEOUT, listing)
            .await
            .unwrap_or_else(|_| Err("it does not answer".to_owned()))
            .map_err(failed)?;
        if identities.is_empty() {
            return Err(failed("it holds no keys".to_owned()));
        }
        Ok(identities.into())
    }

    /// Appends a signature to data, over a connection that tells the agent for which server it signs: some keys are for some hosts.
    pub(super) async fn sign(
        &self,
        identity: &AgentIdentity,
        hash: Option<HashAlg>,
        data: Vec<u8>,
        binding: Option<&AgentSessionBinding>,
    ) -> Result<Vec<u8>, SignatureError> {
        let Some(socket) = &self.socket else { return Err(SignatureError::Refused("it is gone".to_owned())) };
        let silent = SignatureError::Silent(self.signature_timeout);
        let seen = self.silences.load(Ordering::Acquire);
        let _turn = self.turn.lock().await;
        if self.silences.load(Ordering::Acquire) != seen {
            // Nobody is there: who waited for another's turn need not wait as long again.
            return Err(silent);
        }
        let signing = async {
            let mut client = connect(socket).await?;
            if let Some(binding) = binding {
                // An agent before OpenSSH 8.9 does not know the question; it has no such keys either.
                let _ = client.bind_session(binding, false).await;
            }
            client.sign_request(identity, hash, data).await.map_err(|error| error.to_string())
        };
        let Ok(signed) = timeout(self.signature_timeout, signing).await else {
            self.silences.fetch_add(1, Ordering::Release);
            return Err(silent);
        };
        signed.map_err(SignatureError::Refused)
    }
}

async fn connect(socket: &Path) -> Result<AgentClient<UnixStream>, String> {
    let connected = AgentClient::connect_uds(socket).await;
    connected.map_err(|error| format!("`{}`: {error}", socket.display()))
}

/// Returns whether an identity is a key or a certificate of that key.
pub(super) fn holds(identity: &AgentIdentity, key: &PublicKey) -> bool {
    match identity {
        AgentIdentity::PublicKey { key: held, .. } => held.key_data() == key.key_data(),
        AgentIdentity::Certificate { certificate, .. } => certificate.public_key() == key.key_data(),
    }
}
