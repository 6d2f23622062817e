//! The printer writes what nodes print while more of it comes: in large pieces, in their order, and never faster than its reader.
//!
//! `exec` gives it what is to be written. A reader that stops reading stops the nodes, and nothing else.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::report::progress::Looking;

/// How many pieces may wait to be written.
const WAITING: usize = 16;

/// How much is written at once.
const AT_ONCE: usize = 64 * 1024;

/// Something to be written, whole lines.
#[derive(Debug)]
pub(super) enum Piece {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
}

/// Who writes to stdout and stderr.
#[derive(Debug)]
pub(super) struct Printer {
    pieces: Sender<Piece>,
    thread: JoinHandle<()>,
}

impl Printer {
    /// Starts a printer; a bar is taken away while it writes.
    pub(super) fn start(bar: Option<Arc<Looking>>) -> Self {
        let (pieces, waiting) = mpsc::channel(WAITING);
        let thread = std::thread::spawn(move || work(waiting, bar.as_deref()));
        Self { pieces, thread }
    }

    /// Returns a way to give it pieces; it fails when the reader of stdout has gone away.
    pub(super) fn pieces(&self) -> Sender<Piece> {
        self.pieces.clone()
    }

    /// Waits until the reader of stdout has gone away.
    pub(super) async fn closed(&self) {
        self.pieces.closed().await;
    }

    /// Waits until everything is written.
    pub(super) async fn finish(self) {
        drop(self.pieces);
        // It does not panic; if it did, what it wrote is written.
        let _ = tokio::task::spawn_blocking(|| self.thread.join()).await;
    }
}

fn work(mut waiting: Receiver<Piece>, bar: Option<&Looking>) {
    let mut next = waiting.blocking_recv();
    while let Some(piece) = next.take() {
        let written = match piece {
            Piece::Stdout(bytes) => {
                let bytes = more(&mut waiting, bytes, &mut next, |piece| match piece {
                    Piece::Stdout(bytes) => Ok(bytes),
                    other @ Piece::Stderr(_) => Err(other),
                });
                write(io::stdout().lock(), &bytes, bar)
            }
            Piece::Stderr(bytes) => {
                let bytes = more(&mut waiting, bytes, &mut next, |piece| match piece {
                    Piece::Stderr(bytes) => Ok(bytes),
                    other @ Piece::Stdout(_) => Err(other),
                });
                // Without messages the rest is worth something.
                let _ = write(io::stderr().lock(), &bytes, bar);
                Ok(())
            }
        };
        if written.is_err() {
            return;
        }
        if next.is_none() {
            next = waiting.blocking_recv();
        }
    }
}

/// Adds to a piece what waits behind it for the same stream; the first of another one is left in `next`.
fn more(
    waiting: &mut Receiver<Piece>,
    mut bytes: Vec<u8>,
    next: &mut Option<Piece>,
    same: impl Fn(Piece) -> Result<Vec<u8>, Piece>,
) -> Vec<u8> {
    while bytes.len() < AT_ONCE {
        match waiting.try_recv().map(&same) {
            Ok(Ok(added)) => bytes.extend(added),
            Ok(Err(other)) => {
                *next = Some(other);
                break;
            }
            Err(_) => break,
        }
    }
    bytes
}

fn write(mut stream: impl Write, bytes: &[u8], bar: Option<&Looking>) -> io::Result<()> {
    let mut write = || stream.write_all(bytes).and_then(|()| stream.flush());
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}
