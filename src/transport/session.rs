//! A session is one SSH connection to a host, on which commands and forwarded connections run side by side.
//!
//! `Transport::connect` makes it; `gather`, `execute` and `kube` use it.

mod conversation;
mod gate;
mod tcp;

pub use conversation::{Ended, Feed, Full, Sink, Stream};
pub use tcp::TcpChannel;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use russh::client::Handle;
use russh::{ChannelOpenFailure, Disconnect};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::command::{Access, Command, Output};

use super::connector::{Fate, Peer};
use super::deadline::Deadline;
use super::login::Login;
use super::manners::Apart;
use super::root::RootOfHost;
use super::{Endpoint, Phase, Settings, TransportError};
use conversation::{CommandChannel, Kept, Patient, all_of};
use gate::{Gate, Refusal};

/// How much a command may read where it needs a terminal: it is kept, for its length must be known before.
const LARGEST_TERMINAL_INPUT: usize = 16 << 20;

/// How long is waited before a host is asked again that may not have ended yet what was given up.
const ENDING_PAUSE: Duration = Duration::from_millis(100);

/// One connection with many channels; clones share it.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
    login_took: Duration,
}

struct Shared {
    handle: Handle<Peer>,
    at: Endpoint,
    fate: Fate,
    root: RootOfHost,
    /// Whether the host has left a question open for so long that nothing more is asked over this connection.
    is_deaf: AtomicBool,
    sessions: Arc<Gate>,
    channel_timeout: Duration,
    command_timeout: Duration,
    max_output: usize,
}

impl Session {
    pub(super) fn new(
        handle: Handle<Peer>,
        login: &Login,
        settings: &Settings,
        fate: Fate,
        root: RootOfHost,
    ) -> Self {
        let shared = Shared {
            handle,
            at: login.at.clone(),
            fate,
            root,
            is_deaf: AtomicBool::new(false),
            sessions: Arc::default(),
            channel_timeout: login.connect_timeout,
            command_timeout: settings.command_timeout,
            max_output: settings.max_output,
        };
        Self { shared: Arc::new(shared), login_took: Duration::ZERO }
    }

    /// Notes how long the host took to let it in.
    pub(super) fn made_in(self, login_took: Duration) -> Self {
        Self { login_took, ..self }
    }

    /// Returns how long the host took to let it in, without what a person or the agent took.
    pub(super) fn login_took(&self) -> Duration {
        self.login_took
    }

    /// Returns the address and port of the host.
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.at
    }

    /// Returns what is known of becoming root on the host.
    pub(super) fn root(&self) -> &RootOfHost {
        &self.shared.root
    }

    /// Returns whether the connection has ended, or is so deaf that the next one is better made anew.
    pub fn is_closed(&self) -> bool {
        self.shared.handle.is_closed() || self.shared.is_deaf.load(Ordering::Acquire)
    }

    /// Asks the host for a sign of life, without waiting for it here; the connection is not used again when none comes in time.
    pub(super) fn doubt(&self, limit: Duration) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            if timeout(limit, shared.handle.send_ping()).await.is_err() {
                shared.is_deaf.store(true, Ordering::Release);
            }
        });
    }

    /// Runs a command with the access that the node allows.
    pub async fn run(
        &self,
        command: &Command,
        access: &Access,
        docker_socket: &str,
    ) -> Result<Output, TransportError> {
        let line = access.wrap(&command.script, docker_socket);
        let data = command.stdin.as_ref().map(|stdin| stdin.as_slice());
        let behind_password = self.shared.root.stdin(access, data.unwrap_or_default()).await?;
        let stdin = behind_password.as_ref().map_or(data, |stdin| Some(stdin.as_slice()));
        self.run_line(&line, stdin, command.timeout).await
    }

    /// Gives a line to the login's shell and returns what it answers; stdin ends after the given bytes.
    ///
    /// When time is up, or when the future is dropped, the channel is closed, but what runs on the host may go on.
    pub async fn run_line(
        &self,
        line: &str,
        stdin: Option<&[u8]>,
        limit: Option<Duration>,
    ) -> Result<Output, TransportError> {
        let mut kept = Kept::new(self.shared.max_output);
        let Ended { status, .. } =
            self.stream_line(line, stdin.unwrap_or_default(), limit, &mut kept).await?;
        Ok(kept.output(status))
    }

    /// Gives a line to the login's shell, feeds it, and hands on what it writes as it comes.
    ///
    /// Whoever takes the output too slowly slows the command down, at nobody's expense: its clock stands still meanwhile. When time is up, or when the future is dropped, the channel is
    /// closed, but what runs on the host may go on.
    pub async fn stream_line(
        &self,
        line: &str,
        stdin: impl Feed,
        limit: Option<Duration>,
        sink: &mut impl Sink,
    ) -> Result<Ended, TransportError> {
        let mut channel = self.open_session().await?;
        let limit = limit.unwrap_or(self.shared.command_timeout);
        let deadline = Deadline::start(&self.shared.at, limit);
        let mut sink = Patient { sink, deadline: &deadline };
        let dress = self.shared.root.manners.now();
        let conversation = async {
            if !dress.has_terminal() {
                return self.converse(&mut channel, &dress.line(line, 0), stdin, &mut sink).await;
            }
            // A terminal has no end that could be told by anything but a length.
            let all = all_of(stdin, LARGEST_TERMINAL_INPUT).await.map_err(|Full| self.too_much())?;
            self.ask_for_terminal(&channel).await?;
            let line = dress.line(line, all.len());
            let mut apart = Apart::new(&mut sink);
            let ended = self.converse(&mut channel, &line, all.as_slice(), &mut apart).await?;
            apart.finish().await.map_err(|Full| self.too_large())?;
            Ok(ended)
        };
        match deadline.within(Phase::Channel, conversation).await {
            Ok(result) => result,
            Err(_) => Err(TransportError::CommandTimedOut { at: self.shared.at.clone(), limit }),
        }
    }

    /// Opens a channel for a command; where the host has as many open as it allows (`MaxSessions`), one of them is waited for.
    async fn open_session(&self) -> Result<CommandChannel, TransportError> {
        loop {
            let slot = self.shared.sessions.enter().await;
            let shared = Arc::clone(&self.shared);
            let opened = self
                .open(async move { shared.handle.channel_open_session().await })
                .await
                // An sshd opens a session at once: where it does not, the connection is half open or the host hangs.
                .inspect_err(|_| self.shared.is_deaf.store(true, Ordering::Release))?;
            match opened {
                Ok(channel) => return Ok(CommandChannel::new(channel, slot)),
                Err(error @ russh::Error::ChannelOpenFailure(_)) => {
                    match slot.was_refused(self.shared.channel_timeout) {
                        Refusal::OneTooMany => {}
                        Refusal::StillEnding => sleep(ENDING_PAUSE).await,
                        Refusal::Final => return Err(self.refused("a session", &error)),
                    }
                }
                Err(error) => return Err(self.refused("a session", &error)),
            }
        }
    }

    /// Lets the host connect to an address, as it sees it, and returns the connection (`direct-tcpip`).
    pub async fn open_tcp(&self, host: &str, port: u16) -> Result<TcpChannel, TransportError> {
        let shared = Arc::clone(&self.shared);
        let target = Endpoint::new(host, port);
        let name = target.host.clone();
        let opening = async move {
            // The originator is for the host's log alone (RFC 4254, 7.2).
            let opened = shared.handle.channel_open_direct_tcpip(name, port.into(), "127.0.0.1", 0).await;
            opened.map(|channel| TcpChannel::new(channel.into_stream()))
        };
        self.open(opening).await?.map_err(|error| {
            let at = self.shared.at.clone();
            match error {
                russh::Error::ChannelOpenFailure(ChannelOpenFailure::AdministrativelyProhibited) => {
                    TransportError::ForwardingProhibited { at, target }
                }
                russh::Error::ChannelOpenFailure(ChannelOpenFailure::ConnectFailed) => {
                    TransportError::ForwardRefused { at, target }
                }
                russh::Error::ChannelOpenFailure(ChannelOpenFailure::ResourceShortage) => {
                    TransportError::NoRoom { at, target }
                }
                error => self.refused("a forwarded connection", &error),
            }
        })
    }

    /// Says goodbye and closes the connection for all clones.
    pub async fn close(&self) {
        // Nothing is left to do when the connection is gone already.
        let _ = self.shared.handle.disconnect(Disconnect::ByApplication, "", "").await;
    }

    /// Waits for a channel in a task of its own: a host that opens it too late gets it closed again.
    async fn open<T: Send + 'static>(
        &self,
        opening: impl Future<Output = Result<T, russh::Error>> + Send + 'static,
    ) -> Result<Result<T, russh::Error>, TransportError> {
        let (sender, receiver) = oneshot::channel();
        tokio::spawn(async move {
            // Nobody waits any more: the channel is dropped, and so closed.
            let _ = sender.send(opening.await);
        });
        let limit = self.shared.channel_timeout;
        match timeout(limit, receiver).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_)) => Err(self.lost()),
            Err(_) => {
                Err(TransportError::TimedOut { at: self.shared.at.clone(), phase: Phase::Channel, limit })
            }
        }
    }

    fn refused(&self, what: &'static str, error: &dyn std::fmt::Display) -> TransportError {
        if self.is_closed() {
            return self.lost();
        }
        TransportError::ChannelRefused { at: self.shared.at.clone(), what, reason: error.to_string() }
    }

    /// Returns the error of a command whose output nobody has room for.
    fn too_large(&self) -> TransportError {
        TransportError::OutputTooLarge { at: self.shared.at.clone(), limit: self.shared.max_output }
    }

    /// Returns the error of a command that was to read more than fits.
    fn too_much(&self) -> TransportError {
        TransportError::InputTooLarge { at: self.shared.at.clone(), limit: LARGEST_TERMINAL_INPUT }
    }

    fn lost(&self) -> TransportError {
        TransportError::ConnectionLost { at: self.shared.at.clone(), reason: self.end() }
    }

    /// Returns the error of a command that had left when the connection ended.
    fn answer_lost(&self) -> TransportError {
        TransportError::AnswerLost { at: self.shared.at.clone(), reason: self.end() }
    }

    /// Returns what is known of the end of the connection.
    fn end(&self) -> String {
        self.shared.fate.reason().unwrap_or("it was closed").to_owned()
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Session").field("at", &self.shared.at).finish_non_exhaustive()
    }
}
