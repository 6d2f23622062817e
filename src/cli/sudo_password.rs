//! The password for sudo is read from a file that only its owner can read; it never comes from an argument, which everybody sees.
#![expect(clippy::disallowed_methods, reason = "this module owns the reading of the password's file")]

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use super::failure::Failure;
use crate::command::quote;
use crate::inventory::Secret;

/// The longest password with its end of line; sudo itself reads 1,023 bytes at most.
const LONGEST: u64 = 1025;

/// Returns the password that a file holds: its one line.
pub(super) fn read(path: &Path) -> Result<Secret, Failure> {
    let shown = path.display();
    let unreadable =
        |error: &io::Error| Failure::usage(format!("the password file `{shown}` cannot be read: {error}"));
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    let mode = file.metadata().map_err(|error| unreadable(&error))?.permissions().mode();
    if mode & 0o077 != 0 {
        let message = format!(
            "the password file `{shown}` is open to others than its owner (mode {:04o})",
            mode & 0o777
        );
        return Err(
            Failure::usage(message).hint(format!("close it: `chmod 600 {}`", quote(&shown.to_string())))
        );
    }
    // Room for all at once: a buffer that grows would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2048));
    file.take(LONGEST).read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    line(&bytes).map(|line| Secret::new(line.to_owned())).map_err(|what| {
        Failure::usage(format!("the password file `{shown}` {what}"))
            .hint("it holds the password in its first line, and nothing else".to_owned())
    })
}

/// Returns the one line of a file, without its end.
fn line(bytes: &[u8]) -> Result<&str, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8 text")?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        Err("is empty")
    } else if line.contains(['\n', '\r', '\0']) {
        Err("has more than one line")
    } else if line.len() >= 1024 {
        Err("is longer than any password")
    } else {
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_one_line_of_its_file() {
        for (bytes, password) in [
            (&b"open sesame\n"[..], Ok("open sesame")),
            (b" spaces count ", Ok(" spaces count ")),
            (b"from windows\r\n", Ok("from windows")),
            (b"", Err("is empty")),
            (b"\n", Err("is empty")),
            (b"one\ntwo\n", Err("has more than one line")),
            (b"\xff\n", Err("is not UTF-8 text")),
            (&[b'x'; 1024], Err("is longer than any password")),
        ] {
            assert_eq!(line(bytes), password, "{bytes:?}");
        }
    }
}
