//! A conversation is one command on a channel: what it reads goes in as it comes, what it writes comes out at the same time.
//!
//! `Session::stream_line` holds it; `exec` takes the output in pieces, everybody else all of it at the end ([`Kept`]).

use std::sync::Arc;

use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use zeroize::Zeroizing;

use super::gate::Slot;
use super::{Session, TransportError};
use crate::command::Output;
use crate::transport::deadline::Deadline;
use crate::transport::manners::RAW_TERMINAL;

/// The code of the extended data that is stderr (RFC 4254, 5.2).
const STDERR: u32 = 1;

/// Which of its two streams a command wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ended {
    /// The exit status; `None` when a signal ended it or none was told.
    pub status: Option<u32>,
    /// The signal that ended it, without `SIG`.
    pub signal: Option<String>,
}

/// What a command reads.
pub trait Feed: Send {
    /// Waits for the next piece; `None` when nothing more comes.
    fn next(&mut self) -> impl Future<Output = Option<Vec<u8>>> + Send;
}

impl Feed for &[u8] {
    async fn next(&mut self) -> Option<Vec<u8>> {
        let all = std::mem::take(self);
        (!all.is_empty()).then(|| all.to_vec())
    }
}

/// The taker of output has no room for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Who takes what a command writes.
pub trait Sink: Send {
    /// Takes a piece; nothing more comes until it has.
    fn take(&mut self, stream: Stream, bytes: &[u8]) -> impl Future<Output = Result<(), Full>> + Send;
}

/// An output that is kept until its command has ended, up to a limit.
pub(super) struct Kept {
    stdout: Zeroizing<Vec<u8>>,
    stderr: Vec<u8>,
    limit: usize,
}

impl Kept {
    pub(super) fn new(limit: usize) -> Self {
        Self { stdout: Zeroizing::default(), stderr: Vec::new(), limit }
    }

    pub(super) fn output(self, status: Option<u32>) -> Output {
        Output { status, stdout: self.stdout, stderr: self.stderr }
    }
}

impl Sink for Kept {
    async fn take(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), Full> {
        match stream {
            Stream::Stdout => self.stdout.extend_from_slice(bytes),
            Stream::Stderr => self.stderr.extend_from_slice(bytes),
        }
        if self.stdout.len() + self.stderr.len() > self.limit { Err(Full) } else { Ok(()) }
    }
}

/// Hands output on, and stops the command's clock meanwhile: for a reader who takes long the host is not to blame.
pub(super) struct Patient<'a, S> {
    pub(super) sink: &'a mut S,
    pub(super) deadline: &'a Deadline,
}

impl<S: Sink> Sink for Patient<'_, S> {
    async fn take(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), Full> {
        self.deadline.beside(self.sink.take(stream, bytes)).await
    }
}

impl Session {
    /// Asks for a terminal for the command on a channel, before it is started.
    ///
    /// A host that gives none runs the command all the same, and sudo tells what it misses.
    pub(super) async fn ask_for_terminal(&self, channel: &CommandChannel) -> Result<(), TransportError> {
        let asked = channel.writer.request_pty(false, "dumb", 80, 24, 0, 0, &RAW_TERMINAL).await;
        asked.map_err(|_| self.lost())
    }

    /// Starts a command on a channel and stays with it to its end.
    ///
    /// Nothing is waited for that the command does not need: its input follows its line at once.
    pub(super) async fn converse(
        &self,
        channel: &mut CommandChannel,
        line: &str,
        mut stdin: impl Feed,
        sink: &mut impl Sink,
    ) -> Result<Ended, TransportError> {
        let CommandChannel { reader, writer, is_closed, .. } = channel;
        writer.exec(true, line).await.map_err(|_| self.lost())?;
        let feed = async {
            // A command may end without reading all; its output tells why, or the lost connection does.
            while let Some(bytes) = stdin.next().await {
                if writer.data_bytes(bytes).await.is_err() {
                    return std::future::pending().await;
                }
            }
            let _ = writer.eof().await;
            std::future::pending().await
        };
        let ended = tokio::select! {
            ended = self.listen(reader, sink) => ended?,
            never = feed => never,
        };
        *is_closed = true;
        Ok(ended)
    }

    /// Reads a command's channel until it is closed.
    async fn listen(
        &self,
        reader: &mut ChannelReadHalf,
        sink: &mut impl Sink,
    ) -> Result<Ended, TransportError> {
        let full = |Full| self.too_large();
        let mut ended = Ended::default();
        while let Some(message) = reader.wait().await {
            match message {
                ChannelMsg::Data { data } => sink.take(Stream::Stdout, &data).await.map_err(full)?,
                ChannelMsg::ExtendedData { data, ext: STDERR } => {
                    sink.take(Stream::Stderr, &data).await.map_err(full)?;
                }
                ChannelMsg::ExitStatus { exit_status } => ended.status = Some(exit_status),
                ChannelMsg::ExitSignal { signal_name, .. } => ended.signal = Some(name_of(signal_name)),
                ChannelMsg::Failure => return Err(self.refused("to run a command", &"its request failed")),
                ChannelMsg::Close => return Ok(ended),
                _ => {}
            }
        }
        Err(self.answer_lost())
    }
}

/// Returns all that a command is to read, at once, unless it is more than a limit.
pub(super) async fn all_of(mut stdin: impl Feed, limit: usize) -> Result<Zeroizing<Vec<u8>>, Full> {
    let mut all = Zeroizing::<Vec<u8>>::default();
    while let Some(bytes) = stdin.next().await {
        if all.len() + bytes.len() > limit {
            return Err(Full);
        }
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

/// Returns the name of a signal, without `SIG`.
fn name_of(signal: Sig) -> String {
    match signal {
        Sig::Custom(name) => name,
        signal => format!("{signal:?}"),
    }
}

/// A channel for a command that is closed when it is dropped, which russh does not do by itself.
pub(super) struct CommandChannel {
    reader: ChannelReadHalf,
    writer: Arc<ChannelWriteHalf<Msg>>,
    /// Whether both sides have closed it.
    is_closed: bool,
    /// Given back when the channel is closed.
    slot: Option<Slot>,
}

impl CommandChannel {
    pub(super) fn new(channel: russh::Channel<Msg>, slot: Slot) -> Self {
        let (reader, writer) = channel.split();
        Self { reader, writer: Arc::new(writer), is_closed: false, slot: Some(slot) }
    }
}

impl Drop for CommandChannel {
    fn drop(&mut self) {
        if self.is_closed {
            return;
        }
        let writer = Arc::clone(&self.writer);
        let slot = self.slot.take();
        // Outside a runtime there is no connection left either.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // Where that fails, the connection is gone, and its slots with it.
                let _ = writer.close().await;
                // Not before: the next command would overtake the end of this one.
                slot.map(Slot::abandon)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn no_more_is_kept_of_an_input_than_its_limit() {
        let all = |limit| all_of(&b"12345"[..], limit).now_or_never().unwrap();
        assert_eq!(all(5).unwrap().as_slice(), b"12345");
        assert_eq!(all(4), Err(Full));
    }
}
