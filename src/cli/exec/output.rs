//! The output of `exec`: what becomes of what each node prints.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::{Permit, Sender};

use crate::cli::printer::{Piece, Printer};
use crate::cli::terminal::Terminal;
use crate::inventory::Node;
use crate::report::exec::{Ending, Escaping, Fold, Kept, LineWriter, Prefix, Room, document, line_of};
use crate::report::json_line;
use crate::report::progress::Looking;
use crate::report::style::{Style, Tone};
use crate::transport::Stream;

/// The form in which it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Lines as they come.
    Lines,
    /// Groups of nodes that printed the same, at the end.
    Fold,
    /// A line of JSON a node.
    Json,
}

/// What all nodes have in common.
pub(super) struct Show<'a> {
    form: Form,
    names: Vec<&'a str>,
    stdout: Prefix,
    stderr: Prefix,
    error_style: Style,
    /// What is kept of each node. It outlives the work on it: of a node that is cut off, it is shown too.
    keepings: Vec<Mutex<Keeping>>,
    folds: Mutex<Folds>,
    bar: Option<Arc<Looking>>,
    nodes: &'a [&'a Node],
    done: AtomicUsize,
}

#[derive(Default)]
struct Folds {
    stdout: Fold,
    stderr: Fold,
    room: Room,
}

impl<'a> Show<'a> {
    pub(super) fn new(
        form: Form,
        nodes: &'a [&'a Node],
        terminal: &Terminal,
        bar: Option<Arc<Looking>>,
    ) -> Self {
        let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        let width = names.iter().map(|name| name.len()).max().unwrap_or_default();
        let escaping = |is_terminal| if is_terminal { Escaping::Harmless } else { Escaping::Raw };
        let prefix =
            |tone, style, is_terminal| Prefix { width, tone, style, escaping: escaping(is_terminal) };
        Self {
            form,
            names,
            stdout: prefix(Tone::Good, terminal.style(), std::io::stdout().is_terminal()),
            stderr: prefix(Tone::Warning, terminal.error_style(), std::io::stderr().is_terminal()),
            error_style: terminal.error_style(),
            keepings: nodes.iter().map(|_| Mutex::new(Keeping::of(form))).collect(),
            folds: Mutex::default(),
            bar,
            nodes,
            done: AtomicUsize::new(0),
        }
    }

    /// Returns who takes what the node at a place prints.
    pub(super) fn taker(&'a self, place: usize, pieces: Sender<Piece>) -> Taker<'a> {
        Taker { show: self, place, name: self.name(place), pieces }
    }

    fn name(&self, place: usize) -> &'a str {
        self.names.get(place).copied().unwrap_or_default()
    }

    fn keeping(&self, place: usize) -> Option<MutexGuard<'_, Keeping>> {
        Some(self.keepings.get(place)?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that the node at a place has ended.
    pub(super) fn progress(&self, place: usize) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if let (Some(bar), Some(node)) = (&self.bar, self.nodes.get(place)) {
            bar.seen(done, self.nodes.len(), &node.name);
        }
    }

    /// Shows what was kept until the end, also of nodes that were cut off or not run, and takes the bar away.
    pub(super) async fn finish(&self, printer: &Printer, endings: &[Ending]) {
        if let Some(bar) = &self.bar {
            bar.clear();
        }
        let pieces = printer.pieces();
        for (place, ending) in endings.iter().enumerate() {
            let (out, err) = self.rest(place, ending);
            // A reader that has gone away wants no more.
            if !offer(&pieces, Piece::Stdout(out)).await || !offer(&pieces, Piece::Stderr(err)).await {
                return;
            }
        }
        if self.form != Form::Fold {
            return;
        }
        let folds = std::mem::take(&mut *self.folds.lock().unwrap_or_else(PoisonError::into_inner));
        let stdout = folds.stdout.shown(&self.names, self.stdout.style, self.stdout.escaping);
        let stderr = folds.stderr.shown(&self.names, self.stderr.style, self.stderr.escaping);
        if offer(&pieces, Piece::Stdout(stdout)).await {
            offer(&pieces, Piece::Stderr(stderr)).await;
        }
    }

    /// Returns what is to be shown at the end of a node, for stdout and for stderr; nothing where it was asked for before.
    fn rest(&self, place: usize, ending: &Ending) -> (Vec<u8>, Vec<u8>) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let name = self.name(place);
        let keeping = self.keeping(place).map(|mut keeping| std::mem::replace(&mut *keeping, Keeping::Shown));
        match keeping {
            None | Some(Keeping::Shown) => return (out, err),
            Some(Keeping::Lines { mut stdout, mut stderr }) => {
                stdout.finish(name, &self.stdout, &mut out);
                stderr.finish(name, &self.stderr, &mut err);
            }
            Some(Keeping::Whole(kept)) if self.form == Form::Json => {
                out.extend_from_slice(json_line(&document(name, &kept, ending)).as_bytes());
                out.push(b'\n');
            }
            Some(Keeping::Whole(mut kept)) => {
                let mut folds = self.folds.lock().unwrap_or_else(PoisonError::into_inner);
                let Folds { stdout, stderr, room } = &mut *folds;
                if ending.status().is_some() || !kept.stdout.is_empty() {
                    stdout.add_stdout(place, &mut kept, room);
                }
                stderr.add_stderr(place, &mut kept, room);
            }
        }
        // JSON says it in its own line; whom the operator stopped, the summary names.
        if self.form != Form::Json
            && !matches!(ending, Ending::Cut | Ending::NotRun)
            && let Some(line) = line_of(name, ending, self.error_style)
        {
            err.extend_from_slice(line.as_bytes());
            err.push(b'\n');
        }
        (out, err)
    }
}

/// Who takes what one node prints.
pub(super) struct Taker<'a> {
    show: &'a Show<'a>,
    place: usize,
    name: &'a str,
    pieces: Sender<Piece>,
}

/// What is kept of a node until it can be shown.
enum Keeping {
    /// Lines that have not ended yet.
    Lines { stdout: LineWriter, stderr: LineWriter },
    /// All, to a limit.
    Whole(Box<Kept>),
    /// Nothing any more.
    Shown,
}

impl Keeping {
    fn of(form: Form) -> Self {
        match form {
            Form::Lines => Self::Lines { stdout: LineWriter::default(), stderr: LineWriter::default() },
            Form::Fold | Form::Json => Self::Whole(Box::default()),
        }
    }
}

impl Taker<'_> {
    /// Shows a piece of a stream, or keeps it.
    pub(super) async fn piece(&mut self, stream: Stream, bytes: &[u8]) {
        let permit = self.permit().await;
        let mut lines = Vec::new();
        match (self.show.keeping(self.place).as_deref_mut(), stream) {
            (Some(Keeping::Lines { stdout, .. }), Stream::Stdout) => {
                stdout.feed(self.name, bytes, &self.show.stdout, &mut lines);
            }
            (Some(Keeping::Lines { stderr, .. }), Stream::Stderr) => {
                stderr.feed(self.name, bytes, &self.show.stderr, &mut lines);
            }
            (Some(Keeping::Whole(kept)), Stream::Stdout) => kept.stdout(bytes),
            (Some(Keeping::Whole(kept)), Stream::Stderr) => kept.stderr(bytes),
            (Some(Keeping::Shown) | None, _) => {}
        }
        give(
            permit,
            match stream {
                Stream::Stdout => Piece::Stdout(lines),
                Stream::Stderr => Piece::Stderr(lines),
            },
        );
    }

    /// Shows what has no end of a line, or what was kept, and how the command ended.
    pub(super) async fn finish(self, ending: &Ending) {
        // Both places first: what is taken out is then shown, whatever ends this.
        let Ok(mut permits) = self.pieces.reserve_many(2).await else { return std::future::pending().await };
        let (out, err) = self.show.rest(self.place, ending);
        give(permits.next(), Piece::Stdout(out));
        give(permits.next(), Piece::Stderr(err));
    }

    /// Waits for a place at the printer where lines are shown as they come: before they are taken, so that none is lost.
    async fn permit(&self) -> Option<Permit<'_, Piece>> {
        match self.show.form {
            Form::Lines => Some(place_in(&self.pieces).await),
            Form::Fold | Form::Json => None,
        }
    }
}

/// Waits for a place at the printer; where the reader of stdout has gone away, it waits until that ends everything.
async fn place_in(pieces: &Sender<Piece>) -> Permit<'_, Piece> {
    match pieces.reserve().await {
        Ok(permit) => permit,
        Err(_) => std::future::pending().await,
    }
}

/// Gives the printer what there is.
fn give(permit: Option<Permit<'_, Piece>>, piece: Piece) {
    let (Piece::Stdout(bytes) | Piece::Stderr(bytes)) = &piece;
    if let Some(permit) = permit
        && !bytes.is_empty()
    {
        permit.send(piece);
    }
}

/// Gives the printer what there is, and returns whether anybody reads it.
async fn offer(pieces: &Sender<Piece>, piece: Piece) -> bool {
    let (Piece::Stdout(bytes) | Piece::Stderr(bytes)) = &piece;
    bytes.is_empty() || pieces.send(piece).await.is_ok()
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    const PREFIX: Prefix =
        Prefix { width: 3, tone: Tone::Good, style: Style::PLAIN, escaping: Escaping::Raw };

    /// A show of `w-1` and `w-2`.
    fn show(form: Form) -> Show<'static> {
        Show {
            form,
            names: vec!["w-1", "w-2"],
            stdout: PREFIX,
            stderr: PREFIX,
            error_style: Style::PLAIN,
            keepings: (0..2).map(|_| Mutex::new(Keeping::of(form))).collect(),
            folds: Mutex::default(),
            bar: None,
            nodes: &[],
            done: AtomicUsize::new(0),
        }
    }

    /// Returns what is shown at the end where `w-1` printed a part of a line and was cut off, and `w-2` was not run.
    async fn stopped(show: &Show<'_>) -> String {
        let (pieces, _waiting) = mpsc::channel(4);
        let mut taker = show.taker(0, pieces);
        taker.piece(Stream::Stdout, b"begun").await;
        drop(taker);
        let rests = [show.rest(0, &Ending::Cut), show.rest(1, &Ending::NotRun), show.rest(0, &Ending::Cut)];
        rests.into_iter().map(|(out, err)| String::from_utf8([out, err].concat()).unwrap()).collect()
    }

    #[tokio::test]
    async fn what_was_kept_of_nodes_that_are_cut_off_is_shown_once() {
        assert_eq!(stopped(&show(Form::Lines)).await, "w-1: begun\n");
        let json = stopped(&show(Form::Json)).await;
        let lines: Vec<&str> = json.lines().collect();
        let [cut, not_run] = lines.as_slice() else { panic!("{json}") };
        assert!(cut.contains("\"begun\"") && cut.contains("cut off by the operator"), "{cut}");
        assert!(not_run.contains("\"w-2\"") && not_run.contains("not run"), "{not_run}");
        let show = show(Form::Fold);
        assert_eq!(stopped(&show).await, "");
        let folds = std::mem::take(&mut *show.folds.lock().unwrap());
        let folded = folds.stdout.shown(&show.names, Style::PLAIN, Escaping::Raw);
        assert_eq!(String::from_utf8(folded).unwrap(), "--- w-1 (1 node)\nbegun\n");
    }
}
