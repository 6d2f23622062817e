//! An approach is the search for root on one node, tried again in the way that the node's answer asks for.
//!
//! `gather` looks at a node so, and whoever runs a command as root on a node that it knows nothing of.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::login::Login;
use super::manners::{AllManners, Manners};
use super::question::{PasswordPurpose, Questions};
use super::shared_password::{SharedPassword, Trial};
use super::{Endpoint, Session, TransportError};
use crate::command::{Access, Body, Missing, Password, Search, WaysToRoot, with_password};
use crate::inventory::Secret;

/// What all sessions know of becoming root.
#[derive(Debug)]
pub(super) struct RootOfAll {
    manners: AllManners,
    password: Arc<SharedPassword>,
}

impl RootOfAll {
    pub(super) fn new(password: Option<Secret>, questions: Questions) -> Self {
        let password = SharedPassword::new(PasswordPurpose::Sudo, password, questions);
        Self { manners: AllManners::default(), password: Arc::new(password) }
    }

    /// Returns what is known of one login.
    pub(super) fn of(&self, login: &Login) -> RootOfHost {
        RootOfHost {
            at: login.at.clone(),
            user: login.user.clone(),
            manners: self.manners.of(login),
            password: Arc::clone(&self.password),
        }
    }
}

/// What a session knows of becoming root on its host.
#[derive(Debug, Clone)]
pub(super) struct RootOfHost {
    at: Endpoint,
    user: String,
    pub(super) manners: Manners,
    password: Arc<SharedPassword>,
}

impl RootOfHost {
    /// Returns what a command reads that is run with an access: its data, behind the password where sudo asks for one.
    ///
    /// Nothing where sudo does not ask. Where it does and no password is known, it would take the first line of the data for one.
    pub(super) async fn stdin(
        &self,
        access: &Access,
        data: &[u8],
    ) -> Result<Option<Zeroizing<Vec<u8>>>, TransportError> {
        if *access != Access::SudoWithPassword {
            return Ok(None);
        }
        let secret = self.password.proven().await;
        let secret = secret.ok_or_else(|| TransportError::NoPassword { at: self.at.clone() })?;
        Ok(Some(with_password(secret.expose(), data)))
    }
}

/// What follows from an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing has begun, and the node wants to be asked in another way: the next script may succeed.
    Again,
    /// The answer stands.
    Done,
}

/// The search for root on one node.
#[derive(Debug)]
pub struct Approach<'a> {
    host: RootOfHost,
    ways: WaysToRoot<'a>,
    trial: Option<Trial>,
    /// Whether a password has been tried: no node gets a second one.
    has_tried: bool,
}

impl<'a> Approach<'a> {
    /// Begins a search on the host of a session.
    pub fn new(session: &Session, ways: WaysToRoot<'a>) -> Self {
        let ways = WaysToRoot { password: Password::Absent, ..ways };
        Self { host: session.root().clone(), ways, trial: None, has_tried: false }
    }

    /// Returns the script to be run next.
    pub fn script(&self, body: Body<'_>) -> String {
        self.ways.script(body)
    }

    /// Returns what that script reads.
    pub fn stdin(&self, data: &[u8]) -> Zeroizing<Vec<u8>> {
        match &self.trial {
            Some(trial) => with_password(trial.secret.expose(), data),
            None => Zeroizing::new(data.to_vec()),
        }
    }

    /// Notes that the body has begun: whoever waits for the word of this node on the password need not wait for its end.
    pub fn begun(&mut self, access: &Access) {
        if let Some(trial) = self.trial.take()
            && *access == Access::SudoWithPassword
        {
            trial.accept();
        }
    }

    /// Learns from what the script has found.
    ///
    /// An error says that a password is wanted and that the one there is has been refused by another node.
    pub async fn learn(&mut self, search: &Search) -> Result<Next, TransportError> {
        let missing = match search {
            Search::Found(access) => {
                self.begun(access);
                return Ok(Next::Done);
            }
            Search::Silent => return Ok(self.encode()),
            Search::Refused(refused) => refused.missing,
        };
        match missing {
            Some(Missing::Terminal) if !self.host.manners.want_terminal() => {
                self.host.manners.set_terminal(true);
                Ok(Next::Again)
            }
            Some(Missing::Password) if !self.has_tried => self.take_password().await,
            Some(Missing::RightPassword) => {
                if let Some(trial) = self.trial.take() {
                    trial.refuse(&self.host.at);
                }
                Ok(Next::Done)
            }
            Some(Missing::Terminal | Missing::Password) | None => Ok(Next::Done),
        }
    }

    /// Has the script passed on in words of any shell, once.
    fn encode(&self) -> Next {
        let manners = &self.host.manners;
        let was_encoded = manners.want_encoding();
        // Where that changes nothing, it was not the shell's language.
        manners.set_encoding(!was_encoded);
        if was_encoded { Next::Done } else { Next::Again }
    }

    async fn take_password(&mut self) -> Result<Next, TransportError> {
        self.trial = self.host.password.for_host(&self.host.at, &self.host.user).await?;
        self.has_tried = true;
        if self.trial.is_none() {
            return Ok(Next::Done);
        }
        self.ways.password = Password::OnStdin;
        Ok(Next::Again)
    }
}
