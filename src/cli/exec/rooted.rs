//! A rooted command runs as root: the way to root is found out on the node itself, in the same round trip.
//!
//! What the node's shell says before the command begins, and the frame that tells the way, are not the command's output.

use crate::command::{Access, Search};
use crate::facts::probe::{ProbeError, first_words};
use crate::report::exec::{Cause, Ending};
use crate::transport::{Full, Sink, Stream};

/// How much is kept of what a shell says before the command begins: its end, where the frame is.
const LONGEST_BEGINNING: usize = 64 * 1024;

/// Takes the output of a script that looks for a way to root, and hands on what the command prints.
pub(super) struct Rooted<'a, S, F> {
    taker: &'a mut S,
    marker: &'a str,
    /// Who is told as soon as the command begins.
    begun: F,
    /// What came before the command began.
    beginning: Vec<u8>,
    /// What was said to stderr meanwhile: of a script that is run once more, nobody wants to see it.
    beginning_stderr: Vec<u8>,
    has_begun: bool,
}

impl<'a, S: Sink, F: FnMut(&Access)> Rooted<'a, S, F> {
    pub(super) fn new(taker: &'a mut S, marker: &'a str, begun: F) -> Self {
        let (beginning, beginning_stderr) = (Vec::new(), Vec::new());
        Self { taker, marker, begun, beginning, beginning_stderr, has_begun: false }
    }

    /// Returns how the search has ended, where the command did not begin.
    pub(super) fn search(&self) -> Option<Search> {
        (!self.has_begun).then(|| Search::read(&String::from_utf8_lossy(&self.beginning), self.marker))
    }

    /// Returns why the command did not begin, where it did not although the script ended by itself.
    pub(super) fn refusal(&self) -> Option<Ending> {
        if self.has_begun {
            return None;
        }
        let said = String::from_utf8_lossy(&self.beginning);
        let error = match Search::read(&said, self.marker) {
            Search::Refused(refused) => ProbeError::NoAccess(refused),
            Search::Found(_) | Search::Silent if said.trim().is_empty() => {
                ProbeError::NotRun(first_words(&String::from_utf8_lossy(&self.beginning_stderr)))
            }
            Search::Found(_) | Search::Silent => ProbeError::NotRun(first_words(&said)),
        };
        Some(Ending::Failed(Cause { error: error.to_string(), hint: error.hint() }))
    }

    /// Returns where the command's own output begins, once the frame has come that tells the way.
    fn begin(&self) -> Option<usize> {
        let frame = format!("\n{} access ", self.marker);
        let at = self.beginning.windows(frame.len()).position(|part| part == frame.as_bytes())?;
        let behind = self.beginning.get(at + frame.len()..)?;
        let end = behind.iter().position(|byte| *byte == b'\n')?;
        Some(at + frame.len() + end + 1)
    }
}

impl<S: Sink, F: FnMut(&Access) + Send> Sink for Rooted<'_, S, F> {
    async fn take(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), Full> {
        if self.has_begun {
            return self.taker.take(stream, bytes).await;
        }
        match stream {
            Stream::Stdout => self.beginning.extend_from_slice(bytes),
            Stream::Stderr => self.beginning_stderr.extend_from_slice(bytes),
        }
        if let Some(at) = self.begin() {
            self.has_begun = true;
            let beginning = std::mem::take(&mut self.beginning);
            if let Search::Found(access) = Search::read(&String::from_utf8_lossy(&beginning), self.marker) {
                (self.begun)(&access);
            }
            let stderr = std::mem::take(&mut self.beginning_stderr);
            if !stderr.is_empty() {
                self.taker.take(Stream::Stderr, &stderr).await?;
            }
            return self.taker.take(Stream::Stdout, beginning.get(at..).unwrap_or_default()).await;
        }
        for kept in [&mut self.beginning, &mut self.beginning_stderr] {
            let surplus = kept.len().saturating_sub(LONGEST_BEGINNING);
            kept.drain(..surplus);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[derive(Default)]
    struct All(Vec<u8>, Vec<u8>);

    impl Sink for All {
        async fn take(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), Full> {
            match stream {
                Stream::Stdout => self.0.extend_from_slice(bytes),
                Stream::Stderr => self.1.extend_from_slice(bytes),
            }
            Ok(())
        }
    }

    /// Gives a text in pieces of some bytes, and returns what is handed on, and the refusal.
    fn given(text: &str, size: usize) -> (String, Option<Ending>) {
        let mut all = All::default();
        let mut rooted = Rooted::new(&mut all, "MARK", |_| ());
        for piece in text.as_bytes().chunks(size) {
            rooted.take(Stream::Stdout, piece).now_or_never().unwrap().unwrap();
        }
        let refusal = rooted.refusal();
        (String::from_utf8(all.0).unwrap(), refusal)
    }

    #[test]
    fn what_comes_before_the_command_is_not_its_output() {
        for size in [1, 3, 1000] {
            let (printed, refusal) = given("Welcome!\n\nMARK access sudo\nMARK access root\nb", size);
            assert_eq!((printed.as_str(), refusal), ("MARK access root\nb", None));
        }
    }

    #[test]
    fn no_way_to_root_is_told() {
        let (printed, refusal) = given("\nMARK none uid 1000; sudo: no; docker: no\nsudo says no\n", 7);
        assert_eq!(printed, "");
        let error = refusal.and_then(|ending| ending.error()).unwrap();
        assert_eq!(error, "no way to root: uid 1000; sudo: no; docker: no");
    }

    #[test]
    fn a_shell_that_runs_nothing_is_told() {
        let (_, refusal) = given("This account is currently not available.\n", 7);
        assert!(refusal.and_then(|ending| ending.error()).unwrap().contains("currently not available"));
    }
}
