//! A hop is a jump host with the connections to it, which all nodes behind it share.
//!
//! The transport keeps one for each way to a jump host; connections to nodes and to further jump hosts pass through it.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::connector::{self, Connector, Position};
use super::login::Login;
use super::{Backoff, Session, TcpChannel, TransportError};

/// How many connections to one jump host there are at most. All that one connection carries passes one core at either end, so a few
/// use what two machines have; each is a login, which costs sshd some 30 ms of CPU and counts towards `MaxStartups` (10 at a
/// time). Channels are no reason for more: `MaxSessions` limits shells, not forwarded connections (`session_new` in sshd's
/// session.c is its one reader, and `sshd_config(5)` says that 0 still permits forwarding).
const MOST_LINES: usize = 4;

/// How many nodes are carried by one connection before another is made. With 64 (the default of `--parallel`) one is enough, and
/// what 64 nodes send at once does not fill it; beyond that, nodes begin to wait for each other's packets.
const NODES_A_LINE: usize = 64;

/// How long is waited, at most, before a host that had no room for another channel is asked again.
const ROOM_PAUSE: Duration = Duration::from_secs(1);

/// A jump host, and the connections to it.
#[derive(Debug)]
pub(super) struct Hop {
    login: Arc<Login>,
    /// The host before it on the way.
    through: Option<Arc<Hop>>,
    /// The connections that were ever needed; the others are made once the first one is there.
    lines: Mutex<Vec<Arc<Line>>>,
    /// How many there may be: fewer than at first when one more could not be made.
    most_lines: AtomicUsize,
    /// Told when somebody has passed.
    freed: Notify,
}

/// One connection, made anew when it was lost.
#[derive(Debug, Default)]
struct Line {
    /// How many pass through it, or wait for it.
    load: AtomicUsize,
    /// How many times it was made, with or without success.
    attempts: AtomicU64,
    newest: tokio::sync::Mutex<Option<Result<Session, Failure>>>,
}

/// Why a line could not be made, and when.
#[derive(Debug, Clone)]
struct Failure {
    error: TransportError,
    at: Instant,
}

/// The permission to pass through a hop, over one of its connections.
#[derive(Debug)]
pub(super) struct Passage {
    pub(super) session: Session,
    lease: Lease,
}

/// One who passes through a line.
#[derive(Debug)]
struct Lease {
    hop: Arc<Hop>,
    line: Arc<Line>,
    /// Whether it takes room on the host, as one who was turned away does not.
    takes_room: bool,
}

impl Line {
    /// Returns its connection where there is one. Somebody may be making it; who does not want to wait for them finds none.
    fn live(&self) -> Option<Session> {
        match self.newest.try_lock().ok()?.as_ref()? {
            Ok(session) if !session.is_closed() => Some(session.clone()),
            _ => None,
        }
    }

    fn load(&self) -> usize {
        self.load.load(Ordering::Acquire)
    }
}

impl Lease {
    fn of(hop: &Arc<Hop>, line: &Arc<Line>) -> Self {
        line.load.fetch_add(1, Ordering::AcqRel);
        Self { hop: Arc::clone(hop), line: Arc::clone(line), takes_room: false }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.line.load.fetch_sub(1, Ordering::AcqRel);
        // Those who wait would wake each other without a pause if each attempt that found no room were told.
        if self.takes_room {
            self.hop.freed.notify_waiters();
        }
    }
}

impl Hop {
    /// Returns a hop that is not connected yet.
    pub(super) fn new(login: Arc<Login>, through: Option<Arc<Self>>) -> Self {
        let most_lines = AtomicUsize::new(MOST_LINES);
        Self { login, through, lines: Mutex::default(), most_lines, freed: Notify::new() }
    }

    /// Returns whether it is this host, on this way.
    pub(super) fn is(&self, login: &Login, through: Option<&Arc<Self>>) -> bool {
        let same_way = match (&self.through, through) {
            (None, None) => true,
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            _ => false,
        };
        same_way && *self.login == *login
    }

    /// Returns a connection to pass through, the least used one, made where it is not there.
    ///
    /// Who waited while another's attempt failed gets the same error: 200 nodes behind a dead bastion fail in one time limit.
    pub(super) fn enter<'a>(
        self: &'a Arc<Self>,
        connector: &'a Connector,
    ) -> Pin<Box<dyn Future<Output = Result<Passage, TransportError>> + Send + 'a>> {
        Box::pin(async move {
            let lease = self.reserve();
            match self.session_after_first(&lease.line, connector).await {
                Ok(session) => Ok(Passage { session, lease }),
                // A host that takes no more logins may be there all the same.
                Err(error) => {
                    let passage = self.live_line().ok_or(error)?;
                    self.give_up(&lease.line);
                    Ok(passage)
                }
            }
        })
    }

    /// Waits until somebody has passed, or for a moment: then there may be room for another channel.
    pub(super) async fn wait_for_room(&self) {
        let _ = tokio::time::timeout(ROOM_PAUSE, self.freed.notified()).await;
    }

    /// Closes its connections.
    pub(super) async fn close(&self) {
        let lines = std::mem::take(&mut *self.lines());
        for line in lines {
            if let Some(Ok(session)) = line.newest.lock().await.take() {
                session.close().await;
            }
        }
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Line>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Chooses a line: the least used, unless that carries many already and there may be another.
    fn reserve(self: &Arc<Self>) -> Lease {
        let mut lines = self.lines();
        let may_grow = lines.len() < self.most_lines.load(Ordering::Acquire);
        match lines.iter().min_by_key(|line| line.load()) {
            Some(least) if least.load() < NODES_A_LINE || !may_grow => Lease::of(self, least),
            _ => {
                let line = Arc::default();
                lines.push(Arc::clone(&line));
                Lease::of(self, &line)
            }
        }
    }

    /// Returns a line that is there already, instead of one that could not be made.
    fn live_line(self: &Arc<Self>) -> Option<Passage> {
        let lines = self.lines();
        let usable = lines.iter().filter_map(|line| Some((line, line.live()?)));
        let (line, session) = usable.min_by_key(|(line, _)| line.load())?;
        Some(Passage { session, lease: Lease::of(self, line) })
    }

    /// Does without a line that could not be made while another is there, and makes no further one: carrying nobody, it would be
    /// everybody's first choice, and each would wait for all its attempts.
    fn give_up(&self, line: &Arc<Line>) {
        // Somebody else may have had more luck meanwhile.
        if line.live().is_some() {
            return;
        }
        let mut lines = self.lines();
        lines.retain(|other| !Arc::ptr_eq(other, line));
        self.most_lines.fetch_min(lines.len().max(1), Ordering::AcqRel);
    }

    /// Returns the connection of a line, which is made once the first one is there: what the host refuses it refuses once, not once
    /// for each line, and the operator is asked once.
    async fn session_after_first(
        &self,
        line: &Arc<Line>,
        connector: &Connector,
    ) -> Result<Session, TransportError> {
        if let Some(session) = line.live() {
            return Ok(session);
        }
        let first = self.lines().first().filter(|first| !Arc::ptr_eq(first, line)).cloned();
        if let Some(first) = first {
            self.session(&first, connector).await?;
        }
        self.session(line, connector).await
    }

    /// Returns the connection of a line.
    async fn session(&self, line: &Line, connector: &Connector) -> Result<Session, TransportError> {
        let seen = line.attempts.load(Ordering::Acquire);
        let mut newest = line.newest.lock().await;
        match &*newest {
            Some(Ok(session)) if !session.is_closed() => return Ok(session.clone()),
            Some(Err(failure))
                if line.attempts.load(Ordering::Acquire) != seen || self.still_holds(failure) =>
            {
                return Err(failure.error.clone());
            }
            _ => {}
        }
        let result = self.connect(connector).await;
        line.attempts.fetch_add(1, Ordering::Release);
        let noted = result.clone().map_err(|error| Failure { error, at: Instant::now() });
        *newest = Some(noted);
        result
    }

    /// Returns whether a failure still says how the host is: a login that was refused stays refused, and 200 nodes are not 200 failed
    /// passwords; what may pass is not tried again for as long as a connection may take, or the nodes behind the host would wait
    /// for all attempts one `--parallel` after the other.
    fn still_holds(&self, failure: &Failure) -> bool {
        !failure.error.is_transient() || failure.at.elapsed() < self.login.connect_timeout
    }

    /// Connects to the host, and tries again as the settings say, with more patience than for a node: all nodes behind it depend on
    /// it, and an sshd that is asked by many hangs up on some (`MaxStartups`).
    async fn connect(&self, connector: &Connector) -> Result<Session, TransportError> {
        let reconnect = connector.settings.reconnect;
        let attempts = reconnect.attempts.saturating_mul(2).saturating_sub(1);
        let mut pauses = Backoff { attempts, ..reconnect }.pauses();
        loop {
            let passage = match &self.through {
                // Whoever enters that one has tried again already.
                Some(hop) => Some(hop.enter(connector).await?),
                None => None,
            };
            match connector.connect(&self.login, passage, Position::Jump).await {
                Ok(session) => return Ok(session),
                Err(error) => {
                    connector::pause(&mut pauses, error).await.map_err(|error| self.failed(error))?;
                }
            }
        }
    }

    fn failed(&self, cause: TransportError) -> TransportError {
        TransportError::Jump { at: self.login.at.clone(), cause: Arc::new(cause) }
    }
}

impl Passage {
    /// Returns a connection that went through, which gives its place back when it ends.
    pub(super) fn carry(self, channel: TcpChannel) -> Passing {
        let mut lease = self.lease;
        lease.takes_room = true;
        Passing { channel, _lease: lease }
    }
}

/// A connection that passes through a hop.
pub(super) struct Passing {
    channel: TcpChannel,
    _lease: Lease,
}

impl AsyncRead for Passing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.channel).poll_read(context, buffer)
    }
}

impl AsyncWrite for Passing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.channel).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.channel).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.channel).poll_shutdown(context)
    }
}
