//! A thing between client and server that does to connections what networks do to them.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;

/// What becomes of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is closed before a byte has passed.
    Closed,
    /// It is closed when the server has sent so many bytes.
    ClosedAfter(u64),
    /// Nothing passes any more, in either direction and without a word, when the client has sent so many bytes.
    SilentAfter(u64),
}

/// A proxy; connections for which no fate is left pass until it is told to be silent.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    silence: Arc<Notify>,
}

impl Proxy {
    /// Starts a proxy before a server.
    pub(super) fn start(target: SocketAddr, fates: impl IntoIterator<Item = Fate>) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // Small, so that who writes is soon blocked when nobody reads.
        socket.set_recv_buffer_size(4 << 10).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(64).unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, silence) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let fates = Mutex::new(fates.into_iter().collect::<VecDeque<_>>());
        let (counted, told) = (Arc::clone(&accepted), Arc::clone(&silence));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let fate = fates.lock().unwrap().pop_front();
                tokio::spawn(carry(client, target, fate, Arc::clone(&told)));
            }
        });
        Self { address, accepted, silence }
    }

    /// Returns how many connections were accepted.
    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Lets nothing pass any more on the connections that are open, as a cable that is pulled out far away.
    pub(super) fn fall_silent(&self) {
        self.silence.notify_waiters();
    }
}

async fn carry(client: TcpStream, target: SocketAddr, fate: Option<Fate>, silence: Arc<Notify>) {
    if fate == Some(Fate::Closed) {
        return;
    }
    let mut server = TcpStream::connect(target).await.unwrap();
    let mut client = client;
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.split(), server.split());
    let (mut up, mut down) = (u64::MAX, u64::MAX);
    match fate {
        Some(Fate::ClosedAfter(bytes)) => down = bytes,
        Some(Fate::SilentAfter(bytes)) => up = bytes,
        Some(Fate::Closed) | None => {}
    }
    let is_over = tokio::select! {
        has_passed_all = copy(&mut from_client, &mut to_server, up) => has_passed_all,
        has_passed_all = copy(&mut from_server, &mut to_client, down) => has_passed_all || fate.is_some(),
        () = silence.notified() => false,
    };
    if !is_over {
        std::future::pending::<()>().await;
    }
}

/// Copies to the end and returns true, or so many bytes and returns false.
async fn copy(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), limit: u64) -> bool {
    tokio::io::copy(&mut from.take(limit), to).await.map_or(true, |copied| copied < limit)
}
