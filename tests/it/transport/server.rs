//! An SSH server inside the test process, which does on demand what a good or a bad host does.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use russh::keys::{Algorithm, Certificate, HashAlg, PrivateKey, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Response, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelMsg, ChannelOpenFailure, MethodKind, MethodSet, Sig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// How long something may take on a machine that is busy; what takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a server does when it is asked to forward a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Forwarding {
    #[default]
    Allowed,
    Prohibited,
    /// For want of resources, as soon as so many connections are forwarded.
    AtMost(usize),
}

/// One thing that a user has to prove; all of them in their order let the user in.
#[derive(Debug, Clone)]
pub(crate) enum Demand {
    /// A key, or a certificate that it has signed.
    Key(PublicKey),
    Password(&'static str),
    /// A password, on which it never says a word.
    PasswordInSilence,
    /// Prompts, whether their answers may be seen, and the answers; all in one request.
    Answers(&'static [(&'static str, bool, &'static str)]),
}

/// A running server; dropping it changes nothing, for its connections belong to the runtime of the test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    demands: Vec<Demand>,
    forwarding: Forwarding,
    sockets: Mutex<Vec<std::net::TcpStream>>,
    /// How many connections neither end has closed yet; the other is told when there are fewer.
    open: (Mutex<usize>, Condvar),
    accepted: AtomicUsize,
    forwarded: AtomicUsize,
    /// How many connections are forwarded now, and the most that it ever were.
    forwarding_now: Mutex<(usize, usize)>,
    channel_closed: Notify,
    frozen: Notify,
    signed_with: Mutex<Vec<Option<HashAlg>>>,
    refused_answers: AtomicUsize,
}

impl Server {
    /// Starts a server that shows the given host keys and lets one key in.
    pub(crate) async fn start(
        host_keys: Vec<PrivateKey>,
        user_key: &PublicKey,
        forwarding: Forwarding,
    ) -> Self {
        Self::demanding(host_keys, vec![Demand::Key(user_key.clone())], forwarding).await
    }

    /// Starts a server that shows the given host keys and wants some proofs.
    pub(crate) async fn demanding(
        host_keys: Vec<PrivateKey>,
        demands: Vec<Demand>,
        forwarding: Forwarding,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            demands,
            forwarding,
            sockets: Mutex::default(),
            open: Default::default(),
            accepted: AtomicUsize::new(0),
            forwarded: AtomicUsize::new(0),
            forwarding_now: Mutex::default(),
            channel_closed: Notify::new(),
            frozen: Notify::new(),
            signed_with: Mutex::default(),
            refused_answers: AtomicUsize::new(0),
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

    /// Returns how many connections it forwarded at a time, at most.
    pub(crate) fn forwarded_at_once(&self) -> usize {
        self.shared.forwarding_now.lock().unwrap().1
    }

    /// Cuts all connections as a power failure of the host's switch would, with an answer from the kernel.
    pub(crate) fn cut(&self) {
        for socket in self.shared.sockets.lock().unwrap().drain(..) {
            socket.shutdown(std::net::Shutdown::Both).unwrap();
        }
    }

    /// Hangs up on all, and waits until their ends are closed, too; from a thread that the server does not run on.
    pub(crate) fn hang_up(&self) {
        for socket in self.shared.sockets.lock().unwrap().drain(..) {
            socket.shutdown(std::net::Shutdown::Write).unwrap();
        }
        let (open, fewer) = &self.shared.open;
        let waited = fewer.wait_timeout_while(open.lock().unwrap(), PATIENCE, |open| *open > 0).unwrap();
        assert!(!waited.1.timed_out(), "somebody stays connected");
    }

    /// Waits until a client has closed a channel.
    pub(crate) async fn channel_closed(&self) {
        self.shared.channel_closed.notified().await;
    }

    /// Returns how many passwords and answers were wrong.
    pub(crate) fn refused_answers(&self) -> usize {
        self.shared.refused_answers.load(Ordering::SeqCst)
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
        let host = Host { shared: Arc::clone(&shared), proven: 0, channels: HashMap::new() };
        let (config, shared) = (Arc::clone(&config), Arc::clone(&shared));
        *shared.open.0.lock().unwrap() += 1;
        tokio::spawn(async move {
            if let Ok(session) = russh::server::run_stream(config, socket, host).await {
                let _ = session.await;
            }
            *shared.open.0.lock().unwrap() -= 1;
            shared.open.1.notify_all();
        });
    }
}

struct Host {
    shared: Arc<Shared>,
    /// How many demands the user has met.
    proven: usize,
    channels: HashMap<ChannelId, Channel<Msg>>,
}

impl Host {
    /// Answers a proof as sshd with `AuthenticationMethods` does.
    fn judge(&mut self, user: &str, meets: impl FnOnce(&Demand) -> bool) -> Auth {
        let met = user == "rke" && meets(&self.shared.demands[self.proven]);
        self.proven += usize::from(met);
        let Some(next) = self.shared.demands.get(self.proven) else { return Auth::Accept };
        let next = match next {
            Demand::Key(_) => MethodKind::PublicKey,
            Demand::Password(_) | Demand::PasswordInSilence => MethodKind::Password,
            Demand::Answers(_) => MethodKind::KeyboardInteractive,
        };
        Auth::Reject { proceed_with_methods: Some(MethodSet::from([next].as_slice())), partial_success: met }
    }

    /// Judges what somebody has typed.
    fn judge_answer(&mut self, user: &str, meets: impl FnOnce(&Demand) -> bool) -> Auth {
        let answer = self.judge(user, meets);
        if matches!(answer, Auth::Reject { partial_success: false, .. }) {
            self.shared.refused_answers.fetch_add(1, Ordering::SeqCst);
        }
        answer
    }
}

impl Handler for Host {
    type Error = russh::Error;

    async fn authentication_banner(&mut self) -> Result<Option<String>, russh::Error> {
        Ok(Some("Authorised use only.\n".to_owned()))
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, russh::Error> {
        if matches!(self.shared.demands[self.proven], Demand::PasswordInSilence) {
            return std::future::pending().await;
        }
        Ok(self.judge_answer(user, |demand| matches!(demand, Demand::Password(right) if *right == password)))
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, russh::Error> {
        let Demand::Answers(prompts) = self.shared.demands[self.proven] else {
            return Ok(self.judge(user, |_| false));
        };
        let Some(response) = response else {
            let prompts = prompts.iter().map(|(prompt, echo, _)| (Cow::Borrowed(*prompt), *echo)).collect();
            return Ok(Auth::Partial { name: "".into(), instructions: "Prove it.".into(), prompts });
        };
        let answers: Vec<String> =
            response.map(|answer| String::from_utf8(answer.to_vec()).unwrap()).collect();
        let right: Vec<&str> = prompts.iter().map(|(.., answer)| *answer).collect();
        Ok(self.judge_answer(user, |_| answers == right))
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        let hash = match key.algorithm {
            Algorithm::Rsa { hash } => *hash,
            _ => None,
        };
        self.shared.signed_with.lock().unwrap().push(hash);
        Ok(self.judge(
            user,
            |demand| matches!(demand, Demand::Key(right) if right.key_data() == key.public_key.key_data()),
        ))
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, russh::Error> {
        Ok(self.judge(
            user,
            |demand| matches!(demand, Demand::Key(right) if right.key_data() == certificate.signature_key()),
        ))
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
        let is_full = {
            let mut now = self.shared.forwarding_now.lock().unwrap();
            let is_full = matches!(self.shared.forwarding, Forwarding::AtMost(limit) if now.0 >= limit);
            if !is_full {
                *now = (now.0 + 1, now.1.max(now.0 + 1));
            }
            is_full
        };
        if is_full {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        reply.accept().await;
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let mut stream = channel.into_stream();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut target).await;
            shared.forwarding_now.lock().unwrap().0 -= 1;
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
