//! Authentication is the part of a connection in which a user proves with keys who they are.
//!
//! The connector makes [`Credentials`] before it dials, for a passphrase may have to be typed, and offers them afterwards.

use std::path::PathBuf;
use std::sync::Arc;

use russh::client::{AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::ssh_encoding::Encode as _;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::ssh_key::{self, Signature};
use russh::keys::{
    Certificate, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, signature::Signer as _,
};
use russh::{MethodKind, MethodSet};

use super::agent::{Agent, is_same_key};
use super::connector::{Fate, Peer};
use super::error::Refusal;
use super::keys::{KeyRing, LoadedKey, describe, read_certificate};
use super::login::{KeySource, Login};
use super::{AgentUse, KeyError, Settings, TransportError};

/// How many keys are offered at most: sshd's `MaxAuthTries` is 6, and it hangs up at the sixth refusal.
const MAX_OFFERS: usize = 6;

/// What a login has to offer.
pub(super) struct Credentials {
    keys: Vec<(LoadedKey, Option<Certificate>)>,
    /// The agent's socket, where it is to be asked.
    agent: Option<PathBuf>,
    /// The public halves of named keys that are left to the agent.
    left_to_agent: Vec<PublicKey>,
    /// Why other keys cannot be used.
    unusable: Vec<KeyError>,
}

impl Credentials {
    /// Reads the keys of a login. An encrypted key is left to the agent where that holds keys; otherwise its passphrase is asked for.
    pub(super) async fn gather(
        login: &Login,
        settings: &Settings,
        ring: &KeyRing,
    ) -> Result<Self, TransportError> {
        let mut credentials = Self { keys: vec![], agent: None, left_to_agent: vec![], unusable: vec![] };
        if login.agent == AgentUse::Always {
            match usable_agent(settings).await {
                Ok(socket) => credentials.agent = Some(socket),
                Err(error) => credentials.unusable.push(error),
            }
        }
        for source in &login.keys {
            credentials.add(source, login, ring).await;
        }
        if !credentials.keys.is_empty() || credentials.agent.is_some() {
            return Ok(credentials);
        }
        if credentials.unusable.is_empty() {
            credentials.unusable.push(KeyError::NoneNamed);
        }
        let (at, user) = (login.at.clone(), login.user.clone());
        Err(TransportError::NoKey { at, user, reasons: credentials.unusable })
    }

    async fn add(&mut self, source: &KeySource, login: &Login, ring: &KeyRing) {
        if matches!(source, KeySource::DefaultFile(path) if !path.exists()) {
            return;
        }
        if self.agent.is_some() && source.is_encrypted() {
            self.left_to_agent.extend(source.public_key());
            return self.unusable.push(KeyError::LeftToAgent { key: source.name() });
        }
        let key = match ring.load(source).await {
            Ok(key) => key,
            Err(error) => return self.unusable.push(error),
        };
        let certificate = login.certificate.as_ref().map(|certificate| read_certificate(certificate, &key));
        match certificate.transpose() {
            Ok(certificate) => self.keys.push((key, certificate)),
            Err(error) => {
                self.unusable.push(error);
                self.keys.push((key, None));
            }
        }
    }

    /// Offers keys until the host lets the user in: named keys, each with its certificate first, then the agent's.
    pub(super) async fn offer(
        self,
        handle: &mut Handle<Peer>,
        login: &Login,
        fate: &Fate,
    ) -> Result<(), TransportError> {
        let mut exchange =
            Exchange { handle, login, fate, offered: vec![], notes: vec![], open: true, rsa_hashes: None };
        if self.offer_all(&mut exchange).await? {
            return Ok(());
        }
        let refusal = exchange.refusal(&self.unusable);
        Err(TransportError::AuthenticationRefused { at: login.at.clone(), user: login.user.clone(), refusal })
    }

    /// Returns whether the host let the user in.
    async fn offer_all(&self, exchange: &mut Exchange<'_>) -> Result<bool, TransportError> {
        for (key, certificate) in &self.keys {
            if let Some(certificate) = certificate
                && exchange.offer_certificate(key, certificate).await?
            {
                return Ok(true);
            }
            if exchange.offer_key(key).await? {
                return Ok(true);
            }
        }
        let Some(socket) = &self.agent else { return Ok(false) };
        let mut agent = match Agent::connect(socket).await {
            Ok(agent) => agent,
            Err(error) => return Ok(exchange.note(error.to_string())),
        };
        if let Some(binding) = exchange.handle.agent_session_binding() {
            agent.bind(binding).await;
        }
        let identities = match agent.identities(&self.left_to_agent).await {
            Ok(identities) => identities,
            Err(error) => return Ok(exchange.note(error.to_string())),
        };
        for identity in identities {
            let offered = self.keys.iter().any(|(loaded, _)| is_same_key(&identity, &loaded.key));
            if !offered && exchange.offer_identity(&identity, &mut agent).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Returns the agent's socket when it answers and holds a key.
async fn usable_agent(settings: &Settings) -> Result<PathBuf, KeyError> {
    let Some(socket) = &settings.agent_socket else {
        return Err(KeyError::Agent { reason: "`SSH_AUTH_SOCK` is not set".to_owned() });
    };
    if Agent::connect(socket).await?.identities(&[]).await?.is_empty() {
        return Err(KeyError::Agent { reason: "it holds no keys".to_owned() });
    }
    Ok(socket.clone())
}

/// The talk with one host about who the user is.
struct Exchange<'a> {
    handle: &'a mut Handle<Peer>,
    login: &'a Login,
    fate: &'a Fate,
    /// What was offered so far, for people.
    offered: Vec<String>,
    notes: Vec<String>,
    /// Whether the host still wants to see keys.
    open: bool,
    /// The hashes that the host takes for RSA keys, asked once: it may cost a second.
    rsa_hashes: Option<Vec<Option<HashAlg>>>,
}

impl Exchange<'_> {
    async fn offer_key(&mut self, loaded: &LoadedKey) -> Result<bool, TransportError> {
        for hash in self.hashes(&loaded.key.algorithm()).await? {
            if !self.may_offer(loaded.to_string()) {
                return Ok(false);
            }
            let key = PrivateKeyWithHashAlg::new(Arc::clone(&loaded.key), hash);
            let result = self.handle.authenticate_publickey(&self.login.user, key).await;
            if self.judge(result).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn offer_certificate(
        &mut self,
        loaded: &LoadedKey,
        certificate: &Certificate,
    ) -> Result<bool, TransportError> {
        let mut signer = KeySigner(Arc::clone(&loaded.key));
        for hash in self.hashes(&certificate.algorithm()).await? {
            if !self.may_offer(format!("the certificate of {loaded}")) {
                return Ok(false);
            }
            let user = &self.login.user;
            let result =
                self.handle.authenticate_certificate_with(user, certificate.clone(), hash, &mut signer).await;
            let result = self.signed(result);
            if self.judge(result).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn offer_identity(
        &mut self,
        identity: &AgentIdentity,
        agent: &mut Agent,
    ) -> Result<bool, TransportError> {
        let (algorithm, name) = match identity {
            AgentIdentity::PublicKey { key, comment } => {
                (key.algorithm(), format!("the agent's `{comment}` ({})", describe(key)))
            }
            AgentIdentity::Certificate { certificate, comment } => {
                (certificate.algorithm(), format!("the agent's certificate `{comment}`"))
            }
        };
        for hash in self.hashes(&algorithm).await? {
            if !self.may_offer(name.clone()) {
                return Ok(false);
            }
            let (user, client) = (&self.login.user, &mut agent.client);
            let result = match identity.clone() {
                AgentIdentity::PublicKey { key, .. } => {
                    self.handle.authenticate_publickey_with(user, key, hash, client).await
                }
                AgentIdentity::Certificate { certificate, .. } => {
                    self.handle.authenticate_certificate_with(user, certificate, hash, client).await
                }
            };
            let result = self.signed(result);
            if self.judge(result).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the hashes to sign with, in the order in which they are tried; all but RSA keys leave no choice.
    async fn hashes(
        &mut self,
        algorithm: &ssh_key::Algorithm,
    ) -> Result<Vec<Option<HashAlg>>, TransportError> {
        if !self.open {
            return Ok(vec![]);
        }
        if !matches!(algorithm, ssh_key::Algorithm::Rsa { .. }) {
            return Ok(vec![None]);
        }
        if let Some(hashes) = &self.rsa_hashes {
            return Ok(hashes.clone());
        }
        let hashes = match self.handle.best_supported_rsa_hash().await {
            Ok(Some(hash)) => vec![hash],
            // OpenSSH before 7.2 says nothing and knows SHA-1 alone; others that say nothing may know better.
            Ok(None) => vec![Some(HashAlg::Sha512), None],
            Err(error) => return Err(self.lost(&error.to_string())),
        };
        self.rsa_hashes = Some(hashes.clone());
        Ok(hashes)
    }

    /// Notes an offer; returns false when the host wants no more keys.
    fn may_offer(&mut self, offer: String) -> bool {
        if self.open && self.offered.len() == MAX_OFFERS {
            self.open = false;
            self.notes.push(format!("further keys were not offered, for sshd hangs up after {MAX_OFFERS}"));
        }
        if self.open {
            self.offered.push(offer);
        }
        self.open
    }

    /// Turns a failed signature into a refusal, so that the next key is tried.
    fn signed(
        &mut self,
        result: Result<AuthResult, russh::AgentAuthError>,
    ) -> Result<AuthResult, russh::Error> {
        match result {
            Ok(result) => Ok(result),
            Err(russh::AgentAuthError::Send(_)) => Err(russh::Error::SendError),
            Err(russh::AgentAuthError::Key(error)) => {
                self.note(format!("the last one could not sign: {error}"));
                let remaining_methods = MethodSet::from([MethodKind::PublicKey].as_slice());
                Ok(AuthResult::Failure { remaining_methods, partial_success: false })
            }
        }
    }

    /// Returns whether the host let the user in.
    async fn judge(&mut self, result: Result<AuthResult, russh::Error>) -> Result<bool, TransportError> {
        let (remaining, partial) = match result {
            Ok(AuthResult::Success) => return Ok(true),
            Ok(AuthResult::Failure { remaining_methods, partial_success }) => {
                (remaining_methods, partial_success)
            }
            Err(error) => return Err(self.lost(&error.to_string())),
        };
        if self.handle.is_closed() {
            // Only the end of the connection's own task tells a panic from a polite goodbye.
            let end = (&mut *self.handle).await;
            let reason = end.err().map_or_else(|| "it hung up".to_owned(), |error| error.to_string());
            self.open = false;
            let said = self.fate.reason().map_or(reason, str::to_owned);
            self.note(format!("it closed the connection: {said}"));
        } else if !remaining.contains(&MethodKind::PublicKey) || partial {
            self.open = false;
            let methods: Vec<&str> = remaining.iter().map(Into::into).collect();
            let wanted = if partial { "it wants a second proof" } else { "it takes no keys" };
            self.note(format!("{wanted}, by: {}", methods.join(", ")));
        }
        Ok(false)
    }

    /// Adds to what the error says; returns false, for nobody was let in.
    fn note(&mut self, note: String) -> bool {
        self.notes.push(note);
        false
    }

    fn lost(&self, reason: &str) -> TransportError {
        let reason = self.fate.reason().unwrap_or(reason).to_owned();
        TransportError::ConnectionLost { at: self.login.at.clone(), reason }
    }

    fn refusal(mut self, unusable: &[KeyError]) -> Refusal {
        self.offered.dedup();
        let offered = match self.offered.as_slice() {
            [] => "no key was offered".to_owned(),
            offered => format!("offered {}", offered.join(", ")),
        };
        let others = self.notes.into_iter().chain(unusable.iter().map(ToString::to_string));
        Refusal(std::iter::once(offered).chain(others).collect::<Vec<_>>().join("; "))
    }
}

/// Signs for a certificate: russh itself would sign for an RSA certificate with another hash than it announces.
struct KeySigner(Arc<PrivateKey>);

impl russh::Signer for KeySigner {
    type Error = russh::AgentAuthError;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        hash: Option<HashAlg>,
        mut data: Vec<u8>,
    ) -> Result<Vec<u8>, Self::Error> {
        let sign = || -> Result<Signature, russh::keys::Error> {
            let signed = match self.0.key_data() {
                KeypairData::Rsa(pair) => (pair, hash).try_sign(&data),
                other => other.try_sign(&data),
            };
            Ok(signed.map_err(ssh_key::Error::from)?)
        };
        let signature = sign()?;
        signature.encode_prefixed(&mut data).map_err(russh::keys::Error::from)?;
        Ok(data)
    }
}
