//! The manners of a host are what its login wants of every command: words that its shell passes on, or a terminal.
//!
//! A search for root finds them out; every session to the host keeps to them from then on.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use russh::Pty;
use zeroize::Zeroizing;

use super::login::Login;
use super::{Endpoint, Full, Sink, Stream};
use crate::command::quote;

/// What one login of a host wants; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Manners(Arc<Wanted>);

#[derive(Debug, Default)]
struct Wanted {
    encoding: AtomicBool,
    terminal: AtomicBool,
}

/// Begins the line behind which a command on a terminal tells its status and what it wrote to stderr.
const STDERR_FOLLOWS: &str = "\ncertroll-stderr-follows ";

/// A terminal that passes bytes on as they are: it echoes, edits, translates and obeys nothing (RFC 4254, 8).
pub(super) const RAW_TERMINAL: [(Pty, u32); 21] = [
    (Pty::ECHO, 0),
    (Pty::ECHOE, 0),
    (Pty::ECHOK, 0),
    (Pty::ECHONL, 0),
    (Pty::ECHOCTL, 0),
    (Pty::ICANON, 0),
    (Pty::ISIG, 0),
    (Pty::IEXTEN, 0),
    (Pty::ISTRIP, 0),
    (Pty::INLCR, 0),
    (Pty::IGNCR, 0),
    (Pty::ICRNL, 0),
    (Pty::IUCLC, 0),
    (Pty::IXON, 0),
    (Pty::IXANY, 0),
    (Pty::IXOFF, 0),
    (Pty::PARMRK, 0),
    (Pty::OPOST, 0),
    (Pty::ONLCR, 0),
    (Pty::CS8, 1),
    (Pty::PARENB, 0),
];

impl Manners {
    /// Returns whether commands need a terminal.
    pub(super) fn want_terminal(&self) -> bool {
        self.0.terminal.load(Ordering::Acquire)
    }

    /// Returns whether the shell of the login is told everything in words that any shell passes on.
    pub(super) fn want_encoding(&self) -> bool {
        self.0.encoding.load(Ordering::Acquire)
    }

    pub(super) fn set_terminal(&self, wanted: bool) {
        self.0.terminal.store(wanted, Ordering::Release);
    }

    pub(super) fn set_encoding(&self, wanted: bool) {
        self.0.encoding.store(wanted, Ordering::Release);
    }

    /// Returns what is known now, for one command: another may find out more while it is on its way.
    pub(super) fn now(&self) -> Dress {
        Dress { encoding: self.want_encoding(), terminal: self.want_terminal() }
    }
}

/// What one command is given as the login wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dress {
    encoding: bool,
    terminal: bool,
}

impl Dress {
    /// Returns whether the command is given a terminal.
    pub(super) fn has_terminal(self) -> bool {
        self.terminal
    }

    /// Returns a line as the login's shell has to be given it; `stdin` is how many bytes it reads.
    pub(super) fn line(self, line: &str, stdin: usize) -> Cow<'_, str> {
        let mut line = Cow::Borrowed(line);
        if self.terminal {
            line = Cow::Owned(on_terminal(&line, stdin));
        }
        if self.encoding {
            line = Cow::Owned(encoded(&line));
        }
        line
    }
}

/// Returns a line that any shell passes on to `sh` unchanged: the words of `csh` and `fish` end at other characters than those of `sh`.
fn encoded(line: &str) -> String {
    let mut word = String::with_capacity(line.len() + line.len() / 8);
    for character in line.chars() {
        match character {
            '\'' | '!' | '\n' | '\\' => {
                // Writing to a string cannot fail.
                let _ = write!(word, "\\0{:03o}", u32::from(character));
            }
            character => word.push(character),
        }
    }
    format!("exec /bin/sh -c 'eval \"$(printf %b \"$1\")\"' sh '{word}'")
}

/// Returns a line that keeps stdout and stderr of another apart, and ends its stdin, where both are one terminal.
fn on_terminal(line: &str, stdin: usize) -> String {
    let line = quote(line);
    // A terminal has no end: the shell reads as many bytes as there are.
    let fed = if stdin == 0 {
        format!("/bin/sh -c {line} </dev/null")
    } else {
        format!("head -c {stdin} | /bin/sh -c {line}")
    };
    format!(
        "exec 3>&1\nsaid=$({{ {fed}; }} 2>&1 >&3 3>&-)\nstatus=$?\n\
         printf '\\ncertroll-stderr-follows %s\\n%s' \"$status\" \"$said\"\nexit \"$status\"\n"
    )
}

/// Takes stdout and stderr of a command on a terminal apart again, and hands them on.
pub(super) struct Apart<'a, S> {
    sink: &'a mut S,
    /// What may be the beginning of the line, or what came behind it.
    held: Zeroizing<Vec<u8>>,
    is_behind: bool,
}

/// How much a command may write to stderr where it needs a terminal: it is kept until the end.
const LARGEST_STDERR: usize = 1 << 20;

impl<'a, S: Sink> Apart<'a, S> {
    pub(super) fn new(sink: &'a mut S) -> Self {
        Self { sink, held: Zeroizing::default(), is_behind: false }
    }

    /// Hands on what was held; a command that was cut off has no stderr.
    pub(super) async fn finish(self) -> Result<(), Full> {
        if !self.is_behind {
            return self.sink.take(Stream::Stdout, &self.held).await;
        }
        // The status comes first; the channel tells it, too.
        let end = self.held.iter().position(|byte| *byte == b'\n');
        let stderr = end.and_then(|end| self.held.get(end + 1..)).unwrap_or_default().to_vec();
        if stderr.is_empty() { Ok(()) } else { self.sink.take(Stream::Stderr, &stderr).await }
    }
}

impl<S: Sink> Sink for Apart<'_, S> {
    async fn take(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), Full> {
        if stream == Stream::Stderr {
            return self.sink.take(stream, bytes).await;
        }
        self.held.extend_from_slice(bytes);
        if self.is_behind {
            return if self.held.len() > LARGEST_STDERR { Err(Full) } else { Ok(()) };
        }
        let line = STDERR_FOLLOWS.as_bytes();
        let found = self.held.windows(line.len()).position(|window| window == line);
        let certain = found.unwrap_or_else(|| self.held.len() - beginning_at_end(&self.held, line));
        let stdout = Zeroizing::new(self.held.get(..certain).unwrap_or_default().to_vec());
        self.is_behind = found.is_some();
        let passed = if self.is_behind { certain + line.len() } else { certain };
        self.held.drain(..passed);
        if stdout.is_empty() { Ok(()) } else { self.sink.take(Stream::Stdout, &stdout).await }
    }
}

/// Returns how many bytes at the end of a text may be the beginning of a line.
fn beginning_at_end(text: &[u8], line: &[u8]) -> usize {
    let longest = line.len().min(text.len());
    (1..=longest)
        .rev()
        .find(|length| line.get(..*length).is_some_and(|part| text.ends_with(part)))
        .unwrap_or(0)
}

/// The manners of all hosts that were met so far.
#[derive(Debug, Default)]
pub(super) struct AllManners(Mutex<HashMap<(Endpoint, String), Manners>>);

impl AllManners {
    /// Returns those of a login.
    pub(super) fn of(&self, login: &Login) -> Manners {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry((login.at.clone(), login.user.clone())).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn an_encoded_line_is_one_word_without_what_shells_differ_in() {
        let line = encoded("echo 'it'\\''s'!\nid");
        let word = line.rsplit_once("sh '").unwrap().1.strip_suffix('\'').unwrap();
        assert_eq!(word, r"echo \0047it\0047\0134\0047\0047s\0047\0041\0012id");
        assert!(!line.contains(['\n', '!']));
    }

    #[derive(Default)]
    struct Both(Vec<u8>, Vec<u8>);

    impl Sink for Both {
        async fn take(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), Full> {
            match stream {
                Stream::Stdout => self.0.extend_from_slice(bytes),
                Stream::Stderr => self.1.extend_from_slice(bytes),
            }
            Ok(())
        }
    }

    #[test]
    fn what_a_terminal_has_mixed_is_taken_apart() {
        for (mixed, stdout, stderr) in [
            ("data\n\ncertroll-stderr-follows 5\na warning", "data\n", "a warning"),
            ("\ncertroll-stderr-follows 0\n", "", ""),
            ("\n\ncertroll-stderr\ncertroll-stderr-follows 0\nx\ny", "\n\ncertroll-stderr", "x\ny"),
            ("cut off\ncertroll-std", "cut off\ncertroll-std", ""),
        ] {
            for size in [1, 3, 1000] {
                let mut both = Both::default();
                let mut apart = Apart::new(&mut both);
                for piece in mixed.as_bytes().chunks(size) {
                    apart.take(Stream::Stdout, piece).now_or_never().unwrap().unwrap();
                }
                apart.finish().now_or_never().unwrap().unwrap();
                assert_eq!(
                    (both.0, both.1),
                    (stdout.as_bytes().to_vec(), stderr.as_bytes().to_vec()),
                    "{size}"
                );
            }
        }
    }

    #[test]
    fn a_host_without_manners_gets_lines_as_they_are() {
        let manners = Manners::default();
        let bare = manners.now();
        manners.set_terminal(true);
        assert_eq!(bare.line("echo 'a'", 7), "echo 'a'", "what was looked up stays as it was");
        assert!(manners.now().line("cat", 7).contains("head -c 7 | /bin/sh -c cat"));
        assert!(manners.now().line("cat", 0).contains("/bin/sh -c cat </dev/null"));
        manners.set_encoding(true);
        assert!(manners.now().line("cat", 0).starts_with("exec /bin/sh -c 'eval "));
    }
}
