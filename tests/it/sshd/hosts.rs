//! Hosts in this process that are none, or that fail in the middle: what networks and broken servers do to a client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use russh::keys::PrivateKey;
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, Disconnect};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::daemon::own_address;
use super::operator::ed25519;

/// What a host does with a connection before it has said who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// It accepts and never says a word.
    Silent,
    /// It closes at once.
    Closes,
    /// It says half of its version, and no more.
    HalfVersion,
    /// It says half of its version, and closes.
    HalfVersionAndCloses,
    /// It speaks another protocol.
    AnotherProtocol,
    /// It says lines for ever that may stand before a version.
    EndlessLines,
    /// It says a line that never ends.
    EndlessLine,
    /// It says its version, then what is no packet.
    GarbageForPackets,
}

/// Starts a host that is none.
pub(super) async fn start(manner: Manner) -> SocketAddr {
    let listener = TcpListener::bind((own_address(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(behave(socket, manner));
        }
    });
    address
}

async fn behave(mut socket: TcpStream, manner: Manner) -> std::io::Result<()> {
    match manner {
        Manner::Silent => {}
        Manner::Closes => return Ok(()),
        Manner::HalfVersion => socket.write_all(b"SSH-2.0-Op").await?,
        Manner::HalfVersionAndCloses => return socket.write_all(b"SSH-2.0-Op").await,
        Manner::AnotherProtocol => {
            socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await?;
            return socket.shutdown().await;
        }
        Manner::EndlessLines => loop {
            socket.write_all(b"Please wait, all lines are busy.\r\n").await?;
        },
        Manner::EndlessLine => loop {
            socket.write_all(&[b'a'; 1024]).await?;
        },
        Manner::GarbageForPackets => {
            socket.write_all(&[b"SSH-2.0-OpenSSH_9.2\r\n", &[0xa5; 4096][..]].concat()).await?;
        }
    }
    // Until the client has had enough.
    tokio::io::copy(&mut socket, &mut tokio::io::sink()).await.map(|_| ())
}

/// What a server does with a client that it has let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// It answers every command with a line.
    Answers,
    /// It closes the connection as soon as somebody has logged in.
    ClosesAfterLogin,
    /// It writes half of a line and closes the connection.
    DiesInOutput,
    /// It opens no channel, and says nothing of it.
    OpensNothing,
    /// It runs a command that never ends.
    Hangs,
    /// It writes for ever.
    WritesForEver,
}

/// An SSH server in this process that lets everybody in.
pub(super) struct Server {
    pub(super) host_key: PrivateKey,
    config: Arc<Config>,
    service: Service,
    counts: Arc<Counts>,
}

/// What happened to all servers that are one.
#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicUsize,
    executed: AtomicUsize,
}

impl Server {
    /// Returns a server that listens nowhere yet.
    pub(super) fn new(service: Service) -> Self {
        let host_key = ed25519();
        let config =
            Config { keys: vec![host_key.clone()], auth_rejection_time: Duration::ZERO, ..Config::default() };
        Self { host_key, config: Arc::new(config), service, counts: Arc::default() }
    }

    /// Listens on one more address; `seen` is told of each connection.
    pub(super) async fn listen(&self, address: SocketAddr, seen: impl Fn() + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (config, service, counts) = (Arc::clone(&self.config), self.service, Arc::clone(&self.counts));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                counts.accepted.fetch_add(1, Ordering::SeqCst);
                seen();
                let host = Host { service, counts: Arc::clone(&counts) };
                let config = Arc::clone(&config);
                tokio::spawn(async move {
                    if let Ok(session) = russh::server::run_stream(config, socket, host).await {
                        let _ = session.await;
                    }
                });
            }
        });
        address
    }

    /// Returns how many connections were accepted, and how many commands were run.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.counts.accepted.load(Ordering::SeqCst), self.counts.executed.load(Ordering::SeqCst))
    }
}

struct Host {
    service: Service,
    counts: Arc<Counts>,
}

impl Handler for Host {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), russh::Error> {
        if self.service == Service::ClosesAfterLogin {
            let handle = session.handle();
            tokio::spawn(async move { disconnect(&handle).await });
        }
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        if matches!(self.service, Service::OpensNothing | Service::ClosesAfterLogin) {
            // Dropping it would be an answer; whoever is let in further may be asked to run something before it closes.
            tokio::spawn(async move {
                std::future::pending::<()>().await;
                drop(reply);
            });
        } else {
            reply.accept().await;
        }
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        _: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.counts.executed.fetch_add(1, Ordering::SeqCst);
        session.channel_success(id)?;
        match self.service {
            Service::DiesInOutput => {
                let handle = session.handle();
                tokio::spawn(async move {
                    let _ = handle.data(id, b"half of a li".to_vec()).await;
                    disconnect(&handle).await;
                });
            }
            Service::WritesForEver => {
                let handle = session.handle();
                tokio::spawn(async move { while handle.data(id, vec![b'y'; 32 << 10]).await.is_ok() {} });
            }
            Service::Hangs => {}
            _ => {
                session.data(id, b"hello\n".to_vec())?;
                session.exit_status_request(id, 0)?;
                session.eof(id)?;
                session.close(id)?;
            }
        }
        Ok(())
    }
}

async fn disconnect(handle: &russh::server::Handle) {
    let _ = handle.disconnect(Disconnect::ByApplication, String::new(), String::new()).await;
}

/// Starts something between client and server that holds back each byte for a while, in both directions.
pub(super) async fn slow_link(target: SocketAddr, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind((own_address(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let server = TcpStream::connect(target).await.unwrap();
                let ((from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), server.into_split());
                tokio::join!(carry(from_client, to_server, delay), carry(from_server, to_client, delay));
            });
        }
    });
    address
}

/// Carries bytes to the end; what is under way does not hold up what comes after it.
async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    delay: Duration,
) {
    let (sender, mut under_way) = tokio::sync::mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let reads = async move {
        let mut bytes = vec![0; 32 << 10];
        while let Ok(count) = from.read(&mut bytes).await {
            let _ = sender.send((Instant::now() + delay, bytes[..count].to_vec()));
            if count == 0 {
                break;
            }
        }
    };
    let writes = async move {
        while let Some((due, bytes)) = under_way.recv().await {
            tokio::time::sleep_until(due).await;
            let written = if bytes.is_empty() { to.shutdown().await } else { to.write_all(&bytes).await };
            if written.is_err() {
                break;
            }
        }
    };
    tokio::join!(reads, writes);
}
