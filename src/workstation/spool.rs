//! A spool is what comes in on stdin, kept for every node that is to read it.
//!
//! `exec` makes it. Nodes read at their own pace, and some begin when others have ended: what has come is kept, the beginning in
//! memory and the rest in a file without a name. Nothing is read much further than the fastest node has come.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use zeroize::Zeroizing;

/// How much is kept in memory.
const IN_MEMORY: usize = 1 << 20;

/// How far ahead of the fastest reader is read.
const AHEAD: u64 = 1 << 20;

/// How much is handed out at once: what fits into one packet of SSH.
const PIECE: usize = 32 * 1024;

/// An input that many read from its beginning to its end.
#[derive(Debug, Clone)]
pub struct Spool {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Told when something came, or nothing more does.
    grown: Notify,
    /// Told when a reader has come further.
    wanted: Condvar,
}

#[derive(Debug, Default)]
struct State {
    head: Zeroizing<Vec<u8>>,
    rest: Option<Arc<File>>,
    length: u64,
    /// How far the fastest reader has come.
    furthest: u64,
    end: Option<End>,
}

#[derive(Debug, Clone)]
enum End {
    Reached,
    Failed(String),
}

impl Spool {
    /// Returns the spool of a source, which is read by a thread of its own.
    pub fn of(source: impl Read + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let filler = Arc::clone(&shared);
        std::thread::spawn(move || {
            let end = match fill(&filler, source) {
                Ok(()) => End::Reached,
                Err(error) => End::Failed(error.to_string()),
            };
            filler.state().end = Some(end);
            filler.grown.notify_waiters();
        });
        Self { shared }
    }

    /// Returns a reader that begins at the beginning.
    pub fn reader(&self) -> SpoolReader {
        SpoolReader { shared: Arc::clone(&self.shared), offset: 0 }
    }

    /// Waits until the source cannot be read or kept, and returns why; as long as all is well, it waits for ever.
    pub async fn failure(&self) -> String {
        loop {
            let grown = self.shared.grown.notified();
            if let Some(End::Failed(reason)) = &self.shared.state().end {
                return reason.clone();
            }
            grown.await;
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // What was appended is whole before it is counted.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a source to its end.
fn fill(shared: &Shared, mut source: impl Read) -> io::Result<()> {
    let mut buffer = Zeroizing::new(vec![0; PIECE]);
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        append(shared, buffer.get(..read).unwrap_or_default())?;
        shared.grown.notify_waiters();
        let mut state = shared.state();
        while state.length >= state.furthest + AHEAD {
            state = shared.wanted.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn append(shared: &Shared, bytes: &[u8]) -> io::Result<()> {
    let mut state = shared.state();
    let room = IN_MEMORY - state.head.len();
    let (head, rest) = bytes.split_at(bytes.len().min(room));
    if !head.is_empty() {
        // At once, so that no copy is left behind; pages that are not written to cost nothing.
        state.head.reserve_exact(room);
        state.head.extend_from_slice(head);
    }
    if !rest.is_empty() {
        let file = match &state.rest {
            Some(file) => Arc::clone(file),
            None => Arc::clone(state.rest.insert(Arc::new(tempfile::tempfile()?))),
        };
        (&*file).write_all(rest)?;
    }
    state.length += bytes.len() as u64;
    Ok(())
}

/// One reader of a spool.
#[derive(Debug)]
pub struct SpoolReader {
    shared: Arc<Shared>,
    offset: u64,
}

/// Where the next piece is.
enum Next {
    Here(Vec<u8>),
    InFile { file: Arc<File>, at: u64, length: usize },
    Ended,
    Later,
}

impl SpoolReader {
    /// Waits for the next piece; `None` at the end. It waits for ever where the source failed: what came is not all.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let shared = Arc::clone(&self.shared);
            let grown = shared.grown.notified();
            let piece = match self.look() {
                Next::Here(piece) => piece,
                Next::InFile { file, at, length } => match read(file, at, length).await {
                    Ok(piece) => piece,
                    Err(error) => {
                        shared.state().end = Some(End::Failed(error.to_string()));
                        shared.grown.notify_waiters();
                        return std::future::pending().await;
                    }
                },
                Next::Ended => return None,
                Next::Later => {
                    grown.await;
                    continue;
                }
            };
            self.offset += piece.len() as u64;
            let mut state = shared.state();
            if self.offset > state.furthest {
                state.furthest = self.offset;
                shared.wanted.notify_one();
            }
            return Some(piece);
        }
    }

    fn look(&self) -> Next {
        let state = self.shared.state();
        let length = (state.length - self.offset).min(PIECE as u64) as usize;
        let ahead = usize::try_from(self.offset).ok().and_then(|at| state.head.get(at..));
        match (ahead, &state.rest, &state.end) {
            (Some(ahead), ..) if !ahead.is_empty() => {
                Next::Here(ahead.get(..length).unwrap_or(ahead).to_vec())
            }
            (_, Some(file), _) if length > 0 => {
                Next::InFile { file: Arc::clone(file), at: self.offset - IN_MEMORY as u64, length }
            }
            (_, _, Some(End::Reached)) => Next::Ended,
            _ => Next::Later,
        }
    }
}

async fn read(file: Arc<File>, at: u64, length: usize) -> io::Result<Vec<u8>> {
    let read = move || {
        let mut piece = vec![0; length];
        file.read_exact_at(&mut piece, at)?;
        Ok(piece)
    };
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(mut reader: SpoolReader) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(piece) = reader.next().await {
            all.extend(piece);
        }
        all
    }

    fn numbers(count: u32) -> Vec<u8> {
        (0..count).flat_map(u32::to_be_bytes).collect()
    }

    #[tokio::test]
    async fn every_reader_gets_all_of_it_whenever_it_begins() {
        let input = numbers(1_000_000);
        let spool = Spool::of(io::Cursor::new(input.clone()));
        let (first, second) = tokio::join!(all(spool.reader()), all(spool.reader()));
        assert!(first == input && second == input);
        assert!(all(spool.reader()).await == input);
    }

    #[tokio::test]
    async fn an_empty_input_ends_at_once() {
        let spool = Spool::of(io::empty());
        assert_eq!(spool.reader().next().await, None);
    }

    /// A source without end that tells how much was read.
    struct Endless(std::sync::mpsc::Sender<u64>, u64);

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 += buffer.len() as u64;
            let _ = self.0.send(self.1);
            Ok(buffer.len())
        }
    }

    #[tokio::test]
    async fn an_endless_input_is_not_read_ahead_for_ever() {
        let (sender, told) = std::sync::mpsc::channel();
        let spool = Spool::of(Endless(sender, 0));
        let mut reader = spool.reader();
        for _ in 0..200 {
            assert_eq!(reader.next().await.map(|piece| piece.len()), Some(PIECE));
        }
        let read = 200 * PIECE as u64;
        assert!(told.try_iter().all(|amount| amount <= read + AHEAD + PIECE as u64));
    }

    /// A source that breaks.
    struct Broken;

    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("it broke"))
        }
    }

    #[tokio::test]
    async fn a_source_that_breaks_is_told_and_never_ends_well() {
        let spool = Spool::of(Broken);
        assert_eq!(spool.failure().await, "it broke");
        assert!(futures::FutureExt::now_or_never(spool.reader().next()).is_none());
    }
}
