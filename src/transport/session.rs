//! A session is one SSH connection to a host, on which commands and forwarded connections run side by side.
//!
//! `Transport::connect` makes it; `gather`, `execute` and `kube` use it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use russh::client::{Handle, Msg};
use russh::{ChannelMsg, ChannelOpenFailure, ChannelReadHalf, ChannelStream, ChannelWriteHalf, Disconnect};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::command::{Access, Command, Output};

use super::connector::{Fate, Peer};
use super::login::Login;
use super::{Endpoint, Phase, Settings, TransportError};

/// The code of the extended data that is stderr (RFC 4254, 5.2).
const STDERR: u32 = 1;

/// One connection with many channels; clones share it.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
}

struct Shared {
    handle: Handle<Peer>,
    at: Endpoint,
    fate: Fate,
    /// Whether the host has left a question open for so long that nothing more is asked over this connection.
    is_deaf: AtomicBool,
    channel_timeout: Duration,
    command_timeout: Duration,
    max_output: usize,
}

impl Session {
    pub(super) fn new(handle: Handle<Peer>, login: &Login, settings: &Settings, fate: Fate) -> Self {
        let shared = Shared {
            handle,
            at: login.at.clone(),
            fate,
            is_deaf: AtomicBool::new(false),
            channel_timeout: settings.connect_timeout,
            command_timeout: settings.command_timeout,
            max_output: settings.max_output,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Returns the address and port of the host.
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.at
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
        self.run_line(&line, command.stdin.as_ref().map(|stdin| stdin.as_slice()), command.timeout).await
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
        let shared = Arc::clone(&self.shared);
        let mut channel = self
            .open(async move { shared.handle.channel_open_session().await.map(CommandChannel::new) })
            .await
            // An sshd opens a session at once: where it does not, the connection is half open or the host hangs.
            .inspect_err(|_| self.shared.is_deaf.store(true, Ordering::Release))?
            .map_err(|error| self.refused("a session", &error))?;
        let limit = limit.unwrap_or(self.shared.command_timeout);
        match timeout(limit, self.converse(&mut channel, line, stdin.unwrap_or_default())).await {
            Ok(result) => result,
            Err(_) => Err(TransportError::CommandTimedOut { at: self.shared.at.clone(), limit }),
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
            opened.map(|channel| TcpChannel { stream: channel.into_stream(), ended: false })
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

    async fn converse(
        &self,
        channel: &mut CommandChannel,
        line: &str,
        stdin: &[u8],
    ) -> Result<Output, TransportError> {
        let CommandChannel { reader, writer } = channel;
        writer.exec(true, line).await.map_err(|_| self.lost())?;
        let feed = async {
            // A command may end without reading all; its output tells why, or the lost connection does.
            if writer.data(stdin).await.is_ok() {
                let _ = writer.eof().await;
            }
            std::future::pending().await
        };
        tokio::select! {
            output = self.collect(reader) => output,
            output = feed => output,
        }
    }

    /// Reads a command's channel to its end.
    async fn collect(&self, reader: &mut ChannelReadHalf) -> Result<Output, TransportError> {
        let (mut stdout, mut stderr) = (Zeroizing::new(Vec::new()), Vec::new());
        let mut status = None;
        while let Some(message) = reader.wait().await {
            match message {
                ChannelMsg::Data { data } => stdout.extend_from_slice(&data),
                ChannelMsg::ExtendedData { data, ext: STDERR } => stderr.extend_from_slice(&data),
                ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
                ChannelMsg::Failure => return Err(self.refused("to run a command", &"its request failed")),
                ChannelMsg::Close => return Ok(Output { status, stdout, stderr }),
                _ => {}
            }
            let limit = self.shared.max_output;
            if stdout.len() + stderr.len() > limit {
                return Err(TransportError::OutputTooLarge { at: self.shared.at.clone(), limit });
            }
        }
        Err(self.answer_lost())
    }

    fn refused(&self, what: &'static str, error: &dyn std::fmt::Display) -> TransportError {
        if self.is_closed() {
            return self.lost();
        }
        TransportError::ChannelRefused { at: self.shared.at.clone(), what, reason: error.to_string() }
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

/// A channel for a command that is closed when it is dropped, which russh does not do by itself.
struct CommandChannel {
    reader: ChannelReadHalf,
    writer: Arc<ChannelWriteHalf<Msg>>,
}

impl CommandChannel {
    fn new(channel: russh::Channel<Msg>) -> Self {
        let (reader, writer) = channel.split();
        Self { reader, writer: Arc::new(writer) }
    }
}

impl Drop for CommandChannel {
    fn drop(&mut self) {
        let writer = Arc::clone(&self.writer);
        // Outside a runtime there is no connection left either.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { writer.close().await });
        }
    }
}

/// A connection that a host made on our behalf; dropping it closes it.
///
/// Whoever holds it reads it: data that nobody takes stops the whole session after some hundred packets.
pub struct TcpChannel {
    stream: ChannelStream<Msg>,
    /// Whether our side has said that nothing more comes.
    ended: bool,
}

impl AsyncRead for TcpChannel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for TcpChannel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // The library takes an empty write for an error.
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        let result = Pin::new(&mut self.stream).poll_shutdown(context);
        self.ended = result.is_ready();
        result
    }
}

impl std::fmt::Debug for TcpChannel {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TcpChannel").finish_non_exhaustive()
    }
}
