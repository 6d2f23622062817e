//! A forwarded connection is one that a host makes on our behalf, over a channel of its session.
//!
//! `Session::open_tcp` makes it; `kube` and the next hop of a jump speak over it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use russh::ChannelStream;
use russh::client::Msg;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection that a host made on our behalf; dropping it closes it.
///
/// Whoever holds it reads it: data that nobody takes stops the whole session after some packets.
pub struct TcpChannel {
    stream: ChannelStream<Msg>,
    /// Whether our side has said that nothing more comes.
    ended: bool,
}

impl TcpChannel {
    pub(super) fn new(stream: ChannelStream<Msg>) -> Self {
        Self { stream, ended: false }
    }
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
