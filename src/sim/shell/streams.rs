//! What a simulated process reads and writes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use crate::sim::clock::lock;
use crate::sim::files::{Errno, FileId};
use crate::sim::life::Life;
use crate::sim::machine::SimNode;

/// Bytes that are there, and those that may still come over the wire.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    ready: VecDeque<u8>,
    wire: Option<Receiver<Vec<u8>>>,
}

/// Something to read from; clones read from the same place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Source(Rc<RefCell<Feed>>);

impl Source {
    /// Returns a source of bytes that are known.
    pub(crate) fn of(bytes: Vec<u8>) -> Self {
        Self(Rc::new(RefCell::new(Feed { ready: bytes.into(), wire: None })))
    }

    /// Returns a source that waits for what a client sends, until the sender is dropped.
    pub(crate) fn wire(receiver: Receiver<Vec<u8>>) -> Self {
        Self(Rc::new(RefCell::new(Feed { ready: VecDeque::new(), wire: Some(receiver) })))
    }

    /// Waits for more; `false` at the end.
    fn more(&self) -> bool {
        let mut feed = self.0.borrow_mut();
        let received = feed.wire.as_ref().and_then(|wire| wire.recv().ok());
        if let Some(bytes) = received {
            feed.ready.extend(bytes);
            true
        } else {
            feed.wire = None;
            false
        }
    }

    /// Returns everything up to the end.
    pub(crate) fn read_all(&self) -> Vec<u8> {
        while self.more() {}
        self.0.borrow_mut().ready.drain(..).collect()
    }

    /// Returns the next line without its end, and whether it had one; `None` at the end.
    pub(crate) fn read_line(&self) -> Option<(Vec<u8>, bool)> {
        loop {
            let end = self.0.borrow().ready.iter().position(|byte| *byte == b'\n');
            if let Some(end) = end {
                let mut line: Vec<u8> = self.0.borrow_mut().ready.drain(..=end).collect();
                line.pop();
                return Some((line, true));
            }
            if !self.more() {
                let rest: Vec<u8> = self.0.borrow_mut().ready.drain(..).collect();
                return (!rest.is_empty()).then_some((rest, false));
            }
        }
    }

    /// Returns at most that many bytes; fewer at the end.
    pub(crate) fn read_exact(&self, count: usize) -> Vec<u8> {
        while self.0.borrow().ready.len() < count && self.more() {}
        let mut feed = self.0.borrow_mut();
        let count = count.min(feed.ready.len());
        feed.ready.drain(..count).collect()
    }
}

/// Something to write to; clones write to the same place.
#[derive(Debug, Clone)]
pub(crate) enum Sink {
    /// What a pipe, a substitution or the client will read.
    Buffer(Rc<RefCell<Vec<u8>>>),
    /// What the client reads while it is there.
    Wire(Rc<RefCell<Vec<u8>>>, Arc<Life>),
    /// A file that a redirection opened.
    File(Arc<SimNode>, FileId),
    /// `/dev/null`.
    Null,
}

impl Sink {
    /// Returns an empty buffer.
    pub(crate) fn buffer() -> Self {
        Self::Buffer(Rc::default())
    }

    /// Returns an empty buffer for a client.
    pub(crate) fn wire(life: &Arc<Life>) -> Self {
        Self::Wire(Rc::default(), Arc::clone(life))
    }

    /// Makes a client's buffer one that is always read.
    pub(crate) fn detach(&mut self) {
        if let Self::Wire(buffer, _) = self {
            *self = Self::Buffer(Rc::clone(buffer));
        }
    }

    /// Writes bytes.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<(), Errno> {
        match self {
            Self::Wire(_, life) if life.is_deserted() => Err(Errno::Pipe),
            Self::Buffer(buffer) | Self::Wire(buffer, _) => {
                buffer.borrow_mut().extend_from_slice(bytes);
                Ok(())
            }
            Self::File(node, id) => lock(&node.machine).files.append(*id, bytes),
            Self::Null => Ok(()),
        }
    }

    /// Takes what a buffer holds.
    pub(crate) fn take(&self) -> Vec<u8> {
        match self {
            Self::Buffer(buffer) | Self::Wire(buffer, _) => buffer.take(),
            Self::File(..) | Self::Null => Vec::new(),
        }
    }
}
