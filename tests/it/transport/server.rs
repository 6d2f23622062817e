//! An SSH server inside the test process, which does on demand what a good or a bad host does.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use russh::keys::{Algorithm, Certificate, HashAlg, PrivateKey, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelMsg, ChannelOpenFailure, Sig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What a server does when it is asked to forward a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Forwarding {
    #[default]
    Allowed,
    Prohibited,
}

/// A running server; dropping it changes nothing, for its connections belong to the runtime of the test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    user_key: PublicKey,
    forwarding: Forwarding,
    sockets: Mutex<Vec<std::net::TcpStream>>,
    accepted: AtomicUsize,
    forwarded: AtomicUsize,
    channel_closed: Notify,
    frozen: Notify,
    signed_with: Mutex<Vec<Option<HashAlg>>>,
}

impl Server {
    /// Starts a server that shows the given host keys and lets one key in.
    pub(crate) async fn start(
        host_keys: Vec<PrivateKey>,
        user_key: &PublicKey,
        forwarding: Forwarding,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            user_key: user_key.clone(),
            forwarding,
            sockets: Mutex::default(),
            accepted: AtomicUsize::new(0),
            forwarded: AtomicUsize::new(0),
            channel_closed: Notify::new(),
            frozen: Notify::new(),
            signed_with: Mutex::default(),
        });
        let config = Arc::new(Config {
            keys: host_keys,
            auth_rejection_time: Duration::ZERO,
            max_auth_attempts: 6,
            ..Config::default()
        });
        tokio::spawn(accept(listener, config, Arc::clone(&shared)));
        Self { address, shared }
    }

    /// Returns how many connections were accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Returns how many connections it was asked to make.
    pub(crate) fn forwarded(&self) -> usize {
        self.shared.forwarded.load(Ordering::SeqCst)
    }

    /// Cuts all connections as a power failure of the host's switch would, with an answer from the kernel.
    pub(crate) fn cut(&self) {
        for socket in self.shared.sockets.lock().unwrap().drain(..) {
            socket.shutdown(std::net::Shutdown::Both).unwrap();
        }
    }

    /// Waits until a client has closed a channel.
    pub(crate) async fn channel_closed(&self) {
        self.shared.channel_closed.notified().await;
    }

    /// Returns the hashes with which clients signed.
    pub(crate) fn signed_with(&self) -> Vec<Option<HashAlg>> {
        self.shared.signed_with.lock().unwrap().clone()
    }
}

async fn accept(listener: TcpListener, config: Arc<Config>, shared: Arc<Shared>) {
    while let Ok((socket, _)) = listener.accept().await {
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        let socket = socket.into_std().unwrap();
        shared.sockets.lock().unwrap().push(socket.try_clone().unwrap());
        let socket = TcpStream::from_std(socket).unwrap();
        let host = Host { shared: Arc::clone(&shared), channels: HashMap::new() };
        let config = Arc::clone(&config);
        tokio::spawn(async move {
            if let Ok(session) = russh::server::run_stream(config, socket, host).await {
                let _ = session.await;
            }
        });
    }
}

struct Host {
    shared: Arc<Shared>,
    channels: HashMap<ChannelId, Channel<Msg>>,
}

impl Handler for Host {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        let hash = match key.algorithm {
            Algorithm::Rsa { hash } => *hash,
            _ => None,
        };
        self.shared.signed_with.lock().unwrap().push(hash);
        let welcome = user == "rke" && key.public_key.key_data() == self.shared.user_key.key_data();
        Ok(if welcome { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_openssh_certificate(
        &mut self,
        _: &str,
        certificate: &Certificate,
    ) -> Result<Auth, russh::Error> {
        let signed = certificate.signature_key() == self.shared.user_key.key_data();
        Ok(if signed { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.channels.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn channel_close(&mut self, _: ChannelId, _: &mut Session) -> Result<(), russh::Error> {
        self.shared.channel_closed.notify_one();
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.shared.forwarded.fetch_add(1, Ordering::SeqCst);
        if self.shared.forwarding == Forwarding::Prohibited {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        }
        let Ok(mut target) = TcpStream::connect((host, u16::try_from(port).unwrap())).await else {
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
            return Ok(());
        };
        reply.accept().await;
        tokio::spawn(async move {
            let mut stream = channel.into_stream();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut target).await;
        });
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        line: &[u8],
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let channel = self.channels.remove(&id).unwrap();
        let line = String::from_utf8(line.to_vec()).unwrap();
        if line == "refuse" {
            return session.channel_failure(id);
        }
        session.channel_success(id)?;
        let handle = session.handle();
        if line == "signal" {
            tokio::spawn(async move {
                let _ = handle.exit_signal_request(id, Sig::KILL, false, String::new(), String::new()).await;
                let _ = handle.close(id).await;
            });
        } else {
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move { execute(&line, channel, &shared).await });
        }
        Ok(())
    }
}

async fn execute(line: &str, mut channel: Channel<Msg>, shared: &Shared) -> Result<(), russh::Error> {
    let (word, argument) = line.split_once(' ').unwrap_or((line, ""));
    let status = match word {
        "cat" => {
            while let Some(message) = channel.wait().await {
                match message {
                    ChannelMsg::Data { data } => channel.data_bytes(data).await?,
                    ChannelMsg::Eof => break,
                    _ => {}
                }
            }
            0
        }
        "fail" => {
            channel.extended_data_bytes(1, b"no such container".to_vec()).await?;
            3
        }
        "big" => {
            channel.data_bytes(vec![b'x'; argument.parse().unwrap()]).await?;
            0
        }
        "freeze" => {
            shared.frozen.notify_one();
            return std::future::pending().await;
        }
        "hang" => return std::future::pending().await,
        _ => {
            channel.data_bytes(line.as_bytes().to_vec()).await?;
            0
        }
    };
    channel.eof().await?;
    channel.exit_status(status).await?;
    channel.close().await
}

/// Starts something between client and server that goes deaf and dumb when a command asks for it, and returns its address.
pub(crate) async fn freezing_proxy(server: &Server) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let target = server.address;
    let shared = Arc::clone(&server.shared);
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(target).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
            () = shared.frozen.notified() => {}
        }
        std::future::pending::<()>().await;
    });
    address
}

/// Starts a server that sends back what it gets, and returns its port.
pub(crate) async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = socket.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    port
}

/// Returns a port on which nothing listens.
pub(crate) async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// Starts a listener that accepts and never says a word.
pub(crate) async fn silent() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut sockets = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            sockets.push(socket);
        }
    });
    address
}
