//! The work of `exec` on one node: log in, run the command, hand on what it prints, and say how it ended.

use super::output::{Show, Taker};
use super::rooted::Rooted;
use crate::cli::printer::Printer;
use crate::command::{BecomeRoot, Body, Password, WaysToRoot};
use crate::inventory::{Node, Role};
use crate::report::exec::{Cause, Ending};
use crate::transport::{Approach, Ended, FanOut, Feed, Full, Next, Session, Sink, Stream, TransportError};
use crate::workstation::{Spool, SpoolReader};

/// Who runs the command on a node.
#[derive(Debug, Clone, Copy)]
pub(super) enum Identity<'a> {
    /// The login, in its own shell.
    Login,
    /// Root.
    Root { ways: BecomeRoot, marker: &'a str },
}

/// What is to be done on every node.
pub(super) struct Work<'a> {
    pub(super) fan_out: &'a FanOut,
    /// What was typed.
    pub(super) line: &'a str,
    pub(super) identity: Identity<'a>,
    pub(super) input: Option<&'a Spool>,
    pub(super) show: &'a Show<'a>,
    pub(super) printer: &'a Printer,
}

impl Work<'_> {
    /// Runs the command on a node.
    pub(super) async fn on(&self, place: usize, node: &Node) -> Ending {
        let mut taker = self.show.taker(place, self.printer.pieces());
        let ending = match node.windows_label() {
            Some(label) => Ending::LeftAlone(format!("its label `{label}` says so")),
            None => self.connected(node, &mut taker).await,
        };
        taker.finish(&ending).await;
        ending
    }

    async fn connected(&self, node: &Node, taker: &mut Taker<'_>) -> Ending {
        match self.fan_out.connect(node).await {
            Ok(session) => {
                let ending = self.run(node, &session, taker).await;
                session.close().await;
                ending
            }
            Err(TransportError::Windows { identification, .. }) if node.roles == [Role::Worker] => {
                Ending::LeftAlone(format!("its SSH server is `{identification}`"))
            }
            Err(error) => Ending::Unreachable(cause(&error)),
        }
    }

    async fn run(&self, node: &Node, session: &Session, taker: &mut Taker<'_>) -> Ending {
        let Identity::Root { ways, marker } = self.identity else {
            let input = Input { before: None, piped: self.input.map(Spool::reader) };
            return ending(session.stream_line(self.line, input, None, taker).await);
        };
        let ways = WaysToRoot {
            become_root: ways,
            docker_socket: &node.docker_socket,
            marker,
            password: Password::Absent,
        };
        let mut approach = Approach::new(session, ways);
        loop {
            let script = approach.script(Body::Command(self.line));
            let before = Some(approach.stdin(&[]).to_vec()).filter(|password| !password.is_empty());
            let input = Input { before, piped: self.input.map(Spool::reader) };
            let mut rooted = Rooted::new(&mut *taker, marker, |access| approach.begun(access));
            let result = session.stream_line(&script, input, None, &mut rooted).await;
            let (search, refusal) = (rooted.search(), rooted.refusal());
            let (Ok(_), Some(search), Some(refusal)) = (&result, search, refusal) else {
                return ending(result);
            };
            match approach.learn(&search).await {
                Ok(Next::Again) => {}
                Ok(Next::Done) => return refusal,
                Err(error) => return Ending::Failed(cause(&error)),
            }
        }
    }
}

/// Returns how a command ended that a host was asked for.
fn ending(result: Result<Ended, TransportError>) -> Ending {
    match result {
        Ok(Ended { status: Some(status), .. }) => Ending::Exited(status),
        Ok(Ended { signal, .. }) => Ending::Killed(signal),
        Err(error @ TransportError::CommandTimedOut { .. }) => Ending::TimedOut(cause(&error)),
        Err(error) => Ending::Failed(cause(&error)),
    }
}

fn cause(error: &TransportError) -> Cause {
    Cause { error: error.to_string(), hint: error.hint() }
}

/// What the command reads: what was piped in, or nothing.
struct Input {
    /// What sudo reads before.
    before: Option<Vec<u8>>,
    piped: Option<SpoolReader>,
}

impl Feed for Input {
    async fn next(&mut self) -> Option<Vec<u8>> {
        match self.before.take() {
            Some(before) => Some(before),
            None => self.piped.as_mut()?.next().await,
        }
    }
}

impl Sink for Taker<'_> {
    async fn take(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), Full> {
        self.piece(stream, bytes).await;
        Ok(())
    }
}
