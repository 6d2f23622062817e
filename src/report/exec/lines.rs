//! The lines of nodes as they come: each whole, and behind the name of its node.

use std::borrow::Cow;

use crate::escape::shown;
use crate::report::style::{Style, Tone};

/// The longest line that is waited for; a longer one is shown in pieces of that size.
const LONGEST_LINE: usize = 16 * 1024;

/// Whether what nodes print can act on the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escaping {
    /// A terminal reads it: what would move its cursor or hide is spelt out.
    Harmless,
    /// A file or a program reads it: every byte stays.
    Raw,
}

/// How lines of a stream are shown.
#[derive(Debug, Clone, Copy)]
pub struct Prefix {
    /// The columns of the longest name.
    pub width: usize,
    /// The colour of names.
    pub tone: Tone,
    /// What the terminal allows.
    pub style: Style,
    /// Who reads it.
    pub escaping: Escaping,
}

impl Prefix {
    /// Writes one line, without its end, behind a node's name.
    pub fn write(&self, node: &str, line: &[u8], to: &mut Vec<u8>) {
        let name = self.style.paint(self.tone, &format!("{node}:"));
        let padding = self.width.saturating_sub(node.len()) + 1;
        to.extend_from_slice(name.as_bytes());
        to.extend(std::iter::repeat_n(b' ', padding));
        to.extend_from_slice(&text(line, self.escaping));
        // No blank hangs behind the name of an empty line.
        while line.is_empty() && to.last() == Some(&b' ') {
            to.pop();
        }
        to.push(b'\n');
    }
}

/// Returns a line as it is shown to its reader.
pub(super) fn text(line: &[u8], escaping: Escaping) -> Cow<'_, [u8]> {
    if escaping == Escaping::Raw {
        return Cow::Borrowed(line);
    }
    // The end of a line of DOS, or of a terminal of the node.
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = String::from_utf8_lossy(line);
    let columns: Vec<Cow<'_, str>> = text.split('\t').map(shown).collect();
    Cow::Owned(columns.join("\t").into_bytes())
}

/// Makes whole lines of the pieces that come from one stream of a node.
#[derive(Debug, Default)]
pub struct LineWriter {
    held: Vec<u8>,
}

impl LineWriter {
    /// Takes a piece and writes the lines that it completes.
    pub fn feed(&mut self, node: &str, bytes: &[u8], prefix: &Prefix, to: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, behind) = rest.split_at(end);
            if self.held.is_empty() {
                prefix.write(node, line, to);
            } else {
                self.held.extend_from_slice(line);
                self.finish(node, prefix, to);
            }
            rest = behind.get(1..).unwrap_or_default();
        }
        self.held.extend_from_slice(rest);
        if self.held.len() > LONGEST_LINE {
            self.finish(node, prefix, to);
        }
    }

    /// Writes what came without the end of its line.
    pub fn finish(&mut self, node: &str, prefix: &Prefix, to: &mut Vec<u8>) {
        if !self.held.is_empty() {
            prefix.write(node, &self.held, to);
            self.held.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPE: Prefix =
        Prefix { width: 4, tone: Tone::Strong, style: Style::PLAIN, escaping: Escaping::Raw };

    fn written(pieces: &[&[u8]], prefix: &Prefix) -> String {
        let (mut writer, mut text) = (LineWriter::default(), Vec::new());
        for piece in pieces {
            writer.feed("w-1", piece, prefix, &mut text);
        }
        writer.finish("w-1", prefix, &mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn lines_are_whole_and_aligned() {
        assert_eq!(written(&[b"a\nb", b"c", b"\n\nd"], &PIPE), "w-1:  a\nw-1:  bc\nw-1:\nw-1:  d\n");
        assert_eq!(written(&[], &PIPE), "");
    }

    #[test]
    fn a_line_without_end_is_shown_in_pieces() {
        let long = vec![b'x'; 3 * LONGEST_LINE];
        let pieces: Vec<&[u8]> = long.chunks(1000).collect();
        let text = written(&pieces, &PIPE);
        assert_eq!(text.matches('x').count(), long.len());
        assert!(text.lines().all(|line| line.len() < LONGEST_LINE + 2000));
    }

    #[test]
    fn a_terminal_is_not_moved() {
        let terminal = Prefix { escaping: Escaping::Harmless, ..PIPE };
        assert_eq!(written(&[b"\x1b[2Ja\tb\r\n\xff\n"], &terminal), "w-1:  \\u{1b}[2Ja\tb\nw-1:  \u{fffd}\n");
        assert_eq!(written(&[b"\x1b[2Ja\tb\r\n"], &PIPE), "w-1:  \u{1b}[2Ja\tb\r\n");
    }
}
