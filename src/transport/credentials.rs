//! Credentials are what a login has to offer: keys, each with its certificates, in the order in which they are tried.
//!
//! The connector gathers them before it dials, for a passphrase may have to be typed; `authentication` offers them.

use std::sync::Arc;

use russh::keys::agent::AgentIdentity;
use russh::keys::{Certificate, PrivateKey, PublicKey};

use super::agent::{Agent, holds};
use super::keys::{KeyForm, KeyLook, KeyRing, describe, read_certificate};
use super::login::{AgentKeys, KeySource, Login};
use super::{AgentUse, KeyError, PasswordUse, TransportError};

/// What a login has to offer.
pub(super) struct Credentials {
    /// Keys and certificates in the order in which they are tried.
    pub(super) offers: Vec<Offer>,
    /// Why other keys cannot be used.
    pub(super) unusable: Vec<KeyError>,
}

/// A key or a certificate, and who signs for it.
pub(super) struct Offer {
    pub(super) identity: AgentIdentity,
    pub(super) signer: OfferSigner,
    /// What people call it.
    pub(super) name: String,
}

/// Who signs for an offer.
#[derive(Clone)]
pub(super) enum OfferSigner {
    /// A private key that was read.
    Key(Arc<PrivateKey>),
    /// The agent, which knows the key by this identity.
    Agent(Box<AgentIdentity>),
}

impl Credentials {
    /// Finds out what a login has to offer. An encrypted key is left to the agent where that holds it, and one that nobody has named where
    /// it holds any; otherwise its passphrase is asked for.
    pub(super) async fn gather(
        login: &Login,
        passwords: PasswordUse,
        ring: &KeyRing,
        agent: &Agent,
    ) -> Result<Self, TransportError> {
        let mut credentials = Self { offers: vec![], unusable: vec![] };
        let held = match login.agent {
            AgentUse::Always => agent.identities().await,
            AgentUse::AsConfigured => Ok(Arc::default()),
        };
        let held = held.unwrap_or_else(|error| {
            credentials.unusable.push(error);
            Arc::default()
        });
        for source in &login.keys {
            if let Err(error) = credentials.add(source, login, ring, &held).await {
                credentials.unusable.push(error);
            }
        }
        if login.agent_keys == AgentKeys::All {
            for identity in held.iter() {
                credentials.push(Offer::held(identity));
            }
        }
        if !credentials.offers.is_empty() || passwords != PasswordUse::Never {
            return Ok(credentials);
        }
        if credentials.unusable.is_empty() {
            credentials.unusable.push(KeyError::NoneNamed);
        }
        let (at, user) = (login.at.clone(), login.user.clone());
        Err(TransportError::NoKey { at, user, reasons: credentials.unusable })
    }

    /// Adds a key that somebody named, with its certificates before it.
    async fn add(
        &mut self,
        source: &KeySource,
        login: &Login,
        ring: &KeyRing,
        held: &[AgentIdentity],
    ) -> Result<(), KeyError> {
        if matches!(source, KeySource::DefaultFile(path) if !path.exists()) {
            return Ok(());
        }
        let key = source.name();
        let look = ring.look(source).await;
        let is_held =
            |identity: &&AgentIdentity| look.public.as_ref().is_some_and(|key| holds(identity, key));
        let in_agent: Vec<&AgentIdentity> = held.iter().filter(is_held).collect();
        match &look.form {
            Ok(KeyForm::Plain) => {}
            _ if !in_agent.is_empty() => {
                self.add_held(source, login, &look, &in_agent);
                return Ok(());
            }
            // Nobody asked for this one, and the agent may hold it: without its public half that cannot be seen.
            Ok(KeyForm::Encrypted)
                if matches!(source, KeySource::DefaultFile(_))
                    && !held.is_empty()
                    && login.agent_keys == AgentKeys::All =>
            {
                return Err(KeyError::LeftToAgent { key });
            }
            Ok(KeyForm::Encrypted) => {}
            Ok(KeyForm::SecurityKey) => return Err(KeyError::SecurityKey { key }),
            Ok(KeyForm::PublicHalf) => return Err(KeyError::PublicHalf { key }),
            Err(error) => return Err(error.clone()),
        }
        let loaded = ring.load(source).await?;
        let public = loaded.key.public_key();
        for certificate in self.certificates(source, login, &look, public) {
            let signer = OfferSigner::Key(Arc::clone(&loaded.key));
            let name = format!("the certificate of {loaded}");
            self.offers.push(Offer { identity: certificate.into(), signer, name });
        }
        let signer = OfferSigner::Key(Arc::clone(&loaded.key));
        self.offers.push(Offer { identity: public.clone().into(), signer, name: loaded.to_string() });
        Ok(())
    }

    /// Adds a named key for which the agent signs.
    fn add_held(&mut self, source: &KeySource, login: &Login, look: &KeyLook, in_agent: &[&AgentIdentity]) {
        let Some(public) = &look.public else { return };
        for certificate in self.certificates(source, login, look, public) {
            let name = format!("the certificate of {}, by the agent", source.name());
            // The agent need not know the certificate.
            let signer = OfferSigner::Agent(Box::new(public.clone().into()));
            self.push(Offer { identity: certificate.into(), signer, name });
        }
        let is_certificate =
            |identity: &&AgentIdentity| matches!(identity, AgentIdentity::Certificate { .. });
        let (certificates, keys): (Vec<&AgentIdentity>, Vec<&AgentIdentity>) =
            in_agent.iter().copied().partition(is_certificate);
        for identity in certificates.into_iter().chain(keys) {
            self.push(Offer::held(identity));
        }
    }

    /// Returns the certificates of a key: those that are named, else the one that lies beside the key.
    fn certificates(
        &mut self,
        source: &KeySource,
        login: &Login,
        look: &KeyLook,
        public: &PublicKey,
    ) -> Vec<Certificate> {
        if login.certificates.is_empty() {
            let beside = look.certificate.clone();
            return beside.filter(|beside| beside.public_key() == public.key_data()).into_iter().collect();
        }
        let read = |named| read_certificate(named, public, &source.name());
        let (read, unusable): (Vec<_>, Vec<_>) = login.certificates.iter().map(read).partition(Result::is_ok);
        if read.is_empty() {
            self.unusable.extend(unusable.into_iter().filter_map(Result::err));
        }
        read.into_iter().filter_map(Result::ok).collect()
    }

    /// Adds an offer, unless it adds nothing to what is offered already.
    fn push(&mut self, offer: Offer) {
        let is_same = |known: &Offer| match (&known.identity, &offer.identity) {
            (AgentIdentity::PublicKey { key: known, .. }, AgentIdentity::PublicKey { key, .. }) => {
                known.key_data() == key.key_data()
            }
            (
                AgentIdentity::Certificate { certificate: known, .. },
                AgentIdentity::Certificate { certificate, .. },
            ) => known.signature() == certificate.signature(),
            _ => false,
        };
        if !self.offers.iter().any(is_same) {
            self.offers.push(offer);
        }
    }
}

impl Offer {
    fn held(identity: &AgentIdentity) -> Self {
        let name = match identity {
            AgentIdentity::PublicKey { key, comment } => {
                format!("the agent's `{comment}` ({})", describe(key))
            }
            AgentIdentity::Certificate { comment, .. } => format!("the agent's certificate `{comment}`"),
        };
        Self { identity: identity.clone(), signer: OfferSigner::Agent(Box::new(identity.clone())), name }
    }
}
