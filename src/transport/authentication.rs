//! Authentication is the part of a connection in which a user proves who they are.
//!
//! The connector gathers [`Credentials`] before it dials and carries the [`Authentication`] out afterwards: keys first, then, where
//! the operator is there to answer, what the host asks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{AuthResult, Handle};
use russh::keys::agent::{AgentIdentity, AgentSessionBinding};
use russh::keys::ssh_encoding::Encode as _;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::ssh_key::{self, Signature};
use russh::keys::{HashAlg, PrivateKey, signature::Signer as _};
use russh::{MethodKind, MethodSet};

use super::agent::{Agent, SignatureError};
use super::connector::{Fate, Peer};
use super::credentials::{Credentials, Offer, OfferSigner};
use super::deadline::Deadline;
use super::error::{Refusal, WayOut};
use super::login::Login;
use super::question::Questions;
use super::shared_password::{SharedPassword, Trial};
use super::{KeyError, TransportError};

mod interactive;

/// How many keys are offered at most: sshd's `MaxAuthTries` is 6, and it hangs up at the sixth refusal.
const MAX_OFFERS: usize = 6;

/// How many of these are left to a password and to the host's questions.
const MAX_ANSWERS: usize = 2;

/// One login, and all that it takes.
pub(super) struct Authentication<'a> {
    pub(super) login: &'a Login,
    /// The password of such hosts; nothing where keys alone are to prove who the user is.
    pub(super) password: Option<&'a SharedPassword>,
    pub(super) agent: &'a Agent,
    pub(super) questions: &'a Questions,
    pub(super) deadline: &'a Deadline,
    pub(super) fate: &'a Fate,
}

impl Authentication<'_> {
    /// Proves until the host lets the user in: named keys, each with its certificates first, then the agent's, then answers.
    pub(super) async fn log_in(
        &self,
        handle: &mut Handle<Peer>,
        credentials: Credentials,
    ) -> Result<(), TransportError> {
        let mut exchange = Exchange {
            means: self,
            handle,
            offered: vec![],
            accepted: vec![],
            notes: vec![],
            refusals: 0,
            methods: None,
            ended: None,
            rsa_hashes: None,
            password: PasswordState::Unasked,
            has_answered: false,
        };
        if exchange.prove(credentials.offers.into()).await? {
            return Ok(());
        }
        let refusal = exchange.refusal(&credentials.unusable);
        self.agent.forget().await;
        let Login { at, user, .. } = self.login;
        Err(TransportError::AuthenticationRefused { at: at.clone(), user: user.clone(), refusal })
    }
}

/// What a host says to a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// The user is in.
    Welcome,
    /// It accepts this proof and wants another.
    Partial,
    Refused,
}

/// Why a talk was over before all was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The host hung up.
    HungUp,
    /// The host wants an answer that nobody gives.
    Unanswered,
    /// The host asks for the password once more.
    WrongPassword,
}

/// How far a talk is with the password; a second try at one host would only help to lock the user out.
#[derive(Debug)]
enum PasswordState {
    /// The host has not wanted it.
    Unasked,
    /// Nobody has one.
    Absent,
    /// The host has seen it, and not judged it yet.
    Shown(Trial),
    /// The host has accepted or refused it.
    Judged,
}

/// The talk with one host about who the user is.
struct Exchange<'a> {
    means: &'a Authentication<'a>,
    handle: &'a mut Handle<Peer>,
    /// What was offered so far, for people.
    offered: Vec<String>,
    /// What of it the host has accepted as a part of the proof.
    accepted: Vec<String>,
    notes: Vec<String>,
    /// How many proofs were refused: the host counts them, too.
    refusals: usize,
    /// The methods by which one may go on, once the host has named them.
    methods: Option<MethodSet>,
    ended: Option<End>,
    /// The hashes that the host takes for RSA keys, asked once: it may cost a second.
    rsa_hashes: Option<Vec<Option<HashAlg>>>,
    /// How far it is with the password.
    password: PasswordState,
    /// Whether the operator's answers were given.
    has_answered: bool,
}

impl Exchange<'_> {
    /// Returns whether the host let the user in.
    async fn prove(&mut self, mut offers: VecDeque<Offer>) -> Result<bool, TransportError> {
        if offers.is_empty() {
            // The answer names the methods.
            let result = self.handle.authenticate_none(&self.means.login.user).await;
            if self.judge(result).await? == Answer::Welcome {
                return Ok(true);
            }
            self.refusals = 0;
        }
        let mut answers = self.answers();
        while self.ended.is_none() {
            let answer = if self.takes(MethodKind::PublicKey)
                && self.may_offer(&answers)
                && let Some(offer) = offers.pop_front()
            {
                let answer = self.offer(&offer).await?;
                if answer == Answer::Refused && !self.takes(MethodKind::PublicKey) {
                    // Not a word about this key: something else has to come first.
                    offers.push_front(offer);
                }
                answer
            } else if let Some(index) = answers.iter().position(|method| self.takes(*method))
                && let Some(method) = answers.remove(index)
            {
                self.answer(method).await?
            } else {
                break;
            };
            if answer == Answer::Welcome {
                return Ok(true);
            }
        }
        if self.ended.is_none() && self.takes(MethodKind::PublicKey) && !offers.is_empty() {
            let limit = self.refusals;
            self.note(format!(
                "further keys were not offered after {limit}, for sshd hangs up (`MaxAuthTries`)"
            ));
        }
        Ok(false)
    }

    /// Returns the methods in which the operator may answer, in the order in which `ssh` tries them.
    fn answers(&self) -> VecDeque<MethodKind> {
        match self.means.password {
            None => VecDeque::new(),
            Some(_) => [MethodKind::KeyboardInteractive, MethodKind::Password].into(),
        }
    }

    /// Returns whether a method leads on, as far as is known: keys are tried unasked.
    fn takes(&self, method: MethodKind) -> bool {
        self.methods.as_ref().map_or(method == MethodKind::PublicKey, |methods| methods.contains(&method))
    }

    /// Returns whether one more key may be refused without closing the door to what comes after keys.
    fn may_offer(&self, answers: &VecDeque<MethodKind>) -> bool {
        let reserved = if answers.is_empty() { 0 } else { MAX_ANSWERS };
        self.refusals < MAX_OFFERS - reserved
    }

    /// Offers a key or a certificate; the host is asked first whether it would do, and only then somebody signs.
    async fn offer(&mut self, offer: &Offer) -> Result<Answer, TransportError> {
        let mut answer = Answer::Refused;
        for hash in self.hashes(&offer.identity).await? {
            if self.refusals >= MAX_OFFERS {
                break;
            }
            self.offered.push(offer.name.clone());
            let user = &self.means.login.user;
            let mut signer = Signing {
                signer: &offer.signer,
                means: self.means,
                binding: self.handle.agent_session_binding().cloned(),
            };
            let result = match offer.identity.clone() {
                AgentIdentity::PublicKey { key, .. } => {
                    self.handle.authenticate_publickey_with(user, key, hash, &mut signer).await
                }
                AgentIdentity::Certificate { certificate, .. } => {
                    self.handle.authenticate_certificate_with(user, certificate, hash, &mut signer).await
                }
            };
            answer = match result {
                Ok(result) => self.judge(Ok(result)).await?,
                Err(SigningError::Send) => self.judge(Err(russh::Error::SendError)).await?,
                Err(SigningError::Refused(reason)) => {
                    // The host would have taken it, and does not count it.
                    self.note(format!("{} could not sign: {reason}", offer.name));
                    Answer::Refused
                }
                Err(SigningError::Silent(limit)) => {
                    let (at, key) = (self.means.login.at.clone(), offer.name.clone());
                    return Err(TransportError::AgentSilent { at, key, limit });
                }
            };
            if answer == Answer::Partial {
                self.accepted.push(offer.name.clone());
            }
            if answer != Answer::Refused || self.ended.is_some() || !self.takes(MethodKind::PublicKey) {
                break;
            }
        }
        Ok(answer)
    }

    /// Returns the hashes to sign with, in the order in which they are tried; all but RSA keys leave no choice.
    async fn hashes(&mut self, identity: &AgentIdentity) -> Result<Vec<Option<HashAlg>>, TransportError> {
        let algorithm = match identity {
            AgentIdentity::PublicKey { key, .. } => key.algorithm(),
            AgentIdentity::Certificate { certificate, .. } => certificate.algorithm(),
        };
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

    /// Takes the host's word on a proof in.
    async fn judge(&mut self, result: Result<AuthResult, russh::Error>) -> Result<Answer, TransportError> {
        let (methods, is_partial) = match result {
            Ok(AuthResult::Success) => return Ok(Answer::Welcome),
            Ok(AuthResult::Failure { remaining_methods, partial_success }) => {
                (remaining_methods, partial_success)
            }
            // To try again would be refused again.
            Err(_) if self.refusals > 0 || self.has_answered || !self.accepted.is_empty() => {
                (MethodSet::empty(), false)
            }
            Err(error) => return Err(self.lost(&error.to_string())),
        };
        if self.handle.is_closed() {
            // Only the end of the connection's own task tells a panic from a polite goodbye.
            let end = (&mut *self.handle).await;
            let reason = end.err().map_or_else(|| "it hung up".to_owned(), |error| error.to_string());
            let said = self.means.fate.reason().map_or(reason, str::to_owned);
            self.note(format!("it closed the connection: {said}"));
            self.ended = Some(End::HungUp);
            return Ok(Answer::Refused);
        }
        self.methods = Some(methods);
        if is_partial {
            return Ok(Answer::Partial);
        }
        self.refusals += 1;
        Ok(Answer::Refused)
    }

    /// Adds to what the error says.
    fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    fn lost(&self, reason: &str) -> TransportError {
        let reason = self.means.fate.reason().unwrap_or(reason).to_owned();
        TransportError::ConnectionLost { at: self.means.login.at.clone(), reason }
    }

    fn refusal(mut self, unusable: &[KeyError]) -> Refusal {
        let way_out = self.way_out();
        self.offered.dedup();
        self.offered.retain(|offer| !self.accepted.contains(offer));
        let mut said = Vec::new();
        match self.offered.as_slice() {
            [] if self.accepted.is_empty() => said.push("no key was offered".to_owned()),
            [] => {}
            offered => said.push(format!("offered {}", offered.join(", "))),
        }
        let wanted = self.methods.iter().flat_map(|methods| methods.iter()).map(<&str>::from);
        let wanted: Vec<&str> = wanted.collect();
        if !self.accepted.is_empty() {
            said.push(format!(
                "it accepts {} and wants one more proof, by: {}",
                self.accepted.join(", "),
                wanted.join(", ")
            ));
        } else if self.methods.is_some() && !self.takes(MethodKind::PublicKey) && self.ended.is_none() {
            said.push(format!("it takes no keys, but: {}", wanted.join(", ")));
        }
        said.append(&mut self.notes);
        said.extend(unusable.iter().map(ToString::to_string));
        Refusal { said: said.join("; "), way_out }
    }

    /// Returns what may help.
    fn way_out(&self) -> WayOut {
        let may_answer =
            [MethodKind::Password, MethodKind::KeyboardInteractive].map(|method| self.takes(method));
        match (self.ended, self.means.password) {
            (Some(End::HungUp), _) if self.offered.len() > 1 => WayOut::OfferFewer,
            (Some(End::Unanswered), _) => WayOut::AnswerOnTerminal,
            (Some(End::WrongPassword), _) => WayOut::CheckPassword,
            _ if self.has_answered => WayOut::CheckPassword,
            _ if self.refusals >= MAX_OFFERS => WayOut::OfferFewer,
            (_, None) if may_answer.contains(&true) && self.takes(MethodKind::PublicKey) => {
                WayOut::AnotherKeyOrPassword
            }
            (_, None) if may_answer.contains(&true) => WayOut::AskPassword,
            _ => WayOut::AnotherKey,
        }
    }
}

/// Signs for one offer at one host.
struct Signing<'a> {
    signer: &'a OfferSigner,
    means: &'a Authentication<'a>,
    binding: Option<AgentSessionBinding>,
}

/// Why nothing was signed.
enum SigningError {
    /// The connection is gone.
    Send,
    /// The key cannot, or the agent will not.
    Refused(String),
    /// The agent did not answer in time.
    Silent(Duration),
}

impl From<russh::SendError> for SigningError {
    fn from(_: russh::SendError) -> Self {
        Self::Send
    }
}

impl russh::Signer for Signing<'_> {
    type Error = SigningError;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        hash: Option<HashAlg>,
        data: Vec<u8>,
    ) -> Result<Vec<u8>, SigningError> {
        match self.signer {
            OfferSigner::Key(key) => {
                sign(key, hash, data).map_err(|error| SigningError::Refused(error.to_string()))
            }
            OfferSigner::Agent(identity) => {
                // A person may have to touch a key, and others wait for their turn: the host has no part in that.
                let signing = self.means.agent.sign(identity, hash, data, self.binding.as_ref());
                self.means.deadline.beside(signing).await.map_err(|error| match error {
                    SignatureError::Refused(reason) => {
                        SigningError::Refused(format!("the SSH agent says {reason}"))
                    }
                    SignatureError::Silent(limit) => SigningError::Silent(limit),
                })
            }
        }
    }
}

/// Appends a signature to data. An RSA key signs with the hash that was announced, for certificates too.
fn sign(
    key: &Arc<PrivateKey>,
    hash: Option<HashAlg>,
    mut data: Vec<u8>,
) -> Result<Vec<u8>, russh::keys::Error> {
    let signed: Result<Signature, _> = match key.key_data() {
        KeypairData::Rsa(pair) => (pair, hash).try_sign(&data),
        other => other.try_sign(&data),
    };
    signed.map_err(ssh_key::Error::from)?.encode_prefixed(&mut data)?;
    Ok(data)
}
