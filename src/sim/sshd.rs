//! The sshd of a simulated node: one address of the loopback network, one user, one key; commands and forwarded ports.
//!
//! The fleet starts one a node; what it is asked to run goes to the simulated shell, what it is asked to reach to `ports`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{PrivateKey, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelMsg, ChannelOpenFailure};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::Fault;
use super::clock::lock;
use super::fault;
use super::life::Life;
use super::machine::{SimNode, World};
use super::ports;
use super::shell::{Ended, Process, Source};

/// Makes an Ed25519 key from a text that is as secret as the key has to be.
pub(crate) fn key(seed: &str) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&Sha256::digest(seed.as_bytes()).into()))
}

/// What one sshd needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Daemon {
    pub(crate) world: Arc<World>,
    pub(crate) node: Arc<SimNode>,
    pub(crate) host_key: PrivateKey,
    pub(crate) user_key: PublicKey,
    /// Sees the node become reachable or unreachable.
    pub(crate) reachable: watch::Receiver<bool>,
    /// Where every node of the fleet listens, for those that jump from node to node.
    pub(crate) doors: Arc<Vec<SocketAddr>>,
}

impl Daemon {
    /// Accepts connections until the task is aborted.
    pub(crate) async fn serve(mut self, listener: TcpListener) {
        let Ok(address) = listener.local_addr() else { return };
        let mut listener = Some(listener);
        let mut connections = JoinSet::new();
        loop {
            if !*self.reachable.borrow_and_update() {
                // A closed socket refuses; the connections that were open are cut.
                listener = None;
                connections.shutdown().await;
                if self.reachable.wait_for(|reachable| *reachable).await.is_err() {
                    return;
                }
                continue;
            }
            let open = match listener.take() {
                Some(open) => open,
                None => match TcpListener::bind(address).await {
                    Ok(open) => open,
                    Err(_) => return,
                },
            };
            tokio::select! {
                accepted = open.accept() => {
                    if let Ok((socket, _)) = accepted {
                        connections.spawn(self.clone().connection(socket));
                    }
                    listener = Some(open);
                }
                changed = self.reachable.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    listener = Some(open);
                }
                Some(_) = connections.join_next() => listener = Some(open),
            }
        }
    }

    fn has(&self, fault: &Fault) -> bool {
        lock(&self.node.faults).contains(fault)
    }

    /// Serves one connection; when the task is aborted, the socket closes.
    async fn connection(self, mut socket: TcpStream) {
        if self.has(&Fault::Hang) {
            std::future::pending::<()>().await;
        }
        // Latency matters more than packets here; a socket that refuses the option works all the same.
        let _ = socket.set_nodelay(true);
        let host_key = if self.has(&Fault::WrongHostKey) {
            key(&format!("wrong {}", self.node.name))
        } else {
            self.host_key.clone()
        };
        let config = Config {
            keys: vec![host_key],
            auth_rejection_time: Duration::from_millis(20),
            auth_rejection_time_initial: Some(Duration::ZERO),
            inactivity_timeout: None,
            ..Config::default()
        };
        let cut = Arc::new(Notify::new());
        let busy = self.world.activity.begin();
        let node = Arc::clone(&self.node);
        let mut frozen = false;
        let (near, mut far) = tokio::io::duplex(256 * 1024);
        let handler = Login { daemon: self, cut: Arc::clone(&cut), sessions: HashMap::new() };
        let session = async {
            if let Ok(running) = russh::server::run_stream(Arc::new(config), near, handler).await {
                // How a connection ended is the client's to tell.
                let _ = running.await;
            }
        };
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut socket, &mut far) => {}
            () = cut.notified() => {}
            () = node.reach.severed.notified() => {}
            () = node.reach.frozen.notified() => frozen = true,
            () = session => {
                let _ = socket.shutdown().await;
            }
        }
        if frozen {
            drop(busy);
            std::future::pending::<()>().await;
        }
    }
}

/// One connection.
struct Login {
    daemon: Daemon,
    cut: Arc<Notify>,
    sessions: HashMap<ChannelId, Channel<Msg>>,
}

impl Handler for Login {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        let known = user == self.daemon.node.login.name
            && key.public_key.key_data() == self.daemon.user_key.key_data();
        Ok(if known { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.sessions.insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(open) = self.sessions.remove(&channel) else { return session.channel_failure(channel) };
        session.channel_success(channel)?;
        let line = String::from_utf8_lossy(data).into_owned();
        lock(&self.daemon.world.lines).push((self.daemon.node.name.clone(), line.clone()));
        let (daemon, cut) = (self.daemon.clone(), Arc::clone(&self.cut));
        for fault in daemon.node.reach.arrive(&line) {
            daemon.world.inject(&daemon.node, fault);
        }
        let busy = daemon.world.activity.begin();
        tokio::spawn(async move {
            run(daemon, cut, open, line).await;
            drop(busy);
        });
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host_to_connect: &str,
        port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let port = u16::try_from(port_to_connect).unwrap_or(0);
        if let Some(door) = self
            .daemon
            .doors
            .iter()
            .find(|door| door.ip().to_string() == host_to_connect && door.port() == port)
        {
            match TcpStream::connect(door).await {
                Ok(mut socket) => {
                    reply.accept().await;
                    tokio::spawn(async move {
                        // Both ends close when either does.
                        let _ = tokio::io::copy_bidirectional(&mut socket, &mut channel.into_stream()).await;
                    });
                }
                Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
            }
            return Ok(());
        }
        match ports::connect(&self.daemon.world, &self.daemon.node, host_to_connect, port) {
            Some(port) => {
                reply.accept().await;
                let busy = self.daemon.world.activity.begin();
                tokio::spawn(async move {
                    port.serve(channel.into_stream()).await;
                    drop(busy);
                });
            }
            None => reply.reject(ChannelOpenFailure::ConnectFailed).await,
        }
        Ok(())
    }
}

/// Runs one command line and answers on its channel.
async fn run(daemon: Daemon, cut: Arc<Notify>, channel: Channel<Msg>, asked: String) {
    let (mut reader, writer) = channel.split();
    let node = &daemon.node;
    let picks = |fault: &Fault| {
        matches!(fault, Fault::DropWhileWriting { pattern } | Fault::LostAnswer { pattern } | Fault::ShortRead { pattern }
            if asked.contains(pattern))
    };
    let mut once = fault::take_once(node, picks);
    let life = node.reach.begin();
    let (sender, receiver) = std::sync::mpsc::channel();
    let feeder = Feeder { sender: Some(sender), life: Arc::clone(&life), held: Vec::new() };
    let halved = if matches!(once, Some(Fault::DropWhileWriting { .. })) {
        once = None;
        life.drop_at_change(&cut);
        Some(Arc::clone(&cut))
    } else {
        None
    };
    let feeder = tokio::spawn(async move {
        let mut feeder = feeder;
        while let Some(message) = reader.wait().await {
            match message {
                ChannelMsg::Data { data } if halved.is_some() => feeder.held.extend_from_slice(&data),
                ChannelMsg::Data { data } => feeder.feed(&data),
                ChannelMsg::Eof => match &halved {
                    Some(cut) if !feeder.held.is_empty() => {
                        feeder.feed_half();
                        cut.notify_one();
                    }
                    _ => feeder.sender = None,
                },
                ChannelMsg::Close => break,
                _ => {}
            }
        }
        feeder.life.desert();
    });
    let faults = lock(&node.faults).clone();
    let mut failure = None;
    for fault in faults {
        match fault {
            Fault::Hang => {
                // It ends with its client.
                let _ = feeder.await;
                return;
            }
            Fault::DropConnection { pattern } if asked.contains(&pattern) => {
                cut.notify_one();
                return;
            }
            Fault::CommandFails { pattern, status, stderr } if asked.contains(&pattern) => {
                failure = Some(Ended { status, stdout: Vec::new(), stderr: stderr.into_bytes() });
            }
            _ => {}
        }
    }
    let ended = if let Some(failure) = failure {
        Some(failure)
    } else {
        let execution = move || {
            let process = Process::login(&daemon.world, &daemon.node, life);
            process.run_login(&asked, Source::wire(receiver))
        };
        tokio::task::spawn_blocking(execution).await.ok().flatten()
    };
    if let Some(Fault::LostAnswer { .. }) = once {
        cut.notify_one();
        return;
    }
    // A client that is gone hears no answer.
    if let Some(mut ended) = ended {
        if let Some(Fault::ShortRead { .. }) = once {
            ended.stdout.truncate(ended.stdout.len() / 2);
        }
        let _ = writer.data(&ended.stdout[..]).await;
        let _ = writer.extended_data(1, &ended.stderr[..]).await;
        let _ = writer.exit_status(u32::try_from(ended.status).unwrap_or(255)).await;
    }
    let _ = writer.eof().await;
    let _ = writer.close().await;
    feeder.abort();
}

/// What brings a command its standard input.
struct Feeder {
    sender: Option<std::sync::mpsc::Sender<Vec<u8>>>,
    life: Arc<Life>,
    /// What is kept until all has arrived, so that half of it can be given.
    held: Vec<u8>,
}

impl Feeder {
    fn feed(&self, bytes: &[u8]) {
        if let Some(sender) = &self.sender {
            // A command that has ended reads no more.
            let _ = sender.send(bytes.to_vec());
        }
    }

    fn feed_half(&mut self) {
        let half = self.held.len() / 2;
        self.feed(self.held.get(..half).unwrap_or_default());
        self.life.desert();
        self.sender = None;
    }
}
